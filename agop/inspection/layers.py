"""Pictures of the layers of a network beside each other."""

from __future__ import annotations

from typing import Any

import numpy as np

from agop.inspection.displays import (
    BLUE,
    STRIP,
    Display,
    all_axes,
    colour_bar,
    name_ticks,
    percent,
    tidy,
)
from agop.inspection.fitted import layers_of, spectrum_of


class LayersDisplay(Display):
    """The AGOPs of several layers beside each other.

    Traces of different layers have different units (squared output per squared
    activation): compare their spectra rather than their sizes.

    Parameters
    ----------
    layers : list of str
        In the order of the network.
    traces : ndarray of shape (n_layers,)
    effective_ranks : ndarray of shape (n_layers,)
    n_features : ndarray of shape (n_layers,)
        Width of each layer.
    shares : list of ndarray of shape (k,)
        For each layer, its leading eigenvalues over its trace.

    Attributes
    ----------
    axes_ : list of matplotlib.axes.Axes
        Those of the trace, the effective rank and the shares, after :meth:`plot`.
    ax_ : matplotlib.axes.Axes
        The first of them.
    figure_ : matplotlib.figure.Figure
        After :meth:`plot`.

    Examples
    --------
    >>> import torch
    >>> from agop import LayersDisplay, Spectrum
    >>> wide = Spectrum.of_matrix(torch.eye(4))
    >>> narrow = Spectrum.of_matrix(torch.diag(torch.tensor([3.0, 1.0, 0.0, 0.0])))
    >>> display = LayersDisplay.from_spectra({"fc1": wide, "fc2": narrow})
    >>> display.effective_ranks.round(1)
    array([4. , 1.6])
    """

    heading = "Layers"
    caption = (
        "For each layer: the trace of its average gradient outer product (in units of "
        "that layer), the number of directions that share it, and what share the "
        "leading directions carry together."
    )

    def __init__(self, layers, traces, effective_ranks, n_features, shares):
        self.layers = layers
        self.traces = traces
        self.effective_ranks = effective_ranks
        self.n_features = n_features
        self.shares = shares

    @classmethod
    def from_estimator(cls, estimator, *, layers=None, ax=None, **kwargs):
        """Draw the layers of a network at which an estimator was fitted.

        Parameters
        ----------
        estimator : NetworkAGOP, Pipeline or search
            A fitted estimator with AGOPs at layers, or what holds one.
        layers : list of str, default=None
            All by default.
        ax : sequence of 3 Axes, default=None
            Where to draw; a new figure by default.
        **kwargs : dict
            Passed to :meth:`plot`.

        Returns
        -------
        LayersDisplay
        """
        known = layers_of(estimator)
        if not known:
            raise ValueError(
                "The estimator knows no layers. Fit NetworkAGOP with layers=..., or "
                "give spectra by name to LayersDisplay.from_spectra."
            )
        spectra = {layer: spectrum_of(estimator, layer) for layer in layers or known}
        return cls.from_spectra(spectra, ax=ax, **kwargs)

    @classmethod
    def from_spectra(cls, spectra, *, ax=None, **kwargs):
        """Draw spectra by name.

        Parameters
        ----------
        spectra : dict of Spectrum
            By layer, in the order of the network.
        ax : sequence of 3 Axes, default=None
            Where to draw; a new figure by default.
        **kwargs : dict
            Passed to :meth:`plot`.

        Returns
        -------
        LayersDisplay
        """
        found = list(spectra.values())
        display = cls(
            [str(layer) for layer in spectra],
            np.array([spectrum.trace for spectrum in found]),
            np.array([spectrum.effective_rank for spectrum in found]),
            np.array([spectrum.directions.shape[1] for spectrum in found]),
            [spectrum.shares.cpu().numpy() for spectrum in found],
        )
        return display.plot(ax, **kwargs)

    def plot(self, ax=None, *, n_shown=20, point_kwargs=None, image_kwargs=None):
        """Draw one row for each layer, the first on top.

        Parameters
        ----------
        ax : sequence of 3 Axes, default=None
            Where to draw; a new figure by default.
        n_shown : int, default=20
            Number of eigenvalues, at most.
        point_kwargs : dict, default=None
            Passed to :meth:`matplotlib.axes.Axes.plot`, for traces and ranks.
        image_kwargs : dict, default=None
            Passed to :meth:`matplotlib.axes.Axes.imshow`, for the shares.

        Returns
        -------
        LayersDisplay
        """
        places = np.arange(len(self.layers))
        size = (10.5, 1.5 + 0.32 * len(places))
        layout = [["trace", "rank", "shares"]]
        trace, rank, heat = all_axes(ax, layout, size, width_ratios=[2, 2, 3])
        dots = {"color": BLUE, "marker": "o", "linestyle": "none"}
        dots |= point_kwargs or {}
        trace.plot(self.traces, places, **dots)
        trace.set(xlabel="trace of the AGOP", title="how strongly")
        rank.plot(self.n_features, places, **{**dots, "color": "0.6", "marker": "|"})
        rank.plot(self.effective_ranks, places, **dots)
        rank.set(xlabel="effective rank, of width (|)", title="how many")
        _decades(trace, self.traces)
        _decades(rank, np.concatenate([self.effective_ranks, self.n_features]))
        for axes in (trace, rank):
            axes.set_ylim(len(places) - 0.5, -0.5)
            tidy(axes, "both")
        self._draw_shares(heat, n_shown, image_kwargs)
        name_ticks(trace.yaxis, places, self.layers)
        for axes in (rank, heat):
            axes.set_yticks(places, [""] * len(places))
        return self._drawn(trace, rank, heat)

    def _draw_shares(self, ax, n_shown: int, image_kwargs) -> None:
        strip = self._cumulative()[:, :n_shown]
        extent = (0.5, strip.shape[1] + 0.5, len(strip) - 0.5, -0.5)
        colours = {"cmap": "viridis", "vmin": 0, "vmax": 1, "extent": extent}
        colours |= {**STRIP, **(image_kwargs or {})}
        percent(colour_bar(ax, ax.imshow(strip, **colours), "share of the trace").yaxis)
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.set(xlabel="direction", title="share of all directions up to it")

    def _cumulative(self) -> np.ndarray:
        """Running sums of the shares, of shape (n_layers, most directions)."""
        strip = np.full((len(self.shares), max(map(len, self.shares))), np.nan)
        for row, shares in zip(strip, self.shares, strict=True):
            row[: len(shares)] = np.cumsum(shares)
        return strip

    def table(self) -> dict[str, Any]:
        """Trace, effective rank, width and leading shares by layer.

        Returns
        -------
        dict of sequences of length n_layers
        """
        columns: dict[str, Any] = {
            "layer": self.layers,
            "trace": self.traces,
            "effective rank": self.effective_ranks,
            "width": self.n_features,
        }
        for index, column in enumerate(self._cumulative().T[:10], start=1):
            columns[f"share up to direction {index}"] = column
        return columns

    def summary(self) -> str:
        """Which layer has the smallest effective rank, and which the largest.

        Returns
        -------
        str
        """
        low, high = np.argmin(self.effective_ranks), np.argmax(self.effective_ranks)
        return (
            f"{len(self.layers)} layers. The effective rank is smallest at "
            f"{self.layers[low]} ({self.effective_ranks[low]:.3g} of "
            f"{self.n_features[low]}) and largest at {self.layers[high]} "
            f"({self.effective_ranks[high]:.3g} of {self.n_features[high]})."
        )


def _decades(ax, values) -> None:
    """Show whole powers of ten on the horizontal axis, and nothing between them."""
    positive = np.asarray(values)[np.asarray(values) > 0]
    if len(positive):
        low, high = np.log10(positive.min()), np.log10(positive.max())
        ends = 10.0 ** np.floor(low - 0.1), 10.0 ** np.ceil(high + 0.1)
        ax.set(xscale="log", xlim=ends)
        ax.xaxis.set_minor_formatter(lambda value, place: "")

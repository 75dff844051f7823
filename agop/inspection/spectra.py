"""Pictures of spectra."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from agop.core.spectrum import Spectrum
from agop.inspection.displays import (
    BLUE,
    ORANGE,
    Display,
    draw_intervals,
    one_axes,
    percent,
    tidy,
)
from agop.inspection.fitted import of_layer, spectrum_of

#: The ground behind directions that are not told apart.
_TIED = "0.88"


class SpectrumDisplay(Display):
    """Eigenvalues of an AGOP: how many directions a model responds to.

    Parameters
    ----------
    shares : ndarray of shape (k,)
        Each eigenvalue over the trace, descending.
    effective_rank : float
        (Σλ)² / Σλ², how many directions share the trace.
    n_features : int
        Size of the matrix.
    intervals : ndarray of shape (2, m), default=None
        Lower and upper ends of intervals for the leading m ≤ k shares.
    groups : list of lists of int, default=None
        Indices of eigenvalues that are closer than their error: of their directions,
        only the subspace that they span is known.
    level : float, default=0.95
        Of the intervals.

    Attributes
    ----------
    cumulative_share : ndarray of shape (k,)
        Share of the trace that the leading directions carry.
    ax_ : matplotlib.axes.Axes
        After :meth:`plot`.
    figure_ : matplotlib.figure.Figure
        After :meth:`plot`.

    Examples
    --------
    >>> from agop import SpectrumDisplay
    >>> display = SpectrumDisplay.from_spectrum([3.0, 1.0, 0.0])
    >>> display.cumulative_share
    array([0.75, 1.  , 1.  ])
    >>> print(display.ax_.get_title())
    effective rank 1.6 of 3
    """

    heading = "Spectrum"
    caption = (
        "Bars: the share of each direction in the trace of the average gradient outer "
        "product. Line: the share of all directions up to it. The effective rank is "
        "the number of equal directions that would share the trace in the same way."
    )

    def __init__(
        self,
        shares,
        effective_rank,
        n_features,
        *,
        intervals=None,
        groups=None,
        level=0.95,
    ):
        self.shares = shares
        self.effective_rank = effective_rank
        self.n_features = n_features
        self.intervals = intervals
        self.groups = groups
        self.level = level

    @property
    def cumulative_share(self) -> np.ndarray:
        """Share of the trace that the leading directions carry."""
        return np.cumsum(self.shares)

    @classmethod
    def from_estimator(
        cls, estimator, *, layer=None, bootstrap=None, ax=None, **kwargs
    ):
        """Draw the spectrum of the AGOP of a fitted estimator.

        Parameters
        ----------
        estimator : estimator, Pipeline or search
            A fitted estimator with an AGOP, or a pipeline or search that holds one.
        layer : str, default=None
            Which layer, of a network that was examined at several.
        bootstrap : Bootstrap, or dict of Bootstrap by layer, default=None
            Resamples, for intervals and for groups that are not told apart.
        ax : matplotlib.axes.Axes, default=None
            Where to draw; a new figure by default.
        **kwargs : dict
            Passed to :meth:`from_spectrum`.

        Returns
        -------
        SpectrumDisplay
        """
        if bootstrap is not None:
            bootstrap = of_layer(estimator, bootstrap, layer)
        spectrum = spectrum_of(estimator, layer)
        return cls.from_spectrum(spectrum, bootstrap=bootstrap, ax=ax, **kwargs)

    @classmethod
    def from_spectrum(cls, spectrum, *, bootstrap=None, level=0.95, ax=None, **kwargs):
        """Draw a spectrum, or eigenvalues.

        Parameters
        ----------
        spectrum : Spectrum or array-like of shape (k,)
            Eigenvalues are taken to be all of the matrix.
        bootstrap : Bootstrap, default=None
            Resamples, for intervals and for groups that are not told apart.
        level : float, default=0.95
            Of the intervals.
        ax : matplotlib.axes.Axes, default=None
            Where to draw; a new figure by default.
        **kwargs : dict
            Passed to :meth:`plot`.

        Returns
        -------
        SpectrumDisplay
        """
        if not isinstance(spectrum, Spectrum):
            spectrum = _spectrum_of_values(np.asarray(spectrum, dtype=float))
        intervals = groups = None
        if bootstrap is not None:
            ends = np.asarray(bootstrap.eigenvalue_intervals(level))
            intervals, groups = ends / spectrum.trace, bootstrap.groups
        display = cls(
            spectrum.shares.cpu().numpy(),
            spectrum.effective_rank,
            spectrum.directions.shape[1],
            intervals=intervals,
            groups=groups,
            level=level,
        )
        return display.plot(ax, **kwargs)

    def plot(self, ax=None, *, n_shown=15, bar_kwargs=None, line_kwargs=None):
        """Draw the shares as bars and their running sum as a line.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, default=None
            Where to draw; a new figure by default.
        n_shown : int, default=15
            Number of eigenvalues, at most.
        bar_kwargs : dict, default=None
            Passed to :meth:`matplotlib.axes.Axes.bar`.
        line_kwargs : dict, default=None
            Passed to :meth:`matplotlib.axes.Axes.plot`.

        Returns
        -------
        SpectrumDisplay
        """
        ax = one_axes(ax)
        shares = self.shares[:n_shown]
        number = np.arange(1, len(shares) + 1)
        bars = {"color": BLUE, "label": "one direction", **(bar_kwargs or {})}
        line = {
            "color": ORANGE,
            "marker": "o",
            "markersize": 4,
            "label": "all up to it",
            **(line_kwargs or {}),
        }
        self._draw_groups(ax, len(shares))
        ax.bar(number, shares, **bars)
        if self.intervals is not None:
            ends = np.asarray(self.intervals)[:, : len(shares)]
            label = f"{self.level:.0%} interval"
            draw_intervals(ax.vlines, number[: ends.shape[1]], ends, label=label)
        ax.plot(number, self.cumulative_share[:n_shown], **line)
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.set(
            xlim=(0.4, max(len(shares), 3) + 0.6),
            ylim=(0, 1.05),
            xlabel="direction",
            ylabel="share of the trace",
            title=f"effective rank {self.effective_rank:.2g} of {self.n_features}",
        )
        percent(ax.yaxis)
        tidy(ax, "y")
        ax.legend(frameon=False, loc="center right")
        return self._drawn(ax)

    def _draw_groups(self, ax, n_shown: int) -> None:
        label = "not told apart"
        for group in self._tied():
            first, last = min(group) + 1, min(max(group) + 1, n_shown)
            if first < last:
                place = {"xmin": first - 0.45, "xmax": last + 0.45, "zorder": -1}
                ax.axvspan(**place, color=_TIED, linewidth=0, label=label)
                label = "_"

    def _tied(self) -> list:
        return [list(group) for group in self.groups or () if len(group) > 1]

    def table(self) -> dict[str, Any]:
        """Shares and their running sum, with intervals if there are any.

        Returns
        -------
        dict of sequences of length k
        """
        count = len(self.shares)
        columns: dict[str, Any] = {
            "direction": np.arange(1, count + 1),
            "share of the trace": self.shares,
            "all up to it": self.cumulative_share,
        }
        if self.intervals is not None:
            ends = np.full((2, count), np.nan)
            ends[:, : np.shape(self.intervals)[1]] = self.intervals
            columns["lower end"], columns["upper end"] = ends
        if self.groups is not None:
            columns["not told apart from"] = [self._others(i) for i in range(count)]
        return columns

    def _others(self, index: int) -> str:
        group = next((group for group in self._tied() if index in group), [])
        return ", ".join(str(other + 1) for other in group if other != index)

    def summary(self) -> str:
        """The leading share, the effective rank, and what is not told apart.

        Returns
        -------
        str
        """
        first = self.shares[0] if len(self.shares) else 0.0
        text = (
            f"The first of {self.n_features} directions carries {first:.1%} of the "
            f"trace; the effective rank is {self.effective_rank:.3g}."
        )
        for group in self._tied():
            numbers = ", ".join(str(index + 1) for index in group)
            text += f" Directions {numbers} are closer than their error."
        return text


def _spectrum_of_values(values: np.ndarray) -> Spectrum:
    if values.ndim != 1 or not len(values) or not (values >= 0).all():
        raise ValueError(
            "Eigenvalues are a non-empty row of non-negative numbers; got an "
            f"array of shape {values.shape}. For a matrix, use "
            "Spectrum.of_matrix(torch.as_tensor(matrix))."
        )
    descending = torch.from_numpy(np.sort(values)[::-1].copy())
    unknown = descending.new_empty(0, len(values))  # directions do not matter
    return Spectrum(descending, unknown, float(values.sum()))

"""Pictures of spectra and rounds, and what all displays share.

A display holds numbers. ``from_estimator`` computes them and draws, ``plot`` draws
again, on any axes. This is the only module that imports matplotlib, when something is
drawn: everything else works without it.
"""

from __future__ import annotations

import numpy as np
import torch
from sklearn.base import is_classifier

from agop.core.spectrum import Spectrum
from agop.inspection.fitted import last_step, spectrum_of

GREY = "0.45"
BLUE, ORANGE = "#1f5a96", "#d1662c"  # apart in grey and to all eyes

#: Characters of a feature name that are drawn.
_NAME_LENGTH = 40


# ------------------------------------------------------------------------ matplotlib


def mosaic(layout, **kwargs):
    """A figure that belongs to no window, and its axes by name.

    Parameters
    ----------
    layout : str or nested list
        As for :meth:`matplotlib.figure.Figure.subplot_mosaic`.
    **kwargs : dict
        Passed to :class:`matplotlib.figure.Figure`.

    Returns
    -------
    figure : matplotlib.figure.Figure
    axes : dict of matplotlib.axes.Axes
    """
    pyplot()  # says what to do if matplotlib is missing
    from matplotlib.figure import Figure

    figure = Figure(layout="constrained", **kwargs)
    return figure, figure.subplot_mosaic(layout)


def pyplot():
    """matplotlib.pyplot, or an error that names the package to install."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            "Drawing needs the package matplotlib, which cannot be imported here. "
            "Install it with `pip install matplotlib`, or read the numbers from the "
            "fitted attributes."
        ) from error
    return plt


def one_axes(ax, width: float = 6.0, height: float = 4.0):
    """The axes given, or those of a new figure."""
    plt = pyplot()
    if ax is None:
        _, ax = plt.subplots(figsize=(width, height), layout="constrained")
    return ax


def tidy(ax, grid: str) -> None:
    """Two spines and a faint grid behind the data."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis=grid, color="0.9", linewidth=0.8)
    ax.set_axisbelow(True)


def _shown(name: str) -> str:
    return name if len(name) <= _NAME_LENGTH else name[: _NAME_LENGTH - 1] + "…"


def name_ticks(axis, positions, names) -> None:
    """Label an axis with feature names, literally, and shortened if very long."""
    # A name with two dollar signs is not a formula.
    axis.set_ticks(positions, [_shown(name) for name in names], parse_math=False)


def percent(axis) -> None:
    """Show shares in per cent."""
    from matplotlib.ticker import PercentFormatter

    axis.set_major_formatter(PercentFormatter(xmax=1))


# -------------------------------------------------------------------------- displays


class SpectrumDisplay:
    """Eigenvalues of an AGOP: how many directions a model responds to.

    Parameters
    ----------
    shares : ndarray of shape (k,)
        Each eigenvalue over the trace, descending.
    effective_rank : float
        (Σλ)² / Σλ², how many directions share the trace.
    n_features : int
        Size of the matrix.

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

    def __init__(self, shares, effective_rank, n_features):
        self.shares = shares
        self.effective_rank = effective_rank
        self.n_features = n_features

    @property
    def cumulative_share(self) -> np.ndarray:
        """Share of the trace that the leading directions carry."""
        return np.cumsum(self.shares)

    @classmethod
    def from_estimator(cls, estimator, *, ax=None, **kwargs):
        """Draw the spectrum of the AGOP of a fitted estimator.

        Parameters
        ----------
        estimator : estimator, Pipeline or search
            A fitted estimator with an AGOP, or a pipeline or search that holds one.
        ax : matplotlib.axes.Axes, default=None
            Where to draw; a new figure by default.
        **kwargs : dict
            Passed to :meth:`plot`.

        Returns
        -------
        SpectrumDisplay
        """
        return cls.from_spectrum(spectrum_of(estimator), ax=ax, **kwargs)

    @classmethod
    def from_spectrum(cls, spectrum, *, ax=None, **kwargs):
        """Draw a spectrum, or eigenvalues.

        Parameters
        ----------
        spectrum : Spectrum or array-like of shape (k,)
            Eigenvalues are taken to be all of the matrix.
        ax : matplotlib.axes.Axes, default=None
            Where to draw; a new figure by default.
        **kwargs : dict
            Passed to :meth:`plot`.

        Returns
        -------
        SpectrumDisplay
        """
        if not isinstance(spectrum, Spectrum):
            values = np.asarray(spectrum, dtype=float)
            if values.ndim != 1 or not len(values) or not (values >= 0).all():
                raise ValueError(
                    "Eigenvalues are a non-empty row of non-negative numbers; got an "
                    f"array of shape {values.shape}. For a matrix, use "
                    "Spectrum.of_matrix(torch.as_tensor(matrix))."
                )
            descending = torch.from_numpy(np.sort(values)[::-1].copy())
            unknown = descending.new_empty(0, len(values))  # directions do not matter
            spectrum = Spectrum(descending, unknown, float(values.sum()))
        display = cls(
            spectrum.shares.cpu().numpy(),
            spectrum.effective_rank,
            spectrum.directions.shape[1],
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
        ax.bar(number, shares, **bars)
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
        self.ax_, self.figure_ = ax, ax.figure
        return self


class HistoryDisplay:
    """The rounds of a recursive feature machine: what each metric update brought.

    Below every round stand the penalty and the effective rank of the AGOP that was
    its metric. A loss that was not estimated in some round (NaN) is left out.

    Parameters
    ----------
    history : dict of ndarray
        As the fitted attribute `history_`.
    best_iter : int
        The round that was kept.
    loss : str, default="loss"
        Name of the loss.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        After :meth:`plot`.
    figure_ : matplotlib.figure.Figure
        After :meth:`plot`.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from agop import HistoryDisplay, RFMRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = RFMRegressor(kernel="laplace", random_state=0).fit(X, y)
    >>> display = HistoryDisplay.from_estimator(model)
    >>> print(display.ax_.get_ylabel())
    squared error
    """

    def __init__(self, history, best_iter, loss="loss"):
        self.history = history
        self.best_iter = best_iter
        self.loss = loss

    @classmethod
    def from_estimator(cls, estimator, *, ax=None, **kwargs):
        """Draw the rounds of a fitted recursive feature machine.

        Parameters
        ----------
        estimator : RFMRegressor, RFMClassifier, Pipeline or search
            A fitted machine, or a pipeline or search that holds one.
        ax : matplotlib.axes.Axes, default=None
            Where to draw; a new figure by default.
        **kwargs : dict
            Passed to :meth:`plot`.

        Returns
        -------
        HistoryDisplay
        """
        machine = last_step(estimator)
        loss = "log loss" if is_classifier(machine) else "squared error"
        return cls(machine.history_, machine.best_iter_, loss).plot(ax, **kwargs)

    def plot(self, ax=None, *, line_kwargs=None, best_kwargs=None):
        """Draw the losses by round and mark the round that was kept.

        Where no loss was estimated, because all settings were given, the effective
        rank is drawn instead.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, default=None
            Where to draw; a new figure by default.
        line_kwargs : dict, default=None
            Passed to :meth:`matplotlib.axes.Axes.plot`, for every line.
        best_kwargs : dict, default=None
            Passed to :meth:`matplotlib.axes.Axes.axvline`, for the round kept.

        Returns
        -------
        HistoryDisplay
        """
        ax = one_axes(ax)
        curves = [
            ("cross_fitted", "cross-fitted", BLUE, "o"),
            ("leave_one_out", "leave-one-out", ORANGE, "s"),
        ]
        curves = [c for c in curves if np.isfinite(self.history[c[0]]).any()]
        ylabel = self.loss
        if not curves:
            curves = [("effective_rank", "effective rank of the AGOP", BLUE, "o")]
            ylabel = "effective rank"
        best = {"color": GREY, "linestyle": ":", "label": "round kept"}
        ax.axvline(self.best_iter, **{**best, **(best_kwargs or {})})
        for name, label, color, marker in curves:
            style = {"color": color, "marker": marker, "markersize": 5, "label": label}
            values = np.asarray(self.history[name], dtype=float)
            known = np.isfinite(values)
            ax.plot(
                np.asarray(self.history["round"])[known],
                values[known],
                **{**style, **(line_kwargs or {})},
            )
        self._round_ticks(ax)
        ax.set_ylabel(ylabel)
        tidy(ax, "y")
        ax.legend(frameon=False)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _round_ticks(self, ax) -> None:
        rounds = np.asarray(self.history["round"])
        shown = rounds[:: -(-len(rounds) // 8)]  # eight labels fit side by side
        alpha, rank = self.history["alpha"], self.history["effective_rank"]
        labels = [f"{t}\n{_or_dash(alpha[t])}\n{_or_dash(rank[t])}" for t in shown]
        ax.set_xticks(shown, labels)
        ax.set_xlim(-0.4, max(rounds[-1], 1) + 0.4)
        ax.set_xlabel("round, penalty, effective rank of its metric")


def _or_dash(value: float) -> str:
    return f"{value:.2g}" if np.isfinite(value) else "–"

"""Pictures of what a model has learned, as scikit-learn style displays.

A display holds numbers. ``from_estimator`` computes them and draws, ``plot`` draws
again, on any axes. This is the only module that knows matplotlib, and it is imported
when something is drawn, so that everything else works without it.
"""

from __future__ import annotations

import numpy as np
import torch
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from agop.core.spectrum import Spectrum

_GREY = "0.45"
_FIRST, _SECOND = "#1f5a96", "#d1662c"  # blue and orange, apart in grey and to all eyes

#: Characters of a feature name that are drawn.
_NAME_LENGTH = 40


# ------------------------------------------------------------------- the estimators


def _last_step(estimator):
    """The fitted estimator itself, or the last step of a fitted pipeline."""
    if isinstance(estimator, Pipeline):
        estimator = estimator[-1]
    check_is_fitted(estimator)
    return estimator


def _spectrum(estimator) -> Spectrum:
    """All eigenvalues and directions: `eigenvalues_` has the leading ones only."""
    estimator = _last_step(estimator)
    # A machine on wide data keeps a thin factor: no (d, d) matrix is formed for it.
    factor = getattr(estimator, "_agop_factor", None)
    if factor is not None:
        return Spectrum.of_factor(torch.as_tensor(factor))
    return Spectrum.of_matrix(torch.as_tensor(np.asarray(estimator.agop_)))


def _feature_names(estimator, n_features: int, names=None) -> list[str]:
    """Names that were given, or that the estimator or its pipeline knows, or x0 …"""
    if names is None and isinstance(estimator, Pipeline):
        try:
            names = estimator[:-1].get_feature_names_out()
        except (AttributeError, ValueError):  # a step that has no names to offer
            names = getattr(estimator, "feature_names_in_", None)
        if names is not None and len(names) != n_features:
            names = None
    if names is None:
        names = getattr(_last_step(estimator), "feature_names_in_", None)
    if names is None:
        names = [f"x{index}" for index in range(n_features)]
    names = [str(name) for name in names]
    if len(names) != n_features:
        raise ValueError(
            f"feature_names has {len(names)} names, but the estimator was fitted on "
            f"{n_features} features. Give one name for each, in the order of the "
            "columns of X."
        )
    return names


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
    _pyplot()
    from matplotlib.figure import Figure

    figure = Figure(layout="constrained", **kwargs)
    return figure, figure.subplot_mosaic(layout)


def _pyplot():
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            "Drawing needs the package matplotlib, which cannot be imported here. "
            "Install it with `pip install matplotlib`; the display holds the numbers "
            "without it."
        ) from error
    return plt


def _one_axes(ax, width: float = 6.0, height: float = 4.0):
    plt = _pyplot()
    if ax is None:
        _, ax = plt.subplots(figsize=(width, height), layout="constrained")
    return ax


def _tidy(ax, grid: str) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis=grid, color="0.9", linewidth=0.8)
    ax.set_axisbelow(True)


def _shown(name: str) -> str:
    return name if len(name) <= _NAME_LENGTH else name[: _NAME_LENGTH - 1] + "…"


def _name_ticks(axis, positions, names) -> None:
    # A name is text, never mathematics: one with two dollar signs would not be drawn.
    axis.set_ticks(positions, [_shown(name) for name in names], parse_math=False)


def _percent(axis) -> None:
    from matplotlib.ticker import PercentFormatter

    axis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))


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
        estimator : estimator or Pipeline
            A fitted estimator with an AGOP, or a pipeline that ends with one.
        ax : matplotlib.axes.Axes, default=None
            Where to draw; a new figure by default.
        **kwargs : dict
            Passed to :meth:`plot`.

        Returns
        -------
        SpectrumDisplay
        """
        return cls.from_spectrum(_spectrum(estimator), ax=ax, **kwargs)

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
            # Only the eigenvalues matter: axes stand in for the directions.
            spectrum = Spectrum.of_diagonal(torch.as_tensor(values))
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
        ax = _one_axes(ax)
        shares = self.shares[:n_shown]
        number = np.arange(1, len(shares) + 1)
        bars = {"color": _FIRST, "label": "one direction", **(bar_kwargs or {})}
        line = {
            "color": _SECOND,
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
        _percent(ax.yaxis)
        _tidy(ax, "y")
        ax.legend(frameon=False, loc="center right")
        self.ax_, self.figure_ = ax, ax.figure
        return self


class FeatureImportancesDisplay:
    """The diagonal of an AGOP: which features a model responds to.

    An importance is the mean squared derivative with respect to one feature, over the
    sum of all. It depends on the unit of the feature: scale the columns first.

    Parameters
    ----------
    importances : ndarray of shape (n_features,)
        They sum to 1.
    feature_names : list of str

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        After :meth:`plot`.
    figure_ : matplotlib.figure.Figure
        After :meth:`plot`.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from agop import FeatureImportancesDisplay, RFMRegressor
    >>> X, y = load_diabetes(return_X_y=True, as_frame=True)
    >>> model = RFMRegressor(n_iter=1, bandwidth="median", alpha=1.0).fit(X, y)
    >>> display = FeatureImportancesDisplay.from_estimator(model, max_features=3)
    >>> [label.get_text() for label in display.ax_.get_yticklabels()]
    ['s5', 'bmi', 'bp']
    """

    def __init__(self, importances, feature_names):
        self.importances = importances
        self.feature_names = feature_names

    @classmethod
    def from_estimator(cls, estimator, *, feature_names=None, ax=None, **kwargs):
        """Draw the feature importances of a fitted estimator.

        Parameters
        ----------
        estimator : estimator or Pipeline
            A fitted estimator with an AGOP, or a pipeline that ends with one.
        feature_names : array-like of str, default=None
            The names of the columns of X by default, if it had names.
        ax : matplotlib.axes.Axes, default=None
            Where to draw; a new figure by default.
        **kwargs : dict
            Passed to :meth:`plot`.

        Returns
        -------
        FeatureImportancesDisplay
        """
        importances = np.asarray(_last_step(estimator).feature_importances_)
        names = _feature_names(estimator, len(importances), feature_names)
        return cls(importances, names).plot(ax, **kwargs)

    def plot(self, ax=None, *, max_features=10, bar_kwargs=None, line_kwargs=None):
        """Draw the largest importances as horizontal bars.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, default=None
            Where to draw; a new figure by default.
        max_features : int, default=10
            Number of features, at most.
        bar_kwargs : dict, default=None
            Passed to :meth:`matplotlib.axes.Axes.barh`.
        line_kwargs : dict, default=None
            Passed to :meth:`matplotlib.axes.Axes.axvline`, which marks the share that
            each feature would have if all were alike.

        Returns
        -------
        FeatureImportancesDisplay
        """
        order = np.argsort(-self.importances, kind="stable")[:max_features]
        ax = _one_axes(ax, height=1.2 + 0.28 * len(order))
        line = {"color": _GREY, "linestyle": ":", "label": "if all were alike"}
        ax.barh(
            np.arange(len(order)),
            self.importances[order],
            **{"color": _FIRST, **(bar_kwargs or {})},
        )
        ax.axvline(1 / len(self.importances), **{**line, **(line_kwargs or {})})
        _name_ticks(ax.yaxis, np.arange(len(order)), self._names(order))
        ax.invert_yaxis()
        ax.set_xlabel("share of the trace")
        _percent(ax.xaxis)
        _tidy(ax, "x")
        ax.legend(frameon=False, loc="lower right")
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _names(self, order) -> list[str]:
        return [self.feature_names[index] for index in order]

"""Pictures of features: how much each one counts, and learned directions."""

from __future__ import annotations

from typing import Any

import numpy as np

from agop.inspection.displays import (
    BLUE,
    GREY,
    Display,
    all_axes,
    draw_intervals,
    name_ticks,
    one_axes,
    percent,
    tidy,
    unique,
)
from agop.inspection.fitted import (
    importances_of,
    look_of,
    names_of,
    of_layer,
    spectrum_of,
)
from agop.inspection.forms import Form, Style
from agop.inspection.shapes import as_form


class FeatureImportancesDisplay(Display):
    """The diagonal of an AGOP: which features a model responds to.

    An importance is the mean squared derivative with respect to one feature, over the
    sum of all. It depends on the unit of the feature: scale the columns first.

    Parameters
    ----------
    importances : ndarray of shape (n_features,)
        They sum to 1.
    feature_names : list of str
    intervals : ndarray of shape (2, n_features), default=None
        Lower and upper ends of an interval for each importance.
    level : float, default=0.95
        Of the intervals.

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
    >>> model = RFMRegressor(random_state=0).fit(X, y)
    >>> display = FeatureImportancesDisplay.from_estimator(model, max_features=3)
    >>> sorted(label.get_text() for label in display.ax_.get_yticklabels())
    ['bmi', 'bp', 's5']
    """

    heading = "Feature importances"
    caption = (
        "The diagonal of the average gradient outer product: the mean squared "
        "derivative of the outputs with respect to each feature, over the sum of all. "
        "It depends on the units of the features."
    )

    def __init__(self, importances, feature_names, *, intervals=None, level=0.95):
        self.importances = importances
        self.feature_names = feature_names
        self.intervals = intervals
        self.level = level

    @classmethod
    def from_estimator(
        cls,
        estimator,
        *,
        layer=None,
        feature_names=None,
        bootstrap=None,
        level=0.95,
        ax=None,
        **kwargs,
    ):
        """Draw the feature importances of a fitted estimator.

        Parameters
        ----------
        estimator : estimator, Pipeline or search
            A fitted estimator with an AGOP, or a pipeline or search that holds one.
        layer : str, default=None
            Which layer, of a network that was examined at several.
        feature_names : array-like of str, default=None
            The names of the columns of X by default, if it had names.
        bootstrap : Bootstrap, default=None
            Resamples, for intervals.
        level : float, default=0.95
            Of the intervals.
        ax : matplotlib.axes.Axes, default=None
            Where to draw; a new figure by default.
        **kwargs : dict
            Passed to :meth:`plot`.

        Returns
        -------
        FeatureImportancesDisplay
        """
        importances = importances_of(estimator, layer)
        names = names_of(estimator, len(importances), feature_names, layer)
        intervals = None
        if bootstrap is not None:
            found = of_layer(estimator, bootstrap, layer)
            intervals = np.asarray(found.importance_intervals(level))
        display = cls(importances, names, intervals=intervals, level=level)
        return display.plot(ax, **kwargs)

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
        ax = one_axes(ax, height=1.2 + 0.28 * len(order))
        line = {"color": GREY, "linestyle": ":", "label": "if all were alike"}
        ax.barh(
            np.arange(len(order)),
            self.importances[order],
            **{"color": BLUE, **(bar_kwargs or {})},
        )
        ax.axvline(1 / len(self.importances), **{**line, **(line_kwargs or {})})
        if self.intervals is not None:
            ends = np.asarray(self.intervals)[:, order]
            label = f"{self.level:.0%} interval"
            draw_intervals(ax.hlines, np.arange(len(order)), ends, label=label)
        name_ticks(ax.yaxis, np.arange(len(order)), self._names(order))
        ax.invert_yaxis()
        ax.set_xlabel("share of the trace")
        percent(ax.xaxis)
        tidy(ax, "x")
        ax.legend(frameon=False, loc="lower right")
        return self._drawn(ax)

    def table(self) -> dict[str, Any]:
        """Importances, the largest first, with intervals if there are any.

        Returns
        -------
        dict of sequences of length n_features
        """
        order = np.argsort(-self.importances, kind="stable")
        columns: dict[str, Any] = {
            "feature": self._names(order),
            "share of the trace": self.importances[order],
        }
        if self.intervals is not None:
            columns["lower end"], columns["upper end"] = np.asarray(self.intervals)[
                :, order
            ]
        return columns

    def summary(self) -> str:
        """The feature that counts most.

        Returns
        -------
        str
        """
        first = int(np.argmax(self.importances))
        return (
            f"The largest of {len(self.importances)} importances is that of "
            f"{self.feature_names[first]}, with {self.importances[first]:.1%}."
        )

    def _names(self, order) -> list[str]:
        return [self.feature_names[index] for index in order]


class DirectionDisplay(Display):
    """Learned directions, or the diagonal of an AGOP, in the shape of the inputs.

    The sign of a direction is arbitrary; within one direction it says which features
    push the output together (same colour) and which against each other.

    Parameters
    ----------
    values : ndarray of shape (k, n_features)
    titles : list of str
        One for each row of `values`.
    signed : bool
        Whether zero is the middle of the scale (a direction) or its end (a diagonal).
    shape : tuple of int or Form, default=None
        What rows of X are: (length,) of series; (height, width), (height, width,
        channels) or (channels, height, width) of images; one of
        :class:`~agop.inspection.Image`, :class:`~agop.inspection.Series`,
        :class:`~agop.inspection.Table` and :class:`~agop.inspection.Tokens`; None for
        a table.
    feature_names : list of str, default=None
        For a table.

    Attributes
    ----------
    axes_ : list of matplotlib.axes.Axes
        One for each row of `values`, after :meth:`plot`.
    ax_ : matplotlib.axes.Axes
        The first of them.
    figure_ : matplotlib.figure.Figure
        After :meth:`plot`.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from agop import DirectionDisplay, RFMClassifier
    >>> X, y = load_digits(n_class=2, return_X_y=True)
    >>> model = RFMClassifier(random_state=0).fit(X, y)
    >>> display = DirectionDisplay.from_estimator(model, shape=(8, 8))
    >>> display.values.shape
    (1, 64)
    >>> display = DirectionDisplay.from_estimator(model, what="diagonal", shape=(8, 8))
    >>> round(float(display.values.sum()), 3)
    1.0
    """

    heading = "Directions"
    caption = (
        "A direction says which features push the output together (same colour) and "
        "which against each other; its sign as a whole is arbitrary. A diagonal says "
        "how much each feature counts."
    )

    def __init__(self, values, titles, *, signed, shape=None, feature_names=None):
        self.values = values
        self.titles = titles
        self.signed = signed
        self.shape = shape
        self.feature_names = feature_names

    @classmethod
    def from_estimator(
        cls,
        estimator,
        *,
        layer=None,
        what="directions",
        n_directions=1,
        shape=None,
        feature_names=None,
        ax=None,
        **kwargs,
    ):
        """Draw directions of a fitted estimator, or the diagonal of its AGOP.

        Parameters
        ----------
        estimator : estimator, Pipeline or search
            A fitted estimator with an AGOP, or a pipeline or search that holds one.
        layer : str, default=None
            Which layer, of a network that was examined at several.
        what : {"directions", "diagonal"}, default="directions"
            The leading eigenvectors, or the share of each feature in the trace.
        n_directions : int, default=1
            Number of eigenvectors.
        shape : tuple of int or Form, default=None
            What rows of X are, if not a table. A network that was given images knows.
        feature_names : array-like of str, default=None
            The names of the columns of X by default, if it had names.
        ax : Axes or sequence of Axes, default=None
            Where to draw, one for each direction; a new figure by default.
        **kwargs : dict
            Passed to :meth:`plot`.

        Returns
        -------
        DirectionDisplay
        """
        if what == "diagonal":
            values = importances_of(estimator, layer)[None]
            titles = ["diagonal of the AGOP"]
        elif what == "directions":
            if n_directions < 1:
                raise ValueError(f"n_directions={n_directions!r}: draw at least one.")
            spectrum = spectrum_of(estimator, layer).truncated(n_directions)
            values = spectrum.directions.cpu().numpy()
            if not len(values):
                raise ValueError(
                    "The AGOP is zero: the model is constant, and has no directions."
                )
            titles = [
                f"direction {number}: {share:.0%}"
                for number, share in enumerate(spectrum.shares.tolist(), start=1)
            ]
        else:
            raise ValueError(
                f"what={what!r} is unknown; use 'directions' or 'diagonal'."
            )
        look = look_of(estimator, values.shape[1], shape, feature_names, layer)
        display = cls(values, titles, signed=what == "directions", **look)
        return display.plot(ax, **kwargs)

    def plot(
        self,
        ax=None,
        *,
        max_features=10,
        image_kwargs=None,
        bar_kwargs=None,
        line_kwargs=None,
    ):
        """Draw each row on axes of its own.

        Parameters
        ----------
        ax : Axes or sequence of Axes, default=None
            Where to draw, one for each row; a new figure by default.
        max_features : int, default=10
            Number of bars, those of largest magnitude, for a table.
        image_kwargs : dict, default=None
            Passed to :meth:`matplotlib.axes.Axes.imshow`.
        bar_kwargs : dict, default=None
            Passed to :meth:`matplotlib.axes.Axes.barh`.
        line_kwargs : dict, default=None
            Passed to :meth:`matplotlib.axes.Axes.plot`, for a series.

        Returns
        -------
        DirectionDisplay
        """
        form = self._form()
        style = Style(max_features, image_kwargs, bar_kwargs, line_kwargs)
        width, height = form.panel
        count = len(self.values)
        axes = all_axes(ax, [list(range(count))], (width * count, height))
        for index, axis in enumerate(axes):
            form.draw_weights(axis, self.values[index], self.signed, style)
            axis.set_title(self.titles[index], parse_math=False)
        return self._drawn(*axes)

    def table(self) -> dict[str, Any]:
        """Every row by feature, those of largest magnitude first.

        Returns
        -------
        dict of sequences of length n_features
        """
        order = np.argsort(-np.abs(self.values).max(0), kind="stable")
        names = self._form().names()
        columns: dict[str, Any] = {"feature": [names[index] for index in order]}
        rows = zip(unique(self.titles), self.values[:, order], strict=True)
        return columns | dict(rows)

    def summary(self) -> str:
        """The feature of largest magnitude in each row.

        Returns
        -------
        str
        """
        names = self._form().names()
        largest = [
            f"{names[np.argmax(np.abs(row))]} ({title})"
            for title, row in zip(self.titles, self.values, strict=True)
        ]
        return f"Largest magnitude at {'; '.join(largest)}."

    def _form(self) -> Form:
        return as_form(self.shape, self.values.shape[1], self.feature_names)

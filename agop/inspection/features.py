"""Pictures of features: how much each one counts, and learned directions."""

from __future__ import annotations

import numpy as np

from agop.inspection.displays import (
    BLUE,
    GREY,
    ORANGE,
    name_ticks,
    one_axes,
    percent,
    pyplot,
    tidy,
)
from agop.inspection.fitted import feature_names_of, last_step, spectrum_of


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
    >>> model = RFMRegressor(random_state=0).fit(X, y)
    >>> display = FeatureImportancesDisplay.from_estimator(model, max_features=3)
    >>> sorted(label.get_text() for label in display.ax_.get_yticklabels())
    ['bmi', 'bp', 's5']
    """

    def __init__(self, importances, feature_names):
        self.importances = importances
        self.feature_names = feature_names

    @classmethod
    def from_estimator(cls, estimator, *, feature_names=None, ax=None, **kwargs):
        """Draw the feature importances of a fitted estimator.

        Parameters
        ----------
        estimator : estimator, Pipeline or search
            A fitted estimator with an AGOP, or a pipeline or search that holds one.
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
        importances = np.asarray(last_step(estimator).feature_importances_)
        names = feature_names_of(estimator, len(importances), feature_names)
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
        ax = one_axes(ax, height=1.2 + 0.28 * len(order))
        line = {"color": GREY, "linestyle": ":", "label": "if all were alike"}
        ax.barh(
            np.arange(len(order)),
            self.importances[order],
            **{"color": BLUE, **(bar_kwargs or {})},
        )
        ax.axvline(1 / len(self.importances), **{**line, **(line_kwargs or {})})
        name_ticks(ax.yaxis, np.arange(len(order)), self._names(order))
        ax.invert_yaxis()
        ax.set_xlabel("share of the trace")
        percent(ax.xaxis)
        tidy(ax, "x")
        ax.legend(frameon=False, loc="lower right")
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _names(self, order) -> list[str]:
        return [self.feature_names[index] for index in order]


class DirectionDisplay:
    """Learned directions, or the diagonal of an AGOP, as images or as bars.

    The sign of a direction is arbitrary; within one direction it says which features
    push the output together (same colour) and which against each other.

    Parameters
    ----------
    values : ndarray of shape (k, n_features)
    titles : list of str
        One for each row of `values`.
    signed : bool
        Whether zero is the middle of the scale (a direction) or its end (a diagonal).
    shape : tuple of int, default=None
        (height, width) or (height, width, channels) of the images that rows of X are;
        None for a table.
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
        what : {"directions", "diagonal"}, default="directions"
            The leading eigenvectors, or the share of each feature in the trace.
        n_directions : int, default=1
            Number of eigenvectors.
        shape : tuple of int, default=None
            (height, width) or (height, width, channels) if rows of X are images.
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
            values = np.asarray(last_step(estimator).feature_importances_)[None]
            titles = ["diagonal of the AGOP"]
        elif what == "directions":
            if n_directions < 1:
                raise ValueError(f"n_directions={n_directions!r}: draw at least one.")
            spectrum = spectrum_of(estimator).truncated(n_directions)
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
        names = None
        if shape is None:
            names = feature_names_of(estimator, values.shape[1], feature_names)
        signed = what == "directions"
        display = cls(values, titles, signed=signed, shape=shape, feature_names=names)
        return display.plot(ax, **kwargs)

    def plot(self, ax=None, *, max_features=10, image_kwargs=None, bar_kwargs=None):
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

        Returns
        -------
        DirectionDisplay
        """
        images = None if self.shape is None else [self._image(v) for v in self.values]
        self.axes_ = self._axes(ax)
        for index, axes in enumerate(self.axes_):
            if images is None:
                self._draw_bars(axes, self.values[index], max_features, bar_kwargs)
            else:
                self._draw_image(axes, images[index], image_kwargs)
            axes.set_title(self.titles[index])
        self.ax_, self.figure_ = self.axes_[0], self.axes_[0].figure
        return self

    def _axes(self, ax) -> list:
        count = len(self.values)
        if ax is None:
            size = (3.4 * count, 3.2) if self.shape else (4.6 * count, 3.6)
            _, ax = pyplot().subplots(
                1, count, figsize=size, squeeze=False, layout="constrained"
            )
        axes = list(np.ravel(ax))
        if len(axes) != count:
            raise ValueError(f"{count} axes are needed, one each; got {len(axes)}.")
        return axes

    def _image(self, row: np.ndarray) -> np.ndarray:
        shape = tuple(self.shape)
        if len(shape) not in (2, 3) or np.prod(shape) != len(row):
            raise ValueError(
                f"shape={self.shape!r} does not fit {len(row)} features. Give (height, "
                "width) or (height, width, channels) with that product."
            )
        image = row.reshape(shape)
        if image.ndim == 3 and not self.signed:
            return image.sum(2)  # shares of the channels of a pixel add up
        if image.ndim == 3 and image.shape[2] == 1:
            return image[:, :, 0]
        if image.ndim == 3 and image.shape[2] != 3:
            raise ValueError(
                f"A direction over {image.shape[2]} channels has no colours; draw one "
                "channel at a time."
            )
        return image

    def _draw_image(self, ax, image, image_kwargs) -> None:
        limit = float(np.abs(image).max()) or 1.0
        if image.ndim == 3:
            ax.imshow(0.5 + image / (2 * limit), **(image_kwargs or {}))  # grey is zero
        else:
            scale = {"cmap": "magma", "vmin": 0, "vmax": limit}
            if self.signed:
                scale = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit}
            drawn = ax.imshow(image, **{**scale, **(image_kwargs or {})})
            bar = ax.figure.colorbar(drawn, ax=ax, shrink=0.8, pad=0.02)
            bar.outline.set_visible(False)
            if not self.signed:
                percent(bar.ax.yaxis)
        ax.set(xticks=[], yticks=[])

    def _draw_bars(self, ax, row, max_features, bar_kwargs) -> None:
        order = np.argsort(-np.abs(row), kind="stable")[:max_features]
        colors = [BLUE if row[index] >= 0 else ORANGE for index in order]
        style = {"color": colors, **(bar_kwargs or {})}
        ax.barh(np.arange(len(order)), row[order], **style)
        names = self.feature_names or [f"x{index}" for index in range(len(row))]
        name_ticks(ax.yaxis, np.arange(len(order)), [names[index] for index in order])
        ax.invert_yaxis()
        ax.set_xlabel("weight" if self.signed else "share of the trace")
        tidy(ax, "x")
        if self.signed:
            ax.axvline(0, color=GREY, linewidth=0.8)
        else:
            percent(ax.xaxis)

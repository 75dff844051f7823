"""The inputs at both ends of a direction."""

from __future__ import annotations

from typing import Any

import numpy as np

from agop.inspection.displays import BLUE, ORANGE, Display, all_axes, number, tidy
from agop.inspection.fitted import projections_of, sample_shape
from agop.inspection.forms import Form, Style, Tokens
from agop.inspection.shapes import as_array, as_form, shape_of


class ExamplesDisplay(Display):
    """The inputs that lie furthest up and furthest down along a direction.

    Beside them, how all inputs are distributed: extremes of a long tail say less about
    a direction than the ends of an even spread.

    Parameters
    ----------
    projections : ndarray of shape (n_samples,)
        Of all inputs on the direction.
    indices : ndarray of shape (2 k,)
        Rows of the k inputs with the highest projections, the highest first, and of
        the k lowest, the lowest first.
    examples : ndarray of shape (2 k, n_features), or list of str
        These inputs.
    shape : tuple of int or Form, default=None
        What they look like, as for :class:`DirectionDisplay`.
    feature_names : list of str, default=None
        For a table.
    label : str, default="projection"
        What the direction is called.

    Attributes
    ----------
    axes_ : list of matplotlib.axes.Axes
        The distribution, the highest and the lowest inputs, after :meth:`plot`.
    ax_ : matplotlib.axes.Axes
        The first of them.
    figure_ : matplotlib.figure.Figure
        After :meth:`plot`.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from agop import ExamplesDisplay, RFMClassifier
    >>> X, y = load_digits(n_class=2, return_X_y=True)
    >>> model = RFMClassifier(random_state=0).fit(X, y)
    >>> display = ExamplesDisplay.from_estimator(model, X, shape=(8, 8), n_examples=3)
    >>> y[display.indices]
    array([1, 1, 1, 0, 0, 0])
    """

    heading = "Examples along a direction"
    caption = (
        "The distribution of all inputs along the direction, the inputs furthest up "
        "(upper row) and the inputs furthest down (lower row)."
    )

    def __init__(
        self,
        projections,
        indices,
        examples,
        *,
        shape=None,
        feature_names=None,
        label="projection",
    ):
        self.projections = projections
        self.indices = indices
        self.examples = examples
        self.shape = shape
        self.feature_names = feature_names
        self.label = label

    @classmethod
    def from_estimator(
        cls,
        estimator,
        X,
        *,
        direction=1,
        layer=None,
        n_examples=4,
        examples=None,
        shape=None,
        feature_names=None,
        ax=None,
        **kwargs,
    ):
        """Draw the extreme inputs along a direction of a fitted estimator.

        Parameters
        ----------
        estimator : estimator, Pipeline or search
            A fitted estimator with an AGOP, or a pipeline or search that holds one.
        X : array-like of shape (n_samples, n_features), or as the estimator takes it
            Inputs to choose from.
        direction : int, default=1
            Number of the direction, counted from 1.
        layer : str, default=None
            The layer of the direction, of a network that was examined at several.
        n_examples : int, default=4
            Inputs at either end.
        examples : array-like of shape (n_samples, ...) or list of str, default=None
            What to draw for each row of X instead of it, such as the text of tokens.
        shape : tuple of int or Form, default=None
            What inputs look like, if not a table. A network that was given images
            knows.
        feature_names : array-like of str, default=None
            The names of the columns of X by default, if it has names.
        ax : sequence of Axes, default=None
            Where to draw, 1 + 2 n_examples; a new figure by default.
        **kwargs : dict
            Passed to :meth:`plot`.

        Returns
        -------
        ExamplesDisplay
        """
        projections = projections_of(estimator, X, direction, layer)
        examples = X if examples is None else examples
        if not _is_text(examples):
            n_features = int(np.prod(np.shape(examples)[1:]))
            shape = sample_shape(estimator, n_features, shape)
        return cls.from_projections(
            projections,
            examples,
            n_examples=n_examples,
            shape=shape,
            feature_names=feature_names,
            label=f"projection on direction {direction}",
            ax=ax,
            **kwargs,
        )

    @classmethod
    def from_projections(
        cls,
        projections,
        X,
        *,
        n_examples=4,
        shape=None,
        feature_names=None,
        label="projection",
        ax=None,
        **kwargs,
    ):
        """Draw the inputs of highest and lowest projection, or of any other number.

        Parameters
        ----------
        projections : array-like of shape (n_samples,)
        X : array-like of shape (n_samples, ...), list of str, or of lists of str
            Images may have the shape (n_samples, channels, height, width).
        n_examples : int, default=4
            Inputs at either end.
        shape : tuple of int or Form, default=None
            What inputs look like, if X does not say it.
        feature_names : array-like of str, default=None
            Of the columns of a table.
        label : str, default="projection"
            What the numbers are called.
        ax : sequence of Axes, default=None
            Where to draw, 1 + 2 n_examples; a new figure by default.
        **kwargs : dict
            Passed to :meth:`plot`.

        Returns
        -------
        ExamplesDisplay
        """
        projections = as_array(projections)
        if n_examples < 1:
            raise ValueError(f"n_examples={n_examples!r}: draw at least one.")
        if projections.ndim != 1 or len(projections) != len(X) or len(X) < 2:
            raise ValueError(
                f"projections has shape {projections.shape} for {len(X)} inputs; give "
                "one number for each of at least two inputs."
            )
        order = np.argsort(-projections, kind="stable")
        count = min(n_examples, len(order) // 2)
        indices = np.concatenate([order[:count], order[::-1][:count]])
        if _is_text(X):
            texts = list(X)
            shape, examples = Tokens(), [texts[index] for index in indices]
        else:
            shape = shape or shape_of(X, feature_names)
            examples = as_array(X)[indices].reshape(len(indices), -1)
        names = None if feature_names is None else [str(name) for name in feature_names]
        look = {"shape": shape, "feature_names": names, "label": label}
        return cls(projections, indices, examples, **look).plot(ax, **kwargs)

    def plot(
        self,
        ax=None,
        *,
        max_features=6,
        hist_kwargs=None,
        image_kwargs=None,
        bar_kwargs=None,
        line_kwargs=None,
    ):
        """Draw the distribution of the projections and the extreme inputs.

        Parameters
        ----------
        ax : sequence of Axes, default=None
            Where to draw: the distribution, the highest inputs, the lowest inputs. A
            new figure by default.
        max_features : int, default=6
            Number of bars, of a table.
        hist_kwargs : dict, default=None
            Passed to :meth:`matplotlib.axes.Axes.hist`.
        image_kwargs : dict, default=None
            Passed to :meth:`matplotlib.axes.Axes.imshow`.
        bar_kwargs : dict, default=None
            Passed to :meth:`matplotlib.axes.Axes.barh`.
        line_kwargs : dict, default=None
            Passed to :meth:`matplotlib.axes.Axes.plot`, for a series.

        Returns
        -------
        ExamplesDisplay
        """
        form, count = self._form(), len(self.indices) // 2
        width, height = form.example_panel
        upper, lower = (
            [f"{end}{index}" for index in range(count)] for end in ("high", "low")
        )
        histogram, *panels = all_axes(
            ax,
            [["distribution", *upper], ["distribution", *lower]],
            (3.2 + width * count, max(2 * height + 0.8, 3.2)),
            width_ratios=[3.0] + [width] * count,
        )
        style = Style(max_features, image_kwargs, bar_kwargs, line_kwargs)
        form.draw_examples(panels, self.examples, style)
        self._draw_distribution(histogram, hist_kwargs)
        for place, (axes, index) in enumerate(zip(panels, self.indices, strict=True)):
            colour = BLUE if place < count else ORANGE
            axes.set_title(number(self.projections[index]), color=colour, fontsize=10)
            if place in (0, count):
                axes.set_ylabel("highest" if place == 0 else "lowest", color=colour)
            else:
                axes.tick_params(labelleft=False)
            if place < count:
                axes.set_xlabel("")
        return self._drawn(histogram, *panels)

    def _draw_distribution(self, ax, hist_kwargs) -> None:
        bars = {"bins": "auto", "color": "0.75", **(hist_kwargs or {})}
        ax.hist(self.projections, **bars)
        count = len(self.indices) // 2
        for rows, colour in ((slice(count), BLUE), (slice(count, None), ORANGE)):
            ends = self.projections[self.indices[rows]]
            ax.plot(
                ends, np.zeros(count), "|", color=colour, ms=14, mew=2, clip_on=False
            )
        ax.yaxis.get_major_locator().set_params(integer=True)
        ax.set_xlabel(self.label, parse_math=False)
        ax.set_ylabel("number of inputs")
        tidy(ax, "y")

    def table(self) -> dict[str, Any]:
        """The extreme inputs: row, projection and end.

        Returns
        -------
        dict of sequences of length 2 k
        """
        count = len(self.indices) // 2
        return {
            "row of X": self.indices,
            self.label: self.projections[self.indices],
            "end": ["highest"] * count + ["lowest"] * count,
        }

    def summary(self) -> str:
        """The range of the projections.

        Returns
        -------
        str
        """
        return (
            f"{len(self.projections)} inputs; {self.label} from "
            f"{self.projections.min():.3g} to {self.projections.max():.3g}."
        )

    def _form(self) -> Form:
        if isinstance(self.shape, Tokens):
            if not _is_text(self.examples):
                raise ValueError(
                    "shape=Tokens(...) draws texts, but the inputs are numbers, such "
                    "as token ids. Give a string, or a list of tokens, for each of "
                    "them: examples=[...] of from_estimator."
                )
            return self.shape
        return as_form(self.shape, self.examples.shape[1], self.feature_names)


def _is_text(X) -> bool:
    """Whether inputs are texts, or lists of tokens."""
    if hasattr(X, "columns"):  # a data frame
        return False
    first = next(iter(X))
    tokens = first if isinstance(first, list | tuple | np.ndarray) else [first]
    return all(isinstance(token, str) for token in tokens)

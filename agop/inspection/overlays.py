"""What counts, laid over examples."""

from __future__ import annotations

from typing import Any

import numpy as np

from agop.inspection.displays import Display, all_axes, colour_bar, percent, unique
from agop.inspection.fitted import (
    importances_at,
    importances_of,
    look_of,
    sample_shape,
)
from agop.inspection.forms import Form, Style, Tokens
from agop.inspection.shapes import as_array, as_form


class OverlayDisplay(Display):
    """What counts, in colour over examples.

    Parameters
    ----------
    examples : ndarray of shape (k, n_features)
        Of a text, for which its tokens are drawn, any numbers.
    values : ndarray of shape (k, n_features)
        What each feature counts on each example, not negative.
    titles : list of str
        One for each example.
    shape : tuple of int or Form
        What examples look like, as for :class:`DirectionDisplay`: images, series, or
        the :class:`~agop.inspection.Tokens` of one text.

    Attributes
    ----------
    axes_ : list of matplotlib.axes.Axes
        One for each example, after :meth:`plot`.
    ax_ : matplotlib.axes.Axes
        The first of them.
    figure_ : matplotlib.figure.Figure
        After :meth:`plot`.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from agop import OverlayDisplay, RFMClassifier
    >>> X, y = load_digits(n_class=2, return_X_y=True)
    >>> model = RFMClassifier(random_state=0).fit(X, y)
    >>> display = OverlayDisplay.from_estimator(
    ...     model, X[:2], of="example", shape=(8, 8)
    ... )
    >>> display.values.sum(1)
    array([1., 1.])
    """

    heading = "What counts on an example"
    caption = (
        "The example in black and grey, and in colour the share of each feature in the "
        "squared derivatives of the outputs: averaged over a sample (the diagonal of "
        "the average gradient outer product) or at the example itself."
    )

    def __init__(self, examples, values, titles, shape):
        self.examples = examples
        self.values = values
        self.titles = titles
        self.shape = shape

    @classmethod
    def from_estimator(
        cls,
        estimator,
        X,
        y=None,
        *,
        of="average",
        layer="input",
        shape=None,
        titles=None,
        ax=None,
        **kwargs,
    ):
        """Draw what counts for a fitted estimator over examples.

        Parameters
        ----------
        estimator : estimator, Pipeline or search
            A fitted estimator with an AGOP, or a pipeline or search that holds one.
        X : array-like of shape (k, n_features), or as the estimator takes it
            Examples.
        y : array-like of shape (k, ...), default=None
            Targets, for an estimator whose outputs need them.
        of : {"average", "example"}, default="average"
            The diagonal of the AGOP, the same over every example, or the squared
            derivatives at each example.
        layer : str, default="input"
            Where derivatives are taken, in a network. Token ids have none: name a layer
            behind their embedding, and give ``shape=Tokens(words)``. For the average,
            the estimator was fitted there with ``positions="flatten"``.
        shape : tuple of int or Form, default=None
            What examples look like. A network that was given images knows.
        titles : list of str, default=None
            One for each example; numbers by default.
        ax : Axes or sequence of Axes, default=None
            Where to draw, one for each example; a new figure by default.
        **kwargs : dict
            Passed to :meth:`plot`.

        Returns
        -------
        OverlayDisplay
        """
        examples = as_array(X).reshape(len(X), -1)
        if of == "average":
            values = np.tile(importances_of(estimator, layer), (len(X), 1))
            shape = look_of(estimator, values.shape[1], shape, layer=layer)["shape"]
        elif of == "example":
            values = importances_at(estimator, X, y, layer)
            if layer == "input":
                shape = sample_shape(estimator, values.shape[1], shape)
        else:
            raise ValueError(f"of={of!r} is unknown; use 'average' or 'example'.")
        titles = titles or [f"example {index}" for index in range(len(examples))]
        return cls(examples, values, list(titles), shape).plot(ax, **kwargs)

    def plot(self, ax=None, *, image_kwargs=None, line_kwargs=None):
        """Draw each example on axes of its own, all with one scale of colours.

        Parameters
        ----------
        ax : Axes or sequence of Axes, default=None
            Where to draw, one for each example; a new figure by default.
        image_kwargs : dict, default=None
            Passed to :meth:`matplotlib.axes.Axes.imshow`, for the colours.
        line_kwargs : dict, default=None
            Passed to :meth:`matplotlib.axes.Axes.plot`, for a series.

        Returns
        -------
        OverlayDisplay
        """
        form = self._form()
        if not (self.values >= 0).all():
            raise ValueError(
                "values of an overlay say how much a feature counts: they are not "
                "negative. For signed directions, use DirectionDisplay."
            )
        width, height = form.panel
        layout = [list(range(len(self.examples)))]
        axes = all_axes(ax, layout, (0.9 * width * len(self.examples), height))
        style = Style(image_kwargs=image_kwargs, line_kwargs=line_kwargs)
        drawn = form.draw_overlays(axes, self.examples, self.values, style)
        for panel, title in zip(axes, self.titles, strict=True):
            panel.set_title(title, parse_math=False)
        percent(colour_bar(axes[-1], drawn, "share of the trace").yaxis)
        return self._drawn(*axes)

    def table(self) -> dict[str, Any]:
        """Values by feature, the largest first.

        Returns
        -------
        dict of sequences of length n_features
        """
        order = np.argsort(-self.values.max(0), kind="stable")
        names = self._form().names()
        columns: dict[str, Any] = {"feature": [names[index] for index in order]}
        rows = zip(unique(self.titles), self.values[:, order], strict=True)
        return columns | dict(rows)

    def summary(self) -> str:
        """Where the largest value is, on each example.

        Returns
        -------
        str
        """
        names = self._form().names()
        largest = [
            f"{names[row.argmax()]} ({title})"
            for title, row in zip(self.titles, self.values, strict=True)
        ]
        return f"Largest share at {'; '.join(largest)}."

    def _form(self) -> Form:
        form = as_form(self.shape, self.values.shape[1])
        if isinstance(form, Tokens) or self.examples.shape == self.values.shape:
            return form
        raise ValueError(
            f"values has shape {self.values.shape} and examples {self.examples.shape}: "
            "each value lies over the number of the example that it belongs to. Only "
            "over Tokens can values of a layer be laid."
        )

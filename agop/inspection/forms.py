"""What one row of numbers looks like: in general, as a table, as a line of tokens.

A form draws three things: weights (a direction, or the diagonal of an AGOP), examples
(rows of X) and weights laid over examples. Images and series are in
:mod:`agop.inspection.grids`.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from agop.inspection.displays import (
    BLUE,
    GREY,
    ORANGE,
    colour_bar,
    count_lines,
    draw_words,
    name_ticks,
    percent,
    scale,
    shades,
    tidy,
)


@dataclass(frozen=True)
class Style:
    """What users may change about rows that are drawn.

    Parameters
    ----------
    max_features : int, default=10
        Number of bars of a table.
    image_kwargs : dict, default=None
        Passed to :meth:`matplotlib.axes.Axes.imshow`.
    bar_kwargs : dict, default=None
        Passed to :meth:`matplotlib.axes.Axes.barh`.
    line_kwargs : dict, default=None
        Passed to :meth:`matplotlib.axes.Axes.plot`.
    """

    max_features: int = 10
    image_kwargs: dict[str, Any] | None = None
    bar_kwargs: dict[str, Any] | None = None
    line_kwargs: dict[str, Any] | None = None


class Form(ABC):
    """How a row of numbers is drawn."""

    #: Width and height, in inches, of a panel with weights and of one with an example.
    panel: tuple[float, float]
    example_panel: tuple[float, float]

    @property
    @abstractmethod
    def n_features(self) -> int:
        """Numbers in a row."""

    @abstractmethod
    def names(self) -> list[str]:
        """What each number of a row belongs to.

        Returns
        -------
        list of str
        """

    @abstractmethod
    def draw_weights(self, ax, row: np.ndarray, signed: bool, style: Style) -> None:
        """Draw a direction (signed) or a diagonal.

        Parameters
        ----------
        ax : matplotlib.axes.Axes
        row : ndarray of shape (n_features,)
        signed : bool
            Whether zero is the middle of the scale or its end.
        style : Style
        """

    @abstractmethod
    def draw_examples(self, axes: Sequence, rows: np.ndarray, style: Style) -> None:
        """Draw rows of X, each on axes of its own and all on one scale.

        Parameters
        ----------
        axes : sequence of matplotlib.axes.Axes
        rows : ndarray of shape (n_axes, n_features)
        style : Style
        """

    def draw_overlays(self, axes: Sequence, rows, weights, style: Style):
        """Draw weights, which are not negative, over examples, all on one scale.

        Parameters
        ----------
        axes : sequence of matplotlib.axes.Axes
        rows : ndarray of shape (n_axes, n_features)
        weights : ndarray of shape (n_axes, n_features)
        style : Style

        Returns
        -------
        matplotlib.cm.ScalarMappable
            What a colour bar explains.
        """
        raise ValueError(
            f"{type(self).__name__} has no place to lay weights over: an overlay needs "
            "an image, a series or a text. Give its shape, or use DirectionDisplay."
        )


# ------------------------------------------------------------------------------ tables


@dataclass(frozen=True, eq=False)
class Table(Form):
    """Rows are features with names.

    Parameters
    ----------
    feature_names : sequence of str
    center, spread : ndarray of shape (n_features,), default=None
        Examples are drawn as their distance from `center` in units of `spread`, such
        as the mean and the standard deviation of a sample; as they are by default.

    Examples
    --------
    >>> from agop.inspection import Table
    >>> Table(["age", "income"]).n_features
    2
    """

    feature_names: Sequence[str]
    center: np.ndarray | None = None
    spread: np.ndarray | None = None

    panel: ClassVar[tuple[float, float]] = (4.6, 3.6)
    example_panel: ClassVar[tuple[float, float]] = (2.2, 2.4)

    @property
    def n_features(self) -> int:
        """Numbers in a row."""
        return len(self.feature_names)

    def names(self) -> list[str]:
        """Names of the features.

        Returns
        -------
        list of str
        """
        return list(self.feature_names)

    def draw_weights(self, ax, row: np.ndarray, signed: bool, style: Style) -> None:
        """Draw bars, those of largest magnitude first.

        Parameters
        ----------
        ax : matplotlib.axes.Axes
        row : ndarray of shape (n_features,)
        signed : bool
        style : Style
        """
        order = np.argsort(-np.abs(row), kind="stable")[: style.max_features]
        self._draw_bars(ax, row, order, style)
        ax.set_xlabel("weight" if signed else "share of the trace")
        if not signed:
            percent(ax.xaxis)

    def draw_examples(self, axes: Sequence, rows: np.ndarray, style: Style) -> None:
        """Draw bars of the features in which the first half differs most from the rest.

        Parameters
        ----------
        axes : sequence of matplotlib.axes.Axes
        rows : ndarray of shape (n_axes, n_features)
        style : Style
        """
        label = "value"
        if self.center is not None and self.spread is not None:
            rows = (rows - self.center) / np.where(self.spread > 0, self.spread, 1)
            label = "standard deviations"
        half = len(rows) // 2
        change = np.abs(rows[:half].mean(0) - rows[half:].mean(0))
        order = np.argsort(-change, kind="stable")[: style.max_features]
        limit = 1.05 * float(np.abs(rows[:, order]).max()) or 1.0
        for ax, row in zip(axes, rows, strict=True):
            self._draw_bars(ax, row, order, style)
            ax.set(xlim=(-limit, limit), xlabel=label)

    def _draw_bars(self, ax, row, order, style: Style) -> None:
        colors = [BLUE if row[index] >= 0 else ORANGE for index in order]
        places = np.arange(len(order))
        ax.barh(places, row[order], **{"color": colors, **(style.bar_kwargs or {})})
        name_ticks(ax.yaxis, places, [self.feature_names[index] for index in order])
        ax.invert_yaxis()
        ax.axvline(0, color=GREY, linewidth=0.8)
        tidy(ax, "x")


# ------------------------------------------------------------------------------ tokens


@dataclass(frozen=True)
class Tokens(Form):
    """Rows are numbers for each token of a text, one token after the other.

    A token has one colour. Of several numbers, such as those of an embedding, shares of
    a trace add up; of a direction the norm is drawn, without a sign: it does not depend
    on the axes of the embedding, and its squares add up to 1 over the tokens.

    Parameters
    ----------
    tokens : sequence of str, default=()
        With their spaces. A line ends after a token that ends in a newline. Examples
        bring their own text: they are strings, or lists of tokens.
    width : int, default=1
        Numbers for each token. Displays find it, if a row has a multiple of as many
        numbers as there are tokens.

    Examples
    --------
    >>> from agop.inspection import Tokens
    >>> Tokens(["The", " cat", " sat"]).names()
    ['0: The', '1: cat', '2: sat']
    >>> Tokens(["The", " cat"], width=2).names()
    ['0: The, unit 0', '0: The, unit 1', '1: cat, unit 0', '1: cat, unit 1']
    """

    tokens: Sequence[str] = ()
    width: int = 1

    example_panel: ClassVar[tuple[float, float]] = (2.6, 1.3)

    @property
    def panel(self) -> tuple[float, float]:
        """Width and height of a panel with weights, in inches."""
        return 6.4, 0.65 + 0.23 * max(count_lines(self.tokens), 5)

    @property
    def n_features(self) -> int:
        """Numbers in a row: tokens × width."""
        return len(self.tokens) * self.width

    def widened(self, n_features: int) -> Tokens:
        """These tokens with as many numbers each as rows of `n_features` have.

        Parameters
        ----------
        n_features : int

        Returns
        -------
        Tokens
            As they are, if they have a width or the numbers cannot be shared out.
        """
        if self.width > 1 or not self.tokens or n_features % len(self.tokens):
            return self
        return replace(self, width=n_features // len(self.tokens))

    def names(self) -> list[str]:
        """Places, counted from 0, and tokens; units, if a token has several numbers.

        Returns
        -------
        list of str
        """
        names = [f"{place}: {token.strip()}" for place, token in enumerate(self.tokens)]
        if self.width == 1:
            return names
        return [f"{name}, unit {unit}" for name in names for unit in range(self.width)]

    def draw_weights(self, ax, row: np.ndarray, signed: bool, style: Style) -> None:
        """Draw the text on coloured ground.

        Parameters
        ----------
        ax : matplotlib.axes.Axes
        row : ndarray of shape (n_features,)
        signed : bool
        style : Style
        """
        if not signed:
            ground = self._draw_text(ax, self._units(row).sum(1), False, style)
            percent(colour_bar(ax, ground, "share of the trace").yaxis)
        elif self.width == 1:
            colour_bar(ax, self._draw_text(ax, row, True, style), "weight")
        else:
            norms = np.linalg.norm(self._units(row), axis=1)
            ground = self._draw_text(ax, norms, False, style)
            colour_bar(ax, ground, "norm of the weights")

    def draw_examples(self, axes: Sequence, rows, style: Style) -> None:
        """Draw texts.

        Parameters
        ----------
        axes : sequence of matplotlib.axes.Axes
        rows : sequence of str, or of lists of str
        style : Style
        """
        for ax, text in zip(axes, rows, strict=True):
            words = re.findall(r"\s*\S+", text) if isinstance(text, str) else text
            draw_words(ax, words, columns=28)

    def draw_overlays(self, axes: Sequence, rows, weights, style: Style):
        """Draw the text on ground coloured by the weights.

        Parameters
        ----------
        axes : sequence of one matplotlib.axes.Axes
        rows : array-like of shape (1, ...)
            Not drawn: the tokens are the example.
        weights : ndarray of shape (1, n_features)
            Those of a token add up.
        style : Style

        Returns
        -------
        matplotlib.cm.ScalarMappable
        """
        if len(rows) != 1:
            raise ValueError(
                f"Tokens are the text of one example; got {len(rows)}. Draw a display "
                "for each text."
            )
        return self._draw_text(axes[0], self._units(weights[0]).sum(1), False, style)

    def _units(self, row: np.ndarray) -> np.ndarray:
        """A row as numbers by token, (n_tokens, width)."""
        return np.reshape(row, (len(self.tokens), self.width))

    def _draw_text(self, ax, values: np.ndarray, signed: bool, style: Style):
        """Draw the tokens, each on the colour of its value; return the colours."""
        colours = scale(values, signed)
        if not signed:
            colours["cmap"] = "Oranges"  # letters stay legible
        ground = shades(**{**colours, **(style.image_kwargs or {})})
        draw_words(ax, self.tokens, ground.to_rgba(values))
        return ground

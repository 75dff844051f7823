"""Rows of numbers on a grid: images and series."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from agop.inspection.displays import (
    BLUE,
    GREY,
    ORANGE,
    STRIP,
    colour_bar,
    percent,
    scale,
    tidy,
)
from agop.inspection.forms import Form, Style


@dataclass(frozen=True)
class Image(Form):
    """Rows are images, row of pixels by row of pixels.

    Parameters
    ----------
    height, width : int
    channels : int, default=1
        Three are red, green and blue; others are drawn side by side.
    channels_first : bool, default=False
        Whether a row holds one channel after the other, as in torch.

    Examples
    --------
    >>> from agop.inspection import Image
    >>> Image(2, 2, channels=3).names()[:4]
    ['pixel 0, 0, channel 0', 'pixel 0, 0, channel 1',
     'pixel 0, 0, channel 2', 'pixel 0, 1, channel 0']
    """

    height: int
    width: int
    channels: int = 1
    channels_first: bool = False

    panel: ClassVar[tuple[float, float]] = (3.4, 3.2)
    example_panel: ClassVar[tuple[float, float]] = (1.5, 1.5)

    @property
    def n_features(self) -> int:
        """Numbers in a row: height × width × channels."""
        return self.height * self.width * self.channels

    def names(self) -> list[str]:
        """Row, column and channel of every number, counted from 0.

        Returns
        -------
        list of str
        """
        places = np.empty(self.n_features, dtype=object)
        pixels = self.pixels(np.arange(self.n_features))
        for (row, column, channel), index in np.ndenumerate(pixels):
            name = f"pixel {row}, {column}"
            places[index] = f"{name}, channel {channel}" if self.channels > 1 else name
        return places.tolist()

    def pixels(self, row: np.ndarray) -> np.ndarray:
        """A row as an image.

        Parameters
        ----------
        row : ndarray of shape (n_features,)

        Returns
        -------
        ndarray of shape (height, width, channels)
        """
        if self.channels_first:
            image = row.reshape(self.channels, self.height, self.width)
            return image.transpose(1, 2, 0)
        return row.reshape(self.height, self.width, self.channels)

    def draw_weights(self, ax, row: np.ndarray, signed: bool, style: Style) -> None:
        """Draw a heat map, or colours around grey for a direction of colour images.

        Parameters
        ----------
        ax : matplotlib.axes.Axes
        row : ndarray of shape (n_features,)
        signed : bool
        style : Style
        """
        image = self.pixels(row)
        options = style.image_kwargs or {}
        if signed and self.channels == 3:
            limit = float(np.abs(image).max()) or 1.0
            ax.imshow(0.5 + image / (2 * limit), **options)
            ax.set_xlabel("grey is zero")
        else:
            # Shares of the channels of a pixel add up.
            image = self._sheet(ax, image) if signed else image.sum(2)
            drawn = ax.imshow(image, **{**scale(image, signed), **options})
            bar = colour_bar(ax, drawn, "weight" if signed else "share of the trace")
            if not signed:
                percent(bar.yaxis)
        ax.set(xticks=[], yticks=[])

    def draw_examples(self, axes: Sequence, rows: np.ndarray, style: Style) -> None:
        """Draw images, in grey or in colours.

        Parameters
        ----------
        axes : sequence of matplotlib.axes.Axes
        rows : ndarray of shape (n_axes, n_features)
        style : Style
        """
        low, high = float(rows.min()), float(rows.max())
        for ax, row in zip(axes, rows, strict=True):
            image = self.pixels(row)
            if self.channels == 3:
                image = (image - low) / ((high - low) or 1.0)
            else:
                image = self._sheet(ax, image)
            grey = {"cmap": "gray", "vmin": low, "vmax": high}
            ax.imshow(image, **{**grey, **(style.image_kwargs or {})})
            ax.set(xticks=[], yticks=[])

    def draw_overlays(self, axes: Sequence, rows, weights, style: Style):
        """Draw the examples in grey and the weights in transparent colour over them.

        Parameters
        ----------
        axes : sequence of matplotlib.axes.Axes
        rows : ndarray of shape (n_axes, n_features)
        weights : ndarray of shape (n_axes, n_features)
            Those of the channels of a pixel add up.
        style : Style

        Returns
        -------
        matplotlib.image.AxesImage
        """
        heat = np.stack([self.pixels(row).sum(2) for row in weights])
        limit = float(heat.max()) or 1.0
        colours = {"cmap": "inferno", "vmin": 0, "vmax": limit}
        for ax, row, values in zip(axes, rows, heat, strict=True):
            ax.imshow(self.pixels(row).mean(2), cmap="gray")
            opacity = np.sqrt(values / limit)
            options = {**colours, "alpha": opacity, **(style.image_kwargs or {})}
            drawn = ax.imshow(values, **options)
            ax.set(xticks=[], yticks=[])
        return drawn

    def _sheet(self, ax, image: np.ndarray) -> np.ndarray:
        """The only channel, or all side by side on axes without a frame."""
        if self.channels == 1:
            return image[:, :, 0]
        ax.spines[:].set_visible(False)
        return _side_by_side(image)


def _side_by_side(image: np.ndarray) -> np.ndarray:
    """The channels of an image in a nearly square arrangement, (h', w')."""
    height, width, channels = image.shape
    n_columns = int(np.ceil(np.sqrt(channels)))
    n_rows = -(-channels // n_columns)
    sheet = np.full((n_rows * (height + 1) - 1, n_columns * (width + 1) - 1), np.nan)
    for channel in range(channels):
        row, column = divmod(channel, n_columns)
        top, left = row * (height + 1), column * (width + 1)
        sheet[top : top + height, left : left + width] = image[:, :, channel]
    return sheet


@dataclass(frozen=True)
class Series(Form):
    """Rows are time series, or other numbers along a line.

    Parameters
    ----------
    length : int
    channels : int, default=1
    channels_first : bool, default=True
        Whether a row holds one channel after the other, as for a convolution of torch,
        or one moment after the other, as for a recurrent network.
    label : str, default="step"
        What is counted along the line, with its unit.

    Examples
    --------
    >>> from agop.inspection import Series
    >>> Series(2, channels=2).names()
    ['step 0, channel 0', 'step 1, channel 0', 'step 0, channel 1', 'step 1, channel 1']
    """

    length: int
    channels: int = 1
    channels_first: bool = True
    label: str = "step"

    panel: ClassVar[tuple[float, float]] = (4.6, 3.0)
    example_panel: ClassVar[tuple[float, float]] = (2.4, 1.5)

    @property
    def n_features(self) -> int:
        """Numbers in a row: length × channels."""
        return self.length * self.channels

    def names(self) -> list[str]:
        """Moment and channel of every number, counted from 0.

        Returns
        -------
        list of str
        """
        places = np.empty(self.n_features, dtype=object)
        for (channel, step), index in np.ndenumerate(
            self.lines(np.arange(self.n_features))
        ):
            name = f"{self.label} {step}"
            places[index] = f"{name}, channel {channel}" if self.channels > 1 else name
        return places.tolist()

    def lines(self, row: np.ndarray) -> np.ndarray:
        """A row as lines.

        Parameters
        ----------
        row : ndarray of shape (n_features,)

        Returns
        -------
        ndarray of shape (channels, length)
        """
        if self.channels_first:
            return row.reshape(self.channels, self.length)
        return row.reshape(self.length, self.channels).T

    def draw_weights(self, ax, row: np.ndarray, signed: bool, style: Style) -> None:
        """Draw a line for one channel, a strip of colours each for several.

        Parameters
        ----------
        ax : matplotlib.axes.Axes
        row : ndarray of shape (n_features,)
        signed : bool
        style : Style
        """
        lines = self.lines(row)
        label = "weight" if signed else "share of the trace"
        if self.channels == 1:
            self._draw_filled(ax, lines[0], signed, style)
            ax.set_ylabel(label)
            bar = ax
        else:
            colours = {**scale(lines, signed), **STRIP}
            drawn = ax.imshow(lines, **{**colours, **(style.image_kwargs or {})})
            bar = colour_bar(ax, drawn, label)
            for edge in range(1, self.channels):
                ax.axhline(edge - 0.5, color="white", linewidth=2)
            self._name_channels(ax, np.arange(self.channels))
        if not signed:
            percent(bar.yaxis)
        ax.set_xlabel(self.label)

    def _draw_filled(self, ax, line, signed: bool, style: Style) -> None:
        steps = np.arange(self.length)
        ax.fill_between(steps, line, where=line >= 0, color=BLUE, alpha=0.3, lw=0)
        ax.fill_between(steps, line, where=line <= 0, color=ORANGE, alpha=0.3, lw=0)
        ax.plot(
            steps, line, **{"color": "black", "lw": 1.2, **(style.line_kwargs or {})}
        )
        ax.axhline(0, color=GREY, linewidth=0.8)
        ax.margins(x=0)
        if not signed:
            ax.set_ylim(bottom=0)
        tidy(ax, "y")

    def draw_examples(self, axes: Sequence, rows: np.ndarray, style: Style) -> None:
        """Draw lines, the channels above each other.

        Parameters
        ----------
        axes : sequence of matplotlib.axes.Axes
        rows : ndarray of shape (n_axes, n_features)
        style : Style
        """
        line = {"color": "black", "linewidth": 1.0, **(style.line_kwargs or {})}
        low, high = float(rows.min()), float(rows.max())
        step = (high - low) or 1.0
        for ax, row in zip(axes, rows, strict=True):
            for channel, values in enumerate(self.lines(row)):
                ax.plot(values - step * channel, **line)
            ax.set_ylim(low - step * (self.channels - 0.95), high + 0.05 * step)
            ax.margins(x=0)
            ax.set_xlabel(self.label)
            tidy(ax, "y")
            if self.channels > 1:
                middle = (low + high) / 2
                self._name_channels(ax, middle - step * np.arange(self.channels))

    def draw_overlays(self, axes: Sequence, rows, weights, style: Style):
        """Draw the examples as lines on a background coloured by the weights.

        Parameters
        ----------
        axes : sequence of matplotlib.axes.Axes
        rows : ndarray of shape (n_axes, n_features)
        weights : ndarray of shape (n_axes, n_features)
        style : Style

        Returns
        -------
        matplotlib.image.AxesImage
        """
        self.draw_examples(axes, rows, style)
        limit = float(weights.max()) or 1.0
        colours = {"cmap": "Oranges", "vmin": 0, "vmax": limit, **STRIP}
        for ax, values in zip(axes, weights, strict=True):
            extent = (-0.5, self.length - 0.5, *ax.get_ylim())
            options = {**colours, "extent": extent, "zorder": -1}
            heat = self.lines(values)
            drawn = ax.imshow(heat, **{**options, **(style.image_kwargs or {})})
            ax.grid(visible=False)
        return drawn

    def _name_channels(self, ax, heights) -> None:
        ax.set_yticks(heights, [f"channel {index}" for index in range(self.channels)])

"""What all displays share, and all of matplotlib.

A display holds numbers. ``from_estimator`` computes them and draws, ``plot`` draws
again, on any axes, and ``to_html`` writes a page. This is the only module that imports
matplotlib, when something is drawn: everything else works without it.
"""

from __future__ import annotations

import io
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterator
from os import PathLike
from typing import Any, ClassVar

import numpy as np

from agop.inspection.report import html_page, write_html

GREY = "0.45"
BLUE, ORANGE = "#1f5a96", "#d1662c"  # apart in grey and to all eyes
#: Lines that stay apart for colour-blind eyes (Okabe and Ito, without yellow).
PALETTE = (BLUE, ORANGE, "#009e73", "#cc79a7", "#56b4e9", "#000000", "#e69f00")
DIVERGING, SEQUENTIAL = "RdBu_r", "magma"
#: Strips of colours whose cells are not square.
STRIP = {"aspect": "auto", "interpolation": "nearest"}

#: Characters of a feature name that are drawn.
_NAME_LENGTH = 40


# ---------------------------------------------------------------------------- figures


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


def all_axes(ax, layout, size, **kwargs) -> list:
    """The axes given, as many as needed, or those of a new figure.

    Parameters
    ----------
    ax : Axes, sequence of Axes or None
    layout : list of list
        As for :func:`matplotlib.pyplot.subplot_mosaic`.
    size : tuple of float
        Width and height of a new figure, in inches.
    **kwargs : dict
        Passed to :func:`matplotlib.pyplot.subplot_mosaic`.

    Returns
    -------
    list of matplotlib.axes.Axes
        In the order in which their names first appear in the layout.
    """
    names = list(dict.fromkeys(name for row in layout for name in row if name != "."))
    plt = pyplot()
    if ax is None:
        _, made = plt.subplot_mosaic(
            layout, figsize=size, layout="constrained", **kwargs
        )
        return [made[name] for name in names]
    axes = list(np.ravel(ax))
    if len(axes) != len(names):
        raise ValueError(
            f"{len(names)} axes are needed, one each; got {len(axes)}. Leave ax=None "
            "for a new figure."
        )
    return axes


def svg(figure) -> str:
    """A figure as an SVG document, the same every time, with letters as outlines."""
    import matplotlib

    file = io.BytesIO()
    whole = figure.figure  # of which this may be a part
    with matplotlib.rc_context({"svg.hashsalt": "agop", "svg.fonttype": "path"}):
        whole.savefig(
            file, format="svg", dpi=144, metadata={"Date": None, "Creator": None}
        )
    return file.getvalue().decode()


# ------------------------------------------------------------------------------- axes


def tidy(ax, grid: str) -> None:
    """Two spines and a faint grid behind the data."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis=grid, color="0.9", linewidth=0.8)
    ax.set_axisbelow(True)


def shown(name: str) -> str:
    """A name as it is drawn, shortened if it is very long."""
    return name if len(name) <= _NAME_LENGTH else name[: _NAME_LENGTH - 1] + "…"


def name_ticks(axis, positions, names) -> None:
    """Label an axis with feature names, literally, and shortened if very long."""
    # A name with two dollar signs is not a formula.
    axis.set_ticks(positions, [shown(name) for name in names], parse_math=False)


def percent(axis) -> None:
    """Show shares in per cent."""
    axis.set_major_formatter(lambda value, _: f"{100 * value:.4g}%")


def unique(names) -> Iterator[str]:
    """Names of columns: those that come again are numbered."""
    seen: dict[str, int] = {}
    for name in map(str, names):
        seen[name] = seen.get(name, 0) + 1
        yield name if seen[name] == 1 else f"{name} ({seen[name]})"


def number(value: float) -> str:
    """A number in a title, with a minus sign as on the axes."""
    return f"{value:.3g}".replace("-", "−")


def colour_bar(ax, drawn, label: str):
    """A slim colour bar as high as the axes, and its own axes."""
    beside = ax.inset_axes((1.03, 0, 0.04, 1))
    bar = ax.figure.colorbar(drawn, cax=beside, label=label)
    bar.outline.set_visible(False)
    beside.locator_params(axis="y", nbins=6)
    return beside


def draw_intervals(lines, places, intervals, **kwargs) -> None:
    """Lines from end to end of intervals, legible on bars and beside them.

    Parameters
    ----------
    lines : callable
        The method `vlines` or `hlines` of axes.
    places : array-like of shape (k,)
    intervals : array-like of shape (2, k)
    **kwargs : dict
        Passed to `lines`.
    """
    low, high = np.asarray(intervals)
    lines(places, low, high, color="white", linewidth=4)
    lines(places, low, high, **{"color": "black", "linewidth": 1.6, **kwargs})


def line_colours(count: int) -> list:
    """Colours of lines: apart from each other, or for many, from first to last."""
    if count <= len(PALETTE):
        return list(PALETTE[:count])
    return list(pyplot().get_cmap("viridis")(np.linspace(0, 0.92, count)))


def literal(name: str) -> str:
    """A name for a legend, in which two dollar signs do not begin a formula."""
    return shown(name).replace("$", r"\$")


def legend_beside(ax) -> None:
    """A legend to the right of the axes, where it hides nothing."""
    place = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}
    ax.legend(**place, frameon=False, fontsize="medium")


def scale(values, signed: bool) -> dict[str, Any]:
    """Colours for numbers around zero, or from zero upwards."""
    limit = float(np.nanmax(np.abs(values), initial=0.0)) or 1.0
    if signed:
        return {"cmap": DIVERGING, "vmin": -limit, "vmax": limit}
    return {"cmap": SEQUENTIAL, "vmin": 0, "vmax": limit}


def shades(cmap, vmin: float, vmax: float):
    """Colours for numbers that are not an image."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    return ScalarMappable(Normalize(vmin, vmax), cmap)


# ------------------------------------------------------------------------------- text


def draw_words(ax, words, colours=None, *, columns: int = 48) -> None:
    """Draw words one after the other, in lines, each on a background of its colour.

    Letters are outlines in the coordinates of the axes (one column each): they fit
    whatever the size of the figure.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    words : sequence of str
        A line begins after a word that ends in a newline.
    colours : array-like of shape (n_words, 4), default=None
        Backgrounds, as red, green, blue and opacity.
    columns : int, default=48
        Columns of a line.
    """
    places, n_lines = _lines(words, columns)
    for index, (text, line, column, width) in enumerate(places):
        colour = None if colours is None else np.asarray(colours[index])
        if colour is not None:
            ax.barh(line, width, 0.86, column, color=colour, linewidth=0)
        dark = colour is not None and colour[:3] @ [0.3, 0.59, 0.11] < 0.5
        _outline(ax, text, column, line, "white" if dark else "black")
    ax.set(
        xlim=(0, columns + 1), ylim=(max(n_lines, 1) - 0.4, -0.6), xticks=[], yticks=[]
    )
    ax.set_aspect(_LINE_HEIGHT, anchor="NW")
    ax.spines[:].set_visible(False)


#: Height of a line and of a letter, in widths of a letter.
_LINE_HEIGHT, _LETTER_HEIGHT = 2.0, 1 / 0.602


def count_lines(words, columns: int = 48) -> int:
    """Lines that :func:`draw_words` needs."""
    return _lines(words, columns)[1]


def _lines(words, columns: int) -> tuple[list[tuple[str, int, int, int]], int]:
    """Text, line, first column and width of every word, and the number of lines."""
    places, line, column = [], 0, 0
    for word in words:
        text = word.replace("\t", " ").rstrip("\n").replace("\n", " ")
        text = text if _width(text) <= columns else text[: columns // 2 - 1] + "…"
        if column and column + _width(text) > columns:
            line, column = line + 1, 0
        if not column:
            text = text.lstrip(" ")
        width = max(_width(text), 1)
        places.append((text, line, column, width))
        column += width
        if word.endswith("\n"):
            line, column = line + 1, 0
    return places, line + bool(column)


def _width(text: str) -> int:
    """Columns that a text takes: letters of East Asia take two."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _outline(ax, text: str, column: float, line: float, colour: str) -> None:
    from matplotlib.font_manager import FontProperties
    from matplotlib.patches import PathPatch
    from matplotlib.textpath import TextPath
    from matplotlib.transforms import Affine2D

    if not text.strip():
        return
    font = FontProperties(family="monospace")
    text = text.replace("$", r"\$")  # no formula
    path = TextPath((0, 0), text, size=_LETTER_HEIGHT, prop=font, usetex=False)
    place = Affine2D().scale(1, -1 / _LINE_HEIGHT).translate(column, line + 0.22)
    patch = PathPatch(
        path, facecolor=colour, linewidth=0, transform=place + ax.transData
    )
    ax.add_patch(patch)


# --------------------------------------------------------------------------- displays


class Display(ABC):
    """Numbers that can be drawn, and written as a page.

    Attributes
    ----------
    axes_ : list of matplotlib.axes.Axes
        After :meth:`plot`.
    ax_ : matplotlib.axes.Axes
        The first of them.
    figure_ : matplotlib.figure.Figure
        After :meth:`plot`.
    """

    #: What the picture is, and how it is read, on a page.
    heading: ClassVar[str]
    caption: ClassVar[str]

    @abstractmethod
    def plot(self, ax=None):
        """Draw on the axes given, or on a new figure.

        Parameters
        ----------
        ax : Axes or sequence of Axes, default=None
            Where to draw; a new figure by default.

        Returns
        -------
        Display
        """

    @abstractmethod
    def table(self) -> dict[str, Any]:
        """The numbers of the picture, by column.

        Returns
        -------
        dict of sequences of equal length
            Ready for :class:`pandas.DataFrame`.
        """

    @abstractmethod
    def summary(self) -> str:
        """What the picture shows, in a sentence for those who do not see it.

        Returns
        -------
        str
        """

    def to_svg(self) -> str:
        """The picture as it was drawn last.

        Returns
        -------
        str
            An SVG document with letters as outlines.
        """
        if not hasattr(self, "figure_"):
            self.plot()
            pyplot().close(self.figure_)  # drawn for the page, not for a window
        return svg(self.figure_)

    def to_html(self, path: str | PathLike[str] | None = None) -> str | None:
        """The picture, what it shows and its numbers, as one page that works offline.

        Parameters
        ----------
        path : str or path, default=None
            The file to write.

        Returns
        -------
        str or None
            The page, if no path is given.

        See Also
        --------
        agop.inspection.write_html : Several displays on one page.
        """
        if path is None:
            return html_page([self], title=self.heading)
        write_html(path, [self], title=self.heading)
        return None

    def _drawn(self, *axes):
        """Remember the axes and return the display, as :meth:`plot` does."""
        self.axes_ = list(axes)
        self.ax_, self.figure_ = self.axes_[0], self.axes_[0].figure
        return self

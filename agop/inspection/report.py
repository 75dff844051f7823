"""Displays on one page: a single HTML file that needs no network and no script."""

from __future__ import annotations

import base64
import math
import numbers
from collections.abc import Iterable, Mapping
from html import escape
from os import PathLike
from pathlib import Path
from string import Template

from agop.core.version import __version__

#: Rows of a table on a page, at most: the leading ones are shown.
MAX_ROWS = 200

_PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>$title</title>
<style>
$style</style>
</head>
<body>
<main>
<h1>$title</h1>
$sections</main>
<footer>Written by agop $version.</footer>
</body>
</html>
""")

_STYLE = """\
:root { color-scheme: light dark; --text: #1d2125; --faint: #5c6670; --line: #d5dae0;
  --page: #ffffff; }
@media (prefers-color-scheme: dark) { :root { --text: #e3e6ea; --faint: #a3adb8;
  --line: #3d444d; --page: #16191d; } }
body { margin: 0 auto; max-width: 62rem; padding: 1.5rem; background: var(--page);
  color: var(--text); font: 1rem/1.5 system-ui, "Segoe UI", sans-serif; }
h1, h2 { line-height: 1.25; overflow-wrap: anywhere; }
h2 { margin: 0 0 .5rem; }
section { margin: 2.5rem 0; }
figure { margin: 0 0 1rem; }
img { display: block; max-width: 100%; height: auto; padding: .75rem;
  box-sizing: border-box; background: #ffffff; border: 1px solid var(--line);
  border-radius: .4rem; }
.caption, footer, caption { color: var(--faint); }
.caption { margin: .25rem 0 .75rem; }
summary { cursor: pointer; }
.scroll { overflow: auto; max-height: 28rem; margin-top: .5rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: .3rem; }
th, td { padding: .2rem .8rem .2rem 0; border-bottom: 1px solid var(--line);
  text-align: left; font-weight: normal; overflow-wrap: anywhere; }
thead th { font-weight: 600; }
.number { text-align: right; }
@media print { :root { --text: #000000; --faint: #444444; --page: #ffffff; }
  body { max-width: none; padding: 0; }
  figure, tr { break-inside: avoid; } h2, summary { break-after: avoid; }
  .scroll { max-height: none; overflow: visible; } }
"""


def write_html(
    path: str | PathLike[str],
    displays,
    *,
    title: str = "What the model has learned",
) -> None:
    """Write displays to one HTML file that needs no network and no script.

    Pictures are inside the file, each with a description for those who do not see it,
    and its numbers in a table that opens.

    Parameters
    ----------
    path : str or path
        The file to write, in UTF-8.
    displays : sequence of displays, or dict of displays by heading
        Each is shown as it was drawn last. Displays of one figure share its picture.
    title : str, default="What the model has learned"

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from agop import SpectrumDisplay
    >>> from agop.inspection import write_html
    >>> display = SpectrumDisplay.from_spectrum([3.0, 1.0])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "report.html"
    ...     write_html(path, {"How many directions?": display}, title="My model")
    ...     page = path.read_text(encoding="utf-8")
    >>> "<h1>My model</h1>" in page
    True
    """
    Path(path).write_text(html_page(displays, title=title), encoding="utf-8")


def html_page(displays, *, title: str = "What the model has learned") -> str:
    """The page that :func:`write_html` writes.

    Parameters
    ----------
    displays : sequence of displays, or dict of displays by heading
    title : str, default="What the model has learned"

    Returns
    -------
    str
    """
    if not isinstance(displays, Iterable):
        raise TypeError(
            f"displays is a {type(displays).__name__}; give a list of displays, or a "
            "dict of displays by heading. One display has a method to_html of its own."
        )
    if isinstance(displays, Mapping):
        headed = list(displays.items())
    else:
        headed = [(display.heading, display) for display in displays]
    pictures: dict = {}  # figures, in order, with their headings and displays
    for heading, display in headed:
        picture = display.to_svg()
        whole = display.figure_.figure
        pictures.setdefault(whole, (picture, []))[1].append((heading, display))
    return _PAGE.substitute(
        title=escape(title),
        style=_STYLE,
        sections="".join(_section(*shown) for shown in pictures.values()),
        version=escape(__version__),
    )


def _section(picture: str, headed) -> str:
    """One figure, what its displays show, and their numbers."""
    heading = " · ".join(escape(heading) for heading, _ in headed)
    seen = " ".join(f"{heading}: {display.summary()}" for heading, display in headed)
    data = base64.b64encode(picture.encode()).decode()
    texts = "".join(
        f"<p>{escape(display.summary())}</p>\n"
        f'<p class="caption">{escape(display.caption)}</p>\n'
        f"{_details(heading, display.table())}"
        for heading, display in headed
    )
    return (
        f"<section>\n<h2>{heading}</h2>\n<figure>\n"
        f'<img alt="{escape(seen)}" src="data:image/svg+xml;base64,{data}">\n'
        f"</figure>\n{texts}</section>\n"
    )


def _details(heading: str, table: dict) -> str:
    """The numbers, folded."""
    columns = [list(values) for values in table.values()]
    n_rows = len(columns[0])
    rows = list(zip(*columns, strict=True))[:MAX_ROWS]
    caption = heading
    if n_rows > MAX_ROWS:
        caption += f": the first {MAX_ROWS} of {n_rows} rows"
    head = "".join(
        f'<th scope="col"{_kind(next(iter(values), None))}>{escape(name)}</th>'
        for name, values in zip(table, columns, strict=True)
    )
    lines = [_cell(row[0], "th") + "".join(map(_cell, row[1:])) for row in rows]
    body = "".join(f"<tr>{line}</tr>\n" for line in lines)
    return (
        "<details>\n<summary>The numbers</summary>\n"
        f'<div class="scroll" role="region" aria-label="{escape(heading)}" '
        f'tabindex="0">\n<table>\n<caption>{escape(caption)}</caption>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>\n</div>\n"
        "</details>\n"
    )


def _cell(value, tag: str = "td") -> str:
    scope = ' scope="row"' if tag == "th" else ""
    return f"<{tag}{scope}{_kind(value)}>{escape(_text(value))}</{tag}>"


def _kind(value) -> str:
    return ' class="number"' if isinstance(value, numbers.Real) else ""


def _text(value) -> str:
    if isinstance(value, numbers.Integral) or not isinstance(value, numbers.Real):
        return str(value)
    return f"{value:.4g}" if math.isfinite(value) else "–"

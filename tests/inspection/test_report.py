import base64
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import matplotlib.pyplot as plt
import numpy as np
import pytest

from agop import FeatureImportancesDisplay, SpectrumDisplay
from agop.inspection import write_html
from agop.inspection.displays import mosaic
from agop.inspection.report import MAX_ROWS
from tests.inspection.undrawn import EVIL, UNDRAWN

VOID = {"meta", "img"}
every_kind = pytest.mark.parametrize(
    "make", [make for make, _ in UNDRAWN.values()], ids=UNDRAWN
)


class Page(HTMLParser):
    """What a page holds; complains about tags that are not closed in order."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.cells, self.texts = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == [], f"never closed: {self.open}"

    def reset(self):
        super().reset()
        self.open = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names))
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)
        if self.open and self.open[-1] in ("td", "th"):
            self.cells.append(data)

    def values(self, tag, name):
        return [v for t, n, v in self.attributes if (t, n) == (tag, name)]


def pictures(page):
    """The SVG documents of a page, parsed."""
    head = "data:image/svg+xml;base64,"
    sources = page.values("img", "src")
    assert all(source.startswith(head) for source in sources)
    return [ElementTree.fromstring(base64.b64decode(s[len(head) :])) for s in sources]


@every_kind
def test_every_display_is_a_page(make):
    display = make()
    text = display.to_html()
    assert plt.get_fignums() == []  # a window is not opened for a page
    page = Page(text)
    assert text.startswith("<!DOCTYPE html>")
    assert page.values("html", "lang") == ["en"]
    needed = {"title", "h1", "h2", "figure", "details", "caption"}
    assert needed <= set(page.tags)
    (picture,) = pictures(page)
    assert picture.tag == "{http://www.w3.org/2000/svg}svg"
    (alt,) = page.values("img", "alt")
    assert display.heading in alt and display.summary() in alt
    assert display.caption in page.texts
    columns = list(display.table())
    assert page.cells[: len(columns)] == columns

    # F60: names are text, whatever they hold; nothing is fetched, nothing runs.
    assert not {"script", "link", "iframe", "object", "base", "a"} & set(page.tags)
    assert EVIL not in text
    outside = re.sub(r"base64,[A-Za-z0-9+/=]+", "", text)
    assert not re.search(r"https?:|//|@import|url\(", outside)
    assert not [n for _, n, _ in page.attributes if n.startswith("on") or n == "href"]
    (policy,) = page.values("meta", "content")[2:]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_names_arrive_whole(tmp_path):
    names = [EVIL, "größe & цена", "'\"", "a\nb"]
    display = FeatureImportancesDisplay(np.array([0.4, 0.3, 0.2, 0.1]), names)
    path = tmp_path / "Größe 1.html"
    assert display.to_html(path) is None
    page = Page(path.read_text(encoding="utf-8"))
    assert page.cells[2::2] == names
    assert page.cells[3::2] == ["0.4", "0.3", "0.2", "0.1"]


def test_the_same_display_gives_the_same_page():
    first, second = (UNDRAWN["layers"][0]().to_html() for _ in range(2))
    assert first == second


def test_the_picture_is_the_one_that_was_drawn():
    display = SpectrumDisplay.from_spectrum([3.0, 1.0])
    before = display.to_svg()
    display.ax_.set_title("mine")
    assert display.to_svg() != before
    assert plt.get_fignums()  # the user's figure stays open


def test_several_displays_with_headings(tmp_path):
    displays = {
        EVIL: SpectrumDisplay.from_spectrum([2.0, 1.0]),
        "second": UNDRAWN["history"][0](),
    }
    write_html(str(tmp_path / "page.html"), displays, title="<My> models")
    text = Path(tmp_path / "page.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.tags.count("section") == 2
    assert len(pictures(page)) == 2
    assert "<h1>&lt;My&gt; models</h1>" in text
    assert EVIL in page.texts and "second" in page.texts
    write_html(tmp_path / "list.html", list(displays.values()))
    assert "Rounds" in Page((tmp_path / "list.html").read_text(encoding="utf-8")).texts


@pytest.mark.parametrize("parts", [False, True])
def test_displays_of_one_figure_share_its_picture(parts, tmp_path):
    _, axes = mosaic("ab")
    if parts:
        left, right = plt.figure().subfigures(1, 2)
        axes = {"a": left.subplots(), "b": right.subplots()}
    first = SpectrumDisplay.from_spectrum([2.0, 1.0], ax=axes["a"])
    second = FeatureImportancesDisplay(np.array([0.9, 0.1]), ["a", "b"]).plot(axes["b"])
    write_html(tmp_path / "page.html", [first, second])
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert len(pictures(page)) == 1
    assert page.tags.count("table") == 2
    assert "Spectrum · Feature importances" in page.texts
    (alt,) = page.values("img", "alt")
    assert first.summary() in alt and second.summary() in alt


def test_long_tables_are_cut_and_say_so():
    values = np.arange(1.0, MAX_ROWS + 51)
    display = FeatureImportancesDisplay(values / values.sum(), [*map(str, values)])
    page = Page(display.to_html())
    assert page.tags.count("tr") == MAX_ROWS + 1
    assert (
        f"Feature importances: the first {MAX_ROWS} of {MAX_ROWS + 50} rows"
        in page.texts
    )
    assert page.cells[2] == str(values[-1])  # the largest come first


def test_numbers_are_readable():
    display = UNDRAWN["history"][0]()
    display.history["alpha"] = np.array([1e-12, 123456.0, np.inf])
    cells = Page(display.to_html()).cells
    assert {"1e-12", "1.235e+05", "–"} <= set(cells)
    assert cells[5::5] == ["0", "1", "2"]


def test_one_display_is_not_a_list(tmp_path):
    display = UNDRAWN["history"][0]()
    with pytest.raises(TypeError, match="to_html of its own"):
        write_html(tmp_path / "page.html", display)

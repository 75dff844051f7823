"""The examples of the documentation run, and print what the pages say."""

import doctest
import re
from pathlib import Path

import pytest
import torch

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE

# Code that a page shows: ```python, or the directive `plot`, which also draws a figure.
BLOCK = re.compile(r"^```(python|\{eval-rst\})\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(text):
    """Pairs of the number of lines before a block of code, and the block."""
    for match in BLOCK.finditer(text):
        yield text.count("\n", 0, match.start(2)), match[2]


def with_examples():
    return [path for path in PAGES if ">>> " in path.read_text("utf-8")]


@pytest.mark.parametrize("path", with_examples(), ids=lambda path: path.stem)
@pytest.mark.filterwarnings("ignore:.*FigureCanvasAgg is non-interactive")
def test_page(path, tmp_path, monkeypatch):
    """The blocks of a page share their names, as a reader would have typed them."""
    monkeypatch.chdir(tmp_path)  # what an example writes
    names = {"__name__": path.stem}
    report = []
    with torch.random.fork_rng(devices=[]):  # networks draw their weights
        torch.manual_seed(0)
        for line, block in blocks(path.read_text("utf-8")):
            example = doctest.DocTestParser().get_doctest(
                block, names, path.name, str(path), line
            )
            runner = doctest.DocTestRunner(optionflags=FLAGS, verbose=False)
            runner.run(example, out=report.append, clear_globs=False)
            names = example.globs
    close_figures()
    assert not report, "".join(report)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_no_code_escapes(path):
    """Every line of code stands in a block that the test above runs."""
    text = path.read_text("utf-8")
    inside = sum(block.count(">>> ") for _, block in blocks(text))
    assert inside == text.count(">>> ")
    for line, block in blocks(text):
        assert ">>> " in block, f"line {line} of {path}: code that nothing runs"


def close_figures():
    import matplotlib.pyplot as plt

    plt.close("all")

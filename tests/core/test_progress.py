"""What a user sees of a fit on a terminal and in a pipe, with and without rich."""

import io
import logging
import subprocess
import sys
import textwrap
from contextlib import redirect_stderr

import pytest

from agop.core.progress import Progress
from tests.rfm.problems import regression, regressor


class Stream(io.StringIO):
    def __init__(self, interactive):
        super().__init__()
        self.interactive = interactive

    def isatty(self):
        return self.interactive


@pytest.fixture(params=[True, False], ids=["terminal", "pipe"])
def stream(request, monkeypatch):
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "40")
    return Stream(request.param)


@pytest.fixture
def no_rich(monkeypatch):
    for name in ("rich", "rich.console", "rich.progress"):
        monkeypatch.setitem(sys.modules, name, None)


def screen(text):
    """The last line of a terminal that knows the carriage return."""
    line = ""
    for part in text.rpartition("\n")[2].split("\r"):
        line = part + line[len(part) :]
    return line


def test_a_plain_line_without_rich(stream, no_rich, caplog):
    with caplog.at_level(logging.INFO, logger="agop"), redirect_stderr(stream):
        with Progress("A machine with a long title", 3, verbose=1) as progress:
            seen = [screen(stream.getvalue())]
            for message in ("first", "second, " + 40 * "long ", "third"):
                progress.step(message)
                seen.append(screen(stream.getvalue()).rstrip())
        assert caplog.messages[0] == "first"
    if not stream.interactive:
        assert stream.getvalue() == ""
        return
    assert seen[:2] == ["A machine with a long title", "1/3 first"]
    assert seen[2] == ("2/3 second, " + 40 * "long ")[:39].rstrip()
    assert seen[3] == "3/3 third"
    assert screen(stream.getvalue()).strip() == ""
    assert stream.getvalue().endswith("\r")
    assert "\n" not in stream.getvalue()


def test_rich_shows_a_bar(stream):
    pytest.importorskip("rich")
    with redirect_stderr(stream):
        regressor(n_iter=1, verbose=1).fit(*regression())
    assert ("round 1" in stream.getvalue()) == stream.interactive


def test_an_error_takes_the_line_away(stream, no_rich):
    with pytest.raises(KeyboardInterrupt), redirect_stderr(stream):
        with Progress("title", 3, verbose=1) as progress:
            progress.step("first")
            raise KeyboardInterrupt
    assert ("first" in stream.getvalue()) == stream.interactive
    assert screen(stream.getvalue()).strip() == ""


def test_silent_without_verbose(stream, no_rich):
    with redirect_stderr(stream):
        regressor(n_iter=1).fit(*regression())
    assert stream.getvalue() == ""


def test_no_standard_error_at_all(no_rich):
    with redirect_stderr(None), Progress("title", 3, verbose=1) as progress:
        progress.step("first")


def test_f57_importing_rich_leaves_the_global_generator_alone():
    script = textwrap.dedent("""
        import random, sys
        import sklearn.datasets  # draws from it when it is first imported
        from agop.core.progress import Progress
        before = random.getstate()
        with Progress("fit", 1, verbose=1) as progress:
            progress.step("done")
        sys.exit(before != random.getstate())
    """)
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0

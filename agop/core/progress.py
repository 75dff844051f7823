"""Progress of a fit: scikit-learn callbacks, a bar where one can see it, a log."""

from __future__ import annotations

import logging
import random
import shutil
import sys
from typing import Any

try:
    from sklearn.callback import CallbackSupportMixin, with_callbacks
except ImportError:  # scikit-learn < 1.9 has no callbacks: nothing is called then

    class _NoContext:
        def subcontext(self, **kwargs: Any) -> _NoContext:
            return self

        def call_on_fit_task_begin(self, **kwargs: Any) -> None:
            pass

        def call_on_fit_task_end(self, **kwargs: Any) -> bool:
            return False

    class CallbackSupportMixin:  # type: ignore[no-redef]  # stands in for the other
        """Stand-in without callbacks."""

        def _init_callback_context(self, **kwargs: Any) -> _NoContext:
            return _NoContext()

    def with_callbacks(method: Any) -> Any:
        """Stand-in without callbacks."""
        return method


logger = logging.getLogger("agop")

__all__ = ["CallbackSupportMixin", "Progress", "with_callbacks"]


class Progress:
    """A bar on an interactive terminal or notebook, and lines in the log.

    Without rich the bar is one plain line, on terminals only.

    Parameters
    ----------
    title : str
    total : int or None
        Number of steps, at most; None if it is not known.
    verbose : int
        0 is silent; from 1 every step is logged (logger "agop", level INFO) and,
        where the standard error goes to a terminal or notebook, shown.
    """

    def __init__(self, title: str, total: int | None, verbose: int) -> None:
        self.verbose = verbose
        self._bar = _bar() if verbose else None
        if self._bar is not None:
            self._task = self._bar.add_task(title, total=total)

    def __enter__(self) -> Progress:
        """Show the bar."""
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()

    def step(self, message: str) -> None:
        """One step is done.

        Parameters
        ----------
        message : str
        """
        if self.verbose:
            logger.info(message)
        if self._bar is not None:
            self._bar.update(self._task, advance=1, description=message)


class _Line:
    """A line that overwrites itself, with what is used here of rich's bar."""

    def __init__(self) -> None:
        self._stream = sys.stderr
        self._done = self._length = 0

    def add_task(self, title: str, total: int | None) -> int:
        self._title = title
        self._total = "" if total is None else f"/{total}"
        return 0

    def start(self) -> None:
        self._show(self._title)

    def update(self, task: int, advance: int, description: str) -> None:
        self._done += advance
        self._show(f"{self._done}{self._total} {description}")

    def stop(self) -> None:
        self._show("")
        self._stream.write("\r")
        self._stream.flush()

    def _show(self, text: str) -> None:
        text = text[: shutil.get_terminal_size().columns - 1]  # or it would wrap
        self._stream.write("\r" + text.ljust(self._length))
        self._stream.flush()
        self._length = len(text)


def _bar() -> Any:
    """What shows progress here, if anybody looks."""
    state = random.getstate()  # importing rich draws from the user's generator
    try:
        from rich.console import Console
        from rich.progress import Progress as RichProgress
    except ImportError:
        return _Line() if sys.stderr is not None and sys.stderr.isatty() else None
    finally:
        random.setstate(state)
    console = Console(stderr=True)
    if not (console.is_terminal or console.is_jupyter):
        return None
    return RichProgress(console=console, transient=True)

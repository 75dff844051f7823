"""Progress of a fit: scikit-learn callbacks, a bar where one can see it, a log."""

from __future__ import annotations

import logging
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

    Parameters
    ----------
    title : str
    total : int
        Number of steps, at most.
    verbose : int
        0 is silent; from 1 every step is logged (logger "agop", level INFO) and,
        where rich is installed and output goes to a terminal or notebook, shown.
    """

    def __init__(self, title: str, total: int, verbose: int) -> None:
        self.verbose = verbose
        self._bar = _rich_bar() if verbose else None
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


def _rich_bar() -> Any:
    try:
        from rich.console import Console
        from rich.progress import Progress as RichProgress
    except ImportError:
        return None
    console = Console(stderr=True)
    if not (console.is_terminal or console.is_jupyter):
        return None
    return RichProgress(console=console, transient=True)

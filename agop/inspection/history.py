"""Pictures of the rounds of a recursive feature machine."""

from __future__ import annotations

import numpy as np
from sklearn.base import is_classifier

from agop.inspection.displays import BLUE, GREY, ORANGE, Display, one_axes, tidy
from agop.inspection.fitted import last_step


class HistoryDisplay(Display):
    """The rounds of a recursive feature machine: what each metric update brought.

    Below every round stand the penalty and the effective rank of the AGOP that was
    its metric. A loss that was not estimated in some round (NaN) is left out.

    Parameters
    ----------
    history : dict of ndarray
        As the fitted attribute `history_`.
    best_iter : int
        The round that was kept.
    loss : str, default="loss"
        Name of the loss.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        After :meth:`plot`.
    figure_ : matplotlib.figure.Figure
        After :meth:`plot`.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from agop import HistoryDisplay, RFMRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = RFMRegressor(kernel="laplace", random_state=0).fit(X, y)
    >>> display = HistoryDisplay.from_estimator(model)
    >>> print(display.ax_.get_ylabel())
    squared error
    """

    heading = "Rounds"
    caption = (
        "Every round takes the AGOP of the predictor before it as its metric. The "
        "dotted line marks the round that was kept."
    )

    def __init__(self, history, best_iter, loss="loss"):
        self.history = history
        self.best_iter = best_iter
        self.loss = loss

    @classmethod
    def from_estimator(cls, estimator, *, ax=None, **kwargs):
        """Draw the rounds of a fitted recursive feature machine.

        Parameters
        ----------
        estimator : RFMRegressor, RFMClassifier, Pipeline or search
            A fitted machine, or a pipeline or search that holds one.
        ax : matplotlib.axes.Axes, default=None
            Where to draw; a new figure by default.
        **kwargs : dict
            Passed to :meth:`plot`.

        Returns
        -------
        HistoryDisplay
        """
        machine = last_step(estimator)
        loss = "log loss" if is_classifier(machine) else "squared error"
        return cls(machine.history_, machine.best_iter_, loss).plot(ax, **kwargs)

    def plot(self, ax=None, *, line_kwargs=None, best_kwargs=None):
        """Draw the losses by round and mark the round that was kept.

        Where no loss was estimated, because all settings were given, the effective
        rank is drawn instead.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, default=None
            Where to draw; a new figure by default.
        line_kwargs : dict, default=None
            Passed to :meth:`matplotlib.axes.Axes.plot`, for every line.
        best_kwargs : dict, default=None
            Passed to :meth:`matplotlib.axes.Axes.axvline`, for the round kept.

        Returns
        -------
        HistoryDisplay
        """
        ax = one_axes(ax)
        curves = [
            ("cross_fitted", "cross-fitted", BLUE, "o"),
            ("leave_one_out", "leave-one-out", ORANGE, "s"),
        ]
        curves = [c for c in curves if np.isfinite(self.history[c[0]]).any()]
        ylabel = self.loss
        if not curves:
            curves = [("effective_rank", "effective rank of the AGOP", BLUE, "o")]
            ylabel = "effective rank"
        best = {"color": GREY, "linestyle": ":", "label": "round kept"}
        ax.axvline(self.best_iter, **{**best, **(best_kwargs or {})})
        for name, label, color, marker in curves:
            style = {"color": color, "marker": marker, "markersize": 5, "label": label}
            values = np.asarray(self.history[name], dtype=float)
            known = np.isfinite(values)
            ax.plot(
                np.asarray(self.history["round"])[known],
                values[known],
                **{**style, **(line_kwargs or {})},
            )
        self._round_ticks(ax)
        ax.set_ylabel(ylabel)
        tidy(ax, "y")
        ax.legend(frameon=False)
        return self._drawn(ax)

    def table(self) -> dict[str, np.ndarray]:
        """Losses, penalty and effective rank by round.

        Returns
        -------
        dict of ndarray of shape (n_rounds,)
        """
        names = ("round", "cross_fitted", "leave_one_out", "alpha", "effective_rank")
        return {name: np.asarray(self.history[name]) for name in names}

    def summary(self) -> str:
        """How many rounds there were, and which was kept.

        Returns
        -------
        str
        """
        last = int(np.max(self.history["round"]))
        return f"Round {self.best_iter} of {last} was kept."

    def _round_ticks(self, ax) -> None:
        rounds = np.asarray(self.history["round"])
        shown = rounds[:: -(-len(rounds) // 8)]  # eight labels fit side by side
        alpha, rank = self.history["alpha"], self.history["effective_rank"]
        labels = [f"{t}\n{_or_dash(alpha[t])}\n{_or_dash(rank[t])}" for t in shown]
        ax.set_xticks(shown, labels)
        ax.set_xlim(-0.4, max(rounds[-1], 1) + 0.4)
        ax.set_xlabel("round, penalty, effective rank of its metric")


def _or_dash(value: float) -> str:
    return f"{value:.2g}" if np.isfinite(value) else "–"

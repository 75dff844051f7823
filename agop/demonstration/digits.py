"""Real digits: a machine finds out which of nine decides the label."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from agop.datasets import make_digit_grids
from agop.inspection.displays import mosaic
from agop.inspection.features import DirectionDisplay
from agop.inspection.history import HistoryDisplay
from agop.inspection.spectra import SpectrumDisplay
from agop.rfm.estimators import RFMClassifier

INTRODUCTION = """\
A thousand pictures, each of nine handwritten digits. The label says whether one of
the nine is odd, and the same place counts in every picture: which one?
The machine sees 576 pixels and a label; the place is not told. Tested on 1000
pictures of digits that it never saw.
"""

#: Digits of a picture, and the one that decides its label.
GRID = (3, 3)
TILE = (1, 2)

_SHAPE = (8 * GRID[0], 8 * GRID[1])


@dataclass(frozen=True)
class Result:
    """How one classifier does on pictures of digits that it never saw.

    Parameters
    ----------
    name : str
    accuracy : float
    log_loss : float
    seconds : float
        Wall time of the fit.
    """

    name: str
    accuracy: float
    log_loss: float
    seconds: float


class DigitsDemonstration:
    """Pictures of nine digits, one of which decides the label, and a machine.

    Parameters
    ----------
    n_samples : int, default=1000
        Training pictures, and as many for the test.

    Attributes
    ----------
    model : RFMClassifier
        Fitted by :meth:`lines`.
    """

    def __init__(self, n_samples: int = 1000):
        layout: dict[str, Any] = {"grid": GRID, "tile": TILE}
        self.X, self.y, _ = make_digit_grids(n_samples, **layout, random_state=0)
        self.X_test, self.y_test, _ = make_digit_grids(
            n_samples, **layout, subset="test", random_state=1
        )
        self.model = RFMClassifier(kernel="laplace", random_state=0)

    def lines(self) -> Iterator[str]:
        """Fit the machine and others, one after the other, and tell.

        Yields
        ------
        str
        """
        yield INTRODUCTION
        yield f"{'':29}accuracy  log loss   seconds"
        for result in self._compare():
            yield (
                f"{result.name:29}{result.accuracy:8.1%}  {result.log_loss:8.3f}  "
                f"{result.seconds:8.1f}"
            )
        metric = "full" if self.model.metric_factor_.ndim == 2 else "diagonal"
        yield (
            f"\nChosen without test pictures: {metric} metric, "
            f"{self.model.best_iter_} rounds, penalty {self.model.alpha_:g}."
        )
        yield "Where the machine looks, in per cent of the trace of its AGOP:\n"
        shares = self.shares()
        for row in shares:
            yield "    " + "".join(f"{share:8.1%}" for share in row)
        row, column = TILE
        yield (
            f"\nThe place that counts is row {row + 1}, column {column + 1}: it has "
            f"{shares[TILE]:.1%} (chance: {1 / shares.size:.1%})."
        )

    def _compare(self) -> Iterator[Result]:
        for name, classifier in {
            "recursive feature machine": self.model,
            "its kernel, without rounds": RFMClassifier(
                kernel="laplace", n_iter=0, random_state=0
            ),
            "random forest, 200 trees": RandomForestClassifier(200, random_state=0),
            "logistic regression": LogisticRegression(max_iter=2000),
        }.items():
            start = time.perf_counter()
            classifier.fit(self.X, self.y)
            seconds = time.perf_counter() - start
            yield Result(
                name,
                float(classifier.score(self.X_test, self.y_test)),
                float(log_loss(self.y_test, classifier.predict_proba(self.X_test))),
                seconds,
            )

    def shares(self) -> np.ndarray:
        """Share of each digit of a picture in the trace of the AGOP.

        Returns
        -------
        ndarray of shape GRID
        """
        rows, columns = GRID
        return self.model.feature_importances_.reshape(rows, 8, columns, 8).sum((1, 3))

    def draw(self):
        """Draw two pictures, where the machine looks, and how it got there.

        Returns
        -------
        matplotlib.figure.Figure
        """
        figure, axes = mosaic(
            [["even", "odd", "diagonal"], ["history", "spectrum", "direction"]],
            figsize=(11.5, 7.4),
        )
        for name, label in (("even", 0), ("odd", 1)):
            example = self.X[np.flatnonzero(self.y == label)[0]].reshape(_SHAPE)
            axes[name].imshow(example, cmap="gray_r")
            axes[name].set(title=f"a picture labelled “{name}”", xticks=[], yticks=[])
        DirectionDisplay.from_estimator(
            self.model, what="diagonal", shape=_SHAPE, ax=axes["diagonal"]
        )
        axes["diagonal"].set_title(f"where it looks: {self.shares()[TILE]:.1%} on one")
        HistoryDisplay.from_estimator(self.model, ax=axes["history"])
        axes["history"].set_title("what each round brought")
        SpectrumDisplay.from_estimator(self.model, n_shown=8, ax=axes["spectrum"])
        DirectionDisplay.from_estimator(self.model, shape=_SHAPE, ax=axes["direction"])
        for name in ("even", "odd", "diagonal", "direction"):
            for edge in (7.5, 15.5):  # between the digits
                axes[name].axhline(edge, color="tab:blue", linewidth=0.8)
                axes[name].axvline(edge, color="tab:blue", linewidth=0.8)
        figure.suptitle(
            "Nine digits, and the label says whether one of them is odd. Which one?",
            fontsize=14,
        )
        return figure

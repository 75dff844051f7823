"""One fit: choose what is left open, run the recursion on all rows, summarise."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from agop.core.arrays import NumericalWarning, random_rows
from agop.core.spectrum import Spectrum
from agop.kernels import (
    DiagonalMetric,
    FullMetric,
    Gaussian,
    GeneralizedExponential,
    Kernel,
    Laplace,
    ProductLaplace,
)
from agop.rfm.bandwidth import Median
from agop.rfm.calibration import Loss, fit_slope
from agop.rfm.machine import KernelMachine
from agop.rfm.recursion import (
    Problem,
    Recipe,
    Round,
    allocate_square,
    recurse,
    warn_of_zero,
)
from agop.rfm.selection import (
    OutOfFold,
    Trial,
    best_trial,
    cross_fit,
    distinct_rows,
    make_folds,
)

#: Rows on which settings are chosen, at most.
SELECTION_ROWS = 1000

#: Small data are dealt to folds several times, at most this often, until about as many
#: rows are predicted: a choice among many settings is mostly noise otherwise.
MOST_DEALS = 5

#: What is tried where a parameter says "auto".
DEFAULTS: tuple[tuple[Kernel, Median], ...] = (
    (Laplace(), Median(1.0)),
    (GeneralizedExponential(1.5), Median(1.0)),
    (Gaussian(), Median(5.0)),
    (ProductLaplace(), Median(0.3)),
    (ProductLaplace(), Median(3.0)),
)
FACTORS = (1.0, 0.3, 3.0)
METRICS: dict[str, type[FullMetric] | type[DiagonalMetric]] = {
    "full": FullMetric,
    "diagonal": DiagonalMetric,
}
PENALTIES = tuple(10.0 ** (exponent / 2) for exponent in range(-8, 4))
ROUNDS = 4

#: Settings used when there are too few rows to choose: no round, a mild penalty.
_FALLBACK_ALPHA = 0.1

#: Called after every round with its name and a message; True stops.
Report = Callable[[str, str], bool]


@dataclass(frozen=True)
class Settings:
    """What may be chosen, and from what.

    Parameters
    ----------
    recipes : tuple of Recipe
    penalties : tuple of float
        Ascending, for rows of weight 1.
    n_iter : int or None
        Number of rounds; None to choose among 0 … `ROUNDS`.
    calibrated : bool
        Whether scores become probabilities.
    """

    recipes: tuple[Recipe, ...]
    penalties: tuple[float, ...]
    n_iter: int | None
    calibrated: bool

    @property
    def open(self) -> bool:
        """Whether anything is left to choose."""
        return self.n_iter is None or len(self.recipes) * len(self.penalties) > 1

    def penalties_for(self, scale: float) -> tuple[float, ...]:
        """Penalties to try for rows of that mean weight; one that is given stays."""
        if len(self.penalties) == 1:
            return self.penalties
        return tuple(alpha * scale for alpha in self.penalties)

    @property
    def cross_fitted(self) -> bool:
        """Whether predictions are needed for rows that the metric has not seen."""
        return self.open or (self.calibrated and self.n_iter != 0)


@dataclass(frozen=True)
class Choice:
    """Settings that were chosen, and what is known about them.

    Parameters
    ----------
    recipe : Recipe
    alphas : tuple of float
        Penalty of every round, up to the chosen one.
    out_of_fold : OutOfFold or None
        Predictions of the chosen settings for rows they were not fitted to.
    losses : list of float
        Cross-fitted loss of the recipe at every round.
    """

    recipe: Recipe
    alphas: tuple[float, ...]
    out_of_fold: OutOfFold | None
    losses: list[float]


@dataclass(frozen=True)
class Fit:
    """The result of a fit.

    Parameters
    ----------
    machine : KernelMachine
    n_rounds : int
        Metric updates behind the machine.
    alpha : float
        Penalty of the last solve.
    jitter : float
    spectrum : Spectrum
        Of the AGOP of the final machine at the training points.
    history : dict of ndarray
    slope : float
        Of the softmax that turns scores into probabilities; NaN for regression.
    """

    machine: KernelMachine
    n_rounds: int
    alpha: float
    jitter: float
    spectrum: Spectrum
    history: dict[str, np.ndarray]
    slope: float


def choose(
    problem: Problem,
    settings: Settings,
    loss: Loss,
    generator: np.random.RandomState,
    report: Report,
) -> Choice:
    """Choose settings by cross-fitting on (a random subset of) the rows.

    It is done in float64 whatever the data are in: some of the kernels and penalties
    that are tried are too much for float32.

    Parameters
    ----------
    problem : Problem
    settings : Settings
    loss : Loss
    generator : RandomState
    report : callable

    Returns
    -------
    Choice
    """
    if not settings.cross_fitted:
        return _without_choice(settings, 1.0)
    n_iter = ROUNDS if settings.n_iter is None else settings.n_iter
    part = distinct_rows(problem.double())
    part = part.rows(
        torch.from_numpy(random_rows(len(part.X), SELECTION_ROWS, generator))
    )
    scale = float(part.sample_weight.mean())
    n_deals = min(MOST_DEALS, SELECTION_ROWS // len(part.X))
    folds = [fold for _ in range(n_deals) for fold in make_folds(part, generator)]
    if not folds:
        return _without_choice(settings, scale)
    trials: list[Trial] = []
    for index, trials in enumerate(
        cross_fit(
            part,
            folds,
            settings.recipes,
            settings.penalties_for(scale),
            n_iter,
            loss,
        )
    ):
        least = best_trial(trials).best_loss
        if report("selection", f"selection, round {index}: loss {least:.4g}"):
            break
    solved = [trial for trial in trials if trial.results]
    if not solved:
        warnings.warn(
            "No settings could be compared: every kernel matrix that was tried is "
            "singular. Give other values of alpha, bandwidth or kernel.",
            NumericalWarning,
            stacklevel=2,
        )
        return _without_choice(settings, scale)
    if settings.n_iter is None:
        winner = best_trial(solved)
        last = winner.best_round
    else:
        longest = max(len(trial.results) for trial in solved)
        complete = [trial for trial in solved if len(trial.results) == longest]
        winner = min(complete, key=lambda trial: trial.results[-1].loss)
        last = longest - 1
    alphas = (*winner.path[:last], winner.results[last].alpha)
    if settings.n_iter is not None:
        # Recursions that were given up go on to the round that was asked for.
        alphas += alphas[-1:] * (n_iter - last)
    return Choice(
        winner.recipe,
        alphas,
        winner.results[last].out_of_fold,
        [result.loss for result in winner.results],
    )


def _without_choice(settings: Settings, scale: float) -> Choice:
    """The first recipe, without rounds if their number is open."""
    alpha = settings.penalties[0]
    if len(settings.penalties) > 1:
        alpha = _FALLBACK_ALPHA * scale
    recipe = settings.recipes[0]
    return Choice(recipe, (alpha,) * ((settings.n_iter or 0) + 1), None, [])


def fit(
    problem: Problem,
    settings: Settings,
    loss: Loss,
    generator: np.random.RandomState,
    report: Report,
    *,
    on_round: Callable[[Round], bool],
) -> Fit:
    """Choose settings, run the recursion on all rows, and summarise the result.

    Parameters
    ----------
    problem : Problem
    settings : Settings
    loss : Loss
        Compares settings.
    generator : RandomState
    report : callable
        Told of every round of the choice.
    on_round : callable
        Told of every round on all rows; True stops.

    Returns
    -------
    Fit
    """
    storage = allocate_square(len(problem.X), problem.X)  # refused before any work
    choice = choose(problem, settings, loss, generator, report)
    recipe, alphas = choice.recipe, choice.alphas
    observe = settings.cross_fitted or settings.calibrated
    rows: list[tuple[float, ...]] = []
    for current in recurse(
        problem, recipe, alphas, leave_one_out=observe, storage=storage
    ):
        rows.append(_history_row(current, problem, loss))
        if on_round(current):
            break
    spectrum = current.spectrum()
    if spectrum.trace == 0.0 and current.index == len(alphas) - 1:
        warn_of_zero()  # if the recursion ended before, it has said so
    slope = _slope(choice, current, problem) if settings.calibrated else math.nan
    return Fit(
        current.machine,
        current.index,
        current.alpha,
        current.solution.jitter,
        spectrum,
        _history(rows, choice.losses),
        slope,
    )


def _slope(choice: Choice, last: Round, problem: Problem) -> float:
    """From predictions that did not see their own label."""
    found = choice.out_of_fold
    if found is None and last.solution.residuals is not None:
        scores = problem.Y - last.solution.residuals
        found = OutOfFold(scores, problem.Y, problem.sample_weight)
    if found is None:
        return 1.0
    return fit_slope(found.scores, found.targets, found.weights)


def _history_row(current: Round, problem: Problem, loss: Loss) -> tuple[float, ...]:
    residuals = current.solution.residuals
    leave_one_out = math.nan
    if residuals is not None:
        scores = problem.Y - residuals
        leave_one_out = loss(scores, problem.Y, problem.sample_weight)
    return (
        current.index,
        leave_one_out,
        current.alpha,
        current.machine.bandwidth,
        current.effective_rank,
        current.seconds,
    )


def _history(
    rows: Sequence[tuple[float, ...]], losses: Sequence[float]
) -> dict[str, np.ndarray]:
    """Columns by name; NaN where a round was only cross-fitted, or only run."""
    names = ("leave_one_out", "alpha", "bandwidth", "effective_rank", "seconds")
    length = max(len(rows), len(losses))
    table = np.full((length, len(names)), math.nan)
    table[: len(rows)] = [row[1:] for row in rows]
    cross_fitted = np.full(length, math.nan)
    cross_fitted[: len(losses)] = losses
    return {
        "round": np.arange(length),
        "cross_fitted": cross_fitted,
        **dict(zip(names, table.T.copy(), strict=True)),
    }

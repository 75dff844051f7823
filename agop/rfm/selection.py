"""Choosing recipe, penalties and round by cross-fitting, without losing a row.

A metric has seen the labels of its training rows. The closed-form leave-one-out error
takes the metric as given, so that a full metric looks far better than it is: it would
always be chosen, in a late round. Here the whole recursion is run on the other folds
for every fold, so that no prediction has seen its own label, neither through the
coefficients nor through the metric. The chosen settings then run on all rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from agop.kernels import Kernel
from agop.rfm.bandwidth import Median
from agop.rfm.calibration import Loss, squared_error
from agop.rfm.recursion import Problem, Recipe, Recursion, allocate_square
from agop.solvers.cholesky import CholeskySolver, Solution

#: Number of folds.
N_FOLDS = 3

#: Relative rounding error of a sum of weights.
_NOISE = 1e-9

#: How many recipes go on after round 1, and after round 2 and later.
_SURVIVORS = (2, 1)


@dataclass(frozen=True)
class Fold:
    """Training and test rows of one fold, with their weights.

    Parameters
    ----------
    train, test : Tensor of int
    train_weight, test_weight : Tensor
    """

    train: torch.Tensor
    train_weight: torch.Tensor
    test: torch.Tensor
    test_weight: torch.Tensor


def distinct_rows(problem: Problem) -> Problem:
    """Every pair of inputs and targets once, sorted, with the weight of its copies.

    Parameters
    ----------
    problem : Problem

    Returns
    -------
    Problem
    """
    table = np.column_stack([problem.Y.cpu().numpy(), problem.X.cpu().numpy()])
    _, first, group = np.unique(table, axis=0, return_index=True, return_inverse=True)
    weight = np.bincount(group.reshape(-1), weights=problem.sample_weight.cpu().numpy())
    rows = problem.rows(torch.from_numpy(first).to(problem.X.device))
    return Problem(rows.X, rows.Y, torch.from_numpy(weight).to(rows.sample_weight))


def make_folds(
    problem: Problem, generator: np.random.RandomState, n_folds: int = N_FOLDS
) -> list[Fold]:
    """Stratified folds, none of which trains on what it is tested on.

    An input that occurs with one target goes to one fold, whatever its weight. An
    input that occurs with several targets was measured several times: the copies of
    each measurement are dealt to the folds in turn, so that a weight of 3 is tested
    with weight 1 in each of three folds, and trains with weight 2.

    Parameters
    ----------
    problem : Problem
        Of distinct rows; see :func:`distinct_rows`.
    generator : RandomState
    n_folds : int, default=3

    Returns
    -------
    list of Fold
        Empty if there are not two things to deal.
    """
    X, Y, weight = (
        tensor.cpu().numpy() for tensor in (problem.X, problem.Y, problem.sample_weight)
    )
    _, group, counts = np.unique(X, axis=0, return_inverse=True, return_counts=True)
    repeated = counts[group.reshape(-1)] > 1
    turns = np.where(repeated, count_copies(weight), 1)
    n_folds = int(min(n_folds, turns.sum()))
    if n_folds < 2:
        return []
    labels = Y.argmax(1) if Y.shape[1] > 1 else np.zeros(len(Y))
    order = np.lexsort((generator.permutation(len(Y)), labels))
    start = np.empty(len(Y), dtype=int)
    # Complete deals give to every fold: only the turns of the last one move on.
    start[order] = np.cumsum(np.fmod(turns[order], n_folds)) - np.fmod(
        turns[order], n_folds
    )
    test_weight = np.zeros((len(Y), n_folds), dtype=weight.dtype)
    test_weight[~repeated, start[~repeated] % n_folds] = weight[~repeated]
    for row in np.flatnonzero(repeated):
        test_weight[row] = _deal(float(weight[row]), start[row], n_folds)
    return [_fold(column, weight) for column in test_weight.T]


def _deal(weight: float, start: int, n_folds: int) -> np.ndarray:
    """What each fold gets if copies go to one fold after the other."""
    rest = math.fmod(weight, n_folds)
    dealt = np.full(n_folds, (weight - rest) / n_folds)
    position = start
    while rest > _NOISE * weight:
        dealt[position % n_folds] += min(1.0, rest)
        position += 1
        rest -= 1.0
    return dealt


def _fold(test_weight: np.ndarray, weight: np.ndarray) -> Fold:
    rest = weight - test_weight
    test, train = np.flatnonzero(test_weight > 0), np.flatnonzero(rest > 0)
    return Fold(
        torch.from_numpy(train),
        torch.from_numpy(rest[train]),
        torch.from_numpy(test),
        torch.from_numpy(test_weight[test]),
    )


def count_copies(weight: np.ndarray) -> np.ndarray:
    """How many copies of a row a weight stands for: it is rounded up, and at least 1.

    Parameters
    ----------
    weight : ndarray
        Positive.

    Returns
    -------
    ndarray
        Whole numbers.
    """
    return np.ceil(weight * (1 - _NOISE))


@dataclass(frozen=True)
class OutOfFold:
    """Predictions for points that took no part in them.

    Parameters
    ----------
    scores : Tensor of shape (m, c)
    targets : Tensor of shape (m, c)
    weights : Tensor of shape (m,)
    """

    scores: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor


@dataclass(frozen=True)
class Result:
    """The best of a round.

    Parameters
    ----------
    alpha : float
    loss : float
    out_of_fold : OutOfFold
    """

    alpha: float
    loss: float
    out_of_fold: OutOfFold


class Workspace:
    """Room for two kernel matrices, shared by trials that run one after another.

    Parameters
    ----------
    n : int
        Largest number of rows.
    like : Tensor
        Gives dtype and device.
    """

    def __init__(self, n: int, like: torch.Tensor) -> None:
        self._buffers = [allocate_square(n, like).view(-1) for _ in range(2)]

    def square(self, which: int, n: int) -> torch.Tensor:
        """The first (0) or second (1) buffer as a matrix of shape (n, n)."""
        return self._buffers[which][: n * n].view(n, n)


@dataclass(frozen=True)
class _Copies:
    """A kernel matrix that a solver may have again and again."""

    matrix: torch.Tensor
    buffer: torch.Tensor

    def dense(self) -> torch.Tensor:
        return self.buffer.copy_(self.matrix)


class Trial:
    """A recipe on its way through the rounds, on all folds in step.

    Parameters
    ----------
    problem : Problem
    folds : list of Fold
    recipe : Recipe
    penalties : sequence of float
        Ascending; searched locally at every round.
    loss : Loss
        By which rounds and recipes are compared.
    workspace : Workspace

    Attributes
    ----------
    path : list of float
        Penalty of every round so far from which the next metric was made: the one
        of least squared error.
    results : list of Result
        The best of every round so far, by loss.
    finished : bool
        There is no further round: the outer product vanished, or no penalty makes
        the kernel matrix positive definite.
    """

    def __init__(
        self,
        problem: Problem,
        folds: list[Fold],
        recipe: Recipe,
        penalties: Sequence[float],
        loss: Loss,
        workspace: Workspace,
    ) -> None:
        self.recipe = recipe
        self.path: list[float] = []
        self.results: list[Result] = []
        self.finished = False
        self._arguments = (problem, folds, penalties, loss, workspace)
        self._penalties = list(penalties)
        self._loss = loss
        self._workspace = workspace
        device = problem.X.device
        self._tests = [problem.rows(fold.test.to(device)) for fold in folds]
        self._targets = torch.cat([test.Y for test in self._tests])
        self._weights = torch.cat([fold.test_weight.to(device) for fold in folds])
        self._parts = [
            _training_part(problem, fold, recipe, workspace) for fold in folds
        ]
        self._coefs: list[torch.Tensor] = []

    def fork(self, recipe: Recipe) -> Trial:
        """A trial that goes on with another metric after the same round 0.

        Parameters
        ----------
        recipe : Recipe
            Of the same kernel and bandwidth.

        Returns
        -------
        Trial
        """
        problem, folds, penalties, loss, workspace = self._arguments
        other = Trial(problem, folds, recipe, penalties, loss, workspace)
        other.path = list(self.path)
        other.results = list(self.results)
        other.finished = self.finished
        other._coefs = self._coefs
        return other

    @property
    def best_loss(self) -> float:
        """The least loss so far; infinite before the first round."""
        return min((result.loss for result in self.results), default=math.inf)

    @property
    def best_round(self) -> int:
        """The round of least loss; the earliest of those that are as good."""
        bound = _no_worse(self.best_loss)
        return next(i for i, r in enumerate(self.results) if r.loss <= bound)

    def step(self) -> None:
        """Solve one more round, unless the trial is finished."""
        if self.finished:
            return
        try:
            self._advance()
            if not self.finished:
                self._solve()
        except np.linalg.LinAlgError:
            self.finished = True

    def _advance(self) -> None:
        for part, coef in zip(self._parts, self._coefs, strict=False):
            operator = part.kernel_matrix()
            operator.dense()
            if not part.advance(operator, coef):
                self.finished = True
                return

    def _solve(self) -> None:
        """Search the penalty, from the last choice outwards, by squared error."""
        matrices = [part.kernel_matrix().dense().clone() for part in self._parts]
        kernels = [
            part.kernel_to(test.X)
            for part, test in zip(self._parts, self._tests, strict=True)
        ]
        coefs: dict[int, list[torch.Tensor]] = {}
        scores: dict[int, torch.Tensor] = {}
        errors: dict[int, float] = {}

        def error(index: int) -> float:
            if index not in errors:
                solutions = [
                    self._solution(part, matrix, self._penalties[index])
                    for part, matrix in zip(self._parts, matrices, strict=True)
                ]
                coefs[index] = [solution.coef for solution in solutions]
                scores[index] = torch.cat(
                    [
                        kernel @ solution.coef + solution.intercept
                        for kernel, solution in zip(kernels, solutions, strict=True)
                    ]
                )
                errors[index] = squared_error(
                    scores[index], self._targets, self._weights
                )
            return errors[index]

        best = descend(error, len(self._penalties), self._start())
        self.path.append(self._penalties[best])
        self._coefs = coefs[best]
        losses = {
            index: self._loss(score, self._targets, self._weights)
            for index, score in sorted(scores.items())
        }
        chosen = min(losses, key=lambda index: losses[index])
        found = OutOfFold(scores[chosen], self._targets, self._weights)
        self.results.append(Result(self._penalties[chosen], losses[chosen], found))

    def _start(self) -> int:
        if self.path:
            return self._penalties.index(self.path[-1])
        return len(self._penalties) // 2

    def _solution(
        self, part: Recursion, matrix: torch.Tensor, alpha: float
    ) -> Solution:
        solver = CholeskySolver(
            fit_intercept=part.recipe.fit_intercept, leave_one_out=False, warn=False
        )
        copies = _Copies(matrix, self._workspace.square(1, len(matrix)))
        return solver.solve(copies, part.problem.Y, alpha, part.problem.sample_weight)


def descend(error: Callable[[int], float], size: int, start: int) -> int:
    """Index of a local minimum of a function on 0 … size − 1, in few evaluations.

    Parameters
    ----------
    error : callable
    size : int
    start : int

    Returns
    -------
    int
        The first of neighbouring indices that are as good.
    """
    best = start
    for stride in (2, 1):
        while True:
            around = [i for i in (best - stride, best, best + stride) if 0 <= i < size]
            bound = _no_worse(min(error(i) for i in around))
            moved = next(i for i in around if error(i) <= bound)
            if moved == best:
                break
            best = moved
    return best


def _no_worse(loss: float) -> float:
    """Losses up to here count as equal: rounding must not decide."""
    return loss + 1e-9 * abs(loss)


def _training_part(
    problem: Problem, fold: Fold, recipe: Recipe, workspace: Workspace
) -> Recursion:
    rows = fold.train.to(problem.X.device)
    weight = fold.train_weight.to(problem.X.device)
    part = Problem(problem.X[rows], problem.Y[rows], weight)
    return Recursion(part, recipe, workspace.square(0, len(rows)))


def cross_fit(
    problem: Problem,
    folds: list[Fold],
    recipes: Sequence[Recipe],
    penalties: Sequence[float],
    n_iter: int,
    loss: Loss,
) -> Iterator[list[Trial]]:
    """Run several recipes, round by round, and fewer of them as they get longer.

    All recipes run round 1; the two of least loss so far run round 2, and the best
    of them the rest. A recursion whose loss has grown by 5 % is given up.

    Parameters
    ----------
    problem : Problem
    folds : list of Fold
    recipes : sequence of Recipe
        Those of the same kernel and bandwidth share round 0.
    penalties : sequence of float
    n_iter : int
        Number of metric updates.
    loss : Loss

    Yields
    ------
    list of Trial
        All trials, those given up included, after every round.
    """
    workspace = Workspace(max(len(fold.train) for fold in folds), problem.X)
    plain: dict[tuple[Kernel, float | Median], Trial] = {}
    trials = []
    for recipe in recipes:
        base = (recipe.kernel, recipe.bandwidth)
        if base not in plain:
            plain[base] = Trial(problem, folds, recipe, penalties, loss, workspace)
            plain[base].step()
        trials.append(plain[base].fork(recipe))
    yield trials
    running = trials
    for index in range(1, n_iter + 1):
        for trial in running:
            if trial.results and trial.results[-1].loss <= 1.05 * trial.best_loss:
                trial.step()
        yield trials
        survivors = _SURVIVORS[min(index, len(_SURVIVORS)) - 1]
        running = sorted(running, key=lambda trial: trial.best_loss)[:survivors]


def best_trial(trials: Sequence[Trial]) -> Trial:
    """The trial of least loss; the first of those that are as good."""
    bound = _no_worse(min(trial.best_loss for trial in trials))
    return next(trial for trial in trials if trial.best_loss <= bound)

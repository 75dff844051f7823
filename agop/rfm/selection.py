"""Choosing recipe, penalties and round by cross-fitting, without losing a row.

A metric has seen the labels of its training rows. The closed-form leave-one-out error
takes the metric as given, so that a full metric looks far better than it is: it would
always be chosen, in a late round. Here the whole recursion is run on the other folds
for every fold, so that no prediction has seen its own label, neither through the
coefficients nor through the metric. The chosen settings then run on all rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from agop.rfm.calibration import Loss, squared_error
from agop.rfm.recursion import Problem, Recipe, Recursion, allocate_square
from agop.solvers.cholesky import CholeskySolver, Solution

#: Number of folds.
N_FOLDS = 3


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


def make_folds(
    X: np.ndarray,
    strata: np.ndarray,
    sample_weight: np.ndarray,
    generator: np.random.RandomState,
    n_folds: int = N_FOLDS,
) -> list[Fold]:
    """Stratified folds in which a weight of k is the same as k copies of a row.

    Copies of a row, whether written out or given as a weight, are dealt to the folds
    in turn; a row of weight 3 is tested with weight 1 in each of three folds, and
    trains with weight 2. The dealing order depends on the contents of the rows and
    not on their order.

    Parameters
    ----------
    X : ndarray of shape (n, d)
    strata : ndarray of shape (n, c)
        Targets; dealt class by class when they are one-hot.
    sample_weight : ndarray of shape (n,)
        Positive.
    generator : RandomState
    n_folds : int, default=3

    Returns
    -------
    list of Fold
        Empty if there are not two copies to deal.
    """
    table = np.column_stack([strata, X])
    _, first, group = np.unique(table, axis=0, return_index=True, return_inverse=True)
    group = group.reshape(-1)
    copies = np.ceil(np.bincount(group, weights=sample_weight) - 1e-9).astype(int)
    n_folds = min(n_folds, int(copies.sum()))
    if n_folds < 2:
        return []
    labels = strata[first].argmax(1) if strata.shape[1] > 1 else np.zeros(len(first))
    order = np.lexsort((generator.permutation(len(first)), labels))
    start = np.empty_like(order)
    start[order] = np.cumsum(copies[order]) - copies[order]
    test_weight = _deal(group, start, sample_weight, n_folds)
    folds = []
    for weight in test_weight.T:
        rest = sample_weight - weight
        test, train = np.flatnonzero(weight > 0), np.flatnonzero(rest > 0)
        folds.append(
            Fold(
                *(
                    torch.from_numpy(array)
                    for array in (train, rest[train], test, weight[test])
                )
            )
        )
    return folds


def _deal(
    group: np.ndarray, start: np.ndarray, weight: np.ndarray, n_folds: int
) -> np.ndarray:
    """Test weights (n, n_folds): unit after unit of a group goes to the next fold."""
    dealt = np.zeros((len(weight), n_folds), dtype=weight.dtype)
    position = start.astype(float)
    for row, (g, w) in enumerate(zip(group, weight, strict=True)):
        whole = math.floor(w / n_folds)
        dealt[row] += whole
        rest = float(w) - whole * n_folds
        while rest > 1e-9:
            unit = min(1.0, rest)
            dealt[row, int(position[g]) % n_folds] += unit
            position[g] += unit
            rest -= unit
    return dealt


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
        Ascending. All are tried in round 0, and then the last choice and its
        neighbours; the best, by squared error, is kept.
    loss : Loss
        By which rounds and recipes are compared.
    workspace : Workspace

    Attributes
    ----------
    alphas, losses : list of float
        Penalty and loss of every round so far.
    out_of_fold : list of OutOfFold
        Predictions of every round so far.
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
        self.alphas: list[float] = []
        self.losses: list[float] = []
        self.out_of_fold: list[OutOfFold] = []
        self.finished = False
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

    @property
    def best_round(self) -> int:
        """The round of least loss; the earliest of those that are as good."""
        least = min(self.losses)
        bound = least + 1e-9 * abs(least)
        return next(i for i, loss in enumerate(self.losses) if loss <= bound)

    @property
    def best_loss(self) -> float:
        """The least loss so far; infinite before the first round."""
        return min(self.losses, default=math.inf)

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
        penalties = self._candidates()
        paths = [self._path(part, penalties) for part in self._parts]
        scores = torch.cat(
            [
                part.machine(_stacked(path)).predict(test.X)
                for part, path, test in zip(
                    self._parts, paths, self._tests, strict=True
                )
            ]
        ).split(self._targets.shape[1], dim=1)
        errors = [squared_error(s, self._targets, self._weights) for s in scores]
        best = int(np.argmin(errors))
        self.alphas.append(penalties[best])
        self.losses.append(self._loss(scores[best], self._targets, self._weights))
        self.out_of_fold.append(OutOfFold(scores[best], self._targets, self._weights))
        self._coefs = [path[best].coef for path in paths]

    def _candidates(self) -> list[float]:
        if not self.alphas:
            return self._penalties
        last = self._penalties.index(self.alphas[-1])
        return self._penalties[max(0, last - 1) : last + 2]

    def _path(self, part: Recursion, penalties: list[float]) -> list[Solution]:
        """Solutions for several penalties from one kernel matrix."""
        solver = CholeskySolver(
            fit_intercept=part.recipe.fit_intercept, leave_one_out=False
        )
        kernel = part.kernel_matrix().dense()
        copies = _Copies(kernel, self._workspace.square(1, len(kernel)))
        problem = part.problem
        return [
            solver.solve(copies, problem.Y, alpha, problem.sample_weight)
            for alpha in penalties
        ]


def _training_part(
    problem: Problem, fold: Fold, recipe: Recipe, workspace: Workspace
) -> Recursion:
    rows = fold.train.to(problem.X.device)
    weight = fold.train_weight.to(problem.X.device)
    part = Problem(problem.X[rows], problem.Y[rows], weight)
    return Recursion(part, recipe, workspace.square(0, len(rows)))


def _stacked(path: list[Solution]) -> Solution:
    """All solutions of a path side by side, so that one product predicts for all."""
    coef = torch.cat([solution.coef for solution in path], dim=1)
    intercept = torch.cat([solution.intercept for solution in path])
    return Solution(coef, intercept, 0.0, None)


def cross_fit(
    problem: Problem,
    folds: list[Fold],
    recipes: Sequence[Recipe],
    penalties: Sequence[float],
    n_iter: int,
    loss: Loss,
    *,
    keep: Sequence[int] = (),
) -> Iterator[list[Trial]]:
    """Run several recipes round by round, dropping the worst on the way.

    Parameters
    ----------
    problem : Problem
    folds : list of Fold
    recipes : sequence of Recipe
    penalties : sequence of float
    n_iter : int
        Number of metric updates.
    loss : Loss
    keep : sequence of int, default=()
        How many recipes, the best by least loss so far, go on after round 0, 1, …;
        beyond its end nothing is dropped.

    Yields
    ------
    list of Trial
        All trials, dropped ones included, after every round.
    """
    workspace = Workspace(max(len(fold.train) for fold in folds), problem.X)
    trials = [
        Trial(problem, folds, recipe, penalties, loss, workspace) for recipe in recipes
    ]
    running = trials
    for index in range(n_iter + 1):
        for trial in running:
            trial.step()
        yield trials
        if index < len(keep):
            running = sorted(running, key=lambda trial: trial.best_loss)[: keep[index]]


def best_trial(trials: Sequence[Trial]) -> Trial:
    """The trial of least loss; the first of those that are as good."""
    least = min(trial.best_loss for trial in trials)
    bound = least + 1e-9 * abs(least)
    return next(trial for trial in trials if trial.best_loss <= bound)

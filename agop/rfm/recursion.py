"""The recursion: solve, take gradients, make the AGOP the new metric.

Recursive Feature Machines (Radhakrishnan, Beaglehole, Pandit and Belkin, Science
383:1461, 2024, arXiv:2212.13881): with M₀ = I, for t = 0, 1, …

    1. solve (K_Mₜ + alpha W⁻¹) C = Y,
    2. Gₜ = Σᵢ wᵢ ∇f(xᵢ) ∇f(xᵢ)ᵀ / Σᵢ wᵢ,
    3. Mₜ₊₁ = Gₜ^power, rescaled.

Everything here is a tensor; estimators convert.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from agop.core.arrays import NumericalWarning, free_memory
from agop.core.outer_product import (
    DenseOuterProduct,
    GradientOuterProduct,
    RowsOuterProduct,
)
from agop.core.spectrum import Spectrum, participation_ratio
from agop.kernels.geometry import Kernel
from agop.kernels.metric import (
    NORMALIZATIONS,
    DiagonalMetric,
    FullMetric,
    IdentityMetric,
    Metric,
)
from agop.kernels.operator import KernelMatrix
from agop.rfm.bandwidth import Median, check_resolution
from agop.rfm.machine import KernelMachine
from agop.solvers.cholesky import CholeskySolver, Solution

#: Gradients of several outputs are taken together up to this many numbers, or a
#: sixteenth of the kernel matrix.
_FEW_NUMBERS = 2**19

#: Kernel matrices are refused beyond this share of the free memory.
_MEMORY_SHARE = 0.9


@dataclass(frozen=True)
class Recipe:
    """What determines a recursion, but for the data, the penalty and its length.

    Parameters
    ----------
    kernel : Kernel
    metric : type of Metric
        `FullMetric` or `DiagonalMetric`.
    bandwidth : float or Median
    power : float, default=1.0
        Metric ∝ G^power.
    center : bool, default=False
        Subtract the mean gradient of each output.
    normalize : {"trace", "max", "none"}, default="trace"
        How a new metric is scaled.
    fit_intercept : bool, default=True
        Whether f has an intercept that is not penalised.
    """

    kernel: Kernel
    metric: type[FullMetric] | type[DiagonalMetric]
    bandwidth: float | Median
    power: float = 1.0
    center: bool = False
    normalize: str = "trace"
    fit_intercept: bool = True


@dataclass(frozen=True)
class Problem:
    """Training data of a recursion.

    Parameters
    ----------
    X : Tensor of shape (n, d)
    Y : Tensor of shape (n, c)
    sample_weight : Tensor of shape (n,)
        Positive.
    """

    X: torch.Tensor
    Y: torch.Tensor
    sample_weight: torch.Tensor

    def rows(self, index: torch.Tensor) -> Problem:
        """The problem on some of the rows."""
        return Problem(self.X[index], self.Y[index], self.sample_weight[index])

    def double(self) -> Problem:
        """The problem in float64."""
        return Problem(self.X.double(), self.Y.double(), self.sample_weight.double())


class RowSpan:
    """An orthonormal basis Q of the span of the rows, for data wider than long.

    Distances between rows, and all gradients at them, live in that span: a full
    metric may be learned there exactly, in n instead of d dimensions.

    Parameters
    ----------
    X : Tensor of shape (n, d)
        Centred if the kernel is translation invariant.
    """

    def __init__(self, X: torch.Tensor) -> None:
        basis = torch.linalg.qr(X.T).Q  # (d, n)
        self.basis = basis.masked_fill((X == 0).all(0)[:, None], 0)  # exactly

    def lift(self, metric: Metric) -> Metric:
        """The metric over the features from the one over the span."""
        if isinstance(metric, FullMetric):
            return FullMetric(self.basis @ metric.factor)
        return IdentityMetric(len(self.basis), self.basis)


class Recursion:
    """The state of one recursion between rounds.

    Parameters
    ----------
    problem : Problem
    recipe : Recipe
    storage : Tensor of shape (n, n), optional
        Where kernel matrices are written; allocated if not given.

    Attributes
    ----------
    index : int
        Number of metric updates so far.
    metric : Metric
        The present one, over the features or over the span of the rows.
    effective_rank : float
        Of the last outer product; NaN before the first.

    Raises
    ------
    MemoryError
        If the kernel matrix does not fit in memory.
    ValueError
        If the data are so large that squared distances overflow.
    """

    def __init__(
        self, problem: Problem, recipe: Recipe, storage: torch.Tensor | None = None
    ) -> None:
        self.problem = problem
        self.recipe = recipe
        self.index = 0
        self.effective_rank = float("nan")
        X = problem.X
        self.offset = _offset(X, problem.sample_weight, recipe.kernel)
        self.centers = X - self.offset
        self._span: RowSpan | None = None
        self._points = self.centers
        if recipe.metric is FullMetric and X.shape[1] > len(X):
            self._span = RowSpan(self.centers)
            self._points = self.centers @ self._span.basis  # (n, n)
        if not bool(torch.isfinite(self._points.square().sum())):
            raise ValueError(
                "Input X is too large for this computation: its squared distances "
                "overflow. Scale it, for example with "
                "sklearn.preprocessing.StandardScaler."
            )
        self.metric: Metric = IdentityMetric(self._points.shape[1], self._points)
        self._storage = allocate_square(len(X), X) if storage is None else storage
        self.bandwidth = self._bandwidth()

    def kernel_matrix(self) -> KernelMatrix:
        """The kernel matrix of the training points under the present metric."""
        coordinates = self.metric.project(self._points) / self.bandwidth
        return KernelMatrix(self.recipe.kernel, coordinates, self._storage)

    def machine(self, solution: Solution) -> KernelMachine:
        """The predictor of a solution under the present metric."""
        return KernelMachine(
            self.recipe.kernel,
            self._feature_metric(),
            self.bandwidth,
            self.centers,
            self.offset,
            solution.coef,
            solution.intercept,
        )

    def kernel_to(self, X: torch.Tensor) -> torch.Tensor:
        """Kernel values of new points with the training points, shape (m, n)."""
        metric = self._feature_metric()
        new, old = (
            metric.project(points) / self.bandwidth
            for points in (X - self.offset, self.centers)
        )
        return self.recipe.kernel.matrix(new, old)

    def advance(self, operator: KernelMatrix, coef: torch.Tensor) -> bool:
        """Make the AGOP of a solution the new metric.

        Parameters
        ----------
        operator : KernelMatrix
            The one that was solved; its lower triangle must still hold K.
        coef : Tensor of shape (n, c)

        Returns
        -------
        bool
            False if the outer product is zero: the metric stays.
        """
        product = self._outer_product(operator, coef, self.recipe.metric.accumulator)
        product = self.metric.pull_back_product(product)
        product = product / self.bandwidth / self.bandwidth  # its square may overflow
        size = float(product.abs().max())
        refuse_overflow(size)
        if size == 0.0:
            return False
        self.effective_rank = participation_ratio(*_trace_and_norm(product / size))
        self.metric = self._next_metric(product, size)
        self.index += 1
        self.bandwidth = self._bandwidth()
        return True

    def spectrum(self, operator: KernelMatrix, coef: torch.Tensor) -> Spectrum:
        """Spectrum, over the features, of the AGOP of a solution.

        Parameters
        ----------
        operator : KernelMatrix
            The one that was solved; its lower triangle must still hold K.
        coef : Tensor of shape (n, c)

        Returns
        -------
        Spectrum
        """
        coef = _principal_outputs(coef)
        n, r = operator.X.shape
        if r > n * coef.shape[1]:
            factor = self._outer_product(operator, coef, RowsOuterProduct)
            rows = self.metric.pull_back(factor.T.to(self._points))
            rows = rows.double() / self.bandwidth
            refuse_overflow(float(rows.square().sum()))
            spectrum = Spectrum.of_factor(rows.T)
        else:
            product = self._outer_product(operator, coef, DenseOuterProduct)
            product = self.metric.pull_back_product(product)
            product = product / self.bandwidth / self.bandwidth
            refuse_overflow(float(product.diagonal().sum()))
            spectrum = Spectrum.of_matrix(product)
        if self._span is None:
            return spectrum
        return spectrum.embedded(self._span.basis.to(spectrum.directions))

    def _outer_product(
        self,
        operator: KernelMatrix,
        coef: torch.Tensor,
        kind: type[GradientOuterProduct],
    ) -> torch.Tensor:
        """The outer product at the training points, in the operator's coordinates.

        It depends on the coefficients only through C Cᵀ, so that outputs may be
        rotated and those without weight dropped. Sums are taken in groups of outputs
        that need little memory beside the kernel matrix.
        """
        n, r = operator.X.shape
        directions = _principal_outputs(coef)
        group_size = directions.shape[1]
        if kind is not RowsOuterProduct:  # it keeps all gradients in any case
            group_size = max(1, max(n * n // 16, _FEW_NUMBERS) // (n * (r + 1)))
        total = torch.zeros((), dtype=torch.float64, device=coef.device)
        for group in directions.split(group_size, dim=1):
            accumulator = kind(r, center=self.recipe.center)
            accumulator.update(operator.gradients(group), self.problem.sample_weight)
            total = total + accumulator.value()
        return total

    def _feature_metric(self) -> Metric:
        return self.metric if self._span is None else self._span.lift(self.metric)

    def _next_metric(self, product: torch.Tensor, size: float) -> Metric:
        # Dividing by the size keeps powers of tiny or huge gradients within range.
        recipe = self.recipe
        made = recipe.metric.from_outer_product(product / size, recipe.power)
        metric = made.to(self._points)
        scale = size ** (recipe.power / 2)
        if recipe.normalize != "none":
            lifted = metric if self._span is None else self._span.lift(metric)
            norm = NORMALIZATIONS[recipe.normalize](lifted.diagonal())
            scale = float(norm) ** -0.5
        return metric.rescaled(scale)

    def _bandwidth(self) -> float:
        bandwidth = self.recipe.bandwidth
        if not isinstance(bandwidth, Median):
            return bandwidth
        return bandwidth.measure(
            self.recipe.kernel, self.metric, self._points, self.problem.sample_weight
        )


@dataclass(frozen=True)
class Round:
    """One solve of a recursion.

    Parameters
    ----------
    index : int
        Number of metric updates before this solve.
    alpha : float
        Penalty of this solve.
    machine : KernelMachine
    solution : Solution
    spectrum : callable
        Gives the spectrum of the AGOP; only until the next round begins.
    effective_rank : float
        Of the outer product behind the metric; NaN for the first.
    seconds : float
        Wall time since the previous one.
    """

    index: int
    alpha: float
    machine: KernelMachine
    solution: Solution
    spectrum: Callable[[], Spectrum]
    effective_rank: float
    seconds: float


def recurse(
    problem: Problem,
    recipe: Recipe,
    alphas: Sequence[float],
    *,
    leave_one_out: bool = True,
    storage: torch.Tensor | None = None,
) -> Iterator[Round]:
    """Run a recursion, one solve at a time.

    Parameters
    ----------
    problem : Problem
    recipe : Recipe
    alphas : sequence of float
        Penalty of each solve: T + 1 of them make T metric updates, unless the outer
        product vanishes before.
    leave_one_out : bool, default=True
        Compute leave-one-out residuals at every solve.
    storage : Tensor of shape (n, n), optional
        Where kernel matrices are written; allocated if not given.

    Yields
    ------
    Round

    Warns
    -----
    NumericalWarning
        If the outer product is zero (constant inputs or targets), or the bandwidth
        makes the kernel matrix an identity or a matrix of ones.
    """
    start = time.perf_counter()
    solver = CholeskySolver(
        fit_intercept=recipe.fit_intercept, leave_one_out=leave_one_out
    )
    recursion = Recursion(problem, recipe, storage)
    check_resolution(recursion.kernel_matrix())
    for index, alpha in enumerate(alphas):
        operator = recursion.kernel_matrix()
        solution = solver.solve(operator, problem.Y, alpha, problem.sample_weight)
        now = time.perf_counter()
        yield Round(
            index,
            alpha,
            recursion.machine(solution),
            solution,
            partial(recursion.spectrum, operator, solution.coef),
            recursion.effective_rank,
            now - start,
        )
        start = time.perf_counter()
        if index == len(alphas) - 1:
            return
        if not recursion.advance(operator, solution.coef):
            warn_of_zero()
            return


def refuse_overflow(size: float) -> None:
    """Raise if some norm of an average gradient outer product is not finite.

    Parameters
    ----------
    size : float

    Raises
    ------
    ValueError
    """
    if not math.isfinite(size):
        raise ValueError(
            "The average gradient outer product overflows: y is too large, or X too "
            "small, or the slope of a kernel of your own is not finite. Scale them, "
            "for example with sklearn.preprocessing.StandardScaler."
        )


def warn_of_zero() -> None:
    """Say that the average gradient outer product is zero.

    Warns
    -----
    NumericalWarning
    """
    warnings.warn(
        "The average gradient outer product is zero: the predictor is constant "
        "around the data, so that no metric can be learned from it. Are X or y "
        "constant, or too small to be squared?",
        NumericalWarning,
        stacklevel=4,
    )


def _offset(X: torch.Tensor, weights: torch.Tensor, kernel: Kernel) -> torch.Tensor:
    if not kernel.translation_invariant:
        return torch.zeros_like(X[0])
    first = X[0]
    shifted = X - first  # exact for nearby numbers: a huge common offset drops out
    return first + (shifted * weights[:, None]).sum(0) / weights.sum()


def allocate_square(n: int, like: torch.Tensor) -> torch.Tensor:
    """Uninitialised storage of shape (n, n) for a kernel matrix.

    Parameters
    ----------
    n : int
    like : Tensor
        Gives dtype and device.

    Returns
    -------
    Tensor of shape (n, n)

    Raises
    ------
    MemoryError
        If it does not fit in the free memory.
    """
    needed = n * n * like.element_size()
    free = free_memory(like.device)
    if free is not None and needed > _MEMORY_SHARE * free:
        raise MemoryError(
            f"The kernel matrix of {n} samples needs {needed / 2**30:.3g} GiB, and "
            f"{free / 2**30:.3g} GiB are free on {like.device}. Fit on fewer rows, "
            "or pass float32 data, which halves the memory."
        )
    return torch.empty(n, n, dtype=like.dtype, device=like.device)


def _trace_and_norm(product: torch.Tensor) -> tuple[float, float]:
    diagonal = product if product.ndim == 1 else product.diagonal()
    return float(diagonal.sum()), float(product.norm())


def _principal_outputs(coef: torch.Tensor) -> torch.Tensor:
    """C V, V the right singular vectors of C, without its zero columns."""
    if coef.shape[1] == 1:
        return coef
    values, vectors = torch.linalg.eigh(coef.T.double() @ coef.double())
    floor = values[-1] * len(values) * torch.finfo(coef.dtype).eps ** 2
    keep = values > floor
    keep[-1] = True
    return coef @ vectors[:, keep].to(coef.dtype)

"""What every kernel must satisfy: the cases, and the checks run over all of them.

A new kernel is tested by one more entry of ``CASES``: the kernel, and its formula
written three times (scipy or numpy, differentiable torch, mpmath).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import mpmath
import numpy as np
import torch

from agop import kernels
from agop.core import arrays, average_gradient_outer_product
from agop.kernels import (
    DiagonalMetric,
    FullMetric,
    IdentityMetric,
    Kernel,
    KernelMatrix,
    KernelOperator,
)
from tests import reference


@dataclass(frozen=True)
class Case:
    """A kernel and its naive formulas."""

    kernel: Kernel
    values: Callable  # numpy
    formula: Callable  # differentiable torch
    mp: Callable  # mpmath, one pair


class RationalQuadratic(kernels.RadialKernel):
    """What a user writes: a value and a slope, nothing else."""

    def value(self, s):
        return 1 / (1 + s)

    def slope(self, s):
        return -1 / (1 + s) ** 2


class ExponentialOfProduct(kernels.InnerProductKernel):
    """A user's inner product kernel, exp(xᵀz / 4)."""

    def value(self, s):
        return torch.exp(s / 4)

    def slope(self, s):
        return torch.exp(s / 4) / 4


def _case(name, make, **parameters):
    return Case(
        make(**parameters),
        partial(getattr(reference, f"{name}_values"), **parameters),
        partial(getattr(reference, name), **parameters),
        partial(getattr(reference, f"mp_{name}"), **parameters),
    )


def _cases():
    grid = {
        "generalized_exponential": [{"exponent": q} for q in (0.7, 1.0, 1.3, 2.0)],
        "lp_exponential": [
            {"p": p, "exponent": q}
            for p, q in [(1.4, 1.0), (1.4, 1.4), (2.0, 1.0), (0.8, 0.8)]
        ],
        "polynomial": [
            {"degree": degree, "offset": offset}
            for degree in (2, 3)
            for offset in (0.0, 1.0)
        ],
        "neural_tangent": [{"depth": depth} for depth in (1, 2, 3)],
    }
    for name, make in kernels.KERNELS.items():
        for parameters in grid.get(name, [{}]):
            label = "-".join([name, *map(str, parameters.values())])
            yield label, _case(name, make, **parameters)
    yield (
        "user_radial",
        Case(
            RationalQuadratic(),
            lambda X, Z: 1 / (1 + reference.cdist(X, Z, "sqeuclidean")),
            lambda X, Z: 1 / (1 + (X[:, None] - Z).square().sum(-1)),
            lambda x, z: 1 / (1 + sum((a - b) ** 2 for a, b in zip(x, z, strict=True))),
        ),
    )
    yield (
        "user_inner_product",
        Case(
            ExponentialOfProduct(),
            lambda X, Z: np.exp(X @ Z.T / 4),
            lambda X, Z: torch.exp(X @ Z.T / 4),
            lambda x, z: mpmath.exp(mpmath.fdot(x, z) / 4),
        ),
    )


CASES = dict(_cases())

FEATURES = 4
METRICS = ["identity", "diagonal", "full", "low_rank"]


def points(n, d=FEATURES, seed=0, dtype=torch.float64):
    generator = np.random.default_rng(seed)
    return torch.from_numpy(generator.standard_normal((n, d))).to(dtype)


def make_metric(name, d=FEATURES, seed=3, dtype=torch.float64):
    """A metric, and the factor A of M = A Aᵀ that it must stand for."""
    random = points(d, d, seed, dtype) / d**0.5
    if name == "identity":
        return IdentityMetric(d, random, scale=0.7), 0.7 * torch.eye(d, dtype=dtype)
    if name == "diagonal":
        scales = torch.linspace(0.3, 1.5, d, dtype=dtype)
        return DiagonalMetric(scales), torch.diag(scales)
    factor = random if name == "full" else random[:, :2]
    return FullMetric(factor), factor


def data(coincident=True):
    """Points, centres (some of them coincide) and coefficients of two outputs."""
    X, Z, coef = points(9, seed=1), points(13, seed=2), points(13, 2, seed=4)
    if coincident:
        Z[3], Z[7], X[5] = X[2], X[2], X[2]
    return X, Z, coef


def overwrite_lent_part(storage):
    """What a solver may do: the diagonal and the upper triangle become garbage."""
    upper = torch.ones_like(storage, dtype=torch.bool).triu()
    storage[upper] = torch.nan


# ----------------------------------------------------------------------- the checks
def check_values(case):
    # Both sides are float64; r carries a few eps times the norms, and the worst case
    # of the list, exp(-s**0.35), turns them into less than 1e-13.
    X, Z, _ = data(coincident=False)
    expected = case.values(X.numpy(), Z.numpy())
    np.testing.assert_allclose(
        case.kernel.matrix(X, Z).numpy(), expected, rtol=1e-12, atol=1e-13
    )


def check_distances(case):
    X, Z, _ = data()
    p = getattr(case.kernel, "p", 2.0)
    expected = reference.cdist(X.numpy(), Z.numpy(), "minkowski", p=p)
    got = case.kernel.distances(X, Z)
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-12, atol=0)


def check_symmetry(case):
    X = points(40)
    X[31] = X[4]
    K = KernelMatrix(case.kernel, X, torch.full((40, 40), torch.nan).double()).dense()
    assert torch.equal(K, K.T)


def check_positive_semi_definite(case):
    X = points(40, seed=5)
    K = KernelMatrix(case.kernel, X, torch.empty(40, 40).double()).dense()
    eigenvalues = np.linalg.eigvalsh(K.numpy())
    # The backward error of eigvalsh and the rounding of K: n eps of the largest.
    assert eigenvalues[0] >= -40 * np.finfo(float).eps * eigenvalues[-1]


def check_diagonal(case):
    X = points(20)
    diagonal = case.kernel.diagonal(X)
    # Two summation orders of d = 4 products, raised to the third power.
    torch.testing.assert_close(
        case.kernel.matrix(X, X).diagonal(), diagonal, rtol=1e-14, atol=0
    )
    K = KernelMatrix(case.kernel, X, torch.empty(20, 20).double())
    assert torch.equal(K.dense().diagonal(), diagonal)
    assert torch.equal(K.diagonal(), diagonal)


def check_jacobian(case, metric_name):
    """Contraction and operator against autograd, with coincident points."""
    metric, factor = make_metric(metric_name)
    X, Z, coef = data()
    expected = reference.kernel_jacobian(case.formula, X, Z, coef, factor)
    projected = metric.project(X), metric.project(Z)
    direct = metric.pull_back(case.kernel.contraction(*projected, coef))
    operator = metric.pull_back(KernelOperator(case.kernel, *projected).gradients(coef))
    assert torch.isfinite(expected).all()
    # 1e-10: s is remeasured below 1e-6 of the norms, so that it has 10 digits.
    torch.testing.assert_close(direct, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(operator, expected, rtol=1e-10, atol=1e-10)


def check_training_jacobian(case, metric_name):
    """The same at the training points, after a solver has overwritten its part."""
    metric, factor = make_metric(metric_name)
    X, coef = points(17, seed=6), points(17, 3, seed=7)
    X[11] = X[2]
    expected = reference.kernel_jacobian(case.formula, X, X, coef, factor)
    K = KernelMatrix(case.kernel, metric.project(X), torch.empty(17, 17).double())
    K.dense()
    overwrite_lent_part(K.storage)
    got = metric.pull_back(K.gradients(coef))
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


def check_coincident_pair_is_left_out(case):
    """One centre, at the point itself: no gradient for a translation kernel (F53)."""
    X = points(1)
    gradient = case.kernel.contraction(X, X.clone(), torch.ones(1, 2).double())
    assert torch.isfinite(gradient).all()
    if case.kernel.translation_invariant:
        assert torch.equal(gradient, torch.zeros(1, 2, FEATURES).double())


def check_mpmath(case):
    """Values, gradients and AGOP with 50 digits on a few points."""
    X, Z, coef = points(4, 3, seed=8), points(5, 3, seed=9), points(5, 2, seed=10)
    values, jacobian, outer = reference.mp_machine(case.mp, X, Z, coef)
    got = case.kernel.contraction(X, Z, coef)
    # d, n and c are tiny: what is left is some ten eps of sums without cancellation.
    tight = {"rtol": 1e-13, "atol": 1e-13}
    np.testing.assert_allclose(case.kernel.matrix(X, Z).numpy(), values, **tight)
    np.testing.assert_allclose(got.numpy(), jacobian, **tight)
    np.testing.assert_allclose(
        average_gradient_outer_product(got).numpy(), outer, **tight
    )


def check_declared_invariance(case):
    X, Z, coef = data()
    K, gradient = case.kernel.matrix(X, Z), case.kernel.contraction(X, Z, coef)
    shift = torch.linspace(-1, 2, FEATURES).double()
    # The shift is of the size of the data, so that it costs about one digit, and
    # coincident pairs stay coincident: equal numbers are moved to equal numbers.
    moved = case.kernel.matrix(X + shift, Z + shift)
    invariant = torch.allclose(moved, K, rtol=1e-12, atol=1e-13)
    assert invariant == case.kernel.translation_invariant
    rotation = torch.linalg.qr(points(FEATURES, seed=11)).Q
    turned = case.kernel.matrix(X @ rotation, Z @ rotation)
    p_is_two = getattr(case.kernel, "p", None) == 2.0
    invariant = torch.allclose(turned, K, rtol=1e-12, atol=1e-13)
    assert invariant == (case.kernel.rotation_invariant or p_is_two)
    if invariant:
        got = case.kernel.contraction(X @ rotation, Z @ rotation, coef)
        torch.testing.assert_close(got, gradient @ rotation, rtol=1e-10, atol=1e-10)


def check_single_precision(case):
    """float32 against float64 on the same (float32) numbers."""
    X, Z, coef = (array.float() for array in data())
    wide = X.double(), Z.double(), coef.double()
    eps = torch.finfo(torch.float32).eps
    K, expected = case.kernel.matrix(*wide[:2]), case.kernel.contraction(*wide)
    # s is off by at most (d + 2) eps (‖x‖² + ‖z‖²), which is a move of x by
    # 8 eps ‖x‖ ; a gradient per pair turns that into an error of k.
    pairs = case.kernel.contraction(*wide[:2], torch.eye(len(Z)).double())  # (n, m, d)
    size = max(float(X.norm(dim=1).max()), float(Z.norm(dim=1).max()))
    tolerance = 8 * eps * (float(pairs.norm(dim=2).max()) * size + float(K.abs().max()))
    got = case.kernel.matrix(X, Z)
    assert got.dtype == torch.float32
    assert float((got.double() - K).abs().max()) <= tolerance
    # Second derivatives of these kernels are a few times the first ones, and sums of
    # m = 13 terms add up: 64 eps of the largest sum of absolute terms.
    got = case.kernel.contraction(X, Z, coef)
    assert got.dtype == torch.float32
    terms = (pairs.norm(dim=2) @ coef.double().abs()).max() * size
    assert float((got.double() - expected).abs().max()) <= 64 * eps * float(terms)


def check_block_size(case, monkeypatch):
    """The memory budget changes the order of a few sums and nothing else."""
    X, Z, coef = data()
    training, own = points(23, seed=12), points(23, 2, seed=13)

    def everything():
        operator = KernelOperator(case.kernel, X, Z)
        matrix = KernelMatrix(case.kernel, training, torch.empty(23, 23).double())
        dense = matrix.dense().clone()
        return [
            operator @ coef,
            operator.gradients(coef),
            dense,
            matrix @ own,
            matrix.gradients(own),
        ]

    whole = everything()
    for size in (1, 500, 1500):
        monkeypatch.setattr(arrays, "BLOCK_BYTES", size)
        for got, expected in zip(everything(), whole, strict=True):
            # Sums of 23 terms in another order: 23 eps, with a factor for the slopes.
            torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


CHECKS = [
    check_values,
    check_distances,
    check_symmetry,
    check_positive_semi_definite,
    check_diagonal,
    check_coincident_pair_is_left_out,
    check_mpmath,
    check_declared_invariance,
    check_single_precision,
]
METRIC_CHECKS = [check_jacobian, check_training_jacobian]


def check_kernel(case, monkeypatch):
    """Run all checks on one kernel."""
    for check in CHECKS:
        check(case)
    for check in METRIC_CHECKS:
        for metric in METRICS:
            check(case, metric)
    check_block_size(case, monkeypatch)

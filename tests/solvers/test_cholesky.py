"""Exact kernel ridge: the system, its optimum, and leave-one-out refits."""

import itertools

import numpy as np
import pytest
import torch
from sklearn.kernel_ridge import KernelRidge

from agop.core import NumericalWarning
from agop.kernels import KernelMatrix, Laplace
from agop.solvers import CholeskySolver, leave_one_out_residuals
from tests import reference
from tests.devices import DEVICES, LargestTensor

N = 18
intercepts = pytest.mark.parametrize("fit_intercept", [True, False])
weightings = pytest.mark.parametrize("weighting", ["ones", "mixed", "copies"])


class Dense:
    """The least a solver may know: the matrix, written anew into one storage."""

    def __init__(self, K, device="cpu"):
        self.K = torch.as_tensor(K).to(device)
        self.storage = torch.empty_like(self.K)
        self.calls = 0

    def dense(self):
        self.calls += 1
        return self.storage.copy_(self.K)


def problem(n=N, c=3, seed=0):
    generator = np.random.default_rng(seed)
    X, Y = generator.standard_normal((n, 3)), generator.standard_normal((n, c)) + 2
    return reference.laplace_values(X, X), Y


def weights_of(weighting, n=N):
    if weighting == "ones":
        return np.ones(n)
    generator = np.random.default_rng(5)
    if weighting == "copies":
        return generator.integers(1, 4, n).astype(float)
    return generator.uniform(0.2, 3.0, n)


def solve(K, Y, alpha, weights, fit_intercept=True, leave_one_out=True, device="cpu"):
    solver = CholeskySolver(fit_intercept=fit_intercept, leave_one_out=leave_one_out)
    return solver.solve(
        Dense(K, device),
        torch.from_numpy(Y).to(device),
        alpha,
        torch.from_numpy(weights).to(device),
    )


# ------------------------------------------------------------------------ the system
@pytest.mark.parametrize("device", DEVICES)
@intercepts
@weightings
@pytest.mark.parametrize("alpha", [1e-6, 0.1, 100.0])
def test_solution_of_the_system(alpha, weighting, fit_intercept, device):
    K, Y = problem()
    weights = weights_of(weighting)
    solution = solve(K, Y, alpha, weights, fit_intercept, device=device)
    coef, intercept = reference.ridge(K, Y, alpha, weights, fit_intercept)
    # The condition number of this K is below 1e3: three digits of sixteen.
    np.testing.assert_allclose(solution.coef.cpu(), coef, rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(solution.intercept.cpu(), intercept, rtol=1e-11)
    assert solution.jitter == 0.0


@intercepts
@weightings
def test_optimality_conditions(weighting, fit_intercept):
    K, Y = problem()
    weights, alpha = weights_of(weighting), 0.3
    solution = solve(K, Y, alpha, weights, fit_intercept)
    coef, intercept = solution.coef.numpy(), solution.intercept.numpy()
    residual = K @ coef + alpha / weights[:, None] * coef + intercept - Y
    assert np.abs(residual).max() <= 1e-12  # a few dozen eps of numbers below ten
    assert (intercept == 0).all() != fit_intercept
    if fit_intercept:
        assert np.abs(coef.sum(0)).max() <= 1e-12

    def loss(coef, intercept):
        fit = K @ coef + intercept
        penalty = alpha * np.einsum("ic,ij,jc->", coef, K, coef)
        return (weights[:, None] * (Y - fit) ** 2).sum() + penalty

    best, generator = loss(coef, intercept), np.random.default_rng(0)
    for _ in range(20):
        moved = coef + 1e-3 * generator.standard_normal(coef.shape)
        shift = 1e-3 * generator.standard_normal(3) * fit_intercept
        assert loss(moved, intercept + shift) > best


def test_scikit_learn_finds_the_same_coefficients():
    # F47: to 1e-12.
    K, Y = problem()
    ridge = KernelRidge(kernel="precomputed", alpha=0.1).fit(K, Y)
    solution = solve(K, Y, 0.1, np.ones(N), fit_intercept=False)
    np.testing.assert_allclose(solution.coef, ridge.dual_coef_, rtol=1e-12, atol=1e-12)


def test_intercept_makes_constant_shifts_exact():
    K, Y = problem()
    one, other = (solve(K, target, 0.1, np.ones(N)) for target in (Y, Y + 1e3))
    # 1e3 in the targets costs three digits.
    torch.testing.assert_close(one.coef, other.coef, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(one.intercept + 1e3, other.intercept)
    torch.testing.assert_close(one.residuals, other.residuals, rtol=1e-9, atol=1e-9)


# ------------------------------------------------------------------- leave one out
@pytest.mark.parametrize("device", DEVICES)
@intercepts
@weightings
@pytest.mark.parametrize("alpha", [1e-4, 0.5])
def test_residuals_are_those_of_refits(alpha, weighting, fit_intercept, device):
    K, Y = problem()
    weights = weights_of(weighting)
    solution = solve(K, Y, alpha, weights, fit_intercept, device=device)
    expected = reference.leave_one_out(K, Y, alpha, weights, fit_intercept)
    np.testing.assert_allclose(solution.residuals.cpu(), expected, rtol=1e-8, atol=1e-8)


@intercepts
def test_weight_is_a_number_of_rows_of_which_one_is_left_out(fit_intercept):
    # The oracle itself, checked without weights: K of repeated rows, one dropped.
    K, Y = problem()
    weights = weights_of("copies")
    rows = np.repeat(np.arange(N), weights.astype(int))
    expected = np.empty_like(Y)
    for i in range(N):
        kept = np.delete(rows, np.flatnonzero(rows == i)[0])
        coef, intercept = reference.ridge(
            K[np.ix_(kept, kept)], Y[kept], 0.2, np.ones(len(kept)), fit_intercept
        )
        expected[i] = Y[i] - K[i, kept] @ coef - intercept
    solution = solve(K, Y, 0.2, weights, fit_intercept)
    np.testing.assert_allclose(solution.residuals, expected, rtol=1e-8, atol=1e-8)


def test_weights_below_one_leave_the_whole_row_out():
    K, Y = problem()
    half = solve(K, Y, 0.1, np.full(N, 0.5))
    whole = solve(K, Y, 0.2, np.ones(N))  # the same system
    torch.testing.assert_close(half.coef, whole.coef)
    torch.testing.assert_close(half.residuals, whole.residuals)


def test_outputs_do_not_see_each_other():
    K, Y = problem()
    together = solve(K, Y, 0.1, weights_of("mixed"))
    for output in range(3):
        alone = solve(K, Y[:, [output]], 0.1, weights_of("mixed"))
        torch.testing.assert_close(together.coef[:, [output]], alone.coef)
        torch.testing.assert_close(together.residuals[:, [output]], alone.residuals)


def test_residuals_are_made_on_request_only():
    K, Y = problem()
    solution = solve(K, Y, 0.1, np.ones(N), leave_one_out=False)
    assert solution.residuals is None
    same = solve(K, Y, 0.1, np.ones(N), leave_one_out=True)
    assert torch.equal(solution.coef, same.coef)


# -------------------------------------------------------------------------- alpha = 0
@intercepts
def test_without_penalty_the_fit_interpolates(fit_intercept):
    K, Y = problem()
    solution = solve(K, Y, 0.0, np.ones(N), fit_intercept)
    np.testing.assert_allclose(
        K @ solution.coef.numpy() + solution.intercept.numpy(), Y, rtol=1e-10
    )
    expected = reference.leave_one_out(K, Y, 0.0, np.ones(N), fit_intercept)
    np.testing.assert_allclose(solution.residuals, expected, rtol=1e-8)


def test_without_penalty_a_second_copy_predicts_the_first():
    K, Y = problem()
    weights = np.ones(N)
    weights[4] = 2
    solution = solve(K, Y, 0.0, weights)
    assert torch.equal(solution.residuals[4], torch.zeros(3).double())
    assert bool((solution.residuals[5].abs() > 1e-3).all())


@intercepts
def test_duplicate_rows_with_conflicting_targets(fit_intercept):
    # F14, F45, X3: never silent, and the answer is that of the system it names.
    K, Y = problem()
    rows = np.append(np.arange(N), 0)
    K, Y = K[np.ix_(rows, rows)], np.vstack([Y, Y[:1] + 1])
    operator = Dense(K)
    with pytest.warns(NumericalWarning, match="alpha"):
        solution = CholeskySolver(fit_intercept=fit_intercept).solve(
            operator, torch.from_numpy(Y), 0.0, torch.ones(N + 1).double()
        )
    assert operator.calls > 1
    assert solution.jitter > 0
    jittered = K + solution.jitter * np.eye(N + 1)
    residual = jittered @ solution.coef.numpy() + solution.intercept.numpy() - Y
    # Coefficients of 1/jitter, about 1e8, cancel: eps times that.
    assert np.abs(residual).max() <= 1e-6
    fit = K @ solution.coef.numpy() + solution.intercept.numpy()
    np.testing.assert_allclose(fit[0], Y[0] + 0.5, atol=1e-6)  # the mean of the two
    # Left out, each is predicted by the other.
    np.testing.assert_allclose(solution.residuals[-1], np.ones(3), atol=1e-6)
    np.testing.assert_allclose(solution.residuals[0], -np.ones(3), atol=1e-6)


def test_residuals_of_a_jittered_solution_with_weights():
    # Two copies of row 0 and, with another target, two of its duplicate: what is left
    # of the pair predicts Y + 1/3 or so, not the row itself.
    K, Y = problem()
    rows = np.append(np.arange(N), 0)
    K, Y = K[np.ix_(rows, rows)], np.vstack([Y, Y[:1] + 1])
    with pytest.warns(NumericalWarning):
        solution = solve(K, Y, 0.0, np.full(N + 1, 2.0))
    # With equal jitters each of the two records carries the same weight: what is left
    # of the first has half of its weight, so that they predict Y + 2/3.
    np.testing.assert_allclose(solution.residuals[0], np.full(3, -2 / 3), atol=1e-5)


def test_indefinite_matrix():
    K, Y = problem()
    with pytest.raises(np.linalg.LinAlgError, match="gradually increasing alpha"):
        solve(K - 5 * np.eye(N), Y, 0.1, np.ones(N))


# ------------------------------------------------------------------- storage, memory
@intercepts
def test_kernel_matrix_gives_its_storage_and_keeps_its_gradients(fit_intercept):
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(N, 3, generator=generator).double()
    Y = torch.randn(N, 2, generator=generator).double()
    storage = torch.empty(N, N).double()
    matrix = KernelMatrix(Laplace(), X, storage)
    solution = CholeskySolver(fit_intercept=fit_intercept).solve(
        matrix, Y, 0.1, torch.ones(N).double()
    )
    K = reference.laplace_values(X.numpy(), X.numpy())
    coef, _ = reference.ridge(K, Y.numpy(), 0.1, np.ones(N), fit_intercept)
    np.testing.assert_allclose(solution.coef, coef, rtol=1e-11, atol=1e-11)
    expected = reference.kernel_jacobian(
        reference.laplace, X, X, solution.coef, torch.eye(3).double()
    )
    torch.testing.assert_close(
        matrix.gradients(solution.coef), expected, rtol=1e-10, atol=1e-10
    )


def test_memory_does_not_grow_with_outputs_times_rows_squared():
    K, Y = problem(n=300, c=40)
    with LargestTensor() as largest:
        solve(K, Y, 0.1, np.ones(300))
    assert largest.numel == 300**2


def test_targets_and_weights_are_left_alone():
    K, Y = problem()
    weights = weights_of("mixed")
    before = Y.copy(), weights.copy()
    solve(K, Y, 0.1, weights)
    np.testing.assert_array_equal(Y, before[0])
    np.testing.assert_array_equal(weights, before[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_precision_follows_the_input(dtype):
    K, Y = problem()
    solution = CholeskySolver().solve(
        Dense(torch.from_numpy(K).to(dtype)),
        torch.from_numpy(Y).to(dtype),
        0.1,
        torch.ones(N, dtype=dtype),
    )
    coef, _ = reference.ridge(K, Y, 0.1, np.ones(N), True)
    residuals = reference.leave_one_out(K, Y, 0.1, np.ones(N), True)
    # n eps times a condition number of about 1e2.
    tolerance = N * 100 * torch.finfo(dtype).eps
    for got, expected in ((solution.coef, coef), (solution.residuals, residuals)):
        assert got.dtype == dtype
        np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance)
    assert solution.intercept.dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_tiny_weight_does_not_disturb_the_others(dtype):
    # alpha / w is 1e9 times the rest of the matrix. A row of no weight is no row.
    K, Y = problem()
    weights = np.ones(N)
    weights[7] = 1e-9
    solution = CholeskySolver().solve(
        Dense(torch.from_numpy(K).to(dtype)),
        torch.from_numpy(Y).to(dtype),
        0.1,
        torch.from_numpy(weights).to(dtype),
    )
    assert solution.jitter == 0
    kept = np.delete(np.arange(N), 7)
    coef, _ = reference.ridge(K[np.ix_(kept, kept)], Y[kept], 0.1, np.ones(N - 1), True)
    tolerance = max(N * 100 * torch.finfo(dtype).eps, 1e-7)  # the weight itself
    np.testing.assert_allclose(
        solution.coef[kept], coef, rtol=tolerance, atol=tolerance
    )


# --------------------------------------------------------------- the formula by hand
def test_formula_with_a_single_centre():
    # K = 1, alpha = 1, one row of weight w: f = y w/(w + 1). Without one copy it is
    # y (w − 1)/w, so that the residual is y / w (and y for w ≤ 1).
    for w, y in itertools.product((0.5, 1.0, 2.0, 5.0), (1.0, -3.0)):
        inverse = 1 / (1 + 1 / w)
        residual = leave_one_out_residuals(
            torch.tensor([[y * inverse]]),
            torch.tensor([inverse]),
            torch.tensor([1 / w]),
            torch.tensor([w]),
        )
        assert float(residual) == pytest.approx(y / max(w, 1), rel=1e-6)

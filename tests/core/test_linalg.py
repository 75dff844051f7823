"""Cholesky with jitter, factors and eigenpairs."""

import warnings

import numpy as np
import pytest
import torch

from agop.core import NumericalWarning
from agop.core.linalg import (
    add_lower_product,
    cholesky_with_jitter,
    eigh_descending,
    gram,
    inverse_diagonal,
    psd_factor,
    solve_cholesky,
)
from tests import reference
from tests.devices import DEVICES

DTYPES = [torch.float32, torch.float64]


def positive_definite(n=12, dtype=torch.float64, seed=0, device="cpu"):
    F = np.random.default_rng(seed).standard_normal((n, 2 * n))
    return torch.from_numpy(F @ F.T / n).to(dtype).to(device)


class Counter:
    """A fill that gives the matrix anew, in one storage, and counts its calls."""

    def __init__(self, matrix):
        self.matrix, self.calls = matrix, 0
        self.storage = torch.empty_like(matrix)

    def __call__(self):
        self.calls += 1
        return self.storage.copy_(self.matrix)


# -------------------------------------------------------------------------- cholesky
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_no_jitter_when_positive_definite(dtype, device):
    A = positive_definite(dtype=dtype, device=device)
    fill = Counter(A)
    factor, jitter = cholesky_with_jitter(fill)  # a warning would be an error here
    assert jitter == 0.0
    assert fill.calls == 1
    R = factor.triu()
    eps = torch.finfo(dtype).eps
    limit = 12 * eps * float(A.diagonal().max())  # n eps ‖A‖, the backward error
    assert float((R.T @ R - A).abs().max()) <= limit
    assert torch.equal(factor.tril(-1), A.tril(-1)), "the lower triangle is not lent"
    assert factor.data_ptr() == fill.storage.data_ptr()


@pytest.mark.parametrize("layout", ["transposed", "strided"])
def test_any_layout_is_factored(layout):
    A = positive_definite()

    def fill():
        if layout == "transposed":
            return A.clone().T
        wide = torch.zeros(12, 24).double()
        wide[:, ::2] = A
        return wide[:, ::2]

    factor, _ = cholesky_with_jitter(fill)
    R = factor.triu()
    torch.testing.assert_close(R.T @ R, A, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_jitter_on_a_fresh_copy_with_a_warning(dtype, device):
    # F50, H4, X3: the retry of xRFM solves the buffer that the failure overwrote.
    v = torch.linspace(1, 2, 12, dtype=dtype, device=device)
    A = v[:, None] * v  # rank one
    fill = Counter(A)
    with pytest.warns(NumericalWarning, match="was added to its diagonal") as record:
        factor, jitter = cholesky_with_jitter(fill)
    assert f"{jitter:.1e}" in str(record[0].message)
    assert len(record) == 1
    assert fill.calls >= 2
    # The first step is 1e-6 (1e-8) of the mean diagonal; each retry is 10 times more.
    first = {torch.float32: 1e-6, torch.float64: 1e-8}[dtype] * float(
        A.diagonal().mean()
    )
    assert jitter == pytest.approx(first * 10.0 ** (fill.calls - 2), rel=1e-5)
    R = factor.triu()
    identity = torch.eye(12, dtype=dtype, device=device)
    limit = 12 * torch.finfo(dtype).eps * float(A.diagonal().max())
    assert float((R.T @ R - A - jitter * identity).abs().max()) <= limit


@pytest.mark.parametrize("dtype", DTYPES)
def test_gaussian_kernel_with_a_large_bandwidth(dtype):
    # H3: smallest eigenvalues of -1e-6 and -1e-13.
    X = np.random.default_rng(0).standard_normal((1000, 5))
    K = torch.from_numpy(reference.gaussian_values(X / 10, X / 10)).to(dtype)
    with pytest.warns(NumericalWarning):
        factor, jitter = cholesky_with_jitter(K.clone)
    assert 0 < jitter <= (1e-4 if dtype == torch.float32 else 1e-6)
    R = factor.triu().double()
    error = (R.T @ R - K.double()).fill_diagonal_(0).abs().max()
    assert float(error) <= 1000 * torch.finfo(dtype).eps


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_jitter_is_relative_to_the_matrix(dtype, scale):
    A = scale * torch.ones(6, 6, dtype=dtype)
    with pytest.warns(NumericalWarning):
        _, jitter = cholesky_with_jitter(A.clone)
    assert jitter / scale <= 1e-4


@pytest.mark.parametrize("dtype", DTYPES)
def test_pivot_of_rounding_size_is_not_positive(dtype):
    # potrf accepts a second pivot of eps; its inverse would be pure rounding.
    A = torch.ones(2, 2, dtype=dtype)
    A[1, 1] += torch.finfo(dtype).eps
    assert bool(torch.linalg.cholesky_ex(A).info == 0)
    with pytest.warns(NumericalWarning):
        _, jitter = cholesky_with_jitter(A.clone)
    assert jitter > 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_of_very_different_size_need_no_jitter(dtype):
    # As with one sample weight of 1e-12: alpha / w dwarfs the other rows, and
    # Cholesky does not mind, because it is invariant to such a scaling.
    scales = torch.ones(12, dtype=dtype)
    scales[3] = 1e9
    A = positive_definite(dtype=dtype) * scales[:, None] * scales
    _, jitter = cholesky_with_jitter(A.clone)
    assert jitter == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_entries_that_are_not_finite(bad):
    A = positive_definite()
    A[4, 2] = A[2, 4] = bad
    fill = Counter(A)
    with pytest.raises(np.linalg.LinAlgError, match="not finite"):
        cholesky_with_jitter(fill)
    assert fill.calls == 1


def test_indefinite_matrix():
    A = positive_definite()
    A -= 2 * torch.eye(12) * A.diagonal().max()
    fill = Counter(A)
    with (
        warnings.catch_warnings(),
        pytest.raises(np.linalg.LinAlgError, match="gradually increasing alpha"),
    ):
        cholesky_with_jitter(fill)
    assert fill.calls == 4  # the matrix, and three jitters


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", [1, 3])
def test_solution_and_inverse_diagonal(columns, dtype, device):
    n = 300  # more than one block of rows of the inverse
    A = positive_definite(n, dtype=dtype)
    B = torch.from_numpy(np.random.default_rng(1).standard_normal((n, columns)))
    wide, rhs = A.double().numpy(), B.to(dtype)
    factor, _ = cholesky_with_jitter(lambda: A.to(device, copy=True))
    # n eps times the condition number, which is about 30 for this aspect ratio.
    tolerance = n * 30 * torch.finfo(dtype).eps
    solution = solve_cholesky(factor, rhs.to(device)).cpu().double()
    expected = np.linalg.solve(wide, rhs.double().numpy())
    np.testing.assert_allclose(solution, expected, rtol=tolerance, atol=tolerance)
    assert solution.is_contiguous()
    diagonal = inverse_diagonal(factor).cpu().double()
    np.testing.assert_allclose(diagonal, np.diag(np.linalg.inv(wide)), rtol=tolerance)
    assert torch.equal(factor.cpu().tril(-1), A.tril(-1))


# ---------------------------------------------------------------------- eigenvectors
@pytest.mark.parametrize("dtype", DTYPES)
def test_eigenpairs_descend(dtype):
    A = positive_definite(dtype=dtype)
    values, vectors = eigh_descending(A)
    assert bool((values.diff() <= 0).all())
    limit = 12 * torch.finfo(dtype).eps * float(values[0])
    assert float((A @ vectors - vectors * values).abs().max()) <= limit


@pytest.mark.parametrize("rank", [1, 3, 6])
@pytest.mark.parametrize("power", [0.25, 0.5, 1.0, 2.0])
def test_factor_of_a_power(power, rank):
    F = torch.from_numpy(np.random.default_rng(2).standard_normal((6, rank)))
    A = F @ F.T
    factor = psd_factor(A, power)
    assert factor.shape == (6, rank), "directions of rounding are left out"
    U, singular, _ = np.linalg.svd(F.numpy(), full_matrices=False)
    expected = U * singular ** (2 * power) @ U.T
    np.testing.assert_allclose(factor @ factor.T, expected, rtol=1e-11, atol=1e-11)


def test_factor_of_zero_has_no_columns():
    assert psd_factor(torch.zeros(4, 4).double(), 0.5).shape == (4, 0)


def test_negative_rounding_is_left_out():
    # F30: a negative eigenvalue of rounding size must not become NaN.
    A = torch.diag(torch.tensor([1.0, -1e-17, 0.5]).double())
    factor = psd_factor(A, 0.5)
    assert factor.shape == (3, 2)
    assert torch.isfinite(factor).all()


# ---------------------------------------------------------------- leading eigenpairs
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("unused", [(), (0, 5), range(2, 12)])
@pytest.mark.parametrize("k", [1, 2, 7, 12, 20])
def test_leading_eigenpairs_are_those_of_all(k, unused, device):
    A = positive_definite(device=device)
    for index in unused:  # rows of zeros have exact axes
        A[index] = A[:, index] = 0
    values, _ = eigh_descending(A)
    leading, columns = eigh_descending(A, k)
    assert columns.shape == (12, min(k, 12))
    torch.testing.assert_close(leading, values[:k], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(A @ columns, columns * leading, rtol=1e-12, atol=1e-12)
    identity = torch.eye(min(k, 12), dtype=A.dtype, device=device)
    torch.testing.assert_close(columns.T @ columns, identity, rtol=1e-12, atol=1e-12)
    used = leading > 1e-12
    assert not columns[list(unused)][:, used].any()


# -------------------------------------------------------------------------- products
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["plain", "transposed", "strided", "expanded"])
def test_product_is_added_to_the_lower_triangle(layout, dtype, device):
    # More columns than a strip has, so that strips meet.
    rows = torch.from_numpy(np.random.default_rng(0).standard_normal((5, 1100)))
    rows = {
        "plain": rows,
        "transposed": rows.T.contiguous().T,
        "strided": rows.repeat_interleave(2, 1)[:, ::2],
        "expanded": rows[:1].expand(5, -1),
    }[layout]
    rows = rows.to(dtype).to(device)
    total = torch.ones(1100, 1100, dtype=torch.float64, device=device)
    add_lower_product(total, rows)
    expected = 1 + rows.double().cpu().numpy().T @ rows.double().cpu().numpy()
    tolerance = 10 * torch.finfo(dtype).eps
    np.testing.assert_allclose(
        total.tril().cpu(), np.tril(expected), rtol=tolerance, atol=tolerance
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(3, 10_000), (4, 7), (0, 5), (5, 0)])
def test_gram_is_in_float64(shape, dtype, device):
    rows = torch.from_numpy(np.random.default_rng(0).standard_normal(shape))
    rows = rows.to(dtype).to(device)
    expected = rows.double().cpu().numpy() @ rows.double().cpu().numpy().T
    np.testing.assert_allclose(gram(rows).cpu(), expected, rtol=1e-12, atol=1e-12)

"""Linear algebra of positive semi-definite matrices."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import scipy.linalg
import torch

from agop.core.arrays import NumericalWarning

#: First jitter tried, relative to the mean diagonal, and the number of tries.
_JITTER = {torch.float32: 1e-6, torch.float64: 1e-8}
_JITTER_TRIES = 3

#: Rows of one product in the dtype of the Jacobians.
PRODUCT_ROWS = 1024

#: Up to this width many small products are faster as one batch of them.
_NARROW = 64

#: Rows of the strips in which a triangle is added up.
_STRIP_ROWS = 512

#: Columns of the blocks in which a Gram matrix is added up.
_GRAM_COLUMNS = 4096


def eigh_descending(
    matrix: torch.Tensor, n_components: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Eigenvalues (descending) and eigenvectors (columns) of a symmetric matrix.

    Rows of zeros are split off: their axes are eigenvectors, and the others have
    exact zeros there. If only the leading `n_components` are wanted, the others are
    not computed.
    """
    zero = (matrix == 0).all(1)
    if not bool(zero.any()):
        return _eigh_descending(matrix, n_components)
    rest, axes = (~zero).nonzero()[:, 0], zero.nonzero()[:n_components, 0]
    values, vectors = _eigh_descending(matrix[rest][:, rest], n_components)
    found = len(values)
    whole = matrix.new_zeros(len(matrix), found + len(axes))
    whole[rest, :found] = vectors
    whole[axes, torch.arange(found, whole.shape[1], device=matrix.device)] = 1
    values = torch.cat([values, values.new_zeros(len(axes))])
    values, order = values.sort(descending=True, stable=True)
    return values[:n_components], whole[:, order[:n_components]]


def _eigh_descending(
    matrix: torch.Tensor, n_components: int | None
) -> tuple[torch.Tensor, torch.Tensor]:
    n = len(matrix)
    wanted = n if n_components is None else min(n, n_components)
    if matrix.device.type != "cpu":
        values, vectors = torch.linalg.eigh(matrix)
    elif 4 * wanted < n:  # half the time of all of them
        leading = scipy.linalg.eigh(
            matrix.numpy(), subset_by_index=[n - wanted, n - 1], check_finite=False
        )
        values, vectors = map(torch.from_numpy, leading)
    else:
        values, vectors = map(torch.from_numpy, np.linalg.eigh(matrix.numpy()))
    return values.flip(0)[:wanted], vectors.flip(1)[:, :wanted]


def add_lower_product(total: torch.Tensor, rows: torch.Tensor) -> None:
    """Add rowsᵀ rows to the lower triangle of a float64 matrix, in place.

    What stands above the diagonal has no meaning afterwards. Blocks of rows are
    multiplied in their own dtype, and their products add up in float64. On the CPU a
    product is BLAS's ?syrk: half the work of a general one.
    """
    width = len(total)
    if width <= _NARROW:
        whole = len(rows) - len(rows) % PRODUCT_ROWS
        blocks = rows[:whole].reshape(-1, PRODUCT_ROWS, width)
        total += (blocks.transpose(1, 2) @ blocks).sum(0, dtype=torch.float64)
        rows = rows[whole:]
    for block in rows.split(PRODUCT_ROWS):
        product = _lower_product(block)
        for start in range(0, width, _STRIP_ROWS):
            stop = start + _STRIP_ROWS
            total[start:stop, :stop] += product[start:stop, :stop]


def _lower_product(rows: torch.Tensor) -> torch.Tensor:
    if rows.device.type != "cpu" or not rows.numel():
        return rows.T @ rows
    columns = rows.numpy().T  # Fortran order: its upper is our lower triangle
    (syrk,) = scipy.linalg.get_blas_funcs(("syrk",), (columns,))
    return torch.from_numpy(syrk(1.0, columns).T)


def gram(rows: torch.Tensor) -> torch.Tensor:
    """The matrix rows rowsᵀ in float64, for few rows of whatever length."""
    product = rows.new_zeros(len(rows), len(rows), dtype=torch.float64)
    for columns in rows.split(_GRAM_COLUMNS, dim=1):
        block = columns.double()
        if block.device.type == "cpu":
            array = block.numpy()
            product += torch.from_numpy(array @ array.T)  # which is a ?syrk too
        else:
            product += block @ block.T
    return product


def psd_factor(matrix: torch.Tensor, power: float = 1.0) -> torch.Tensor:
    """A factor A, of shape (d, rank), with A Aᵀ = matrix ** power.

    Directions whose eigenvalue is rounding error are left out; a zero matrix gives
    a factor of zero columns.
    """
    values, vectors = eigh_descending(matrix)
    floor = values[:1].clamp(min=0) * len(values) * torch.finfo(matrix.dtype).eps
    keep = values > floor
    return vectors[:, keep] * values[keep] ** (power / 2)


def _potrf_in_place(matrix: torch.Tensor) -> bool:
    """Overwrite the upper triangle with R, matrix = RᵀR; False if not positive."""
    floor = torch.finfo(matrix.dtype).eps * matrix.diagonal()  # row by row, a copy
    if matrix.device.type == "cpu":
        view = matrix.numpy().T  # Fortran order: its lower is our upper triangle
        (potrf,) = scipy.linalg.get_lapack_funcs(("potrf",), (view,))
        _, info = potrf(view, lower=1, clean=0, overwrite_a=1)
    else:
        factor, status = torch.linalg.cholesky_ex(matrix.T, upper=False)
        matrix.copy_(torch.where(_upper_mask(matrix), factor.T, matrix))
        info = int(status)
    return info == 0 and bool((matrix.diagonal().square() > floor).all())


def _upper_mask(matrix: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(matrix, dtype=torch.bool).triu()


def cholesky_with_jitter(
    fill: Callable[[], torch.Tensor], *, warn: bool = True
) -> tuple[torch.Tensor, float]:
    """Cholesky factor in place, with escalating jitter on a fresh copy each time.

    Parameters
    ----------
    fill : callable
        Returns the symmetric matrix, written anew at every call. Its upper triangle
        and diagonal are overwritten by R, with matrix + jitter I = RᵀR; its strict
        lower triangle is left as it is.
    warn : bool, default=True
        Warn of jitter, with its amount.

    Returns
    -------
    matrix : Tensor of shape (n, n)
    jitter : float
        What was added to the diagonal; 0.0 if nothing was needed.

    Raises
    ------
    numpy.linalg.LinAlgError
        If the matrix is not finite or the largest jitter does not help.
    """
    matrix = fill().contiguous()  # in place needs its own order of memory
    diagonal = matrix.diagonal()
    if not bool(torch.isfinite(matrix.sum())):
        raise np.linalg.LinAlgError(
            "The kernel matrix has entries that are not finite. Scale the data, for "
            "example with sklearn.preprocessing.StandardScaler."
        )
    unit = _JITTER[matrix.dtype] * max(float(diagonal.mean()), 1e-300)
    jitter = 0.0
    for attempt in range(_JITTER_TRIES + 1):
        if attempt:
            jitter = unit * 10.0 ** (attempt - 1)
            matrix = fill().contiguous()
            matrix.diagonal().add_(jitter)
        if _potrf_in_place(matrix):
            if jitter and warn:
                warnings.warn(
                    "The kernel matrix is not numerically positive definite: "
                    f"{jitter:.1e} was added to its diagonal. Try gradually "
                    "increasing alpha, or remove duplicate rows with different "
                    "targets.",
                    NumericalWarning,
                    stacklevel=2,
                )
            return matrix, jitter
    raise np.linalg.LinAlgError(
        "The kernel matrix is not positive definite, even with "
        f"{jitter:.1e} added to its diagonal. Try gradually increasing alpha, a "
        "smaller bandwidth, or float64 data."
    )


def solve_cholesky(factor: torch.Tensor, rhs: torch.Tensor) -> torch.Tensor:
    """Solve RᵀR x = rhs, with R in the upper triangle of `factor`."""
    if factor.device.type == "cpu":
        view = factor.numpy().T
        (potrs,) = scipy.linalg.get_lapack_funcs(("potrs",), (view,))
        solution, _ = potrs(view, rhs.numpy(), lower=1)
        return torch.from_numpy(np.ascontiguousarray(solution))
    half = torch.linalg.solve_triangular(factor.T, rhs, upper=False)
    return torch.linalg.solve_triangular(factor, half, upper=True)


def inverse_diagonal(factor: torch.Tensor) -> torch.Tensor:
    """Diagonal of (RᵀR)⁻¹; overwrites R in the upper triangle by its inverse."""
    n = len(factor)
    if factor.device.type == "cpu":
        view = factor.numpy().T
        (trtri,) = scipy.linalg.get_lapack_funcs(("trtri",), (view,))
        trtri(view, lower=1, overwrite_c=1)
    else:
        identity = torch.eye(n, dtype=factor.dtype, device=factor.device)
        inverse = torch.linalg.solve_triangular(factor, identity, upper=True)
        factor.copy_(torch.where(_upper_mask(factor), inverse, factor))
    squared_norms = torch.empty(n, dtype=factor.dtype, device=factor.device)
    for start in range(0, n, 256):
        rows = factor[start : start + 256, start:].triu()  # (b, n - start)
        squared_norms[start : start + 256] = rows.square().sum(1)
    return squared_norms

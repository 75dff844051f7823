"""The kernel matrix as an operator: the only place with blocks and budgets."""

from __future__ import annotations

import torch

from agop.core.arrays import row_blocks
from agop.kernels.geometry import (
    Kernel,
    RadialKernel,
    contract_columns,
    radial_gradient,
)

#: Most rows of a block of a symmetric matrix: a few per cent of time for memory near
#: that of the matrix itself.
_SYMMETRIC_ROWS = 128


class KernelOperator:
    """K(X, Z), never formed: products, rows and gradients by blocks of rows.

    Parameters
    ----------
    kernel : Kernel
    X : Tensor of shape (n, r)
        Coordinates of the rows.
    Z : Tensor of shape (m, r)
        Coordinates of the columns.
    """

    def __init__(self, kernel: Kernel, X: torch.Tensor, Z: torch.Tensor) -> None:
        self.kernel = kernel
        self.X = X
        self.Z = Z

    @property
    def shape(self) -> tuple[int, int]:
        """(n, m)."""
        return len(self.X), len(self.Z)

    def rows(self, index: slice | torch.Tensor) -> torch.Tensor:
        """Rows of K, shape (len(index), m)."""
        return self.kernel.matrix(self.X[index], self.Z)

    def blocks(self, columns: int | None = None) -> list[slice]:
        """Slices of rows whose block of that many columns fits the budget."""
        width = columns or len(self.Z)
        return list(row_blocks(len(self.X), width, self.X.element_size()))

    def __matmul__(self, V: torch.Tensor) -> torch.Tensor:
        """K V, shape (n, c)."""
        return torch.cat([self.rows(block) @ V for block in self.blocks()])

    def gradients(self, coef: torch.Tensor) -> torch.Tensor:
        """Gradients of K coef at the rows of X, shape (n, c, r)."""
        wide = len(self.Z) + coef.shape[1] * self.X.shape[1]
        return torch.cat(
            [
                self.kernel.contraction(self.X[block], self.Z, coef)
                for block in self.blocks(wide)
            ]
        )


class KernelMatrix(KernelOperator):
    """K(X, X), stored once in n² numbers.

    :meth:`dense` writes K; a solver may then overwrite the diagonal and the upper
    triangle, which are lent to it. The strict lower triangle keeps K, from which
    :meth:`gradients` takes the slopes of kernels that allow it.

    Parameters
    ----------
    kernel : Kernel
    X : Tensor of shape (n, r)
    storage : Tensor of shape (n, n)
        Where K is written; reused from round to round.
    """

    def __init__(self, kernel: Kernel, X: torch.Tensor, storage: torch.Tensor) -> None:
        super().__init__(kernel, X, X)
        self.storage = storage

    def diagonal(self) -> torch.Tensor:
        """k(x, x), shape (n,)."""
        return self.kernel.diagonal(self.X)

    def blocks(self, columns: int | None = None) -> list[slice]:
        """Slices of rows, small enough to stay in the processor's cache."""
        return [
            slice(start, min(start + _SYMMETRIC_ROWS, block.stop))
            for block in super().blocks(columns)
            for start in range(block.start, block.stop, _SYMMETRIC_ROWS)
        ]

    def dense(self) -> torch.Tensor:
        """K, written into the storage: exactly symmetric, with an exact diagonal."""
        for block in self.blocks():
            points = self.X[block]
            square = self.kernel.matrix(points, points)
            self.storage[block, block] = square.tril() + square.tril(-1).T
            if block.start:
                rows = self.kernel.matrix(points, self.X[: block.start])
                self.storage[block, : block.start] = rows
                self.storage[: block.start, block] = rows.T
        self.storage.diagonal().copy_(self.diagonal())
        return self.storage

    def gradients(self, coef: torch.Tensor) -> torch.Tensor:
        """Gradients of K coef at the points themselves, shape (n, c, r)."""
        kernel = self.kernel
        if not isinstance(kernel, RadialKernel):
            return super().gradients(coef)
        if kernel.slope_of_value(self.storage[:1, :1]) is None:
            return super().gradients(coef)
        columns = contract_columns(coef, self.X)  # (n, c (r + 1))
        sums = torch.zeros_like(columns)
        for block in self.blocks():
            slopes = self._stored_slopes(kernel, block)
            before = slice(0, block.start)
            sums[block].addmm_(slopes, columns[: block.stop])
            sums[before].addmm_(slopes[:, before].T, columns[block])
        return radial_gradient(sums, self.X)

    def _stored_slopes(self, kernel: RadialKernel, block: slice) -> torch.Tensor:
        """Slopes of a block of rows up to its own columns, from the lower triangle."""
        values = self.storage[block, : block.stop].clone()
        square = values[:, block]
        square.copy_(square.tril(-1) + square.tril(-1).T)
        square.diagonal().copy_(self.diagonal()[block])
        slopes = kernel.slope_of_value(values)
        if slopes is None:
            raise TypeError(f"{kernel!r} has no closed form of the slope.")
        if bool(torch.isfinite(slopes[0, block.start])):
            return slopes  # also where a pair coincides: the kernel has no kink
        return slopes.masked_fill_(values == values[0, block.start], 0)

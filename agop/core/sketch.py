"""Leading directions of a large G, without a matrix of its size."""

from __future__ import annotations

from dataclasses import replace

import torch

from agop.core.linalg import eigh_descending, gram
from agop.core.outer_product import (
    DenseOuterProduct,
    DiagonalOuterProduct,
    GradientOuterProduct,
)
from agop.core.spectrum import Spectrum, fix_signs

#: Rows of a sketch beyond twice the number of directions that are wanted.
_SPARE_ROWS = 20

#: Columns of the blocks in which the rows of a sketch are rotated.
_ROTATED_COLUMNS = 4096

#: Eigenvalues below this share of the largest one are rounding error.
_RESOLVED = 1e-12

#: Largest entry of QᵀQ − I for a basis Q that counts as orthonormal.
_ORTHONORMAL = 1e-3


class LowRankOuterProduct(GradientOuterProduct):
    """The leading directions of G, from a sketch of few rows: frequent directions.

    Gradients fill a buffer of 2ℓ rows B, ℓ = 2 n_components + 20. When it is full it
    is rotated to the eigenvectors of BᵀB, σ² = the (ℓ+1)-th eigenvalue is subtracted
    from the second half of the first ℓ, and the others are dropped. G − BᵀB/n is
    positive semi-definite, and no larger than :attr:`shrinkage`, the sum of all σ²
    over n: eigenvalues are lower bounds with that error. The trace and the diagonal are
    exact.

    Parameters
    ----------
    n_features : int
        Number of inputs d.
    n_components : int
        Number of leading directions k that are wanted. The sketch keeps
        2 (2k + 20) d numbers, in the dtype of the first Jacobians.
    center : bool, default=False
        Subtract the weighted mean Jacobian of each output.

    Notes
    -----
    Only the second half is shrunk (α = ½ of Desai, Ghashami and Phillips, 2015): the
    leading eigenvalues then lose a percent where shrinking all costs tens of them, and
    ``shrinkage`` is still at most Σ_{j>k} λⱼ / (ℓ/2 − k) = Σ_{j>k} λⱼ / 10. Directions
    that come late in data sorted by class are found, unlike with no shrinking at all.
    Where the data can be read twice, :meth:`second_pass` removes most of the error.

    References
    ----------
    .. [1] Liberty, "Simple and deterministic matrix sketching", KDD 2013,
       arXiv:1206.0594.
    .. [2] Ghashami, Liberty, Phillips and Woodruff, "Frequent directions: simple and
       deterministic matrix sketching", SIAM J. Comput. 45, 2016, arXiv:1501.01711.
    .. [3] Desai, Ghashami and Phillips, "Improved practical matrix sketching with
       guarantees", 2015, arXiv:1501.06561.

    Examples
    --------
    >>> import torch
    >>> from agop.core import LowRankOuterProduct
    >>> axes = torch.diag(torch.tensor([3.0, 2.0, 1.0]))[:, None]  # three gradients
    >>> sketch = LowRankOuterProduct(3, n_components=2).update(axes)
    >>> sketch.spectrum(2).eigenvalues
    tensor([3.0000, 1.3333], dtype=torch.float64)
    >>> sketch.shrinkage, round(sketch.trace, 4)
    (0.0, 4.6667)
    """

    def __init__(
        self, n_features: int, n_components: int, *, center: bool = False
    ) -> None:
        super().__init__(n_features, center=center)
        self.n_components = n_components
        self._n_kept = 2 * n_components + _SPARE_ROWS
        self._n_filled = 0
        self._buffer: torch.Tensor | None = None  # (2 n_kept, n_features)
        self._subtracted = 0.0
        self._squares = DiagonalOuterProduct(n_features)

    @property
    def _rows(self) -> torch.Tensor:
        """The rows B of the sketch so far."""
        if self._buffer is None:
            return torch.zeros(0, self.n_features, device="cpu")
        return self._buffer[: self._n_filled]

    def _add_rows(self, rows: torch.Tensor) -> None:
        self._squares._add_rows(rows)
        self._append(rows)

    def _add_state(self, other: LowRankOuterProduct) -> None:
        self._squares._add_state(other._squares)
        self._append(other._rows)
        self._subtracted += other._subtracted

    def _append(self, rows: torch.Tensor) -> None:
        if self._buffer is None and len(rows):
            self._buffer = rows.new_empty(2 * self._n_kept, self.n_features)
        while self._buffer is not None and len(rows):
            free = len(self._buffer) - self._n_filled
            head, rows = rows[:free], rows[free:]
            self._buffer[self._n_filled : self._n_filled + len(head)] = head
            self._n_filled += len(head)
            if self._n_filled == len(self._buffer):
                self._shrink(self._buffer)

    def _shrink(self, buffer: torch.Tensor) -> None:
        """Algorithm 1 of [3] with α = ½, in place."""
        kept = self._n_kept
        values, vectors = eigh_descending(gram(buffer))
        values = values.clamp(min=0)
        loss = values[kept]
        shrunk = values[:kept].clone()
        shrunk[kept // 2 :] -= loss
        scale = (
            shrunk / values[:kept].clamp(min=torch.finfo(values.dtype).tiny)
        ).sqrt()
        rotation = (vectors[:, :kept] * scale).T.to(buffer)  # (kept, 2 kept)
        for block in buffer.split(_ROTATED_COLUMNS, dim=1):
            block[:kept] = rotation @ block
        self._n_filled = kept
        self._subtracted += float(loss)

    def _sum(self) -> torch.Tensor:
        return self._rows.T

    def _sum_matrix(self) -> torch.Tensor:
        rows = self._rows.double()
        return rows.T @ rows

    def _sum_diagonal(self) -> torch.Tensor:
        return self._squares._sum()

    def value(self) -> torch.Tensor:
        """A factor F with F Fᵀ close to G, from below.

        Returns
        -------
        Tensor of shape (n_features, r)
            With r ≤ 2 (2 n_components + 20), in the dtype of the sketch.
        """
        return self._sum() / self._total_weight() ** 0.5

    def spectrum(self, n_components: int | None = None) -> Spectrum:
        """Leading eigenvalues, from below, and directions.

        Parameters
        ----------
        n_components : int, optional
            How many; by default, as many as the sketch keeps when it shrinks.

        Returns
        -------
        Spectrum
            Of fewer directions if the gradients span no more. The trace is exact.
        """
        weight, rows = self._total_weight(), self._rows
        wanted = min(n_components or self._n_kept, len(rows), self.n_features)
        values, vectors = eigh_descending(gram(rows), wanted)
        resolved = max(torch.finfo(rows.dtype).eps, _RESOLVED)
        known = values > values[:1] * resolved  # else, rounding
        values, vectors = values[known], vectors[:, known]
        directions = (vectors / values.sqrt()).T.to(rows) @ rows  # (k, d)
        return Spectrum(values / weight, fix_signs(directions), self.trace)

    @property
    def shrinkage(self) -> float:
        """The largest error of an eigenvalue, in units of G."""
        return self._subtracted / self._total_weight()

    @property
    def left_out(self) -> float:
        """Share of the trace that the sketch has lost, between 0 and 1."""
        total = float(self._sum_diagonal().sum())
        kept = float(gram(self._rows).diagonal().sum())
        return max(0.0, 1.0 - kept / total) if total else 0.0

    def second_pass(self) -> ProjectedOuterProduct:
        """An accumulator that measures G along the directions that were found.

        Returns
        -------
        ProjectedOuterProduct
            To be fed with the same gradients again.
        """
        return ProjectedOuterProduct(self.spectrum().directions.T, center=self.center)


class ProjectedOuterProduct(GradientOuterProduct):
    """QᵀGQ for given directions Q, exactly: the second pass after a sketch.

    Its eigenvectors, back in feature space, are the best approximations that the span
    of Q holds (Rayleigh and Ritz): eigenvalues are lower bounds, with an error of
    second order in the angle between the span and the true directions.

    Parameters
    ----------
    basis : Tensor of shape (n_features, r)
        Q, with orthonormal columns.
    center : bool, default=False
        Subtract the weighted mean Jacobian of each output.

    Raises
    ------
    ValueError
        If the columns are not orthonormal.

    Notes
    -----
    Keeping GQ too, of shape (n_features, r), would buy one step of a power iteration
    (Nyström's formula) for 3 to 10 times smaller errors, but as much memory as the
    sketch and twice the time. After a sketch the errors are small already.

    Examples
    --------
    >>> import torch
    >>> from agop.core import ProjectedOuterProduct
    >>> basis = torch.tensor([[1.0], [0.0], [0.0]])
    >>> jacobian = torch.tensor([[[1.0, 2.0, 0.0]], [[3.0, 0.0, 0.0]]])
    >>> product = ProjectedOuterProduct(basis).update(jacobian)
    >>> product.value(), product.trace
    (tensor([[5.]], dtype=torch.float64), 7.0)
    >>> product.spectrum().directions
    tensor([[1., 0., 0.]])
    """

    def __init__(self, basis: torch.Tensor, *, center: bool = False) -> None:
        super().__init__(basis.shape[0], center=center)
        identity = torch.eye(basis.shape[1], dtype=torch.float64, device=basis.device)
        if bool(((gram(basis.T) - identity).abs() > _ORTHONORMAL).any()):
            raise ValueError(
                "The columns of a basis must be orthonormal. Make them so with "
                "torch.linalg.qr(basis).Q, if they are linearly independent."
            )
        self.basis = basis
        self._inner = DenseOuterProduct(basis.shape[1])
        self._squares = DiagonalOuterProduct(basis.shape[0])

    def _add_rows(self, rows: torch.Tensor) -> None:
        self._inner._add_rows(rows @ self.basis.to(rows))
        self._squares._add_rows(rows)

    def _add_state(self, other: ProjectedOuterProduct) -> None:
        self._inner._add_state(other._inner)
        self._squares._add_state(other._squares)

    def _adds_up_with(self, other: GradientOuterProduct) -> bool:
        return (
            super()._adds_up_with(other)
            and isinstance(other, ProjectedOuterProduct)
            and torch.equal(self.basis, other.basis)
        )

    def _sum(self) -> torch.Tensor:
        return self._inner._sum()

    def _sum_matrix(self) -> torch.Tensor:
        basis = self.basis.double()
        return basis @ self._sum() @ basis.T

    def _sum_diagonal(self) -> torch.Tensor:
        return self._squares._sum()

    def spectrum(self, n_components: int | None = None) -> Spectrum:
        """Leading eigenvalues, from below, and directions in feature space.

        Parameters
        ----------
        n_components : int, optional
            How many; all r by default.

        Returns
        -------
        Spectrum
            The trace is that of the whole of G.
        """
        inner = Spectrum.of_matrix(self.value(), n_components)
        whole = replace(inner, trace=self.trace, norm=None)
        return whole.embedded(self.basis)

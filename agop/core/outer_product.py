"""Accumulators of JᵀJ: where 1/n, the sum over outputs, weights and centring live.

For a predictor f with Jacobians J(x) of shape (n_outputs, n_features) on points
x₁ … xₙ with weights w, the average gradient outer product is

    G = Σᵢ wᵢ J(xᵢ)ᵀ J(xᵢ) / Σᵢ wᵢ .

With centring, the weighted mean Jacobian is subtracted first, output by output.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch

#: Rows of one product in the dtype of the Jacobians; products add up in float64.
_PRODUCT_ROWS = 1024


class GradientOuterProduct(ABC):
    """A running sum of Jacobian outer products.

    Batches arrive through :meth:`update`, partial results through :meth:`merge`;
    both are exact and, up to rounding, independent of the order. Sums are kept in
    float64 whatever the dtype of the Jacobians.

    Parameters
    ----------
    n_features : int
        Number of inputs d.
    center : bool, default=False
        Subtract the weighted mean Jacobian of each output.

    Notes
    -----
    A kind of accumulator (dense, diagonal, a sketch, a product through a linear
    layer) writes three methods: ``_add_rows``, ``_add_state`` and ``_sum``. Batches,
    weights, the mean (by the update of Chan, Golub and LeVeque, 1979) and the exact
    trace are handled here.
    """

    def __init__(self, n_features: int, *, center: bool = False) -> None:
        self.n_features = n_features
        self.center = center
        self.weight = 0.0
        self._trace = 0.0
        self._mean: torch.Tensor | None = None  # (n_outputs, n_features)

    @abstractmethod
    def _add_rows(self, rows: torch.Tensor) -> None:
        """Add rowsᵀ rows, rows of shape (m, n_features)."""

    @abstractmethod
    def _add_state(self, other: GradientOuterProduct) -> None:
        """Add what another accumulator of the same kind has summed."""

    @abstractmethod
    def _sum(self) -> torch.Tensor:
        """The sum so far, as a matrix or as this kind represents it."""

    def update(
        self, jacobian: torch.Tensor, sample_weight: torch.Tensor | None = None
    ) -> GradientOuterProduct:
        """Add a batch.

        Parameters
        ----------
        jacobian : Tensor of shape (n_samples, n_outputs, n_features)
        sample_weight : Tensor of shape (n_samples,), optional
            Non-negative weights; 1 by default.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If the Jacobian is not three-dimensional or has another width.
        """
        if jacobian.ndim != 3 or jacobian.shape[2] != self.n_features:
            raise ValueError(
                "A batch of Jacobians has shape (n_samples, n_outputs, "
                f"{self.n_features}); got {tuple(jacobian.shape)}."
            )
        jacobian = jacobian.detach()
        if jacobian.dtype.itemsize < 4:
            jacobian = jacobian.float()
        if sample_weight is None:
            weight = float(len(jacobian))
            scaled = jacobian
        else:
            weight = float(sample_weight.sum(dtype=torch.float64))
            scaled = jacobian * sample_weight.sqrt()[:, None, None]
        if weight == 0.0:
            return self
        if self.center:
            scaled = self._centered(jacobian, sample_weight, weight)
        self._count(scaled.reshape(-1, self.n_features))
        self.weight += weight
        return self

    def merge(self, other: GradientOuterProduct) -> GradientOuterProduct:
        """Add what another accumulator, fed with other samples, has seen.

        Parameters
        ----------
        other : GradientOuterProduct
            Of the same kind, width and centring.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If the two cannot be added.
        """
        if (type(self), self.n_features, self.center) != (
            type(other),
            other.n_features,
            other.center,
        ):
            raise ValueError(
                "Only accumulators of the same kind, width and centring can be "
                f"merged; got {self!r} and {other!r}."
            )
        if other.weight == 0.0:
            return self
        if other._mean is not None:
            self._count(self._shift_mean(other._mean, other.weight))
        self._add_state(other)
        self._trace += other._trace
        self.weight += other.weight
        return self

    def value(self) -> torch.Tensor:
        """The average G, in float64.

        Returns
        -------
        Tensor

        Raises
        ------
        ValueError
            If nothing was added yet.
        """
        return self._sum() / self._total_weight()

    @property
    def trace(self) -> float:
        """The exact trace of G: the mean squared norm of the Jacobian."""
        return self._trace / self._total_weight()

    def __repr__(self) -> str:
        """Kind, width, centring and weight seen."""
        return (
            f"{type(self).__name__}(n_features={self.n_features}, "
            f"center={self.center}, weight={self.weight:g})"
        )

    def _total_weight(self) -> float:
        if self.weight == 0.0:
            raise ValueError("No gradients were added: call update first.")
        return self.weight

    def _count(self, rows: torch.Tensor) -> None:
        self._add_rows(rows)
        self._trace += float(rows.square().sum(dtype=torch.float64))

    def _centered(
        self, jacobian: torch.Tensor, weights: torch.Tensor | None, weight: float
    ) -> torch.Tensor:
        """The batch around its own mean; moves the running mean."""
        if weights is None:
            mean = jacobian.mean(0, dtype=torch.float64)
            scale = None
        else:
            scale = weights.sqrt()[:, None, None]
            mean = (jacobian * weights[:, None, None]).sum(0, dtype=torch.float64)
            mean = mean / weight
        self._count(self._shift_mean(mean, weight))
        centered = jacobian - mean.to(jacobian.dtype)
        return centered if scale is None else centered * scale

    def _shift_mean(self, mean: torch.Tensor, weight: float) -> torch.Tensor:
        """Move the mean; return the rows that correct the sum, (n_outputs, d)."""
        if self._mean is None:
            self._mean = mean.clone()
            return torch.zeros_like(mean)
        if mean.shape != self._mean.shape:
            raise ValueError(
                "A centred accumulator needs the same number of outputs in every "
                f"batch; got {len(mean)} after {len(self._mean)}."
            )
        total = self.weight + weight
        step = mean - self._mean
        self._mean = self._mean + step * (weight / total)
        return step * (self.weight * weight / total) ** 0.5


class DenseOuterProduct(GradientOuterProduct):
    """The full matrix G, of shape (n_features, n_features).

    Parameters
    ----------
    n_features : int
        Number of inputs d.
    center : bool, default=False
        Subtract the weighted mean Jacobian of each output.

    Examples
    --------
    >>> import torch
    >>> from agop.core import DenseOuterProduct
    >>> jacobian = torch.tensor([[[1.0, 2.0]], [[3.0, 0.0]]])  # two points, one output
    >>> DenseOuterProduct(2).update(jacobian).value()
    tensor([[5., 1.],
            [1., 2.]], dtype=torch.float64)
    """

    _matrix: torch.Tensor | None = None

    def _add_rows(self, rows: torch.Tensor) -> None:
        blocks = rows.split(_PRODUCT_ROWS)
        product = (blocks[0].T @ blocks[0]).double()
        for block in blocks[1:]:
            product += (block.T @ block).double()
        self._matrix = product if self._matrix is None else self._matrix + product

    def _add_state(self, other: GradientOuterProduct) -> None:
        product = other._sum()
        self._matrix = product if self._matrix is None else self._matrix + product

    def _sum(self) -> torch.Tensor:
        if self._matrix is None:
            return torch.zeros(
                self.n_features, self.n_features, dtype=torch.float64, device="cpu"
            )
        return (self._matrix + self._matrix.T) / 2  # exactly symmetric


class DiagonalOuterProduct(GradientOuterProduct):
    """The diagonal of G, of shape (n_features,), without the matrix.

    Parameters
    ----------
    n_features : int
        Number of inputs d.
    center : bool, default=False
        Subtract the weighted mean Jacobian of each output.

    Examples
    --------
    >>> import torch
    >>> from agop.core import DiagonalOuterProduct
    >>> jacobian = torch.tensor([[[1.0, 2.0]], [[3.0, 0.0]]])
    >>> DiagonalOuterProduct(2).update(jacobian).value()
    tensor([5., 2.], dtype=torch.float64)
    """

    _diagonal: torch.Tensor | None = None

    def _add_rows(self, rows: torch.Tensor) -> None:
        squares = rows.square().sum(0, dtype=torch.float64)
        self._diagonal = squares if self._diagonal is None else self._diagonal + squares

    def _add_state(self, other: GradientOuterProduct) -> None:
        squares = other._sum()
        self._diagonal = squares if self._diagonal is None else self._diagonal + squares

    def _sum(self) -> torch.Tensor:
        if self._diagonal is None:
            return torch.zeros(self.n_features, dtype=torch.float64, device="cpu")
        return self._diagonal


class RowsOuterProduct(GradientOuterProduct):
    """A factor F with G = F Fᵀ, for fewer gradients than features.

    The weighted gradients themselves are kept, so that nothing of shape
    (n_features, n_features) is ever formed.

    Parameters
    ----------
    n_features : int
        Number of inputs d.
    center : bool, default=False
        Subtract the weighted mean Jacobian of each output.

    Examples
    --------
    >>> import torch
    >>> from agop.core import RowsOuterProduct
    >>> jacobian = torch.tensor([[[1.0, 2.0, 0.0]]])
    >>> factor = RowsOuterProduct(3).update(jacobian).value()
    >>> factor.shape
    torch.Size([3, 1])
    """

    def __init__(self, n_features: int, *, center: bool = False) -> None:
        super().__init__(n_features, center=center)
        self._rows: list[torch.Tensor] = []

    def _add_rows(self, rows: torch.Tensor) -> None:
        self._rows.append(rows.to(torch.float64, copy=True))

    def _add_state(self, other: GradientOuterProduct) -> None:
        self._rows.append(other._sum().T)

    def _sum(self) -> torch.Tensor:
        return torch.cat(self._rows).T  # (n_features, n_rows)

    def value(self) -> torch.Tensor:
        """The factor F, of shape (n_features, n_rows), in float64."""
        root = self._total_weight() ** 0.5
        return self._sum() / root


def average_gradient_outer_product(
    jacobian: torch.Tensor,
    sample_weight: torch.Tensor | None = None,
    *,
    center: bool = False,
) -> torch.Tensor:
    """The average gradient outer product of a batch of Jacobians.

    G = Σᵢ wᵢ J(xᵢ)ᵀ J(xᵢ) / Σᵢ wᵢ (Radhakrishnan, Beaglehole, Pandit and Belkin,
    Science 383:1461, 2024, arXiv:2212.13881).

    Parameters
    ----------
    jacobian : Tensor of shape (n_samples, n_outputs, n_features)
        Derivatives of every output with respect to every input, at every point.
    sample_weight : Tensor of shape (n_samples,), optional
        Non-negative weights; 1 by default.
    center : bool, default=False
        Subtract the mean Jacobian of each output first.

    Returns
    -------
    Tensor of shape (n_features, n_features), float64
        Symmetric and positive semi-definite, in squared units of output per input.

    Raises
    ------
    ValueError
        If the Jacobian is not three-dimensional, or all weights are zero.

    Examples
    --------
    >>> import torch
    >>> from agop import average_gradient_outer_product
    >>> W = torch.tensor([[1.0, 0.0], [1.0, 1.0]])  # f(x) = W x has G = WᵀW
    >>> average_gradient_outer_product(W.expand(5, 2, 2))
    tensor([[2., 1.],
            [1., 1.]], dtype=torch.float64)
    """
    width = jacobian.shape[-1] if jacobian.ndim else 0
    accumulator = DenseOuterProduct(width, center=center)
    return accumulator.update(jacobian, sample_weight).value()

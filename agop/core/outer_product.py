"""Accumulators of JᵀJ: where 1/n, the sum over outputs, weights and centring live.

For a predictor f with Jacobians J(x) of shape (n_outputs, n_features) on points
x₁ … xₙ with weights w, the average gradient outer product is

    G = Σᵢ wᵢ J(xᵢ)ᵀ J(xᵢ) / Σᵢ wᵢ .

With centring, the weighted mean Jacobian is subtracted first, output by output.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import Any

import torch
import torch.distributed as dist

from agop.core.arrays import plain_arithmetic
from agop.core.centring import RunningMean, weighted_mean
from agop.core.linalg import PRODUCT_ROWS, add_lower_product
from agop.core.processes import device_of, gathered
from agop.core.spectrum import Spectrum


class GradientOuterProduct(ABC):
    """A running sum of Jacobian outer products.

    Batches arrive through :meth:`update`, partial results through :meth:`merge` or,
    from other processes, :meth:`all_reduce`; all are, up to rounding, independent of
    the order. Sums are kept in float64 whatever the dtype of the Jacobians. Whatever a
    kind keeps of G, it is asked for by :meth:`spectrum`, :meth:`diagonal`,
    :attr:`trace` and :meth:`matrix`.

    Parameters
    ----------
    n_features : int
        Width and height d of G.
    center : bool, default=False
        Subtract the weighted mean Jacobian of each output.

    Notes
    -----
    A kind of accumulator (dense, diagonal, a sketch, a product through a linear
    layer) writes three methods: ``_add_rows``, ``_add_state`` and ``_sum``. Batches,
    weights and the mean are handled here. A kind whose ``_sum`` is not a matrix says
    also what it knows of the matrix, the diagonal and the spectrum.
    """

    def __init__(self, n_features: int, *, center: bool = False) -> None:
        self.n_features = n_features
        self.center = center
        self.weight = 0.0
        self._mean = RunningMean()

    @abstractmethod
    def _add_rows(self, rows: torch.Tensor) -> None:
        """Add rowsᵀ rows, rows of shape (m, width)."""

    @abstractmethod
    def _add_state(self, other: Any) -> None:
        """Add what another accumulator of the same kind has summed."""

    @abstractmethod
    def _sum(self) -> torch.Tensor:
        """The sum so far, as a matrix or as this kind represents it."""

    @property
    def _width(self) -> int:
        """Width of the Jacobians that arrive."""
        return self.n_features

    @plain_arithmetic
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
        jacobian = checked_jacobian(jacobian, self._width)
        weight, root = float(len(jacobian)), None
        if sample_weight is not None:
            sample_weight = sample_weight.detach()
            weight = float(sample_weight.sum(dtype=torch.float64))
            root = sample_weight.sqrt()[:, None, None]
        if weight == 0.0:
            return self
        if self.center:
            mean = weighted_mean(jacobian, sample_weight)
            self._add_rows(self._mean.include(mean, weight))
            jacobian = jacobian - mean.to(jacobian.dtype)
        scaled = jacobian if root is None else jacobian * root
        if not scaled.is_contiguous():  # the order of rows is free: that of memory
            scaled = scaled.transpose(0, 1)
        self._add_rows(scaled.reshape(-1, self._width))
        self.weight += weight
        return self

    @plain_arithmetic
    def merge(self, other: GradientOuterProduct) -> GradientOuterProduct:
        """Add what another accumulator, fed with other samples, has seen.

        Parameters
        ----------
        other : GradientOuterProduct
            Of the same kind, width and centring, and with the same layer or basis.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If the two cannot be added.
        """
        if not self._adds_up_with(other):
            raise ValueError(
                "Only accumulators of the same kind, width and centring (and layer or "
                f"basis, if any) can be merged; got {self!r} and {other!r}."
            )
        if other.weight == 0.0:
            return self
        if other._mean.value is not None:
            self._add_rows(self._mean.include(other._mean.value, other.weight))
        self._add_state(other)
        self.weight += other.weight
        return self

    @plain_arithmetic
    def all_reduce(
        self, group: dist.ProcessGroup | None = None
    ) -> GradientOuterProduct:
        """Add what the accumulators of all processes of torch.distributed have seen.

        Every process calls it, and has the whole afterwards; one that has seen
        nothing takes part too.

        Parameters
        ----------
        group : ProcessGroup, optional
            All processes by default.

        Returns
        -------
        self

        Raises
        ------
        RuntimeError
            If torch.distributed was not initialised.
        ValueError
            If the accumulators of the processes cannot be added.
        """
        vars(self).update(vars(self._reduced(group)))
        return self

    def value(self) -> torch.Tensor:
        """The average G, as this kind represents it, in float64.

        Returns
        -------
        Tensor

        Raises
        ------
        ValueError
            If nothing was added yet.
        """
        return self._sum() / self._total_weight()

    def matrix(self) -> torch.Tensor:
        """The average G, or what this kind knows of it, as a matrix in float64.

        Returns
        -------
        Tensor of shape (n_features, n_features)
        """
        weight = self._total_weight()
        return self._sum_matrix() / weight

    def diagonal(self) -> torch.Tensor:
        """The exact diagonal of G, in float64.

        Returns
        -------
        Tensor of shape (n_features,)
        """
        weight = self._total_weight()
        return self._sum_diagonal() / weight

    def spectrum(self, n_components: int | None = None) -> Spectrum:
        """Eigenvalues and directions of G.

        Parameters
        ----------
        n_components : int, optional
            How many of the leading ones; all that are known by default.

        Returns
        -------
        Spectrum
        """
        return Spectrum.of_matrix(self.matrix(), n_components)

    @property
    def trace(self) -> float:
        """The exact trace of G: the mean squared norm of the Jacobian."""
        return float(self.diagonal().sum())

    def __repr__(self) -> str:
        """Kind, width, centring and weight seen."""
        return (
            f"{type(self).__name__}(n_features={self.n_features}, "
            f"center={self.center}, weight={self.weight:g})"
        )

    def _sum_matrix(self) -> torch.Tensor:
        return self._sum()

    def _sum_diagonal(self) -> torch.Tensor:
        return self._sum_matrix().diagonal()

    def _reduced(self, group: dist.ProcessGroup | None) -> GradientOuterProduct:
        """What the accumulators of all processes have seen."""
        whole, *others = gathered(self, group)
        for other in others:
            whole.merge(other)
        return whole

    def _adds_up_with(self, other: GradientOuterProduct) -> bool:
        """Whether another accumulator can be merged into this one."""
        kind = type(self), self.n_features, self.center
        return kind == (type(other), other.n_features, other.center)

    def _total_weight(self) -> float:
        if self.weight == 0.0:
            raise ValueError("No gradients were added: call update first.")
        return self.weight


class _SummedOuterProduct(GradientOuterProduct):
    """A kind whose state is one tensor that adds up."""

    _total: torch.Tensor | None = None

    @abstractmethod
    def _zeros(self) -> torch.Tensor:
        """The state before anything was added, on the CPU."""

    def _sum(self) -> torch.Tensor:
        return self._zeros() if self._total is None else self._total

    def _total_on(self, device: torch.device) -> torch.Tensor:
        if self._total is None:
            self._total = self._zeros().to(device)
        return self._total

    def _add_state(self, other: _SummedOuterProduct) -> None:
        if other._total is not None:
            self._total_on(other._total.device).add_(other._total)

    def _reduced(self, group: dist.ProcessGroup | None) -> GradientOuterProduct:
        header = copy.copy(self)
        header._total = None
        whole = GradientOuterProduct._reduced(header, group)  # weights, means, gaps
        dist.all_reduce(self._total_on(device_of(group)), group=group)
        whole._add_state(self)
        return whole


class DenseOuterProduct(_SummedOuterProduct):
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

    def _zeros(self) -> torch.Tensor:
        return torch.zeros(self._width, self._width, dtype=torch.float64, device="cpu")

    def _add_rows(self, rows: torch.Tensor) -> None:
        # Of the total the lower triangle is kept.
        add_lower_product(self._total_on(rows.device), rows)

    def _sum(self) -> torch.Tensor:
        total = super()._sum()
        return total.tril() + total.tril(-1).T  # exactly symmetric

    def _sum_diagonal(self) -> torch.Tensor:
        return super()._sum().diagonal()


class DiagonalOuterProduct(_SummedOuterProduct):
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

    def _zeros(self) -> torch.Tensor:
        return torch.zeros(self.n_features, dtype=torch.float64, device="cpu")

    def _add_rows(self, rows: torch.Tensor) -> None:
        total = self._total_on(rows.device)
        for block in rows.split(PRODUCT_ROWS):
            total += block.square().sum(0)

    def _sum_matrix(self) -> torch.Tensor:
        return self._sum().diag()

    def _sum_diagonal(self) -> torch.Tensor:
        return self._sum()

    def spectrum(self, n_components: int | None = None) -> Spectrum:
        """The axes and the entries of the diagonal, in the place of eigenvectors.

        Parameters
        ----------
        n_components : int, optional
            How many of the largest ones; all by default.

        Returns
        -------
        Spectrum
        """
        return Spectrum.of_diagonal(self.value(), n_components)


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

    def _add_state(self, other: RowsOuterProduct) -> None:
        self._rows.extend(other._rows)

    def _sum(self) -> torch.Tensor:
        return torch.cat(self._rows).T  # (n_features, n_rows)

    def poured_into(self, other: GradientOuterProduct) -> GradientOuterProduct:
        """Hand everything seen so far to an empty accumulator of another kind."""
        for rows in self._rows:
            other._add_rows(rows)
        other.weight, other._mean = self.weight, self._mean
        return other

    def _sum_matrix(self) -> torch.Tensor:
        factor = self._sum()
        return factor @ factor.T

    def _sum_diagonal(self) -> torch.Tensor:
        return self._sum().square().sum(1)

    def value(self) -> torch.Tensor:
        """The factor F, in float64.

        Returns
        -------
        Tensor of shape (n_features, n_rows)
        """
        root = self._total_weight() ** 0.5
        return self._sum() / root

    def spectrum(self, n_components: int | None = None) -> Spectrum:
        """Eigenvalues and directions of G.

        Parameters
        ----------
        n_components : int, optional
            How many of the leading ones; by default, the smaller one of n_rows and
            n_features.

        Returns
        -------
        Spectrum
        """
        return Spectrum.of_factor(self.value(), n_components)


def checked_jacobian(jacobian: torch.Tensor, width: int) -> torch.Tensor:
    """A batch without its graph, in float32 at least; raise if it has other axes."""
    if jacobian.ndim != 3 or jacobian.shape[2] != width:
        raise ValueError(
            f"A batch of Jacobians has shape (n_samples, n_outputs, {width}); "
            f"got {tuple(jacobian.shape)}."
        )
    jacobian = jacobian.detach()
    return jacobian.float() if jacobian.dtype.itemsize < 4 else jacobian


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

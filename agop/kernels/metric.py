"""Metrics: linear maps to the coordinates in which a kernel measures.

A metric M = A Aᵀ is kept as the factor A. Points are mapped once, x ↦ Aᵀx, and a
gradient g in these coordinates is A g in the features, so neither M nor a matrix
root is ever needed. Each type says which accumulator its outer product needs and how
it follows from one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch

from agop.core.linalg import psd_factor
from agop.core.outer_product import (
    DenseOuterProduct,
    DiagonalOuterProduct,
    GradientOuterProduct,
)


class Metric(ABC):
    """A positive semi-definite matrix M over the features.

    Those that are learned say, by ``accumulator``, of which kind of outer product
    they are made, and make themselves by ``from_outer_product``.
    """

    @abstractmethod
    def project(self, X: torch.Tensor) -> torch.Tensor:
        """Coordinates Aᵀx: (n, d) to (n, r)."""

    @abstractmethod
    def pull_back(self, gradient: torch.Tensor) -> torch.Tensor:
        """Gradients in the features, A g: (…, r) to (…, d)."""

    @abstractmethod
    def pull_back_product(self, product: torch.Tensor) -> torch.Tensor:
        """An outer product in the features, A H Aᵀ, from one in the coordinates.

        Both are matrices, (r, r) and (d, d); or both are diagonals, (d,), if the
        metric is diagonal too.
        """

    @abstractmethod
    def diagonal(self) -> torch.Tensor:
        """Diagonal of M, shape (d,)."""

    @abstractmethod
    def matrix(self) -> torch.Tensor:
        """M, shape (d, d)."""

    @abstractmethod
    def rescaled(self, factor: float) -> Metric:
        """The metric factor² M."""

    @abstractmethod
    def to(self, like: torch.Tensor) -> Metric:
        """The metric in the dtype and on the device of a tensor."""


class IdentityMetric(Metric):
    """M = scale² I, the metric of a plain kernel.

    Parameters
    ----------
    n_features : int
    like : Tensor
        Gives dtype and device.
    scale : float, default=1.0
    """

    def __init__(self, n_features: int, like: torch.Tensor, scale: float = 1.0) -> None:
        self._ones = torch.ones(n_features, dtype=like.dtype, device=like.device)
        self.scale = scale

    def project(self, X: torch.Tensor) -> torch.Tensor:
        """scale · x."""
        return X * self.scale

    def pull_back(self, gradient: torch.Tensor) -> torch.Tensor:
        """scale · g."""
        return gradient * self.scale

    def pull_back_product(self, product: torch.Tensor) -> torch.Tensor:
        """scale² H."""
        return product * self.scale**2

    def diagonal(self) -> torch.Tensor:
        """scale² in every entry."""
        return self._ones * self.scale**2

    def matrix(self) -> torch.Tensor:
        """scale² I."""
        return torch.diag(self.diagonal())

    def rescaled(self, factor: float) -> IdentityMetric:
        """The metric factor² M."""
        return IdentityMetric(len(self._ones), self._ones, self.scale * factor)

    def to(self, like: torch.Tensor) -> IdentityMetric:
        """The metric in the dtype and on the device of a tensor."""
        return IdentityMetric(len(self._ones), like, self.scale)


class DiagonalMetric(Metric):
    """M = diag(scales²): one scale per feature.

    Parameters
    ----------
    scales : Tensor of shape (d,)
    """

    accumulator: ClassVar[type[GradientOuterProduct]] = DiagonalOuterProduct

    def __init__(self, scales: torch.Tensor) -> None:
        self.scales = scales

    @classmethod
    def from_outer_product(cls, diagonal: torch.Tensor, power: float) -> DiagonalMetric:
        """The metric diag(g)^power of an outer product with diagonal g, (d,)."""
        return cls(diagonal.clamp(min=0) ** (power / 2))

    def project(self, X: torch.Tensor) -> torch.Tensor:
        """scales ∘ x."""
        return X * self.scales

    def pull_back(self, gradient: torch.Tensor) -> torch.Tensor:
        """scales ∘ g."""
        return gradient * self.scales

    def pull_back_product(self, product: torch.Tensor) -> torch.Tensor:
        """scales² ∘ h, or scales H scales of a whole matrix."""
        scales = self.scales.to(product.dtype)
        scaled = product * scales
        return scaled * (scales if product.ndim == 1 else scales[:, None])

    def diagonal(self) -> torch.Tensor:
        """scales²."""
        return self.scales.square()

    def matrix(self) -> torch.Tensor:
        """diag(scales²)."""
        return torch.diag(self.diagonal())

    def rescaled(self, factor: float) -> DiagonalMetric:
        """The metric factor² M."""
        return DiagonalMetric(self.scales * factor)

    def to(self, like: torch.Tensor) -> DiagonalMetric:
        """The metric in the dtype and on the device of a tensor."""
        return DiagonalMetric(self.scales.to(like))


class FullMetric(Metric):
    """M = A Aᵀ, with a factor of any rank r.

    Parameters
    ----------
    factor : Tensor of shape (d, r)
        With r < d the metric has low rank and the coordinates are fewer.
    """

    accumulator: ClassVar[type[GradientOuterProduct]] = DenseOuterProduct

    def __init__(self, factor: torch.Tensor) -> None:
        self.factor = factor

    @classmethod
    def from_outer_product(cls, matrix: torch.Tensor, power: float) -> FullMetric:
        """The metric G^power of an outer product G, (d, d)."""
        return cls(psd_factor(matrix, power))

    def project(self, X: torch.Tensor) -> torch.Tensor:
        """Aᵀx."""
        return X @ self.factor

    def pull_back(self, gradient: torch.Tensor) -> torch.Tensor:
        """A g."""
        return gradient @ self.factor.T

    def pull_back_product(self, product: torch.Tensor) -> torch.Tensor:
        """A H Aᵀ."""
        factor = self.factor.to(product.dtype)
        return factor @ product @ factor.T

    def diagonal(self) -> torch.Tensor:
        """Squared row norms of A."""
        return self.factor.square().sum(1)

    def matrix(self) -> torch.Tensor:
        """A Aᵀ."""
        return self.factor @ self.factor.T

    def rescaled(self, factor: float) -> FullMetric:
        """The metric factor² M."""
        return FullMetric(self.factor * factor)

    def to(self, like: torch.Tensor) -> FullMetric:
        """The metric in the dtype and on the device of a tensor."""
        return FullMetric(self.factor.to(like))


#: How a metric is scaled, so that a bandwidth means the same at every round.
NORMALIZATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "trace": torch.mean,  # mean of the diagonal becomes 1: the trace that I has
    "max": torch.amax,  # largest entry of the diagonal becomes 1
    "none": lambda diagonal: torch.ones_like(diagonal[0]),
}

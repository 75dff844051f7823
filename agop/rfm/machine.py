"""Kernel machines: predictions, Jacobians and the AGOP of a fitted ridge."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from agop.core.arrays import row_blocks
from agop.kernels.geometry import Kernel
from agop.kernels.metric import Metric
from agop.kernels.operator import KernelOperator


@dataclass(frozen=True)
class KernelMachine:
    """f(x) = intercept + Σᵢ coefᵢ k(Aᵀ(x − offset)/L, zᵢ), zᵢ the mapped centers.

    Parameters
    ----------
    kernel : Kernel
    metric : Metric
        M = A Aᵀ over the features.
    bandwidth : float
        L, in units of distances under M.
    centers : Tensor of shape (n, d)
        The training points, after the offset was subtracted.
    offset : Tensor of shape (d,)
        Mean of the training points; zero for kernels that know the origin.
    coef : Tensor of shape (n, c)
    intercept : Tensor of shape (c,)
    """

    kernel: Kernel
    metric: Metric
    bandwidth: float
    centers: torch.Tensor
    offset: torch.Tensor
    coef: torch.Tensor
    intercept: torch.Tensor

    def predict(self, X: torch.Tensor) -> torch.Tensor:
        """Outputs at new points.

        Parameters
        ----------
        X : Tensor of shape (m, d)

        Returns
        -------
        Tensor of shape (m, c)
        """
        return self._operator(X) @ self.coef + self.intercept

    def jacobians(self, X: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
        """Jacobians in blocks of points: (slice, Tensor of shape (b, c, d)).

        ∇f_l(x) = (1/L) A Σᵢ coefᵢₗ ∂k(z, zᵢ)/∂z at z = Aᵀ(x − offset)/L. The term of
        a center that coincides with x is left out where the kernel has a kink.

        Parameters
        ----------
        X : Tensor of shape (m, d)

        Yields
        ------
        tuple of slice and Tensor
        """
        operator = self._operator(X)
        width = self.coef.shape[1] * X.shape[1] + len(self.centers)
        for block in row_blocks(len(X), width, X.element_size()):
            gradient = self.kernel.contraction(operator.X[block], operator.Z, self.coef)
            yield block, self.metric.pull_back(gradient) / self.bandwidth

    def jacobian(self, X: torch.Tensor) -> torch.Tensor:
        """Jacobians at new points.

        Parameters
        ----------
        X : Tensor of shape (m, d)

        Returns
        -------
        Tensor of shape (m, c, d)
        """
        return torch.cat([jacobian for _, jacobian in self.jacobians(X)])

    def _operator(self, X: torch.Tensor) -> KernelOperator:
        return KernelOperator(
            self.kernel,
            self.metric.project(X - self.offset) / self.bandwidth,
            self.metric.project(self.centers) / self.bandwidth,
        )

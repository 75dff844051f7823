"""How alike the neural feature matrix and the AGOP of one layer are."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch

from agop.core.linalg import psd_factor


@dataclass(frozen=True)
class LayerAnsatz:
    """The neural feature matrix and the AGOP of one layer.

    Both are kept in a basis of the span of the rows of W, in which they are no larger
    than the layer's output.

    Parameters
    ----------
    basis : Tensor of shape (n_features, rank)
        Orthonormal columns Q.
    features : Tensor of shape (rank, rank)
        QᵀWᵀWQ.
    gradients : Tensor of shape (rank, rank)
        QᵀGQ, with G the AGOP at the input of the layer.
    """

    basis: torch.Tensor
    features: torch.Tensor
    gradients: torch.Tensor

    def neural_feature_matrix(self) -> torch.Tensor:
        """WᵀW; of the change of W, for the centred ansatz.

        Returns
        -------
        Tensor of shape (n_features, n_features), float64
        """
        return self.basis @ self.features @ self.basis.T

    def agop(self) -> torch.Tensor:
        """G, the AGOP at the input of the layer.

        Returns
        -------
        Tensor of shape (n_features, n_features), float64
        """
        return self.basis @ self.gradients @ self.basis.T

    def correlation(self, power: float = 0.5) -> float:
        """The cosine of WᵀW and G^power, as vectors of entries.

        Parameters
        ----------
        power : float, default=0.5

        Returns
        -------
        float
            NaN if one of them is zero.
        """
        return self._cosine(power, torch.zeros_like(self.basis[0]), 1)

    def pearson(self, power: float = 0.5) -> float:
        """The correlation coefficient of the entries of WᵀW and G^power.

        Parameters
        ----------
        power : float, default=0.5

        Returns
        -------
        float
            NaN if one of them is constant.
        """
        return self._cosine(power, self.basis.sum(0), len(self.basis) ** 2)

    @cached_property
    def _factor(self) -> torch.Tensor:
        return psd_factor(self.gradients)

    def _cosine(self, power: float, ones: torch.Tensor, n_entries: int) -> float:
        """The cosine after the mean entry onesᵀ M ones / n_entries is subtracted."""
        scales = torch.linalg.vector_norm(self._factor, dim=0)  # roots of eigenvalues
        factor = self._factor * scales ** (power - 1)
        matrices = (self.features, factor @ factor.T)
        sums = torch.stack([ones @ matrix @ ones for matrix in matrices])
        flat = torch.stack([matrix.flatten() for matrix in matrices])
        products = flat @ flat.T - torch.outer(sums, sums) / n_entries
        norm = (products[0, 0] * products[1, 1]).clamp(min=0).sqrt()
        return float(products[0, 1] / norm)


def compare(
    weight: torch.Tensor, gradients: torch.Tensor, *, at_output: bool
) -> LayerAnsatz:
    """The matrices of a layer.

    Parameters
    ----------
    weight : Tensor of shape (n_outputs, n_features), float64
    gradients : Tensor, float64
        The AGOP S at the output of the layer, (n_outputs, n_outputs), or G itself.
    at_output : bool
        Which of the two it is.

    Returns
    -------
    LayerAnsatz
    """
    if not at_output:
        identity = torch.eye(len(gradients)).to(gradients)
        return LayerAnsatz(identity, weight.T @ weight, gradients)
    basis, factor = torch.linalg.qr(weight.T)  # (n_features, rank), (rank, n_outputs)
    return LayerAnsatz(basis, factor @ factor.T, factor @ gradients @ factor.T)

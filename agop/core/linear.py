"""The outer product through a linear layer."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from agop.core.linalg import eigh_descending, gram, psd_factor
from agop.core.outer_product import DenseOuterProduct, GradientOuterProduct
from agop.core.spectrum import Spectrum, fix_signs

#: Columns of a layer that are looked at together.
_BLOCK_COLUMNS = 4096

#: Eigenvalues below this share of the largest one are rounding error.
_RESOLVED = 1e-10


class LinearOuterProduct(DenseOuterProduct):
    """G = WᵀSW of a function of h = W x + b, from the outer product S of its h.

    Jacobians with respect to h arrive, n_hidden numbers in each row in the place of
    n_features. That is exact, and cheaper whenever the layer narrows the way. Of G only
    what is asked for is formed: the diagonal, the trace and the spectrum need no matrix
    of shape (n_features, n_features).

    Parameters
    ----------
    layer_weight : Tensor of shape (n_hidden, n_features)
        W, as in torch.nn.Linear. It is not copied.
    center : bool, default=False
        Subtract the weighted mean Jacobian of each output.

    Examples
    --------
    >>> import torch
    >>> from agop.core import LinearOuterProduct
    >>> W = torch.tensor([[1.0, 2.0, 0.0]])
    >>> jacobian = torch.tensor([[[2.0]]])  # f(x) = 2 W x at one point
    >>> product = LinearOuterProduct(W).update(jacobian)
    >>> product.value()
    tensor([[ 4.,  8.,  0.],
            [ 8., 16.,  0.],
            [ 0.,  0.,  0.]], dtype=torch.float64)
    >>> product.diagonal(), product.trace
    (tensor([ 4., 16.,  0.], dtype=torch.float64), 20.0)
    """

    def __init__(self, layer_weight: torch.Tensor, *, center: bool = False) -> None:
        super().__init__(layer_weight.shape[1], center=center)
        self.layer_weight = layer_weight.detach()

    @property
    def _width(self) -> int:
        return len(self.layer_weight)

    def _adds_up_with(self, other: GradientOuterProduct) -> bool:
        return (
            super()._adds_up_with(other)
            and isinstance(other, LinearOuterProduct)
            and torch.equal(self.layer_weight, other.layer_weight)
        )

    def hidden(self) -> torch.Tensor:
        """The average S with respect to the outputs of the layer.

        Returns
        -------
        Tensor of shape (n_hidden, n_hidden), float64
        """
        return super()._sum() / self._total_weight()

    def _sum(self) -> torch.Tensor:
        W = self.layer_weight.double()
        product = W.T @ (super()._sum() @ W)
        return (product + product.T) / 2  # exactly symmetric

    def _sum_diagonal(self) -> torch.Tensor:
        S = super()._sum()
        return torch.cat([(block * (S @ block)).sum(0) for block in self._blocks()])

    def spectrum(self, n_components: int | None = None) -> Spectrum:
        """Eigenvalues and directions of G, from matrices of the size of S.

        With S = A Aᵀ, the eigenvectors u of AᵀWWᵀA give those of G as WᵀA u.

        Parameters
        ----------
        n_components : int, optional
            How many of the leading ones; by default, the rank of G.

        Returns
        -------
        Spectrum
        """
        factor = psd_factor(self.hidden())  # (n_hidden, rank)
        product = factor.T @ gram(self.layer_weight) @ factor
        values, vectors = eigh_descending(product, n_components)
        known = values > values[:1] * _RESOLVED
        values, vectors = values[known], vectors[:, known]
        rows = (factor @ (vectors / values.sqrt())).T  # (k, n_hidden)
        directions = torch.cat([rows @ block for block in self._blocks()], dim=1)
        norm = float(product.norm())
        return Spectrum(values, fix_signs(directions), self.trace, norm)

    def _blocks(self) -> Iterator[torch.Tensor]:
        """W in float64, some columns at a time."""
        for block in self.layer_weight.split(_BLOCK_COLUMNS, dim=1):
            yield block.double()

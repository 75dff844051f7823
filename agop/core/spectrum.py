"""Eigenvalues and directions of a positive semi-definite matrix, and subspaces."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from agop.core.linalg import eigh_descending, gram

#: Rows of the blocks in which signs are found.
_SIGN_ROWS = 16


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues and directions of an average gradient outer product.

    Directions are rows of unit norm, in descending order of eigenvalue, each with a
    sign such that its entry of largest magnitude is positive. They are covectors:
    what a direction tells is how strongly the output moves along it.

    Parameters
    ----------
    eigenvalues : Tensor of shape (k,)
        Descending, non-negative.
    directions : Tensor of shape (k, n_features)
    trace : float
        Trace of the whole matrix, so that shares stay honest if k < n_features.
    norm : float, optional
        Frobenius norm of the whole matrix, if it is known.

    Examples
    --------
    >>> import torch
    >>> from agop import Spectrum
    >>> spectrum = Spectrum.of_matrix(torch.diag(torch.tensor([1.0, 3.0])))
    >>> spectrum.eigenvalues
    tensor([3., 1.])
    >>> spectrum.directions
    tensor([[0., 1.],
            [1., 0.]])
    >>> spectrum.cumulative_share
    tensor([0.7500, 1.0000])
    """

    eigenvalues: torch.Tensor
    directions: torch.Tensor
    trace: float
    norm: float | None = None

    @classmethod
    def of_matrix(
        cls, matrix: torch.Tensor, n_components: int | None = None
    ) -> Spectrum:
        """Spectrum of a symmetric matrix.

        Parameters
        ----------
        matrix : Tensor of shape (n_features, n_features)
        n_components : int, optional
            How many of the leading directions to compute; all by default.

        Returns
        -------
        Spectrum
        """
        values, vectors = eigh_descending(matrix, n_components)
        return cls(
            values.clamp(min=0),
            fix_signs(vectors.T),
            float(matrix.diagonal().sum()),
            float(matrix.norm()),
        )

    @classmethod
    def of_factor(
        cls, factor: torch.Tensor, n_components: int | None = None
    ) -> Spectrum:
        """Spectrum of F Fᵀ, of rank r, without forming it when r < n_features.

        Parameters
        ----------
        factor : Tensor of shape (n_features, r)
        n_components : int, optional
            How many of the leading directions to compute; min(r, n_features) by
            default. Few of them come from FᵀF, without a decomposition of F.

        Returns
        -------
        Spectrum
        """
        n_features, rank = factor.shape
        if rank >= n_features:
            return cls.of_matrix(factor @ factor.T, n_components)
        if n_components is not None and 4 * n_components < rank:
            return cls._of_tall_factor(factor, n_components)
        vectors, singular, _ = torch.linalg.svd(factor, full_matrices=False)
        vectors = vectors.masked_fill((factor == 0).all(1)[:, None], 0)  # exactly
        values = singular.square()
        whole = cls(
            values, fix_signs(vectors.T), float(values.sum()), float(values.norm())
        )
        return whole if n_components is None else whole.truncated(n_components)

    @classmethod
    def of_diagonal(
        cls, diagonal: torch.Tensor, n_components: int | None = None
    ) -> Spectrum:
        """Spectrum of a diagonal matrix: the axes, by size.

        Parameters
        ----------
        diagonal : Tensor of shape (n_features,)
        n_components : int, optional
            How many of the leading axes; all by default.

        Returns
        -------
        Spectrum
        """
        values, order = diagonal.sort(descending=True, stable=True)
        values, order = values[:n_components], order[:n_components]
        axes = diagonal.new_zeros(len(order), len(diagonal))
        axes[torch.arange(len(order), device=order.device), order] = 1
        return cls(values, axes, float(diagonal.sum()), float(diagonal.norm()))

    @classmethod
    def _of_tall_factor(cls, factor: torch.Tensor, n_components: int) -> Spectrum:
        """The leading part, from FᵀF and, for its digits, Rayleigh and Ritz."""
        product = gram(factor.T)
        _, vectors = eigh_descending(product, n_components)
        basis = torch.linalg.qr(factor @ vectors.to(factor)).Q  # (d, k)
        rotation, singular, _ = torch.linalg.svd(basis.T @ factor, full_matrices=False)
        directions = rotation.T @ basis.T
        directions = directions.masked_fill((factor == 0).all(1), 0)  # exactly
        return cls(
            singular.square(),
            fix_signs(directions),
            float(product.diagonal().sum()),
            float(product.norm()),
        )

    @property
    def shares(self) -> torch.Tensor:
        """Each eigenvalue over the trace; zero for a zero matrix."""
        if self.trace <= 0:
            return torch.zeros_like(self.eigenvalues)
        return self.eigenvalues / self.trace

    @property
    def cumulative_share(self) -> torch.Tensor:
        """Share of the trace that the leading directions carry."""
        return self.shares.cumsum(0)

    @property
    def effective_rank(self) -> float:
        """Participation ratio (Σλ)² / Σλ²: how many directions share the trace.

        It is 1 for one direction, n_features for a multiple of the identity, and 0
        for a zero matrix. Where neither all eigenvalues nor the norm are known, it is
        the largest value that the trace allows: what the known directions leave out
        is then spread evenly over the others.
        """
        if self.norm is not None:
            return participation_ratio(self.trace, self.norm)
        known = float(self.eigenvalues.norm())
        left = max(self.trace - float(self.eigenvalues.sum()), 0.0)
        n_others = max(self.directions.shape[1] - len(self.eigenvalues), 1)
        return participation_ratio(self.trace, math.hypot(known, left / n_others**0.5))

    def n_separated(self, *, floor: float = 1e-3, most: int = 10) -> int:
        """Number of leading directions before the widest relative gap.

        Parameters
        ----------
        floor : float, default=1e-3
            Eigenvalues below this share of the largest are not considered.
        most : int, default=10
            Upper limit.

        Returns
        -------
        int
            At least 1.
        """
        values = self.eigenvalues[: most + 1]
        if len(values) < 2 or values[0] <= 0:
            return 1
        lower = values[1:].clamp(min=float(values[0]) * floor)
        eligible = values[:-1] >= values[0] * floor
        ratios = torch.where(eligible, values[:-1] / lower, torch.zeros_like(lower))
        return int(ratios.argmax()) + 1

    def truncated(self, n_components: int) -> Spectrum:
        """The leading directions; trace and norm stay those of the whole matrix.

        Parameters
        ----------
        n_components : int

        Returns
        -------
        Spectrum
        """
        return replace(
            self,
            eigenvalues=self.eigenvalues[:n_components],
            directions=self.directions[:n_components],
        )

    def embedded(self, basis: torch.Tensor) -> Spectrum:
        """The spectrum in a larger space, of Q G Qᵀ.

        Parameters
        ----------
        basis : Tensor of shape (d, n_features)
            Q, with orthonormal columns.

        Returns
        -------
        Spectrum
        """
        directions = self.directions.to(basis) @ basis.T
        return replace(self, directions=fix_signs(directions))

    def project(self, X: torch.Tensor) -> torch.Tensor:
        """Coordinates of points along the directions.

        Parameters
        ----------
        X : Tensor of shape (n_samples, n_features)

        Returns
        -------
        Tensor of shape (n_samples, k)
        """
        return X @ self.directions.T

    def lift(self, coordinates: torch.Tensor) -> torch.Tensor:
        """Back from coordinates to feature space; inverse of :meth:`project` on it.

        Parameters
        ----------
        coordinates : Tensor of shape (n_samples, k)

        Returns
        -------
        Tensor of shape (n_samples, n_features)
        """
        return coordinates @ self.directions


def participation_ratio(trace: float, norm: float) -> float:
    """(Σλ)² / Σλ² from the trace and the Frobenius norm of a matrix."""
    return (trace / norm) ** 2 if norm > 0 else 0.0


def fix_signs(directions: torch.Tensor) -> torch.Tensor:
    """Make the first entry of (nearly) largest magnitude of each row positive.

    Parameters
    ----------
    directions : Tensor of shape (k, n_features)

    Returns
    -------
    Tensor of shape (k, n_features)
    """
    if not directions.numel():
        return directions
    blocks = directions.split(_SIGN_ROWS)  # beside long directions, little memory
    return directions * torch.cat([_signs(block) for block in blocks])


def _signs(directions: torch.Tensor) -> torch.Tensor:
    magnitude = directions.abs()
    near_largest = magnitude >= magnitude.amax(1, keepdim=True) * (1 - 1e-6)
    position = near_largest.to(torch.uint8).argmax(1, keepdim=True)
    signs = directions.gather(1, position).sign()
    return torch.where(signs == 0, torch.ones_like(signs), signs)


def subspace_overlap(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Squared cosines of the principal angles between two subspaces.

    Parameters
    ----------
    first : Tensor of shape (k, n_features)
        Rows that span the first subspace, of whatever length and angles.
    second : Tensor of shape (m, n_features)
        Rows that span the second one.

    Returns
    -------
    Tensor of shape (min(k, m),)
        Descending, in [0, 1]; k and m without the rows that depend linearly on
        others. Their mean is 1 if one subspace contains the other, and
        max(k, m) / n_features on average for random subspaces.

    Raises
    ------
    ValueError
        If the two live in spaces of different width.

    Examples
    --------
    >>> import torch
    >>> from agop import subspace_overlap
    >>> subspace_overlap(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 1.0]]))
    tensor([0.5000])
    """
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1]:
        raise ValueError(
            "Two sets of directions of shapes (k, n_features) and (m, n_features) "
            f"are needed; got {tuple(first.shape)} and {tuple(second.shape)}."
        )
    cosines = torch.linalg.svdvals(_row_basis(first) @ _row_basis(second).T)
    return cosines.square().clamp(max=1)


def _row_basis(rows: torch.Tensor) -> torch.Tensor:
    """Orthonormal rows with the same span, of shape (rank, n_features)."""
    lengths = rows.norm(dim=1, keepdim=True)
    rows = rows / torch.where(lengths == 0, torch.ones_like(lengths), lengths)
    _, singular, basis = torch.linalg.svd(rows, full_matrices=False)
    floor = singular[:1] * max(rows.shape) * torch.finfo(rows.dtype).eps
    return basis[singular > floor]

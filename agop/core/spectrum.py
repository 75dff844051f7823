"""Eigenvalues and directions of a positive semi-definite matrix, and subspaces."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from agop.core.linalg import eigh_descending


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

    @classmethod
    def of_matrix(cls, matrix: torch.Tensor) -> Spectrum:
        """Spectrum of a symmetric matrix.

        Parameters
        ----------
        matrix : Tensor of shape (n_features, n_features)

        Returns
        -------
        Spectrum
        """
        values, vectors = eigh_descending(matrix)
        return cls(
            values.clamp(min=0), _fix_signs(vectors.T), float(matrix.diagonal().sum())
        )

    @classmethod
    def of_factor(cls, factor: torch.Tensor) -> Spectrum:
        """Spectrum of F Fᵀ, of rank r, without forming it when r < n_features.

        Parameters
        ----------
        factor : Tensor of shape (n_features, r)

        Returns
        -------
        Spectrum
            With min(r, n_features) directions.
        """
        if factor.shape[1] >= factor.shape[0]:
            return cls.of_matrix(factor @ factor.T)
        vectors, singular, _ = torch.linalg.svd(factor, full_matrices=False)
        vectors = vectors.masked_fill((factor == 0).all(1)[:, None], 0)  # exactly
        values = singular.square()
        return cls(values, _fix_signs(vectors.T), float(values.sum()))

    @classmethod
    def of_diagonal(cls, diagonal: torch.Tensor) -> Spectrum:
        """Spectrum of a diagonal matrix: the axes, by size.

        Parameters
        ----------
        diagonal : Tensor of shape (n_features,)

        Returns
        -------
        Spectrum
        """
        values, order = diagonal.sort(descending=True, stable=True)
        axes = torch.zeros(
            len(diagonal), len(diagonal), dtype=diagonal.dtype, device=diagonal.device
        )
        axes[torch.arange(len(order), device=order.device), order] = 1
        return cls(values, axes, float(diagonal.sum()))

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
        for a zero matrix.
        """
        return participation_ratio(self.trace, float(self.eigenvalues.norm()))

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
        """The leading directions; the trace stays that of the whole matrix.

        Parameters
        ----------
        n_components : int

        Returns
        -------
        Spectrum
        """
        return Spectrum(
            self.eigenvalues[:n_components], self.directions[:n_components], self.trace
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
        directions = self.directions @ basis.T
        return Spectrum(self.eigenvalues, _fix_signs(directions), self.trace)

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


def _fix_signs(directions: torch.Tensor) -> torch.Tensor:
    """Make the first entry of (nearly) largest magnitude of each row positive."""
    if not directions.numel():
        return directions
    magnitude = directions.abs()
    near_largest = magnitude >= magnitude.amax(1, keepdim=True) * (1 - 1e-6)
    position = near_largest.to(torch.uint8).argmax(1, keepdim=True)
    signs = directions.gather(1, position).sign()
    return directions * torch.where(signs == 0, torch.ones_like(signs), signs)


def subspace_overlap(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Squared cosines of the principal angles between two subspaces.

    Parameters
    ----------
    first : Tensor of shape (k, n_features)
        Rows that span the first subspace; they need not be orthogonal.
    second : Tensor of shape (m, n_features)
        Rows that span the second one.

    Returns
    -------
    Tensor of shape (min(k, m),)
        Descending, in [0, 1]. Their mean is 1 if one subspace contains the other,
        and max(k, m) / n_features on average for random subspaces.

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
    bases = [torch.linalg.qr(rows.T).Q for rows in (first, second)]  # (d, k), (d, m)
    cosines = torch.linalg.svdvals(bases[0].T @ bases[1])
    return cosines.square().clamp(max=1)

"""How much eigenvalues, directions and importances depend on the sample: bootstrap."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from agop.core.arrays import check_number, plain_arithmetic
from agop.core.outer_product import checked_jacobian
from agop.core.spectrum import Spectrum

#: Numbers per sample block that one temporary array may have.
_BLOCK_NUMBERS = 2**21

#: Two equal eigenvalues differ in a sample, by a distance with a Rayleigh distribution:
#: in 5 % of samples it exceeds this many of its bootstrap standard errors.
_DISTINCT = 2.5


@dataclass(frozen=True)
class Bootstrap:
    """A spectrum, and what resamples of the data make of it.

    Parameters
    ----------
    spectrum : Spectrum
        Of all samples, with k directions.
    eigenvalues : Tensor of shape (n_resamples, k)
        Of each resample, descending.
    importances : Tensor of shape (n_resamples, n_features)
        Diagonal of G over its trace, of each resample.
    squared_cosines : Tensor of shape (n_resamples, k, k)
        Between direction i of the spectrum and direction j of each resample.

    Examples
    --------
    >>> import torch
    >>> from agop.core import BootstrapOuterProduct, Spectrum
    >>> from agop.core import average_gradient_outer_product
    >>> generator = torch.Generator().manual_seed(0)
    >>> scale = torch.tensor([2.0, 1.0, 1.0])
    >>> jacobian = scale * torch.randn(500, 1, 3, generator=generator)
    >>> G = average_gradient_outer_product(jacobian)
    >>> product = BootstrapOuterProduct(3, 100, generator=generator).update(jacobian)
    >>> bootstrap = product.value(Spectrum.of_matrix(G))
    >>> low, high = bootstrap.eigenvalue_intervals()
    >>> bool(low[0] < 4 < high[0])
    True
    >>> bootstrap.groups
    [(0,), (1, 2)]
    """

    spectrum: Spectrum
    eigenvalues: torch.Tensor
    importances: torch.Tensor
    squared_cosines: torch.Tensor

    @property
    def standard_errors(self) -> torch.Tensor:
        """Standard error of each eigenvalue, of shape (k,)."""
        return self.eigenvalues.std(0)

    def eigenvalue_intervals(self, level: float = 0.95) -> torch.Tensor:
        """Percentile intervals of the eigenvalues.

        Parameters
        ----------
        level : float, default=0.95

        Returns
        -------
        Tensor of shape (2, k)
            Lower and upper ends.
        """
        return _central(self.eigenvalues, level)

    def importance_intervals(self, level: float = 0.95) -> torch.Tensor:
        """Percentile intervals of the importances.

        Parameters
        ----------
        level : float, default=0.95

        Returns
        -------
        Tensor of shape (2, n_features)
            Lower and upper ends, in shares of the trace.
        """
        return _central(self.importances, level)

    @property
    def stability(self) -> torch.Tensor:
        """Mean squared cosine of each direction with that of a resample, (k,).

        It is 1 for a direction that every sample gives, and small where an eigenvalue
        has a near neighbour: then look at the groups.
        """
        return self.squared_cosines.diagonal(dim1=1, dim2=2).mean(0)

    @property
    def groups(self) -> list[tuple[int, ...]]:
        """Indices of eigenvalues that the sample cannot tell apart.

        Neighbours are in one group unless they are further apart than 2.5 bootstrap
        standard errors of their distance. Of a group the span has a meaning, and not
        the single directions in it. Whether the last eigenvalue is close to those
        that were left out is not examined.
        """
        groups: list[tuple[int, ...]] = []
        for index in range(len(self.spectrum.eigenvalues)):
            if index and not self._told_apart(index - 1, index):
                groups[-1] += (index,)
            else:
                groups.append((index,))
        return groups

    def _told_apart(self, first: int, second: int) -> bool:
        gap = self.spectrum.eigenvalues[first] - self.spectrum.eigenvalues[second]
        gaps = self.eigenvalues[:, first] - self.eigenvalues[:, second]
        return bool(gap > _DISTINCT * gaps.std())

    @property
    def group_stability(self) -> torch.Tensor:
        """Mean overlap of each group's subspace with that of a resample.

        Returns
        -------
        Tensor of shape (n_groups,)
            Mean squared cosine of the principal angles, 1 if the span never changes.
        """
        blocks = [
            self.squared_cosines[:, group[0] : group[-1] + 1, group[0] : group[-1] + 1]
            for group in self.groups
        ]
        means = [float(block.sum(2).mean()) for block in blocks]
        return self.squared_cosines.new_tensor(means)


class BootstrapOuterProduct:
    """Outer products of many resamples, in one pass over the data.

    Every sample counts Poisson(1) times in every resample, which for more than a few
    samples is as good as drawing n of n with replacement, and needs no n [1]_. Memory
    does not depend on the number of samples. What is drawn is a sample with all of its
    outputs: where gradients at several positions belong to one sample, hand them over
    as outputs.

    Parameters
    ----------
    n_features : int
        Number of inputs d.
    n_resamples : int
        Number of resamples B.
    basis : Tensor of shape (n_features, r), optional
        Orthonormal columns Q. Of each resample QᵀGQ and the diagonal of G are kept:
        B (r² + d) numbers. Directions turn within the span of Q only, so that it should
        hold more than those that matter. All axes by default.
    center : bool, default=False
        Subtract the weighted mean Jacobian of each output, of each resample its own.
        B n_outputs d more numbers are kept.
    generator : torch.Generator
        A generator on the CPU, from which the counts are drawn.

    References
    ----------
    .. [1] Chamandy, Muralidharan, Najmi and Naidu, "Estimating uncertainty for massive
       data streams", Google technical report, 2012.
    .. [2] Constantine, "Active Subspaces", SIAM, 2015, section 3.3: the bootstrap of
       eigenvalues and subspaces of an outer product of gradients.

    Examples
    --------
    See :class:`Bootstrap`.
    """

    def __init__(
        self,
        n_features: int,
        n_resamples: int,
        *,
        basis: torch.Tensor | None = None,
        center: bool = False,
        generator: torch.Generator,
    ) -> None:
        self.n_features = n_features
        self.n_resamples = n_resamples
        self.basis = basis
        self.center = center
        self.generator = generator
        self._sums: _Sums | None = None

    @plain_arithmetic
    def update(
        self, jacobian: torch.Tensor, sample_weight: torch.Tensor | None = None
    ) -> BootstrapOuterProduct:
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
        jacobian = checked_jacobian(jacobian, self.n_features)
        if not jacobian.numel():
            return self
        if self._sums is None:
            self._sums = _Sums(self.n_resamples, jacobian, self.basis, self.center)
        size = max(1, _BLOCK_NUMBERS // (self._sums.rank**2 + jacobian[0].numel()))
        for start in range(0, len(jacobian), size):
            block = slice(start, start + size)
            counts = self._draw(jacobian[block])
            if sample_weight is not None:
                counts = counts * sample_weight[block, None].to(counts)
            self._sums.add(jacobian[block], counts)
        return self

    def value(self, spectrum: Spectrum) -> Bootstrap:
        """What the resamples make of a spectrum.

        Parameters
        ----------
        spectrum : Spectrum
            Of all samples, with no more directions than the basis.

        Returns
        -------
        Bootstrap

        Raises
        ------
        ValueError
            If fewer than two resamples hold any sample.
        """
        if self._sums is None or int((self._sums.weight > 0).sum()) < 2:
            raise ValueError(
                "There is nothing to resample: call update with several samples of "
                "positive weight first."
            )
        products, diagonals = self._sums.averages()
        values, vectors = torch.linalg.eigh(products)
        k = len(spectrum.eigenvalues)
        directions = spectrum.directions.to(products)
        if self.basis is not None:
            directions = directions @ self.basis.to(products)  # (k, r)
        cosines = directions @ vectors.flip(2)[:, :, :k]  # (B, k, k)
        traces = diagonals.sum(1, keepdim=True)
        tiny = torch.finfo(traces.dtype).tiny
        return Bootstrap(
            spectrum,
            values.flip(1)[:, :k].clamp(min=0),
            diagonals / traces.clamp(min=tiny),
            cosines.square(),
        )

    def _draw(self, jacobian: torch.Tensor) -> torch.Tensor:
        """How often each resample holds each sample, (n_samples, n_resamples)."""
        mean = torch.ones(
            len(jacobian), self.n_resamples, dtype=torch.float64, device="cpu"
        )
        return torch.poisson(mean, generator=self.generator).to(jacobian.device)


class _Sums:
    """Weighted sums over samples, one for every resample.

    Parameters
    ----------
    n_resamples : int
        Number of resamples B.
    jacobian : Tensor of shape (n_samples, n_outputs, n_features)
        The first batch; it is not added.
    basis : Tensor of shape (n_features, r) or None
    center : bool
    """

    def __init__(
        self,
        n_resamples: int,
        jacobian: torch.Tensor,
        basis: torch.Tensor | None,
        center: bool,
    ) -> None:
        _, n_outputs, n_features = jacobian.shape
        zeros = partial(jacobian.new_zeros, dtype=torch.float64)
        self.basis = basis
        self.rank = n_features if basis is None else basis.shape[1]
        self.weight = zeros(n_resamples)
        self.products = zeros(n_resamples, self.rank, self.rank)
        self.squares = zeros(n_resamples, n_features)
        self.origin: torch.Tensor | None = None  # near the mean, to keep digits
        if center:
            self.origin = jacobian.mean(0)
            self.moments = zeros(n_resamples, n_outputs, n_features)

    def add(self, jacobian: torch.Tensor, counts: torch.Tensor) -> None:
        """Add samples, as often as `counts` (n_samples, n_resamples) says."""
        if self.origin is not None:
            if jacobian.shape[1:] != self.origin.shape:
                raise ValueError(
                    "A centred bootstrap needs the same number of outputs in every "
                    f"batch; got {jacobian.shape[1]} after {len(self.origin)}."
                )
            jacobian = jacobian - self.origin
            self.moments += torch.tensordot(counts.T, jacobian.double(), 1)
        projected = self._projected(jacobian).double()
        products = projected.mT @ projected  # (n_samples, r, r)
        squares = jacobian.square().sum(1).double()  # (n_samples, n_features)
        self.weight += counts.sum(0)
        self.products += torch.tensordot(counts.T, products, 1)
        self.squares += counts.T @ squares

    def averages(self) -> tuple[torch.Tensor, torch.Tensor]:
        """QᵀGQ and the diagonal of G, of each resample that holds any sample."""
        drawn = self.weight > 0
        weight = self.weight[drawn]
        products = self.products[drawn] / weight[:, None, None]
        squares = self.squares[drawn] / weight[:, None]
        if self.origin is not None:
            mean = self.moments[drawn] / weight[:, None, None]  # (B, c, d)
            projected = self._projected(mean)
            products -= projected.mT @ projected
            squares -= mean.square().sum(1)
        return products, squares.clamp(min=0)

    def _projected(self, jacobian: torch.Tensor) -> torch.Tensor:
        return jacobian if self.basis is None else jacobian @ self.basis.to(jacobian)


def _central(values: torch.Tensor, level: float) -> torch.Tensor:
    """The central share `level` of each column, as (2, n_columns)."""
    check_number("level", level, owner="Bootstrap", low=0.0, high=1.0, open_low=True)
    ends = [(1 - level) / 2, (1 + level) / 2]
    return torch.from_numpy(np.quantile(values.numpy(force=True), ends, axis=0))

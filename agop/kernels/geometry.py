"""What a kernel measures between two points, and how its gradient contracts.

A kernel is a scalar function of one measurement, taken in the coordinates of a
metric (see :mod:`agop.kernels.metric`). There are four measurements, each with its
own gradient, written once:

=====================  =====================================  ======================
class                  measurement s(x, z)                    examples
=====================  =====================================  ======================
RadialKernel           ‖x − z‖²                               Laplace, Gaussian
InnerProductKernel     xᵀz                                    polynomial
CosineKernel           ‖x/‖x‖ − z/‖z‖‖², times ‖x‖‖z‖         neural tangent
PowerDistanceKernel    Σⱼ |xⱼ − zⱼ|ᵖ                          product Laplace
=====================  =====================================  ======================

A new kernel is a subclass of one of them with two methods, ``value(s)`` and
``slope(s)``. Slopes are infinite at s = 0 for kernels with a kink (Laplace); the
term of a coincident pair is then left out, as in the published algorithm.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch

#: Pairs closer than this share of their norms are measured by differences.
_CANCELLATION = {torch.float32: 1e-3, torch.float64: 1e-6}
#: Pairs closer than this many eps of their norms coincide: a row that a metric maps
#: alone, or at another place of a batch, differs from itself by that much.
_ROUNDING = 32


class Kernel(ABC):
    """A similarity k(x, z) of two points, given by their coordinates.

    Attributes
    ----------
    translation_invariant : bool
        k(x + t, z + t) = k(x, z): data may be centred.
    rotation_invariant : bool
        k(Qx, Qz) = k(x, z): a full metric is meaningful.
    """

    translation_invariant: ClassVar[bool]
    rotation_invariant: ClassVar[bool] = True

    @abstractmethod
    def matrix(self, X: torch.Tensor, Z: torch.Tensor) -> torch.Tensor:
        """All similarities.

        Parameters
        ----------
        X : Tensor of shape (n, r)
        Z : Tensor of shape (m, r)

        Returns
        -------
        Tensor of shape (n, m)
        """

    @abstractmethod
    def diagonal(self, X: torch.Tensor) -> torch.Tensor:
        """k(x, x) for every row, shape (n,)."""

    def distances(self, X: torch.Tensor, Z: torch.Tensor) -> torch.Tensor:
        """Distances in whose units the bandwidth is, shape (n, m)."""
        return squared_distances(X, Z).sqrt_()

    @abstractmethod
    def contraction(
        self, X: torch.Tensor, Z: torch.Tensor, coef: torch.Tensor
    ) -> torch.Tensor:
        """Gradients Σⱼ coef_jl ∂k(x, zⱼ)/∂x of every output at every row of X.

        Parameters
        ----------
        X : Tensor of shape (n, r)
        Z : Tensor of shape (m, r)
        coef : Tensor of shape (m, c)

        Returns
        -------
        Tensor of shape (n, c, r)
        """


def squared_distances(X: torch.Tensor, Z: torch.Tensor) -> torch.Tensor:
    """‖x − z‖² for all pairs, shape (n, m), accurate for close pairs too.

    One matrix product does the bulk. Where ‖x‖² + ‖z‖² − 2xᵀz cancels, the pair is
    measured again by its difference: rows equal up to rounding are exactly 0 apart.
    """
    x_norms, z_norms = X.square().sum(1), Z.square().sum(1)
    ones_x, ones_z = torch.ones_like(x_norms), torch.ones_like(z_norms)
    left = torch.cat([-2 * X, x_norms[:, None], ones_x[:, None]], dim=1)
    right = torch.cat([Z, ones_z[:, None], z_norms[:, None]], dim=1)
    s = left @ right.T  # (n, m)
    if s.numel():
        _measure_close_pairs(s, X, Z, x_norms, z_norms)
    return s


def _measure_close_pairs(
    s: torch.Tensor,
    X: torch.Tensor,
    Z: torch.Tensor,
    x_norms: torch.Tensor,
    z_norms: torch.Tensor,
) -> None:
    """Replace what cancelled, and nothing else; a negative distance cancelled too."""
    bound = _CANCELLATION[s.dtype]
    largest = bound * (x_norms.max() + z_norms.max())
    if bool(s.min() > largest):
        return
    s.clamp_(min=0)
    rows, columns = (s <= largest).nonzero(as_tuple=True)
    close = s[rows, columns] <= bound * (x_norms[rows] + z_norms[columns])
    pairs_at_once = max(1, 2**22 // max(1, X.shape[1]))
    for i, j in zip(
        rows[close].split(pairs_at_once),
        columns[close].split(pairs_at_once),
        strict=True,
    ):
        exact = (X[i] - Z[j]).square().sum(1)
        floor = (_ROUNDING * torch.finfo(s.dtype).eps) ** 2 * (x_norms[i] + z_norms[j])
        s[i, j] = exact.masked_fill_(exact <= floor, 0)


def contract_columns(coef: torch.Tensor, Z: torch.Tensor) -> torch.Tensor:
    """[C | C₁∘Z | … | C_c∘Z], shape (m, c (r + 1)): one product serves all."""
    products = coef[:, :, None] * Z[:, None, :]  # (m, c, r)
    return torch.cat([coef, products.reshape(len(Z), -1)], dim=1)


class RadialKernel(Kernel):
    """k(x, z) = φ(s) of the squared distance s = ‖x − z‖².

    Subclasses write ``value(s)`` and ``slope(s)`` = φ′(s), and may write
    ``slope_of_value(k)`` if the slope is known in closed form from the value: then
    gradients at the training points need no second pass over distances.

    Examples
    --------
    >>> import torch
    >>> from agop.kernels import RadialKernel
    >>> class RationalQuadratic(RadialKernel):
    ...     def value(self, s):
    ...         return 1 / (1 + s)
    ...     def slope(self, s):
    ...         return -1 / (1 + s) ** 2
    >>> RationalQuadratic().matrix(torch.tensor([[0.0]]), torch.tensor([[1.0]]))
    tensor([[0.5000]])
    """

    translation_invariant: ClassVar[bool] = True

    @abstractmethod
    def value(self, s: torch.Tensor) -> torch.Tensor:
        """φ(s) for s ≥ 0."""

    @abstractmethod
    def slope(self, s: torch.Tensor) -> torch.Tensor:
        """φ′(s) for s ≥ 0; it may be infinite or NaN at 0."""

    def value_(self, s: torch.Tensor) -> torch.Tensor:
        """φ(s), in the memory of s where a kernel knows how: fresh memory is slow."""
        return self.value(s)

    def slope_of_value(self, k: torch.Tensor) -> torch.Tensor | None:
        """φ′ where φ takes the value k; None if there is no closed form."""
        return None

    def matrix(self, X: torch.Tensor, Z: torch.Tensor) -> torch.Tensor:
        """All similarities, shape (n, m)."""
        return self.value_(squared_distances(X, Z))

    def diagonal(self, X: torch.Tensor) -> torch.Tensor:
        """φ(0), shape (n,)."""
        return self.value(torch.zeros_like(X[:, 0]))

    def contraction(
        self, X: torch.Tensor, Z: torch.Tensor, coef: torch.Tensor
    ) -> torch.Tensor:
        """2 (x Σⱼ wⱼ − Σⱼ wⱼ zⱼ) with wⱼ = coef_jl φ′(s_j), shape (n, c, r)."""
        s = squared_distances(X, Z)
        slopes = self.slope(s).masked_fill_(s == 0, 0)
        return self.contract_slopes(slopes, X, contract_columns(coef, Z))

    @staticmethod
    def contract_slopes(
        slopes: torch.Tensor, X: torch.Tensor, columns: torch.Tensor
    ) -> torch.Tensor:
        """The same from slopes (n, m) and columns [C | C₁∘Z | …] (m, c (r + 1))."""
        sums = slopes @ columns  # (n, c (r + 1))
        return radial_gradient(sums, X)


def radial_gradient(sums: torch.Tensor, X: torch.Tensor) -> torch.Tensor:
    """2 (x Σ w − Σ w z) from the sums [Σ w | Σ w z] of every output, (n, c, r)."""
    n, r = X.shape
    c = sums.shape[1] // (r + 1)
    first = X[:, None, :] * sums[:, :c, None]  # (n, c, r)
    return 2 * (first - sums[:, c:].reshape(n, c, r))


class InnerProductKernel(Kernel):
    """k(x, z) = φ(s) of the inner product s = xᵀz.

    Subclasses write ``value(s)`` and ``slope(s)`` = φ′(s).
    """

    translation_invariant: ClassVar[bool] = False

    @abstractmethod
    def value(self, s: torch.Tensor) -> torch.Tensor:
        """φ(s)."""

    @abstractmethod
    def slope(self, s: torch.Tensor) -> torch.Tensor:
        """φ′(s)."""

    def matrix(self, X: torch.Tensor, Z: torch.Tensor) -> torch.Tensor:
        """All similarities, shape (n, m)."""
        return self.value(X @ Z.T)

    def diagonal(self, X: torch.Tensor) -> torch.Tensor:
        """φ(‖x‖²), shape (n,)."""
        return self.value(X.square().sum(1))

    def contraction(
        self, X: torch.Tensor, Z: torch.Tensor, coef: torch.Tensor
    ) -> torch.Tensor:
        """Σⱼ coef_jl φ′(xᵀzⱼ) zⱼ, shape (n, c, r)."""
        products = coef[:, :, None] * Z[:, None, :]  # (m, c, r)
        sums = self.slope(X @ Z.T) @ products.reshape(len(Z), -1)
        return sums.reshape(len(X), coef.shape[1], X.shape[1])


class CosineKernel(Kernel):
    """k(x, z) = ‖x‖‖z‖ φ(s), s = ‖x/‖x‖ − z/‖z‖‖² = 2 − 2 cos(x, z).

    Subclasses write ``value(s)`` = φ and ``slope(s)`` = dφ/d cos, as functions of
    the chord s, which keeps its digits for nearly parallel points.
    """

    translation_invariant: ClassVar[bool] = False

    @abstractmethod
    def value(self, s: torch.Tensor) -> torch.Tensor:
        """φ as a function of the chord."""

    @abstractmethod
    def slope(self, s: torch.Tensor) -> torch.Tensor:
        """The derivative of φ with respect to the cosine, at the chord s."""

    def matrix(self, X: torch.Tensor, Z: torch.Tensor) -> torch.Tensor:
        """All similarities, shape (n, m)."""
        (x_norms, x_units), (z_norms, z_units) = _polar(X), _polar(Z)
        values = self.value(squared_distances(x_units, z_units))
        return x_norms * values * z_norms.T

    def diagonal(self, X: torch.Tensor) -> torch.Tensor:
        """‖x‖² φ(0), shape (n,)."""
        squares = X.square().sum(1)
        return squares * self.value(torch.zeros_like(squares))

    def contraction(
        self, X: torch.Tensor, Z: torch.Tensor, coef: torch.Tensor
    ) -> torch.Tensor:
        """Σⱼ coef_jl (φ′ zⱼ + ‖zⱼ‖ (φ − cos φ′) x/‖x‖), shape (n, c, r)."""
        (x_norms, x_units), (z_norms, z_units) = _polar(X), _polar(Z)
        s = squared_distances(x_units, z_units)
        slopes = self.slope(s).masked_fill_(x_norms == 0, 0)  # the tip of a cone
        products = coef[:, :, None] * Z[:, None, :]  # (m, c, r)
        along_z = (slopes @ products.reshape(len(Z), -1)).reshape(
            len(X), coef.shape[1], X.shape[1]
        )
        radial = (self.value(s) - (1 - s / 2) * slopes) @ (coef * z_norms)  # (n, c)
        return along_z + radial[:, :, None] * x_units[:, None, :]


def _polar(X: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Norms (n, 1) and unit vectors (n, r); the zero vector stays zero."""
    norms = torch.linalg.vector_norm(X, dim=1, keepdim=True)
    return norms, X / torch.where(norms == 0, torch.ones_like(norms), norms)


class PowerDistanceKernel(Kernel):
    """k(x, z) = φ(s) of the power distance s = ‖x − z‖ₚᵖ, the sum of p-th powers.

    It knows the axes: rotating the data changes it, so that only a diagonal metric
    has a meaning. Subclasses have a field ``p`` and write ``value(s)`` and
    ``slope(s)`` = φ′(s).
    """

    translation_invariant: ClassVar[bool] = True
    rotation_invariant: ClassVar[bool] = False
    p: float

    @abstractmethod
    def value(self, s: torch.Tensor) -> torch.Tensor:
        """φ(s)."""

    @abstractmethod
    def slope(self, s: torch.Tensor) -> torch.Tensor:
        """φ′(s)."""

    def value_(self, s: torch.Tensor) -> torch.Tensor:
        """φ(s), in the memory of s where a kernel knows how: fresh memory is slow."""
        return self.value(s)

    def power_distances(self, X: torch.Tensor, Z: torch.Tensor) -> torch.Tensor:
        """‖x − z‖ₚᵖ for all pairs, shape (n, m)."""
        if self.p == 2.0:
            return squared_distances(X, Z)
        binary = _TwoValued(X, Z)
        s = binary.power_distances(self.p)
        X, Z = X[:, binary.others], Z[:, binary.others]
        if X.shape[1]:
            distances = torch.cdist(X.contiguous(), Z.contiguous(), p=self.p)
            s += distances if self.p == 1.0 else distances.pow_(self.p)
        return s

    def distances(self, X: torch.Tensor, Z: torch.Tensor) -> torch.Tensor:
        """‖x − z‖ₚ for all pairs, shape (n, m)."""
        return self.power_distances(X, Z).pow_(1 / self.p)

    def matrix(self, X: torch.Tensor, Z: torch.Tensor) -> torch.Tensor:
        """All similarities, shape (n, m)."""
        return self.value_(self.power_distances(X, Z))

    def diagonal(self, X: torch.Tensor) -> torch.Tensor:
        """φ(0), shape (n,)."""
        return self.value(torch.zeros_like(X[:, 0]))

    def contraction(
        self, X: torch.Tensor, Z: torch.Tensor, coef: torch.Tensor
    ) -> torch.Tensor:
        """Σⱼ coef_jl φ′ ∂s/∂x with s = ‖x − zⱼ‖ₚᵖ, shape (n, c, r)."""
        s = self.power_distances(X, Z)
        slopes = self.slope(s).masked_fill_(s == 0, 0).mul_(self.p)  # (n, m)
        binary = _TwoValued(X, Z)
        gradients = X.new_empty(len(X), coef.shape[1], X.shape[1])
        gradients[:, :, binary.columns] = binary.contraction(slopes, coef, self.p)
        columns = Z.T.contiguous()
        delta = torch.empty_like(slopes)  # one buffer: fresh memory costs most here
        for feature in binary.others:
            torch.sub(X[:, feature, None], columns[feature], out=delta)
            gradients[:, :, feature] = self._derivative(delta).mul_(slopes) @ coef
        return gradients

    def _derivative(self, delta: torch.Tensor) -> torch.Tensor:
        """|δ|ᵖ⁻¹ sign δ; 0 at δ = 0."""
        if self.p == 1.0:
            return delta.sign_()
        signs = delta.sign()
        powers = delta.abs_().pow_(self.p - 1)
        return powers.masked_fill_(signs == 0, 0).mul_(signs)


class _TwoValued:
    """The columns in which X and Z have two values only, as one-hot codes have.

    There |x − z|ᵖ is gap^p times the squared difference of two indicators, so that
    matrix products do for distances and gradients what else is done feature by
    feature.
    """

    def __init__(self, X: torch.Tensor, Z: torch.Tensor) -> None:
        low, high = Z.amin(0), Z.amax(0)
        two = torch.ones_like(low, dtype=torch.bool)
        for points in (X, Z):
            two &= ((points == low) | (points == high)).all(0)
        self.columns = two.nonzero()[:, 0]
        self.others = (~two).nonzero()[:, 0].tolist()
        self.gaps = (high - low)[two]
        self.X = (X[:, two] == high[two]).to(X.dtype)
        self.Z = (Z[:, two] == high[two]).to(Z.dtype)

    def power_distances(self, p: float) -> torch.Tensor:
        """Their part of Σⱼ |xⱼ − zⱼ|ᵖ, shape (n, m)."""
        scales = self.gaps ** (p / 2)
        return squared_distances(self.X * scales, self.Z * scales)

    def contraction(
        self, slopes: torch.Tensor, coef: torch.Tensor, p: float
    ) -> torch.Tensor:
        """Σⱼ coef_jl slopes |δ|ᵖ⁻¹ sign δ, shape (n, c, number of columns)."""
        sums = slopes @ contract_columns(coef, self.Z)
        powers = torch.where(self.gaps > 0, self.gaps, 1) ** (p - 1)
        return radial_gradient(sums, self.X).mul_(powers / 2)

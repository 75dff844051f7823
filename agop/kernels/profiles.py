"""The kernels, as scalar functions.

Distances are in units of the bandwidth L, by which the machine divides the data, so
no profile has a length scale of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from agop.kernels.geometry import (
    CosineKernel,
    InnerProductKernel,
    PowerDistanceKernel,
    RadialKernel,
)


@dataclass(frozen=True)
class Laplace(RadialKernel):
    """The ℓ2 Laplace kernel exp(−‖x − z‖).

    It is the Matérn kernel with ν = ½, the kernel of the RFM paper (Radhakrishnan et
    al., Science 383:1461, 2024).

    Warnings
    --------
    ``sklearn.metrics.pairwise.laplacian_kernel`` uses the ℓ1 distance: that one is
    :class:`ProductLaplace` here.
    """

    def value(self, s: torch.Tensor) -> torch.Tensor:
        """exp(−√s)."""
        return self.value_(s.clone())

    def value_(self, s: torch.Tensor) -> torch.Tensor:
        """exp(−√s), in the memory of s."""
        return s.sqrt_().neg_().exp_()

    def slope(self, s: torch.Tensor) -> torch.Tensor:
        """−exp(−√s) / (2√s)."""
        r = s.sqrt()
        return r.neg().exp_().div_(r.mul_(-2))

    def slope_of_value(self, k: torch.Tensor) -> torch.Tensor:
        """k / (2 log k)."""
        return k.log().mul_(2).reciprocal_().mul_(k)


@dataclass(frozen=True)
class GeneralizedExponential(RadialKernel):
    """exp(−‖x − z‖^q), the Laplace kernel for q = 1, the Gaussian shape for q = 2.

    Parameters
    ----------
    exponent : float, default=1.5
        q in (0, 2]; outside, the kernel is not positive semi-definite.
    """

    exponent: float = 1.5

    def __post_init__(self) -> None:
        """Check the exponent."""
        if not 0 < self.exponent <= 2:
            raise ValueError(
                "exp(-r**exponent) is a kernel for exponents in (0, 2] only; got "
                f"{self.exponent!r}."
            )

    def value(self, s: torch.Tensor) -> torch.Tensor:
        """exp(−s^(q/2))."""
        return self.value_(s.clone())

    def value_(self, s: torch.Tensor) -> torch.Tensor:
        """exp(−s^(q/2)), in the memory of s."""
        return s.pow_(self.exponent / 2).neg_().exp_()

    def slope(self, s: torch.Tensor) -> torch.Tensor:
        """−(q/2) s^(q/2 − 1) exp(−s^(q/2))."""
        half = self.exponent / 2
        return s.pow(half).neg_().exp_().mul_(s.pow(half - 1)).mul_(-half)

    def slope_of_value(self, k: torch.Tensor) -> torch.Tensor:
        """−(q/2) r^(q − 2) k with r^q = −log k."""
        powers = k.log().neg_().clamp_(min=0).pow_(1 - 2 / self.exponent)
        return powers.mul_(k).mul_(-self.exponent / 2)


@dataclass(frozen=True)
class Gaussian(RadialKernel):
    """exp(−‖x − z‖² / 2), the RBF kernel."""

    def value(self, s: torch.Tensor) -> torch.Tensor:
        """exp(−s/2)."""
        return self.value_(s.clone())

    def value_(self, s: torch.Tensor) -> torch.Tensor:
        """exp(−s/2), in the memory of s."""
        return s.mul_(-0.5).exp_()

    def slope(self, s: torch.Tensor) -> torch.Tensor:
        """−exp(−s/2) / 2."""
        return self.value(s).mul_(-0.5)

    def slope_of_value(self, k: torch.Tensor) -> torch.Tensor:
        """−k/2."""
        return k * -0.5


@dataclass(frozen=True)
class Matern32(RadialKernel):
    """The Matérn kernel with ν = 3/2: (1 + √3 r) exp(−√3 r), r = ‖x − z‖."""

    def value(self, s: torch.Tensor) -> torch.Tensor:
        """(1 + √(3s)) exp(−√(3s))."""
        t = s.mul(3).sqrt_()
        return t.neg().exp_().mul_(t + 1)

    def slope(self, s: torch.Tensor) -> torch.Tensor:
        """−(3/2) exp(−√(3s))."""
        return s.mul(3).sqrt_().neg_().exp_().mul_(-1.5)


@dataclass(frozen=True)
class Matern52(RadialKernel):
    """The Matérn kernel with ν = 5/2: (1 + √5 r + 5r²/3) exp(−√5 r)."""

    def value(self, s: torch.Tensor) -> torch.Tensor:
        """(1 + √(5s) + 5s/3) exp(−√(5s))."""
        t = s.mul(5).sqrt_()
        return t.neg().exp_().mul_(1 + t + t.square() / 3)

    def slope(self, s: torch.Tensor) -> torch.Tensor:
        """−(5/6) (1 + √(5s)) exp(−√(5s))."""
        t = s.mul(5).sqrt_()
        return t.neg().exp_().mul_(t + 1).mul_(-5 / 6)


@dataclass(frozen=True)
class ProductLaplace(PowerDistanceKernel):
    """The ℓ1 Laplace kernel exp(−‖x − z‖₁), a product over features.

    It is ``sklearn.metrics.pairwise.laplacian_kernel``. Not rotation invariant: use
    it with a diagonal metric.
    """

    p = 1.0

    def value(self, s: torch.Tensor) -> torch.Tensor:
        """exp(−s)."""
        return s.neg().exp_()

    def slope(self, s: torch.Tensor) -> torch.Tensor:
        """−exp(−s)."""
        return s.neg().exp_().neg_()


@dataclass(frozen=True)
class LpExponential(PowerDistanceKernel):
    """exp(−‖x − z‖ₚ^q), the kernel "ℓp^q" of xRFM (arXiv:2508.10053).

    Parameters
    ----------
    p : float, default=1.4
        Norm order in (0, 2].
    exponent : float, default=1.0
        q in (0, p]; outside 0 < q ≤ p ≤ 2 the kernel is not positive semi-definite.
    """

    p: float = 1.4
    exponent: float = 1.0

    def __post_init__(self) -> None:
        """Check p and the exponent."""
        if not 0 < self.exponent <= self.p <= 2:
            raise ValueError(
                "exp(-norm_p(r)**exponent) is a kernel for 0 < exponent <= p <= 2 "
                f"only; got p={self.p!r}, exponent={self.exponent!r}."
            )

    def value(self, s: torch.Tensor) -> torch.Tensor:
        """exp(−s^(q/p))."""
        return s.pow(self.exponent / self.p).neg_().exp_()

    def slope(self, s: torch.Tensor) -> torch.Tensor:
        """−(q/p) s^(q/p − 1) exp(−s^(q/p))."""
        ratio = self.exponent / self.p
        return s.pow(ratio).neg_().exp_().mul_(s.pow(ratio - 1)).mul_(-ratio)


@dataclass(frozen=True)
class Polynomial(InnerProductKernel):
    """(xᵀz + offset)^degree; degree 2 and offset 0 is the quadratic kernel.

    The quadratic kernel is the one of "Emergence in non-neural models"
    (arXiv:2407.20199), where it groks modular arithmetic.

    Parameters
    ----------
    degree : int, default=2
    offset : float, default=0.0
        Non-negative.
    """

    degree: int = 2
    offset: float = 0.0

    def __post_init__(self) -> None:
        """Check degree and offset."""
        whole = self.degree >= 1 and self.degree == int(self.degree)
        if not (whole and 0 <= self.offset < math.inf):
            raise ValueError(
                "A polynomial kernel needs a positive integer degree and a "
                f"non-negative offset; got degree={self.degree!r}, "
                f"offset={self.offset!r}."
            )

    def value(self, s: torch.Tensor) -> torch.Tensor:
        """(s + offset)^degree."""
        return (s + self.offset) ** self.degree

    def slope(self, s: torch.Tensor) -> torch.Tensor:
        """degree (s + offset)^(degree − 1)."""
        return self.degree * (s + self.offset) ** (self.degree - 1)


@dataclass(frozen=True)
class NeuralTangent(CosineKernel):
    """Neural tangent kernel of a fully connected ReLU network without biases.

    With κ₀(u) = (π − arccos u)/π and κ₁(u) = (√(1−u²) + u (π − arccos u))/π, one
    hidden layer has k(x, z) = ‖x‖‖z‖ (κ₁(u) + u κ₀(u)), u the cosine of x and z;
    each further layer maps (Θ, u) to (Θ κ₀(u) + κ₁(u), κ₁(u)) (Jacot et al., 2018;
    Cho and Saul, 2009).

    Parameters
    ----------
    depth : int, default=1
        Number of hidden layers.
    """

    depth: int = 1

    def __post_init__(self) -> None:
        """Check the depth."""
        if self.depth < 1 or self.depth != int(self.depth):
            raise ValueError(f"depth must be a positive integer; got {self.depth!r}.")

    def value(self, s: torch.Tensor) -> torch.Tensor:
        """Θ as a function of the chord."""
        return self._layers(s)[0]

    def slope(self, s: torch.Tensor) -> torch.Tensor:
        """dΘ/du; the singular part of parallel points is left out."""
        return self._layers(s)[1]

    def _layers(self, s: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        s = s.clamp(0, 4)
        u = 1 - s / 2
        angle = 2 * torch.asin(s.sqrt() / 2)
        theta, theta_slope, u_slope = u, torch.ones_like(u), torch.ones_like(u)
        for _ in range(self.depth):
            sine = torch.sin(angle)
            kappa0 = 1 - angle / math.pi
            kappa1 = (sine + u * (math.pi - angle)) / math.pi
            parallel = sine.abs() < 32 * torch.finfo(s.dtype).eps
            singular = torch.where(parallel, 0.0, 1 / (math.pi * sine))
            theta_slope = theta_slope * kappa0 + (theta * singular + kappa0) * u_slope
            theta = theta * kappa0 + kappa1
            u_slope = kappa0 * u_slope
            u, angle = kappa1, _next_angle(angle, sine, u)
        return theta, theta_slope


def _next_angle(
    angle: torch.Tensor, sine: torch.Tensor, cosine: torch.Tensor
) -> torch.Tensor:
    """arccos κ₁ from the chord 2 − 2κ₁, which keeps its digits for small angles."""
    square = angle.square()
    series = angle * square * (1 / 3 - square / 30 + square.square() / 840)
    bend = torch.where(angle < 0.03, series, sine - angle * cosine)
    chord = 4 * torch.sin(angle / 2).square() - bend * (2 / math.pi)
    return 2 * torch.asin(chord.clamp(0, 4).sqrt() / 2)

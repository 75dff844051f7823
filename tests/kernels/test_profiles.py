"""Profiles as scalar functions: other packages, extreme distances, bad parameters."""

import itertools

import mpmath
import numpy as np
import pytest
import torch
from sklearn.gaussian_process import kernels as gaussian_process
from sklearn.metrics import pairwise

from agop.kernels import (
    KERNELS,
    Gaussian,
    GeneralizedExponential,
    Laplace,
    LpExponential,
    Matern32,
    Matern52,
    NeuralTangent,
    Polynomial,
    ProductLaplace,
)
from tests.kernels.conformance import points

DTYPES = [torch.float32, torch.float64]
RADIAL = [
    Laplace(),
    GeneralizedExponential(0.7),
    GeneralizedExponential(1.3),
    GeneralizedExponential(2.0),
    Gaussian(),
    Matern32(),
    Matern52(),
]
DISTANCE = [*RADIAL, ProductLaplace(), LpExponential(), LpExponential(0.8, 0.8)]


# What other packages call the same kernel: floats to within a few eps.
@pytest.mark.parametrize(
    ("kernel", "other"),
    [
        (ProductLaplace(), lambda X, Z: pairwise.laplacian_kernel(X, Z, gamma=1)),
        (Gaussian(), lambda X, Z: pairwise.rbf_kernel(X, Z, gamma=0.5)),
        (Laplace(), gaussian_process.Matern(nu=0.5)),
        (Matern32(), gaussian_process.Matern(nu=1.5)),
        (Matern52(), gaussian_process.Matern(nu=2.5)),
        (
            Polynomial(3, 1.0),
            lambda X, Z: pairwise.polynomial_kernel(X, Z, degree=3, gamma=1, coef0=1),
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_scikit_learn_has_the_same_kernel(kernel, other):
    X, Z = points(20), points(30, seed=1)
    np.testing.assert_allclose(
        kernel.matrix(X, Z).numpy(), other(X.numpy(), Z.numpy()), rtol=1e-12
    )


@pytest.mark.parametrize("kernel", DISTANCE, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_distances_are_finite_and_monotone(kernel, dtype):
    tiny, large = (-30, 30) if dtype == torch.float32 else (-300, 300)
    s = torch.logspace(tiny, large, 61, dtype=torch.float64).to(dtype)
    before = s.clone()
    values, slopes = kernel.value(s), kernel.slope(s)
    assert torch.equal(s, before), "the argument was changed"
    assert bool(((values >= 0) & (values <= 1)).all())
    # Each value is right to a few eps; (1 + t) exp(−t) is flat where t is small.
    assert bool((values.diff() <= 4 * torch.finfo(dtype).eps).all())
    assert not torch.isnan(slopes).any()
    assert bool((slopes <= 0).all())
    assert float(kernel.value(torch.zeros(1, dtype=dtype))) == 1
    assert float(values[-1]) == 0 == float(slopes[-1])


@pytest.mark.parametrize("kernel", DISTANCE, ids=repr)
@pytest.mark.parametrize("s", [1e-6, 0.3, 2.0, 50.0])
def test_slope_is_the_derivative_of_the_value(kernel, s):
    # Richardson's extrapolation of central differences in float64: the error is of
    # order h**4, 1e-12 with constants of a few hundred, and the rounding eps/h.
    h = 1e-3 * min(s, 1)
    grid = torch.tensor([s - h, s - h / 2, s + h / 2, s + h], dtype=torch.float64)
    k = kernel.value(grid)
    near, far = (k[2] - k[1]) / h, (k[3] - k[0]) / (2 * h)
    estimate = (4 * near - far) / 3
    slope = kernel.slope(torch.tensor([s], dtype=torch.float64))[0]
    rounding = 4 * torch.finfo(torch.float64).eps * float(k[0]) / h
    assert abs(float(estimate - slope)) <= 1e-9 * abs(float(slope)) + rounding


@pytest.mark.parametrize("kernel", RADIAL, ids=repr)
def test_slope_of_value_is_the_slope(kernel):
    s = torch.linspace(0.01, 30, 50, dtype=torch.float64)
    k = kernel.value(s)
    before = k.clone()
    slopes = kernel.slope_of_value(k)
    assert torch.equal(k, before), "the argument was changed"
    if slopes is None:
        assert isinstance(kernel, Matern32 | Matern52)
        return
    # k has one rounding; −log k ≥ 0.1**0.7... loses at most a factor 100 of it.
    torch.testing.assert_close(slopes, kernel.slope(s), rtol=1e-13, atol=0)
    underflow = kernel.slope_of_value(torch.zeros(1, dtype=torch.float64))
    assert not torch.nan_to_num(underflow, nan=0.0).any()


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize(
    ("dtype", "angle"),
    [
        *itertools.product(DTYPES, [1e-5, 1e-3, 0.029, 0.031, 1.0, 3.0]),
        (torch.float64, 1e-7),  # in float32 closer than the rounding of unit vectors
        (torch.float64, 1e-12),
    ],
)
def test_neural_tangent_of_nearly_parallel_points(angle, depth, dtype):
    chord = torch.tensor([4 * np.sin(angle / 2) ** 2], dtype=dtype)
    with mpmath.workdps(60):
        cosine = 1 - mpmath.mpf(chord.item()) / 2
        value = _tangent(depth, cosine)
        slope = mpmath.diff(lambda u: _tangent(depth, u), cosine, h=mpmath.mpf("1e-40"))
    # asin(√s/2) near π turns eps into eps/(π − angle)², a factor 50 at angle 3.
    rtol = 400 * torch.finfo(dtype).eps
    kernel = NeuralTangent(depth)
    assert kernel.value(chord).item() == pytest.approx(float(value), rel=rtol)
    assert kernel.slope(chord).item() == pytest.approx(float(slope), rel=rtol)


def _tangent(depth, cosine):
    tangent = cosine
    for _ in range(depth):
        left = mpmath.pi - mpmath.acos(cosine)
        tangent = tangent * left / mpmath.pi
        cosine = (mpmath.sqrt(1 - cosine**2) + cosine * left) / mpmath.pi
        tangent += cosine
    return tangent


@pytest.mark.parametrize(
    ("make", "parameters"),
    [
        (GeneralizedExponential, {"exponent": 0}),
        (GeneralizedExponential, {"exponent": 2.1}),
        (GeneralizedExponential, {"exponent": float("nan")}),
        (LpExponential, {"p": 1.0, "exponent": 1.4}),
        (LpExponential, {"p": 2.5, "exponent": 1.0}),
        (LpExponential, {"exponent": 0.0}),
        (Polynomial, {"degree": 0}),
        (Polynomial, {"degree": 1.5}),
        (Polynomial, {"offset": -1.0}),
        (Polynomial, {"offset": float("nan")}),
        (NeuralTangent, {"depth": 0}),
        (NeuralTangent, {"depth": 1.5}),
    ],
)
def test_parameters_outside_their_range(make, parameters):
    value = next(iter(parameters.values()))
    with pytest.raises(ValueError, match=repr(value)):
        make(**parameters)


def test_kernels_compare_by_value():
    assert GeneralizedExponential(1.3) == GeneralizedExponential(exponent=1.3)
    assert GeneralizedExponential(1.3) != GeneralizedExponential(1.2)
    assert len({Laplace(), Laplace(), Gaussian()}) == 2


@pytest.mark.parametrize(
    "name", [name for name, kind in KERNELS.items() if hasattr(kind, "value_")]
)
def test_value_in_place_is_the_value(name):
    kernel = KERNELS[name]()
    s = torch.linspace(0, 4, 9, dtype=torch.float64)
    kept = s.clone()
    values = kernel.value(s)
    assert torch.equal(s, kept)  # value leaves its argument alone
    assert torch.equal(kernel.value_(s), values)

"""Distances in two precisions, coincident points, memory."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agop.kernels import (
    FullMetric,
    Gaussian,
    GeneralizedExponential,
    KernelMatrix,
    KernelOperator,
    Laplace,
    LpExponential,
    NeuralTangent,
    Polynomial,
)
from agop.kernels.geometry import squared_distances
from tests import reference
from tests.devices import DEVICES, LargestTensor
from tests.kernels.conformance import points

DTYPES = [torch.float32, torch.float64]


def exact(X, Z):
    """Squared distances of the given numbers, in extended precision."""
    X, Z = X.numpy().astype(np.longdouble), Z.numpy().astype(np.longdouble)
    return ((X[:, None] - Z[None]) ** 2).sum(-1).astype(float)


# ----------------------------------------------------------------------- distances
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_equal_rows_are_exactly_zero_apart(offset, dtype, device):
    # H1, H2, F27: torch.cdist puts such rows 3.9e-3 apart, 0.3 with an offset.
    X = (points(60, 7) + offset).to(dtype)
    X = X - X.mean(0)
    X[41] = X[3]
    s = squared_distances(X.to(device), X.to(device)).cpu()
    assert not s.diagonal().any()
    assert s[41, 3] == s[3, 41] == 0
    np.fill_diagonal(s.numpy(), 1)
    s[41, 3] = s[3, 41] = 1
    assert bool((s > 0).all())


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_row_alone_or_in_a_batch(dtype):
    # H2: 8.5e-3 with torch.cdist. Here the two may differ by rounding of the product.
    X = points(50, 7).to(dtype)
    whole = squared_distances(X, X)
    rows = torch.cat([squared_distances(X[i : i + 1], X) for i in range(50)])
    eps = torch.finfo(dtype).eps
    limit = (7 + 2) * eps * 2 * float(X.square().sum(1).max())
    assert float((rows - whole).abs().max()) <= limit
    assert not rows.diagonal().any()


# Pairs closer than 32 eps of their norms count as coincident.
@pytest.mark.parametrize(
    ("dtype", "power"),
    [
        *((torch.float32, power) for power in range(1, 5)),
        *((torch.float64, power) for power in range(1, 13)),
    ],
)
def test_nearly_coincident_pairs_keep_their_digits(dtype, power):
    X = points(20, 7).to(dtype)
    Z = X + 10.0**-power * points(20, 7, seed=1).to(dtype)
    s = squared_distances(X, Z).diagonal().double().numpy()
    expected = exact(X, Z).diagonal()
    # Without cancellation d + 1 roundings; with it, (d + 2) eps over the share below
    # which pairs are measured again (1e-3 and 1e-6).
    share = 1e-3 if dtype == torch.float32 else 1e-6
    rtol = (7 + 2) * torch.finfo(dtype).eps / share
    np.testing.assert_allclose(s, expected, rtol=rtol)
    if 10.0 ** (-2 * power) * 4 < share:  # surely measured by the difference
        np.testing.assert_allclose(s, expected, rtol=(7 + 2) * torch.finfo(dtype).eps)


@given(
    n=st.integers(1, 6),
    m=st.integers(1, 6),
    d=st.integers(0, 4),
    seed=st.integers(0, 99),
    scale=st.sampled_from([1e-15, 1e-3, 1.0, 1e12]),
    single=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_distances_of_any_shape_and_scale(n, m, d, seed, scale, single):
    dtype = torch.float32 if single else torch.float64
    X = (scale * points(n, d, seed)).to(dtype)
    Z = torch.cat([(scale * points(m, d, seed + 1)).to(dtype), X[:1]])
    s = squared_distances(X, Z)
    assert s.shape == (n, m + 1)
    assert bool((s >= 0).all())
    eps = torch.finfo(dtype).eps
    norms = X.double().square().sum(1)[:, None] + Z.double().square().sum(1)
    error = np.abs(s.double().numpy() - exact(X, Z))
    assert (error <= (d + 2) * 2 * eps * norms.numpy()).all()
    assert s[0, m] == 0


def test_a_row_that_a_metric_maps_alone_still_coincides():
    # Products of one row and of many round differently; the pair is 1e-15 apart, and
    # its Laplace slope of 1e15 would drown every other term.
    X, coef = points(301, 20), torch.zeros(301, 1).double()
    X[-1], coef[0], coef[-1] = X[0], 1.0, 1.0
    metric = FullMetric(points(20, 20, seed=1))
    mapped = metric.project(X)
    alone = metric.project(X[:1])
    moved = mapped.clone()
    moved[0] = moved[0] * (1 + 4 * torch.finfo(torch.float64).eps)  # on any machine
    moved[-1] = mapped[0]
    for kernel, Z in itertools.product(
        (Laplace(), GeneralizedExponential(0.7)), (mapped, moved)
    ):
        gradient = KernelOperator(kernel, alone, Z).gradients(coef)
        assert not gradient.any()
        matrix = KernelMatrix(kernel, Z, torch.empty(301, 301).double())
        matrix.dense()
        assert not matrix.gradients(coef)[[0, -1]].any()


# ------------------------------------------------------------- single precision, F27
@pytest.mark.parametrize("mean", [100.0, 1000.0])
@pytest.mark.parametrize("kernel", [Laplace(), Gaussian()], ids=["laplace", "gaussian"])
def test_offset_data_in_float32_after_centring(kernel, mean):
    # F27: the AGOP of xRFM is 0.6 % off at mean 100 and 1850 % at mean 1000.
    X = (points(200, 10) + mean).float()
    X = (X - X.mean(0)) / 5
    coef = points(200, 1, seed=1).float()
    matrix = KernelMatrix(kernel, X, torch.empty(200, 200))
    assert bool((matrix.dense().diagonal() == 1).all())
    expected = reference.kernel_jacobian(
        reference.laplace if isinstance(kernel, Laplace) else reference.gaussian,
        X.double(),
        X.double(),
        coef.double(),
        torch.eye(10).double(),
    )
    gradient = matrix.gradients(coef).double()
    # n eps: 200 terms in a row, each right to a few eps.
    limit = 200 * torch.finfo(torch.float32).eps * float(expected.abs().max())
    assert float((gradient - expected).abs().max()) <= limit


@pytest.mark.parametrize(
    "kernel", [Gaussian(), GeneralizedExponential(2.0)], ids=["gaussian", "exponent2"]
)
def test_gradient_survives_a_kernel_matrix_of_ones(kernel):
    # A large bandwidth in float32: every value rounds to 1, no slope is lost.
    X, coef = 3e-5 * points(50, 3).float(), points(50, 1, seed=1).float()
    matrix = KernelMatrix(kernel, X, torch.empty(50, 50))
    assert bool((matrix.dense() == 1).all())
    expected = KernelOperator(kernel, X.double(), X.double()).gradients(coef.double())
    error = (matrix.gradients(coef).double() - expected).abs().max()
    assert error <= 50 * torch.finfo(torch.float32).eps * expected.abs().max()


# ------------------------------------------------------------------ neural tangent
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("factor", [1.0, 3.0, -1.0, -0.7])
def test_parallel_points_have_a_radial_gradient(factor, depth, dtype):
    # The singular part of k at parallel points is left out; what stays is homogeneous
    # of degree one: the gradient is (k / ‖x‖) x/‖x‖, by Euler's theorem. Antiparallel
    # angles are known to sqrt(eps) only.
    kernel, Z = NeuralTangent(depth), points(40, 5).to(dtype)
    rtol = (8 if factor > 0 else 1e5) * torch.finfo(dtype).eps
    if factor < 0 and dtype == torch.float64:
        rtol = 1e-8
    for z in Z[:, None]:
        x = factor * z
        gradient = kernel.contraction(x, z, torch.ones(1, 1, dtype=dtype))[0].double()
        value = kernel.matrix(x.double(), z.double())
        norm = x.double().norm()
        expected = value / norm * (x.double() / norm)
        error = (gradient - expected).abs().max() / z.norm()
        assert error <= rtol * 4


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_origin_has_no_gradient(depth):
    Z, coef = points(6), points(6, 2, seed=1)
    Z[2] = 0
    gradient = NeuralTangent(depth).contraction(torch.zeros(1, 4).double(), Z, coef)
    assert not gradient.any()
    assert not NeuralTangent(depth).matrix(torch.zeros(1, 4).double(), Z).any()
    assert torch.isfinite(NeuralTangent(depth).contraction(Z, Z, coef)).all()


# --------------------------------------------------------------------------- memory
@pytest.mark.parametrize(
    "kernel",
    [Laplace(), LpExponential(), Polynomial(), NeuralTangent()],
    ids=lambda kernel: type(kernel).__name__,
)
def test_memory_does_not_grow_with_outputs_times_pairs(kernel):
    # F28: xRFM builds a tensor of outputs × n × m.
    n, c, d = 200, 40, 3
    X, coef = points(n, d), points(n, c)
    matrix = KernelMatrix(kernel, X, torch.empty(n, n).double())
    matrix.dense()
    with LargestTensor() as largest:
        matrix.gradients(coef)
    assert n <= largest.numel <= max(n * n, n * c * (d + 1), 2 * d * n * n)

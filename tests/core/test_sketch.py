"""Sketches: the promised bounds, on kind and on hostile streams, and the memory."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agop.core import (
    DenseOuterProduct,
    LowRankOuterProduct,
    ProjectedOuterProduct,
    Spectrum,
    subspace_overlap,
)
from tests.devices import DEVICES, LargestTensor

WIDTH, WANTED = 120, 3  # a buffer of 2 (2 * 3 + 20) = 52 rows


def directions_of(rng, d, rank):
    return np.linalg.qr(rng.standard_normal((d, rank)))[0]


def slow_decay(n=3000, d=WIDTH, rank=100, power=1.0, seed=0):
    """Gradients whose eigenvalues fall as 1/j."""
    rng = np.random.default_rng(seed)
    scale = np.arange(1, rank + 1) ** (-power / 2)
    rows = rng.standard_normal((n, rank)) * scale @ directions_of(rng, d, rank).T
    return torch.from_numpy(rows)[:, None]


def sorted_by_class(n=3000, d=WIDTH, n_classes=10, seed=0):
    """Every class has directions of its own, and comes after the other classes."""
    rng = np.random.default_rng(seed)
    parts = []
    for index in range(n_classes):
        scale = np.arange(1, 11) ** -0.5 * (1 + 0.1 * index)
        part = rng.standard_normal((n // n_classes, 10)) * scale
        parts.append(part @ directions_of(rng, d, 10).T)
    return torch.from_numpy(np.concatenate(parts))[:, None]


def burst_first(n=3000, d=WIDTH, seed=0):
    """Many large directions in the beginning, then small ones that last."""
    rng = np.random.default_rng(seed)
    Q = directions_of(rng, d, 60)
    burst = 2.5 * rng.standard_normal((n // 20, 40)) @ Q[:, :40].T
    rest = rng.standard_normal((n - n // 20, 5)) @ Q[:, 40:45].T
    return torch.from_numpy(np.concatenate([burst, rest]))[:, None]


STREAMS = {
    "slow_decay": slow_decay,
    "sorted_by_class": sorted_by_class,
    "burst_first": burst_first,
}


def eigenvalues_of(jacobian):
    rows = jacobian[:, 0].double().numpy()
    return np.linalg.eigh(rows.T @ rows / len(rows))[0][::-1]


def check_bounds(sketch, jacobian):
    """0 ≤ G − F Fᵀ ≤ shrinkage ≤ Σ_{j>k} λⱼ / 10."""
    rows = jacobian[:, 0].numpy()
    G = rows.T @ rows / len(rows)
    error = np.linalg.eigvalsh(G - sketch.matrix().numpy())
    values = np.linalg.eigvalsh(G)[::-1]
    rounding = 1e-12 * values[0]
    assert error.min() >= -rounding
    assert error.max() <= sketch.shrinkage + rounding
    assert sketch.shrinkage <= values[sketch.n_components :].sum() / 10
    found = sketch.spectrum().eigenvalues.numpy()
    expected = values[: len(found)]
    assert (found <= expected + rounding).all()
    assert (found >= expected - sketch.shrinkage - rounding).all()


# ----------------------------------------------------------------------- guarantees
@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("flipped", [False, True])
def test_bounds(stream, flipped):
    J = STREAMS[stream]()
    J = J.flip(0) if flipped else J
    sketch = LowRankOuterProduct(WIDTH, WANTED)
    for batch in J.split(17):
        sketch.update(batch)
    check_bounds(sketch, J)
    assert sketch.shrinkage > 0


@given(
    stream=st.sampled_from(sorted(STREAMS)),
    cuts=st.lists(st.integers(0, 600), max_size=5),
    order=st.randoms(use_true_random=False),
)
@settings(max_examples=20, deadline=None)
def test_bounds_hold_for_any_tree_of_merges(stream, cuts, order):
    J = STREAMS[stream](n=600)
    parts = [
        LowRankOuterProduct(WIDTH, WANTED).update(part)
        for part in J.tensor_split(sorted(cuts))
    ]
    while len(parts) > 1:
        left = parts.pop(order.randrange(len(parts)))
        parts[order.randrange(len(parts))].merge(left)
    check_bounds(parts[0], J)
    assert parts[0].weight == 600


def test_nothing_is_lost_before_the_buffer_is_full():
    J = slow_decay(n=51)
    sketch = LowRankOuterProduct(WIDTH, WANTED).update(J)
    assert sketch.shrinkage == 0
    assert sketch.left_out == pytest.approx(0, abs=1e-15)
    expected = DenseOuterProduct(WIDTH).update(J)
    torch.testing.assert_close(sketch.matrix(), expected.matrix())
    values = expected.spectrum().eigenvalues[:26]
    torch.testing.assert_close(sketch.spectrum().eigenvalues, values)


@pytest.mark.parametrize("stream", STREAMS)
def test_trace_diagonal_and_what_is_left_out(stream):
    J = STREAMS[stream]()
    exact = DenseOuterProduct(WIDTH).update(J)
    sketch = LowRankOuterProduct(WIDTH, WANTED).update(J)
    torch.testing.assert_close(sketch.diagonal(), exact.diagonal())
    assert sketch.trace == pytest.approx(exact.trace, rel=1e-12)
    assert sketch.spectrum(2).trace == sketch.trace
    lost = 1 - float(sketch.matrix().trace()) / exact.trace
    assert sketch.left_out == pytest.approx(lost, abs=1e-12)
    assert 0 < sketch.left_out < 1


# ------------------------------------------------------------------------- accuracy
@pytest.mark.parametrize("power", [1.0, 1.5])
def test_leading_directions_of_a_slow_decay(power, global_random_seed):
    # performance.md 4.3: overlap .999, eigenvalues within 2 % after the second pass.
    d, k = 400, 10
    J = slow_decay(6000, d, 200, power, global_random_seed).float()
    rows = J[:, 0].double()
    exact = Spectrum.of_matrix(rows.T @ rows / len(rows), k)
    sketch = LowRankOuterProduct(d, k)
    for batch in J.split(100):
        sketch.update(batch)
    second = sketch.second_pass()
    for batch in J.split(100):
        second.update(batch)
    once, twice = sketch.spectrum(k), second.spectrum(k)
    for spectrum, least in [(once, 0.998), (twice, 0.999)]:
        overlap = subspace_overlap(spectrum.directions.double(), exact.directions)
        assert float(overlap.mean()) > least
    torch.testing.assert_close(once.eigenvalues, exact.eigenvalues, rtol=0.02, atol=0)
    torch.testing.assert_close(twice.eigenvalues, exact.eigenvalues, rtol=3e-3, atol=0)
    # Each is a lower bound, and the second one is the better one.
    rounding = 1e-5 * float(exact.eigenvalues[0])
    assert bool((once.eigenvalues <= twice.eigenvalues + rounding).all())
    assert bool((twice.eigenvalues <= exact.eigenvalues + rounding).all())


def test_classes_that_come_last_are_found(global_random_seed):
    # With no shrinking at all, large early directions would never leave the sketch.
    J = burst_first(seed=global_random_seed)
    rows = J[:, 0]
    exact = Spectrum.of_matrix(rows.T @ rows / len(rows), 5)
    last = rows[len(rows) // 2 :]
    lasting = Spectrum.of_matrix(last.T @ last, 5).directions
    assert float(subspace_overlap(exact.directions, lasting).mean()) > 0.99
    sketch = LowRankOuterProduct(WIDTH, 5)
    for batch in J.split(100):
        sketch.update(batch)
    found = sketch.second_pass().update(J).spectrum(5).directions
    assert float(subspace_overlap(found, lasting).mean()) > 0.99


@pytest.mark.parametrize("rank", [1, 4])
def test_no_more_directions_than_the_gradients_span(rank):
    J = slow_decay(n=500, rank=rank)
    sketch = LowRankOuterProduct(WIDTH, WANTED).update(J)
    spectrum = sketch.spectrum()
    assert spectrum.directions.shape == (rank, WIDTH)
    np.testing.assert_allclose(spectrum.eigenvalues, eigenvalues_of(J)[:rank])
    identity = torch.eye(rank).double()
    torch.testing.assert_close(spectrum.directions @ spectrum.directions.T, identity)


def test_zero_gradients():
    sketch = LowRankOuterProduct(WIDTH, WANTED).update(torch.zeros(100, 1, WIDTH))
    assert sketch.spectrum().directions.shape == (0, WIDTH)
    assert sketch.trace == sketch.left_out == sketch.shrinkage == 0


def test_features_without_influence_are_exact_zeros():
    J = slow_decay(n=500)
    J[:, :, ::3] = 0
    sketch = LowRankOuterProduct(WIDTH, WANTED).update(J)
    assert not sketch.spectrum().directions[:, ::3].any()
    assert not sketch.second_pass().update(J).spectrum().directions[:, ::3].any()


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("device", DEVICES)
def test_dtype_of_the_sketch_is_that_of_the_gradients(device, center):
    J = slow_decay(n=300).float().to(device)
    sketch = LowRankOuterProduct(WIDTH, WANTED, center=center)
    for batch in J.split(50):
        sketch.update(batch)
    assert sketch.value().dtype == torch.float32
    assert sketch.value().device == J.device
    assert sketch.spectrum().eigenvalues.dtype == torch.float64
    double = LowRankOuterProduct(WIDTH, WANTED, center=center).update(J.double())
    torch.testing.assert_close(
        sketch.spectrum(WANTED).eigenvalues,
        double.spectrum(WANTED).eigenvalues,
        rtol=0.02,  # batches shrink at other rows than the whole
        atol=0,
    )


# --------------------------------------------------------------------------- memory
def test_memory():
    d, k = 4000, 10
    J = slow_decay(n=300, d=d, rank=20).float()
    with LargestTensor() as largest:
        sketch = LowRankOuterProduct(d, k)
        for batch in J.split(20):
            sketch.update(batch)
        sketch.spectrum(k)
        assert sketch.left_out >= 0
        second = sketch.second_pass().update(J[:20])
        second.spectrum(k)
    # The buffer is the largest: 80 rows of the 20 k = 200 that a sketch may take.
    assert largest.numel == 80 * d
    assert sketch.value().numel() <= 80 * d


# ---------------------------------------------------------------------- second pass
def test_projection_onto_leading_directions_is_exact():
    J = slow_decay(n=400)
    exact = DenseOuterProduct(WIDTH).update(J)
    whole = exact.spectrum(6)
    product = ProjectedOuterProduct(whole.directions.T).update(J)
    expected = torch.diag(whole.eigenvalues)
    torch.testing.assert_close(product.value(), expected, rtol=1e-10, atol=1e-12)
    spectrum = product.spectrum(4)
    torch.testing.assert_close(spectrum.eigenvalues, whole.eigenvalues[:4])
    torch.testing.assert_close(spectrum.directions, whole.directions[:4])
    assert spectrum.trace == pytest.approx(exact.trace, rel=1e-12)
    torch.testing.assert_close(product.diagonal(), exact.diagonal())


@pytest.mark.parametrize("basis", [2 * torch.eye(3)[:, :2], torch.ones(3, 2)])
def test_basis_must_be_orthonormal(basis):
    with pytest.raises(ValueError, match="must be orthonormal"):
        ProjectedOuterProduct(basis)

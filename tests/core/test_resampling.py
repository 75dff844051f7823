"""The bootstrap against its definition, multinomial resampling and repeated samples."""

import copy

import numpy as np
import pytest
import torch

from agop.core import (
    Bootstrap,
    BootstrapOuterProduct,
    Spectrum,
    average_gradient_outer_product,
    subspace_overlap,
)
from tests import reference


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def jacobians(n=40, c=2, d=4, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((n, c, d)) + 1)


def gradients(eigenvalues, n, seed=0):
    """Gaussian gradients of a scalar with these eigenvalues, in oblique directions."""
    rng = np.random.default_rng(seed)
    d = len(eigenvalues)
    Q = np.linalg.qr(np.random.default_rng(9).standard_normal((d, d)))[0]
    rows = rng.standard_normal((n, d)) * np.sqrt(eigenvalues) @ Q.T
    return torch.from_numpy(rows)[:, None]


def bootstrap_of(J, n_resamples=200, seed=0, **kwargs):
    spectrum = Spectrum.of_matrix(average_gradient_outer_product(J))
    product = BootstrapOuterProduct(
        J.shape[2], n_resamples, generator=generator(seed), **kwargs
    )
    return product.update(J).value(spectrum)


# ------------------------------------------------------------- against the definition
@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("rank", [None, 3])
def test_every_resample_is_a_weighted_average(center, weighted, rank):
    J, B = jacobians() + 5, 7
    weights = torch.linspace(0.1, 2, len(J)).double() if weighted else torch.ones(40)
    G = reference.outer_product(J, weights, center)
    spectrum = Spectrum.of_matrix(torch.from_numpy(G), 2)
    basis = None if rank is None else torch.linalg.qr(jacobians(1, rank)[0].T).Q
    product = BootstrapOuterProduct(
        4, B, basis=basis, center=center, generator=generator(3)
    )
    product.update(J[:11], weights[:11] if weighted else None)
    product.update(J[11:], weights[11:] if weighted else None)
    result = product.value(spectrum)

    counts = torch.poisson(torch.ones(40, B).double(), generator=generator(3))
    Q = np.eye(4) if basis is None else basis.numpy()
    for b in range(B):
        G = reference.outer_product(J, counts[:, b] * weights, center)
        diagonal = np.diag(G)
        np.testing.assert_allclose(result.importances[b], diagonal / diagonal.sum())
        values, vectors = np.linalg.eigh(Q.T @ G @ Q)
        np.testing.assert_allclose(result.eigenvalues[b], values[::-1][:2], rtol=1e-9)
        cosines = spectrum.directions.numpy() @ Q @ vectors[:, ::-1][:, :2]
        np.testing.assert_allclose(result.squared_cosines[b], cosines**2, atol=1e-9)


def test_batches_do_not_matter():
    J = jacobians(500)
    spectrum = Spectrum.of_matrix(average_gradient_outer_product(J))
    whole = bootstrap_of(J, 20)
    product = BootstrapOuterProduct(4, 20, generator=generator())
    for batch in J.split([3, 197, 0, 300]):
        product.update(batch)
    streamed = product.value(spectrum)
    torch.testing.assert_close(streamed.eigenvalues, whole.eigenvalues)
    torch.testing.assert_close(streamed.importances, whole.importances)


def test_memory_does_not_grow_with_the_number_of_samples():
    def numbers(n):
        product = BootstrapOuterProduct(4, 5, generator=generator())
        product.update(jacobians(n))
        tensors = torch.utils._pytree.tree_leaves(list(vars(product._sums).values()))
        return sum(t.numel() for t in tensors if isinstance(t, torch.Tensor))

    assert numbers(20) == numbers(5000) == 5 * (1 + 4 * 4 + 4)


def test_same_as_drawing_with_replacement():
    # Standard errors and quantiles; 1000 resamples know an error to 1/√2000 = 2.2 %.
    J = gradients([5.0, 2.0, 1.0], 400)
    result = bootstrap_of(J, 1000)
    rng = np.random.default_rng(1)
    rows = J[:, 0].numpy()
    values, importances = [], []
    for _ in range(1000):
        drawn = rows[rng.integers(0, 400, 400)]
        G = drawn.T @ drawn / 400
        values.append(np.linalg.eigvalsh(G)[::-1])
        importances.append(np.diag(G) / np.trace(G))
    errors = np.std(values, 0, ddof=1)
    np.testing.assert_allclose(result.standard_errors, errors, rtol=5 * 0.032)
    for level in (0.5, 0.95):
        ends = [(1 - level) / 2, (1 + level) / 2]
        expected = np.quantile(values, ends, axis=0)
        found = result.eigenvalue_intervals(level)
        assert found.shape == (2, 3)
        assert (np.abs(found.numpy() - expected) < 0.3 * errors).all()
        expected = np.quantile(importances, ends, axis=0)
        found = result.importance_intervals(level)
        assert found.shape == (2, 3)
        spread = np.std(importances, 0)
        assert (np.abs(found.numpy() - expected) < 0.3 * spread).all()


def test_intervals_cover_the_truth():
    truth = [5.0, 2.0, 0.5]
    covered = np.zeros(3)
    for seed in range(100):
        low, high = bootstrap_of(
            gradients(truth, 300, seed), 200
        ).eigenvalue_intervals()
        covered += (low.numpy() <= truth) & (truth <= high.numpy())
    # Of 100 intervals of 95 %, fewer than 87 would be a coverage below 93 % at 99 %.
    assert (covered >= 87).all()


# ----------------------------------------------------------------- what is told apart
def test_equal_eigenvalues_are_one_group():
    tied = separated = 0
    for seed in range(40):
        result = bootstrap_of(gradients([3.0, 1.0, 1.0, 0.2], 500, seed), 100)
        tied += result.groups == [(0,), (1, 2), (3,)]
        result = bootstrap_of(gradients([3.0, 1.5, 0.6, 0.2], 500, seed), 100)
        separated += result.groups == [(0,), (1,), (2,), (3,)]
    assert tied >= 34  # 95 % of 40 is 38; fewer than 34 are 1 in 400
    assert separated == 40


def test_a_group_is_stable_and_its_directions_are_not():
    result = bootstrap_of(gradients([3.0, 1.0, 1.0, 0.2], 500, seed=1))
    assert result.groups == [(0,), (1, 2), (3,)]
    assert bool((result.group_stability > 0.97).all())
    assert float(result.stability[0]) > 0.97
    assert bool((result.stability[1:3] < 0.9).all())


def test_group_stability_is_the_mean_overlap():
    J = gradients([3.0, 1.0, 1.0, 0.2], 60)
    spectrum = Spectrum.of_matrix(average_gradient_outer_product(J))
    result = bootstrap_of(J, 20)
    counts = torch.poisson(torch.ones(60, 20).double(), generator=generator())
    for group, stability in zip(result.groups, result.group_stability, strict=True):
        members = slice(group[0], group[-1] + 1)
        overlaps = []
        for b in range(20):
            G = average_gradient_outer_product(J, counts[:, b])
            again = Spectrum.of_matrix(G).directions[members]
            overlaps.append(subspace_overlap(again, spectrum.directions[members]))
        expected = float(torch.stack(overlaps).mean())
        assert float(stability) == pytest.approx(expected)


def test_directions_turn_within_the_basis_only():
    J = gradients([3.0, 1.0, 0.9, 0.2], 200)
    spectrum = Spectrum.of_matrix(average_gradient_outer_product(J), 2)
    product = BootstrapOuterProduct(
        4, 50, basis=spectrum.directions.T, generator=generator()
    )
    result = product.update(J).value(spectrum)
    torch.testing.assert_close(
        result.squared_cosines.sum(2), torch.ones(50, 2).double()
    )


@pytest.mark.parametrize(
    ("eigenvalues", "spread", "expected"),
    [
        ([5.0, 3.0], 0.1, [(0,), (1,)]),
        ([3.1, 3.0], 0.1, [(0, 1)]),
        ([5.0, 3.1, 3.0, 1.0], 0.1, [(0,), (1, 2), (3,)]),
        ([3.0, 2.9, 2.8], 0.1, [(0, 1, 2)]),
        ([3.0], 0.1, [(0,)]),
        ([0.0, 0.0], 0.0, [(0, 1)]),
        ([], 0.0, []),
    ],
)
def test_groups(eigenvalues, spread, expected):
    values = torch.tensor(eigenvalues).double()
    k = len(values)
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal((50, k)))
    result = Bootstrap(
        Spectrum(values, torch.eye(k).double(), float(values.sum())),
        values + spread * noise,
        torch.ones(50, k),
        torch.eye(k).expand(50, k, k),
    )
    assert result.groups == expected


# ---------------------------------------------------------------------- edges, errors
def test_float32_batches_and_layouts():
    J = jacobians()
    expected = bootstrap_of(J, 10)
    strided = J.float().repeat_interleave(2, 0)[::2]
    spectrum = Spectrum.of_matrix(average_gradient_outer_product(J))
    product = BootstrapOuterProduct(4, 10, generator=generator()).update(strided)
    found = product.value(spectrum)
    torch.testing.assert_close(
        found.eigenvalues, expected.eigenvalues, rtol=1e-5, atol=0
    )


def test_resamples_that_hold_no_sample_are_left_out():
    J = jacobians(1)  # e⁻¹ = 37 % of them
    product = BootstrapOuterProduct(4, 100, generator=generator()).update(J)
    spectrum = Spectrum.of_matrix(average_gradient_outer_product(J))
    result = product.value(spectrum)
    assert 40 < len(result.eigenvalues) < 85
    assert torch.isfinite(result.eigenvalues).all()
    torch.testing.assert_close(
        result.eigenvalues, spectrum.eigenvalues.expand_as(result.eigenvalues)
    )


def test_nothing_to_resample():
    spectrum = Spectrum.of_matrix(torch.eye(4).double())
    empty = BootstrapOuterProduct(4, 5, generator=generator())
    without_weight = copy.copy(empty).update(jacobians(), torch.zeros(40))
    for product in (empty, without_weight, copy.copy(empty).update(jacobians()[:0])):
        with pytest.raises(ValueError, match="nothing to resample"):
            product.value(spectrum)


def test_errors():
    product = BootstrapOuterProduct(4, 5, center=True, generator=generator())
    with pytest.raises(ValueError, match="has shape"):
        product.update(torch.zeros(3, 1, 5))
    product.update(jacobians(c=2))
    with pytest.raises(ValueError, match="number of outputs"):
        product.update(jacobians(c=1))
    with pytest.raises(ValueError, match="level"):
        bootstrap_of(jacobians(), 5).eigenvalue_intervals(1.5)

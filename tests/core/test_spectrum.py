"""Spectra against numpy, closed forms and scipy's principal angles."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agop.core import Spectrum, subspace_overlap
from tests.devices import DEVICES, LargestTensor

# Backward error of a symmetric eigensolver on a few dimensions of order one.
TIGHT = {"rtol": 1e-12, "atol": 1e-12}


def factor_of(d=5, rank=5, seed=0):
    generator = np.random.default_rng(seed)
    return torch.from_numpy(generator.standard_normal((d, rank)))


def check_spectrum(spectrum, matrix):
    """The directions are orthonormal and rebuild the matrix."""
    D, values = spectrum.directions.cpu(), spectrum.eigenvalues.cpu()
    identity = torch.eye(len(D), dtype=D.dtype)
    torch.testing.assert_close(D @ D.T, identity, **TIGHT)
    torch.testing.assert_close(D.T @ torch.diag(values) @ D, matrix, **TIGHT)
    assert bool((values.diff() <= 0).all())
    assert bool((values >= 0).all())
    assert spectrum.trace == pytest.approx(float(matrix.trace()), rel=1e-12)


# ---------------------------------------------------------------------- constructors
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("rank", [1, 3, 5, 8])
def test_of_matrix(rank, device):
    F = factor_of(rank=rank)
    G = F @ F.T
    spectrum = Spectrum.of_matrix(G.to(device))
    check_spectrum(spectrum, G)
    expected = np.linalg.eigh(G.numpy())[0][::-1].clip(min=0)
    np.testing.assert_allclose(spectrum.eigenvalues.cpu(), expected, **TIGHT)


@pytest.mark.parametrize("rank", [1, 2, 4, 5, 7])
def test_of_factor_is_of_matrix(rank):
    F = factor_of(rank=rank)
    spectrum, whole = Spectrum.of_factor(F), Spectrum.of_matrix(F @ F.T)
    k = min(rank, 5)
    assert len(spectrum.eigenvalues) == k
    torch.testing.assert_close(spectrum.eigenvalues, whole.eigenvalues[:k], **TIGHT)
    torch.testing.assert_close(spectrum.directions, whole.directions[:k], **TIGHT)
    check_spectrum(spectrum, F @ F.T)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("k", [1, 3, 12, 30])
def test_leading_part_is_that_of_the_whole(k, device):
    F = factor_of(40, 20).to(device)  # of d > r, where 1 and 3 are few of 20
    F[3] = 0
    diagonal = F.square().sum(1)
    for make, argument in [
        (Spectrum.of_matrix, F @ F.T),
        (Spectrum.of_factor, F),
        (Spectrum.of_factor, F.T),
        (Spectrum.of_diagonal, diagonal),
    ]:
        part, whole = make(argument, k), make(argument).truncated(k)
        torch.testing.assert_close(part.eigenvalues, whole.eigenvalues, **TIGHT)
        rank = min(k, 20)
        torch.testing.assert_close(
            part.directions[:rank], whole.directions[:rank], rtol=1e-9, atol=1e-9
        )
        assert part.trace == pytest.approx(whole.trace, rel=1e-12)
        assert part.norm == pytest.approx(whole.norm, rel=1e-12)
    assert not Spectrum.of_factor(F, k).directions[: min(k, 19), 3].any()


def test_leading_axes_need_no_matrix():
    with LargestTensor() as largest:
        spectrum = Spectrum.of_diagonal(torch.arange(5000.0), 2)
    assert largest.numel == 2 * 5000
    assert spectrum.directions.argmax(1).tolist() == [4999, 4998]


def test_leading_part_of_less_rank():
    F = factor_of(40, 20)
    F[:, 2:] = 0
    spectrum = Spectrum.of_factor(F, 4)
    torch.testing.assert_close(spectrum.eigenvalues[2:], torch.zeros(2).double())
    identity = torch.eye(4).double()
    torch.testing.assert_close(spectrum.directions @ spectrum.directions.T, identity)


def test_of_diagonal():
    diagonal = torch.tensor([0.5, 3.0, 0.0, 3.0, 1.0]).double()
    spectrum = Spectrum.of_diagonal(diagonal)
    check_spectrum(spectrum, torch.diag(diagonal))
    # Equal entries keep their order (F51).
    assert spectrum.directions.argmax(1).tolist() == [1, 3, 4, 0, 2]


def test_equal_entries_of_a_long_diagonal_keep_their_order():
    # Short arrays are sorted stably by any algorithm.
    diagonal = torch.arange(500) % 3 + 1.0
    order = Spectrum.of_diagonal(diagonal).directions.argmax(1)
    expected = np.argsort(-diagonal.numpy(), kind="stable")
    np.testing.assert_array_equal(order, expected)


@pytest.mark.parametrize("columns", [0, 2, 4])
def test_zero_matrix(columns):
    # H5: scipy's eigsh raises on it.
    spectra = [Spectrum.of_factor(torch.zeros(4, columns).double())]
    if columns == 4:
        spectra.append(Spectrum.of_matrix(torch.zeros(4, 4).double()))
        spectra.append(Spectrum.of_diagonal(torch.zeros(4).double()))
    for spectrum in spectra:
        assert spectrum.eigenvalues.shape == (columns,)
        assert spectrum.directions.shape == (columns, 4)
        assert spectrum.trace == spectrum.effective_rank == 0
        assert not spectrum.shares.any()
        assert spectrum.n_separated() == 1
        assert torch.isfinite(spectrum.directions).all()


def test_negative_rounding_is_clipped_and_the_trace_is_not():
    spectrum = Spectrum.of_matrix(torch.diag(torch.tensor([1.0, -1e-17]).double()))
    assert spectrum.eigenvalues.tolist() == [1, 0]


# ------------------------------------------------------------------------- sign rule
def test_largest_entry_of_each_direction_is_positive():
    spectrum = Spectrum.of_matrix(factor_of(7, 7) @ factor_of(7, 7).T)
    D = spectrum.directions
    assert bool((D.gather(1, D.abs().argmax(1, keepdim=True)) > 0).all())


def test_signs_do_not_depend_on_the_sign_of_the_input():
    F = factor_of(6, 3)
    flips = torch.tensor([1.0, -1.0, -1.0]).double()
    torch.testing.assert_close(
        Spectrum.of_factor(F * flips).directions, Spectrum.of_factor(F).directions
    )


def test_first_of_two_equally_large_entries_is_positive():
    # F51: ±(1, −1)/√2 up to rounding; the rule must not look at the last digit.
    for noise in (0.0, 1e-9, -1e-9):
        v = torch.tensor([1.0, -1.0 - noise, 0.0]).double()
        directions = Spectrum.of_factor(v[:, None]).directions
        assert directions[0, 0] > 0 > directions[0, 1]


@pytest.mark.parametrize("d", [1, 2, 6])
def test_degenerate_spectra_are_deterministic(d):
    identity = torch.eye(d).double()
    first, second = Spectrum.of_matrix(identity), Spectrum.of_matrix(identity.clone())
    assert torch.equal(first.directions, second.directions)
    check_spectrum(first, identity)


# ------------------------------------------------------------------------ summaries
eigenvalue_lists = st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=8)


@given(eigenvalue_lists)
@settings(max_examples=80, deadline=None)
def test_effective_rank_is_the_participation_ratio(values):
    spectrum = Spectrum.of_diagonal(torch.tensor(values, dtype=torch.float64))
    total = math.fsum(values)
    ratio = total**2 / math.fsum(v**2 for v in values)
    assert spectrum.effective_rank == pytest.approx(ratio, rel=1e-12)
    assert 1 - 1e-9 <= spectrum.effective_rank <= len(values) + 1e-9
    cumulative = spectrum.cumulative_share
    assert bool((cumulative.diff() >= 0).all())
    assert float(cumulative[-1]) == pytest.approx(1, rel=1e-12)
    scaled = Spectrum.of_diagonal(1e-3 * torch.tensor(values, dtype=torch.float64))
    assert scaled.effective_rank == pytest.approx(spectrum.effective_rank, rel=1e-10)


def test_effective_rank_of_known_spectra():
    one = Spectrum.of_factor(factor_of(6, 1))
    assert one.effective_rank == pytest.approx(1, abs=1e-12)
    identity = Spectrum.of_matrix(3 * torch.eye(6).double())
    assert identity.effective_rank == pytest.approx(6, rel=1e-12)


def test_effective_rank_of_a_part_is_that_of_the_whole():
    F = factor_of(9, 6)
    whole = Spectrum.of_matrix(F @ F.T)
    for part in (
        whole.truncated(2),
        Spectrum.of_factor(F).truncated(1),
        Spectrum.of_factor(F, 1),
        whole.embedded(torch.eye(12, 9).double()).truncated(3),
    ):
        assert part.effective_rank == pytest.approx(whole.effective_rank, rel=1e-12)


@given(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=8), st.integers(1, 8))
@settings(max_examples=80, deadline=None)
def test_effective_rank_is_bounded_where_the_norm_is_not_known(values, k):
    # A sketch knows the trace and some eigenvalues: without a bound, d² / k follows.
    values = torch.tensor(sorted(values, reverse=True), dtype=torch.float64)
    whole = Spectrum.of_diagonal(values)
    part = Spectrum(values[:k], whole.directions[:k], whole.trace)
    slack = 1 + 1e-9
    assert whole.effective_rank <= part.effective_rank * slack
    assert part.effective_rank <= len(values) * slack
    flat = torch.cat([values[:k], values[k:].mean().expand(len(values[k:]))])
    expected = Spectrum.of_diagonal(flat).effective_rank
    assert part.effective_rank == pytest.approx(expected, rel=1e-6)


def test_truncated_keeps_the_trace_of_the_whole():
    F = factor_of(6, 6)
    whole = Spectrum.of_matrix(F @ F.T)
    leading = whole.truncated(2)
    assert leading.trace == whole.trace
    assert leading.directions.shape == (2, 6)
    assert torch.equal(leading.cumulative_share, whole.cumulative_share[:2])
    assert float(leading.cumulative_share[-1]) < 1


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([9.0, 8.0, 1.0, 0.9], 2),
        ([9.0, 1.0, 0.9, 0.8], 1),
        ([4.0, 3.0, 2.9, 0.0], 3),
        ([1.0, 1.0, 1e-4, 1e-20], 2),  # below the floor, gaps are noise
        ([1.0], 1),
        ([1.0, 0.0], 1),
        ([0.0, 0.0], 1),
    ],
)
def test_directions_before_the_widest_gap(values, expected):
    spectrum = Spectrum.of_diagonal(torch.tensor(values, dtype=torch.float64))
    assert spectrum.n_separated() == expected


def test_most_limits_the_number_of_directions():
    values = torch.tensor([6.0, 5.0, 4.0, 3.0, 0.1]).double()
    assert Spectrum.of_diagonal(values).n_separated() == 4
    assert Spectrum.of_diagonal(values).n_separated(most=2) <= 2


def test_project_and_lift():
    F, X = factor_of(5, 5), factor_of(9, 5, seed=1)
    whole = Spectrum.of_matrix(F @ F.T)
    torch.testing.assert_close(whole.lift(whole.project(X)), X, **TIGHT)
    leading = whole.truncated(2)
    coordinates = leading.project(X)
    assert coordinates.shape == (9, 2)
    torch.testing.assert_close(
        leading.project(leading.lift(coordinates)), coordinates, **TIGHT
    )


# ------------------------------------------------------------------------- subspaces
@pytest.mark.parametrize(("k", "m"), [(1, 1), (2, 2), (2, 4), (5, 3)])
def test_overlap_is_the_squared_cosine_of_principal_angles(k, m):
    first, second = factor_of(k, 7, seed=1), factor_of(m, 7, seed=2)
    angles = scipy.linalg.subspace_angles(first.numpy().T, second.numpy().T)
    expected = np.sort(np.cos(angles) ** 2)[::-1]
    np.testing.assert_allclose(subspace_overlap(first, second), expected, **TIGHT)
    torch.testing.assert_close(
        subspace_overlap(first, second), subspace_overlap(second, first), **TIGHT
    )


def test_overlap_depends_on_the_span_only():
    first, second = factor_of(2, 6), factor_of(3, 6, seed=1)
    mixing = torch.tensor([[2.0, 1.0], [-1e3, 7.0]]).double()
    torch.testing.assert_close(
        subspace_overlap(mixing @ first, -second.flip(0)),
        subspace_overlap(first, second),
        rtol=1e-10,
        atol=1e-10,  # the mixing has a condition number of a few thousand
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_overlap_of_dependent_rows_is_that_of_their_span(dtype):
    # QR would fill up the rank with directions that nobody asked for.
    a, b = factor_of(2, 6).to(dtype)
    c = factor_of(3, 6, seed=1).to(dtype)
    plain = subspace_overlap(torch.stack([a, b]), c)
    for rows in (
        torch.stack([a, 2 * a, b]),
        torch.stack([a, b, a + b, a - b]),
        torch.stack([a, torch.zeros_like(a), 1e-20 * b]),
        torch.cat([factor_of(9, 2).to(dtype) @ torch.stack([a, b])]),
    ):
        overlap = subspace_overlap(rows, c)
        assert overlap.shape == (2,)
        torch.testing.assert_close(overlap, plain)
        torch.testing.assert_close(subspace_overlap(c, rows), plain)
    assert subspace_overlap(torch.zeros(2, 6, dtype=dtype), c).shape == (0,)
    aligned = torch.stack([a, a])
    assert subspace_overlap(aligned, b[None]).shape == (1,)


def test_overlap_of_nested_and_orthogonal_subspaces():
    axes = torch.eye(5).double()
    assert subspace_overlap(axes[:2], axes[:4]).tolist() == [1, 1]
    assert subspace_overlap(axes[:2], axes[2:]).tolist() == [0, 0]


def test_overlap_of_random_subspaces_is_on_average_the_larger_share():
    k, m, d, rounds = 3, 5, 20, 400
    means = [
        float(subspace_overlap(factor_of(k, d, s), factor_of(m, d, s + 999)).mean())
        for s in range(rounds)
    ]
    spread = np.std(means) / rounds**0.5
    assert abs(np.mean(means) - m / d) < 5 * spread


@pytest.mark.parametrize("shapes", [((2, 3), (2, 4)), ((3,), (2, 3)), ((2, 3), (3,))])
def test_overlap_of_other_shapes(shapes):
    with pytest.raises(ValueError, match="n_features"):
        subspace_overlap(torch.ones(shapes[0]), torch.ones(shapes[1]))

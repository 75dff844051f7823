"""Accumulators of JᵀJ: every kind against loops, and every order of batches."""

import copy
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agop.core import (
    DenseOuterProduct,
    DiagonalOuterProduct,
    LinearOuterProduct,
    LowRankOuterProduct,
    ProjectedOuterProduct,
    RowsOuterProduct,
    average_gradient_outer_product,
)
from tests import reference
from tests.devices import DEVICES

# Sums of at most some hundred products of numbers of order one, in float64.
TIGHT = {"rtol": 1e-12, "atol": 1e-12}

WIDTH = 2
LAYER = torch.tensor([[1.0, 2.0, 0.0], [0.0, -1.0, 1.0]]).double()  # h = W x
BASIS = torch.tensor([[0.6], [0.8]], dtype=torch.float64)  # one direction of the two


@dataclass
class Kind:
    """How to make an accumulator, and what it knows of G (itself by default)."""

    make: Callable
    matrix: Callable = np.asarray
    diagonal: Callable = np.diag


KINDS = {
    "dense": Kind(partial(DenseOuterProduct, WIDTH)),
    "diagonal": Kind(
        partial(DiagonalOuterProduct, WIDTH), matrix=lambda G: np.diag(np.diag(G))
    ),
    "rows": Kind(partial(RowsOuterProduct, WIDTH)),
    "linear": Kind(
        partial(LinearOuterProduct, LAYER),
        matrix=lambda S: LAYER.numpy().T @ S @ LAYER.numpy(),
        diagonal=lambda S: np.diag(LAYER.numpy().T @ S @ LAYER.numpy()),
    ),
    # The sketch has more rows than there are features: nothing is lost.
    "low_rank": Kind(partial(LowRankOuterProduct, WIDTH, 1)),
    "projected": Kind(
        partial(ProjectedOuterProduct, BASIS),
        matrix=lambda G: (BASIS @ BASIS.T).numpy() @ G @ (BASIS @ BASIS.T).numpy(),
    ),
}

every_kind = pytest.mark.parametrize("kind", KINDS)
centered = pytest.mark.parametrize("center", [False, True])


def jacobians(n=12, c=3, d=WIDTH, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((n, c, d)) + 1)


def weights_of(n=12, seed=1):
    return torch.from_numpy(np.random.default_rng(seed).uniform(0.1, 3, n))


# ------------------------------------------------------------------ against the loop
@pytest.mark.parametrize("device", DEVICES)
@centered
@every_kind
@pytest.mark.parametrize("weighted", [False, True])
def test_matrix_diagonal_and_trace(kind, center, weighted, device):
    if device != "cpu" and kind == "linear":
        pytest.skip("the layer of the example is on the CPU")
    J, weights = jacobians(), weights_of() if weighted else None
    accumulator = KINDS[kind].make(center=center)
    moved = None if weights is None else weights.to(device)
    assert accumulator.update(J.to(device), moved) is accumulator
    G = reference.outer_product(J, weights, center)
    matrix, diagonal = accumulator.matrix(), accumulator.diagonal()
    assert matrix.dtype == diagonal.dtype == torch.float64
    np.testing.assert_allclose(matrix.cpu(), KINDS[kind].matrix(G), **TIGHT)
    np.testing.assert_allclose(diagonal.cpu(), KINDS[kind].diagonal(G), **TIGHT)
    trace = KINDS[kind].diagonal(G).sum()
    assert accumulator.trace == pytest.approx(trace, rel=1e-12)


@pytest.mark.parametrize("n_components", [None, 1])
@every_kind
def test_spectrum_is_that_of_the_matrix(kind, n_components):
    accumulator = KINDS[kind].make().update(jacobians(), weights_of())
    values, vectors = np.linalg.eigh(accumulator.matrix().numpy())
    rank = int((values > 1e-12).sum())
    spectrum = accumulator.spectrum(n_components)
    k = len(spectrum.eigenvalues)
    assert k in {rank, len(values)} if n_components is None else k == 1
    np.testing.assert_allclose(spectrum.eigenvalues, values[::-1][:k], **TIGHT)
    overlaps = (spectrum.directions.numpy()[:rank] @ vectors[:, ::-1][:, :k]) ** 2
    np.testing.assert_allclose(np.diag(overlaps), 1, rtol=1e-10)
    assert spectrum.trace == pytest.approx(accumulator.trace, rel=1e-12)


def test_function_is_the_dense_accumulator():
    J, weights = jacobians(d=5), weights_of()
    for center in (False, True):
        got = average_gradient_outer_product(J, weights, center=center)
        np.testing.assert_allclose(
            got, reference.outer_product(J, weights, center), **TIGHT
        )
        assert torch.equal(got, got.T)


@every_kind
def test_linear_model_has_a_closed_form(kind):
    make = KINDS[kind].make
    W = jacobians(1, 3)[0]  # f(x) = W x: G = WᵀW, and nothing is left when centred
    J = W.expand(7, 3, WIDTH)
    expected = KINDS[kind].matrix((W.T @ W).numpy())
    np.testing.assert_allclose(make().update(J).matrix(), expected, **TIGHT)
    assert np.allclose(make(center=True).update(J).matrix(), 0, atol=1e-30)


# --------------------------------------------------------------------------- weights
@centered
@every_kind
def test_weight_is_a_number_of_copies(kind, center):
    make = KINDS[kind].make
    J, copies = jacobians(6), torch.tensor([1, 3, 0, 2, 1, 4])
    weighted = make(center=center).update(J, copies.double())
    repeated = make(center=center).update(J.repeat_interleave(copies, 0))
    torch.testing.assert_close(weighted.matrix(), repeated.matrix(), **TIGHT)
    assert weighted.trace == pytest.approx(repeated.trace, rel=1e-12)
    assert weighted.weight == repeated.weight == 11


@centered
@every_kind
def test_scale_of_the_weights_does_not_matter(kind, center):
    make = KINDS[kind].make
    J, weights = jacobians(), weights_of()
    once = make(center=center).update(J, weights).matrix()
    more = make(center=center).update(J, 1e6 * weights).matrix()
    torch.testing.assert_close(more, once, **TIGHT)


@centered
@every_kind
def test_batch_of_no_weight_changes_nothing(kind, center):
    make = KINDS[kind].make
    accumulator = make(center=center).update(jacobians())
    before = accumulator.matrix().clone(), accumulator.trace, accumulator.weight
    accumulator.update(jacobians(5, seed=9), torch.zeros(5))
    accumulator.update(jacobians(5)[:0])
    accumulator.merge(make(center=center))
    after = accumulator.matrix(), accumulator.trace, accumulator.weight
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]


@centered
@every_kind
@pytest.mark.parametrize("weighted", [False, True])
def test_buffers_of_the_caller_may_be_reused(kind, center, weighted):
    make = KINDS[kind].make
    J, weights = jacobians(), weights_of() if weighted else None
    accumulator = make(center=center).update(J, weights)
    before = accumulator.matrix().clone()
    J.zero_()
    accumulator.matrix().zero_()
    assert torch.equal(accumulator.matrix(), before)
    accumulator.update(jacobians(seed=8))
    J.fill_(torch.nan)
    assert torch.isfinite(accumulator.matrix()).all()


# ----------------------------------------------------------- partitions and orders
def _summary(accumulator):
    return np.append(accumulator.matrix().numpy().ravel(), accumulator.trace)


@given(
    kind=st.sampled_from(sorted(KINDS)),
    center=st.booleans(),
    weighted=st.booleans(),
    cuts=st.lists(st.integers(0, 12), max_size=5),
    order=st.randoms(use_true_random=False),
)
@settings(max_examples=80, deadline=None)
def test_any_partition_in_any_order(kind, center, weighted, cuts, order):
    make = KINDS[kind].make
    J, weights = jacobians(), weights_of() if weighted else torch.ones(12).double()
    whole = make(center=center).update(J, weights)
    edges = [0, *sorted(cuts), 12]
    slices = [slice(*edge) for edge in itertools.pairwise(edges)]
    order.shuffle(slices)
    streamed = make(center=center)
    parts = []
    for rows in slices:
        streamed.update(J[rows], weights[rows])
        parts.append(make(center=center).update(J[rows], weights[rows]))
    while len(parts) > 1:  # a random tree of merges
        left = parts.pop(order.randrange(len(parts)))
        parts[order.randrange(len(parts))].merge(left)
    np.testing.assert_allclose(_summary(streamed), _summary(whole), **TIGHT)
    np.testing.assert_allclose(_summary(parts[0]), _summary(whole), **TIGHT)


@centered
@every_kind
def test_merge_is_associative_and_leaves_the_other_as_it_was(kind, center):
    make = KINDS[kind].make
    a, b, c = (make(center=center).update(jacobians(n, seed=n)) for n in (4, 7, 9))
    before = _summary(b)
    left = copy.deepcopy(a).merge(b).merge(c)
    right = copy.deepcopy(a).merge(copy.deepcopy(b).merge(c))
    np.testing.assert_allclose(_summary(left), _summary(right), **TIGHT)
    fresh = make(center=center).merge(b)
    fresh.update(jacobians(3, seed=20))  # shares nothing with b
    np.testing.assert_array_equal(_summary(b), before)


def test_centring_keeps_its_digits_far_from_the_origin():
    # Σ J² − n mean² would lose 12 of 16 digits at a mean of 1e6.
    J = jacobians(200)
    accumulator = DenseOuterProduct(WIDTH, center=True)
    for batch in (J + 1e6).split(7):
        accumulator.update(batch)
    expected = reference.outer_product((J + 1e6) - 1e6, center=True)
    # The entries themselves are known to eps 1e6 = 1e-10 only.
    np.testing.assert_allclose(accumulator.matrix(), expected, rtol=1e-8)


# ------------------------------------------------------------------------- precision
@pytest.mark.parametrize("make", [DenseOuterProduct, DiagonalOuterProduct])
@pytest.mark.parametrize("one_batch", [True, False])
def test_float32_sums_in_float64(make, one_batch):
    # H8. Equal terms are the worst case: every addition rounds in the same direction.
    n = 200_000
    J = torch.full((n, 1, 2), 1.1)  # 1.1**2 is not a float32
    accumulator = make(2)
    for batch in [J] if one_batch else J.split(1000):
        accumulator.update(batch)
    expected = float(torch.tensor(1.1)) ** 2
    # At most 1024 additions in a row are in float32: 1024 eps / 2, and not 2e5 eps / 2.
    tolerance = 1024 * torch.finfo(torch.float32).eps / 2
    assert np.abs(accumulator.value().numpy() / expected - 1).max() <= tolerance
    assert accumulator.trace == pytest.approx(2 * expected, rel=tolerance)
    assert accumulator.value().dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_products_are_not_rounded_to_half(dtype):
    # The accumulator sees the rounded numbers and loses nothing more (H8).
    J = jacobians(500).to(dtype)
    expected = reference.outer_product(J.double())
    got = average_gradient_outer_product(J)
    np.testing.assert_allclose(got, expected, rtol=500 * 2**-23)
    diagonal = DiagonalOuterProduct(WIDTH).update(J)
    np.testing.assert_allclose(diagonal.value(), np.diag(expected), rtol=500 * 2**-23)
    assert diagonal.trace == pytest.approx(np.trace(expected), rel=500 * 2**-23)


@pytest.mark.parametrize("layout", ["expanded", "strided", "transposed", "wide"])
def test_layouts(layout):
    J = {
        "expanded": jacobians(1)[0].expand(6, 3, WIDTH),
        "strided": jacobians(12)[::2],
        "transposed": jacobians(WIDTH, 3, 9).permute(2, 1, 0),
        "wide": jacobians(4, 3, 11),
    }[layout]
    got = average_gradient_outer_product(J)
    np.testing.assert_allclose(got, reference.outer_product(J), **TIGHT)


# ---------------------------------------------------------------------------- errors
@every_kind
def test_shape_of_a_batch(kind):
    make = KINDS[kind].make
    for shape in [(4, WIDTH), (4, 1, WIDTH + 1), (WIDTH,), ()]:
        with pytest.raises(ValueError, match="has shape"):
            make().update(torch.zeros(shape))


@every_kind
def test_nothing_was_added(kind):
    make = KINDS[kind].make
    accumulator = make()
    for read in (
        accumulator.matrix,
        accumulator.diagonal,
        accumulator.spectrum,
        lambda: accumulator.trace,
    ):
        with pytest.raises(ValueError, match="call update first"):
            read()


@every_kind
def test_only_equals_are_merged(kind):
    accumulator = KINDS[kind].make()
    others = {
        "dense": DenseOuterProduct(WIDTH + 1),
        "diagonal": DiagonalOuterProduct(WIDTH + 1),
        "rows": RowsOuterProduct(WIDTH + 1),
        "linear": LinearOuterProduct(LAYER + 1),
        "low_rank": LowRankOuterProduct(WIDTH + 1, 1),
        "projected": ProjectedOuterProduct(BASIS.flip(0)),
    }
    another_kind = others["dense" if kind != "dense" else "rows"]
    for other in (KINDS[kind].make(center=True), others[kind], another_kind):
        with pytest.raises(ValueError, match="same kind, width and centring"):
            accumulator.merge(other)


@every_kind
def test_means_of_other_numbers_of_outputs_do_not_broadcast(kind):
    make = KINDS[kind].make
    accumulator = make(center=True).update(jacobians(c=3))
    before = _summary(accumulator)
    with pytest.raises(ValueError, match="number of outputs"):
        accumulator.update(jacobians(c=1))
    with pytest.raises(ValueError, match="number of outputs"):
        accumulator.merge(make(center=True).update(jacobians(c=1)))
    np.testing.assert_array_equal(_summary(accumulator), before)


def test_all_weights_zero():
    with pytest.raises(ValueError, match="No gradients"):
        average_gradient_outer_product(jacobians(), torch.zeros(12))


def test_repr_names_kind_width_and_weight():
    text = repr(DenseOuterProduct(3, center=True).update(torch.ones(2, 1, 3)))
    assert text == "DenseOuterProduct(n_features=3, center=True, weight=2)"


def test_a_jacobian_that_requires_grad_leaves_no_graph():
    jacobian = torch.ones(3, 2, 4, requires_grad=True)
    value = average_gradient_outer_product(jacobian)
    assert not value.requires_grad
    assert torch.equal(value, torch.full((4, 4), 2.0, dtype=torch.float64))


@every_kind
def test_weights_that_require_grad_leave_no_graph(kind):
    weights = torch.ones(12, dtype=torch.float64, requires_grad=True)
    accumulator = KINDS[kind].make().update(jacobians(), weights)
    assert not accumulator.matrix().requires_grad


@every_kind
@pytest.mark.parametrize(
    "mode", [torch.inference_mode, partial(torch.autocast, "cpu"), torch.enable_grad]
)
def test_modes_of_the_caller_do_not_matter(kind, mode):
    # F58: in-place sums of inference tensors could not go on outside the mode.
    J = jacobians().float()
    expected = KINDS[kind].make().update(J).update(J).matrix()
    with mode():
        accumulator = KINDS[kind].make().update(J)
    torch.testing.assert_close(accumulator.update(J).matrix(), expected, **TIGHT)

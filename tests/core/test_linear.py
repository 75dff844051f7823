"""Through a linear layer, everything is as with gradients at its input."""

import numpy as np
import pytest
import torch

from agop.core import DenseOuterProduct, LinearOuterProduct, subspace_overlap
from tests import reference
from tests.devices import LargestTensor

TIGHT = {"rtol": 1e-10, "atol": 1e-12}


def setting(h=4, d=7, n=30, c=2, seed=0):
    """A layer, and Jacobians with respect to its output."""
    rng = np.random.default_rng(seed)
    W = torch.from_numpy(rng.standard_normal((h, d)))
    return W, torch.from_numpy(rng.standard_normal((n, c, h)) + 0.5)


@pytest.mark.parametrize("h", [1, 4, 7, 11])
@pytest.mark.parametrize("center", [False, True])
def test_equals_gradients_at_the_input(h, center):
    W, J = setting(h)
    weights = torch.linspace(0.1, 3, 30).double()
    through = LinearOuterProduct(W, center=center).update(J, weights)
    direct = DenseOuterProduct(7, center=center).update(J @ W, weights)
    G = reference.outer_product(J @ W, weights, center)
    np.testing.assert_allclose(through.value(), G, **TIGHT)
    torch.testing.assert_close(through.diagonal(), direct.diagonal(), **TIGHT)
    assert through.trace == pytest.approx(direct.trace, rel=1e-12)
    hidden = reference.outer_product(J, weights, center)
    np.testing.assert_allclose(through.hidden(), hidden, **TIGHT)
    for k in (None, 1):
        found, expected = through.spectrum(k), direct.spectrum(k)
        rank = min(h, 7) if k is None else 1
        assert found.directions.shape == (rank, 7)
        torch.testing.assert_close(
            found.eigenvalues, expected.eigenvalues[:rank], **TIGHT
        )
        torch.testing.assert_close(
            found.directions, expected.directions[:rank], rtol=1e-8, atol=1e-8
        )
        assert found.effective_rank == pytest.approx(expected.effective_rank)


def test_linear_network_has_a_closed_form():
    # f(x) = V W x: G = WᵀVᵀV W, at any points.
    W, _ = setting(h=3)
    V = torch.tensor([[1.0, -2.0, 0.5], [0.0, 1.0, 1.0]]).double()
    product = LinearOuterProduct(W).update(V.expand(5, 2, 3))
    torch.testing.assert_close(product.value(), W.T @ V.T @ V @ W)


def test_directions_of_no_influence_are_left_out():
    # A layer of rank 2 and gradients of rank 1: what is left of G has rank 1.
    W, J = setting()
    W[2:] = W[:2]
    u = torch.tensor([1.0, 2.0, -1.0, 0.0]).double()
    spectrum = LinearOuterProduct(W).update(J[:, :1, :1] * u).spectrum()
    assert len(spectrum.eigenvalues) == 1
    expected = (W.T @ u)[None]
    assert float(subspace_overlap(spectrum.directions, expected)) > 1 - 1e-12


def test_no_matrix_of_the_size_of_the_input():
    d, h = 20_000, 3
    W, J = setting(h, d)
    with LargestTensor() as largest:
        product = LinearOuterProduct(W.float())
        product.update(J.float())
        product.merge(LinearOuterProduct(W.float()).update(J.float()))
        assert product.trace == pytest.approx(float(product.diagonal().sum()))
        assert product.spectrum(2).directions.shape == (2, d)
    assert largest.numel <= h * d
    assert product.diagonal().shape == (d,)


def test_the_layer_is_not_copied():
    W = torch.nn.Parameter(setting()[0][:2, :5])
    product = LinearOuterProduct(W)
    assert product.layer_weight.data_ptr() == W.data_ptr()
    assert not product.update(torch.ones(3, 1, 2)).value().requires_grad


def test_width_of_the_jacobians_is_that_of_the_output():
    W, _ = setting()
    with pytest.raises(ValueError, match=r"n_outputs, 4\); got \(3, 2, 7\)"):
        LinearOuterProduct(W).update(torch.zeros(3, 2, 7))

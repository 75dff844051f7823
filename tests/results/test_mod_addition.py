"""R20: a transformer that adds modulo 113, a network with a known answer.

From "Progress measures for grokking via mechanistic interpretability"
(arXiv:2301.05217). It adds by trigonometric identities in a few frequencies. Behind its
ReLU nothing is nonlinear, so the Jacobian of the logits with respect to the neurons is
one matrix W, and their AGOP is WᵀW for any data. All figures were measured without this
library, in float64.
"""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from agop import NetworkAGOP
from tests.results.ansatz import (
    CENTRED,
    CENTRED_TRACE,
    CIRCULANT_DEVIATION,
    EMBEDDING,
    FREQUENCIES,
    NEURONS,
    NEURONS_TRACE,
    PRIME,
    centred,
    circulant_deviation,
    modular_addition,
    one_hot,
    share_of_frequency,
    shares,
)
from tests.results.expected import printed


@pytest.fixture(scope="module")
def network(data_path):
    path = data_path("models/mod_addition_transformer_p113.pt")
    return modular_addition.load(path).double()


@pytest.fixture(scope="module")
def pairs():
    return modular_addition.all_pairs()


def random_pairs(pairs, n):
    order = torch.randperm(len(pairs[0]), generator=torch.Generator().manual_seed(0))
    return pairs[0][order[:n]]


def test_r20_network(network, pairs):
    tokens, sums = pairs
    with torch.no_grad():
        logits = network(tokens)
    assert int((logits.argmax(1) != sums).sum()) == 7
    assert F.cross_entropy(logits, sums).item() == printed(0.00288805, 8)


@pytest.mark.parametrize(
    ("outputs", "trace", "expected"),
    [("all", NEURONS_TRACE, NEURONS), (centred, CENTRED_TRACE, CENTRED)],
    ids=["logits", "centred"],
)
def test_r20_neurons(network, pairs, outputs, trace, expected):
    """The exact answer from any data: here from five pairs."""
    few = random_pairs(pairs, 5)
    model = NetworkAGOP(network, layers="neurons", outputs=outputs, n_probes=None)
    G = model.fit(few).agop_["neurons"]
    assert np.trace(G) == printed(trace, 4)
    assert model.trace_["neurons"] == printed(trace, 4)
    assert shares(G)[:9] == pytest.approx(expected, abs=0.505e-4)
    W = network.output.weight @ network.back.weight
    if outputs is centred:
        W = W - W.mean(0)
    np.testing.assert_allclose(G, (W.T @ W).detach(), atol=1e-10)


def test_r20_rank_and_the_direction_that_softmax_ignores(network, pairs):
    """Cosine and sine of four frequencies; the first moves all logits together."""
    model = NetworkAGOP(network, layers="neurons", n_probes=None)
    model.fit(random_pairs(pairs, 5))
    assert model.components_["neurons"].shape == (8, 512)
    W = (network.output.weight @ network.back.weight).detach().numpy()
    moved = W @ model.components_["neurons"][0]
    together = moved.sum() ** 2 / PRIME / (moved @ moved)
    assert together == printed(0.86, 2)


def test_r20_frequencies_from_a_sample(network, pairs):
    """3 % of the pairs show which frequencies the network uses."""
    G = one_hot(network, random_pairs(pairs, 400))
    found = {k: share_of_frequency(G, k) for k in range(1, PRIME // 2 + 1)}
    assert sorted(found, key=found.get)[::-1][:4] == list(FREQUENCIES)
    for k, share in FREQUENCIES.items():
        assert found[k] == pytest.approx(share, abs=0.02)


@pytest.mark.slow
def test_r20_frequencies(network, pairs):
    G = one_hot(network, pairs[0])
    for k, share in FREQUENCIES.items():
        assert share_of_frequency(G, k) == printed(share, 3)
    assert shares(G)[:6] == pytest.approx(EMBEDDING, abs=0.505e-4)
    assert circulant_deviation(G) == printed(CIRCULANT_DEVIATION, 3)

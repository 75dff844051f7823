"""R21: the Llama of the example is the published one."""

import copy

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from agop import NetworkAGOP
from agop.networks.activations import activations
from tests.results.expected import printed
from tests.results.stories import LAYERS, stories260k


@pytest.fixture(scope="module")
def folder(data_path):
    return data_path("models/stories260K")


@pytest.fixture(scope="module")
def network(folder):
    return stories260k().load(folder)


@pytest.fixture(scope="module")
def samples(folder):
    return torch.from_numpy(stories260k().load_samples(folder))


def test_r21_size(network):
    # The file holds two tables of 512 × 4 angles beside the weights.
    assert sum(p.numel() for p in network.parameters()) == 264_128 - 2 * 512 * 4


def test_r21_greedy_text(network, folder):
    tokens = torch.tensor([[1]])
    with torch.no_grad():
        for _ in range(50):
            best = network(tokens)[:, -1:].argmax(-1)
            tokens = torch.cat([tokens, best], 1)
    text = stories260k().Tokenizer(folder).decode(tokens[0])
    assert text.startswith(
        " Once upon a time, there was a little girl named Lily. She loved to play "
        "outside in the park. One day, she saw a big, red ball."
    )


def test_encoded_text_is_decoded(folder):
    tokenizer = stories260k().Tokenizer(folder)
    text = "Lily saw a zebra, a café and a ☃."
    tokens = tokenizer.encode(text)
    assert tokens[:2] == [1, tokenizer.pieces.index(b" Lily")]
    assert tokenizer.decode(tokens) == " " + text


def test_a_token_does_not_see_later_ones(network, samples):
    with torch.no_grad():
        whole, part = network(samples[:2, :32]), network(samples[:2, :20])
    torch.testing.assert_close(whole[:, :20], part, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_r21_loss(network, samples):
    losses = []
    with torch.no_grad():
        for rows in samples[:256].split(16):
            logits = network(rows)[:, :-1].double()
            losses.append(F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten()))
    assert float(torch.stack(losses).mean()) == printed(1.273856, 6)


@pytest.mark.slow
def test_r21_gated_activations(network, samples):
    gates = [f"{layer}.feed_forward.gate" for layer in LAYERS]
    found = activations(network, gates, samples[:64], position="all", batch_size=16)
    assert {array.shape for array in found.values()} == {(64, 256, 172)}
    means = [float(abs(found[gate]).mean()) for gate in gates]
    assert means == [printed(mean, 3) for mean in (0.109, 0.134, 0.158, 0.232, 0.314)]
    # Half are positive, half negative: not ReLU neurons.
    for gate in gates:
        assert 0.4 < (found[gate] > 0).mean() < 0.6


# ------------------------------------------------------- item 5 of issue 3: its AGOPs
def gradients(network, layer, tokens):
    """Of the log-probability of every next token by every activation, one by one."""
    caught = []

    def hook(module, inputs, output):
        caught.append(output.detach().requires_grad_())
        return caught[-1]

    found = []
    for row in tokens:
        handle = network.get_submodule(layer).register_forward_hook(hook)
        logits = network(row[None, :-1])[0]
        handle.remove()
        scores = logits.log_softmax(-1).gather(1, row[1:, None])[:, 0]
        found += [
            torch.autograd.grad(score, caught[-1], retain_graph=True)[0][0]
            for score in scores
        ]
    return torch.stack(found)  # (n_samples * n_outputs, n_positions, n_features)


def test_agop_of_every_layer_in_one_pass(network, samples):
    """Residual stream and neurons, on real tokens, against a loop over scalars."""
    tokens = samples[:2, :8]
    model = NetworkAGOP(
        network,
        layers=["layers.*", "layers.*.feed_forward.gate"],
        outputs="log_probability",
        dtype="float64",
    ).fit(tokens[:, :-1], tokens[:, 1:])
    assert len(model.agop_) == 10
    double = copy.deepcopy(network).double()
    for layer in ("layers.0", "layers.4", "layers.2.feed_forward.gate"):
        rows = gradients(double, layer, tokens).flatten(0, 1)
        expected = (rows.T @ rows / tokens[:, :-1].numel()).numpy()
        scale = np.abs(expected).max()
        np.testing.assert_allclose(model.agop_[layer], expected, atol=1e-9 * scale)

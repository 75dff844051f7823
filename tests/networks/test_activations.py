"""Activations as arrays, against a plain hook, and the faults of hooks."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from agop.networks.activations import activations


class Twice(nn.Module):
    """A layer that is called two times; dropout and batch normalisation beside it."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.norm = nn.BatchNorm1d(4)
        self.act = nn.ReLU(inplace=True)
        self.again = nn.Linear(4, 4)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        h = self.act(self.norm(self.first(x)))
        return self.drop(self.again(self.again(h)))


class Reader(nn.Module):
    """Tokens to a tuple: (n, t, 5), state."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(9, 4)
        self.rnn = nn.GRU(4, 5, batch_first=True)

    def forward(self, tokens):
        return self.rnn(self.embedding(tokens))


@pytest.fixture
def rows():
    return torch.randn(10, 3, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def tokens():
    return np.random.default_rng(0).integers(9, size=(7, 6))


@pytest.fixture
def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Twice()


@pytest.fixture
def reader():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Reader()


# ------------------------------------------------------------------------ the numbers
@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_table_against_the_layers_called_by_hand(network, rows, batch_size):
    found = activations(
        network, ["first", "norm", "again@1"], rows, batch_size=batch_size
    )
    network.eval()
    with torch.no_grad():
        first = network.first(rows)
        norm = network.norm(first)
        last = network.again(network.again(norm.relu()))
    for name, expected in {"first": first, "norm": norm, "again@1": last}.items():
        # Also where the layer behind works in place.
        np.testing.assert_allclose(found[name], expected, rtol=1e-6, atol=1e-7)


def test_positions_of_tokens(reader, tokens):
    with torch.no_grad():
        states, _ = reader(torch.from_numpy(tokens))
    states = states.numpy()
    last = np.arange(len(tokens)) % tokens.shape[1]
    for position, expected in [
        ("mean", states.mean(1)),
        ("all", states),
        (-1, states[:, -1]),
        (2, states[:, 2]),
        (last, states[np.arange(len(tokens)), last]),
        (last - 6, states[np.arange(len(tokens)), last]),
    ]:
        found = activations(reader, "rnn", tokens, position=position, batch_size=3)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_pixels_are_positions_of_an_image():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        convolution = nn.Conv2d(1, 3, 2)
    images = torch.randn(4, 1, 5, 6, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        maps = convolution(images).numpy()
    found = activations(nn.Sequential(convolution, nn.Flatten()), "0", images)
    np.testing.assert_allclose(found, maps.mean((2, 3)), rtol=1e-5, atol=1e-6)


def test_a_module_or_a_name_gives_an_array_and_a_list_a_dict(network, rows):
    one = activations(network, network.first, rows)
    assert one.shape == (10, 4)
    listed = activations(network, ["first"], rows)
    assert list(listed) == ["first"]
    np.testing.assert_array_equal(listed["first"], one)


def test_the_input_of_a_layer(network, rows):
    found = activations(network, "first:input", rows)
    np.testing.assert_array_equal(found, rows)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_precision_of_the_network(network, rows, dtype):
    found = activations(network.to(dtype), "first", rows)
    assert found.dtype == (np.float64 if dtype == torch.float64 else np.float32)


def test_loader_and_array_agree(network, rows):
    """Nk: batches of (x, y), the last one short."""
    loader = DataLoader(TensorDataset(rows, torch.arange(10)), batch_size=4)
    np.testing.assert_allclose(
        activations(network, "norm", loader),
        activations(network, "norm", rows.numpy()),
        rtol=1e-6,
    )


# ------------------------------------------------------------------- the network stays
def test_network_is_left_as_it_was(network, rows):
    """Nb, Nc: train mode, running statistics, gradients, hooks."""
    network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    first = activations(network, "again@0", rows)
    np.testing.assert_array_equal(first, activations(network, "again@0", rows))
    assert all(module.training for module in network.modules())
    assert all(p.grad is None and p.requires_grad for p in network.parameters())
    assert not any(module._forward_hooks for module in network.modules())
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_result_does_not_depend_on_the_mode_outside(network, rows, mode):
    """Nh."""
    expected = activations(network, "norm", rows)
    with mode():
        np.testing.assert_array_equal(activations(network, "norm", rows), expected)


# ----------------------------------------------------------------------------- errors
@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ("fist", "no layer 'fist'. Near names: first"),
        ("*", "stands for 5 layers. Put it into a list"),
        ("again", "called 2 times"),
        ("first:patch", "':input'"),
    ],
)
def test_unknown_or_ambiguous_layers(network, rows, layers, message):
    with pytest.raises(ValueError, match=message):
        activations(network, layers, rows)


@pytest.mark.parametrize(
    ("position", "message"),
    [
        ("last", "one of {'mean', 'all'}, an int, or one int for each"),
        (1.5, "one of {'mean', 'all'}, an int, or one int for each"),
        (6, "does not fit a layer with 6 positions: use -6 … 5"),
        ([0, 1], "2 entries for 7 samples"),
        (np.zeros((7, 2), int), "one int for each"),
    ],
)
def test_positions_that_are_not_there(reader, tokens, position, message):
    with pytest.raises(ValueError, match=message):
        activations(reader, "embedding", tokens, position=position)


def test_too_few_positions_for_batches(reader, tokens):
    batches = [torch.from_numpy(tokens[:4]), torch.from_numpy(tokens[4:])]
    with pytest.raises(ValueError, match="5 entries, but there are more samples"):
        activations(reader, "embedding", batches, position=np.zeros(5, int))

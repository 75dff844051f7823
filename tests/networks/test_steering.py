"""Steering against activations that are changed by hand, and the traps of hooks."""

import contextlib
import math
import re
import warnings
from typing import NamedTuple

import numpy as np
import pytest
import torch
from sklearn.neural_network import MLPRegressor
from torch import nn

from agop.networks.steering import ablate, steer
from tests.devices import DEVICES


@contextlib.contextmanager
def seeded(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(
        *shape, generator=torch.Generator().manual_seed(seed), dtype=dtype
    )


def mlp(activation=nn.Tanh, width=5, n_outputs=3):
    with seeded():
        layers = nn.Linear(4, width), activation(), nn.Linear(width, n_outputs)
        return nn.Sequential(*layers).double()


class Same(nn.Module):
    """Returns its input; a layer of any kind in a test."""

    def forward(self, x):
        return x


def same():
    return nn.Sequential(Same())


class Returned(NamedTuple):
    hidden: torch.Tensor
    state: torch.Tensor


class Pair(nn.Module):
    """Called with a keyword, returns a named tuple."""

    def forward(self, *, x):
        return Returned(2 * x, 3 * x)


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = Same()

    def forward(self, x):
        return self.layer(3 * self.layer(x))


def n_hooks(network):
    return sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks)
        for module in network.modules()
    )


# ----------------------------------------------------------------------- what is added
@pytest.mark.parametrize("activation", [nn.Tanh, lambda: nn.ReLU(inplace=True)])
@pytest.mark.parametrize("strength", [0.0, 0.7, -3])
def test_output_of_a_layer(activation, strength):
    network, x, direction = mlp(activation), randn(6, 4), randn(5, seed=1)
    hidden = network[0](x) + strength * direction
    expected = network[2](network[1](hidden))
    for layer in ("0", network[0]):
        with steer(network, layer, direction.numpy(), strength) as steered:
            assert steered is network
            assert torch.equal(network(x), expected)
    assert n_hooks(network) == 0


@pytest.mark.parametrize(("layer", "width"), [("2:input", 5), ("input", 4)])
def test_what_a_layer_or_the_network_is_given(layer, width):
    network, x, direction = mlp(), randn(6, 4), randn(width, seed=1)
    given = x.clone()
    before = network[1](network[0](x))
    expected = network(x + direction) if width == 4 else network[2](before + direction)
    with steer(network, layer, direction):
        assert torch.equal(network(x), expected)
    assert torch.equal(x, given)


ALL = slice(None)


@pytest.mark.parametrize(
    ("module", "shape", "direction", "positions", "where"),
    [
        (Same(), (7,), (7,), None, (ALL,)),
        # tokens: over the last dimension
        (Same(), (6, 7), (7,), None, (ALL, ALL)),
        (Same(), (6, 7), (7,), -1, (-1, ALL)),
        (Same(), (6, 7), (7,), slice(2, None, 2), (slice(2, None, 2), ALL)),
        (Same(), (6, 7), (7,), [0, -2], ([0, 4], ALL)),
        (Same(), (6, 7), (7,), np.array([1, 5]), ([1, 5], ALL)),
        (Same(), (6, 7), (7,), range(3), ([0, 1, 2], ALL)),
        (Same(), (1, 7), (7,), -1, (0, ALL)),
        # pixels: over the channels, dimension 1
        (Same(), (3, 4, 5), (3,), None, (ALL, ALL, ALL)),
        (Same(), (3, 4, 5), (3,), (1, -1), (ALL, 1, 4)),
        (Same(), (3, 4, 5), (3,), (slice(1, 3), 0), (ALL, slice(1, 3), 0)),
        (Same(), (3, 4, 5), (3,), 2, (ALL, 2, ALL)),
        (Same(), (3, 4, 5), (3,), ([0, 3], [1, 1]), (ALL, [0, 3], 1)),
        # all entries of an activation, flat or in its shape
        (Same(), (6, 7), (42,), None, (ALL, ALL)),
        (Same(), (6, 7), (6, 7), None, (ALL, ALL)),
        (Same(), (3, 4, 5), (60,), None, (ALL, ALL, ALL)),
        (Same(), (3, 4, 5), (3, 4, 5), None, (ALL, ALL, ALL)),
    ],
)
def test_where_a_direction_is_added(module, shape, direction, positions, where):
    x, d = randn(2, *shape), randn(*direction, seed=1)
    added = np.zeros(shape)
    if d.numel() == x[0].numel():
        whole = d.numpy().reshape(shape)
    elif len(shape) == 3:
        whole = np.broadcast_to(d.numpy()[:, None, None], shape)
    else:
        whole = np.broadcast_to(d.numpy(), shape)
    added[where] = whole[where]
    expected = x.numpy() + 2 * added
    with steer(nn.Sequential(module), "0", d, 2.0, positions=positions) as network:
        np.testing.assert_allclose(network(x), expected, atol=1e-15)


def test_features_of_linear_layers_are_last_those_of_convolutions_second():
    with seeded():
        linear = nn.Linear(4, 4).double()
        convolution = nn.Conv1d(4, 4, 1).double()
    d = randn(4, seed=1)
    x = randn(2, 4, 4, 4)  # channels last, as in networks of windows
    with steer(linear, linear, d) as network:
        moved = network(x)
    assert torch.equal(moved, linear(x) + d)
    series = randn(2, 4, 4)
    with steer(convolution, convolution, d) as network:
        moved = network(series)
    assert torch.equal(moved, convolution(series) + d[:, None])


def test_first_tensor_of_what_is_returned():
    with seeded():
        lstm = nn.LSTM(3, 4, batch_first=True).double()
    x, d = randn(2, 5, 3), randn(4, seed=1)
    hidden, (h, c) = lstm(x)
    with steer(lstm, lstm, d, positions=-1):
        moved, states = lstm(x)
    assert torch.equal(moved[:, -1], hidden[:, -1] + d)
    assert torch.equal(moved[:, :-1], hidden[:, :-1])
    assert torch.equal(states[0], h)
    assert torch.equal(states[1], c)
    pair = Pair()
    with steer(pair, pair, d) as network:
        returned = network(x=x[:, 0, :1].expand(2, 4))
    assert isinstance(returned, Returned)
    expected = x[:, 0, :1].expand(2, 4)
    assert torch.equal(returned.hidden, 2 * expected + d)
    assert torch.equal(returned.state, 3 * expected)
    with steer(pair, "input", d) as network:  # a keyword argument
        assert torch.equal(network(x=expected).state, 3 * (expected + d))


def test_every_call_of_a_layer_is_steered():
    x, d = randn(2, 4), randn(4, seed=1)
    for name in ("layer", "layer@sum"):
        with steer(Twice(), name, d) as network:
            assert torch.allclose(network(x), 3 * (x + d) + d)


def test_nested_statements_add_up():
    network, x = mlp(), randn(6, 4)
    first, second = randn(5, seed=1), randn(3, seed=2)
    with steer(network, "0", first), steer(network, "0", first, -1.0):
        assert torch.allclose(network(x), network[2](network[1](network[0](x))))
        with steer(network, "2", second):
            moved = network(x)
    assert torch.allclose(moved, network(x) + second)


# ------------------------------------------------------------- gradients, modes, types
def test_gradients_of_the_network_and_of_the_direction():
    network, x = mlp().train(), randn(6, 4)
    direction = randn(5, seed=1).requires_grad_()
    network[2](network[1](network[0](x) + 0.5 * direction)).square().sum().backward()
    expected = [p.grad.clone() for p in (*network.parameters(), direction)]
    for tensor in (*network.parameters(), direction):
        tensor.grad = None
    with steer(network, "0", direction, 0.5):
        network(x).square().sum().backward()
    for tensor, gradient in zip(
        (*network.parameters(), direction), expected, strict=True
    ):
        assert torch.allclose(tensor.grad, gradient, rtol=1e-12)
    assert network.training


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_under_no_grad_and_inference_mode(mode):
    network, x, d = mlp(), randn(6, 4), randn(5, seed=1)
    expected = network[2](network[1](network[0](x) + d))
    with mode(), steer(network, "0", d):
        result = network(x)
    assert torch.equal(result, expected)
    assert not result.requires_grad


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_direction_takes_the_type_of_the_activation(dtype):
    x = torch.ones(2, 3, dtype=dtype)
    for d in (np.array([1, 2, 3]), np.array([1.0, 2, 3]), torch.tensor([1, 2, 3])):
        with steer(same(), "0", d) as network:
            result = network(x)
        assert result.dtype == dtype
        assert result[0].tolist() == [2, 3, 4]
        with ablate(same(), "0", [0, 0, 7]) as network:
            result = network(x)
        assert result.dtype == dtype
        assert result[0].tolist() == [1, 1, 0]


@pytest.mark.parametrize("device", DEVICES)
def test_on_a_device(device):
    x, d = randn(2, 3, 5, 5), randn(3, seed=1)
    for context in (steer, ablate):
        for positions in (None, (1, slice(2))):
            with context(same(), "0", d.numpy(), positions=positions) as network:
                there = network(x.to(device))
                assert torch.allclose(there.cpu(), network(x))
    with ablate(same(), "0", d, reference=x.to(device)) as network:
        there = network(x.to(device))
    with ablate(same(), "0", d, reference=x) as network:
        assert torch.allclose(there.cpu(), network(x))


def test_the_direction_is_taken_as_it_was():
    d = np.ones(3)
    with steer(same(), "0", d) as network:
        d[:] = 5
        assert torch.equal(network(torch.zeros(1, 3)), torch.ones(1, 3))


# -------------------------------------------------------------------------- leaving it
@pytest.mark.parametrize("context", [steer, ablate])
def test_hooks_are_gone_after_an_exception(context):
    network, x = mlp(), randn(6, 4)
    before = network(x)
    kept = network[0].register_forward_hook(lambda *_: None)
    with pytest.raises(KeyError, match="mine"), context(network, "0", np.ones(5)):
        raise KeyError("mine")
    assert n_hooks(network) == 1
    kept.remove()
    with pytest.raises(ValueError, match="does not fit"), context(network, "0", [1, 2]):
        network(x)
    assert n_hooks(network) == 0
    assert torch.equal(network(x), before)


# faults: compiled networks (dictionaries.md 13), layers whose weights alone are used
@pytest.mark.parametrize("context", [steer, ablate])
def test_a_layer_that_is_never_called_warns(context):
    with seeded():
        attention = nn.MultiheadAttention(4, 2, batch_first=True).double()
        embedding = nn.Embedding(3, 4)
    with (
        pytest.warns(RuntimeWarning, match="Nothing passed 'out_proj'") as caught,
        context(attention, "out_proj", np.ones(4)),
    ):
        attention(*[randn(2, 3, 4)] * 3)
    assert caught[0].filename == __file__
    with (
        pytest.warns(RuntimeWarning, match="Nothing passed 'input'"),
        context(embedding, "input", np.ones(4)) as network,
    ):
        network(torch.tensor([[0, 1]]))


@pytest.mark.slow
def test_compiled_networks_run_without_hooks_and_warn():
    network, x = mlp(), randn(6, 4)
    compiled = torch.compile(network, backend="eager")
    before = compiled(x)
    with (
        pytest.warns(RuntimeWarning, match="compiled"),
        steer(compiled, "0", [1.0] * 5),
    ):
        assert torch.equal(compiled(x), before)
    with steer(compiled, "0", [1.0] * 5) as plain:
        assert not torch.equal(plain(x), before)


def test_fused_transformer_layers_are_steered():
    with seeded():
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    network = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    network = network.double().eval()
    x, d = randn(2, 3, 8), randn(16, seed=1)
    results = []
    for recording in (True, False):  # without gradients torch would fuse the layer
        with (
            torch.set_grad_enabled(recording),
            steer(network, "layers.0.linear1", d, 3.0),
        ):
            results.append(network(x).detach())
    assert torch.allclose(*results, atol=1e-12)
    assert not torch.allclose(results[0], network(x), atol=1e-2)


def test_networks_of_other_libraries():
    X = np.random.default_rng(0).normal(size=(20, 3))
    model = MLPRegressor(hidden_layer_sizes=(4,), max_iter=3, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(X, X[:, 0])
    with steer(model, "output", [1.5]) as network:
        moved = network(torch.from_numpy(X))
    np.testing.assert_allclose(moved.detach().squeeze(), model.predict(X) + 1.5)
    with steer(torch.sin, "input", [math.pi]) as network:
        x = randn(5, 1)
        assert torch.allclose(network(x), -torch.sin(x))


# ------------------------------------------------------------------------------ errors
@pytest.mark.parametrize(
    ("layer", "direction", "options", "message"),
    [
        ("hidde", np.ones(5), {}, "no layer 'hidde'. Near names: hidden"),
        (nn.ReLU(), np.ones(5), {}, "ReLU is not part of this network"),
        (["hidden", "conv"], np.ones(5), {}, "means 2 places .*nest"),
        ("conv:patch", np.ones(27), {}, "'conv:patch': patches overlap"),
        ("hidden@0", np.ones(5), {}, "'hidden@0': calls cannot be told apart"),
        ("hidden", np.ones(4), {}, r"shape \(4,\) does not fit .*fits: \(5,\)"),
        ("hidden", np.ones((1, 5)), {}, r"shape \(1, 5\) does not fit"),
        (
            "conv",
            np.ones(6),
            {},
            r"at 'conv', of shape \(3, 6, 6\).*\(3,\) \(at every position\) or \(3, 6",
        ),
        ("input", np.ones(7), {}, "at 'input', of shape"),
        ("hidden", [1, 2, np.nan, 4, 5], {}, "direction contains NaN"),
        ("hidden", torch.full((5,), torch.inf), {}, "direction contains NaN or inf"),
        ("hidden", 1.0, {}, r"shape \(1,\) does not fit"),
        ("hidden", [], {}, "direction must be a vector"),
        ("hidden", ["1", "2"], {}, "direction holds strings"),
        ("hidden", np.ones(5), {"strength": np.inf}, "'strength' parameter of steer"),
        ("hidden", np.ones(5), {"strength": "1"}, "'strength' parameter of steer"),
        ("hidden", np.ones(5), {"positions": 0}, "which has no positions"),
        ("conv", np.ones(3), {"positions": 6}, r"positions of shape \(6, 6\)"),
        ("conv", np.ones(3), {"positions": (0, 0, 0)}, "does not fit the activation"),
        ("conv", np.ones(3), {"positions": "last"}, "does not fit the activation"),
        ("conv", np.ones(108), {"positions": (0, 0)}, "has no positions"),
        ("flat", np.ones(1), {}, "What fits: none"),
    ],
)
def test_errors_say_what_would_do(layer, direction, options, message):
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 3, 3)
            self.hidden = nn.Linear(3, 5)
            self.flat = Same()

        def forward(self, x):
            x = self.hidden(self.conv(x).mean((2, 3)))
            return self.flat(x.sum(1))

    with seeded():
        network = Network()
    x = torch.ones(2, 1, 8, 8)
    if options.get("positions") == "last":
        message = "positions='last'"
    with (
        pytest.raises(ValueError, match=re.compile(message, re.DOTALL)),
        steer(network, layer, direction, **options),
    ):
        network(x)
    assert n_hooks(network) == 0


# ------------------------------------------------------------------------------ ablate
def projector(directions):
    """Onto the span, through the pseudo-inverse."""
    return np.linalg.pinv(directions) @ directions


@pytest.mark.parametrize("n_directions", [1, 2, 5])
def test_ablation_is_a_projection(n_directions):
    directions, x = randn(n_directions, 5, seed=1).numpy(), randn(6, 5)
    expected = x.numpy() @ (np.eye(5) - projector(directions))
    with ablate(same(), "0", directions) as network:
        once = network(x)
        np.testing.assert_allclose(once, expected, atol=1e-14)
        np.testing.assert_allclose(network(once), once, atol=1e-14)
    mixed = randn(n_directions, n_directions) @ torch.from_numpy(directions)
    with ablate(same(), "0", 1e5 * mixed) as network:  # the span alone counts
        np.testing.assert_allclose(network(x), once, atol=1e-11)
    with ablate(same(), "0", directions[0]) as network:
        assert abs(network(x).numpy() @ directions[0]).max() < 1e-13


def test_directions_that_depend_on_each_other():
    directions, x = randn(2, 5, seed=1), randn(6, 5)
    more = torch.cat([directions, 1e-9 * directions.sum(0, keepdim=True)])
    for rows in (more, more.float()):
        with ablate(same(), "0", directions.to(rows)) as network:
            expected = network(x)
        with ablate(same(), "0", rows) as network:
            assert torch.allclose(network(x), expected, atol=1e-6)


def test_directions_of_very_different_length():
    directions, x = randn(2, 5, seed=1), randn(6, 5)
    with ablate(same(), "0", directions) as network:
        expected = network(x)
    scaled = directions * torch.tensor([[1e-30], [1e30]])
    with ablate(same(), "0", scaled) as network:
        assert torch.allclose(network(x), expected, atol=1e-12)


def test_reference_data_are_not_changed():
    """Row Ne: a first layer that works in place."""
    network = nn.Sequential(nn.ReLU(inplace=True))
    reference = randn(6, 4)
    before = reference.clone()
    with ablate(network, "0", np.eye(4), reference=reference):
        moved = network[0](randn(1, 4))
    assert torch.equal(reference, before)
    assert torch.allclose(moved, before.relu().mean(0, keepdim=True))


@pytest.mark.parametrize(
    ("shape", "width", "positions"),
    [
        ((6, 7), 7, None),
        ((6, 7), 7, [0, 3]),
        ((6, 7), 42, None),
        ((3, 4, 5), 3, None),
        ((3, 4, 5), 3, (0, 2)),
    ],
)
def test_ablation_at_positions(shape, width, positions):
    directions, x = randn(2, width, seed=1).numpy(), randn(4, *shape)
    kept = np.eye(width) - projector(directions)
    expected = x.numpy().copy()
    if width == 42:
        expected = (expected.reshape(4, 42) @ kept).reshape(x.shape)
    elif len(shape) == 2:
        rows = slice(None) if positions is None else positions
        expected[:, rows] = expected[:, rows] @ kept
    elif positions is None:
        expected = np.einsum("nchw,cd->ndhw", expected, kept)
    else:
        expected[:, :, 0, 2] = expected[:, :, 0, 2] @ kept
    with ablate(same(), "0", directions, positions=positions) as network:
        np.testing.assert_allclose(network(x), expected, atol=1e-13)


@pytest.mark.parametrize("positions", [None, -1])
def test_ablation_to_the_mean_over_reference_data(positions):
    with seeded():
        network = nn.Sequential(nn.Linear(3, 5), nn.Dropout(0.5)).double().train()
    reference, x = randn(300, 4, 3, seed=2), randn(6, 4, 3)
    directions = randn(2, 5, seed=1)
    rows = slice(None) if positions is None else [3]
    mean = network[0](reference)[:, rows].mean((0, 1)).detach().numpy()
    P = projector(directions.numpy())
    expected = network[0](x).detach().numpy()
    expected[:, rows] = expected[:, rows] - (expected[:, rows] - mean) @ P
    batches = [reference[:7], reference[7:]]
    for data in (reference, batches, (batch for batch in batches)):
        with ablate(network, "0", directions, positions=positions, reference=data):
            np.testing.assert_allclose(network[0](x).detach(), expected, atol=1e-13)
    assert network[1].training
    assert all(p.requires_grad and p.grad is None for p in network.parameters())


def test_ablation_lets_gradients_pass():
    network, x, directions = mlp(), randn(6, 4), randn(2, 5, seed=1)
    kept = torch.eye(5) - torch.from_numpy(projector(directions.numpy()))
    network[2](network[1](network[0](x) @ kept)).square().sum().backward()
    expected = [p.grad.clone() for p in network.parameters()]
    network.zero_grad()
    with ablate(network, "0", directions):
        network(x).square().sum().backward()
    for parameter, gradient in zip(network.parameters(), expected, strict=True):
        assert torch.allclose(parameter.grad, gradient, atol=1e-12)


@pytest.mark.parametrize(
    ("directions", "options", "message"),
    [
        (np.zeros(5), {}, "directions is zero"),
        ([[1.0, 0, 0, 0, 0], np.zeros(5)], {}, "directions is zero"),
        (np.full((2, 5), np.nan), {}, "directions contains NaN"),
        (np.ones((2, 5, 1)), {}, "must be of shape"),
        (np.ones((2, 4)), {}, "does not fit"),
        (np.ones(5), {"reference": np.ones((0, 4))}, "0 sample"),
        (np.ones(4), {"reference": np.ones((3, 4))}, "does not fit"),
    ],
)
def test_errors_of_ablate(directions, options, message):
    network = mlp()
    with (
        pytest.raises(ValueError, match=message),
        ablate(network, "0", directions, **options),
    ):
        network(randn(2, 4))
    assert n_hooks(network) == 0

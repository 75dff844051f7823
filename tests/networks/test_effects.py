"""The effect of steering, against loops over samples and Jacobians of torch.func."""

import contextlib
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.autograd.functional import jacobian
from torch.func import jacrev, vmap

from agop.networks.effects import effect_curve
from agop.networks.estimator import NetworkAGOP
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


def n_hooks(network):
    return sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks)
        for module in network.modules()
    )


def by_hand(network, X, d, strengths):
    """Changes of the outputs, (n_strengths, n, c), one sample at a time."""
    with torch.no_grad():
        return np.array(
            [
                [
                    (
                        network[2](network[1](network[0](x) + s * d))
                        - network[2](network[1](network[0](x)))
                    ).numpy()
                    for x in X
                ]
                for s in strengths
            ]
        )


def test_curve_against_a_loop_and_torch_func():
    network, X, d = mlp(), randn(50, 4), randn(5, seed=1)
    strengths = [-4.0, 0.0, 1e-4, 1.0]
    changes = by_hand(network, X, d, strengths)

    def behind(hidden):
        return network[2](network[1](hidden))

    J = vmap(jacrev(behind))(network[0](X)).detach()  # (n, c, d)
    G = torch.einsum("ncd,nce->de", J, J) / len(X)
    for size in (7, 50, 256):
        curve = effect_curve(network, "0", d, X.numpy(), strengths, batch_size=size)
        assert curve.n_samples == 50
        np.testing.assert_array_equal(curve.strengths, strengths)
        np.testing.assert_allclose(curve.mean, changes.mean(1), atol=1e-13)
        np.testing.assert_allclose(
            curve.standard_error, changes.std(1, ddof=1) / math.sqrt(50), atol=1e-13
        )
        np.testing.assert_allclose(
            curve.squared, (changes**2).sum(2).mean(1), atol=1e-13
        )
        np.testing.assert_allclose(curve.baseline, network(X).mean(0).detach())
        np.testing.assert_allclose(curve.slope, (J @ d).mean(0), atol=1e-13)
        np.testing.assert_allclose(curve.energy, d @ G @ d, rtol=1e-12)
    # Small strengths agree with the first order, large ones do not.
    small = 2
    np.testing.assert_allclose(
        curve.squared[small], curve.predicted_squared[small], rtol=1e-3
    )
    np.testing.assert_allclose(
        curve.mean[small], curve.predicted_mean[small], rtol=1e-3, atol=1e-9
    )
    assert curve.predicted_squared[0] > 1.5 * curve.squared[0]
    assert not curve.mean[1].any()
    assert not curve.squared[1].any()


def test_curve_of_a_linear_network_is_its_prediction():
    network, X, d = mlp(nn.Identity), randn(9, 4), randn(5, seed=1)
    curve = effect_curve(network, "0", d, X, np.linspace(-40, 40, 5))
    np.testing.assert_allclose(curve.mean, curve.predicted_mean, atol=1e-12)
    np.testing.assert_allclose(curve.squared, curve.predicted_squared, rtol=1e-12)
    W = network[2].weight.detach()
    np.testing.assert_allclose(curve.energy, (W @ d).square().sum())
    assert curve.standard_error.max() < 1e-13


def test_energy_is_that_of_the_network_agop():
    network, X = mlp(), randn(30, 4)
    for layer in ("input", "0"):
        agop = NetworkAGOP(network, layers=layer, n_components=3).fit(X)
        for value, component in zip(
            agop.eigenvalues_[layer], agop.components_[layer], strict=True
        ):
            curve = effect_curve(network, layer, component, X, [0.0])
            np.testing.assert_allclose(curve.energy, value, rtol=1e-10)


@pytest.mark.parametrize("device", DEVICES)
def test_curve_on_a_device(device):
    network, X, d = mlp().to(device), randn(30, 4), randn(5, seed=1)
    curve = effect_curve(network, "0", d.numpy(), X.numpy(), [-1.0, 2.0])
    expected = effect_curve(network.cpu(), "0", d, X, [-1.0, 2.0])
    np.testing.assert_allclose(curve.mean, expected.mean, atol=1e-12)
    np.testing.assert_allclose(curve.energy, expected.energy)


def test_curve_at_one_token_and_at_all():
    """One token: dᵀGd with its own Jacobian. All: the Jacobians of tokens add up."""

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(11, 6)
            self.block = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True)
            self.head = nn.Linear(6, 3)

        def forward(self, tokens):
            return self.head(self.block(self.embedding(tokens))).mean(1)

    with seeded():
        network = Network().double()
    tokens = torch.from_numpy(np.random.default_rng(0).integers(11, size=(8, 5)))
    d = randn(6, seed=1)
    network.eval()
    hidden = network.embedding(tokens).detach()
    J = torch.stack(
        [
            jacobian(lambda h: network.head(network.block(h[None])).mean(1)[0], row)
            for row in hidden
        ]
    )  # (n, c, t, d)
    network.train()
    for positions, Jd in [(-1, J[:, :, -1] @ d), (None, J.sum(2) @ d)]:
        curve = effect_curve(
            network, "embedding", d, tokens, [1e-5], positions=positions
        )
        energy = Jd.square().sum(1).mean()
        np.testing.assert_allclose(curve.energy, energy, rtol=1e-10)
        np.testing.assert_allclose(curve.squared, [1e-10 * energy], rtol=1e-3)
    assert network.training


@pytest.mark.parametrize(
    ("outputs", "function"),
    [
        (1, lambda f, y: f[:, [1]]),
        ("probabilities", lambda f, y: f.softmax(1)),
        ("label", lambda f, y: f.gather(1, y[:, None])),
        (lambda f, y: f[:, 0] * y, lambda f, y: (f[:, 0] * y)[:, None]),
    ],
)
def test_curve_of_selected_outputs(outputs, function):
    network, X, d = mlp(), randn(20, 4), randn(5, seed=1)
    y = torch.from_numpy(np.random.default_rng(0).integers(3, size=20))
    curve = effect_curve(network, "0", d, X, [0.5], y, outputs=outputs, batch_size=6)
    with torch.no_grad():
        hidden = network[0](X)
        behind = nn.Sequential(network[1], network[2])
        change = function(behind(hidden + 0.5 * d), y) - function(behind(hidden), y)
    np.testing.assert_allclose(curve.mean[0], change.mean(0), atol=1e-14)
    assert np.isfinite(curve.energy)


def test_curve_of_what_has_no_derivative():
    network, X, d = mlp(), randn(30, 4), randn(5, seed=1)

    def chosen(output):
        return nn.functional.one_hot(output.argmax(1), 3).double()

    curve = effect_curve(network, "0", d, X, [-5.0, 5.0], outputs=chosen)
    with torch.no_grad():
        behind = nn.Sequential(network[1], network[2])
        rates = [
            chosen(behind(network[0](X) + s * d)).mean(0).numpy() for s in (-5, 0, 5)
        ]
    np.testing.assert_allclose(curve.baseline, rates[1])
    np.testing.assert_allclose(curve.mean, [rates[0] - rates[1], rates[2] - rates[1]])
    assert math.isnan(curve.energy)
    assert np.isnan(curve.slope).all()
    assert np.isfinite(curve.standard_error).all()


def test_many_outputs_by_random_probes():
    network, X, d = mlp(n_outputs=80), randn(400, 4), randn(5, seed=1)
    exact = effect_curve(network, "0", d, X, [1.0], n_probes=None)
    rough = effect_curve(network, "0", d, X, [1.0], random_state=0)
    again = effect_curve(network, "0", d, X, [1.0], random_state=0)
    other = effect_curve(network, "0", d, X, [1.0], random_state=1)
    assert rough.energy == again.energy != other.energy
    assert rough.energy != exact.energy
    np.testing.assert_allclose(rough.energy, exact.energy, rtol=0.1)
    # Each output of a sample has the variance ‖Jd‖² / 32, and 400 are averaged.
    error = math.sqrt(exact.energy / 32 / 400)
    np.testing.assert_allclose(rough.slope, exact.slope, rtol=0, atol=5 * error)
    assert np.std(rough.slope - exact.slope) > error / 2
    np.testing.assert_array_equal(rough.mean, exact.mean)


def test_curve_reads_data_once_and_leaves_the_network_alone():
    with seeded():
        network = nn.Sequential(
            nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(inplace=True), nn.Dropout(0.9)
        )
    network[0].weight.requires_grad_(False)
    state = {name: t.clone() for name, t in network.state_dict().items()}
    X, d = randn(40, 4).float(), randn(5, seed=1)
    batches = (batch for batch in X.split(16))
    with torch.no_grad():
        curve = effect_curve(network, "0", d, batches, [1.0])
    with torch.inference_mode():
        whole = effect_curve(network, "0", d, X, [1.0])
    np.testing.assert_allclose(curve.mean, whole.mean, rtol=1e-6)
    np.testing.assert_allclose(curve.energy, whole.energy, rtol=1e-6)
    assert all(torch.equal(t, state[name]) for name, t in network.state_dict().items())
    assert all(module.training for module in network.modules())
    assert [p.requires_grad for p in network.parameters()] == [False, True, True, True]
    assert all(p.grad is None for p in network.parameters())
    assert n_hooks(network) == 0


@pytest.mark.parametrize("layer", ["input", "1"])
def test_curve_of_a_network_that_works_in_place(layer):
    """Row Ne: neither the data nor the next pass notice."""

    class Doubling(nn.Module):
        def forward(self, x):
            return x.mul_(2)

    X, d = randn(6, 4), randn(4, seed=1)
    before = X.clone()
    network = nn.Sequential(Doubling(), nn.Identity())
    curve = effect_curve(network, layer, d, X, [1.0, 2.0])
    assert torch.equal(X, before)
    step = 2 * d if layer == "input" else d
    np.testing.assert_allclose(curve.mean, np.outer([1, 2], step), atol=1e-14)
    np.testing.assert_allclose(curve.baseline, 2 * X.mean(0), atol=1e-14)


def test_direction_made_in_inference_mode():
    with torch.inference_mode():
        d = randn(5, seed=1)
    curve, expected = (
        effect_curve(mlp(), "0", direction, randn(6, 4), [1.0])
        for direction in (d, d.tolist())
    )
    assert curve.energy == expected.energy


def test_curve_of_one_sample_has_no_standard_error():
    curve = effect_curve(mlp(), "0", randn(5), randn(1, 4), [1.0])
    assert np.isnan(curve.standard_error).all()
    assert np.isfinite(curve.squared).all()


def test_mean_of_small_changes_beside_large_outputs():
    """Means and errors are taken of the changes, not of large numbers apart."""
    network, X, d = mlp(), randn(64, 4), 1e-6 * randn(5, seed=1)
    changes = by_hand(network, X, d, [1.0])
    with torch.no_grad():
        network[2].bias += 1000
    curve = effect_curve(network, "0", d, X, [1.0], batch_size=5)
    np.testing.assert_allclose(curve.mean, changes.mean(1), rtol=1e-5)
    np.testing.assert_allclose(
        curve.standard_error, changes.std(1, ddof=1) / 8, rtol=1e-4
    )


class TimeFirst(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(4, 5)

    def forward(self, x):
        return self.rnn(x.transpose(0, 1))[0][-1]


class Apart(nn.Module):
    """One layer is not called, one number for the whole batch is returned."""

    def __init__(self):
        super().__init__()
        self.used = nn.Linear(4, 5)
        self.idle = nn.Linear(4, 5)

    def forward(self, x):
        return self.used(x).sum()


class Random(nn.Module):
    """Row Nc: dropout that eval mode does not switch off."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 5)

    def forward(self, x):
        return nn.functional.dropout(self.layer(x))


class Mixed(nn.Module):
    """Row Nb: batch statistics also in eval mode."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 5)
        self.norm = nn.BatchNorm1d(5, track_running_stats=False)

    def forward(self, x):
        return self.norm(self.layer(x)).square()


def made(kind):
    with seeded():
        return kind().double()


def broken():
    network = mlp()
    with torch.no_grad():
        network[0].weight[0, 0] = torch.nan
    return network


@pytest.mark.parametrize(
    ("network", "layer", "options", "message"),
    [
        (mlp(), "0", {"strengths": [1.0, np.nan]}, "'strengths' parameter"),
        (mlp(), "0", {"strengths": 1.0}, "'strengths' parameter"),
        (mlp(), "0", {"strengths": []}, "'strengths' parameter"),
        (mlp(), "0", {"n_probes": 0}, "'n_probes' parameter of effect_curve"),
        (mlp(), "0", {"batch_size": "auto"}, "'batch_size' parameter of effect_curve"),
        (mlp(), "0", {"outputs": "everything"}, "'outputs' parameter of effect_curve"),
        (mlp(), "0", {"outputs": 3}, "does not fit a network with 3 outputs"),
        (mlp(), "0", {"outputs": "label"}, "needs the targets"),
        (mlp(), "0", {"direction": np.ones(3)}, "does not fit"),
        (mlp(), "zero", {}, "no layer 'zero'"),
        (mlp(), "0", {"X": np.ones((0, 4))}, "0 sample"),
        (made(Random), "layer", {}, "Two passes over the same rows"),
        (made(Mixed), "layer", {"X": np.eye(4)}, "depends on other rows"),
        (broken(), "0", {}, "not finite before it is steered"),  # Ni
        (made(Apart), "used", {}, r"returns shape \(\) for 2 samples"),
        (made(Apart), "idle", {}, "Nothing passed 'idle'"),
        (made(TimeFirst), "rnn", {"X": np.ones((3, 6, 4))}, "batch_first=True"),
    ],
)
def test_errors_of_the_curve(network, layer, options, message):
    given = {"direction": np.ones(5), "X": np.ones((3, 4)), "strengths": [1.0]}
    with pytest.raises(ValueError, match=message):
        effect_curve(network, layer, **{**given, **options})
    assert n_hooks(network) == 0

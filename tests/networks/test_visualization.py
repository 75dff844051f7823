"""Feature visualisation: closed forms of linear networks, bounds, smoothness."""

import contextlib
import re

import numpy as np
import pytest
import torch
from torch import nn

from agop.networks.visualization import visualize_direction
from tests.devices import DEVICES

PLAIN = {"smoothness": 0.0, "jitter": 0}


@contextlib.contextmanager
def seeded(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def randn(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def linear(n_inputs=6, n_outputs=4):
    with seeded():
        return nn.Linear(n_inputs, n_outputs).double()


def mlp():
    with seeded():
        return nn.Sequential(nn.Linear(6, 12), nn.ReLU(inplace=True), nn.Linear(12, 4))


def cnn():
    with seeded():
        return nn.Sequential(
            nn.Conv2d(2, 6, 5, padding=2),
            nn.BatchNorm2d(6),
            nn.ReLU(inplace=True),
            nn.Conv2d(6, 4, 3),
            nn.Tanh(),
        )


def cosine(a, b):
    a, b = np.asarray(a), np.asarray(b)
    return np.vdot(a, b) / np.linalg.norm(a) / np.linalg.norm(b)


def variation(images):
    return sum(abs(np.diff(images, axis=axis)).mean() for axis in (-1, -2))


# ------------------------------------------------------------------------ closed forms
@pytest.mark.parametrize("sign", [1, -1])
def test_linear_network_pulls_the_direction_back(sign):
    network, d, start = linear(), randn(4, seed=1), randn(3, 6, seed=2)
    found = visualize_direction(network, network, sign * d.numpy(), start=start)
    pulled = sign * (network.weight.T @ d).detach().numpy()
    for change in found.optimum - found.start:
        assert cosine(change, pulled) > 1 - 1e-12
    np.testing.assert_array_equal(found.start, start)
    assert found.shape == (6,)
    assert found.trajectory.shape == (129, 3)
    unit = sign * (d / d.norm()).numpy()
    np.testing.assert_allclose(found.direction, unit)
    for path, inputs in [
        (found.trajectory[0], found.start),
        (found.trajectory[-1], found.optimum),
    ]:
        activation = network(torch.from_numpy(inputs)).detach().numpy()
        np.testing.assert_allclose(path, activation @ unit)
    # 128 steps whose lengths fall to zero on a line: half the way of equal steps.
    way = 0.05 * (1 - np.arange(128) / 128).sum()
    rms = np.sqrt(np.mean((found.optimum - found.start) ** 2, axis=1))
    np.testing.assert_allclose(rms, way)


def test_l2_stops_at_the_closed_form():
    """Of vᵀx − l2 · mean x², the maximum is at x = n v / (2 l2)."""
    network, d = linear(), randn(4, seed=1)
    pulled = (network.weight.T @ d / d.norm()).detach().numpy()
    found = visualize_direction(
        network, network, d, shape=(6,), n_samples=2, l2=1.5, n_steps=500
    )
    for optimum in found.optimum:
        np.testing.assert_allclose(optimum, 6 * pulled / 3, atol=1e-2)


def test_input_of_the_network_moves_along_the_direction_itself():
    d, start = randn(6, seed=1), randn(2, 6, seed=2)
    found = visualize_direction(linear(), "input", d, start=start)
    for change in found.optimum - found.start:
        assert cosine(change, d) > 1 - 1e-12


@pytest.mark.parametrize("smoothness", [0.5, 1.0, 2.0])
def test_smoothness_divides_amplitudes_by_frequency(smoothness):
    d, start = randn(1, 8, 8, seed=1), torch.zeros(1, 1, 8, 8, dtype=torch.float64)
    found = visualize_direction(
        nn.Identity(), "input", d, start=start, smoothness=smoothness, jitter=0
    )
    waves = np.fft.fftfreq(8)
    f = np.hypot(waves[:, None], waves).clip(min=1 / 8)
    expected = np.fft.ifft2(np.fft.fft2(d[0].numpy()) / f**smoothness).real
    assert cosine(found.optimum, expected) > 1 - 1e-12
    assert cosine(found.optimum, d) < 0.99


def test_total_variation_is_that_of_the_objective():
    """With a learning rate so small that the gradient at the start alone counts."""
    d, x = randn(1, 5, 4, seed=1), randn(1, 1, 5, 4, seed=2)
    found = visualize_direction(
        nn.Identity(),
        "input",
        d,
        start=x,
        total_variation=3.0,
        learning_rate=1e-6,
        n_steps=1,
        **PLAIN,
    )
    image = x[0, 0].clone().requires_grad_()
    rows = (image[1:] - image[:-1]).abs().mean()
    columns = (image[:, 1:] - image[:, :-1]).abs().mean()
    objective = (image * d[0]).sum() / d.norm() - 3 * (rows + columns)
    (gradient,) = torch.autograd.grad(objective, image)
    assert cosine(found.optimum - found.start, gradient) > 1 - 1e-8


def test_positions_are_averaged():
    with seeded():
        network = nn.Conv2d(2, 3, 3, padding=1).double()
    d, x = randn(3, seed=1), randn(1, 2, 5, 5, seed=2)
    for positions, rows in [(None, slice(None)), ((2, -1), [14])]:
        found = visualize_direction(
            network, network, d, start=x, positions=positions, n_steps=1, **PLAIN
        )
        with torch.no_grad():
            vectors = network(x)[0].flatten(1).T @ (d / d.norm())  # (pixels,)
        np.testing.assert_allclose(found.trajectory[0, 0], vectors[rows].mean())
    changed = abs(found.optimum - found.start)[0].max(0)
    assert (changed[1:4, 3:] > 0).all()  # what the pixel sees
    assert not changed[:, :3].any()


# ------------------------------------------------------------------------------- search
@pytest.mark.parametrize(("network", "shape"), [(mlp(), (6,)), (cnn(), (2, 12, 12))])
@pytest.mark.parametrize("start", ["noise", "data"])
def test_projection_increases(network, shape, start):
    given = {"shape": shape, "n_samples": 3}
    if start == "data":
        given = {"start": randn(3, *shape).numpy()}
    layer = "3" if len(shape) > 1 else "2"
    found = visualize_direction(
        network, layer, [1.0, -1.0, 0.5, 0.0], random_state=0, **given
    )
    assert found.start.shape == found.optimum.shape == (3, *shape)
    assert (found.trajectory[-1] > found.trajectory[0] + 0.3).all()


def test_plain_ascent_goes_up_at_every_step():
    found = visualize_direction(
        mlp(), "2", np.ones(4), start=randn(4, 6), learning_rate=1e-3
    )
    assert (np.diff(found.trajectory, axis=0) > 0).all()


def test_bounds_hold():
    low, high = np.array([[[-1.0]], [[0.0]]]), 1.5
    found = visualize_direction(
        cnn(), "3", np.ones(4), start=3 * randn(3, 2, 12, 12), bounds=(low, high)
    )
    for inputs in (found.start, found.optimum):
        assert (inputs >= low).all()
        assert (inputs <= high).all()
    assert (found.optimum == high).any()
    noise = visualize_direction(
        cnn(), "3", np.ones(4), shape=(2, 64, 64), bounds=(0, 255), n_steps=1
    )
    np.testing.assert_allclose(noise.start.mean(), 127.5, atol=1)
    np.testing.assert_allclose(noise.start.std(), 12.75, rtol=0.05)


def test_deterministic_for_a_random_state():
    def run(random_state):
        return visualize_direction(
            cnn(),
            "3",
            np.ones(4),
            shape=(2, 32, 32),
            n_steps=5,
            random_state=random_state,
        ).optimum

    np.testing.assert_array_equal(run(0), run(0))
    np.testing.assert_array_equal(run(None), run(None))  # numpy's, which stays
    assert abs(run(0) - run(1)).max() > 0
    one, other = np.random.RandomState(3), np.random.RandomState(3)
    np.testing.assert_array_equal(run(one), run(other))
    assert abs(run(one) - run(0)).max() > 0


@pytest.mark.parametrize(
    "options",
    [{"smoothness": 1.0}, {"total_variation": 3.0}, {"jitter": 4}, {"l2": 1.0}],
)
def test_what_keeps_images_smooth(options):
    """Each lowers the total variation, beside the plain gradient."""
    common = {"start": 0.1 * randn(4, 2, 24, 24), "random_state": 0}
    plain, regular = (
        visualize_direction(cnn(), "3", np.ones(4), **common, **{**PLAIN, **more})
        for more in ({}, options)
    )
    assert variation(regular.optimum) < 0.95 * variation(plain.optimum)
    assert (regular.trajectory[-1] > regular.trajectory[0]).all()


@pytest.mark.parametrize("n_samples", [1, 33])
def test_inputs_do_not_depend_on_each_other(n_samples):
    start = randn(n_samples, 6)
    found = visualize_direction(mlp(), "0", np.ones(12), start=start)
    last = visualize_direction(mlp(), "0", np.ones(12), start=start[-1:])
    np.testing.assert_allclose(found.optimum[-1:], last.optimum, atol=1e-5)
    np.testing.assert_allclose(found.trajectory[:, -1:], last.trajectory, atol=1e-5)


def test_the_trajectory_begins_and_ends_without_jitter():
    given = {"start": randn(1, 2, 12, 12), "n_steps": 1, "random_state": 0}
    clean = visualize_direction(cnn(), "3", np.ones(4), **given, jitter=0)
    path = visualize_direction(
        cnn(), "3", np.ones(4), **{**given, "n_steps": 4}, jitter=6
    )
    np.testing.assert_array_equal(path.trajectory[0], clean.trajectory[0])
    ended = visualize_direction(
        cnn(), "3", np.ones(4), **{**given, "start": path.optimum}
    )
    np.testing.assert_allclose(path.trajectory[-1], ended.trajectory[0], rtol=1e-5)


def test_a_network_that_works_in_place():
    """Row Ne."""

    class Doubling(nn.Module):
        def forward(self, x):
            return x.mul_(2)

    start, d = randn(2, 6), randn(6, seed=1)
    before = start.clone()
    for layer in ("input", "0", "1"):
        network = nn.Sequential(Doubling(), nn.Identity())
        found = visualize_direction(network, layer, d, start=start)
        assert cosine(found.optimum - found.start, d.expand(2, 6)) > 1 - 1e-12
    assert torch.equal(start, before)


def test_series_have_neighbours_along_time():
    with seeded():
        network = nn.GRU(3, 4, batch_first=True)
    start = 0.1 * randn(1, 40, 3)
    rough, smooth = (
        visualize_direction(
            network, network, np.ones(4), start=start, smoothness=s, n_steps=20
        )
        for s in (0.0, 2.0)
    )
    jumps = [abs(np.diff(found.optimum, axis=1)).mean() for found in (rough, smooth)]
    assert jumps[1] < jumps[0]


def test_dict_inputs_and_low_precision():
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 4)

        def forward(self, pixel_values, scale):
            return (scale * self.layer(pixel_values),)

    with seeded():
        network = Network().bfloat16()
    X = randn(3, 6).numpy()
    start = {"pixel_values": X, "scale": torch.tensor([2.0])}
    found = visualize_direction(network, "layer", np.ones(4), start=start)
    pulled = network.layer.weight.float().sum(0).detach().numpy()
    assert cosine(found.optimum[0] - found.start[0], pulled) > 0.999
    assert found.optimum.dtype == np.float32


@pytest.mark.parametrize("device", DEVICES)
def test_on_a_device(device):
    given = {"shape": (2, 12, 12), "n_steps": 3, "bounds": (-1, 1), "random_state": 0}
    found = visualize_direction(cnn().to(device), "3", np.ones(4), **given)
    expected = visualize_direction(cnn(), "3", np.ones(4), **given)
    np.testing.assert_allclose(found.optimum, expected.optimum, atol=1e-3)


def test_the_network_is_left_alone():
    network = cnn().train()
    network[0].weight.requires_grad_(False)
    state = {name: t.clone() for name, t in network.state_dict().items()}
    start = randn(2, 2, 12, 12)
    kept = start.clone()
    with torch.no_grad():
        visualize_direction(network, "3", np.ones(4), start=start, n_steps=3)
    with torch.inference_mode():
        visualize_direction(network, "3", np.ones(4), start=start, n_steps=3)
    assert torch.equal(start, kept)
    assert all(torch.equal(t, state[name]) for name, t in network.state_dict().items())
    assert all(module.training for module in network.modules())
    assert all(p.grad is None for p in network.parameters())
    assert not any(module._forward_hooks for module in network.modules())
    assert not network[0].weight.requires_grad
    assert network[3].weight.requires_grad


# ------------------------------------------------------------------------------- errors
class Cut(nn.Module):
    """Row Na: the graph is cut."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 4)
        self.idle = nn.Linear(6, 4)

    def forward(self, x):
        return self.layer(x.detach())


class Root(nn.Module):
    """Row Ni: an infinite slope at zero."""

    def forward(self, x):
        return x.sqrt()


class TimeFirst(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(6, 12)

    def forward(self, x):
        return self.rnn(x.transpose(0, 1))[0][-1]


class Dead(nn.Module):
    def forward(self, x):
        return (x - 9).relu()


def made(kind, *args):
    with seeded():
        return kind(*args)


@pytest.mark.parametrize(
    ("network", "layer", "options", "message"),
    [
        (
            made(nn.Embedding, 9, 4),
            None,
            {"start": np.ones((2, 3), int)},
            "whole numbers",
        ),
        (mlp(), "0", {"start": "data"}, "'start' parameter of visualize_direction"),
        (mlp(), "0", {}, "give the shape of one input"),
        (mlp(), "0", {"shape": (6,), "n_samples": 0}, "'n_samples' parameter"),
        (mlp(), "0", {"shape": (6,), "bounds": (1, 0)}, "'bounds' parameter"),
        (mlp(), "0", {"shape": (6,), "bounds": 1}, "'bounds' parameter"),
        (mlp(), "0", {"shape": (6,), "bounds": (0, np.nan)}, "'bounds' parameter"),
        (mlp(), "0", {"shape": (6,), "bounds": (0, "1")}, "'bounds' parameter"),
        (mlp(), "0", {"shape": (6,), "n_steps": 0}, "'n_steps' parameter"),
        (mlp(), "0", {"shape": (6,), "learning_rate": 0}, "'learning_rate' parameter"),
        (mlp(), "0", {"shape": (6,), "l2": -1}, "'l2' parameter"),
        (mlp(), "0", {"shape": (6,), "total_variation": -1}, "'total_variation'"),
        (mlp(), "0", {"shape": (6,), "smoothness": -1}, "'smoothness' parameter"),
        (mlp(), "0", {"shape": (6,), "jitter": 0.5}, "'jitter' parameter"),
        (mlp(), "0", {"shape": (6,), "jitter": 2}, "need neighbours"),
        (mlp(), "0", {"shape": (6,), "total_variation": 1.0}, "need neighbours"),
        (mlp(), "0", {"shape": (6,), "axes": (1,)}, "axes=.* does not fit inputs of 1"),
        (mlp(), "0", {"shape": (6,), "direction": np.zeros(12)}, "direction is zero"),
        (mlp(), "0", {"shape": (6,), "direction": np.ones(5)}, "does not fit"),
        (mlp(), "fc", {"shape": (6,)}, "no layer 'fc'"),
        (made(Cut), "layer", {"shape": (6,), "direction": np.ones(4)}, "graph is cut"),
        (made(Cut), "idle", {"shape": (6,), "direction": np.ones(4)}, "Nothing passed"),
        (
            Root(),
            None,
            {"start": np.zeros((1, 12))},
            re.compile("not finite.*square root", re.DOTALL),
        ),
        (made(TimeFirst), "rnn", {"start": np.ones((3, 5, 6))}, "batch_first=True"),
        (Dead(), None, {"shape": (12,)}, "Start elsewhere"),
        (
            made(nn.Conv2d, 2, 12, 3).double(),
            None,
            {"shape": (2, 8, 8), "positions": slice(9, None)},
            "positions must choose something",
        ),
    ],
)
def test_errors(network, layer, options, message):
    with pytest.raises(ValueError, match=message):
        visualize_direction(
            network, layer or network, **{"direction": np.ones(12), **options}
        )
    assert not any(module._forward_hooks for module in network.modules())


def test_axes_may_be_said():
    """A picture without channels, and a series as a plain vector."""
    d = randn(8, 8, seed=1)
    start = torch.zeros(1, 8, 8, dtype=torch.float64)
    as_image, as_series = (
        visualize_direction(
            nn.Identity(), "input", d, start=start, axes=axes, jitter=0
        ).optimum
        for axes in ((0, 1), None)
    )
    assert variation(as_image) / as_image.std() < variation(as_series) / as_series.std()
    vector = visualize_direction(
        nn.Identity(), "input", d[0], start=start[:, 0], axes=(-1,), jitter=0
    ).optimum
    f = np.fft.fftfreq(8).__abs__().clip(min=1 / 8)
    assert cosine(vector, np.fft.ifft(np.fft.fft(d[0].numpy()) / f).real) > 1 - 1e-12

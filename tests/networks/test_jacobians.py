"""Exactness: every kind of network and place, against three independent references."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from agop import NetworkAGOP
from tests.devices import DEVICES
from tests.networks.nets import (
    NETWORKS,
    NOT_FOR_FUNCTORCH,
    Encoder,
    InPlace,
    Recurrent,
    Residual,
    Reused,
    Scalar,
    Text,
    cnn,
    mlp,
    narrow,
    network_and_data,
    numbers,
    seeded,
    wide_head,
)
from tests.networks.references import (
    assert_same,
    average,
    cut,
    jacrev,
    numerical,
    numerical_at,
    rowwise,
)


def agop(network, X, *layers, **settings):
    settings = {"kind": "full", **settings}
    layers = [layer.removesuffix(":output") for layer in layers]
    found = NetworkAGOP(network, layers=list(layers) or None, **settings).fit(X).agop_
    return found[layers[0]] if len(layers) == 1 else found


# ------------------------------------------------------------------------ the input
@pytest.mark.parametrize("kind", ["full", "auto"])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_input(name, kind):
    network, X = network_and_data(name)
    found = agop(network, X, kind=kind)
    assert_same(found, average(rowwise(network, X)))
    size = 1e-5 if name == "cnn" else 1e-3  # which has kinks, and no curvature
    assert_same(found, average(numerical(network, X, size)))
    if name not in NOT_FOR_FUNCTORCH:
        assert_same(found, average(jacrev(network, X)))


@pytest.mark.parametrize("name", NETWORKS)
def test_all_kinds_are_the_same_matrix(name):
    network, X = network_and_data(name)
    G = average(rowwise(network, X))
    expected = {
        "rows": G,
        "diagonal": np.diag(G),
        "low_rank": G if len(G) < 22 else None,  # that many rows hold all of it
    }
    for kind, matrix in expected.items():
        found = NetworkAGOP(network, kind=kind).fit(X)
        assert found.kind_ == kind
        if matrix is not None:
            assert_same(found.agop_, matrix, 1e-8)
        np.testing.assert_allclose(found.trace_, np.trace(G), rtol=1e-9)
        np.testing.assert_allclose(
            found.feature_importances_, np.diag(G) / np.trace(G), atol=1e-9
        )


@pytest.mark.parametrize("name", ["mlp", "cnn", "lstm", "encoder"])
def test_train_mode_makes_no_difference(name):
    network, X = network_and_data(name)
    assert_same(agop(copy.deepcopy(network).train(), X), agop(network, X), 1e-12)


def test_a_linear_network_gives_its_weights():
    network = seeded(nn.Linear, 7, 4)
    W = network.weight.detach().numpy()
    found = NetworkAGOP(network).fit(numbers(5, 7))
    assert found.kind_ == "linear"
    assert_same(found.agop_, W.T @ W, 1e-15)
    deep = seeded(lambda: nn.Sequential(nn.Linear(7, 5), nn.Linear(5, 4)))
    W = (deep[1].weight @ deep[0].weight).detach().numpy()
    assert_same(agop(deep, numbers(5, 7)), W.T @ W, 1e-14)


@pytest.mark.parametrize("name", ["mlp", "narrow mlp", "wide head", "encoder"])
def test_float32_is_close(name):
    network, X = network_and_data(name)
    G = agop(network, X)
    found = agop(copy.deepcopy(network).float(), X.float())
    assert found.dtype == np.float64
    assert_same(found, G, 1e-5)


# --------------------------------------------------------------- layers of a sequence
def heads_and_tails(network, X):
    for k, module in enumerate(network):
        yield str(k), module, network[:k](X), network[k + 1 :]


@pytest.mark.parametrize("build", [mlp, cnn, wide_head])
@pytest.mark.parametrize("kind", ["full", "auto"])
def test_every_layer_of_a_sequence(build, kind):
    network = seeded(build).eval()
    X = numbers(4, *((2, 8, 8) if build is cnn else (6,)))
    names = [f"{k}{part}" for k in range(len(network)) for part in ("", ":input")]
    together = NetworkAGOP(network, layers=["input", *names], kind=kind).fit(X).agop_
    assert_same(together["input"], average(rowwise(network, X)))
    for name, module, given, tail in heads_and_tails(network, X):
        whole = rowwise(lambda h, m=module, t=tail: t(m(h)), given.detach())
        assert_same(together[f"{name}:input"], average(whole, places(whole)))
        if len(tail):
            rest = rowwise(tail, module(given.clone()).detach())
            assert_same(together[name], average(rest, places(rest)))


def places(jacobian):
    return "pixels" if jacobian.ndim > 3 else "flatten"


@pytest.mark.parametrize("build", [mlp, cnn])
def test_several_layers_at_once_are_as_each_alone(build):
    network = seeded(build).eval()
    X = numbers(4, *((2, 8, 8) if build is cnn else (6,)))
    names = ["input", *map(str, range(len(network) - 1)), "2:input"]
    together = agop(network, X, *names)
    for name in names:
        assert_same(agop(network, X, name), together[name], 1e-12)


@pytest.mark.parametrize("build", [mlp, cnn])
def test_frozen_networks(build):
    network = seeded(build).eval()
    X = numbers(4, *((2, 8, 8) if build is cnn else (6,)))
    names = ["input", "0", "2", "2:input"]
    expected = agop(network, X, *names)
    found = agop(network.requires_grad_(False), X, *names)
    for name in names:
        assert np.array_equal(found[name], expected[name])


# ------------------------------------------------------------------- layers elsewhere
SITES = [
    ("lstm", "rnn", "output", (4, 5), "tokens"),
    ("lstm", "rnn", "input", (4, 3), "tokens"),
    ("gru", "rnn", "output", (4, 5), "tokens"),
    ("encoder", "encoder.layers.0", "output", (5, 4), "tokens"),
    ("encoder", "encoder.layers.1", "input", (5, 4), "tokens"),
    ("encoder", "encoder.layers.0.linear1", "output", (5, 8), "tokens"),
    ("encoder", "encoder.layers.0.linear1", "input", (5, 4), "tokens"),
    ("encoder", "encoder.layers.1.self_attn", "output", (5, 4), "tokens"),
    ("encoder", "encoder.layers.1.norm2", "output", (5, 4), "tokens"),
    ("encoder, norm first", "encoder.layers.0.norm1", "output", (5, 4), "tokens"),
    ("in place", "first", "output", (4,), "flatten"),
    ("in place", "second", "input", (4,), "flatten"),
    ("residual", "first", "input", (6,), "flatten"),
    ("residual", "first", "output", (4,), "flatten"),
    ("tied", "enter", "output", (4,), "flatten"),
    ("tied", "enter", "input", (6,), "flatten"),
    ("shared", "second", "input", (6,), "flatten"),
    ("scalar", "body.2", "output", (5,), "flatten"),
    ("old function", "first", "output", (4,), "flatten"),
    ("branch", "first", "input", (6,), "flatten"),
    ("fourier", "head", "input", (4,), "flatten"),
]


@pytest.mark.parametrize("kind", ["full", "auto"])
@pytest.mark.parametrize(
    ("name", "layer", "part", "shape", "positions"),
    SITES,
    ids=[f"{s[0]}-{s[1]}-{s[2]}" for s in SITES],
)
def test_layers(name, layer, part, shape, positions, kind):
    network, X = network_and_data(name)
    module = network.get_submodule(layer)
    expected = numerical_at(network, X, module, shape, part)
    found = agop(network, X, f"{layer}:{part}", kind=kind)
    assert_same(found, average(expected, positions))


def test_the_attention_of_a_layer_of_a_transformer_can_be_reached():
    """Traps: the fast path of eval mode; one tensor as query, key and value."""
    network, X = network_and_data("encoder")
    attention = network.encoder.layers[0].self_attn
    expected = numerical_at(network, X, network.encoder.layers[0], (5, 4), "input")
    found = agop(network, X, "encoder.layers.0:input")
    assert_same(found, average(expected, "tokens"))
    with torch.no_grad():  # query, key and value move together
        h = 1e-4
        step = torch.zeros(5, 5, 4, dtype=torch.float64)
        step[:, 2, 1] = h

        def moved(_, given, keywords):
            return tuple(x + step for x in given), keywords

        handle = attention.register_forward_pre_hook(moved, with_kwargs=True)
        up = network(X)
        step.neg_()
        slope = (up - network(X)) / (2 * h)
        handle.remove()
    kept = NetworkAGOP(
        network, layers="encoder.layers.0.self_attn:input", kind="full", positions=2
    ).fit(X)
    expected = slope.square().sum(1).mean()
    found = kept.agop_["encoder.layers.0.self_attn:input"][1, 1]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("call", [0, 1, 2])
def test_one_call_of_a_layer_that_is_called_often(call):
    network, X = network_and_data("reused")
    for part in ("output", "input"):
        expected = numerical_at(network, X, network.again, (4,), part, call)
        found = agop(network, X, f"again@{call}:{part}")
        assert_same(found, average(expected))


@pytest.mark.parametrize("kind", ["full", "auto"])
def test_all_calls_of_a_layer_together(kind):
    network, X = network_and_data("reused")
    for part in ("output", "input"):
        expected = numerical_at(network, X, network.again, (4,), part)
        found = agop(network, X, f"again@sum:{part}", kind=kind)
        assert_same(found, average(expected))


def test_one_module_under_two_names():
    network = seeded(mlp)
    twice = nn.ModuleDict({"a": network, "b": network})
    twice.forward = network.__call__
    X = numbers(4, 6)
    expected = agop(network, X, "2")
    for name in ("a.2", "b.2"):
        assert_same(agop(twice, X, name), expected, 1e-12)


def test_gradients_at_tokens():
    network = seeded(Text).eval()
    tokens = torch.randint(0, 11, (4, 5), generator=torch.Generator().manual_seed(0))
    for layer, part in (("embed", "output"), ("block", "input"), ("block", "output")):
        module = network.get_submodule(layer)
        expected = numerical_at(network, tokens, module, (5, 4), part)
        found = agop(network, tokens, f"{layer}:{part}")
        assert_same(found, average(expected, "tokens"))


# --------------------------------------------------------------- the linear-layer way
@pytest.mark.parametrize("center", [False, True])
def test_through_a_linear_layer(center):
    network, X = network_and_data("narrow mlp")
    expected = average(rowwise(network, X), center=center)
    for kind in ("linear", "auto"):
        found = NetworkAGOP(network, kind=kind, center=center).fit(X)
        assert found.kind_ == "linear"
        assert_same(found.agop_, expected)
    direct = NetworkAGOP(network, kind="full", center=center).fit(X)
    assert direct.kind_ == "full"
    assert_same(direct.agop_, expected)
    values, vectors = np.linalg.eigh(expected)
    np.testing.assert_allclose(found.eigenvalues_[0], values[-1], rtol=1e-9)
    assert abs(found.components_[0] @ vectors[:, -1]) > 1 - 1e-9


def test_through_a_linear_layer_behind_a_flattened_image():
    network = seeded(lambda: nn.Sequential(nn.Flatten(), mlp(n_features=32)))
    X = numbers(4, 2, 4, 4)
    found = NetworkAGOP(network).fit(X)
    assert found.kind_ == "linear"
    assert_same(found.agop_, average(rowwise(network, X)))


def test_through_a_linear_layer_on_tokens():
    network = seeded(Encoder).eval()
    X = numbers(4, 5, 4)
    layer = "encoder.layers.0.linear2"  # from 8 to 4 features
    found = NetworkAGOP(network, layers=f"{layer}:input").fit(X)
    assert found.kind_ == {f"{layer}:input": "linear"}
    module = network.get_submodule(layer)
    expected = numerical_at(network, X, module, (5, 8), "input")
    assert_same(found.agop_[f"{layer}:input"], average(expected, "tokens"))


@pytest.mark.parametrize("name", ["residual", "in place", "fourier", "lstm"])
def test_not_where_the_input_acts_otherwise_too(name):
    network, X = network_and_data(name)
    found = NetworkAGOP(network).fit(X)
    assert found.kind_ == "full"
    assert_same(found.agop_, average(numerical(network, X)))
    with pytest.raises(ValueError, match="kind='linear' does not fit 'input'"):
        NetworkAGOP(network, kind="linear").fit(X)


class Twice(nn.Module):
    """The first layer is called for the input, and once more."""

    def __init__(self, how):
        super().__init__()
        self.first = nn.Linear(6, 4)
        self.how = how

    def forward(self, x):
        return self.how(self.first, x)


WAYS = {
    "two calls": lambda first, x: first(x) + first(x.flip(1)),
    "the same call twice": lambda first, x: first(x) * first(x),
    "a factor": lambda first, x: first(x) * x.sum(1, keepdim=True),
    "a view of it": lambda first, x: first(x) + x[:, :4],
    "changed before": lambda first, x: first(x * 2),
    "changed in place before": lambda first, x: first(x.mul_(2)),
    "changed in place after": lambda first, x: first(x) + _scaled(x)[:, :4],
    "changed through data": lambda first, x: first(_scaled_data(x)),
    "rounded": lambda first, x: first(x.float().double()),
    "in halves": lambda first, x: first(x.view(-1, 6)).view(len(x), -1),
    "keyword": lambda first, x: first(input=x),
    "weights used twice": lambda first, x: first(x) + (x @ first.weight.T) ** 2,
    "norm of the input": lambda first, x: first(x) / x.norm(dim=1, keepdim=True),
}


def _scaled(x):
    return x.mul_(2)


def _scaled_data(x):
    x.data.mul_(3)
    return x


@pytest.mark.parametrize("way", WAYS)
def test_ways_around_the_first_layer(way):
    network, X = seeded(Twice, WAYS[way]), numbers(5, 6)
    network.requires_grad_(False)
    found = NetworkAGOP(network).fit(X)
    assert_same(found.agop_, average(rowwise(network, X)))
    if way == "keyword":
        assert found.kind_ == "linear"


@pytest.mark.parametrize(
    "way",
    [
        lambda first, x: first(x) + (x[:, :4] - 9).relu(),
        lambda first, x: first(x.clamp_(max=9)),
    ],
)
def test_a_way_around_that_sleeps_in_the_first_rows(way):
    """The graph and the versions of tensors tell, not the numbers of a few rows."""
    network = seeded(Twice, way)
    X = numbers(6, 6)
    X[4:] += 9
    found = NetworkAGOP(network).fit(X)
    assert found.kind_ == "full"
    assert_same(found.agop_, average(rowwise(network, X)))


class Clamping(nn.Module):
    """Another way for batches with large numbers."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 4)

    def forward(self, x):
        if x.abs().max().item() > 5:
            x = x.clamp(-5, 5)
        return torch.tanh(self.first(x) / 9)


def test_a_way_that_changes_with_the_data_is_noticed():
    network, X = seeded(Clamping), numbers(8, 6)
    X[6] *= 9
    with pytest.raises(ValueError, match="'first' alone, so G = WᵀSW does not hold"):
        NetworkAGOP(network, batch_size=4).fit(X)
    found = NetworkAGOP(network, kind="full", batch_size=4).fit(X).agop_
    assert_same(found, average(numerical(network, X)), 1e-8)


def test_hooks_of_the_user_are_part_of_the_network():
    X = numbers(5, 6)
    for layer, hook in [
        ("0", lambda module, given, output: output.relu()),
        ("0", lambda module, given, output: output.mul_(3)),
        ("4", lambda module, given, output: output.relu()),
        ("4", lambda module, given, output: output.clamp_(max=0.1)),
        ("2", lambda module, given, output: output**2),
    ]:
        network = seeded(mlp, n_outputs=9, width=4)
        network.get_submodule(layer).register_forward_hook(hook)
        found = NetworkAGOP(network).fit(X)
        assert_same(found.agop_, average(rowwise(network, X)))
        assert len(network.get_submodule(layer)._forward_hooks) == 1
    network = seeded(mlp, width=4)
    network[0].register_forward_pre_hook(lambda module, given: (given[0] ** 2,))
    found = NetworkAGOP(network).fit(X)
    assert_same(found.agop_, average(rowwise(network, X)))


class Doubled(nn.Linear):
    """Not what its class says."""

    def forward(self, x):
        return super().forward(x) ** 2


def test_layers_with_a_forward_of_their_own_are_no_linear_layers():
    X = numbers(5, 6)
    network = seeded(lambda: nn.Sequential(Doubled(6, 4), nn.Tanh(), Doubled(4, 9)))
    for layer in ("input", "0:input", "2:input"):
        found = NetworkAGOP(network, layers=[layer]).fit(X)
        given = X if layer != "2:input" else network[:2](X).detach()
        tail = network if layer != "2:input" else network[2]
        assert_same(found.agop_[layer], average(rowwise(tail, given)))
    patched = seeded(nn.Linear, 6, 4)
    patched.forward = lambda x: functional.linear(x, patched.weight) ** 3
    assert_same(NetworkAGOP(patched).fit(X).agop_, average(rowwise(patched, X)))


def test_parametrized_weights_are_those_that_act():
    def build():
        network = mlp(width=4)
        nn.utils.parametrizations.weight_norm(network[0])
        nn.utils.parametrizations.spectral_norm(network[2])
        return network

    network, X = seeded(build), numbers(5, 6)
    network.eval()
    assert_same(NetworkAGOP(network).fit(X).agop_, average(rowwise(network, X)))


# ---------------------------------------------------------------- the range of a head
def test_fewer_rows_than_outputs_behind_a_linear_head():
    network, X = seeded(mlp, n_outputs=50), numbers(5, 6)
    found = NetworkAGOP(network, kind="rows").fit(X)
    assert found.spectrum().eigenvalues.numel() <= 6
    rows = found._survey.parts["input"].product.value()
    assert rows.shape == (6, 5 * 5)  # five numbers go into the head, not 50 out of it
    assert_same(found.agop_, average(rowwise(network, X)))


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_heads_of_low_rank(rank):
    network, X = seeded(wide_head), numbers(5, 6)
    left, right = numbers(9, rank, seed=2), numbers(rank, 5, seed=3)
    network[4].weight.data = left @ right
    if rank == 0:
        with pytest.warns(UserWarning, match="The AGOP at 'input' is zero"):
            found = agop(network, X)
        assert np.array_equal(found, np.zeros((6, 6)))
    else:
        assert_same(agop(network, X), average(rowwise(network, X)))


HEADS = {
    "scaled in place": lambda head, h: head(h).mul_(torch.arange(9.0)),
    "relu": lambda head, h: head(h).relu(),
    "relu in place": lambda head, h: head(h).relu_(),
    "one entry set": lambda head, h: head(h).index_fill(1, torch.tensor([0]), 0.0),
    "shifted": lambda head, h: head(h) + h.sum(1, keepdim=True),
    "called twice": lambda head, h: head(h) + head(h**2),
    "unused call": lambda head, h: (head(h**2), head(h))[1],
    "a view": lambda head, h: head(h).view(-1, 9),
    "a part": lambda head, h: head(h)[:, :6],
    "reshaped": lambda head, h: head(h).view(-1, 3, 3),
    "in a dict": lambda head, h: {"logits": head(h)},
    "tuple": lambda head, h: (head(h), [1]),
    "dropout": lambda head, h: functional.dropout(head(h), training=False),
}


class Head(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.body = mlp(n_outputs=4)
        self.head = nn.Linear(4, 9)
        self.how = how

    def forward(self, x):
        return self.how(self.head, self.body(x))


@pytest.mark.parametrize("way", HEADS)
def test_what_comes_after_the_head_counts(way):
    network, X = seeded(Head, HEADS[way]), numbers(5, 6)

    def output(x):
        returned = network(x)
        if isinstance(returned, dict):
            return returned["logits"]
        return returned[0] if isinstance(returned, tuple) else returned

    expected = average(rowwise(output, X))
    assert_same(agop(network, X), expected)
    assert_same(agop(network, X, center=True), average(rowwise(output, X), center=True))


def test_the_head_itself_as_a_layer():
    network, X = seeded(wide_head), numbers(5, 6)
    assert_same(agop(network, X, "4"), np.eye(9), 1e-15)
    found = agop(network, X, "4", "input")
    assert_same(found["4"], np.eye(9), 1e-15)
    assert_same(found["input"], average(rowwise(network, X)))


class TwoHeads(nn.Module):
    """Batches leave by one of two heads."""

    def __init__(self):
        super().__init__()
        self.body = mlp(n_outputs=4)
        self.heads = nn.ModuleList(nn.Linear(4, 9) for _ in range(2))

    def forward(self, x):
        return self.heads[int(x[0, 0] > 5)](self.body(x))


def test_the_head_may_change_from_batch_to_batch():
    network, X = seeded(TwoHeads), numbers(6, 6)
    X[3:, 0] += 20
    expected = average(rowwise(network, X))
    assert_same(agop(network, X, batch_size=3), expected)


def test_last_position():
    network = seeded(Text).eval()
    tokens = torch.randint(0, 11, (4, 5), generator=torch.Generator().manual_seed(0))
    jacobian = numerical_at(
        lambda t: network(t)[:, -1], tokens, network.block, (5, 4), "output"
    )
    found = agop(network, tokens, "block", outputs="last")
    assert_same(found, average(jacobian, "tokens"))


# ------------------------------------------------------------------------- patches
CONVOLUTIONS = [
    {},
    {"stride": 2},
    {"padding": 1},
    {"padding": "same"},
    {"dilation": 2},
    {"groups": 2},
    {"groups": 4, "stride": (2, 1), "padding": (1, 0), "dilation": (1, 2)},
    {"padding": 1, "padding_mode": "circular"},
    {"padding": 1, "padding_mode": "reflect", "bias": False},
]


def patches(module, x):
    """What a convolution reads, by F.unfold, (n, n_patches, n_features)."""
    if isinstance(module.padding, str):
        sizes = zip(module.dilation, module.kernel_size, strict=True)
        before = [d * (k - 1) // 2 for d, k in sizes]
    else:
        before = module.padding
    pad = [size for size in reversed(before) for _ in range(2)]
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    x = functional.pad(x, pad, mode=mode)
    columns = functional.unfold(
        x, module.kernel_size, module.dilation, stride=module.stride
    )
    return columns.transpose(1, 2)


def through_patches(module, tail, columns, shape):
    """The rest of the network as a function of the patches."""
    width = module.in_channels // module.groups
    n, count, _ = columns.shape
    blocks = columns.view(n, count, module.groups, width, -1).flatten(3)
    weight = module.weight.flatten(1).view(module.groups, -1, blocks.shape[-1])
    output = torch.einsum("npgk,gok->ngop", blocks, weight).flatten(1, 2)
    if module.bias is not None:
        output = output + module.bias[:, None]
    return tail(output.unflatten(2, shape))


@pytest.mark.parametrize("options", CONVOLUTIONS, ids=str)
def test_patches_of_a_convolution(options):
    def build():
        tail = nn.Sequential(nn.Tanh(), nn.Flatten(), nn.LazyLinear(3))
        network = nn.Sequential(nn.Conv2d(4, 8, 3, **options), *tail)
        network(torch.zeros(1, 4, 6, 7))
        return network

    network, X = seeded(build), numbers(2, 4, 6, 7)
    module, tail = network[0], network[1:]
    shape = module(X).shape[2:]
    columns = patches(module, X)
    function = lambda p: through_patches(module, tail, p, shape)  # noqa: E731
    assert_same(function(columns).detach(), network(X).detach(), 1e-12)
    jacobian = rowwise(function, columns.detach())  # (n, c, n_patches, n_features)
    expected = average(jacobian, "tokens")
    model = NetworkAGOP(network, layers=["0:patch"], n_components=2).fit(X)
    assert_same(model.agop_["0:patch"], expected)
    assert model.kind_ == {"0:patch": "linear"}
    components = model.components_["0:patch"]
    projected = columns.mean(1).detach().numpy() @ components.T
    np.testing.assert_allclose(model.transform(X), projected, atol=1e-12)


def test_patches_at_one_place():
    network, X = seeded(cnn), numbers(2, 2, 8, 8)
    module, tail = network[0], network[1:].eval()
    columns = patches(module, X)
    jacobian = rowwise(
        lambda p: through_patches(module, tail, p, (8, 8)), columns.detach()
    )
    settings = {"layers": "0:patch"}
    kept = NetworkAGOP(network, positions=(3, -1), **settings).fit(X).agop_["0:patch"]
    assert_same(kept, average(jacobian[:, :, 3 * 8 + 7]))
    for positions in (3, (3,)):
        with pytest.raises(ValueError, match="patches lie at pixels"):
            NetworkAGOP(network, positions=positions, **settings).fit(X)


def test_patches_in_one_and_three_dimensions():
    def build(kind, width):
        tail = nn.Tanh(), nn.Flatten(), nn.Linear(width, 2)
        return nn.Sequential(kind(2, 3, 2), *tail)

    for kind, shape in ((nn.Conv1d, (2, 5)), (nn.Conv3d, (2, 3, 3, 3))):
        network, X = (
            seeded(build, kind, 12 if len(shape) == 2 else 24),
            numbers(3, *shape),
        )
        model = NetworkAGOP(network, layers="0:patch").fit(X)
        G = model.agop_["0:patch"]
        W = network[0].weight.detach().flatten(1).numpy()
        h = rowwise(network[1:], network[0](X).detach())
        assert_same(G, W.T @ average(h, "pixels") @ W)
        assert model.transform(X).shape == (3, len(model.eigenvalues_["0:patch"]))


class Standardized(nn.Conv2d):
    """Weights as they are not written down."""

    def forward(self, x):
        mean = self.weight.mean((1, 2, 3), keepdim=True)
        return functional.conv2d(x, self.weight - mean, self.bias)


def test_patches_only_of_what_is_a_plain_convolution():
    def build(kind):
        return nn.Sequential(kind(1, 2, 3), nn.Flatten(), nn.Linear(18, 2))

    network, X = seeded(build, Standardized), numbers(3, 1, 5, 5)
    with pytest.raises(ValueError, match="a forward of its own"):
        NetworkAGOP(network, layers="0:patch").fit(X)
    network = seeded(build, nn.Conv2d)
    network[0].register_forward_hook(lambda module, given, output: output**2)
    with pytest.raises(ValueError, match="or it has hooks"):
        NetworkAGOP(network, layers="0:patch").fit(X)
    with pytest.raises(ValueError, match="only convolutions read patches"):
        NetworkAGOP(network, layers="2:patch").fit(X)


# ------------------------------------------------------------------------ positions
def test_positions_of_tokens():
    network, X = network_and_data("encoder")
    layer = "encoder.layers.0"
    J = numerical_at(network, X, network.get_submodule(layer), (5, 4))
    for positions, expected in {
        "auto": average(J, "tokens"),
        "tokens": average(J, "tokens"),
        "flatten": average(J),
        "pixels": average(J, "pixels"),
        0: average(J[:, :, 0]),
        -1: average(J[:, :, -1]),
        np.int64(3): average(J[:, :, 3]),
        (1,): average(J[..., 1]),
    }.items():
        assert_same(agop(network, X, layer, positions=positions), expected)
    J = rowwise(network, X)
    assert_same(agop(network, X, positions="tokens"), average(J, "tokens"))
    assert_same(agop(network, X, positions=2), average(J[:, :, 2]))


def test_positions_of_pixels():
    network, X = network_and_data("cnn")
    J = rowwise(network[1:], network[0](X).detach())
    for positions, expected in {
        "auto": average(J, "pixels"),
        "pixels": average(J, "pixels"),
        "flatten": average(J),
        (2, -3): average(J[..., 2, -3]),
        (1,): average(J[..., 1]),
        0: average(J[:, :, 0]),
    }.items():
        assert_same(agop(network, X, "0", positions=positions), expected)


def test_linear_layers_work_on_the_last_dimension():
    """Images with channels last, as in some transformers."""
    network = seeded(
        lambda: nn.Sequential(
            nn.Linear(3, 5), nn.LayerNorm(5), nn.Tanh(), nn.Flatten(), nn.Linear(60, 2)
        )
    )
    X = numbers(2, 3, 4, 3)
    for layer in ("0", "1"):
        k = int(layer)
        J = rowwise(network[k + 1 :], network[: k + 1](X).detach())
        assert_same(agop(network, X, layer), average(J, "features last"))
    J = rowwise(network, X)
    assert_same(agop(network, X, "0:input"), average(J, "features last"))


@pytest.mark.parametrize(
    "positions", [5, -6, (1, 1, 1), (9,), "all", 1.5, True, (1.0,), (), None]
)
def test_positions_that_do_not_fit(positions):
    network, X = network_and_data("encoder")
    with pytest.raises(ValueError, match="positions"):
        agop(network, X, "encoder.layers.0", positions=positions)


def test_a_position_of_what_has_none():
    network, X = network_and_data("mlp")
    with pytest.raises(ValueError, match=r"does not fit an activation of shape \(8,\)"):
        agop(network, X, "0", positions=0)


# ---------------------------------------------------------------- attention_mask
def test_padding_weighs_nothing():
    network = seeded(Text).eval()
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 11, (4, 5), generator=generator)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1] * 5, [1, 0, 0, 0, 0], [1, 1, 0, 0, 0]])

    def output(tokens):
        return network(tokens, mask) * mask[:, :, None]

    J = numerical_at(output, tokens, network.block, (5, 4), "output")
    keep = mask.flatten().numpy()
    expected = average(J, "tokens", weights=keep)
    batch = {"input_ids": tokens, "attention_mask": mask}
    masked = lambda output: output * mask[: len(output), :, None]  # noqa: E731
    for given in (mask, mask.bool(), mask.double()):
        found = agop(
            network, {**batch, "attention_mask": given}, "block", outputs=masked
        )
        assert_same(found, expected)
    weight = np.array([0.5, 2.0, 0.0, 1.0])
    both = NetworkAGOP(network, layers="block", kind="full", outputs=masked)
    both.fit(batch, sample_weight=weight)
    expected = average(J, "tokens", weights=keep * weight.repeat(5))
    assert_same(both.agop_["block"], expected)
    flat = agop(network, batch, "block", outputs=masked, positions="flatten")
    assert_same(flat, average(J))


def test_sequences_of_various_lengths():
    network = seeded(Text).eval()
    generator = torch.Generator().manual_seed(0)
    batches, rows, weights = [], [], []
    for length in (3, 5, 1, 4):
        tokens = torch.randint(0, 11, (3, length), generator=generator)
        mask = torch.ones_like(tokens)
        mask[0, length // 2 :] = 0
        mask[0, 0] = 1
        batches.append({"input_ids": tokens, "attention_mask": mask})
        J = numerical_at(
            lambda t, m=mask: network(t, m), tokens, network.block, (length, 4)
        )
        J = cut(J, "tokens")
        rows += [*J]
        weights += mask.flatten().tolist()
    expected = sum(w * j.T @ j for w, j in zip(weights, rows, strict=True))
    expected = expected / sum(weights)
    found = NetworkAGOP(network, layers="block", kind="full").fit(batches)
    assert found.n_samples_seen_ == 12
    assert_same(found.agop_["block"], expected)


# ------------------------------------------------------------------- dictionaries, 13
def test_trap_in_place_layers_behind_a_layer():
    """An activation that is overwritten must be the one that passed."""
    network, X = network_and_data("in place")
    before = X.clone()
    model = NetworkAGOP(network, layers=["first"], n_components=4).fit(X)
    assert torch.equal(X, before)
    h = network.first(X * 2 + 0.5).detach().numpy()
    projected = h @ model.components_["first"].T
    np.testing.assert_allclose(model.transform(X), projected, atol=1e-12)


@pytest.mark.parametrize("layers", [["first"], ["second"], ["input"]])
def test_trap_what_writes_to_its_input_sees_the_data_once(layers):
    """Several looks at the first rows must not scale them several times."""
    network, X = seeded(InPlace), numbers(5, 6)
    given = X.clone()
    single = NetworkAGOP(network, layers=layers, batch_size=1).fit(X).agop_
    whole = NetworkAGOP(network, layers=layers).fit(X).agop_
    assert torch.equal(X, given)
    assert_same(whole[layers[0]], single[layers[0]], 1e-12)


class Tapped(nn.Module):
    """A layer that hands on what it is given, and goes on to be overwritten."""

    def __init__(self, used_again):
        super().__init__()
        self.first, self.tap, self.head = (
            nn.Linear(6, 4),
            nn.Identity(),
            nn.Linear(4, 3),
        )
        self.used_again = used_again

    def forward(self, x):
        h = self.first(x)
        tapped = self.tap(h)
        if not self.used_again:
            output = self.head(tapped)
            h.zero_()
            return output
        h.mul_(3)  # and with it what was tapped
        return self.head(tapped)


def test_trap_one_tensor_with_two_names():
    X = numbers(5, 6)
    network = seeded(Tapped, used_again=False)
    W = network.head.weight.detach().numpy()
    h = network.first(X).detach().numpy()
    for layer in ("tap", "tap:input", "first"):
        model = NetworkAGOP(network, layers=[layer], n_components=3).fit(X)
        assert_same(model.agop_[layer], W.T @ W)
        projected = h @ model.components_[layer].T
        np.testing.assert_allclose(model.transform(X), projected, atol=1e-12)
    network = seeded(Tapped, used_again=True)
    assert_same(agop(network, X, "first"), 9 * W.T @ W)
    assert_same(agop(network, X), average(rowwise(network, X)))
    with pytest.raises(ValueError, match="changed in place that has another name"):
        agop(network, X, "tap")


def test_trap_a_cut_at_one_layer_does_not_sever_those_below():
    network, X = network_and_data("narrow mlp")
    together = agop(network, X, "0", "2", "3")
    for k in (0, 2, 3):
        J = rowwise(network[k + 1 :], network[: k + 1](X).detach())
        assert_same(together[str(k)], average(J))


def test_trap_called_several_times_must_be_said():
    network, X = network_and_data("reused")
    with pytest.raises(ValueError, match=r"called 3 times in one pass.*'again@sum'"):
        agop(network, X, "again")
    with pytest.raises(ValueError, match=r"'again@3': the layer is called 3 times"):
        agop(network, X, "again@3")


class Returning(nn.Module):
    """A layer whose output is not a tensor."""

    def __init__(self, pack):
        super().__init__()
        self.layer = nn.Module()
        self.layer.inner = nn.Linear(6, 4)
        self.layer.forward = lambda x: pack(self.layer.inner(x))
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        found = self.layer(x)
        while not isinstance(found, torch.Tensor):
            found = found["h"] if isinstance(found, dict) else found[0]
        return self.head(torch.tanh(found))


@pytest.mark.parametrize(
    "pack",
    [
        lambda h: (h, None),
        lambda h: [h, h.argmax(1)],
        lambda h: {"h": h, "x": 1},
        lambda h: ([(h,)], "text"),
        lambda h: torch.return_types.max((h, h.argmax(1))),
    ],
)
def test_trap_layers_that_return_more_than_a_tensor(pack):
    network, X = seeded(Returning, pack), numbers(5, 6)
    h = network.layer.inner(X).detach()
    expected = average(rowwise(lambda h: network.head(torch.tanh(h)), h))
    assert_same(agop(network, X, "layer"), expected)


def test_trap_wrappers_are_taken_off():
    network, X = network_and_data("mlp")
    expected = agop(network, X, "2", "input")
    for wrapped in (nn.DataParallel(network), torch.compile(network, backend="eager")):
        found = agop(wrapped, X, "2", "input")
        assert all(np.array_equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_trap_recurrent_networks_in_eval_mode(kind, device):
    """cuDNN has no backward for them: it must be off, and on again."""
    network, X = seeded(Recurrent, kind).train(), numbers(3, 4, 3)
    expected = average(numerical(network, X))
    enabled = torch.backends.cudnn.enabled
    assert_same(agop(network.to(device), X), expected)
    assert torch.backends.cudnn.enabled == enabled


def test_trap_bfloat16():
    """The sums are in float64: the error is that of the gradients."""
    network, X = network_and_data("narrow mlp", n_samples=64)
    expected = agop(network, X)
    for kind in ("full", "auto", "rows", "low_rank"):
        low = copy.deepcopy(network).bfloat16()
        found = NetworkAGOP(low, kind=kind).fit(X.bfloat16())
        assert found.agop_.dtype == np.float64
        assert_same(found.agop_, expected, 0.05)
        assert found.transform(X.bfloat16()).dtype == np.float32
    assert NetworkAGOP(low).fit(X.bfloat16()).kind_ == "linear"


def test_trap_an_autocast_of_the_network_itself():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = mlp(n_outputs=9, width=4)

        def forward(self, x):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return self.body(x)

    network = seeded(Mixed).float()
    X = numbers(20, 6).float()
    expected = agop(network.body, X)
    for kind in ("full", "auto"):
        assert_same(agop(network, X, kind=kind), expected, 0.05)
        assert_same(agop(network, X, "body.0:input", kind=kind), expected, 0.05)


def test_scalar_activations_and_inputs():
    X = torch.arange(1.0, 6.0, dtype=torch.float64)
    found = NetworkAGOP(lambda x: x**2).fit(X).agop_
    np.testing.assert_allclose(found, [[np.mean((2 * X.numpy()) ** 2)]])
    network = seeded(Scalar)
    found = NetworkAGOP(network, layers=["body"]).fit(numbers(4, 6)).agop_["body"]
    assert np.array_equal(found, [[1.0]])


def test_layers_that_are_not_used():
    network = seeded(Residual)
    with pytest.raises(ValueError, match="'around' is not called"):
        agop(network, numbers(4, 6), "around")

    class Aside(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.aside = nn.Linear(6, 2), nn.Linear(6, 2)

        def forward(self, x):
            self.seen = self.aside(x)
            return self.first(x)

    with pytest.raises(ValueError, match="it does not use it, or the graph"):
        agop(seeded(Aside), numbers(4, 6), "aside")


def test_a_narrow_network_and_a_reused_one_count_rows_right():
    """Nothing depends on how many samples a batch has."""
    for build in (narrow, Reused):
        network, X = seeded(build), numbers(7, 6)
        expected = agop(network, X)
        for size in (1, 2, 3, 7, 50):
            assert_same(agop(network, X, batch_size=size), expected, 1e-12)

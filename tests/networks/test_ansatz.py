"""The neural feature ansatz, against whole matrices built without the library."""

import copy
import re

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from agop.networks.ansatz import AnsatzRecorder, neural_feature_ansatz
from agop.networks.initialization import reinitialized
from agop.networks.projections import neural_feature_matrix
from tests.conftest import changes, global_state
from tests.devices import DEVICES

POWERS = (0.25, 0.5, 1, 2)
TIGHT = {"rel": 0, "abs": 1e-9}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def drawn(network, seed=0):
    """A network in float64 whose parameters and buffers are local random numbers."""
    network = network.double()
    source = generator(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            size = max(parameter.shape[-1], 2) ** 0.5
            parameter.normal_(generator=source).div_(size)
        for name, buffer in network.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.uniform_(0.5, 1.5, generator=source)
    return network.eval()


def made(function):
    """What a function builds, without use of the global generator."""
    with torch.random.fork_rng(devices=[]):
        return drawn(function())


def mlp():
    return made(
        lambda: nn.Sequential(
            nn.Linear(5, 9), nn.Tanh(), nn.Linear(9, 4), nn.Softplus(), nn.Linear(4, 3)
        )
    )


class Attending(nn.Module):
    """Attention with its four matrices as layers."""

    def __init__(self, dim, n_heads, context):
        super().__init__()
        self.n_heads = n_heads
        self.q_proj = nn.Linear(dim, dim)
        self.k_proj = nn.Linear(context, dim)
        self.v_proj = nn.Linear(context, dim)
        self.out_proj = nn.Linear(dim, dim)

    def forward(self, query, key, value):
        q, k, v = (
            layer(x).unflatten(-1, (self.n_heads, -1)).transpose(1, 2)
            for layer, x in (
                (self.q_proj, query),
                (self.k_proj, key),
                (self.v_proj, value),
            )
        )
        weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
        return self.out_proj((weights @ v).transpose(1, 2).flatten(2)), None


class Reader(nn.Module):
    """Attention to a context that is made from the same input."""

    def __init__(self, attention, context=6):
        super().__init__()
        self.context = nn.Linear(6, context) if context != 6 else nn.Identity()
        self.attention = attention
        self.head = nn.Linear(6, 2)

    def forward(self, x):
        context = self.context(x)
        return self.head((x + self.attention(x, context, value=context)[0]).mean(1))


def attention(**sizes):
    return nn.MultiheadAttention(6, 2, batch_first=True, **sizes)


class Conv1D(nn.Module):
    """A linear layer as Hugging Face writes it: W of shape (n_features, n_outputs)."""

    def __init__(self, nf, nx):
        super().__init__()
        self.nf = nf
        self.weight = nn.Parameter(torch.zeros(nx, nf))
        self.bias = nn.Parameter(torch.zeros(nf))

    def forward(self, x):
        return x @ self.weight + self.bias


# -------------------------------------------------------------- an independent account
def dense_weight(conv):
    """The answers of a convolution to every patch with a single one."""
    n_features = conv.in_channels * conv.kernel_size[0] * conv.kernel_size[1]
    patches = torch.eye(n_features, dtype=conv.weight.dtype)
    images = patches.view(n_features, conv.in_channels, *conv.kernel_size)
    return F.conv2d(images, conv.weight, groups=conv.groups)[:, :, 0, 0].T


def matrices(network, X, name):
    """WᵀW and G by gradients with respect to what a layer reads, one output a time."""
    layer = network.get_submodule(name)
    leaves = []

    def hook(module, arguments, output):
        given = arguments[0].detach()
        if isinstance(module, nn.Conv2d):
            leaf = F.unfold(
                given,
                module.kernel_size,
                module.dilation,
                module.padding,
                module.stride,
            ).mT.requires_grad_()  # (n, positions, features)
            result = (leaf @ dense_weight(module).T).mT.reshape(output.shape)
            if module.bias is not None:
                result = result + module.bias[:, None, None]
        else:
            leaf = given.clone().requires_grad_()
            result = F.linear(leaf, module.weight, module.bias)
        leaves.append(leaf)
        return result

    handle = layer.register_forward_hook(hook)
    outputs = network(X)
    handle.remove()
    rows = [
        torch.autograd.grad(outputs[:, k].sum(), leaves[0], retain_graph=True)[0]
        for k in range(outputs.shape[1])
    ]
    G = sum(row.flatten(0, -2).T @ row.flatten(0, -2) for row in rows)
    G = (G / leaves[0][..., 0].numel()).numpy()
    W = dense_weight(layer) if isinstance(layer, nn.Conv2d) else layer.weight
    return (W.T @ W).detach().numpy(), G


def cosine(A, B):
    return (A * B).sum() / np.linalg.norm(A) / np.linalg.norm(B)


def powered(G, power):
    values, vectors = np.linalg.eigh(G)
    values[values < 1e-13 * values.max()] = 0  # a root would magnify rounding errors
    return (vectors * values**power) @ vectors.T


def agree(one, other):
    """Whether two lists of records are the same, up to rounding."""
    assert len(one) == len(other)
    for record, expected in zip(one, other, strict=True):
        assert record["layer"] == expected["layer"]
        numbers = {name: value for name, value in expected.items() if name != "layer"}
        found = {name: record[name] for name in numbers}
        assert found == pytest.approx(numbers, rel=1e-8, nan_ok=True)


def check(network, X, result):
    """Every record and every matrix of a result against the independent account."""
    for name, pair in result.layers.items():
        nfm, G = matrices(network, X, name)
        np.testing.assert_allclose(pair.neural_feature_matrix(), nfm, atol=1e-10)
        np.testing.assert_allclose(pair.agop(), G, atol=1e-10)
    for record in result.records:
        nfm, G = matrices(network, X, record["layer"])
        powers = powered(G, record["power"])
        assert record["correlation"] == pytest.approx(cosine(nfm, powers), **TIGHT)
        pearson = np.corrcoef(nfm.ravel(), powers.ravel())[0, 1]
        assert record["pearson"] == pytest.approx(pearson, **TIGHT)


# ------------------------------------------------------------------ one layer's matrix
def test_matrix_of_a_linear_layer():
    layer = made(lambda: nn.Linear(4, 3)).float()
    W = layer.weight.detach().double()
    found = neural_feature_matrix(layer)
    assert found.dtype == torch.float64
    assert not found.requires_grad
    torch.testing.assert_close(found, W.T @ W)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_matrix_of_a_convolution_is_a_quadratic_form_on_patches(groups):
    conv = made(lambda: nn.Conv2d(4, 8, (3, 2), bias=False, groups=groups))
    image = normal(1, 4, 3, 2, seed=1)
    patch = image.flatten()
    expected = conv(image).square().sum().item()
    found = patch @ neural_feature_matrix(conv) @ patch
    assert found.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("kind", [nn.Conv1d, nn.Conv3d])
def test_matrix_of_other_convolutions(kind):
    conv = made(lambda: kind(2, 3, 2, bias=False))
    image = normal(1, 2, *[2] * (conv.weight.ndim - 2), seed=1)
    found = image.flatten() @ neural_feature_matrix(conv) @ image.flatten()
    assert found.item() == pytest.approx(conv(image).square().sum().item(), rel=1e-12)


def test_matrix_of_a_transposed_layer():
    layer = made(lambda: Conv1D(3, 5))
    x = normal(5, seed=1)
    expected = (layer(x) - layer.bias).square().sum().item()
    assert (x @ neural_feature_matrix(layer) @ x).item() == pytest.approx(expected)


@pytest.mark.parametrize("sizes", [{}, {"kdim": 3, "vdim": 5}])
def test_matrices_of_attention(sizes):
    module = made(lambda: nn.MultiheadAttention(4, 2, **sizes))
    if sizes:
        weights = [getattr(module, f"{part}_proj_weight") for part in "qkv"]
    else:
        weights = module.in_proj_weight.split(4)
    names = ("q_proj", "k_proj", "v_proj", "out_proj")
    for name, W in zip(names, [*weights, module.out_proj.weight], strict=True):
        torch.testing.assert_close(neural_feature_matrix(module, name), W.T @ W)
    with pytest.raises(ValueError, match="pass projection='q_proj', 'k_proj'"):
        neural_feature_matrix(module)


@pytest.mark.parametrize(
    ("module", "projection", "message"),
    [
        (nn.ReLU(), None, "A ReLU has no neural feature matrix"),
        (nn.Identity(), "q_proj", "projection='q_proj' is for nn.MultiheadAttention"),
    ],
)
def test_no_matrix(module, projection, message):
    with pytest.raises(ValueError, match=message):
        neural_feature_matrix(module, projection)


# --------------------------------------------------------------------- exact by layers
def test_perceptron():
    network, X = mlp(), normal(20, 5)
    result = neural_feature_ansatz(network, X, powers=POWERS, n_baselines=0)
    assert list(result.layers) == ["0", "2", "4"]
    assert len(result.records) == 3 * len(POWERS)
    check(network, X, result)


def test_convolutions():
    """Stride, dilation, groups, padding, layers in place, batch normalisation."""
    network = made(
        lambda: nn.Sequential(
            nn.Conv2d(2, 6, 3, padding=1, bias=False),
            nn.BatchNorm2d(6),
            nn.ReLU(inplace=True),
            nn.Conv2d(6, 4, (3, 2), stride=2, groups=2),
            nn.ReLU(inplace=True),
            nn.Conv2d(4, 40, 2, dilation=2, groups=4),  # more outputs than features
            nn.Flatten(),
            nn.Linear(40, 3),
        )
    )
    X = normal(6, 2, 8, 7)
    result = neural_feature_ansatz(network, X, powers=POWERS, n_baselines=0)
    assert list(result.layers) == ["0", "3", "5", "7"]
    check(network, X, result)


@pytest.mark.parametrize("positions", [(3,), (4, 4)], ids=["tokens", "pixels"])
def test_positions_are_averaged(positions):
    """Features are last, also where images are (height, width, channels)."""
    network = made(lambda: nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 2)))
    network.append(nn.Flatten())
    X = normal(7, *positions, 4)
    result = neural_feature_ansatz(network, X, powers=POWERS, n_baselines=0)
    check(network, X, result)


def test_linear_network_in_closed_form():
    """f = V W x: at the first layer WᵀW against WᵀVᵀVW, whatever the data."""
    W, V = normal(3, 6), normal(2, 3, seed=1)
    network = made(lambda: nn.Sequential(nn.Linear(6, 3), nn.Linear(3, 2)))
    network[0].weight.data, network[1].weight.data = W, V
    first = cosine(W.T @ W, W.T @ V.T @ V @ W).item()
    for X in (normal(5, 6, seed=2), 100 + normal(9, 6, seed=3)):
        result = neural_feature_ansatz(network, X, powers=(1,), n_baselines=0)
        found = [record["correlation"] for record in result.records]
        assert found == pytest.approx([first, 1.0], **TIGHT)


def test_balanced_weights_satisfy_the_ansatz_exactly():
    """Linear layers with Wₗᵀ₊₁Wₗ₊₁ = WₗWₗᵀ: then WᵀW = G^½ with two of them."""
    Q = torch.linalg.qr(normal(4, 4)).Q
    S = torch.tensor([3.0, 2.0, 1.0, 0.5]).double()
    network = made(lambda: nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)))
    network[0].weight.data = S[:, None] * Q
    network[1].weight.data = torch.diag(S)
    result = neural_feature_ansatz(
        network, normal(3, 4, seed=1), layers="0", powers=(0.5, 1), n_baselines=0
    )
    half, one = (record["correlation"] for record in result.records)
    assert half == pytest.approx(1, **TIGHT)
    assert one < 0.99


@pytest.mark.parametrize("context", [6, 5])
def test_attention_is_the_same_as_with_layers_of_its_own(context):
    """Its matrices are used without a call; also where keys have another width."""
    packed = made(lambda: Reader(attention(kdim=context, vdim=context), context))
    written = made(lambda: Reader(Attending(6, 2, context), context))
    if context == 6:
        weights = packed.attention.in_proj_weight.detach().split(6)
    else:
        weights = [
            getattr(packed.attention, f"{p}_proj_weight").detach() for p in "qkv"
        ]
    biases = packed.attention.in_proj_bias.detach().split(6)
    parts = (written.attention.get_submodule(f"{p}_proj") for p in "qkv")
    for part, weight, bias in zip(parts, weights, biases, strict=True):
        part.weight.data, part.bias.data = weight, bias
    written.attention.out_proj.load_state_dict(packed.attention.out_proj.state_dict())
    written.head.load_state_dict(packed.head.state_dict())
    written.context.load_state_dict(packed.context.state_dict())

    X = normal(5, 4, 6)
    torch.testing.assert_close(packed(X), written(X))
    settings = {"powers": POWERS, "n_baselines": 0}
    expected = neural_feature_ansatz(written, X, **settings)
    check(written, X, expected)
    result = neural_feature_ansatz(packed, X, **settings)
    assert sorted(result.layers) == sorted(expected.layers)
    for name, pair in expected.layers.items():
        found = result.layers[name]
        torch.testing.assert_close(found.agop(), pair.agop())
        torch.testing.assert_close(
            found.neural_feature_matrix(), pair.neural_feature_matrix()
        )
    only = neural_feature_ansatz(packed, X, layers="attention", **settings)
    names = [f"attention.{part}_proj" for part in ("q", "k", "v", "out")]
    assert list(only.layers) == names


def test_transformer_layer_of_torch():
    """Its fast path would go around the attention."""
    network = made(
        lambda: nn.Sequential(
            nn.TransformerEncoderLayer(6, 2, 8, batch_first=True),
            nn.Flatten(),
            nn.Linear(18, 2),
        )
    )
    X = normal(4, 3, 6)
    result = neural_feature_ansatz(network, X, powers=(1,), random_state=0)
    parts = ("q_proj", "k_proj", "v_proj", "out_proj")
    attention = {f"0.self_attn.{part}" for part in parts}
    assert set(result.layers) == {*attention, "0.linear1", "0.linear2", "2"}
    assert all(np.isfinite(record["baseline"]) for record in result.records)
    for name in ("0.linear1", "0.linear2"):
        np.testing.assert_allclose(
            result.layers[name].agop(), matrices(network, X, name)[1], atol=1e-10
        )


def test_transposed_layer():
    network = made(lambda: nn.Sequential(Conv1D(6, 4), nn.Tanh(), Conv1D(2, 6)))
    plain = made(lambda: nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)))
    for i in (0, 2):
        plain[i].weight.data = network[i].weight.detach().T
        plain[i].bias.data = network[i].bias.detach()
    X = normal(8, 4)
    found, expected = (
        neural_feature_ansatz(each, X, powers=POWERS, n_baselines=0).records
        for each in (network, plain)
    )
    agree(found, expected)


# --------------------------------------------------------------------------- variants
def test_centred_gradients():
    network, X = mlp(), normal(20, 5)
    result = neural_feature_ansatz(network, X, layers="2", center=True, n_baselines=0)
    inputs = network[:2](X).detach()
    jacobian = torch.func.vmap(torch.func.jacrev(network[2:]))(inputs).detach()
    centred = (jacobian - jacobian.mean(0)).flatten(0, 1)
    torch.testing.assert_close(result.layers["2"].agop(), centred.T @ centred / len(X))


@pytest.mark.parametrize("kind", ["state", "module"])
def test_centred_ansatz_is_about_the_change_of_the_weights(kind):
    """Beaglehole, Mitliagkas and Agarwala: W − W₀ in WᵀW and in WᵀSW."""
    network, X = mlp(), normal(20, 5)
    start = drawn(copy.deepcopy(network), seed=5)
    result = neural_feature_ansatz(
        network,
        X,
        powers=(1,),
        initial=start if kind == "module" else start.state_dict(),
        n_baselines=0,
    )
    for i in (0, 2, 4):
        outputs = network[: i + 1](X).detach()
        rest = network[i + 1 :]
        jacobian = torch.func.vmap(torch.func.jacrev(rest))(outputs).detach()
        rows = jacobian.flatten(0, 1)
        change = (network[i].weight - start[i].weight).detach()
        S = rows.T @ rows / len(X)
        expected = cosine(change.T @ change, change.T @ S @ change).item()
        found = result.layers[str(i)].correlation(1)
        assert found == pytest.approx(expected, **TIGHT)


def test_centred_ansatz_of_attention():
    """The initial weights inside attention are found too."""
    network = made(lambda: Reader(attention()))
    start = drawn(copy.deepcopy(network), seed=5)
    result = neural_feature_ansatz(
        network, normal(5, 4, 6), layers="attention", initial=start, n_baselines=0
    )
    weights = [each.attention.in_proj_weight.detach()[:6] for each in (network, start)]
    change = weights[0] - weights[1]
    found = result.layers["attention.q_proj"].neural_feature_matrix()
    torch.testing.assert_close(found, change.T @ change)


def test_nothing_changed_is_not_a_number():
    network = mlp()
    result = neural_feature_ansatz(
        network, normal(9, 5), initial=network.state_dict(), n_baselines=0
    )
    assert all(np.isnan(record["correlation"]) for record in result.records)


def test_one_output_and_probes():
    network, X = mlp(), normal(30, 5)
    one = neural_feature_ansatz(network, X, outputs=1, layers="0", n_baselines=0)
    alone = nn.Sequential(*network[:4], made(lambda: nn.Linear(4, 1)))
    alone[4].weight.data = network[4].weight.detach()[1:2]
    _, G = matrices(alone, X, "0")
    np.testing.assert_allclose(one.layers["0"].agop(), G, atol=1e-10)
    exact, probed = (
        neural_feature_ansatz(
            network, X, layers="0", n_probes=n, n_baselines=0, random_state=0
        ).records[0]["correlation"]
        for n in (None, 2)
    )
    assert probed != exact
    assert probed == pytest.approx(exact, abs=0.1)


def test_targets():
    network, X = mlp(), normal(10, 5)
    y = np.arange(10) % 3
    result = neural_feature_ansatz(
        network, X, y, outputs="label", layers="0", n_baselines=0
    )
    inputs = X.clone().requires_grad_()
    rows = torch.autograd.grad(network(inputs)[range(10), y].sum(), inputs)[0]
    torch.testing.assert_close(result.layers["0"].agop(), rows.T @ rows / 10)


def test_batches_and_order_do_not_matter():
    network, X = mlp(), normal(20, 5)
    settings = {"powers": POWERS, "n_baselines": 0}
    expected = neural_feature_ansatz(network, X, **settings).records
    others = [
        neural_feature_ansatz(network, X, batch_size=3, **settings),
        neural_feature_ansatz(network, X.flip(0), **settings),
        neural_feature_ansatz(network, DataLoader(TensorDataset(X), 7), **settings),
        neural_feature_ansatz(network, X.numpy(), **settings),
    ]
    for other in others:
        agree(other.records, expected)


def test_scale_does_not_matter():
    """The correlation is one of directions: 10 f and f have the same."""
    network, X = mlp(), normal(20, 5)
    louder = copy.deepcopy(network)
    louder[4].weight.data *= 10
    settings = {"layers": ["0", "2"], "powers": POWERS, "n_baselines": 0}
    one, two = (
        neural_feature_ansatz(each, X, **settings).records for each in (network, louder)
    )
    agree(one, two)


# ----------------------------------------------------------------------- which layers
class Wandering(nn.Module):
    """One layer is used twice, one never."""

    def __init__(self):
        super().__init__()
        self.twice = nn.Linear(4, 4)
        self.never = nn.Linear(4, 4)
        self.last = nn.Linear(4, 2)

    def forward(self, x):
        return self.last(self.twice(self.twice(x).tanh()).tanh())


def test_layers_that_are_called():
    network, X = made(Wandering), normal(6, 4)
    result = neural_feature_ansatz(network, X, powers=(1,), n_baselines=0)
    assert list(result.layers) == ["twice@0", "twice@1", "last"]
    inputs = network.twice(X).tanh().detach()
    jacobian = torch.func.vmap(
        torch.func.jacrev(lambda h: network.last(network.twice(h).tanh()))
    )(inputs)
    rows = jacobian.detach().flatten(0, 1)
    torch.testing.assert_close(result.layers["twice@1"].agop(), rows.T @ rows / len(X))


@pytest.mark.parametrize(
    ("layers", "names"),
    [
        ("2", ["2"]),
        (["4", "0:input"], ["4", "0"]),
        (re.compile("[02]"), ["0", "2"]),
        (lambda name, module: getattr(module, "out_features", 0) > 3, ["0", "2"]),
    ],
)
def test_layers_by_name(layers, names):
    result = neural_feature_ansatz(mlp(), normal(5, 5), layers=layers, n_baselines=0)
    assert list(result.layers) == names


def test_layers_by_module_and_in_baselines():
    network = mlp()
    result = neural_feature_ansatz(
        network, normal(5, 5), layers=network[2], random_state=0
    )
    assert list(result.layers) == ["2"]
    assert np.isfinite(result.records[0]["baseline"])


def test_layers_without_a_matrix():
    with pytest.raises(ValueError, match=r"'1' is a Tanh, which has no\s+matrix"):
        neural_feature_ansatz(mlp(), normal(5, 5), layers="1")
    with pytest.raises(ValueError, match="no layer 'O'"):
        neural_feature_ansatz(mlp(), normal(5, 5), layers="O")
    with pytest.raises(ValueError, match="no layer with a matrix"):
        neural_feature_ansatz(nn.Sequential(nn.Tanh()), normal(5, 5))


def test_all_layers_in_one_pass():
    calls = []
    network, X = mlp(), normal(64, 5)
    network.register_forward_pre_hook(lambda *_: calls.append(1))

    def passes(layers):
        calls.clear()
        neural_feature_ansatz(network, X, layers=layers, batch_size=4, n_baselines=0)
        return len(calls)

    assert passes(["0", "2", "4"]) == passes("2") < 16 + 10


# -------------------------------------------------------------------------- baselines
def test_baseline_is_the_same_number_at_other_weights():
    network, X = mlp(), normal(20, 5)
    settings = {"powers": (0.5, 1), "random_state": 3}
    result = neural_feature_ansatz(network, X, n_baselines=3, **settings)
    seed = int(np.random.RandomState(3).randint(2**31 - 1))
    others = [
        neural_feature_ansatz(
            reinitialized(network, seed + i, None), X, n_baselines=0, **settings
        ).records
        for i in range(3)
    ]
    for record, *drawn_anew in zip(result.records, *others, strict=True):
        values = [other["correlation"] for other in drawn_anew]
        assert record["baseline"] == pytest.approx(np.mean(values), rel=1e-12)
        assert record["baseline_low"] == pytest.approx(min(values), rel=1e-12)
        assert record["baseline_high"] == pytest.approx(max(values), rel=1e-12)
        assert record["baseline_low"] <= record["baseline_high"]
    assert result.records[0]["baseline_low"] < result.records[0]["baseline_high"]
    again = neural_feature_ansatz(network, X, n_baselines=3, **settings)
    assert again.records == result.records


def test_no_baseline_is_not_a_number():
    result = neural_feature_ansatz(mlp(), normal(5, 5), layers="0", n_baselines=0)
    (record,) = result.records
    names = ("baseline", "baseline_low", "baseline_high")
    assert all(np.isnan(record[name]) for name in names)


@pytest.mark.changes_global_state("torch generator")
def test_modules_begin_as_when_they_were_made():
    """Every layer, batch normalisation and its statistics included."""

    def build():
        return nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2)
        )

    torch.manual_seed(11)
    expected = build().state_dict()
    found = reinitialized(drawn(build()).float(), 11, None).state_dict()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0)


def test_own_initialization():
    def ones(module):
        if isinstance(module, nn.Linear):
            module.weight.fill_(1.0)

    network = mlp()
    result = neural_feature_ansatz(
        network, normal(9, 5), layers="0", initialize=ones, random_state=0
    )
    # WᵀW and G are both multiples of 11ᵀ.
    assert result.records[0]["baseline"] == pytest.approx(1, **TIGHT)
    assert result.records[0]["correlation"] < 0.99


def test_modules_that_cannot_begin_anew():
    network = made(lambda: nn.Sequential(Conv1D(6, 4), nn.Tanh(), nn.Linear(6, 2)))
    X = normal(6, 4)
    with pytest.raises(ValueError, match=r"without reset_parameters: 0 \(Conv1D\)"):
        neural_feature_ansatz(network, X)
    neural_feature_ansatz(network, X, n_baselines=0)

    def own(module):
        if isinstance(module, Conv1D):
            nn.init.normal_(module.weight)

    result = neural_feature_ansatz(network, X, initialize=own, random_state=0)
    assert all(np.isfinite(record["baseline"]) for record in result.records)


def test_initialize_that_draws_nothing():
    network = made(lambda: nn.Sequential(Conv1D(6, 4), Conv1D(2, 6)))
    with pytest.raises(ValueError, match="No weights were drawn anew"):
        neural_feature_ansatz(network, normal(6, 4), initialize=lambda module: None)


def test_frozen_backbone_stays():
    network = mlp()
    network[0].requires_grad_(False)
    other = reinitialized(network, 0, None)
    assert torch.equal(other[0].weight, network[0].weight)
    assert not torch.equal(other[2].weight, network[2].weight)
    result = neural_feature_ansatz(network, normal(6, 5), random_state=0)
    assert list(result.layers) == ["2", "4"]
    network.requires_grad_(False)  # as for inference: all of it was trained once
    result = neural_feature_ansatz(network, normal(6, 5), random_state=0)
    assert list(result.layers) == ["0", "2", "4"]
    assert not torch.equal(reinitialized(network, 0, None)[0].weight, network[0].weight)


def test_pipeline():
    """Only the layers of its network count, and only they begin anew."""
    X, y = load_iris(return_X_y=True)
    perceptron = MLPClassifier((8,), max_iter=30, random_state=0)
    model = make_pipeline(StandardScaler(), PCA(3), perceptron)
    with pytest.warns(ConvergenceWarning):
        model.fit(X, y)
    settings = {"powers": (1,), "random_state": 0}
    result = neural_feature_ansatz(model, X, **settings)
    layers = ["mlpclassifier.hidden0", "mlpclassifier.output"]
    assert list(result.layers) == layers
    other = neural_feature_ansatz(perceptron, model[:-1].transform(X), **settings)
    agree(
        [{**r, "layer": f"mlpclassifier.{r['layer']}"} for r in other.records],
        result.records,
    )
    named = neural_feature_ansatz(
        model, X, y, outputs="label", layers=layers, **settings
    )
    assert all(np.isfinite(record["baseline"]) for record in named.records)


@pytest.mark.parametrize("device", DEVICES)
def test_device(device):
    network, X = mlp(), normal(6, 5)
    settings = {"powers": POWERS, "n_baselines": 2, "random_state": 0}
    expected = neural_feature_ansatz(network, X, **settings)
    found = neural_feature_ansatz(copy.deepcopy(network).to(device), X, **settings)
    agree(found.records, expected.records)


# ---------------------------------------------------------------- data and parameters
def test_data_that_can_be_read_once_only():
    X = normal(8, 5)
    with pytest.raises(RuntimeError, match="exhausted"):
        neural_feature_ansatz(mlp(), (part for part in X.split(4)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"powers": (0.5, 0)}, "'powers' parameter"),
        ({"powers": (-1,)}, "'powers' parameter"),
        ({"n_baselines": -1}, "'n_baselines' parameter"),
        ({"n_baselines": 1.5}, "'n_baselines' parameter"),
        ({"outputs": "every"}, "'outputs' parameter"),
        ({"initial": {"0.weight": torch.zeros(1)}}, "Missing key"),
    ],
)
def test_bad_parameters(settings, message):
    with pytest.raises((ValueError, RuntimeError), match=message):
        neural_feature_ansatz(mlp(), normal(5, 5), **settings)


# -------------------------------------------------------------------------- recording
def trained(recorder_of=None):
    """A few steps of training with dropout and batch statistics; and the recorder."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 2)
    )
    X = torch.randn(32, 5)
    recorder = recorder_of(network, X) if recorder_of else None
    optimizer = torch.optim.Adam(network.parameters(), lr=0.05)
    for step in range(4):
        loss = network(X).square().mean()
        if recorder is not None:
            recorder(step)  # between the two halves, which is the worst moment
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network, recorder


@pytest.mark.changes_global_state("torch generator")
def test_training_goes_on_as_if_nobody_had_looked():
    expected, _ = trained()
    end = torch.get_rng_state()
    network, recorder = trained(
        lambda network, X: AnsatzRecorder(network, X, n_baselines=2, random_state=0)
    )
    assert torch.equal(torch.get_rng_state(), end)
    for name, value in expected.state_dict().items():
        assert torch.equal(network.state_dict()[name], value), name
    assert all(module.training for module in network.modules())
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert [record["step"] for record in recorder.records] == [0, 0, 1, 1, 2, 2, 3, 3]


@pytest.mark.changes_global_state("torch generator")
def test_records_are_those_of_the_moment():
    kept = []

    def recorder_of(network, X):
        recorder = AnsatzRecorder(network, X, powers=(0.5, 1), random_state=0)

        def look(step):
            recorder(step)
            result = neural_feature_ansatz(network, X, powers=(0.5, 1), n_baselines=0)
            kept.extend(record["correlation"] for record in result.records)

        look.records = recorder.records
        return look

    _, recorder = trained(recorder_of)
    found = [record["correlation"] for record in recorder.records]
    assert found == kept
    assert len(set(found)) > len(found) / 2
    baselines = {
        (record["layer"], record["power"]): set() for record in recorder.records
    }
    for record in recorder.records:
        baselines[record["layer"], record["power"]].add(record["baseline"])
    assert all(len(values) == 1 for values in baselines.values())


def test_recorder_of_the_centred_ansatz_keeps_the_beginning():
    network, X = mlp(), normal(12, 5)
    recorder = AnsatzRecorder(
        network, X, layers="0", initial=network.state_dict(), n_baselines=0
    )
    recorder(0)
    network[0].weight.data += normal(9, 5, seed=7)
    recorder(1)
    first, second = (record["correlation"] for record in recorder.records)
    assert np.isnan(first)
    assert 0 < second <= 1


def test_recorder_of_a_network_of_scikit_learn():
    X, y = load_iris(return_X_y=True)
    model = MLPClassifier((8,), random_state=0).partial_fit(X, y, classes=[0, 1, 2])
    recorder = AnsatzRecorder(model, X, layers="hidden0", n_baselines=0)
    for step in range(3):
        recorder(step)
        model.partial_fit(X, y)
    assert len({record["correlation"] for record in recorder.records}) == 3


def test_network_is_left_as_it_is():
    """Also one whose attention had to be opened, and after an exception."""
    network = made(lambda: Reader(attention()))
    network.train()
    network.head.eval()
    network(normal(2, 3, 6)).sum().backward()
    before = copy.deepcopy(network)
    gradients = [parameter.grad.clone() for parameter in network.parameters()]
    state = global_state()

    def fail(output):
        raise KeyError("on purpose")

    neural_feature_ansatz(network, normal(4, 3, 6), random_state=0)
    with pytest.raises(KeyError, match="on purpose"):
        neural_feature_ansatz(network, normal(4, 3, 6), outputs=fail)
    assert changes(state, global_state()) == []
    modules = zip(network.named_modules(), before.named_modules(), strict=True)
    for (name, module), (other_name, other) in modules:
        assert (name, module.training) == (other_name, other.training)
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    parameters = zip(network.parameters(), before.parameters(), gradients, strict=True)
    for parameter, value, gradient in parameters:
        assert torch.equal(parameter, value)
        assert torch.equal(parameter.grad, gradient)
        assert parameter.requires_grad

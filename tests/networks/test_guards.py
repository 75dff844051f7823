"""The network is left exactly as it was, also after an exception."""

import copy
import random
import threading
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from agop import NetworkAGOP
from agop.networks.guards import untouched
from tests.networks.nets import NETWORKS, Text, cnn, mlp, narrow, numbers, seeded
from tests.networks.references import assert_same

HOOKS = [
    "_forward_hooks",
    "_forward_pre_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_backward_hooks",
    "_backward_pre_hooks",
]


def state_of(network):
    """Everything that can be seen of a network, by value and by identity."""
    return {
        "values": {
            name: tensor.detach().clone()
            for name, tensor in network.state_dict(keep_vars=True).items()
        },
        "tensors": {n: id(t) for n, t in network.state_dict(keep_vars=True).items()},
        "versions": {
            n: t._version for n, t in network.state_dict(keep_vars=True).items()
        },
        "gradients": {
            n: None if p.grad is None else (id(p.grad), p.grad.clone())
            for n, p in network.named_parameters()
        },
        "requires_grad": {n: p.requires_grad for n, p in network.named_parameters()},
        "training": {n: m.training for n, m in network.named_modules()},
        "hooks": {
            (n, kind): list(getattr(m, kind))
            for n, m in network.named_modules()
            for kind in HOOKS
        },
        "attributes": {n: sorted(vars(m)) for n, m in network.named_modules()},
        "generators": (
            torch.get_rng_state(),
            random.getstate(),
            np.random.get_state()[1].tolist(),  # noqa: NPY002
        ),
        "modes": (
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
            torch.is_autocast_enabled("cpu"),
            torch.backends.mha.get_fastpath_enabled(),
        ),
    }


def same(first, second):
    if isinstance(first, torch.Tensor):
        return first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(
            same(first[key], second[key]) for key in first
        )
    if isinstance(first, (tuple, list)):
        return len(first) == len(second) and all(map(same, first, second))
    return first == second


def assert_untouched(before, network):
    after = state_of(network)
    changed = [name for name in before if not same(before[name], after[name])]
    assert changed == []


def used(network, X):
    """A network in the middle of its life: gradients, mixed flags, hooks."""
    network.train()
    for k, module in enumerate(network.modules()):
        if k % 3 == 1:
            module.training = False
    for k, parameter in enumerate(network.parameters()):
        if k % 3 == 0:
            parameter.grad = torch.full_like(parameter, 0.5)
        if k % 4 == 1:
            parameter.requires_grad_(False)
    first = next(network.children())
    first.register_forward_hook(lambda module, given, output: None)
    first.register_forward_pre_hook(lambda module, given: None)
    return network


# ------------------------------------------------------------------- after every call
CALLS = {
    "fit": lambda model, X: model.fit(X),
    "partial_fit": lambda model, X: model.partial_fit(X).partial_fit(X),
    "transform": lambda model, X: model.fit(X).transform(X),
    "bootstrap": lambda model, X: model.fit(X).bootstrap(X, n_resamples=3),
}
EAGER = [name for name in NETWORKS if name != "scripted"]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", EAGER)
def test_the_network_is_untouched(name, call):
    build, shape = NETWORKS[name]
    X = numbers(4, *shape)
    network = used(seeded(build), X)
    layers = ["input", next(n for n, _ in network.named_children())]
    if name == "lstm":
        layers = ["input"]
    before, given = state_of(network), X.clone()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a layer in train mode may not be used
        CALLS[call](NetworkAGOP(network, layers=layers), X)
    assert_untouched(before, network)
    assert torch.equal(X, given)


@pytest.mark.parametrize("kind", ["full", "linear", "diagonal", "rows", "low_rank"])
def test_every_kind_leaves_it_untouched(kind):
    X = numbers(4, 6)
    network = used(seeded(narrow), X)
    network[0]._forward_hooks.clear()  # with one of the user's, it is not just linear
    before = state_of(network)
    NetworkAGOP(network, kind=kind, n_probes=2, random_state=0).fit(X)
    assert_untouched(before, network)


class Failing(nn.Module):
    """Works some times and then does not."""

    def __init__(self, error, after):
        super().__init__()
        self.body = cnn()
        self.error, self.left = error, [after]  # in a list: it counts on

    def forward(self, x):
        h = self.body[:4](x)
        if self.left[0] == 0:
            raise self.error
        self.left[0] -= 1
        return self.body[4:](h)


@pytest.mark.parametrize("after", [0, 1, 2, 3, 5])
@pytest.mark.parametrize("error", [RuntimeError("x"), KeyboardInterrupt(), OSError()])
def test_untouched_after_an_exception_in_the_network(error, after):
    X = numbers(4, 2, 8, 8)
    network = used(seeded(Failing, error, after), X)
    before = state_of(network)
    model = NetworkAGOP(network, layers=["input", "body.0", "body.4:patch"])
    with pytest.raises(type(error)):
        model.set_params(batch_size=1).fit(X)
    assert_untouched(before, network)


def test_untouched_after_an_exception_in_the_data():
    network = used(seeded(mlp), None)
    before = state_of(network)

    def batches():
        yield numbers(4, 6)
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        NetworkAGOP(network).fit(batches())
    assert_untouched(before, network)


def test_untouched_after_a_refusal():
    X = numbers(4, 6)
    network = used(seeded(mlp), X)
    before = state_of(network)
    for settings in [
        {"layers": ["0", "nowhere"]},
        {"outputs": 9},
        {"outputs": lambda z: z.sum()},
        {"layers": ["0:patch"]},
        {"kind": "linear", "layers": ["2"]},
        {"n_components": 99},
    ]:
        with pytest.raises(ValueError):
            NetworkAGOP(network, **settings).fit(X)
        assert_untouched(before, network)


# ------------------------------------------------------------------------ train mode
def test_nb_batch_normalization_in_train_mode():
    network, X = seeded(cnn).train(), numbers(6, 2, 8, 8)
    before = copy.deepcopy(network.state_dict())
    model = NetworkAGOP(network, kind="full").fit(X)
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert network[1].training
    assert network[1].num_batches_tracked == 0
    assert_same(model.agop_, NetworkAGOP(network.eval(), kind="full").fit(X).agop_, 0)


def test_nc_dropout_in_train_mode():
    def build():
        return nn.Sequential(
            nn.Linear(6, 8), nn.Dropout(0.5), nn.Tanh(), nn.Linear(8, 2)
        )

    network, X = seeded(build), numbers(6, 6)
    found = NetworkAGOP(network.train(), kind="full").fit(X).agop_
    assert_same(found, NetworkAGOP(network.eval(), kind="full").fit(X).agop_, 0)


def test_a_train_method_that_does_more_is_not_called():
    """Some networks fold weights together when they are put in eval mode."""

    class Folding(nn.Linear):
        def train(self, mode=True):
            if mode != self.training:
                self.weight.data.mul_(2)
            return super().train(mode)

    network = seeded(Folding, 6, 2)
    weight = network.weight.detach().clone()
    found = NetworkAGOP(network, kind="full").fit(numbers(4, 6)).agop_
    assert torch.equal(network.weight, weight)
    assert_same(found, (weight.T @ weight).numpy())
    assert network.training


# ------------------------------------------------------------------------- attributes
class Noting(nn.Module):
    """Writes things down in every pass."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(6, 3)
        self.register_buffer("counted", torch.zeros(()))
        self.register_buffer("replaced", torch.zeros(()))
        self.register_buffer("cache", None)
        self.n_calls = 0
        self.map = None

    def forward(self, x):
        self.n_calls += 1
        self.counted += 1
        self.replaced = self.replaced + 1
        self.cache = x.detach()
        self.map = self.body(x)
        self.new = x
        self.body.note = x
        return self.map * (1 + 0 * self.counted)


@pytest.mark.parametrize("fails", [False, True])
def test_what_modules_note_in_a_pass(fails):
    network = seeded(Noting)
    network(numbers(2, 6))
    before, held = state_of(network), (network.map, network.replaced, network.cache)
    del before["versions"]  # a buffer that a network counts in is written to
    X = numbers(4, 6)
    if fails:
        with pytest.raises(ValueError):
            NetworkAGOP(network, layers=["body"], outputs=7).fit(X)
    else:
        NetworkAGOP(network, layers=["body"]).fit(X)
    assert_untouched(before, network)
    assert network.n_calls == 1
    assert held == (network.map, network.replaced, network.cache)


def test_no_graph_stays_alive():
    """Activations of a pass are freed, whatever the network keeps of them."""
    import gc
    import weakref

    network, alive = seeded(Noting), []
    network.body.register_forward_hook(
        lambda module, given, output: alive.append(weakref.ref(output))
    )
    model = NetworkAGOP(network).fit(numbers(4, 6))
    gc.collect()
    assert alive
    assert [reference for reference in alive if reference() is not None] == []
    assert model.n_samples_seen_ == 4


# -------------------------------------------------------------------- the user's graph
def test_a_graph_of_the_users_own_survives():
    network, X = seeded(cnn), numbers(3, 2, 8, 8)
    expected = torch.autograd.grad(network(X).sum(), network.parameters())
    loss = network(X).sum()
    NetworkAGOP(network, layers=["input", "0"]).fit(X)
    loss.backward()
    for parameter, gradient in zip(network.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_nj_gradients_stay_none():
    network, X = seeded(mlp), numbers(4, 6).requires_grad_()
    NetworkAGOP(network, layers=["input", "0", "2:input"]).fit(X)
    assert all(parameter.grad is None for parameter in network.parameters())
    assert X.grad is None


# ---------------------------------------------------------------------------- contexts
CONTEXTS = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "default device": lambda: torch.device("meta"),
}


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"kind": "full"},
        {"kind": "rows"},
        {"kind": "diagonal"},
        {"kind": "low_rank"},
        {"n_probes": 2, "random_state": 0},
        {"center": True, "kind": "full"},
        {"layers": ["0", "2:input"], "kind": "full"},
    ],
    ids=str,
)
def test_f58_nh_the_same_in_every_context(context, settings):
    network, X = seeded(narrow).float(), numbers(8, 6).float().numpy()
    make = lambda: NetworkAGOP(network, **settings)  # noqa: E731
    expected = make().fit(X).partial_fit(X)
    weights = np.arange(8.0)
    with CONTEXTS[context]():
        found = make().fit(X).partial_fit(X)
        results = vars_of(found)
        found.transform(X)
        if settings.get("kind") != "diagonal":
            found.bootstrap(X, n_resamples=3)
        inside = make().fit(X, sample_weight=weights).merge(found)
    for name, value in vars_of(expected).items():
        np.testing.assert_equal(results[name], value, err_msg=name)
        np.testing.assert_equal(vars_of(found)[name], value, err_msg=name)
    found.partial_fit(X).merge(found).merge(inside)  # and it goes on outside
    assert found.n_samples_seen_ == 72
    np.testing.assert_array_equal(
        expected.transform(X), found_again(found, expected, X)
    )


def found_again(found, expected, X):
    """Of an estimator that was fitted in a context, once more outside."""
    return (
        type(found)(**expected.get_params(deep=False))
        .fit(X)
        .partial_fit(X)
        .transform(X)
    )


def vars_of(model):
    names = ["agop_", "eigenvalues_", "trace_", "feature_importances_", "probe_error_"]
    return {name: getattr(model, name) for name in names}


def test_tensors_and_networks_made_in_inference_mode():
    with torch.inference_mode():
        network, X = seeded(narrow), numbers(8, 6)
        inside = NetworkAGOP(network).fit(X)
    outside = NetworkAGOP(network).fit(X)
    expected = NetworkAGOP(seeded(narrow)).fit(numbers(8, 6))
    assert np.array_equal(inside.agop_, expected.agop_)
    assert np.array_equal(outside.agop_, expected.agop_)
    assert np.array_equal(outside.transform(X), expected.transform(numbers(8, 6)))
    with pytest.raises(ValueError, match="The network was built, or its weights"):
        with untouched(network):
            pass


def test_a_network_that_switches_inference_mode_on_is_refused():
    network = seeded(mlp)

    def function(x):
        with torch.inference_mode():
            return network(x)

    with pytest.raises(ValueError, match="does not depend differentiably"):
        NetworkAGOP(function).fit(numbers(4, 6))
    with pytest.raises(ValueError, match="does not depend differentiably"):
        NetworkAGOP(function, layers=["network.0"]).fit(numbers(4, 6))


# ------------------------------------------------------------------------- generators
class Random(nn.Module):
    """Draws numbers that do not matter."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(6, 2)

    def forward(self, x):
        noise = torch.rand(1).item() + random.random() + np.random.random()  # noqa: NPY002
        return self.body(x) + 0 * noise


def test_generators_are_put_back():
    network = seeded(Random)
    before = state_of(network)
    NetworkAGOP(network, n_probes=1).fit(numbers(4, 6))
    assert_untouched(before, network)


# ------------------------------------------------------------------------------ modes
def test_the_fast_path_of_transformers_is_off_inside_only():
    """Nested tensors and fused layers would leave padding out and call no hooks."""

    def build():
        layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
        return nn.TransformerEncoder(layer, 2)

    network = seeded(build).eval()
    mask = torch.zeros(3, 5, dtype=torch.bool)
    mask[:, 3:] = True
    data = {"src": numbers(3, 5, 4), "src_key_padding_mask": mask}
    settings = {"outputs": lambda z: z[:, 0], "kind": "full"}
    for layers in (["layers.0.linear1"], ["input"]):
        fast = NetworkAGOP(network, layers=layers, **settings).fit(data)
        slow = NetworkAGOP(copy.deepcopy(network).train(), layers=layers, **settings)
        assert_same(fast.agop_[layers[0]], slow.fit(data).agop_[layers[0]], 1e-12)
    assert torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        NetworkAGOP(seeded(mlp)).fit(numbers(4, 6))
        assert not torch.backends.mha.get_fastpath_enabled()
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


def test_lazy_and_meta_networks_are_refused():
    with pytest.raises(ValueError, match="parameters without numbers"):
        NetworkAGOP(nn.LazyLinear(3)).fit(numbers(4, 6))
    with pytest.raises(ValueError, match="parameters without numbers"):
        NetworkAGOP(nn.Linear(6, 3, device="meta")).fit(numbers(4, 6))


# ---------------------------------------------------------------------------- threads
def test_f56_threads_share_a_network():
    """Train mode, frozen flags and hooks must not get mixed up."""
    network, X = seeded(cnn).train(), numbers(6, 2, 8, 8)
    network[2].inplace = False
    model = NetworkAGOP(network, layers=["0", "4"]).fit(X)
    expected = model.transform(X), model.agop_["4"]
    before, wrong = state_of(network), []

    def work():
        try:
            for _ in range(4):
                again = NetworkAGOP(network, layers=["0", "4"]).fit(X).agop_["4"]
                if not np.array_equal(model.transform(X), expected[0]):
                    wrong.append("transform")
                if not np.array_equal(again, expected[1]):
                    wrong.append("fit")
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert_untouched(before, network)


def test_tokens_and_masks_of_the_user_are_not_written_to():
    network = seeded(Text).eval()
    tokens = torch.arange(10).view(2, 5)
    mask = torch.ones(2, 5, dtype=torch.long)
    before = tokens.clone(), mask.clone()
    NetworkAGOP(network, layers=["embed"]).fit(
        {"input_ids": tokens, "attention_mask": mask}
    )
    assert torch.equal(tokens, before[0])
    assert torch.equal(mask, before[1])

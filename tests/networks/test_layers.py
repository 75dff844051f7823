"""Places in networks by name, what modules return, and the hooks."""

import re
from collections import OrderedDict, namedtuple
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from agop.core.arrays import InvalidParameterError
from agop.networks.layers import (
    NETWORK_INPUT,
    Catcher,
    Site,
    find_module,
    find_sites,
    first_tensor,
    replace_first_tensor,
    visiting,
)
from tests.networks.nets import Reused, mlp, numbers, seeded


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.attn, self.mlp = nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4))

    def forward(self, x):
        return x + self.mlp(self.attn(x))


class Blocks(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(3, 4)
        self.blocks = nn.ModuleList(Block() for _ in range(3))
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        h = self.embed(x)
        for block in self.blocks:
            h = block(h)
        return self.head(h)


@pytest.fixture(scope="module")
def network():
    return seeded(Blocks)


def names(network, layers):
    return [site.name for site in find_sites(network, layers)]


# ---------------------------------------------------------------------------- names
FOUND = {
    "embed": ["embed"],
    "embed:output": ["embed"],
    "embed:input": ["embed:input"],
    "embed@0": ["embed@0"],
    "embed@sum:input": ["embed@sum:input"],
    "input": ["input"],
    ":input": ["input"],
    "blocks.*": ["blocks.0", "blocks.1", "blocks.2"],
    "blocks.*.mlp": ["blocks.0.mlp", "blocks.1.mlp", "blocks.2.mlp"],
    "blocks.[02].attn:input": ["blocks.0.attn:input", "blocks.2.attn:input"],
    "blocks.?.mlp.0@1": ["blocks.0.mlp.0@1", "blocks.1.mlp.0@1", "blocks.2.mlp.0@1"],
    "*": ["embed", "blocks", "head"],
}


@pytest.mark.parametrize("layers", FOUND)
def test_names_and_patterns(network, layers):
    assert names(network, layers) == FOUND[layers]
    assert names(network, [layers]) == FOUND[layers]


def test_other_ways_to_name_layers(network):
    assert names(network, None) == ["input"]
    assert names(network, network.head) == ["head"]
    assert names(network, re.compile(r"blocks\.\d\.attn")) == [
        f"blocks.{k}.attn" for k in range(3)
    ]
    assert names(network, lambda name, module: name.endswith("mlp")) == [
        f"blocks.{k}.mlp" for k in range(3)
    ]
    mixed = ["head", network.embed, "blocks.*", re.compile("embed"), "blocks.1", "head"]
    assert names(network, mixed) == ["head", "embed", *FOUND["blocks.*"]]
    assert names(network, iter(("head", "input"))) == ["head", "input"]


def test_the_order_is_the_one_asked_for(network):
    assert names(network, ["head", "input", "embed"]) == ["head", "input", "embed"]


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ("blocks.1.mpl", "no layer 'blocks.1.mpl'. Near names: blocks.1.mlp"),
        ("zzz", "no layer 'zzz'. Its layers: embed, blocks, blocks.0, "),
        ("blocks.*.zzz", r"no layer 'blocks.\*.zzz'"),
        ("b.*", r"no layer 'b.\*'"),
        ("", "no layer ''"),
        ("@0", "no layer ''"),
        (":patch", "no layer ''"),
        ("embed.weight", "no layer 'embed.weight'"),
        ("embed:inputs", "has the parts output, input, patch, not 'inputs'"),
        ("embed@first", "after @ comes the number of a call, from 0, or 'sum'"),
        ("embed@-1", "after @ comes the number of a call"),
        ("input:input", "the input has no parts and no calls"),
        ("input@0", "the input has no parts and no calls"),
        (re.compile("attn"), "no layer 'attn'"),
        ([], "No layer was chosen"),
        (lambda name, module: False, "or a function that refuses every layer"),
        (nn.Linear(3, 3), "The module Linear is not part of this network"),
        (3, "dotted name, a pattern, the module itself or a function"),
        ([3], "dotted name, a pattern, the module itself or a function"),
        (nn.Linear, "dotted name, a pattern, the module itself or a function"),
    ],
)
def test_names_of_nothing(network, layers, message):
    with pytest.raises(ValueError, match=message):
        find_sites(network, layers)


def test_a_wrong_type_is_also_a_type_error(network):
    with pytest.raises(InvalidParameterError):
        find_sites(network, 3)
    with pytest.raises(TypeError):
        find_module(network, 3)


def test_many_names_are_not_all_listed():
    network = nn.ModuleDict({f"part{k:02}": nn.Identity() for k in range(40)})
    with pytest.raises(ValueError, match=r"part14 … \(40 in all\)"):
        find_sites(network, "zzz")
    with pytest.raises(ValueError, match="only its input can be looked at"):
        find_sites(nn.Identity(), "fc")


def test_a_layer_that_is_called_input():
    network = nn.ModuleDict({"input": nn.Identity(), "other": nn.Identity()})
    assert find_sites(network, "input") == [Site("input")]
    assert not find_sites(network, "input")[0].is_network_input
    assert find_sites(network, "input:input") == [Site("input", "input")]
    assert find_sites(network, ":input") == [NETWORK_INPUT]
    assert find_sites(network, None) == [NETWORK_INPUT]
    with pytest.raises(ValueError, match="Ask for one at a time"):
        find_sites(network, ["input", ":input"])


def test_one_module_has_many_names():
    shared = nn.Identity()
    network = nn.ModuleDict({"a": shared, "b": shared})
    assert find_module(network, "b") == ("b", shared)
    assert find_module(network, shared) == ("a", shared)
    assert names(network, "*") == ["a"]


# ---------------------------------------------------------------- what modules return
Named = namedtuple("Named", ["x", "y"])


@dataclass
class Output:
    logits: torch.Tensor
    other: object = None


@dataclass
class Both(OrderedDict):
    """As Hugging Face's outputs: a mapping and a dataclass."""

    logits: torch.Tensor = None
    other: object = None

    def __post_init__(self):
        self.update(logits=self.logits, other=self.other)


T = torch.ones(2, 3)
TOKENS = torch.ones(2, 3, dtype=torch.long)
STRUCTURES = {
    "tensor": T,
    "tuple": (T, None),
    "named tuple": Named(TOKENS, T),
    "list": [TOKENS, [None, {"x": T}], T * 2],
    "dict": {"tokens": TOKENS, "x": (T,)},
    "dataclass": Output(T, "other"),
    "nested dataclass": (None, Output(TOKENS, Output(T))),
    "both": Both(T, "other"),
    "packed": nn.utils.rnn.pack_sequence([T, T[:1]]),
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_the_first_tensor_is_found_and_replaced(name):
    value = STRUCTURES[name]
    old = first_tensor(value)
    assert old.is_floating_point()
    new = torch.zeros_like(old)
    other = replace_first_tensor(value, new)
    assert type(other) is type(value)
    assert first_tensor(other) is new
    assert first_tensor(value) is old


def test_everything_else_stays():
    cache = object()
    value = {"x": T, "again": (T, TOKENS), "cache": cache, "y": T * 2}
    new = torch.zeros(2, 3)
    other = replace_first_tensor(value, new)
    assert other["x"] is new
    assert other["again"][0] is new  # query, key and value are one tensor
    assert other["again"][1] is TOKENS
    assert other["cache"] is cache
    assert other["y"] is value["y"]


@pytest.mark.parametrize("value", [None, TOKENS, (), [TOKENS, None], {"a": "b"}, 3])
def test_no_floating_tensor(value):
    assert first_tensor(value) is None
    assert replace_first_tensor(value, T) is value


# ---------------------------------------------------------------------------- hooks
def n_hooks(network):
    return sum(
        len(hooks)
        for module in network.modules()
        for hooks in (
            module._forward_hooks,
            module._forward_pre_hooks,
            module._forward_hooks_with_kwargs,
            module._forward_pre_hooks_with_kwargs,
            module._backward_hooks,
        )
    )


def test_every_call_is_a_visit_and_hooks_are_removed():
    network, X = seeded(Reused), numbers(4, 6)
    seen = []

    def visit(tensor):
        seen.append(tensor)
        return tensor * 0

    before = network(X)
    with visiting(network, {Site("again"): visit, Site("leave", "input"): visit}):
        assert n_hooks(network) == 3  # one of them also among those with keywords
        changed = network(X)
    assert len(seen) == 4
    assert n_hooks(network) == 0
    assert torch.equal(changed, network.leave.bias.expand(4, 2))
    assert torch.equal(network(X), before)


def test_hooks_are_removed_after_an_exception():
    network = seeded(mlp)
    with pytest.raises(RuntimeError), visiting(network, {Site("0"): Catcher()}):
        network(torch.ones(2, 99))
    with pytest.raises(ValueError), visiting(network, {Site("0"): str, Site("9"): str}):
        pass
    assert n_hooks(network) == 0


def test_layers_given_keywords_only():
    class Keyword(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(3, 2)

        def forward(self, x):
            return self.inner(input=x)

    network, X = seeded(Keyword), numbers(4, 3)
    catcher = Catcher()
    with visiting(network, {Site("inner", "input"): catcher}):
        network(X)
    assert torch.equal(catcher.caught[0], X)


def test_trap_one_clone_is_kept_and_another_goes_on():
    """What works in place behind a layer changes neither value nor graph."""
    network = seeded(lambda: nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True)))
    X = numbers(5, 3)
    for trained in (True, False):
        network.requires_grad_(trained)
        for layers in (["0"], ["0", "1"]):
            catchers = {Site(layer): Catcher() for layer in layers}
            with visiting(network, catchers):
                output = network(X)
            h = catchers[Site("0")].caught[0]
            assert torch.equal(h, network[0](X))
            (gradient,) = torch.autograd.grad(output.sum(), h)
            assert torch.equal(gradient, (h > 0).double())


def test_a_catcher_inside_no_grad():
    catcher = Catcher()
    with torch.no_grad():
        handed_on = catcher(torch.ones(3))
    assert catcher.caught[0].requires_grad
    assert torch.equal(handed_on, torch.ones(3))

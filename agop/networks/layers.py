"""Places in a network, by name, and hooks that catch the activations there."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from agop.core.arrays import InvalidParameterError

#: What the input of a network is called where layers have names.
INPUT = "input"

#: What may follow the name of a layer, after a colon.
_PARTS = ("output", "input", "patch")

#: How many near names an error shows, and how many of all if none is near.
_SHOWN = 5


@dataclass(frozen=True)
class Site:
    """A place in a network at which gradients are taken.

    Parameters
    ----------
    layer : str
        Dotted name of a module; "" for the network as a whole.
    part : {"output", "input", "patch"}, default="output"
        What the module returns, what it is given, or the patches that a convolution
        reads.
    call : int or "sum", default=None
        Which call of a module that is called several times in one pass; "sum" moves
        all of them together.
    """

    layer: str
    part: str = "output"
    call: int | str | None = None

    @property
    def name(self) -> str:
        """The site as it is written: layer, call, part."""
        if self.is_network_input:
            return INPUT
        call = "" if self.call is None else f"@{self.call}"
        part = "" if self.part == "output" else f":{self.part}"
        return f"{self.layer}{call}{part}"

    @property
    def is_network_input(self) -> bool:
        """Whether this is what the network itself is given."""
        return (self.layer, self.part) == ("", "input")


#: The input of the network.
NETWORK_INPUT = Site("", "input")


# ---------------------------------------------------------------------------- names


def find_sites(network: nn.Module, layers: Any) -> list[Site]:
    """The sites that a user means.

    Parameters
    ----------
    network : Module
    layers : None, str, Pattern, Module, callable, or an iterable of these
        None is the input. A string is a dotted name or a pattern such as
        "blocks.*.mlp", whose stars stay between two dots; ":input" or ":patch" after
        it is what the layer is given, "@0" its first call. "input" is the input of the
        network; if a layer has that name, ":input" is. A compiled pattern must match a
        whole name. A callable decides by (name, module).

    Returns
    -------
    list of Site
        Each once, in the order asked for.

    Raises
    ------
    ValueError
        If nothing in the network answers to a name; near names are shown.
    """
    if layers is None:
        return [NETWORK_INPUT]
    if isinstance(layers, (str, re.Pattern, nn.Module)) or callable(layers):
        found = list(_sites(network, layers))
    elif isinstance(layers, Iterable):
        found = [site for layer in layers for site in _sites(network, layer)]
    else:
        raise InvalidParameterError(_unknown_kind(layers))
    if not found:
        raise ValueError(
            "No layer was chosen: layers is empty, or a function that refuses every "
            "layer. Name at least one, or pass None for the input."
        )
    found = list(dict.fromkeys(found))
    if len({site.name for site in found}) < len(found):
        raise ValueError(
            f"The network has a layer {INPUT!r}: in what comes out it could not be "
            "told from the input of the network. Ask for one at a time."
        )
    return found


def find_module(network: nn.Module, layer: str | nn.Module) -> tuple[str, nn.Module]:
    """One module of a network.

    Parameters
    ----------
    network : Module
    layer : str or Module
        A dotted name, or the module itself.

    Returns
    -------
    name : str
    module : Module

    Raises
    ------
    ValueError
        If it is not part of the network; near names are shown.
    """
    if isinstance(layer, nn.Module):
        for name, module in network.named_modules():
            if module is layer:
                return name, module
        raise ValueError(
            f"The module {type(layer).__name__} is not part of this network. (A copy, "
            "as scikit-learn's clone makes it, is another module.) Give its name: "
            f"{_some(_names(network))}."
        )
    if not isinstance(layer, str):
        raise InvalidParameterError(_unknown_kind(layer))
    known = dict(network.named_modules(remove_duplicate=False))
    if layer not in known:
        raise ValueError(_no_layer(network, layer))
    return layer, known[layer]


def _sites(network: nn.Module, layer: Any) -> Iterator[Site]:
    if isinstance(layer, type):
        raise InvalidParameterError(_unknown_kind(layer))
    if isinstance(layer, str):
        yield from _named_sites(network, layer)
    elif isinstance(layer, nn.Module):
        yield Site(find_module(network, layer)[0])
    elif isinstance(layer, re.Pattern):
        matches = [name for name in _names(network) if layer.fullmatch(name)]
        if not matches:
            raise ValueError(_no_layer(network, layer.pattern))
        yield from map(Site, matches)
    elif callable(layer):
        for name, module in network.named_modules():
            if name and layer(name, module):
                yield Site(name)
    else:
        raise InvalidParameterError(_unknown_kind(layer))


def _named_sites(network: nn.Module, text: str) -> Iterator[Site]:
    name, _, part = text.partition(":")
    name, _, call = name.partition("@")
    if part not in ("", *_PARTS):
        raise ValueError(
            f"{text!r}: a layer has the parts {', '.join(_PARTS)}, not {part!r}."
        )
    if call and call != "sum" and not call.isdecimal():
        raise ValueError(
            f"{text!r}: after @ comes the number of a call, from 0, or 'sum'."
        )
    which = int(call) if call.isdecimal() else call or None
    known = _names(network)
    if text == f":{INPUT}" or (name == INPUT and INPUT not in known):
        if name and (part or call):
            raise ValueError(f"{text!r}: the input has no parts and no calls.")
        yield NETWORK_INPUT
        return
    if any(character in name for character in "*?["):
        matches = [other for other in known if _matches(name, other)]
    else:
        matches = [find_module(network, name)[0]] if name else []
    if not matches:
        raise ValueError(_no_layer(network, name))
    for match in matches:
        yield Site(match, part or "output", which)


def _matches(pattern: str, name: str) -> bool:
    """Like a shell's path pattern, with dots for slashes."""
    patterns, names = pattern.split("."), name.split(".")
    return len(patterns) == len(names) and all(map(fnmatchcase, names, patterns))


def _names(network: nn.Module) -> list[str]:
    return [name for name, _ in network.named_modules() if name]


def _no_layer(network: nn.Module, name: str) -> str:
    names = _names(network)
    near = get_close_matches(name, names, n=_SHOWN, cutoff=0.5)
    if near:
        hint = f"Near names: {', '.join(near)}."
    elif names:
        hint = f"Its layers: {_some(names)}."
    else:
        hint = "It has no layers: only its input can be looked at (layers=None)."
    return f"The network has no layer {name!r}. {hint}"


def _some(names: list[str]) -> str:
    more = f" … ({len(names)} in all)" if len(names) > 3 * _SHOWN else ""
    return ", ".join(names[: 3 * _SHOWN]) + more


def _unknown_kind(layer: object) -> str:
    return (
        "A layer is given by its dotted name, a pattern, the module itself or a "
        f"function of (name, module); got {layer!r}."
    )


# ---------------------------------------------------------------- what modules return


def first_tensor(value: Any) -> torch.Tensor | None:
    """The first floating tensor in what a module was given or returned.

    Parameters
    ----------
    value : Tensor, tuple, list, mapping or dataclass
        Nested ones are searched in order.

    Returns
    -------
    Tensor or None
        None if there is none.
    """
    if isinstance(value, torch.Tensor):
        return value if value.is_floating_point() else None
    for item in _items(value):
        found = first_tensor(item)
        if found is not None:
            return found
    return None


def replace_first_tensor(value: Any, tensor: torch.Tensor) -> Any:
    """The same structure with another tensor in place of its first floating one.

    Parameters
    ----------
    value : Tensor, tuple, list, mapping or dataclass
    tensor : Tensor

    Returns
    -------
    object
        A copy as far as it differs; `value` is left as it is.
    """
    old = first_tensor(value)
    return value if old is None else _replaced(value, old, tensor)


def _replaced(value: Any, old: torch.Tensor, new: torch.Tensor) -> Any:
    if value is old:
        return new
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_replaced(item, old, new) for item in value))
    if isinstance(value, (tuple, list)):
        return type(value)(_replaced(item, old, new) for item in value)
    if isinstance(value, Mapping):
        items = {key: _replaced(item, old, new) for key, item in value.items()}
        kind: Any = type(value)  # a dataclass and a mapping: Hugging Face's outputs
        return kind(**items) if hasattr(kind, "__dataclass_fields__") else items
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value) if field.init]
        return dataclasses.replace(
            value, **{n: _replaced(getattr(value, n), old, new) for n in names}
        )
    return value


def _items(value: Any) -> Iterable[Any]:
    if isinstance(value, (tuple, list)):
        return value
    if isinstance(value, Mapping):
        return value.values()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, field.name) for field in dataclasses.fields(value)]
    return ()


# ---------------------------------------------------------------------------- hooks


#: Called with an activation; what it returns goes on in its place.
Visitor = Callable[[torch.Tensor], torch.Tensor]


@contextmanager
def visiting(network: nn.Module, sites: Mapping[Site, Visitor]) -> Iterator[None]:
    """Let functions see, and replace, the activations at some sites.

    Every call of a layer is a visit. The hooks are removed whatever happens.

    Parameters
    ----------
    network : Module
    sites : mapping from Site to callable
        Not the input of the network, which is at hand without a hook. The patches of
        a convolution are visited at its output.
    """
    with ExitStack() as stack:
        for site, visit in sites.items():
            module = find_module(network, site.layer)[1]
            if site.part == "input":
                handle = module.register_forward_pre_hook(
                    _input_hook(visit), with_kwargs=True
                )
            else:
                handle = module.register_forward_hook(_output_hook(visit))
            stack.callback(handle.remove)
        yield


def _output_hook(visit: Visitor) -> Callable[..., Any]:
    def hook(module: nn.Module, arguments: Any, output: Any) -> Any:
        tensor = first_tensor(output)
        if tensor is None:
            return None
        return replace_first_tensor(output, visit(tensor))

    return hook


def _input_hook(visit: Visitor) -> Callable[..., Any]:
    def hook(module: nn.Module, arguments: Any, keywords: Any) -> Any:
        given = (arguments, keywords)
        tensor = first_tensor(given)
        if tensor is None:
            return None
        return replace_first_tensor(given, visit(tensor))

    return hook


class Catcher:
    """Makes every activation that passes a variable of the derivative.

    A clone is kept and another clone goes on, so that a layer that works in place
    behind it changes neither. Where nothing before it is differentiated, the graph
    begins here.

    Attributes
    ----------
    caught : list of Tensor
        One for each call.
    """

    def __init__(self) -> None:
        self.caught: list[torch.Tensor] = []

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        """Keep a variable with these numbers and hand another on.

        Parameters
        ----------
        tensor : Tensor

        Returns
        -------
        Tensor
        """
        with torch.enable_grad():
            variable = tensor.clone()
            if not variable.requires_grad:
                variable = variable.detach().requires_grad_()
            self.caught.append(variable)
            return variable.clone()

"""Layers that multiply by a matrix: their weights, and where they stand."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from agop.networks.initialization import frozen
from agop.networks.layers import Site, find_module
from agop.networks.shortcuts import weight_matrix

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)

#: What the three projections at the entrance of ``nn.MultiheadAttention`` are called.
_ENTRANCE = {"q_proj": "query", "k_proj": "key", "v_proj": "value"}

_KINDS = (
    "nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.MultiheadAttention and the Conv1D "
    "of Hugging Face"
)


@dataclass(frozen=True)
class Projection:
    """A layer y = W x + b of a network.

    Parameters
    ----------
    layer : str
        Dotted name.
    module : Module
    returned_by : str
        Name of the module that returns y: the layer itself, or the attention to which
        it belongs.
    call : int or "sum", default=None
        Which call, of a layer that is called several times.
    """

    layer: str
    module: nn.Module
    returned_by: str
    call: int | str | None = None

    @property
    def name(self) -> str:
        """The layer, and which call of it."""
        return Site(self.layer, "output", self.call).name

    @property
    def weight(self) -> torch.Tensor:
        """W, of shape (n_outputs, n_features), in float64 on the CPU."""
        return _weight(self.module).double().cpu()

    @property
    def output(self) -> Site:
        """Where y is."""
        return Site(self.returned_by, "output", self.call)

    @property
    def narrowest(self) -> Site:
        """Where x is, if it is no wider than y and within reach; else where y is."""
        n_outputs, n_features = _weight(self.module).shape
        within_reach = self.returned_by == self.layer and not isinstance(
            self.module, _CONVOLUTIONS
        )
        if within_reach and n_features <= n_outputs:
            return Site(self.layer, "input", self.call)
        return self.output


def neural_feature_matrix(
    module: nn.Module, projection: str | None = None
) -> torch.Tensor:
    """The neural feature matrix WᵀW of a layer.

    Its leading eigenvectors are the directions that the layer keeps and stretches most
    (Radhakrishnan, Beaglehole, Pandit and Belkin, Science 383:1461, 2024,
    arXiv:2212.13881; for convolutions Beaglehole, Radhakrishnan, Pandit and Belkin,
    2023, arXiv:2309.00570).

    Parameters
    ----------
    module : Module
        ``nn.Linear``; a convolution, whose W reads patches: (out_channels, in_channels
        * kernel size), zero where a group does not read a channel; Hugging Face's
        Conv1D; or ``nn.MultiheadAttention``.
    projection : {"q_proj", "k_proj", "v_proj", "out_proj"}, default=None
        Which of the matrices of ``nn.MultiheadAttention``.

    Returns
    -------
    Tensor of shape (n_features, n_features), float64
        In squared units of output per input.

    Raises
    ------
    ValueError
        If the module is of another kind, or `projection` does not fit it.

    Examples
    --------
    >>> import torch
    >>> from agop import neural_feature_matrix
    >>> layer = torch.nn.Linear(2, 2)
    >>> _ = torch.nn.init.constant_(layer.weight, 1.0)
    >>> neural_feature_matrix(layer)
    tensor([[2., 2.],
            [2., 2.]], dtype=torch.float64)
    """
    if isinstance(module, nn.MultiheadAttention):
        weights = _attention_weights(module)
        if projection not in weights:
            raise ValueError(
                "nn.MultiheadAttention has several matrices: pass projection="
                f"{', '.join(map(repr, weights))}; got {projection!r}."
            )
        weight = weights[projection].detach()
    elif projection is not None:
        raise ValueError(
            f"A {type(module).__name__} has one matrix: projection={projection!r} is "
            "for nn.MultiheadAttention."
        )
    else:
        weight = _weight(module)
    return weight.double().T @ weight.double()


def find_projections(
    network: nn.Module, sites: list[Site] | None
) -> dict[str, Projection]:
    """The layers with a matrix that are meant.

    Parameters
    ----------
    network : Module
        After :func:`opened`.
    sites : list of Site or None
        Layers with a matrix; an attention stands for its four. None for all that the
        network has, except frozen ones beside trained ones.

    Returns
    -------
    dict of Projection
        By name.

    Raises
    ------
    ValueError
        If a layer has no matrix, or there is none.
    """
    known = _projections(network)
    if sites is None:
        left = frozen(network)
        found = [each for each in known.values() if each.module not in left]
    else:
        found = [each for site in sites for each in _at(network, known, site)]
    if not found:
        raise ValueError(
            "The network has no layer with a matrix that could be compared with an "
            f"AGOP. Such layers are {_KINDS}; wrap a network that is a single one in "
            "nn.Sequential."
        )
    return {each.name: each for each in found}


def _projections(network: nn.Module) -> dict[str, Projection]:
    exits = {
        module.out_proj: name
        for name, module in network.named_modules()
        if isinstance(module, nn.MultiheadAttention)
    }
    return {
        name: Projection(name, module, exits.get(module, name))
        for name, module in network.named_modules()
        if name and _has_matrix(module)
    }


def _at(
    network: nn.Module, known: Mapping[str, Projection], site: Site
) -> list[Projection]:
    module = find_module(network, site.layer)[1]
    if isinstance(module, nn.MultiheadAttention):
        names = [f"{site.layer}.{part}" for part in (*_ENTRANCE, "out_proj")]
    elif site.layer in known:
        names = [site.layer]
    else:
        raise ValueError(
            f"The layer {site.layer!r} is a {type(module).__name__}, which has no "
            f"matrix to compare with an AGOP. Layers that have one are {_KINDS}."
        )
    return [replace(known[name], call=site.call) for name in names]


def _has_matrix(module: nn.Module) -> bool:
    return isinstance(module, (nn.Linear, *_CONVOLUTIONS)) or _is_transposed(module)


def _is_transposed(module: nn.Module) -> bool:
    """Whether this is Hugging Face's Conv1D: a linear layer with W transposed."""
    return type(module).__name__ == "Conv1D" and hasattr(module, "nf")


def _weight(module: nn.Module) -> torch.Tensor:
    """W, of shape (n_outputs, n_features)."""
    if isinstance(module, _CONVOLUTIONS):
        return weight_matrix(Site(type(module).__name__, "patch"), module)
    if isinstance(module, nn.Linear):
        return module.weight.detach()
    if _is_transposed(module):
        weight: Any = module.weight
        return weight.detach().T
    raise ValueError(
        f"A {type(module).__name__} has no neural feature matrix. Layers that have one "
        f"are {_KINDS}."
    )


# --------------------------------------------------------------------------- attention


def opened(network: nn.Module) -> nn.Module:
    """The same network with the parts of every attention as layers of their own.

    ``nn.MultiheadAttention`` multiplies by its matrices without calling a layer, so no
    hook can see it. In the copy, linear layers `q_proj`, `k_proj` and `v_proj` go
    before it and its own matrices are identities.

    Parameters
    ----------
    network : Module

    Returns
    -------
    Module
        A copy; the network itself if there is no such attention in it.
    """
    if not any(isinstance(m, nn.MultiheadAttention) for m in network.modules()):
        return network
    network = copy.deepcopy(network)
    for module in list(network.modules()):
        if isinstance(module, nn.MultiheadAttention):
            _open(module)
    return network


def _open(attention: nn.MultiheadAttention) -> None:
    weights = _attention_weights(attention)
    for part in _ENTRANCE:
        n_outputs, n_features = weights[part].shape
        linear = nn.Linear(n_features, n_outputs, bias=False, device="meta")
        trained = weights[part].requires_grad
        linear.weight = nn.Parameter(weights[part].detach(), requires_grad=trained)
        attention.add_module(part, linear)
    identity = torch.eye(attention.embed_dim).repeat(3, 1).to(attention.out_proj.weight)
    attention.in_proj_weight = nn.Parameter(identity, requires_grad=False)
    attention._qkv_same_embed_dim = True
    attention.register_forward_pre_hook(_enter, with_kwargs=True)


def _attention_weights(attention: nn.MultiheadAttention) -> dict[str, torch.Tensor]:
    if attention._qkv_same_embed_dim:
        parts = dict(zip(_ENTRANCE, attention.in_proj_weight.chunk(3), strict=True))
    else:
        parts = {part: getattr(attention, f"{part}_weight") for part in _ENTRANCE}
    return {**parts, "out_proj": attention.out_proj.weight}


def _enter(
    attention: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Send query, key and value through their layers."""
    given = dict(zip(_ENTRANCE.values(), arguments, strict=False)) | keywords
    entered = (attention.get_submodule(p)(given[name]) for p, name in _ENTRANCE.items())
    rest = {n: value for n, value in keywords.items() if n not in _ENTRANCE.values()}
    return (*entered, *arguments[len(_ENTRANCE) :]), rest

"""Layers through which a gradient need not be followed, because they are linear."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from agop.networks.layers import Site, first_tensor

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def is_plain(module: nn.Module | None, *kinds: type[nn.Module]) -> bool:
    """Whether a layer computes what its kind says: no other forward, no hooks.

    Parameters
    ----------
    module : Module or None
    *kinds : class
        Of torch.nn.

    Returns
    -------
    bool
    """
    if module is None or module._forward_hooks or "forward" in vars(module):
        return False
    forward = type(module).forward
    return any(isinstance(module, kind) and forward is kind.forward for kind in kinds)


# ------------------------------------------------------------- what a pass goes through


@dataclass(frozen=True)
class Call:
    """One call of a linear layer, with the memory that it read and wrote.

    Parameters
    ----------
    layer : str
        Dotted name.
    module : Linear
    given, returned : Tensor
    given_version, returned_version : int
        How often these had been written to.
    """

    layer: str
    module: nn.Linear
    given: torch.Tensor
    given_version: int
    returned: torch.Tensor
    returned_version: int


@contextmanager
def watching(
    network: nn.Module, layers: Collection[str] | None = None
) -> Iterator[list[Call]]:
    """Note the calls of linear layers.

    Parameters
    ----------
    network : Module
    layers : collection of str, default=None
        Which; all by default. Those that are not plain ones are left out.

    Yields
    ------
    list of Call
        Which grows with every call.
    """
    calls: list[Call] = []

    def noting(name: str, module: nn.Linear) -> Any:
        def hook(_: nn.Module, given: Any, keywords: Any, output: torch.Tensor) -> None:
            read = first_tensor((given, keywords))
            if read is not None and not (read.is_inference() or output.is_inference()):
                versions = read._version, output._version
                calls.append(Call(name, module, read, versions[0], output, versions[1]))

        return hook

    with ExitStack() as stack:
        for name, module in network.named_modules():
            chosen = layers is None or name in layers
            if chosen and isinstance(module, nn.Linear) and is_plain(module, nn.Linear):
                handle = module.register_forward_hook(
                    noting(name, module), with_kwargs=True
                )
                stack.callback(handle.remove)
        yield calls


def last_layer(calls: list[Call], output: torch.Tensor) -> Call | None:
    """The call whose result is the output of the network, untouched.

    Parameters
    ----------
    calls : list of Call
    output : Tensor

    Returns
    -------
    Call or None
    """
    for call in calls:
        same = (
            call.returned.data_ptr() == output.data_ptr()
            and call.returned.shape == output.shape
            and call.returned_version == output._version
        )
        if same:
            return call
    return None


def range_basis(layer: nn.Linear) -> torch.Tensor | None:
    """An orthonormal basis of what a linear layer can return, up to its bias.

    If the output of a network is y = Wz + b with W of rank r below its number of rows,
    then Σₖ ∇yₖ∇yₖᵀ is the same for the r coordinates Uᵀy along the range of W.

    Parameters
    ----------
    layer : Linear

    Returns
    -------
    Tensor of shape (n_outputs, r) or None
        None if it is not known to have fewer columns than rows.
    """
    weight = layer.weight.detach()
    if layer.out_features <= layer.in_features or not bool(weight.isfinite().all()):
        return None
    left, singular, _ = torch.linalg.svd(weight.double(), full_matrices=False)
    floor = singular[0] * max(weight.shape) * torch.finfo(weight.dtype).eps
    rank = max(1, int((singular > floor).sum()))
    return left[:, :rank].to(weight.dtype)


def only_reader(
    calls: list[Call],
    output: torch.Tensor,
    variable: torch.Tensor,
    passed: torch.Tensor,
) -> str | None:
    """The linear layer through which alone the input acts, if there is one.

    Parameters
    ----------
    calls : list of Call
    output : Tensor
    variable : Tensor
        The input, of which the network was given a copy.
    passed : Tensor
        That copy.

    Returns
    -------
    str or None
        Its name. None if the first thing that happens to the input is something else
        than being flattened, or if it is used elsewhere too.
    """
    readers = [call for call in calls if _reads(call, passed)]
    if len(readers) != 1:
        return None
    reader = readers[0]
    if sum(call.module is reader.module for call in calls) > 1:
        return None
    if _reaches(output.grad_fn, variable, stop=reader.returned.grad_fn):
        return None
    return reader.layer


def _reads(call: Call, passed: torch.Tensor) -> bool:
    """Whether a layer was given the input itself, flattened at most."""
    return (
        call.given.ndim == 2
        and call.given.data_ptr() == passed.data_ptr()
        and call.given.numel() == passed.numel()
        and call.given.is_contiguous()
        and call.given_version == 0
    )


def _reaches(node: Any, variable: torch.Tensor, stop: Any) -> bool:
    """Whether a graph leads back to a variable other than through one node."""
    seen, todo = {stop}, [node]
    while todo:
        current = todo.pop()
        if current is None or current in seen:
            continue
        seen.add(current)
        if getattr(current, "variable", None) is variable:
            return True
        todo.extend(parent for parent, _ in current.next_functions)
    return False


# ------------------------------------------------------------------------- patches


def weight_matrix(site: Site, module: nn.Module | None) -> torch.Tensor:
    """The weights of a convolution as a matrix that reads patches.

    Parameters
    ----------
    site : Site
    module : Module

    Returns
    -------
    Tensor of shape (out_channels, in_channels * kernel size)
        For grouped convolutions, zero where a channel is not read.

    Raises
    ------
    ValueError
        If the module is no convolution.
    """
    if not isinstance(module, _CONVOLUTIONS):
        raise ValueError(
            f"{site.name!r}: only convolutions read patches; this layer is a "
            f"{type(module).__name__}. Use '{site.layer}:input' instead."
        )
    weight = module.weight.detach()
    per_group = module.out_channels // module.groups
    whole = weight.new_zeros(module.out_channels, module.in_channels, *weight.shape[2:])
    width = module.in_channels // module.groups
    for group in range(module.groups):
        rows = slice(group * per_group, (group + 1) * per_group)
        whole[rows, group * width : (group + 1) * width] = weight[rows]
    return whole.flatten(1)


def patch_reader(module: Any) -> nn.Module:
    """A convolution that returns, as channels, the patches that another one reads.

    Parameters
    ----------
    module : Conv1d, Conv2d or Conv3d

    Returns
    -------
    Module
        Of the same class of torch.nn, with in_channels * kernel size channels.
    """
    kind: Any = next(kind for kind in _CONVOLUTIONS if isinstance(module, kind))
    width = module.in_channels * math.prod(module.kernel_size)
    reader: nn.Module = kind(
        module.in_channels,
        width,
        module.kernel_size,
        module.stride,
        module.padding,
        module.dilation,
        bias=False,
        padding_mode=module.padding_mode,
        device="meta",
    )
    identity = torch.eye(width, device=module.weight.device).to(module.weight)
    weight = identity.unflatten(1, (module.in_channels, *module.kernel_size))
    reader.weight = nn.Parameter(weight, requires_grad=False)
    return reader

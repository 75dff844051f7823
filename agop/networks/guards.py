"""Leaving a network as it was found, and refusing what would give wrong numbers."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parameter import UninitializedParameter

from agop.networks.layers import Site

#: Flags and hooks are on the modules themselves: one thread at a time.
_LOCK = threading.RLock()


@contextmanager
def untouched(network: nn.Module) -> Iterator[None]:
    """Gradients of a network in eval mode, and everything as before at the end.

    Inside, all modules are in eval mode, parameters are constants, gradients are
    recorded, and automatic mixed precision is off. At the end, also after an
    exception: training flags, buffers, attributes, requires_grad, and the generators
    of torch, numpy and Python are as they were. ``.grad`` is not written at all. Other
    threads wait.

    Parameters
    ----------
    network : Module

    Raises
    ------
    ValueError
        If parameters have no numbers yet, or were made under ``inference_mode``.
    """
    check_parameters(network)
    parameters = list(network.parameters())
    if any(tensor.is_inference() for tensor in (*parameters, *network.buffers())):
        raise ValueError(
            "The network was built, or its weights were loaded, under "
            "torch.inference_mode: such tensors take part in no gradient. Use "
            "torch.no_grad there, or pass copy.deepcopy(network) made outside of it."
        )
    devices = sorted({p.device.index for p in parameters if p.device.type == "cuda"})
    with ExitStack() as stack:
        stack.enter_context(_LOCK)
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for device_type in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device_type):
                stack.enter_context(torch.autocast(device_type, enabled=False))
        stack.enter_context(torch.random.fork_rng(devices=devices))
        stack.enter_context(_generators_kept())
        stack.enter_context(_plain_attention())
        if devices:  # cuDNN has no gradient of recurrent layers in eval mode
            stack.enter_context(
                torch.backends.cudnn.flags(enabled=not _recurs(network))
            )
        stack.enter_context(_evaluating(network))
        stack.enter_context(_constant(parameters))
        stack.enter_context(_attributes_kept(network))
        stack.enter_context(_buffers_kept(network))
        yield


def _recurs(network: nn.Module) -> bool:
    return any(isinstance(module, nn.RNNBase) for module in network.modules())


@contextmanager
def _generators_kept() -> Iterator[None]:
    """The generators that are not torch's."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002 (the global one)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002 (the same)


@contextmanager
def _plain_attention() -> Iterator[None]:
    """No fused transformer layers: they call no hooks and leave padding out."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """Eval mode, by the flags alone: a `train` of the user's may do more than that."""
    trained = [module for module in network.modules() if module.training]
    try:
        for module in trained:
            module.training = False
        yield
    finally:
        for module in trained:
            module.training = True


@contextmanager
def _constant(parameters: list[nn.Parameter]) -> Iterator[None]:
    variable = [parameter for parameter in parameters if parameter.requires_grad]
    try:
        for parameter in variable:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in variable:
            parameter.requires_grad_(True)


@contextmanager
def _buffers_kept(network: nn.Module) -> Iterator[None]:
    """The numbers in buffers."""
    buffers = [(buffer, buffer.detach().clone()) for buffer in network.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, before in buffers:
                if not torch.equal(buffer, before):
                    buffer.copy_(before)


def _dicts(module: nn.Module) -> Iterator[dict[str, Any]]:
    yield vars(module)
    buffers: Any = module._buffers
    if isinstance(buffers, dict):  # not those of TorchScript
        yield buffers


@contextmanager
def _attributes_kept(network: nn.Module) -> Iterator[None]:
    """What modules note in a pass: counters, caches, activations with their graph."""
    notes = [(own, dict(own)) for m in network.modules() for own in _dicts(m)]
    try:
        yield
    finally:
        for own, before in notes:
            for name in own.keys() - before.keys():
                del own[name]
            for name, value in before.items():
                if own.get(name) is not value:
                    own[name] = value


# ------------------------------------------------------------------------- refusals


def check_parameters(network: nn.Module) -> None:
    """Refuse parameters that have no numbers.

    Parameters
    ----------
    network : Module

    Raises
    ------
    ValueError
    """
    for parameter in network.parameters():
        if isinstance(parameter, UninitializedParameter) or parameter.is_meta:
            raise ValueError(
                "The network has parameters without numbers: lazy modules, which have "
                "them once it has run on a batch, or the meta device, which never has."
            )


def check_passes(
    output: torch.Tensor, again: torch.Tensor, observed: torch.Tensor
) -> None:
    """Refuse a network whose output is random, or changes when it is looked at.

    Parameters
    ----------
    output, again : Tensor
        Of two passes over the same rows.
    observed : Tensor
        Of a pass in which activations were replaced by copies.

    Raises
    ------
    ValueError
        If they differ by more than rounding.
    """
    if not _close(output, again):
        raise ValueError(
            "Two passes over the same rows give different outputs, although the "
            "network is in eval mode: its gradients are those of another function "
            "each time. Switch the randomness off (functional dropout takes "
            "training=self.training)."
        )
    if not _close(output, observed):
        raise ValueError(
            "The network gives another output if a layer returns a copy of what it "
            "returned: somewhere a tensor is changed in place that has another name "
            "too. Look at another layer, or take the in-place operation out."
        )


def _close(output: torch.Tensor, other: torch.Tensor) -> bool:
    finite = output.detach().nan_to_num(0, 0, 0).abs()
    tolerance = 1e-3 * float(finite.amax()) if finite.numel() else 0.0
    return torch.allclose(other, output, atol=tolerance, rtol=0, equal_nan=True)


def independent(sites: list[Site]) -> ValueError:
    """The error for an output that no gradient leads back from.

    Parameters
    ----------
    sites : list of Site

    Returns
    -------
    ValueError
    """
    return ValueError(
        "The output does not depend differentiably on "
        f"{', '.join(repr(site.name) for site in sites)}: it does not use it, or the "
        "graph between them is cut (no_grad, detach, argmax, conversion to numpy or to "
        "integers). An AGOP of it would be zero, which says nothing."
    )


def check_rows(
    scalars: torch.Tensor, variables: Mapping[Site, list[torch.Tensor]]
) -> None:
    """Each row must depend on its own row of every activation, and only on it.

    Parameters
    ----------
    scalars : Tensor of shape (n_samples, n_outputs)
    variables : mapping from Site to list of Tensor
        Activations, of each call that counts.

    Raises
    ------
    ValueError
        If that is not so.
    """
    flat = [(site, tensor) for site, calls in variables.items() for tensor in calls]
    for site, tensor in flat:
        if tensor.ndim == 0 or len(tensor) != len(scalars):
            raise ValueError(
                f"The activation at {site.name!r} has shape {tuple(tensor.shape)} "
                f"for {len(scalars)} samples: its first dimension is not the "
                "batch. Build the layer with batch_first=True, or move the batch "
                "to the front in a small wrapper module."
            )
    for row in range(len(scalars)):
        gradients = torch.autograd.grad(
            scalars[row].sum(),
            [tensor for _, tensor in flat],
            retain_graph=True,
            allow_unused=True,
        )
        for (site, _), gradient in zip(flat, gradients, strict=True):
            _check_row(site, row, gradient)


def _check_row(site: Site, row: int, gradient: torch.Tensor | None) -> None:
    if gradient is None:
        raise independent([site])
    others = torch.arange(len(gradient), device=gradient.device) != row
    if bool(gradient[others].nan_to_num(0).any()):
        raise ValueError(
            "The output of one row depends on other rows of the batch (batch "
            "normalisation without running statistics, attention over the batch, "
            "or a batch that is not the first dimension: batch_first=True): a "
            "Jacobian for each row is not defined. Pass batch_size=1 to treat "
            "every row alone, or mend the network."
        )

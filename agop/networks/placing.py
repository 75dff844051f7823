"""Where a network runs, and in which precision."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from itertools import chain

import torch
from torch import nn

from agop.networks.data import Batch
from agop.networks.guards import check_parameters


def placed(
    network: nn.Module, device: torch.device | None, dtype: torch.dtype | None
) -> tuple[nn.Module, Callable[[Batch], Batch]]:
    """The network on a device and in a precision, and how batches get there.

    Parameters
    ----------
    network : Module
    device : device or None
        None for that of its parameters.
    dtype : dtype or None
        None for that of its parameters.

    Returns
    -------
    network : Module
        A copy if it has to move or change, or was built under ``inference_mode``.
    place : callable
        Brings a :class:`Batch` to where the network is. Without parameters that say
        where, batches stay where they are.
    """
    check_parameters(network)
    floating = [
        tensor
        for tensor in chain(network.parameters(), network.buffers())
        if tensor.is_floating_point()
    ]
    if not floating:
        return network, partial(_as_they_are, device=device, dtype=dtype)
    moves = device is not None and any(each.device != device for each in floating)
    changes = dtype is not None and any(each.dtype != dtype for each in floating)
    if moves or changes or any(each.is_inference() for each in floating):
        with torch.inference_mode(False):
            network = copy.deepcopy(network).to(device=device, dtype=dtype)
    device = device or floating[0].device
    dtype = dtype or floating[0].dtype
    return network, partial(Batch.to, device=device, dtype=dtype)


def _as_they_are(
    batch: Batch, device: torch.device | None, dtype: torch.dtype | None
) -> Batch:
    """A batch that nothing but the user moves or converts; images become numbers."""
    own = batch.input.dtype if batch.input.is_floating_point() else torch.float32
    return batch.to(device or batch.input.device, dtype or own)

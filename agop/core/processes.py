"""Results of the other processes of torch.distributed."""

from __future__ import annotations

import io
from typing import TypeVar

import torch
import torch.distributed as dist

_Result = TypeVar("_Result")


def device_of(group: dist.ProcessGroup | None) -> torch.device:
    """Where this process keeps the tensors that it sends to the others."""
    if dist.get_backend(group) == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def gathered(result: _Result, group: dist.ProcessGroup | None) -> list[_Result]:
    """The results of all processes, in the order of their ranks.

    Parameters
    ----------
    result : object
        What this process has found; it is pickled.
    group : ProcessGroup or None
        All processes if None.

    Returns
    -------
    list
        Copies, this process's own too, with their tensors on its device.

    Raises
    ------
    RuntimeError
        If torch.distributed was not initialised.
    """
    if not (dist.is_available() and dist.is_initialized()):
        raise RuntimeError(
            "There are no other processes to add up: call "
            "torch.distributed.init_process_group in every process first."
        )
    packed = io.BytesIO()
    torch.save(result, packed)
    parts = [b""] * dist.get_world_size(group)
    dist.all_gather_object(parts, packed.getvalue(), group=group)
    return [
        torch.load(io.BytesIO(part), map_location=device_of(group), weights_only=False)
        for part in parts
    ]

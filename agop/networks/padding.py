"""Padded texts: what an attention mask hides counts neither as input nor as output."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from agop.networks.batches import Batch


def mask_of(batch: Batch, n_positions: int) -> torch.Tensor | None:
    """Which positions are not padding.

    Parameters
    ----------
    batch : Batch
    n_positions : int
        Of what is to be masked.

    Returns
    -------
    Tensor of bool, of shape (n_samples, n_positions), or None
        None if the batch has no ``attention_mask`` of this length.
    """
    mask = batch.kwargs.get("attention_mask")
    if not isinstance(mask, torch.Tensor) or n_positions == 1:
        return None
    return mask > 0 if mask.shape == (len(batch), n_positions) else None


def position_weight(batch: Batch, n_positions: int) -> torch.Tensor | None:
    """Weights of samples and their positions; padding weighs nothing.

    Parameters
    ----------
    batch : Batch
    n_positions : int
        Positions of each sample.

    Returns
    -------
    Tensor of shape (n_samples, n_positions) or None
        None if all weigh the same.
    """
    mask = mask_of(batch, n_positions)
    if batch.weight is None and mask is None:
        return None
    shape = len(batch), n_positions
    weight = torch.ones(shape, dtype=torch.float64, device=batch.input.device)
    if batch.weight is not None:
        weight = weight * batch.weight[:, None]
    return weight if mask is None else weight * mask


def mean_position(vectors: torch.Tensor, batch: Batch) -> torch.Tensor:
    """The mean over positions that are not padding.

    Parameters
    ----------
    vectors : Tensor of shape (n_samples, n_positions, n_features)
    batch : Batch

    Returns
    -------
    Tensor of shape (n_samples, n_features), in float64
    """
    weight = position_weight(replace(batch, weight=None), vectors.shape[1])
    if weight is None:
        return vectors.double().mean(1)
    share = weight / weight.sum(1, keepdim=True).clamp(min=1)
    return (vectors.double() * share[:, :, None]).sum(1)


def without_padding(output: torch.Tensor, batch: Batch, *, last: bool) -> torch.Tensor:
    """An output whose padded positions are zero, so that nothing depends on them.

    Parameters
    ----------
    output : Tensor of shape (n_samples, n_positions, n_outputs)
        Others, and those of batches without a mask, are returned as they are.
    batch : Batch
    last : bool
        Keep the last position that is not padding, and nothing else.

    Returns
    -------
    Tensor of shape (n_samples, n_positions or 1, n_outputs)
    """
    mask = mask_of(batch, output.shape[1]) if output.ndim > 2 else None
    if mask is None:
        return output
    if not last:
        shown = mask.reshape(*mask.shape, *[1] * (output.ndim - 2))
        return torch.where(shown, output, torch.zeros_like(output))
    places = torch.arange(mask.shape[1], device=mask.device)
    final = torch.where(mask, places, 0).amax(1)
    samples = torch.arange(len(output), device=mask.device)
    return output[samples, final][:, None]


def check_kept(batch: Batch, positions: Any) -> None:
    """Raise if the one position that is looked at is padding.

    Parameters
    ----------
    batch : Batch
    positions : int, or anything else, which passes

    Raises
    ------
    ValueError
        If a sample is padded there.
    """
    mask = batch.kwargs.get("attention_mask")
    if not isinstance(positions, int) or not isinstance(mask, torch.Tensor):
        return
    if mask.ndim != 2 or not -mask.shape[1] <= positions < mask.shape[1]:
        return
    if bool((mask[:, positions] == 0).any()):
        raise ValueError(
            f"positions={positions} is padding in some samples. Pad on the other side "
            "(tokenizer.padding_side), or look at all positions (positions='tokens'), "
            "where padding weighs nothing."
        )

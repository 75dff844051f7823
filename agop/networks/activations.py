"""The activations of a network on data, as arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from agop.core.arrays import (
    InvalidParameterError,
    as_host_array,
    check_number,
    to_numpy,
)
from agop.networks.batches import Batch
from agop.networks.data import as_batches
from agop.networks.guards import untouched
from agop.networks.jacobians import NetworkJacobian
from agop.networks.layers import Site, find_sites, first_tensor
from agop.networks.outputs import all_outputs
from agop.networks.padding import mean_position
from agop.networks.placing import placed
from agop.networks.probes import Probes
from agop.networks.sources import as_module


def activations(
    network: Any,
    layers: Any,
    X: Any,
    *,
    position: Any = "mean",
    batch_size: int = 64,
) -> np.ndarray | dict[str, np.ndarray]:
    """What the layers of a network give, or are given, on data.

    Parameters
    ----------
    network : Module, estimator or callable
        As for :class:`agop.NetworkAGOP`. It is run in eval mode and left as it was.
    layers : str, Module, Pattern, callable, or an iterable of these
        As for :class:`agop.NetworkAGOP`.
    X : array-like, tensor, mapping, tuple, Dataset, DataLoader or iterable of batches
        As for :class:`agop.NetworkAGOP`; targets are not looked at.
    position : "mean", "all", int or array-like of shape (n_samples,), default="mean"
        Where a layer has several positions, the tokens of a text or the pixels of an
        image: their mean, all of them, one (-1 is the last), or for each sample one of
        its own, such as its last token before padding.
    batch_size : int, default=64
        Samples in a batch; what yields batches is left as it is.

    Returns
    -------
    ndarray of shape (n_samples, n_features), or dict of such arrays
        A dict by the name of the layer unless `layers` is one name or one module. With
        position="all" of shape (n_samples, n_positions, n_features). In the precision
        of the network, but at least float32.

    Raises
    ------
    ValueError
        If there is no such layer or position, or one name stands for several layers.

    Examples
    --------
    >>> import torch
    >>> from agop import activations
    >>> network = torch.nn.Sequential(torch.nn.Embedding(9, 4), torch.nn.Linear(4, 3))
    >>> tokens = [[1, 2, 3], [4, 5, 6]]
    >>> activations(network, "1", tokens, position=-1).shape
    (2, 3)
    >>> found = activations(network, ["0", "1"], tokens, position="all")
    >>> {layer: array.shape for layer, array in found.items()}
    {'0': (2, 3, 4), '1': (2, 3, 3)}
    """
    check_number("batch_size", batch_size, owner="activations", integer=True, low=1)
    batches = as_batches(X, batch_size=batch_size)
    choose = _chooser(position, batches.n_samples)
    module, place = placed(as_module(network), None, None)
    sites = find_sites(module, layers)
    _check_sites(sites, layers)
    jacobian = NetworkJacobian(
        module,
        sites,
        all_outputs,
        probes=Probes(None, torch.Generator()),
        output_key=first_tensor,
        shortcuts=False,
    )
    parts: dict[str, list[torch.Tensor]] = {site.name: [] for site in sites}
    n_seen = 0
    with untouched(module), torch.no_grad():
        for batch in map(place, batches):
            for site, vectors in zip(sites, jacobian.activations(batch), strict=True):
                parts[site.name].append(_wide(choose(vectors, n_seen, batch)).cpu())
            n_seen += len(batch)
    found = {name: to_numpy(torch.cat(tensors)) for name, tensors in parts.items()}
    return found[sites[0].name] if _is_one(layers) else found


def _is_one(layers: Any) -> bool:
    return isinstance(layers, (str, nn.Module))


def _check_sites(sites: list[Site], layers: Any) -> None:
    if _is_one(layers) and len(sites) > 1:
        raise ValueError(
            f"{layers!r} stands for {len(sites)} layers. Put it into a list to get all "
            "of them, by name."
        )
    patches = [site.name for site in sites if site.part == "patch"]
    if patches:
        raise ValueError(
            f"{patches[0]!r}: patches are read from what the layer is given; ask for "
            "that, with ':input'."
        )


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    """At least float32: numpy has no bfloat16."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


# ------------------------------------------------------------------------- positions

#: From vectors of shape (n, n_positions, n_features) of the samples from `start` on.
Chooser = Callable[[torch.Tensor, int, Batch], torch.Tensor]


def _mean(vectors: torch.Tensor, start: int, batch: Batch) -> torch.Tensor:
    return mean_position(vectors, batch).to(_wide(vectors).dtype)


def _all(vectors: torch.Tensor, start: int, batch: Batch) -> torch.Tensor:
    return vectors


def _chooser(position: Any, n_samples: int | None) -> Chooser:
    """What is kept of the positions."""
    named: dict[str, Chooser] = {"mean": _mean, "all": _all}
    if isinstance(position, str) and position in named:
        return named[position]
    index = np.asarray(as_host_array(position, "position"))
    if index.ndim > 1 or index.dtype.kind not in "iu":
        raise InvalidParameterError(
            "The 'position' parameter of activations must be one of {'mean', 'all'}, "
            f"an int, or one int for each sample. Got {position!r} instead."
        )
    if index.ndim and n_samples is not None and len(index) != n_samples:
        raise ValueError(
            f"position has {len(index)} entries for {n_samples} samples: one for each "
            "is needed."
        )

    def chosen(vectors: torch.Tensor, start: int, batch: Batch) -> torch.Tensor:
        count, n_positions = vectors.shape[:2]
        wanted = index[start : start + count] if index.ndim else index.repeat(count)
        if len(wanted) < count:
            raise ValueError(
                f"position has {len(index)} entries, but there are more samples: one "
                "for each is needed."
            )
        if not ((-n_positions <= wanted) & (wanted < n_positions)).all():
            raise ValueError(
                f"position={position!r} does not fit a layer with {n_positions} "
                f"positions: use {-n_positions} … {n_positions - 1}."
            )
        return vectors[torch.arange(count), torch.from_numpy(wanted).long()]

    return chosen

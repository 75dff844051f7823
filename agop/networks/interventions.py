"""Changing activations of a network while it runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from agop.core.arrays import as_host_array, refuse_strings, to_tensor
from agop.networks.layers import Site, find_module, find_sites
from agop.networks.positions import FeaturesLast, Pixels, Tokens, positions_at

#: From vectors, whose features are in the last dimension, to others of that shape.
Change = Callable[[torch.Tensor], torch.Tensor]


def find_site(network: nn.Module, layer: Any) -> Site:
    """The one site that a user means, if it can be changed.

    Parameters
    ----------
    network : Module
    layer : str or Module
        As for :func:`agop.networks.layers.find_sites`.

    Returns
    -------
    Site

    Raises
    ------
    ValueError
        If there is none or several, or if it cannot be changed.
    """
    sites = find_sites(network, layer)
    if len(sites) > 1:
        names = ", ".join(repr(site.name) for site in sites[:5])
        raise ValueError(
            f"{layer!r} means {len(sites)} places ({names}, …): give one of them. For "
            "several, nest the `with` statements."
        )
    site = sites[0]
    if site.part == "patch":
        raise ValueError(
            f"{site.name!r}: patches overlap, so they cannot be changed one by one. "
            f"Give '{site.layer}:input' (its channels) or '{site.layer}' instead."
        )
    if isinstance(site.call, int):
        raise ValueError(
            f"{site.name!r}: calls cannot be told apart while the network is used; "
            f"give '{site.layer}', which means all of them."
        )
    return replace(site, call=None)


def as_directions(values: Any, name: str) -> torch.Tensor:
    """Finite floating numbers, with their graph if they have one.

    Parameters
    ----------
    values : array-like or tensor
    name : str
        What messages call it.

    Returns
    -------
    Tensor
    """
    refuse_strings(values, name)
    if not isinstance(values, torch.Tensor):
        values = to_tensor(np.array(as_host_array(values, name)), torch.device("cpu"))
    if not values.is_floating_point():
        values = values.double()
    if values.ndim == 0 or values.numel() == 0:
        raise ValueError(f"{name} must be a vector; got shape {tuple(values.shape)}.")
    if not bool(torch.isfinite(values).all()):
        raise ValueError(f"{name} contains NaN or infinity.")
    return values.clone()


@dataclass(frozen=True)
class _Layout:
    """Which dimensions of an activation, behind the samples, are positions."""

    channels_first: bool
    n_axes: int  # of positions

    def feature_shape(self, sample: torch.Size) -> tuple[int, ...]:
        return tuple(sample[:1] if self.channels_first else sample[self.n_axes :])

    def vectors(self, activation: torch.Tensor) -> torch.Tensor:
        """Of shape (n_samples, *positions, n_features)."""
        if self.channels_first:
            activation = activation.movedim(1, -1)
        return activation.flatten(1 + self.n_axes)

    def activation(self, vectors: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        """Back to the shape of the activation."""
        if self.channels_first:
            return vectors.movedim(-1, 1)
        return vectors.reshape(shape)


def _natural_layout(site: Site, module: nn.Module, sample: torch.Size) -> _Layout:
    positions = positions_at(Site(site.layer), module, sample, "auto")
    if isinstance(positions, Pixels):
        return _Layout(True, len(sample) - 1)
    if isinstance(positions, FeaturesLast):
        return _Layout(False, len(sample) - 1)
    return _Layout(False, 1 if isinstance(positions, Tokens) else 0)


class Place:
    """The vectors in the activation of a layer that a direction belongs to.

    Parameters
    ----------
    network : Module
    site : Site
        From :func:`find_site`.
    shape : tuple of int
        Of the direction: (n_features,) for the features at every position, or for all
        entries of the activation of a sample; or the shape of these.
    positions : int, slice, sequence or tuple of these, default=None
        Which positions, as an index into an array of them: (n_tokens,) or (height,
        width). All by default.
    """

    def __init__(
        self,
        network: nn.Module,
        site: Site,
        shape: tuple[int, ...],
        positions: Any = None,
    ) -> None:
        self.site = site
        self.shape = tuple(shape)
        self.positions = positions
        self._module = find_module(network, site.layer)[1]

    @property
    def name(self) -> str:
        """What messages call it."""
        return repr(self.site.name or "output")

    def read(self, activation: torch.Tensor) -> torch.Tensor:
        """The vectors at the chosen positions.

        Parameters
        ----------
        activation : Tensor of shape (n_samples, ...)

        Returns
        -------
        Tensor of shape (n_samples, n_chosen, n_features)
            At least in single precision.
        """
        vectors = self._layout(activation).vectors(activation)
        vectors = vectors[:, self._chosen(vectors)]
        return vectors.to(torch.promote_types(vectors.dtype, torch.float32))

    def write(self, activation: torch.Tensor, change: Change) -> torch.Tensor:
        """The activation with other vectors at the chosen positions.

        Parameters
        ----------
        activation : Tensor of shape (n_samples, ...)
        change : callable
            From vectors of shape (n_samples, *positions, n_features), all of them, to
            others.

        Returns
        -------
        Tensor
            Of the same shape; `activation` is left as it is.
        """
        layout = self._layout(activation)
        vectors = layout.vectors(activation)
        changed = change(vectors)
        if self.positions is not None:
            chosen = self._chosen(vectors)[..., None]
            changed = torch.where(chosen, changed, vectors)
        return layout.activation(changed, activation.shape)

    def _layout(self, activation: torch.Tensor) -> _Layout:
        sample = activation.shape[1:]
        if sample:
            natural = _natural_layout(self.site, self._module, sample)
            for layout in (natural, _Layout(False, 0)):
                features = layout.feature_shape(sample)
                if self.shape in ((math.prod(features),), features):
                    return layout
            fitting = f"({math.prod(natural.feature_shape(sample))},)"
            if math.prod(sample) != math.prod(natural.feature_shape(sample)):
                fitting += f" (at every position) or {tuple(sample)} (all of it)"
        else:
            fitting = "none"
        raise ValueError(
            f"A direction of shape {self.shape} does not fit the activation at "
            f"{self.name}, of shape {tuple(sample)} for one sample. What fits: "
            f"{fitting}."
        )

    def _chosen(self, vectors: torch.Tensor) -> torch.Tensor:
        """Which positions are chosen, of shape (*positions,)."""
        shape = tuple(vectors.shape[1:-1])
        chosen = np.zeros(shape, dtype=bool)
        try:
            chosen[self.positions] = True
        except (IndexError, ValueError) as error:
            there = f"positions of shape {shape}" if shape else "no positions"
            raise ValueError(
                f"positions={self.positions!r} does not fit the activation at "
                f"{self.name}, which has {there} for a direction of shape {self.shape}."
            ) from error
        return torch.from_numpy(chosen).to(vectors.device)


class Intervention:
    """A change of a place, made whenever an activation passes.

    Parameters
    ----------
    place : Place
    change : callable

    Attributes
    ----------
    n_calls : int
        How often an activation has passed.
    """

    def __init__(self, place: Place, change: Change) -> None:
        self.place = place
        self.change = change
        self.n_calls = 0

    def __call__(self, activation: torch.Tensor) -> torch.Tensor:
        """What goes on in the place of an activation.

        Parameters
        ----------
        activation : Tensor of shape (n_samples, ...)

        Returns
        -------
        Tensor of shape (n_samples, ...)
        """
        self.n_calls += 1
        return self.place.write(activation, self.change)

"""Jacobians of a network at several sites, one batch at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any

import torch
from torch import nn

from agop.networks.data import Batch
from agop.networks.guards import check_passes, check_rows, independent
from agop.networks.layers import (
    NETWORK_INPUT,
    Catcher,
    Site,
    find_module,
    visiting,
)
from agop.networks.outputs import (
    LINEAR,
    Selection,
    last_position,
    pick_output,
    rows_of,
)
from agop.networks.padding import check_kept, position_weight, without_padding
from agop.networks.positions import Positions, positions_at
from agop.networks.probes import Probes
from agop.networks.shortcuts import (
    Call,
    is_plain,
    last_layer,
    only_reader,
    patch_reader,
    range_basis,
    watching,
    weight_matrix,
)


@dataclass(frozen=True)
class Reading:
    """How the gradient at one site is taken.

    Parameters
    ----------
    site : Site
        What was asked for.
    taken_at : Site
        Where the graph is cut: the site itself or, for G = WᵀSW, the output of the
        linear layer or convolution that reads from it.
    weight : Tensor of shape (width, n_features) or None
        W of that layer.
    positions : Positions
    width : int
        Features of a row of the Jacobian at `taken_at`.
    n_positions : int
        Vectors that each sample gives.
    """

    site: Site
    taken_at: Site
    weight: torch.Tensor | None
    positions: Positions
    width: int
    n_positions: int

    @property
    def n_features(self) -> int:
        """Size of the AGOP at the site."""
        return self.width if self.weight is None else int(self.weight.shape[1])


@dataclass(frozen=True)
class Rows:
    """The Jacobian of one batch at one site.

    Parameters
    ----------
    jacobian : Tensor of shape (n_samples, n_positions, n_rows, width)
    weight : Tensor of shape (n_samples, n_positions) or None
        None if all weigh the same.
    """

    jacobian: torch.Tensor
    weight: torch.Tensor | None

    @cached_property
    def largest(self) -> float:
        """The largest magnitude of an entry; not finite if an entry is not."""
        return float(torch.maximum(-self.jacobian.amin(), self.jacobian.amax()))

    def through(self, weight: torch.Tensor | None) -> Rows:
        """The Jacobian before a linear layer, from the one behind it."""
        if weight is None:
            return self
        return Rows(self.jacobian @ weight.to(self.jacobian), self.weight)

    @property
    def flat(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Every position as a sample of its own."""
        weight = None if self.weight is None else self.weight.flatten()
        return self.jacobian.flatten(0, 1), weight


@dataclass(frozen=True)
class _Pass:
    """What a network was given, what passed some sites, and what it returned."""

    batch: Batch
    caught: dict[Site, list[torch.Tensor]]
    output: torch.Tensor


class NetworkJacobian:
    """The derivative of what is selected of a network's output, at some sites.

    Parameters
    ----------
    network : Module
        Inside :func:`agop.networks.guards.untouched`.
    sites : list of Site
    selection : callable
        From the output and the targets to (n_samples, n_outputs).
    probes : Probes
        Which combinations of the outputs are differentiated.
    output_key : str, int or callable, default=None
        Which of several returned tensors is the output.
    positions : "auto", "flatten", "tokens", "pixels", int or tuple, default="auto"
        How activations are cut into vectors.
    shortcuts : bool, default=True
        Use G = WᵀSW where it is cheaper and exact.

    Attributes
    ----------
    readings : list of Reading
        One for each site, after :meth:`examine`.
    n_outputs, n_rows : int
        Numbers that are differentiated, and vectors v for which vᵀJ is taken.
    """

    def __init__(
        self,
        network: nn.Module,
        sites: list[Site],
        selection: Selection,
        *,
        probes: Probes,
        output_key: Any = None,
        positions: Any = "auto",
        shortcuts: bool = True,
    ) -> None:
        self.network = network
        self.sites = sites
        self.selection = selection
        self.probes = probes
        self.output_key = output_key
        self.positions = positions
        self.shortcuts = shortcuts
        self.readings: list[Reading] = []
        self._room: list[torch.Tensor] = []
        self._last: str | None = None  # the layer that returns the output
        self._basis: torch.Tensor | None = None  # of its range

    # --------------------------------------------------------------------- examine

    def examine(self, batch: Batch) -> None:
        """Decide from the first rows of the data how gradients are taken.

        Parameters
        ----------
        batch : Batch
            One or two rows; with two it is seen whether they depend on each other.

        Raises
        ------
        ValueError
            If the network is not one that this can be done for: random in eval mode,
            rows that depend on each other, an output that does not depend
            differentiably on a site.
        """
        with watching(self.network) as calls:
            seen = self._forward(batch, self.sites)
        variables = self._variables(seen, self.sites)
        plain, again = (self._forward(batch, []).output for _ in range(2))
        check_passes(plain, again, seen.output)
        last = last_layer(calls, seen.output) if self.selection in LINEAR else None
        self._last = None if last is None else last.layer
        self._basis = None if last is None else range_basis(last.module)
        scalars = self._scalars(seen, calls)
        check_rows(scalars, variables)
        self.readings = [
            self._reading(site, variables[site][0], batch) for site in self.sites
        ]
        self.n_outputs = int(scalars.shape[1])
        self.n_rows = self.probes.count(self.n_outputs)

    def _reading(self, site: Site, variable: torch.Tensor, batch: Batch) -> Reading:
        module = _module(self.network, site)
        positions = positions_at(site, module, variable.shape[1:], self.positions)
        _, count, width = positions.cut(variable).shape
        direct = Reading(site, site, None, positions, width, count)
        if site.part == "patch":
            weight = weight_matrix(site, module)
            _check_patches(site, module, width)
            output = Site(site.layer, "output", site.call)
            return Reading(site, output, weight, positions, len(weight), count)
        layer = self._linear_reader(site, batch) if self.shortcuts else None
        linear = None if layer is None else find_module(self.network, layer)[1]
        if not (isinstance(linear, nn.Linear) and _narrows(linear, width)):
            return direct
        weight = linear.weight.detach().clone()  # it may be trained on
        output = Site(str(layer), "output", site.call)
        through = Reading(site, output, weight, positions, len(weight), count)
        return through if self._agree(direct, through, weight, batch) else direct

    def _linear_reader(self, site: Site, batch: Batch) -> str | None:
        """The linear layer that alone reads from a site, if one does."""
        if site.is_network_input:
            with watching(self.network) as calls:
                seen = self._forward(batch, [NETWORK_INPUT])
            return _only_reader(seen, calls)
        return site.layer if site.part == "input" else None

    def _agree(
        self, direct: Reading, through: Reading, weight: torch.Tensor, batch: Batch
    ) -> bool:
        """Whether a gradient is the same on both ways, for a row of the data."""
        places = [direct.taken_at, through.taken_at]
        with watching(self.network, self._shortcuts) as calls:
            seen = self._forward(batch, places)
        scalars = self._scalars(seen, calls)
        vector = torch.ones_like(scalars) + torch.rand_like(scalars)
        here, there = self._pull(
            [vector], scalars, self._variables(seen, places), [direct, through]
        )
        difference = (here - there @ weight.to(there)).abs().max()
        tolerance = max(1e-3, 10 * torch.finfo(here.dtype).eps)
        return bool(difference <= tolerance * here.abs().max())

    # ------------------------------------------------------------------- jacobians

    def __call__(self, batch: Batch) -> list[Rows]:
        """The Jacobians of a batch.

        Parameters
        ----------
        batch : Batch

        Returns
        -------
        list of Rows
            One for each site. Their memory is used again for the next batch.

        Raises
        ------
        ValueError
            If the way from a site to the output is not the one that was examined.
        """
        check_kept(batch, self.positions)
        places = list(dict.fromkeys(reading.taken_at for reading in self.readings))
        entrance = self._entrance
        with watching(self.network, self._shortcuts) as calls:
            seen = self._forward(
                batch, [*places, NETWORK_INPUT] if entrance else places
            )
        if entrance and _only_reader(seen, calls) != entrance:
            raise ValueError(
                "The way that the input takes changes with the data: not in every "
                f"batch does it act through the layer {entrance!r} alone, so G = WᵀSW "
                "does not hold. Pass kind='full', or another that is not 'linear'."
            )
        scalars = self._scalars(seen, calls)
        probed = self.n_rows < self.n_outputs
        vectors = self.probes.draw(
            scalars, self.n_rows if probed else int(scalars.shape[1])
        )
        stacks = self._pull(
            vectors, scalars, self._variables(seen, places), self.readings
        )
        return [Rows(stack, position_weight(batch, stack.shape[1])) for stack in stacks]

    @property
    def _shortcuts(self) -> list[str]:
        """Layers that must be where they were when the network was examined."""
        return [layer for layer in (self._last, self._entrance) if layer is not None]

    @property
    def _entrance(self) -> str | None:
        """The layer through which the input acts, where that is made use of."""
        for reading in self.readings:
            if reading.site.is_network_input and reading.weight is not None:
                return reading.taken_at.layer
        return None

    def activations(self, batch: Batch) -> list[torch.Tensor]:
        """What passes the sites.

        Parameters
        ----------
        batch : Batch

        Returns
        -------
        list of Tensor of shape (n_samples, n_positions, n_features)
            One for each site. Of several calls that move together, the mean.
        """
        places = [_readable(site) for site in self.sites]
        variables = self._variables(self._forward(batch, places), places)
        found = []
        for site, place in zip(self.sites, places, strict=True):
            mean = torch.stack([call.detach() for call in variables[place]]).mean(0)
            module = _module(self.network, site)
            if site.part == "patch":
                mean = patch_reader(module)(mean)
            positions = positions_at(site, module, mean.shape[1:], self.positions)
            found.append(positions.cut(mean))
        return found

    def _pull(
        self,
        vectors: list[torch.Tensor],
        scalars: torch.Tensor,
        variables: Mapping[Site, list[torch.Tensor]],
        readings: list[Reading],
    ) -> list[torch.Tensor]:
        """The products vᵀJ, of shape (n_samples, n_positions, n_vectors, width)."""
        flat = [tensor for tensors in variables.values() for tensor in tensors]
        stacks: list[torch.Tensor] = []
        for row, vector in enumerate(vectors):
            last = row + 1 == len(vectors)
            gradients = iter(
                torch.autograd.grad(scalars, flat, vector, retain_graph=not last)
            )
            by_place = {  # the calls of a module that move together add up
                place: reduce(torch.add, [next(gradients) for _ in tensors])
                for place, tensors in variables.items()
            }
            cut = [r.positions.cut(by_place[r.taken_at]) for r in readings]
            stacks = stacks or self._room_for(len(vectors), cut)
            for stack, gradient in zip(stacks, cut, strict=True):
                _write(gradient, stack[row])
        return [stack.permute(1, 2, 0, 3) for stack in stacks]

    def _room_for(self, count: int, cut: list[torch.Tensor]) -> list[torch.Tensor]:
        """Memory for `count` gradients like these: the last batch's, if it fits."""
        shapes = [torch.Size((count, *gradient.shape)) for gradient in cut]
        if [stack.shape for stack in self._room] != shapes:
            self._room = [g.new_empty(s) for g, s in zip(cut, shapes, strict=True)]
        return self._room

    def _scalars(self, seen: _Pass, calls: list[Call]) -> torch.Tensor:
        """What is differentiated, along the range of the last layer if there is one."""
        output = seen.output
        last = last_layer(calls, output)
        if self._basis is not None and last is not None and last.layer == self._last:
            output = output.to(self._basis) @ self._basis
        only_last = self.selection is last_position
        output = without_padding(output, seen.batch, last=only_last)
        scalars = self.selection(output, seen.batch.target)
        if scalars.is_complex():
            raise ValueError(
                "The output is complex, and what its derivative is takes a choice. "
                "Return real numbers, for example with torch.view_as_real."
            )
        if not scalars.requires_grad:
            raise independent(self.sites)
        return scalars

    # --------------------------------------------------------------------- forward

    def _forward(self, batch: Batch, places: list[Site]) -> _Pass:
        """A pass in which the activations at some places are variables."""
        caught: dict[Site, list[torch.Tensor]] = {}
        catchers = {site: Catcher() for site in places if not site.is_network_input}
        if NETWORK_INPUT in places:
            batch, variable = _with_variable_input(batch, self.network)
            caught[NETWORK_INPUT] = [variable]
        else:  # a layer that works in place must not reach the data
            batch = batch.replace_input(batch.input.clone())
        with visiting(self.network, catchers):
            returned = self.network(*batch.args, **batch.kwargs)
        output = rows_of(pick_output(returned, self.output_key), len(batch))
        caught |= {site: catcher.caught for site, catcher in catchers.items()}
        return _Pass(batch, caught, output)

    def _variables(
        self, seen: _Pass, places: list[Site]
    ) -> dict[Site, list[torch.Tensor]]:
        return {place: self._variable(place, seen.caught[place]) for place in places}

    def _variable(self, site: Site, calls: list[torch.Tensor]) -> list[torch.Tensor]:
        """The activations of a site that count: of one call, or of all."""
        if not calls:
            raise ValueError(
                f"The layer {site.layer!r} is not called, or handles no floating "
                "numbers, when the network runs on these data."
            )
        if site.call is None and len(calls) > 1:
            raise ValueError(
                f"The layer {site.layer!r} is called {len(calls)} times in one pass. "
                f"Say which call is meant: '{site.layer}@0' … "
                f"'{site.layer}@{len(calls) - 1}', or '{site.layer}@sum' to move all "
                "together."
            )
        if isinstance(site.call, int) and site.call >= len(calls):
            raise ValueError(
                f"{site.name!r}: the layer is called {len(calls)} times in one pass."
            )
        return [calls[site.call]] if isinstance(site.call, int) else calls


def _only_reader(seen: _Pass, calls: list[Call]) -> str | None:
    (variable,) = seen.caught[NETWORK_INPUT]
    return only_reader(calls, seen.output, variable, seen.batch.input)


def _readable(site: Site) -> Site:
    """Where the features of a site can be read: patches, from what a layer is given."""
    return Site(site.layer, "input", site.call) if site.part == "patch" else site


def _check_patches(site: Site, module: Any, n_channels: int) -> None:
    """Refuse what is not the linear function of patches that the weights say."""
    if not is_plain(module, nn.Conv1d, nn.Conv2d, nn.Conv3d):
        raise ValueError(
            f"{site.name!r}: the layer does more than a convolution with its weights "
            "(its class has a forward of its own, or it has hooks), so an AGOP of its "
            f"patches cannot be read off. Use '{site.layer}:input' instead."
        )
    if n_channels != module.out_channels:
        raise ValueError(
            f"{site.name!r}: patches lie at pixels; positions must name one with a "
            "tuple of ints, one for each dimension, or keep all."
        )


def _write(gradient: torch.Tensor, target: torch.Tensor) -> None:
    """Copy; torch transposes matrices one by one faster than a stack of them."""
    if gradient.is_contiguous():
        target.copy_(gradient)
        return
    for matrix, place in zip(gradient, target, strict=True):
        place.copy_(matrix)


def _module(network: nn.Module, site: Site) -> nn.Module | None:
    return None if site.is_network_input else find_module(network, site.layer)[1]


def _narrows(layer: nn.Linear, width: int) -> bool:
    """Whether the way through the output of a layer is the shorter one."""
    return layer.in_features == width and layer.out_features < layer.in_features


def _with_variable_input(
    batch: Batch, network: nn.Module
) -> tuple[Batch, torch.Tensor]:
    given = batch.input
    if not given.is_floating_point():
        embeddings = [
            name
            for name, module in network.named_modules()
            if isinstance(module, nn.Embedding)
        ]
        example = f"layers={embeddings[0]!r}" if embeddings else "its first layer"
        raise ValueError(
            f"The input holds whole numbers ({given.dtype}): tokens have no "
            f"derivative. Give a layer behind them, for example {example}. (If they "
            "are numbers, not tokens, convert them to float.)"
        )
    variable = given.detach().clone().requires_grad_()
    return batch.replace_input(variable.clone()), variable

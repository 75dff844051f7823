"""Feature visualisation: the input that moves a layer most along a direction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from agop.core.arrays import (
    InvalidParameterError,
    check_number,
    random_seed,
    to_numpy,
)
from agop.networks.data import Batch, as_batches
from agop.networks.guards import untouched
from agop.networks.interventions import Place, as_directions, find_site
from agop.networks.layers import visiting
from agop.networks.placing import placed
from agop.networks.sources import as_module

#: Inputs that are changed at the same time.
_BATCH = 32

#: Noise to start from: its size, as a share of half the way between the bounds.
_NOISE = 0.1

#: By default, an image is shifted by at most this share of its size.
_JITTER = 1 / 8

#: Dimensions of a sample along which neighbours belong together, by their number: a
#: table has none, (n_steps, n_features), (n_channels, height, width), and volumes.
_AXES: dict[int, tuple[int, ...]] = {1: (), 2: (0,), 3: (1, 2), 4: (1, 2, 3)}


@dataclass(frozen=True)
class Visualization:
    """Inputs that were changed so that a layer moves along a direction.

    Parameters
    ----------
    start : ndarray of shape (n_samples, ...)
        Where the search began.
    optimum : ndarray of shape (n_samples, ...)
        Where it ended.
    trajectory : ndarray of shape (n_steps + 1, n_samples)
        The projection of the activation on the direction. The first is that of
        `start`, the last that of `optimum`; those between were taken with jitter.
    direction : ndarray
        Of unit norm.

    See Also
    --------
    agop.VisualizationDisplay : Draws one of them.

    Examples
    --------
    >>> from agop import visualize_direction
    >>> found = visualize_direction(lambda x: x, "input", [1, 0], shape=(2,), n_steps=1)
    >>> (found.optimum - found.start).round(4)  # of root mean square 0.05
    array([[0.0707, 0.    ]], dtype=float32)
    >>> found.shape, found.trajectory.shape
    ((2,), (2, 1))
    """

    start: np.ndarray
    optimum: np.ndarray
    trajectory: np.ndarray
    direction: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return self.start.shape[1:]


def visualize_direction(
    network: Any,
    layer: Any,
    direction: Any,
    *,
    start: Any = "noise",
    shape: Sequence[int] | None = None,
    n_samples: int = 1,
    positions: Any = None,
    bounds: tuple[Any, Any] | None = None,
    n_steps: int = 128,
    learning_rate: float = 0.05,
    l2: float = 0.0,
    total_variation: float = 0.0,
    smoothness: float = 1.0,
    jitter: int | None = None,
    axes: Sequence[int] | None = None,
    random_state: Any = None,
) -> Visualization:
    """Find inputs that move the activation of a layer far along a direction.

    Gradient ascent from data or from noise, on

        p(x) − l2 · mean x² − total_variation · mean abs(differences of neighbours)

    with p(x) the projection of the activation at x on the direction, of unit norm,
    averaged over positions. Without the means to keep images natural the result is
    noise that only the network reads; those here are the ones of the literature:
    shifting the image at random before every step, and letting low frequencies go
    ahead.

    Parameters
    ----------
    network : Module, skorch net, MLPClassifier, MLPRegressor, Pipeline or callable
        Run in eval mode, and left as it is.
    layer : str or Module
        As for :func:`agop.steer`.
    direction : array-like or tensor
        As for :func:`agop.steer`. Give its negative for the input that moves most
        against it.
    start : "noise", or array-like or tensor of shape (n_samples, ...), default="noise"
        The inputs to begin with.
    shape : tuple of int, default=None
        Of one input; needed for noise.
    n_samples : int, default=1
        Number of inputs, from noise.
    positions : int, slice, sequence of int or tuple of these, default=None
        Tokens or pixels of the layer over which projections are averaged, as for
        :func:`agop.steer`; all by default.
    bounds : tuple (low, high), default=None
        Numbers, or arrays that fit an input, between which inputs are kept.
    n_steps : int, default=128
    learning_rate : float, default=0.05
        Length of the first step: root mean square change of the entries of an input,
        in its units. Later steps are shorter, down to zero.
    l2 : float, default=0.0
        Weight of the mean square.
    total_variation : float, default=0.0
        Weight of the mean absolute difference between neighbours.
    smoothness : float, default=1.0
        The gradient's amplitude at a frequency f is divided by f to this power. 0 is
        the plain gradient.
    jitter : int, default=None
        Before each step inputs are rolled by at most so many entries, an eighth of
        the shortest of `axes` by default.
    axes : sequence of int, default=None
        Dimensions of an input along which neighbours belong together, for the last
        three parameters. By default the last two of an image (n_channels, height,
        width), the first of a series (n_steps, n_features), and none of a table.
    random_state : int, RandomState instance or None, default=None
        For noise and jitter.

    Returns
    -------
    Visualization

    Raises
    ------
    ValueError
        For token inputs, which have no derivative; if the activation does not depend
        differentiably on the input; as for :func:`agop.steer`.

    See Also
    --------
    agop.VisualizationDisplay : Draws start, optimum and trajectory.

    References
    ----------
    Olah, Mordvintsev and Schubert, "Feature Visualization", Distill (2017),
    :doi:`10.23915/distill.00007`.

    Examples
    --------
    >>> import torch
    >>> from agop import visualize_direction
    >>> network = torch.nn.Linear(3, 2, bias=False)
    >>> with torch.no_grad():
    ...     _ = network.weight.copy_(torch.tensor([[3.0, 4.0, 0.0], [0.0, 0.0, 1.0]]))
    >>> found = visualize_direction(network, network, [1, 0], start=torch.zeros(1, 3))
    >>> change = found.optimum - found.start  # along Wᵀd = (3, 4, 0)
    >>> (change / change.max()).round(4)
    array([[0.75, 1.  , 0.  ]], dtype=float32)
    """
    ascent = _Ascent(
        n_steps=n_steps,
        learning_rate=learning_rate,
        l2=l2,
        total_variation=total_variation,
        smoothness=smoothness,
        jitter=jitter,
        axes=axes,
    )
    generator = torch.Generator().manual_seed(random_seed(random_state))
    if isinstance(start, str):
        start = _noise(start, shape, n_samples, bounds, generator)
    module = as_module(network)
    site = find_site(module, layer)
    module, bring = placed(module, None, None)
    with untouched(module):
        vector = as_directions(direction, "direction").detach()
        if not bool(vector.any()):
            raise ValueError("direction is zero: it points nowhere.")
        vector = vector / vector.norm()
        place = Place(module, site, vector.shape, positions)
        runs = [
            ascent.run(
                partial(_projection, module, place, vector.flatten(), batch),
                _floating(batch.input),
                bounds,
                generator,
            )
            for batch in map(bring, as_batches(start, batch_size=_BATCH))
        ]
    starts, optima, paths = zip(*runs, strict=True)
    return Visualization(
        start=to_numpy(torch.cat(starts)),
        optimum=to_numpy(torch.cat(optima)),
        trajectory=to_numpy(torch.cat(paths, 1)),
        direction=to_numpy(vector),
    )


# ----------------------------------------------------------------------------- start


def _noise(
    start: str,
    shape: Sequence[int] | None,
    n_samples: int,
    bounds: tuple[Any, Any] | None,
    generator: torch.Generator,
) -> torch.Tensor:
    """Small noise between the bounds, or around zero."""
    if start != "noise":
        raise InvalidParameterError(
            "The 'start' parameter of visualize_direction must be 'noise' or an array "
            f"of inputs. Got {start!r} instead."
        )
    if shape is None:
        raise ValueError(
            "To start from noise, give the shape of one input: shape=(3, 32, 32), say."
        )
    check_number(
        "n_samples", n_samples, owner="visualize_direction", integer=True, low=1
    )
    low, high = (-1.0, 1.0) if bounds is None else _limits(bounds, torch.zeros(()))
    noise = torch.randn(n_samples, *shape, generator=generator)
    return (low + high) / 2 + _NOISE * (high - low) / 2 * noise


def _limits(
    bounds: tuple[Any, Any], like: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    try:
        low, high = (torch.as_tensor(np.array(bound)).to(like) for bound in bounds)
        good = bool((low < high).all())
    except (TypeError, ValueError, RuntimeError):
        good = False
    if not good:
        raise InvalidParameterError(
            "The 'bounds' parameter of visualize_direction must be two numbers (or "
            f"arrays), the lower one first. Got {bounds!r} instead."
        )
    return low, high


def _floating(given: torch.Tensor) -> torch.Tensor:
    """A copy in single precision at least."""
    if not given.is_floating_point():
        raise ValueError(
            f"The input holds whole numbers ({given.dtype}): tokens cannot be changed "
            "little by little. Convert them to float if they are numbers; for a "
            "network that reads tokens, look for examples that reach far along the "
            "direction."
        )
    dtype = torch.promote_types(given.dtype, torch.float32)
    return given.detach().to(dtype, copy=True)


def _projection(
    network: nn.Module,
    place: Place,
    direction: torch.Tensor,
    batch: Batch,
    inputs: torch.Tensor,
) -> torch.Tensor:
    """Mean projection of the activation of each sample on a direction, (n,)."""
    found: list[torch.Tensor] = []

    def look(activation: torch.Tensor) -> torch.Tensor:
        found.append(place.read(activation))
        return activation

    given = inputs.to(batch.input.dtype, copy=True)  # it may be changed in place
    batch = batch.replace_input(given)
    with visiting(network, {place.site: look}):
        network(*batch.args, **batch.kwargs)
    if not found:
        raise ValueError(f"Nothing passed {place.name} when the network ran.")
    vectors = torch.cat(found, 1)
    if len(vectors) != len(inputs) or vectors.shape[1] == 0:
        raise ValueError(
            f"At {place.name} there are {vectors.shape[1]} vectors for each of "
            f"{len(vectors)} samples, but {len(inputs)} inputs: the batch must be the "
            "first dimension (batch_first=True), and positions must choose something."
        )
    return (vectors @ direction.to(vectors)).mean(1)


# ---------------------------------------------------------------------------- ascent


class _Ascent:
    """Regularised gradient ascent with steps of known length."""

    def __init__(
        self,
        *,
        n_steps: int,
        learning_rate: float,
        l2: float,
        total_variation: float,
        smoothness: float,
        jitter: int | None,
        axes: Sequence[int] | None,
    ) -> None:
        check = partial(check_number, owner="visualize_direction")
        check("n_steps", n_steps, integer=True, low=1)
        check("learning_rate", learning_rate, low=0, open_low=True)
        check("l2", l2, low=0)
        check("total_variation", total_variation, low=0)
        check("smoothness", smoothness, low=0)
        if jitter is not None:
            check("jitter", jitter, integer=True, low=0)
        self.n_steps = n_steps
        self.learning_rate = learning_rate
        self.l2 = l2
        self.total_variation = total_variation
        self.smoothness = smoothness
        self.jitter = jitter
        self.axes = axes

    def run(
        self,
        projection: Any,
        inputs: torch.Tensor,
        bounds: tuple[Any, Any] | None,
        generator: torch.Generator,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Start, optimum and trajectory."""
        axes = self._axes(inputs.ndim - 1)
        low, high = (None, None) if bounds is None else _limits(bounds, inputs)
        start = current = inputs if low is None else inputs.clamp(low, high)
        path = []
        for step in range(self.n_steps):
            shifts = self._shifts(current, axes, generator) if step else [0] * len(axes)
            variable = current.clone().requires_grad_()
            moved = torch.roll(variable, shifts, axes) if axes else variable
            projected = projection(moved)
            gradient = self._gradient(projected, variable, axes)
            if step == 0 and not bool(gradient.any()):
                raise ValueError(
                    "At the start, the projection does not change with the input (the "
                    "units are dead there, or read something else). Start elsewhere: "
                    "from data, or with another random_state."
                )
            length = self.learning_rate * (1 - step / self.n_steps)
            current = current + length * _unit(self._smooth(gradient, axes))
            current = current if low is None else current.clamp(low, high)
            path.append(projected.detach())
        path.append(projection(current).detach())
        return start, current, torch.stack(path)

    def _axes(self, n_dims: int) -> list[int]:
        """Dimensions with neighbours, of a batch."""
        chosen = _AXES.get(n_dims, ()) if self.axes is None else self.axes
        if not all(-n_dims <= axis < n_dims for axis in chosen):
            raise ValueError(
                f"axes={chosen!r} does not fit inputs of {n_dims} dimensions."
            )
        if not chosen and (self.jitter or self.total_variation):
            raise ValueError(
                "jitter and total_variation need neighbours, and the columns of a "
                "table have none. If these are a series or an image, say along which "
                "dimensions: axes=(0,), say."
            )
        return [axis % n_dims + 1 for axis in chosen]

    def _shifts(
        self, inputs: torch.Tensor, axes: list[int], generator: torch.Generator
    ) -> list[int]:
        most = self.jitter
        if most is None:
            most = int(min((inputs.shape[a] for a in axes), default=0) * _JITTER)
        draws = torch.randint(-most, most + 1, (len(axes),), generator=generator)
        return [int(draw) for draw in draws]

    def _gradient(
        self, projected: torch.Tensor, variable: torch.Tensor, axes: list[int]
    ) -> torch.Tensor:
        if not projected.requires_grad:
            raise ValueError(
                "The activation does not depend differentiably on the input: somewhere "
                "the graph is cut (no_grad, detach, argmax, conversion to numpy or to "
                "integers)."
            )
        objective = projected - self.l2 * _mean(variable.square())
        for axis in axes:
            variation = _mean(variable.diff(dim=axis).abs())
            objective = objective - self.total_variation * variation
        (gradient,) = torch.autograd.grad(objective.sum(), variable)
        if not bool(torch.isfinite(gradient).all()):
            raise ValueError(
                "The gradient is not finite. Look for parameters that are NaN, for "
                "infinite slopes (a square root at 0) and for overflow; bounds or l2 "
                "keep inputs small."
            )
        return gradient

    def _smooth(self, gradient: torch.Tensor, axes: list[int]) -> torch.Tensor:
        """The gradient with high frequencies held back."""
        if not axes or self.smoothness == 0:
            return gradient
        sizes = [gradient.shape[axis] for axis in axes]
        waves = [torch.fft.fftfreq(size) for size in sizes[:-1]]
        waves.append(torch.fft.rfftfreq(sizes[-1]))
        grid = torch.meshgrid(*waves, indexing="ij")
        frequency = torch.stack(grid).norm(dim=0).clamp(min=1 / max(sizes))
        scale = frequency.pow(-self.smoothness).to(gradient)
        where = [1] * gradient.ndim
        for axis, size in zip(axes, scale.shape, strict=True):
            where[axis] = size
        spectrum = torch.fft.rfftn(gradient, dim=axes) * scale.reshape(where)
        return torch.fft.irfftn(spectrum, s=sizes, dim=axes)


def _mean(entries: torch.Tensor) -> torch.Tensor:
    """Mean over the entries of each sample, (n,)."""
    return entries.flatten(1).mean(1)


def _unit(gradient: torch.Tensor) -> torch.Tensor:
    """Entries of root mean square 1 for each sample; zero stays zero."""
    tiny = math.sqrt(torch.finfo(gradient.dtype).tiny)
    size = _mean(gradient.square()).sqrt().clamp(min=tiny)
    return gradient / size.reshape(-1, *[1] * (gradient.ndim - 1))

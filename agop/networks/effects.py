"""What steering does to the output, by strength, beside what the AGOP foretells."""

from __future__ import annotations

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
from agop.networks.guards import check_passes, check_rows, untouched
from agop.networks.interventions import (
    Intervention,
    Place,
    as_directions,
    find_site,
)
from agop.networks.layers import visiting
from agop.networks.outputs import Selection, pick_output, rows_of, selection_of
from agop.networks.placing import placed
from agop.networks.probes import Probes
from agop.networks.sources import as_module


@dataclass(frozen=True)
class EffectCurve:
    """Change of the outputs of a network when it is steered.

    Parameters
    ----------
    strengths : ndarray of shape (n_strengths,)
    mean : ndarray of shape (n_strengths, n_outputs)
        Mean over samples of the change of each output against strength 0.
    standard_error : ndarray of shape (n_strengths, n_outputs)
        Of these means; NaN for a single sample.
    squared : ndarray of shape (n_strengths,)
        Mean over samples of the squared norm of the change of all outputs.
    baseline : ndarray of shape (n_outputs,)
        Mean outputs at strength 0.
    slope : ndarray of shape (n_outputs,)
        Mean derivative of the outputs by strength, at 0: the mean of Jd, for the
        direction d. NaN if the outputs have no derivative.
    energy : float
        Mean squared norm of that derivative: dᵀGd, with G the AGOP at these
        activations. NaN if the outputs have no derivative.
    n_samples : int

    See Also
    --------
    agop.SteeringDisplay : Draws it.

    Examples
    --------
    >>> import numpy as np
    >>> from agop import effect_curve
    >>> X = np.ones((10, 2))
    >>> curve = effect_curve(lambda x: x**2, "input", [1.0, 0.0], X, [0.1, 1.0])
    >>> curve.mean[:, 0], curve.predicted_mean[:, 0]
    (array([0.21, 3.  ]), array([0.2, 2. ]))
    """

    strengths: np.ndarray
    mean: np.ndarray
    standard_error: np.ndarray
    squared: np.ndarray
    baseline: np.ndarray
    slope: np.ndarray
    energy: float
    n_samples: int

    @property
    def predicted_mean(self) -> np.ndarray:
        """To first order, the mean changes, of shape (n_strengths, n_outputs)."""
        return np.outer(self.strengths, self.slope)

    @property
    def predicted_squared(self) -> np.ndarray:
        """To first order, the mean squared changes, of shape (n_strengths,)."""
        return self.energy * self.strengths**2


def effect_curve(
    network: Any,
    layer: Any,
    direction: Any,
    X: Any,
    strengths: Any,
    y: Any = None,
    *,
    outputs: Any = "all",
    output_key: Any = None,
    positions: Any = None,
    n_probes: Any = "auto",
    batch_size: int = 256,
    random_state: Any = None,
) -> EffectCurve:
    """Outputs of a network against the strength with which it is steered.

    With f(x; s) the outputs when s times the direction d is added at a layer: means and
    standard errors of f(x; s) − f(x; 0), and the mean squared change. To first order in
    s that is

        E ‖f(x; s) − f(x; 0)‖² = s² E ‖Jd‖² = s² dᵀGd,

    with J the Jacobian of the outputs by the activation and G = E JᵀJ its AGOP: where
    the measured change leaves this parabola, the network is no longer linear along d.

    Parameters
    ----------
    network : Module, skorch net, MLPClassifier, MLPRegressor, Pipeline or callable
        Run in eval mode, and left as it is.
    layer : str or Module
        As for :func:`agop.steer`.
    direction : array-like or tensor
        As for :func:`agop.steer`.
    X : array-like, tensor, dict, tuple, Dataset, DataLoader or iterable of batches
        Samples along the first dimension. One pass is made, batch by batch.
    strengths : array-like of shape (n_strengths,)
    y : array-like of shape (n_samples, ...), default=None
        Targets, for those `outputs` that need them.
    outputs : str, int, list of int or callable, default="all"
        As for :class:`~agop.NetworkAGOP`; here a function need not be differentiable
        (one that tells how often a class is chosen, say).
    output_key : str, int or callable, default=None
        Which tensor is the output, if the network returns several.
    positions : int, slice, sequence of int or tuple of these, default=None
        As for :func:`agop.steer`. All positions are moved together: only for one
        position is dᵀGd the one of a NetworkAGOP (with the same ``positions``), which
        moves each alone.
    n_probes : int, "auto" or None, default="auto"
        Random combinations of the outputs from which `slope` and `energy` are
        estimated. None: each output is differentiated; "auto": each one up to 64,
        beyond that 32 probes.
    batch_size : int, default=256
    random_state : int, RandomState instance or None, default=None
        For random probes.

    Returns
    -------
    EffectCurve

    Raises
    ------
    ValueError
        For strengths that are not finite; as for :func:`agop.steer`; if the layer is
        not called; if outputs are random, are not one row for each sample that
        depends on this sample alone, or are not finite at strength 0.

    See Also
    --------
    agop.steer : Run the network that way.
    agop.SteeringDisplay : Draws the curve.

    Examples
    --------
    >>> import torch
    >>> from agop import effect_curve
    >>> network = torch.nn.Sequential(torch.nn.Identity(), torch.nn.ReLU())
    >>> X = torch.tensor([[1.0, -1.0], [2.0, -2.0]])
    >>> curve = effect_curve(network, "0", [1.0, 0.0], X, [-3.0, -0.5, 0.5])
    >>> curve.mean[:, 0]  # the second sample reaches zero at strength −2
    array([-1.5, -0.5,  0.5])
    >>> curve.squared, curve.predicted_squared
    (array([2.5 , 0.25, 0.25]), array([9.  , 0.25, 0.25]))
    """
    check_number("batch_size", batch_size, owner="effect_curve", integer=True, low=1)
    if n_probes is not None and n_probes != "auto":
        check_number("n_probes", n_probes, owner="effect_curve", integer=True, low=1)
    values = _strengths(strengths)
    module = as_module(network)
    site = find_site(module, layer)
    module, bring = placed(module, None, None)
    generator = torch.Generator().manual_seed(random_seed(random_state))
    with untouched(module):
        vector = as_directions(direction, "direction").detach()
        experiment = _Experiment(
            module,
            Place(module, site, vector.shape, positions),
            vector.flatten(),
            selection_of(outputs, owner="effect_curve"),
            output_key,
            Probes(n_probes, generator),
        )
        totals = _Totals(values)
        for batch in map(bring, as_batches(X, y, batch_size=batch_size)):
            if totals.n_samples == 0:
                experiment.check(batch)
            totals.add(experiment, batch)
    return totals.curve()


def _strengths(strengths: Any) -> list[float]:
    values = np.array(strengths, dtype=float)
    if values.ndim != 1 or len(values) == 0 or not np.isfinite(values).all():
        raise InvalidParameterError(
            "The 'strengths' parameter of effect_curve must be a vector of finite "
            f"numbers. Got {strengths!r} instead."
        )
    return values.tolist()


@dataclass(frozen=True)
class _Experiment:
    """A network that is steered, and what is read off its output."""

    network: nn.Module
    place: Place
    direction: torch.Tensor  # (d,)
    selection: Selection
    output_key: Any
    probes: Probes

    def check(self, batch: Batch) -> None:
        """Refuse networks for which all this would be wrong."""
        first = batch.split(2)[0]
        zero = _zero(first)
        outputs = self.outputs(first, zero)
        _check_finite(outputs)
        check_passes(outputs, self.outputs(first, zero), outputs)
        if outputs.requires_grad:
            check_rows(outputs, {self.place.site: [zero]})

    def outputs(self, batch: Batch, strength: torch.Tensor) -> torch.Tensor:
        """What is selected of the output, (n, c), at a strength for each sample."""
        intervention = Intervention(self.place, partial(self._moved, strength))
        batch = batch.replace_input(batch.input.clone())  # it may be changed in place
        with visiting(self.network, {self.place.site: intervention}):
            returned = self.network(*batch.args, **batch.kwargs)
        if intervention.n_calls == 0:
            raise ValueError(
                f"Nothing passed {self.place.name}, or no floating numbers, when the "
                "network ran on these data: there is nothing to steer."
            )
        output = rows_of(pick_output(returned, self.output_key), len(batch))
        return self.selection(output, batch.target)

    def _moved(self, strength: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
        if len(vectors) != len(strength):
            raise ValueError(
                f"The activation at {self.place.name} has {len(vectors)} rows for "
                f"{len(strength)} samples: its first dimension is not the batch. Build "
                "the layer with batch_first=True."
            )
        steps = strength.to(vectors)[:, None] * self.direction.to(vectors)  # (n, d)
        between = [1] * (vectors.ndim - 2)
        return vectors + steps.reshape(len(steps), *between, -1)

    def derivative(
        self, outputs: torch.Tensor, strength: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Jd of each sample, (n, c), and its squared norm, (n,)."""
        if not outputs.requires_grad:
            nothing = torch.full(outputs.shape, torch.nan)
            return nothing, nothing[:, 0]
        slope = torch.zeros_like(outputs)
        energy = torch.zeros_like(strength)
        for probe in self.probes.draw(outputs):
            along = _gradient(outputs, strength, probe)  # vᵀJd, (n,)
            slope = slope + along.to(outputs)[:, None] * probe
            energy = energy + along.square()
        return slope.detach(), energy.detach()


def _gradient(
    outputs: torch.Tensor, strength: torch.Tensor, probe: torch.Tensor
) -> torch.Tensor:
    return torch.autograd.grad(
        outputs,
        strength,
        probe,
        retain_graph=True,
        allow_unused=True,
        materialize_grads=True,
    )[0]


class _Totals:
    """Everything that is averaged over the samples."""

    def __init__(self, strengths: list[float]) -> None:
        self.strengths = strengths
        self.changes = [_Moments() for _ in strengths]
        self.baseline, self.slope, self.energy = _Moments(), _Moments(), _Moments()

    @property
    def n_samples(self) -> int:
        return self.baseline.count

    def add(self, experiment: _Experiment, batch: Batch) -> None:
        zero = _zero(batch)
        outputs = experiment.outputs(batch, zero)
        slope, energy = experiment.derivative(outputs, zero)
        baseline = outputs.detach()
        _check_finite(baseline)
        self.baseline.add(baseline)
        self.slope.add(slope)
        self.energy.add(energy)
        for value, moments in zip(self.strengths, self.changes, strict=True):
            steered = experiment.outputs(batch, torch.full_like(zero, value).detach())
            moments.add(_double(steered) - _double(baseline))

    def curve(self) -> EffectCurve:
        return EffectCurve(
            strengths=np.array(self.strengths),
            mean=np.stack([to_numpy(m.mean) for m in self.changes]),
            standard_error=np.stack([to_numpy(m.error()) for m in self.changes]),
            squared=np.array([float(m.square().sum()) for m in self.changes]),
            baseline=to_numpy(self.baseline.mean),
            slope=to_numpy(self.slope.mean),
            energy=float(self.energy.mean),
            n_samples=self.n_samples,
        )


class _Moments:
    """Mean and spread of rows that come in batches (Chan, Golub and LeVeque, 1983)."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = torch.zeros((), dtype=torch.float64)
        self._spread = torch.zeros((), dtype=torch.float64)

    def add(self, rows: torch.Tensor) -> None:
        rows = _double(rows)
        mean = rows.mean(0)
        total = self.count + len(rows)
        shift = mean - self.mean
        self._spread = (
            self._spread
            + (rows - mean).square().sum(0)
            + shift.square() * (self.count * len(rows) / total)
        )
        self.mean = self.mean + shift * (len(rows) / total)
        self.count = total

    def error(self) -> torch.Tensor:
        """Standard error of the mean."""
        spare = torch.tensor(float(self.count - 1))
        return (self._spread / spare / self.count).sqrt()

    def square(self) -> torch.Tensor:
        """Mean of the squares."""
        return self.mean.square() + self._spread / self.count


def _check_finite(outputs: torch.Tensor) -> None:
    if not bool(torch.isfinite(outputs).all()):
        raise ValueError(
            "Outputs of the network are not finite before it is steered. Look for "
            "parameters that are NaN and for overflow."
        )


def _zero(batch: Batch) -> torch.Tensor:
    """Strength 0 for each sample, as a variable."""
    return torch.zeros(len(batch), dtype=torch.float64, requires_grad=True)


def _double(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().cpu().double()

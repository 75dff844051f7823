"""The neural feature ansatz: is WᵀW of a layer a power of the AGOP at its input."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from agop.core.arrays import check_number
from agop.networks.alignment import LayerAnsatz, compare
from agop.networks.base import NetworkEstimator
from agop.networks.guards import untouched
from agop.networks.initialization import reinitialized
from agop.networks.layers import Site, visiting
from agop.networks.projections import find_projections, opened
from agop.networks.sources import as_module
from agop.networks.survey import Survey

#: A line of a table: layer, power, and what was found.
Record = dict[str, Any]

_OWNER = "NeuralFeatureAnsatz"


@dataclass(frozen=True)
class AnsatzResult:
    """How well the neural feature ansatz holds in a network.

    Parameters
    ----------
    records : list of dict
        One for each layer and power, with "layer", "power", "correlation" (cosine),
        "pearson", and "baseline", "baseline_low", "baseline_high": mean, lowest and
        highest cosine of the re-initialised networks, NaN if there are none. Made to
        be given to ``pandas.DataFrame``.
    layers : dict of LayerAnsatz
        The matrices, by name of the layer.
    """

    records: list[Record]
    layers: dict[str, LayerAnsatz]


def neural_feature_ansatz(
    network: Any,
    X: Any,
    y: Any = None,
    *,
    layers: Any = None,
    powers: Sequence[float] = (0.5,),
    outputs: Any = "all",
    center: bool = False,
    initial: nn.Module | Mapping[str, torch.Tensor] | None = None,
    n_baselines: int = 1,
    initialize: Callable[[nn.Module], Any] | None = None,
    n_probes: int | str | None = "auto",
    output_key: Any = None,
    batch_size: int | str = "auto",
    random_state: Any = None,
    verbose: int = 0,
) -> AnsatzResult:
    """Correlate WᵀW with powers of the AGOP, layer by layer.

    The neural feature ansatz says that training makes WᵀW of a layer h ↦ Wh + b
    proportional to a power of the AGOP at its input,

        WᵀW ∝ G^power,    G = 1/n Σᵢ ∇ₕf(hᵢ) ∇ₕf(hᵢ)ᵀ,

    summed over outputs and averaged over tokens. For a convolution, h are the patches
    that it reads. Only the way through the layer counts, not what passes beside it. All
    layers are done in one pass over the data; another one for each baseline.

    A high correlation alone says little: at random weights it is high already, most of
    all in wide layers and for small powers. Compare it with the baseline, the same
    number for the same architecture with weights drawn anew.

    Parameters
    ----------
    network : Module, skorch net, MLPClassifier, MLPRegressor, Pipeline or callable
        As for :class:`NetworkAGOP`.
    X : array-like, tensor, dict, tuple, Dataset, DataLoader or iterable of batches
        Data that can be read more than once.
    y : array-like of shape (n_samples, ...), default=None
        Targets, for those `outputs` that need them.
    layers : str, Module, Pattern, callable, or a list of these, default=None
        Linear layers, convolutions, Conv1D layers of Hugging Face, and
        ``nn.MultiheadAttention``, which stands for its projections `q_proj`, `k_proj`,
        `v_proj` and `out_proj`. By default all of these that the network calls, except
        frozen ones if others were trained.
    powers : sequence of float, default=(0.5,)
        Positive.
    outputs : str, int, list of int or callable, default="all"
        What is differentiated, as for :class:`NetworkAGOP`.
    center : bool, default=False
        Subtract the mean gradient of each output.
    initial : Module or state dict, default=None
        The network before training. Then the centred ansatz is measured: W − W₀ takes
        the place of W in WᵀW and in G = WᵀSW, where S is the matrix at the output of
        the layer. So the part that training did not change does not count. For the
        baseline W and W₀ are two independent draws.
    n_baselines : int, default=1
        Number of re-initialised networks.
    initialize : callable, default=None
        Called for every module of a copy of the network, as by ``copy.apply``, to draw
        weights in another way than by each module's `reset_parameters`. Those are
        called before it in any case: they take batch normalisation back to its default
        statistics. What is frozen stays, if other parts were trained. For models of
        Hugging Face pass ``model._init_weights``.
    n_probes : int, "auto" or None, default="auto"
        Random combinations of outputs, as for :class:`NetworkAGOP`.
    output_key : str, int or callable, default=None
        Which tensor is the output, if the network returns several.
    batch_size : int or "auto", default="auto"
        Samples at a time.
    random_state : int, RandomState instance or None, default=None
        For baselines and random probes.
    verbose : int, default=0
        From 1, progress is shown.

    Returns
    -------
    AnsatzResult

    Raises
    ------
    ValueError
        If a layer has no matrix, or the weights of a module cannot be drawn anew.

    See Also
    --------
    AnsatzRecorder : The same during training.
    neural_feature_matrix : WᵀW of one layer.

    Notes
    -----
    With power 1 the last layer agrees perfectly by definition: its G is WᵀW. Matrices
    used without calling a module of the kinds above (``F.linear``, LSTM) are not seen.

    References
    ----------
    * Radhakrishnan, Beaglehole, Pandit and Belkin, Science 383:1461, 2024,
      :arxiv:`2212.13881`: the ansatz.
    * Beaglehole, Radhakrishnan, Pandit and Belkin, 2023, :arxiv:`2309.00570`:
      convolutions.
    * Beaglehole, Mitliagkas and Agarwala, 2024, :arxiv:`2402.05271`: the centred
      ansatz.

    Examples
    --------
    >>> import torch
    >>> from agop import neural_feature_ansatz
    >>> generator = torch.Generator().manual_seed(0)
    >>> X = torch.randn(50, 4, generator=generator)
    >>> network = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2))
    >>> result = neural_feature_ansatz(network, X, powers=(0.5, 1), random_state=0)
    >>> [(record["layer"], record["power"]) for record in result.records]
    [('0', 0.5), ('0', 1), ('1', 0.5), ('1', 1)]
    >>> round(result.layers["1"].correlation(power=1), 6)
    1.0
    """
    measurement = NeuralFeatureAnsatz(
        network,
        X,
        y,
        layers=layers,
        powers=powers,
        outputs=outputs,
        center=center,
        initial=initial,
        n_probes=n_probes,
        output_key=output_key,
        batch_size=batch_size,
        random_state=random_state,
        verbose=verbose,
    )
    found = measurement.trained()
    baselines = measurement.baselines(n_baselines, initialize)
    return AnsatzResult(measurement.records(found, baselines), found)


class AnsatzRecorder:
    """Follow the neural feature ansatz through training.

    Call it from any training loop. The network is left as it is found, the generators
    of random numbers included, so that training goes on as if nobody had looked.

    Parameters
    ----------
    network : Module, skorch net, MLPClassifier or MLPRegressor
        The network that is trained; what it is at the moment of each call is measured.
    X : array-like, tensor, dict, tuple, Dataset, DataLoader or iterable of batches
        Data that can be read more than once; a few hundred samples will do.
    y : array-like of shape (n_samples, ...), default=None
        Targets, for those `outputs` that need them.
    layers : str, Module, Pattern, callable, or a list of these, default=None
    powers : sequence of float, default=(0.5,)
    outputs : str, int, list of int or callable, default="all"
    center : bool, default=False
    initial : Module or state dict, default=None
        For the centred ansatz; NaN as long as nothing has changed.
    n_baselines : int, default=1
        The baselines are measured once, when the recorder is made.
    initialize : callable, default=None
    n_probes : int, "auto" or None, default="auto"
    output_key : str, int or callable, default=None
    batch_size : int or "auto", default="auto"
    random_state : int, RandomState instance or None, default=None

    Attributes
    ----------
    records : list of dict
        As those of :class:`AnsatzResult`, each with "step".

    See Also
    --------
    neural_feature_ansatz : Says what the parameters mean.

    Examples
    --------
    >>> import torch
    >>> from agop import AnsatzRecorder
    >>> generator = torch.Generator().manual_seed(0)
    >>> X = torch.randn(50, 4, generator=generator)
    >>> network = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 1))
    >>> optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    >>> recorder = AnsatzRecorder(network, X, layers="0", random_state=0)
    >>> for step in range(3):
    ...     loss = (network(X)[:, 0] - X[:, 0]).square().mean()
    ...     optimizer.zero_grad()
    ...     loss.backward()
    ...     optimizer.step()
    ...     recorder(step)
    >>> [record["step"] for record in recorder.records]
    [0, 1, 2]
    """

    def __init__(
        self,
        network: Any,
        X: Any,
        y: Any = None,
        *,
        layers: Any = None,
        powers: Sequence[float] = (0.5,),
        outputs: Any = "all",
        center: bool = False,
        initial: nn.Module | Mapping[str, torch.Tensor] | None = None,
        n_baselines: int = 1,
        initialize: Callable[[nn.Module], Any] | None = None,
        n_probes: int | str | None = "auto",
        output_key: Any = None,
        batch_size: int | str = "auto",
        random_state: Any = None,
    ) -> None:
        self._measurement = NeuralFeatureAnsatz(
            network,
            X,
            y,
            layers=layers,
            powers=powers,
            outputs=outputs,
            center=center,
            initial=initial,
            n_probes=n_probes,
            output_key=output_key,
            batch_size=batch_size,
            random_state=random_state,
            verbose=0,
        )
        self._baselines = self._measurement.baselines(n_baselines, initialize)
        self.records: list[Record] = []

    def __call__(self, step: float) -> None:
        """Measure the network as it is now and add records.

        Parameters
        ----------
        step : float
            What the records call this moment: a step, an epoch, a time.
        """
        found = self._measurement.trained()
        records = self._measurement.records(found, self._baselines)
        self.records += [{"step": step, **record} for record in records]


# ---------------------------------------------------------------------------- measuring


class NeuralFeatureAnsatz(NetworkEstimator):
    """Checked parameters and data, and what is done with every network."""

    kind = "full"
    positions = "auto"
    device = "auto"
    n_components = max_batches = dtype = None

    def __init__(
        self,
        network: Any,
        X: Any,
        y: Any,
        *,
        layers: Any,
        powers: Sequence[float],
        outputs: Any,
        center: bool,
        initial: nn.Module | Mapping[str, torch.Tensor] | None,
        n_probes: int | str | None,
        output_key: Any,
        batch_size: int | str,
        random_state: Any,
        verbose: int,
    ) -> None:
        self.network = network
        self.layers = layers
        self.powers = powers
        self.outputs = outputs
        self.center = center
        self.n_probes = n_probes
        self.output_key = output_key
        self.batch_size = batch_size
        self.random_state = random_state
        self.verbose = verbose
        for power in powers:
            check_number("powers", power, owner=_OWNER, low=0, open_low=True)
        self.module = as_module(network)
        self.question = self._question(self.module)
        self.batches = self._batches(self.module, X, y, None, reset=True)
        self.start = None if initial is None else self._started(initial)
        self.sites = self.question.sites if layers is not None else self._called()

    def trained(self) -> dict[str, LayerAnsatz]:
        """The layers of the network as it is now."""
        return self._measure(as_module(self.network))

    def baselines(
        self, n_baselines: int, initialize: Callable[[nn.Module], Any] | None
    ) -> list[dict[str, LayerAnsatz]]:
        """The layers of networks whose weights are drawn anew."""
        check_number("n_baselines", n_baselines, owner=_OWNER, integer=True, low=0)
        seed = self.question.seed
        networks = (
            reinitialized(self.module, seed + i, initialize) for i in range(n_baselines)
        )
        return list(map(self._measure, networks))

    def records(
        self,
        found: Mapping[str, LayerAnsatz],
        baselines: list[dict[str, LayerAnsatz]],
    ) -> list[Record]:
        """One record for each layer and power."""
        records = []
        for (layer, pair), power in itertools.product(found.items(), self.powers):
            record = {
                "layer": layer,
                "power": power,
                "correlation": pair.correlation(power),
                "pearson": pair.pearson(power),
            }
            values = [each[layer].correlation(power) for each in baselines]
            records.append({**record, **_range(values)})
        return records

    def _measure(self, module: nn.Module) -> dict[str, LayerAnsatz]:
        """All layers of a network in one pass."""
        network, place = self._placed(opened(module))
        projections = find_projections(network, self.sites)
        centered = self.start is not None
        places = {
            name: each.output if centered else each.narrowest
            for name, each in projections.items()
        }
        survey = Survey(replace(self.question, sites=list(places.values())))
        survey.add(network, self.batches, place, whole=True)
        weights = {name: each.weight for name, each in projections.items()}
        if self.start is not None:
            initial = find_projections(opened(self.start), self.sites)
            weights = {name: weights[name] - initial[name].weight for name in weights}
        return {
            name: compare(
                weights[name],
                survey.parts[place.name].product.matrix().cpu(),
                at_output=place == projections[name].output,
            )
            for name, place in places.items()
        }

    def _started(self, initial: nn.Module | Mapping[str, torch.Tensor]) -> nn.Module:
        """A copy of the network with its initial weights."""
        state = initial if isinstance(initial, Mapping) else initial.state_dict()
        start = copy.deepcopy(self.module)
        start.load_state_dict(state)
        return start

    def _called(self) -> list[Site]:
        """The layers that the network calls, each call for itself."""
        network, place = self._placed(opened(self.module))
        known = find_projections(network, None)
        counts = dict.fromkeys(known, 0)

        def counting(name: str) -> Callable[[torch.Tensor], torch.Tensor]:
            def visit(tensor: torch.Tensor) -> torch.Tensor:
                counts[name] += 1
                return tensor

            return visit

        visitors = {each.output: counting(name) for name, each in known.items()}
        batch = place(next(iter(self.batches))).split(1)[0]
        with untouched(network), visiting(network, visitors):
            network(*batch.args, **batch.kwargs)
        return [
            Site(name, "output", call if count > 1 else None)
            for name, count in counts.items()
            for call in range(count)
        ]


def _range(values: list[float]) -> Record:
    values = values or [np.nan]
    return {
        "baseline": float(np.mean(values)),
        "baseline_low": float(np.min(values)),
        "baseline_high": float(np.max(values)),
    }

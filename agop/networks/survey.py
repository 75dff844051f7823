"""The AGOPs of a network at several sites, gathered from data in one pass or more."""

from __future__ import annotations

import copy
import itertools
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from agop.core.arrays import NumericalWarning, plain_arithmetic
from agop.core.outer_product import GradientOuterProduct, RowsOuterProduct
from agop.core.processes import gathered
from agop.core.progress import Progress
from agop.core.resampling import Bootstrap, BootstrapOuterProduct
from agop.core.sketch import LowRankOuterProduct
from agop.core.spectrum import Spectrum
from agop.networks.data import Batch, Batches
from agop.networks.guards import untouched
from agop.networks.jacobians import NetworkJacobian, Reading, Rows
from agop.networks.kinds import SKETCHED, accumulator, lasting
from agop.networks.layers import Site
from agop.networks.probes import DiagonalProbeError, ProbeError
from agop.networks.question import Question
from agop.networks.sweep import Sizes, halved, rows_that_fit, sweep

#: Up to this width the bootstrap keeps whole matrices; beyond, it stays within the span
#: of the leading directions and some more.
_WHOLE_FEATURES = 256


@dataclass
class Part:
    """What is known of one site.

    Parameters
    ----------
    kind : str
        Of the accumulator.
    product : GradientOuterProduct
    error : ProbeError or None
        None if every output was differentiated.
    refined : Spectrum or None
        Of a sketch, after a second pass over the data.
    """

    kind: str
    product: GradientOuterProduct
    error: ProbeError | None = None
    refined: Spectrum | None = None

    @plain_arithmetic
    def matrix(self) -> torch.Tensor:
        """G itself, or its diagonal if that alone is kept."""
        if self.kind == "diagonal":
            return self.product.diagonal()
        return self.product.matrix()

    @plain_arithmetic
    def importances(self) -> torch.Tensor:
        """The diagonal of G over its sum; zeros for a zero matrix."""
        diagonal = self.product.diagonal()
        return diagonal / diagonal.sum().clamp(min=torch.finfo(diagonal.dtype).tiny)

    def relative_error(self) -> float:
        """Standard error of G that random probes leave, over its norm."""
        if self.error is None:
            return 0.0
        norm = float(self.spectrum().eigenvalues.norm())
        return self.error.value() / norm if norm else 0.0

    @plain_arithmetic
    def spectrum(self, n_components: int | None = None) -> Spectrum:
        """The leading eigenvalues and directions, or all that are kept."""
        spectrum = self.refined or self.product.spectrum(n_components)
        if not len(spectrum.eigenvalues):  # of a zero matrix, which has no directions
            return Spectrum.of_diagonal(self.product.diagonal(), 1)
        kept = len(spectrum.eigenvalues)
        return spectrum.truncated(min(kept, n_components or kept))


@dataclass
class Survey:
    """The AGOPs at all sites, as far as data were seen.

    Parameters
    ----------
    question : Question
    """

    question: Question
    parts: dict[str, Part] = field(default_factory=dict)
    n_samples: int = 0

    def copy(self) -> Survey:
        """Another survey that has seen the same, to go on with."""
        with torch.inference_mode(False):
            return copy.deepcopy(self)

    @property
    def sketched(self) -> list[Site]:
        """Sites of which a sketch is kept that has found directions."""
        return [
            site
            for site in self.question.sites
            if isinstance(self.parts[site.name].product, LowRankOuterProduct)
            and self.parts[site.name].product.trace > 0
        ]

    def add(
        self,
        network: nn.Module,
        batches: Batches,
        place: Callable[[Batch], Batch],
        *,
        whole: bool,
    ) -> None:
        """Add the samples of some batches.

        Parameters
        ----------
        network : Module
        batches : Batches
        place : callable
            Brings a batch to the device and dtype of the network.
        whole : bool
            Whether these are all samples that will come.
        """
        sites = self.question.sites
        sizes = Sizes()

        def receive(taken: list[Rows]) -> None:
            self._receive(taken)
            sizes.update(taken)

        with untouched(network):
            first, stream = _peeked(map(place, batches))
            generator = self._generator(first)
            jacobian = self.question.jacobian(network, sites, generator, shortcuts=True)
            self._examine(jacobian, first)
            if not self.parts:
                n_samples = batches.n_samples if whole else None
                device = first.input.device
                self._begin(jacobian, n_samples, generator, device)
            else:
                self._check_widths(jacobian)
                self._make_room()
            seen = self._sweep(jacobian, stream, receive, batches, first)
        self.n_samples += seen
        for part in self.parts.values():
            part.refined = None
        sizes.warn([site.name for site in sites])

    @plain_arithmetic
    def refine(
        self, network: nn.Module, batches: Batches, place: Callable[[Batch], Batch]
    ) -> None:
        """Look at the same samples again, along the directions that were found.

        Sketches know directions well and eigenvalues poorly: this pass measures them.

        Parameters
        ----------
        network : Module
        batches : Batches
        place : callable
        """
        sites = self.sketched
        products = [
            product.second_pass()
            for site in sites
            if isinstance(product := self.parts[site.name].product, LowRankOuterProduct)
        ]

        def receive(taken: list[Rows]) -> None:
            for product, rows in zip(products, taken, strict=True):
                product.update(*rows.flat)

        self._again(network, sites, batches, place, receive)
        for site, product in zip(sites, products, strict=True):
            wanted = self.question.n_components or SKETCHED
            self.parts[site.name].refined = product.spectrum(wanted)

    def bootstrap(
        self,
        network: nn.Module,
        batches: Batches,
        place: Callable[[Batch], Batch],
        *,
        n_resamples: int,
        n_components: dict[str, int],
    ) -> dict[str, Bootstrap]:
        """Resample the samples in another pass.

        Parameters
        ----------
        network : Module
        batches : Batches
        place : callable
        n_resamples : int
        n_components : dict
            Directions that matter, by site.

        Returns
        -------
        dict of Bootstrap
            By site.
        """
        generator = torch.Generator("cpu").manual_seed(self.question.seed)
        products = {}
        for name, part in self.parts.items():
            width = part.product.n_features
            basis = None
            if width > _WHOLE_FEATURES:
                kept = min(width, 2 * n_components[name] + 10)
                basis = part.spectrum(kept).directions.T
            products[name] = BootstrapOuterProduct(
                width,
                n_resamples,
                basis=basis,
                center=self.question.center,
                generator=generator,
            )

        def receive(taken: list[Rows]) -> None:
            for site, rows in zip(self.question.sites, taken, strict=True):
                if self.question.center and rows.jacobian.shape[1] > 1:
                    raise ValueError(
                        f"The bootstrap does not know the mean over positions that "
                        f"center=True subtracts at {site.name!r}. Keep one position "
                        "(positions=), or flatten them."
                    )
                products[site.name].update(*_by_sample(rows))

        self._again(network, self.question.sites, batches, place, receive)
        return {
            name: products[name].value(part.spectrum(n_components[name]))
            for name, part in self.parts.items()
        }

    @plain_arithmetic
    def merge(self, other: Survey) -> None:
        """Add what another survey, of other samples, has seen.

        Parameters
        ----------
        other : Survey
        """
        _check_same(self._described, other._described)
        for name, part in self.parts.items():
            part.product.merge(other.parts[name].product)
            error = other.parts[name].error
            if part.error is not None and error is not None:
                part.error.merge(error)
            part.refined = None
        self.n_samples += other.n_samples

    @plain_arithmetic
    def all_reduce(self, group: Any = None) -> None:
        """Add up what all processes have seen.

        Parameters
        ----------
        group : ProcessGroup, default=None
        """
        seen = gathered((self._described, self.n_samples), group)
        for described, _ in seen:  # before anything is waited for
            _check_same(self._described, described)
        for part in self.parts.values():
            part.product.all_reduce(group)
            if part.error is not None:
                part.error.all_reduce(group)
            part.refined = None
        self.n_samples = sum(n_samples for _, n_samples in seen)

    @property
    def _described(self) -> dict[str, str]:
        """What must be the same in surveys that are added up."""
        kinds = {
            name: part.kind + (" with probes" if part.error is not None else "")
            for name, part in self.parts.items()
        }
        return {"question": self.question.name, **kinds}

    # ---------------------------------------------------------------------- passes

    def _begin(
        self,
        jacobian: NetworkJacobian,
        n_samples: int | None,
        generator: torch.Generator,
        device: torch.device,
    ) -> None:
        probed = jacobian.n_rows < jacobian.n_outputs
        if probed and self.question.n_probes == "auto":
            warnings.warn(
                f"{jacobian.n_outputs} outputs: {jacobian.n_rows} random combinations "
                "of them are differentiated instead of each; probe_error_ of a "
                "NetworkAGOP says how far off G may be. Pass n_probes (None for every "
                "output) to choose.",
                NumericalWarning,
                stacklevel=6,
            )
        for reading in jacobian.readings:
            gradients = None
            if n_samples is not None:
                gradients = n_samples * jacobian.n_rows * reading.n_positions
            kind, product = accumulator(
                reading,
                self.question.kind,
                n_gradients=gradients,
                n_components=self.question.n_components,
                center=self.question.center,
                device=device,
            )
            error = _probe_error(reading, kind, generator) if probed else None
            self.parts[reading.site.name] = Part(kind, product, error)

    def _receive(self, taken: list[Rows]) -> None:
        for part, rows in zip(self.parts.values(), taken, strict=True):
            part.product.update(*rows.flat)
            if part.error is not None:
                part.error.update(rows.jacobian, rows.weight)

    def _again(
        self,
        network: nn.Module,
        sites: list[Site],
        batches: Batches,
        place: Callable[[Batch], Batch],
        receive: Callable[[list[Rows]], None],
    ) -> None:
        """Another pass with gradients at the sites themselves."""
        with untouched(network):
            first, stream = _peeked(map(place, batches))
            generator = self._generator(first)
            jacobian = self.question.jacobian(
                network, sites, generator, shortcuts=False
            )
            self._examine(jacobian, first)
            weights = [reading.weight for reading in jacobian.readings]  # of patches

            def at_sites(taken: list[Rows]) -> None:
                pairs = zip(taken, weights, strict=True)
                receive([rows.through(weight) for rows, weight in pairs])

            self._sweep(jacobian, stream, at_sites, batches, first)

    def _examine(self, jacobian: NetworkJacobian, first: Batch) -> None:
        """Look at two rows, or at one if more are not to be or do not fit."""
        given = self.question.batch_size
        size = min(2, given) if isinstance(given, int) else 2
        while True:
            rows = first.split(size)[0]
            try:
                return jacobian.examine(rows)
            except (RuntimeError, MemoryError) as error:
                size = halved(len(rows), error)

    def _sweep(
        self,
        jacobian: NetworkJacobian,
        stream: Iterator[Batch],
        receive: Callable[[list[Rows]], None],
        batches: Batches,
        first: Batch,
    ) -> int:
        size = self.question.batch_size
        if not isinstance(size, int):
            sketch = any(part.kind == "low_rank" for part in self.parts.values())
            size = rows_that_fit(jacobian, sketch=sketch)
        total = None
        if batches.n_samples is not None:
            total = -(-batches.n_samples // min(size, len(first)))
        with Progress(
            "average gradient outer product", total, self.question.verbose
        ) as bar:
            return sweep(jacobian, stream, receive, size=size, progress=bar)

    def _make_room(self) -> None:
        """What kept all gradients, of few samples, must not grow with further ones."""
        for part in self.parts.values():
            if self.question.kind == "auto" and isinstance(
                part.product, RowsOuterProduct
            ):
                part.kind, product = lasting(
                    part.product.n_features,
                    n_components=self.question.n_components,
                    center=self.question.center,
                )
                part.product = part.product.poured_into(product)

    def _check_widths(self, jacobian: NetworkJacobian) -> None:
        for part, reading in zip(self.parts.values(), jacobian.readings, strict=True):
            if part.product.n_features != reading.n_features:
                raise ValueError(
                    f"At {reading.site.name!r} there are {reading.n_features} features "
                    f"now, {part.product.n_features} in the batches before."
                )
            weight = getattr(part.product, "layer_weight", reading.weight)
            if weight is not None and not _equal(weight, reading.weight):
                raise ValueError(
                    f"The weights of the layer that reads {reading.site.name!r} have "
                    "changed since the batches before: an AGOP is that of one network. "
                    "Use fit, or a new estimator."
                )

    def _generator(self, first: Batch) -> torch.Generator:
        """One for these data: probes of parts that are merged must not be the same."""
        row = first.input[:1].detach().double().cpu().contiguous()
        mark = zlib.crc32(row.numpy().tobytes())
        seed = self.question.seed + self.n_samples + mark
        return torch.Generator("cpu").manual_seed(seed)


def _peeked(batches: Iterator[Batch]) -> tuple[Batch, Iterator[Batch]]:
    first = next(batches, None)
    if first is None:
        raise ValueError("There are no samples: the data give no batches.")
    return first, itertools.chain([first], batches)


def _probe_error(reading: Reading, kind: str, generator: torch.Generator) -> ProbeError:
    if kind == "diagonal":
        return DiagonalProbeError(reading.n_features, generator)
    return ProbeError(reading.n_features, generator, reading.weight)


def _equal(weight: torch.Tensor, other: torch.Tensor | None) -> bool:
    return other is not None and torch.equal(weight, other)


def _check_same(mine: dict[str, str], others: dict[str, str]) -> None:
    if list(mine.items()) != list(others.items()):
        raise ValueError(
            "Only answers to the same question, at the same layers and of the same "
            f"kinds, can be added up; got {mine} and {others}. (kind='auto' goes by "
            "the size of the data: name a kind.)"
        )


def _by_sample(rows: Rows) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Positions as further gradients of their sample, so that samples are drawn."""
    jacobian, weight = rows.jacobian, rows.weight
    if weight is None:
        return jacobian.flatten(1, 2) / jacobian.shape[1] ** 0.5, None
    total = weight.sum(1)
    share = weight / total.clamp(min=1e-300)[:, None]
    root = share.sqrt().to(jacobian)[:, :, None, None]
    return (jacobian * root).flatten(1, 2), total

"""What is asked of a network: the parameters of an estimator, resolved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from agop.networks.jacobians import NetworkJacobian
from agop.networks.kinds import THROUGH_LINEAR
from agop.networks.layers import Site
from agop.networks.outputs import Selection
from agop.networks.probes import Probes


@dataclass(frozen=True)
class Question:
    """What is asked of a network.

    Parameters
    ----------
    sites : list of Site
    selection : callable
        From the output and the targets to what is differentiated.
    kind : str
    positions : "auto", str, int or tuple of int
    n_components : int or None
    center : bool
    n_probes : int, "auto" or None
    output_key : str, int, callable or None
    batch_size : int or "auto"
    seed : int
        Of random probes and resamples.
    verbose : int
    outputs : str
        What the selection was called.
    """

    sites: list[Site]
    selection: Selection
    kind: str
    positions: Any
    n_components: int | None
    center: bool
    n_probes: int | str | None
    output_key: Any
    batch_size: int | str
    seed: int
    verbose: int
    outputs: str

    @property
    def name(self) -> str:
        """What must be the same where results are added up."""
        return (
            f"outputs={self.outputs}, positions={self.positions!r}, "
            f"center={self.center}, n_probes={self.n_probes!r}, "
            f"output_key={spelled(self.output_key)}"
        )

    def jacobian(
        self,
        network: nn.Module,
        sites: list[Site],
        generator: torch.Generator,
        *,
        shortcuts: bool,
    ) -> NetworkJacobian:
        """The derivative that is asked for, at some of the sites."""
        return NetworkJacobian(
            network,
            sites,
            self.selection,
            probes=Probes(self.n_probes, generator),
            output_key=self.output_key,
            positions=self.positions,
            shortcuts=shortcuts and self.kind in THROUGH_LINEAR,
        )


def spelled(value: Any) -> str:
    """A value, or the name of a function or its class: the same in every process.

    Parameters
    ----------
    value : object

    Returns
    -------
    str
    """
    if callable(value):
        return str(getattr(value, "__qualname__", type(value).__qualname__))
    return repr(value)

"""Which combinations of the outputs are differentiated: each one, or random ones."""

from __future__ import annotations

from typing import Any

import torch

from agop.core.arrays import plain_arithmetic
from agop.core.processes import device_of

#: Up to so many outputs each is differentiated; beyond, so many random combinations.
EXACT_OUTPUTS = 64
DEFAULT_PROBES = 32

#: Pairs of random vectors from which the error of probes is estimated.
_PAIRS = 16


class Probes:
    """Vectors v for which vᵀJ is computed.

    Random ones have independent entries ±1/√k, so that the expectation of
    Σ JᵀvvᵀJ over k probes is JᵀJ. Every sample gets probes of its own.

    Parameters
    ----------
    n_probes : int, "auto" or None
        None differentiates every output, "auto" up to ``EXACT_OUTPUTS`` of them and
        uses ``DEFAULT_PROBES`` random probes beyond.
    generator : Generator
    """

    def __init__(self, n_probes: int | str | None, generator: torch.Generator) -> None:
        self.n_probes = n_probes
        self.generator = generator

    def count(self, n_outputs: int) -> int:
        """Number of vectors for so many outputs.

        Parameters
        ----------
        n_outputs : int

        Returns
        -------
        int
            `n_outputs` itself where every output is differentiated.
        """
        if self.n_probes == "auto":
            return DEFAULT_PROBES if n_outputs > EXACT_OUTPUTS else n_outputs
        if isinstance(self.n_probes, int):
            return min(self.n_probes, n_outputs)
        return n_outputs

    def draw(
        self, scalars: torch.Tensor, count: int | None = None
    ) -> list[torch.Tensor]:
        """The vectors for one batch.

        Parameters
        ----------
        scalars : Tensor of shape (n_samples, n_outputs)
        count : int, default=None
            How many; by default what :meth:`count` says.

        Returns
        -------
        list of Tensor of shape (n_samples, n_outputs)
        """
        n_outputs = scalars.shape[1]
        count = count or self.count(n_outputs)
        if count == n_outputs:
            identity = torch.eye(n_outputs, dtype=scalars.dtype, device=scalars.device)
            return [row.expand(scalars.shape) for row in identity]
        signs = torch.randint(
            0, 2, (count, *scalars.shape), generator=self.generator, device="cpu"
        )
        return list((2 * signs - 1).to(scalars) / count**0.5)


class ProbeError:
    """The standard error that random probes leave in an AGOP.

    From the spread between the probes of each sample, along pairs of random vectors
    s, t: for any matrix, E (sᵀAt)² is its squared Frobenius norm.

    Parameters
    ----------
    n_features : int
        Size of the AGOP.
    generator : Generator
    weight : Tensor of shape (width, n_features) or None, default=None
        W, where the rows that arrive are gradients with respect to Wx.
    """

    def __init__(
        self,
        n_features: int,
        generator: torch.Generator,
        weight: torch.Tensor | None = None,
    ) -> None:
        shape = (2, n_features, _PAIRS)
        ones = torch.randint(0, 2, shape, generator=generator, device="cpu")
        signs = (2 * ones - 1).double()
        self._signs = signs if weight is None else weight.cpu().double() @ signs
        self._variance = torch.zeros(_PAIRS, dtype=torch.float64, device="cpu")
        self._weight = 0.0

    def update(self, jacobian: torch.Tensor, weight: torch.Tensor | None) -> None:
        """Add a batch.

        Parameters
        ----------
        jacobian : Tensor of shape (n_samples, n_positions, n_probes, width)
        weight : Tensor of shape (n_samples, n_positions), optional
        """
        products = self._shares(jacobian, self._signs.to(jacobian))
        if weight is None:
            self._weight += float(jacobian.shape[0] * jacobian.shape[1])
        else:
            products = products * weight.to(products)[:, :, None, None]
            self._weight += float(weight.sum())
        each = products.sum(1, dtype=torch.float64)  # of a sample, (n, probes, pairs)
        n_probes = each.shape[1]
        spread = each.var(1) if n_probes > 1 else each[:, 0] * torch.nan
        self._variance += n_probes * spread.sum(0).cpu()

    @staticmethod
    def _shares(jacobian: torch.Tensor, signs: torch.Tensor) -> torch.Tensor:
        """Shares of the probes in sᵀGt, (n_samples, n_positions, n_probes, pairs)."""
        return (jacobian @ signs[0]) * (jacobian @ signs[1])

    def value(self) -> float:
        """Standard error of G in Frobenius norm; NaN for one probe, with no spread."""
        return float(self._variance.mean().sqrt()) / max(self._weight, 1e-300)

    @plain_arithmetic
    def all_reduce(self, group: Any = None) -> None:
        """Add up what all processes have seen.

        Parameters
        ----------
        group : ProcessGroup, default=None
        """
        state = self._variance.new_tensor([*self._variance.tolist(), self._weight])
        state = state.to(device_of(group))
        torch.distributed.all_reduce(state, group=group)
        self._variance, self._weight = state[:-1].cpu(), float(state[-1])

    @plain_arithmetic
    def merge(self, other: ProbeError) -> None:
        """Add what another one, fed with other samples, has seen.

        Parameters
        ----------
        other : ProbeError
        """
        self._variance += other._variance
        self._weight += other._weight


class DiagonalProbeError(ProbeError):
    """The same for the diagonal of G alone: for any vector, E (sᵀa)² is its |a|²."""

    @staticmethod
    def _shares(jacobian: torch.Tensor, signs: torch.Tensor) -> torch.Tensor:
        """Shares of the probes in sᵀ diag G."""
        return jacobian.square() @ signs[0]

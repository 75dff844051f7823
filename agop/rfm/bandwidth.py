"""Bandwidths: in units of the median distance, and whether they resolve the data."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch

from agop.core.arrays import NumericalWarning
from agop.kernels.geometry import Kernel
from agop.kernels.metric import Metric
from agop.kernels.operator import KernelMatrix

#: Points that determine the median distance.
_MEDIAN_POINTS = 500


@dataclass(frozen=True)
class Median:
    """A bandwidth of `factor` times the median distance, anew at every round.

    Parameters
    ----------
    factor : float, default=1.0
    """

    factor: float = 1.0

    def measure(
        self,
        kernel: Kernel,
        metric: Metric,
        points: torch.Tensor,
        weights: torch.Tensor,
    ) -> float:
        """The bandwidth, from a random sample of the points that is always the same.

        Parameters
        ----------
        kernel : Kernel
        metric : Metric
        points : Tensor of shape (n, d)
        weights : Tensor of shape (n,)

        Returns
        -------
        float
        """
        generator = torch.Generator(device="cpu").manual_seed(0)
        order = torch.randperm(len(points), generator=generator, device="cpu")
        sample = order[:_MEDIAN_POINTS].to(points.device)
        coordinates = metric.project(points[sample])
        return self.factor * median_distance(kernel, coordinates, weights[sample])


def median_distance(
    kernel: Kernel, points: torch.Tensor, weights: torch.Tensor
) -> float:
    """Weighted median of the positive pairwise distances; 1.0 if there are none.

    Parameters
    ----------
    kernel : Kernel
        Says which distance.
    points : Tensor of shape (n, r)
    weights : Tensor of shape (n,)
        A weight of k counts as k copies of a point.

    Returns
    -------
    float
    """
    i, j = torch.triu_indices(len(points), len(points), 1, device=points.device)
    distances = kernel.distances(points, points)[i, j]
    positive = distances > 0
    distances = distances[positive]
    if not len(distances):
        return 1.0
    if bool((weights == weights[0]).all()):
        return float(distances.median())
    distances, order = distances.sort()
    mass = (weights[i] * weights[j])[positive][order].cumsum(0)
    return float(distances[int(torch.searchsorted(mass, mass[-1] / 2))])


def check_resolution(operator: KernelMatrix) -> None:
    """Warn if the bandwidth makes all kernel values 0, or all 1.

    Parameters
    ----------
    operator : KernelMatrix

    Warns
    -----
    NumericalWarning
    """
    kernel, points = operator.kernel, operator.X
    if not kernel.translation_invariant or len(points) < 2:
        return
    sample = points[:: max(1, len(points) // 200)]
    distinct = kernel.distances(sample, sample) > 0
    values = kernel.matrix(sample, sample)[distinct]
    resolution = torch.finfo(values.dtype).eps ** 0.5
    if not len(values):
        return
    for word, limit, flat in (
        ("small", 0, values.max() < resolution),
        ("large", 1, values.min() > 1 - resolution),
    ):
        if bool(flat):
            warnings.warn(
                f"The bandwidth is too {word} for these data: all kernel values "
                f"between distinct points are {limit} to within {resolution:.0e}. "
                "Try bandwidth='median'.",
                NumericalWarning,
                stacklevel=3,
            )

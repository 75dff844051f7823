"""The mean Jacobian of a stream: what centred sums are taken around."""

from __future__ import annotations

import torch


def weighted_mean(jacobian: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
    """The mean of a batch, output by output, in float64.

    Parameters
    ----------
    jacobian : Tensor of shape (n_samples, n_outputs, width)
    weights : Tensor of shape (n_samples,) or None

    Returns
    -------
    Tensor of shape (n_outputs, width)
    """
    if weights is None:
        return jacobian.mean(0, dtype=torch.float64)
    total = (jacobian * weights[:, None, None]).sum(0, dtype=torch.float64)
    return total / weights.sum(dtype=torch.float64)


class RunningMean:
    """A mean over parts, by the update of Chan, Golub and LeVeque (1979).

    Sums of squares of the parts, each around its own mean, lack the outer product of
    the gap between the means: :meth:`include` returns it.
    """

    def __init__(self) -> None:
        self.weight = 0.0
        self.value: torch.Tensor | None = None  # (n_outputs, width)

    def include(self, mean: torch.Tensor, weight: float) -> torch.Tensor:
        """Move to the mean of what was seen so far and of another part.

        Parameters
        ----------
        mean : Tensor of shape (n_outputs, width)
            Of the part.
        weight : float

        Returns
        -------
        Tensor of shape (n_outputs, width), or (0, width) for the first part
            The rows R whose RᵀR the two sums of squares lack.

        Raises
        ------
        ValueError
            If the part has another number of outputs.
        """
        if self.value is None:
            self.value, self.weight = mean.clone(), weight
            return mean[:0]
        if mean.shape != self.value.shape:
            raise ValueError(
                "A centred accumulator needs the same number of outputs in every "
                f"batch; got {len(mean)} after {len(self.value)}."
            )
        total = self.weight + weight
        step = mean - self.value
        rows = step * (self.weight * weight / total) ** 0.5
        self.value = self.value + step * (weight / total)
        self.weight = total
        return rows

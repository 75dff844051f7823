"""Losses of scores, and probabilities from them."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

#: (scores, targets, weights) of shapes (m, c), (m, c), (m,) to a number.
Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], float]

_LARGEST_LOG_SLOPE = math.log(1e4)


def squared_error(
    scores: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor
) -> float:
    """Weighted mean of ‖score − target‖².

    Parameters
    ----------
    scores : Tensor of shape (m, c)
    targets : Tensor of shape (m, c)
    weights : Tensor of shape (m,)

    Returns
    -------
    float
    """
    errors = (scores - targets).square().sum(1)
    return float((errors * weights).sum() / weights.sum())


def log_loss(
    scores: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor
) -> float:
    """Weighted mean log-loss of softmax(slope · score) at its best slope.

    Parameters
    ----------
    scores : Tensor of shape (m, c)
    targets : Tensor of shape (m, c)
        One-hot.
    weights : Tensor of shape (m,)

    Returns
    -------
    float
    """
    slope = fit_slope(scores, targets, weights)
    logs = torch.log_softmax(slope * scores.double(), dim=1)
    losses = -(logs * targets).sum(1)
    return float((losses * weights).sum() / weights.sum())


def fit_slope(
    scores: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor
) -> float:
    """The slope a that minimises the log-loss of softmax(a · score).

    This is temperature scaling (Guo et al., 2017) with a = 1/temperature. The loss
    is convex in a; its derivative is bisected on a logarithmic scale. One uniformly
    labelled sample is added to the data, which keeps the slope finite when the
    scores separate the classes.

    Parameters
    ----------
    scores : Tensor of shape (m, c)
        Scores of points that did not take part in their own prediction.
    targets : Tensor of shape (m, c)
        One-hot.
    weights : Tensor of shape (m,)

    Returns
    -------
    float
        Positive.
    """
    scores = scores.double()
    n_samples = float(weights[weights > 0].clamp(min=1).sum())
    smoothing = 1 / (1 + n_samples)
    smooth = (1 - smoothing) * targets + smoothing / targets.shape[1]
    wanted = (scores * smooth).sum(1)  # (m,)

    def derivative(slope: float) -> float:
        expected = (torch.softmax(slope * scores, dim=1) * scores).sum(1)
        return float(((expected - wanted) * weights).sum())

    low, high = -_LARGEST_LOG_SLOPE, _LARGEST_LOG_SLOPE
    for _ in range(50):
        middle = (low + high) / 2
        if derivative(math.exp(middle)) < 0:
            low = middle
        else:
            high = middle
    return math.exp((low + high) / 2)


def probabilities(scores: torch.Tensor, slope: float) -> torch.Tensor:
    """softmax(slope · score) in the dtype of the scores; rows sum to 1.

    Parameters
    ----------
    scores : Tensor of shape (m, c)
    slope : float

    Returns
    -------
    Tensor of shape (m, c)
    """
    return torch.softmax(slope * scores, dim=1)

"""Affine maps that are known by their answers, and the torch modules for them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from scipy.sparse import issparse
from torch import nn

from agop.core.arrays import row_blocks, to_tensor

#: Sizes of the random points on which a map must prove to be affine.
_SIZES = 10.0 ** np.arange(-3, 7)

_REMEDY = (
    "Analyse the network alone, on transformed data (for a Pipeline, network = "
    "pipeline[-1] and X = pipeline[:-1].transform(X)), or write the step in torch and "
    "put it into the network."
)

_CPU = torch.device("cpu")

#: A function of points: (m, n_inputs) to (m, n_outputs).
_Ask = Callable[[np.ndarray], np.ndarray]


class Scaling(nn.Module):
    """A fixed scale and shift of each feature: x * weight + bias.

    Parameters
    ----------
    weight, bias : Tensor of shape (n_features,)
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = nn.Parameter(bias, requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scale and shift the last dimension."""
        return x * self.weight + self.bias


def linear_layer(weight: np.ndarray, bias: np.ndarray, *, trained: bool) -> nn.Linear:
    """A linear layer with copies of these numbers, made without random ones.

    Parameters
    ----------
    weight : ndarray of shape (n_outputs, n_inputs)
    bias : ndarray of shape (n_outputs,)
    trained : bool
        Whether its parameters require gradients.

    Returns
    -------
    Linear
    """
    layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    for name, array in (("weight", weight), ("bias", bias)):
        tensor = to_tensor(array.copy(order="C"), _CPU)
        setattr(layer, name, nn.Parameter(tensor, requires_grad=trained))
    return layer


def affine_module(
    function: Callable[[Any], Any],
    n_inputs: int,
    name: str,
    columns: Iterable[str] | None = None,
) -> nn.Module:
    """The module that computes an affine function of the rows of a table.

    A x + b is read off at the origin and along the axes. It must then agree with the
    function at random points of very different sizes.

    Parameters
    ----------
    function : callable
        From an array of shape (m, n_inputs) to one of shape (m, n_outputs), such as
        the ``transform`` of a fitted scaler.
    n_inputs : int
    name : str
        What the messages call it.
    columns : iterable of str, default=None
        Names of the inputs if the function wants a DataFrame.

    Returns
    -------
    Scaling or Linear
        In float64, with parameters that require no gradient; a Scaling if each output
        depends on the input at the same place only.

    Raises
    ------
    ValueError
        If the function fails on numbers, is not affine or has constant outputs.

    Examples
    --------
    >>> from agop.networks.affine import affine_module
    >>> affine_module(lambda X: X[:, ::-1] + 1, n_inputs=2, name="The flip").weight
    Parameter containing:
    tensor([[0., 1.],
            [1., 0.]], dtype=torch.float64)
    """

    def ask(points: np.ndarray) -> np.ndarray:
        return _answers(function, points, columns)

    try:
        shift = ask(np.zeros((1, n_inputs)))[0]
        slope = _diagonal(ask, shift, n_inputs)
        if slope is None:
            slope = _matrix(ask, shift, n_inputs)
        affine = _agrees(ask, slope, shift)
    except Exception as error:  # whatever a step of somebody else's may raise
        raise ValueError(
            f"{name} cannot be tried on numbers: {error}\n{_REMEDY}"
        ) from error
    if not affine:
        raise ValueError(
            f"{name} is not affine, so it has no one derivative that could be read "
            f"off. {_REMEDY}"
        )
    if not np.atleast_2d(slope.T).any(0).all():
        raise ValueError(
            f"{name} has outputs that no number changes: it adds constants or encodes "
            f"categories, which have no derivative. {_REMEDY}"
        )
    shift = shift.astype(np.float64)
    if slope.ndim == 2:
        return linear_layer(slope, shift, trained=False)
    return Scaling(to_tensor(slope, _CPU), to_tensor(shift, _CPU))


def _answers(
    function: Callable[[Any], Any], points: np.ndarray, columns: Iterable[str] | None
) -> np.ndarray:
    """What a function makes of points, as a dense array; it may write to its copy."""
    asked: Any = points.copy() if columns is None else _frame(points.copy(), columns)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        answers = function(asked)
    dense = np.asarray(answers.toarray() if issparse(answers) else answers)
    if dense.dtype != np.float32:  # whose rounding must be allowed for
        dense = dense.astype(np.float64, copy=False)
    return dense.reshape(len(points), -1)


def _frame(points: np.ndarray, columns: Iterable[str]) -> Any:
    try:
        import pandas  # type: ignore[import-untyped]  # ships no stubs
    except ImportError:  # the names come from another kind of table
        return points
    return pandas.DataFrame(points, columns=list(columns))


def _diagonal(ask: _Ask, shift: np.ndarray, n_inputs: int) -> np.ndarray | None:
    """The scale of each feature, or None if features are mixed."""
    if len(shift) != n_inputs:
        return None
    lengths = np.ones(n_inputs)
    for _ in range(2):
        slope = (ask(lengths[None])[0] - shift) / lengths
        lengths = _lengths(abs(slope), abs(shift))
    return slope if _agrees(ask, slope, shift) else None


def _matrix(ask: _Ask, shift: np.ndarray, n_inputs: int) -> np.ndarray:
    """The matrix A, of shape (n_outputs, n_inputs)."""
    lengths = np.ones(n_inputs)
    slope = np.empty((len(shift), n_inputs))
    for _ in range(2):
        for block in row_blocks(n_inputs, n_inputs, slope.itemsize):
            points = np.zeros((block.stop - block.start, n_inputs))
            np.fill_diagonal(points[:, block], lengths[block])
            slope[:, block] = (ask(points) - shift).T / lengths[block]
        lengths = _lengths(abs(slope).max(0), abs(shift).max())
        if (lengths == 1).all():
            break
    return slope


def _lengths(slope: np.ndarray, shift: Any) -> np.ndarray:
    """How far to go along each axis so that the shift hides no digits of the slope."""
    lengths = np.ones_like(slope)
    np.divide(shift, slope, out=lengths, where=slope > 0)
    return np.maximum(lengths, 1.0)


def _agrees(ask: _Ask, slope: np.ndarray, shift: np.ndarray) -> bool:
    directions = np.random.default_rng(0).standard_normal(
        (len(_SIZES), slope.shape[-1])
    )
    points = _SIZES[:, None] * directions
    answers = ask(points)
    error = abs(answers - (_times(points, slope) + shift))
    size = _times(abs(points), abs(slope)) + abs(shift)
    tolerance = np.sqrt(np.finfo(answers.dtype).eps)
    return bool((error <= tolerance * size).all())  # not if a number is not finite


def _times(points: np.ndarray, slope: np.ndarray) -> np.ndarray:
    return points * slope if slope.ndim == 1 else points @ slope.T

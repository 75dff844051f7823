"""Jacobians of small networks by ways that share nothing with the library."""

import warnings
from contextlib import contextmanager

import numpy as np
import torch

from tests.reference import outer_product

#: Central differences of fourth order: with steps of 1e-3 the error is some 1e-12 of
#: the derivative, where there are no kinks.
WEIGHTS = {1: 8 / 12, -1: -8 / 12, 2: -1 / 12, -2: 1 / 12}


def rowwise(function, X):
    """J of shape (n, n_outputs, *shape), one row and one output at a time."""
    rows = []
    for x in X:
        jacobian = torch.autograd.functional.jacobian(
            lambda x: function(x[None].clone())[0].flatten(), x
        )
        rows.append(jacobian)
    return torch.stack(rows).numpy()


def jacrev(function, X):
    """The same by functorch."""
    derivative = torch.func.jacrev(lambda x: function(x[None])[0].flatten())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "There is a performance drop")
        return torch.func.vmap(derivative)(X).detach().numpy()


@torch.no_grad()
def numerical(function, X, size=1e-3):
    """The same by finite differences; entry by entry, all rows at once."""
    columns = []
    for entry in range(X[0].numel()):
        step = torch.zeros_like(X).flatten(1)
        step[:, entry] = size
        step = step.view_as(X)
        change = sum(
            weight * function(X + k * step).reshape(len(X), -1)
            for k, weight in WEIGHTS.items()
        )
        columns.append(change / size)
    return torch.stack(columns, -1).unflatten(-1, X.shape[1:]).numpy()


@contextmanager
def added(module, step, part="output", call=None):
    """What a module returns, or is given, is moved by a step."""
    calls = []

    def moved(values):
        calls.append(None)
        if call is not None and len(calls) - 1 != call:
            return values
        if isinstance(values, tuple):
            return (values[0] + step, *values[1:])
        return values + step

    if part == "input":
        handle = module.register_forward_pre_hook(lambda _, given: moved(given))
    else:
        handle = module.register_forward_hook(lambda _, given, out: moved(out))
    try:
        yield
    finally:
        handle.remove()


def numerical_at(network, X, module, shape, part="output", call=None, size=1e-3):
    """J at a layer, whose activation for one sample has this shape."""

    def function(step):
        with added(module, step, part, call):
            return network(X.clone())

    return numerical(function, torch.zeros(len(X), *shape, dtype=torch.float64), size)


def cut(jacobian, positions="flatten"):
    """One gradient for each position: (n * n_positions, n_outputs, n_features)."""
    jacobian = np.asarray(jacobian)
    n, n_outputs = jacobian.shape[:2]
    if positions == "tokens":  # (n, c, T, *features)
        jacobian = jacobian.reshape(*jacobian.shape[:3], -1).swapaxes(1, 2)
    elif positions == "pixels":  # (n, c, channels, *positions)
        jacobian = jacobian.reshape(*jacobian.shape[:3], -1).transpose(0, 3, 1, 2)
    elif positions == "features last":
        last = jacobian.shape[-1]
        jacobian = jacobian.reshape(n, n_outputs, -1, last).swapaxes(1, 2)
    else:
        jacobian = jacobian.reshape(n, 1, n_outputs, -1)
    return jacobian.reshape(-1, *jacobian.shape[2:])


def average(jacobian, positions="flatten", weights=None, center=False):
    """G = 1/n Σ JᵀJ by loops."""
    return outer_product(cut(jacobian, positions), weights, center)


def assert_same(found, expected, tolerance=1e-9):
    """Up to a share of the largest entry."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()

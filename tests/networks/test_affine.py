"""Affine maps found by asking: what is read off, and what is refused."""

import sys
import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from torch import nn

from agop.networks.affine import Scaling, affine_module, linear_layer


def applied(module, X):
    return module(torch.from_numpy(X)).numpy()


def test_dense(global_random_seed):
    rng = np.random.default_rng(global_random_seed)
    A, b, X = rng.normal(size=(3, 5)), rng.normal(size=3), rng.normal(size=(9, 5))
    module = affine_module(lambda X: X @ A.T + b, 5, "It")
    np.testing.assert_allclose(module.weight, A, atol=1e-14)
    np.testing.assert_allclose(module.bias, b, atol=1e-14)
    np.testing.assert_allclose(applied(module, X), X @ A.T + b, atol=1e-13)
    assert isinstance(module, nn.Linear)
    assert not any(parameter.requires_grad for parameter in module.parameters())


def test_scaling_stays_a_vector():
    scale, shift = np.array([2.0, -3.0, 1e-7]), np.array([0.0, 5.0, 1.0])
    module = affine_module(lambda X: X * scale + shift, 3, "It")
    assert isinstance(module, Scaling)
    np.testing.assert_allclose(module.weight, scale, rtol=1e-12)
    np.testing.assert_array_equal(module.bias, shift)


def test_square_but_not_diagonal():
    order = np.array([0, 2, 1])
    module = affine_module(lambda X: X[:, order], 3, "It")
    np.testing.assert_array_equal(module.weight, np.eye(3)[order])


def test_blocks_of_probes(monkeypatch):
    A = np.random.default_rng(0).normal(size=(4, 11))
    monkeypatch.setattr("agop.core.arrays.BLOCK_BYTES", 3 * 11 * 8)
    module = affine_module(lambda X: X @ A.T, 11, "It")
    np.testing.assert_allclose(module.weight, A, atol=1e-14)


@pytest.mark.parametrize("mixing", [np.eye(3), np.eye(3)[[1, 2, 0]]])
def test_a_large_offset_hides_no_digits(mixing):
    # Read off at 0 and 1, about eight digits would be lost.
    mean, scale = np.array([1e8 / 3, -1e8 / 7, 0.0]), np.array([0.03, 0.007, 1.0])
    module = affine_module(lambda X: (X - mean) / scale @ mixing.T, 3, "It")
    weight = module.weight.numpy()
    weight = weight if weight.ndim == 2 else np.diag(weight)
    np.testing.assert_allclose(weight, mixing / scale, rtol=1e-12, atol=0)


def test_the_function_may_write_to_its_input():
    def in_place(X):
        X -= 3.0
        X *= 2.0
        return X

    module = affine_module(in_place, 2, "It")
    np.testing.assert_array_equal(module.weight, [2.0, 2.0])
    np.testing.assert_array_equal(module.bias, [-6.0, -6.0])


@pytest.mark.parametrize(
    "kind",
    [
        scipy.sparse.csr_matrix,
        scipy.sparse.csr_array,
        pd.DataFrame,
        torch.from_numpy,
        np.ndarray.tolist,
    ],
)
def test_kinds_of_answers(kind):
    module = affine_module(lambda X: kind(2 * X[:, :2]), 3, "It")
    np.testing.assert_array_equal(module.weight, 2 * np.eye(3)[:2])


def test_warnings_of_the_function_are_kept_back():
    def warns(X):
        warnings.warn("X does not have valid feature names", stacklevel=1)
        return 2 * X

    affine_module(warns, 2, "It")


def test_vectors_are_columns():
    module = affine_module(lambda X: X.sum(1), 3, "It")
    np.testing.assert_array_equal(module.weight, np.ones((1, 3)))


def test_float32_answers_round():
    module = affine_module(lambda X: (X / 3).astype(np.float32), 2, "It")
    np.testing.assert_allclose(module.weight, 1 / 3, rtol=1e-6)
    assert module.weight.dtype == module.bias.dtype == torch.float64


def test_names_of_columns():
    def by_name(table):
        return table[["b", "a"]]

    module = affine_module(by_name, 2, "It", columns=["a", "b"])
    np.testing.assert_array_equal(module.weight, [[0, 1], [1, 0]])


def test_without_pandas_names_are_left_out(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    module = affine_module(lambda X: X[:, ::-1], 2, "It", columns=["a", "b"])
    np.testing.assert_array_equal(module.weight, [[0, 1], [1, 0]])


BENT = {
    "square": np.square,
    "absolute value": np.abs,
    "logarithm": np.log,
    "rounding": np.round,
    "clipping, far out": lambda X: np.clip(X, -1e4, 1e4),
    "threshold": lambda X: (X > 100).astype(float) + X,
    "small bend": lambda X: X + 1e-4 * np.sin(X),
    "normalisation": lambda X: X / np.linalg.norm(X, axis=1, keepdims=True),
    "centring of the rows asked": lambda X: X - X.mean(0),
    "product": lambda X: X * X[:, ::-1],
    "random": lambda X: X + np.random.default_rng().normal(size=X.shape),
    "float32 with a bend": lambda X: (X + np.abs(X) / 50).astype(np.float32),
    "integers": lambda X: X.astype(int),
}


@pytest.mark.parametrize("name", BENT)
def test_not_affine(name):
    with pytest.raises(ValueError, match=r"It (is not affine|cannot be tried)") as e:
        affine_module(BENT[name], 2, "It")
    assert "Analyse the network alone, on transformed data" in str(e.value)


def test_constant_outputs_are_refused():
    # What an encoder of categories makes of numbers it has never seen.
    with pytest.raises(ValueError, match="It has outputs that no number changes"):
        affine_module(np.zeros_like, 2, "It")
    with pytest.raises(ValueError, match="It has outputs that no number changes"):
        affine_module(lambda X: np.c_[X, np.ones(len(X))], 2, "It")


def test_failures_are_told():
    def fails(X):
        raise KeyError("no category 0.0")

    with pytest.raises(ValueError, match=r"It cannot be tried on numbers: .*no cat"):
        affine_module(fails, 2, "It")


def test_linear_layer_copies():
    weight, bias = np.ones((2, 3), dtype=np.float32), np.zeros(2, dtype=np.float32)
    for array in (weight, bias):
        array.flags.writeable = False
    layer = linear_layer(weight, bias, trained=True)
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.fill_(1)
    assert weight.all()
    assert not bias.any()
    assert all(p.requires_grad and p.dtype == torch.float32 for p in layer.parameters())

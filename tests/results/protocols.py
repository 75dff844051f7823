"""Protocols of published results, shared by the tests here and by benchmarks.

``rounds`` runs the recursion of the library with the settings of a paper; the rest
reads data and splits them as the paper, or our honest version of it, says. No result
is stated here.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from sklearn.model_selection import StratifiedKFold, train_test_split
from sklearn.preprocessing import StandardScaler

from agop.kernels import DiagonalMetric, FullMetric, Gaussian, Laplace
from agop.rfm.recursion import Problem, Recipe, recurse

KERNELS = {"laplace": Laplace(), "gaussian": Gaussian()}
METRICS = {"full": FullMetric, "diagonal": DiagonalMetric}


def rounds(
    X,
    Y,
    alpha,
    n_iter,
    *,
    kernel="laplace",
    metric="full",
    bandwidth=10.0,
    leave_one_out=False,
    **recipe,
):
    """Rounds 0 … n_iter of the recursion with fixed settings and no intercept."""
    X, Y = torch.from_numpy(X), torch.from_numpy(Y.reshape(len(X), -1))
    problem = Problem(X, Y, torch.ones_like(X[:, 0]))
    settings = Recipe(
        KERNELS.get(kernel, kernel),
        METRICS[metric],
        bandwidth,
        fit_intercept=False,
        **recipe,
    )
    alphas = [alpha] * (n_iter + 1)
    yield from recurse(problem, settings, alphas, leave_one_out=leave_one_out)


def predict(current, X):
    """Outputs of the machine of a round, shape (n_samples, n_outputs)."""
    return current.machine.predict(torch.from_numpy(X)).numpy()


def read_table(path):
    """Features and target of one of the shared tabular sets."""
    frame = pd.read_csv(path, sep="\t")
    target = frame.pop("target").to_numpy()
    return frame.to_numpy(dtype=np.float64), target


def unit_rows(X):
    """Every row divided by its Euclidean norm."""
    return X / np.linalg.norm(X, axis=1, keepdims=True)


# --------------------------------------------------- R4: the suite of 121 UCI sets
UCI_PENALTIES = (10.0, 1.0, 0.1, 0.01, 0.001)
UCI_ROUNDS = 4


@dataclass(frozen=True)
class Fold:
    """Standardised rows of one of the four folds, labels as 0 … c − 1."""

    X_train: np.ndarray
    y_train: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray
    n_classes: int

    def one_hot(self, rows):
        """Labels of training rows in {0, 1}."""
        return np.eye(self.n_classes)[self.y_train[rows]]


def uci_folds(X, y):
    """Four stratified folds; the scaler has seen the training rows only."""
    classes, y = np.unique(y, return_inverse=True)
    splitter = StratifiedKFold(4, shuffle=True, random_state=0)
    for train, test in splitter.split(X, y):
        scaler = StandardScaler().fit(X[train])
        yield Fold(
            scaler.transform(X[train]),
            y[train],
            scaler.transform(X[test]),
            y[test],
            len(classes),
        )


def uci_accuracy(fold, n_rounds):
    """Accuracy on the test rows, everything chosen and learned on the others.

    One split of the training rows chooses the penalty and the round in 0 … n_rounds;
    metric and coefficients are then learned anew on all training rows.
    """
    fit, tune = _tuning_split(fold.y_train)
    table = np.array(
        [
            [
                _accuracy(current, fold.X_train[tune], fold.y_train[tune])
                for current in _uci_rounds(fold, fit, alpha, n_rounds)
            ]
            for alpha in UCI_PENALTIES
        ]
    )
    penalty, n_iter = np.unravel_index(table.argmax(), table.shape)
    everything = np.arange(len(fold.y_train))
    *_, last = _uci_rounds(fold, everything, UCI_PENALTIES[penalty], n_iter)
    return _accuracy(last, fold.X_test, fold.y_test)


def _uci_rounds(fold, rows, alpha, n_iter):
    return rounds(fold.X_train[rows], fold.one_hot(rows), alpha, int(n_iter))


def _tuning_split(y):
    stratify = y if np.bincount(y).min() > 1 else None
    return train_test_split(
        np.arange(len(y)), test_size=0.33, random_state=0, stratify=stratify
    )


def _accuracy(current, X, y):
    return (predict(current, X).argmax(1) == y).mean()


# -------------------------------------------------------- R7: regression per round
REGRESSION_PENALTIES = (1e-3, 1e-2, 1e-1)


def regression_split(X, y):
    """Standardised training and test rows, and their targets."""
    order = np.random.default_rng(0).permutation(len(X))
    n = min(2000, int(0.75 * len(X)))
    train, test = order[:n], order[n : n + 2000]
    inputs = StandardScaler().fit(X[train])
    mean, scale = y[train].mean(), y[train].std()
    return (
        inputs.transform(X[train]),
        (y[train] - mean) / scale,
        inputs.transform(X[test]),
        (y[test] - mean) / scale,
    )


# -------------------------------------------------- R8: images, powers of the AGOP
def fashion_rows(path):
    """First 3,000 training and 4,000 test images as rows of unit norm, and labels."""
    with np.load(path) as images:
        X, y = images["X_train"][:3000], images["y_train"][:3000]
        X_test, y_test = images["X_test"][:4000], images["y_test"][:4000]
    flat = (unit_rows(part.reshape(len(part), -1) / 255) for part in (X, X_test))
    return (*flat, y, y_test)


def image_accuracies(rows, power, bandwidth):
    """Test accuracy after rounds 0 … 3, penalty 1e-3, metric scaled by its trace."""
    X, X_test, y, y_test = rows
    return [
        _accuracy(current, X_test, y_test)
        for current in rounds(
            X, np.eye(10)[y], 1e-3, 3, power=power, bandwidth=bandwidth
        )
    ]

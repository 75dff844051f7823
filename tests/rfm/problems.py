"""Small problems and cheap settings shared by the tests of the two estimators."""

import numpy as np

from agop import RFMClassifier, RFMRegressor

#: Nothing is left to choose: one round of the plainest recursion.
CHEAP = {
    "kernel": "laplace",
    "metric": "full",
    "n_iter": 1,
    "bandwidth": "median",
    "alpha": 1e-2,
}


def regressor(**parameters):
    return RFMRegressor(**{**CHEAP, **parameters})


def classifier(**parameters):
    return RFMClassifier(**{**CHEAP, **parameters})


def points(n=60, d=5, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d))


def regression(n=60, d=5, seed=0):
    """Two of the features matter: y = x₀ + x₁²."""
    X = points(n, d, seed)
    return X, X[:, 0] + X[:, 1] ** 2


def classification(n=60, d=5, seed=0, n_classes=2):
    """Classes of equal size along x₀ + x₁ (if d > 1)."""
    X = points(n, d, seed)
    rank = np.argsort(np.argsort(X[:, :2].sum(1)))
    return X, rank * n_classes // n


def finite(model, X):
    """Predictions, importances and components of a fitted model are finite."""
    arrays = [model.predict(X), model.transform(X), model.jacobian(X)]
    arrays += [model.feature_importances_, model.components_, model.agop_]
    return all(np.isfinite(array).all() for array in arrays)

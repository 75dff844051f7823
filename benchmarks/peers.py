"""The models `agop` is compared with, each with ``fit(X, y)`` and ``predict(X)``."""

import numpy as np
import torch
from scipy.linalg import cho_factor, cho_solve
from scipy.spatial.distance import pdist
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.preprocessing import LabelBinarizer
from sklearn.svm import SVC, SVR
from tables import holdout
from xrfm import xRFM


class _XRFM(BaseEstimator):
    """xRFM with a fifth of the rows held out, as its `fit` demands.

    Parameters
    ----------
    model : dict, default=None
        Options of the leaf model's constructor; None keeps every default of xRFM.
    reg : float, default=1e-3
        Penalty, used where `model` is given.
    classification_mode : {"zero_one", "prevalence"}, default="zero_one"
    """

    holds_out_rows = True

    def __init__(self, model=None, reg=1e-3, classification_mode="zero_one"):
        self.model = model
        self.reg = reg
        self.classification_mode = classification_mode

    def _options(self):
        if self.model is None:
            return None
        fit = {
            "get_agop_best_model": False,
            "return_best_params": True,
            "reg": self.reg,
            "iters": 5,
            "early_stop_rfm": True,
        }
        return {"model": dict(self.model), "fit": fit}

    def fit(self, X, y):
        """Fit on four fifths of the rows, choose the round on the last fifth."""
        self.classes_, codes = np.unique(y, return_inverse=True)
        target = self._target(y, codes)
        train, valid = (torch.from_numpy(rows) for rows in self._split(y))
        X = _tensor(X)
        self.model_ = xRFM(
            rfm_params=self._options(),
            device="cpu",
            classification_mode=self.classification_mode,
            verbose=False,
        )
        self.model_.fit(X[train], target[train], X[valid], target[valid])
        return self


class XRFMClassifier(ClassifierMixin, _XRFM):
    """xRFM on integer labels."""

    def _target(self, y, codes):
        return torch.from_numpy(codes)

    def _split(self, y):
        return holdout(y, "classification", 0.2)

    def predict(self, X):
        """Label rows with the class of the largest probability."""
        return self.classes_[self.model_.predict(_tensor(X))]

    def predict_proba(self, X):
        """Give xRFM's own probabilities, which it keeps within [1e-3, 1 - 1e-3]."""
        return self.model_.predict_proba(_tensor(X))


class XRFMRegressor(RegressorMixin, _XRFM):
    """xRFM on a real target."""

    def _target(self, y, codes):
        return _tensor(y)

    def _split(self, y):
        return holdout(y, "regression", 0.2)

    def predict(self, X):
        """Predict a vector of shape (n,)."""
        return self.model_.predict(_tensor(X)).ravel()


def _tensor(array):
    return torch.as_tensor(np.asarray(array), dtype=torch.float32)


class LaplaceRidgeRegressor(RegressorMixin, BaseEstimator):
    """Kernel ridge regression with k(x, z) = exp(-|x - z| / bandwidth).

    The bandwidth is `bandwidth_factor` times the median distance of at most 1,000
    training rows. The system is solved in place, so that memory is n^2 numbers. The
    default penalty was the best of 1, 0.1, 0.01, 0.001 on the development sets.
    """

    def __init__(self, alpha=0.1, bandwidth_factor=1.0):
        self.alpha = alpha
        self.bandwidth_factor = bandwidth_factor

    def fit(self, X, y):
        """Solve (K + alpha I) C = y."""
        self.X_ = np.asarray(X)
        self.bandwidth_ = self.bandwidth_factor * _median_distance(self.X_)
        system = self._kernel(self.X_)
        system.flat[:: len(system) + 1] = 1 + self.alpha
        factor = cho_factor(system.T, lower=True, overwrite_a=True, check_finite=False)
        self.coefficients_ = cho_solve(factor, y, check_finite=False)
        return self

    def _kernel(self, X):
        kernel = euclidean_distances(X, self.X_)
        kernel /= -self.bandwidth_
        return np.exp(kernel, out=kernel)

    def predict(self, X):
        """Sum the kernels at the training rows."""
        return self._kernel(np.asarray(X)) @ self.coefficients_


class LaplaceRidgeClassifier(ClassifierMixin, BaseEstimator):
    """Kernel ridge regression on one column per class; the largest column wins."""

    def __init__(self, alpha=0.1, bandwidth_factor=1.0):
        self.alpha = alpha
        self.bandwidth_factor = bandwidth_factor

    def fit(self, X, y):
        """Fit the columns of the classes together."""
        self.binarizer_ = LabelBinarizer(neg_label=-1).fit(y)
        self.classes_ = self.binarizer_.classes_
        self.regressor_ = LaplaceRidgeRegressor(self.alpha, self.bandwidth_factor)
        self.regressor_.fit(X, self.binarizer_.transform(y).astype(np.float64))
        return self

    def predict(self, X):
        """Label rows with the class of the largest column."""
        return self.binarizer_.inverse_transform(self.regressor_.predict(X), 0.0)


def _median_distance(X):
    rng = np.random.default_rng(0)
    rows = rng.permutation(len(X))[:1000]
    distances = pdist(X[rows])
    return np.median(distances[distances > 0])


DEFAULTS = {
    "classification": {
        "xrfm": XRFMClassifier(),
        "kernel-ridge": LaplaceRidgeClassifier(),
        "random-forest": RandomForestClassifier(random_state=0),
        "boosting": HistGradientBoostingClassifier(random_state=0),
        "svm": SVC(),
    },
    "regression": {
        "xrfm": XRFMRegressor(),
        "kernel-ridge": LaplaceRidgeRegressor(),
        "random-forest": RandomForestRegressor(random_state=0),
        "boosting": HistGradientBoostingRegressor(random_state=0),
        "svm": SVR(),
    },
}

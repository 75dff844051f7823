"""Directions to compare with: difference of means, principal component, logistic."""

from __future__ import annotations

import numpy as np
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold

from agop.concepts.base import Direction, mean_difference
from agop.core.arrays import check_number

#: Inverse penalties that "auto" chooses from, in so many folds.
_INVERSE_PENALTIES = np.logspace(-4, 2, 7)
_N_FOLDS = 3

#: Standard deviations, of log-odds or relative to the activations, that count as 0.
_NEGLIGIBLE = 1e-10
_NO_DIFFERENCE = (
    "The activations do not differ between the two labels: there is no direction from "
    "one to the other. Look at another layer, or at more activations."
)


class LinearDirection(Direction):
    """What the directions share whose evidence is linear in the projection.

    The log-odds of the concept are ``slope_`` · projection + ``intercept_``.
    """

    def _evidence(self, X):
        return self.slope_ * self._project(X) + self.intercept_

    def _probability(self, X):
        return expit(self._evidence(X))


class MeanDifferenceDirection(LinearDirection):
    """The difference between the mean activations with and without a concept.

    Evidence is a logistic regression on the projection alone.

    Attributes
    ----------
    direction_ : ndarray of shape (n_features,)
        Of unit norm; along it the concept becomes more likely.
    slope_ : float
        Log-odds of the concept per unit of projection.
    intercept_ : float
        Log-odds at projection 0.
    classes_ : ndarray of shape (2,)
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features,)

    See Also
    --------
    ConceptDirection : The direction that a Recursive Feature Machine finds.

    Examples
    --------
    >>> from agop import MeanDifferenceDirection
    >>> X = [[0, 1], [0, 3], [3, 5], [3, 7]]
    >>> MeanDifferenceDirection().fit(X, [0, 0, 1, 1]).direction_
    array([0.6, 0.8])
    """

    def _find(self, X, present):
        X = X.astype(np.float64)
        return _across(mean_difference(X, present), X, present)


class PCADirection(LinearDirection):
    """The principal component of differences between activations with and without.

    It is the leading eigenvector of the mean outer product of x − z over all pairs of
    an activation x with the concept and an activation z without it; in terms of the
    means and covariances of the two, of C₁ + C₀ + (m₁ − m₀)(m₁ − m₀)ᵀ. Its sign is
    that of the correlation with the labels. Evidence is a logistic regression on the
    projection alone.

    Attributes
    ----------
    direction_ : ndarray of shape (n_features,)
        Of unit norm; along it the concept becomes more likely.
    slope_ : float
        Log-odds of the concept per unit of projection.
    intercept_ : float
        Log-odds at projection 0.
    classes_ : ndarray of shape (2,)
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features,)

    See Also
    --------
    ConceptDirection : The direction that a Recursive Feature Machine finds.

    References
    ----------
    A. Zou et al., "Representation engineering: a top-down approach to AI
    transparency", :arxiv:`2310.01405`, where pairs are given.

    Examples
    --------
    >>> from agop import PCADirection
    >>> X = [[0, 1], [0, 3], [1, 1], [1, 3]]
    >>> PCADirection().fit(X, [0, 1, 0, 1]).direction_.round(3)
    array([0., 1.])
    """

    def _find(self, X, present):
        X = X.astype(np.float64)
        parts = [part - part.mean(0) for part in (X[present], X[~present])]
        parts = [part / len(part) ** 0.5 for part in parts]
        parts.append(mean_difference(X, present)[None])
        _, _, directions = np.linalg.svd(np.concatenate(parts), full_matrices=False)
        return _across(directions[0], X, present)


class LogisticDirection(LinearDirection):
    """The weights of a logistic regression.

    Parameters
    ----------
    C : float or "auto", default="auto"
        Inverse of the penalty on the squared weights, for activations that are divided
        by the root of their mean variance. "auto" chooses between 1e-4 and 100, by
        log-loss in three folds.

    Attributes
    ----------
    direction_ : ndarray of shape (n_features,)
        Of unit norm; along it the concept becomes more likely.
    slope_ : float
        Log-odds of the concept per unit of projection.
    intercept_ : float
        Log-odds at projection 0.
    C_ : float
        The inverse penalty that was used.
    classes_ : ndarray of shape (2,)
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features,)

    See Also
    --------
    ConceptDirection : The direction that a Recursive Feature Machine finds.

    Examples
    --------
    >>> import numpy as np
    >>> from agop import LogisticDirection
    >>> X = np.random.RandomState(0).normal(size=(200, 3))
    >>> concept = LogisticDirection().fit(X, X[:, 0] - X[:, 1] > 0)
    >>> concept.direction_[:2].round(1)
    array([ 0.7, -0.7])
    """

    def __init__(self, C="auto"):
        self.C = C

    def _find(self, X, present):
        open_choice = isinstance(self.C, str) and self.C == "auto"
        if not open_choice:
            check_number("C", self.C, owner=type(self).__name__, low=0, open_low=True)
        X = X.astype(np.float64)
        center = X.mean(0)
        # The penalty keeps the weights in the span of the rows, of rank r ≤ n, d.
        left, singular, basis = np.linalg.svd(X - center, full_matrices=False)
        scale = np.sqrt((singular**2).sum() / X.size)
        if scale <= _NEGLIGIBLE * np.abs(center).max():
            raise ValueError(_NO_DIFFERENCE)
        rows = left * (singular / scale)  # (n, r)
        C = _choose_penalty(rows, present) if open_choice else float(self.C)
        model = _logistic_regression(C).fit(rows, present)
        normal = model.coef_[0] @ basis / scale
        offset = model.intercept_[0] - normal @ center
        return {**_line(normal, offset, X), "C_": C}


def _across(
    direction: np.ndarray, X: np.ndarray, present: np.ndarray
) -> dict[str, np.ndarray | float]:
    """Fitted attributes of a plane across a direction, by logistic regression.

    The slope has the sign of the correlation with the labels, and so turns the
    direction if need be.
    """
    projection = X @ direction
    center, scale = projection.mean(), projection.std()
    if scale <= _NEGLIGIBLE * np.abs(projection).max():
        raise ValueError(_NO_DIFFERENCE)
    rows = (projection[:, None] - center) / scale
    model = _logistic_regression(1.0).fit(rows, present)
    slope = model.coef_[0, 0] / scale
    return _line(slope * direction, model.intercept_[0] - slope * center, X)


def _line(
    normal: np.ndarray, offset: float, X: np.ndarray
) -> dict[str, np.ndarray | float]:
    """Fitted attributes of evidence X @ normal + offset."""
    if (X @ normal).std() <= _NEGLIGIBLE:
        raise ValueError(_NO_DIFFERENCE)
    slope = float(np.linalg.norm(normal))
    return {
        "direction_": normal / slope,
        "slope_": slope,
        "intercept_": float(offset),
    }


def _logistic_regression(C: float) -> LogisticRegression:
    return LogisticRegression(C=C, solver="newton-cholesky")


def _choose_penalty(rows: np.ndarray, present: np.ndarray) -> float:
    """The inverse penalty of least log-loss in folds; 1 if there are too few rows."""
    n_folds = min(_N_FOLDS, int(present.sum()), int((~present).sum()))
    if n_folds < 2:
        return 1.0
    search = GridSearchCV(
        _logistic_regression(1.0),
        {"C": _INVERSE_PENALTIES},
        scoring="neg_log_loss",
        cv=StratifiedKFold(n_folds),
        refit=False,
    )
    return float(search.fit(rows, present).best_params_["C"])

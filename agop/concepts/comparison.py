"""How well concept directions do on data that they have not seen."""

from __future__ import annotations

import numbers
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from sklearn.utils import column_or_1d

from agop.concepts.base import Direction, two_classes
from agop.concepts.baselines import (
    LogisticDirection,
    MeanDifferenceDirection,
    PCADirection,
)
from agop.concepts.direction import ConceptDirection
from agop.core.arrays import as_host_array


def concept_auroc(activations, y, groups=None, *, estimators=None, cv=5):
    """How well concept directions tell a concept in held-out data, layer by layer.

    Parameters
    ----------
    activations : mapping from str to array-like of shape (n_samples, n_features)
        By layer.
    y : array-like of shape (n_samples,)
        Two labels, as for :class:`ConceptDirection`.
    groups : array-like of shape (n_samples,), default=None
        What each row comes from, such as a text or a person: no group is among
        training and test rows at once. A probe that recognises the source of a row
        looks better than it is.
    estimators : mapping from str to estimator, default=None
        What to compare, by any name; by default "rfm", "logistic", "mean difference"
        and "pca", each with its default parameters.
    cv : int or splitter, default=5
        Number of folds, with labels in proportion.

    Returns
    -------
    list of dict
        One for each layer, fold and estimator, with these names: "layer", "fold",
        "estimator", "n_test", "auroc" of the probe, and "direction_auroc" of the
        projection on the direction alone.

    Raises
    ------
    TypeError
        If `activations` is no mapping.
    ValueError
        If the test rows of a fold have one label only.

    Examples
    --------
    >>> import numpy as np
    >>> from agop import LogisticDirection, concept_auroc
    >>> X = np.random.RandomState(0).normal(size=(200, 2))
    >>> estimators = {"logistic": LogisticDirection()}
    >>> layers = {"early": X, "late": X[:, 1:]}
    >>> for record in concept_auroc(layers, X[:, 0] > 0, estimators=estimators, cv=2):
    ...     record["layer"], record["fold"], round(record["auroc"], 1)
    ('early', 0, 1.0)
    ('early', 1, 1.0)
    ('late', 0, 0.5)
    ('late', 1, 0.5)
    """
    y = column_or_1d(as_host_array(y, "y"))
    present = two_classes(y)[1] == 1
    estimators = _all_directions() if estimators is None else estimators
    folds = list(_folds(present, groups, cv))
    return [
        {
            "layer": layer,
            "fold": fold,
            "estimator": name,
            "n_test": len(test),
            **_auroc(clone(estimator).fit(X[train], y[train]), X[test], present[test]),
        }
        for layer, X in _arrays(activations)
        for fold, (train, test) in enumerate(folds)
        for name, estimator in estimators.items()
    ]


def _auroc(fitted: Direction, X: np.ndarray, present: np.ndarray) -> dict[str, float]:
    return {
        "auroc": float(roc_auc_score(present, fitted.decision_function(X))),
        "direction_auroc": float(roc_auc_score(present, fitted.transform(X)[:, 0])),
    }


def _arrays(activations: Mapping[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
    if not isinstance(activations, Mapping):
        raise TypeError(
            "activations must be a mapping from the names of layers to arrays, such as "
            f"{{'layer': X}}; got {type(activations).__name__}."
        )
    for layer, X in activations.items():
        yield layer, np.asarray(as_host_array(X))


def _all_directions() -> dict[str, Direction]:
    return {
        "rfm": ConceptDirection(),
        "logistic": LogisticDirection(),
        "mean difference": MeanDifferenceDirection(),
        "pca": PCADirection(),
    }


def _folds(
    present: np.ndarray, groups: Any, cv: Any
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Training and test rows of every fold."""
    if isinstance(cv, numbers.Integral):
        cv = StratifiedKFold(cv) if groups is None else StratifiedGroupKFold(cv)
    for fold, (train, test) in enumerate(cv.split(present, present, groups)):
        if len(np.unique(present[test])) < 2:
            raise ValueError(
                f"All test rows of fold {fold} have the same label: there is nothing "
                "to tell apart. Use fewer folds, or rows from more groups."
            )
        yield train, test

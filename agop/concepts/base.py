"""What all concept directions share: checks of the data, labels, projections."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from sklearn.base import (
    BaseEstimator,
    ClassifierMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
)
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_is_fitted, validate_data

from agop.core.arrays import as_host_array, follow_input, refuse_strings

_DTYPES = [np.float64, np.float32]


class Direction(
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    ClassifierMixin,
    BaseEstimator,
    ABC,
):
    """What all concept directions share.

    Subclasses say how a direction is found (``_find``), how strongly an activation
    speaks for the concept (``_evidence``), and how likely that makes it
    (``_probability``).
    """

    @abstractmethod
    def _find(self, X: np.ndarray, present: np.ndarray) -> dict[str, Any]:
        """Fitted attributes, ``direction_`` among them, from labels False and True."""

    @abstractmethod
    def _evidence(self, X: np.ndarray) -> np.ndarray:
        """Positive where the concept is more likely there than not, shape (n,)."""

    @abstractmethod
    def _probability(self, X: np.ndarray) -> np.ndarray:
        """Probability that the concept is there, shape (n,)."""

    def fit(self, X, y):
        """Find the direction.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Activations of a layer.
        y : array-like of shape (n_samples,)
            Two labels, of any type; the second in sorted order, such as 1, True or
            "yes", says that the concept is there.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If there are not two labels, or nothing in the activations depends on them.
        """
        if y is None:
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is "
                "None."
            )
        X = as_host_array(X)
        refuse_strings(X)
        X, y = validate_data(self, X, as_host_array(y, "y"), dtype=_DTYPES)
        classes, codes = two_classes(y)
        vars(self).update(self._find(X, codes == 1))
        self.classes_ = classes
        return self

    def decision_function(self, X):
        """Evidence for the concept: positive where it is more likely there than not.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,)
        """
        return follow_input(self._evidence(self._check(X)), X)

    def predict_proba(self, X):
        """Probabilities that the concept is not there, and that it is.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, 2)
            In the order of ``classes_``.
        """
        probability = self._probability(self._check(X))
        return follow_input(np.column_stack([1 - probability, probability]), X)

    def predict(self, X):
        """The more likely label.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,)
            Of the type of y in fit.
        """
        present = self._evidence(self._check(X)) > 0
        return self.classes_[present.astype(int)]

    def transform(self, X):
        """Project on the direction: X @ direction_.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, 1)
        """
        return follow_input(self._project(self._check(X))[:, None], X)

    def _project(self, X: np.ndarray) -> np.ndarray:
        return X @ self.direction_.astype(X.dtype)

    def _check(self, X) -> np.ndarray:
        check_is_fitted(self, "direction_")
        X = as_host_array(X)
        refuse_strings(X)
        return validate_data(self, X, dtype=_DTYPES, reset=False)

    @property
    def _n_features_out(self) -> int:
        return 1

    def __sklearn_tags__(self):
        """Two labels only."""
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.classifier_tags.multi_class = False
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def two_classes(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The two labels, sorted, and which of them each row has."""
    check_classification_targets(y)
    classes, codes = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(
            "The number of classes has to be greater than one; got 1 class: "
            f"{classes.tolist()[0]!r}. Give activations with and without the concept."
        )
    if len(classes) > 2:
        raise ValueError(
            "Only binary classification is supported. The type of the target is "
            f"{type_of_target(y)}. Fit one direction for each concept."
        )
    return classes, codes


def mean_difference(X: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Mean with the concept minus mean without; along it labels correlate."""
    return X[present].mean(0) - X[~present].mean(0)

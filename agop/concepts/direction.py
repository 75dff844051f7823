"""The direction that a Recursive Feature Machine finds for a concept."""

from __future__ import annotations

import numpy as np
from sklearn.base import clone

from agop.concepts.base import Direction, mean_difference
from agop.core.arrays import InvalidParameterError
from agop.rfm.estimators import RFMClassifier


class ConceptDirection(Direction):
    """The direction along which a Recursive Feature Machine sees a concept change.

    A kernel machine f learns to tell activations with the concept from those without.
    Its average gradient outer product G = 1/n Σ ∇f(xᵢ) ∇f(xᵢ)ᵀ says along which
    directions of the layer its answer changes. The direction of the concept is the
    leading eigenvector of G, with the sign of its correlation with the labels.

    As a probe it answers with the machine itself, which need not be linear; what the
    direction knows alone is :meth:`transform`.

    Parameters
    ----------
    estimator : RFMClassifier, default=None
        The machine, of which a clone is fitted; by default one with a Laplace kernel
        and a full metric, which chooses bandwidth, penalty and rounds by
        cross-fitting.

    Attributes
    ----------
    direction_ : ndarray of shape (n_features,)
        Of unit norm; along it the concept becomes more likely.
    eigenvalues_ : ndarray of shape (n_components,)
        Leading eigenvalues of the AGOP, in squared units of score per activation.
    explained_ratio_ : ndarray of shape (n_components,)
        Eigenvalues over the trace of the AGOP: the first is near 1 if one direction
        is all that the machine sees.
    estimator_ : RFMClassifier
        The fitted machine; further directions are its ``components_``.
    classes_ : ndarray of shape (2,)
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features,)

    See Also
    --------
    MeanDifferenceDirection : The difference of the two means.
    LogisticDirection : The weights of a logistic regression.
    PCADirection : The principal component of differences.

    Notes
    -----
    The paper tries bandwidths 1, 10 and 100 with a penalty of 1e-3 and at most 10
    rounds, and monitors with a linear model on several eigenvectors. Here the settings
    are chosen in units of the data, and the machine itself is the monitor: the
    projection on the direction alone may tell a concept less well than a logistic
    regression does.

    References
    ----------
    D. Beaglehole, A. Radhakrishnan, E. Boix-Adserà and M. Belkin, "Toward universal
    steering and monitoring of AI models", :arxiv:`2502.03708`.

    Examples
    --------
    >>> import numpy as np
    >>> from agop import ConceptDirection
    >>> X = np.random.RandomState(0).normal(size=(200, 6))
    >>> concept = ConceptDirection().fit(X, X[:, 0] - X[:, 1] > 0)
    >>> concept.direction_[:2].round(1)
    array([ 0.7, -0.7])
    >>> round(float(concept.predict_proba([[2, -2, 0, 0, 0, 0]])[0, 1]), 1)
    1.0
    """

    def __init__(self, estimator=None):
        self.estimator = estimator

    def _find(self, X, present):
        machine = self._machine().fit(X, present)
        direction = machine.components_[0].astype(np.float64)
        correlation = direction @ mean_difference(X, present)  # up to a factor
        return {
            "estimator_": machine,
            "direction_": direction if correlation >= 0 else -direction,
            "eigenvalues_": machine.eigenvalues_,
            "explained_ratio_": machine.explained_ratio_,
        }

    def _machine(self) -> RFMClassifier:
        if self.estimator is None:
            return RFMClassifier(kernel="laplace", metric="full")
        if not isinstance(self.estimator, RFMClassifier):
            raise InvalidParameterError(
                f"The 'estimator' parameter of {type(self).__name__} must be an "
                f"RFMClassifier or None. Got {self.estimator!r} instead."
            )
        return clone(self.estimator)

    def _evidence(self, X):
        return self.estimator_.decision_function(X)

    def _probability(self, X):
        return self.estimator_.predict_proba(X)[:, 1]

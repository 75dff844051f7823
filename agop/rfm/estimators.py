"""Recursive Feature Machines as scikit-learn estimators."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils import column_or_1d, compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets

from agop.core.arrays import (
    InvalidParameterError,
    follow_input,
    refuse_strings,
    to_numpy,
)
from agop.rfm.base import RecursiveFeatureMachine
from agop.rfm.calibration import log_loss, probabilities, squared_error
from agop.rfm.fitting import Fit


class RFMRegressor(RegressorMixin, RecursiveFeatureMachine):
    """Regression by a kernel machine that learns its own metric.

    A Recursive Feature Machine alternates kernel ridge regression with its average
    gradient outer product G = 1/n Σ ∇f(xᵢ) ∇f(xᵢ)ᵀ, which becomes the metric M of the
    next round: distances then count most along the directions along which the
    predictor moves. Scale the features first, for example with
    :class:`sklearn.preprocessing.StandardScaler`.

    Parameters
    ----------
    kernel : {"auto", "laplace", "generalized_exponential", "gaussian", "matern32", \
            "matern52", "product_laplace", "lp_exponential", "polynomial", \
            "neural_tangent"} or Kernel, default="auto"
        Similarity of two points. "auto" chooses between exp(−r), exp(−r^1.5) and a
        wide Gaussian of the ℓ2 distance r, and exp(−r) of the ℓ1 distance. A kernel of
        your own is a subclass of :class:`agop.kernels.Kernel`.
    metric : {"auto", "full", "diagonal"}, default="auto"
        Whether the metric is a whole matrix or one scale per feature. Kernels of ℓ1
        and ℓp distances take a diagonal one only.
    n_iter : int or "auto", default="auto"
        Number of rounds, each of which makes the AGOP the new metric; 0 is plain
        kernel ridge. "auto" chooses between 0 and 4.
    bandwidth : float, "median" or "auto", default="auto"
        Length in units of distances under the metric; "median" is their median,
        anew at every round. "auto" chooses a multiple of the median.
    alpha : float or "auto", default="auto"
        Ridge penalty on the diagonal of the kernel matrix; a row of weight w has
        alpha / w. "auto" chooses one for every round, between 1e-4 and 30 times the
        mean weight.
    power : float, default=1.0
        Power of the AGOP that becomes the metric.
    center : bool, default=False
        Subtract the mean gradient of each output before the outer product.
    normalize : {"trace", "max", "none"}, default="trace"
        Scale of the metric: mean or largest entry of its diagonal is 1, or as it is.
        It matters with a bandwidth that is a number.
    fit_intercept : bool, default=True
        Add an intercept that is not penalised.
    n_components : int, default=None
        Number of directions that are kept; by default those before the widest gap
        in the spectrum, at most 10.
    device : str, default="cpu"
        Where to compute, for example "cuda".
    random_state : int, RandomState instance or None, default=None
        Deals rows to folds, and draws the rows for the choice of settings. None reads
        numpy's global generator but does not advance it: two fits in a row agree.
    verbose : int, default=0
        From 1: progress on a terminal (a bar, in notebooks too, if rich is there),
        and lines in the log "agop".

    Attributes
    ----------
    agop_ : ndarray of shape (n_features, n_features)
        The average gradient outer product of the fitted predictor at the training
        points, in squared units of output per input.
    agop_factor_ : ndarray of shape (n_features, rank)
        F with AGOP = F Fᵀ; its columns are all directions, times the roots of their
        eigenvalues.
    metric_ : ndarray of shape (n_features, n_features)
        The metric M of the final round.
    metric_factor_ : ndarray of shape (n_features,) or (n_features, rank)
        A with M = A Aᵀ; one-dimensional if M is diagonal.
    components_ : ndarray of shape (n_components, n_features)
        Leading eigenvectors of the AGOP, as rows; the entry of largest magnitude is
        positive.
    eigenvalues_ : ndarray of shape (n_components,)
    explained_ratio_ : ndarray of shape (n_components,)
        Eigenvalues over the trace of the AGOP.
    feature_importances_ : ndarray of shape (n_features,)
        Diagonal of the AGOP over its trace: the share of the mean squared gradient
        along each feature. Comparable only between features in the same units.
    dual_coef_ : ndarray of shape (n_samples, n_outputs) or (n_samples,)
    intercept_ : float or ndarray of shape (n_outputs,)
    X_fit_ : ndarray of shape (n_samples, n_features)
        Training points of positive weight.
    offset_ : ndarray of shape (n_features,)
        What is subtracted from points before anything else.
    kernel_ : str or Kernel
    bandwidth_ : float
        Of the final round.
    alpha_ : float
        Penalty of the final round.
    best_iter_ : int
        Number of metric updates behind the predictor.
    n_iter_ : int
        Number of metric updates that were looked at.
    jitter_ : float
        What was added to the diagonal of the kernel matrix beyond alpha.
    history_ : dict of ndarray
        By round: ``cross_fitted`` and ``leave_one_out`` loss, ``alpha``,
        ``bandwidth``, ``effective_rank`` of the AGOP behind the metric (of its
        diagonal, if the metric is diagonal), ``seconds``;
        NaN where a round was not run on all rows, or nothing was to be chosen.
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features,)

    See Also
    --------
    RFMClassifier : The same for classes.

    Notes
    -----
    Time grows with n_samples³ and memory with n_samples². What is left "auto" is
    chosen by 3-fold cross-fitting of the whole recursion, on at most 1000 rows (fewer
    than 500 are dealt to folds several times), and the chosen settings are run on all
    rows; every parameter that is given takes one choice away. The closed-form
    leave-one-out error, also in ``history_``, takes the metric as given although it
    has seen the labels: it is too optimistic after the first round, and decides
    nothing.

    References
    ----------
    A. Radhakrishnan, D. Beaglehole, P. Pandit and M. Belkin, "Mechanism for feature
    learning in neural networks and backpropagation-free machine learning models",
    Science 383:1461, 2024, arXiv:2212.13881.

    Examples
    --------
    >>> import numpy as np
    >>> from agop import RFMRegressor
    >>> X = np.random.RandomState(0).normal(size=(200, 6))
    >>> y = X[:, 0] * X[:, 1]  # the other four features do not matter
    >>> model = RFMRegressor(random_state=0).fit(X, y)
    >>> np.argsort(model.feature_importances_)[-2:].tolist() in ([0, 1], [1, 0])
    True
    >>> bool(model.feature_importances_[:2].sum() > 0.95)
    True
    """

    _loss = staticmethod(squared_error)
    _calibrated = False
    _y_checks: ClassVar[dict[str, bool]] = {"multi_output": True, "y_numeric": True}

    def _encode(self, y, weight):
        refuse_strings(y, "y")
        return weight, y, {}

    def predict(self, X):
        """Predict targets.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_targets)
            As y was in fit.
        """
        scores = self._scores(X)
        return follow_input(scores[:, 0] if self.dual_coef_.ndim == 1 else scores, X)

    def __sklearn_tags__(self):
        """Several targets are welcome."""
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


class RFMClassifier(ClassifierMixin, RecursiveFeatureMachine):
    """Classification by a kernel machine that learns its own metric.

    Ridge regression on one-hot labels, with the recursion of :class:`RFMRegressor`.
    Probabilities are softmax(slope · score), the slope being fitted to scores of
    rows that took no part in their own prediction. Scale the features first, for
    example with :class:`sklearn.preprocessing.StandardScaler`.

    Parameters
    ----------
    kernel : {"auto", "laplace", "generalized_exponential", "gaussian", "matern32", \
            "matern52", "product_laplace", "lp_exponential", "polynomial", \
            "neural_tangent"} or Kernel, default="auto"
        Similarity of two points. "auto" chooses between exp(−r), exp(−r^1.5) and a
        wide Gaussian of the ℓ2 distance r, and exp(−r) of the ℓ1 distance. A kernel of
        your own is a subclass of :class:`agop.kernels.Kernel`.
    metric : {"auto", "full", "diagonal"}, default="auto"
        Whether the metric is a whole matrix or one scale per feature. Kernels of ℓ1
        and ℓp distances take a diagonal one only.
    n_iter : int or "auto", default="auto"
        Number of rounds, each of which makes the AGOP the new metric; 0 is plain
        kernel ridge. "auto" chooses between 0 and 4.
    bandwidth : float, "median" or "auto", default="auto"
        Length in units of distances under the metric; "median" is their median,
        anew at every round. "auto" chooses a multiple of the median.
    alpha : float or "auto", default="auto"
        Ridge penalty on the diagonal of the kernel matrix; a row of weight w has
        alpha / w. "auto" chooses one for every round, between 1e-4 and 30 times the
        mean weight.
    power : float, default=1.0
        Power of the AGOP that becomes the metric.
    center : bool, default=False
        Subtract the mean gradient of each output before the outer product.
    normalize : {"trace", "max", "none"}, default="trace"
        Scale of the metric: mean or largest entry of its diagonal is 1, or as it is.
        It matters with a bandwidth that is a number.
    fit_intercept : bool, default=True
        Add an intercept that is not penalised.
    n_components : int, default=None
        Number of directions that are kept; by default those before the widest gap
        in the spectrum, at most 10.
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes, as in scikit-learn. They shift the balance between
        classes; the weight of the data as a whole stays the same.
    device : str, default="cpu"
        Where to compute, for example "cuda".
    random_state : int, RandomState instance or None, default=None
        Deals rows to folds, and draws the rows for the choice of settings. None reads
        numpy's global generator but does not advance it: two fits in a row agree.
    verbose : int, default=0
        From 1: progress on a terminal (a bar, in notebooks too, if rich is there),
        and lines in the log "agop".

    Attributes
    ----------
    agop_ : ndarray of shape (n_features, n_features)
        The average gradient outer product of the fitted predictor at the training
        points, in squared units of output per input.
    agop_factor_ : ndarray of shape (n_features, rank)
        F with AGOP = F Fᵀ; its columns are all directions, times the roots of their
        eigenvalues.
    metric_ : ndarray of shape (n_features, n_features)
        The metric M of the final round.
    metric_factor_ : ndarray of shape (n_features,) or (n_features, rank)
        A with M = A Aᵀ; one-dimensional if M is diagonal.
    components_ : ndarray of shape (n_components, n_features)
        Leading eigenvectors of the AGOP, as rows; the entry of largest magnitude is
        positive.
    eigenvalues_ : ndarray of shape (n_components,)
    explained_ratio_ : ndarray of shape (n_components,)
        Eigenvalues over the trace of the AGOP.
    feature_importances_ : ndarray of shape (n_features,)
        Diagonal of the AGOP over its trace: the share of the mean squared gradient
        along each feature. Comparable only between features in the same units.
    dual_coef_ : ndarray of shape (n_samples, n_outputs) or (n_samples,)
    intercept_ : float or ndarray of shape (n_outputs,)
    X_fit_ : ndarray of shape (n_samples, n_features)
        Training points of positive weight.
    offset_ : ndarray of shape (n_features,)
        What is subtracted from points before anything else.
    kernel_ : str or Kernel
    bandwidth_ : float
        Of the final round.
    alpha_ : float
        Penalty of the final round.
    best_iter_ : int
        Number of metric updates behind the predictor.
    n_iter_ : int
        Number of metric updates that were looked at.
    jitter_ : float
        What was added to the diagonal of the kernel matrix beyond alpha.
    history_ : dict of ndarray
        By round: ``cross_fitted`` and ``leave_one_out`` loss, ``alpha``,
        ``bandwidth``, ``effective_rank`` of the AGOP behind the metric (of its
        diagonal, if the metric is diagonal), ``seconds``;
        NaN where a round was not run on all rows, or nothing was to be chosen.
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features,)
    classes_ : ndarray of shape (n_classes,)
        Labels, sorted; those of rows of positive weight.
    slope_ : float
        Slope of the softmax that turns scores into probabilities.

    See Also
    --------
    RFMRegressor : The same for numbers.

    Notes
    -----
    Time grows with n_samples³ and memory with n_samples². What is left "auto" is
    chosen by 3-fold cross-fitting of the whole recursion, on at most 1000 rows (fewer
    than 500 are dealt to folds several times), and the chosen settings are run on all
    rows; every parameter that is given takes one choice away. The closed-form
    leave-one-out error, also in ``history_``, takes the metric as given although it
    has seen the labels: it is too optimistic after the first round, and decides
    nothing.

    References
    ----------
    A. Radhakrishnan, D. Beaglehole, P. Pandit and M. Belkin, "Mechanism for feature
    learning in neural networks and backpropagation-free machine learning models",
    Science 383:1461, 2024, arXiv:2212.13881.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from agop import RFMClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> model = RFMClassifier(random_state=0).fit(X, y)
    >>> bool(model.score(X, y) > 0.95)
    True
    >>> model.predict_proba(X[:2]).shape
    (2, 3)
    """

    _loss = staticmethod(log_loss)
    _calibrated = True
    _y_checks: ClassVar[dict[str, bool]] = {}

    def __init__(
        self,
        *,
        kernel="auto",
        metric="auto",
        n_iter="auto",
        bandwidth="auto",
        alpha="auto",
        power=1.0,
        center=False,
        normalize="trace",
        fit_intercept=True,
        n_components=None,
        class_weight=None,
        device="cpu",
        random_state=None,
        verbose=0,
    ):
        super().__init__(
            kernel=kernel,
            metric=metric,
            n_iter=n_iter,
            bandwidth=bandwidth,
            alpha=alpha,
            power=power,
            center=center,
            normalize=normalize,
            fit_intercept=fit_intercept,
            n_components=n_components,
            device=device,
            random_state=random_state,
            verbose=verbose,
        )
        self.class_weight = class_weight

    def _encode(self, y, weight):
        try:
            check_classification_targets(y)
            y = column_or_1d(y)
            classes, codes = np.unique(y, return_inverse=True)
        except TypeError as error:
            raise ValueError(
                "Unknown label type: unknown. The labels in y cannot be sorted "
                f"({error}). Use labels of one type."
            ) from error
        if len(classes) < 2:
            raise ValueError(
                "The number of classes has to be greater than one; got 1 class: "
                f"{classes.tolist()[0]!r}."
            )
        balance = self._balance(y, codes, weight)
        # Class weights shift the balance, not the weight of the data as a whole.
        weight = weight * (balance * (weight.sum() / (weight * balance).sum()))
        return weight, np.eye(len(classes))[codes], {"classes_": classes}

    def _balance(self, y, codes, weight) -> np.ndarray:
        """Class weight of every row; "balanced" counts copies, not rows."""
        given = self.class_weight
        problem = f"The 'class_weight' parameter of {type(self).__name__} must"
        named = given is None or (isinstance(given, str) and given == "balanced")
        if not (named or isinstance(given, dict)):
            raise InvalidParameterError(
                f"{problem} be a dict, 'balanced' or None. Got {given!r} instead."
            )
        if named and given == "balanced":
            balance = (1 / np.bincount(codes, weights=weight))[codes]
        else:
            balance = compute_sample_weight(given, y)
        if not (np.isfinite(balance) & (balance > 0)).all():
            raise InvalidParameterError(
                f"{problem} give every class a positive weight. Got {given!r} "
                "instead. To leave a class out, remove its rows."
            )
        return balance

    def _fitted_attributes(self, result: Fit, ndim: int) -> dict[str, Any]:
        attributes = super()._fitted_attributes(result, ndim)
        return {**attributes, "slope_": float(result.slope)}

    def decision_function(self, X):
        """Scores: the ridge predictions of the one-hot labels.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_classes)
            For two classes the score of the second minus that of the first.
        """
        scores = self._scores(X)
        binary = len(self.classes_) == 2
        return follow_input(scores[:, 1] - scores[:, 0] if binary else scores, X)

    def predict_proba(self, X):
        """Probabilities: softmax(``slope_`` · score).

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Rows sum to 1; columns in the order of ``classes_``.
        """
        scores = torch.from_numpy(self._scores(X))
        return follow_input(to_numpy(probabilities(scores, self.slope_)), X)

    def predict(self, X):
        """Predict labels.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,)
            Of the type of y in fit.
        """
        best = self._scores(X).argmax(1)
        return self.classes_[best]

"""What displays ask of a fitted estimator, pipeline or search."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from agop.core.spectrum import Spectrum


def last_step(estimator):
    """The fitted estimator itself, found at the end of pipelines and in searches."""
    estimator = _best(estimator)
    if isinstance(estimator, Pipeline):
        return last_step(estimator[-1])
    check_is_fitted(estimator)
    return estimator


def _best(estimator):
    """What a fitted search, such as GridSearchCV, has found; else the estimator."""
    return getattr(estimator, "best_estimator_", estimator)


def spectrum_of(estimator) -> Spectrum:
    """All eigenvalues and directions: `eigenvalues_` has the leading ones only."""
    estimator = last_step(estimator)
    # A machine on wide data keeps a thin factor: no (d, d) matrix is formed for it.
    factor = getattr(estimator, "agop_factor_", None)
    if factor is None:
        return Spectrum.of_matrix(torch.as_tensor(np.asarray(estimator.agop_)))
    factor = torch.as_tensor(factor)
    roots = factor.norm(dim=0)  # columns are directions times roots of eigenvalues
    directions = factor / roots.clamp(min=torch.finfo(factor.dtype).tiny)
    values = roots.square()
    return Spectrum(values, directions.T, float(values.sum()))


def feature_names_of(estimator, n_features: int, names=None) -> list[str]:
    """Names that were given, else those that the estimator knows, else x0, x1 …."""
    estimator = _best(estimator)
    if names is None and isinstance(estimator, Pipeline) and len(estimator) > 1:
        try:
            names = estimator[:-1].get_feature_names_out()
        except (AttributeError, ValueError):  # a step that has no names to offer
            names = getattr(estimator, "feature_names_in_", None)
        if names is not None and len(names) != n_features:
            names = None
    if names is None:
        names = getattr(last_step(estimator), "feature_names_in_", None)
    if names is None:
        names = [f"x{index}" for index in range(n_features)]
    names = [str(name) for name in names]
    if len(names) != n_features:
        raise ValueError(
            f"feature_names has {len(names)} names, but the estimator was fitted on "
            f"{n_features} features. Give one name for each, in the order of the "
            "columns of X."
        )
    return names

"""What displays ask of a fitted estimator, pipeline or search."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from agop.core.spectrum import Spectrum
from agop.inspection.forms import Form, Tokens
from agop.inspection.shapes import as_form, image_of


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


# --------------------------------------------------------------------------- the AGOP


def spectrum_of(estimator, layer: str | None = None) -> Spectrum:
    """All eigenvalues and directions: `eigenvalues_` has the leading ones only."""
    estimator = last_step(estimator)
    if hasattr(estimator, "spectrum"):
        return estimator.spectrum(layer)
    of_layer(estimator, None, layer)  # there are none
    # A machine on wide data keeps a thin factor: no (d, d) matrix is formed for it.
    factor = getattr(estimator, "agop_factor_", None)
    if factor is None:
        return Spectrum.of_matrix(torch.as_tensor(np.asarray(estimator.agop_)))
    factor = torch.as_tensor(factor)
    roots = factor.norm(dim=0)  # columns are directions times roots of eigenvalues
    directions = factor / roots.clamp(min=torch.finfo(factor.dtype).tiny)
    values = roots.square()
    return Spectrum(values, directions.T, float(values.sum()))


def importances_of(estimator, layer: str | None = None) -> np.ndarray:
    """The diagonal of the AGOP, as shares of its trace."""
    estimator = last_step(estimator)
    return np.asarray(of_layer(estimator, estimator.feature_importances_, layer))


def importances_at(estimator, X, y=None, layer: str = "input") -> np.ndarray:
    """The squared derivatives at each row of X, as shares of their sum, (k, d).

    They are the diagonal of the AGOP of one sample, whose whole input, or activation at
    the layer, is one vector. Nothing is centred: one sample less its mean is zero.
    """
    estimator = _best(estimator)
    if isinstance(estimator, Pipeline):
        before = estimator[:-1]
        X = before.transform(X) if before else X
        return importances_at(estimator[-1], X, y, layer)
    estimator = last_step(estimator)
    if hasattr(estimator, "jacobian"):
        of_layer(estimator, None, layer)  # there are none
        squares = np.square(np.asarray(estimator.jacobian(X))).sum(1)
        return squares / squares.sum(1, keepdims=True).clip(min=np.finfo(float).tiny)
    if not hasattr(estimator, "network"):
        raise ValueError(
            f"{type(estimator).__name__} has no derivatives at single examples; draw "
            "of='average'."
        )
    one = copy.copy(estimator).set_params(
        layers=layer, kind="diagonal", center=False, positions="flatten"
    )
    places = [slice(index, index + 1) for index in range(len(X))]
    targets = [None if y is None else y[place] for place in places]
    return np.stack(
        [
            importances_of(one.fit(X[place], target))
            for place, target in zip(places, targets, strict=True)
        ]
    )


def projections_of(estimator, X, direction: int, layer: str | None = None):
    """Coordinates of samples on one direction, counted from 1, (n_samples,)."""
    fitted = last_step(estimator)
    components = fitted.components_
    count = len(of_layer(estimator, components, layer))
    if not 1 <= direction <= count:
        raise ValueError(
            f"direction={direction!r}: the estimator has directions 1 to {count}. Set "
            "n_components for more."
        )
    column = direction - 1
    if isinstance(components, Mapping):  # one layer beside the next
        for name, rows in components.items():
            if name == (layer or name):
                break
            column += len(rows)
    return np.asarray(estimator.transform(X))[:, column]


def of_layer(estimator, value: Any, layer: str | None) -> Any:
    """The value at one layer, of a fitted attribute that may be a dict by layer."""
    known = layers_of(estimator)
    if not known:
        if layer in (None, "input"):
            return value
        raise ValueError(
            f"layer={layer!r}: the estimator was fitted at its input alone. Leave the "
            "layer out."
        )
    if layer is None and len(known) == 1:
        return value[known[0]]
    if layer not in known:
        raise ValueError(
            f"layer={layer!r}: the estimator was fitted at "
            f"{', '.join(map(repr, known))}; name one of them."
        )
    return value[layer]


def layers_of(estimator) -> list[str]:
    """Names of the layers of a network, if its results are by layer; else none."""
    values = getattr(last_step(estimator), "eigenvalues_", None)
    return list(values) if isinstance(values, Mapping) else []


# ------------------------------------------------------------------------------- rows


def names_of(estimator, n_features: int, names=None, layer=None) -> list[str]:
    """Names of the features of the estimator, or of the units of a layer."""
    layer = layer or next(iter(layers_of(estimator)), "input")
    if layer != "input" and names is None:
        return [f"unit {index}" for index in range(n_features)]
    if layer != "input":
        return _checked([str(name) for name in names], n_features)
    shape = sample_shape(estimator, n_features) if names is None else None
    if shape is not None:
        return as_form(shape, n_features).names()
    return feature_names_of(estimator, n_features, names)


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
    return _checked([str(name) for name in names], n_features)


def _checked(names: list[str], n_features: int) -> list[str]:
    if len(names) != n_features:
        raise ValueError(
            f"feature_names has {len(names)} names, but the estimator was fitted on "
            f"{n_features} features. Give one name for each, in the order of the "
            "columns of X."
        )
    return names


def look_of(estimator, n_features: int, shape=None, names=None, layer=None) -> dict:
    """What rows look like, as arguments `shape` and `feature_names` of a display.

    Without a shape or names, rows look like the samples that a network was given.
    """
    layer = layer or next(iter(layers_of(estimator)), "input")
    if isinstance(shape, Tokens) and shape.n_features != n_features:
        _check_all_tokens(estimator, n_features, layer)
    if layer == "input" and names is None:
        shape = sample_shape(estimator, n_features, shape)
    if shape is not None:
        return {"shape": shape, "feature_names": None}
    names = names_of(estimator, n_features, names, layer)
    return {"shape": None, "feature_names": names}


def _check_all_tokens(estimator, n_features: int, layer: str) -> None:
    """Raise if the features are those of any token, rather than of all in turn."""
    positions = getattr(last_step(estimator), "positions", "flatten")
    if positions == "flatten" or (positions == "auto" and layer == "input"):
        return
    raise ValueError(
        f"shape=Tokens(...) needs numbers for each token, but positions={positions!r} "
        f"may have left {n_features} features at {layer!r} that tokens share. Fit with "
        "positions='flatten', on texts of one length."
    )


def sample_shape(estimator, n_features: int, shape=None) -> Form | tuple | None:
    """The shape given, or that of the samples that a network was given, if it has one.

    Images that a network was given have the channels first.
    """
    known = tuple(getattr(last_step(estimator), "sample_shape_", ()))
    if len(known) not in (2, 3) or isinstance(shape, Form):
        return shape
    if shape is None:
        return image_of(known) if int(np.prod(known)) == n_features else None
    return image_of(known) if tuple(shape) == known else shape

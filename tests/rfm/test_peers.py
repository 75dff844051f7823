"""What other RFM software gets wrong must not go wrong here.

Ids are those of the design notes: F of the table of peers, X of that of faults. Rows
about trees (F31–F35), about options that we do not have (F20, F21, F38, F45) and about
kernels (F29, F30) do not apply, or are tested elsewhere.
"""

import copy
import importlib
import inspect
import pickle
import random

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import agop
from agop import RFMClassifier, RFMRegressor
from agop.kernels import KERNELS
from tests.devices import LargestTensor
from tests.rfm.problems import (
    classification,
    classifier,
    points,
    regression,
    regressor,
)


def close(first, second, rtol=1e-8, atol=1e-10):
    np.testing.assert_allclose(first, second, rtol=rtol, atol=atol)


# --------------------------------------------------------------- scikit-learn contract
@pytest.mark.parametrize("Model", [RFMRegressor, RFMClassifier])
def test_f02_x7_constructor_only_stores(Model):
    values = {
        name: object() for name in inspect.signature(Model).parameters if name != "self"
    }
    model = Model(**values)
    assert vars(model) == values
    assert model.get_params() == values
    default = Model()
    assert clone(default).get_params() == default.get_params()
    assert eval(repr(Model(n_iter=3))).n_iter == 3
    with pytest.raises(TypeError, match="positional"):
        Model("laplace")


@pytest.mark.parametrize("Model", [RFMRegressor, RFMClassifier])
def test_f03_x7_fit_needs_no_validation_data(Model):
    X, y = classification()
    model = Model(n_iter=1, alpha=1e-2, random_state=0)
    pipeline = make_pipeline(StandardScaler(), model)
    assert pipeline.fit(X, y).predict(X).shape == (60,)
    assert np.isfinite(cross_val_score(pipeline, X, y, cv=2)).all()
    search = GridSearchCV(model, {"n_iter": [0, 1]}, cv=2).fit(X, y)
    assert search.best_params_["n_iter"] in (0, 1)


def test_f04_f05_f06_frames_scores_and_shapes():
    X, y = regression()
    frame = pd.DataFrame(X, columns=list("abcde"))
    model = regressor().fit(frame, pd.Series(y))
    assert model.feature_names_in_.tolist() == list("abcde")
    assert model.predict(frame).shape == (60,)
    assert model.score(frame, y) == r2_score(y, model.predict(frame))
    X, y = classification()
    model = classifier().fit(X, y)
    assert model.score(X, y) == accuracy_score(y, model.predict(X))


@pytest.mark.parametrize(
    "method",
    [
        "predict",
        "transform",
        "jacobian",
        "output_agop",
        "predict_proba",
        "decision_function",
        "save",
        "get_feature_names_out",
    ],
)
def test_f07_before_fit(method, tmp_path):
    arguments = {"save": [tmp_path / "file"], "get_feature_names_out": []}
    for model in (RFMRegressor(), RFMClassifier()):
        if hasattr(model, method):
            with pytest.raises(NotFittedError, match="is not fitted yet"):
                getattr(model, method)(*arguments.get(method, [points()]))
        for name in ("agop_", "metric_"):
            with pytest.raises(NotFittedError):
                getattr(model, name)
            assert not hasattr(model, "feature_importances_")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("metric", ["full", "diagonal"])
def test_f10_a_prediction_does_not_depend_on_its_batch(dtype, metric):
    X, y = regression(200)
    model = regressor(metric=metric, alpha=1e-3).fit(X.astype(dtype), y)
    new = np.r_[X[:50], points(50, seed=3)].astype(dtype)
    whole = model.predict(new), model.jacobian(new)
    rows = np.random.default_rng(0).permutation(100)[:7]
    tolerance = 1e-4 if dtype == np.float32 else 1e-11
    close(model.predict(new[rows]), whole[0][rows], tolerance, tolerance)
    close(model.jacobian(new[rows]), whole[1][rows], tolerance, 30 * tolerance)


def test_f12_f51_tensors_lists_and_float_labels():
    X, y = classification()
    plain = classifier().fit(X, y)
    close(
        classifier().fit(torch.from_numpy(X), torch.from_numpy(y))._scores(X),
        plain._scores(X),
    )
    close(
        classifier().fit(X.tolist(), y.astype(float).tolist())._scores(X),
        plain._scores(X),
    )
    mixed = classifier().fit(X.astype(np.float32), y.astype(np.float64))
    assert mixed.score(X, y) > 0.9
    assert same_bits(pickle.loads(pickle.dumps(plain)), plain, X)


def same_bits(first, second, X):
    return np.array_equal(first._scores(X), second._scores(X))


def test_f13_the_second_fit_is_a_fresh_fit():
    X, y = classification(n_classes=3)
    model = RFMClassifier(random_state=0, n_iter=1)
    model.fit(X[:, :2], np.array(list("abc"))[y]).fit(X, y > 0)
    fresh = RFMClassifier(random_state=0, n_iter=1).fit(X, y > 0)
    assert same_bits(model, fresh, X)
    assert vars(model).keys() == vars(fresh).keys()


# ---------------------------------------------- labels, targets, weights, probabilities
@pytest.mark.parametrize(
    "labels", [[-1, 1], [1, 2], [10, 20], ["a", "b"], [False, True]]
)
def test_f14_f15_f16_x5_labels(labels):
    X, y = classification()
    y = np.array(labels)[y]
    model = classifier().fit(X, y)
    assert model.classes_.tolist() == labels
    assert set(model.predict(X).tolist()) == set(labels)
    assert model.predict(X).dtype == y.dtype
    assert model.dual_coef_.shape == (60, 2)


def test_f17_x5_integer_targets_are_regressed():
    X, y = regression()
    y = np.round(10 * y).astype(int)
    model = regressor().fit(X, y)
    predicted = model.predict(X)
    assert predicted.dtype == np.float64 and predicted.shape == (60,)
    close(predicted, regressor().fit(X, y.astype(float)).predict(X))
    assert not hasattr(model, "classes_")


def test_f19_weights_count():
    X, y = regression()
    weight = np.r_[np.ones(40), np.zeros(20)]
    weighted = regressor().fit(X, y, sample_weight=weight)
    close(weighted.predict(X), regressor().fit(X[:40], y[:40]).predict(X))
    heavy = regressor(alpha=1.0).fit(X, y, sample_weight=1 + 99 * (np.arange(60) < 5))
    errors = np.abs(heavy.predict(X) - y)
    assert errors[:5].max() < 0.1 < errors[5:].max()


@pytest.mark.parametrize("reg", [None, 10, 1e-3, 1e-8])
def test_f22_f50_x1_alpha_has_a_default_and_is_honoured(reg):
    X, y = regression()
    if reg is None:
        assert np.isfinite(RFMRegressor().fit(X, y).predict(X)).all()
        return
    model = regressor(alpha=reg, n_iter=0).fit(X, y)
    assert model.alpha_ == reg
    # The first-order condition: y − f(x) = alpha · c.
    close(y - model.predict(X), reg * model.dual_coef_, rtol=1e-5, atol=1e-9)


def test_f23_probabilities_are_not_clipped():
    X = np.r_[points(800, 1) - 60, points(800, 1) + 60]
    y = np.repeat([0, 1], 800)
    found = classifier(n_iter=0, alpha=1e-6).fit(X, y).predict_proba(X)
    assert 0 < found.min() < 0.9e-3
    close(found.sum(1), 1, rtol=1e-12)


def test_f24_an_unknown_category_is_not_the_first_one():
    rng = np.random.default_rng(0)
    category = rng.choice(list("abc"), size=(90, 1))
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    X = encoder.fit_transform(category)
    y = 3.0 * (category[:, 0] == "a") + rng.normal(scale=0.01, size=90)
    model = regressor(alpha=1e-3).fit(X, y)
    unknown, first = model.predict([[0.0, 0, 0], [1.0, 0, 0]])
    assert abs(first - 3) < 0.1
    assert abs(unknown - first) > 0.5


# ---------------------------------------------------------- AGOP and numerical accuracy
def test_f25_sorted_rows_give_the_same_importances():
    """x₀ matters in the first half, x₁ in the second; the median takes a sample."""
    X = points(1000, 6)
    y = np.where(np.arange(1000) < 500, X[:, 0], X[:, 1])
    order = np.random.default_rng(0).permutation(1000)
    in_order = regressor().fit(X, y)
    shuffled = regressor().fit(X[order], y[order])
    importances = in_order.feature_importances_
    close(importances, shuffled.feature_importances_, rtol=0, atol=1e-3)
    assert importances[:2].min() > 0.3


def test_f25_rows_of_the_choice_are_drawn_at_random(monkeypatch):
    from agop.rfm import fitting

    seen = []
    original = fitting.make_folds

    def spy(problem, *arguments):
        seen.append(problem.X.numpy())
        return original(problem, *arguments)

    monkeypatch.setattr(fitting, "make_folds", spy)
    monkeypatch.setattr(fitting, "SELECTION_ROWS", 60)
    X = np.c_[np.arange(300.0), points(300, 2)]
    RFMRegressor(random_state=0, n_iter=0).fit(X, X[:, 1])
    (chosen,) = seen
    assert len(np.unique(chosen[:, 0])) == 60
    assert abs(np.median(chosen[:, 0]) - 150) < 60


@pytest.mark.parametrize("metric", ["full", "diagonal"])
def test_f26_power_is_honoured(metric):
    """At power p the metric is the outer product to the p."""
    X, y = regression()
    first = {"kernel": "gaussian", "metric": metric, "normalize": "none"}
    product = regressor(n_iter=0, **first).fit(X, y).agop_
    if metric == "diagonal":
        product = np.diag(np.diag(product))
    for power in (0.25, 0.5, 1.0, 2.0):
        values, vectors = np.linalg.eigh(product)
        expected = (vectors * values**power) @ vectors.T
        found = regressor(n_iter=1, power=power, **first).fit(X, y).metric_
        close(found, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("offset", [100.0, 1000.0])
def test_f27_offset(dtype, offset):
    X = np.round(points(400, 10) * 2**8) / 2**8  # exact in float32, offset included
    y = X[:, 0] * X[:, 1]
    settings = {"kernel": "laplace", "bandwidth": 10.0, "n_iter": 1}
    plain, moved = (
        regressor(**settings).fit(data.astype(dtype), y) for data in (X, X + offset)
    )
    tolerance = 1e-4 if dtype == np.float32 else 1e-11
    scale = np.abs(plain.agop_).max()
    assert np.abs(moved.agop_ - plain.agop_).max() < tolerance * scale
    size = np.abs(plain.dual_coef_).max()
    assert np.abs(moved.dual_coef_ - plain.dual_coef_).max() < tolerance * size


@pytest.mark.parametrize("metric", ["full", "diagonal"])
def test_f28_memory_does_not_grow_with_the_number_of_outputs(metric):
    """No tensor of shape (outputs, n, n), during fit or predict."""
    n = 200
    X = points(n, 4)
    sizes = {}
    for n_outputs in (1, 40):
        Y = points(n, n_outputs, seed=1)
        with LargestTensor() as largest:
            model = regressor(metric=metric).fit(X, Y)
            model.predict(X)
        sizes[n_outputs] = largest.numel
    assert sizes[1] <= 2 * n * n
    assert sizes[40] <= 2 * n * n


def test_f37_x6_generators_are_local():
    X, y = regression()
    states = random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    torch_state = torch.get_rng_state()
    models = [RFMRegressor(random_state=0), RFMRegressor(random_state=0)]
    first, second = (model.fit(X, y) for model in models)
    assert same_bits(first, second, X)
    assert random.getstate() == states[0]
    assert np.array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_state)


def test_f39_x2_every_documented_name_works():
    X, y = regression()
    documented = inspect.getdoc(RFMRegressor)
    for kernel in ("auto", *KERNELS):
        assert f'"{kernel}"' in documented
        model = RFMRegressor(kernel=kernel, n_iter=1, random_state=0).fit(X, y)
        assert model.score(X, y) > 0.5, kernel
    for name, values in {
        "metric": ["auto", "full", "diagonal"],
        "normalize": ["trace", "max", "none"],
        "bandwidth": ["auto", "median"],
        "alpha": ["auto"],
    }.items():
        for value in values:
            assert f'"{value}"' in documented
            model = RFMRegressor(**{"n_iter": 1, name: value}).fit(X, y)
            assert np.isfinite(model.predict(X)).all()


def test_f41_the_final_model_uses_all_rows():
    X, y = regression()
    for model in (RFMRegressor(random_state=0), RFMClassifier(random_state=0)):
        targets = y if isinstance(model, RFMRegressor) else y > 0
        model.fit(X, targets)
        assert np.array_equal(model.X_fit_, X)
        assert (model.dual_coef_ != 0).all()


def test_f42_rounds_are_not_chosen_on_interpolated_rows():
    """y = x₀ x₁ among 12 features: later rounds are better, and are chosen."""
    X = points(250, 12)
    y = X[:, 0] * X[:, 1]
    model = RFMRegressor(kernel="laplace", metric="full", random_state=0).fit(X, y)
    assert model.best_iter_ >= 2


CHANGES = {
    "kernel": "gaussian",
    "metric": "diagonal",
    "n_iter": 3,
    "bandwidth": 0.7,
    "alpha": 1.0,
    "power": 0.5,
    "center": True,
    "normalize": "none",
    "fit_intercept": False,
    "n_components": 3,
    "class_weight": {0: 1, 1: 5},
}
NO_EFFECT_ON_NUMBERS = {"device", "random_state", "verbose"}


@pytest.mark.parametrize("Model", [RFMRegressor, RFMClassifier])
def test_f43_every_parameter_changes_the_model(Model):
    X, y = classification(60)
    X[:, 0] += y  # the mean gradient is not zero
    base = {"kernel": "laplace", "metric": "full", "n_iter": 1, "alpha": 0.1}
    base["bandwidth"] = 2.0  # normalize matters with a number
    reference = Model(**base).fit(X, y)
    names = set(Model().get_params()) - NO_EFFECT_ON_NUMBERS
    assert names <= CHANGES.keys()
    for name in names:
        changed = Model(**{**base, name: CHANGES[name]}).fit(X, y)
        if name == "n_components":
            assert changed.transform(X).shape[1] == 3 != reference.transform(X).shape[1]
        else:
            assert np.abs(changed._scores(X) - reference._scores(X)).max() > 1e-4, name


def test_f43_random_state_changes_the_choice_only():
    X, y = regression()
    first, second = (RFMRegressor(random_state=seed).fit(X, y) for seed in (0, 1))
    assert first.history_["cross_fitted"][0] != second.history_["cross_fitted"][0]
    explicit = [regressor(random_state=seed).fit(X, y) for seed in (0, 1)]
    assert same_bits(*explicit, X)


def test_f46_f47_refit_weights_outputs_and_accessors():
    X, y = regression()
    Y = np.column_stack([y, X[:, 2]])
    model = regressor().fit(X, Y, sample_weight=np.arange(1.0, 61))
    assert model.predict(X).shape == (60, 2)
    assert model.agop_.shape == (5, 5)
    assert model.feature_importances_.shape == (5,)
    assert model.output_agop().shape == (2, 5, 5)


def test_f49_f53_f54_imports_need_no_gpu():
    assert importlib.import_module("agop") is agop
    assert {"RFMRegressor", "RFMClassifier"} <= set(agop.__all__)


# ------------------------------------------------------ faults.md section 8: xRFM 0.4.5
def test_x2_x3_the_answer_solves_the_system():
    """Never a silently repaired or overwritten matrix: errors 0.399, 47.7 there."""
    X, y = regression(150)
    twice, targets = np.r_[X, X], np.r_[y, y]
    model = regressor(alpha=1e-3, bandwidth=1000.0, n_iter=0).fit(twice, targets)
    assert model.jitter_ == 0.0
    residual = targets - model.predict(twice) - 1e-3 * model.dual_coef_
    assert np.abs(residual).max() < 1e-7
    assert np.mean((model.predict(twice) - targets) ** 2) < 0.3


@pytest.mark.parametrize("where", ["X", "y"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_x4_f09_bad_numbers_are_errors(where, value):
    X, y = regression()
    (X if where == "X" else y).flat[7] = value
    for model in (RFMRegressor(), regressor()):
        with pytest.raises(ValueError, match=f"Input {where} contains"):
            copy.deepcopy(model).fit(X, y)
    good = regressor().fit(*regression())
    with pytest.raises(ValueError, match="Input X contains"):
        good.predict(np.full((1, 5), value))


def test_x8_no_bare_asserts():
    X, y = regression()
    with pytest.raises(ValueError, match=r"'alpha' parameter .* Got -1 instead"):
        RFMRegressor(alpha=-1).fit(X, y)
    with pytest.warns(UserWarning, match="constant"):
        regressor().fit(np.ones((10, 3)), y[:10])
    with pytest.warns(UserWarning, match="constant"):
        assert regressor().fit(X[:1], y[:1]).predict(X[:1]) == y[0]

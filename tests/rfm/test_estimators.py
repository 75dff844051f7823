"""Definitions, invariances and scikit-learn tools: what the two estimators promise."""

import logging
import os
import subprocess
import sys
import textwrap

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from sklearn.datasets import make_classification
from sklearn.feature_selection import RFE, SelectFromModel
from sklearn.gaussian_process.kernels import RBF, Matern
from sklearn.inspection import (
    DecisionBoundaryDisplay,
    PartialDependenceDisplay,
    permutation_importance,
)
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import LinearRegression
from sklearn.metrics import log_loss
from sklearn.metrics.pairwise import laplacian_kernel
from sklearn.model_selection import cross_val_score, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_info, threadpool_limits

from agop import RFMClassifier, RFMRegressor
from agop.core import arrays
from agop.kernels import KERNELS, Gaussian, GeneralizedExponential, RadialKernel
from tests.devices import DEVICES, NEEDS_ARRAY_API, LargestTensor
from tests.rfm.problems import (
    CHEAP,
    classification,
    classifier,
    points,
    regression,
    regressor,
)


def close(first, second, rtol=1e-9, atol=1e-11):
    np.testing.assert_allclose(first, second, rtol=rtol, atol=atol)


# ---------------------------------------------------------- plain kernel ridge (F47)
LENGTH = 2.5
KERNEL_RIDGE = {
    "laplace": Matern(LENGTH, nu=0.5),
    "matern32": Matern(LENGTH, nu=1.5),
    "matern52": Matern(LENGTH, nu=2.5),
    "gaussian": RBF(LENGTH),
    "product_laplace": lambda X, Z: laplacian_kernel(X, Z, gamma=1 / LENGTH),
    "polynomial": lambda X, Z: (X @ Z.T / LENGTH**2) ** 2,
}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", KERNEL_RIDGE)
def test_f47_no_round_is_kernel_ridge(name, weighted):
    X, y = regression(80)
    new = points(seed=1)
    weight = np.random.default_rng(0).uniform(0.5, 2, 80) if weighted else None
    ours = regressor(
        kernel=name,
        metric="diagonal" if name == "product_laplace" else "full",
        n_iter=0,
        bandwidth=LENGTH,
        alpha=0.1,
        fit_intercept=False,
    ).fit(X, y, sample_weight=weight)
    formula = KERNEL_RIDGE[name]
    theirs = KernelRidge(kernel="precomputed", alpha=0.1)
    theirs.fit(formula(X, X), y, sample_weight=weight)
    scale = np.abs(theirs.dual_coef_).max()
    close(ours.dual_coef_ / scale, theirs.dual_coef_ / scale, rtol=0, atol=1e-12)
    close(ours.predict(new), theirs.predict(formula(new, X)), rtol=1e-10)
    assert ours.n_iter_ == ours.best_iter_ == 0
    assert ours.intercept_ == 0
    close(ours.metric_, np.eye(5))


def test_the_intercept_takes_any_constant():
    X, y = regression()
    plain, raised = regressor().fit(X, y), regressor().fit(X, y + 1e6)
    close(raised.predict(X) - 1e6, plain.predict(X), atol=1e-7)
    close(raised.agop_, plain.agop_, atol=1e-8)


# ----------------------------------------------------------------------- definitions
def slopes(model, X, step=1e-5):
    """Jacobians of the scores by central differences, shape (n, c, d)."""
    columns = []
    for direction in np.eye(X.shape[1]):
        ends = [model._scores(X + sign * step * direction) for sign in (1, -1)]
        columns.append((ends[0] - ends[1]) / (2 * step))
    return np.stack(columns, axis=2)


@pytest.mark.parametrize("kernel", KERNELS)
def test_jacobian_is_the_derivative(kernel):
    X, y = regression()
    metric = "diagonal" if kernel in ("product_laplace", "lp_exponential") else "full"
    model = regressor(kernel=kernel, metric=metric, n_iter=2)
    model.fit(X, np.column_stack([y, y**2]))
    new = points(8, seed=1)
    jacobian = model.jacobian(new)
    assert jacobian.shape == (8, 2, 5)
    close(jacobian, slopes(model, new), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("metric", ["full", "diagonal"])
def test_agop_is_the_average_outer_product(metric, center):
    """Against finite differences of predict; a smooth kernel, weights, two outputs."""
    X, y = regression()
    weight = np.random.default_rng(0).integers(1, 4, 60).astype(float)
    model = regressor(kernel="gaussian", metric=metric, n_iter=2, center=center)
    model.fit(X, np.column_stack([y, X[:, 2]]), sample_weight=weight)
    jacobian = slopes(model, X)
    if center:
        jacobian = jacobian - np.average(jacobian, axis=0, weights=weight)
    products = np.einsum("n,ncd,nce->de", weight / weight.sum(), jacobian, jacobian)
    close(model.agop_, products, rtol=1e-6, atol=1e-8)
    assert np.array_equal(model.agop_, model.agop_.T)
    # What is derived from it.
    values, vectors = np.linalg.eigh(products)
    k = len(model.components_)
    close(model.eigenvalues_, values[::-1][:k], rtol=1e-6)
    cosines = np.abs((model.components_ * vectors.T[::-1][:k]).sum(1))
    close(cosines, 1, rtol=1e-8)
    close(model.explained_ratio_, model.eigenvalues_ / np.trace(products), rtol=1e-6)
    shares = np.diag(products) / np.trace(products)
    close(model.feature_importances_, shares, rtol=1e-6, atol=1e-9)
    close(model.feature_importances_.sum(), 1)


def test_metric_is_the_agop_of_the_round_before():
    X, y = regression()
    for power, normalize in [(1.0, "trace"), (0.5, "max"), (1.0, "none")]:
        settings = {"kernel": "gaussian", "power": power, "normalize": normalize}
        before = regressor(n_iter=1, **settings).fit(X, y).agop_
        after = regressor(n_iter=2, **settings).fit(X, y).metric_
        values, vectors = np.linalg.eigh(before)
        expected = (vectors * values**power) @ vectors.T
        diagonal = np.diag(expected)
        scale = {"trace": diagonal.mean(), "max": diagonal.max(), "none": 1}[normalize]
        close(after, expected / scale, rtol=1e-7, atol=1e-10)


def test_shapes_of_attributes():
    X, y = regression()
    full = regressor().fit(X, y)
    diagonal = regressor(metric="diagonal", n_components=2).fit(X, y)
    assert full.agop_.shape == full.metric_.shape == (5, 5)
    assert full.metric_factor_.shape[0] == 5 and diagonal.metric_factor_.shape == (5,)
    close(diagonal.metric_, np.diag(diagonal.metric_factor_**2))
    assert diagonal.components_.shape == (2, 5)
    assert diagonal.eigenvalues_.shape == diagonal.explained_ratio_.shape == (2,)
    close(diagonal.components_ @ diagonal.components_.T, np.eye(2))
    assert full.dual_coef_.shape == (60,) and isinstance(full.intercept_, float)
    lengths = {len(column) for column in full.history_.values()}
    assert lengths == {full.n_iter_ + 1}
    assert full.kernel_ == "laplace" and full.bandwidth_ > 0 and full.alpha_ == 1e-2
    np.testing.assert_array_equal(full.X_fit_, X)


def test_output_agop_adds_up():
    X, y = classification(n_classes=3)
    for center in (False, True):
        model = classifier(center=center).fit(X, y)
        parts = model.output_agop()
        assert parts.shape == (3, 5, 5)
        close(parts.sum(0), model.agop_)
    weight = np.arange(1.0, 61)
    model = classifier().fit(X, y, sample_weight=weight)
    close(model.output_agop(sample_weight=weight).sum(0), model.agop_)
    new, weight = points(20, seed=1), np.arange(20.0)
    parts = classifier().fit(X, y).output_agop(new, sample_weight=weight)
    jacobian = classifier().fit(X, y).jacobian(new)
    expected = np.einsum("n,ncd,nce->cde", weight / weight.sum(), jacobian, jacobian)
    close(parts, expected)


def test_transform_is_the_projection_on_components():
    X, y = regression()
    model = regressor(n_components=3).fit(X, y)
    close(model.transform(X), X @ model.components_.T)
    close(model.fit_transform(X, y), model.transform(X))
    names = ["rfmregressor0", "rfmregressor1", "rfmregressor2"]
    assert model.get_feature_names_out().tolist() == names
    for library in ("pandas", "polars"):
        frame = model.set_output(transform=library).transform(X)
        assert list(frame.columns) == names


def test_number_of_components_follows_the_gap():
    X = points(300, 6)
    two = regressor(n_iter=2).fit(X, np.sin(X[:, 0]) + X[:, 1] ** 2)
    assert len(two.components_) == 2
    assert np.abs(two.components_[:, :2]).sum() > 1.8
    one = regressor(n_iter=2).fit(X, X @ np.ones(6))
    assert len(one.components_) == 1
    close(one.components_[0], np.ones(6) / 6**0.5, rtol=0.1)


# ----------------------------------------------------------------------- invariances
@pytest.mark.parametrize("n_iter", [0, 2])
@pytest.mark.parametrize("shape", [(60, 5), (8, 20)])
def test_rotation(shape, n_iter):
    """G(X Q) = Qᵀ G(X) Q, and predictions do not notice."""
    X, y = regression(*shape)
    new = points(10, shape[1], seed=1)
    rotation = np.linalg.qr(points(shape[1], shape[1], seed=2)).Q
    plain = regressor(n_iter=n_iter).fit(X, y)
    turned = regressor(n_iter=n_iter).fit(X @ rotation, y)
    close(turned.predict(new @ rotation), plain.predict(new), rtol=1e-8)
    close(turned.agop_, rotation.T @ plain.agop_ @ rotation, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("Model", [RFMRegressor, RFMClassifier])
@pytest.mark.parametrize("parameters", [{}, CHEAP], ids=["auto", "explicit"])
def test_order_of_rows(Model, parameters):
    """Through the cross-fitted choice too: folds follow contents, not positions."""
    X, y = classification(90, 4, n_classes=3)
    order = np.random.default_rng(1).permutation(90)
    first = Model(random_state=0, **parameters).fit(X, y)
    second = Model(random_state=0, **parameters).fit(X[order], y[order])
    assert (first.alpha_, first.best_iter_) == (second.alpha_, second.best_iter_)
    close(first._scores(X), second._scores(X), rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("Model", [RFMRegressor, RFMClassifier])
def test_duplicate_rows_equal_weights_through_the_choice(Model):
    """Peers F19 too: weight 0 is removal."""
    X, y = classification(50, 4)
    counts = np.random.default_rng(0).integers(0, 4, 50)
    order = np.random.default_rng(1).permutation(counts.sum())
    many, targets = np.repeat(X, counts, 0)[order], np.repeat(y, counts)[order]
    repeated = Model(random_state=0).fit(many, targets)
    weighted = Model(random_state=0).fit(X, y, sample_weight=counts)
    assert repeated.kernel_ == weighted.kernel_
    assert (repeated.alpha_, repeated.best_iter_) == (
        weighted.alpha_,
        weighted.best_iter_,
    )
    close(
        weighted.history_["cross_fitted"], repeated.history_["cross_fitted"], rtol=1e-7
    )
    close(weighted._scores(X), repeated._scores(X), rtol=1e-7, atol=1e-8)
    if Model is RFMClassifier:
        close(weighted.predict_proba(X), repeated.predict_proba(X), rtol=1e-6)


def test_scalar_weight_is_no_weight():
    X, y = regression()
    close(
        regressor().fit(X, y, sample_weight=1).predict(X),
        regressor().fit(X, y).predict(X),
    )


@pytest.mark.parametrize(
    "parameters", [{}, {"n_iter": 1, "metric": "diagonal"}], ids=str
)
def test_size_of_blocks_does_not_matter(monkeypatch, parameters):
    X, y = regression(100)
    model = RFMRegressor(random_state=0, **parameters).fit(X, y)
    expected = model.predict(X), model.jacobian(X), model.agop_
    monkeypatch.setattr(arrays, "BLOCK_BYTES", 3000)
    small = RFMRegressor(random_state=0, **parameters).fit(X, y)
    for fitted in (model, small):
        close(fitted.predict(X), expected[0])
        close(fitted.jacobian(X), expected[1], atol=1e-8)
    close(small.agop_, expected[2], rtol=1e-7, atol=1e-10)


def test_number_of_threads_does_not_matter():
    """Those of torch, and of the BLAS of numpy and scipy."""
    X, y = regression(300)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            with threadpool_limits(count, user_api="blas"):
                pools = [p for p in threadpool_info() if p["user_api"] == "blas"]
                assert all(pool["num_threads"] == count for pool in pools)
                results.append(regressor(n_iter=2).fit(X, y).predict(X))
    finally:
        torch.set_num_threads(threads)
    close(*results)


def test_no_argument_is_changed():
    """Peers F02: data, weights and parameters are only read."""
    X, y = classification()
    weight = np.ones(60)
    before = X.copy(), y.copy(), weight.copy()
    class_weight = {0: 1.0, 1: 2.0}
    model = classifier(class_weight=class_weight).fit(X, y, sample_weight=weight)
    model.predict(X), model.jacobian(X), model.output_agop(X)
    for array, copy in zip((X, y, weight), before, strict=True):
        assert np.array_equal(array, copy)
    assert class_weight == {0: 1.0, 1: 2.0}
    assert model.class_weight is class_weight


# ------------------------------------------------------------- data wider than long
def test_f22_wide_data_need_no_square_matrix():
    X = points(10, 10_000)
    y = X[:, 0]
    for metric in ("full", "diagonal"):
        with LargestTensor() as largest:
            model = regressor(metric=metric, n_iter=2).fit(X, y)
            model.predict(X), model.transform(X), model.jacobian(X)
        assert largest.numel <= 4 * 10 * X.size
        assert model.feature_importances_.shape == (10_000,)
        assert np.isfinite(model.predict(X)).all()
    auto = RFMRegressor(n_iter=1, kernel="laplace").fit(X, y)
    assert np.isfinite(auto.predict(X)).all()


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("n_iter", [0, 1, 3])
def test_f22_wide_data_equal_the_direct_computation(n_iter, center):
    """The rows in an orthonormal basis of their span, where d = n."""
    X, y = regression(12, 80)
    basis = np.linalg.qr(X.T).Q  # (80, 12)
    Y = np.column_stack([y, y**2])
    wide = regressor(n_iter=n_iter, center=center).fit(X, Y)
    narrow = regressor(n_iter=n_iter, center=center).fit(X @ basis, Y)
    new = points(6, 12, seed=1)
    close(wide.predict(new @ basis.T), narrow.predict(new), rtol=1e-7)
    close(wide.agop_, basis @ narrow.agop_ @ basis.T, rtol=1e-6, atol=1e-9)
    if n_iter:  # points outside the span are seen through their projection
        outside = points(6, 80, seed=2)
        inside = outside @ basis
        close(wide.predict(outside), narrow.predict(inside), rtol=1e-7, atol=1e-8)


# ---------------------------------------------------------------------- classifiers
def test_probabilities_sum_to_one_and_are_not_clipped():
    """Peers F23: no floor under the log-loss."""
    X, y = classification(1500, 1)
    X[:, 0] += np.where(y, 50, -50)
    model = classifier(n_iter=0, alpha=1e-6).fit(X, y)
    probabilities = model.predict_proba(X)
    close(probabilities.sum(1), 1, rtol=1e-12)
    assert (probabilities >= 0).all()
    assert probabilities.min() < 1e-3
    assert np.array_equal(model.classes_[probabilities.argmax(1)], model.predict(X))


def test_calibrated_probabilities_beat_softmax_of_the_scores():
    X, y = make_classification(
        400, 6, n_informative=3, n_classes=3, flip_y=0.15, random_state=0
    )
    model = RFMClassifier(random_state=0).fit(X[:250], y[:250])
    scores = torch.from_numpy(model._scores(X[250:]))
    plain = torch.softmax(scores, dim=1).numpy()
    ours = log_loss(y[250:], model.predict_proba(X[250:]))
    assert model.slope_ > 1.5
    assert ours < log_loss(y[250:], plain) - 0.05


def test_decision_function():
    X, y = classification()
    two = classifier().fit(X, y)
    decision = two.decision_function(X)
    assert decision.shape == (60,)
    assert np.array_equal(decision > 0, two.predict(X) == 1)
    odds = np.log(two.predict_proba(X)[:, 1] / two.predict_proba(X)[:, 0])
    close(odds, two.slope_ * decision, rtol=1e-6)
    three = classifier().fit(*classification(n_classes=3))
    assert three.decision_function(X).shape == (60, 3)


def test_class_weight_is_a_weight():
    X, y = classification(90)
    y = np.where(np.arange(90) % 3, y, 0)
    weight = np.where(y == 1, 3.0, 1.0)
    weight *= 90 / weight.sum()
    by_class = classifier(class_weight={0: 1, 1: 3}).fit(X, y)
    by_row = classifier().fit(X, y, sample_weight=weight)
    close(by_class.predict_proba(X), by_row.predict_proba(X))

    balanced = classifier(class_weight="balanced").fit(X, y)
    counts = np.bincount(y)
    assert counts[0] > 1.5 * counts[1]
    by_row = classifier().fit(X, y, sample_weight=(90 / (2 * counts))[y])
    close(balanced.predict_proba(X), by_row.predict_proba(X))
    plain = classifier().fit(X, y).predict_proba(X)
    assert np.abs(balanced.predict_proba(X) - plain).max() > 0.01


# ---------------------------------------------------------------- kernels and options
def test_own_kernels():
    class RationalQuadratic(RadialKernel):
        def value(self, s):
            return 1 / (1 + s)

        def slope(self, s):
            return -1 / (1 + s) ** 2

        def __repr__(self):
            return "RationalQuadratic()"

    X, y = regression()
    model = regressor(kernel=RationalQuadratic()).fit(X, y)
    assert isinstance(model.kernel_, RationalQuadratic)
    close(model.jacobian(X), slopes(model, X), rtol=1e-5, atol=1e-6)


def test_kernels_by_name_and_by_object_agree():
    X, y = regression()
    named = regressor(kernel="gaussian").fit(X, y)
    made = regressor(kernel=Gaussian()).fit(X, y)
    assert named.kernel_ == made.kernel_ == "gaussian"
    assert np.array_equal(named.predict(X), made.predict(X))
    other = regressor(kernel=GeneralizedExponential(1.7)).fit(X, y)
    assert other.kernel_ == GeneralizedExponential(1.7)


def test_the_default_metric_of_an_axis_bound_kernel_is_diagonal():
    X, y = regression()
    model = regressor(kernel="product_laplace", metric="auto").fit(X, y)
    assert model.metric_factor_.ndim == 1


# ----------------------------------------------------------------- scikit-learn tools
def test_pipeline_also_as_a_middle_step():
    X, y = regression()
    last = make_pipeline(StandardScaler(), regressor()).fit(X, y)
    assert last.score(X, y) > 0.8
    middle = make_pipeline(regressor(n_components=2), LinearRegression()).fit(X, y)
    assert middle[-1].n_features_in_ == 2
    assert middle.predict(X).shape == (60,)


def test_selectors_keep_the_features_that_matter():
    X, y = regression(150)
    chosen = SelectFromModel(regressor(), max_features=2, threshold=-np.inf).fit(X, y)
    assert chosen.get_support().tolist() == [True, True, False, False, False]
    eliminated = RFE(regressor(), n_features_to_select=2).fit(X, y)
    assert eliminated.support_.tolist() == [True, True, False, False, False]


def test_inspection_tools():
    X, y = regression(100)
    model = regressor().fit(X, y)
    importances = permutation_importance(model, X, y, n_repeats=2, random_state=0)
    assert set(importances.importances_mean.argsort()[-2:]) == {0, 1}
    display = PartialDependenceDisplay.from_estimator(
        model, X, [0, (0, 1)], grid_resolution=6
    )
    assert display.axes_.size == 2
    two = classifier().fit(*classification(d=2))
    display = DecisionBoundaryDisplay.from_estimator(
        two, points(d=2), grid_resolution=9
    )
    assert display.response.shape == (9, 9)


def test_cross_validation():
    X, y = classification(90, n_classes=3)
    labels = np.array(["a", "b", "c"])[y]
    assert cross_val_score(classifier(), X, labels, cv=3).mean() > 0.6
    scores = cross_val_score(classifier(), X, labels, cv=3, scoring="neg_log_loss")
    assert np.isfinite(scores).all()


def test_metadata_routing():
    """Conventions 1.5: weights go through a pipeline and cross-validation."""
    X, y = regression()
    weight = np.r_[np.ones(30), np.zeros(30)]
    with sklearn.config_context(enable_metadata_routing=True):
        step = regressor().set_fit_request(sample_weight=True)
        pipeline = make_pipeline(
            StandardScaler().set_fit_request(sample_weight=False), step
        )
        pipeline.fit(X, y, sample_weight=weight)
        scores = cross_validate(
            step.set_score_request(sample_weight=True),
            X,
            y,
            params={"sample_weight": np.ones(60)},
        )
    assert len(pipeline[-1].X_fit_) == 30
    assert np.isfinite(scores["test_score"]).all()


@NEEDS_ARRAY_API
def test_array_api_dispatch_follows_x():
    """Conventions 1.8: numpy out, unless dispatch is on."""
    X, y = classification()
    model = classifier().fit(torch.from_numpy(X), y)
    assert isinstance(model.predict_proba(torch.from_numpy(X)), np.ndarray)
    with sklearn.config_context(array_api_dispatch=True):
        given = torch.from_numpy(X)
        model = classifier().fit(given, torch.from_numpy(y))
        for method in ("predict_proba", "decision_function", "transform", "jacobian"):
            assert isinstance(getattr(model, method)(given), torch.Tensor)
        assert isinstance(model.predict_proba(X), np.ndarray)


# ------------------------------------------------------------- callbacks and logging
class Recorder:
    """A callback that writes down the tasks, and stops after some of them."""

    def __init__(self, stop_after=None):
        self.tasks = []
        self.predictions = []
        self.stop_after = stop_after

    def setup(self, estimator, context):
        pass

    def teardown(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context):
        pass

    def on_fit_task_end(self, estimator, context, *, X=None, fitted_estimator=None):
        self.tasks.append(context.task_name)
        if fitted_estimator is not None:
            self.predictions.append(fitted_estimator.predict(X))
        return context.task_name == "round" and (
            self.tasks.count("round") == self.stop_after
        )


def callbacks():
    return pytest.importorskip("sklearn.callback", exc_type=ImportError)


def test_callbacks_see_every_round():
    callbacks()
    X, y = regression()
    recorder = Recorder()
    model = RFMRegressor(n_iter=2, random_state=0).set_callbacks(recorder).fit(X, y)
    assert recorder.tasks.count("round") == 3
    assert recorder.tasks.count("selection") == 3
    for n_iter, predicted in enumerate(recorder.predictions):
        assert predicted.shape == (60,), n_iter
    assert np.array_equal(recorder.predictions[-1], model.predict(X))


def test_a_callback_can_stop_the_rounds():
    callbacks()
    X, y = regression()
    model = regressor(n_iter=10).set_callbacks(Recorder(stop_after=3)).fit(X, y)
    assert model.n_iter_ == model.best_iter_ == 2
    close(model.predict(X), regressor(n_iter=2).fit(X, y).predict(X))


def test_progress_bar_and_scoring_monitor(capsys):
    module = callbacks()
    pytest.importorskip("rich")
    X, y = classification()
    monitor = module.ScoringMonitor(scoring="accuracy")
    model = classifier(n_iter=2).set_callbacks(module.ProgressBar(), monitor)
    model.fit(X, y)
    assert "RFMClassifier" in capsys.readouterr().out
    logs = monitor.get_logs()
    assert len(logs.data) >= 3


@pytest.mark.parametrize("parameters", [{}, {"n_iter": 2, "alpha": 1e-2}], ids=str)
def test_number_of_steps_announced(parameters):
    """No more tasks than were announced: progress never exceeds 100 %."""
    callbacks()
    recorder = Recorder()
    contexts = []
    recorder.on_fit_task_begin = lambda estimator, context: contexts.append(context)
    RFMRegressor(random_state=0, **parameters).set_callbacks(recorder).fit(
        *regression()
    )
    root = contexts[0]
    assert len(contexts) - 1 <= root.max_subtasks


def script(code, **environment):
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1", **environment},
    )


@pytest.mark.slow
def test_without_callbacks_of_scikit_learn():
    """Conventions 1.7: scikit-learn before 1.9."""
    result = script(
        """
        import sys
        import sklearn.base, sklearn.pipeline, sklearn.model_selection
        import sklearn.compose, sklearn.datasets, sklearn.decomposition
        import sklearn.frozen, sklearn.linear_model, sklearn.metrics
        import sklearn.neural_network, sklearn.preprocessing
        sys.modules["sklearn.callback"] = None
        import numpy as np
        from agop import RFMRegressor
        X = np.random.default_rng(0).standard_normal((40, 3))
        model = RFMRegressor(n_iter=2, alpha=1e-2).fit(X, X[:, 0])
        assert not hasattr(model, "set_callbacks")
        print(model.n_iter_, model.score(X, X[:, 0]) > 0.9)
        """
    )
    assert result.stdout == "2 True\n"


def test_verbose_logs_and_prints_nothing(caplog, capfd):
    X, y = regression()
    with caplog.at_level(logging.INFO, logger="agop"):
        regressor(n_iter=2).fit(X, y)
        assert not caplog.messages
        RFMRegressor(n_iter=1, verbose=1).fit(X, y)
    assert any(message.startswith("round 1: alpha") for message in caplog.messages)
    assert any(message.startswith("selection, round 0") for message in caplog.messages)
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_verbose_in_a_pipe_prints_nothing():
    result = script(
        """
        import numpy as np
        from agop import RFMRegressor
        X = np.random.default_rng(0).standard_normal((40, 3))
        RFMRegressor(verbose=2, n_iter=1, alpha=1e-2).fit(X, X[:, 0])
        """
    )
    assert (result.stdout, result.stderr) == ("", "")


@pytest.mark.slow
def test_verbose_on_a_terminal_shows_a_bar():
    pytest.importorskip("rich")
    code = """
        import numpy as np
        from agop import RFMRegressor
        X = np.random.default_rng(0).standard_normal((40, 3))
        RFMRegressor(verbose=1, n_iter=1, alpha=1e-2).fit(X, X[:, 0])
    """
    result = script(code, FORCE_COLOR="1", TERM="xterm", COLUMNS="80")
    assert result.stdout == ""
    assert "round 1" in result.stderr


# --------------------------------------------------------------------------- devices
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("Model", [RFMRegressor, RFMClassifier])
def test_devices_agree(Model, dtype, device):
    X, y = classification(200, 6)
    X = X.astype(dtype)
    here = Model(random_state=0).fit(X, y)
    there = Model(random_state=0, device=device).fit(X, y)
    assert isinstance(there.dual_coef_, np.ndarray)  # P3: no device handles
    tolerance = 2e-2 if dtype == np.float32 else 1e-6
    close(there._scores(X), here._scores(X), rtol=tolerance, atol=tolerance)
    moved = there.set_params(device="cpu")
    close(moved._scores(X), here._scores(X), rtol=tolerance, atol=tolerance)
    close(there.jacobian(X), here.jacobian(X), rtol=0.1, atol=50 * tolerance)


@pytest.mark.parametrize("device", DEVICES)
def test_tensors_of_a_device_as_input(device):
    X, y = regression()
    given = torch.from_numpy(X).to(device), torch.from_numpy(y).to(device)
    model = regressor().fit(*given)
    close(model.predict(given[0]), regressor().fit(X, y).predict(X))


def test_frames_with_names():
    X, y = regression()
    frame = pd.DataFrame(X, columns=[f"feature {i}" for i in range(5)])
    model = regressor().fit(frame, pd.Series(y))
    assert model.feature_names_in_.tolist() == list(frame.columns)
    close(model.predict(frame), regressor().fit(X, y).predict(X), rtol=0, atol=0)


def test_balanced_class_weights_count_copies():
    X, y = classification(40)
    y[:30] = 0
    y[30:] = 1
    counts = np.random.default_rng(0).integers(1, 4, 40)
    settings = {**CHEAP, "class_weight": "balanced", "n_iter": 1, "random_state": 0}
    weighted = RFMClassifier(**settings).fit(X, y, counts)
    written = RFMClassifier(**settings).fit(
        np.repeat(X, counts, 0), np.repeat(y, counts)
    )
    np.testing.assert_allclose(
        weighted.predict_proba(X), written.predict_proba(X), rtol=1e-9
    )


def test_wide_data_with_many_outputs_need_little_memory():
    """Peers F28: gradients are taken for some outputs at a time."""
    X, Y = points(100, 500), points(100, 60, seed=1)
    model = RFMRegressor(**{**CHEAP, "metric": "diagonal", "n_iter": 1})
    with LargestTensor() as largest:
        model.fit(X, Y)
    assert largest.numel < 2**20  # all at once are 100 * 60 * 500 = 3e6 numbers

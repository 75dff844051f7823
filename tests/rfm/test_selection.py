"""The choice of settings: folds, cross-fitting, and the slope of probabilities."""

import math

import numpy as np
import pytest
import torch

from agop import RFMClassifier, RFMRegressor
from agop.kernels import DiagonalMetric, FullMetric, Gaussian, Laplace
from agop.rfm import fitting
from agop.rfm.bandwidth import Median
from agop.rfm.calibration import fit_slope, log_loss, probabilities, squared_error
from agop.rfm.recursion import Problem, Recipe
from agop.rfm.selection import cross_fit, descend, distinct_rows, make_folds
from tests.rfm.problems import CHEAP, classification, points, regression

WIDE_CHOICE = {**CHEAP, "alpha": "auto"}


def folds_of(X, targets, weight=None, seed=0, n_folds=3):
    generator = np.random.RandomState(seed)
    return make_folds(problem_of(X, targets, weight), generator, n_folds)


def problem_of(X, targets, weight=None):
    weight = np.ones(len(X)) if weight is None else np.asarray(weight, dtype=float)
    table = targets.reshape(len(X), -1).astype(float)
    return Problem(*map(torch.from_numpy, (X, table, weight)))


def table_of(folds, X):
    """Test and training weight of every distinct row in every fold."""
    rows = sorted(set(map(tuple, X)))
    table = np.zeros((len(folds), 2, len(rows)))
    for k, fold in enumerate(folds):
        for part, (index, weight) in enumerate(
            [(fold.test, fold.test_weight), (fold.train, fold.train_weight)]
        ):
            for i, w in zip(index.tolist(), weight.tolist(), strict=True):
                table[k, part, rows.index(tuple(X[i]))] += w
    return table


# ------------------------------------------------------------------------------- folds
@pytest.mark.parametrize("n", [2, 3, 10, 31])
def test_every_row_is_tested_once(n):
    X, y = regression(n)
    folds = folds_of(X, y)
    assert len(folds) == min(3, n)
    tested = torch.cat([fold.test for fold in folds])
    assert sorted(tested.tolist()) == list(range(n))
    for fold in folds:
        together = torch.cat([fold.test, fold.train])
        assert sorted(together.tolist()) == list(range(n))
    sizes = [len(fold.test) for fold in folds]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("weight", [1.0, 2.0, 1e6])
def test_a_single_row_makes_no_folds(weight):
    X, y = regression(1)
    assert folds_of(X, y, weight=[weight]) == []  # copies would be trained on


@pytest.mark.parametrize("size", [1e-100, 0.3, 1.0, 2.7, 50.0, 1e40])
def test_a_row_is_never_in_training_and_test_whatever_its_weight(size):
    X, y = regression(12)
    weight = size * np.random.default_rng(0).uniform(0.5, 2, 12)
    for fold in folds_of(X, y, weight=weight):
        assert not set(fold.test.tolist()) & set(fold.train.tolist())
        assert np.array_equal(fold.test_weight.numpy(), weight[fold.test])
        assert np.array_equal(fold.train_weight.numpy(), weight[fold.train])


def test_weights_are_copies():
    X, y = regression(12)
    counts = np.random.default_rng(0).integers(1, 9, 12)
    weighted = distinct_rows(problem_of(X, y, counts))
    written = distinct_rows(problem_of(np.repeat(X, counts, 0), np.repeat(y, counts)))
    for one, other in zip(vars(weighted).values(), vars(written).values(), strict=True):
        assert torch.equal(one, other)
    assert len(weighted.X) == 12
    assert weighted.sample_weight.sum() == counts.sum()


@pytest.mark.parametrize("weight", [3.0, 4.0, 7.0, 0.5, 2.7, 1e12])
def test_copies_of_an_input_with_several_targets_are_dealt_in_turn(weight):
    """Such an input was measured several times: a table of few categories, say."""
    X = np.repeat(points(4, 2), 2, 0)
    y = np.tile([0.0, 1.0], 4)
    folds = folds_of(X, y, weight=np.full(8, weight))
    table = np.zeros((8, 3))
    for k, fold in enumerate(folds):
        table[fold.test.numpy(), k] = fold.test_weight.numpy()
        trained = np.full(8, weight)
        trained -= table[:, k]
        np.testing.assert_allclose(
            fold.train_weight.numpy(), trained[fold.train.numpy()], rtol=1e-9
        )
    np.testing.assert_allclose(table.sum(1), weight, rtol=1e-9)  # tested once
    assert np.ptp(table, axis=1).max() <= 1 + 1e-9 * weight  # as evenly as can be
    if weight == int(weight):
        assert np.ptp(table.sum(0)) <= 1 + 1e-9 * weight * 8


def test_folds_do_not_depend_on_the_order_of_rows():
    X, y = regression(40)
    order = np.random.default_rng(0).permutation(40)
    one, other = (
        distinct_rows(problem_of(X[rows], y[rows])) for rows in (order, slice(None))
    )
    assert torch.equal(one.X, other.X)
    assert torch.equal(one.Y, other.Y)
    assert not np.array_equal(
        table_of(folds_of(X, y), X), table_of(folds_of(X, y, seed=1), X)
    )


def test_classes_are_dealt_evenly():
    X = points(100)
    codes = np.repeat([0, 1, 2], [80, 15, 5])
    for fold in folds_of(X, np.eye(3)[codes]):
        counts = np.bincount(codes[fold.test.numpy()], minlength=3)
        assert np.abs(counts - np.array([80, 15, 5]) / 3).max() < 1


# ------------------------------------------------------------------------------- search
@pytest.mark.parametrize("size", [1, 2, 3, 12])
def test_descend_finds_the_minimum_of_a_valley(size):
    for lowest in range(size):
        for start in range(size):
            seen = set()

            def error(i, lowest=lowest, seen=seen):
                seen.add(i)
                return abs(i - lowest) ** 1.5

            assert descend(error, size, start) == lowest
            assert all(0 <= i < size for i in seen)
    assert descend(lambda i: 1.0, 5, 4) <= 4  # ties end


def cross_fitted(X, y, recipes, penalties=(1e-3, 1e-2, 1e-1, 1.0), n_iter=3):
    table = y.reshape(len(X), -1).astype(float)
    problem = Problem(*map(torch.from_numpy, (X, table, np.ones(len(X)))))
    folds = folds_of(X, table)
    rounds = cross_fit(problem, folds, recipes, penalties, n_iter, squared_error)
    return list(rounds)[-1], problem


FULL = Recipe(Laplace(), FullMetric, Median())
DIAGONAL = Recipe(Laplace(), DiagonalMetric, Median())


def test_no_row_sees_its_own_label():
    """Peers F42, F52: the metric too is learned on the other folds.

    Changing the labels of one fold's test rows leaves their predictions alone.
    """
    X, y = regression(60)
    folds = folds_of(X, y)
    test = folds[0].test.numpy()
    weight = np.ones(60)

    def predictions(targets):
        table = targets[:, None]
        problem = Problem(*map(torch.from_numpy, (X, table, weight)))
        rounds = cross_fit(problem, folds, [FULL], [1e-2], 3, squared_error)
        (trial,) = list(rounds)[-1]
        return [
            result.out_of_fold.scores[: len(test)].numpy() for result in trial.results
        ]

    changed = y.copy()
    changed[test] += 0.3 * np.random.default_rng(0).standard_normal(len(test))
    first, second = predictions(y), predictions(changed)
    for before, after in zip(first, second, strict=False):
        assert np.array_equal(before, after)


def test_cross_fitted_scores_are_those_of_fits_on_the_other_folds():
    X, y = regression(60)
    folds = folds_of(X, y)
    problem = Problem(*map(torch.from_numpy, (X, y[:, None], np.ones(60))))
    (trial,) = list(cross_fit(problem, folds, [FULL], [1e-2], 2, squared_error))[-1]
    for n_iter, result in enumerate(trial.results):
        expected = []
        for fold in folds:
            train, test = fold.train.numpy(), fold.test.numpy()
            model = RFMRegressor(**{**CHEAP, "n_iter": n_iter})
            expected.append(model.fit(X[train], y[train]).predict(X[test]))
        found = result.out_of_fold.scores[:, 0].numpy()
        np.testing.assert_allclose(found, np.concatenate(expected), rtol=1e-8)


def test_shuffled_labels_show_no_effect():
    """Closed-form leave-one-out is fooled by a full metric, cross-fitting is not."""
    rng = np.random.default_rng(5)
    X, y = points(150, 10), rng.standard_normal(150)
    model = RFMRegressor(**{**WIDE_CHOICE, "n_iter": 4}, random_state=0).fit(X, y)
    chance = y.var()
    assert np.nanmin(model.history_["cross_fitted"]) > 0.93 * chance
    auto = RFMRegressor(random_state=0).fit(X, y)
    assert np.nanmin(auto.history_["cross_fitted"]) > 0.9 * chance
    assert auto.predict(X).std() < 0.7 * y.std()
    loss = RFMClassifier(random_state=0).fit(X, rng.permutation(150) % 2)
    assert np.nanmin(loss.history_["cross_fitted"]) > 0.67  # log 2 = 0.693


def test_leave_one_out_is_too_optimistic_for_a_full_metric():
    y = np.random.default_rng(5).standard_normal(150)
    model = RFMRegressor(
        kernel="laplace", metric="full", n_iter=4, bandwidth="auto", alpha=1e-2
    )
    history = model.fit(points(150, 30), y).history_
    assert history["leave_one_out"][0] > 0.95 * y.var()  # the plain kernel is honest
    assert history["leave_one_out"][-1] < 0.8 * y.var()
    assert np.nanmin(history["cross_fitted"]) > 0.95 * y.var()


def test_a_multi_index_target_asks_for_rounds():
    X = points(300, 10)
    y = np.sin(2 * X[:, 0] + X[:, 1]) + 0.05 * points(300, 1, seed=1)[:, 0]
    model = RFMRegressor(random_state=0).fit(X, y)
    assert model.best_iter_ > 0
    assert model.feature_importances_[:2].sum() > 0.9
    new = points(300, 10, seed=2)
    truth = np.sin(2 * new[:, 0] + new[:, 1])
    plain = RFMRegressor(random_state=0, n_iter=0).fit(X, y)
    assert model.score(new, truth) > plain.score(new, truth) + 0.1
    losses = model.history_["cross_fitted"]
    assert losses[model.best_iter_] == pytest.approx(np.nanmin(losses), rel=1e-8)


def test_the_kind_of_metric_follows_the_data():
    X = points(250, 8)
    full, diagonal = (
        RFMRegressor(kernel="gaussian", random_state=0, metric=metric)
        for metric in ("full", "diagonal")
    )
    rotation = np.linalg.qr(points(8, 8, seed=1)).Q
    for y, better, worse in (
        (np.sin(3 * X @ rotation[0]), full, diagonal),
        (np.sin(2 * X[:, 0]) + np.sin(2 * X[:, 1]), diagonal, full),
    ):
        best = [
            np.nanmin(m.fit(X, y).history_["cross_fitted"]) for m in (better, worse)
        ]
        chosen = RFMRegressor(kernel="gaussian", random_state=0).fit(X, y)
        found = np.nanmin(chosen.history_["cross_fitted"])
        assert found <= min(best) * 1.02
        if better is full:
            assert best[0] < best[1]
            assert chosen.metric_factor_.ndim == 2


# ----------------------------------------------------------------------------- switches
def test_explicit_settings_choose_nothing(monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError("nothing is left to choose")

    for name in ("cross_fit", "make_folds", "random_rows"):
        monkeypatch.setattr(fitting, name, fail)
    RFMRegressor(**CHEAP).fit(*regression())
    RFMClassifier(**CHEAP | {"n_iter": 0}).fit(*classification())


@pytest.mark.parametrize(
    "fixed",
    [
        {"kernel": "gaussian"},
        {"metric": "diagonal"},
        {"n_iter": 3},
        {"n_iter": 0},
        {"bandwidth": 2.0},
        {"bandwidth": "median"},
        {"alpha": 0.3},
    ],
    ids=str,
)
def test_each_explicit_value_switches_its_choice_off(fixed, monkeypatch):
    seen = {}
    original = fitting.cross_fit

    def spy(part, folds, recipes, penalties, n_iter, loss):
        seen.update(recipes=list(recipes), penalties=penalties, n_iter=n_iter)
        return original(part, folds, recipes, penalties, n_iter, loss)

    monkeypatch.setattr(fitting, "cross_fit", spy)
    model = RFMRegressor(random_state=0, **fixed).fit(*regression(40))
    recipes = seen["recipes"]
    ((name, value),) = fixed.items()
    if name == "kernel":
        assert {recipe.kernel for recipe in recipes} == {Gaussian()}
        assert model.kernel_ == "gaussian"
    if name == "metric":
        assert {recipe.metric for recipe in recipes} == {DiagonalMetric}
        assert model.metric_factor_.ndim == 1
    if name == "n_iter":
        assert seen["n_iter"] == model.best_iter_ == value
    if name == "bandwidth":
        assert len({recipe.bandwidth for recipe in recipes}) == 1
        assert value in ("median", model.bandwidth_)
    if name == "alpha":
        assert seen["penalties"] == (0.3,)
        assert model.alpha_ == 0.3
    others = len(recipes) * len(seen["penalties"])
    assert others > 1  # the rest stays open


@pytest.mark.parametrize("metric", ["full", "diagonal", "auto"])
def test_a_number_of_rounds_is_run_even_if_the_loss_grows(metric):
    X, y = points(90, 30), points(90, 1, seed=5)[:, 0]
    model = RFMRegressor(n_iter=6, metric=metric, alpha=1e-2, random_state=0)
    model.fit(X, y)
    assert model.best_iter_ == model.n_iter_ == 6
    if metric == "full":  # the choice was over before
        assert np.isnan(model.history_["cross_fitted"][-1])


def test_many_rows_are_sampled_for_the_choice(monkeypatch):
    sizes = []
    original = fitting.make_folds

    def spy(problem, *arguments):
        sizes.append(len(problem.X))
        return original(problem, *arguments)

    monkeypatch.setattr(fitting, "make_folds", spy)
    monkeypatch.setattr(fitting, "SELECTION_ROWS", 50)
    X, y = regression(120)
    model = RFMRegressor(random_state=0).fit(X, y)
    assert sizes == [50]
    assert len(model.X_fit_) == 120  # peers F41: the final fit uses all rows
    assert model.score(X, y) > 0.8


def test_random_state_decides_the_folds():
    X, y = regression()
    losses = [
        RFMRegressor(random_state=seed, n_iter=0).fit(X, y).history_["cross_fitted"][0]
        for seed in (0, 0, 1)
    ]
    assert losses[0] == losses[1] != losses[2]
    shared = np.random.RandomState(0)
    first, second = (
        RFMRegressor(random_state=shared, n_iter=0).fit(X, y) for _ in range(2)
    )
    assert (first.history_["cross_fitted"] != second.history_["cross_fitted"]).any()


# -------------------------------------------------------------------------- calibration
def two_scores(margin, right, n):
    """n rows with score difference `margin`, a share `right` of them correct."""
    scores = torch.zeros(n, 2, dtype=torch.float64)
    scores[:, 1] = margin
    targets = torch.zeros(n, 2, dtype=torch.float64)
    count = round(right * n)
    targets[:count, 1] = 1
    targets[count:, 0] = 1
    return scores, targets


@pytest.mark.parametrize("right", [0.6, 0.9, 0.99])
@pytest.mark.parametrize("margin", [0.1, 1.0, 7.0])
def test_slope_in_closed_form(margin, right):
    """softmax(a · score) = the share that is right; one sample counts as uniform."""
    n = 1000
    scores, targets = two_scores(margin, right, n)
    share = (right * n + 0.5) / (n + 1)
    slope = fit_slope(scores, targets, torch.ones(n, dtype=torch.float64))
    assert slope == pytest.approx(math.log(share / (1 - share)) / margin, rel=1e-6)
    found = probabilities(scores, slope)
    np.testing.assert_allclose(found[:, 1].numpy(), share, rtol=1e-6)


def test_slope_counts_weights_and_minimises_the_log_loss():
    rng = np.random.default_rng(0)
    scores = torch.from_numpy(rng.standard_normal((200, 3)))
    labels = rng.integers(0, 3, 200)
    labels[:120] = scores[:120].argmax(1).numpy()
    targets = torch.eye(3, dtype=torch.float64)[torch.from_numpy(labels)]
    counts = torch.from_numpy(rng.integers(0, 4, 200))
    weighted = fit_slope(scores, targets, counts.double())
    index = torch.repeat_interleave(torch.arange(200), counts)
    ones = torch.ones(len(index), dtype=torch.float64)
    repeated = fit_slope(scores[index], targets[index], ones)
    assert weighted == pytest.approx(repeated, rel=1e-9)
    loss = log_loss(scores, targets, torch.ones(200))
    for slope in np.geomspace(0.1, 10, 60):
        logs = torch.log_softmax(slope * scores, dim=1)
        assert loss <= float(-(logs * targets).sum(1).mean()) + 1e-4


@pytest.mark.parametrize("margin", [0.0, -1.0, 1.0])
def test_slope_is_finite_and_positive_for_hopeless_and_perfect_scores(margin):
    scores, targets = two_scores(margin, 1.0, 50)
    slope = fit_slope(scores, targets, torch.ones(50))
    assert 0 < slope < 2e4
    assert torch.isfinite(probabilities(scores, slope)).all()


def test_calibration_is_honest_out_of_sample():
    """Mean confidence is near the share of right answers on new rows."""
    X, y = classification(600, 4)
    rng = np.random.default_rng(0)
    y = np.where(rng.random(600) < 0.2, 1 - y, y)
    model = RFMClassifier(random_state=0).fit(X[:300], y[:300])
    confidence = model.predict_proba(X[300:]).max(1).mean()
    assert abs(confidence - model.score(X[300:], y[300:])) < 0.06


# -------------------------------------------------------------------------- calibration
def test_probabilities_are_honest_with_every_setting_given():
    """Leave-one-out scores would call it 80 % sure at 70 % accuracy (measured)."""
    generator = np.random.RandomState(0)
    X = generator.normal(size=(2300, 30))
    y = X[:, 0] + generator.normal(scale=2.0, size=len(X)) > 0
    model = RFMClassifier(
        kernel="laplace",
        metric="full",
        bandwidth="median",
        alpha=1e-2,
        n_iter=4,
        random_state=0,
    ).fit(X[:300], y[:300])
    confidence = model.predict_proba(X[300:]).max(1).mean()
    accuracy = model.score(X[300:], y[300:])
    # Five standard errors of an accuracy over 2000 rows, 5 * 0.5 / sqrt(2000) = 0.056.
    assert abs(confidence - accuracy) < 0.056


@pytest.mark.parametrize(("n", "deals"), [(40, 5), (250, 4), (600, 1), (1500, 1)])
def test_small_data_are_dealt_several_times(n, deals, monkeypatch):
    calls = []
    original = fitting.make_folds

    def spy(problem, *args):
        calls.append(len(problem.X))
        return original(problem, *args)

    monkeypatch.setattr(fitting, "make_folds", spy)
    X, y = regression(n)
    RFMRegressor(**CHEAP | {"alpha": "auto", "n_iter": 0}).fit(X, y)
    assert calls == [min(n, 1000)] * deals


@pytest.mark.parametrize("size", [1e-10, 1e-3, 2.0, 10.0, 1000.0])
def test_a_common_weight_changes_nothing_that_is_chosen(size):
    X, y = classification(120)
    y = np.where(np.random.default_rng(0).uniform(size=120) < 0.15, 1 - y, y)
    plain = RFMClassifier(kernel="laplace", random_state=0).fit(X, y)
    weight = np.full(120, size)
    other = RFMClassifier(kernel="laplace", random_state=0).fit(X, y, weight)
    assert other.alpha_ == pytest.approx(plain.alpha_ * size, rel=1e-9)
    assert other.best_iter_ == plain.best_iter_
    np.testing.assert_allclose(
        other.history_["cross_fitted"], plain.history_["cross_fitted"], rtol=1e-3
    )
    np.testing.assert_allclose(
        other.predict_proba(X), plain.predict_proba(X), atol=0.01
    )


def test_repeated_rows_do_not_leak_their_labels():
    rng = np.random.default_rng(1)
    X, y = points(100, 5), rng.standard_normal(100)  # nothing to be learned
    model = RFMRegressor(kernel="laplace", random_state=0)
    model.fit(np.repeat(X, 3, 0), np.repeat(y, 3))
    assert np.nanmin(model.history_["cross_fitted"]) > 0.9 * y.var()

"""Each direction against its definition, and what must not change it."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from agop import RFMClassifier
from agop.concepts import (
    ConceptDirection,
    LogisticDirection,
    MeanDifferenceDirection,
    PCADirection,
)

MACHINE = {
    "kernel": "laplace",
    "metric": "full",
    "n_iter": 1,
    "bandwidth": "median",
    "alpha": 1e-2,
}


def machine(**parameters):
    return ConceptDirection(RFMClassifier(**{**MACHINE, **parameters}))


ALL = [
    pytest.param(machine, id="rfm"),
    pytest.param(MeanDifferenceDirection, id="mean difference"),
    pytest.param(PCADirection, id="pca"),
    pytest.param(LogisticDirection, id="logistic"),
]
LINEAR = ALL[1:]


def activations(n=120, d=5, seed=0, noise=0.5):
    """Wider along the last axis; the concept is written along the first two."""
    generator = np.random.default_rng(seed)
    X = generator.standard_normal((n, d)) * np.linspace(1, 2, d) + 3
    written = X @ np.r_[1, -1, np.zeros(d - 2)]
    return X, written + noise * generator.standard_normal(n) > 0


# ------------------------------------------------------------------------ definitions
def test_machine_direction_is_the_leading_eigenvector_of_its_agop():
    X, y = activations()
    concept = machine().fit(X, y)
    reference = RFMClassifier(**MACHINE).fit(X, y)
    values, vectors = np.linalg.eigh(reference.agop_)
    assert abs(concept.direction_ @ vectors[:, -1]) == pytest.approx(1)
    assert concept.eigenvalues_[0] == pytest.approx(values[-1])
    assert concept.explained_ratio_[0] == pytest.approx(values[-1] / values.sum())
    np.testing.assert_array_equal(
        concept.decision_function(X), reference.decision_function(X)
    )
    np.testing.assert_allclose(
        concept.predict_proba(X), reference.predict_proba(X), rtol=1e-12
    )


def test_machine_sees_a_concept_that_has_no_mean_difference():
    """|x₀| > c: the means agree, the answer changes along x₀ alone."""
    X = np.random.default_rng(0).standard_normal((300, 4))
    y = np.abs(X[:, 0]) > 0.7
    train, test = slice(200), slice(200, None)
    aurocs = {
        name: roc_auc_score(
            y[test], model.fit(X[train], y[train]).decision_function(X[test])
        )
        for name, model in {
            "rfm": ConceptDirection(RFMClassifier(kernel="laplace", random_state=0)),
            "logistic": LogisticDirection(),
            "mean": MeanDifferenceDirection(),
        }.items()
    }
    assert aurocs["rfm"] > 0.9
    assert max(aurocs["logistic"], aurocs["mean"]) < 0.65
    concept = machine().fit(X[train], y[train])
    assert abs(concept.direction_[0]) > 0.95


def test_mean_difference():
    X, y = activations()
    difference = X[y].mean(0) - X[~y].mean(0)
    concept = MeanDifferenceDirection().fit(X, y)
    np.testing.assert_allclose(
        concept.direction_, difference / np.linalg.norm(difference)
    )


@pytest.mark.parametrize("d", [5, 80])
def test_pca_of_the_differences_of_all_pairs(d):
    X, y = activations(n=40, d=d)
    pairs = (X[y][:, None] - X[~y][None]).reshape(-1, d)
    _, vectors = np.linalg.eigh(pairs.T @ pairs)
    concept = PCADirection().fit(X, y)
    assert abs(concept.direction_ @ vectors[:, -1]) == pytest.approx(1)


@pytest.mark.parametrize("d", [5, 80])
def test_logistic_weights_are_those_of_scikit_learn(d):
    """Also where there are more features than rows."""
    X, y = activations(n=40, d=d)
    scale = X.var(0).mean() ** 0.5
    reference = LogisticRegression(C=0.1, tol=1e-10, max_iter=10_000)
    reference.fit((X - X.mean(0)) / scale, y)
    concept = LogisticDirection(C=0.1).fit(X, y)
    np.testing.assert_allclose(
        concept.slope_ * concept.direction_, reference.coef_[0] / scale, atol=1e-5
    )
    np.testing.assert_allclose(
        concept.predict_proba(X),
        reference.predict_proba((X - X.mean(0)) / scale),
        atol=1e-5,
    )


def test_logistic_penalty_is_chosen_by_held_out_loss():
    X, y = activations(n=300, noise=0.1)
    assert LogisticDirection().fit(X, y).C_ >= 10
    shuffled = np.random.default_rng(0).permutation(y)
    assert LogisticDirection().fit(X, shuffled).C_ < 1


# ------------------------------------------------------------------------ invariances
@pytest.mark.parametrize("make", ALL)
def test_sign_is_that_of_the_correlation(make):
    """R18: an eigenvector has no sign, steering needs one."""
    X, y = activations()
    concept, opposite = make().fit(X, y), make().fit(X, ~y)
    for fitted, labels in ((concept, y), (opposite, ~y)):
        assert np.corrcoef(fitted.transform(X)[:, 0], labels)[0, 1] > 0
        assert np.linalg.norm(fitted.direction_) == pytest.approx(1)
    np.testing.assert_allclose(opposite.direction_, -concept.direction_, atol=1e-6)


@pytest.mark.parametrize("make", ALL)
def test_rotated_and_shifted_activations_rotate_the_direction(make):
    X, y = activations()
    Q, _ = np.linalg.qr(np.random.default_rng(1).standard_normal((5, 5)))
    concept, rotated = make().fit(X, y), make().fit((X + 7) @ Q, y)
    np.testing.assert_allclose(rotated.direction_, concept.direction_ @ Q, atol=1e-5)
    np.testing.assert_allclose(
        rotated.decision_function((X + 7) @ Q), concept.decision_function(X), atol=1e-4
    )


@pytest.mark.parametrize("make", ALL)
def test_labels_of_any_type(make):
    X, y = activations()
    named = make().fit(X, np.where(y, "yes", "no"))
    assert named.classes_.tolist() == ["no", "yes"]
    np.testing.assert_array_equal(named.direction_, make().fit(X, y).direction_)
    assert set(named.predict(X)) == {"no", "yes"}
    assert named.score(X, np.where(y, "yes", "no")) > 0.55


@pytest.mark.parametrize("make", ALL)
def test_evidence_label_and_probability_agree(make):
    X, y = activations()
    concept = make().fit(X, y)
    probability = concept.predict_proba(X)
    np.testing.assert_allclose(probability.sum(1), 1)
    positive = concept.decision_function(X) > 0
    np.testing.assert_array_equal(probability[:, 1] > 0.5, positive)
    np.testing.assert_array_equal(concept.predict(X), positive)


@pytest.mark.parametrize("make", LINEAR)
def test_linear_evidence_follows_the_projection_and_is_calibrated(make):
    X, y = activations(n=400)
    concept = make().fit(X, y)
    np.testing.assert_allclose(
        concept.decision_function(X),
        concept.slope_ * concept.transform(X)[:, 0] + concept.intercept_,
    )
    np.testing.assert_allclose(concept.transform(X)[:, 0], X @ concept.direction_)
    assert concept.predict_proba(X)[:, 1].mean() == pytest.approx(y.mean(), abs=1e-3)


@pytest.mark.parametrize("make", ALL)
def test_tensors_from_a_network_are_taken(make):
    X, y = activations()
    reference = make().fit(X.astype(np.float32), y)
    tensor = torch.tensor(X, dtype=torch.float32, requires_grad=True)
    concept = make().fit(tensor, torch.from_numpy(y))
    np.testing.assert_array_equal(concept.direction_, reference.direction_)
    assert isinstance(concept.transform(tensor.bfloat16()), np.ndarray)


# ----------------------------------------------------------------------------- errors
@pytest.mark.parametrize("make", LINEAR)
@pytest.mark.parametrize("scale", [0, 1], ids=["constant", "the same for both labels"])
def test_no_difference_is_an_error(make, scale):
    rows = np.random.default_rng(0).standard_normal((20, 3))
    X = 0.1 + scale * np.repeat(rows, 2, axis=0)
    with pytest.raises(ValueError, match="do not differ between the two labels"):
        make().fit(X, np.tile([0, 1], 20))


def test_one_label_and_three_labels():
    X, y = activations()
    with pytest.raises(ValueError, match="got 1 class: 7"):
        MeanDifferenceDirection().fit(X, np.full(len(y), 7))
    with pytest.raises(ValueError, match=r"Only binary .* one direction for each"):
        MeanDifferenceDirection().fit(X, np.arange(len(y)) % 3)


@pytest.mark.parametrize(
    ("concept", "message"),
    [
        (ConceptDirection(LogisticRegression()), "must be an RFMClassifier or None"),
        (LogisticDirection(C=-1.0), "'C' parameter of LogisticDirection"),
        (LogisticDirection(C="best"), "'C' parameter of LogisticDirection"),
    ],
)
def test_bad_parameters(concept, message):
    with pytest.raises(ValueError, match=message):
        concept.fit(*activations())


def test_the_given_machine_is_not_fitted():
    estimator = RFMClassifier(**MACHINE)
    ConceptDirection(estimator).fit(*activations())
    assert not hasattr(estimator, "dual_coef_")

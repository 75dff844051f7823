"""AUROC on held-out groups."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import KFold

from agop.concepts import (
    LogisticDirection,
    MeanDifferenceDirection,
    concept_auroc,
)

LINEAR = {"logistic": LogisticDirection(C=1.0), "mean": MeanDifferenceDirection()}


def sources(n_sources=60, n_rows=5, d=80, seed=0):
    """Rows that tell where they come from; a label for each source, by lot."""
    generator = np.random.default_rng(seed)
    groups = generator.permutation(np.repeat(np.arange(n_sources), n_rows))
    marks = generator.standard_normal((n_sources, d))
    X = marks[groups] + 0.1 * generator.standard_normal((len(groups), d))
    return X, groups % 2, groups


def test_records_against_a_loop():
    generator = np.random.default_rng(0)
    X = generator.standard_normal((90, 4))
    y = np.where(X[:, 0] + generator.standard_normal(90) > 0, "yes", "no")
    layers = {"a": X, "b": X[:, 1:]}
    splitter = KFold(3)
    records = concept_auroc(layers, y, estimators=LINEAR, cv=splitter)
    assert len(records) == 2 * 3 * 2
    expected = []
    for layer, Z in layers.items():
        for fold, (train, test) in enumerate(splitter.split(Z)):
            for name, estimator in LINEAR.items():
                score = estimator.fit(Z[train], y[train]).decision_function(Z[test])
                expected.append((layer, fold, name, roc_auc_score(y[test], score)))
    found = [(r["layer"], r["fold"], r["estimator"], r["auroc"]) for r in records]
    assert found == expected
    # One direction: evidence and projection rank alike.
    assert all(r["auroc"] == r["direction_auroc"] for r in records)
    assert {r["n_test"] for r in records} == {30}


def test_groups_are_kept_apart():
    """Who recognises the source of a row knows its label without any concept."""
    X, y, groups = sources()
    logistic = {"logistic": LogisticDirection(C=10.0)}
    by_row = concept_auroc({"a": X}, y, estimators=logistic)
    by_group = concept_auroc({"a": X}, y, groups, estimators=logistic)
    assert min(record["auroc"] for record in by_row) > 0.98
    assert np.mean([record["auroc"] for record in by_group]) < 0.7


def test_default_estimators_are_the_machine_and_its_baselines():
    generator = np.random.default_rng(0)
    X = generator.standard_normal((40, 2))
    records = concept_auroc({"a": X}, X[:, 0] > 0, cv=2)
    names = [record["estimator"] for record in records]
    assert names == ["rfm", "logistic", "mean difference", "pca"] * 2
    assert all(r["auroc"] > 0.9 for r in records if r["estimator"] != "pca")


def test_given_estimators_are_not_fitted():
    X, y, groups = sources()
    estimator = MeanDifferenceDirection()
    concept_auroc({"a": X}, y, groups, estimators={"mean": estimator})
    assert not hasattr(estimator, "direction_")


def test_fold_with_one_label():
    X, y, _ = sources()
    with pytest.raises(ValueError, match="fold 0 have the same label"):
        concept_auroc({"a": X}, np.sort(y), estimators=LINEAR, cv=KFold(4))


def test_one_array_is_not_a_mapping_of_layers():
    X, y, _ = sources()
    with pytest.raises(TypeError, match=r"such as {'layer': X}; got ndarray"):
        concept_auroc(X, y)

"""scikit-learn's common checks without expected failures (F48)."""

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from agop import RFMClassifier
from agop.concepts import (
    ConceptDirection,
    LogisticDirection,
    MeanDifferenceDirection,
    PCADirection,
)

CHEAP = RFMClassifier(n_iter=1, bandwidth="median", alpha=1e-2, kernel="laplace")


@parametrize_with_checks(
    [
        ConceptDirection(CHEAP),
        LogisticDirection(),
        MeanDifferenceDirection(),
        PCADirection(),
    ]
)
def test_common_checks(estimator, check):
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks([ConceptDirection()])
def test_common_checks_with_a_choice_of_settings(estimator, check):
    check(estimator)

"""scikit-learn's common checks without expected failures (peers F01, F48), float32."""

import numpy as np
import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from agop import RFMClassifier, RFMRegressor
from tests.rfm.problems import classification, regression

EXPLICIT = {
    "kernel": "gaussian",
    "metric": "diagonal",
    "n_iter": 2,
    "bandwidth": "median",
    "alpha": 1e-2,
}


@parametrize_with_checks(
    [
        RFMRegressor(),
        RFMClassifier(),
        RFMRegressor(**EXPLICIT),
        RFMClassifier(**EXPLICIT),
    ]
)
def test_common_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("parameters", [{}, EXPLICIT], ids=["auto", "explicit"])
def test_float32_stays_float32_and_agrees_with_float64(parameters):
    X, y = regression()
    single, double = (
        RFMRegressor(random_state=0, **parameters).fit(X.astype(dtype), y)
        for dtype in (np.float32, np.float64)
    )
    for model, dtype in ((single, np.float32), (double, np.float64)):
        given = X.astype(dtype)
        results = [model.predict(given), model.transform(given), model.jacobian(given)]
        results += [model.X_fit_, model.dual_coef_, model.components_]
        assert {result.dtype for result in results} == {np.dtype(dtype)}
        assert model.agop_.dtype == np.float64  # sums are kept in double
    scale = np.abs(y).max()
    assert np.abs(single.predict(X) - double.predict(X)).max() < 1e-3 * scale
    importances = single.feature_importances_, double.feature_importances_
    np.testing.assert_allclose(*importances, atol=2e-3)


@pytest.mark.parametrize("parameters", [{}, EXPLICIT], ids=["auto", "explicit"])
def test_float32_classifier(parameters):
    X, y = classification(n_classes=3)
    single, double = (
        RFMClassifier(random_state=0, **parameters).fit(X.astype(dtype), y)
        for dtype in (np.float32, np.float64)
    )
    assert single.predict_proba(X.astype(np.float32)).dtype == np.float32
    assert single.decision_function(X.astype(np.float32)).dtype == np.float32
    np.testing.assert_allclose(
        single.predict_proba(X), double.predict_proba(X), atol=5e-3
    )


@pytest.mark.parametrize("dtype", [np.float16, np.int32, np.bool_, object])
def test_other_types_are_computed_in_float64(dtype):
    X, y = regression()
    X = np.round(X).astype(dtype)
    model = RFMRegressor(**EXPLICIT).fit(X, y)
    assert model.X_fit_.dtype == np.float64
    assert model.predict(X).dtype == np.float64

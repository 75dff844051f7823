"""Fitted estimators to draw, and no figures left behind."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from agop import RFMClassifier, RFMRegressor, datasets

FIXED = {
    "kernel": "gaussian",
    "metric": "full",
    "bandwidth": "median",
    "alpha": 1e-2,
    "n_iter": 2,
}


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="session")
def regressor():
    X, y, _ = datasets.make_multi_index(120, 6, random_state=0)
    return RFMRegressor(**FIXED).fit(X, y)


@pytest.fixture(scope="session")
def classifier():
    X, y, _ = datasets.make_multi_index(120, 6, random_state=0)
    return RFMClassifier(**FIXED).fit(X, np.where(y > 0, "up", "down"))


@pytest.fixture(params=["regressor", "classifier"])
def machine(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def chosen():
    """A regressor that chose its number of rounds, so that losses are known."""
    X, y, _ = datasets.make_multi_index(120, 6, random_state=0)
    return RFMRegressor(kernel="gaussian", metric="full", random_state=0).fit(X, y)

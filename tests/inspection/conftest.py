"""Fitted estimators to draw, and no figures left behind."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torch import nn

from agop import NetworkAGOP, RFMClassifier, RFMRegressor, datasets

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


@pytest.fixture(scope="session")
def images():
    return torch.randn(30, 2, 4, 5, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="session")
def network(images):
    network = nn.Sequential(
        nn.Conv2d(2, 3, 2), nn.ReLU(), nn.Flatten(), nn.Tanh(), nn.Linear(36, 4)
    )
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 3)
    return network.eval()


@pytest.fixture(scope="session")
def at_input(network, images):
    return NetworkAGOP(network, n_components=3, random_state=0).fit(images)


@pytest.fixture(scope="session")
def at_layers(network, images):
    return NetworkAGOP(network, layers=["input", "0", "4"], n_components=2).fit(images)

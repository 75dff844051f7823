"""The guard on global state can fail: each kind of change is noticed."""

import random
import warnings

import numpy as np
import pytest
import torch

from tests.conftest import changes, global_state

pytestmark = pytest.mark.changes_global_state


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("random", random.random),
        ("numpy.random", np.random.rand),
        ("torch generator", lambda: torch.rand(1)),
    ],
)
def test_generators_are_watched(name, change):
    before = global_state()
    change()
    assert changes(before, global_state()) == [name]


@pytest.mark.parametrize(
    ("name", "setter", "value", "old"),
    [
        (
            "torch threads",
            torch.set_num_threads,
            torch.get_num_threads() + 1,
            torch.get_num_threads(),
        ),
        (
            "torch default dtype",
            torch.set_default_dtype,
            torch.float64,
            torch.get_default_dtype(),
        ),
        ("torch grad mode", torch.set_grad_enabled, False, True),
        ("torch deterministic", torch.use_deterministic_algorithms, True, False),
    ],
)
def test_settings_are_watched(name, setter, value, old):
    before = global_state()
    setter(value)
    try:
        assert name in changes(before, global_state())
    finally:
        setter(old)
    assert name not in changes(before, global_state())


def test_warning_filters_and_errstate_are_watched():
    before = global_state()
    with warnings.catch_warnings(), np.errstate(divide="ignore"):
        warnings.simplefilter("ignore")
        assert changes(before, global_state()) == ["numpy errstate", "warning filters"]
    assert changes(before, global_state()) == []

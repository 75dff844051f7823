"""Fixtures for every test: data files, the seed, and a guard on global state."""

import os
import random
import sys
import warnings
from pathlib import Path

# Both are read when the packages are first imported.
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("SCIPY_ARRAY_API", "1")

import numpy as np
import pytest
import sklearn.datasets  # noqa: F401 (its first import draws from `random`)
import torch

ROOT = Path(__file__).resolve().parent.parent


# ---------------------------------------------------------------------------- data
@pytest.fixture(scope="session")
def data_path():
    """A function from a name such as ``"tabular/INDEX.csv"`` to an existing path.

    The folder is the environment variable ``AGOP_DATA``, else ``../shared/data`` beside
    the checkout. A test that asks for a missing file is skipped and says why.
    """
    folder = Path(os.environ.get("AGOP_DATA") or ROOT.parent / "shared" / "data")

    def resolve(name):
        path = folder / name
        if not path.exists():
            pytest.skip(f"no {name} under {folder} (set AGOP_DATA to its folder)")
        return path

    return resolve


# ---------------------------------------------------------------------------- seed
def pytest_configure(config):
    # "any" is replaced before xdist starts its workers, so that all agree on the seed.
    if os.environ.get("AGOP_SEED", "").strip().lower() == "any":
        os.environ["AGOP_SEED"] = str(random.SystemRandom().randrange(100))


def pytest_report_header(config):
    return f"AGOP_SEED={_seed()} (an integer, or 'any' for a random one below 100)"


def _seed():
    return int(os.environ.get("AGOP_SEED") or 0)


@pytest.fixture
def global_random_seed():
    """The seed of a test that must pass for any seed; printed, set by AGOP_SEED."""
    seed = _seed()
    print(f"AGOP_SEED={seed}")  # shown with the report of a failing test
    return seed


# -------------------------------------------------------------------- global state
def global_state():
    """Everything that belongs to the user and that the library must leave alone."""
    state = {
        "random": random.getstate(),
        "numpy.random": np.random.get_state(),  # noqa: NPY002
        "torch generator": torch.get_rng_state(),
        "torch threads": torch.get_num_threads(),
        "torch default dtype": torch.get_default_dtype(),
        "torch default device": torch.get_default_device(),
        "torch grad mode": torch.is_grad_enabled(),
        "torch inference mode": torch.is_inference_mode_enabled(),
        "torch autocast": torch.is_autocast_enabled("cpu"),
        "torch deterministic": (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        ),
        "numpy errstate": np.geterr(),
        "warning filters": list(warnings.filters),
    }
    if "matplotlib" in sys.modules:
        state["rcParams"] = dict.copy(sys.modules["matplotlib"].rcParams)
    return state


def changes(before, after):
    """Names of the parts of two ``global_state()`` that differ."""
    return [
        name
        for name in before
        if name in after and not _equal(before[name], after[name])
    ]


def _equal(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(_equal, a, b))
    return a == b


def pytest_collection_modifyitems(items):
    for item in items:
        # This check of scikit-learn shuffles rows with numpy's global generator.
        if "check_methods_sample_order_invariance" in item.name:
            item.add_marker(pytest.mark.changes_global_state("numpy.random"))


@pytest.fixture(autouse=True)
def _global_state_is_untouched(request):
    """Fail any test that leaves the process in another state than it found it.

    numpy's generator is read where no random_state is given: it starts the same.
    """
    np.random.seed(_seed())  # noqa: NPY002 (the global one is meant)
    marks = list(request.node.iter_markers("changes_global_state"))
    modules = len(sys.modules)
    before = global_state()
    yield
    changed = changes(before, global_state())
    if len(sys.modules) > modules and "warning filters" in changed:
        # Packages imported for the first time may register filters of their own.
        changed.remove("warning filters")
    if any(not mark.args for mark in marks):
        return
    allowed = {name for mark in marks for name in mark.args}
    if unexpected := [name for name in changed if name not in allowed]:
        pytest.fail(
            f"the test changed global state: {', '.join(unexpected)}. The library uses "
            "local generators and context managers; a test that seeds or configures "
            "something global itself carries the marker changes_global_state."
        )

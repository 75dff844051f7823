"""Parts of the data on several processes of torch.distributed, added up."""

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from agop import NetworkAGOP
from tests.networks.nets import mlp, narrow, numbers, seeded
from tests.networks.references import assert_same

D = 6
N_PROCESSES = 2
SETTINGS = {
    "full": {"kind": "full"},
    "linear": {"kind": "linear"},
    "diagonal": {"kind": "diagonal"},
    "rows": {"kind": "rows"},
    "low_rank": {"kind": "low_rank"},
    "centered": {"kind": "full", "center": True},
    "layers": {"layers": ["input", "0", "2:input"]},
    "probes": {"kind": "full", "n_probes": 2, "random_state": 0},
}
LOOSE = {"low_rank": 1e-8, "rows": 1e-10}


def matrices(fitted):
    found = fitted.agop_
    return found if isinstance(found, dict) else {"input": found}


def parts(X):
    """Of different lengths."""
    return X[: len(X) // 3], X[len(X) // 3 :]


def process(rank, folder):
    store = dist.FileStore(f"{folder}/store", N_PROCESSES)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=N_PROCESSES)
    try:
        X = numbers(12, D).numpy()
        results = {}
        for name, settings in SETTINGS.items():
            model = NetworkAGOP(seeded(narrow), **settings).fit(parts(X)[rank])
            assert model.all_reduce() is model
            results[name] = (
                matrices(model),
                model.trace_,
                model.n_samples_seen_,
                model.probe_error_,
            )
            model.partial_fit(X[:1])  # it goes on
            assert model.n_samples_seen_ == 13
        results["refusals"] = refusals(rank, X)
        torch.save(results, f"{folder}/{rank}.pt")
    finally:
        dist.destroy_process_group()


def refusals(rank, X):
    """What does not add up is an error on every process, and on none forgotten."""
    messages = []
    for settings in (
        {"kind": ["full", "diagonal"][rank]},
        {"kind": ["rows", "full"][rank]},
        {"kind": "full", "layers": ["input", "0"][: rank + 1]},
    ):
        model = NetworkAGOP(seeded(narrow), **settings).fit(X)
        before = matrices(model)
        try:
            model.all_reduce()
            messages.append("none")
        except ValueError as error:
            messages.append(str(error))
        after = matrices(model)
        assert all(np.array_equal(after[name], before[name]) for name in before)
        assert model.n_samples_seen_ == 12
    return messages


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("distributed")
    mp.spawn(process, (str(folder),), nprocs=N_PROCESSES)
    return [
        torch.load(folder / f"{rank}.pt", weights_only=False)
        for rank in range(N_PROCESSES)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_all_processes_have_the_whole(results, name):
    X = numbers(12, D).numpy()
    first, second = (result[name] for result in results)
    whole = NetworkAGOP(seeded(narrow), **SETTINGS[name])
    if name == "probes":  # which are drawn for each part
        whole.fit(parts(X)[0])
        other = NetworkAGOP(seeded(narrow), **SETTINGS[name]).fit(parts(X)[1])
        whole.merge(other)
    else:
        whole.fit(X)
    for found, trace, n_samples, error in (first, second):
        for layer, G in matrices(whole).items():
            assert_same(found[layer], G, LOOSE.get(name, 1e-12))
        assert n_samples == 12
        np.testing.assert_equal(error, whole.probe_error_)
        if name != "layers":
            np.testing.assert_allclose(trace, whole.trace_, rtol=1e-10)
    for layer in first[0]:
        assert np.array_equal(first[0][layer], second[0][layer])


@pytest.mark.slow
def test_what_does_not_add_up_is_refused_everywhere(results):
    for result in results:
        assert "none" not in result["refusals"]


def test_without_other_processes():
    model = NetworkAGOP(seeded(mlp)).fit(numbers(4, D))
    with pytest.raises(RuntimeError, match="There are no other processes to add up"):
        model.all_reduce()
    assert model.n_samples_seen_ == 4

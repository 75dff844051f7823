"""Accumulators of several processes, with torch.distributed."""

import os
import subprocess
import sys

import pytest
import torch
import torch.distributed as dist

from agop.core import DenseOuterProduct, RowsOuterProduct

#: What each process runs: it sees its share of the samples, and saves the whole.
PROGRAM = """
import sys

import torch
import torch.distributed as dist

from tests.core.test_processes import accumulators, share

rank, size, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
store = dist.FileStore(f"{folder}/store", size)
dist.init_process_group("gloo", store=store, rank=rank, world_size=size)
results = {}
for name, accumulator in accumulators().items():
    for batch in share(name, rank):
        accumulator.update(*batch)
    results[name] = accumulator.all_reduce()
accumulator = accumulators()["dense"]
if rank:
    accumulator = accumulators()["rows"]
try:
    accumulator.all_reduce()
except ValueError as error:
    results["error"] = str(error)
torch.save(results, f"{folder}/{rank}")
dist.destroy_process_group()
"""


def accumulators():
    from agop.core import (
        DiagonalOuterProduct,
        LinearOuterProduct,
        LowRankOuterProduct,
        ProjectedOuterProduct,
    )

    layer = torch.arange(12.0).reshape(4, 3).double()
    makers = {
        "dense": lambda **kwargs: DenseOuterProduct(4, **kwargs),
        "diagonal": lambda **kwargs: DiagonalOuterProduct(4, **kwargs),
        "rows": lambda **kwargs: RowsOuterProduct(4, **kwargs),
        "linear": lambda **kwargs: LinearOuterProduct(layer, **kwargs),
        "low_rank": lambda **kwargs: LowRankOuterProduct(4, 1, **kwargs),
        "projected": lambda **kwargs: ProjectedOuterProduct(
            torch.eye(4).double()[:, :2], **kwargs
        ),
    }
    kinds = {name: make() for name, make in makers.items()}
    kinds |= {f"{name}, centred": make(center=True) for name, make in makers.items()}
    kinds["one has seen nothing"] = DenseOuterProduct(4)
    kinds["one has seen nothing, centred"] = DenseOuterProduct(4, center=True)
    kinds["nobody has seen anything"] = DenseOuterProduct(4)
    return kinds


def share(name, rank):
    """Batches of one process: 50 samples of one, 20 of the other, with weights."""
    generator = torch.Generator().manual_seed(rank)
    n = 50 if rank else 20
    if "nobody" in name or (rank == 0 and "one has" in name):
        return []
    J = torch.randn(n, 2, 4, generator=generator, dtype=torch.float64) + 3 + rank
    weights = torch.rand(n, generator=generator, dtype=torch.float64)
    return list(zip(J.split(8), weights.split(8), strict=True))


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    root = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
    environment = {**os.environ, "PYTHONPATH": root, "GLOO_SOCKET_IFNAME": "lo"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(rank), "2", str(folder)],
            env=environment,
            cwd=root,
        )
        for rank in range(2)
    ]
    try:
        assert [process.wait(timeout=120) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    return [torch.load(folder / str(rank), weights_only=False) for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("name", accumulators())
def test_both_have_the_whole(name, results):
    expected = accumulators()[name]
    for rank in range(2):
        for batch in share(name, rank):
            expected.update(*batch)
    for found in results:
        assert found[name].weight == pytest.approx(expected.weight, rel=1e-12)
        if expected.weight:
            torch.testing.assert_close(
                found[name].matrix(), expected.matrix(), rtol=1e-12, atol=1e-12
            )
            assert found[name].trace == pytest.approx(expected.trace, rel=1e-12)
    first, second = (found[name] for found in results)
    if expected.weight:
        assert torch.equal(first.matrix(), second.matrix())
        # What comes later is added as if nothing had happened.
        batch = torch.ones(3, 2, 4).double()
        torch.testing.assert_close(
            first.update(batch).matrix(), expected.update(batch).matrix()
        )


@pytest.mark.slow
def test_different_kinds_are_an_error_in_every_process(results):
    assert all("same kind" in found["error"] for found in results)


@pytest.mark.parametrize("kind", [DenseOuterProduct, RowsOuterProduct])
def test_a_process_alone(kind):
    J = torch.arange(24.0).reshape(3, 2, 4)
    expected = kind(4, center=True).update(J)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        found = kind(4, center=True).update(J)
        assert found.all_reduce() is found
    finally:
        dist.destroy_process_group()
    torch.testing.assert_close(found.matrix(), expected.matrix())
    assert found.weight == 3


@pytest.mark.parametrize("kind", [DenseOuterProduct, RowsOuterProduct])
def test_without_other_processes(kind):
    with pytest.raises(RuntimeError, match="init_process_group"):
        kind(4).all_reduce()

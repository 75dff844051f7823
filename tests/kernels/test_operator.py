"""The kernel matrix as an operator, and the storage it lends to a solver."""

import pytest
import torch

from agop.core import arrays
from agop.kernels import Gaussian, KernelMatrix, KernelOperator, Laplace
from tests import reference
from tests.devices import DEVICES, LargestTensor
from tests.kernels.conformance import overwrite_lent_part, points


def test_products_rows_and_shape():
    X, Z, V = points(7), points(11, seed=1), points(11, 3, seed=2)
    expected = torch.from_numpy(reference.laplace_values(X.numpy(), Z.numpy()))
    operator = KernelOperator(Laplace(), X, Z)
    assert operator.shape == (7, 11)
    torch.testing.assert_close(operator @ V, expected @ V, rtol=1e-13, atol=1e-13)
    index = torch.tensor([5, 0, 5])
    torch.testing.assert_close(operator.rows(index), expected[index])
    torch.testing.assert_close(operator.rows(slice(2, 4)), expected[2:4])


def test_blocks_cover_the_rows_within_the_budget(monkeypatch):
    monkeypatch.setattr(arrays, "BLOCK_BYTES", 5 * 11 * 8)
    operator = KernelOperator(Laplace(), points(13), points(11))
    blocks = operator.blocks()
    rows = [row for block in blocks for row in range(13)[block]]
    assert rows == list(range(13))
    assert max(block.stop - block.start for block in blocks) == 5


def test_product_is_never_formed_as_a_whole(monkeypatch):
    monkeypatch.setattr(arrays, "BLOCK_BYTES", 10 * 300 * 8)
    operator = KernelOperator(Gaussian(), points(300), points(300, seed=1))
    with LargestTensor() as largest:
        operator @ points(300, 2)
        operator.gradients(points(300, 2))
    assert largest.numel <= 10 * 300


@pytest.mark.parametrize("block_bytes", [1, 1000, 2**25])
def test_dense_rewrites_a_storage_full_of_garbage(monkeypatch, block_bytes):
    monkeypatch.setattr(arrays, "BLOCK_BYTES", block_bytes)
    X = points(19)
    storage = torch.full((19, 19), torch.nan).double()
    matrix = KernelMatrix(Laplace(), X, storage)
    first = matrix.dense().clone()
    assert matrix.dense().data_ptr() == storage.data_ptr()
    overwrite_lent_part(storage)
    assert torch.equal(matrix.dense(), first)
    expected = reference.laplace_values(X.numpy(), X.numpy())
    torch.testing.assert_close(first, torch.from_numpy(expected))


def test_training_gradients_take_no_second_pass_over_distances(monkeypatch):
    X, coef = points(19), points(19, 2, seed=1)
    matrix = KernelMatrix(Laplace(), X, torch.empty(19, 19).double())
    matrix.dense()
    overwrite_lent_part(matrix.storage)
    expected = KernelOperator(Laplace(), X, X).gradients(coef)

    def forbidden(*_):
        raise AssertionError("distances were computed again")

    monkeypatch.setattr("agop.kernels.geometry.squared_distances", forbidden)
    got = matrix.gradients(coef)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("device", DEVICES)
def test_devices_agree(device):
    X, coef = points(40), points(40, 2, seed=1)
    matrix = KernelMatrix(
        Laplace(), X.to(device), torch.empty(40, 40, device=device).double()
    )
    matrix.dense()
    expected = reference.kernel_jacobian(
        reference.laplace, X, X, coef, torch.eye(4).double()
    )
    got = matrix.gradients(coef.to(device))
    assert got.device.type == device
    torch.testing.assert_close(got.cpu(), expected, rtol=1e-10, atol=1e-10)

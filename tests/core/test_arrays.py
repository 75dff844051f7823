"""The seam between numpy and torch, and the checks of parameters."""

import decimal
import fractions
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import config_context

from agop.core import arrays
from agop.core.arrays import (
    InvalidParameterError,
    as_host_array,
    check_number,
    check_option,
    check_sample_weight,
    follow_input,
    free_memory,
    memory_error,
    plain_arithmetic,
    random_rows,
    resolve_device,
    row_blocks,
    to_numpy,
    to_tensor,
)
from tests.devices import NEEDS_ARRAY_API


# ------------------------------------------------------------------------ parameters
@pytest.mark.parametrize(
    "bad",
    [
        math.nan,
        math.inf,
        -math.inf,
        True,
        np.bool_(True),
        "1.0",
        None,
        1j,
        [1.0],
        np.array(1.0),
        torch.tensor(1.0),
        decimal.Decimal(1),
        -0.1,
        3.1,
        10**400,
    ],
    ids=repr,
)
def test_bad_numbers(bad):
    with pytest.raises(InvalidParameterError, match=r"'alpha' parameter of Owner") as e:
        check_number("alpha", bad, owner="Owner", low=0, high=3)
    assert repr(bad) in str(e.value)
    assert isinstance(e.value, ValueError)
    assert isinstance(e.value, TypeError)


@pytest.mark.parametrize(
    "good", [0, 0.0, 3, 1.5, np.float32(1.5), np.int64(2), fractions.Fraction(1, 2)]
)
def test_good_numbers(good):
    check_number("alpha", good, owner="Owner", low=0, high=3)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 10**400])
def test_numbers_without_bounds_are_finite_too(bad):
    with pytest.raises(InvalidParameterError, match=r"in the range \(-inf, inf\)"):
        check_number("alpha", bad, owner="Owner")


def test_open_and_closed_ends():
    check_number("a", 0.0, owner="O", low=0)
    with pytest.raises(InvalidParameterError, match=r"a float in the range \(0, inf\)"):
        check_number("a", 0.0, owner="O", low=0, open_low=True)
    with pytest.raises(InvalidParameterError, match=r"\[0, 1\]"):
        check_number("a", 2, owner="O", low=0, high=1)


@pytest.mark.parametrize("bad", [1.0, np.float64(2), "2", None, False, 0])
def test_integers(bad):
    check_number("n", np.int32(2), owner="O", integer=True, low=1)
    with pytest.raises(InvalidParameterError, match=r"an int in the range \[1"):
        check_number("n", bad, owner="O", integer=True, low=1)


@pytest.mark.parametrize("good", ["a", np.str_("a"), None, True, 2])
def test_good_options(good):
    # np.str_ is what a grid search over an array of names passes.
    check_option("kind", good, ["a", None, True, 2], owner="Owner")


@pytest.mark.parametrize("bad", ["b", "A", 1, False, 2.0, [], np.array(["a", "a"])])
def test_bad_options(bad):
    with pytest.raises(InvalidParameterError, match="'kind' parameter of Owner") as e:
        check_option("kind", bad, ("a", None, True, 2), owner="Owner")
    assert "'a', None, True, 2" in str(e.value)


def test_true_is_not_one():
    with pytest.raises(InvalidParameterError, match="Got True instead"):
        check_option("kind", True, [1, 2], owner="Owner")


# --------------------------------------------------------------------------- devices
def test_device_that_exists():
    assert resolve_device("cpu", owner="O") == torch.device("cpu")


@pytest.mark.parametrize(
    "bad", ["gpu", "cuda:99", "meta", "", None, 0, torch.device("cpu")], ids=repr
)
def test_device_that_does_not(bad):
    with pytest.raises(InvalidParameterError, match="'device' parameter of O") as error:
        resolve_device(bad, owner="O")
    if bad != "meta":
        assert "Available devices: cpu" in str(error.value)


# ---------------------------------------------------------------------------- arrays
def test_host_array_of_tensors():
    X = torch.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(as_host_array(X), X.numpy())
    leaf = X.clone().requires_grad_()
    np.testing.assert_array_equal(as_host_array(leaf), X.numpy())
    assert leaf.requires_grad
    half = as_host_array(X.bfloat16())
    assert half.dtype == np.float32
    np.testing.assert_array_equal(half, X.numpy())


def test_host_array_leaves_the_rest_alone():
    for value in ([[1.0]], "text", None, np.ones(2)):
        assert as_host_array(value) is value


def test_masked_arrays_are_refused():
    with pytest.raises(TypeError, match="Input y is a masked array"):
        as_host_array(np.ma.masked_array([1.0], mask=[True]), "y")


def test_meta_tensors_are_refused():
    with pytest.raises(ValueError, match="Input X is a tensor on the meta device"):
        as_host_array(torch.empty(2, device="meta"))


def _read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


LAYOUTS = {
    "plain": lambda array: array,
    "read_only": _read_only,
    "negative_stride": lambda array: array[::-1, ::-1],
    "big_endian": lambda array: array.astype(">f8"),
    "fortran": np.asfortranarray,
    "strided": lambda array: np.repeat(array, 2, axis=1)[:, ::2],
    "read_only_big_endian": lambda array: _read_only(array.astype(">f8")),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_tensor_of_any_layout(layout):
    array = LAYOUTS[layout](np.arange(12.0).reshape(3, 4))
    before = array.copy()
    tensor = to_tensor(array, torch.device("cpu"))
    assert tensor.is_contiguous()
    assert tensor.dtype == torch.float64
    np.testing.assert_array_equal(tensor.numpy(), array)
    if layout != "plain":
        tensor += 1  # the array is the user's
        if layout != "fortran" or not np.shares_memory(tensor.numpy(), array):
            np.testing.assert_array_equal(array, before)


def test_plain_arrays_share_memory():
    array = np.ones((2, 2))
    assert np.shares_memory(to_tensor(array, torch.device("cpu")).numpy(), array)


def test_to_numpy_is_contiguous():
    tensor = torch.arange(6.0).reshape(2, 3).T.requires_grad_()
    array = to_numpy(tensor)
    assert array.flags.c_contiguous
    np.testing.assert_array_equal(array, tensor.detach().numpy())


@NEEDS_ARRAY_API
def test_results_follow_the_input_under_array_api_dispatch():
    result = np.ones(3)
    assert follow_input(result, torch.zeros(2)) is result
    with config_context(array_api_dispatch=True):
        assert follow_input(result, np.zeros(2)) is result
        tensor = follow_input(result, torch.zeros(2))
    assert torch.equal(tensor, torch.ones(3).double())


# ---------------------------------------------------------------------------- weights
def test_weights_are_a_vector():
    assert check_sample_weight(None, 3, np.float32).tolist() == [1, 1, 1]
    assert check_sample_weight(2, 3, np.float64).tolist() == [2, 2, 2]
    weight = check_sample_weight(torch.tensor([1, 0, 2]), 3, np.float32)
    assert weight.dtype == np.float32
    assert weight.tolist() == [1, 0, 2]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([1.0, -1.0, 1.0], "Negative values"),
        ([1.0, np.nan, 1.0], "contains NaN"),
        ([1.0, np.inf, 1.0], "contains infinity"),
        ([[1.0], [1.0], [1.0]], "1D array or scalar"),
        ([1.0, 1.0], r"sample_weight.shape == \(2,\), expected \(3,\)"),
        ([0.0, 0.0, 0.0], "at least one non-zero"),
        (0, "at least one non-zero"),
        (-1.0, "Negative values"),
    ],
)
def test_bad_weights(bad, message):
    with pytest.raises(ValueError, match=message):
        check_sample_weight(bad, 3, np.float64)


def test_masked_weights():
    with pytest.raises(TypeError, match="sample_weight is a masked array"):
        check_sample_weight(np.ma.ones(3), 3, np.float64)


# ----------------------------------------------------------------------------- blocks
@given(
    n_rows=st.integers(0, 200),
    n_columns=st.integers(0, 50),
    itemsize=st.sampled_from([4, 8]),
    budget=st.integers(1, 5000),
)
@settings(max_examples=100, deadline=None)
def test_blocks_cover_all_rows_once_within_the_budget(
    n_rows, n_columns, itemsize, budget
):
    blocks = list(row_blocks(n_rows, n_columns, itemsize, budget))
    assert [row for block in blocks for row in range(n_rows)[block]] == list(
        range(n_rows)
    )
    for block in blocks:
        rows = block.stop - block.start
        assert rows >= 1
        assert rows == 1 or rows * n_columns * itemsize <= budget


def test_budget_is_read_when_it_is_used(monkeypatch):
    monkeypatch.setattr(arrays, "BLOCK_BYTES", 80)
    assert len(list(row_blocks(10, 1, 8))) == 1
    assert len(list(row_blocks(10, 2, 8))) == 2


@given(n_rows=st.integers(1, 50), size=st.integers(1, 60), seed=st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_random_rows_are_distinct_sorted_and_seeded(n_rows, size, seed):
    rows = random_rows(n_rows, size, seed)
    assert len(rows) == min(size, n_rows)
    assert (np.diff(rows) > 0).all()
    assert set(rows) <= set(range(n_rows))
    np.testing.assert_array_equal(rows, random_rows(n_rows, size, seed))


def test_random_rows_are_not_the_first_ones():
    # F25: rows sorted by group. Every row is drawn equally often.
    counts = np.zeros(40)
    for seed in range(400):
        counts[random_rows(40, 10, seed)] += 1
    # 400 draws with probability 1/4: a standard deviation of 8.7, here five of them.
    assert np.abs(counts - 100).max() < 5 * math.sqrt(400 * 0.25 * 0.75)


# ------------------------------------------------------------------------ environment
def test_free_memory_is_a_number_of_bytes_or_unknown(monkeypatch):
    free = free_memory(torch.device("cpu"))
    assert free is None or 2**20 < free < 2**50
    monkeypatch.setattr(arrays, "open", _no_such_file, raising=False)
    assert free_memory(torch.device("cpu")) is None


def _no_such_file(*_, **__):
    raise FileNotFoundError


@plain_arithmetic
def product(a, b):
    """A product."""
    result = a @ b
    result += 0  # in place, which inference tensors forbid outside their mode
    return result


SURROUNDINGS = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "enable_grad": torch.enable_grad,
}


@pytest.mark.parametrize("surrounding", SURROUNDINGS)
def test_numbers_do_not_depend_on_the_surroundings(surrounding):
    a = torch.full((8, 8), 1.001, requires_grad=True)
    expected = a.detach() @ a.detach()
    with SURROUNDINGS[surrounding]():
        before = _modes()
        got = product(a, a)
        assert _modes() == before
    assert torch.equal(got, expected)
    assert got.dtype == torch.float32
    assert not got.requires_grad
    assert not got.is_inference()
    assert product.__name__ == "product"


def test_surroundings_are_restored_after_an_error():
    before = _modes()
    with pytest.raises(RuntimeError):
        product(torch.ones(2, 3), torch.ones(2, 3))
    assert _modes() == before


def _modes():
    return (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
    )


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 298. GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
        torch.OutOfMemoryError("CUDA out of memory."),
    ],
    ids=lambda error: type(error).__name__,
)
def test_out_of_memory_has_one_name(error):
    # F54: 200 000² numbers of 8 bytes are 298.0 GiB.
    result = memory_error(error, 200_000)
    assert isinstance(result, MemoryError)
    assert "200000 samples" in str(result)
    assert "298.0 GiB" in str(result)


def test_other_errors_are_not_about_memory():
    assert memory_error(RuntimeError("mat1 and mat2 shapes"), 10) is None
    assert memory_error(ValueError("can't allocate memory"), 10) is None

"""Data of every kind in batches, and the faults of data (ids of the design notes)."""

import collections
import itertools

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse
import torch
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    TensorDataset,
)

from agop.networks.data import Batch, Batches, as_batches
from tests.devices import DEVICES

N, D = 7, 3
SIZES = [3, 3, 1]


def table(dtype=np.float64):
    return np.arange(N * D, dtype=dtype).reshape(N, D)


def read(X, y=None, sample_weight=None, batch_size=3, **settings):
    return list(as_batches(X, y, sample_weight, batch_size=batch_size, **settings))


def inputs(batches):
    return torch.cat([batch.input for batch in batches]).numpy()


# --------------------------------------------------------------- kinds of data
class Numbers:
    """Neither an array nor a tensor, but it can become one."""

    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return self.array


ARRAYS = {
    "array": np.asarray,
    "DataFrame": pd.DataFrame,
    "polars": pl.DataFrame,
    "tensor": torch.from_numpy,
    "requires grad": lambda X: torch.from_numpy(X).requires_grad_(),
    "parameter": lambda X: torch.nn.Parameter(torch.from_numpy(X)),
    "list": np.ndarray.tolist,
    "list of rows": list,
    "array-like": Numbers,
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_f35_f37_arrays(kind):
    batches = as_batches(ARRAYS[kind](table()), batch_size=3)
    assert batches.n_samples == N
    assert batches.repeatable
    for _ in range(2):
        found = list(batches)
        assert [len(batch) for batch in found] == SIZES
        assert not any(batch.input.requires_grad for batch in found)
        np.testing.assert_array_equal(inputs(found), table())


@pytest.mark.parametrize("kind", ["array", "tensor", "DataFrame"])
def test_targets_and_weights_beside_arrays(kind):
    y, weight = np.arange(N) % 3, np.linspace(0, 1, N)
    found = read(ARRAYS[kind](table()), pd.Series(y), torch.from_numpy(weight))
    assert torch.equal(torch.cat([b.target for b in found]), torch.from_numpy(y))
    assert torch.equal(torch.cat([b.weight for b in found]), torch.from_numpy(weight))
    assert all(batch.kwargs == {} and len(batch.args) == 1 for batch in found)


def test_several_inputs():
    for batch in read((table(), torch.ones(N, 2)), y=range(N)):
        first, second = batch.args
        assert first is batch.input
        assert second.shape == (len(batch), 2)
        assert batch.target.shape == (len(batch),)


@pytest.mark.parametrize("target", ["labels", "label", "target"])
@pytest.mark.parametrize("mapping", [dict, collections.UserDict])
def test_keyword_arguments(target, mapping):
    X = mapping(
        attention_mask=np.ones((N, 4), dtype=int),
        input_ids=np.arange(N * 4).reshape(N, 4),
        use_cache=False,
        position_ids=np.arange(4)[None],
        **{target: np.arange(N)},
    )
    for part in (read(X), read(DataLoader(KeywordSamples(X, target), batch_size=3))):
        assert [len(batch) for batch in part] == SIZES
        for batch in part:
            assert batch.args == ()
            assert batch.input is batch.kwargs["input_ids"]
            assert batch.kwargs["attention_mask"].shape == (len(batch), 4)
            assert target not in batch.kwargs
        assert torch.cat([batch.target for batch in part]).tolist() == list(range(N))
    for batch in read(X):
        assert batch.kwargs["use_cache"] is False
        assert batch.kwargs["position_ids"].shape == (1, 4)


class KeywordSamples(Dataset):
    def __init__(self, X, target):
        self.columns = {
            name: X[name] for name in ("attention_mask", "input_ids", target)
        }

    def __len__(self):
        return N

    def __getitem__(self, i):
        return {name: column[i] for name, column in self.columns.items()}


class Rows:
    """A dataset by its methods, not by its class."""

    def __len__(self):
        return N

    def __getitem__(self, i):
        if not 0 <= i < N:
            raise IndexError
        return table()[i], i


class Stream(IterableDataset):
    def __iter__(self):
        yield from Rows()


class Loader:
    """Begins anew with every pass, but has no length."""

    def __iter__(self):
        for start in range(0, N, 3):
            yield table()[start : start + 3], np.arange(N)[start : start + 3]


LOADERS = {
    "dataset": lambda: TensorDataset(torch.from_numpy(table()), torch.arange(N)),
    "duck": Rows,
    "stream": Stream,
    "loader": lambda: DataLoader(Rows(), batch_size=3),
    "loader over a stream": lambda: DataLoader(Stream(), batch_size=3),
    "iterable": Loader,
    "list": lambda: list(Loader()),
    "list of lists": lambda: [list(batch) for batch in Loader()],
    "deque": lambda: collections.deque(Loader()),
    "generator": lambda: (batch for batch in Loader()),
    "iterator": lambda: iter(list(Loader())),
    "batches": lambda: [Batch((x,), {}, y) for x, y in Loader()],
    "pairs of one": lambda: [((x,), y) for x, y in Loader()],
    "endless": lambda: itertools.chain(Loader(), itertools.repeat(None)),
}
LENGTH_KNOWN = ("dataset", "duck", "loader")
ONCE = ("generator", "iterator", "endless")


@pytest.mark.parametrize("kind", LOADERS)
def test_loaders(kind):
    batches = as_batches(LOADERS[kind](), batch_size=3, max_batches=3)
    assert batches.n_samples == (N if kind in LENGTH_KNOWN else None)
    assert batches.repeatable == (kind not in ONCE)
    for _ in range(2 if batches.repeatable else 1):
        found = list(batches)
        assert [len(batch) for batch in found] == SIZES
        np.testing.assert_array_equal(inputs(found), table())
        assert torch.cat([b.target for b in found]).tolist() == list(range(N))


def test_batches_of_inputs_alone():
    for X in (TensorDataset(torch.from_numpy(table())), [table()[:3], table()[3:]]):
        found = read(X)
        np.testing.assert_array_equal(inputs(found), table())
        assert all(batch.target is None for batch in found)


def test_several_inputs_in_a_batch():
    x = torch.ones(2, 3)
    for batch in (
        ((x, x + 1), x[:, 0]),
        [[x, x + 1], x[:, 0]],
        ({"a": x, "b": x + 1}, x),
    ):
        (found,) = read([batch])
        given = found.args or tuple(found.kwargs.values())
        assert [float(tensor[0, 0]) for tensor in given] == [1, 2]
        assert found.target is not None
        assert float(found.input[0, 0]) == 1


def test_batches_with_weights():
    batch = Batch((table(),), {"scale": 2.0}, None, np.arange(N))
    (found,) = read(iter([batch]))
    assert found.weight.tolist() == list(range(N))
    assert found.kwargs == {"scale": 2.0}


@pytest.mark.parametrize(
    ("max_batches", "n"), [(None, 7), (1, 3), (2, 6), (3, 7), (9, 7)]
)
def test_max_batches(max_batches, n):
    loader = DataLoader(Rows(), batch_size=3)
    for X in (table(), Rows(), loader):
        batches = as_batches(X, batch_size=3, max_batches=max_batches)
        assert batches.n_samples == sum(map(len, batches)) == n


def test_length_of_loaders():
    def length(**settings):
        return as_batches(DataLoader(Rows(), **settings), batch_size=1).n_samples

    assert length(batch_size=3, drop_last=True) == 6
    assert length(batch_size=None) is None
    assert length(batch_sampler=[[0, 1], [5]]) is None
    assert length(sampler=iter(range(4))) is None
    assert length(sampler=range(4)) == 4


def test_no_more_is_taken_from_an_iterator_than_needed():
    stream = iter(Loader())
    list(as_batches(stream, batch_size=3, max_batches=1))
    assert len(next(stream)[0]) == 3


# ------------------------------------------------------------------- random loaders
@pytest.mark.parametrize("own", [False, True], ids=["global", "own generator"])
def test_generators_are_put_back(own):
    generator = torch.Generator().manual_seed(3) if own else None
    loader = DataLoader(Rows(), batch_size=3, shuffle=True, generator=generator)
    states = [torch.get_rng_state(), own and generator.get_state()]
    batches = as_batches(loader, batch_size=3)
    first = []
    for batch in batches:
        assert torch.equal(torch.get_rng_state(), states[0])
        first.append(batch)
    assert not own or torch.equal(generator.get_state(), states[1])
    np.testing.assert_array_equal(np.sort(inputs(first), 0), table())
    np.testing.assert_array_equal(inputs(batches), inputs(first))  # the same order
    assert not np.array_equal(inputs(first), table())


def test_other_generators_are_put_back():
    def used(make):
        generator = torch.Generator().manual_seed(3)
        loader = make(generator)
        before = generator.get_state()
        np.testing.assert_array_equal(np.sort(inputs(read(loader)), 0), table())
        assert torch.equal(generator.get_state(), before)

    used(lambda own: DataLoader(Rows(), generator=own))  # draws seeds of workers
    used(lambda own: DataLoader(Rows(), sampler=RandomSampler(Rows(), generator=own)))


class Noise(Rows):
    def __getitem__(self, i):
        return torch.rand(3)


def test_random_augmentation_goes_on_from_batch_to_batch():
    found = inputs(read(Noise()))
    assert len(np.unique(found)) == found.size


def test_generators_are_put_back_after_an_exception():
    def fails():
        yield table()
        torch.rand(3)
        raise OSError("the disk is gone")

    before = torch.get_rng_state()
    with pytest.raises(OSError, match="the disk is gone"):
        read(fails())
    assert torch.equal(torch.get_rng_state(), before)


def test_worker_processes():
    loader = DataLoader(Rows(), batch_size=3, num_workers=1)
    np.testing.assert_array_equal(inputs(read(loader)), table())


# ---------------------------------------------------------- numbers and their types
LAYOUTS = {
    "Fortran": np.asfortranarray,
    "negative strides": lambda X: X[::-1, ::-1].copy()[::-1, ::-1],
    "big-endian": lambda X: X.astype(X.dtype.newbyteorder(">")),
    "longdouble": lambda X: X.astype(np.longdouble),
    "float16": lambda X: X.astype(np.float16),
    "float32": lambda X: X.astype(np.float32),
    "object": lambda X: X.astype(object),
    "Float64 of pandas": lambda X: pd.DataFrame(X, dtype="Float64"),
    "strided": lambda X: np.repeat(X, 2, axis=1)[:, ::2],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_f33_f36_layouts_and_types(layout):
    found = read(LAYOUTS[layout](table()))
    np.testing.assert_array_equal(inputs(found), table())
    moved = found[0].to("cpu", torch.float64).input
    np.testing.assert_array_equal(moved, table()[:3])


def test_f36_read_only_memmap_and_broadcast(tmp_path):
    np.save(tmp_path / "X.npy", table())
    for X in (
        np.load(tmp_path / "X.npy", mmap_mode="r"),
        np.broadcast_to(table()[:1], (N, D)),
    ):
        for batch, start in zip(read(X), range(0, N, 3), strict=True):
            batch.input.add_(1)  # would be a crash in memory that is read-only
            np.testing.assert_array_equal(batch.input - 1, X[start : start + 3])


def test_arrays_are_not_copied_as_a_whole():
    X, T = table(), torch.from_numpy(table())
    assert np.shares_memory(read(X)[1].input.numpy(), X)
    assert read(T)[1].input.data_ptr() == T[3:].data_ptr()


def test_what_goes_to_a_network_is_a_copy():
    X = table()
    batch = read(X)[0].to("cpu", torch.float64)
    batch.input.zero_()
    np.testing.assert_array_equal(X, table())


TYPES = {
    # of the array: what the batch holds, and what it becomes for a float32 network
    "float64": (torch.float64, torch.float32),
    "float16": (torch.float16, torch.float32),
    "uint8": (torch.uint8, torch.float32),
    "int64": (torch.int64, torch.int64),
    "int32": (torch.int32, torch.int32),
    "int16": (torch.int64, torch.int64),
    "uint16": (torch.int64, torch.int64),
    "int8": (torch.int64, torch.int64),
    "bool": (torch.bool, torch.bool),
}


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("device", DEVICES)
def test_types(kind, device):
    for X in (table().astype(kind), torch.from_numpy(table()).to(getattr(torch, kind))):
        batch = read(X)[0]
        moved = batch.to(device, torch.float32)
        assert (batch.input.dtype, moved.input.dtype) == TYPES[kind]
        assert moved.input.device.type == device
        assert torch.equal(moved.input.cpu(), batch.input.to(TYPES[kind][1]))


def test_bfloat16():
    X = torch.from_numpy(table()).to(torch.bfloat16)
    assert read(X)[0].input.dtype == torch.bfloat16
    moved = read(table(), range(N), np.ones(N))[0].to("cpu", torch.bfloat16)
    assert moved.input.dtype == torch.bfloat16
    assert moved.weight.dtype == torch.float32
    assert moved.target.dtype == torch.int64


@pytest.mark.parametrize("kind", [np.uint8, np.int16, bool, np.int64])
def test_labels_become_int64_and_stay(kind):
    batch = read(table(), (np.arange(N) % 2).astype(kind))[0]
    assert batch.target.dtype == torch.int64
    assert batch.to("cpu", torch.float32).target.dtype == torch.int64


def test_other_targets_follow_the_network():
    batch = read(table(), np.ones((N, 2)))[0].to("cpu", torch.float32)
    assert batch.target.dtype == torch.float32


def test_f58_inference_tensors():
    with torch.inference_mode():
        X = torch.from_numpy(table()) + 0
        batches = as_batches((X, X), batch_size=3)
        inside = list(batches)
    for batch in [*inside, *batches]:
        assert not any(value.is_inference() for value in batch.args)
        weight = torch.ones((), dtype=X.dtype, requires_grad=True)
        (batch.args[1] * weight).sum().backward()


# -------------------------------------------------------------------- Batch itself
def test_order_of_preference_for_the_input():
    one, two = torch.ones(2), torch.zeros(2)
    assert Batch((None, one, two)).input is one
    assert Batch((one,), {"x": two}).input is one
    assert Batch((), {"a": one, "b": two}).input is one
    names = (
        "inputs_embeds",
        "pixel_values",
        "input",
        "inputs",
        "x",
        "input_values",
        "input_ids",
    )
    for name in names:
        assert Batch((), {"attention_mask": one, name: two}).input is two
    for better, worse in itertools.pairwise(names):
        assert Batch((), {worse: one, better: two}).input is two
    with pytest.raises(TypeError, match="needs an array or tensor"):
        _ = Batch((3,), {"x": None, "y": torch.tensor(1.0)}).input


def test_replace_input():
    one, two, new = torch.ones(2), torch.zeros(2), torch.full((2,), 7.0)
    batch = Batch((None, one, two), {"x": two}, one, two).replace_input(new)
    assert batch.args == (None, new, two)
    assert batch.kwargs["x"] is batch.weight is two
    assert batch.target is one
    batch = Batch((), {"mask": one, "x": two})
    assert batch.replace_input(new).kwargs == {"mask": one, "x": new}
    assert batch.input is two


def test_split_and_put_together():
    X = torch.from_numpy(table())
    constant = torch.ones(1, 4)
    batch = Batch((X, None), {"bias": constant, "mask": X > 3}, X[:, 0], X[:, 1])
    parts = batch.split(3)
    assert [len(part) for part in parts] == SIZES
    assert torch.equal(torch.cat([part.input for part in parts]), X)
    assert torch.equal(torch.cat([part.kwargs["mask"] for part in parts]), X > 3)
    assert torch.equal(torch.cat([part.target for part in parts]), X[:, 0])
    assert torch.equal(torch.cat([part.weight for part in parts]), X[:, 1])
    assert all(part.kwargs["bias"] is constant for part in parts)
    assert parts[0].input.data_ptr() == X.data_ptr()
    assert len(batch.split(100)) == 1


# -------------------------------------------------------------------------- faults
def with_entry(value, row=6):
    X = table()
    X[row, 1] = value
    return X


def as_loader(X):
    return DataLoader(TensorDataset(torch.as_tensor(X)), batch_size=3)


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy, as_loader, list])
def test_f01_f02_not_finite(kind):
    with pytest.raises(ValueError, match=r"Input X contains NaN\. .* in row 6\."):
        read(kind(with_entry(np.nan)))
    message = (
        r"X contains infinity or a value too large for dtype\('float64'\)\. .* 6\."
    )
    with pytest.raises(ValueError, match=message):
        read(kind(with_entry(-np.inf)))


def test_f02_single_precision():
    with pytest.raises(ValueError, match=r"dtype\('float32'\)"):
        read(with_entry(np.inf).astype(np.float32))


def test_f03_targets():
    for bad, message in ((np.nan, "Input y contains NaN"), (np.inf, "y contains inf")):
        with pytest.raises(ValueError, match=message):
            read(table(), with_entry(bad))


def test_f05_overflow_of_the_dtype_of_the_network():
    batch = read(with_entry(1e39))[2]
    batch.to("cpu", torch.float64)
    with pytest.raises(ValueError, match=r"Input X .*too large for dtype\('float32'\)"):
        batch.to("cpu", torch.float32)


def test_masks_may_hold_infinity_but_not_nan():
    read({"x": table(), "mask": with_entry(-np.inf)})
    with pytest.raises(ValueError, match=r"Input X\['mask'\] contains NaN"):
        read({"x": table(), "mask": with_entry(np.nan)})


def test_f16_masked_arrays():
    for X in (np.ma.masked_greater(table(), 3), {"x": np.ma.masked_less(table(), 3)}):
        with pytest.raises(TypeError, match="masked array: its mask would be ignored"):
            read(X)


@pytest.mark.parametrize(
    "X", [np.ones((0, 3)), torch.ones(0, 3), [], {"x": np.ones((0, 2))}, as_loader([])]
)
def test_f18_nk_nothing(X):
    with pytest.raises(ValueError, match=r"Found array with 0 sample\(s\)"):
        read(X)


def test_nk_empty_loaders():
    for X in (iter(()), DataLoader(Rows(), batch_size=9, drop_last=True)):
        with pytest.raises(ValueError, match=r"0 sample\(s\): there is no batch"):
            read(X)


def test_f19_no_features():
    with pytest.raises(ValueError, match=r"Found array with 0 feature\(s\)"):
        read(np.ones((5, 0)))


def test_f26_lengths():
    message = r"inconsistent numbers of samples: \[7, 6\]"
    for X in ((table(), table()[:6]), {"x": table(), "a": table()[:6]}):
        with pytest.raises(ValueError, match=message):
            read(X)
    with pytest.raises(ValueError, match=message):
        read(table(), np.ones(6))
    with pytest.raises(ValueError, match=message) as error:
        read([(table(), np.ones(N)), (table(), np.ones(6))])
    assert error.value.__notes__ == ["This is batch 1 of the data."]
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        read(table(), 3)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        read(table()[:1], np.ones(6))


@pytest.mark.parametrize("X", [np.float64(3), torch.tensor(3.0), {"x": 3}])
def test_scalars(X):
    with pytest.raises(TypeError, match="whose first dimension is the samples"):
        read(X)


STRINGS = {
    "array": np.full((N, D), "1.5"),
    "list": [["1", "2"], ["3", "4"]],
    "argument": {"x": table(), "text": ["a"] * N},
    "bytes": np.full((N, D), b"1"),
}


@pytest.mark.parametrize("kind", STRINGS)
def test_f33_strings(kind):
    with pytest.raises(ValueError, match="not compatible with arrays of bytes/strings"):
        read(STRINGS[kind])
    with pytest.raises(ValueError, match="could not convert string to float"):
        read(np.array([["a", 1.0]], dtype=object))


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy, list])
def test_f33_complex(kind):
    with pytest.raises(ValueError, match="Complex data not supported"):
        read(kind(table() + 1j))


def test_f33_missing_integers():
    X = pd.DataFrame({"a": pd.array([1, None, 2], dtype="Int64")})
    with pytest.raises(ValueError, match=r"Input X contains NaN\. .* in row 1\."):
        read(X)


SPARSE = {
    "matrix": scipy.sparse.csr_matrix,
    "array": scipy.sparse.coo_array,
    "tensor": lambda X: torch.from_numpy(X).to_sparse(),
    "argument": lambda X: {"x": X, "mask": scipy.sparse.csr_matrix(X)},
}


@pytest.mark.parametrize("kind", SPARSE)
def test_f34_sparse(kind):
    with pytest.raises(TypeError, match=r"Sparse data was passed.* but dense data is"):
        read(SPARSE[kind](table()))


def test_f37_meta():
    with pytest.raises(ValueError, match="Input X is a tensor on the meta device"):
        read(torch.ones(3, 2, device="meta"))


def test_f43_weights():
    for bad, message in (
        (np.zeros(N), "at least one non-zero"),
        (np.full(N, np.nan), "sample_weight contains NaN"),
        (-np.ones(N), "Negative values"),
        (np.ones(3), r"sample_weight.shape == \(3,\), expected \(7,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            read(table(), sample_weight=bad)


def test_nk_exhausted_generators():
    batches = as_batches(iter(Loader()), batch_size=3)
    list(batches)
    with pytest.raises(RuntimeError, match="exhausted: they come from a generator"):
        iter(batches)


def test_nk_exhausted_behind_an_object_that_can_be_iterated():
    class Once(IterableDataset):
        rows = iter(Rows())

        def __iter__(self):
            return self.rows

    batches = as_batches(Once(), batch_size=3)
    assert sum(map(len, batches)) == N
    with pytest.raises(RuntimeError, match="exhausted: they come from a generator"):
        list(batches)


@pytest.mark.parametrize(
    "X", [itertools.count(), itertools.cycle([table()]), itertools.repeat(table())]
)
def test_nk_endless(X):
    with pytest.raises(ValueError, match=r"data have no end .*: say with max_batches"):
        as_batches(X, batch_size=3)


def test_nk_endless_up_to_max_batches():
    cycle = itertools.cycle([table()])
    assert len(read(cycle, max_batches=4)) == 4
    assert len(read(itertools.repeat(table(), 2))) == 2


def test_nk_varying_shapes_and_empty_batches():
    found = read([torch.ones(2, 3), torch.ones(0, 3), torch.ones(1, 5, 5)])
    assert [tuple(batch.input.shape) for batch in found] == [(2, 3), (1, 5, 5)]


def test_nk_forms_of_batches_that_are_not_clear():
    x = table()
    with pytest.raises(TypeError, match=r"A batch of 3 items: it is not clear which"):
        read([(x, x, x)])
    with pytest.raises(ValueError, match="Targets are given twice"):
        read([({"x": x, "labels": x}, x)])
    with pytest.raises(ValueError, match="Targets are given twice"):
        read({"x": x, "label": x}, y=x)


@pytest.mark.parametrize("X", [Rows(), Loader(), iter(Loader()), list(Loader())])
def test_targets_beside_loaders(X):
    for beside in ({"y": np.ones(N)}, {"sample_weight": np.ones(N)}):
        with pytest.raises(ValueError, match="can be given beside arrays only"):
            read(X, **beside)


@pytest.mark.parametrize("X", [None, 3, "table.csv", b"table", len])
def test_what_is_accepted_is_listed(X):
    with pytest.raises(
        TypeError, match="Data are an array, DataFrame or tensor, a map"
    ):
        read(X)


def test_batches_by_hand():
    batches = Batches(lambda: iter([Batch((table(),))]))
    assert batches.repeatable
    assert batches.n_samples is None
    assert len(list(batches)) == 1

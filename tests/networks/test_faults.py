"""Bad input and hazards: one test for each row of the table of faults for networks.

The ids (F01, Na, …) are those of the design notes; F54 and Nk have more tests in
test_estimator.py, Nb, Nc, Nh, Nj, F56 and F58 in test_guards.py, Nf in test_outputs.py.
"""

import copy
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import tracemalloc

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse
import torch
from sklearn.utils.estimator_checks import _NotAnArray
from torch import nn

from agop import NetworkAGOP
from agop.core.arrays import InvalidParameterError, NumericalWarning
from tests.conftest import changes, global_state
from tests.devices import LargestTensor
from tests.networks.nets import (
    Text,
    cnn,
    mlp,
    narrow,
    network_and_data,
    numbers,
    seeded,
)
from tests.networks.references import assert_same, average, numerical, rowwise

D = 6
KINDS = ["full", "linear", "diagonal", "rows", "low_rank"]


def model(network=None, **settings):
    return NetworkAGOP(seeded(narrow) if network is None else network, **settings)


def points(n_samples=10):
    return numbers(n_samples, D).numpy()


@pytest.fixture(scope="module")
def fitted():
    return model().fit(points())


def with_entry(array, value):
    array = np.array(array, dtype=float)
    array.flat[3] = value
    return array


def matrix(fitted):
    """The AGOP at the only place."""
    found = fitted.agop_
    return next(iter(found.values())) if isinstance(found, dict) else found


def methods(fitted):
    """Every call that takes data."""
    return [
        lambda X: model().fit(X),
        lambda X: copy.deepcopy(fitted).partial_fit(X),
        fitted.transform,
        lambda X: fitted.bootstrap(X, n_resamples=3),
    ]


# ------------------------------------------------------- 1. rejected with an error
NON_FINITE = {
    np.nan: "contains NaN",
    np.inf: "contains infinity or a value too large for dtype",
}


@pytest.mark.parametrize("value", NON_FINITE)
@pytest.mark.parametrize("form", [np.asarray, torch.from_numpy, pd.DataFrame, list])
def test_f01_f02_f04_not_finite(fitted, value, form):
    X = form(with_entry(points(), value))
    for method in methods(fitted):
        with pytest.raises(ValueError, match=f"Input X {NON_FINITE[value]}"):
            method(X)


def test_f01_in_a_loader():
    batches = [
        torch.from_numpy(points()),
        torch.from_numpy(with_entry(points(), np.nan)),
    ]
    with pytest.raises(ValueError, match="Input X contains NaN"):
        model().fit(batches)


@pytest.mark.parametrize("value", NON_FINITE)
def test_f03_targets_that_are_not_finite(value):
    y = with_entry(numbers(10, 3).numpy(), value)
    with pytest.raises(ValueError, match=f"Input y {NON_FINITE[value]}"):
        model(outputs="loss").fit(points(), y)


def test_f05_overflow_of_the_computing_dtype():
    X = with_entry(points(), 1e39)
    single = model(seeded(narrow).float())
    too_large = r"Input X .*too large for dtype\('float32'\)"
    for given in (X, torch.from_numpy(X), [torch.from_numpy(X)]):
        with pytest.raises(ValueError, match=too_large):
            single.fit(given)
    fitted = single.fit(points())
    with pytest.raises(ValueError, match=too_large):
        fitted.transform(X)
    assert np.isfinite(model(seeded(narrow)).fit(X).agop_).all()  # in float64


def test_f16_masked_arrays(fitted):
    masked = np.ma.masked_greater(points(), 1)
    for method in methods(fitted):
        with pytest.raises(TypeError, match="mask would be ignored"):
            method(masked)


SHAPES = {
    "F18": ((0, D), r"Found array with 0 sample\(s\)"),
    "F19": ((10, 0), r"Found array with 0 feature\(s\)"),
    "F24": ((10,), "Expected 2D array, got 1D array instead"),
    "F24 scalar": ((), "Expected 2D array, got scalar array instead"),
}


@pytest.mark.parametrize("row", SHAPES)
def test_f18_f19_f24_shapes(fitted, row):
    shape, message = SHAPES[row]
    for method in methods(fitted):
        with pytest.raises(ValueError, match=message):
            method(np.zeros(shape))
        with pytest.raises((ValueError, TypeError, RuntimeError)):
            method(torch.zeros(shape, dtype=torch.float64))


def test_f25_the_network_decides_about_dimensions():
    network, X = network_and_data("cnn")
    found = NetworkAGOP(network, kind="full").fit(X.numpy())
    assert_same(found.agop_, average(rowwise(network, X)))
    assert found.sample_shape_ == (2, 8, 8)


def test_f30_wrong_number_of_features(fitted):
    message = "X has 3 features, but NetworkAGOP is expecting 6 features as input"
    for method in methods(fitted)[1:]:
        with pytest.raises(ValueError, match=message):
            method(points()[:, :3])


def test_f31a_column_names_reordered_or_missing():
    frame = pd.DataFrame(points(), columns=list("abcdef"))
    fitted = model().fit(frame)
    message = "The feature names should match those that were passed during fit"
    for other in (frame[list("fedcba")], frame[list("abcde")]):
        for method in methods(fitted)[1:]:
            with pytest.raises(ValueError, match=message):
                method(other)


def test_f31b_names_come_or_go():
    frame = pd.DataFrame(points(), columns=list("abcdef"))
    message = "X does not have valid feature names, but NetworkAGOP was fitted with"
    with pytest.warns(UserWarning, match=message):
        model().fit(frame).transform(points())
    message = "X has feature names, but NetworkAGOP was fitted without"
    with pytest.warns(UserWarning, match=message):
        model().fit(points()).transform(frame)


def test_f32_names_of_mixed_type():
    message = "Feature names are only supported if all input features have string names"
    with pytest.raises(TypeError, match=message):
        model().fit(pd.DataFrame(points(), columns=["a", 1, "b", "c", "d", "e"]))


def test_f33a_types_without_numbers(fitted):
    X = points()
    strings = "not compatible with arrays of bytes/strings"
    for bad in (X.astype(str), X.astype("S"), X.astype(str).tolist()):
        for method in methods(fitted):
            with pytest.raises(ValueError, match=strings):
                method(bad)
    for bad in (X + 1j, torch.from_numpy(X + 1j)):
        with pytest.raises(ValueError, match="Complex data not supported"):
            model().fit(bad)
    nullable = pd.DataFrame({"a": pd.array([1, None] * 5, dtype="Int64")})
    with pytest.raises(ValueError, match="Input X contains NaN"):
        model().fit(nullable)
    category = pd.DataFrame({"a": pd.Categorical(["low", "high"] * 5)})
    with pytest.raises(ValueError, match="could not convert string to float"):
        model().fit(category)


@pytest.mark.parametrize("dtype", [int, bool, np.float16, np.float32, object, "uint8"])
def test_f33b_other_types_of_numbers(dtype):
    X = (points() > 0).astype(float)
    expected = model().fit(X).agop_
    assert_same(model().fit(X.astype(dtype)).agop_, expected, 0)
    assert_same(model().fit(pd.DataFrame(X.astype(dtype))).agop_, expected, 0)


def test_f33b_nullable_numbers():
    X = np.arange(60.0).reshape(10, D) % 7
    frame = pd.DataFrame(X).astype("Int64")
    assert_same(model().fit(frame).agop_, model().fit(X).agop_, 0)


@pytest.mark.parametrize("kind", ["csr_matrix", "csr_array", "coo_array"])
def test_f34_sparse(fitted, kind):
    sparse = getattr(scipy.sparse, kind)(points())
    for method in methods(fitted):
        with pytest.raises(TypeError, match=r"Sparse data was passed.*dense data is"):
            method(sparse)
    with pytest.raises(TypeError, match="Sparse data was passed"):
        model().fit(torch.from_numpy(points()).to_sparse())
    assert not fitted.__sklearn_tags__().input_tags.sparse


def test_f35_containers(fitted):
    X = points()
    for given in (
        pd.DataFrame(X),
        pl.DataFrame(X),
        X.tolist(),
        _NotAnArray(X),
        torch.from_numpy(X),
        torch.from_numpy(X).requires_grad_(),
    ):
        assert_same(model().fit(given).agop_, fitted.agop_, 1e-14)


def test_f36_layouts(fitted, tmp_path):
    X = points()
    np.save(tmp_path / "X.npy", X)
    read_only = X.copy()
    read_only.flags.writeable = False
    stretched = np.zeros((2 * len(X), D))
    stretched[::2] = X
    for given in (
        np.load(tmp_path / "X.npy", mmap_mode="r"),
        read_only,
        np.asfortranarray(X),
        X[::-1][::-1],
        stretched[::2],
        X.astype(">f8"),
        X.astype(np.longdouble),
        torch.from_numpy(np.asfortranarray(X)),
    ):
        before = np.asarray(given).copy()
        assert_same(model().fit(given).agop_, fitted.agop_, 1e-14)
        np.testing.assert_array_equal(np.asarray(given), before)
    assert_same(model().fit(X[::-1]).agop_, fitted.agop_, 1e-12)
    same = np.broadcast_to(X[:1], (10, D))
    assert_same(model().fit(same).agop_, model().fit(X[:1]).agop_, 1e-12)


def test_f37a_meta_tensors(fitted):
    X = torch.empty(10, D, device="meta")
    for method in methods(fitted):
        with pytest.raises(ValueError, match="tensor on the meta device"):
            method(X)
    with pytest.raises(ValueError, match="'meta', which holds no numbers"):
        model(device="meta").fit(points())


BAD = [-1, 0, 1.5, np.nan, np.inf, "three", True, [1], 10**400]


@pytest.mark.parametrize(
    "name", ["n_components", "batch_size", "max_batches", "n_probes"]
)
@pytest.mark.parametrize("value", BAD, ids=lambda value: repr(value)[:6])
def test_f44_numbers_outside_their_range(name, value):
    found = model(**{name: value})  # never in __init__
    message = rf"The '{name}' parameter of NetworkAGOP must be an int in the range \[1"
    for kind in (ValueError, TypeError):
        with pytest.raises(kind, match=message) as caught:
            found.fit(points())
    assert f"Got {value!r} instead" in str(caught.value)


@pytest.mark.parametrize(
    "parameters",
    [
        {"kind": "dense"},
        {"kind": None},
        {"center": 1},
        {"center": "yes"},
        {"positions": "words"},
        {"positions": None},
        {"outputs": "logits"},
        {"outputs": None},
        {"batch_size": None},
        {"dtype": "float16"},
        {"dtype": 32},
        {"device": "cuda:99"},
        {"device": "gpu"},
        {"device": None},
        {"verbose": -1},
        {"verbose": "yes"},
        {"random_state": "yes"},
        {"layers": 3},
    ],
    ids=str,
)
def test_f44_f48_every_parameter_is_checked(parameters):
    (name,) = parameters
    message = {
        "layers": "A layer is given by",
        "random_state": "cannot be used to seed",
    }.get(name, f"'{name}' parameter of NetworkAGOP")
    with pytest.raises(ValueError, match=message):
        model(**parameters).fit(points())


def test_f48_known_names_and_devices_are_listed():
    with pytest.raises(
        InvalidParameterError, match="'full', 'linear', 'diagonal', 'row"
    ):
        model(kind="dense").fit(points())
    with pytest.raises(InvalidParameterError, match="'all', 'last', 'probabilities'"):
        model(outputs="logits").fit(points())
    with pytest.raises(InvalidParameterError, match="Available devices: cpu"):
        model(device="cuda:99").fit(points())


@pytest.mark.parametrize("kind", [*KINDS, "auto"])
def test_f49_more_components_than_dimensions(kind):
    message = "n_components=7 is larger than the dimensionality at 'input', which is 6"
    with pytest.raises(ValueError, match=message):
        model(kind=kind, n_components=7).fit(points())
    with pytest.raises(ValueError, match=r"dimensionality at '0', which is 4"):
        model(layers=["input", "0"], n_components=5).fit(points())
    assert model(kind=kind, n_components=4).fit(points()).components_.shape == (4, D)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (3, "A network is a torch.nn.Module"),
        (None, "A network is a torch.nn.Module"),
        (nn.Linear, "is the class Linear: pass a trained instance"),
    ],
)
def test_what_is_no_network(network, message):
    with pytest.raises(TypeError, match=message):
        NetworkAGOP(network).fit(points())


# ------------------------------------------------- 2. works, and the result is finite
def test_f06_enormous_values():
    for size in (1e150, 1e300):
        with pytest.warns(NumericalWarning, match="is zero"):  # tanh is saturated
            found = model(kind="full").fit(points() * size)
        assert (found.agop_ == 0).all()
    with pytest.raises(
        ValueError, match=r"entries of 1.*e\+200, whose squares overflow"
    ):
        NetworkAGOP(lambda x: x * 1e200).fit(points())
    with pytest.raises(
        ValueError, match=r"overflow in torch.float32. Divide the output"
    ):
        NetworkAGOP(lambda x: x * 1e30).fit(points().astype(np.float32))
    large = NetworkAGOP(lambda x: x * 1e15).fit(points().astype(np.float32))
    np.testing.assert_allclose(large.agop_, 1e30 * np.eye(D), rtol=1e-6)
    large = NetworkAGOP(lambda x: x * 1e150, kind="low_rank", n_components=2).fit(
        points()
    )
    np.testing.assert_allclose(large.eigenvalues_, 1e300)


def test_f06_tiny_gradients_are_not_lost_in_silence():
    found = NetworkAGOP(lambda x: x * 1e-150).fit(points())
    np.testing.assert_allclose(found.agop_, 1e-300 * np.eye(D))
    tiny = points().astype(np.float32)
    with pytest.warns(NumericalWarning, match="squares are lost in torch.float32"):
        NetworkAGOP(lambda x: x * 1e-30).fit(tiny)
    found = NetworkAGOP(lambda x: x * 1e-15).fit(tiny)
    np.testing.assert_allclose(found.agop_, 1e-30 * np.eye(D), rtol=1e-6)


def test_f09_one_feature_is_much_larger():
    X, network = points() * np.r_[1e12, np.ones(D - 1)], seeded(narrow)
    network[0].weight.data[:, 0] *= 1e-12
    for kind in KINDS:
        found = model(network, kind=kind).fit(X)
        assert np.isfinite(found.agop_).all()
        assert np.isfinite(found.transform(X)).all()
    scaled = NetworkAGOP(lambda x: (x * torch.tensor([1e-9, 1.0])).sin()).fit(X[:, :2])
    assert np.isfinite(scaled.eigenvalues_).all()


@pytest.mark.parametrize("kind", KINDS)
def test_f10_a_column_that_is_not_read(kind):
    """Whether a column is constant makes no difference to a network that is given."""
    network = seeded(narrow)
    network[0].weight.data[:, 2] = 0
    found = model(network, kind=kind).fit(points())
    assert found.feature_importances_[2] == 0
    assert np.isfinite(found.feature_importances_).all()
    if kind != "diagonal":
        assert (found.agop_[2] == 0).all()
        assert (found.agop_[:, 2] == 0).all()
    assert (np.abs(found.components_[0, 2]) < 1e-12).all()
    constant = points()
    constant[:, 1] = 3.0
    assert np.isfinite(model(kind=kind).fit(constant).eigenvalues_).all()


def test_f15_duplicated_columns_share():
    network = seeded(narrow)
    network[0].weight.data[:, 1] = network[0].weight.data[:, 0]
    for kind in KINDS:
        found = model(network, kind=kind, n_components=1).fit(points())
        first, second, *_ = found.feature_importances_
        np.testing.assert_allclose(first, second, rtol=1e-12)
        if kind != "diagonal":
            np.testing.assert_allclose(*found.components_[0, :2], rtol=1e-9)


def test_f17_strange_zeros():
    X = points()
    X.flat[:4] = [-0.0, 5e-324, -1e-310, 0.0]
    plain = np.where(np.abs(X) < 1e-300, 0.0, X)
    assert_same(model().fit(X).agop_, model().fit(plain).agop_, 1e-12)


@pytest.mark.parametrize("kind", [*KINDS, "auto"])
@pytest.mark.parametrize("n_samples", [1, 2])
def test_f20_f21_few_rows(kind, n_samples):
    X = points(n_samples)
    found = model(kind=kind).fit(X)
    expected = average(rowwise(seeded(narrow), torch.from_numpy(X)))
    assert_same(
        found.agop_, np.diag(expected) if kind == "diagonal" else expected, 1e-8
    )
    assert np.isfinite(found.transform(X)).all()


def wide_function(x):
    return torch.stack([x.sin().sum(1), (x[:, :50] ** 2).sum(1)], 1)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"center": True},
        {"kind": "diagonal"},
        {"kind": "low_rank", "n_components": 3},
    ],
    ids=str,
)
def test_f22_fewer_rows_than_features_without_a_square_matrix(settings):
    X = numbers(10, 10_000).float()

    def everything(X):
        found = NetworkAGOP(wide_function, **settings).fit(X)
        read = ["eigenvalues_", "components_", "feature_importances_", "trace_"]
        assert all(np.isfinite(getattr(found, name)).all() for name in read)
        found.transform(X)
        if found.kind_ != "diagonal":  # of which no eigenvalues are known
            found.bootstrap(X, n_resamples=5)
        return found.kind_

    everything(X[:5])  # what is imported only when it is needed
    with LargestTensor() as largest:
        assert everything(X) == settings.get("kind", "rows")
    assert largest.numel < 10_000 * 300
    tracemalloc.start()  # which sees the arrays of numpy
    everything(X)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 10_000 * 300


def test_f22_the_right_eigenvalues():
    X = numbers(10, 10_000).float()
    J = np.stack([[np.cos(x), np.r_[2 * x[:50], np.zeros(9950)]] for x in X.numpy()])
    values = np.linalg.svd(J.reshape(20, -1), full_matrices=False)[1] ** 2 / 10
    found = NetworkAGOP(wide_function, n_components=4).fit(X)
    np.testing.assert_allclose(found.eigenvalues_, values[:4], rtol=1e-5)


@pytest.mark.parametrize("kind", ["full", "diagonal", "rows", "low_rank", "auto"])
def test_f23_one_feature(kind):
    found = NetworkAGOP(lambda x: x**2, kind=kind).fit(np.arange(1.0, 5.0)[:, None])
    np.testing.assert_allclose(found.trace_, np.mean(4 * np.arange(1, 5) ** 2))
    np.testing.assert_allclose(np.abs(found.components_), [[1.0]])
    assert found.feature_importances_ == pytest.approx([1.0])


def test_f37b_tensors_that_require_a_gradient():
    X = torch.from_numpy(points()).requires_grad_()
    found = model().fit(X)
    assert_same(found.agop_, model().fit(points()).agop_, 0)
    assert X.grad is None
    assert X.requires_grad


# ------------------------------------------------------------- 3. works and warns
def saturated(network):
    """A network whose hidden units are all dead."""
    network = copy.deepcopy(network)
    network[0].bias.data.fill_(-1e9)
    network[1] = nn.ReLU()
    return network


@pytest.mark.parametrize("kind", KINDS)
def test_f11_f12_an_agop_of_zero_warns(kind):
    network, X = saturated(seeded(narrow)), points()
    message = (
        "The AGOP at 'input' is zero: the output does not change with what is there"
    )
    with pytest.warns(NumericalWarning, match=message):
        found = model(network, kind=kind).fit(X)
    assert (found.agop_ == 0).all()
    assert found.trace_ == 0
    assert (found.feature_importances_ == 0).all()
    assert found.eigenvalues_.tolist() == [0.0]
    assert found.explained_ratio_.tolist() == [0.0]
    assert found.components_.tolist() == [[1, 0, 0, 0, 0, 0]]
    assert found.transform(X).shape == (10, 1)
    assert found.probe_error_ == 0.0
    with pytest.warns(NumericalWarning, match="is zero"):
        found.partial_fit(X)
    assert found.merge(found).trace_ == 0
    if kind != "diagonal":
        assert found.bootstrap(X, n_resamples=4).eigenvalues.abs().max() == 0


def test_f11_only_the_layers_that_are_dead_are_named():
    network = saturated(seeded(narrow))
    with pytest.warns(NumericalWarning, match="The AGOP at 'input', '0' is zero"):
        found = model(network, layers=["input", "2", "0"]).fit(points())
    assert found.trace_["2"] > 0


def test_a_zero_agop_of_sketches_and_many_features():
    """H5: an eigensolver must not be asked for the directions of nothing."""
    for d, kind in ((300, "low_rank"), (300, "full"), (5000, "rows"), (20, "diagonal")):
        with pytest.warns(NumericalWarning, match="is zero"):
            found = NetworkAGOP(lambda x: 0 * x[:, :1], kind=kind, n_components=2)
            found.fit(numbers(5, d))
        assert np.isfinite(found.components_).all()
        assert (found.eigenvalues_ == 0).all()


# ------------------------------------------------------------------------ 4. numerics
@pytest.mark.parametrize("kind", KINDS)
def test_f51_order_and_sign_are_fixed(kind):
    X = points()
    for network in (seeded(narrow), seeded(nn.Linear, D, 1)):  # the latter of rank 1
        found = model(network, kind=kind, n_components=1).fit(X)
        again = model(network, kind=kind, n_components=1).fit(X)
        assert np.array_equal(found.components_, again.components_)
        for component in found.components_:
            assert component[np.abs(component).argmax()] > 0
            np.testing.assert_allclose(np.linalg.norm(component), 1, rtol=1e-6)
    flipped = NetworkAGOP(lambda x: -seeded(nn.Linear, D, 1)(x), n_components=1).fit(X)
    plain = NetworkAGOP(seeded(nn.Linear, D, 1), n_components=1).fit(X)
    np.testing.assert_allclose(flipped.components_, plain.components_)


def test_f51_equal_eigenvalues():
    for kind in ("full", "rows", "low_rank", "diagonal"):
        found = NetworkAGOP(lambda x: x, kind=kind, n_components=D).fit(points())
        again = NetworkAGOP(lambda x: x, kind=kind, n_components=D).fit(points())
        np.testing.assert_allclose(found.eigenvalues_, 1, rtol=1e-12)
        assert np.array_equal(found.components_, again.components_)
        gram = found.components_ @ found.components_.T
        np.testing.assert_allclose(gram, np.eye(D), atol=1e-9)


def test_h8_sums_are_in_float64():
    """Small gradients after a large one: in float32 the ones would be lost."""
    X = torch.ones(256, 1)
    X[0] = 2.0**12
    found = NetworkAGOP(lambda x: x**2 / 2, batch_size=1, kind="full").fit(X)
    assert found.agop_[0, 0] == (2.0**24 + 255) / 256


# --------------------------------------------------------------------- 5. environment
def test_f54_a_dense_matrix_that_does_not_fit():
    """Found out in milliseconds, as an error that says what to do."""
    message = r"at 'input' has 3000000² entries, 67055.2 GiB.*Pass kind='low_rank'"
    with pytest.raises(MemoryError, match=message):
        NetworkAGOP(lambda x: x[:, :1], kind="full").fit(torch.ones(1, 3_000_000))


class Interrupting(nn.Module):
    def __init__(self, error):
        super().__init__()
        self.body = narrow()
        self.error, self.on = error, []

    def forward(self, x):
        if self.on and len(x) > 2:
            raise self.error
        return self.body(x)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("x"), OSError("x")])
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_f55_an_interrupted_refit_loses_nothing(error, method):
    frame = pd.DataFrame(points(), columns=list("abcdef"))
    found = model(seeded(Interrupting, error)).fit(frame)
    before = {name: copy.deepcopy(value) for name, value in vars(found).items()}
    agop, transformed = found.agop_, found.transform(frame)
    found.network.on.append(True)
    with pytest.raises(type(error)):
        getattr(found, method)(points(20) if method == "fit" else frame)
    found.network.on.clear()
    assert vars(found).keys() == before.keys()
    assert found.n_samples_seen_ == 10
    assert found.feature_names_in_.tolist() == list("abcdef")
    assert np.array_equal(found.agop_, agop)
    assert np.array_equal(found.transform(frame), transformed)


@pytest.mark.parametrize(
    "bad",
    [
        lambda found: found.fit(points()[:, :2]),
        lambda found: found.fit(points() * np.nan),
        lambda found: found.fit(numbers(4, 3)),
        lambda found: found.fit([]),
        lambda found: found.fit(iter([])),
        lambda found: found.set_params(n_components=99).fit(points()),
        lambda found: found.set_params(layers=["nowhere"]).fit(points()),
        lambda found: found.partial_fit(points()[:, :2]),
        lambda found: found.merge(model(kind="diagonal").fit(points())),
    ],
)
def test_f55_a_failed_refit_loses_nothing(bad):
    found = model(layers="input").fit(points())
    agop, names = found.agop_["input"], vars(found).keys() - {"layers", "n_components"}
    with pytest.raises((ValueError, RuntimeError)):
        bad(found)
    found.set_params(layers="input", n_components=None)
    assert vars(found).keys() - {"layers", "n_components"} == names
    assert found.n_features_in_ == D
    assert np.array_equal(found.agop_["input"], agop)
    assert found.partial_fit(points()).n_samples_seen_ == 20


def test_f55_a_failed_first_fit_leaves_nothing():
    found = model()
    with pytest.raises(RuntimeError):
        found.fit(points()[:, :3])
    assert not [name for name in vars(found) if name.endswith("_")]


def run(code, *flags, environment=(), **options):
    """Output of a fresh interpreter that runs `code`."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **dict(environment)}
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    environment["PYTHONPATH"] = os.pathsep.join(
        filter(None, [root, environment.get("PYTHONPATH")])
    )
    result = subprocess.run(
        [sys.executable, *flags, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=environment,
        **options,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.slow
def test_f55_sigint():
    code = """
        import os, signal, threading, numpy as np, torch
        from agop import NetworkAGOP
        network = torch.nn.Sequential(torch.nn.Linear(50, 60), torch.nn.Tanh()).train()
        X = np.random.default_rng(0).standard_normal((100, 50)).astype(np.float32)
        model = NetworkAGOP(network).fit(X)
        before = model.agop_
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
        try:
            model.fit(torch.from_numpy(X) for _ in range(10**6))
        except KeyboardInterrupt:
            assert np.array_equal(model.agop_, before)
            assert network.training and network[0].weight.requires_grad
            assert not network[0]._forward_hooks
            print("interrupted")
    """
    assert signal.SIGINT and run(code) == "interrupted\n"


def plain():
    """Of torch's own classes, which another process knows."""
    return nn.Sequential(nn.Linear(D, 4), nn.Tanh(), nn.Linear(4, 2))


@pytest.mark.slow
def test_f56_pickle_to_another_process(tmp_path):
    network = seeded(plain)
    found = model(network, layers=["input", "0"], outputs=[0]).fit(points())
    path = tmp_path / "model.pickle"
    path.write_bytes(pickle.dumps(found))
    np.save(tmp_path / "X.npy", points())
    np.save(tmp_path / "out.npy", found.transform(points()))
    code = f"""
        import pickle, numpy as np
        model = pickle.load(open({str(path)!r}, "rb"))
        X, out = (np.load({str(tmp_path)!r} + name) for name in ("/X.npy", "/out.npy"))
        assert np.array_equal(model.transform(X), out)
        print(model.partial_fit(X).n_samples_seen_)
    """
    assert run(code) == "20\n"


@pytest.mark.parametrize(
    "backend", ["threading", pytest.param("loky", marks=pytest.mark.slow)]
)
def test_f56_in_parallel(backend):
    """As with n_jobs=2: each worker fits, and the parts are merged."""
    network, X = seeded(plain), points(20)
    parts = joblib.Parallel(n_jobs=2, backend=backend)(
        joblib.delayed(NetworkAGOP(network).fit)(rows) for rows in np.split(X, 4)
    )
    whole = parts[0]
    for part in parts[1:]:
        whole.merge(part)
    assert_same(whole.agop_, NetworkAGOP(network).fit(X).agop_, 1e-12)


@pytest.mark.parametrize(
    "settings",
    [{}, {"n_probes": 2}, {"kind": "low_rank"}, {"layers": ["0"], "center": 0}],
)
def test_f57_global_state_is_untouched(settings):
    if "center" in settings:
        settings["center"] = True
    before = global_state()
    found = model(**settings).fit(points())
    found.partial_fit(points()).merge(found).transform(points())
    found.bootstrap(points(), n_resamples=3)
    assert np.isfinite(matrix(found)).all()
    assert changes(before, global_state()) == []


@pytest.mark.changes_global_state("torch default dtype")
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("settings", [{}, {"n_probes": 2}, {"kind": "low_rank"}])
def test_f57_default_dtype_does_not_matter(dtype, settings):
    network, X = seeded(narrow).float(), points()
    expected = model(network, random_state=0, **settings).fit(X)
    torch.set_default_dtype(dtype)
    try:
        found = model(network, random_state=0, **settings).fit(X)
        assert np.array_equal(found.agop_, expected.agop_)
        assert np.array_equal(found.transform(X), expected.transform(X))
        assert found.probe_error_ == expected.probe_error_
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="there is no /proc")
def test_f60_without_asserts_in_a_read_only_folder():
    code = """
        import numpy as np, torch
        from agop import NetworkAGOP
        X = np.random.default_rng(0).standard_normal((40, 3))
        NetworkAGOP(torch.sin, verbose=1).fit(X).transform(X)
        try:
            NetworkAGOP(torch.sin, kind="dense").fit(X)
        except ValueError as error:
            print(error)
    """
    found = run(code, environment={"PYTHONOPTIMIZE": "2"}, cwd="/proc/self")
    assert "The 'kind' parameter of NetworkAGOP" in found


# ------------------------------------------------------------------------ 6. networks
class Cut(nn.Module):
    """No derivative leads through."""

    def __init__(self, how):
        super().__init__()
        self.first, self.second = nn.Linear(D, 4), nn.Linear(4, 3)
        self.how = how

    def forward(self, x):
        return self.how(self, x)


def no_grad(network, x):
    with torch.no_grad():
        return network.second(network.first(x))


def partly_no_grad(network, x):
    with torch.no_grad():
        h = network.first(x)
    return network.second(h)


CUTS = {
    "no_grad": no_grad,
    "no_grad below": partly_no_grad,
    "detach": lambda network, x: network.second(network.first(x.detach())),
    "detach inside": lambda network, x: network.second(network.first(x).detach()),
    "detach at the end": lambda network, x: network.second(network.first(x)).detach(),
    "argmax": lambda network, x: network.second(network.first(x)).argmax(1).double(),
    "round to int": lambda network, x: network.second(network.first(x).long().double()),
    "numpy": lambda network, x: torch.from_numpy(
        network.second(network.first(x)).detach().numpy()
    ),
    "data": lambda network, x: network.second(network.first(x).data),
    "constant": lambda network, x: torch.zeros(len(x), 3),
    "integers": lambda network, x: network.first(x).long(),
}


@pytest.mark.parametrize("kind", ["auto", "full"])
@pytest.mark.parametrize("cut", CUTS)
def test_na_graphs_that_are_cut(cut, kind):
    network = seeded(Cut, CUTS[cut])
    with pytest.raises(ValueError, match="does not depend differentiably on 'input'"):
        NetworkAGOP(network, kind=kind).fit(points())


def test_na_graphs_that_are_cut_behind_some_layers():
    network = seeded(Cut, partly_no_grad)
    message = "does not depend differentiably on 'first:input'"
    for layers in (["first:input"], ["second:input", "first:input"]):
        with pytest.raises(ValueError, match=message):
            NetworkAGOP(network, layers=layers).fit(points())
    layers = ["second:input", "first"]  # which are behind the cut
    found = NetworkAGOP(network, layers=layers).fit(points())
    W = network.second.weight.detach().numpy()
    for layer in layers:
        assert_same(found.agop_[layer], W.T @ W)
    with pytest.raises(ValueError, match="differentiably on 'first', 'second:input'"):
        NetworkAGOP(seeded(Cut, no_grad), layers=["first", "second:input"]).fit(
            points()
        )


def test_nb_rows_that_depend_on_each_other():
    def build():
        return nn.Sequential(
            nn.Linear(D, 4),
            nn.BatchNorm1d(4, track_running_stats=False),
            nn.Linear(4, 2),
        )

    message = "The output of one row depends on other rows of the batch"
    with pytest.raises(ValueError, match=message):
        NetworkAGOP(seeded(build)).fit(points())
    for function in (
        lambda x: x + x.mean(0),
        lambda x: torch.softmax(x @ x.T, 1) @ x,
        lambda x: x.flip(0),
        lambda x: x.cumsum(0),
    ):
        with pytest.raises(ValueError, match=message):
            NetworkAGOP(function).fit(points())
        alone = NetworkAGOP(function, batch_size=1).fit(points())
        assert alone.n_samples_seen_ == 10
        loader = torch.from_numpy(points()).split(4)
        again = NetworkAGOP(function, batch_size=1).fit(list(loader))
        assert_same(again.agop_, alone.agop_, 1e-12)


def test_nb_the_batch_must_be_the_first_dimension():
    lstm = seeded(nn.LSTM, 3, 5)  # (n_tokens, n_samples, n_features)
    with pytest.raises(ValueError, match="batch_first=True"):
        NetworkAGOP(lstm).fit(numbers(4, 2, 3))
    turned = seeded(lambda: nn.Sequential(nn.Linear(3, 2)))
    function = lambda x: turned(x.transpose(0, 1)).sum(0)  # noqa: E731
    with pytest.raises(ValueError, match="its first dimension is not the batch"):
        NetworkAGOP(function, layers=["turned.0"]).fit(numbers(4, 5, 3))


def test_nc_randomness_in_eval_mode():
    def function(x):
        return nn.functional.dropout(x, 0.5)

    with pytest.raises(
        ValueError, match="Two passes over the same rows give different"
    ):
        NetworkAGOP(function).fit(points())
    noisy = lambda x: x + torch.randn_like(x)  # noqa: E731
    with pytest.raises(ValueError, match="Two passes over the same rows"):
        NetworkAGOP(noisy).fit(points())


@pytest.mark.parametrize("name", ["old function", "branch", "scripted"])
def test_nd_what_functorch_refuses(name):
    network, X = network_and_data(name)
    if name != "scripted":
        with pytest.raises(RuntimeError):
            torch.func.vmap(torch.func.jacrev(network))(X)
    assert_same(NetworkAGOP(network).fit(X).agop_, average(numerical(network, X)))


@pytest.mark.parametrize("form", [np.asarray, torch.from_numpy, pd.DataFrame])
@pytest.mark.parametrize("batch_size", ["auto", 1, 3])
def test_ne_in_place_operations_on_the_input(form, batch_size):
    network = seeded(lambda: nn.Sequential(nn.ReLU(inplace=True), narrow()))
    X = points()
    given = form(X.copy())
    found = NetworkAGOP(network, batch_size=batch_size).fit(given)
    assert_same(found.agop_, average(rowwise(network, torch.from_numpy(X))))
    np.testing.assert_array_equal(np.asarray(given), X)
    found.transform(given)
    found.bootstrap(given, n_resamples=2)
    np.testing.assert_array_equal(np.asarray(given), X)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_ng_a_network_in_another_precision(dtype):
    network, X = seeded(narrow).to(dtype), points().astype(np.float32)
    found = NetworkAGOP(network).fit(X)
    assert found.agop_.dtype == np.float64
    assert_same(found.agop_, NetworkAGOP(seeded(narrow)).fit(X).agop_, 0.05)
    assert all(parameter.dtype == dtype for parameter in network.parameters())


@pytest.mark.parametrize("n_outputs", [3, 9])
def test_ni_weights_that_are_not_numbers(n_outputs):
    for layer in (0, 2, 4):
        network = seeded(mlp, n_outputs=n_outputs)
        network[layer].weight.data[0, 0] = torch.nan
        with pytest.raises(
            ValueError, match="The gradient at 'input' is not finite for"
        ):
            NetworkAGOP(network).fit(points())


def test_ni_the_row_is_named():
    X = np.abs(points()) + 0.1
    X[7, 2] = 0
    for settings in ({}, {"batch_size": 2}, {"kind": "rows"}, {"kind": "low_rank"}):
        with pytest.raises(
            ValueError, match=r"'input' is not finite for row 7 of the d"
        ):
            NetworkAGOP(torch.sqrt, **settings).fit(X)
    loader = [torch.from_numpy(X[:4]), torch.from_numpy(X[4:])]
    with pytest.raises(ValueError, match=r"not finite for row 7 of the data"):
        NetworkAGOP(torch.sqrt).fit(loader)
    X[0, 0] = 0  # among the rows that are looked at first
    with pytest.raises(ValueError, match=r"not finite for row 0 of the data"):
        NetworkAGOP(torch.sqrt).fit(X)


def test_nj_parameters_stay_without_gradients():
    for name in ("frozen", "lstm", "encoder"):
        network, X = network_and_data(name)
        flags = [parameter.requires_grad for parameter in network.parameters()]
        NetworkAGOP(network).fit(X)
        assert [p.grad for p in network.parameters()] == [None] * len(flags)
        assert [p.requires_grad for p in network.parameters()] == flags


def test_nk_varying_shapes():
    network = seeded(cnn).eval()
    network[6] = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())
    batches = [numbers(2, 2, 8, 8), numbers(3, 2, 16, 16)]
    found = NetworkAGOP(network, layers=["0"]).fit(batches)
    parts = [rowwise(network[1:], network[0](X).detach()) for X in batches]
    count = [2 * 64, 3 * 256]
    expected = sum(
        n * average(J, "pixels") for n, J in zip(count, parts, strict=True)
    ) / sum(count)
    assert_same(found.agop_["0"], expected)
    with pytest.raises(ValueError, match="'input' there are 512 features now, 128 in"):
        NetworkAGOP(network).fit(batches)


def test_tokens_have_no_derivative():
    network = seeded(Text).eval()
    tokens = np.arange(10).reshape(2, 5)
    for given in (tokens, torch.from_numpy(tokens), {"input_ids": tokens}):
        with pytest.raises(ValueError, match="for example layers='embed'"):
            NetworkAGOP(network).fit(given)
        assert NetworkAGOP(network, layers=["embed"]).fit(given).trace_["embed"] > 0
    with pytest.raises(ValueError, match="whole numbers"):
        NetworkAGOP(lambda x: x.float()).fit(torch.from_numpy(tokens))


def test_numbers_that_are_whole_are_numbers_without_an_embedding():
    X = np.arange(60).reshape(10, D) % 5
    assert_same(model().fit(X).agop_, model().fit(X.astype(float)).agop_, 0)

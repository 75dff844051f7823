"""Bad input and hazards: one test for each row of the table of faults.

The ids (F01, H3, …) are those of the design notes. Messages say what, why and what to
do; results of doubtful input are finite, or an error, or come with a warning.
"""

import copy
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse
import torch
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, DataConversionWarning
from sklearn.model_selection import GridSearchCV

from agop import RFMClassifier, RFMRegressor
from agop.core import arrays
from agop.core.arrays import InvalidParameterError, NumericalWarning
from agop.kernels import RadialKernel
from agop.rfm import fitting, recursion
from tests.conftest import changes, global_state
from tests.rfm.problems import (
    CHEAP,
    classification,
    classifier,
    finite,
    points,
    regression,
    regressor,
)


@pytest.fixture(scope="module")
def fitted():
    return regressor().fit(*regression())


def with_entry(array, value):
    array = np.array(array, dtype=float)
    array.flat[3] = value
    return array


# ------------------------------------------------------ 1. rejected with an error
NON_FINITE = {
    np.nan: "contains NaN",
    np.inf: "contains infinity or a value too large for dtype",
}


@pytest.mark.parametrize("value", NON_FINITE)
def test_f01_f02_f03_not_finite_at_fit(value):
    X, y = regression()
    message = NON_FINITE[value]
    with pytest.raises(ValueError, match=f"Input X {message}"):
        regressor().fit(with_entry(X, value), y)
    with pytest.raises(ValueError, match=f"Input y {message}"):
        regressor().fit(X, with_entry(y, value))


@pytest.mark.parametrize("value", NON_FINITE)
@pytest.mark.parametrize("method", ["predict", "transform", "jacobian", "output_agop"])
def test_f04_not_finite_at_predict(fitted, method, value):
    X = with_entry(fitted.X_fit_, value)
    with pytest.raises(ValueError, match=f"Input X {NON_FINITE[value]}"):
        getattr(fitted, method)(X)


def test_f05_overflow_of_the_computing_dtype():
    X, y = regression()
    X = X.astype(np.float32)
    model = regressor().fit(X, y)
    too_large = r"too large for dtype\('float32'\)"
    with pytest.raises(ValueError, match=f"Input X .*{too_large}"):
        model.predict(with_entry(X, 1e39))
    with pytest.raises(ValueError, match=f"Input y .*{too_large}"):
        regressor().fit(X, with_entry(y, 1e39))
    with pytest.raises(ValueError, match=f"Input sample_weight .*{too_large}"):
        regressor().fit(X, y, sample_weight=with_entry(np.ones(60), 1e39))
    with pytest.raises(ValueError, match=r"squared distances overflow\. Scale it"):
        regressor().fit(X * np.float32(1e30), y)


def test_f16_masked_arrays(fitted):
    X, y = regression()
    masked = np.ma.masked_greater(X, 1)
    message = "masked array: its mask would be ignored. Fill it first"
    with pytest.raises(TypeError, match=f"Input X is a {message}"):
        regressor().fit(masked, y)
    with pytest.raises(TypeError, match=f"Input y is a {message}"):
        regressor().fit(X, np.ma.masked_greater(y, 1))
    with pytest.raises(TypeError, match=message):
        fitted.predict(masked)


SHAPES = {
    "F18": ((0, 5), r"Found array with 0 sample\(s\)"),
    "F19": ((60, 0), r"Found array with 0 feature\(s\)"),
    "F24": ((60,), "Expected 2D array, got 1D array instead"),
    "F25": ((60, 5, 1), "Found array with dim 3, while dim <= 2"),
    "F24 scalar": ((), "Expected 2D array, got scalar array instead"),
}


@pytest.mark.parametrize("row", SHAPES)
def test_f18_f19_f24_f25_shapes(fitted, row):
    shape, message = SHAPES[row]
    y = np.zeros(shape[:1] or 1)
    for make in (regressor, classifier):
        with pytest.raises(ValueError, match=message):
            make().fit(np.zeros(shape), y)
    with pytest.raises(ValueError, match=message.split(", while")[0]):
        fitted.predict(np.zeros(shape))


def test_f26_lengths_differ():
    X, y = regression(120)
    with pytest.raises(ValueError, match=r"inconsistent.* samples: \[120, 119\]"):
        regressor().fit(X, y[:-1])


@pytest.mark.parametrize("make", [regressor, classifier])
def test_f27_no_y(make):
    message = "requires y to be passed, but the target y is None"
    with pytest.raises(ValueError, match=message):
        make().fit(points(), None)


def test_f30_wrong_number_of_features(fitted):
    message = "X has 3 features, but RFMRegressor is expecting 5 features as input"
    with pytest.raises(ValueError, match=message):
        fitted.predict(points(d=3))


def test_f31a_column_names_reordered_or_missing():
    X, y = regression()
    frame = pd.DataFrame(X, columns=list("abcde"))
    model = regressor().fit(frame, y)
    message = "The feature names should match those that were passed during fit"
    for other in (frame[list("edcba")], frame[list("abcd")]):
        with pytest.raises(ValueError, match=message):
            model.predict(other)


def test_f31b_names_come_or_go():
    X, y = regression()
    frame = pd.DataFrame(X, columns=list("abcde"))
    message = "X does not have valid feature names, but RFMRegressor was fitted with"
    with pytest.warns(UserWarning, match=message):
        regressor().fit(frame, y).predict(X)
    message = "X has feature names, but RFMRegressor was fitted without"
    with pytest.warns(UserWarning, match=message):
        regressor().fit(X, y).predict(frame)


def test_f32_names_of_mixed_type():
    X, y = regression()
    message = "Feature names are only supported if all input features have string names"
    with pytest.raises(TypeError, match=message):
        regressor().fit(pd.DataFrame(X, columns=["a", 1, "b", "c", "d"]), y)


def test_f33a_types_without_numbers(fitted):
    X, y = regression()
    strings = "not compatible with arrays of bytes/strings"
    for bad in (X.astype(str), X.astype("S"), X.astype(str).tolist()):
        with pytest.raises(ValueError, match=strings):
            regressor().fit(bad, y)
        with pytest.raises(ValueError, match=strings):
            fitted.predict(bad)
    with pytest.raises(ValueError, match=strings):
        regressor().fit(X, y.astype(str))
    for bad in (X + 1j, y + 1j):
        with pytest.raises(ValueError, match="Complex data not supported"):
            regressor().fit(*((bad, y) if bad.ndim == 2 else (X, bad)))
    nullable = pd.DataFrame({"a": pd.array([1, None] * 30, dtype="Int64")})
    with pytest.raises(ValueError, match="Input X contains NaN"):
        regressor().fit(nullable, y)
    category = pd.DataFrame({"a": pd.Categorical(["low", "high"] * 30)})
    with pytest.raises(ValueError, match="could not convert string to float"):
        regressor().fit(category, y)


@pytest.mark.parametrize("kind", ["csr_matrix", "csr_array", "coo_array"])
def test_f34_sparse(fitted, kind):
    X, y = regression()
    sparse = getattr(scipy.sparse, kind)(X)
    message = "Sparse data was passed.* dense data is required"
    with pytest.raises(TypeError, match=message):
        regressor().fit(sparse, y)
    with pytest.raises(TypeError, match=message):
        fitted.predict(sparse)
    assert not fitted.__sklearn_tags__().input_tags.sparse


def test_f37a_meta_tensors(fitted):
    X = torch.empty(60, 5, device="meta")
    for call in (lambda: regressor().fit(X, np.zeros(60)), lambda: fitted.predict(X)):
        with pytest.raises(ValueError, match="tensor on the meta device"):
            call()
    with pytest.raises(ValueError, match="'meta', which holds no numbers"):
        regressor(device="meta").fit(*regression())


@pytest.mark.parametrize("label", [0, 2.0, "cat", True])
def test_f38_one_class(label):
    message = f"greater than one; got 1 class: {label!r}"
    with pytest.raises(ValueError, match=f"number of classes has to be {message}"):
        classifier().fit(points(), np.full(60, label))
    weight = np.r_[1, np.zeros(59)]
    with pytest.raises(ValueError, match="got 1 class"):  # of positive weight
        classifier().fit(*classification(), sample_weight=weight)


def test_f40_labels_of_mixed_type_or_missing():
    X = points()
    with pytest.raises(ValueError, match="Input y contains NaN"):
        classifier().fit(X, np.where(np.arange(60) % 2, np.nan, 1.0))
    with pytest.raises(ValueError, match="contains NaN"):
        classifier().fit(X, np.array(["a", np.nan] * 30, dtype=object))
    for second in (1, None):
        labels = np.array(["a", second] * 30, dtype=object)
        with pytest.raises(ValueError, match="Unknown label type: unknown"):
            classifier().fit(X, labels)


def test_f41_continuous_labels():
    message = "Unknown label type: continuous.*regression target"
    with pytest.raises(ValueError, match=message):
        classifier().fit(*regression())


WEIGHTS = {
    "zero": (np.zeros(60), "must contain at least one non-zero number"),
    "nan": (np.full(60, np.nan), "Input sample_weight contains NaN"),
    "inf": (np.full(60, np.inf), "Input sample_weight contains infinity"),
    "negative": (np.full(60, -1.0), "Negative values in data passed to sample_weight"),
    "length": (np.ones(3), r"sample_weight.shape == \(3,\), expected \(60,\)!"),
    "2d": (np.ones((60, 1)), "Sample weights must be 1D array or scalar, got 2D array"),
}


@pytest.mark.parametrize("kind", WEIGHTS)
@pytest.mark.parametrize("make", [regressor, classifier])
def test_f43_sample_weight(make, kind):
    weight, message = WEIGHTS[kind]
    with pytest.raises(ValueError, match=message):
        make().fit(*classification(), sample_weight=weight)


@pytest.mark.parametrize("make", [regressor, classifier])
@pytest.mark.parametrize("size", [1e-100, 1e100])
def test_f43_only_alpha_over_weight_matters(make, size):
    X, y = classification()
    reference = make(alpha=1e-2).fit(X, y)
    alpha = 1e-2 * size
    scaled = make(alpha=alpha).fit(X, y, sample_weight=np.full(60, size))
    np.testing.assert_allclose(scaled.predict(X), reference.predict(X), rtol=1e-9)


def test_f43_huge_weights_do_not_hang_the_choice():
    X, y = regression(30)
    model = RFMRegressor(alpha=1e-2, metric="full", n_iter=1, random_state=0)
    weight = np.full(30, 1e30)
    assert finite(model.fit(X, y, sample_weight=weight), X)


BAD = [-1, np.nan, np.inf, "three", None, True, [1.0], 10**400]


@pytest.mark.parametrize("name", ["bandwidth", "alpha", "n_iter"])
@pytest.mark.parametrize("value", BAD, ids=lambda value: repr(value)[:6])
def test_f44_parameters_outside_their_range(name, value):
    model = regressor(**{name: value})  # never in __init__
    message = rf"The '{name}' parameter of RFMRegressor must be an? (float|int) in the"
    for kind in (ValueError, TypeError):
        with pytest.raises(kind, match=message) as caught:
            model.fit(*regression())
    assert f"Got {value!r} instead" in str(caught.value)


@pytest.mark.parametrize(
    "parameters",
    [
        {"bandwidth": 0},
        {"n_iter": 1.5},
        {"power": 0},
        {"power": -1},
        {"power": np.nan},
        {"power": "auto"},
        {"center": 1},
        {"center": "yes"},
        {"fit_intercept": None},
        {"normalize": "sum"},
        {"normalize": None},
        {"metric": "identity"},
        {"metric": None},
        {"n_components": 0},
        {"n_components": 1.0},
        {"n_components": "auto"},
        {"verbose": -1},
        {"verbose": "yes"},
        {"kernel": 3},
        {"kernel": None},
    ],
    ids=str,
)
@pytest.mark.parametrize("make", [regressor, classifier])
def test_f44_every_parameter_is_checked(make, parameters):
    (name,) = parameters
    owner = type(make()).__name__
    with pytest.raises(InvalidParameterError, match=f"'{name}' parameter of {owner}"):
        make(**parameters).fit(*classification())


@pytest.mark.parametrize("value", ["even", 3, {0: 0.0}, {0: -1.0}, {1: np.nan}])
def test_f44_class_weight(value):
    with pytest.raises(InvalidParameterError, match="'class_weight' parameter of RFMC"):
        classifier(class_weight=value).fit(*classification())


def test_f44_numpy_numbers_and_strings_are_fine():
    parameters = {"kernel": np.str_("laplace"), "n_iter": np.int64(1)}
    model = regressor(alpha=np.float32(0.5), bandwidth=3, power=1, **parameters)
    plain = regressor(alpha=0.5, bandwidth=3.0)
    X, y = regression()
    assert np.array_equal(model.fit(X, y).predict(X), plain.fit(X, y).predict(X))


def test_f48_unknown_kernel_and_device():
    with pytest.raises(InvalidParameterError, match=r"must be one of \{.*'gaussian'"):
        regressor(kernel="cubic").fit(*regression())
    with pytest.raises(InvalidParameterError, match=r"depends on the axes.*'diagonal'"):
        regressor(kernel="product_laplace", metric="full").fit(*regression())
    for device in ("gpu", "cuda:99", torch.device("cpu"), 0):
        with pytest.raises(InvalidParameterError, match="Available devices: cpu"):
            regressor(device=device).fit(*regression())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_f48_no_gpu(fitted):
    message = "'cuda', which cannot be used here.*Available devices: cpu"
    with pytest.raises(InvalidParameterError, match=message):
        regressor(device="cuda").fit(*regression())
    moved = copy.deepcopy(fitted).set_params(device="cuda")
    with pytest.raises(InvalidParameterError, match=message):
        moved.predict(fitted.X_fit_)


def test_f49_too_many_components():
    message = r"n_components=6 is larger than the dimensionality .*n_features=5"
    with pytest.raises(ValueError, match=message):
        regressor(n_components=6).fit(*regression())
    with pytest.raises(
        ValueError, match=r"n_samples=4 and n_features=5. Use at most 4"
    ):
        regressor(n_components=5).fit(*regression(4))
    for shape in ((4, 5), (5, 4)):
        model = regressor(n_components=4).fit(*regression(*shape))
        assert model.components_.shape == (4, shape[1])


# --------------------------------------------------- 2. works, the result is finite
def test_f06_values_whose_squares_are_large():
    X, y = regression()
    model = regressor().fit(X * 1e150, y)
    np.testing.assert_allclose(
        model.predict(X * 1e150), regressor().fit(X, y).predict(X)
    )
    with pytest.raises(ValueError, match="squared distances overflow"):
        regressor().fit(X * 1e160, y)
    for n_iter in (0, 1):
        message = "outer product overflows: y is too large.*Scale them"
        with pytest.raises(ValueError, match=message):
            regressor(n_iter=n_iter).fit(X, y * 1e200)
    assert np.isfinite(regressor().fit(X, y).predict(X * 1e200)).all()


@pytest.mark.parametrize("offset", [1e6, 1e8])
@pytest.mark.parametrize("metric", ["full", "diagonal"])
def test_f08_offset(offset, metric):
    X, y = regression()
    X = np.round(X * 2**10) / 2**10  # the offset can be added without rounding
    plain = regressor(metric=metric).fit(X, y)
    moved = regressor(metric=metric).fit(X + offset, y)
    new = np.round(points(seed=1) * 2**10) / 2**10
    np.testing.assert_allclose(moved.predict(new + offset), plain.predict(new))
    np.testing.assert_allclose(moved.agop_, plain.agop_, rtol=1e-8, atol=1e-12)


def test_f09_one_huge_feature():
    X, y = regression()
    X = X * [1e12, 1, 1, 1, 1]
    assert finite(regressor().fit(X, y), X)


@pytest.mark.parametrize("metric", ["full", "diagonal"])
@pytest.mark.parametrize("constant", [0.0, 3.0, 0.1, 1e9])
@pytest.mark.parametrize("n", [60, 4])
def test_f10_constant_column(metric, constant, n):
    X, y = regression(n)
    X[:, 2] = constant
    model = regressor(metric=metric, n_iter=2).fit(X, y)
    assert model.feature_importances_[2] == 0.0
    assert finite(model, X)


def test_f13_duplicate_rows_equal_weights():
    X, y = regression(40)
    counts = np.random.default_rng(0).integers(0, 4, size=40)
    repeated = regressor(n_iter=2).fit(np.repeat(X, counts, 0), np.repeat(y, counts))
    weighted = regressor(n_iter=2).fit(X, y, sample_weight=counts)
    np.testing.assert_allclose(weighted.predict(X), repeated.predict(X), rtol=1e-9)
    np.testing.assert_allclose(weighted.agop_, repeated.agop_, atol=1e-9)


def test_f15_duplicated_columns_share():
    X, y = regression()
    X = X[:, [0, 0, 1]]
    for metric in ("full", "diagonal"):
        shares = regressor(metric=metric, n_iter=2).fit(X, y).feature_importances_
        np.testing.assert_allclose(shares[0], shares[1], rtol=1e-6)
        assert shares[0] > 0.01


def test_f17_negative_zeros_and_denormals():
    X, y = regression()
    X[::3, 0], X[1::3, 1], X[2::3, 2] = -0.0, 5e-324, 1e-310
    assert finite(regressor().fit(X, y), X)


@pytest.mark.parametrize("parameters", [{}, CHEAP], ids=["auto", "explicit"])
@pytest.mark.parametrize("shape", [(1, 5), (2, 5), (3, 5), (2, 1), (30, 1), (5, 300)])
def test_f20_f21_f22_f23_few_rows_or_columns(shape, parameters):
    X = points(*shape)
    y = np.arange(float(len(X)))
    with warnings.catch_warnings():
        if len(X) < 4:  # where nothing can be learned, the library may say so
            warnings.simplefilter("ignore", NumericalWarning)
        model = RFMRegressor(**parameters).fit(X, y)
        assert finite(model, X)
        if len(X) > 1:
            model = RFMClassifier(**parameters).fit(X, np.arange(len(X)) % 2)
            assert finite(model, X)
            assert np.isfinite(model.predict_proba(X)).all()


@pytest.mark.parametrize("n_outputs", [1, 2])
def test_f28a_f29_shape_of_y_is_kept(n_outputs):
    X, y = regression()
    Y = np.column_stack([y, -2 * y])[:, :n_outputs]
    model = regressor().fit(X, Y)
    assert model.predict(X).shape == (60, n_outputs)
    np.testing.assert_allclose(model.predict(X)[:, 0], regressor().fit(X, y).predict(X))


def _read_only(X):
    X = X.copy()
    X.setflags(write=False)
    return X


CONTAINERS = {
    "int": lambda X: X.astype(int),
    "float32": lambda X: X.astype(np.float32),
    "float16": lambda X: X.astype(np.float16),
    "object": lambda X: X.astype(object),
    "nullable": lambda X: pd.DataFrame(X.astype(int)).astype("Int64"),
    "longdouble": lambda X: X.astype(np.longdouble),
    "big-endian": lambda X: X.astype(">f8"),
    "pandas": pd.DataFrame,
    "polars": lambda X: pl.DataFrame(X, schema=list("abcde")),
    "list": lambda X: X.tolist(),
    "Fortran": np.asfortranarray,
    "reversed": lambda X: X[::-1].copy()[::-1],
    "column step": lambda X: np.repeat(X, 2, axis=1)[:, ::2],
    "read-only": _read_only,
    "tensor": torch.from_numpy,
    "bfloat16": lambda X: torch.from_numpy(X).bfloat16(),
    "requires_grad": lambda X: torch.from_numpy(X.copy()).requires_grad_(),
}


@pytest.mark.parametrize("kind", CONTAINERS)
def test_f33b_f35_f36_f37b_containers(kind):
    X, y = regression()
    X = np.round(2 * X)  # small integers, exact in every type
    plain = regressor().fit(X, y).predict(X)
    given = CONTAINERS[kind](X)
    before = copy.deepcopy(given.detach() if kind == "requires_grad" else given)
    model = regressor().fit(given, y)
    predicted = model.predict(given)
    assert isinstance(predicted, np.ndarray)
    tolerance = 1e-4 if kind in ("float32", "bfloat16") else 0
    np.testing.assert_allclose(predicted, plain, rtol=tolerance, atol=tolerance)
    after = given.detach() if kind == "requires_grad" else given
    assert np.array_equal(np.asarray(_plain(after)), np.asarray(_plain(before)))


def _plain(array):
    return array.float() if isinstance(array, torch.Tensor) else array


def test_f33b_bool_and_f36_broadcast_and_memmap(tmp_path):
    X, y = regression()
    assert finite(regressor().fit(X > 0, y), X > 0)
    broadcast = np.broadcast_to(X[:, :1], (60, 5))
    assert finite(regressor().fit(broadcast, y), broadcast)
    X.tofile(tmp_path / "X.bin")
    mapped = np.memmap(tmp_path / "X.bin", dtype=float, mode="r", shape=X.shape)
    plain = regressor().fit(X, y).predict(X)
    assert np.array_equal(regressor().fit(mapped, y).predict(mapped), plain)


@pytest.mark.parametrize(
    "labels",
    [
        ["no", "yes"],
        [False, True],
        [-1, 5],
        [0.0, 1.0],
        np.array(["b", "a"], dtype=object),
        np.array([3, 7], dtype=np.uint8),
    ],
    ids=str,
)
def test_f39_labels_come_back(labels):
    X, y = classification()
    y = np.asarray(labels)[y]
    model = classifier().fit(X, y)
    assert model.predict(X).dtype == y.dtype
    assert (model.predict(X) == y).mean() > 0.95
    assert model.classes_.tolist() == sorted(set(y.tolist()))


@pytest.mark.parametrize("parameters", [{}, CHEAP], ids=["auto", "explicit"])
def test_f42_small_classes_stay(parameters):
    X, y = classification(30)
    y = np.where(np.arange(30) < 2, 7, y)
    y[5] = 9  # a class of one row
    model = RFMClassifier(random_state=0, **parameters).fit(X, y)
    assert model.classes_.tolist() == [0, 1, 7, 9]
    assert model.predict_proba(X).shape == (30, 4)
    assert finite(model, X)


@pytest.mark.filterwarnings("ignore:The number of unique classes")
@pytest.mark.slow
def test_f42_a_thousand_classes():
    X = points(1000, 4)
    model = classifier(n_iter=1, alpha=1e-4).fit(X, np.arange(1000))
    assert (model.predict(X) == np.arange(1000)).mean() > 0.99
    assert np.allclose(model.predict_proba(X[:5]).sum(1), 1)


# ------------------------------------------------------------- 3. works and warns
ZERO = "The average gradient outer product is zero"


@pytest.mark.parametrize("size", [1e-300, 1e-200])
@pytest.mark.parametrize("n_iter", [0, 1])
def test_f07_values_too_small_to_be_squared(size, n_iter):
    X, y = regression()
    with pytest.warns(ConvergenceWarning, match=f"{ZERO}.*too small to be squared"):
        model = regressor(n_iter=n_iter).fit(X * size, y)
    np.testing.assert_allclose(model.predict(X * size), y.mean())


@pytest.mark.parametrize("size", [1e-140, 1e-100, 1e100])
def test_f07_scale_invariance(size):
    X, y = regression()
    scaled, plain = regressor().fit(X * size, y), regressor().fit(X, y)
    np.testing.assert_allclose(scaled.predict(X * size), plain.predict(X), rtol=1e-9)
    np.testing.assert_allclose(scaled.feature_importances_, plain.feature_importances_)


@pytest.mark.parametrize("n_iter", [0, 2, "auto"])
@pytest.mark.parametrize("value", [0.0, 0.1, 1e6])
def test_f11_constant_x(n_iter, value):
    X, y = np.full((20, 3), value), np.arange(20.0)
    weight = np.arange(1.0, 21.0)
    with pytest.warns(NumericalWarning, match=ZERO):
        model = regressor(n_iter=n_iter).fit(X, y, sample_weight=weight)
    np.testing.assert_allclose(model.predict(X), np.average(y, weights=weight))
    assert not model.agop_.any()
    assert not model.feature_importances_.any()


@pytest.mark.parametrize("n_iter", [0, 2, "auto"])
@pytest.mark.parametrize("value", [0.0, 0.1, 1e6])
def test_f12_constant_y(n_iter, value):
    X = points()
    with pytest.warns(NumericalWarning, match=ZERO):
        model = regressor(n_iter=n_iter).fit(X, np.full(60, value))
    np.testing.assert_allclose(model.predict(X), value, rtol=1e-12)
    assert not model.agop_.any()
    np.testing.assert_allclose(model.metric_, np.eye(5))
    assert finite(model, X)


JITTER = "not numerically positive definite: .* was added to its diagonal"


def test_f14_f45_f50_singular_kernel_matrix():
    """Also X3: the answer does not come from an overwritten matrix."""
    X, y = regression()
    twice = np.r_[X, X]
    with pytest.warns(NumericalWarning, match=f"{JITTER}.*increasing alpha"):
        model = regressor(alpha=0, n_iter=1).fit(twice, np.r_[y, y + 1])
    assert 0 < model.jitter_ < 1e-5
    np.testing.assert_allclose(model.predict(X), y + 0.5, atol=1e-4)
    with pytest.warns(NumericalWarning, match=JITTER):
        same = regressor(alpha=0, n_iter=1).fit(twice, np.r_[y, y])
    np.testing.assert_allclose(same.predict(X), y, atol=1e-4)
    assert regressor().fit(X, y).jitter_ == 0.0


@pytest.mark.filterwarnings("ignore:The bandwidth is too small")
def test_f50_beyond_repair():
    X, y = regression(100)
    indefinite = Indefinite()
    with pytest.raises(np.linalg.LinAlgError, match="Try gradually increasing alpha"):
        regressor(kernel=indefinite, alpha=0).fit(X, y)


class Indefinite(RadialKernel):
    """−‖x − z‖: not positive semi-definite."""

    def value(self, s):
        return -s.clamp(min=0).sqrt()

    def slope(self, s):
        raise AssertionError("there is no solution to differentiate")


def test_h3_gaussian_kernel_with_a_wide_bandwidth():
    X = points(500, 5)
    y = points(500, 1, seed=1)[:, 0]
    with pytest.warns(NumericalWarning, match=JITTER):
        model = regressor(kernel="gaussian", bandwidth=30.0, alpha=0).fit(X, y)
    assert finite(model, X)
    assert model.jitter_ > 0


def test_f28b_column_of_labels():
    X, y = classification()
    with pytest.warns(DataConversionWarning, match="column-vector y was passed"):
        model = classifier().fit(X, y[:, None])
    assert np.array_equal(model.predict(X), classifier().fit(X, y).predict(X))


@pytest.mark.parametrize("make", [regressor, classifier])
@pytest.mark.parametrize("bandwidth, word", [(1e-12, "small"), (1e12, "large")])
@pytest.mark.filterwarnings("ignore:The average gradient outer product is zero")
def test_f46_absurd_bandwidths(make, bandwidth, word):
    X, y = classification()
    with pytest.warns(NumericalWarning, match=f"bandwidth is too {word}.*'median'"):
        model = make(bandwidth=bandwidth).fit(X, y)
    assert finite(model, X)


# ------------------------------------------------------------------- 4. numerics
def test_f51_signs_and_order_are_deterministic():
    """Rank 1 (one feature matters), and equal eigenvalues (a symmetric problem)."""
    X, _ = regression(200)
    steep = regressor().fit(X, X[:, 0])
    assert steep.components_[0].argmax() == np.abs(steep.components_[0]).argmax() == 0
    axes = np.vstack([np.eye(3), -np.eye(3)])
    y = np.r_[np.ones(3), np.ones(3)] * (np.abs(axes).sum(1))
    axes, y = np.vstack([axes, np.zeros(3)]), np.r_[y, 0]
    models = [regressor(n_components=3, kernel="gaussian").fit(axes, y) for _ in "ab"]
    first, second = (model.components_ for model in models)
    assert np.array_equal(first, second)
    largest = np.abs(first).argmax(1)
    assert (first[np.arange(3), largest] > 0).all()


def test_f53_coincident_points():
    """Gradients of the Laplace kernel at its own centres leave the kink out."""
    X, y = regression(20)
    doubled = np.r_[X, X]
    model = regressor(alpha=0.1).fit(doubled, np.r_[y, y])
    assert finite(model, doubled)
    jacobian = model.jacobian(doubled)
    assert np.array_equal(jacobian[:20], jacobian[20:])
    # From both sides of the kink the slopes average to the one at the point.
    step = 1e-6 * np.eye(5)[0]
    sides = [model.jacobian(X + sign * step) for sign in (1, -1)]
    np.testing.assert_allclose(sum(sides) / 2, jacobian[:20], atol=1e-4)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("offset", [0, 100])
def test_h1_h2_a_row_equals_itself(dtype, offset):
    """Duplicates, single rows and batches give the same prediction."""
    X, y = regression(100)
    X = (X + offset).astype(dtype)
    model = regressor(alpha=1e-3).fit(X, y)
    batch = model.predict(X)
    single = np.concatenate([model.predict(row[None]) for row in X])
    tolerance = 1e-5 if dtype == np.float32 else 1e-12
    np.testing.assert_allclose(single, batch, atol=tolerance)


def test_h5_h7_rank_deficient_agop():
    X, y = regression(100, 8)
    X[:, 4:] = X[:, :4]
    model = regressor(n_iter=2).fit(X, y)
    assert finite(model, X)
    assert len(model.components_) <= 4


# ----------------------------------------------------------------- 5. environment
def test_f54_memory_is_checked_before_any_work(monkeypatch):
    X, y = regression(500)
    monkeypatch.setattr(recursion, "free_memory", lambda device: 10**6)
    start = time.perf_counter()
    for make in (regressor, RFMRegressor):
        with pytest.raises(
            MemoryError, match=r"of 500 samples needs.*Fit on fewer"
        ) as e:
            make().fit(X, y)
        assert "float32" in str(e.value)
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
        torch.OutOfMemoryError("CUDA out of memory"),
        np._core._exceptions._ArrayMemoryError((9, 9), np.dtype(float)),
    ],
    ids=lambda error: type(error).__name__,
)
def test_f54_allocator_errors_become_memory_errors(monkeypatch, error):
    def fail(n, like):
        raise error

    X, y = regression(77)
    monkeypatch.setattr(fitting, "allocate_square", fail)
    with pytest.raises(MemoryError, match=r"memory with 77 samples.*fewer rows"):
        regressor().fit(X, y)
    with pytest.raises(MemoryError, match="Out of memory with 77 samples"):
        regressor().fit(X.tolist(), y)


@pytest.mark.slow
def test_f54_a_real_limit():
    code = """
        import resource, numpy as np
        from agop import RFMRegressor
        X = np.random.default_rng(0).standard_normal((20_000, 3))
        model = RFMRegressor(alpha=1., bandwidth=1., n_iter=0, metric="full",
                             kernel="laplace")
        model.fit(X[:50], X[:50, 0])
        with open("/proc/self/statm") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 2**30,) * 2)
        try:
            model.fit(X, X[:, 0])
        except MemoryError as error:
            assert "20000" in str(error), error
            print("refused")
    """
    if not os.path.exists("/proc/self/statm"):
        pytest.skip("no /proc/self/statm on this system")
    assert run(code) == "refused\n"


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


class Failing:
    """A callback that raises at its second task."""

    requires_fit_info = False
    max_propagation_depth = None

    def __init__(self, error):
        self.error = error
        self.calls = 0

    def setup(self, *args, **kwargs):
        pass

    def teardown(self, *args, **kwargs):
        pass

    def on_fit_task_begin(self, *args, **kwargs):
        self.calls += 1
        if self.calls > 2:
            raise self.error

    def on_fit_task_end(self, *args, **kwargs):
        pass


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ZeroDivisionError("mine")])
def test_f55_an_interrupted_refit_loses_nothing(error):
    pytest.importorskip("sklearn.callback", exc_type=ImportError)
    X, y = regression()
    frame = pd.DataFrame(X, columns=list("abcde"))
    model = regressor().fit(frame, y)
    before = pickle.dumps(model)
    predicted = model.predict(frame)
    model.set_callbacks(Failing(error))
    with pytest.raises(type(error)):
        model.fit(X[:, :3], y)
    model.set_callbacks()
    assert np.array_equal(model.predict(frame), predicted)
    assert model.n_features_in_ == 5
    assert model.feature_names_in_.tolist() == list("abcde")
    assert vars(model).keys() >= vars(pickle.loads(before)).keys() - {"_agop_version"}


@pytest.mark.parametrize(
    "bad",
    [
        lambda X, y: (X[:, :2] * np.nan, y),
        lambda X, y: (X[:, :2], y[:-1]),
        lambda X, y: (X[:, :2], None),
        lambda X, y: (X[:, :1] * 1e160, y),
    ],
)
def test_f55_a_failed_refit_loses_nothing(bad):
    X, y = classification()
    model = classifier().fit(X, y)
    before = {name: copy.deepcopy(value) for name, value in vars(model).items()}
    with pytest.raises(ValueError):
        model.fit(*bad(X, y))
    assert vars(model).keys() == before.keys()
    assert model.n_features_in_ == 5
    assert np.array_equal(model.predict(X), y)


def test_f55_a_failed_first_fit_leaves_nothing():
    X, y = regression()
    model = regressor()
    with pytest.raises(ValueError):
        model.fit(X * 1e160, y)
    assert not [name for name in vars(model) if name.endswith("_")]


@pytest.mark.slow
def test_f55_sigint():
    code = """
        import os, signal, threading, numpy as np, torch
        from agop import RFMRegressor
        X = np.random.default_rng(0).standard_normal((600, 5))
        model = RFMRegressor(n_iter=1, alpha=1e-2, bandwidth="median", metric="full",
                             kernel="laplace").fit(X[:100], X[:100, 0])
        before = model.predict(X)
        state = torch.is_grad_enabled(), torch.get_num_threads()
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
        try:
            model.set_params(n_iter=100_000).fit(X, X[:, 0])
        except KeyboardInterrupt:
            assert np.array_equal(model.predict(X), before)
            assert state == (torch.is_grad_enabled(), torch.get_num_threads())
            print("interrupted")
    """
    assert signal.SIGINT and run(code) == "interrupted\n"


def same(first, second, X):
    return np.array_equal(first.predict(X), second.predict(X)) and np.array_equal(
        first.agop_, second.agop_
    )


@pytest.mark.parametrize("parameters", [{}, CHEAP], ids=["auto", "explicit"])
@pytest.mark.parametrize("Model", [RFMRegressor, RFMClassifier])
def test_f56_fit_twice_clone_copy_pickle(Model, parameters):
    X, y = classification()
    model = Model(random_state=0, **parameters)
    model.fit(X, y)
    assert same(model, clone(model).fit(X, y), X)
    assert same(model, copy.deepcopy(model), X)
    assert same(model, pickle.loads(pickle.dumps(model)), X)
    again = copy.deepcopy(model).fit(X[:20] * 3, y[:20]).fit(X, y)  # no trace is left
    assert same(model, again, X)
    before = pickle.loads(pickle.dumps(clone(model)))
    assert same(model, before.fit(X, y), X)


@pytest.mark.slow
def test_f56_pickle_to_another_process(fitted, tmp_path):
    path = tmp_path / "model.pickle"
    path.write_bytes(pickle.dumps(fitted))
    np.save(tmp_path / "X.npy", fitted.X_fit_)
    run(
        """
        import pickle, numpy as np
        with open("model.pickle", "rb") as file:
            model = pickle.load(file)
        np.save("predicted.npy", model.predict(np.load("X.npy")))
        """,
        cwd=tmp_path,
    )
    predicted = np.load(tmp_path / "predicted.npy")
    np.testing.assert_allclose(predicted, fitted.predict(fitted.X_fit_), rtol=1e-12)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize(
    "backend", [pytest.param("loky", marks=pytest.mark.slow), "threading"]
)
def test_f56_grid_search_with_two_jobs(backend):
    import joblib

    X, y = regression()
    grid = {"alpha": [1e-3, 1.0], "metric": ["full", "diagonal"]}
    serial = GridSearchCV(regressor(), grid, cv=2).fit(X, y)
    with joblib.parallel_backend(backend, n_jobs=2):
        parallel = GridSearchCV(regressor(), grid, cv=2, n_jobs=2).fit(X, y)
    assert serial.best_params_ == parallel.best_params_
    for name in ("mean_test_score", "std_test_score"):
        np.testing.assert_allclose(
            serial.cv_results_[name], parallel.cv_results_[name], rtol=1e-10
        )


def test_f56_eight_threads(fitted):
    X = points(300, 5, seed=4)
    expected = fitted.predict(X), fitted.jacobian(X)
    results = [None] * 8

    def work(i):
        results[i] = fitted.predict(X), fitted.jacobian(X)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        assert np.array_equal(result[0], expected[0])
        assert np.array_equal(result[1], expected[1])


def everything(X, y):
    """Every public call of both estimators."""
    for model in (regressor(), classifier(), RFMClassifier(n_iter=1)):
        model.fit(X, y)
        model.predict(X), model.transform(X), model.jacobian(X), model.output_agop(X)
        model.score(X, y), repr(model), model.agop_, model.metric_
    return model.predict_proba(X), model.decision_function(X)


def test_f57_global_state_after_every_call():
    """X6: no global generator is seeded, drawn from or overwritten."""
    X, y = classification(30)
    before = global_state()
    everything(X, y)
    assert changes(before, global_state()) == []


@pytest.mark.changes_global_state
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_f57_default_dtype_does_not_matter(dtype):
    X, y = classification(30)
    expected = everything(X, y)[0]
    torch.set_default_dtype(dtype)
    try:
        assert np.array_equal(everything(X, y)[0], expected)
        assert torch.get_default_dtype() == dtype
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.changes_global_state
def test_f57_default_device_does_not_matter():
    X, y = classification(30)
    expected = everything(X, y)[0]
    with torch.device("meta"):
        assert np.array_equal(everything(X, y)[0], expected)


@pytest.mark.parametrize(
    "context",
    [
        torch.no_grad,
        torch.enable_grad,
        torch.inference_mode,
        lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    ],
    ids=["no_grad", "enable_grad", "inference_mode", "autocast"],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_f58_contexts_do_not_matter(context, dtype):
    X, y = classification(30)
    X = X.astype(dtype)
    expected = everything(X, y)[0]
    with context():
        found = everything(X, y)[0]
    assert np.array_equal(found, expected)
    assert torch.is_grad_enabled()


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="there is no /proc")
def test_f60_without_asserts_in_a_read_only_folder():
    """Where even a superuser cannot write."""
    code = """
        try:
            open("file", "w")
        except OSError:
            print("nothing can be written")
        import numpy as np
        from agop import RFMClassifier, RFMRegressor
        X = np.random.default_rng(0).standard_normal((40, 3))
        RFMClassifier(n_iter=1, verbose=1).fit(X, X[:, 0] > 0).predict_proba(X)
        try:
            RFMRegressor(alpha=-1).fit(X, X[:, 0])
        except ValueError as error:
            print(error)
    """
    options = {"environment": {"PYTHONOPTIMIZE": "2"}, "cwd": "/proc/self"}
    first, second = run(code, **options).splitlines()
    assert first == "nothing can be written"
    assert "The 'alpha' parameter of RFMRegressor" in second


@pytest.mark.slow
def test_f60_optional_packages_are_not_needed():
    code = """
        import sys
        sys.modules["matplotlib"] = sys.modules["rich"] = None
        import numpy as np
        from agop import RFMClassifier
        X = np.random.default_rng(0).standard_normal((40, 3))
        model = RFMClassifier(n_iter=1, alpha=1e-2, verbose=1).fit(X, X[:, 0] > 0)
        print(model.predict(X).shape)
    """
    assert run(code) == "(40,)\n"


def test_f60_names_in_any_script():
    X, y = regression()
    names = ["größe", "温度", "<script>alert(1)</script>", "a\nb", "🙂"]
    frame = pd.DataFrame(X, columns=names)
    model = regressor().set_output(transform="pandas").fit(frame, y)
    assert model.feature_names_in_.tolist() == names
    assert model.transform(frame).columns.tolist()[0] == "rfmregressor0"
    assert "<script>alert" not in model._repr_html_()


def test_the_memory_check_reads_the_system():
    free = arrays.free_memory(torch.device("cpu"))
    assert free is None or free > 0


def test_f54_defaults_are_refused_before_anything_is_computed(monkeypatch):
    def fail(*arguments):
        raise AssertionError("work has begun")

    monkeypatch.setattr(recursion, "free_memory", lambda device: 1000)
    monkeypatch.setattr(fitting, "choose", fail)
    X, y = regression(60)
    with pytest.raises(MemoryError, match="kernel matrix of 60 samples needs"):
        RFMRegressor().fit(X, y)


@pytest.mark.parametrize("values", [[0.0] * 29 + [1.0], [0.0, 1.0]])
def test_f12_folds_with_constant_targets_do_not_warn(values):
    X, _ = regression(len(values))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        RFMRegressor(random_state=0).fit(X, values)

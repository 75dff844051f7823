"""NetworkAGOP from its front door: weights, probes, sketches, streams, pipelines."""

import copy
import functools
import io
import pickle
import warnings

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from agop import NetworkAGOP, Spectrum
from agop.core.arrays import NumericalWarning
from agop.networks import survey, sweep
from agop.networks.data import Batch
from tests.devices import DEVICES
from tests.networks.nets import Encoder, Text, cnn, mlp, narrow, numbers, seeded
from tests.networks.references import assert_same, average, cut, rowwise

D = 6
KINDS = ["full", "linear", "diagonal", "rows", "low_rank"]
SITES = ["input", "0", "2:input", "3"]


def model(network=None, **settings):
    return NetworkAGOP(narrow_net() if network is None else network, **settings)


def narrow_net():
    return seeded(narrow)


def data(n_samples=12, seed=1):
    return numbers(n_samples, D, seed=seed).numpy()


def matrices(fitted):
    found = fitted.agop_
    return found if isinstance(found, dict) else {"input": found}


def assert_agree(first, second, tolerance=1e-12):
    """Two estimators found the same."""
    one, other = matrices(first), matrices(second)
    assert one.keys() == other.keys()
    for name in one:
        assert_same(one[name], other[name], tolerance)


# ------------------------------------------------------------------------- attributes
def test_attributes_of_the_input():
    X = data()
    found = model(n_components=3, kind="full").fit(X)
    G = average(rowwise(narrow_net(), torch.from_numpy(X)))
    values, vectors = np.linalg.eigh(G)
    assert_same(found.agop_, G)
    np.testing.assert_allclose(found.eigenvalues_, values[:-4:-1], rtol=1e-9)
    np.testing.assert_allclose(found.trace_, np.trace(G), rtol=1e-12)
    np.testing.assert_allclose(found.explained_ratio_, values[:-4:-1] / np.trace(G))
    np.testing.assert_allclose(found.feature_importances_, np.diag(G) / np.trace(G))
    assert found.components_.shape == (3, D)
    for component, vector in zip(found.components_, vectors.T[::-1], strict=False):
        np.testing.assert_allclose(abs(component @ vector), 1)
        assert component[np.abs(component).argmax()] > 0
    assert found.n_samples_seen_ == 12
    assert found.sample_shape_ == (D,)
    assert found.n_features_in_ == D
    assert found.kind_ == "full"
    assert found.probe_error_ == 0.0
    spectrum = found.spectrum()
    assert isinstance(spectrum, Spectrum)
    assert spectrum.directions.shape == (D, D)
    assert isinstance(found.trace_, float)


def test_attributes_of_layers():
    found = model(layers=SITES).fit(data())
    for name in ("agop_", "eigenvalues_", "components_", "trace_", "kind_"):
        assert list(getattr(found, name)) == SITES
    assert found.kind_["input"] == "linear"
    widths = {"input": D, "0": 4, "2:input": 4, "3": 5}
    for name, width in widths.items():
        assert found.agop_[name].shape == (width, width)
        assert found.feature_importances_[name].shape == (width,)
        np.testing.assert_allclose(found.feature_importances_[name].sum(), 1)
        np.testing.assert_allclose(found.trace_[name], np.trace(found.agop_[name]))
        assert found.explained_ratio_[name][0] <= 1
    assert found.spectrum("0").directions.shape[1] == 4
    with pytest.raises(ValueError, match="layer='1': this was fitted at 'input', '0'"):
        found.spectrum("1")
    with pytest.raises(ValueError, match="layer=None: this was fitted at"):
        found.spectrum()
    assert model(layers="0").fit(data()).spectrum().directions.shape[1] == 4
    assert set(model(layers="input").fit(data()).agop_) == {"input"}


def test_the_number_of_components_by_the_gap():
    W = torch.diag(torch.tensor([3.0, 2.9, 2.8, 0.1, 0.05])).double()
    found = NetworkAGOP(lambda x: x @ W).fit(numbers(4, 5))
    assert found.components_.shape == (3, 5)
    np.testing.assert_allclose(np.abs(found.components_), np.eye(5)[:3], atol=1e-12)


def test_results_are_there_only_after_fit():
    found = model()
    for name in ("agop_", "eigenvalues_", "trace_", "n_samples_seen_"):
        assert not hasattr(found, name)
    for call in (
        lambda: found.transform(data()),
        found.spectrum,
        lambda: found.merge(model().fit(data())),
        lambda: model().fit(data()).merge(found),
        lambda: found.bootstrap(data()),
        found.all_reduce,
        found.get_feature_names_out,
    ):
        with pytest.raises(NotFittedError):
            call()


# ---------------------------------------------------------------------- sample weights
@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_copies(kind, center):
    X, weights = data(), np.array([1, 0, 2, 3, 1, 1, 5, 0, 1, 2, 1, 4])
    weighted = model(kind=kind, center=center).fit(X, sample_weight=weights)
    copies = model(kind=kind, center=center).fit(X.repeat(weights, axis=0))
    assert_agree(weighted, copies, 1e-10)
    np.testing.assert_allclose(weighted.trace_, copies.trace_, rtol=1e-10)
    J = cut(rowwise(narrow_net(), torch.from_numpy(X)))
    expected = average(J, weights=weights, center=center)
    if kind == "diagonal":
        expected = np.diag(expected)
    assert_same(weighted.agop_, expected)
    scaled = model(kind=kind, center=center).fit(X, sample_weight=weights * 1e-3)
    assert_agree(scaled, weighted, 1e-10)


def test_weights_of_sequences_and_batches():
    network, X = seeded(Encoder), numbers(5, 5, 4)
    layer, weights = "encoder.layers.0", torch.tensor([1.0, 2.0, 0.0, 3.0, 1.0])
    whole = NetworkAGOP(network, layers=[layer]).fit(X, sample_weight=weights)
    copies = NetworkAGOP(network, layers=[layer])
    copies.fit(X.repeat_interleave(weights.long(), 0))
    assert_agree(whole, copies, 1e-10)
    batches = [
        Batch((X[:2],), {}, weight=weights[:2]),
        Batch((X[2:],), {}, weight=weights[2:]),
    ]
    assert_agree(NetworkAGOP(network, layers=[layer]).fit(batches), whole, 1e-10)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (np.zeros(12), "at least one non-zero"),
        (np.full(12, np.nan), "Input sample_weight contains NaN"),
        (-np.ones(12), "Negative values in data"),
        (np.ones(3), r"sample_weight.shape == \(3,\), expected \(12,\)"),
        (np.ones((12, 1)), "must be 1D array or scalar"),
    ],
)
def test_wrong_weights(weight, message):
    with pytest.raises(ValueError, match=message):
        model().fit(data(), sample_weight=weight)


def test_weights_go_with_arrays_only():
    with pytest.raises(ValueError, match="beside arrays only"):
        model().fit([torch.from_numpy(data())], sample_weight=np.ones(12))


# ------------------------------------------------------------------------------ center
@pytest.mark.parametrize("kind", KINDS)
def test_centering(kind):
    X = data()
    J = cut(rowwise(narrow_net(), torch.from_numpy(X)))
    expected = average(J, center=True)
    found = model(kind=kind, center=True, batch_size=5).fit(X)
    assert_same(found.agop_, np.diag(expected) if kind == "diagonal" else expected)


def test_centering_over_positions_and_behind_a_wide_head():
    network, X = seeded(Encoder).eval(), numbers(5, 5, 4)
    found = NetworkAGOP(network, positions="tokens", kind="full", center=True).fit(X)
    assert_same(found.agop_, average(rowwise(network, X), "tokens", center=True))
    network, X = seeded(mlp, n_outputs=9), numbers(7, D)
    found = NetworkAGOP(network, kind="full", center=True).fit(X)
    assert_same(found.agop_, average(rowwise(network, X), center=True))


def test_centering_a_linear_network_leaves_nothing():
    found = NetworkAGOP(seeded(nn.Linear, D, 3), center=True).fit(data())
    assert np.abs(found.agop_).max() < 1e-25


# ------------------------------------------------------------------------------ probes
def many_outputs(n_outputs=40, width=50):
    return seeded(
        lambda: nn.Sequential(
            nn.Linear(D, width), nn.Tanh(), nn.Linear(width, n_outputs), nn.Tanh()
        )
    )


def test_probes_of_all_outputs_are_exact():
    network, X = many_outputs(), data()
    expected = NetworkAGOP(network, n_probes=None).fit(X)
    for n_probes in ("auto", 40, 99):
        found = NetworkAGOP(network, n_probes=n_probes).fit(X)
        assert found.probe_error_ == 0.0
        assert_agree(found, expected)


@pytest.mark.parametrize("kind", ["full", "diagonal", "rows", "linear"])
def test_probes_are_unbiased_and_their_error_is_the_one_stated(kind):
    """Over many draws: mean within 4 errors of the truth, spread as stated."""
    network = many_outputs()
    if kind == "linear":
        network = seeded(
            lambda: nn.Sequential(
                nn.Linear(D, 4),
                nn.Tanh(),
                nn.Linear(4, 40),
                nn.Tanh(),
                nn.Linear(40, 40),
            )
        )
    X, weight = data(20), np.arange(1.0, 21.0)
    settings = {"kind": kind, "batch_size": 7}
    exact = NetworkAGOP(network, n_probes=None, **settings)
    G = exact.fit(X, sample_weight=weight).agop_
    draws = [
        NetworkAGOP(network, n_probes=3, random_state=seed, **settings).fit(
            X, sample_weight=weight
        )
        for seed in range(150)
    ]
    errors = np.array([np.linalg.norm(each.agop_ - G) for each in draws])
    observed = np.sqrt(np.mean(errors**2)) / np.linalg.norm(G)
    stated = np.sqrt(np.mean([each.probe_error_**2 for each in draws]))
    assert abs(stated / observed - 1) < 0.15
    mean = np.mean([each.agop_ for each in draws], axis=0)
    bias = np.linalg.norm(mean - G) / np.linalg.norm(G)
    assert bias < 3 * observed / np.sqrt(len(draws))
    assert 0.02 < observed < 0.5  # or there would be nothing to see


def test_the_error_of_probes_shrinks_with_probes_and_samples():
    network = many_outputs()

    def stated(n_samples, n_probes):
        X = data(n_samples)
        errors = [
            NetworkAGOP(network, n_probes=n_probes, random_state=seed)
            .fit(X)
            .probe_error_
            for seed in range(8)
        ]
        return np.sqrt(np.mean(np.square(errors)))

    base = stated(20, 2)
    np.testing.assert_allclose(stated(80, 2), base / 2, rtol=0.25)
    np.testing.assert_allclose(stated(20, 8), base / 2, rtol=0.25)


def test_the_error_of_merged_parts_is_still_right():
    """Parts that were given the same seed must not have the same probes."""
    network, X = many_outputs(), data(160)
    G = NetworkAGOP(network, n_probes=None).fit(X).agop_
    errors, stated = [], []
    for seed in range(25):
        parts = [
            NetworkAGOP(network, n_probes=2, random_state=seed).fit(rows)
            for rows in np.split(X, 16)
        ]
        whole = parts[0]
        for part in parts[1:]:
            whole.merge(part)
        errors.append(np.linalg.norm(whole.agop_ - G) / np.linalg.norm(G))
        stated.append(whole.probe_error_)
    observed, stated = (np.sqrt(np.mean(np.square(each))) for each in (errors, stated))
    assert abs(stated / observed - 1) < 0.25


def test_the_error_over_positions_is_right():
    network, X = seeded(Encoder), numbers(12, 5, 4)
    settings = {"layers": ["encoder.layers.0"], "outputs": lambda z: torch.sin(z * 5)}
    G = NetworkAGOP(network, **settings).fit(X).agop_["encoder.layers.0"]
    draws = [
        NetworkAGOP(network, n_probes=2, random_state=s, **settings).fit(X)
        for s in range(80)
    ]
    errors = [np.linalg.norm(each.agop_["encoder.layers.0"] - G) for each in draws]
    observed = np.sqrt(np.mean(np.square(errors))) / np.linalg.norm(G)
    stated = [each.probe_error_["encoder.layers.0"] for each in draws]
    assert abs(np.sqrt(np.mean(np.square(stated))) / observed - 1) < 0.2


def test_one_probe_has_no_known_error():
    found = NetworkAGOP(many_outputs(), n_probes=1).fit(data())
    assert np.isnan(found.probe_error_)
    assert np.isfinite(found.agop_).all()


def test_many_outputs_warn():
    network = many_outputs(n_outputs=70, width=80)
    with pytest.warns(NumericalWarning, match="70 outputs: 32 random combinations"):
        found = NetworkAGOP(network).fit(data())
    assert 0 < found.probe_error_ < 0.5
    head = seeded(mlp, n_outputs=70)  # of rank 5
    assert NetworkAGOP(head).fit(data()).probe_error_ == 0.0
    assert NetworkAGOP(network, n_probes=None).fit(data()).probe_error_ == 0.0


def test_probes_follow_random_state():
    network, X = many_outputs(), data()
    first, again, other = (
        NetworkAGOP(network, n_probes=2, random_state=seed).fit(X) for seed in (3, 3, 4)
    )
    assert np.array_equal(first.agop_, again.agop_)
    assert not np.allclose(first.agop_, other.agop_)
    instance = NetworkAGOP(
        network, n_probes=2, random_state=np.random.RandomState(3)
    ).fit(X)
    assert np.array_equal(instance.agop_, first.agop_)


def test_probes_and_centering_exclude_each_other():
    network = many_outputs()
    with pytest.raises(ValueError, match="does not go with center=True"):
        NetworkAGOP(network, n_probes=5, center=True).fit(data())
    wide = many_outputs(n_outputs=70, width=80)
    found = NetworkAGOP(wide, center=True).fit(data())  # each output, no warning
    J = cut(rowwise(wide, torch.from_numpy(data())))
    assert_same(found.agop_, average(J, center=True))


def test_a_batch_with_more_outputs_is_treated_as_the_first():
    """Lengths change the number of outputs: all are exact, or all are probed."""
    network = seeded(Text)
    tokens = torch.arange(60).view(2, 30) % 11
    batches = [tokens[:, :4], tokens[:, :10]]  # 44 outputs, then 110
    settings = {"layers": ["embed"], "outputs": torch.tanh}
    exact = NetworkAGOP(network, n_probes=None, **settings).fit(batches)
    assert_agree(NetworkAGOP(network, **settings).fit(batches), exact)
    with pytest.warns(NumericalWarning, match="110 outputs: 32 random"):
        probed = NetworkAGOP(network, **settings).fit(batches[::-1])
    assert probed.probe_error_["embed"] > 0


# ---------------------------------------------------------------------------- sketches
def decaying(d=300, rank=60):
    """A random-feature network whose AGOP has a decaying spectrum."""
    scale = 0.8 ** torch.arange(rank).double()
    basis = torch.linalg.qr(numbers(d, rank, seed=5)).Q
    mixing = numbers(rank, 8, seed=6) / rank**0.5

    def function(x):
        return torch.tanh((x @ basis) * scale) @ mixing

    return function


def test_a_sketch_after_two_looks_is_close():
    function, X = decaying(), numbers(400, 300)
    settings = {"n_components": 5, "n_probes": None}
    full = NetworkAGOP(function, kind="full", **settings).fit(X)
    sketch = NetworkAGOP(function, kind="low_rank", **settings).fit(X)
    np.testing.assert_allclose(sketch.eigenvalues_, full.eigenvalues_, rtol=1e-3)
    overlap = np.linalg.svd(sketch.components_ @ full.components_.T)[1] ** 2
    assert overlap.mean() > 0.9999
    np.testing.assert_allclose(sketch.trace_, full.trace_, rtol=1e-10)
    importances = sketch.feature_importances_
    np.testing.assert_allclose(importances, full.feature_importances_, rtol=1e-8)
    shares = sketch.explained_ratio_, full.explained_ratio_
    np.testing.assert_allclose(*shares, rtol=1e-3)


def test_a_sketch_after_one_look_is_a_lower_bound():
    function, X = decaying(), numbers(400, 300)
    settings = {"n_components": 5, "n_probes": None}
    full = NetworkAGOP(function, kind="full", **settings).fit(X)
    once = [
        NetworkAGOP(function, kind="low_rank", **settings).fit(
            iter([X[:200], X[200:]])
        ),
        NetworkAGOP(function, kind="low_rank", **settings).partial_fit(X),
    ]
    for sketch in once:
        assert (sketch.eigenvalues_ <= full.eigenvalues_ * (1 + 1e-9)).all()
        lost = full.eigenvalues_ - sketch.eigenvalues_
        assert (lost <= sketch._survey.parts["input"].product.shrinkage + 1e-12).all()
        np.testing.assert_allclose(sketch.trace_, full.trace_, rtol=1e-10)


def test_more_samples_after_a_second_look_count():
    function, X = decaying(), numbers(400, 300)
    X[100:] /= 10  # where the network is steeper
    settings = {"n_components": 5, "n_probes": None, "kind": "low_rank"}
    grown = NetworkAGOP(function, **settings).fit(X[:100])
    before = grown.eigenvalues_
    grown.partial_fit(X[100:])
    whole = NetworkAGOP(function, **settings).fit(X)
    assert (whole.eigenvalues_ > 1.1 * before).all()
    np.testing.assert_allclose(grown.eigenvalues_, whole.eigenvalues_, rtol=0.05)
    np.testing.assert_allclose(grown.trace_, whole.trace_, rtol=1e-10)


def test_a_sketch_of_few_rows_is_exact():
    for n_samples in (1, 2, 5):
        X = data(n_samples)
        found = model(kind="low_rank", n_components=3).fit(X)
        assert_agree(found, model(kind="full").fit(X), 1e-8)


def test_a_sketch_with_probes():
    function, X = decaying(), numbers(300, 300)
    full = NetworkAGOP(function, kind="full", n_components=3).fit(X)
    found = NetworkAGOP(
        function, kind="low_rank", n_components=3, n_probes=4, random_state=0
    ).fit(X)
    np.testing.assert_allclose(found.eigenvalues_, full.eigenvalues_, rtol=0.1)
    assert 0 < found.probe_error_ < 0.2


# ---------------------------------------------------------------------------- kinds
def test_auto_goes_by_size():
    wide = lambda x: torch.stack([x.sin().sum(1), x[:, 0] ** 2], 1)  # noqa: E731
    for d, n, kind in ((20, 30, "full"), (5000, 4, "rows"), (5000, 700, "low_rank")):
        found = NetworkAGOP(wide).fit(torch.ones(n, d))
        assert found.kind_ == kind
    many = lambda x: x[:, :2]  # noqa: E731
    assert NetworkAGOP(many).fit(torch.ones(30, 200_000)).kind_ == "rows"
    assert NetworkAGOP(many).fit(torch.ones(50, 200_000)).kind_ == "low_rank"
    loader = [torch.ones(4, 5000)]  # nobody knows how many will come
    assert NetworkAGOP(wide).fit(loader).kind_ == "low_rank"
    assert NetworkAGOP(wide).partial_fit(torch.ones(4, 5000)).kind_ == "low_rank"


def test_linear_only_where_it_narrows():
    with pytest.raises(ValueError, match="not read by one linear layer with fewer"):
        NetworkAGOP(seeded(mlp), kind="linear").fit(data())  # from 6 to 8
    with pytest.raises(ValueError, match="kind='linear' does not fit '2'"):
        model(kind="linear", layers=["input", "2"]).fit(data())


# ------------------------------------------------------------------ batches and order
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1, 2, 5, 12, 100])
def test_the_batch_size_does_not_matter(kind, size):
    expected = model(kind=kind).fit(data())
    assert_agree(model(kind=kind, batch_size=size).fit(data()), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_nk_the_order_does_not_matter(kind):
    X = data(60)
    shuffled = X[np.random.default_rng(0).permutation(60)]
    first, second = (model(kind=kind, batch_size=7).fit(rows) for rows in (X, shuffled))
    assert_agree(first, second, 1e-9 if kind == "low_rank" else 1e-12)


SOURCES = {
    "array": lambda X: X,
    "list": lambda X: X.tolist(),
    "DataFrame": pd.DataFrame,
    "polars": pl.DataFrame,
    "tensor": torch.from_numpy,
    "Dataset": lambda X: TensorDataset(torch.from_numpy(X)),
    "DataLoader": lambda X: DataLoader(TensorDataset(torch.from_numpy(X)), 5),
    "shuffled": lambda X: DataLoader(
        TensorDataset(torch.from_numpy(X)), 5, shuffle=True
    ),
    "labelled": lambda X: [(torch.from_numpy(X[:7]), [0] * 7), (X[7:], [1] * 5)],
    "mappings": lambda X: [{"input": X[:7], "labels": [0] * 7}, {"input": X[7:]}],
    "mapping": lambda X: {"input": X},
    "tuple": lambda X: (X,),
    "generator": lambda X: (rows for rows in np.split(X, 3)),
    "short last batch": lambda X: [X[:5], X[5:10], X[10:]],
}


@pytest.mark.parametrize("kind", ["auto", "full", "low_rank"])
@pytest.mark.parametrize("source", SOURCES)
def test_nk_data_of_every_kind(source, kind):
    X = data()
    expected = model(kind=kind).fit(X)
    found = model(kind=kind).fit(SOURCES[source](X))
    assert_agree(found, expected, 1e-9)
    assert found.n_samples_seen_ == 12
    assert found.sample_shape_ == (D,)


def test_labels_from_arrays_and_batches():
    X, y = data(), np.arange(12) % 3
    expected = model(outputs="label").fit(X, y)
    loader = DataLoader(TensorDataset(torch.from_numpy(X), torch.from_numpy(y)), 5)
    assert_agree(model(outputs="label").fit(loader), expected)
    assert_agree(model(outputs="label").fit({"input": X, "labels": y}), expected)
    assert_agree(model().fit(X, y), model().fit(X))  # not asked for
    assert_agree(model().fit(X, np.array(["a"] * 12)), model().fit(X))
    with pytest.raises(ValueError, match="needs the targets"):
        model(outputs="label").fit(X)


def test_uint8_images():
    pixels = np.random.default_rng(0).integers(0, 256, (4, 2, 8, 8), dtype=np.uint8)
    network = seeded(cnn).float()
    expected = NetworkAGOP(network, kind="full").fit(torch.tensor(pixels).float())
    for given in (pixels, torch.from_numpy(pixels), [torch.from_numpy(pixels)]):
        assert_agree(NetworkAGOP(network, kind="full").fit(given), expected, 1e-6)


# ------------------------------------------------------------------------- streaming
@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_partial_fit_adds_up(kind, center):
    X = data()
    whole = model(kind=kind, center=center).fit(X)
    parts = model(kind=kind, center=center)
    for rows in (X[:1], X[1:6], X[6:]):
        assert parts.partial_fit(rows) is parts
    assert_agree(parts, whole, 1e-8 if kind == "low_rank" else 1e-11)
    assert parts.n_samples_seen_ == 12
    grown = model(kind=kind, center=center).fit(X[:6]).partial_fit(X[6:])
    assert_agree(grown, whole, 1e-8 if kind == "low_rank" else 1e-11)


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_merge_adds_up(kind, center):
    X = data()
    whole = model(kind=kind, center=center).fit(X)
    first, second, third = (
        model(kind=kind, center=center).fit(rows) for rows in (X[:5], X[5:6], X[6:])
    )
    before = second.agop_
    assert first.merge(second).merge(third) is first
    assert_agree(first, whole, 1e-8 if kind == "low_rank" else 1e-11)
    assert first.n_samples_seen_ == 12
    assert np.array_equal(second.agop_, before)
    assert second.n_samples_seen_ == 1
    double = copy.deepcopy(whole).merge(whole)
    assert_agree(double, whole, 1e-8 if kind == "low_rank" else 1e-11)
    itself = copy.deepcopy(whole)
    assert itself.merge(itself).n_samples_seen_ == 24


def test_merge_at_several_layers_and_with_weights():
    X, weight = data(), np.arange(1.0, 13.0)
    whole = model(layers=SITES).fit(X, sample_weight=weight)
    parts = [
        model(layers=SITES).fit(X[rows], sample_weight=weight[rows])
        for rows in (slice(5), slice(5, 12))
    ]
    assert_agree(parts[0].merge(parts[1]), whole, 1e-11)


def test_what_cannot_be_merged():
    X = data()
    whole = model(kind="full").fit(X)
    for other in (
        model(kind="diagonal"),
        model(kind="full", center=True),
        model(kind="full", layers=["0"]),
        model(kind="full", outputs=[0]),
        model(kind="full", n_probes=2),
        model(network=seeded(mlp, n_features=3), kind="full"),
    ):
        other.fit(X[:, :3] if other.network[0].in_features == 3 else X)
        before = whole.agop_
        with pytest.raises(ValueError):
            whole.merge(other)
        assert np.array_equal(whole.agop_, before)
        assert whole.n_samples_seen_ == 12
    other = narrow_net()
    other[0].weight.data += 1
    with pytest.raises(ValueError, match="layer or basis"):
        model().fit(X).merge(model(network=other).fit(X))


def test_parts_with_functions_from_other_processes_can_be_merged():
    """A function of another process is another object, at another address."""
    X = data()
    for outputs in (functools.partial(torch.mul, other=2.0), nn.Softmax(1), torch.tanh):
        first = model(outputs=outputs).fit(X[:5])
        second = model(outputs=copy.deepcopy(outputs)).fit(X[5:])
        whole = model(outputs=outputs).fit(X)
        assert_agree(first.merge(pickle.loads(pickle.dumps(second))), whole, 1e-11)


def test_partial_fit_with_other_widths():
    function = lambda x: x.sin()  # noqa: E731
    found = NetworkAGOP(function, kind="full").partial_fit(torch.ones(3, 4))
    with pytest.raises(ValueError, match="5 features now, 4 in the batches before"):
        found.partial_fit(torch.ones(3, 5))
    assert found.agop_.shape == (4, 4)


class Endless(IterableDataset):
    def __iter__(self):
        while True:
            yield from numbers(50, D)


def test_nk_endless_data():
    import itertools

    X = numbers(4, D)
    found = model(max_batches=3).fit(itertools.cycle([X]))
    assert found.n_samples_seen_ == 12
    assert_agree(found, model().fit(X))
    with pytest.raises(ValueError, match="say with max_batches"):
        model().fit(itertools.cycle([X]))
    loader = DataLoader(Endless(), batch_size=5)
    assert model(max_batches=2).fit(loader).n_samples_seen_ == 10
    assert model(max_batches=2, batch_size=5).fit(data()).n_samples_seen_ == 10


@pytest.mark.parametrize("empty", [iter([]), np.empty((0, D)), torch.empty(0, D)])
def test_nk_no_data(empty):
    with pytest.raises(ValueError, match=r"0 sample|no samples"):
        model().fit(empty)


def test_nk_a_generator_that_is_exhausted():
    batches = (rows for rows in np.split(data(), 3))
    found = model().fit(batches)
    with pytest.raises(ValueError, match=r"0 sample|no samples"):
        model().fit(batches)
    with pytest.raises(ValueError, match=r"0 sample|no samples"):
        found.bootstrap(batches)


# ------------------------------------------------------------------------ out of memory
class Hungry(nn.Module):
    """Runs out of memory beyond some samples."""

    def __init__(self, most, error=torch.OutOfMemoryError):
        super().__init__()
        self.body = narrow()
        self.most, self.error, self.sizes = most, error, []

    def forward(self, x):
        self.sizes.append(len(x))
        if len(x) > self.most:
            raise self.error("can't allocate memory")
        return self.body(x)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError, MemoryError])
@pytest.mark.parametrize("most", [2, 3, 7])
def test_f54_batches_are_halved(most, error):
    network, X = seeded(Hungry, most, error), data(20)
    with pytest.warns(
        RuntimeWarning, match=r"Out of memory with \d+ samples"
    ) as caught:
        found = NetworkAGOP(network).fit(X)
    assert len(caught) <= 4  # once for each halving, not for each batch
    assert max(network.sizes[-3:]) <= most
    assert found.n_samples_seen_ == 20
    assert_agree(found, model().fit(X))


def test_f54_smaller_batches_stay_small():
    network = seeded(Hungry, 4)
    with pytest.warns(RuntimeWarning) as caught:
        NetworkAGOP(network, batch_size=8).fit([data(30), data(30)])
    assert len(caught) == 1
    assert network.sizes.count(8) == 1


def test_f54_a_single_sample_that_does_not_fit():
    network = seeded(Hungry, 0)
    with (
        pytest.warns(RuntimeWarning),
        pytest.raises(MemoryError, match="Out of memory with a single sample: look at"),
    ):
        NetworkAGOP(network).fit(data())


def test_f54_one_sample_at_a_time():
    network, X = seeded(Hungry, 1), data()
    with pytest.warns(RuntimeWarning):
        found = NetworkAGOP(network).fit(X)
    assert_agree(found, model().fit(X))
    assert_agree(NetworkAGOP(network, batch_size=1).fit(X), found)


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    def function(x):
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        NetworkAGOP(function).fit(data())


def test_memory_does_not_grow_with_samples(monkeypatch):
    """Blocks get smaller for wide activations and many outputs."""
    monkeypatch.setattr(sweep, "JACOBIAN_BYTES", 8 * D * 3 * 4)  # of four samples
    sizes = []
    network = seeded(mlp)
    network[0].register_forward_hook(lambda _, given, out: sizes.append(len(out)))
    NetworkAGOP(network, kind="full").fit(data(40))
    assert max(sizes) == 4


# -------------------------------------------------------------------- device and dtype
@pytest.mark.parametrize("device", DEVICES)
def test_on_a_device(device):
    network, X = seeded(narrow).to(device), data()
    expected = model().fit(X)
    for given in (X, torch.from_numpy(X), torch.from_numpy(X).to(device)):
        for kind in ("full", "linear"):
            found = NetworkAGOP(network, kind=kind).fit(given)
            assert_agree(found, expected, 1e-9)
            assert isinstance(found.agop_, np.ndarray)
        assert found.transform(given).shape == (12, len(found.eigenvalues_))
    assert next(network.parameters()).device.type == device


@pytest.mark.parametrize("device", DEVICES)
def test_a_copy_on_another_device(device):
    network = narrow_net()
    found = NetworkAGOP(network, device=device).fit(data())
    assert_agree(found, model().fit(data()), 1e-9)
    assert next(network.parameters()).device.type == "cpu"


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_on_every_device(kind, device):
    network = narrow_net().to(device)
    expected = model(kind=kind, center=True).fit(data())
    found = NetworkAGOP(network, kind=kind, center=True).fit(data())
    assert_agree(found, expected, 1e-8)
    np.testing.assert_allclose(found.eigenvalues_, expected.eigenvalues_, rtol=1e-8)


def test_a_copy_in_another_precision():
    network, X = narrow_net().float(), data()
    before = copy.deepcopy(network.state_dict())
    found = NetworkAGOP(network, dtype="float64").fit(X)
    reference = copy.deepcopy(network).double()
    assert_same(found.agop_, average(rowwise(reference, torch.from_numpy(X))))
    assert found.transform(X).dtype == np.float64
    low = NetworkAGOP(narrow_net(), dtype=torch.float32).fit(X)
    assert low.transform(X).dtype == np.float32
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    half = NetworkAGOP(copy.deepcopy(network).half(), dtype="float32").fit(X)
    assert_same(half.agop_, found.agop_, 0.01)


def test_networks_of_mixed_precision():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(D, dtype=torch.float64))
            self.body = narrow().float()

        def forward(self, x):
            return self.body((x * self.scale).to(self.body[0].weight))

    network, X = Mixed.__new__(Mixed), data()
    with torch.random.fork_rng(devices=[]):
        network.__init__()
    left = NetworkAGOP(network, kind="full").fit(X)
    assert left.transform(X).dtype == np.float64
    for dtype in ("float64", "float32"):
        found = NetworkAGOP(network, kind="full", dtype=dtype).fit(X)
        assert_agree(found, left, 1e-5)
        assert found.transform(X).dtype == np.dtype(dtype)


def test_ng_data_of_another_type():
    X = data()
    for network in (narrow_net(), narrow_net().float(), narrow_net().bfloat16()):
        expected = matrices(NetworkAGOP(network, kind="full").fit(X))["input"]
        for given in (
            X.astype(np.float32),
            X.astype(">f8"),
            torch.from_numpy(X).float(),
        ):
            found = NetworkAGOP(network, kind="full").fit(given)
            assert found.agop_.dtype == np.float64
            assert_same(found.agop_, expected, 1e-5)


# --------------------------------------------------------------------------- transform
def test_transform_the_input():
    X = data()
    found = model(n_components=2).fit(X)
    np.testing.assert_allclose(found.transform(X), X @ found.components_.T)
    fitted = model(n_components=2).fit_transform(X)
    np.testing.assert_array_equal(fitted, found.transform(X))
    single = NetworkAGOP(narrow_net().float(), n_components=2).fit(X)
    assert single.transform(X).dtype == np.float32


def test_transform_layers():
    X, network = data(), narrow_net()
    found = model(network, layers=["0", "2:input"], n_components=2).fit(X)
    with torch.no_grad():
        h0 = network[0](torch.from_numpy(X)).numpy()
        h1 = network[:2](torch.from_numpy(X)).numpy()
    expected = [h0 @ found.components_["0"].T, h1 @ found.components_["2:input"].T]
    np.testing.assert_allclose(found.transform(X), np.hstack(expected), atol=1e-12)
    for size in (1, 5):
        small = found.set_params(batch_size=size).transform(X)
        np.testing.assert_allclose(small, np.hstack(expected), atol=1e-12)


def test_transform_is_the_mean_over_positions():
    network, X = seeded(cnn).eval(), numbers(4, 2, 8, 8)
    found = NetworkAGOP(network, layers=["4"], n_components=3).fit(X)
    with torch.no_grad():
        h = network[:5](X).mean((2, 3)).numpy()
    np.testing.assert_allclose(found.transform(X), h @ found.components_["4"].T)


def test_transform_leaves_padding_out():
    network = seeded(Text).eval()
    tokens = torch.arange(15).view(3, 5) % 11
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 0, 0, 0, 0]])
    batch = {"input_ids": tokens, "attention_mask": mask}
    found = NetworkAGOP(network, layers=["embed"], n_components=2).fit(batch)
    h = network.embed(tokens).detach()
    means = torch.stack(
        [row[keep == 1].mean(0) for row, keep in zip(h, mask, strict=True)]
    )
    expected = means.numpy() @ found.components_["embed"].T
    np.testing.assert_allclose(found.transform(batch), expected, atol=1e-12)


def test_transform_of_another_width():
    found = model().fit(data())
    message = "X has 3 features, but NetworkAGOP is expecting 6 features as input"
    with pytest.raises(ValueError, match=message):
        found.transform(data()[:, :3])
    anywhere = NetworkAGOP(lambda x: x.sin()).fit(torch.ones(3, 4))
    with pytest.raises(ValueError, match="At 'input' there are 5 features now"):
        anywhere.transform(torch.ones(3, 5))


def test_transform_needs_no_targets():
    X, y = data(), np.arange(12) % 3
    assert model(outputs="loss").fit(X, y).transform(X).shape[0] == 12


# ------------------------------------------------------------------- scikit-learn
def test_feature_names():
    frame = pd.DataFrame(data(), columns=list("abcdef"))
    found = model(n_components=2).fit(frame)
    assert found.feature_names_in_.tolist() == list("abcdef")
    assert found.get_feature_names_out().tolist() == ["networkagop0", "networkagop1"]
    for container, kind in (("pandas", pd.DataFrame), ("polars", pl.DataFrame)):
        table = found.set_output(transform=container).transform(frame)
        assert isinstance(table, kind)
        assert list(table.columns) == ["networkagop0", "networkagop1"]
    two = model(layers=["0", "2"], n_components=2).fit(frame)
    assert len(two.get_feature_names_out()) == 4


def test_names_are_forgotten_with_the_table():
    found = model().fit(pd.DataFrame(data(), columns=list("abcdef")))
    found.fit(torch.from_numpy(data()))
    assert not hasattr(found, "feature_names_in_")
    assert not hasattr(found, "n_features_in_")


def test_in_a_pipeline():
    X, y = data(40), data(40)[:, 0]
    pipeline = make_pipeline(
        StandardScaler(), model(n_components=2), LinearRegression()
    ).fit(X, y)
    assert pipeline.predict(X).shape == (40,)
    found = pipeline[1]
    scaled = StandardScaler().fit_transform(X)
    assert_agree(found, model(n_components=2).fit(scaled))


def test_f56_clone_copy_pickle():
    X = data()
    for settings in (
        {},
        {"layers": SITES, "outputs": [0, 2]},
        {"kind": "low_rank", "outputs": "probabilities"},
        {"n_probes": 2, "random_state": 0, "kind": "rows"},
    ):
        found = model(**settings).fit(X)
        assert_agree(clone(found).fit(X), found, 0)
        assert_agree(copy.deepcopy(found), found, 0)
        again = pickle.loads(pickle.dumps(found))
        assert_agree(again, found, 0)
        np.testing.assert_array_equal(again.transform(X), found.transform(X))
        assert_agree(again.partial_fit(X), found.partial_fit(X), 0)
        before = pickle.loads(pickle.dumps(clone(found)))
        assert_agree(before.fit(X), found.fit(X), 0)
        file = io.BytesIO()
        joblib.dump(found, file)
        file.seek(0)
        assert_agree(joblib.load(file), found, 0)


def test_fitting_again_forgets():
    X = data()
    found = model(layers=SITES).fit(data(20, seed=9))
    assert_agree(found.fit(X), model(layers=SITES).fit(X), 0)
    assert found.n_samples_seen_ == 12


def test_a_clone_has_another_network():
    network = narrow_net()
    copied = clone(NetworkAGOP(network, layers=[network[2]]))
    assert copied.network is not network
    with pytest.raises(ValueError, match="as scikit-learn's clone makes it"):
        copied.fit(data())


def test_verbose_shows_progress(caplog):
    model(verbose=1, batch_size=5).fit(data())
    assert "12 samples" in caplog.text


# --------------------------------------------------------------------------- bootstrap
def test_the_bootstrap_is_centered_at_the_estimate():
    X = data(200)
    for settings in ({"kind": "full"}, {}, {"kind": "rows"}, {"kind": "low_rank"}):
        found = model(n_components=2, random_state=0, **settings).fit(X)
        bootstrap = found.bootstrap(X, n_resamples=200)
        low, high = bootstrap.eigenvalue_intervals()
        assert (low.numpy() < found.eigenvalues_).all()
        assert (found.eigenvalues_ < high.numpy()).all()
        assert bootstrap.importances.shape == (200, D)
        mean = bootstrap.importances.mean(0).numpy()
        np.testing.assert_allclose(mean, found.feature_importances_, atol=0.02)


def test_the_bootstrap_draws_samples_not_positions():
    """Four copies of the same position must not make an estimate surer."""
    X = numbers(100, 1, 4)
    network = seeded(nn.Linear, 4, 3)

    def function(x):
        return torch.tanh(network(x)).mean(1)

    once, often = (
        NetworkAGOP(function, positions="tokens", random_state=0, n_components=1)
        .fit(rows)
        .bootstrap(rows, n_resamples=300)
        for rows in (X, X.expand(-1, 4, -1))
    )
    ratios = [
        float(each.standard_errors[0] / each.spectrum.eigenvalues[0])
        for each in (once, often)
    ]
    np.testing.assert_allclose(*ratios, rtol=0.15)


def test_the_bootstrap_of_a_centered_agop():
    X = data(300)
    for settings in ({"kind": "full"}, {}):
        found = model(center=True, n_components=2, random_state=0, **settings).fit(X)
        bootstrap = found.bootstrap(X, n_resamples=100)
        mean = bootstrap.eigenvalues.mean(0).numpy()
        np.testing.assert_allclose(mean, found.eigenvalues_, rtol=0.1)
    network, X = seeded(Encoder).eval(), numbers(5, 5, 4)
    found = NetworkAGOP(network, layers=["encoder.layers.0"], center=True).fit(X)
    with pytest.raises(ValueError, match="does not know the mean over positions"):
        found.bootstrap(X, n_resamples=3)


def test_the_bootstrap_by_layer_with_weights():
    X, weight = data(50), np.arange(50.0)
    found = model(layers=SITES, n_components=1, random_state=0).fit(X, None, weight)
    bootstraps = found.bootstrap(X, sample_weight=weight, n_resamples=100)
    assert list(bootstraps) == SITES
    for name, each in bootstraps.items():
        mean = float(each.eigenvalues.mean())
        np.testing.assert_allclose(mean, found.eigenvalues_[name][0], rtol=0.15)
    again = found.bootstrap(X, sample_weight=weight, n_resamples=100)
    assert torch.equal(again["0"].eigenvalues, bootstraps["0"].eigenvalues)
    with pytest.raises(ValueError, match="'n_resamples' parameter"):
        found.bootstrap(X, n_resamples=1)


def test_the_bootstrap_of_many_features():
    function, X = decaying(d=survey._WHOLE_FEATURES + 44), numbers(100, 300)
    found = NetworkAGOP(function, n_components=3, kind="low_rank", random_state=0).fit(
        X
    )
    bootstrap = found.bootstrap(X, n_resamples=50)
    assert (bootstrap.stability > 0.9).all()
    ratios = bootstrap.eigenvalues.mean(0).numpy() / found.eigenvalues_
    np.testing.assert_allclose(ratios, 1, rtol=0.1)


def test_no_warnings_in_ordinary_use():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = model(layers=SITES).fit(data())
        found.partial_fit(data()).merge(found).transform(data())
        found.bootstrap(data(), n_resamples=5)


def test_warnings_point_to_the_line_of_the_user():
    X = data()
    dead = narrow_net()
    dead[4].weight.data.zero_()
    for network in (many_outputs(70, 80), dead, seeded(Hungry, 5)):
        with pytest.warns((UserWarning, RuntimeWarning)) as caught:
            NetworkAGOP(network).fit(X)
        assert {warning.filename for warning in caught} == {__file__}
        with pytest.warns((UserWarning, RuntimeWarning)) as caught:
            NetworkAGOP(network).partial_fit(X)
        assert {warning.filename for warning in caught} == {__file__}


def test_a_network_that_was_trained_in_between():
    network, X = narrow_net(), data()
    found = model(network).fit(X)
    before = found.agop_
    with torch.no_grad():
        network[0].weight.mul_(2)
    assert np.array_equal(found.agop_, before)
    with pytest.raises(ValueError, match="have changed since the batches before"):
        found.partial_fit(X)
    assert not np.allclose(found.fit(X).agop_, before)

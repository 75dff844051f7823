from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from agop import (
    AnsatzRecorder,
    NetworkAGOP,
    effect_curve,
    neural_feature_ansatz,
    steer,
    visualize_direction,
)
from agop.inspection import (
    AnsatzDisplay,
    DirectionDisplay,
    ExamplesDisplay,
    FeatureImportancesDisplay,
    Image,
    LayersDisplay,
    SpectrumDisplay,
    SteeringDisplay,
    VisualizationDisplay,
)

LAYERS = ["input", "0", "4"]


@pytest.fixture(scope="module")
def images():
    return torch.randn(30, 2, 4, 5, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def network(images):
    network = nn.Sequential(
        nn.Conv2d(2, 3, 2), nn.ReLU(), nn.Flatten(), nn.Tanh(), nn.Linear(36, 4)
    )
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 3)
    return network.eval()


@pytest.fixture(scope="module")
def at_input(network, images):
    return NetworkAGOP(network, n_components=3, random_state=0).fit(images)


@pytest.fixture(scope="module")
def at_layers(network, images):
    return NetworkAGOP(network, layers=LAYERS, n_components=2).fit(images)


# ---------------------------------------------------------------------- NetworkAGOP
def test_diagonal_has_the_shape_of_the_images(at_input):
    display = DirectionDisplay.from_estimator(at_input, what="diagonal")
    assert display.shape == Image(4, 5, 2, channels_first=True)
    np.testing.assert_allclose(
        display.ax_.images[0].get_array(),
        at_input.feature_importances_.reshape(2, 4, 5).sum(0),
    )


def test_a_shape_that_the_network_was_given_has_the_channels_first(at_input):
    display = DirectionDisplay.from_estimator(at_input, shape=(2, 4, 5))
    assert display.shape == Image(4, 5, 2, channels_first=True)
    with pytest.raises(ValueError, match="does not fit 40 features"):
        DirectionDisplay.from_estimator(at_input, shape=(3, 4, 5))


def test_names_make_a_table_of_images(at_input):
    names = [f"a{index}" for index in range(40)]
    display = DirectionDisplay.from_estimator(at_input, feature_names=names)
    assert display.shape is None
    importances = FeatureImportancesDisplay.from_estimator(at_input)
    assert importances.feature_names[21] == "pixel 0, 1, channel 1"


def test_directions_and_spectrum_of_one_layer(at_layers):
    display = DirectionDisplay.from_estimator(at_layers, layer="0", n_directions=2)
    np.testing.assert_allclose(display.values, at_layers.components_["0"], atol=1e-6)
    assert display.feature_names == ["unit 0", "unit 1", "unit 2"]
    spectrum = SpectrumDisplay.from_estimator(at_layers, layer="4")
    shares = at_layers.explained_ratio_["4"]
    np.testing.assert_allclose(spectrum.shares[:2], shares, rtol=1e-5)
    assert spectrum.n_features == 4
    importances = FeatureImportancesDisplay.from_estimator(
        at_layers, layer="0", feature_names=["a", "b", "c"]
    )
    assert importances.feature_names == ["a", "b", "c"]
    shape = DirectionDisplay.from_estimator(at_layers, layer="input").shape
    assert shape == Image(4, 5, 2, channels_first=True)


@pytest.mark.parametrize(
    "Display", [DirectionDisplay, FeatureImportancesDisplay, SpectrumDisplay]
)
def test_layers_must_be_named(Display, at_layers, at_input, machine):
    for layer in (None, "5"):
        with pytest.raises(ValueError, match="'input', '0', '4'"):
            Display.from_estimator(at_layers, layer=layer)
    with pytest.raises(ValueError, match="layer='0'"):
        Display.from_estimator(at_input, layer="0")
    with pytest.raises(ValueError, match="at its input alone"):
        Display.from_estimator(machine, layer="0")


def test_one_layer_need_not_be_named(network, images):
    agop = NetworkAGOP(network, layers="0").fit(images)
    display = DirectionDisplay.from_estimator(agop, what="diagonal")
    np.testing.assert_array_equal(display.values[0], agop.feature_importances_["0"])
    assert LayersDisplay.from_estimator(agop).layers == ["0"]


@pytest.mark.parametrize(("layer", "direction"), [("input", 2), ("0", 1), ("4", 2)])
def test_examples_along_a_direction_of_a_layer(at_layers, images, layer, direction):
    display = ExamplesDisplay.from_estimator(
        at_layers, images, layer=layer, direction=direction, n_examples=2
    )
    column = 2 * LAYERS.index(layer) + direction - 1
    np.testing.assert_allclose(
        display.projections, at_layers.transform(images)[:, column]
    )
    assert display.shape == Image(4, 5, 2, channels_first=True)  # inputs are shown


def test_bootstrap(at_input, at_layers, images):
    bootstrap = at_input.bootstrap(images, n_resamples=20)
    display = SpectrumDisplay.from_estimator(at_input, bootstrap=bootstrap, level=0.8)
    low, high = np.asarray(bootstrap.eigenvalue_intervals(0.8)) / at_input.trace_
    np.testing.assert_allclose(display.intervals, [low, high], rtol=1e-5)
    assert display.groups == bootstrap.groups
    assert "80% interval" in [
        t.get_text() for t in display.ax_.get_legend().get_texts()
    ]
    importances = FeatureImportancesDisplay.from_estimator(
        at_input, bootstrap=bootstrap
    )
    np.testing.assert_array_equal(
        importances.intervals, bootstrap.importance_intervals()
    )
    by_layer = at_layers.bootstrap(images, n_resamples=20)
    display = SpectrumDisplay.from_estimator(at_layers, layer="0", bootstrap=by_layer)
    assert display.groups == by_layer["0"].groups


# --------------------------------------------------------------------------- layers
def test_layers_side_by_side(at_layers):
    display = LayersDisplay.from_estimator(at_layers)
    trace, rank, heat = display.axes_
    np.testing.assert_allclose(
        trace.lines[0].get_xdata(), [at_layers.trace_[layer] for layer in LAYERS]
    )
    np.testing.assert_array_equal(trace.lines[0].get_ydata(), [0, 1, 2])
    assert trace.get_ylim()[0] > trace.get_ylim()[1]  # the first layer is on top
    assert [label.get_text() for label in trace.get_yticklabels()] == LAYERS
    np.testing.assert_array_equal(rank.lines[0].get_xdata(), [40, 3, 4])
    matrix = at_layers.agop_["0"]
    expected = np.trace(matrix) ** 2 / np.square(matrix).sum()
    np.testing.assert_allclose(rank.lines[1].get_xdata()[1], expected, rtol=1e-5)
    strip = heat.images[0].get_array()
    assert strip.shape == (3, 20)
    values = np.sort(np.linalg.eigvalsh(matrix))[::-1]
    np.testing.assert_allclose(strip[1, :3], values.cumsum() / values.sum(), rtol=1e-5)
    assert np.ma.getmaskarray(strip)[1, 3:].all()  # it has no more directions


def test_some_layers(at_layers, at_input, machine):
    display = LayersDisplay.from_estimator(at_layers, layers=["4", "0"])
    assert display.layers == ["4", "0"]
    for estimator in (at_input, machine):
        with pytest.raises(ValueError, match="knows no layers"):
            LayersDisplay.from_estimator(estimator)


def test_layers_of_a_constant_network():
    zeros = np.zeros(2)
    display = LayersDisplay(["a", "b"], zeros, zeros, np.array([3, 3]), [zeros, zeros])
    display.plot().figure_.canvas.draw()
    assert display.ax_.get_xscale() == "linear"


@pytest.mark.parametrize("traces", [[2.0, 8.0], [1e-7, 1e9], [1.0, 1.0]])
def test_axes_of_traces_end_at_powers_of_ten(traces):
    ones = np.ones(2)
    display = LayersDisplay(["a", "b"], np.array(traces), ones, ones, [ones, ones])
    ends = np.log10(display.plot().ax_.get_xlim())
    np.testing.assert_allclose(ends, np.round(ends), atol=1e-9)
    assert ends[0] < np.log10(min(traces)) and np.log10(max(traces)) < ends[1]


# --------------------------------------------------------------------------- ansatz
def record(layer, power, correlation, **others):
    return {"layer": layer, "power": power, "correlation": correlation, **others}


def test_trained_stands_beside_the_baseline():
    known = {"baseline": 0.4, "baseline_low": 0.3, "baseline_high": 0.6}
    display = AnsatzDisplay(
        [
            record("fc1", 1.0, 0.8, **known),
            record("fc1", 0.5, 0.9, **known),
            record("fc2", 0.5, 0.7, baseline=None),
            record("fc2", 1.0, 0.6, baseline=np.nan),
        ]
    ).plot()
    half, one = display.axes_
    titles = [ax.get_title() for ax in display.axes_]
    assert titles == ["AGOP to the power 1/2", "AGOP to the power 1"]
    trained, baseline = half.lines
    np.testing.assert_array_equal(trained.get_xdata(), [0.9, 0.7])
    np.testing.assert_array_equal(baseline.get_xdata(), [0.4, np.nan])
    np.testing.assert_array_equal(one.lines[0].get_xdata(), [0.8, 0.6])
    ends = half.collections[0].get_segments()[0]
    np.testing.assert_array_equal(ends, [[0.3, 0], [0.6, 0]])
    assert [label.get_text() for label in half.get_yticklabels()] == ["fc1", "fc2"]


def test_ansatz_without_a_baseline():
    display = AnsatzDisplay([record("fc1", 1.0, -0.4)]).plot()
    assert len(display.ax_.lines) == 1
    assert display.ax_.get_xlim()[0] < -0.4
    assert display.summary() == "Power 1: mean correlation -0.40 trained."


def test_ansatz_over_training():
    records = [
        record(layer, 0.5, step / 10 + place / 100, step=step, baseline=0.2)
        for step in (3, 1, 2)  # in any order
        for place, layer in enumerate(("fc1", "fc2"))
    ]
    records.append(record("fc1", 0.5, np.nan, step=0))
    display = AnsatzDisplay.from_result(SimpleNamespace(records=records))
    first = next(line for line in display.ax_.lines if line.get_label() == "fc1")
    np.testing.assert_array_equal(first.get_xdata(), [0, 1, 2, 3])
    np.testing.assert_allclose(first.get_ydata(), [np.nan, 0.1, 0.2, 0.3])
    legend = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert legend == ["fc1", "fc2", "re-initialised"]
    assert len(display.table()["step"]) == 7


def test_recorded_results_are_a_snapshot():
    result = SimpleNamespace(records=[record("fc1", 0.5, 0.9)])
    display = AnsatzDisplay.from_result(result)
    result.records.append(record("fc1", 0.5, 0.8))
    assert len(display.records) == 1


@pytest.mark.parametrize(
    ("power", "text"), [(1 / 3, "1/3"), (2, "2"), (0.3183, "0.3183")]
)
def test_powers_are_fractions(power, text):
    display = AnsatzDisplay([record("fc1", power, 0.5)]).plot()
    assert display.ax_.get_title() == f"AGOP to the power {text}"


def test_measured_ansatz(network, images):
    result = neural_feature_ansatz(network, images, powers=(0.5, 1.0), random_state=0)
    display = AnsatzDisplay.from_result(result)
    panel = display.axes_[1]
    measured = [row for row in result.records if row["power"] == 1.0]
    trained, baseline = (line.get_xdata() for line in panel.lines)
    np.testing.assert_array_equal(trained, [row["correlation"] for row in measured])
    np.testing.assert_array_equal(baseline, [row["baseline"] for row in measured])
    recorder = AnsatzRecorder(network, images, random_state=0)
    for step in range(2):
        recorder(step)
    display = AnsatzDisplay.from_result(recorder)
    np.testing.assert_array_equal(display.ax_.lines[0].get_xdata(), [0, 1])


# ------------------------------------------------------------------------- steering
def test_bands_are_two_standard_errors_wide():
    strengths = np.array([-1.0, 0.0, 2.0])
    effects = np.array([[0.0], [1.0], [4.0]])
    errors = np.array([[0.1], [0.2], [0.3]])
    display = SteeringDisplay(strengths, effects, errors=errors).plot()
    corners = display.ax_.collections[0].get_paths()[0].vertices
    for strength, effect, error in zip(
        strengths, effects[:, 0], errors[:, 0], strict=True
    ):
        heights = corners[corners[:, 0] == strength, 1]
        np.testing.assert_allclose(
            [heights.min(), heights.max()], [effect - 2 * error, effect + 2 * error]
        )


def test_slopes_go_through_the_effect_at_zero():
    strengths = np.array([-2.0, 2.0])  # 0 is not among them
    display = SteeringDisplay(strengths, np.array([0.0, 4.0]), slopes=[3.0]).plot()
    dashed = next(line for line in display.ax_.lines if line.get_linestyle() == "--")
    np.testing.assert_allclose(dashed.get_ydata(), [2 - 6, 2 + 6])
    low, high = display.ax_.get_ylim()
    assert low > -1 and high < 5  # the lines do not rule the axes


def test_outputs_that_move_most_are_shown():
    strengths = np.array([0.0, 1.0])
    effects = np.array([np.zeros(30), np.r_[np.arange(29), -99.0]])
    display = SteeringDisplay(strengths, effects).plot(max_outputs=2)
    labels = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert labels == ["output 28", "output 29"]
    table = display.table()
    assert list(table["output"][:4]) == ["output 29"] * 2 + ["output 28"] * 2
    assert list(table["mean output"][:4]) == [0, -99, 0, 28]


def test_effect_curves_are_sorted():
    curve = SimpleNamespace(
        strengths=np.array([1.0, -1.0, 0.0]),
        mean=np.array([[5.0], [-5.0], [0.0]]),
        standard_error=np.array([[0.1], [0.3], [np.nan]]),
        slope=np.array([5.0]),
    )
    display = SteeringDisplay.from_result(curve, output_names=["logit"])
    np.testing.assert_array_equal(display.strengths, [-1, 0, 1])
    np.testing.assert_array_equal(display.effects[:, 0], [-5, 0, 5])
    np.testing.assert_array_equal(display.errors[:, 0], [0.3, np.nan, 0.1])
    assert display.ax_.get_ylabel() == "mean change of the output"


def test_measured_effects(network, images):
    direction = torch.ones(3) / 3**0.5
    curve = effect_curve(network, "0", direction, images, [1.0, 0.0, -1.0])
    display = SteeringDisplay.from_result(curve)
    np.testing.assert_array_equal(display.effects[::-1], curve.mean)
    with steer(network, "0", direction, -1.0), torch.no_grad():
        steered = network(images)
    expected = (steered - network(images).detach()).mean(0)
    np.testing.assert_allclose(display.effects[0], expected, atol=1e-6)
    drawn = {line.get_label(): line.get_ydata() for line in display.ax_.lines}
    np.testing.assert_array_equal(drawn["output 3"], display.effects[:, 3])


# -------------------------------------------------------------------- visualisation
def test_visualization_of_an_image():
    start = np.random.default_rng(0).normal(size=(2, 1, 3, 4))
    result = SimpleNamespace(
        start=start, optimum=start + 1, trajectory=np.array([[0.0, 1.0], [2.0, 5.0]])
    )
    display = VisualizationDisplay.from_result(result, sample=1)
    first, last, path = display.axes_
    np.testing.assert_array_equal(first.images[0].get_array(), start[1, 0])
    np.testing.assert_array_equal(last.images[0].get_array(), start[1, 0] + 1)
    assert first.images[0].get_clim() == last.images[0].get_clim()
    np.testing.assert_array_equal(path.lines[0].get_ydata(), [1, 5])
    assert display.summary() == "The projection went from 1 to 5 in 1 steps."


def test_measured_visualization(network, images):
    found = visualize_direction(
        network, network, [1.0, 0, 0, 0], start=images[:2], n_steps=3, jitter=0
    )
    display = VisualizationDisplay.from_result(found, sample=1)
    assert display.shape == Image(4, 5, 2, channels_first=True)
    np.testing.assert_array_equal(display.start, images[1].flatten())
    path = display.axes_[2].lines[0].get_ydata()
    np.testing.assert_allclose(path[0], network(images[1:2])[0, 0].item(), rtol=1e-5)
    assert len(path) == 4 and path[-1] > path[0]


def test_visualization_of_a_table_shows_what_changed_most():
    display = VisualizationDisplay(
        np.array([9.0, 0.0, 0.0]), np.array([9.0, 1.0, -2.0]), np.arange(2.0)
    ).plot(max_features=2)
    labels = [label.get_text() for label in display.ax_.get_yticklabels()]
    assert labels == ["x2", "x1"]
    assert display.table()["feature"] == ["x2", "x1", "x0"]

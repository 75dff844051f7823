import numpy as np
import pytest

from agop import NetworkAGOP
from agop.inspection import (
    DirectionDisplay,
    ExamplesDisplay,
    FeatureImportancesDisplay,
    Image,
    LayersDisplay,
    SpectrumDisplay,
)


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
    column = 2 * ["input", "0", "4"].index(layer) + direction - 1
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

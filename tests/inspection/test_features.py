import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from agop import DirectionDisplay, FeatureImportancesDisplay
from agop.inspection import Series

NAMES = ["größe", "цена_$_net_$", "<b>x</b>", "$\\frac$", "naïve\nline", "a" * 80]


def tick_labels(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


# --------------------------------------------------------------------- importances
def test_largest_importances_come_first(machine):
    display = FeatureImportancesDisplay.from_estimator(machine, max_features=3)
    order = np.argsort(-machine.feature_importances_)[:3]
    assert tick_labels(display.ax_.yaxis) == [f"x{index}" for index in order]
    widths = [bar.get_width() for bar in display.ax_.patches]
    np.testing.assert_allclose(widths, machine.feature_importances_[order])
    np.testing.assert_allclose(display.ax_.lines[0].get_xdata(), 1 / 6)
    assert display.ax_.yaxis_inverted()


def test_names_come_from_the_columns(machine):
    frame = pd.DataFrame(machine.X_fit_, columns=list("abcdef"))
    target = machine.predict(machine.X_fit_)
    for estimator in (
        clone(machine),
        make_pipeline(clone(machine)),
        make_pipeline(StandardScaler(), clone(machine)),
        # This step cannot name its output, but has as many columns.
        make_pipeline(FunctionTransformer(), clone(machine)),
    ):
        estimator.fit(frame, target)
        display = FeatureImportancesDisplay.from_estimator(estimator)
        assert display.feature_names == list("abcdef")


def test_names_follow_a_pipeline(machine):
    frame = pd.DataFrame(machine.X_fit_, columns=list("abcdef"))
    pipeline = make_pipeline(PCA(2), clone(machine))
    pipeline.fit(frame, machine.predict(machine.X_fit_))
    display = FeatureImportancesDisplay.from_estimator(pipeline)
    assert display.feature_names == ["pca0", "pca1"]


@pytest.mark.parametrize("Display", [FeatureImportancesDisplay, DirectionDisplay])
def test_any_name_can_be_drawn(Display, machine):
    display = Display.from_estimator(machine, feature_names=NAMES)
    display.figure_.canvas.draw()
    drawn = set(tick_labels(display.ax_.yaxis))
    assert set(NAMES[:5]) <= drawn
    assert "a" * 39 + "…" in drawn
    assert display.feature_names == NAMES  # the data stay as they are


@pytest.mark.parametrize("Display", [FeatureImportancesDisplay, DirectionDisplay])
def test_wrong_number_of_names(Display, machine):
    with pytest.raises(ValueError, match="2 names"):
        Display.from_estimator(machine, feature_names=["a", "b"])


def test_style_of_importances(machine):
    display = FeatureImportancesDisplay.from_estimator(
        machine, bar_kwargs={"color": "red"}, line_kwargs={"color": "green"}
    )
    assert display.ax_.patches[0].get_facecolor() == (1, 0, 0, 1)
    assert display.ax_.lines[0].get_color() == "green"


# ---------------------------------------------------------------------- directions
def test_directions_are_the_components(machine):
    count = len(machine.components_)
    display = DirectionDisplay.from_estimator(machine, n_directions=count)
    np.testing.assert_allclose(display.values, machine.components_, atol=1e-6)
    assert len(display.axes_) == count
    share = machine.explained_ratio_[0]
    assert display.ax_.get_title() == f"direction 1: {share:.0%}"


def test_signs_have_colours():
    display = DirectionDisplay(np.array([[0.1, -0.7, 0.3]]), ["d"], signed=True).plot()
    assert tick_labels(display.ax_.yaxis) == ["x1", "x2", "x0"]
    colours = [to_hex(bar.get_facecolor()) for bar in display.ax_.patches]
    assert colours[1] == colours[2] != colours[0]


def test_diagonal(machine):
    display = DirectionDisplay.from_estimator(machine, what="diagonal")
    np.testing.assert_array_equal(display.values[0], machine.feature_importances_)
    assert not display.signed
    assert display.ax_.get_xlabel() == "share of the trace"


@pytest.mark.parametrize("what", ["directions", "diagonal"])
def test_images(what, machine):
    display = DirectionDisplay.from_estimator(machine, what=what, shape=(2, 3))
    image = display.ax_.images[0]
    np.testing.assert_array_equal(image.get_array(), display.values.reshape(2, 3))
    low, high = image.get_clim()
    largest = np.abs(display.values).max()
    assert (low, high) == (-largest if what == "directions" else 0, largest)
    display.figure_.canvas.draw()


def test_colour_images(machine):
    display = DirectionDisplay.from_estimator(machine, shape=(1, 2, 3))
    pixels = np.asarray(display.ax_.images[0].get_array())
    assert pixels.shape == (1, 2, 3)
    assert 0 <= pixels.min() and pixels.max() <= 1
    values = display.values.reshape(1, 2, 3)
    np.testing.assert_array_equal(np.sign(pixels - 0.5), np.sign(values))

    display = DirectionDisplay.from_estimator(machine, what="diagonal", shape=(1, 2, 3))
    np.testing.assert_allclose(
        display.ax_.images[0].get_array(),
        machine.feature_importances_.reshape(1, 2, 3).sum(2),
    )
    display = DirectionDisplay.from_estimator(machine, shape=(3, 2, 1))
    assert display.ax_.images[0].get_array().shape == (3, 2)


def test_constant_image_can_be_drawn():
    display = DirectionDisplay(np.zeros((1, 4)), ["0"], signed=True, shape=(2, 2))
    display.plot().figure_.canvas.draw()


@pytest.mark.parametrize("shape", [(2, 2), (5,), (6, 1, 1, 1), Series(2, 2)])
def test_shape_that_does_not_fit(shape, machine):
    with pytest.raises(ValueError, match="does not fit 6 features"):
        DirectionDisplay.from_estimator(machine, shape=shape)


def test_other_errors(machine):
    with pytest.raises(ValueError, match="use 'directions' or 'diagonal'"):
        DirectionDisplay.from_estimator(machine, what="sideways")
    for number in (0, -1):
        with pytest.raises(ValueError, match=f"n_directions={number}: .* at least one"):
            DirectionDisplay.from_estimator(machine, n_directions=number)
    display = DirectionDisplay.from_estimator(machine, n_directions=2)
    with pytest.raises(ValueError, match="2 axes are needed"):
        display.plot(display.ax_)


def test_style_of_directions(machine):
    display = DirectionDisplay.from_estimator(
        machine, shape=(2, 3), image_kwargs={"cmap": "gray", "vmax": 2.0}
    )
    assert display.ax_.images[0].get_cmap().name == "gray"
    assert display.ax_.images[0].get_clim()[1] == 2.0
    display = DirectionDisplay.from_estimator(
        machine, max_features=2, bar_kwargs={"color": "red"}
    )
    assert len(display.ax_.patches) == 2
    assert display.ax_.patches[0].get_facecolor() == (1, 0, 0, 1)

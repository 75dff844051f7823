from types import SimpleNamespace

import numpy as np
import torch

from agop import effect_curve, steer
from agop.inspection import SteeringDisplay


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

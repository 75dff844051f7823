import numpy as np
import pytest

from agop.inspection import LayersDisplay


def test_layers_side_by_side(at_layers):
    display = LayersDisplay.from_estimator(at_layers)
    trace, rank, heat = display.axes_
    layers, traces = list(at_layers.trace_), list(at_layers.trace_.values())
    np.testing.assert_allclose(trace.lines[0].get_xdata(), traces)
    np.testing.assert_array_equal(trace.lines[0].get_ydata(), [0, 1, 2])
    assert trace.get_ylim()[0] > trace.get_ylim()[1]  # the first layer is on top
    assert [label.get_text() for label in trace.get_yticklabels()] == layers
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

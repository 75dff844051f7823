from types import SimpleNamespace

import numpy as np

from agop import visualize_direction
from agop.inspection import Image, VisualizationDisplay


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

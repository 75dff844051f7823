from types import SimpleNamespace

import numpy as np
import pytest

from agop import AnsatzRecorder, neural_feature_ansatz
from agop.inspection import AnsatzDisplay


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

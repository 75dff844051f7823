"""One small display of every kind, with names that try to break out."""

import numpy as np

from agop.inspection import (
    AnsatzDisplay,
    DirectionDisplay,
    ExamplesDisplay,
    FeatureImportancesDisplay,
    HistoryDisplay,
    Image,
    LayersDisplay,
    OverlayDisplay,
    Series,
    SpectrumDisplay,
    SteeringDisplay,
    Tokens,
    VisualizationDisplay,
)

EVIL = '--><script>alert("x & $y_{$")</script>'


def _numbers(*shape):
    return np.random.default_rng(0).normal(size=shape)


def _records(steps):
    return [
        {
            "layer": layer,
            "power": power,
            "correlation": 0.9,
            "baseline": 0.5,
            "baseline_low": 0.4,
            "baseline_high": 0.6,
            **step,
        }
        for step in steps
        for layer in (EVIL, "fc2")
        for power in (0.5, 1.0)
    ]


def _spectrum():
    return SpectrumDisplay(
        np.array([0.6, 0.25, 0.15]),
        2.2,
        3,
        intervals=np.array([[0.5, 0.2, 0.1], [0.7, 0.3, 0.2]]),
        groups=[(0,), (1, 2)],
    )


def _importances():
    ends = np.array([[0.6, 0.2], [0.8, 0.4]])
    return FeatureImportancesDisplay(np.array([0.7, 0.3]), [EVIL, "b"], intervals=ends)


def _history():
    names = ("cross_fitted", "leave_one_out", "alpha", "effective_rank")
    history = {name: np.array([0.5, 0.4, np.nan]) for name in names}
    return HistoryDisplay({**history, "round": np.arange(3)}, 1)


def _layers():
    shares = [np.array([0.5, 0.5]), np.array([0.9, 0.06, 0.04])]
    sizes = np.array([2, 3])
    return LayersDisplay(
        [EVIL, "fc2"], np.array([3.0, 20.0]), np.array([2.0, 1.2]), sizes, shares
    )


def _examples(examples, shape=None, names=None):
    projections = np.array([0.1, 2.0, -1.0, -3.0, 0.5, 1.0])
    return ExamplesDisplay(
        projections,
        np.array([1, 5, 3, 2]),
        examples,
        shape=shape,
        feature_names=names,
        label=EVIL,
    )


def _overlay(shape, size):
    return OverlayDisplay(
        _numbers(2, size), _numbers(2, size) ** 2, [EVIL, EVIL], shape
    )


#: Functions that make a display that was not drawn yet, and how many axes it needs.
UNDRAWN = {
    "spectrum": (_spectrum, 1),
    "history": (_history, 1),
    "importances": (_importances, 1),
    "directions of a table": (
        lambda: DirectionDisplay(
            _numbers(2, 3), ["a", "a"], signed=True, feature_names=[EVIL, "b", "c"]
        ),
        2,
    ),
    "directions of images": (
        lambda: DirectionDisplay(_numbers(1, 12), ["a"], signed=True, shape=(2, 2, 3)),
        1,
    ),
    "diagonal of a series": (
        lambda: DirectionDisplay(
            _numbers(1, 8) ** 2, ["a"], signed=False, shape=Series(4, 2)
        ),
        1,
    ),
    "directions of tokens": (
        lambda: DirectionDisplay(
            _numbers(1, 3), ["a"], signed=True, shape=Tokens([EVIL, " b\n", " c"])
        ),
        1,
    ),
    "directions of embedded tokens": (
        lambda: DirectionDisplay(
            _numbers(1, 6), ["a"], signed=True, shape=Tokens([EVIL, " b\n", " c"])
        ),
        1,
    ),
    "layers": (_layers, 3),
    "examples of a table": (
        lambda: _examples(_numbers(4, 3), names=[EVIL, "b", "c"]),
        5,
    ),
    "examples of images": (
        lambda: _examples(_numbers(4, 12), Image(2, 2, 3, channels_first=True)),
        5,
    ),
    "examples of series": (lambda: _examples(_numbers(4, 8), Series(4, 2)), 5),
    "examples of texts": (
        lambda: _examples([EVIL, ["Zoë ", "цена"], "", "a\n"], Tokens()),
        5,
    ),
    "overlay of images": (lambda: _overlay((2, 3), 6), 2),
    "overlay of a text": (
        lambda: OverlayDisplay(
            _numbers(1, 2), _numbers(1, 6) ** 2, [EVIL], Tokens([EVIL, " b\n", " c"])
        ),
        1,
    ),
    "overlay of series": (lambda: _overlay(Series(3, 2), 6), 2),
    "ansatz by layer": (lambda: AnsatzDisplay(_records([{}])), 2),
    "ansatz over training": (
        lambda: AnsatzDisplay(_records([{"step": 0}, {"step": 10}])),
        2,
    ),
    "steering": (
        lambda: SteeringDisplay(
            np.array([-1.0, 0.0, 1.0]),
            _numbers(3, 2),
            errors=_numbers(3, 2) ** 2,
            slopes=np.array([1.0, -1.0]),
            output_names=[EVIL, "b"],
        ),
        1,
    ),
    "visualization": (
        lambda: VisualizationDisplay(
            _numbers(4), _numbers(4) + 1, np.arange(3.0), feature_names=[EVIL, *"bcd"]
        ),
        3,
    ),
}

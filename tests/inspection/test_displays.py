import sys

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from agop import (
    DirectionDisplay,
    FeatureImportancesDisplay,
    HistoryDisplay,
    RFMRegressor,
    SpectrumDisplay,
    inspection,
)
from agop.inspection.displays import Display, mosaic
from tests.inspection.undrawn import UNDRAWN

DISPLAYS = [
    SpectrumDisplay,
    FeatureImportancesDisplay,
    DirectionDisplay,
    HistoryDisplay,
]
every_display = pytest.mark.parametrize("Display", DISPLAYS)
every_kind = pytest.mark.parametrize(("make", "n_axes"), UNDRAWN.values(), ids=UNDRAWN)


def axes_of_a_figure(count):
    """That many axes of a figure without a window."""
    _, axes = mosaic([list(range(count))])
    return list(axes.values())


# --------------------------------------------------------------------- every kind
def test_every_display_is_here():
    kinds = {type(make()) for make, _ in UNDRAWN.values()}
    public = [getattr(inspection, name) for name in inspection.__all__]
    displays = {thing for thing in public if isinstance(thing, type)}
    assert kinds == {kind for kind in displays if issubclass(kind, Display)} - {Display}


@every_kind
def test_draws_on_a_new_figure(make, n_axes):
    display = make()
    assert not {"ax_", "axes_", "figure_"} & set(vars(display))
    assert display.plot() is display
    assert len(display.axes_) == n_axes
    assert display.ax_ is display.axes_[0]
    assert display.figure_ is display.ax_.figure
    assert len(plt.get_fignums()) == 1
    display.figure_.canvas.draw()  # warnings are errors


@every_kind
def test_draws_on_the_axes_given(make, n_axes):
    axes = axes_of_a_figure(n_axes)
    _, mine = plt.subplots()
    before = dict(mpl.rcParams)
    display = make().plot(axes if n_axes > 1 else axes[0])
    assert display.axes_ == axes
    assert all(
        ax.has_data() or ax.lines or ax.images or ax.patches or ax.get_title()
        for ax in axes
    )
    assert len(plt.get_fignums()) == 1  # no other one was opened
    assert plt.gca() is mine
    assert dict(mpl.rcParams) == before
    display.figure_.canvas.draw()


@pytest.mark.parametrize(
    "make", [make for make, n_axes in UNDRAWN.values() if n_axes > 1]
)
def test_too_few_axes(make):
    with pytest.raises(ValueError, match=r"axes are needed, one each; got 1"):
        make().plot(axes_of_a_figure(1))


@every_kind
def test_numbers_are_a_table(make, n_axes):
    frame = pd.DataFrame(make().table())  # without drawing
    assert len(frame) >= 2
    assert frame.columns.is_unique
    assert make().summary().endswith(".")


@every_kind
def test_without_matplotlib_the_numbers_remain(make, n_axes, monkeypatch):
    display = make()
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        display.plot()
    assert display.table()
    with pytest.raises(ImportError, match="pip install matplotlib"):
        display.to_html()


# ------------------------------------------------------------- of fitted estimators
@every_display
def test_draws_on_new_axes_and_on_given_ones(Display, machine):
    display = Display.from_estimator(machine)
    assert isinstance(display, Display)
    assert display.figure_ is display.ax_.figure
    assert display.ax_.has_data()
    display.figure_.canvas.draw()

    _, ax = plt.subplots()
    assert display.plot(ax) is display
    assert display.ax_ is ax
    assert Display.from_estimator(machine, ax=ax).ax_ is ax


@every_display
def test_given_axes_open_no_figure(Display, machine):
    figure, axes = mosaic("a")
    Display.from_estimator(machine, ax=axes["a"])
    assert figure.axes[0].has_data()
    assert plt.get_fignums() == []


@every_display
def test_rc_params_and_current_axes_stay(Display, machine):
    _, mine = plt.subplots()
    before = dict(mpl.rcParams)
    Display.from_estimator(machine, ax=plt.figure().subplots())
    plt.sca(mine)
    Display.from_estimator(machine, ax=mine)
    assert dict(mpl.rcParams) == before
    assert plt.gca() is mine


@every_display
def test_init_holds_only_data(Display, machine):
    display = Display.from_estimator(machine)
    drawn = {"ax_", "axes_", "figure_"}
    again = Display(**{k: v for k, v in vars(display).items() if k not in drawn})
    assert not drawn & set(vars(again))
    assert again.plot().ax_.get_title() == display.ax_.get_title()


@every_display
def test_pipeline_is_drawn_as_its_last_step(Display, machine):
    X = machine.X_fit_
    pipeline = make_pipeline(StandardScaler(), clone(machine))
    pipeline.fit(X, machine.predict(X))
    display, same = (Display.from_estimator(e) for e in (pipeline, pipeline[-1]))
    assert display.ax_.get_title() == same.ax_.get_title()
    assert len(display.ax_.patches) == len(same.ax_.patches)


@every_display
def test_a_search_is_drawn_as_its_best_estimator(Display, machine):
    X = machine.X_fit_
    frame = pd.DataFrame(X, columns=list("abcdef"))
    y = machine.predict(X)
    scaled = make_pipeline(StandardScaler(), clone(machine))
    name = type(machine).__name__.lower()
    inner = GridSearchCV(clone(machine), {"n_iter": [1]}, cv=2)
    for estimator in (
        GridSearchCV(scaled, {f"{name}__n_iter": [1]}, cv=2),
        make_pipeline(StandardScaler(), inner),
    ):
        display = Display.from_estimator(estimator.fit(frame, y))
        expected = Display.from_estimator(
            clone(scaled).set_params(**{f"{name}__n_iter": 1}).fit(frame, y)
        )
        assert display.ax_.get_title() == expected.ax_.get_title()
        labels, same = (
            [label.get_text() for label in shown.ax_.get_yticklabels()]
            for shown in (display, expected)
        )
        assert labels == same
        with pytest.raises(NotFittedError):
            Display.from_estimator(clone(estimator))


@every_display
def test_unfitted_estimator(Display):
    with pytest.raises(NotFittedError):
        Display.from_estimator(RFMRegressor())


@every_display
def test_missing_matplotlib_is_named(Display, machine, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        Display.from_estimator(machine)

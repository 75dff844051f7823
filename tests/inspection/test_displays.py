import sys

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from agop import (
    DirectionDisplay,
    FeatureImportancesDisplay,
    HistoryDisplay,
    RFMRegressor,
    Spectrum,
    SpectrumDisplay,
    datasets,
)
from agop.core import NumericalWarning
from agop.inspection.displays import mosaic
from agop.inspection.fitted import spectrum_of
from tests.devices import LargestTensor

DISPLAYS = [
    SpectrumDisplay,
    FeatureImportancesDisplay,
    DirectionDisplay,
    HistoryDisplay,
]
every_display = pytest.mark.parametrize("Display", DISPLAYS)


# ------------------------------------------------------------------ what all share
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


# ------------------------------------------------------------------------ spectrum
def test_spectrum_of_estimator_is_that_of_its_agop(machine):
    display = SpectrumDisplay.from_estimator(machine)
    expected = Spectrum.of_matrix(torch.as_tensor(machine.agop_))
    np.testing.assert_allclose(display.shares, expected.shares, atol=1e-12)
    np.testing.assert_allclose(display.cumulative_share[-1], 1)
    np.testing.assert_allclose(display.effective_rank, expected.effective_rank)
    heights = [bar.get_height() for bar in display.ax_.patches]
    np.testing.assert_allclose(heights, display.shares)
    assert "of 6" in display.ax_.get_title()


def test_spectrum_of_wide_data_keeps_the_number_of_features():
    X, y, _ = datasets.make_multi_index(15, 40, random_state=0)
    machine = RFMRegressor(n_iter=0, bandwidth="median", alpha=0.1).fit(X, y)
    display = SpectrumDisplay.from_estimator(machine)
    assert display.n_features == 40
    np.testing.assert_allclose(display.cumulative_share[-1], 1)


def test_spectrum_of_machine_needs_no_decomposition(machine, monkeypatch):
    def refuse(*arguments, **kwargs):
        raise AssertionError("decomposed again")

    expected = Spectrum.of_matrix(torch.as_tensor(machine.agop_))
    for module in (np.linalg, torch.linalg):
        for name in ("svd", "eigh"):
            monkeypatch.setattr(module, name, refuse)
    found = spectrum_of(machine)
    rank = len(found.eigenvalues)
    torch.testing.assert_close(found.eigenvalues, expected.eigenvalues[:rank])
    cosines = (found.directions * expected.directions[:rank]).sum(1)
    np.testing.assert_allclose(cosines, 1, rtol=1e-6)
    assert found.trace == pytest.approx(np.trace(machine.agop_))


def test_spectrum_of_a_constant_machine():
    X, y, _ = datasets.make_multi_index(15, 4, random_state=0)
    with pytest.warns(NumericalWarning, match="constant"):
        machine = RFMRegressor(n_iter=0, bandwidth="median", alpha=0.1).fit(X, 0 * y)
    assert SpectrumDisplay.from_estimator(machine).effective_rank == 0
    with pytest.raises(ValueError, match="model is constant"):
        DirectionDisplay.from_estimator(machine)


def test_many_numbers_need_no_square_matrix():
    with LargestTensor() as largest:
        display = SpectrumDisplay.from_spectrum(np.arange(3000.0))
    assert largest.numel <= 3000
    assert display.n_features == 3000
    np.testing.assert_allclose(display.shares[0], 2999 / np.arange(3000.0).sum())
    np.testing.assert_allclose(display.cumulative_share[-1], 1)


def test_spectrum_of_anything_with_an_agop():
    class Source(BaseEstimator):
        def fit(self):
            self.agop_ = np.diag([3.0, 1.0])
            return self

    display = SpectrumDisplay.from_estimator(Source().fit())
    np.testing.assert_allclose(display.shares, [0.75, 0.25])


def test_spectrum_from_spectrum_and_from_numbers():
    spectrum = Spectrum.of_matrix(torch.diag(torch.tensor([1.0, 2.0, 5.0])))
    display = SpectrumDisplay.from_spectrum(spectrum)
    same = SpectrumDisplay.from_spectrum([1.0, 5.0, 2.0])  # in any order
    np.testing.assert_allclose(display.shares, same.shares)
    part = SpectrumDisplay.from_spectrum(spectrum.truncated(2))
    np.testing.assert_allclose(part.cumulative_share, [0.625, 0.875])
    zero = SpectrumDisplay.from_spectrum([0.0, 0.0])
    np.testing.assert_array_equal(zero.shares, 0)


@pytest.mark.parametrize("bad", [[[1.0]], [], [-1.0], [np.nan]])
def test_spectrum_refuses_what_is_no_spectrum(bad):
    with pytest.raises(ValueError, match="of_matrix"):
        SpectrumDisplay.from_spectrum(bad)


def test_spectrum_style():
    display = SpectrumDisplay.from_spectrum(
        np.ones(30), n_shown=4, bar_kwargs={"color": "red"}, line_kwargs={"marker": "x"}
    )
    assert len(display.ax_.patches) == 4
    assert display.ax_.patches[0].get_facecolor() == (1, 0, 0, 1)
    assert display.ax_.lines[0].get_marker() == "x"


# ------------------------------------------------------------------------- history
def test_history_shows_losses_and_the_round_kept(chosen):
    display = HistoryDisplay.from_estimator(chosen)
    marked, cross_fitted, leave_one_out = display.ax_.lines
    assert set(marked.get_xdata()) == {chosen.best_iter_}
    known = np.isfinite(chosen.history_["cross_fitted"])
    np.testing.assert_array_equal(
        cross_fitted.get_ydata(), chosen.history_["cross_fitted"][known]
    )
    assert len(leave_one_out.get_xdata()) == chosen.best_iter_ + 1
    assert display.ax_.get_ylabel() == "squared error"
    label = display.ax_.get_xticklabels()[0].get_text()
    assert label.split("\n") == ["0", f"{chosen.history_['alpha'][0]:.2g}", "–"]


def test_history_of_a_classifier_is_in_log_loss(classifier):
    display = HistoryDisplay.from_estimator(classifier)
    assert display.ax_.get_ylabel() == "log loss"


def test_history_without_losses_shows_the_rank(regressor):
    display = HistoryDisplay.from_estimator(regressor)
    assert display.ax_.get_ylabel() == "effective rank"
    np.testing.assert_array_equal(
        display.ax_.lines[1].get_ydata(), regressor.history_["effective_rank"][1:]
    )


@pytest.mark.parametrize("n_rounds", [1, 2, 50])
def test_history_survives_missing_numbers(n_rounds):
    names = ("cross_fitted", "leave_one_out", "alpha", "effective_rank")
    history = {name: np.full(n_rounds, np.nan) for name in names}
    history["round"] = np.arange(n_rounds)
    display = HistoryDisplay(history, 0).plot(line_kwargs={"linewidth": 3})
    display.figure_.canvas.draw()
    assert 1 <= len(display.ax_.get_xticks()) <= 8
    assert display.ax_.lines[1].get_linewidth() == 3

import numpy as np
import pytest

from agop import HistoryDisplay


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

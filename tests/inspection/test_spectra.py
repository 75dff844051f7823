from typing import ClassVar

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator

from agop import (
    DirectionDisplay,
    FeatureImportancesDisplay,
    RFMRegressor,
    Spectrum,
    SpectrumDisplay,
    datasets,
)
from agop.core import NumericalWarning
from agop.inspection.fitted import spectrum_of
from tests.devices import LargestTensor


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


# ----------------------------------------------------------------------- intervals
class Resamples:
    """As much of a bootstrap as a display asks for."""

    groups: ClassVar = [(0,), (1, 2)]

    def eigenvalue_intervals(self, level):
        return torch.tensor([[4.0, 1.0, 0.5], [7.0, 3.0, 2.0]]) * level

    def importance_intervals(self, level):
        return torch.tensor([[0.1, 0.5], [0.3, 0.9]])


def test_intervals_of_the_leading_shares():
    display = SpectrumDisplay.from_spectrum(
        [5.0, 2.0, 1.5, 1.5], bootstrap=Resamples(), level=0.5
    )
    expected = np.array([[0.2, 0.05, 0.025], [0.35, 0.15, 0.1]])
    np.testing.assert_allclose(display.intervals, expected)
    _, black = display.ax_.collections
    segments = np.array(black.get_segments())
    np.testing.assert_array_equal(segments[:, 0, 0], [1, 2, 3])
    np.testing.assert_allclose(segments[:, :, 1].T, expected)
    assert black.get_label() == "50% interval"
    table = display.table()
    np.testing.assert_allclose(table["upper end"][:3], expected[1])
    assert np.isnan(table["upper end"][3])  # the bootstrap kept three


def test_groups_are_marked():
    display = SpectrumDisplay.from_spectrum([5.0, 2.0, 1.5], bootstrap=Resamples())
    span = next(p for p in display.ax_.patches if p.get_label() == "not told apart")
    left, width = span.get_x(), span.get_width()
    assert 1.4 < left < 1.6 and 3.4 < left + width < 3.6
    assert display.table()["not told apart from"] == ["", "3", "2"]
    assert "Directions 2, 3 are closer than their error." in display.summary()
    alone = display.plot(n_shown=2)  # one of the group is not drawn
    assert not [p for p in alone.ax_.patches if p.get_label() == "not told apart"]


def test_intervals_of_importances():
    display = FeatureImportancesDisplay(
        np.array([0.2, 0.8]), ["a", "b"], intervals=Resamples().importance_intervals(0)
    ).plot()
    segments = np.array(display.ax_.collections[-1].get_segments())
    np.testing.assert_allclose(segments[:, :, 0], [[0.5, 0.9], [0.1, 0.3]])  # b first
    assert display.table()["feature"] == ["b", "a"]
    np.testing.assert_allclose(display.table()["lower end"], [0.5, 0.1])

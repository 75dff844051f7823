"""A metric is a linear map and its transpose."""

import pytest
import torch

from agop.core import DenseOuterProduct, DiagonalOuterProduct
from agop.kernels import DiagonalMetric, FullMetric
from agop.kernels.metric import NORMALIZATIONS
from tests.kernels.conformance import METRICS, make_metric, points

# A handful of products of numbers of order one, in float64.
TIGHT = {"rtol": 1e-14, "atol": 1e-14}


@pytest.mark.parametrize("name", METRICS)
def test_project_and_pull_back_are_the_factor_and_its_transpose(name):
    metric, factor = make_metric(name)
    X = points(5)
    gradient = points(15, factor.shape[1]).reshape(5, 3, -1)
    torch.testing.assert_close(metric.project(X), X @ factor, **TIGHT)
    torch.testing.assert_close(metric.pull_back(gradient), gradient @ factor.T, **TIGHT)


@pytest.mark.parametrize("name", METRICS)
def test_matrix_diagonal_and_scale(name):
    metric, factor = make_metric(name)
    M = factor @ factor.T
    torch.testing.assert_close(metric.matrix(), M, **TIGHT)
    torch.testing.assert_close(metric.diagonal(), M.diagonal(), **TIGHT)
    larger = metric.rescaled(3.0)
    assert type(larger) is type(metric)
    torch.testing.assert_close(larger.matrix(), 9 * M, **TIGHT)
    X = points(5)
    torch.testing.assert_close(larger.project(X), 3 * metric.project(X), **TIGHT)


@pytest.mark.parametrize("power", [0.25, 0.5, 1.0, 2.0])
def test_powers_of_an_outer_product(power):
    J = points(30)
    G = J.T @ J / 30
    values, vectors = torch.linalg.eigh(G)
    expected = vectors @ torch.diag(values**power) @ vectors.T
    got = FullMetric.from_outer_product(G, power).matrix()
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
    diagonal = DiagonalMetric.from_outer_product(G.diagonal(), power)
    torch.testing.assert_close(diagonal.matrix(), torch.diag(G.diagonal()) ** power)
    negative = DiagonalMetric.from_outer_product(torch.tensor([-1e-20, 4.0]), power)
    torch.testing.assert_close(negative.diagonal(), torch.tensor([0.0, 4.0**power]))


def test_root_of_a_root_is_the_matrix():
    # F30: a factor of G**0.5 applied twice gives G back.
    J = points(30)
    G = J.T @ J / 30
    M = FullMetric.from_outer_product(G, 0.5).matrix()
    torch.testing.assert_close(M @ M, G, rtol=1e-13, atol=1e-13)


def test_metric_of_a_zero_outer_product_has_no_columns():
    metric = FullMetric.from_outer_product(torch.zeros(3, 3).double(), 0.5)
    assert metric.project(points(4, 3)).shape == (4, 0)
    assert not metric.pull_back(torch.empty(4, 2, 0).double()).any()
    assert metric.pull_back(torch.empty(4, 2, 0).double()).shape == (4, 2, 3)


def test_each_metric_names_its_accumulator():
    assert DiagonalMetric.accumulator is DiagonalOuterProduct
    assert FullMetric.accumulator is DenseOuterProduct


@pytest.mark.parametrize("name", METRICS)
def test_dtype_is_kept(name):
    metric, _ = make_metric(name, dtype=torch.float32)
    assert metric.matrix().dtype == metric.diagonal().dtype == torch.float32
    assert metric.project(points(3).float()).dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "expected"), [("trace", 3.0), ("max", 5.0), ("none", 1.0)]
)
def test_normalizations(name, expected):
    assert float(NORMALIZATIONS[name](torch.tensor([1.0, 3.0, 5.0]))) == expected


@pytest.mark.parametrize("name", METRICS)
def test_outer_product_in_the_coordinates_and_in_the_features(name):
    metric, factor = make_metric(name)
    gradient = points(30, factor.shape[1])
    inside, outside = gradient.T @ gradient, factor @ gradient.T @ gradient @ factor.T
    if isinstance(metric, DiagonalMetric):
        inside, outside = inside.diagonal(), outside.diagonal()
    torch.testing.assert_close(metric.pull_back_product(inside), outside)
    # A float64 outer product stays one when the metric is float32.
    assert metric.to(torch.zeros(1)).pull_back_product(inside).dtype == torch.float64


@pytest.mark.parametrize("name", METRICS)
def test_moved_to_another_dtype(name):
    metric, factor = make_metric(name)
    moved = metric.to(torch.zeros(1))
    assert type(moved) is type(metric)
    M = (factor @ factor.T).float()
    assert moved.matrix().dtype == torch.float32
    torch.testing.assert_close(moved.matrix(), M)  # a few roundings to float32

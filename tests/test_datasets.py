"""The generated data have the answer that they promise."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score

from agop import RFMClassifier, RFMRegressor, datasets

MAKERS = [
    datasets.make_multi_index,
    datasets.make_hypercube,
    datasets.make_striped_images,
    datasets.make_digit_grids,
]


@pytest.mark.parametrize("make", MAKERS)
def test_same_seed_same_data(make, global_random_seed):
    first, second = (make(30, random_state=global_random_seed) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)
    generator = np.random.RandomState(global_random_seed)
    np.testing.assert_array_equal(make(30, random_state=generator)[0], first[0])
    assert not np.array_equal(make(30, random_state=generator)[0], first[0])


@pytest.mark.parametrize("make", MAKERS)
def test_shapes(make):
    X, y = make(30, random_state=0)[:2]
    assert X.ndim == 2 and X.dtype == np.float64
    assert len(X) == 30 and y.shape == (30,)


# --------------------------------------------------------------------- multi-index
def test_tutorial_problem_is_that_of_the_notebook():
    # As the notebook of arXiv:2212.13881 draws it: train, then test.
    generator = np.random.RandomState(1717)
    train = generator.normal(size=(2000, 100))
    test = generator.normal(size=(10000, 100))
    X, y, directions = datasets.make_multi_index(12000, 100, random_state=1717)
    np.testing.assert_array_equal(X, np.vstack([train, test]))
    np.testing.assert_array_equal(y, X[:, 0] * X[:, 1])
    np.testing.assert_array_equal(directions, np.eye(2, 100))


def test_gated_product_and_noise():
    kwargs = {"link": "gated_product", "random_state": 0}
    X, y, directions = datasets.make_multi_index(1000, 5, **kwargs)
    np.testing.assert_array_equal(y, X[:, 0] * X[:, 1] * (X[:, 2] > 0))
    assert directions.shape == (3, 5)
    same, noisy, _ = datasets.make_multi_index(1000, 5, noise=0.1, **kwargs)
    np.testing.assert_array_equal(same, X)
    assert np.std(noisy - y) == pytest.approx(0.1, rel=0.1)


def test_random_directions_are_orthonormal_and_used():
    X, y, U = datasets.make_multi_index(50, 7, directions="random", random_state=0)
    np.testing.assert_allclose(U @ U.T, np.eye(2), atol=1e-12)
    np.testing.assert_allclose(y, (X @ U[0]) * (X @ U[1]))


def test_link_and_directions_of_your_own():
    rows = [[1.0, 1.0, 0.0]]
    X, y, U = datasets.make_multi_index(
        20, 3, link=lambda Z: np.sin(Z[:, 0]), directions=rows, random_state=0
    )
    np.testing.assert_allclose(y, np.sin(X[:, 0] + X[:, 1]))
    np.testing.assert_array_equal(U, rows)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"link": "unknown"}, "gated_product"),
        ({"link": np.sum}, "array of directions"),
        ({"directions": "unknown"}, "'axes', 'random' or an array"),
        ({"directions": [[1.0, 0.0]]}, "rows of 4 features"),
        ({"directions": [[1.0, 0.0, 0.0, 0.0]]}, "at least 2"),
        ({"n_features": 1}, "2 features at least"),
    ],
)
def test_multi_index_errors(kwargs, message):
    with pytest.raises(ValueError, match=message):
        datasets.make_multi_index(5, **{"n_features": 4, "random_state": 0, **kwargs})


def test_agop_finds_the_directions():
    X, y, U = datasets.make_multi_index(400, 10, directions="random", random_state=0)
    machine = RFMRegressor(kernel="gaussian", metric="full", n_iter=3).fit(X, y)
    share = np.trace(U @ machine.agop_ @ U.T) / np.trace(machine.agop_)
    assert share > 0.95


# ------------------------------------------------------------------------ hypercube
def test_hypercube():
    X, y = datasets.make_hypercube(2000, 6, noise=0.0, random_state=0)
    assert set(np.unique(X)) == {-1.0, 1.0}
    a, b, c = X[:, :3].T
    np.testing.assert_array_equal(y, a + b + c + a * b * c)
    assert np.var(y) == pytest.approx(4, rel=0.1)
    with pytest.raises(ValueError, match="got 2"):
        datasets.make_hypercube(5, 2)


def test_hypercube_is_learned_from_its_three_coordinates():
    X, y = datasets.make_hypercube(500, 200, random_state=0)
    machine = RFMRegressor(
        kernel="laplace",
        metric="diagonal",
        bandwidth=200**0.5,
        alpha=1e-3,
        n_iter=2,
        fit_intercept=False,
    ).fit(X, y)
    new, target = datasets.make_hypercube(2000, 200, noise=0.0, random_state=1)
    assert np.mean((machine.predict(new) - target) ** 2) < 0.01
    assert machine.feature_importances_[:3].sum() > 0.98


# ---------------------------------------------------------------- modular addition
@pytest.mark.parametrize("p", [2, 5, 31])
def test_modular_addition(p):
    X, y = datasets.make_modular_addition(p)
    assert X.shape == (p * p, 2 * p)
    np.testing.assert_array_equal(X.sum(1), 2)
    a, b = X[:, :p].argmax(1), X[:, p:].argmax(1)
    np.testing.assert_array_equal(y, (a + b) % p)
    assert len({*zip(a, b, strict=True)}) == p * p
    with pytest.raises(ValueError, match="got 1"):
        datasets.make_modular_addition(1)


# --------------------------------------------------------------------------- images
def test_stripes_are_invisible_to_class_means():
    X, y, mask = datasets.make_striped_images(4000, random_state=0)
    assert mask.shape == (12, 12) and mask.sum() == 16
    assert y.mean() == pytest.approx(0.5, abs=0.05)
    difference = X[y == 1].mean(0) - X[y == 0].mean(0)
    error = np.sqrt(X.var(0) * 4 / len(X))
    assert np.abs(difference / error).max() < 4.5
    assert X.var(0)[mask.ravel()].max() < X.var(0)[~mask.ravel()].min()
    assert cross_val_score(LogisticRegression(), X, y).mean() < 0.55


def test_stripes_decide():
    X, y, mask = datasets.make_striped_images(
        50, (5, 9), patch=(1, 2, 2, 3), noise=0.0, random_state=0
    )
    patches = X.reshape(50, 5, 9)[:, mask.any(1)][:, :, mask.any(0)]
    assert patches.shape == (50, 2, 3)
    assert set(np.unique(patches)) == {-1.0, 1.0}
    along_rows = (patches[:, :, 0] == patches[:, :, 1]).all(1)
    np.testing.assert_array_equal(y, ~along_rows)


@pytest.mark.parametrize("patch", [(-1, 0, 2, 2), (0, 0, 1, 2), (0, 8, 4, 5)])
def test_patch_must_fit(patch):
    with pytest.raises(ValueError, match="does not fit"):
        datasets.make_striped_images(5, patch=patch)


def test_digit_grids_are_composed_of_digits():
    X, y, mask = datasets.make_digit_grids(40, grid=(2, 3), tile=(1, 0), random_state=0)
    pictures = X.reshape(40, 16, 24)
    assert mask[8:, :8].all() and mask.sum() == 64
    scans = load_digits()
    known = {
        image.tobytes(): target
        for image, target in zip(scans.images / 16, scans.target, strict=True)
    }
    for picture, label in zip(pictures, y, strict=True):
        assert known[picture[8:, :8].tobytes()] % 2 == label
        assert picture[:8, 16:].tobytes() in known


def test_digit_grids_for_testing_show_other_digits():
    tiles = []
    for subset in ("train", "test"):
        X, *_ = datasets.make_digit_grids(300, subset=subset, random_state=0)
        tiles.append({x.reshape(24, 24)[:8, :8].tobytes() for x in X})
    assert not tiles[0] & tiles[1]


def test_digit_grid_errors():
    with pytest.raises(ValueError, match="outside a grid of 3 × 3"):
        datasets.make_digit_grids(5, tile=(3, 0))
    with pytest.raises(ValueError, match="'train' or 'test'"):
        datasets.make_digit_grids(5, subset="other")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "share"),
    [(datasets.make_striped_images, 0.9), (datasets.make_digit_grids, 0.95)],
)
def test_agop_finds_what_decides(make, share):
    X, y, mask = make(1000, random_state=0)
    machine = RFMClassifier(kernel="laplace", random_state=0).fit(X, y)
    assert machine.feature_importances_[mask.ravel()].sum() > share

"""The generated data have the answer that they promise."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score

from agop import RFMClassifier, RFMRegressor, datasets
from agop.datasets import drawn

MAKERS = [
    datasets.make_multi_index,
    datasets.make_hypercube,
    datasets.make_striped_images,
    datasets.make_digit_grids,
    datasets.make_glasses_faces,
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


# ---------------------------------------------------------------------- drawn faces
@pytest.mark.parametrize("size", [16, 32, 45])
def test_glasses_change_pixels_of_the_mask_only(size, global_random_seed):
    n = 1000
    generator = np.random.RandomState(global_random_seed)
    scene = drawn._scene(np.arange(n) % 100, generator)
    bare, dressed = (
        drawn._draw(scene, np.full(n, wears), size) for wears in (False, True)
    )
    difference = np.abs(dressed - bare)
    *_, mask = datasets.make_glasses_faces(2, size=size, random_state=0)
    assert mask.shape == (size, size) and mask.mean() < 0.15
    np.testing.assert_array_equal(difference[:, ~mask], 0)
    assert (difference.reshape(n, -1).max(1) > 0.05).all()  # on every face
    assert (difference.max(0) > 0)[mask].mean() > 0.75  # and the mask is tight


def test_faces_are_pictures_of_pairs():
    X, y, person, mask = datasets.make_glasses_faces(401, 50, random_state=0)
    assert X.shape == (401, 32 * 32) and mask.shape == (32, 32)
    assert X.min() >= 0 and X.max() <= 1 and X.std(0).min() > 0.02
    with_glasses, without = (np.bincount(person[y == label]) for label in (1, 0))
    np.testing.assert_array_equal(with_glasses, 4)
    np.testing.assert_array_equal(without, [5] + [4] * 49)


def test_people_keep_their_faces_and_change_the_rest():
    person = np.array([0, 0, 1])
    scene = drawn._scene(person, np.random.RandomState(0))
    for name in drawn._PERSON:
        assert scene[name][0] == scene[name][1] != scene[name][2]
    for name in drawn._PICTURE:
        assert len({*scene[name]}) == 3


def test_noise_of_faces():
    clean, noisy = (
        datasets.make_glasses_faces(200, noise=noise, random_state=0)[0]
        for noise in (0.0, 0.05)
    )
    inner = (clean > 0.2) & (clean < 0.8)
    assert (noisy - clean)[inner].std() == pytest.approx(0.05, rel=0.05)


def test_linear_models_see_few_glasses_and_darkness_fewer():
    X, y, person, mask = datasets.make_glasses_faces(2000, 200, random_state=0)
    known, new = person < 100, person >= 100
    linear = LogisticRegression(max_iter=1000).fit(X[known], y[known])
    assert linear.score(X[new], y[new]) < 0.72
    dark = X[:, mask.ravel()].mean(1)
    assert all(abs(np.mean((dark < t) == y) - 0.5) < 0.08 for t in np.arange(0, 1, 0.1))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [({"size": 15}, "use 16 or more"), ({"n_people": 0}, "got 0")],
)
def test_face_errors(kwargs, message):
    with pytest.raises(ValueError, match=message):
        datasets.make_glasses_faces(5, **kwargs)


# -------------------------------------------------------------------- faces of a file
@pytest.fixture
def folder_of_faces(tmp_path):
    """A folder with a file of the right form: four images in three poses."""
    (tmp_path / "faces").mkdir()
    np.savez(
        tmp_path / "faces" / "cmu_faces_32x30.npz",
        X=np.arange(4 * 960).reshape(4, 30, 32).astype(np.uint8),
        sunglasses=np.array([0, 1, 1, 0], dtype=np.uint8),
        user=np.array([7, 7, 3, 3], dtype=np.uint8),
        pose=np.array(["straight", "up", "straight", "left"]),
    )
    return tmp_path


def test_faces_are_read_where_agop_data_says(folder_of_faces, monkeypatch):
    monkeypatch.setenv("AGOP_DATA", str(folder_of_faces))
    X, y, person, mask = datasets.load_cmu_faces()
    rows = np.arange(4 * 960).reshape(4, 960) % 256
    np.testing.assert_array_equal(X, rows[[0, 2]] / 255)
    np.testing.assert_array_equal(y, [0, 1])
    np.testing.assert_array_equal(person, [7, 3])
    assert mask.sum() == 70 and mask[11:16, 9:23].all()
    assert len(datasets.load_cmu_faces(pose=None)[0]) == 4


def test_faces_are_read_from_a_path(folder_of_faces, monkeypatch):
    monkeypatch.delenv("AGOP_DATA", raising=False)
    path = folder_of_faces / "faces" / "cmu_faces_32x30.npz"
    assert datasets.load_cmu_faces(path, pose="up")[1].tolist() == [1]
    with pytest.raises(ValueError, match="'straight'"):
        datasets.load_cmu_faces(path, pose="down")


@pytest.mark.parametrize("place", [None, "nowhere"])
def test_missing_faces_say_what_to_do(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AGOP_DATA", raising=False)
    if place:
        monkeypatch.setenv("AGOP_DATA", place)
    with pytest.raises(FileNotFoundError, match=r"AGOP_DATA.*make_glasses_faces"):
        datasets.load_cmu_faces()


def test_real_faces(data_path):
    path = data_path("faces/cmu_faces_32x30.npz")
    X, y, person, _ = datasets.load_cmu_faces(path)
    assert X.shape == (156, 960) and 0 <= X.min() < X.max() <= 1
    assert y.sum() == 78 and len(np.unique(person)) == 20
    everyone = datasets.load_cmu_faces(path, pose=None)[0]
    assert everyone.shape == (624, 960) and everyone.max() == 153 / 255


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "share"),
    [
        (datasets.make_striped_images, 0.9),
        (datasets.make_digit_grids, 0.95),
        (datasets.make_glasses_faces, 0.8),
    ],
)
def test_agop_finds_what_decides(make, share):
    X, y, *_, mask = make(1000, random_state=0)
    machine = RFMClassifier(kernel="laplace", random_state=0).fit(X, y)
    assert machine.feature_importances_[mask.ravel()].sum() > share

"""Data whose answer is known: drawn from a law, or composed of scanned digits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from sklearn.datasets import load_digits
from sklearn.utils import check_random_state

__all__ = [
    "make_digit_grids",
    "make_hypercube",
    "make_modular_addition",
    "make_multi_index",
    "make_striped_images",
]


def _product(Z: np.ndarray) -> np.ndarray:
    return Z[:, 0] * Z[:, 1]


def _gated_product(Z: np.ndarray) -> np.ndarray:
    return Z[:, 0] * Z[:, 1] * (Z[:, 2] > 0)


#: Functions of a few coordinates, and of how many.
LINKS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], int]] = {
    "product": (_product, 2),
    "gated_product": (_gated_product, 3),
}


def make_multi_index(
    n_samples=1000,
    n_features=100,
    *,
    link="product",
    directions="axes",
    noise=0.0,
    random_state=None,
):
    """Targets that depend on a few directions of the inputs only.

    With X standard normal and U the directions, y = link(X Uᵀ) + noise. The AGOP of
    a good predictor has its trace in the span of U.

    Parameters
    ----------
    n_samples : int, default=1000
    n_features : int, default=100
    link : {"product", "gated_product"} or callable, default="product"
        z₀z₁, z₀z₁·1[z₂ > 0], or a function from an array of shape (n_samples, k) to
        one of shape (n_samples,).
    directions : {"axes", "random"} or array-like of shape (k, n_features), \
default="axes"
        The first axes, random orthonormal rows, or rows of your own, which a
        callable `link` needs.
    noise : float, default=0.0
        Standard deviation of what is added to y.
    random_state : int, RandomState instance or None, default=None

    Returns
    -------
    X : ndarray of shape (n_samples, n_features)
    y : ndarray of shape (n_samples,)
    directions : ndarray of shape (k, n_features)

    References
    ----------
    The product of two of 100 coordinates is the tutorial of :arxiv:`2212.13881`.

    Examples
    --------
    >>> from agop import datasets
    >>> X, y, directions = datasets.make_multi_index(50, 4, random_state=0)
    >>> directions
    array([[1., 0., 0., 0.],
           [0., 1., 0., 0.]])
    >>> bool((y == X[:, 0] * X[:, 1]).all())
    True
    """
    generator = check_random_state(random_state)
    function, count = LINKS.get(link, (link, 0)) if isinstance(link, str) else (link, 0)
    if not callable(function):
        raise ValueError(
            f"link={link!r} is unknown; use one of {sorted(LINKS)} or a function."
        )
    X = generator.normal(size=(n_samples, n_features))
    rows = _rows(directions, count, n_features, generator)
    y = np.asarray(function(X @ rows.T), dtype=float)
    if noise:
        y = y + noise * generator.normal(size=n_samples)
    return X, y, rows


def _rows(directions, count: int, n_features: int, generator) -> np.ndarray:
    if not isinstance(directions, str):
        rows = np.asarray(directions, dtype=float)
        if rows.ndim != 2 or rows.shape[1] != n_features or len(rows) < count:
            raise ValueError(
                f"directions has shape {rows.shape}; rows of {n_features} features "
                f"are needed, at least {max(count, 1)} of them."
            )
        return rows
    if directions not in ("axes", "random"):
        raise ValueError(
            f"directions={directions!r} is unknown; use 'axes', 'random' or an array."
        )
    if not 0 < count <= n_features:
        raise ValueError(
            "A link of your own needs an array of directions, which says how many "
            "there are."
            if not count
            else f"This link needs {count} features at least; got {n_features}."
        )
    if directions == "axes":
        return np.eye(count, n_features)
    return np.linalg.qr(generator.normal(size=(n_features, count)))[0].T


def make_hypercube(n_samples=500, n_features=200, *, noise=0.1, random_state=None):
    """Corners of the hypercube and a sparse polynomial of three coordinates.

    x ∈ {−1, 1}^d and y = x₀ + x₁ + x₂ + x₀x₁x₂ + noise. A kernel that treats all
    coordinates alike needs far more samples than one that has found the three.

    Parameters
    ----------
    n_samples : int, default=500
    n_features : int, default=200
        At least 3.
    noise : float, default=0.1
        Standard deviation of what is added to y.
    random_state : int, RandomState instance or None, default=None

    Returns
    -------
    X : ndarray of shape (n_samples, n_features)
    y : ndarray of shape (n_samples,)

    References
    ----------
    :arxiv:`2505.08277`

    Examples
    --------
    >>> from agop import datasets
    >>> X, y = datasets.make_hypercube(4, 5, noise=0.0, random_state=0)
    >>> X[:, :3]
    array([[-1.,  1.,  1.],
           [ 1.,  1.,  1.],
           [ 1., -1., -1.],
           [-1., -1., -1.]])
    >>> y
    array([ 0.,  4.,  0., -4.])
    """
    if n_features < 3:
        raise ValueError(f"Three features at least are needed; got {n_features}.")
    generator = check_random_state(random_state)
    X = 2.0 * generator.randint(2, size=(n_samples, n_features)) - 1
    y = X[:, :3].sum(1) + X[:, :3].prod(1)
    return X, y + noise * generator.normal(size=n_samples)


def make_modular_addition(p=31):
    """All pairs (a, b) of numbers below p, one-hot, and their sum modulo p.

    A model sees names, not numbers: nothing says that 3 follows 2. What generalises
    is the circle: a metric whose block between a and b is circulant.

    Parameters
    ----------
    p : int, default=31
        At least 2.

    Returns
    -------
    X : ndarray of shape (p², 2p)
        One-hot a, then one-hot b; b varies fastest.
    y : ndarray of shape (p²,)
        (a + b) mod p.

    References
    ----------
    :arxiv:`2407.20199`

    Examples
    --------
    >>> from agop import datasets
    >>> X, y = datasets.make_modular_addition(3)
    >>> X[5], y[5]  # 1 + 2
    (array([0., 1., 0., 0., 0., 1.]), np.int64(0))
    """
    if p < 2:
        raise ValueError(f"p must be 2 at least; got {p}.")
    a, b = np.divmod(np.arange(p * p), p)
    one_hot = np.eye(p)
    return np.hstack([one_hot[a], one_hot[b]]), (a + b) % p


def make_striped_images(
    n_samples=1000,
    shape=(12, 12),
    *,
    patch=(2, 6, 4, 4),
    noise=0.5,
    random_state=None,
):
    """Noisy images in which the stripes of one small patch decide the label.

    In the patch, stripes run along rows (label 0) or columns (label 1), as often
    light-dark as dark-light. So every pixel, alone, is distributed alike for both
    labels: differences of class means and linear models see nothing. Outside, blobs
    of larger variance say nothing about the label.

    Parameters
    ----------
    n_samples : int, default=1000
    shape : tuple of int, default=(12, 12)
        Height and width.
    patch : tuple of int, default=(2, 6, 4, 4)
        Top row, left column, height and width of the patch.
    noise : float, default=0.5
        Standard deviation of independent noise on every pixel; stripes are ±1.
    random_state : int, RandomState instance or None, default=None

    Returns
    -------
    X : ndarray of shape (n_samples, height * width)
    y : ndarray of shape (n_samples,)
    mask : ndarray of shape (height, width)
        True in the patch.

    Examples
    --------
    >>> from agop import datasets
    >>> X, y, mask = datasets.make_striped_images(20, noise=0.0, random_state=0)
    >>> X[1].reshape(12, 12)[mask].reshape(4, 4), y[1]
    (array([[ 1., -1.,  1., -1.],
           [ 1., -1.,  1., -1.],
           [ 1., -1.,  1., -1.],
           [ 1., -1.,  1., -1.]]), np.int64(1))
    """
    height, width = shape
    top, left, rows, columns = patch
    inside = top >= 0 <= left and top + rows <= height and left + columns <= width
    if not inside or min(rows, columns) < 2:
        raise ValueError(
            f"A patch (top, left, height, width) = {tuple(patch)} does not fit into an "
            f"image of {height} × {width}; it must be 2 × 2 at least."
        )
    generator = check_random_state(random_state)
    mask = np.zeros((height, width), dtype=bool)
    mask[top : top + rows, left : left + columns] = True

    y = generator.randint(2, size=n_samples)
    signs = generator.choice([-1.0, 1.0], size=n_samples)
    horizontal = np.broadcast_to((-1.0) ** np.arange(rows)[:, None], (rows, columns))
    vertical = np.broadcast_to((-1.0) ** np.arange(columns), (rows, columns))
    stripes = np.where(y[:, None, None] == 0, horizontal, vertical)

    images = 2 * _blobs(n_samples, shape, generator)
    images[:, mask] = (signs[:, None, None] * stripes).reshape(n_samples, -1)
    images += noise * generator.normal(size=images.shape)
    return images.reshape(n_samples, -1), y, mask


def _blobs(n_samples: int, shape: tuple[int, int], generator) -> np.ndarray:
    """White noise averaged over 3 × 3 neighbours, of unit variance, (n, h, w)."""
    height, width = shape
    white = generator.normal(size=(n_samples, height + 2, width + 2))
    total = sum(
        white[:, row : row + height, column : column + width]
        for row in range(3)
        for column in range(3)
    )
    return total / 3


#: Scanned digits of scikit-learn, in the order of their file, from which training grids
#: are composed; the others are for testing.
_TRAINING_DIGITS = 1000


def make_digit_grids(
    n_samples=1000, *, grid=(3, 3), tile=(1, 2), subset="train", random_state=None
):
    """Pictures of several handwritten digits; the label depends on one of them.

    Each picture is a grid of digits of :func:`sklearn.datasets.load_digits`, drawn at
    random. The label is 1 if the digit at `tile` is odd, so that all other pixels are
    clutter: what a model must find out by itself is where to look.

    Parameters
    ----------
    n_samples : int, default=1000
    grid : tuple of int, default=(3, 3)
        Rows and columns of digits.
    tile : tuple of int, default=(1, 2)
        Row and column of the digit that counts.
    subset : {"train", "test"}, default="train"
        Which scans are drawn from. The two share none.
    random_state : int, RandomState instance or None, default=None

    Returns
    -------
    X : ndarray of shape (n_samples, 64 * rows * columns)
        Grey values in [0, 1], row by row of the picture of 8 rows × 8 columns pixels
        for each digit.
    y : ndarray of shape (n_samples,)
    mask : ndarray of shape (8 * rows, 8 * columns)
        True at the tile.

    Notes
    -----
    A digit appears in several pictures. Cross-validation within one subset is
    therefore optimistic; the other subset is the fair test.

    Examples
    --------
    >>> from agop import datasets
    >>> X, y, mask = datasets.make_digit_grids(5, random_state=0)
    >>> X.shape, mask.shape, y
    ((5, 576), (24, 24), array([1, 1, 1, 0, 0]))
    """
    rows, columns = grid
    row, column = tile
    if not (0 <= row < rows and 0 <= column < columns):
        raise ValueError(f"tile={tile!r} lies outside a grid of {rows} × {columns}.")
    if subset not in ("train", "test"):
        raise ValueError(f"subset={subset!r} is unknown; use 'train' or 'test'.")
    generator = check_random_state(random_state)
    scans = load_digits()
    training = subset == "train"
    part = slice(_TRAINING_DIGITS) if training else slice(_TRAINING_DIGITS, None)
    digits, labels = scans.images[part] / 16, scans.target[part]

    drawn = generator.randint(len(digits), size=(n_samples, rows, columns))
    tiles = digits[drawn]  # (n, rows, columns, 8, 8)
    pictures = tiles.transpose(0, 1, 3, 2, 4).reshape(n_samples, -1)
    mask = np.zeros((8 * rows, 8 * columns), dtype=bool)
    mask[8 * row : 8 * (row + 1), 8 * column : 8 * (column + 1)] = True
    return pictures, labels[drawn[:, row, column]] % 2, mask

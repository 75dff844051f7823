"""Data that do not come with the library: read from files of your own."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

_CMU_FACES = "faces/cmu_faces_32x30.npz"
_POSES = ("straight", "up", "left", "right")


def load_cmu_faces(path=None, *, pose="straight"):
    """Photographs of 20 people with and without sunglasses, 30 × 32 pixels.

    The file does not come with this library.

    Parameters
    ----------
    path : path-like, optional
        A NumPy archive with the arrays ``X`` of shape (n, 30, 32) with values of 0 to
        255, ``sunglasses``, ``user`` and ``pose``. By default
        ``faces/cmu_faces_32x30.npz`` in the folder that the environment variable
        ``AGOP_DATA`` names, or in the current one.
    pose : {"straight", "up", "left", "right"} or None, default="straight"
        Which way the people look; None for all.

    Returns
    -------
    X : ndarray of shape (n_samples, 960)
        Grey values in [0, 1], row by row.
    y : ndarray of shape (n_samples,)
        1 with sunglasses, 0 without.
    person : ndarray of shape (n_samples,)
        Who is seen: the groups of an honest cross-validation.
    mask : ndarray of shape (30, 32)
        True in a box of 70 pixels around the eyes of people who look straight.

    Raises
    ------
    FileNotFoundError
        If there is no such file.

    See Also
    --------
    make_glasses_faces : Drawn faces in the same form, which need no file.

    Notes
    -----
    On 156 images people look straight, on half of them with sunglasses. Split by
    person: a model that has seen a face on other images has an easy test.

    References
    ----------
    T. Mitchell, Machine Learning, McGraw-Hill 1997, chapter 4; "CMU Face Images" in
    the UCI Machine Learning Repository.

    Examples
    --------
    >>> from agop import datasets
    >>> X, y, person, mask = datasets.load_cmu_faces()  # doctest: +SKIP
    """
    if pose is not None and pose not in _POSES:
        raise ValueError(f"pose={pose!r} is unknown; use one of {_POSES} or None.")
    with np.load(_find(path)) as arrays:
        rows = (arrays["pose"] == pose) | (pose is None)
        images = arrays["X"][rows] / 255
        y = arrays["sunglasses"][rows].astype(int)
        person = arrays["user"][rows].astype(int)
    mask = np.zeros((30, 32), dtype=bool)
    mask[11:16, 9:23] = True
    return images.reshape(len(images), -1), y, person, mask


def _find(path) -> Path:
    default = Path(os.environ.get("AGOP_DATA", "")) / _CMU_FACES
    found = default if path is None else Path(path)
    if not found.is_file():
        raise FileNotFoundError(
            f"There is no file {found}, and the CMU faces do not come with agop. Give "
            "the path of the file, or set the environment variable AGOP_DATA to the "
            f"folder that has {_CMU_FACES}; make_glasses_faces() draws faces without "
            "any file."
        )
    return found

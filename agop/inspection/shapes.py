"""Which form rows have: as the user says, or by the shape of the samples."""

from __future__ import annotations

import numpy as np
import torch

from agop.inspection.forms import Form, Table, Tokens
from agop.inspection.grids import Image, Series


def as_form(shape, n_features: int, feature_names=None) -> Form:
    """The form of rows of `n_features` numbers.

    Parameters
    ----------
    shape : Form, tuple of int or None
        (length,) of series; (height, width) of images; (height, width, channels) or
        (channels, height, width) of images, with 1 or 3 channels; None for a table.
        Tokens share out the features between them.
    n_features : int
    feature_names : sequence of str, default=None
        Of a table; x0, x1 … by default.

    Returns
    -------
    Form

    Raises
    ------
    ValueError
        If the shape has another number of features.
    """
    if shape is None:
        shape = Table(feature_names or [f"x{index}" for index in range(n_features)])
    form = shape if isinstance(shape, Form) else _form_of(tuple(shape))
    if isinstance(form, Tokens):
        form = form.widened(n_features)
    if form is None or form.n_features != n_features:
        raise ValueError(
            f"shape={shape!r} does not fit {n_features} features. Give (length,) of a "
            "series, (height, width) or (height, width, channels) of an image, or one "
            "of Image, Series, Table and Tokens of agop.inspection, with that many "
            "(tokens: or a multiple of their number)."
        )
    return form


def _form_of(shape: tuple[int, ...]) -> Form | None:
    if len(shape) == 1:
        return Series(*shape)
    if len(shape) == 2:
        return Image(*shape)
    if len(shape) != 3:
        return None
    if shape[0] in (1, 3) and shape[2] not in (1, 3):
        return Image(shape[1], shape[2], shape[0], channels_first=True)
    return Image(*shape)


def shape_of(X, feature_names=None) -> Form:
    """What rows of X look like, by the number of its axes."""
    samples = np.shape(X)[1:]
    if len(samples) in (2, 3):
        return image_of(samples)
    names = getattr(X, "columns", None) if feature_names is None else feature_names
    if names is None:
        names = [f"x{index}" for index in range(*samples)]
    X = as_array(X)
    return Table([str(name) for name in names], X.mean(0), X.std(0))


def image_of(sample: tuple[int, ...]) -> Image:
    """Images as torch has them: (height, width), or the channels first."""
    *channels, height, width = sample
    return Image(height, width, *channels, channels_first=True)


def as_array(values) -> np.ndarray:
    """Numbers of an array, a data frame or a tensor on any device."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
    return np.asarray(values)

"""Numbers of any kind as tensors that a network takes, and clear refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.utils import check_array

from agop.core.arrays import as_host_array, to_tensor

#: Types of whole numbers that no layer takes.
_TOKENS = (torch.int8, torch.int16, torch.uint16, torch.uint32, torch.uint64)

_CPU = torch.device("cpu")


def has_rows(value: Any, n_samples: int | None = None) -> bool:
    """Whether this is an array or tensor with samples, or with so many of them.

    Parameters
    ----------
    value : object
    n_samples : int, default=None

    Returns
    -------
    bool
    """
    if not isinstance(value, (torch.Tensor, np.ndarray)) or value.ndim == 0:
        return False
    return n_samples is None or len(value) == n_samples


def as_array(value: Any, name: str) -> np.ndarray | torch.Tensor:
    """An array or tensor of numbers; neither is copied.

    Parameters
    ----------
    value : array-like or tensor
        Tensors stay on their device and are detached.
    name : str
        What the messages call it.

    Returns
    -------
    ndarray or Tensor
        Not yet checked for NaN and infinity.

    Raises
    ------
    TypeError
        For sparse and masked arrays.
    ValueError
        For strings, complex numbers and tensors on the meta device.
    """
    if isinstance(value, torch.Tensor):
        _refuse_kinds(value, name)
        return value.detach()
    return check_array(
        as_host_array(value, name),
        dtype="numeric",
        ensure_all_finite=False,
        ensure_2d=False,
        allow_nd=True,
        ensure_min_samples=0,
        ensure_min_features=0,
        input_name=name,
    )


def _refuse_kinds(tensor: torch.Tensor, name: str) -> None:
    if tensor.is_meta:
        as_host_array(tensor, name)  # raises
    if tensor.layout != torch.strided:
        raise TypeError(
            f"Sparse data was passed for {name}, but dense data is required. Use "
            "to_dense()."
        )
    if tensor.is_complex():
        raise ValueError(f"Complex data not supported: {name} is {tensor.dtype}.")


def as_tensor(value: Any) -> Any:
    """A tensor for an array, in a type that layers and autograd take.

    Parameters
    ----------
    value : ndarray, Tensor or object
        Memory is shared where this is safe.

    Returns
    -------
    Tensor or object
        Floating numbers keep their type (long doubles become float64), and so do
        bool, uint8, int32 and int64; other whole numbers become int64. What is not an
        array is returned as it is.
    """
    if isinstance(value, np.ndarray):
        if value.dtype.kind == "f" and value.dtype.itemsize > np.float64().itemsize:
            value = value.astype(np.float64)
        value = to_tensor(value, _CPU)
    if not isinstance(value, torch.Tensor):
        return value
    if value.is_inference():  # autograd refuses it
        with torch.inference_mode(False):
            value = value.clone()
    return value.long() if value.dtype in _TOKENS else value


def check_finite(
    values: torch.Tensor, name: str, *, first_row: int | None = None
) -> None:
    """Refuse NaN and infinity.

    Parameters
    ----------
    values : Tensor of shape (n_samples, ...)
    name : str
        What the messages call it.
    first_row : int, default=None
        Number of the first sample; the message names rows if it is known.

    Raises
    ------
    ValueError
        If a number is not finite.
    """
    if bool(torch.isfinite(values).all()):
        return
    check_no_nan(values, name, first_row=first_row)
    dtype = str(values.dtype).removeprefix("torch.")
    raise ValueError(
        f"Input {name} contains infinity or a value too large for dtype({dtype!r})."
        f"{_first(~torch.isfinite(values), first_row)} Scale or clip it."
    )


def check_no_nan(
    values: torch.Tensor, name: str, *, first_row: int | None = None
) -> None:
    """Refuse NaN; infinity, as masks hold it, passes.

    Parameters
    ----------
    values : Tensor of shape (n_samples, ...)
    name : str
        What the messages call it.
    first_row : int, default=None
        Number of the first sample; the message names rows if it is known.

    Raises
    ------
    ValueError
        If a number is NaN.
    """
    missing = torch.isnan(values)
    if bool(missing.any()):
        raise ValueError(
            f"Input {name} contains NaN.{_first(missing, first_row)} Fill the gaps, "
            "for example with sklearn.impute.SimpleImputer, or drop these rows."
        )


def _first(bad: torch.Tensor, first_row: int | None) -> str:
    if first_row is None:
        return ""
    rows = bad.reshape(len(bad), -1).any(1).nonzero()
    return f" The first one is in row {first_row + int(rows[0])}."

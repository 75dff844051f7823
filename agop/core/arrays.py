"""The one seam between numpy and torch: parameters, arrays, devices, blocks."""

from __future__ import annotations

import copy
import math
import numbers
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from functools import wraps
from typing import Any, TypeVar

import numpy as np
import torch
from sklearn import get_config
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_array, check_random_state

#: Bytes that one temporary block may take. Results do not depend on it.
BLOCK_BYTES = 2**22

_Function = TypeVar("_Function", bound=Callable[..., Any])


class NumericalWarning(ConvergenceWarning):
    """The answer is right for a slightly different problem than the one asked."""


class InvalidParameterError(ValueError, TypeError):
    """A parameter has a wrong type or lies outside its range."""


# --------------------------------------------------------------------- parameters


def check_number(
    name: str,
    value: object,
    *,
    owner: str,
    integer: bool = False,
    low: float = -math.inf,
    high: float = math.inf,
    open_low: bool = False,
) -> None:
    """Raise unless `value` is a finite number between `low` and `high`."""
    kind: type = numbers.Integral if integer else numbers.Real
    valid = isinstance(value, kind) and not isinstance(value, (bool, np.bool_))
    if valid:
        try:
            number = float(value)  # type: ignore[arg-type]  # a Real, as just checked
        except OverflowError:  # an int beyond the largest float
            number = math.inf
        above = number > low if open_low else number >= low
        valid = math.isfinite(number) and above and number <= high
    if not valid:
        left = "(" if open_low or low == -math.inf else "["
        right = ")" if high == math.inf else "]"
        word = "an int" if integer else "a float"
        raise InvalidParameterError(
            f"The {name!r} parameter of {owner} must be {word} in the range "
            f"{left}{low}, {high}{right}. Got {value!r} instead."
        )


def check_option(
    name: str, value: object, options: Iterable[object], *, owner: str
) -> None:
    """Raise unless `value` is one of `options`."""
    options = list(options)
    if not any(_same_option(value, option) for option in options):
        known = ", ".join(repr(option) for option in options)
        raise InvalidParameterError(
            f"The {name!r} parameter of {owner} must be one of {{{known}}}. "
            f"Got {value!r} instead."
        )


def _same_option(value: object, option: object) -> bool:
    """Equality that tells True from 1 and takes a numpy string for a string."""
    if isinstance(value, bool) != isinstance(option, bool):
        return False
    return isinstance(value, type(option)) and bool(value == option)


def resolve_device(device: object, *, owner: str) -> torch.device:
    """Turn a device name into a device that exists on this machine."""
    try:
        if not isinstance(device, str):
            raise RuntimeError("not a device name")
        resolved = torch.device(device)
        torch.empty(0, device=resolved)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        names = ["cpu"] + [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        raise InvalidParameterError(
            f"The 'device' parameter of {owner} is {device!r}, which cannot be used "
            f"here ({str(error).splitlines()[0]}). Available devices: "
            f"{', '.join(names)}."
        ) from error
    if resolved.type == "meta":
        raise InvalidParameterError(
            f"The 'device' parameter of {owner} is 'meta', which holds no numbers."
        )
    return resolved


# ------------------------------------------------------------------------- arrays


def as_host_array(array: Any, name: str = "X") -> Any:
    """Bring tensors to the CPU and refuse what would silently lose information.

    Parameters
    ----------
    array : array-like or tensor
        What a user passed. Tensors on a GPU come to the CPU, tensors that require
        a gradient are detached; everything else is returned as it is.
    name : str, default="X"
        What the messages call it.

    Returns
    -------
    array-like

    Raises
    ------
    TypeError
        For masked arrays, whose mask would be ignored.
    ValueError
        For tensors on the meta device, which hold no numbers.
    """
    if isinstance(array, np.ma.MaskedArray):
        raise TypeError(
            f"Input {name} is a masked array: its mask would be ignored. Fill it "
            "first, for example with sklearn.impute.SimpleImputer."
        )
    if isinstance(array, torch.Tensor):
        if array.device.type == "meta":
            raise ValueError(
                f"Input {name} is a tensor on the meta device, which holds no "
                "numbers. Materialise it on a real device first."
            )
        host = array.detach().cpu()
        return (host.float() if host.dtype == torch.bfloat16 else host).numpy()
    return array


def refuse_strings(array: Any, name: str = "X") -> None:
    """Raise for arrays and lists of strings, which numpy would parse as numbers."""
    if isinstance(array, (list, tuple)):
        array = np.asarray(array)
    if getattr(getattr(array, "dtype", None), "kind", "") in ("U", "S"):
        raise ValueError(
            f"Input {name} holds strings: numbers are needed, which are not compatible "
            "with arrays of bytes/strings. Convert them explicitly, for example with "
            "sklearn.preprocessing.OrdinalEncoder."
        )


def check_sample_weight(sample_weight: Any, n_samples: int, dtype: Any) -> np.ndarray:
    """Sample weights as a non-negative vector of shape (n_samples,)."""
    if sample_weight is None:
        return np.ones(n_samples, dtype=dtype)
    sample_weight = as_host_array(sample_weight, "sample_weight")
    if isinstance(sample_weight, numbers.Number):
        sample_weight = np.full(n_samples, sample_weight)
    weight = check_array(
        sample_weight,
        dtype=dtype,
        ensure_2d=False,
        ensure_non_negative=True,
        input_name="sample_weight",
    )
    if weight.ndim != 1:
        raise ValueError(
            f"Sample weights must be 1D array or scalar, got {weight.ndim}D array. "
            f"Expected either a scalar value or a 1D array of length {n_samples}."
        )
    if weight.shape != (n_samples,):
        raise ValueError(
            f"sample_weight.shape == {weight.shape}, expected ({n_samples},)!"
        )
    if not weight.any():
        raise ValueError("Sample weights must contain at least one non-zero number.")
    return weight


def to_tensor(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """A tensor with the numbers of a numpy array; shares memory where it can."""
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    array = np.ascontiguousarray(array)
    if not array.flags.writeable:
        array = array.copy()
    return torch.from_numpy(array).to(device)


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """A contiguous numpy array with the numbers of a tensor."""
    return np.ascontiguousarray(tensor.detach().cpu().numpy())


def follow_input(result: np.ndarray, X: Any) -> Any:
    """Return a tensor for a tensor when scikit-learn's array API dispatch is on."""
    if isinstance(X, torch.Tensor) and get_config()["array_api_dispatch"]:
        return torch.from_numpy(result).to(X.device)
    return result


def row_blocks(
    n_rows: int, n_columns: int, itemsize: int, block_bytes: int | None = None
) -> Iterator[slice]:
    """Slices of rows whose (rows, n_columns) blocks stay within a memory budget."""
    budget = BLOCK_BYTES if block_bytes is None else block_bytes
    rows = max(1, budget // max(1, n_columns * itemsize))
    for start in range(0, n_rows, rows):
        yield slice(start, min(start + rows, n_rows))


def random_rows(n_rows: int, size: int, random_state: Any) -> np.ndarray:
    """Sorted indices of `size` distinct random rows (all of them if fewer)."""
    if size >= n_rows:
        return np.arange(n_rows)
    generator = check_random_state(random_state)
    return np.sort(generator.choice(n_rows, size=size, replace=False))


def random_seed(random_state: Any) -> int:
    """A seed for a generator of torch.

    None reads numpy's own generator, which stays as it is.
    """
    generator = check_random_state(random_state)
    if random_state is None or random_state is np.random:
        generator = copy.deepcopy(generator)
    return int(generator.randint(2**31 - 1))


# -------------------------------------------------------------------- environment


def plain_arithmetic(function: _Function) -> _Function:
    """Run a function without gradient tracking and without automatic mixed precision.

    The caller may stand inside ``torch.no_grad``, ``torch.inference_mode`` or
    ``torch.autocast``: the numbers must not depend on it.
    """

    @wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.no_grad())
            for device_type in ("cpu", "cuda"):
                if torch.is_autocast_enabled(device_type):
                    stack.enter_context(torch.autocast(device_type, enabled=False))
            return function(*args, **kwargs)

    return wrapper  # type: ignore[return-value]  # same signature, by construction


def free_memory(device: torch.device) -> int | None:
    """Bytes free on a device; None where the system does not say."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        with open("/proc/meminfo", encoding="ascii") as table:
            for line in table:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocator has failed: numpy, torch on a GPU or torch on the CPU."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def memory_error(error: BaseException, n_samples: int) -> MemoryError | None:
    """The MemoryError that stands for an allocator's own error, or None."""
    if not is_out_of_memory(error):
        return None
    return MemoryError(
        f"Out of memory with {n_samples} samples: the kernel matrix alone has "
        f"{n_samples}**2 entries ({n_samples**2 * 8 / 2**30:.1f} GiB in float64). "
        "Fit on fewer rows, or pass float32 data, which halves the memory."
    )

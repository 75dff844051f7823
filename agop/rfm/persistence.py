"""Files of fitted estimators: arrays and a JSON header, no code."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import tempfile
import zipfile
from dataclasses import asdict, fields
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from agop.core.version import __version__
from agop.kernels import KERNELS, Kernel

FORMAT = "agop-estimator"
FORMAT_VERSION = 1

#: Fitted attributes without which no estimator can predict.
REQUIRED = (
    "X_fit_",
    "bandwidth_",
    "dual_coef_",
    "intercept_",
    "kernel_",
    "metric_factor_",
    "n_features_in_",
    "offset_",
)


def write(
    path: str | PathLike[str],
    class_name: str,
    parameters: dict[str, Any],
    fitted: dict[str, Any],
) -> None:
    """Write one file; an old one stays until the new one is complete.

    Parameters
    ----------
    path : path-like
    class_name : str
    parameters : dict
        What the constructor takes.
    fitted : dict
        Attributes: arrays, numbers, strings, and dictionaries of arrays.

    Raises
    ------
    ValueError
        If something cannot be written without pickle.
    """
    arrays: dict[str, np.ndarray] = {}
    values = {name: _pack(name, value, arrays) for name, value in fitted.items()}
    header = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "agop_version": __version__,
        "class": class_name,
        "parameters": {n: _pack(n, v, arrays) for n, v in parameters.items()},
        "fitted": values,
        "sha256": _digest(arrays),
    }
    text = np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)
    target = Path(path).resolve()
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".agop-") as folder:
        complete = Path(folder) / "file"
        with open(complete, "wb") as file:
            np.savez(file, header=text, **arrays)  # type: ignore[arg-type]  # names of arrays
        if target.exists():
            shutil.copymode(target, complete)
        os.replace(complete, target)


def read(
    path: str | PathLike[str], class_name: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read one file; no code in it is ever run.

    Parameters
    ----------
    path : path-like
    class_name : str
        The class the caller expects.

    Returns
    -------
    parameters : dict
    fitted : dict

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is foreign, damaged, of a newer format or of another class.
    """
    arrays = _read_arrays(Path(path))
    try:
        header = json.loads(arrays.pop("header").tobytes().decode())
        found = header["format"], header["format_version"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a file written by agop.") from error
    if found != (FORMAT, FORMAT_VERSION):
        raise ValueError(
            f"{path} has format {found[0]!r} version {found[1]!r}; this version of "
            f"agop ({__version__}) reads {FORMAT!r} version {FORMAT_VERSION}. It was "
            f"written by agop {header.get('agop_version', 'unknown')}."
        )
    if header.get("sha256") != _digest(arrays):
        raise ValueError(f"{path} is damaged: its checksum does not match.")
    if header.get("class") != class_name:
        raise ValueError(
            f"{path} holds a {header.get('class')}, not a {class_name}: load it with "
            f"agop.{header.get('class')}.load."
        )
    try:
        parameters, fitted = (
            {name: _unpack(value, arrays) for name, value in header[part].items()}
            for part in ("parameters", "fitted")
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {error!r} in its header.") from error
    if missing := [name for name in REQUIRED if name not in fitted]:
        raise ValueError(f"{path} is damaged: its header lacks {', '.join(missing)}.")
    return parameters, fitted


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    with open(path, "rb") as file:
        try:
            return _unzip(file)
        except MemoryError:
            raise
        except Exception as error:  # whatever the bytes of a foreign file lead to
            raise ValueError(
                f"{path} is damaged or was not written by agop: {error}."
            ) from error


def _unzip(file: BinaryIO) -> dict[str, np.ndarray]:
    size = os.fstat(file.fileno()).st_size
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        # Uncompressed members cannot expand beyond the size of the file.
        if any(
            member.compress_type != zipfile.ZIP_STORED or member.file_size > size
            for member in members
        ):
            raise ValueError("compressed members, which agop does not write")
        return {
            member.filename.removesuffix(".npy"): _read_array(archive, member)
            for member in members
        }


def _read_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    """One array; nothing is allocated for more numbers than the file has room for."""
    with archive.open(member) as file:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError(f"{member.filename} has an unknown version of npy")
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    if math.prod(shape) * max(dtype.itemsize, 1) > member.file_size:
        raise ValueError(f"{member.filename} claims to be larger than it is")
    with archive.open(member) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _digest(arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name}{array.dtype.str}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _pack(name: str, value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """A JSON value that stands for `value`; arrays go to the side."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return _pack(name, value.item(), arrays)
    if isinstance(value, np.ndarray):
        return _pack_array(name, value, arrays)
    if isinstance(value, dict):
        items = [
            [_pack(name, key, arrays), _pack(f"{name}.{key}", item, arrays)]
            for key, item in value.items()
        ]
        return {"dict": items}
    if isinstance(value, Kernel) and KERNELS.get(_kernel_name(value)) is type(value):
        return {"kernel": _kernel_name(value), "fields": asdict(value)}  # type: ignore[call-overload]  # all named kernels are dataclasses
    raise ValueError(
        f"{name}={value!r} cannot be written to a file without pickle. Use a kernel "
        "of agop.kernels and an integer random_state, or write the estimator with "
        "joblib."
    )


def _pack_array(
    name: str, value: np.ndarray, arrays: dict[str, np.ndarray]
) -> dict[str, str]:
    if value.dtype == object:
        if not all(isinstance(item, str) for item in value.flat):
            raise ValueError(f"{name} holds objects that are not strings.")
        arrays[name] = value.astype(np.str_)
        return {"strings": name}
    arrays[name] = np.ascontiguousarray(value)
    return {"array": name}


def _kernel_name(kernel: Kernel) -> str:
    return next((n for n, known in KERNELS.items() if known is type(kernel)), "")


def _unpack(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    if not isinstance(value, dict):
        return value
    if "array" in value:
        return arrays[value["array"]]
    if "strings" in value:
        return arrays[value["strings"]].astype(object)
    if "dict" in value:
        return {key: _unpack(item, arrays) for key, item in value["dict"]}
    kind = KERNELS[value["kernel"]]
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]  # dataclasses all
    return kind(**{k: v for k, v in value["fields"].items() if k in known})

"""What a number depends on besides the code: versions, processor, BLAS, threads."""

import argparse
import importlib.metadata
import os
import platform
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import threadpoolctl
import torch

PACKAGES = (
    "agop",
    "captum",
    "curvlinops-for-pytorch",
    "numpy",
    "pandas",
    "scikit-learn",
    "scipy",
    "torch",
    "xrfm",
)


def thread_count(text):
    """Parse a positive number of threads from the command line."""
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"threads must be at least 1, got {count}")
    return count


def limit_threads(count):
    """Hold OpenMP, every BLAS and torch at `count` threads."""
    threadpoolctl.threadpool_limits(count)
    torch.set_num_threads(count)


def describe(threads):
    """Collect what is needed to judge the numbers that a run writes.

    Parameters
    ----------
    threads : int
        Number of threads the run is held at.

    Returns
    -------
    description : dict
        JSON-ready; `ceiling_gflops` is the best rate of a matrix product here.
    """
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "system": platform.system(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load_average": list(os.getloadavg()),
        "threads": threads,
        "packages": {name: _version(name) for name in PACKAGES},
        "blas": _blas(),
        "openblas_coretype": os.environ.get("OPENBLAS_CORETYPE"),
        "ceiling_gflops": _ceilings(),
    }


def _version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor():
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return platform.processor()
    lines = cpuinfo.read_text().splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.processor()


def _blas():
    keys = ("internal_api", "version", "architecture", "num_threads")
    pools = threadpoolctl.threadpool_info()
    return [{key: pool.get(key) for key in keys} for pool in pools]


def _ceilings():
    """Rate of a 2048 x 2048 product, library and precision by name."""
    rng = np.random.default_rng(0)
    square = rng.standard_normal((2048, 2048))
    rates = {}
    for dtype in (np.float32, np.float64):
        array = square.astype(dtype)
        tensor = torch.from_numpy(array)
        name = np.dtype(dtype).name
        rates[f"numpy {name}"] = _rate(np.matmul, array)
        rates[f"torch {name}"] = _rate(torch.mm, tensor)
    return rates


def _rate(product, matrix, repeats=3):
    """GFlop/s of the fastest of `repeats` products, by the clock on the wall."""
    product(matrix, matrix)
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        product(matrix, matrix)
        seconds.append(time.perf_counter() - start)
    return round(2 * len(matrix) ** 3 / min(seconds) / 1e9, 1)

"""The command line: ``python -m agop demo`` and ``python -m agop doctor``."""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch

from agop import (
    NetworkAGOP,
    RFMRegressor,
    SpectrumDisplay,
    __version__,
    average_gradient_outer_product,
    datasets,
)
from agop.demonstration import DigitsDemonstration, FacesDemonstration
from agop.inspection.displays import mosaic

PACKAGES = ("numpy", "scipy", "scikit-learn", "torch", "matplotlib", "rich", "skops")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    Parameters
    ----------
    arguments : sequence of str, optional
        Those of the process by default.

    Returns
    -------
    int
    """
    parser = argparse.ArgumentParser(
        prog="python -m agop",
        description="Which directions of its input does a model respond to?",
    )
    parser.add_argument("--version", action="version", version=f"agop {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="")
    show = commands.add_parser(
        "demo",
        help="learn where to look, on digits and on faces; about half a minute",
    )
    show.add_argument(
        "--output",
        type=Path,
        default=Path("agop-demo.png"),
        metavar="FILE",
        help="first picture to write (default: %(default)s); the second one has "
        "-faces in its name",
    )
    show.set_defaults(run=lambda options: demo(options.output))
    check = commands.add_parser("doctor", help="print versions and devices, and test")
    check.set_defaults(run=lambda options: doctor())
    options = parser.parse_args(arguments)
    if not hasattr(options, "run"):
        parser.print_help()
        return 0
    return options.run(options)


# ---------------------------------------------------------------------------- demo


def demo(output: Path) -> int:
    """Fit models on digits and on faces, print what they found, draw two pictures.

    Parameters
    ----------
    output : path
        Where the first picture is written; the second one goes beside it.

    Returns
    -------
    int
        Exit status.
    """
    if not output.parent.is_dir():
        print(f"The folder {output.parent} does not exist.", file=sys.stderr)
        return 2
    _show(DigitsDemonstration(), output)
    print(f"\n{'-' * 79}\n")
    _show(FacesDemonstration(), output.with_stem(f"{output.stem}-faces"))
    return 0


def _show(demonstration, path: Path) -> None:
    for line in demonstration.lines():
        print(line, flush=True)
    demonstration.draw().savefig(path, dpi=130)
    print(f"\nPicture: {path}")


# -------------------------------------------------------------------------- doctor


def doctor() -> int:
    """Print versions and devices, and try the main parts on a known answer.

    Returns
    -------
    int
        Exit status: 0 if everything works, 1 if not.
    """
    print(f"agop {__version__}, Python {platform.python_version()}")
    print(platform.platform())
    for name in PACKAGES:
        print(f"  {name:14}{_version_of(name)}")
    print(f"  {'threads':14}{torch.get_num_threads()}")
    print(f"  {'devices':14}{', '.join(['cpu', *_accelerators()])}\n")
    tests = {
        "gradients agree with finite differences": _jacobian,
        "the features that matter are found": _answer,
        "a network's gradients agree with algebra": _network,
        "a saved model predicts the same": _file,
        "pictures can be drawn": _drawing,
    }
    for index in range(torch.cuda.device_count()):
        device = f"cuda:{index}"
        tests[f"{device} agrees with the CPU"] = partial(_device, device)
    passed = [_try(label, test) for label, test in tests.items()]
    print("\nEverything works." if all(passed) else "\nSomething is wrong: see above.")
    return 0 if all(passed) else 1


def _version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _accelerators() -> list[str]:
    return [
        f"cuda:{index} ({torch.cuda.get_device_name(index)})"
        for index in range(torch.cuda.device_count())
    ]


def _try(label: str, test: Callable[[], bool]) -> bool:
    """Run one test and print how it went: a doctor survives what it examines."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            good = test()
        word = "ok" if good else "FAILED: the result is wrong"
    except Exception as error:  # a failure of any kind is a finding
        good, word = False, f"FAILED: {type(error).__name__}: {error}"
    print(f"  {label:44}{word}")
    return good


def _fitted(device: str = "cpu") -> tuple[np.ndarray, RFMRegressor]:
    X, y, _ = datasets.make_multi_index(400, 10, random_state=0)
    model = RFMRegressor(
        kernel="gaussian", n_iter=3, bandwidth="median", alpha=1e-2, device=device
    )
    return X, model.fit(X, y)


def _jacobian() -> bool:
    X, model = _fitted()
    step = 1e-5
    moves = np.eye(X.shape[1]) * step
    ahead, behind = (model.predict(X[0] + sign * moves) for sign in (1, -1))
    exact = model.jacobian(X[:1])[0, 0]
    return bool(np.allclose((ahead - behind) / (2 * step), exact, atol=1e-6))


def _answer() -> bool:
    X, model = _fitted()
    product = average_gradient_outer_product(torch.as_tensor(model.jacobian(X)))
    agrees = np.allclose(np.asarray(product), model.agop_, atol=1e-8)
    return bool(agrees and model.feature_importances_[:2].sum() > 0.9)


def _network() -> bool:
    layer = torch.nn.utils.skip_init(torch.nn.Linear, 5, 3, dtype=torch.float64)
    with torch.no_grad():  # no generator is asked for weights
        layer.weight.copy_(torch.arange(15.0).reshape(3, 5).sin())
        layer.bias.zero_()
    model = NetworkAGOP(layer).fit(np.eye(5))
    exact = (layer.weight.T @ layer.weight).detach().numpy()
    return bool(np.allclose(model.agop_, exact, atol=1e-12))


def _file() -> bool:
    X, model = _fitted()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        model.save(path)
        restored = RFMRegressor.load(path)
    return bool((restored.predict(X) == model.predict(X)).all())


def _drawing() -> bool:
    figure, axes = mosaic("a")
    SpectrumDisplay.from_spectrum([2.0, 1.0], ax=axes["a"])
    with tempfile.TemporaryFile() as file:
        figure.savefig(file, format="png")
        return file.tell() > 0


def _device(name: str) -> bool:
    X, here = _fitted()
    there = _fitted(name)[1]
    return bool(np.allclose(here.predict(X), there.predict(X), atol=1e-6))


if __name__ == "__main__":
    sys.exit(main())

"""The command line: ``python -m agop demo`` and ``python -m agop doctor``."""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from agop import (
    DirectionDisplay,
    HistoryDisplay,
    RFMClassifier,
    RFMRegressor,
    SpectrumDisplay,
    __version__,
    average_gradient_outer_product,
    datasets,
)
from agop.inspection.displays import mosaic

PACKAGES = ("numpy", "scipy", "scikit-learn", "torch", "matplotlib", "rich", "skops")

INTRODUCTION = """\
A thousand pictures, each of nine handwritten digits. The label says whether one of
the nine is odd, and the same place counts in every picture: which one?
The machine sees 576 pixels and a label; the place is not told. Tested on 1000
pictures of digits that it never saw, mostly by other writers.
"""

GRID = (3, 3)
TILE = (1, 2)
PICTURE = (24, 24)


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
        "demo", help="learn where to look, on real digits; about ten seconds"
    )
    show.add_argument(
        "--output",
        type=Path,
        default=Path("agop-demo.png"),
        metavar="FILE",
        help="picture to write (default: %(default)s)",
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
    """Fit a machine on pictures of nine digits, print the result, draw a picture.

    Parameters
    ----------
    output : path
        Where the picture is written.

    Returns
    -------
    int
        Exit status.
    """
    if not output.parent.is_dir():
        print(f"The folder {output.parent} does not exist.", file=sys.stderr)
        return 2
    print(INTRODUCTION)
    layout = {"grid": GRID, "tile": TILE}
    X, y, mask = datasets.make_digit_grids(1000, **layout, random_state=0)
    held_out = datasets.make_digit_grids(1000, **layout, subset="test", random_state=1)

    model = RFMClassifier(kernel="laplace", random_state=0)
    plain = RFMClassifier(kernel="laplace", n_iter=0, random_state=0)
    print(f"{'':29}accuracy  log loss   seconds")
    for name, classifier in {
        "recursive feature machine": model,
        "its kernel, without rounds": plain,
        "random forest, 200 trees": RandomForestClassifier(200, random_state=0),
        "logistic regression": LogisticRegression(max_iter=2000),
    }.items():
        start = time.perf_counter()
        classifier.fit(X, y)
        seconds = time.perf_counter() - start
        accuracy = classifier.score(*held_out[:2])
        loss = log_loss(held_out[1], classifier.predict_proba(held_out[0]))
        print(f"{name:29}{accuracy:8.1%}  {loss:8.3f}  {seconds:8.1f}")

    _print_answer(model, mask)
    _draw(model, X, y, output)
    print(f"\nPicture: {output}")
    return 0


def _print_answer(model: RFMClassifier, mask: np.ndarray) -> None:
    rows, columns = GRID
    diagonal = model.feature_importances_.reshape(rows, 8, columns, 8)
    metric = "full" if model.metric_factor_.ndim == 2 else "diagonal"
    print(
        f"\nChosen without test pictures: {metric} metric, {model.best_iter_} rounds, "
        f"penalty {model.alpha_:g}."
    )
    print("Where the machine looks, in per cent of the trace of its AGOP:\n")
    for row in diagonal.sum((1, 3)):
        print("    " + "".join(f"{share:8.1%}" for share in row))
    share = model.feature_importances_[mask.ravel()].sum()
    row, column = TILE
    print(
        f"\nThe place that counts is row {row + 1}, column {column + 1}: it has "
        f"{share:.1%} (chance: {mask.mean():.1%})."
    )


def _draw(model: RFMClassifier, X: np.ndarray, y: np.ndarray, output: Path) -> None:
    figure, axes = mosaic(
        [["even", "odd", "diagonal"], ["history", "spectrum", "direction"]],
        figsize=(11.5, 7.4),
    )
    for name, label in (("even", 0), ("odd", 1)):
        example = X[np.flatnonzero(y == label)[0]].reshape(PICTURE)
        axes[name].imshow(example, cmap="gray_r")
        axes[name].set(title=f"a picture labelled “{name}”", xticks=[], yticks=[])
    DirectionDisplay.from_estimator(
        model, what="diagonal", shape=PICTURE, ax=axes["diagonal"]
    )
    axes["diagonal"].set_title("where the machine looks")
    HistoryDisplay.from_estimator(model, ax=axes["history"])
    axes["history"].set_title("what each round brought")
    SpectrumDisplay.from_estimator(model, n_shown=8, ax=axes["spectrum"])
    DirectionDisplay.from_estimator(model, shape=PICTURE, ax=axes["direction"])
    for name in ("even", "odd", "diagonal", "direction"):
        for edge in (7.5, 15.5):  # between the digits
            axes[name].axhline(edge, color="tab:blue", linewidth=0.8)
            axes[name].axvline(edge, color="tab:blue", linewidth=0.8)
    figure.suptitle(
        "Nine digits, and the label says whether one of them is odd. Which one?",
        fontsize=14,
    )
    figure.savefig(output, dpi=130)


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
    passed = [_try(test) for test in (_jacobian, _answer, _file, _drawing)]
    for index in range(torch.cuda.device_count()):
        passed.append(_try(_device, f"cuda:{index}"))
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


def _try(test: Callable[..., bool], *arguments: str) -> bool:
    """Run one test and print how it went: a doctor survives what it examines."""
    label = " ".join([str(test.__doc__).rstrip("."), *arguments])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            good = test(*arguments)
        word = "ok" if good else "FAILED: the result is wrong"
    except Exception as error:
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
    """Gradients agree with finite differences."""
    X, model = _fitted()
    step = 1e-5
    moves = np.eye(X.shape[1]) * step
    ahead, behind = (model.predict(X[0] + sign * moves) for sign in (1, -1))
    exact = model.jacobian(X[:1])[0, 0]
    return bool(np.allclose((ahead - behind) / (2 * step), exact, atol=1e-6))


def _answer() -> bool:
    """The two features that matter are found."""
    X, model = _fitted()
    product = average_gradient_outer_product(torch.as_tensor(model.jacobian(X)))
    agrees = np.allclose(np.asarray(product), model.agop_, atol=1e-8)
    return bool(agrees and model.feature_importances_[:2].sum() > 0.9)


def _file() -> bool:
    """A saved model predicts the same."""
    X, model = _fitted()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        model.save(path)
        restored = RFMRegressor.load(path)
    return bool((restored.predict(X) == model.predict(X)).all())


def _drawing() -> bool:
    """Pictures can be drawn."""
    figure, axes = mosaic("a")
    SpectrumDisplay.from_spectrum([2.0, 1.0], ax=axes["a"])
    with tempfile.TemporaryFile() as file:
        figure.savefig(file, format="png")
        return file.tell() > 0


def _device(name: str) -> bool:
    """The CPU and the accelerator agree on"""  # noqa: D400 (the name follows)
    X, here = _fitted()
    there = _fitted(name)[1]
    return bool(np.allclose(here.predict(X), there.predict(X), atol=1e-6))


if __name__ == "__main__":
    sys.exit(main())

"""Published results about trained networks that take too long for a test.

`faces`: how much of the AGOP of networks and of a recursive feature machine lies on
the sunglasses, with every choice of the training that was tried, and with controls.
The protocols are those of the tests, in `tests/results`.

A part is a function that yields names and functions without arguments, each of which
returns a record; it is entered in `PARTS`.
"""

import argparse
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from environment import describe, limit_threads, thread_count
from results import FOLDER, ResultFile
from tables import CHECKOUT
from tables import folder as tabular_folder

sys.path.insert(0, str(CHECKOUT))  # as pytest does

from results_ansatz import ansatz_part, modular_addition_part

from tests.results.faces import (
    CHOICES,
    RECIPES,
    load_faces,
    machine_outcomes,
    network_outcomes,
    untrained_shares,
)

SEEDS = range(3)


def data(name):
    """Path of a shared file, such as `faces/cmu_faces_32x30.npz`."""
    return tabular_folder().parent / name


# --------------------------------------------------------------------------- faces


def faces_part():
    """Each figure is a mean over five folds of people, and over seeds."""
    faces = load_faces(data("faces/cmu_faces_32x30.npz"))
    yield "rfm", partial(_summary, partial(machine_outcomes, faces))
    shuffled = partial(machine_outcomes, faces, shuffled=True)
    yield "rfm, shuffled labels", partial(_summary, shuffled)
    for model, recipe in RECIPES.items():
        for noise, shift in CHOICES:
            tried = replace(recipe, noise=noise, shift=shift)
            name = f"{model}, noise {noise:g}, shift {shift}"
            yield name, partial(_over_seeds, faces, tried)
        shuffled = partial(_over_seeds, faces, recipe, shuffled=True)
        yield f"{model}, shuffled labels", shuffled
        yield f"{model}, untrained", partial(_untrained, faces, recipe)


def _over_seeds(faces, recipe, **kwargs):
    def outcomes():
        for seed in SEEDS:
            yield from network_outcomes(faces, recipe, seed, **kwargs)

    return _summary(outcomes)


def _summary(outcomes):
    outcomes = list(outcomes())
    accuracies, shares = zip(*((o.accuracy, o.share) for o in outcomes), strict=True)
    return {
        "accuracy": float(np.mean(accuracies)),
        "share": float(np.mean(shares)),
        "smallest_share": min(shares),
        "largest_share": max(shares),
        "fits": len(outcomes),
    }


def _untrained(faces, recipe):
    shares = untrained_shares(faces, recipe, 20)
    return {"share": float(np.mean(shares)), "largest_share": max(shares)}


#: By name; further results about networks are added here.
PARTS = {
    "faces": faces_part,
    "ansatz": partial(ansatz_part, data),
    "modular_addition": partial(modular_addition_part, data),
}


def run(arguments):
    """Measure what was asked for and write it."""
    settings = {"parts": arguments.parts}
    environment = describe(arguments.threads)
    file = ResultFile(arguments.output, environment, settings, arguments.resume)
    for part in arguments.parts:
        for name, measure in PARTS[part]():
            key = f"{part}/{name}"
            if file.has(key):
                continue
            start = time.process_time()
            record = {"part": part, "name": name, **measure()}
            file.add(key, {**record, "seconds": time.process_time() - start})
            print(f"{key}: {_line(record)}", flush=True)


def _line(record):
    figures = {k: v for k, v in record.items() if isinstance(v, float)}
    return ", ".join(f"{name} {value:.4f}" for name, value in figures.items())


def parse():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--threads", type=thread_count, default=1)
    parser.add_argument("--output", type=Path, default=FOLDER / "networks.json")
    parser.add_argument("--resume", action="store_true", help="keep what is measured")
    return parser.parse_args()


def main():
    """Run from the command line."""
    arguments = parse()
    limit_threads(arguments.threads)
    run(arguments)


if __name__ == "__main__":
    main()

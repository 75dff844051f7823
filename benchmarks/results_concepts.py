"""Concept directions in stories260K: held-out AUROC, and what steering does.

For every concept and number of training tokens the layer is chosen by folds of the
training stories, separately for the Recursive Feature Machine and each baseline; other
stories give the AUROC. Where a concept is about what comes next, the probability of
such tokens is measured against the strength of steering, on further stories. The
protocol is that of the tests, `tests/results/stories.py`.
"""

import argparse
import sys
import time
from pathlib import Path

import pandas as pd
from environment import describe, limit_threads, thread_count
from results import FOLDER, ResultFile
from tables import CHECKOUT
from tables import folder as tabular_folder

sys.path.insert(0, str(CHECKOUT))  # as pytest does

from tests.results.stories import (
    CONCEPTS,
    TOKENS,
    Stories,
    Vocabulary,
    judge,
    steered,
    stories260k,
)

N_STORIES = 400
N_TEST = 2000
STRENGTHS = (-1, -0.5, -0.25, -0.1, 0, 0.1, 0.25, 0.5, 1)


class Bench:
    """The network, and stories for training, testing and steering."""

    def __init__(self):
        folder = tabular_folder().parent / "models" / "stories260K"
        example = stories260k()
        self.network = example.load(folder)
        self.words = Vocabulary(example.Tokenizer(folder).pieces)
        samples = example.load_samples(folder)
        self.train = Stories.read(self.network, samples[:N_STORIES])
        self.test = Stories.read(self.network, samples[N_STORIES : 2 * N_STORIES])
        self.steered = samples[2 * N_STORIES :][:32, :64]

    def measure(self, name, n_train):
        """Chosen layer, AUROC and steering curve of every kind of direction."""
        start = time.process_time()
        found = judge(
            CONCEPTS[name],
            self.train,
            self.test,
            self.words,
            n_train=n_train,
            n_test=N_TEST,
        )
        record = {
            kind: {
                "layer": judgement.layer,
                "auroc": round(judgement.auroc, 4),
                "direction_auroc": round(judgement.direction_auroc, 4),
            }
            for kind, judgement in found.items()
        }
        if name in TOKENS:
            mask = getattr(self.words, TOKENS[name])
            for kind, judgement in found.items():
                curve = steered(self.network, judgement, self.steered, mask, STRENGTHS)
                record[kind]["steered"] = [round(float(p), 5) for p in curve]
        return {**record, "seconds": time.process_time() - start}


def summarise(records):
    """Mean over the concepts, and how often the machine is at least as good.

    Returns
    -------
    summary : dict
        By number of training tokens.
    """
    rows = [
        {
            "n_train": record["n_train"],
            "concept": record["concept"],
            "kind": kind,
            **entry,
        }
        for record in records
        for kind, entry in record.items()
        if isinstance(entry, dict)
    ]
    summary = {}
    for n_train, part in pd.DataFrame(rows).groupby("tokens"):
        table = part.pivot(index="concept", columns="kind", values="auroc")
        alone = part.pivot(index="concept", columns="kind", values="direction_auroc")
        summary[str(n_train)] = {
            "concepts": len(table),
            "auroc": table.mean().round(4).to_dict(),
            "direction_auroc": alone.mean().round(4).to_dict(),
            "machine at least as good": {
                kind: int((table["rfm"] >= table[kind]).sum())
                for kind in table.columns.drop("rfm")
            },
        }
    return summary


def run(arguments):
    """Measure every concept and write what was found."""
    settings = {"n_train": arguments.n_train, "strengths": STRENGTHS}
    environment = describe(arguments.threads)
    file = ResultFile(arguments.output, environment, settings, arguments.resume)
    bench = Bench()
    for n_train in arguments.n_train:
        for name in CONCEPTS:
            key = f"{n_train}/{name}"
            if file.has(key):
                continue
            record = bench.measure(name, n_train)
            file.add(key, {"concept": name, "n_train": n_train, **record})
            aurocs = {
                kind: entry["auroc"]
                for kind, entry in record.items()
                if isinstance(entry, dict)
            }
            print(f"{key}: {aurocs}", flush=True)
    summary = summarise(file.records)
    file.write(summary=summary)
    for n_train, figures in summary.items():
        print(f"{n_train} tokens: {figures}")


def parse():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n-train", nargs="+", type=int, default=[400, 1600])
    parser.add_argument("--threads", type=thread_count, default=1)
    parser.add_argument("--output", type=Path, default=FOLDER / "concepts.json")
    parser.add_argument("--resume", action="store_true", help="keep what is measured")
    return parser.parse_args()


def main():
    """Run from the command line."""
    arguments = parse()
    limit_threads(arguments.threads)
    run(arguments)


if __name__ == "__main__":
    main()

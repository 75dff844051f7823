"""Draw the ranks of a file of tabular results: a bar per model, a point per set."""

import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from results import SCORES


def draw(axes, frame, score):
    """Draw mean ranks as bars, best on top, and the rank on each set as a point."""
    scores = frame.pivot(index="set", columns="model", values=score)
    ranks = scores.rank(axis=1, ascending=False, na_option="bottom")
    order = ranks.mean().sort_values(ascending=False).index
    axes.barh(order, ranks.mean()[order], color="0.85")
    rng = np.random.default_rng(0)
    for row, model in enumerate(order):
        heights = row + rng.uniform(-0.25, 0.25, len(ranks))
        axes.plot(ranks[model], heights, "o", ms=3, alpha=0.6, color="C0")
    axes.set_xlabel(f"rank by {score} ({len(ranks)} sets)")


def main():
    """Write the picture beside the file of results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    arguments = parser.parse_args()
    records = json.loads(arguments.file.read_text())["records"].values()
    frame = pd.DataFrame(records)
    kinds = sorted(frame["kind"].unique())
    figure, panels = plt.subplots(1, len(kinds), figsize=(10, 4), squeeze=False)
    for axes, kind in zip(panels[0], kinds, strict=True):
        draw(axes, frame[frame["kind"] == kind], SCORES[kind])
        axes.set_title(kind)
    figure.tight_layout()
    figure.savefig(arguments.file.with_suffix(".png"), dpi=150)


if __name__ == "__main__":
    main()

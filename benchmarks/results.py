"""A file of results that grows record by record, and the tables made from it."""

import argparse
import json
import os
from pathlib import Path

import pandas as pd
from tables import halves

FOLDER = Path(__file__).resolve().parent / "results"
SCORES = {"classification": "accuracy", "regression": "r2"}


class ResultFile:
    """Records by key in a JSON file, written whole after each addition.

    Parameters
    ----------
    path : Path
    environment : dict
        Description of this run; each record names the run it came from.
    settings : dict
        What the run was asked to do.
    resume : bool
        Keep the records that `path` holds already; else start an empty file.
    """

    def __init__(self, path, environment, settings, resume):
        self.path = Path(path)
        self.content = {"runs": [], "records": {}}
        if resume and self.path.exists():
            self.content = json.loads(self.path.read_text())
        self.content["runs"].append({**environment, "settings": settings})

    def has(self, key):
        """Tell whether `key` was measured; a recorded error is tried again."""
        record = self.content["records"].get(key)
        return record is not None and "error" not in record

    def add(self, key, record):
        """Store one record and write the file."""
        run = len(self.content["runs"]) - 1
        self.content["records"][key] = {**record, "run": run}
        self.write()

    def write(self, **extra):
        """Replace the file in one step, so that an interrupted run leaves a whole one.

        Parameters
        ----------
        **extra : dict
            Further top-level entries, such as a summary.
        """
        self.content.update(extra)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_suffix(".part")
        draft.write_text(json.dumps(self.content, indent=1) + "\n")
        os.replace(draft, self.path)

    @property
    def records(self):
        """All records, as a list."""
        return list(self.content["records"].values())


def summarise(records):
    """Compare the models over the sets, and over each half of the sets.

    Parameters
    ----------
    records : list of dict
        One per set and model, from `tabular`.

    Returns
    -------
    summary : dict
        ``summary[kind][half]`` is a list with one row of figures per model.
    """
    frame = pd.DataFrame(records)
    frame["half"] = frame["set"].map(halves())
    summary = {}
    for kind, of_kind in frame.groupby("kind"):
        parts = {"all": of_kind} | dict(list(of_kind.groupby("half")))
        summary[kind] = {
            half: _compare(part, SCORES[kind]) for half, part in parts.items()
        }
    return summary


def _compare(part, score):
    """Figures per model; a failure scores 0, wins nothing and ranks last."""
    raw = part.pivot(index="set", columns="model", values=score).astype(float)
    ranks = raw.rank(axis=1, ascending=False, na_option="bottom")
    best = raw.max(axis=1)
    at_best = raw.eq(best, axis=0)
    figures = pd.DataFrame(
        {
            "sets": raw.notna().sum() + raw.isna().sum(),
            "failed": raw.isna().sum(),
            score: raw.fillna(0).mean(),
            f"{score}_median": raw.fillna(0).median(),
            "rank": ranks.mean(),
            "wins": at_best.div(at_best.sum(axis=1), axis=0).sum(),
            "p90": _share_near(raw, best, 0.90),
            "p95": _share_near(raw, best, 0.95),
        }
    )
    by_model = part.groupby("model")
    for column in ("log_loss", "fit_seconds", "predict_seconds"):
        if column in part:
            figures[column] = by_model[column].mean()
    figures["fit_seconds_total"] = by_model["fit_seconds"].sum()
    rows = figures.sort_values("rank").reset_index(names="model")
    return json.loads(rows.to_json(orient="records", double_precision=5))


def _share_near(raw, best, share):
    """Percentage of the sets on which a model reaches `share` of the best score."""
    return 100 * raw.ge(share * best, axis=0).mean()


def report(summary):
    """Format a summary as text tables."""
    blocks = []
    for kind, by_half in summary.items():
        for half, rows in by_half.items():
            table = pd.DataFrame(rows).to_string(index=False, float_format="%.4g")
            blocks.append(f"{kind}, {half} sets\n{table}")
    return "\n\n".join(blocks)


def main():
    """Print the summary of a file of tabular results, for some of its models."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--models", nargs="+", help="ranked among themselves")
    arguments = parser.parse_args()
    records = json.loads(arguments.file.read_text())["records"].values()
    wanted = [
        record
        for record in records
        if not arguments.models or record["model"] in arguments.models
    ]
    print(report(summarise(wanted)))


if __name__ == "__main__":
    main()

"""Accuracy and time on 58 tabular sets: `agop`, xRFM, kernel ridge, trees and SVM."""

import argparse
import sys
import time
import warnings
from pathlib import Path

import numpy as np
from environment import describe, limit_threads, thread_count
from ours import our_default_model
from peers import DEFAULTS
from results import FOLDER, ResultFile, report, summarise
from sklearn.base import clone
from sklearn.metrics import accuracy_score, log_loss, r2_score
from tables import folds, load, names, prepare
from tuning import SAMPLERS, Tuned

MAX_ROWS = {"quick": 4000, "full": None}
GROUPS = {
    "default": list(SAMPLERS),
    "tuned": [f"{name}-tuned" for name in SAMPLERS],
}


def make(model, kind):
    """Build the model of this name, unfitted."""
    name = model.removesuffix("-tuned")
    if name == "agop":
        estimator = our_default_model(kind)
    else:
        estimator = clone(DEFAULTS[kind][name])
    return estimator if name == model else Tuned(estimator, SAMPLERS[name], kind)


def evaluate(model, table):
    """Measure one model on one set.

    Returns
    -------
    record : dict
        Means over the folds, with the score of each fold; ``error`` if any failed.
        Seconds are of the processor, for one fold.
    """
    record = {"set": table.name, "model": model, "kind": table.kind}
    measured = []
    try:
        for train, test in folds(table):
            measured.append(_evaluate_fold(make(model, table.kind), table, train, test))
    except Exception as error:  # whatever a peer raises is a result of this benchmark
        return {**record, "error": f"{type(error).__name__}: {error}"[:500]}
    for key in measured[0]:
        values = [fold[key] for fold in measured]
        record[key] = float(np.mean(values))
        record[f"{key}_folds"] = values
    return record


def _evaluate_fold(model, table, train, test):
    X_train, y_train, X_test, y_test = prepare(table, train, test)
    start = time.process_time()
    model.fit(X_train, y_train)
    fitted = time.process_time()
    predicted = model.predict(X_test)
    done = time.process_time()
    measured = {"fit_seconds": fitted - start, "predict_seconds": done - fitted}
    if isinstance(model, Tuned):
        measured["failed_configurations"] = len(model.failures_)
    if table.kind == "regression":
        measured["r2"] = _finite(r2_score(y_test, predicted))
        return measured
    measured["accuracy"] = float(accuracy_score(y_test, predicted))
    if _has_probabilities(model):
        measured["log_loss"] = _log_loss(model, X_test, y_test)
    return measured


def _has_probabilities(model):
    return hasattr(getattr(model, "best_estimator_", model), "predict_proba")


def _log_loss(model, X_test, y_test):
    """Log-loss over every class of the set; one unseen in training has probability 0.

    The logarithm is scikit-learn's: probabilities are kept above 2.2e-16.
    """
    classes = np.union1d(model.classes_, y_test)
    probabilities = np.zeros((len(X_test), len(classes)))
    columns = np.searchsorted(classes, model.classes_)
    probabilities[:, columns] = model.predict_proba(X_test)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    return _finite(log_loss(y_test, probabilities, labels=classes))


def _finite(value):
    if not np.isfinite(value):
        raise ValueError(f"the score is {value}")
    return float(value)


def run(arguments):
    """Measure every pair of a set and a model that the file does not hold yet."""
    models = [name for group in arguments.models for name in GROUPS.get(group, [group])]
    settings = {"mode": arguments.mode, "models": models, "sets": arguments.sets}
    environment = describe(arguments.threads)
    results = ResultFile(arguments.output, environment, settings, arguments.resume)
    for name in arguments.sets:
        missing = [model for model in models if not results.has(f"{name}|{model}")]
        if not missing:
            continue
        table = load(name, MAX_ROWS[arguments.mode])
        for model in missing:
            record = evaluate(model, table)
            results.add(f"{name}|{model}", {**record, "shape": table.X.shape})
            print(_progress(record), file=sys.stderr, flush=True)
    summary = summarise(results.records)
    results.write(summary=summary)
    print(report(summary))


def _progress(record):
    head = f"{record['set']:48s} {record['model']:20s}"
    if "error" in record:
        return f"{head} {record['error']}"
    score = record.get("accuracy", record.get("r2"))
    return f"{head} {score:8.4f} {record['fit_seconds']:9.2f} s"


def parse():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mode", choices=MAX_ROWS, default="quick")
    parser.add_argument(
        "--models",
        nargs="+",
        default=["default"],
        choices=[*GROUPS, *GROUPS["default"], *GROUPS["tuned"]],
        help="names, or the groups default and tuned",
    )
    parser.add_argument("--sets", nargs="+", choices=names(), default=names())
    parser.add_argument("--threads", type=thread_count, default=1)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--resume", action="store_true", help="keep what is measured")
    arguments = parser.parse_args()
    arguments.output = arguments.output or FOLDER / f"tabular_{arguments.mode}.json"
    return arguments


def main():
    """Run from the command line."""
    arguments = parse()
    limit_threads(arguments.threads)
    warnings.filterwarnings("ignore", message="The least populated class")
    run(arguments)


if __name__ == "__main__":
    main()

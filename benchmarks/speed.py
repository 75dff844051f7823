"""Seconds, memory and error of the fixed recursion: `agop` against xRFM 0.4.5."""

import argparse
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from environment import describe, limit_threads, thread_count
from recursion import CONTENDERS, FIXED, TEST_ROWS, make_problem
from results import FOLDER, ResultFile

SMALL = [(1000, 20, 1), (2000, 20, 1), (2000, 20, 10), (5000, 50, 1)]
FULL = [
    *SMALL,
    (5000, 50, 10),
    (2000, 1000, 1),
    (2000, 1000, 10),
    (10000, 100, 1),
    (10000, 100, 10),
]
GRIDS = {"small": SMALL, "full": FULL}
REFERENCE = "xrfm"


@dataclass
class Timing:
    """Seconds of one fit and of the prediction of 10,000 rows."""

    fit_cpu: float
    fit_wall: float
    predict_cpu: float
    predict_wall: float


def clock(action, *arguments):
    """Call `action` and time it.

    Returns
    -------
    result : object
    cpu, wall : float
        Seconds of the processor, over all threads, and on the wall.
    """
    wall, cpu = time.perf_counter(), time.process_time()
    result = action(*arguments)
    return result, time.process_time() - cpu, time.perf_counter() - wall


def measure_once(name, problem):
    """Fit and predict with one contender.

    Returns
    -------
    timing : Timing
    error : float
        Mean squared error on the test rows.
    contender : object
        Fitted.
    """
    contender = CONTENDERS[name]()
    _, fit_cpu, fit_wall = clock(contender.fit, problem.X, problem.Y)
    Y, cpu, wall = clock(contender.predict, problem.X_new)
    error = float(np.mean((Y[:TEST_ROWS] - problem.Y_test) ** 2))
    return Timing(fit_cpu, fit_wall, cpu, wall), error, contender


def measure_case(case, models, repeats, threads):
    """Measure every model on one problem, in turns, within this process.

    Returns
    -------
    by_model : dict
        For each model the fastest of its repeats, or its ``error``.
    """
    problem = make_problem(*case)
    by_model, metrics = {name: {} for name in models}, {}
    for _ in range(repeats):
        for name in models:
            if "error" in by_model[name]:
                continue
            try:
                timing, mse, contender = measure_once(name, problem)
                if name in FIXED:
                    metrics[name] = contender.metric()
            except Exception as error:  # a failure is a result of this benchmark
                by_model[name] = {"error": f"{type(error).__name__}: {error}"[:500]}
                continue
            by_model[name] = _fastest(by_model[name], timing) | {"mse": mse}
    for name, figures in by_model.items():
        if name in metrics and REFERENCE in metrics:
            distance = metric_distance(metrics[name], metrics[REFERENCE])
            figures["metric_distance"] = distance
        if "error" not in figures:
            figures.update(peak_memory(name, case, threads))
    return by_model


def _fastest(figures, timing):
    """Keep the smaller of each time."""
    return {
        key: min(seconds, figures.get(key, seconds))
        for key, seconds in asdict(timing).items()
    }


def metric_distance(metric, reference):
    """Relative Frobenius distance after dividing each by its largest entry."""
    difference = metric / metric.max() - reference / reference.max()
    return float(
        np.linalg.norm(difference) / np.linalg.norm(reference / reference.max())
    )


def peak_memory(name, case, threads):
    """Measure the peak of one fit in a fresh process.

    Returns
    -------
    figures : dict
        ``peak_mb``, or the ``peak_error`` of the process.
    """
    script = Path(__file__).with_name("peak.py")
    command = [sys.executable, script, name, *map(str, case), str(threads)]
    child = subprocess.run(command, capture_output=True, text=True, check=False)
    if child.returncode:
        return {"peak_error": f"{child.returncode}: {child.stderr[-500:]}"}
    return {"peak_mb": float(child.stdout)}


def tabulate(records):
    """Lay the figures out, with the time and memory of `agop` over each model's.

    Returns
    -------
    rows : list of dict
    """
    rows = []
    for record in records:
        ours = record["models"].get("agop", {})
        for name, figures in record["models"].items():
            row = {"case": record["case"], "model": name, **figures}
            for key in ("fit_cpu", "fit_wall", "predict_cpu", "peak_mb"):
                if ours.get(key) and figures.get(key):
                    row[f"agop/model {key}"] = ours[key] / figures[key]
            rows.append(row)
    return rows


def run(arguments):
    """Measure each case that the file does not hold yet."""
    settings = {"models": arguments.models, "repeats": arguments.repeats}
    environment = describe(arguments.threads)
    results = ResultFile(arguments.output, environment, settings, arguments.resume)
    for case in GRIDS[arguments.grid]:
        key = "n={} d={} outputs={}".format(*case)
        if results.has(key):
            continue
        print(key, file=sys.stderr, flush=True)
        by_model = measure_case(
            case, arguments.models, arguments.repeats, arguments.threads
        )
        record = {"case": key, "models": by_model}
        failed = [name for name, figures in by_model.items() if "error" in figures]
        if failed:
            record["error"] = f"failed: {', '.join(failed)}"
        results.add(key, record)
        print(pd.DataFrame(by_model).T.to_string(), file=sys.stderr, flush=True)
    rows = tabulate(results.records)
    results.write(summary=rows)
    print(pd.DataFrame(rows).to_string(index=False, float_format="%.4g"))


def main():
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--grid", choices=GRIDS, default="small")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--models", nargs="+", choices=list(CONTENDERS), default=list(CONTENDERS)
    )
    parser.add_argument("--threads", type=thread_count, default=1)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--resume", action="store_true", help="keep what is measured")
    arguments = parser.parse_args()
    name = f"speed_{arguments.grid}_{arguments.threads}.json"
    arguments.output = arguments.output or FOLDER / name
    limit_threads(arguments.threads)
    run(arguments)


if __name__ == "__main__":
    main()

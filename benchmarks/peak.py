"""Peak memory of one fit, in a process that does nothing else (Linux).

Run by `speed`: ``python benchmarks/peak.py MODEL N D OUTPUTS THREADS`` prints the MB
that the process grew by during the fit, its highest resident size being counted from
just before, after a small fit that loads the libraries.
"""

import sys
from pathlib import Path

from environment import limit_threads
from recursion import CONTENDERS, make_problem

STATUS = Path("/proc/self/status")
RESET = Path("/proc/self/clear_refs")


def resident(field):
    """Read a size of this process in MB: VmRSS now, VmHWM at its highest."""
    for line in STATUS.read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1000 * 1.024
    raise RuntimeError(f"{STATUS} has no {field}: peak memory needs Linux")


def peak_of_fit(model, n, d, outputs):
    """Measure the growth of this process during one fit, in MB."""
    small = make_problem(200, d, outputs)
    CONTENDERS[model]().fit(small.X, small.Y)
    problem = make_problem(n, d, outputs)
    RESET.write_text("5")  # the highest size starts again from the present one
    floor = resident("VmRSS")
    CONTENDERS[model]().fit(problem.X, problem.Y)
    return resident("VmHWM") - floor


def main():
    """Print the peak for the model and the sizes on the command line."""
    model, *numbers = sys.argv[1:]
    n, d, outputs, threads = map(int, numbers)
    limit_threads(threads)
    print(round(peak_of_fit(model, n, d, outputs), 1))


if __name__ == "__main__":
    main()

"""Seconds and memory of AGOPs of networks: `agop`, loops by hand, and other libraries.

Every contender gets the same network, rows, dtype and threads, in one process, in
turns; the result of each is compared with the first one's. Networks are untrained: time
does not depend on it.
"""

import argparse
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from environment import describe, limit_threads, thread_count
from network_peers import CONTENDERS, LAYERWISE, SKETCHES
from results import FOLDER, ResultFile
from torch import nn

from agop import NetworkAGOP, subspace_overlap


# ------------------------------------------------------------------------- networks
def mlp(generator):
    """3072-1024-1024-10, as for colour images of 32 × 32."""
    return nn.Sequential(
        nn.Linear(3072, 1024),
        nn.ReLU(),
        nn.Linear(1024, 1024),
        nn.ReLU(),
        nn.Linear(1024, 10),
    )


def cnn(generator):
    """Three convolutions, 32-64-128, on colour images of 32 × 32."""
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(64, 128, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(128, 10),
    )


class Transformer(nn.Module):
    """Four layers of width 128 over 64 positions; 256 outputs at the last one."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(_Block(128, 4) for _ in range(4))
        self.head = nn.Linear(128, 256)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.head(x[:, -1])


class _Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.mix = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.feed = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x):
        n, t, width = x.shape
        shape = n, t, 3, self.heads, width // self.heads
        query, key, value = (
            self.mix(self.norms[0](x)).view(shape).permute(2, 0, 3, 1, 4)
        )
        mixed = nn.functional.scaled_dot_product_attention(
            query, key, value, is_causal=True
        )
        x = x + self.out(mixed.transpose(1, 2).reshape(n, t, width))
        return x + self.feed(self.norms[1](x))


def wide(side):
    """A convolution with stride 4 and two layers, on colour images of side × side."""
    cells = (side // 4) ** 2
    return nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=4, padding=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * cells, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


# ---------------------------------------------------------------------------- cases
@dataclass(frozen=True)
class Case:
    """One comparison.

    Parameters
    ----------
    network : callable
    shape : tuple of int
        Of one sample.
    n : int
    layers : tuple of str or None
        Where; the input if None.
    contenders : dict of callables
        ``contender(network, X, layers)`` returns a list of matrices, one for each
        layer.
    """

    network: object
    shape: tuple
    n: int
    layers: tuple | None
    contenders: dict


ALL_LAYERS = tuple(f"{index}:input" for index in range(1, 10))
BLOCKS = tuple(f"layers.{index}:input" for index in range(4))

#: The other libraries are measured on the MLP.
BY_HAND = {
    name: CONTENDERS[name] for name in ("agop", "autograd.grad loop", "vmap(jacrev)")
}

CASES = {
    "mlp input": Case(mlp, (3072,), 10_000, None, CONTENDERS),
    "cnn input": Case(cnn, (3, 32, 32), 512, None, BY_HAND),
    "cnn layers": Case(cnn, (3, 32, 32), 512, ALL_LAYERS, LAYERWISE),
    "transformer layers": Case(
        lambda generator: Transformer(), (64, 128), 32, BLOCKS, LAYERWISE
    ),
}

#: Up to this width the full matrix is measured too: minutes, and gigabytes.
LARGEST_FULL = 20_000

#: Contenders that are measured on fewer rows, because they take long or much memory.
FEWER = {"curvlinops": 64, "curvlinops top 10": 2048}


def clock(action, *arguments):
    """Call `action`; return its result, CPU seconds and wall seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = action(*arguments)
    return result, time.process_time() - cpu, time.perf_counter() - wall


def measure(case, repeats):
    """Time all contenders of a case, in turns.

    Returns
    -------
    figures : dict
        For each contender the fastest of its repeats, and how far its result is from
        that of the first, relative to the norm; or its ``error``.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = case.network(None).eval()
        X = torch.randn(case.n, *case.shape)
    figures = {name: {} for name in case.contenders}
    reference = {}
    for _ in range(repeats):
        for name, contender in case.contenders.items():
            if "error" in figures[name]:
                continue
            rows = min(FEWER.get(name, case.n), case.n)
            try:
                result, cpu, wall = clock(contender, network, X[:rows], case.layers)
            except Exception as error:  # a failure is a result of this benchmark
                figures[name] = {"error": f"{type(error).__name__}: {error}"[:300]}
                continue
            best = min(cpu, figures[name].get("cpu", cpu))
            if rows == case.n:
                reference.setdefault("G", result)
                distance = _distance(result, reference["G"])
            else:
                ours, ours_cpu, _ = clock(
                    case.contenders["agop"], network, X[:rows], case.layers
                )
                distance = _distance(result, ours)
                figures[name]["agop_cpu"] = min(
                    ours_cpu, figures[name].get("agop_cpu", ours_cpu)
                )
            figures[name].update(cpu=best, wall=wall, rows=rows, distance=distance)
    for of_name in figures.values():
        if "cpu" in of_name and "cpu" in figures["agop"]:
            ours = of_name.get("agop_cpu", figures["agop"]["cpu"])
            of_name["ratio"] = of_name["cpu"] / ours
    return figures


def _distance(result, reference):
    """The largest relative distance; None where something else is computed."""
    if result is None or any(
        a.shape != b.shape for a, b in zip(result, reference, strict=True)
    ):
        return None
    return max(
        float(np.linalg.norm(a - b) / np.linalg.norm(b))
        for a, b in zip(result, reference, strict=True)
    )


# -------------------------------------------------------------------------- sketches
def measure_sketch(side, n, repeats):
    """Ten directions of a wide input, by a sketch and exactly.

    The exact answer comes from the Gram matrix of all gradients: n is small enough for
    it. Peak memory is that of a process of its own.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = wide(side).eval()
        X = torch.randn(n, 3, side, side) * torch.linspace(2, 0.2, side)[:, None]
    figures = {}
    for _ in range(repeats):
        for name, contender in SKETCHES.items():
            if name == "full matrix" and 3 * side * side > LARGEST_FULL:
                continue
            model, cpu, wall = clock(contender, network, X)
            best = min(cpu, figures.get(name, {}).get("cpu", cpu))
            figures[name] = {"cpu": best, "wall": wall, "model": model}
    exact = figures["all gradients"]["model"]
    for of_name in figures.values():
        model = of_name.pop("model")
        overlap = subspace_overlap(
            torch.tensor(model.components_), torch.tensor(exact.components_)
        )
        of_name["overlap"] = float(overlap.mean())
        error = np.abs(model.eigenvalues_ / exact.eigenvalues_ - 1).max()
        of_name["eigenvalue_error"] = float(error)
        of_name["ratio"] = of_name["cpu"] / figures["agop low_rank"]["cpu"]
    itemsize, k = 4, 10
    figures["agop low_rank"]["peak_mb"] = _peak(side, n)
    figures["agop low_rank"]["bound_mb"] = 20 * 3 * side**2 * k * itemsize / 1e6
    return figures


def _peak(side, n):
    """MB by which a process grows during the sketch."""
    script = Path(__file__).with_name("network_peak.py")
    command = [sys.executable, str(script), str(side), str(n)]
    child = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(child.stdout)


def measure_rows(repeats):
    """CPU seconds of the exact AGOP of the MLP against the number of rows."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = mlp(None).eval()
        X = torch.randn(10_000, 3072)
    figures = {}
    for n in (1250, 2500, 5000, 10_000):
        times = [
            clock(lambda rows: NetworkAGOP(network).fit(rows), X[:n])[1]
            for _ in range(repeats)
        ]
        figures[str(n)] = {"cpu": min(times), "cpu_per_1000": 1000 * min(times) / n}
    return figures


# ------------------------------------------------------------------------------ run
def run(arguments):
    """Measure what the file does not hold yet."""
    settings = {"repeats": arguments.repeats, "dtype": "float32"}
    results = ResultFile(
        arguments.output, describe(arguments.threads), settings, arguments.resume
    )
    jobs = {
        name: lambda case=case: measure(case, arguments.repeats)
        for name, case in CASES.items()
    }
    jobs["d = 12288, ten directions"] = lambda: measure_sketch(
        64, 500, arguments.repeats
    )
    jobs["d = 49152, ten directions"] = lambda: measure_sketch(
        128, 300, arguments.repeats
    )
    jobs["linear in the rows"] = lambda: measure_rows(arguments.repeats)
    for name, job in jobs.items():
        if results.has(name) or (arguments.cases and name not in arguments.cases):
            continue
        print(name, file=sys.stderr, flush=True)
        figures = job()
        results.add(name, {"case": name, "figures": figures})
        print(pd.DataFrame(figures).T.to_string(), file=sys.stderr, flush=True)


def main():
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=thread_count, default=1)
    parser.add_argument("--cases", nargs="+")
    parser.add_argument("--output", type=Path, default=FOLDER / "network_agop.json")
    parser.add_argument("--resume", action="store_true", help="keep what is measured")
    arguments = parser.parse_args()
    limit_threads(arguments.threads)
    run(arguments)


if __name__ == "__main__":
    main()

"""Peak memory of a sketch, in a process that does nothing else (Linux).

Run by `network_agop`: ``python benchmarks/network_peak.py SIDE N`` prints the MB that
the process grew by during the fit, after a small fit that loads the libraries.
"""

import sys

import torch
from environment import limit_threads
from network_agop import wide
from peak import RESET, resident

from agop import NetworkAGOP


def main():
    """Print the growth for the sizes on the command line."""
    side, n = map(int, sys.argv[1:])
    limit_threads(1)
    torch.manual_seed(0)
    network = wide(side).eval()
    X = torch.randn(n, 3, side, side)
    model = NetworkAGOP(network, kind="low_rank", n_components=10)
    model.fit(X[:2]).components_  # noqa: B018 (decomposed when asked for)
    RESET.write_text("5")  # the highest size starts again from the present one
    floor = resident("VmRSS")
    model.fit(X).components_  # noqa: B018 (the same)
    print(round(resident("VmHWM") - floor, 1))


if __name__ == "__main__":
    main()

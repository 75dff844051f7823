"""How near a number has to be to one that was printed."""

import pytest


def printed(value, digits):
    """A number that was printed with so many digits after the point.

    Half a unit of the last digit, and a hundredth of that for decimals which binary
    numbers miss. All computations here are in float64, where another BLAS moves
    results by less than 1e-6.
    """
    return pytest.approx(value, rel=0, abs=0.505 * 10.0**-digits)

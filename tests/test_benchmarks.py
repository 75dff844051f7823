"""The benchmarks that share code with the tests can be started."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"

CODE = f"""
import runpy, sys
sys.path.insert(0, {str(BENCHMARKS)!r})
runpy.run_path({str(BENCHMARKS)!r} + "/%s.py")
print("tests.results.%s" in sys.modules, "%s" in sys.modules)
"""


@pytest.mark.parametrize(
    ("script", "protocol"),
    [
        ("results_rfm", "protocols"),
        ("results_networks", "faces"),
        ("results_concepts", "stories"),
    ],
)
def test_published_results_use_the_protocols_of_the_tests(script, protocol, tmp_path):
    """From any folder."""
    result = subprocess.run(
        [sys.executable, "-c", CODE % (script, protocol, protocol)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == "True False\n"

"""The benchmarks that share code with the tests can be started."""

import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"

CODE = f"""
import runpy, sys
sys.path.insert(0, {str(BENCHMARKS)!r})
runpy.run_path({str(BENCHMARKS / "results_rfm.py")!r})
print("tests.results.protocols" in sys.modules, "protocols" in sys.modules)
"""


def test_published_results_use_the_protocols_of_the_tests(tmp_path):
    """From any folder."""
    result = subprocess.run(
        [sys.executable, "-c", CODE],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == "True False\n"

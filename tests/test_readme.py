"""The Python example of the README runs as it stands."""

import re
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

README = Path(__file__).resolve().parent.parent / "README.md"


@pytest.mark.changes_global_state("torch generator")  # a user would seed it
def test_example_runs(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, str(README), "exec"), {"__name__": "readme"})
    plt.close("all")
    printed = capsys.readouterr().out
    for word in ("0:patch", "R²", "features", "accuracy", "probabilities"):
        assert word in printed
    assert {path.name for path in tmp_path.iterdir()} == {
        "diabetes.npz",
        "importances.png",
        "pixels.png",
    }

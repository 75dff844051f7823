"""The command line."""

import os
import re
import subprocess
import sys

import pytest

from agop import __main__ as command_line
from agop import __version__
from agop.demonstration import FacesDemonstration
from agop.demonstration import faces as demonstration_of_faces


def run(*arguments, **kwargs):
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    return subprocess.run(
        [sys.executable, "-m", "agop", *arguments],
        capture_output=True,
        check=False,
        encoding="utf-8",
        env=environment,
        **kwargs,
    )


def test_usage_without_a_command(capsys):
    assert command_line.main([]) == 0
    printed = capsys.readouterr().out
    assert "usage: python -m agop" in printed
    assert "demo" in printed and "doctor" in printed


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        command_line.main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"agop {__version__}\n"


def test_unknown_command(capsys):
    with pytest.raises(SystemExit) as stop:
        command_line.main(["dance"])
    assert stop.value.code == 2
    assert "dance" in capsys.readouterr().err


def test_demo_refuses_a_missing_folder_at_once(tmp_path, capsys):
    missing = tmp_path / "missing" / "picture.png"
    assert command_line.main(["demo", "--output", str(missing)]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_doctor_finds_nothing_wrong(capsys):
    assert command_line.main(["doctor"]) == 0
    printed = capsys.readouterr().out
    assert "Everything works." in printed
    assert "torch" in printed and "devices" in printed


def test_doctor_survives_and_tells(capsys, monkeypatch):
    def broken(*_):
        raise RuntimeError("the heart stopped")

    monkeypatch.setattr(command_line, "average_gradient_outer_product", broken)
    monkeypatch.setattr(command_line, "_version_of", lambda name: "not installed")
    assert command_line.main(["doctor"]) == 1
    printed = capsys.readouterr().out
    assert "FAILED: RuntimeError: the heart stopped" in printed
    assert "Something is wrong" in printed


def test_missing_package_is_reported():
    assert command_line._version_of("a-package-that-is-not-there") == "not installed"


def figures(printed):
    """Of every line of a table, the numbers by its name."""
    lines = printed.splitlines()
    numbers = ((line[:29].strip(), re.findall(r"[\d.]+", line[29:])) for line in lines)
    return {
        name: [float(n) for n in found] for name, found in numbers if len(found) == 3
    }


@pytest.mark.slow
def test_demo_writes_its_pictures(tmp_path):
    result = run("demo", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    pictures = sorted(tmp_path.iterdir())
    assert [path.name for path in pictures] == ["agop-demo-faces.png", "agop-demo.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)

    # What the demo claims.
    digits, faces = map(figures, result.stdout.split("-" * 79))
    machine, forest = (
        digits[name][0]
        for name in ("recursive feature machine", "random forest, 200 trees")
    )
    assert machine > 92 and machine > forest + 2
    accuracy, share, _ = faces["convolutional network"]
    assert accuracy > 88 and share > 60
    for control in ("network, labels shuffled", "network, not trained"):
        assert faces[control][1] < 25
    assert faces["logistic regression"][0] < 75


@pytest.mark.slow
def test_faces_are_told_and_drawn_in_small(monkeypatch, tmp_path):
    monkeypatch.setattr(demonstration_of_faces, "N_EPOCHS", 1)
    demonstration = FacesDemonstration(400)
    known, new = (len(rows) for rows in (demonstration.X, demonstration.X_test))
    assert known == new == 200
    printed = "\n".join(demonstration.lines())
    for name, result in demonstration.results.items():
        share = result.importances[demonstration.mask.ravel()].sum()
        shown = figures(printed)[name][:2]
        assert shown == pytest.approx([100 * result.accuracy, 100 * share], abs=0.051)
    demonstration.draw().savefig(tmp_path / "faces.png")


def test_doctor_can_compare_devices():
    assert command_line._device("cpu")

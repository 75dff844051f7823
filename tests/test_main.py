"""The command line."""

import os
import subprocess
import sys

import pytest

from agop import __main__ as command_line
from agop import __version__


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


@pytest.mark.slow
def test_demo_writes_its_picture(tmp_path):
    result = run("demo", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert (tmp_path / "agop-demo.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["agop-demo.png"]
    lines = {line[:29].strip(): line for line in result.stdout.splitlines()}
    accuracy = {
        name: float(lines[name][29:].split()[0].rstrip("%"))
        for name in ("recursive feature machine", "random forest, 200 trees")
    }
    # What the demo claims.
    machine, forest = accuracy.values()
    assert machine > 92 and machine > forest + 2


def test_doctor_can_compare_devices():
    assert command_line._device("cpu")

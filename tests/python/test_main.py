"""The command line, run as users run it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import fastoptim as fo


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "fastoptim", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_info_says_what_is_in_force() -> None:
    done = run("info")
    assert (done.returncode, done.stderr) == (0, "")
    rows = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert rows["fastoptim"] == fo.__version__
    assert int(rows["threads"]) >= 1
    assert re.search(r"^instruction set +(baseline|avx2|avx512|neon) \(", done.stdout, re.MULTILINE)
    assert re.search(r"^numpy +\d", done.stdout, re.MULTILINE)


def test_the_demo_learns_and_draws(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    picture = tmp_path / "curves.png"
    done = run("demo", "--epochs", "20", "--output", str(picture))
    assert done.returncode == 0, done.stderr
    accuracy = re.search(r"test accuracy ([\d.]+)% after 20 epochs", done.stdout)
    assert accuracy is not None
    assert float(accuracy[1]) >= 97
    assert "AdamW step" in done.stdout
    assert "cross-entropy" in done.stdout
    assert picture.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_the_demo_repeats_itself_and_draws_nothing_unless_asked(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    picture = tmp_path / "curves.png"
    arguments = ("demo", "--epochs", "2", "--seed", "7", "--no-plot", "--output", str(picture))
    first, second = (run(*arguments) for _ in range(2))
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    accuracy = re.compile(r"test accuracy [\d.]+% after 2 epochs")
    assert accuracy.findall(first.stdout) == accuracy.findall(second.stdout) != []
    assert not picture.exists()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "command"),
        (["train"], "train"),
        (["info", "--all"], "--all"),
        (["demo", "--epochs", "0"], "--epochs"),
        (["demo", "--seed", "-1"], "--seed"),
        (["demo", "--epochs", "many"], "--epochs"),
        (["demo", "--output", "no/such/directory/curves.png"], "--output"),
    ],
)
def test_what_it_does_not_know_exits_with_2(arguments: list[str], reason: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert reason in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("arguments", [["--help"], ["info", "--help"], ["demo", "--help"]])
def test_help(arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.returncode == 0
    assert "usage: python -m fastoptim" in done.stdout


def test_version() -> None:
    assert run("--version").stdout.strip() == f"fastoptim {fo.__version__}"

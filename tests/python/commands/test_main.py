"""The command line, run as users run it."""

import importlib.metadata
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastoptim as fo
from fastoptim import __main__, _core
from fastoptim.commands import selfcheck
from fastoptim.commands.bench import cases, harness
from fastoptim.commands.selfcheck import hashes


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
    for name in ("numpy", "torch", "optax", "matplotlib", "tqdm", "scikit-learn"):
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            version = "not installed"
        assert rows[name] == version


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
        (["selfcheck", "now"], "now"),
        (["bench", "--rounds", "0"], "--rounds"),
        (["bench", "--threads", "0"], "--threads"),
        (["bench", "--threads", "100000"], "--threads"),
        (["bench", "--output", "no/such/directory/bars.png"], "--output"),
        (["bench", "--output", "."], "is a directory"),
        (["demo", "--output", "."], "is a directory"),
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


@pytest.mark.parametrize("command", ["", *__main__.COMMANDS])
def test_help(command: str) -> None:
    done = run(*command.split(), "--help")
    assert done.returncode == 0
    assert f"usage: python -m fastoptim {command}".strip() in done.stdout
    if not command:
        assert all(
            re.search(rf"^ +{name}\b", done.stdout, re.MULTILINE)
            for name in ("info", "selfcheck", "bench", "demo")
        )


def test_version() -> None:
    assert run("--version").stdout.strip() == f"fastoptim {fo.__version__}"


def test_this_machine_gives_the_published_bits() -> None:
    done = run("selfcheck")
    assert (done.returncode, done.stderr) == (0, "")
    published = json.loads(hashes.PUBLISHED.read_text())
    for name, expected in published.items():
        assert re.search(rf"^  {re.escape(name)} +{expected}  same$", done.stdout, re.MULTILINE)
    for tier in _core.tiers():
        for threads in selfcheck.THREADS:
            count = f"{len(published)} of {len(published)} the same"
            assert re.search(rf"^{tier}, {threads} threads? +{count}$", done.stdout, re.MULTILINE)


def test_bits_that_differ_are_named_and_exit_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    published = json.loads(hashes.PUBLISHED.read_text())
    name, other, *_ = published
    changed = tmp_path / "selfcheck.json"
    changed.write_text(json.dumps({**published, name: "0" * 16, "NewLoss": "1" * 16}))
    monkeypatch.setattr(hashes, "PUBLISHED", changed)
    monkeypatch.setattr(selfcheck, "THREADS", (2,))
    monkeypatch.setattr(_core, "tiers", lambda: ["baseline"])
    assert __main__.main(["selfcheck", "--brief"]) == 1
    out = capsys.readouterr().out
    assert f"{published[name]} with baseline, 2 threads" in out
    assert "missing with baseline, 2 threads" in out
    assert other not in out
    assert f"baseline, 2 threads    {len(published) - 1} of {len(published) + 1} the same" in out
    monkeypatch.setattr(_core, "tiers", lambda: ["neon" if "neon" not in TIERS else "avx2"])
    assert __main__.main(["selfcheck"]) == 1
    assert "FASTOPTIM_ISA" in capsys.readouterr().err


TIERS = _core.tiers()


def test_the_bench_compares_and_draws(tmp_path: Path) -> None:
    arguments = ["bench", "--rounds", "1", "--threads", "1"]
    picture = tmp_path / "bars.png"
    if importlib.util.find_spec("matplotlib") is not None:
        arguments += ["--output", str(picture)]
    done = run(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    wanted = ["fastoptim", "NumPy out=", "stream ceiling"]
    wanted += ["torch fused"] if harness.HAS_TORCH else []
    wanted += ["optax jit"] if harness.HAS_OPTAX else []
    for name in wanted:
        found = re.findall(rf"^  {name} +[\d.]+ \w+ +([\d.]+)x +[\d.]+", done.stdout, re.MULTILINE)
        assert len(found) >= 3
        assert all(float(ratio) > 0 for ratio in found)
        assert name != "fastoptim" or set(found) == {"1.00"}
    assert "threads     1 of" in done.stdout
    assert picture.exists() is ("--output" in arguments)


def test_the_bench_tells_another_answer_and_exits_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def work(answer: float) -> cases.Work:
        contestants = {
            name: harness.Contestant(lambda: None, lambda value=value: [np.array(value)])  # type: ignore[misc]
            for name, value in (("fastoptim", 1.0), ("other", answer))
        }
        return cases.Work("addition", 8, contestants)

    monkeypatch.setattr(cases, "limit_threads", lambda _: None)
    for answer, status in ((1.0, 0), (1.5, 1)):
        monkeypatch.setattr(cases, "works", lambda full, answer=answer: [lambda: work(answer)])
        threads = str(fo.get_num_threads())
        assert __main__.main(["bench", "--rounds", "2", "--threads", threads]) == status
    caught = capsys.readouterr()
    assert "addition: fastoptim and other differ" in caught.err
    assert re.search(r"^addition +time", caught.out, re.MULTILINE)


@pytest.mark.parametrize("command", ["bench", "demo"])
def test_what_is_missing_is_named(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def find_spec(name: str, *rest: Any) -> Any:
        return None if name in ("matplotlib", "sklearn") else found(name, *rest)

    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    assert __main__.main([command, "--output", "picture.png"]) == 2
    caught = capsys.readouterr()
    assert "matplotlib" in caught.err
    assert "pip install" in caught.err
    assert caught.out == ""

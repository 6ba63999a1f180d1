"""The command line, as users run it."""

import importlib.metadata
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastoptim as fo
from fastoptim import __main__, _core
from fastoptim.commands import machine, selfcheck
from fastoptim.commands.bench import cases, harness
from fastoptim.commands.selfcheck import hashes


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "fastoptim", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_info_prints_the_settings() -> None:
    done = run("info")
    assert (done.returncode, done.stderr) == (0, "")
    rows = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert rows["fastoptim"] == fo.__version__
    assert re.fullmatch(rf"\d+ of {os.cpu_count()} processors", rows["threads"])
    assert rows["processor"] == machine.processor()
    assert rows["caches"] == machine.caches()
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
def test_invalid_arguments_exit_with_2(arguments: list[str], reason: str) -> None:
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


def test_no_command_prints_the_help() -> None:
    bare, asked = run(), run("--help")
    assert (bare.returncode, bare.stderr, bare.stdout) == (0, "", asked.stdout)


@pytest.mark.skipif(not hasattr(signal, "SIGPIPE"), reason="the system has no SIGPIPE")
@pytest.mark.parametrize("arguments", [["info"], ["--help"], ["selfcheck", "--help"]])
def test_a_reader_may_close_the_pipe(arguments: list[str]) -> None:
    """As `head` does, but before the first line."""
    end, pipe = os.pipe()
    os.close(end)
    command = [sys.executable, "-W", "error", "-m", "fastoptim", *arguments]
    try:
        done = subprocess.run(
            command, stdout=pipe, stderr=subprocess.PIPE, text=True, timeout=120, check=False
        )
    finally:
        os.close(pipe)
    assert done.stderr == ""
    # The parser ignores errors of writing.
    assert done.returncode in ({__main__.CLOSED_PIPE} | ({0} if "--help" in arguments else set()))


def test_the_verdict_comes_first_and_the_hashes_where_asked_for() -> None:
    done = run("selfcheck", "--verbose")
    assert (done.returncode, done.stderr) == (0, "")
    published = json.loads(hashes.PUBLISHED.read_text())
    verdict, where, *rest = done.stdout.splitlines()
    assert verdict == f"OK: all {len(published)} results are the published bits"
    assert all(tier in where for tier in _core.tiers())
    for name, expected in published.items():
        assert re.search(rf"^  {re.escape(name)} +{expected}  same$", done.stdout, re.MULTILINE)
    counts = rest[-len(_core.tiers()) * len(selfcheck.THREADS) :]
    for tier in _core.tiers():
        for threads in selfcheck.THREADS:
            count = f"{len(published)} of {len(published)} the same"
            assert any(re.fullmatch(rf"{tier}, {threads} threads? +{count}", c) for c in counts)


def test_bits_that_differ_are_named_and_exit_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    published = json.loads(hashes.PUBLISHED.read_text())
    name, other, *_ = published
    count = len(published)
    ran = subprocess.CompletedProcess([], 0, json.dumps({"2": published}), "")
    monkeypatch.setattr(selfcheck, "hashes_of", lambda tier: ran)
    monkeypatch.setattr(_core, "tiers", lambda: ["baseline"])
    assert __main__.main(["selfcheck"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0] == f"OK: all {count} results are the published bits"
    assert len(out.splitlines()) == 2
    changed = tmp_path / "selfcheck.json"
    changed.write_text(json.dumps({**published, name: "0" * 16, "NewLoss": "1" * 16}))
    monkeypatch.setattr(hashes, "PUBLISHED", changed)
    assert __main__.main(["selfcheck"]) == 1
    out = capsys.readouterr().out
    failed = f"FAILED: 2 of {count + 1} results differ from the published bits"
    assert out.splitlines()[0] == failed
    assert f"{published[name]} with baseline, 2 threads" in out
    assert "missing with baseline, 2 threads" in out
    assert f"  {other} " not in out
    assert f"baseline, 2 threads    {count - 1} of {count + 1} the same" in out


def test_runs_that_fail_are_named_and_exit_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_core, "tiers", lambda: ["neon" if "neon" not in TIERS else "avx2"])
    assert __main__.main(["selfcheck"]) == 1
    caught = capsys.readouterr()
    assert "FASTOPTIM_ISA" in caught.err
    assert caught.out == ""


TIERS = _core.tiers()


def test_the_bench_compares_and_draws(tmp_path: Path) -> None:
    arguments = ["bench", "--rounds", "1", "--threads", "1"]
    picture = tmp_path / "bars.png"
    if importlib.util.find_spec("matplotlib") is not None:
        arguments += ["--output", str(picture)]
    done = run(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    ceilings = ["stream of 28 B", "arithmetic"]
    wanted = ["fastoptim", "NumPy out=", *ceilings]
    wanted += ["torch fused"] if harness.HAS_TORCH else []
    wanted += ["optax jit"] if harness.HAS_OPTAX else []
    for name in wanted:
        time = r"[\d.]+ [um]?s"
        line = rf"^  {name} +{time} +{time} to {time} +([\d.]+)x +[\d.]+"
        found = re.findall(line, done.stdout, re.MULTILINE)
        assert len(found) >= (1 if name in ceilings else 3)
        assert all(float(ratio) > 0 for ratio in found)
        assert name != "fastoptim" or set(found) == {"1.00"}
    assert "threads     1 of" in done.stdout
    assert picture.exists() is ("--output" in arguments)


def test_the_bench_reports_different_results_and_exits_with_1(
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
    assert re.search(r"^addition +median", caught.out, re.MULTILINE)


@pytest.mark.parametrize("busy", [False, True])
def test_the_bench_says_when_the_machine_is_busy(
    busy: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    processors = os.cpu_count() or 1
    monkeypatch.setattr(machine, "load", lambda: processors * (1.5 if busy else 0.0))
    monkeypatch.setattr(harness, "load", machine.load)
    harness.print_machine(1)
    out = capsys.readouterr().out
    assert f"threads     1 of {processors} processors" in out
    assert re.search(r"^load +[\d.]+ in the last minute", out, re.MULTILINE)
    assert ("BUSY" in out) is busy


def test_the_picture_says_which_way_is_better(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    rows = [
        cases.Row("work", name, seconds, "1 us to 2 us", seconds, 1e9, None)
        for name, seconds in (("fastoptim", 1.0), ("other", 2.0))
    ]
    cases.draw(rows, tmp_path / "bars.svg", "svg")
    assert "time relative to fastoptim (lower is better)" in (tmp_path / "bars.svg").read_text()


def test_the_information_about_the_processor_is_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text("processor : 0\nmodel name\t: Fast CPU\n")
    for index, (level, kind, size) in enumerate(
        [("1", "Data", "48K"), ("1", "Instruction", "32K"), ("3", "Unified", "32768K")]
    ):
        folder = tmp_path / "cache" / f"index{index}"
        folder.mkdir(parents=True)
        for name, text in (("level", level), ("type", kind), ("size", size)):
            (folder / name).write_text(f"{text}\n")
    monkeypatch.setattr(machine, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(machine, "CACHES", tmp_path / "cache")
    assert machine.processor() == "Fast CPU"
    assert machine.caches() == "L1 48 KiB, L3 32 MiB"
    assert machine.last_cache() == 32 << 20
    # As on other systems.
    monkeypatch.setattr(machine, "CPUINFO", tmp_path / "none")
    monkeypatch.setattr(machine, "CACHES", tmp_path / "none")
    monkeypatch.setattr(machine, "_sysctl", lambda key: "")
    assert machine.processor()
    assert machine.caches() == "unknown"
    assert machine.last_cache() == machine.LAST_CACHE
    answers = {"machdep.cpu.brand_string": "Apple M9", "hw.l1dcachesize": "65536"}
    monkeypatch.setattr(machine, "_sysctl", lambda key: answers.get(key, ""))
    assert machine.processor() == "Apple M9"
    assert machine.caches() == "L1 64 KiB"
    assert machine.last_cache() == 64 << 10


@pytest.mark.parametrize("command", ["bench", "demo"])
def test_missing_packages_are_named(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def find_spec(name: str, *rest: Any) -> Any:
        return None if name in ("matplotlib", "sklearn") else found(name, *rest)

    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    assert __main__.main([command, "--output", "picture.png"]) == 2
    caught = capsys.readouterr()
    assert "matplotlib" in caught.err
    assert "pip install 'fastoptim[" in caught.err
    assert caught.out == ""

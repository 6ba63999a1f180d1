"""Small runs of the benchmarks, which compare the results of all contestants."""

import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import fastoptim as fo
from cases import OPTIMIZERS

FOLDER = Path(__file__).parents[3] / "benches" / "python"
SCRIPTS = sorted(FOLDER.glob("bench_*.py"))


def run(script: str, *options: str | Path) -> str:
    command = [sys.executable, str(FOLDER / script), "--quick", *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_optimizer_is_measured() -> None:
    rules = next(script for script in SCRIPTS if script.stem == "bench_rules").read_text()
    assert not [cls.__name__ for cls in OPTIMIZERS if f'"{cls.__name__}"' not in rules]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_the_results_of_all_contestants_agree(script: Path) -> None:
    if script.stem == "bench_distributed":
        pytest.importorskip("mpi4py", reason="mpi4py is not installed")
    if script.stem == "bench_torch":
        pytest.importorskip("torch", reason="torch is not installed")
    assert "agree" in run(script.name)


def test_the_report_has_each_case_with_its_errors_and_ceilings(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    run("report.py", "--only", "bench_clip", "--output", tmp_path)
    records = [json.loads(line) for line in (tmp_path / "records.jsonl").read_text().splitlines()]
    assert {record["cold"] for record in records} == {False, True}
    ours = records[0]["rows"][0]
    # A step in float32 has rounding errors, and no others.
    assert 0 < ours["error"] < 1e-6
    # With the gradients that the norm reads.
    assert records[0]["moved"] == 32 << 12
    assert [row["ceiling"] for row in records[0]["rows"]][-2:] == ["memory", "arithmetic"]
    markdown, page = ((tmp_path / f"report.{kind}").read_text() for kind in ("md", "html"))
    for record in records:
        for text in record["title"], record["case"]:
            assert text in markdown
            assert text in page
    for text in "processor", "caches", "tiers", f"{ours['error']:.1e}", "of ceiling":
        assert text in markdown
        assert text in page
    assert (tmp_path / "chart0.svg").read_text().startswith("<?xml")


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("report")


def test_kernels_below_their_ceilings_are_listed(report: Any) -> None:
    def record(case: str, held: int, share: float) -> dict[str, Any]:
        rows = [{"ratio": 1.0, "ceiling": None}, {"ratio": share, "ceiling": "memory"}]
        how = {"tier": "avx2", "threads": 2, "cold": False}
        return {"title": "a step", "case": case, "held": held, "rows": rows, **how}

    limited = record("within, slow arithmetic", 1000, 0.5)
    limited["rows"].append({"ratio": 0.89, "ceiling": "arithmetic"})
    records = [
        limited,
        record("beyond, slow", 2000, 0.94),
        record("beyond, fast", 2000, 0.96),
        record("within, slow", 1000, 0.89),
        record("within, fast", 1000, 0.91),
        record("single calls", 2000, 0.1) | {"cold": True},
    ]
    _, *rows = report.below(records, 1000).rows
    assert [(row[1], row[3], row[4]) for row in rows] == [
        ("within, slow arithmetic", "arithmetic", "89%"),
        ("beyond, slow", "memory", "94%"),
        ("within, slow", "cache", "89%"),
    ]
    assert report.below(records[2:3], 1000).text == "None of 1 cases with a ceiling."


def test_a_script_that_fails_is_named_in_the_report_which_then_fails(
    report: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    row: dict[str, Any] = {
        "contestant": "fastoptim",
        "seconds": 1e-3,
        "low": 1e-3,
        "high": 1e-3,
        "ratio": 1.0,
    }
    row |= {"ceiling": None, "error": None, "memory": None}
    case: dict[str, Any] = {
        "script": "bench_loss",
        "title": "losses",
        "case": "MSE",
        "tier": "avx2",
    }
    case |= {"threads": 2, "cold": False, "moved": None, "held": None, "rows": [row]}

    def run(script: str, _tier: str, *_options: str) -> tuple[str, bool]:
        (tmp_path / "records.jsonl").write_text(json.dumps(case))
        return "  without thinc: thinc is not installed\n", True

    monkeypatch.setattr(report, "run", run)
    options = ["report.py", "--quick", "--only", "bench_loss", "--output", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", options)
    assert report.main() == 1
    text = (tmp_path / "report.md").read_text()
    assert "FAILED: bench_loss" in text
    assert "Without thinc: thinc is not installed." in text


def test_cells_of_the_report_are_escaped(report: Any) -> None:
    block = report.Block("table", rows=(("a|b", "<c>"), ("1", "2")))
    assert block.markdown() == "| a\\|b | <c> |\n|---|---|\n| 1 | 2 |"
    assert "<th>a|b</th><th>&lt;c&gt;</th>" in block.html()


@pytest.fixture
def regressions(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("regressions")


def test_regressions_are_those_above_the_limit_by_the_median_of_rounds(regressions: Any) -> None:
    assert regressions.ratio([1.0, 2.0, 4.0], [1.1, 2.2, 40.0]) == pytest.approx(1.1)
    ratios = {"same": 1.0, "faster": 0.5, "within": 1.04, "slower": 1.06, "slowest": 2.0}
    assert regressions.slower(ratios) == ["slowest", "slower"]


def test_every_case_of_the_comparison_runs(regressions: Any) -> None:
    for make in regressions.CASES.values():
        shrunk = [min(x, 64) if isinstance(x, int) else x for x in make.args]
        make.func(*shrunk, **make.keywords)()


def test_a_build_is_compared_with_itself() -> None:
    printed = run("regressions.py", "--package", Path(fo.__file__).parents[1])
    assert "AdamW, 1 Ki" in printed
    assert "slower than the base by more than 5%" in printed


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_a_base_that_is_no_commit_is_refused() -> None:
    command = [sys.executable, str(FOLDER / "regressions.py"), "no-such-commit"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "BASE=no-such-commit is no commit of this repository" in done.stderr

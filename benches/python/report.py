"""Run the benchmarks, and write one report of them as HTML and Markdown.

    python benches/python/report.py --output target/bench

Each script runs once per tier of the processor, fastest first, with two threads, and some with one
thread or with single calls, too. Only the first run has what the others would repeat: errors, peaks
of memory, compiled contestants and the largest size. The files are report.html, report.md, the
charts, and records.jsonl with a line of JSON per case. All takes about a quarter of an hour.
"""

from __future__ import annotations

import argparse
import html
import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastoptim import _core
from fastoptim._extras import has, require
from fastoptim.commands.bench.harness import duration, machine
from fastoptim.commands.machine import last_cache
from fastoptim.plot.axes import new_figure

FOLDER = Path(__file__).parent
# Those with records; of these, a script measures single calls 5 ms apart, too, if it is COLD.
SCRIPTS = [
    "bench_optim", "bench_clip", "bench_rules", "bench_sweep", "bench_loss", "bench_torch",
    "bench_schedule",
]  # fmt: skip
COLD = {"bench_optim", "bench_clip"}
# Those that also run with one thread, and those that run no kernels, which one run is enough for.
ONE_THREAD = {"bench_optim"}
ONCE = {"bench_schedule"}
# Those that print their own tables, which the report quotes, with the package that they need.
PRINTING = {"bench_readme": "matplotlib", "bench_distributed": "mpi4py"}
# The shares of the ceiling that a kernel should reach.
MEMORY, CACHE = 0.95, 0.90
OURS = "fastoptim"
HEADER = ("", "time", "middle half", "ratio", "GB/s", "of ceiling", "error", "peak memory")

Record = dict[str, Any]


@dataclass
class Block:
    """A part of the report: a heading, a paragraph, a table, a chart or quoted text."""

    kind: str
    text: str = ""
    rows: tuple[tuple[str, ...], ...] = ()

    def markdown(self) -> str:
        if self.kind == "table":
            head, *rest = (" | ".join(cell.replace("|", "\\|") for cell in r) for r in self.rows)
            rule = "---|" * len(self.rows[0])
            return "\n".join([f"| {head} |", f"|{rule}", *(f"| {row} |" for row in rest)])
        marks = {"h1": "# {}", "h2": "## {}", "h3": "### {}", "chart": "![{0}]({0})"}
        return marks.get(self.kind, "```text\n{}\n```" if self.kind == "pre" else "{}").format(
            self.text
        )

    def html(self) -> str:
        text = html.escape(self.text)
        if self.kind == "chart":
            return f'<img src="{text}" alt="">'
        if self.kind != "table":
            return f"<{self.kind}>{text}</{self.kind}>"
        lines = [
            "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row)
            for row, tag in ((row, "td" if i else "th") for i, row in enumerate(self.rows))
        ]
        return "<table>" + "\n".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Benchmarks of fastoptim</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; }}
body {{ padding: 0 1rem; }}
table {{ border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto; }}
th, td {{ padding: .15rem .6rem; text-align: right; border-bottom: 1px solid #8884; }}
th:first-child, td:first-child {{ text-align: left; }}
img {{ max-width: 100%; background: white; }}
pre {{ overflow-x: auto; }}
</style>
<body>
{}
</body></html>
"""


def run(script: str, tier: str, *options: str) -> tuple[str, bool]:
    """Run a script on a tier. Return what it prints, and whether it failed."""
    print(f"{script} {' '.join(options)} ({tier})", flush=True)
    done = subprocess.run(
        [sys.executable, str(FOLDER / f"{script}.py"), *options],
        env={**os.environ, "FASTOPTIM_ISA": tier},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        print(done.stdout)
    return done.stdout, done.returncode != 0


def lowest(record: Record) -> Record | None:
    """Return the row of the ceiling that takes most time, of which the work cannot take less."""
    rows = [row for row in record["rows"] if row["ceiling"]]
    return max(rows, key=lambda row: row["ratio"], default=None)


def share(record: Record, row: Record) -> float | None:
    """Return the part of the speed of the lowest ceiling that a contestant reaches."""
    ceiling = lowest(record)
    return None if ceiling is None else float(ceiling["ratio"] / row["ratio"])


def configuration(record: Record) -> str:
    """Say how a case was measured."""
    calls = "single calls, 5 ms apart" if record["cold"] else "calls in a loop"
    return f"{record['tier']}, {record['threads']} threads, {calls}"


def table(record: Record) -> Block:
    """Return the table of a case: a row per contestant."""
    rows = []
    for row in record["rows"]:
        part = share(record, row)
        rows.append(
            (
                row["contestant"],
                duration(row["seconds"]),
                f"{duration(row['low'])} to {duration(row['high'])}",
                f"{row['ratio']:.2f}x",
                f"{record['moved'] / row['seconds'] / 1e9:.1f}" if record["moved"] else "",
                "" if part is None else f"{part:.0%}",
                "" if row["error"] is None else f"{row['error']:.1e}",
                "" if row["memory"] is None else f"{row['memory'] / 2**20:.1f} MiB",
            )
        )
    columns = [i for i in range(len(HEADER)) if i < 4 or any(row[i] for row in rows)]
    first = f"{record['case']}, {record['moved']:,} B" if record["moved"] else record["case"]
    lines = [(first, *HEADER[1:]), *rows]
    return Block("table", rows=tuple(tuple(line[i] for i in columns) for line in lines))


def below(records: list[Record], cache: int) -> Block:
    """Return the kernels that are further below their ceiling than they should be."""
    rows = [("kernel", "case", "measured", "bound by", "of ceiling", "wanted")]
    compared = 0
    for record in records:
        part, ceiling = share(record, record["rows"][0]), lowest(record)
        if part is None or ceiling is None or record["cold"]:
            continue
        compared += 1
        fits, bound = record["held"] <= cache, ceiling["ceiling"]
        wanted = CACHE if fits else MEMORY
        if fits and bound == "memory":
            bound = "cache"
        if part < wanted:
            rows.append(
                (record["title"], record["case"], configuration(record), bound,
                 f"{part:.0%}", f"{wanted:.0%}")
            )  # fmt: skip
    if len(rows) > 1:
        return Block("table", rows=tuple(rows))
    return Block("p", f"None of {compared} cases with a ceiling.")


def draw(records: list[Record], path: Path) -> None:
    """Draw the times of all contestants relative to fastoptim, one group of bars per case."""
    bars = sum(len(record["rows"]) + 1 for record in records)
    figure = new_figure(figsize=(9, 0.2 * bars + 1))
    axes = figure.add_subplot()
    places, names, place = [], [], 0
    for record in records:
        axes.text(1, place, record["case"], fontweight="bold", va="center", ha="left")
        for row in record["rows"]:
            place += 1
            colour = {"ceiling": "lightgray", OURS: "C1"}.get(
                "ceiling" if row["ceiling"] else row["contestant"], "C0"
            )
            # From 1 on, since the axis is logarithmic.
            bar = axes.barh(place, row["ratio"] - 1, left=1, color=colour)
            label = duration(row["seconds"]) if row["ratio"] == 1 else f"{row['ratio']:.3g}x"
            axes.bar_label(bar, [label], padding=3, fontsize=8)
            places.append(place)
            names.append(row["contestant"])
        place += 1
    axes.set_yticks(places, names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.axvline(1, color="C1", linewidth=0.8)
    axes.margins(x=0.1, y=0.01)
    axes.set_xlabel("time relative to fastoptim (above 1, fastoptim is faster)")
    axes.set_title(configuration(records[0]), fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, format="svg", metadata={"Date": None})


def blocks(
    records: list[Record], notes: list[str], printed: dict[str, str], threads: int, folder: Path
) -> Iterator[Block]:
    """Yield the report, and draw its charts into the folder."""
    yield Block("h1", "Benchmarks of fastoptim")
    yield Block("pre", f"{machine(threads)}\ntiers       {', '.join(_core.tiers())}")
    yield Block(
        "p",
        "Times are medians of alternating runs in one process, with the same threads for every"
        " library but NumPy, which has one. A ratio is the median of the ratios of the rounds to"
        " the time of fastoptim: above 1x, fastoptim is faster. The ceiling is a stream: a plain"
        " pass over as many bytes with the same mix of reads and writes; for a step in a cache, it"
        " is that or the arithmetic, the loop of the rule over one block in the L1 cache, whichever"
        " takes longer. The error is the largest"
        " one against the same work in float64, as a share of the largest value of the result.",
    )
    for note in notes:
        yield Block("p", note)
    cache = last_cache()
    yield Block("h2", "Below the ceiling")
    yield Block(
        "p",
        f"Kernels below {MEMORY:.0%} of the ceiling if their arrays exceed the last-level cache of"
        f" {cache / 2**20:g} MiB, or below {CACHE:.0%} if they fit.",
    )
    yield below(records, cache)
    first = records[0]
    groups = itertools.groupby(records, key=lambda record: (record["script"], record["title"]))
    for number, ((_, title), group) in enumerate(groups):
        found = list(group)
        yield Block("h2", title)
        shown = [
            r for r in found if all(r[key] == first[key] for key in ("tier", "threads", "cold"))
        ]
        if shown:
            draw(shown, folder / f"chart{number}.svg")
            yield Block("p", f"{configuration(first)}:")
            yield Block("chart", f"chart{number}.svg")
        for how, cases in itertools.groupby(found, key=configuration):
            yield Block("h3", how)
            yield from map(table, cases)
    for script, text in printed.items():
        yield Block("h2", script)
        yield Block("pre", text.strip())


def configurations(script: str, *, quick: bool) -> list[tuple[str, int]]:
    """Return the tiers and numbers of threads of a script, the fastest and most first."""
    tiers = [tier for tier in reversed(_core.tiers()) if tier != "baseline"] or ["baseline"]
    most = min(2, os.cpu_count() or 1)
    found = [(tier, most) for tier in tiers]
    if script in ONE_THREAD and most > 1:
        found += [(tier, 1) for tier in tiers]
    return found[: 1 if quick or script in ONCE else None]


def measure(given: argparse.Namespace, path: Path) -> tuple[list[str], dict[str, str], list[str]]:
    """Run the scripts. Return notes on what is left out, what some print, and what failed."""
    quick = ["--quick"] * given.quick
    notes: set[str] = set()
    failures: list[str] = []
    if given.quick:
        notes.add(
            "A quick run: the sizes are small, and each case ran once. Its times say nothing."
        )
    for script in given.only or SCRIPTS:
        if script == "bench_torch" and not has("torch"):
            notes.add("Without bench_torch: torch is not installed.")
            continue
        for number, (tier, threads) in enumerate(configurations(script, quick=given.quick)):
            for cold in (False, True) if script in COLD and number == 0 else (False,):
                options = [f"--threads={threads}", f"--json={path}", *quick]
                options += [f"--rounds={given.rounds}", f"--seconds={given.seconds}"]
                options += ["--cold"] * cold + ["--brief"] * (cold or number > 0)
                printed, failed = run(script, tier, *options)
                if failed:
                    failures.append(f"{script}, {tier}, {threads} threads")
                for line in re.findall(r"^  without (.+)$", printed, re.MULTILINE):
                    notes.add(f"Without {line}.")
    if not has("optax"):
        notes.add("Without optax: optax is not installed.")
    texts = {}
    for script, needed in {} if given.only else PRINTING.items():
        if has(needed):
            tier, _ = configurations(script, quick=given.quick)[0]
            texts[f"{script} ({tier})"], failed = run(script, tier, *quick)
            failures += [script] * failed
        else:
            notes.add(f"Without {script}: {needed} is not installed.")
    return sorted(notes), texts, failures


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=FOLDER.parents[1] / "target" / "bench")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument(
        "--seconds", type=float, default=0.5, help="no round of a case begins after so many"
    )
    parser.add_argument("--only", nargs="+", choices=SCRIPTS, metavar="SCRIPT")
    parser.add_argument(
        "--quick", action="store_true", help="small sizes, once, on one tier, as a test"
    )
    given = parser.parse_args()
    # Before the measurements, which take long.
    require("matplotlib", "the report")
    given.output.mkdir(parents=True, exist_ok=True)
    path = given.output / "records.jsonl"
    path.unlink(missing_ok=True)
    notes, printed, failures = measure(given, path)
    notes += [f"FAILED: {failure}. Its later cases are missing." for failure in failures]
    if not path.exists():
        raise SystemExit(f"no case was measured: {', '.join(failures) or ', '.join(notes)}")
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    # A script that ran several times has its titles once, with all configurations.
    order = list(dict.fromkeys((record["script"], record["title"]) for record in records))
    records.sort(key=lambda record: order.index((record["script"], record["title"])))
    threads = max(record["threads"] for record in records)
    found = list(blocks(records, notes, printed, threads, given.output))
    texts = "\n\n".join(block.markdown() for block in found)
    (given.output / "report.md").write_text(f"{texts}\n", encoding="utf-8")
    page = PAGE.format("\n".join(block.html() for block in found))
    (given.output / "report.html").write_text(page, encoding="utf-8")
    print(f"\nbelow the ceiling:\n\n{below(records, last_cache()).markdown()}\n")
    print(f"wrote report.html and report.md to {given.output}")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())

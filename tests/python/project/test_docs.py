"""The documentation: all public names are documented, links are valid, and the code runs."""

from __future__ import annotations

import doctest
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastoptim as fo

ROOT = Path(__file__).parents[3]
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS])

NAMES = {
    "losses": {*fo.losses.__all__, *fo.regularizers.__all__} - {"Reduction", "Regularizer"},
    "optimizers": {*fo.optim.__all__} - {"Optimizer", "StepInfo"},
    "precision": {*fo.optim.Storage._fields, *fo.amp.__all__, "EMA", "GradAccumulator"},
    "schedules": {*fo.schedules.__all__} - {"Schedule"},
    "steps": {"EMA", *fo.amp.__all__, "GradAccumulator"},
}


@pytest.mark.parametrize("page", NAMES)
def test_everything_public_is_on_its_page(page: str) -> None:
    words = set(re.findall(r"\w+", (ROOT / "docs" / f"{page}.md").read_text()))
    assert not NAMES[page] - words


ALL_PAGES = sorted([*ROOT.glob("*.md"), *DOCS, *(ROOT / "examples").glob("*.md")])


def place(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", ALL_PAGES, ids=place)
def test_lines_have_at_most_100_columns(page: Path) -> None:
    lines = page.read_text(encoding="utf-8").splitlines()
    assert not [line for line in lines if len(line) > 100]


# The web address of the repository, which the README uses, since package indexes show it, too.
FILES = "https://github.com/fastoptim/fastoptim/blob/main/"


def links(page: Path) -> list[str]:
    """The targets of the links on a page, inline and by reference."""
    text = page.read_text(encoding="utf-8")
    inline, references = r"\]\(([^)#\s]+)", r"^\[[^\]]+\]: ([^#\s]+)"
    return re.findall(inline, text) + re.findall(references, text, re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=place)
def test_links_lead_somewhere(page: Path) -> None:
    local = [page.parent / link for link in links(page) if not link.startswith("http")]
    ours = [link.removeprefix(FILES) for link in links(page) if link.startswith(FILES)]
    assert not [path for path in [*local, *(ROOT / path for path in ours)] if not path.exists()]


def test_the_description_has_no_links_that_an_index_cannot_follow() -> None:
    found = links(ROOT / "README.md")
    assert found
    assert not [link for link in found if not link.startswith("https://")]


def code(page: str) -> list[str]:
    """The blocks of code on a page."""
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def run(page: str) -> dict[str, Any]:
    """Run the blocks of a page one after the other, compare sessions, and return the variables."""
    names: dict[str, Any] = {}
    for block in code(page):
        if block.startswith(">>>"):
            session = doctest.DocTestParser().get_doctest(block, {}, page, None, None)
            session.globs = names
            assert doctest.DocTestRunner().run(session, clear_globs=False).failed == 0
        else:
            exec(block, names)
    return names


def test_the_code_of_every_page_is_run() -> None:
    tested = {"index", "reference/index", "start", "losses", "reliability", "optax_and_keras"}
    tested |= {"pytorch", "steps", "checkpoints", "precision", "schedules"}
    tested |= {"distributed"}
    pages = (page.relative_to(ROOT / "docs").with_suffix("").as_posix() for page in DOCS)
    assert {page for page in pages if code(page)} == tested


def test_the_code_on_the_first_page_runs() -> None:
    assert run("index")["loss"] < np.log(3)


def test_the_code_on_the_page_of_the_start_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    monkeypatch.chdir(tmp_path)
    names = run("start")
    assert names["loss"] < 0.2
    hidden = np.maximum(names["x"] @ names["params"]["w1"] + names["params"]["b1"], 0)
    logits = hidden @ names["params"]["w2"] + names["params"]["b2"]
    assert (logits.argmax(axis=1) == names["y"]).mean() > 0.95
    assert (tmp_path / "run.safetensors").exists()


@pytest.mark.parametrize("page", ["losses", "reliability", "reference/index"])
def test_the_code_on_a_page_runs(page: str) -> None:
    assert run(page)["fo"] is fo


def test_the_code_on_the_page_for_users_of_optax_ends_at_the_same_parameters() -> None:
    pytest.importorskip("jax", reason="jax is not installed")
    pytest.importorskip("optax", reason="optax is not installed")
    assert run("optax_and_keras")["opt"].state["w"]["step"] == 100


def test_the_code_on_the_page_of_several_processes_runs() -> None:
    pytest.importorskip("mpi4py", reason="mpi4py is not installed")
    script = "".join([*code("distributed"), "assert info.applied"])
    # In a process of its own, because MPI starts once per process.
    subprocess.run([sys.executable, "-c", script], timeout=60, check=True)


def test_the_code_on_the_page_of_pytorch_runs() -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    import fastoptim.torch

    try:
        names = run("pytorch")
    finally:
        fastoptim.torch.unpatch()
    assert names["ema"].updates == 3
    words = set(re.findall(r"\w+", (ROOT / "docs" / "pytorch.md").read_text()))
    functions = {name for name in fastoptim.torch.__all__ if name.islower()}
    assert not (functions | {"EMA"}) - words


def test_the_code_on_the_page_of_steps_runs() -> None:
    names = run("steps")
    assert len(code("steps")) == 5
    assert names["info"].applied
    # One step alone, 3 with the scaler, and one with the whole batch.
    assert names["opt"].state["w"]["step"] == names["ema"].updates == 5


def test_the_code_on_the_page_of_checkpoints_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    monkeypatch.chdir(tmp_path)
    names = run("checkpoints")
    assert names["epoch"] == names["training"].epoch == 12
    assert len(list((tmp_path / "best").iterdir())) == 3
    assert (names["model"] is names["opt"].params, names["average"].updates) == (False, 48)
    # It resumes from the file.
    names["training"].run_epoch()
    again = names["Training"]()
    again.load(names["path"])
    again.run_epoch()
    assert again.model.flat.tobytes() == names["training"].model.flat.tobytes()
    assert again.history["loss"].tolist() == names["training"].history["loss"].tolist()


def test_the_code_on_the_page_of_precision_gives_what_it_says() -> None:
    pytest.importorskip("ml_dtypes")
    names = run("precision")
    assert names["size"] == 4.03125 * names["params"].size
    assert names["losses"][-1] < names["losses"][0]
    assert names["info"].applied
    assert names["average"].updates == 200


def test_the_code_on_the_page_of_schedules_resumes_as_it_says() -> None:
    functions, safe, late = code("schedules")
    params = fo.FlatBuffer({"w": (3,)})
    names: dict[str, Any] = {"fo": fo, "params": params}
    exec(textwrap.dedent(functions), names)
    assert names["rate"](500) == 3e-4
    assert names["rate"](10_000) == 0
    trained = fo.AdamW(params, lr=3e-4)
    scheduler = fo.lr_scheduler.LinearLR(trained, total_iters=500)
    for _ in range(7):
        trained.step(params.zeros_like())
        scheduler.step()
    states = {"optimizer": trained.state_dict(), "scheduler": scheduler.state_dict()}
    for block in (safe, late):
        names["saved"] = states
        exec(block, names)
        for _ in range(9):
            assert names["opt"].param_groups[0]["lr"] == scheduler_at(names["scheduler"].last_epoch)
            names["scheduler"].step()
    # If constructed after the load and without `set_lr`, the rate stays wrong.
    exec(late.replace(", set_lr=True", ""), names)
    assert names["opt"].param_groups[0]["lr"] < 0.5 * scheduler_at(7)


def scheduler_at(step: int) -> float:
    """The rate of the page's scheduler."""
    return fo.schedules.linear(3e-4, total_iters=500)(step)

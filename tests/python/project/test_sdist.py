"""The source distribution and its metadata."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
REPOSITORY = PROJECT["project"]["urls"]["Repository"]


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The files in the source distribution."""
    maturin = shutil.which("maturin", path=str(Path(sys.executable).parent))
    if maturin is None or shutil.which("cargo") is None:
        pytest.skip("maturin or cargo is not installed")
    folder = tmp_path_factory.mktemp("sdist")
    command = [maturin, "sdist", "--out", str(folder)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    (archive,) = folder.iterdir()
    with tarfile.open(archive) as files:
        return {name.partition("/")[2] for name in files.getnames()}


def test_it_has_all_tests_and_all_that_they_include(shipped: set[str]) -> None:
    tests = {str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("*.py")}
    assert tests <= shipped
    for path in (ROOT / "tests").glob("*.rs"):
        assert f"tests/{path.name}" in shipped
        for module in re.findall(r"^mod (\w+);", path.read_text(), re.MULTILINE):
            assert shipped & {f"tests/{module}.rs", f"tests/{module}/mod.rs"}, module


def test_it_has_what_the_tests_read_and_run(shipped: set[str]) -> None:
    folders = [*PROJECT["tool"]["pytest"]["ini_options"]["pythonpath"]]
    folders += ["benches/python", "docs", "release", ".github"]
    wanted = {
        str(path.relative_to(ROOT))
        for folder in folders
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".md", ".rst", ".css", ".png", ".svg", ".yml")
        and not {"output", "generated"} & set(path.parts)
    }
    wanted |= {path.name for path in ROOT.glob("*.md")} | {*PROJECT["project"]["license-files"]}
    wanted |= {"CITATION.cff", "Makefile", "pyproject.toml"}
    assert wanted <= shipped


def test_the_urls_of_the_project_are_in_its_repository() -> None:
    for url in PROJECT["project"]["urls"].values():
        assert url.startswith(REPOSITORY)
        path = re.sub(r"^/(tree|blob)/main/", "", url.removeprefix(REPOSITORY))
        assert path in ("", "/issues") or (ROOT / path).exists()

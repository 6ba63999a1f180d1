"""What a release consists of: its version, its notes, its workflow, and who installs it."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fastoptim as fo

ROOT = Path(__file__).parents[3]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def script(name: str) -> Any:
    """Import a script of the folder `release`."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "release" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


released = script("released")


def test_all_files_have_the_same_version() -> None:
    assert released.version() == fo.__version__
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {fo.__version__}\n" in citation


def test_the_changelog_has_the_form_of_keep_a_changelog() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert "https://keepachangelog.com/" in text
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert headings[0] == "[Unreleased]"
    assert headings[1].startswith(f"[{fo.__version__}] - ")
    for heading in headings[1:]:
        assert re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", heading), heading
    for version in re.findall(r"^## \[(.+?)\]", text, re.MULTILINE):
        assert re.search(rf"^\[{re.escape(version)}\]: https://", text, re.MULTILINE), version
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.+)$", text, re.MULTILINE)) <= kinds
    date = re.search(r'^date-released: "(.+)"$', (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert date is not None
    assert headings[1].endswith(date[1])


def test_the_licenses_are_those_of_the_metadata() -> None:
    assert PROJECT["license"] == "MIT OR Apache-2.0"
    cargo = tomllib.loads((ROOT / "Cargo.toml").read_text(encoding="utf-8"))
    assert cargo["workspace"]["package"]["license"] == PROJECT["license"]
    for name in PROJECT["license-files"]:
        assert f"/{name}" in cargo["package"]["include"]
    assert "Apache License" in (ROOT / "LICENSE-APACHE").read_text(encoding="utf-8")
    assert (ROOT / "LICENSE-MIT").read_text(encoding="utf-8").startswith("MIT License")


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_by_commit(workflow: Path) -> None:
    text = workflow.read_text(encoding="utf-8")
    used = re.findall(r"uses: (\S+)(.*)", text)
    assert used
    for action, comment in used:
        assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action), action
        assert re.fullmatch(r" # (v[\d.]+|master)", comment), action


def test_the_workflow_builds_for_every_system() -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    text = (ROOT / ".github" / "workflows" / "release.yml").read_text(encoding="utf-8")
    workflow = yaml.safe_load(text)
    jobs = workflow["jobs"]
    targets = {row["target"] for row in jobs["wheels"]["strategy"]["matrix"]["include"]}
    assert targets == {
        "x86_64-unknown-linux-gnu",
        "aarch64-unknown-linux-gnu",
        "x86_64-unknown-linux-musl",
        "aarch64-unknown-linux-musl",
        "x86_64-apple-darwin",
        "aarch64-apple-darwin",
        "x86_64-pc-windows-msvc",
        "aarch64-pc-windows-msvc",
    }
    # Only the jobs that publish may write anything, and they run no code of ours.
    assert workflow["permissions"] == {}
    writing = {
        name
        for name, job in jobs.items()
        if any(value == "write" for value in job.get("permissions", {}).values())
    }
    assert writing == {"attest", "publish", "announce"}
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    assert {"check", "musl", "free-threaded", "sdist"} <= set(jobs["attest"]["needs"])
    assert "password" not in text


FILES = {
    "Cargo.toml": '[workspace.package]\nversion = "1.2.3"\n',
    "Cargo.lock": "",
    "pyproject.toml": "",
    "src/lib.rs": "",
    "python/fastoptim/__init__.py": "",
    "docs/index.md": "",
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A small repository of which version 1.2.3 is tagged."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    git(tmp_path, "init")
    commit(tmp_path)
    git(tmp_path, "tag", "v1.2.3")
    return tmp_path


def git(folder: Path, *arguments: str) -> None:
    author = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *author, *arguments], cwd=folder, check=True, capture_output=True)


def commit(folder: Path) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--message", "Change something")


def nothing(_folder: Path) -> None:
    """Leave the source as it is."""


def change_pages(folder: Path) -> None:
    (folder / "docs" / "index.md").write_text("Other words.")
    commit(folder)


def edit(folder: Path) -> None:
    (folder / "src" / "lib.rs").write_text("// Changed.\n")


def edit_and_commit(folder: Path) -> None:
    edit(folder)
    commit(folder)


def add_a_file(folder: Path) -> None:
    (folder / "python" / "fastoptim" / "new.py").write_text("")


def raise_the_version(folder: Path) -> None:
    (folder / "Cargo.toml").write_text('[workspace.package]\nversion = "1.2.4"\n')
    commit(folder)


def forget_the_tag(folder: Path) -> None:
    git(folder, "tag", "--delete", "v1.2.3")


def forget_the_history(folder: Path) -> None:
    shutil.rmtree(folder / ".git")


def lie_in_an_ignored_folder(folder: Path) -> None:
    """Be the unpacked source in a folder that another repository ignores."""
    forget_the_history(folder)
    git(folder, "init")
    (folder / ".gitignore").write_text("*\n")
    git(folder, "add", "--force", ".gitignore")
    git(folder, "commit", "--message", "Ignore everything")
    git(folder, "tag", "v1.2.3")


@pytest.mark.parametrize("change", [nothing, change_pages], ids=lambda change: change.__name__)
def test_a_released_wheel_fits_its_own_source(
    checkout: Path, change: Callable[[Path], None]
) -> None:
    change(checkout)
    assert released.is_released(checkout)


@pytest.mark.parametrize(
    "change",
    [
        edit,
        edit_and_commit,
        add_a_file,
        raise_the_version,
        forget_the_tag,
        forget_the_history,
        lie_in_an_ignored_folder,
    ],
    ids=lambda change: change.__name__,
)
def test_a_released_wheel_fits_no_other_source(
    checkout: Path, change: Callable[[Path], None]
) -> None:
    change(checkout)
    assert not released.is_released(checkout)


def test_without_git_there_is_no_released_wheel(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(checkout))
    assert not released.is_released(checkout)


def write_wheel(folder: Path, version: str) -> None:
    """Write a wheel of another fastoptim, without code and requirements."""
    metadata = f"fastoptim-{version}.dist-info"
    contents = {
        f"{metadata}/METADATA": (
            f"Metadata-Version: 2.1\nName: fastoptim\nVersion: {version}\nProvides-Extra: demo\n"
        ),
        f"{metadata}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "fastoptim/__init__.py": f'__version__ = "{version}"\n',
    }
    record = "".join(f"{name},,\n" for name in [*contents, f"{metadata}/RECORD"])
    with zipfile.ZipFile(folder / f"fastoptim-{version}-py3-none-any.whl", "w") as archive:
        for name, text in (contents | {f"{metadata}/RECORD": record}).items():
            archive.writestr(name, text)


@pytest.mark.parametrize(
    ("offered", "installed"),
    [(["99.0.0", fo.__version__], fo.__version__), (["99.0.0"], None), ([], None)],
    ids=["this", "another", "none"],
)
def test_only_this_version_is_installed(
    tmp_path: Path, offered: list[str], installed: str | None
) -> None:
    for version in offered:
        write_wheel(tmp_path, version)
    room = tmp_path / "room"
    code = f"import sys; sys.path.insert(0, {str(ROOT / 'release')!r}); import released\n"
    # `--target` instead of an environment, which takes seconds to make.
    environment = {
        **os.environ,
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(tmp_path),
        "PIP_TARGET": str(room),
        "PIP_CONFIG_FILE": os.devnull,
    }
    done = subprocess.run(
        [sys.executable, "-c", f"{code}print(released.install())"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.strip() == str(installed is not None)
    # pip warns where a target folder already has the package, here that of the first of two calls.
    assert installed is not None or done.stderr == ""
    found = [path.name for path in room.glob("*.dist-info")]
    assert found == ([f"fastoptim-{installed}.dist-info"] if installed else [])

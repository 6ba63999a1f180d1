"""Test a wheel alone: with the oldest and the newest supported NumPy, in clean environments.

`python release/check_wheel.py dist/*.whl`. Each environment is new, has no Rust on its PATH, and
has the tests in a folder without the sources of the package. The oldest NumPy that `pyproject.toml`
states is installed for the oldest Python on the PATH that the project supports, and the newest
NumPy for the newest. Further arguments are for pytest.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MAX_BYTES = 8_000_000
NO_TESTS = 5  # pytest's exit code.

# What the tests read and run, besides the package.
BESIDE = ("tests/python", "benches/python", "docs", "examples", "release", ".github")


def stop(problem: str) -> None:
    """End with a message."""
    sys.exit(f"check_wheel: {problem}")


def check_contents(wheel: Path) -> None:
    """Check the size of the wheel, and that it has what a user needs and nothing else."""
    size = wheel.stat().st_size
    if size >= MAX_BYTES:
        stop(f"{wheel.name} has {size:,} bytes, which is not below {MAX_BYTES:,}")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    package = {str(path.relative_to(ROOT / "python")) for path in (ROOT / "python").rglob("*.py")}
    package |= {f"fastoptim/{name}" for name in ("py.typed", "_core.pyi")}
    package |= {"fastoptim/commands/selfcheck/selfcheck.json"}
    if missing := package - set(names):
        stop(f"{wheel.name} lacks {sorted(missing)}")
    extensions = [name for name in names if re.fullmatch(r"fastoptim/_core\..*(so|pyd)", name)]
    licenses = {Path(name).name for name in names if "/licenses/" in name}
    other = [name for name in names if name not in package and ".dist-info/" not in name]
    if other != extensions or len(extensions) != 1:
        stop(f"{wheel.name} should have one extension module and nothing else, and has {other}")
    if not licenses >= set(PROJECT["license-files"]):
        stop(f"{wheel.name} lacks a license: {sorted(licenses)}")
    print(f"{wheel.name}: {size / 1e6:.2f} MB, {len(names)} files")


def version_of(python: str) -> tuple[int, ...] | None:
    """Return the version of an interpreter, or None if it does not run."""
    command = [python, "-c", "import sys; print(*sys.version_info[:2])"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return tuple(map(int, done.stdout.split()))


def interpreters() -> list[str]:
    """Return the interpreters on the PATH that the project supports, oldest first."""
    oldest = int(re.fullmatch(r">=3\.(\d+)", PROJECT["requires-python"])[1])
    found = [f"python3.{minor}" for minor in range(oldest, oldest + 10)]
    return [python for python in found if version_of(python)] or [sys.executable]


def path_without_rust() -> str:
    """Return the PATH without the folders that have a compiler of Rust."""
    tools = ("cargo", "rustc", "maturin")
    folders = os.environ["PATH"].split(os.pathsep)
    return os.pathsep.join(
        folder for folder in folders if not any(shutil.which(tool, path=folder) for tool in tools)
    )


def oldest_numpy() -> str:
    """Return the oldest version of NumPy that the project states."""
    (lower,) = (found[1] for d in PROJECT["dependencies"] if (found := re.match(r"numpy>=(.+)", d)))
    return f"numpy=={lower}" if lower.count(".") == 2 else f"numpy=={lower}.0"


def copy_tests(folder: Path) -> None:
    """Copy the tests and what they read, without the package."""
    for name in BESIDE:
        shutil.copytree(
            ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "output")
        )
    for path in ROOT.iterdir():
        if path.is_file() and path.suffix != ".png":
            shutil.copy(path, folder / path.name)


def check(wheel: Path, python: str, numpy: str, arguments: list[str]) -> None:
    """Install the wheel with one version of NumPy for one interpreter, and test it."""
    print(f"\n== {python}, {numpy}", flush=True)
    with tempfile.TemporaryDirectory(prefix="fastoptim-wheel-") as temporary:
        room = Path(temporary)
        subprocess.run([python, "-m", "venv", room / "venv"], check=True)
        scripts = room / "venv" / ("Scripts" if os.name == "nt" else "bin")
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PYTHON", "CARGO", "RUST", "FASTOPTIM", "VIRTUAL_ENV"))
        }
        environment["PATH"] = os.pathsep.join([str(scripts), path_without_rust()])
        environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        (room / "project").mkdir()
        copy_tests(room / "project")

        def run(*command: str) -> None:
            here = [str(scripts / "python"), "-m", *command]
            done = subprocess.run(here, cwd=room / "project", env=environment, check=False)
            # Of the tests that the further arguments select, none may be `alone`.
            if done.returncode != 0 and not (arguments and done.returncode == NO_TESTS):
                stop(f"`python -m {' '.join(command)}` failed with {numpy} on {python}")

        quiet = ("--quiet", "--disable-pip-version-check", "--only-binary", ":all:")
        run("pip", "install", *quiet, str(wheel), numpy)
        run("fastoptim", "info")
        run("fastoptim", "selfcheck")
        run("pip", "install", *quiet, f"{wheel}[demo,test]", numpy)
        run("pip", "check")
        where = ["tests/python", "--pyargs", "fastoptim", *arguments]
        run("pytest", "-m", "not alone", "--numprocesses", "auto", "--maxprocesses", "4", *where)
        run("pytest", "-m", "alone", *where)


def main() -> None:
    """Check the contents of a wheel, then the wheel in each environment."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--only", choices=["oldest", "newest"], help="one version of NumPy")
    parser.add_argument("--oldest-python", default=interpreters()[0])
    parser.add_argument("--newest-python", default=interpreters()[-1])
    # What is left is for pytest.
    given, rest = parser.parse_known_args()
    check_contents(given.wheel)
    if given.only != "newest":
        check(given.wheel.resolve(), given.oldest_python, oldest_numpy(), rest)
    if given.only != "oldest":
        check(given.wheel.resolve(), given.newest_python, "numpy", rest)
    print(f"{given.wheel.name} passed")


if __name__ == "__main__":
    main()

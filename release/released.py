"""Install the released wheel of this very source: `python release/released.py`.

Exits with 1, and installs nothing, where there is none: where the source is not, byte for byte,
that of the tag of its version, or where the package index has no wheel of that version that fits.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
# All that is in a wheel, and decides how it is built.
SOURCE = ("Cargo.lock", "Cargo.toml", "pyproject.toml", "python", "src")


def version(root: Path = ROOT) -> str:
    """Return the version of the source."""
    found = re.search(r'^version = "(.+)"$', (root / "Cargo.toml").read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


def is_released(root: Path = ROOT) -> bool:
    """Whether the source is that of the tag of its version, without changes and new files."""

    def git(*arguments: str) -> str | None:
        """Return the output of a command, or None if it fails or there is no git."""
        try:
            done = subprocess.run(
                ["git", *arguments, "--", *SOURCE],
                cwd=root,
                capture_output=True,
                text=True,
                check=True,
            )
        except (OSError, subprocess.CalledProcessError):
            return None
        return done.stdout

    # In a folder that git ignores, there would be no changes either.
    if not git("ls-files", "--error-unmatch"):
        return False
    return git("diff", "--stat", f"v{version(root)}") == "" == git("status", "--porcelain")


def install() -> bool:
    """Install the wheel and the packages for the demo, and return whether that was possible."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    name = f"fastoptim=={version()}"
    # Alone first, and without patience: there may be no network, and no such release yet.
    alone = [*pip, "--no-deps", "--only-binary", ":all:", "--timeout", "5", "--retries", "0", name]
    if subprocess.run(alone, capture_output=True, check=False).returncode != 0:
        return False
    name = f"fastoptim[demo]=={version()}"
    return subprocess.run([*pip, name], check=False).returncode == 0


def main() -> int:
    """Install the wheel, if there is one."""
    if not is_released() or not install():
        return 1
    print(f"Installed the released wheel of fastoptim {version()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

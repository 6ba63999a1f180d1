"""Print what the changelog says of the version of the source: `python release/notes.py`.

Fails where the changelog has no dated section of it. With `--version`, prints the version alone.
"""

from __future__ import annotations

import re
import sys

from released import ROOT, version


def notes(changelog: str, release: str) -> str:
    """Return the section of a version, without its heading and without links by reference."""
    heading = rf"^## \[{re.escape(release)}\] - \d{{4}}-\d\d-\d\d\n"
    found = re.search(
        rf"{heading}(.*?)(?=^## |^\[[^\]]+\]: |\Z)", changelog, re.DOTALL | re.MULTILINE
    )
    if found is None or not found[1].strip():
        sys.exit(f"notes: CHANGELOG.md has no section [{release}] with a date")
    return found[1].strip()


if __name__ == "__main__":
    if sys.argv[1:] == ["--version"]:
        print(version())
    else:
        print(notes((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), version()))

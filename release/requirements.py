"""Print what this package requires, with its extras: `python release/requirements.py EXTRA...`.

So that pip can install it before the package is built.
"""

from __future__ import annotations

import sys
import tomllib

from released import ROOT


def main() -> None:
    """Print one requirement per line."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    for requirement in [
        *project["dependencies"],
        *(r for name in sys.argv[1:] for r in extras[name]),
    ]:
        print(requirement)


if __name__ == "__main__":
    main()

"""Scripts in separate processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def run(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a new interpreter that can import the modules of these tests."""
    tests = Path(__file__).parent
    places = [tests, *(room for room in tests.iterdir() if room.is_dir())]
    paths = os.pathsep.join([*map(str, places), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": paths, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

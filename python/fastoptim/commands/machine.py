"""Information about the processor and its load."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
# The bytes of the last-level cache if they are unknown.
LAST_CACHE = 32 << 20


def processor() -> str:
    """Return the name of the processor, or its architecture if the name is unknown."""
    if CPUINFO.exists():
        for line in CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() in ("model name", "Model", "Hardware"):
                return value.strip()
    return _sysctl("machdep.cpu.brand_string") or platform.processor() or platform.machine()


def cache_sizes() -> dict[str, str]:
    """Return the sizes of the data caches of the first processor by level, such as 48K."""
    found = {}
    for index in sorted(CACHES.glob("index*")):
        try:
            level, kind, size = (
                (index / name).read_text(encoding="utf-8").strip()
                for name in ("level", "type", "size")
            )
        except OSError:
            continue
        if kind != "Instruction":
            found[f"L{level}"] = size
    for level, key in (
        ("L1", "hw.l1dcachesize"),
        ("L2", "hw.l2cachesize"),
        ("L3", "hw.l3cachesize"),
    ):
        if not CACHES.exists() and (size := _sysctl(key)) not in ("", "0"):
            found[level] = f"{int(size) // 1024}K"
    return found


def caches() -> str:
    """Return the sizes of the data caches of the first processor, if they are known."""
    found = [f"{level} {_readable(size)}" for level, size in cache_sizes().items()]
    return ", ".join(found) or "unknown"


def last_cache() -> int:
    """Return the bytes of the last-level cache."""
    sizes = [size for size in cache_sizes().values() if re.fullmatch(r"\d+K", size)]
    return int(sizes[-1][:-1]) << 10 if sizes else LAST_CACHE


def load() -> float | None:
    """Return the average load of the last minute, or None if it is unknown."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return None


def is_busy(threads: int) -> bool:
    """Return whether there are too few processors for the load and this many threads."""
    return (load() or 0.0) + threads > (os.cpu_count() or 1) + 0.5


def disturbance(threads: int) -> str:
    """Return a warning if other work disturbs measurements with this many threads."""
    if not is_busy(threads):
        return ""
    return "the machine is BUSY with other work: times are longer, and ratios may differ"


def _readable(size: str) -> str:
    """Convert a size of the kernel, such as 48K or 32768K, to KiB or MiB."""
    if not size.endswith("K") or not size[:-1].isdecimal():
        return size
    kilobytes = int(size[:-1])
    return f"{kilobytes / 1024:g} MiB" if kilobytes >= 1024 else f"{kilobytes} KiB"


def _sysctl(key: str) -> str:
    """Read a value of macOS and the BSDs; empty elsewhere."""
    program = shutil.which("sysctl")
    if program is None or platform.system() == "Linux":
        return ""
    done = subprocess.run([program, "-n", key], capture_output=True, text=True, check=False)
    return done.stdout.strip()

"""Instructions that are many times slower than those around them are rare in the kernels."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess

import pytest

from fastoptim import _core

# A masked store has its memory operand last.
MASKED_STORE = re.compile(r"\tvp?maskmov(?:p[sd]|[dq])\s.*\)$", re.MULTILINE)
GATHER_OR_SCATTER = re.compile(r"\tvp?(?:gather|scatter)[dq]", re.MULTILINE)


@pytest.fixture(scope="module")
def assembly() -> str:
    if (objdump := shutil.which("objdump")) is None:
        pytest.skip("needs objdump")
    if platform.machine().lower() not in {"x86_64", "amd64"}:
        pytest.skip("needs the instructions of x86-64")
    command = [objdump, "--disassemble", "--no-show-raw-insn", _core.__file__]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert re.search(r"\tvsqrtps\s.*zmm", text), "there is a square root for AVX-512"
    return text


def test_few_elements_are_stored_with_a_mask(assembly: str) -> None:
    # 20, at the ends of loops; 311 when loops replaced elements by 0.
    assert len(MASKED_STORE.findall(assembly)) < 100


def test_few_elements_are_gathered_or_scattered(assembly: str) -> None:
    # 400, between arrays of other shapes; 7,900 when loops were vectorized across groups.
    assert len(GATHER_OR_SCATTER.findall(assembly)) < 1000

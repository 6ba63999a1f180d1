"""Instructions that are many times slower than those around them are rare in the kernels."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from fastoptim import _core

# A masked store has its memory operand last.
MASKED_STORE = re.compile(r"\tvmaskmovp[sd] .*\)$", re.MULTILINE)
GATHER_OR_SCATTER = re.compile(r"\tvp?(?:gather|scatter)[dq]", re.MULTILINE)


@pytest.fixture(scope="module")
def assembly() -> str:
    if (objdump := shutil.which("objdump")) is None:
        pytest.skip("needs objdump")
    command = [objdump, "--disassemble", "--no-show-raw-insn", _core.__file__]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_few_elements_are_stored_with_a_mask(assembly: str) -> None:
    # 4, at the ends of loops; 300 when loops replaced elements by 0.
    assert len(MASKED_STORE.findall(assembly)) < 100


def test_few_elements_are_gathered_or_scattered(assembly: str) -> None:
    # 400, between arrays of other shapes; 7,900 when loops were vectorized across groups.
    assert len(GATHER_OR_SCATTER.findall(assembly)) < 1000

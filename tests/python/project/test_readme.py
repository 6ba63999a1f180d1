"""The README: its programs run as they are, and its chart is small and readable."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

import fastoptim as fo

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CHART = ROOT / "docs" / "images" / "speed.svg"


def program(heading: str) -> str:
    """The one block of Python below a heading."""
    section = README.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    (block,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    return str(block)


def lines(block: str) -> int:
    """Count the lines with code."""
    return sum(bool(line.strip()) for line in block.splitlines())


def test_the_program_with_numpy_trains(capsys: pytest.CaptureFixture[str]) -> None:
    block = program("NumPy")
    assert lines(block) <= 15
    first: dict[str, Any] = {}
    exec(block.replace("range(100)", "range(1)"), first)
    names: dict[str, Any] = {}
    exec(block, names)
    assert names["loss"] < 0.25 * first["loss"]
    assert names["info"].applied
    scores = names["x"] @ names["params"]["w"] + names["params"]["b"]
    assert (scores.argmax(1) == names["y"]).mean() > 0.9
    assert re.search(
        r"^loss 0\.\d{3}, norm of the gradient 0\.\d{3}$", capsys.readouterr().out, re.MULTILINE
    )


def test_the_program_with_pytorch_trains() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    block = program("PyTorch")
    assert lines(block) == 3
    torch.manual_seed(0)
    names: dict[str, Any] = {"model": torch.nn.Linear(8, 3)}
    exec(block, names)
    model, opt, loss_fn = names["model"], names["opt"], names["loss_fn"]
    assert isinstance(opt, torch.optim.Optimizer)
    assert isinstance(loss_fn, torch.nn.Module)
    x = torch.randn(64, 8)
    y = x[:, :3].argmax(1)
    values = []
    for _ in range(50):
        opt.zero_grad()
        loss = loss_fn(model(x), y)
        loss.backward()
        opt.step()
        values.append(loss.item())
    assert values[-1] < values[0]


def test_it_names_every_optimizer() -> None:
    names = {*fo.optim.__all__} - {"Hyperparameter", "Optimizer", "StepInfo", "Storage"}
    assert not names - set(re.findall(r"\w+", README))


def test_the_chart_is_small_and_compares_with_every_library() -> None:
    text = CHART.read_text(encoding="utf-8")
    assert len(text) < 64 << 10
    assert ET.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"
    for library in ("fastoptim", "NumPy", "PyTorch", "optax"):
        # One bar in each of five cases, and in the caption.
        assert text.count(f">{library}<") == 5, library
    assert f"/docs/images/{CHART.name}" in README


def luminance(colour: str) -> float:
    """The relative luminance of the Web Content Accessibility Guidelines."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("page", ["#ffffff", "#0d1117"], ids=["light", "dark"])
def test_the_chart_is_readable_on_light_and_dark_pages(page: str) -> None:
    text = CHART.read_text(encoding="utf-8")
    # Without a background of its own.
    assert not re.search(r"fill: (#ffffff|white)", text)
    words = set(re.findall(r"<text[^>]*fill: (#\w{6})", text))
    bars = set(re.findall(r"<path[^>]*fill: (#\w{6})", text))
    assert words
    assert bars
    for colours, least in ((words, 4), (bars, 3)):
        for colour in colours:
            dark, light = sorted([luminance(colour), luminance(page)])
            assert (light + 0.05) / (dark + 0.05) >= least, colour

"""Images for the examples, available offline: handwritten digits, and letters from fonts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

Array = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

STYLES = ("", "-Bold", "-Oblique", "-BoldOblique")
SERIF_STYLES = ("", "-Bold", "-Italic", "-BoldItalic")
# These fonts come with matplotlib, so the images are the same everywhere.
FAMILIES = {
    "DejaVu Sans": [f"DejaVuSans{style}" for style in STYLES],
    "DejaVu Sans Mono": [f"DejaVuSansMono{style}" for style in STYLES],
    "DejaVu Serif": [f"DejaVuSerif{style}" for style in SERIF_STYLES],
    "STIX": ["STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta"],
    "Computer Modern": ["cmr10", "cmb10", "cmti10", "cmmi10", "cmss10", "cmtt10"],
}
FONTS = [font for family in FAMILIES.values() for font in family]
# One font of each family, each in another style: unseen fonts of families in the training.
TEST_FONTS = ["DejaVuSans", "DejaVuSansMono-Bold", "DejaVuSerif-Italic", "STIXGeneralBol", "cmss10"]
CANVAS, HEIGHT = 256, 64  # The side of a glyph's canvas and the height of a letter in pixels.


@dataclass(frozen=True)
class Images:
    """Pixels from 0 to 1 and labels, for training and test."""

    x: Array
    y: Labels
    x_test: Array
    y_test: Labels


@cache
def all_digits() -> tuple[Array, Labels]:
    """Return scikit-learn's 1,797 handwritten digits as rows of 64, and their labels."""
    pixels, labels = load_digits(return_X_y=True)
    return (pixels / 16).astype(np.float32), labels.astype(np.int64)


def digits(seed: int = 0, test: float = 0.2) -> Images:
    """Return the digits, divided into training and test."""
    pixels, labels = all_digits()
    x, x_test, y, y_test = train_test_split(
        pixels, labels, test_size=test, stratify=labels, random_state=seed
    )
    return Images(x, y, x_test, y_test)


def letters(
    size: int = 16,
    count: int = 26_000,
    *,
    move: float = 0.125,
    fonts: Sequence[str] | None = None,
    test_fonts: Sequence[str] = TEST_FONTS,
    seed: int = 0,
) -> Images:
    """Render A to Z as ``count`` training images and a fifth as many test images.

    Each is a letter of a random font and scale, shifted by up to ``move`` of the side of the image
    in each direction (0.125 is two of 16 pixels). A seed gives the same letters at every ``size``.
    ``fonts`` are by default all fonts that are not in the test.
    """
    rng = np.random.default_rng(seed)
    if fonts is None:
        fonts = [font for font in FONTS if font not in test_fonts]
    x, y = render(fonts, size, count, move, rng)
    x_test, y_test = render(test_fonts, size, count // 5, move, rng)
    return Images(x, y, x_test, y_test)


def render(
    fonts: Sequence[str], size: int, count: int, move: float, rng: np.random.Generator
) -> tuple[Array, Labels]:
    """Render images of (count, size, size, 1), as many of each letter."""
    y = rng.permutation(count) % 26
    x = np.empty((count, size, size, 1), np.float32)
    sides = HEIGHT / rng.uniform(0.45, 0.65, count)  # The letter is 45 to 65% of the image.
    moves = rng.uniform(-move, move, (count, 2))
    for i, font in enumerate(rng.choice(fonts, count)):
        left, top = CANVAS / 2 - sides[i] * (0.5 + moves[i])
        box = (left, top, left + sides[i], top + sides[i])
        x[i, ..., 0] = glyph(font, y[i]).resize((size, size), Image.Resampling.BILINEAR, box)
    x /= 255
    return x, y


@cache
def glyph(font: str, letter: int) -> Any:
    """Draw a letter in the middle of a canvas."""
    path = Path(mpl.get_data_path(), "fonts", "ttf", f"{font}.ttf")
    drawn = ImageFont.truetype(path, size=HEIGHT * 4 // 3)
    canvas = Image.new("L", (CANVAS, CANVAS))
    left, top, right, bottom = drawn.getbbox(chr(ord("A") + letter))
    corner = (CANVAS - left - right) / 2, (CANVAS - top - bottom) / 2
    ImageDraw.Draw(canvas).text(corner, chr(ord("A") + letter), fill=255, font=drawn)
    return canvas


def shifted(x: Array, right: int) -> Array:
    """Shift images of (n, height, width, 1) by whole pixels, filling with zeros."""
    result = np.roll(x, right, axis=2)
    result[:, :, :right] = 0 if right > 0 else result[:, :, :right]
    if right < 0:
        result[:, :, right:] = 0
    return result

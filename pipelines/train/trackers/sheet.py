"""Misclassified pictures on one sheet, for trackers that know no captions."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipelines.train.trackers.base import Wrong

if TYPE_CHECKING:
    from PIL.Image import Image

COLUMNS = 4
SIDE = 160
"""px of a picture on the sheet"""
LINE = 14
"""px of a line of text; two below each picture"""


def sheet(wrong: Sequence[Wrong]) -> "Image":
    """The pictures, four in a row, each above its number, its confidence, and both labels.

    The font knows Latin letters alone, and no arrow: `listing` has the same numbers, and labels in any script.

    Args:
        wrong: at least one.
    """
    from PIL import Image, ImageDraw, ImageFont

    rows = -(-len(wrong) // COLUMNS)
    columns = min(COLUMNS, len(wrong))
    page = Image.new("RGB", (columns * SIDE, rows * (SIDE + 2 * LINE)), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(LINE - 3)
    for number, each in enumerate(wrong):
        x, y = number % COLUMNS * SIDE, number // COLUMNS * (SIDE + 2 * LINE)
        # pictures of 32 px are told apart by their pixels, not by a blur
        enlarged = Image.Resampling.NEAREST if each.pixels.shape[0] < SIDE else Image.Resampling.LANCZOS
        tile = Image.fromarray(each.pixels).resize((SIDE - 4, SIDE - 4), enlarged)
        page.paste(tile, (x + 2, y + 2))
        lines = (f"{number + 1}: {each.actual}", f"-> {each.predicted} ({100 * each.confidence:.1f} %)")
        for line, text in enumerate(lines):
            while draw.textlength(text, font=font) > SIDE - 4:
                text = text[:-2] + "…"
            draw.text((x + 2, y + SIDE + line * LINE), text, fill="black", font=font)
    return page


def listing(wrong: Sequence[Wrong]) -> str:
    """A line a picture: number on the sheet, caption, image id."""
    return "".join(f"{number}. {each.caption}, {each.image_id}\n" for number, each in enumerate(wrong, start=1))

"""preview.png: a sheet to judge the policies by: pictures of the training set, and below each several draws of it."""

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from pipelines.augmentation.applying import apply
from pipelines.augmentation.packs import PackIndex, PackReader, Pixels, Rows, fold_rows, read_index
from pipelines.augmentation.random import Keys, picture_keys
from pipelines.augmentation.sampling import sample_params
from pipelines.core.files import write_bytes
from pipelines.params.augment import AugmentParams, AugmentPolicy
from pipelines.params.base import Section

MAX_DRAWS, MIN_DRAWS, ALL_DRAWS = 6, 3, 12
"""draws of each picture: of one policy the most, of many the fewest, in between about so many of all policies"""


def write_preview(params: AugmentParams, *, augment_dir: Path, path: Path) -> None:
    """Draw the sheet of the packs in `augment_dir`: the very changes, by the very code, that training makes."""
    index = read_index(augment_dir / "index.parquet")
    reader = PackReader(augment_dir, index)
    chosen = choose(index, params.preview_images)
    pictures, keys = reader.read(chosen), picture_keys(index.image_id[chosen])
    num_draws = min(max(ALL_DRAWS // max(len(params.policies), 1), MIN_DRAWS), MAX_DRAWS)
    blocks = [
        Block(name, describe(policy), _strip(pictures, keys, policy, seed=params.seed, num_draws=num_draws))
        for name, policy in params.policies.items()
    ]
    if not blocks:
        blocks = [Block("no policy", "the pictures as they are packed", pictures[:, None])]
    labels = [index.classes[i] for i in index.class_index[chosen]]
    write_bytes(path, draw_sheet(blocks, labels))


def choose(index: PackIndex, count: int) -> Rows:
    """Rows of `count` training pictures, from as many classes as possible, in order of class.

    Fewer where there are fewer. The first picture of each class, then the second of each, and so on.
    """
    train = fold_rows(index, -2).train  # in no fold: all that ever train
    turn = np.empty(len(train), np.int64)
    for label in np.unique(index.class_index[train]):
        here = index.class_index[train] == label
        turn[here] = np.arange(here.sum())
    order = np.lexsort((index.class_index[train], turn))
    picked = train[_spread(order, turn, count)]
    return picked[np.argsort(index.class_index[picked], kind="stable")]


def _spread(order: Rows, turn: Rows, count: int) -> Rows:
    """The first `count` of `order`; of the last, incomplete turn, spread over the classes."""
    if len(order) <= count:
        return order
    last = turn[order[count - 1]]
    whole = order[turn[order] < last]
    partial = order[turn[order] == last]
    wanted = count - len(whole)
    return np.concatenate([whole, partial[np.arange(wanted) * len(partial) // wanted]])


def describe(policy: AugmentPolicy) -> str:
    """The policy's changes; those switched off are left out."""
    changes = [f"{name} {_value(value)}" for name, value in policy.changes.items()]
    return " · ".join(changes) if changes else "nothing changes"


def _value(value: float | Section) -> str:
    if isinstance(value, Section):
        return " ".join(part if isinstance(part, str) else f"{name.replace('_', ' ')} {part:g}" for name, part in value)
    return f"{value:g}"


def _strip(pictures: Pixels, keys: Keys, policy: AugmentPolicy, *, seed: int, num_draws: int) -> Pixels:
    """(N, 1 + num_draws, S, S, 3) uint8: the originals, then their draws."""
    images = torch.from_numpy(pictures).permute(0, 3, 1, 2).float()  # (N, 3, S, S)
    columns = [pictures]
    for epoch in range(num_draws):
        draws = sample_params(policy, seed=seed, epoch=epoch, pictures=keys)
        changed = apply(images, draws, policy).round().to(torch.uint8)
        columns.append(changed.permute(0, 2, 3, 1).contiguous().numpy())
    return np.stack(columns, axis=1)


MAX_BYTES = 1_500_000
"""of the file: pictures are shown smaller until it is no larger"""
MAX_CELL, MIN_CELL = 112, 24
"""largest and smallest side of a picture on the sheet, pixels"""
MAX_ACROSS = 10
"""pictures side by side in a block; more come below"""
MIN_WIDTH = 420
"""of a block, pixels: its text needs some"""
SHAPE = 1.4
"""width over height that the sheet comes near to: a screen's"""
GAP, MARGIN, TITLE, LINE, CAPTION = 4, 18, 26, 15, 16
PAPER, INK, FAINT = (250, 250, 248), (32, 32, 36), (110, 110, 116)
STEP = 4
"""levels: the sheet's colours are rounded to multiples of it, which nobody sees and which takes a third off the file"""


@dataclass(frozen=True)
class Block:
    """What the sheet shows of one policy.

    Args:
        name: of the policy.
        line: what it does.
        strip: (N, 1 + D, S, S, 3) uint8: N pictures, each before D draws of it.
    """

    name: str
    line: str
    strip: Pixels


def draw_sheet(blocks: Sequence[Block], labels: Sequence[str]) -> bytes:
    """The sheet as a PNG of at most MAX_BYTES, where MIN_CELL allows it.

    Args:
        blocks: at least one, all of the same pictures.
        labels: (N,) what stands above each picture.
    """
    cell = min(MAX_CELL, blocks[0].strip.shape[2])
    while True:
        image = _page(blocks, labels, cell)
        pixels = np.asarray(image).astype(np.uint16)
        rounded = ((pixels + STEP // 2) // STEP * STEP).clip(0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(rounded).save(buffer, "PNG", compress_level=5)  # the tightest takes 1.7 s for 5 % less
        size = buffer.tell()
        if size <= MAX_BYTES or cell <= MIN_CELL:
            return buffer.getvalue()
        cell = max(MIN_CELL, min(cell - 2, int(cell * math.sqrt(MAX_BYTES / size))))


def _page(blocks: Sequence[Block], labels: Sequence[str], cell: int) -> Image.Image:
    """All blocks, row by row, in as many columns as make a page."""
    small, large = ImageFont.load_default(12), ImageFont.load_default(18)
    across = max(1, min(len(labels), MAX_ACROSS))
    width = max(MIN_WIDTH, across * (cell + GAP) - GAP)
    texts = [_wrapped(block.line, width, small.getlength) for block in blocks]
    num_bands, num_rows = -(-len(labels) // across), blocks[0].strip.shape[1]
    band = CAPTION + num_rows * (cell + GAP) + 2 * GAP
    heights = [TITLE + len(lines) * LINE + num_bands * band + MARGIN for lines in texts]
    columns = _num_columns(heights, width)
    for start in range(0, len(blocks), columns):  # the pictures of a row at one height
        most = max(map(len, texts[start : start + columns]))
        texts[start : start + columns] = [
            lines + [""] * (most - len(lines)) for lines in texts[start : start + columns]
        ]
    rows = [range(start, min(start + columns, len(blocks))) for start in range(0, len(blocks), columns)]
    tops = np.cumsum([MARGIN + LINE + GAP, *(max(heights[i] for i in row) for row in rows)]).tolist()
    sheet = Image.new("RGB", (MARGIN + columns * (width + MARGIN), tops[-1]), PAPER)
    pen = ImageDraw.Draw(sheet)
    many = num_rows - 1
    pen.text((MARGIN, MARGIN - GAP), f"Above each line the pictures, below it {many} draws of each.", FAINT, font=small)
    for row, top in zip(rows, tops[:-1], strict=True):
        for column, i in enumerate(row):
            left = MARGIN + column * (width + MARGIN)
            pen.text((left, top), blocks[i].name, INK, font=large)
            for number, line in enumerate(texts[i]):
                pen.text((left, top + TITLE + number * LINE - 2), line, FAINT, font=small)
            below = top + TITLE + len(texts[i]) * LINE
            for first in range(0, len(labels), across):
                some = slice(first, first + across)
                _paste_band(sheet, blocks[i].strip[some], labels[some], left, below + first // across * band, cell)
    return sheet


def _paste_band(sheet: Image.Image, strip: Pixels, labels: Sequence[str], left: int, top: int, cell: int) -> None:
    """Some pictures side by side: label, original, a line, draws."""
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    line = top + CAPTION + cell + GAP
    pen.line((left, line, left + len(labels) * (cell + GAP) - GAP - 1, line), FAINT)
    for column, (label, pictures) in enumerate(zip(labels, strip, strict=True)):
        x = left + column * (cell + GAP)
        pen.text((x, top), _elided(_shown(label), cell, font.getlength), FAINT, font=font)
        for number, pixels in enumerate(pictures):
            image = Image.fromarray(pixels)
            if image.width > cell:
                image = image.resize((cell, cell), Image.Resampling.BOX)
            y = top + CAPTION + number * (cell + GAP) + (2 * GAP if number else 0)
            sheet.paste(image, (x, y))


def _num_columns(heights: Sequence[int], width: int) -> int:
    """How many columns of blocks bring the sheet nearest to SHAPE."""

    def off(columns: int) -> float:
        tall = sum(max(heights[start : start + columns]) for start in range(0, len(heights), columns))
        return abs(math.log(columns * (width + MARGIN) / tall / SHAPE))

    return min(range(1, len(heights) + 1), key=off)


def _wrapped(line: str, width: int, length: Callable[[str], float]) -> list[str]:
    """`line` in lines of at most this many pixels, broken at its dots."""
    lines: list[str] = []
    for part in line.split(" · "):
        if lines and length(f"{lines[-1]} · {part}") <= width:
            lines[-1] += f" · {part}"
        else:
            lines.append(part)
    return lines


def _elided(text: str, width: int, length: Callable[[str], float]) -> str:
    """`text`, cut where it is wider than this many pixels."""
    if length(text) <= width:
        return text
    while text and length(text + "...") > width:
        text = text[:-1]
    return text + "..."


def _shown(label: str) -> str:
    """Pillow's own font knows Latin letters alone: others would be empty boxes."""
    return "".join(letter if letter.isascii() or "\u00c0" <= letter <= "\u017f" else "?" for letter in label)

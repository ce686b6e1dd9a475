"""preview.png: a sheet to judge the policies by. Each policy is a block: a picture a row, then several draws of it."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from pipelines.core.augmentation import apply
from pipelines.core.draws import draw, picture_keys
from pipelines.core.files import write_bytes
from pipelines.core.packs import PackIndex, PackReader, Pixels, Rows, fold_rows, read_index
from pipelines.core.params.augment import OFF, AugmentParams, AugmentPolicy
from pipelines.core.params.base import Section

NUM_DRAWS = 7
"""draws of each picture, beside the original"""
CELL = 112
"""largest side of a picture on the sheet, pixels"""
GAP, MARGIN, TITLE, CAPTION = 6, 16, 30, 18
PAPER, INK, FAINT = (250, 250, 248), (32, 32, 36), (110, 110, 116)


def write_preview(params: AugmentParams, *, augment_dir: Path, path: Path) -> None:
    """Draw the sheet of the packs in `augment_dir`: the very changes, by the very code, that training makes."""
    index = read_index(augment_dir / "index.parquet")
    reader = PackReader(augment_dir, index)
    chosen = choose(index, params.preview_images)
    pictures = reader.read(chosen)
    blocks = [
        (name, describe(policy), _strip(pictures, index.image_id[chosen], policy, params.seed))
        for name, policy in params.policies.items()
    ]
    labels = [index.classes[i] for i in index.class_index[chosen]]
    buffer = io.BytesIO()
    _sheet(blocks, labels, min(CELL, params.image_size)).save(buffer, "PNG")
    write_bytes(path, buffer.getvalue())


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
    changes = [f"{name} {_value(value)}" for name, value in policy if value != OFF[name]]
    return " · ".join(changes) if changes else "nothing changes"


def _value(value: float | Section) -> str:
    if isinstance(value, Section):
        return " ".join(part if isinstance(part, str) else f"{name.replace('_', ' ')} {part:g}" for name, part in value)
    return f"{value:g}"


def _strip(pictures: Pixels, image_ids: np.ndarray, policy: AugmentPolicy, seed: int) -> Pixels:
    """(N, 1 + NUM_DRAWS, S, S, 3) uint8: the originals, then their draws."""
    images = torch.from_numpy(pictures).permute(0, 3, 1, 2).float()  # (N, 3, S, S)
    columns = [pictures]
    for epoch in range(NUM_DRAWS):
        draws = draw(policy, seed=seed, epoch=epoch, pictures=picture_keys(image_ids))
        changed = apply(images, draws, policy).round().to(torch.uint8)
        columns.append(changed.permute(0, 2, 3, 1).contiguous().numpy())
    return np.stack(columns, axis=1)


def _sheet(blocks: list[tuple[str, str, Pixels]], labels: list[str], cell: int) -> Image.Image:
    step = cell + GAP
    num_columns = 1 + NUM_DRAWS
    width = 2 * MARGIN + num_columns * step - GAP
    large, small = ImageFont.load_default(18), ImageFont.load_default(11)
    captions = [break_lines(line, lambda text: small.getlength(text) <= width - 2 * MARGIN) for _, line, _ in blocks]
    block_height = TITLE + len(labels) * (step + CAPTION) + MARGIN
    height = 2 * MARGIN + len(blocks) * block_height + CAPTION * sum(map(len, captions))
    sheet = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(sheet)
    top = MARGIN
    for (name, _, strip), lines in zip(blocks, captions, strict=True):
        pen.text((MARGIN, top), name, INK, font=large)
        y = top + TITLE
        for line in lines:
            pen.text((MARGIN, y - 4), line, FAINT, font=small)
            y += CAPTION
        for label, row in zip(labels, strip, strict=True):
            pen.text((MARGIN, y), f"{_shown(label)}: original, then {NUM_DRAWS} draws", FAINT, font=small)
            for column, pixels in enumerate(row):
                image = Image.fromarray(pixels)
                if image.width > cell:
                    image = image.resize((cell, cell), Image.Resampling.BOX)
                sheet.paste(image, (MARGIN + column * step, y + CAPTION))
            y += step + CAPTION
        top += block_height + CAPTION * len(lines)
    return sheet


def break_lines(text: str, fits: Callable[[str], bool]) -> list[str]:
    """`text` broken at its dots, so that each line fits; one part alone may be too long."""
    lines: list[str] = []
    for part in text.split(" · "):
        if lines and fits(f"{lines[-1]} · {part}"):
            lines[-1] += f" · {part}"
        else:
            lines.append(part)
    return lines


def _shown(label: str) -> str:
    """Pillow's own font knows Latin letters alone: others would be empty boxes."""
    return "".join(letter if letter.isascii() or "\u00c0" <= letter <= "\u017f" else "?" for letter in label)

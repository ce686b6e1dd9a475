"""The files of the sample: pictures drawn from (seed, class, index), planted flaws, their list and their reader."""

import io
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image

from pipelines.core.errors import ImageError
from pipelines.core.files import write_csv
from pipelines.images.decoding import Pixels, decode
from pipelines.ingest.listing import Listing
from pipelines.ingest.sample.dice import Dice, file_index, file_name
from pipelines.ingest.sample.guitar import look, paint_body, paint_parts, silhouette
from pipelines.ingest.sample.models import CLASSES, catalogue
from pipelines.ingest.sample.scene import background, camera, cast_shadow, light_and_lens, occlude, stand
from pipelines.params.sources import SampleSource

EXTRA = 50_000_000
"""index of the first planted file of a class: far from the pictures, so that more pictures never meet a flaw"""

NEAR_KINDS = ("resized", "recompressed", "cropped", "mirrored", "brightness")
CONFLICT_KINDS = ("bytes", "recompressed")
BROKEN_KINDS = ("truncated", "empty", "garbage", "corrupt-png")
FOREIGN_KINDS = ("note", "html", "ds_store", "thumbs")


@dataclass(frozen=True)
class SampleReader:
    """Draws the file behind a path; small, so that it travels to workers with every chunk."""

    params: SampleSource

    def __call__(self, source_path: str) -> bytes:
        """The whole file.

        Raises:
            ImageError: `missing`, where the sample has no such file.
        """
        plans = plan(self.params)
        if source_path in plans:
            return planted_bytes(self.params, plans[source_path])
        label, _, name = source_path.partition("/")
        stem, _, ext = name.partition(".")
        if label in CLASSES and ext == "jpg" and len(stem) == 8 and stem.isdecimal() and stem.isascii():
            index = file_index(self.params.seed, label, stem)
            if index < self.params.images_per_class:
                return draw(self.params, label, index)
        raise ImageError("missing", f"the sample has no file {source_path}")


def list_sample(params: SampleSource, *, source: str) -> Listing:
    """List the pictures and the planted files; nothing is drawn.

    Args:
        source: index and kind of the entry of ingest.sources: "0-sample".
    """
    paths = [file_name(params.seed, label, index) for label in CLASSES for index in range(params.images_per_class)]
    paths += plan(params)
    paths.sort()
    by_name = {label: label for label in CLASSES}  # one string object a class, however many files
    labels = [by_name[path[: path.index("/")]] for path in paths]
    return Listing(source=source, paths=paths, labels=labels, read=SampleReader(params), rejects=[])


def draw_pixels(params: SampleSource, model: str, index: int) -> Pixels:
    """The picture before it is compressed.

    Returns:
        (S, S, 3) uint8 RGB, S = params.image_size. It depends on seed, image_size, difficulty, model and index alone.
    """
    size, difficulty = params.image_size, params.difficulty
    # drawn larger, then averaged, instead of smooth edges, which Pillow does not draw
    oversampling = 2 if size > 64 else 3
    side = size * oversampling
    dice = Dice(params.seed, "picture", model, index)
    guitar = look(model, dice, difficulty)
    view = camera(dice, side, difficulty)
    canvas = background(dice, side, difficulty)
    if abs(view.turn) < 12 and dice.chance(0.3):
        stand(canvas, view)
    cast_shadow(canvas, silhouette(guitar, view, max(32, side // 4)), dice)
    paint_body(canvas, guitar, view, dice)
    paint_parts(canvas, guitar, view, dice)
    if dice.chance(0.3 * difficulty):
        occlude(canvas, view, dice)
    return light_and_lens(canvas.reduce(oversampling), dice, difficulty)


def draw(params: SampleSource, model: str, index: int) -> bytes:
    """The JPEG file of one picture."""
    dice = Dice(params.seed, "file", model, index)
    quality = dice.whole(92 - int(45 * params.difficulty), 95)
    return encode(draw_pixels(params, model, index), quality)


def encode(pixels: Pixels, quality: int) -> bytes:
    """JPEG bytes; the accurate integer DCT, whose result no CPU changes."""
    data: bytes = simplejpeg.encode_jpeg(
        np.ascontiguousarray(pixels), quality=quality, colorspace="RGB", colorsubsampling="420", fastdct=False
    )
    return data


def resized(pixels: Pixels, percent: int) -> Pixels:
    """`pixels`, (H, W, 3), at `percent` of their size."""
    height, width = pixels.shape[:2]
    size = (max(1, width * percent // 100), max(1, height * percent // 100))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))


@dataclass(frozen=True)
class PlantedFlaw:
    """One planted flaw; a row of truth.csv.

    Args:
        source_path: the planted file, below the source.
        flaw: exact_copy, near_copy, label_conflict, wrong_label, broken_file or foreign_file.
        original_path: the picture that it is a copy of, else "".
        true_label: the model that is really shown; "" for what shows none.
        detail: which kind of the flaw.
    """

    source_path: str
    flaw: str
    original_path: str
    true_label: str
    detail: str


@dataclass(frozen=True)
class _FlawPlan:
    """How to make one planted file: `model` and `index` say which picture is behind it."""

    row: PlantedFlaw
    model: str
    index: int


@lru_cache(maxsize=8)
def plan(params: SampleSource) -> dict[str, _FlawPlan]:
    """Every planted file by its path. Each picture is copied at most once, so that every row has one original."""
    flaws = params.flaws
    dice = Dice(params.seed, "flaws")
    slots = dict.fromkeys(CLASSES, EXTRA)
    originals = _originals(params, dice, flaws.exact_copies + flaws.near_copies + flaws.label_conflicts)
    plans: dict[str, _FlawPlan] = {}

    def plant(
        label: str, flaw: str, model: str, index: int, *, copied: bool, truth: str, detail: str, ext: str
    ) -> None:
        path = file_name(params.seed, label, slots[label], ext)
        slots[label] += 1
        original = file_name(params.seed, model, index) if copied else ""
        plans[path] = _FlawPlan(PlantedFlaw(path, flaw, original, truth, detail), model, index)

    for _ in range(flaws.exact_copies):
        model, index = originals.pop()
        plant(model, "exact_copy", model, index, copied=True, truth=model, detail="bytes", ext="jpg")
    for i in range(flaws.near_copies):
        model, index = originals.pop()
        kind = NEAR_KINDS[i % len(NEAR_KINDS)]
        plant(model, "near_copy", model, index, copied=True, truth=model, detail=kind, ext="jpg")
    for i in range(flaws.label_conflicts):
        model, index = originals.pop()
        label, kind = dice.pick(catalogue().look_alikes[model])[0], CONFLICT_KINDS[i % len(CONFLICT_KINDS)]
        plant(label, "label_conflict", model, index, copied=True, truth=model, detail=kind, ext="jpg")
    for i in range(flaws.wrong_labels):
        model = dice.pick(CLASSES)
        label = dice.pick(catalogue().look_alikes[model])[0]
        plant(label, "wrong_label", model, EXTRA + i, copied=False, truth=model, detail="filed elsewhere", ext="jpg")
    for i in range(flaws.broken_files):
        model, kind = dice.pick(CLASSES), BROKEN_KINDS[i % len(BROKEN_KINDS)]
        ext = "png" if kind == "corrupt-png" else "jpg"
        plant(model, "broken_file", model, 2 * EXTRA + i, copied=False, truth="", detail=kind, ext=ext)
    for i in range(flaws.foreign_files):
        model, kind = dice.pick(CLASSES), FOREIGN_KINDS[i % len(FOREIGN_KINDS)]
        if kind == "html":
            plant(model, "foreign_file", model, i, copied=False, truth="", detail=kind, ext="jpg")
            continue
        path = _free_path(plans, model, kind)
        plans[path] = _FlawPlan(PlantedFlaw(path, "foreign_file", "", "", kind), model, i)
    return plans


def _originals(params: SampleSource, dice: Dice, count: int) -> list[tuple[str, int]]:
    """`count` different pictures, drawn without a list of all of them: there may be a million."""
    chosen: dict[tuple[str, int], None] = {}
    if 2 * count > len(CLASSES) * params.images_per_class:
        return dice.shuffled([(model, i) for model in CLASSES for i in range(params.images_per_class)])[:count]
    while len(chosen) < count:
        chosen[dice.pick(CLASSES), dice.whole(0, params.images_per_class - 1)] = None
    return list(chosen)


def _free_path(plans: dict[str, _FlawPlan], label: str, kind: str) -> str:
    """A natural name for a foreign file; a number is added where the folder has one already."""
    stem, ext = {"note": ("notes", ".txt"), "ds_store": (".DS_Store", ""), "thumbs": ("Thumbs", ".db")}[kind]
    number, path = 1, f"{label}/{stem}{ext}"
    while path in plans:
        number += 1
        path = f"{label}/{stem} ({number}){ext}"
    return path


def planted(params: SampleSource) -> list[PlantedFlaw]:
    """What is planted, sorted by path."""
    plans = plan(params)
    return [plans[path].row for path in sorted(plans)]


def write_truth(params: SampleSource, path: Path) -> None:
    """Write truth.csv: `source_path,flaw,original_path,true_label,detail`, sorted by path."""
    rows = ([r.source_path, r.flaw, r.original_path, r.true_label, r.detail] for r in planted(params))
    write_csv(path, ("source_path", "flaw", "original_path", "true_label", "detail"), rows)


def planted_bytes(params: SampleSource, plan: _FlawPlan) -> bytes:
    """The file that `plan` describes."""
    row = plan.row
    if row.flaw == "foreign_file":
        return _foreign(row, Dice(params.seed, "foreign", row.source_path))
    data = draw(params, plan.model, plan.index)
    if row.flaw == "broken_file":
        return _broken(row.detail, data, Dice(params.seed, "broken", row.source_path))
    if row.flaw == "near_copy":
        pixels = decode(data, max_pixels=2**24).pixels
        return NEAR[row.detail](pixels, Dice(params.seed, "near", row.source_path))
    if row.flaw == "label_conflict" and row.detail == "recompressed":
        return encode(decode(data, max_pixels=2**24).pixels, 60)
    return data


def _cropped(pixels: Pixels, dice: Dice) -> bytes:
    """5 to 8 % off one side, and off each of the others by a coin."""
    cuts = [dice.whole(5, 8) if dice.chance(0.4) else 0 for _ in range(4)]
    cuts[dice.whole(0, 3)] = dice.whole(5, 8)
    height, width = pixels.shape[:2]
    top, left = max(height * cuts[0] // 100, int(cuts[0] > 0)), max(width * cuts[1] // 100, int(cuts[1] > 0))
    low, right = max(height * cuts[2] // 100, int(cuts[2] > 0)), max(width * cuts[3] // 100, int(cuts[3] > 0))
    return encode(pixels[top : height - low, left : width - right], 90)


def _brightness(pixels: Pixels, dice: Dice) -> bytes:
    percent = dice.pick((72, 80, 120, 130))
    return encode(np.minimum(pixels.astype(np.int32) * percent // 100, 255).astype(np.uint8), 90)


NEAR: dict[str, Callable[[Pixels, Dice], bytes]] = {
    "resized": lambda pixels, _: encode(resized(pixels, 75), 90),
    "recompressed": lambda pixels, _: encode(pixels, 40),
    "cropped": _cropped,
    "mirrored": lambda pixels, _: encode(pixels[:, ::-1], 90),
    "brightness": _brightness,
}


def _broken(kind: str, data: bytes, dice: Dice) -> bytes:
    if kind == "truncated":
        return data[: len(data) * dice.whole(35, 60) // 100]
    if kind == "empty":
        return b""
    if kind == "garbage":
        return dice.noise(len(data))
    file = io.BytesIO()
    Image.fromarray(decode(data, max_pixels=2**24).pixels).save(file, "PNG")
    png = bytearray(file.getvalue())
    start = png.index(b"IDAT") + 4
    # the stream's own header: neither a reader that checks the sum of the chunk nor one that skips it gets a picture
    png[start : start + 2] = b"\xff\xff"
    return bytes(png)


def _foreign(row: PlantedFlaw, dice: Dice) -> bytes:
    label = row.source_path.split("/")[0]
    if row.detail == "note":
        return f"{label}: ask the shop for a better photograph of the headstock ({dice.whole(100, 999)}).\n".encode()
    if row.detail == "html":
        return (
            "<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head>\n"
            f"<body><h1>Not Found</h1><p>item {dice.whole(10_000, 99_999)}</p></body></html>\n"
        ).encode()
    if row.detail == "ds_store":
        return b"\x00\x00\x00\x01Bud1" + zlib.compress(label.encode()) + dice.noise(64)
    return b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(504) + dice.noise(64)

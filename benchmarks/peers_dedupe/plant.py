"""Plants near copies in a folder of pictures: five kinds as in the published comparison, or every kind x strength.

    python benchmarks/peers_dedupe/plant.py five  OUT --per-kind 500 --into 10k=CIFAR/test \\
        --into 60k=CIFAR/test,CIFAR/train
    python benchmarks/peers_dedupe/plant.py edits OUT --per-kind 60 --into guitars=FOLDER

FOLDER holds a folder of pictures for each class; of several folders with commas between them, all are joined. Every
`--into NAME=FOLDER` gives OUT/NAME (hard links, and the copies) and OUT/NAME.truth.csv (kind,original,copy; paths
below OUT/NAME). Copies are of pictures of the very first folder, each original is used once, and the same arguments
give the same bytes.
"""

import argparse
import csv
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageOps

Edit = Callable[[Image.Image], Image.Image]
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


@dataclass(frozen=True)
class Change:
    """What is done to a picture before it is saved again."""

    edit: Edit
    quality: int = 90


def same(picture: Image.Image) -> Image.Image:
    """Nothing: the copy is only saved again."""
    return picture


def resize(share: float) -> Edit:
    """Both sides times `share`."""

    def edit(picture: Image.Image) -> Image.Image:
        width, height = picture.size
        return picture.resize((max(1, round(width * share)), max(1, round(height * share))), Image.Resampling.BICUBIC)

    return edit


def cut(left: float, top: float, right: float, bottom: float, *, stretch: bool = False) -> Edit:
    """Take these shares of width and height off the four sides; `stretch` brings the rest back to the old size."""

    def edit(picture: Image.Image) -> Image.Image:
        width, height = picture.size
        box = (round(left * width), round(top * height), width - round(right * width), height - round(bottom * height))
        part = picture.crop(box)
        return part.resize(picture.size, Image.Resampling.BICUBIC) if stretch else part

    return edit


def border(share: float, colour: str) -> Edit:
    """A frame as wide as `share` of the shorter side."""
    return lambda picture: ImageOps.expand(picture, max(1, round(share * min(picture.size))), colour)


def blur(share: float) -> Edit:
    """Gaussian, its deviation a share of the shorter side."""
    return lambda picture: picture.filter(ImageFilter.GaussianBlur(share * min(picture.size)))


def gamma(power: float) -> Edit:
    """Levels to the power."""
    return lambda picture: picture.point([round(255 * (level / 255) ** power) for level in range(256)] * 3)


def mark(width_share: float, height_share: float, opacity: float) -> Edit:
    """A white box with bars of text in a lower corner: a logo or a date."""

    def edit(picture: Image.Image) -> Image.Image:
        width, height = picture.size
        box = Image.new("RGB", (max(2, round(width * width_share)), max(2, round(height * height_share))), "white")
        draw = ImageDraw.Draw(box)
        for x in range(1, box.width - 1, 4):
            draw.line((x, box.height // 4, x, 3 * box.height // 4), fill="black")
        place = (round(0.96 * width) - box.width, round(0.96 * height) - box.height)
        under = picture.crop((*place, place[0] + box.width, place[1] + box.height))
        copy = picture.copy()
        copy.paste(Image.blend(under, box, opacity), place)
        return copy

    return edit


def turn(how: Image.Transpose) -> Edit:
    """By right angles, or mirrored."""
    return lambda picture: picture.transpose(how)


def brightness(factor: float) -> Edit:
    return lambda picture: ImageEnhance.Brightness(picture).enhance(factor)


def contrast(factor: float) -> Edit:
    return lambda picture: ImageEnhance.Contrast(picture).enhance(factor)


def grey(picture: Image.Image) -> Image.Image:
    return picture.convert("L").convert("RGB")


def one_edge(picture: Image.Image) -> Image.Image:
    """5 % off the left and the top, at least one pixel: what the published comparison calls crop5."""
    width, height = picture.size
    return picture.crop((max(1, round(width * 0.05)), max(1, round(height * 0.05)), width, height))


FIVE = {
    "resize": Change(resize(0.75)),
    "q40": Change(same, 40),
    "crop5": Change(one_edge),
    "bright10": Change(brightness(1.1)),
    "flip": Change(ImageOps.mirror),
}

EDITS = {
    "resize 75 %": Change(resize(0.75)),
    "resize 50 %": Change(resize(0.5)),
    "resize 25 %": Change(resize(0.25)),
    "quality 70": Change(same, 70),
    "quality 40": Change(same, 40),
    "quality 15": Change(same, 15),
    "brightness 1.2": Change(brightness(1.2)),
    "brightness 0.7": Change(brightness(0.7)),
    "contrast 0.6": Change(contrast(0.6)),
    "contrast 1.4": Change(contrast(1.4)),
    "gamma 0.7": Change(gamma(0.7)),
    "gamma 1.5": Change(gamma(1.5)),
    "blur 0.5 %": Change(blur(0.005)),
    "blur 1.5 %": Change(blur(0.015)),
    "crop 5 %, corner": Change(cut(0, 0, 0.05, 0.05)),
    "crop 10 %, corner": Change(cut(0.1, 0.1, 0, 0)),
    "crop 10 %, centre": Change(cut(0.05, 0.05, 0.05, 0.05)),
    "crop 10 %, one side": Change(cut(0.1, 0, 0, 0)),
    "crop 10 %, one side, stretched": Change(cut(0.1, 0, 0, 0, stretch=True)),
    "crop 20 %, centre": Change(cut(0.1, 0.1, 0.1, 0.1)),
    "border 3 %, white": Change(border(0.03, "white")),
    "border 5 %, black": Change(border(0.05, "black")),
    "border 10 %, white": Change(border(0.1, "white")),
    "mark 20 x 6 %, half": Change(mark(0.2, 0.06, 0.5)),
    "mark 20 x 6 %, opaque": Change(mark(0.2, 0.06, 1.0)),
    "mark 35 x 8 %, opaque": Change(mark(0.35, 0.08, 1.0)),
    "mirror": Change(ImageOps.mirror),
    "mirror, crop 5 %, quality 40": Change(lambda p: ImageOps.mirror(cut(0, 0, 0.05, 0.05)(p)), 40),
    "turn 90": Change(turn(Image.Transpose.ROTATE_90)),
    "turn 180": Change(turn(Image.Transpose.ROTATE_180)),
    "turn 270": Change(turn(Image.Transpose.ROTATE_270)),
    "grey": Change(grey),
}


def pictures_of(folder: Path) -> list[str]:
    """Every picture below `folder`, as paths with /, sorted."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)


def link(source: Path, target: Path) -> None:
    """A hard link, or a copy where the file system has none; a file that is there stays."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        return
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def plant(changes: dict[str, Change], out: Path, sets: dict[str, list[Path]], per_kind: int) -> None:
    """Write each set and its truth; pictures of a set's further folders get the folder's name in front of theirs."""
    base = next(iter(sets.values()))[0]
    originals = pictures_of(base)
    chosen = np.random.default_rng(0).permutation(len(originals))
    per_kind = min(per_kind, len(originals) // len(changes))
    rows: list[tuple[str, str, str]] = []
    for number, (kind, change) in enumerate(changes.items()):
        slug = "".join(letter if letter.isalnum() else "-" for letter in kind)
        for place in chosen[number * per_kind : (number + 1) * per_kind].tolist():
            original = Path(originals[place])
            copy = original.with_name(f"copy-{slug}-{original.stem}.jpg")
            path = out / ".copies" / copy
            path.parent.mkdir(parents=True, exist_ok=True)
            with Image.open(base / original) as picture:
                change.edit(picture.convert("RGB")).save(path, "JPEG", quality=change.quality)
            rows.append((kind, original.as_posix(), copy.as_posix()))
    for name, folders in sets.items():
        for folder in folders:
            prefix = "" if folder == folders[0] else f"{folder.name}-"
            for found in map(Path, pictures_of(folder)):
                link(folder / found, out / name / found.with_name(prefix + found.name))
        for _, _, copied in rows:
            link(out / ".copies" / copied, out / name / copied)
        with (out / f"{name}.truth.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("kind", "original", "copy"))
            writer.writerows(rows)


def main() -> None:
    """Plant what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("changes", choices=("five", "edits"))
    parser.add_argument("out", type=Path)
    parser.add_argument("--per-kind", type=int, default=500)
    parser.add_argument("--into", action="append", required=True, metavar="NAME=FOLDER[,FOLDER]")
    options = parser.parse_args()
    sets = {}
    for given in options.into:
        name, _, folders = given.partition("=")
        sets[name] = [Path(folder) for folder in folders.split(",")]
    plant(FIVE if options.changes == "five" else EDITS, options.out, sets, options.per_kind)


if __name__ == "__main__":
    main()

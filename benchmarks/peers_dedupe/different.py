"""Pictures of different things that differ little: hard negatives for "is a copy of", from real pictures and drawn.

Each edit of REAL makes another instrument of the picture of one on a plain ground: another colour, a darker finish,
another pickup, other inlays; None where the picture shows too little of an object. TWINS draws pairs of the sample
source's guitars that differ in one part alone.
"""

from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from plant import link, pictures_of
from project import ROOT

from pipelines.ingest.sample import files as sample
from pipelines.ingest.sample.guitar import GuitarLook, look
from pipelines.ingest.sample.models import catalogue
from pipelines.params import load_params
from pipelines.params.sources import SampleSource


def _object(pixels: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]] | None:
    """(H, W) what differs from the colour of the edge, and (3, 2) its middle, its long axis and its reach, pixels."""
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    mask = np.abs(pixels - np.median(edge, axis=0)).max(axis=2) > 40
    if not 0.08 < mask.mean() < 0.8:
        return None
    places = np.argwhere(mask)[:, ::-1]
    middle = places.mean(axis=0)
    axis = np.linalg.eigh(np.cov((places - middle).T))[1][:, 1]
    along = (places - middle) @ axis
    # towards the far end, which is the neck's
    axis *= 1 if along.max() > -along.min() else -1
    return mask, np.stack([middle, axis, axis * np.abs(along).max()])


def another_colour(picture: Image.Image) -> Image.Image | None:
    hsv, found = np.array(picture.convert("HSV")), _object(np.asarray(picture))
    body = found[0] & (hsv[..., 1] > 70) & (hsv[..., 2] > 50) if found else np.zeros(1)
    if body.mean() < 0.06:
        return None
    hsv[..., 0] = np.where(body, hsv[..., 0] + np.uint8(110), hsv[..., 0])
    return Image.fromarray(hsv, "HSV").convert("RGB")


def a_darker_finish(picture: Image.Image) -> Image.Image | None:
    pixels = np.asarray(picture)
    if (found := _object(pixels)) is None:
        return None
    mask, (middle, axis, reach) = found
    away = (np.argwhere(mask | True)[:, ::-1] - middle).reshape(*mask.shape, 2) @ axis
    body = mask & (away < 0.35 * np.hypot(*reach)) & (pixels.max(axis=2) > 90)
    return None if body.mean() < 0.05 else Image.fromarray(np.where(body[..., None], pixels * 0.5, pixels).astype("u1"))


def another_pickup(picture: Image.Image) -> Image.Image | None:
    """A bar of 3.5 x 7.5 % of the side on the body, across the strings."""
    if (found := _object(np.asarray(picture))) is None:
        return None
    middle, axis, reach = found[1]
    copy, at, side = picture.copy(), middle - 0.1 * reach, min(picture.size)
    across = np.array([-axis[1], axis[0]])
    corners = [at + side * (0.0175 * i * axis + 0.0375 * j * across) for i, j in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    tone = "beige" if picture.convert("L").getpixel(tuple(at.astype(int).tolist())) < 110 else "black"  # type: ignore[operator]
    ImageDraw.Draw(copy).polygon([tuple(corner) for corner in corners], fill=tone)
    return copy


def other_inlays(picture: Image.Image) -> Image.Image | None:
    """Five dots of 1.8 % of the side along the neck."""
    if (found := _object(np.asarray(picture))) is None:
        return None
    middle, _, reach = found[1]
    copy, radius = picture.copy(), 0.009 * min(picture.size)
    for share in (0.35, 0.45, 0.55, 0.65, 0.75):
        x, y = middle + share * reach
        if not (0 <= x < picture.width and 0 <= y < picture.height):
            return None
        tone = "ivory" if picture.convert("L").getpixel((int(x), int(y))) < 120 else "black"  # type: ignore[operator]
        ImageDraw.Draw(copy).ellipse((x - radius, y - radius, x + radius, y + radius), fill=tone)
    return copy


REAL = {
    "another colour": another_colour,
    "a darker finish": a_darker_finish,
    "another pickup": another_pickup,
    "other inlays": other_inlays,
}


def plant_different(folder: Path, out: Path, per_kind: int) -> list[tuple[str, str, str]]:
    """`folder` in `out` with up to `per_kind` pictures of each kind; the kind and both paths of each."""
    names, rows = pictures_of(folder), []
    for name in names:
        link(folder / name, out / name)
    for kind, edit in REAL.items():
        count = 0
        for place in np.random.default_rng(5).permutation(len(names)).tolist():
            path = Path(names[place])
            with Image.open(folder / path) as picture:
                other = edit(picture.convert("RGB")) if count < per_kind else None
            if other is not None:
                changed = path.with_name(f"other-{kind.replace(' ', '-')}-{path.stem}.jpg")
                other.save(out / changed, "JPEG", quality=92)
                rows.append((kind, path.as_posix(), changed.as_posix()))
                count += 1
    return rows


TWINS = ("finish", "pickups", "inlay", "guard")


def draw_twins(out: Path, count: int, size: int, difficulty: float) -> list[tuple[str, str, str]]:
    """`count` pairs that differ in one part; the part and both paths below `out` of each."""
    found = load_params(ROOT / "params.yaml").ingest.sources[0]
    assert isinstance(found, SampleSource)
    source = found.model_copy(update={"image_size": size, "difficulty": difficulty, "seed": 7})
    rows = []
    guitars = catalogue()
    for number in range(count):
        part, model = TWINS[number % len(TWINS)], sorted(guitars.models)[number % len(guitars.models)]
        own: list[GuitarLook] = []
        of_part: dict[str, list[object]] = {
            "finish": [finish for palette in guitars.palettes.values() for finish in palette],
            "pickups": [one for each in guitars.models.values() for one in each.pickups],
            "inlay": ["dot", "block", "trapezoid"],
            "guard": ["white", "black", "none"],
        }
        options = of_part[part]

        def other(
            *given: object, own: list[GuitarLook] = own, part: str = part, options: list[object] = options
        ) -> GuitarLook:
            own.append(look(*given))  # type: ignore[arg-type]
            others = [one for one in options if one != getattr(own[0], part)]
            return replace(own[0], **{part: others[number % len(others)]})  # type: ignore[arg-type]  # noqa: B023

        names = f"{model}/{number}.jpg", f"{model}/{number}-{part}.jpg"
        (out / model).mkdir(parents=True, exist_ok=True)
        (out / names[0]).write_bytes(sample.draw(source, model, number))
        with mock.patch.object(sample, "look", other):
            (out / names[1]).write_bytes(sample.draw(source, model, number))
        rows.append((part, *names))
    return rows

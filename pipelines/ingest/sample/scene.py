"""Where the guitar is: camera, background, shadow, light, and what the lens and the file format add."""

from functools import lru_cache
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from pipelines.ingest.sample.dice import Dice
from pipelines.ingest.sample.drawing import Camera, curve, shade
from pipelines.ingest.sample.models import Colour

BACKGROUNDS = ("shop", "shop", "gradient", "gradient", "cloth", "carpet", "planks", "bricks", "room", "stage")


def camera(dice: Dice, side: int, difficulty: float) -> Camera:
    """Choose the view. At difficulty 0 upright, the body and half the neck; the harder, the more askew, far or near."""
    close = dice.pick((0.6, 0.85))
    turn = 0.0
    if dice.chance(difficulty):
        close = dice.pick((0.0, 0.0, 0.3, 0.6, 1.0))
    if dice.chance(0.8 * difficulty):
        turn = dice.pick((38.0, -38.0, 45.0, 90.0, -90.0))
    turn += dice.between(-1, 1) * (3 + 18 * difficulty)
    # 1,030 mm from end to end; a body close-up shows 520 mm; near the upright the neck may touch the border
    span = 1080 - close * (560 + 60 * difficulty)
    span *= dice.between(0.97, 1.04 + 0.2 * difficulty)
    drift = 0.03 + 0.06 * difficulty
    tilt = 0.00012 + 0.00035 * difficulty
    return Camera(
        side=side,
        scale=round(side / span, 6),
        turn=round(turn, 3),
        centre=(0.0, round(-320 + 290 * close, 3)),
        place=(0.5 + dice.between(-drift, drift), 0.5 + dice.between(-drift, drift)),
        tilt=(dice.between(-tilt, tilt), dice.between(-tilt, tilt)),
        left_handed=dice.chance(0.1 * difficulty),
    )


def _two_tone(grey: Image.Image, dark: Colour, light: Colour) -> Image.Image:
    """Grey levels spread between two colours."""
    bands = [grey.point([a + (b - a) * v // 255 for v in range(256)]) for a, b in zip(dark, light, strict=True)]
    return Image.merge("RGB", bands)


def _colour(dice: Dice, low: int = 40, high: int = 210) -> Colour:
    grey = dice.whole(low, high)
    return (
        min(255, max(0, grey + dice.whole(-28, 34))),
        min(255, max(0, grey + dice.whole(-24, 20))),
        min(255, max(0, grey + dice.whole(-34, 28))),
    )


def background(dice: Dice, side: int, difficulty: float) -> Image.Image:
    """An RGB picture of side x side pixels to put the guitar before."""
    kind = dice.pick(BACKGROUNDS) if dice.chance(difficulty) else "shop"
    if kind == "shop":
        return Image.new("RGB", (side, side), shade((255, 255, 255), dice.whole(91, 100)))
    if kind == "planks":
        return _planks(dice, side)
    if kind == "bricks":
        return _bricks(dice, side)
    if kind == "stage":
        glow = Image.new("L", (12, 12), 20)
        x, y = dice.whole(2, 9), dice.whole(1, 8)
        ImageDraw.Draw(glow).ellipse((x - 3, y - 3, x + 3, y + 3), fill=dice.whole(120, 230))
        soft = glow.filter(ImageFilter.BoxBlur(2)).resize((side, side), Image.Resampling.BICUBIC)
        return _two_tone(soft, (8, 7, 10), _colour(dice, 120, 210))
    if kind in ("gradient", "room"):
        cells = 2 if kind == "gradient" else 5
        a, b = _colour(dice), _colour(dice, 90, 235)
        grey = Image.frombytes("L", (cells, cells), dice.noise(cells * cells))
        return _two_tone(grey.resize((side, side), Image.Resampling.BICUBIC), a, b)
    fine = max(4, side // (2 if kind == "carpet" else 5))
    grain = Image.frombytes("L", (fine, fine), dice.noise(fine * fine)).filter(ImageFilter.BoxBlur(1))
    folds = Image.frombytes("L", (6, 6), dice.noise(36)).resize((fine, fine), Image.Resampling.BICUBIC)
    texture = Image.blend(grain, folds, 0.35 if kind == "carpet" else 0.75).resize((side, side))
    base = _colour(dice, 50, 190)
    return _two_tone(texture, shade(base, 62), shade(base, 136))


def _planks(dice: Dice, side: int) -> Image.Image:
    base = dice.pick(((150, 106, 66), (112, 76, 50), (176, 146, 112), (134, 126, 118), (86, 54, 36)))
    grain = Image.frombytes("L", (64, 3), dice.noise(192)).resize((side, side), Image.Resampling.BICUBIC)
    floor = _two_tone(grain, shade(base, 76), shade(base, 120))
    draw = ImageDraw.Draw(floor)
    width = max(3, side // dice.whole(4, 8))
    for x in range(dice.whole(0, width), side, width):
        draw.line((x, 0, x, side), fill=shade(base, 48), width=max(1, side // 200))
    return floor.transpose(Image.Transpose.ROTATE_90) if dice.chance(0.5) else floor


def _bricks(dice: Dice, side: int) -> Image.Image:
    base = dice.pick(((150, 78, 58), (170, 110, 84), (188, 184, 176), (120, 60, 50)))
    wall = Image.new("RGB", (side, side), (178, 168, 156))
    draw = ImageDraw.Draw(wall)
    height = max(3, side // dice.whole(8, 13))
    width = height * 5 // 2
    gap = max(1, height // 8)
    for row in range(side // height + 1):
        for x in range(-(row % 2) * width // 2, side, width):
            draw.rectangle(
                (x, row * height, x + width - gap, row * height + height - gap), fill=shade(base, dice.whole(80, 116))
            )
    return wall


def cast_shadow(canvas: Image.Image, mask: Image.Image, dice: Dice) -> None:
    """Darken what lies behind: `mask` (small, L), moved aside and softened."""
    side, small = canvas.width, mask.width
    moved = Image.new("L", mask.size, 0)
    reach = dice.between(0.01, 0.05) * small
    moved.paste(mask.point([v * 2 // 5 for v in range(256)]), (int(reach * dice.pick((-1, 1))), int(reach) + 1))
    soft = moved.filter(ImageFilter.BoxBlur(dice.between(0.01, 0.03) * small))
    canvas.paste((12, 10, 12), (0, 0), soft.resize((side, side), Image.Resampling.BILINEAR))


def stand(canvas: Image.Image, view: Camera) -> None:
    """A floor stand: two arms under the body and a stem behind the neck; painted before the guitar."""
    draw = ImageDraw.Draw(canvas)
    width = max(1, int(14 * view.scale))
    for line in (((0, -560), (0, 300)), ((0, 150), (-210, 330)), ((0, 150), (210, 330))):
        draw.line(view.project(line), fill=(26, 26, 28), width=width)


def occlude(canvas: Image.Image, view: Camera, dice: Dice) -> None:
    """Something in front: a strap, a lead, or a plain price tag."""
    draw = ImageDraw.Draw(canvas)
    kind = dice.pick(("strap", "lead", "tag"))
    if kind == "tag":
        x, y, w = dice.between(-90, 60), dice.between(-160, 120), dice.between(50, 110)
        draw.polygon(
            view.project([(x, y), (x + w, y + 8), (x + w - 6, y + w), (x - 6, y + w - 8)]), fill=_colour(dice, 180, 235)
        )
        return
    anchors = tuple((dice.between(-260, 260), y) for y in (-460.0, -180.0, 60.0, 340.0))
    points = curve(anchors, 8)
    thick = dice.between(40, 75) if kind == "strap" else 9
    draw.line(view.project(points), fill=_colour(dice, 16, 120), width=max(1, int(thick * view.scale)), joint="curve")


@lru_cache(maxsize=1)
def _bell() -> npt.NDArray[np.int16]:
    """(256,) a byte that is equally likely everywhere becomes a normal deviate, in 1/64: pure Python arithmetic."""
    normal = NormalDist()
    return np.array([round(64 * normal.inv_cdf((v + 0.5) / 256)) for v in range(256)], dtype=np.int16)


def light_and_lens(image: Image.Image, dice: Dice, difficulty: float) -> npt.NDArray[np.uint8]:
    """Exposure, colour of the light, defocus and sensor noise: (S, S, 3) uint8."""
    gain = dice.whole(100 - int(34 * difficulty), 100 + int(22 * difficulty))
    warm = dice.whole(-int(14 * difficulty), int(14 * difficulty))
    side = image.width
    blur = dice.between(0, 1)
    if blur < 0.4 * difficulty:
        image = image.filter(ImageFilter.BoxBlur(side / 224 * dice.between(0.3, 0.4 + 1.1 * difficulty)))
    if dice.chance(0.08 * difficulty):
        image, warm = image.convert("L").convert("RGB"), 0
    pixels = np.asarray(image)
    levels = np.arange(256, dtype=np.int32)
    lit = [np.minimum(levels * percent // 100, 255).astype(np.int16) for percent in (gain + warm, gain, gain - warm)]
    exposed = np.stack([lit[c][pixels[..., c]] for c in range(3)], axis=2)  # (S, S, 3)
    sigma = dice.whole(0, 1 + int(9 * difficulty))
    noise = np.frombuffer(dice.noise(side * side), dtype=np.uint8)
    grain = (_bell()[noise] * np.int16(sigma)) >> 6  # the same in all channels: luminance noise
    noisy: npt.NDArray[np.uint8] = np.clip(exposed + grain.reshape(side, side, 1), 0, 255).astype(np.uint8)
    return noisy

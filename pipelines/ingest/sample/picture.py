"""One picture of the sample source: from (seed, class, index) to the bytes of a JPEG file."""

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image

from pipelines.ingest.sample.dice import Dice
from pipelines.ingest.sample.guitar import look, paint_body, paint_parts, silhouette
from pipelines.ingest.sample.scene import background, camera, cast_shadow, light_and_lens, occlude, stand
from pipelines.params.sources import SampleSource


def draw_pixels(params: SampleSource, model: str, index: int) -> npt.NDArray[np.uint8]:
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


def encode(pixels: npt.NDArray[np.uint8], quality: int) -> bytes:
    """JPEG bytes; the accurate integer DCT, whose result no CPU changes."""
    data: bytes = simplejpeg.encode_jpeg(
        np.ascontiguousarray(pixels), quality=quality, colorspace="RGB", colorsubsampling="420", fastdct=False
    )
    return data


def resized(pixels: npt.NDArray[np.uint8], percent: int) -> npt.NDArray[np.uint8]:
    """`pixels`, (H, W, 3), at `percent` of their size."""
    height, width = pixels.shape[:2]
    size = (max(1, width * percent // 100), max(1, height * percent // 100))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))

"""The classic way, a picture at a time with Pillow and torchvision, which batches on a device must agree with.

Every function takes and returns an RGB picture, and the numbers that a draw gives it.
"""

import io
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageEnhance, ImageOps
from torchvision.transforms import functional

from pipelines.augmentation.sampling import Op

GREY = (128, 128, 128)


def look_up(image: Image.Image, coefficients: Sequence[float]) -> Image.Image:
    """Where each place comes from: Pillow's eight numbers of a perspective, in pixels from the top left corner."""
    return image.transform(
        image.size, Image.Transform.PERSPECTIVE, tuple(coefficients), Image.Resampling.BILINEAR, fillcolor=GREY
    )


def rotate(image: Image.Image, degrees: float) -> Image.Image:
    return image.rotate(degrees, Image.Resampling.BILINEAR, fillcolor=GREY)


def shear(image: Image.Image, degrees_x: float, degrees_y: float) -> Image.Image:
    """About the middle: columns first, then rows."""
    middle_x, middle_y = image.width / 2, image.height / 2
    a, b = math.tan(math.radians(degrees_x)), math.tan(math.radians(degrees_y))
    x, y = (1 + a * b, a), (b, 1)
    shift_x = middle_x - x[0] * middle_x - x[1] * middle_y
    shift_y = middle_y - y[0] * middle_x - y[1] * middle_y
    return look_up(image, (*x, shift_x, *y, shift_y, 0.0, 0.0))


def perspective(image: Image.Image, corners: Sequence[float]) -> Image.Image:
    """Each corner, x then y, so much of the way to the middle."""
    right, bottom = image.width, image.height
    start = [(0, 0), (right, 0), (right, bottom), (0, bottom)]
    end = [
        (x + (right / 2 - x) * move_x, y + (bottom / 2 - y) * move_y)
        for (x, y), (move_x, move_y) in zip(start, zip(corners[::2], corners[1::2], strict=True), strict=True)
    ]
    equations = []
    for (x, y), (u, v) in zip(end, start, strict=True):
        equations += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
    found = np.linalg.solve(np.array(equations, np.float64), np.array(start, np.float64).reshape(8))
    return look_up(image, found.tolist())


def crop(image: Image.Image, left: float, top: float, width: float, height: float) -> Image.Image:
    box = (left * image.width, top * image.height, (left + width) * image.width, (top + height) * image.height)
    return image.resize(image.size, Image.Resampling.BILINEAR, box=box)


def hue(image: Image.Image, turn: float) -> Image.Image:
    """In floating point: Pillow's HSV has 256 hues, which are up to 3 grey levels apart."""
    pixels = functional.to_tensor(image)
    found = functional.adjust_hue(pixels, turn)
    turned: Image.Image = functional.to_pil_image(found)
    return turned


def blur(image: Image.Image, sigma: float, radius: int) -> Image.Image:
    blurred: Image.Image = functional.gaussian_blur(image, [2 * radius + 1, 2 * radius + 1], [sigma, sigma])
    return blurred


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def pen(image: Image.Image, points: Sequence[tuple[float, float]], width: float) -> Image.Image:
    """A black line through `points`, with round corners and ends, drawn eight times as large."""
    large = Image.new("L", (image.width * 8, image.height * 8))
    draw = ImageDraw.Draw(large)
    corners = [(8 * x, 8 * y) for x, y in points]
    draw.line(corners, 255, round(8 * width))
    for x, y in corners:
        draw.ellipse((x - 4 * width, y - 4 * width, x + 4 * width, y + 4 * width), 255)
    return Image.composite(Image.new("RGB", image.size), image, large.resize(image.size, Image.Resampling.BOX))


AUTO: dict[Op, Callable[[Image.Image, float], Image.Image]] = {
    Op.IDENTITY: lambda image, _: image,
    Op.SHEAR_X: lambda image, value: look_up(image, (1, value, 0, 0, 1, 0, 0, 0)),
    Op.SHEAR_Y: lambda image, value: look_up(image, (1, 0, 0, value, 1, 0, 0, 0)),
    Op.TRANSLATE_X: lambda image, value: look_up(image, (1, 0, -value * image.width, 0, 1, 0, 0, 0)),
    Op.TRANSLATE_Y: lambda image, value: look_up(image, (1, 0, 0, 0, 1, -value * image.height, 0, 0)),
    Op.ROTATE: rotate,
    Op.BRIGHTNESS: lambda image, value: ImageEnhance.Brightness(image).enhance(value),
    Op.COLOR: lambda image, value: ImageEnhance.Color(image).enhance(value),
    Op.CONTRAST: lambda image, value: ImageEnhance.Contrast(image).enhance(value),
    Op.SHARPNESS: lambda image, value: ImageEnhance.Sharpness(image).enhance(value),
    Op.POSTERIZE: lambda image, value: ImageOps.posterize(image, int(value)),
    Op.SOLARIZE: lambda image, value: ImageOps.solarize(image, math.ceil(value)),
    Op.AUTOCONTRAST: lambda image, _: ImageOps.autocontrast(image),
    Op.EQUALIZE: lambda image, _: ImageOps.equalize(image),
}
"""RandAugment's and TrivialAugment's changes, each with its number"""


def each(images: torch.Tensor, change: Callable[[Image.Image, int], Image.Image]) -> torch.Tensor:
    """`change` of each picture of (B, 3, H, W) and its row, as (B, 3, H, W) float."""
    changed = []
    for row, image in enumerate(images):
        pixels = image.permute(1, 2, 0).round().to(torch.uint8).contiguous().numpy()
        changed.append(torch.from_numpy(np.array(change(Image.fromarray(pixels), row))).permute(2, 0, 1))
    return torch.stack(changed).float()

"""Changes of pixels in their place: colours, blur, noise, JPEG and pen strokes, over (B, 3, H, W) float, 0 to 255.

Most are a few passes over pictures that they overwrite.
"""

import functools
import math

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)

from pipelines.augmentation.broadcast import columns, to_device
from pipelines.augmentation.sampling import SampledParams

LUMA = (0.299, 0.587, 0.114)
"""ITU-R 601, as Pillow converts to grey"""


def brighten(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """As Pillow's ImageEnhance.Brightness; factor is (B, 1, 1, 1), and 1 keeps the bits. So of the next three."""
    return images.mul_(factor).clamp_(0.0, 255.0)


def contrast(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    # of the colours first, whose sums are short enough that no thread takes a part of one: B changes no bit
    mean = to_grey(images.mean(dim=(2, 3)))  # (B, 1)
    return _blend(mean.view(-1, 1, 1, 1), images, factor)


def saturate(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    return _blend(to_grey(images), images, factor)


def sharpen(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """As ImageEnhance.Sharpness: the outermost pixels stay."""
    if min(images.shape[2:]) < 3:
        return images
    rows = images[..., :-2, :] + images[..., 1:-1, :] + images[..., 2:, :]
    smooth = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    inner = images[..., 1:-1, 1:-1]
    smooth.add_(inner * 4.0).div_(13.0)
    inner.mul_(factor).add_(smooth.mul_(1.0 - factor)).clamp_(0.0, 255.0)
    return images


def turn_hue(images: torch.Tensor, turn: torch.Tensor) -> torch.Tensor:
    """Turn the hue and keep saturation and value, all of HSV.

    Args:
        turn: (B, 1, 1, 1), of the whole circle.
    """
    red, green, blue = images.unbind(1)  # each (B, H, W)
    value = torch.maximum(torch.maximum(red, green), blue)
    chroma = value - torch.minimum(torch.minimum(red, green), blue)
    # in sixths of the circle; a grey pixel has no hue, and any will do
    scale = chroma.clamp(min=1e-6)
    hue = torch.where(
        value == red,
        (green - blue).div_(scale),
        torch.where(value == green, (blue - red).div_(scale).add_(2.0), (red - green).div_(scale).add_(4.0)),
    )
    hue.add_(turn.view(-1, 1, 1) * 6.0)
    for plane, start in zip((red, green, blue), (5.0, 3.0, 1.0), strict=True):
        place = hue + start
        place.sub_((place / 6.0).floor_().mul_(6.0))  # in [0, 6)
        # 0 from 4 on, 1 from 1 to 3, in between straight lines
        share = place.sub_(2.0).abs_().neg_().add_(2.0).clamp_(0.0, 1.0)
        torch.sub(value, share.mul_(chroma), out=plane)
    return images


def posterize(images: torch.Tensor, bits: torch.Tensor) -> torch.Tensor:
    """Keep the upper `bits` (B, 1, 1, 1) of eight."""
    step = torch.exp2(8.0 - bits).round_()
    return images.round_().div_(step).floor_().mul_(step)


def solarize(images: torch.Tensor, threshold: torch.Tensor) -> torch.Tensor:
    """Invert what is not below `threshold`, (B, 1, 1, 1)."""
    return torch.where(images < threshold, images, 255.0 - images)


def autocontrast(images: torch.Tensor) -> torch.Tensor:
    """Stretch each colour of each picture to 0 to 255; a flat one stays."""
    low, high = images.amin(dim=(2, 3), keepdim=True), images.amax(dim=(2, 3), keepdim=True)
    flat = high == low
    scale = torch.where(flat, 1.0, 255.0 / torch.where(flat, 1.0, high - low))
    return images.sub_(low).mul_(scale).add_(torch.where(flat, low, 0.0)).clamp_(0.0, 255.0)


def equalize(images: torch.Tensor) -> torch.Tensor:
    """Make the grey levels of each colour equally frequent, as ImageOps.equalize does."""
    count, channels = images.shape[:2]
    levels = images.round_().view(count * channels, -1).long()
    histogram = torch.zeros((count * channels, 256), dtype=torch.int64, device=images.device)
    histogram.scatter_add_(1, levels, torch.ones((), dtype=torch.int64, device=images.device).expand_as(levels))
    up_to = histogram.cumsum(1)
    # the pixels of the brightest level found do not count
    everywhere = torch.arange(256, device=images.device).expand_as(histogram)
    brightest = torch.where(histogram > 0, everywhere, 0).amax(dim=1, keepdim=True)
    step = (up_to[:, -1:] - histogram.gather(1, brightest)) // 255
    table = (step // 2 + up_to - histogram) // step.clamp(min=1)
    table = torch.where(step > 0, table.clamp(max=255), everywhere)
    return table.to(images.dtype).gather(1, levels).view_as(images)


def to_grey(colours: torch.Tensor) -> torch.Tensor:
    """(B, 3, ...) to (B, 1, ...)."""
    grey = colours[:, 0:1] * LUMA[0]
    grey += colours[:, 1:2] * LUMA[1]
    grey += colours[:, 2:3] * LUMA[2]
    return grey


def _blend(base: torch.Tensor, images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """`base` at factor 0, `images` at 1, beyond them above 1; as Pillow's ImageEnhance."""
    return images.mul_(factor).add_(base * (1.0 - factor)).clamp_(0.0, 255.0)


NUM_NOISE = 2**22
"""numbers in the table of noise, of which each picture gets its own stretch"""

# ITU-T T.81, tables K.1 and K.2
LUMINANCE = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55,
    14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
    18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
)  # fmt: skip
CHROMINANCE = (
    17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99,
    24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99, 99, 99, 99, 99,
    99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99,
    99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99,
)  # fmt: skip


def blur(images: torch.Tensor, sigma: npt.NDArray[np.float64], *, largest: float) -> torch.Tensor:
    """Blur by a Gaussian, mirrored at the borders.

    Args:
        images: (B, 3, H, W)
        sigma: (B,) above 0, pixels.
        largest: that any picture may get, pixels. The kernel is as long for all, so that B changes no bit.
    """
    count, channels, height, width = images.shape
    radius = min(max(1, math.ceil(3.0 * largest)), height - 1, width - 1)
    distance = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * (distance / np.maximum(sigma, 1e-3)[:, None]) ** 2)
    kernel = np.repeat(kernel / kernel.sum(axis=1, keepdims=True), channels, axis=0)  # (3 B, 2 radius + 1)
    weight = columns(kernel, images).view(count * channels, 1, -1, 1)
    flat = images.reshape(1, count * channels, height, width)
    with torch.autocast(images.device.type, enabled=False):
        flat = F.conv2d(F.pad(flat, (0, 0, radius, radius), mode="reflect"), weight, groups=count * channels)
        flat = F.conv2d(
            F.pad(flat, (radius, radius, 0, 0), mode="reflect"), weight.transpose(2, 3), groups=count * channels
        )
    return flat.view(count, channels, height, width)


def add_noise(images: torch.Tensor, sigma: npt.NDArray[np.float64], place: npt.NDArray[np.float64]) -> torch.Tensor:
    """Add Gaussian noise to `images`, in place: a stretch of one table of it, which CPU and GPU have alike.

    Args:
        sigma: (B,) grey levels.
        place: (B,) in [0, 1), of the stretch.
    """
    size = math.prod(images.shape[1:])
    table = _noise_table(max(NUM_NOISE, 2 * size), images.device).to(images.dtype)
    first = np.floor(place * (len(table) - size)).astype(np.int64)
    noise = table.unfold(0, size, 1).index_select(0, to_device(first, images.device))  # (B, 3 H W)
    return images.add_(noise.view_as(images).mul_(columns(sigma, images))).clamp_(0.0, 255.0)


@functools.lru_cache(maxsize=2)
def _noise_table(size: int, device: torch.device) -> torch.Tensor:
    numbers = np.random.Generator(np.random.PCG64(0)).standard_normal(size, np.float32)
    return torch.from_numpy(numbers).to(device)


def save_as_jpeg(images: torch.Tensor, quality: npt.NDArray[np.int64]) -> torch.Tensor:
    """What is left after a JPEG with Pillow's settings: colours at half the size, the tables of the standard.

    Args:
        images: (B, 3, H, W), which are rounded.
        quality: (B,) 1 to 100.
    """
    height, width = images.shape[2:]
    images = images.round_()
    if height % 16 or width % 16:
        images = F.pad(images, (0, -width % 16, 0, -height % 16), mode="replicate")
    red, _, blue = images.unbind(1)  # each (B, H, W)
    # JFIF 1.02; grey is 0 in both of chroma
    luma = to_grey(images).squeeze(1)  # (B, H, W)
    chroma = torch.stack([(blue - luma).mul_(0.5 / 0.886), (red - luma).mul_(0.5 / 0.701)], dim=1).round_()
    chroma = _lose(_halve(chroma), _table(CHROMINANCE, quality))
    blueness, redness = _double(_double(chroma.transpose(2, 3)).transpose(2, 3)).unbind(1)
    luma = _lose(luma.round_().sub_(128.0).unsqueeze(1), _table(LUMINANCE, quality)).squeeze(1).add_(128.0)
    result = torch.empty_like(images)
    torch.add(luma, redness, alpha=1.402, out=result[:, 0])
    torch.add(luma, blueness, alpha=1.772, out=result[:, 2])
    torch.sub(luma, blueness.mul_(0.344136).add_(redness.mul_(0.714136)), out=result[:, 1])
    return result[..., :height, :width].round_().clamp_(0.0, 255.0)


def _halve(planes: torch.Tensor) -> torch.Tensor:
    """Means of 2 x 2 pixels as libjpeg's: halves go up in every other column, and down in the others."""
    rows = planes[..., 0::2, :] + planes[..., 1::2, :]
    sums = rows[..., 0::2] + rows[..., 1::2]
    turns = torch.arange(sums.shape[-1], device=planes.device) % 2
    return sums.add_(turns + 1).div_(4.0).floor_()


def _double(planes: torch.Tensor) -> torch.Tensor:
    """(..., W) to (..., 2 W): a new pixel is three quarters of the nearest and a quarter of the next one."""
    nearest, next_one = planes * 0.75, planes * 0.25
    wider = torch.cat([next_one[..., :1], next_one, next_one[..., -1:]], dim=-1)
    return torch.stack([nearest + wider[..., :-2], nearest + wider[..., 2:]], dim=-1).flatten(-2)


def _table(standard: tuple[int, ...], quality: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """(B, 64): the standard's steps, scaled as libjpeg scales them."""
    percent = np.where(quality < 50, 5000 // np.maximum(quality, 1), 200 - 2 * quality)
    table = np.clip((np.array(standard) * percent[:, None] + 50) // 100, 1, 255)
    return np.asarray(table, np.float64)


def _lose(planes: torch.Tensor, table: npt.NDArray[np.float64]) -> torch.Tensor:
    """Round the frequencies of each block of 8 x 8 to the steps in `table`.

    Args:
        planes: (B, C, H, W), -128 to 127; sides are multiples of 8.
        table: (B, 64)
    """
    count, channels, height, width = planes.shape
    blocks = planes.view(count, channels, height // 8, 8, width // 8, 8).permute(0, 1, 2, 4, 3, 5)
    shape = blocks.shape
    step = columns(table, planes).view(count, 1, 64)
    frequencies = to_device(_cosines().astype(np.float32), planes.device).to(planes.dtype)
    with torch.autocast(planes.device.type, enabled=False):
        found = blocks.reshape(count, -1, 64) @ frequencies.T
        found = found.div_(step).round_().mul_(step) @ frequencies
    planes = found.view(shape).permute(0, 1, 2, 4, 3, 5).reshape(count, channels, height, width)
    return planes.round_().clamp_(-128.0, 127.0)


@functools.cache
def _cosines() -> npt.NDArray[np.float64]:
    """(64, 64), orthonormal: from a block's pixels to its frequencies."""
    k = np.arange(8.0)
    one = np.cos(np.outer(k, 2 * k + 1) * (np.pi / 16)) / 2
    one[0] /= np.sqrt(2)
    return np.asarray(np.kron(one, one))


WINDOW = 0.5
"""side of the part of the picture that a stroke stays in, share of the picture's"""
WIDTHS = (0.008, 0.025)
"""thinnest and widest stroke, share of the picture's shorter side; at least a pixel"""
NUM_SEGMENTS = 12
"""straight lines in place of a curve"""


def scribble(images: torch.Tensor, draws: SampledParams) -> torch.Tensor:
    """Draw on each picture the strokes of its draw, in place.

    All strokes of the batch are computed side by side, each in a window of its own, from every pixel's distance to
    the lines of the curve; then each is painted into its picture.
    """
    count = np.minimum(draws.num_strokes, draws.strokes.shape[1])
    pictures, which = np.nonzero(np.arange(draws.strokes.shape[1]) < count[:, None])
    if len(pictures) == 0:
        return images
    height, width = images.shape[2:]
    window = (max(1, round(height * WINDOW)), max(1, round(width * WINDOW)))
    numbers = draws.strokes[pictures, which]  # (M, 14)
    tops = np.floor(numbers[:, 0] * (height - window[0] + 1)).astype(np.int64)
    lefts = np.floor(numbers[:, 1] * (width - window[1] + 1)).astype(np.int64)
    thickness = np.maximum(1.0, (WIDTHS[0] + (WIDTHS[1] - WIDTHS[0]) * numbers[:, 10]) * min(height, width))
    cover = _cover(_lines(numbers[:, 2:10], thickness, window), thickness, images, window)
    colours = columns(np.floor(numbers[:, 11:14] * 256.0), images)  # (M, 3, 1, 1)
    for stroke, (picture, top, left) in enumerate(zip(pictures.tolist(), tops.tolist(), lefts.tolist(), strict=True)):
        under = images[picture, :, top : top + window[0], left : left + window[1]]
        under.add_((colours[stroke] - under).mul_(cover[stroke]))
    return images


def _lines(
    points: npt.NDArray[np.float64], thickness: npt.NDArray[np.float64], window: tuple[int, int]
) -> npt.NDArray[np.float64]:
    """A Bézier curve of four points as corners of its lines.

    Args:
        points: (M, 8) in [0, 1): down and to the right, of each.

    Returns:
        (M, NUM_SEGMENTS + 1, 2) pixels from the window's corner; so far inside that no line is cut off.
    """
    margin = np.minimum(thickness / 2 + 1.0, min(window) / 2)[:, None, None]
    bends = margin + points.reshape(-1, 4, 2) * (np.array(window) - 2.0 * margin)
    t = np.linspace(0.0, 1.0, NUM_SEGMENTS + 1)
    weights = np.stack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3])  # (4, NUM_SEGMENTS + 1)
    # summed term by term: a matrix product's last digits may depend on M
    return np.asarray(sum(weights[i, None, :, None] * bends[:, i, None, :] for i in range(4)))


def _cover(
    lines: npt.NDArray[np.float64], thickness: npt.NDArray[np.float64], images: torch.Tensor, window: tuple[int, int]
) -> torch.Tensor:
    """(M, h, w) in [0, 1]: how much of each pixel the stroke covers."""
    start, along = lines[:, :-1], np.diff(lines, axis=1)  # (M, NUM_SEGMENTS, 2)
    length = np.maximum((along**2).sum(axis=2, keepdims=True), 1e-6)
    terms = columns(np.concatenate([start, along, along / length], axis=2).reshape(len(lines), -1), images)
    terms = terms.view(len(lines), NUM_SEGMENTS, 6, 1, 1)
    y = torch.arange(window[0], device=images.device).to(images.dtype).add_(0.5).view(1, -1, 1)
    x = torch.arange(window[1], device=images.device).to(images.dtype).add_(0.5).view(1, 1, -1)
    nearest = torch.full((len(lines), *window), torch.inf, dtype=images.dtype, device=images.device)
    for segment in range(NUM_SEGMENTS):
        start_y, start_x, along_y, along_x, per_y, per_x = terms[:, segment].unbind(1)  # each (M, 1, 1)
        off_y, off_x = y - start_y, x - start_x  # (M, h, 1), (M, 1, w)
        share = (off_y * per_y + off_x * per_x).clamp_(0.0, 1.0)  # (M, h, w)
        away_y = off_y - share * along_y
        away_x = off_x - share.mul_(along_x)
        torch.minimum(nearest, away_y.square_().add_(away_x.square_()), out=nearest)
    return nearest.sqrt_().neg_().add_(columns(thickness / 2 + 0.5, images).view(-1, 1, 1)).clamp_(0.0, 1.0)

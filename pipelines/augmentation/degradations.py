"""What cameras and files do to a picture: blur, noise, and the losses of a JPEG."""

import functools
import math

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)

from pipelines.augmentation.broadcast import columns, to_device
from pipelines.augmentation.colour import to_grey

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

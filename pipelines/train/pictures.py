"""Packed uint8 pictures to what a network takes."""

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)

from pipelines.augmentation.packs import PackReader, Rows
from pipelines.features.backbones import ModelSpec, normalise
from pipelines.params.recipes import InChans

Pixels = npt.NDArray[np.uint8]

LUMA = (0.299, 0.587, 0.114)
"""ITU-R 601, as Pillow converts to grey"""
CHUNK = 256
"""pictures resized at a time: bounds the float copy"""


def resize(pixels: Pixels, image_size: int) -> Pixels:
    """(B, S, S, 3) uint8 to (B, s, s, 3) uint8, with antialiasing; always on the CPU, so every device sees the same."""
    if pixels.shape[1] == image_size:
        return pixels
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()
    small = F.interpolate(images, (image_size, image_size), mode="bicubic", align_corners=False, antialias=True)
    result: Pixels = small.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
    return result


def read_resized(reader: PackReader, rows: Rows, image_size: int) -> Pixels:
    """(N, s, s, 3) uint8: the pictures of `rows` at the size of a recipe."""
    images = np.empty((len(rows), image_size, image_size, 3), np.uint8)
    for start in range(0, len(rows), CHUNK):
        images[start : start + CHUNK] = resize(reader.read(rows[start : start + CHUNK]), image_size)
    return images


def to_float(pixels: torch.Tensor) -> torch.Tensor:
    """(B, S, S, 3) uint8 to (B, 3, S, S) float32, 0 to 255, channels last in memory as they already lie."""
    return pixels.permute(0, 3, 1, 2).float()


def to_input(images: torch.Tensor, spec: ModelSpec, in_chans: InChans) -> torch.Tensor:
    """What the network takes: (B, 3, S, S), or (B, 1, S, S) of luma for `grey`, normalised, from 0 to 255."""
    if in_chans == 3:
        return normalise(images, spec)
    luma = LUMA[0] * images[:, 0:1] + LUMA[1] * images[:, 1:2] + LUMA[2] * images[:, 2:3]
    # one channel, so one mean and one deviation for all three
    return (luma - sum(spec.mean) / 3.0) / (sum(spec.std) / 3.0)

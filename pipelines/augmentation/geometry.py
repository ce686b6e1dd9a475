"""Everything that moves: mirror, turn, zoom, shear, perspective, shift and crop, as one bilinear sampling."""

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)

from pipelines.augmentation.broadcast import change_some, columns
from pipelines.augmentation.packs import GREY
from pipelines.augmentation.sampling import GEOMETRY, Op, SampledParams

NEAREST_HORIZON = 1e-6
"""a perspective's divisor is at least this: the sampling turns infinity into NaN"""

Matrices = npt.NDArray[np.float64]
"""(B, 3, 3): where a place of the result, in pixels from the middle to the right and down, is looked up"""


def move(images: torch.Tensor, draws: SampledParams, *, layout: torch.memory_format) -> torch.Tensor:
    """Move each picture as drawn; those that keep their place keep their bits, those only mirrored move whole pixels.

    Args:
        images: (B, 3, H, W) float; left as they are.
        layout: of the result where pictures only mirror; where all do more than that, it is contiguous.

    Returns:
        (B, 3, H, W)
    """
    height, width = images.shape[2:]
    matrices = lookup(draws, height=height, width=width)
    kept = np.array([1.0, 1.0, 1.0])
    moved = (np.abs(matrices) != np.diag(kept)).any(axis=(1, 2))  # (B,): more than mirrored
    if moved.all():
        return warp(images, matrices)
    result = images.clone(memory_format=layout)
    for axis, sign in ((-1, matrices[:, 0, 0]), (-2, matrices[:, 1, 1])):

        def mirror(part: torch.Tensor, _: object, axis: int = axis) -> torch.Tensor:
            return part.flip(axis)

        result = change_some(result, ~moved & (sign < 0), mirror)
    return change_some(result, moved, lambda part, rows: warp(part, matrices[rows]))


def lookup(draws: SampledParams, *, height: int, width: int) -> Matrices:
    """The changes undone, the last first.

    A picture is cropped, mirrored, turned and zoomed, sheared, seen in perspective, shifted; then the changes of
    RandAugment or TrivialAugment in their order.
    """
    zeros = np.zeros(len(draws))
    ones = np.ones(len(draws))
    crop = _matrices(
        draws.crop_width, zeros, (draws.crop_left + draws.crop_width / 2 - 0.5) * width,
        zeros, draws.crop_height, (draws.crop_top + draws.crop_height / 2 - 0.5) * height,
    )  # fmt: skip
    mirror = _matrices(1.0 - 2.0 * draws.hflip, zeros, zeros, zeros, 1.0 - 2.0 * draws.vflip, zeros)
    shear_x = _matrices(ones, np.tan(np.radians(draws.shear_x)), zeros, zeros, ones, zeros)
    shear_y = _matrices(ones, zeros, zeros, np.tan(np.radians(draws.shear_y)), ones, zeros)
    result = crop @ mirror @ rotation(draws.angle, draws.zoom) @ shear_x @ shear_y
    if draws.corners.any():
        result = result @ _perspective(draws.corners, height=height, width=width)
    result = result @ _matrices(ones, zeros, -draws.shift_x * width, zeros, ones, -draws.shift_y * height)
    for op, value in zip(draws.auto_op.T, draws.auto_value.T, strict=True):
        result = result @ _auto(op, value, height=height, width=width)
    return np.asarray(result)


def _matrices(a: object, b: object, c: object, d: object, e: object, f: object) -> Matrices:
    """(B, 3, 3) of the rows (a, b, c), (d, e, f), (0, 0, 1); each (B,)."""
    rows = np.array([a, b, c, d, e, f], np.float64)  # (6, B)
    result = np.zeros((rows.shape[1], 3, 3))
    result[:, :2] = rows.T.reshape(-1, 2, 3)
    result[:, 2, 2] = 1.0
    return result


def rotation(degrees: npt.NDArray[np.float64], zoom: npt.NDArray[np.float64]) -> Matrices:
    """Counter-clockwise, (B,); and larger by `zoom`, (B,)."""
    radians = degrees * (np.pi / 180.0)
    cos, sin, zeros = np.cos(radians) / zoom, np.sin(radians) / zoom, np.zeros(len(zoom))
    return _matrices(cos, -sin, zeros, sin, cos, zeros)


def _perspective(corners: npt.NDArray[np.float64], *, height: int, width: int) -> Matrices:
    """From where the corners went to where they were (Heckbert, "Fundamentals of texture mapping", 1989, 2.2.3)."""
    toward = np.array([(1, 1), (-1, 1), (-1, -1), (1, -1)])
    start = np.array([(0, 0), (1, 0), (1, 1), (0, 1)])
    x, y = (start + toward * corners.reshape(-1, 4, 2) / 2).transpose(2, 1, 0)  # each (4, B)
    dx1, dx2, sum_x = x[1] - x[2], x[3] - x[2], x[0] - x[1] + x[2] - x[3]
    dy1, dy2, sum_y = y[1] - y[2], y[3] - y[2], y[0] - y[1] + y[2] - y[3]
    area = dx1 * dy2 - dx2 * dy1
    g, h = (sum_x * dy2 - dx2 * sum_y) / area, (dx1 * sum_y - sum_x * dy1) / area
    a, b, c = x[1] - x[0] + g * x[1], x[3] - x[0] + h * x[3], x[0]
    d, e, f = y[1] - y[0] + g * y[1], y[3] - y[0] + h * y[3], y[0]
    # of the unit square's corners; its adjugate is its inverse but for a factor, which a perspective does not have
    undone = np.array(
        [
            (e - f * h, c * h - b, b * f - c * e),
            (f * g - d, a - c * g, c * d - a * f),
            (d * h - e * g, b * g - a * h, a * e - b * d),
        ]
    ).transpose(2, 0, 1)  # (B, 3, 3)
    unit = np.array([(1 / width, 0, 0.5), (0, 1 / height, 0.5), (0, 0, 1)])
    pixels = np.array([(width, 0, -width / 2), (0, height, -height / 2), (0, 0, 1)])
    result = pixels @ undone @ unit
    return np.asarray(result / result[:, 2:, 2:])


def _auto(op: npt.NDArray[np.int64], value: npt.NDArray[np.float64], *, height: int, width: int) -> Matrices:
    """One change of RandAugment or TrivialAugment; shears hold the top left corner, as published."""
    ones = np.ones(len(op))
    chosen = {kind: np.where(op == kind, value, 0.0) for kind in GEOMETRY}
    shear_x, shear_y = chosen[Op.SHEAR_X], chosen[Op.SHEAR_Y]
    slide_x = shear_x * height / 2 - chosen[Op.TRANSLATE_X] * width
    slide_y = shear_y * width / 2 - chosen[Op.TRANSLATE_Y] * height
    # a picture has one of these at most
    return _matrices(ones, shear_x, slide_x, shear_y, ones, slide_y) @ rotation(chosen[Op.ROTATE], ones)


def warp(images: torch.Tensor, matrices: Matrices) -> torch.Tensor:
    """Look each place of the result up in the picture, with bilinear interpolation; outside of it is grey.

    The grid is computed element by element rather than by a matrix product, whose last digits depend on B.

    Args:
        images: (B, 3, H, W) float, 0 to 255.
        matrices: (B, 3, 3), or (1, 3, 3) for all pictures.
    """
    count, (height, width) = len(matrices), images.shape[2:]
    # places of the result and of the picture are in [-1, 1] here; the draws' double precision is kept up to here
    scale = np.array([2 / width, 2 / height, 1.0])
    terms = columns((matrices * scale[:, None] / scale).reshape(count, 9), images).unbind(1)  # each (B, 1, 1)
    x = ((2 * torch.arange(width, device=images.device) + 1) / width - 1).to(images.dtype).view(1, 1, width)
    y = ((2 * torch.arange(height, device=images.device) + 1) / height - 1).to(images.dtype).view(1, height, 1)
    grid = torch.empty((count, height, width, 2), dtype=images.dtype, device=images.device)
    for axis in range(2):
        torch.add(terms[3 * axis] * x, terms[3 * axis + 1] * y + terms[3 * axis + 2], out=grid[..., axis])
    if matrices[:, 2, :2].any():
        divisor = terms[6] * x + (terms[7] * y + terms[8])  # (B, H, W)
        near = divisor.abs() < NEAREST_HORIZON
        grid.div_(divisor.masked_fill_(near, NEAREST_HORIZON).unsqueeze(-1))
    # outside is zero to grid_sample, which is fastest on one colour after the other in memory
    centred = torch.empty(images.shape, dtype=images.dtype, device=images.device)
    torch.sub(images, GREY, out=centred)
    moved = F.grid_sample(
        centred, grid.expand(len(images), -1, -1, -1), mode="bilinear", padding_mode="zeros", align_corners=False
    )
    return moved.add_(GREY)

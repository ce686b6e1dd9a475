"""Strokes of a pen: curves as wide as a pen's line, in any colour. Real classifiers are fooled by them."""

import numpy as np
import numpy.typing as npt
import torch

from pipelines.augmentation.broadcast import columns
from pipelines.augmentation.sampling import SampledParams

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

"""The score of two images: the correlation of their grey pixels once one is laid on the other.

Brightness and contrast are taken out, and the best small zoom and shift is found by least squares (Lucas and Kanade
1981, in the inverse compositional form of Baker and Matthews 2004). 1 is the same image; random pairs score about 0.
Scores have four decimals; the rounding error of the float32 sums is about 1e-6, so neither threads nor CPU show.
"""

import numpy as np
import numpy.typing as npt

from pipelines.dedupe.hashes import CropBox, Indices, Thumbnails, ThumbnailSubset
from pipelines.images.decoding import THUMBNAIL_SIDE as SIDE

Floats = npt.NDArray[np.float32]

_ITERATIONS = 6
# pairs at a time: their arrays, 20 KB a pair, stay in the cache
_CHUNK = 128
# the outer sixteenth of each side is not compared: thin frames and marks at the edge do not count
_MARGIN = 1 / 16
# more zoom, or more shift as a share of a side, would fit anything to anything
_MAX_ZOOM, _MAX_SHIFT = 0.18, 1 / 8
# alignment cannot bring together two images that fit no better than this as found; most candidates are such
_HOPELESS = 0.75
# keeps a part of one single grey from dividing by zero
_TINY = 1e-3


def align_candidates(
    thumbnails: Thumbnails | ThumbnailSubset,
    moving_rows: Indices,
    fixed_rows: Indices,
    mirrored: npt.NDArray[np.bool_],
    box: CropBox,
    rotation: int = 0,
) -> tuple[npt.NDArray[np.float64], Floats]:
    """Score P candidate pairs of the hash search: the better of the pair as found and the pair aligned further.

    Args:
        moving_rows: (P,) rows of which the crop `box` was found to match.
        fixed_rows: (P,) rows that it matches, as a whole.
        mirrored: (P,) whether the fixed image is mirrored.
        rotation: quarter turns of the moving image before the crop, anticlockwise.

    Returns:
        (P,) scores in [-1, 1], four decimals, and (P, 4) float32 warps, as `sample` takes them.
    """
    centre_x, centre_y = (box.left + box.right) / 2 - 0.5, (box.top + box.bottom) / 2 - 0.5
    start = np.array(
        [box.right - box.left, centre_x * SIDE, box.bottom - box.top, centre_y * SIDE], np.float32
    )  # zoom x, shift x, zoom y, shift y
    scores = np.empty(len(moving_rows))
    warps = np.empty((len(moving_rows), 4), np.float32)
    within = inner(SIDE)
    for begin in range(0, len(scores), _CHUNK):
        part = slice(begin, begin + _CHUNK)
        moving = np.rot90(thumbnails[moving_rows[part]], rotation, axes=(1, 2)).astype(np.float32)
        fixed = thumbnails[fixed_rows[part]].astype(np.float32)
        flipped = mirrored[part]
        fixed[flipped] = fixed[flipped][:, :, ::-1]
        warp = np.repeat(start[None], len(fixed), axis=0)
        seen = _standardise(sample(moving, warp))
        score: Floats = (seen * _standardise(fixed[:, within, within])).sum(axis=1)
        hopeful = score >= _HOPELESS
        if hopeful.any():
            few = moving[hopeful], fixed[hopeful], warp[hopeful]
            score[hopeful], warp[hopeful] = align(*few, seen=seen[hopeful])
        scores[part], warps[part] = score, warp
    return np.round(scores, 4), warps


def inner(side: int) -> slice:
    """The compared pixels of an axis."""
    margin = int(side * _MARGIN)
    return slice(margin, side - margin)


def align(moving: Floats, fixed: Floats, start: Floats, *, seen: Floats | None = None) -> tuple[Floats, Floats]:
    """Find the warp that lays `moving` on `fixed` best.

    Args:
        moving, fixed: (P, S, S) grey; the inner part of `fixed` is compared.
        start: (P, 4) the warps to begin with, as `sample` takes them.
        seen: (P, M) the standardised sample of `moving` under `start`, if known.

    Returns:
        (P,) best correlations, and (P, 4) their warps.
    """
    side = fixed.shape[1]
    within, grid = inner(side), _grid(side)
    target = _standardise(fixed[:, within, within])
    slope_y: Floats = np.gradient(fixed, axis=1)[:, within, within]
    slope_x: Floats = np.gradient(fixed, axis=2)[:, within, within]
    # derivatives of the target by zoom and shift along x, then along y: (P, 4, M)
    steepest = np.stack([slope_x * grid, slope_x, slope_y * grid[:, None], slope_y], axis=1)
    steepest = steepest.reshape(len(fixed), 4, -1)
    steepest -= steepest.mean(axis=2, keepdims=True)
    # a change of contrast is no movement
    steepest -= (steepest @ target[:, :, None]) * target[:, None]
    hessian = steepest @ steepest.transpose(0, 2, 1)
    # damping: an image without detail along an axis stays where it is on that axis
    trace = np.einsum("pii->p", hessian)[:, None, None]
    hessian += np.eye(4, dtype=np.float32) * (1e-3 * trace + 1.0)
    contrast = np.linalg.norm(_centred(fixed[:, within, within]), axis=1)

    warp = start.copy()
    best = np.full(len(fixed), -1.0, np.float32)
    best_warp = warp.copy()
    for iteration in range(_ITERATIONS + 1):
        if seen is None or iteration > 0:
            seen = _standardise(sample(moving, warp))
        found = (seen * target).sum(axis=1)
        better = found > best
        best[better], best_warp[better] = found[better], warp[better]
        if iteration == _ITERATIONS:
            break
        # the error in grey levels of the target
        error = (seen - found[:, None] * target) * contrast[:, None]
        step = np.linalg.solve(hessian, steepest @ error[:, :, None])[:, :, 0]
        zoom, shift = 1 + step[:, 0::2], step[:, 1::2]
        zoom = np.clip(zoom, 0.8, 1.25)
        warp[:, 0::2] /= zoom
        warp[:, 1::2] -= warp[:, 0::2] * shift
        warp[:, 0::2] = np.clip(warp[:, 0::2], start[:, 0::2] - _MAX_ZOOM, start[:, 0::2] + _MAX_ZOOM)
        reach = _MAX_SHIFT * side
        warp[:, 1::2] = np.clip(warp[:, 1::2], start[:, 1::2] - reach, start[:, 1::2] + reach)
    return best, best_warp


def sample(images: Floats, warp: Floats) -> Floats:
    """Sample the compared part of P images under their warps.

    Args:
        images: (P, S, S) float32.
        warp: (P, 4) float32: zoom and shift (pixels) along x, then along y; 1, 0, 1, 0 is the identity.

    Returns:
        (P, M, M) values at zoom * place + shift from the centre, linear between pixels, the edge repeated outside.
    """
    side, grid = images.shape[1], _grid(images.shape[1])
    at = np.clip(
        warp[:, 0::2, None] * grid + warp[:, 1::2, None] + np.float32((side - 1) / 2), 0, side - 1
    )  # (P, 2, M)
    low = np.minimum(at.astype(np.int64), side - 2)
    part = at - low.astype(np.float32)  # exact
    # copies whole rows, then whole rows of the transposed image: a third of the time of gathering single values
    across = _between_rows(images, low[:, 1], part[:, 1]).transpose(0, 2, 1)  # (P, S, M)
    return np.ascontiguousarray(_between_rows(across, low[:, 0], part[:, 0]).transpose(0, 2, 1))


def _between_rows(images: Floats, low: npt.NDArray[np.int64], part: Floats) -> Floats:
    """(P, M, W): between the rows `low` (P, M) of P images (P, S, W) and the rows below, by the share `part` (P, M)."""
    (count, side, width), rows = images.shape, low + np.arange(len(low))[:, None] * images.shape[1]
    flat = np.ascontiguousarray(images).reshape(count * side, width)
    found: Floats = flat.take(rows, axis=0)
    below = flat.take(rows + 1, axis=0)
    below -= found
    below *= part[:, :, None]
    found += below
    return found


def _grid(side: int) -> Floats:
    """Positions of the compared pixels of an axis, from the centre."""
    grid: Floats = (np.arange(side, dtype=np.float32) - (side - 1) / 2)[inner(side)]
    return grid


def _centred(images: Floats) -> Floats:
    flat = images.reshape(len(images), -1)
    centred: Floats = flat - flat.mean(axis=1, keepdims=True)
    return centred


def _standardise(images: Floats) -> Floats:
    """(P, M): mean taken out, length 1."""
    flat = _centred(images)
    unit: Floats = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), _TINY)
    return unit


def correlation(first: Floats, second: Floats) -> Floats:
    """(P,) of two arrays (P, ...)."""
    found: Floats = (_standardise(first) * _standardise(second)).sum(axis=1)
    return found

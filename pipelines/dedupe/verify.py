"""How alike two pictures are once they lie on each other: the judge of what the hash search brings up.

Score: correlation of the two thumbnails, brightness and contrast taken out, after the best small zoom and shift has
been found by least squares (Lucas and Kanade 1981, in the inverse compositional form of Baker and Matthews 2004).
1 is the same picture; pictures taken at random score about 0. The score is rounded to four decimals; the rounding
error of the float32 sums is about 1e-6, so thread count and CPU do not show in it.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipelines.dedupe.hashes import SIDE, Chosen, Thumbnails, View

Floats = npt.NDArray[np.float32]

_ITERATIONS = 6
# pairs at a time: their arrays, 20 KB a pair, stay in the cache
_CHUNK = 128
# the outer sixteenth on each side is not compared: thin frames and marks at the edge do not count
_MARGIN = 1 / 16
# zoom beyond this, and shift beyond this share of a side, fit anything to anything
_MAX_ZOOM, _MAX_SHIFT = 0.18, 1 / 8
# two pictures that fit no better as they were found are not brought together by aligning them; most candidates are such
_HOPELESS = 0.75
# keeps a part of one single grey from dividing by zero
_TINY = 1e-3


@dataclass(frozen=True)
class Candidates:
    """P pairs that the hash search brought up, and how each was found.

    Args:
        first: (P,) row whose part `view` is compared.
        second: (P,) row that is compared whole.
        mirrored: (P,) the second is mirrored.
        view: the part of the first.
        turns: quarter turns of the first, anticlockwise, before that.
    """

    first: npt.NDArray[np.int64]
    second: npt.NDArray[np.int64]
    mirrored: npt.NDArray[np.bool_]
    view: View
    turns: int = 0


@dataclass(frozen=True)
class Verdicts:
    """How alike P pairs are, and how the first lies on the second where they are most alike.

    Args:
        score: (P,) in [-1, 1], four decimals.
        warp: (P, 4) float32 of `sample`.
    """

    score: npt.NDArray[np.float64]
    warp: Floats


def verify(thumbnails: Thumbnails | Chosen, candidates: Candidates) -> Verdicts:
    """The better of each pair as found and the pair aligned further."""
    view = candidates.view
    start = np.array(
        [
            view.right - view.left,
            ((view.left + view.right) / 2 - 0.5) * SIDE,
            view.bottom - view.top,
            ((view.top + view.bottom) / 2 - 0.5) * SIDE,
        ],
        np.float32,
    )  # zoom x, shift x, zoom y, shift y
    scores = np.empty(len(candidates.first))
    warps = np.empty((len(candidates.first), 4), np.float32)
    for begin in range(0, len(scores), _CHUNK):
        part = slice(begin, begin + _CHUNK)
        moving = np.rot90(thumbnails[candidates.first[part]], candidates.turns, axes=(1, 2)).astype(np.float32)
        fixed = thumbnails[candidates.second[part]].astype(np.float32)
        flipped = candidates.mirrored[part]
        fixed[flipped] = fixed[flipped][:, :, ::-1]
        warp = np.repeat(start[None], len(fixed), axis=0)
        within = inner(SIDE)
        seen = _standardise(sample(moving, warp))
        score: Floats = (seen * _standardise(fixed[:, within, within])).sum(axis=1)
        hopeful = score >= _HOPELESS
        if hopeful.any():
            few = moving[hopeful], fixed[hopeful], warp[hopeful]
            score[hopeful], warp[hopeful] = align(*few, seen=seen[hopeful])
        scores[part], warps[part] = score, warp
    return Verdicts(np.round(scores, 4), warps)


def inner(side: int) -> slice:
    """The pixels of an axis that are compared."""
    margin = int(side * _MARGIN)
    return slice(margin, side - margin)


def align(moving: Floats, fixed: Floats, start: Floats, *, seen: Floats | None = None) -> tuple[Floats, Floats]:
    """Lay `moving` on `fixed` as well as it goes.

    Args:
        moving: (P, S, S) grey.
        fixed: (P, S, S) grey; its inner part is compared.
        start: (P, 4) the warps to begin with, as `sample` takes them.
        seen: (P, M) what these show of `moving`, mean taken out, length 1, where that is known.

    Returns:
        (P,) the correlation where they fit best, and (P, 4) the warps that bring them there.
    """
    side = fixed.shape[1]
    within, grid = inner(side), _grid(side)
    target = _standardise(fixed[:, within, within])
    slope_y: Floats = np.gradient(fixed, axis=1)[:, within, within]
    slope_x: Floats = np.gradient(fixed, axis=2)[:, within, within]
    # how the target changes with zoom and shift along x, then along y: (P, 4, M)
    steepest = np.stack([slope_x * grid, slope_x, slope_y * grid[:, None], slope_y], axis=1)
    steepest = steepest.reshape(len(fixed), 4, -1)
    steepest -= steepest.mean(axis=2, keepdims=True)
    # a change of contrast is no movement
    steepest -= (steepest @ target[:, :, None]) * target[:, None]
    hessian = steepest @ steepest.transpose(0, 2, 1)
    # a picture without detail along an axis says nothing about its place there: stay
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


def sample(pictures: Floats, warp: Floats) -> Floats:
    """The compared part of P pictures, as `warp` says where it lies.

    Args:
        pictures: (P, S, S) float32.
        warp: (P, 4) float32: zoom and shift (pixels) along x, then along y; 1, 0, 1, 0 is the inner part
            itself.

    Returns:
        (P, M, M) values at zoom * place + shift from the centre, linearly between pixels, the edge repeated outside.
    """
    side, grid = pictures.shape[1], _grid(pictures.shape[1])
    at = np.clip(
        warp[:, 0::2, None] * grid + warp[:, 1::2, None] + np.float32((side - 1) / 2), 0, side - 1
    )  # (P, 2, M)
    low = np.minimum(at.astype(np.int64), side - 2)
    part = at - low.astype(np.float32)  # exact
    # rows are copied whole; columns are the rows of the turned picture: a third of the time of gathering single values
    across = _between_rows(pictures, low[:, 1], part[:, 1]).transpose(0, 2, 1)  # (P, S, M)
    return np.ascontiguousarray(_between_rows(across, low[:, 0], part[:, 0]).transpose(0, 2, 1))


def _between_rows(pictures: Floats, low: npt.NDArray[np.int64], part: Floats) -> Floats:
    """(P, M, W): of P pictures (P, S, W) the rows `low` (P, M), and of the rows below these the share `part` (P, M)."""
    (count, side, width), rows = pictures.shape, low + np.arange(len(low))[:, None] * pictures.shape[1]
    flat = np.ascontiguousarray(pictures).reshape(count * side, width)
    found: Floats = flat.take(rows, axis=0)
    below = flat.take(rows + 1, axis=0)
    below -= found
    below *= part[:, :, None]
    found += below
    return found


def _grid(side: int) -> Floats:
    """Where the compared pixels lie, from the centre."""
    grid: Floats = (np.arange(side, dtype=np.float32) - (side - 1) / 2)[inner(side)]
    return grid


def _centred(pictures: Floats) -> Floats:
    flat = pictures.reshape(len(pictures), -1)
    centred: Floats = flat - flat.mean(axis=1, keepdims=True)
    return centred


def _standardise(pictures: Floats) -> Floats:
    """(P, M): mean taken out, length 1."""
    flat = _centred(pictures)
    unit: Floats = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), _TINY)
    return unit


def correlation(first: Floats, second: Floats) -> Floats:
    """(P,) of two arrays (P, ...)."""
    found: Floats = (_standardise(first) * _standardise(second)).sum(axis=1)
    return found

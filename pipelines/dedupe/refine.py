"""Compare near pairs on their decoded images: grey at 96 pixels, where they have as many, and colours at 32.

Grey thumbnails of 32 pixels find candidates; two guitars of one shop differ in smaller things. Each image of a near
pair is decoded once, and the pair is aligned again at the larger size.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipelines.dedupe.alignment import Floats, align, correlation, inner, sample
from pipelines.dedupe.near_pairs import NearPairs
from pipelines.images.decoding import THUMBNAIL_SIDE as SIDE
from pipelines.images.decoding import Pixels
from pipelines.parallel.pool import num_workers

Flags = npt.NDArray[np.bool_]

LARGE_SIDE = 96
"""pixels; smaller details are not compared"""
SMALLEST_LARGE = 64
"""pixels; images with a shorter side have too little beyond their thumbnail"""

# tiles an axis; the margin leaves 84 of 96 pixels, so a tile is 14
_TILES = 6
# detail is what is between these two box filters: 3 pixels take out JPEG's noise, 13 take out light and shade
_FINE, _COARSE = 1, 6
# levels: what saving does to a smooth tile; differences of this size say nothing
_NOISE = 1.0
# the share of the detail that `clear` leaves out
_COVERED = 0.4
# a tile with this share of the detail stands out where its correlation misses 1 by .02 and by 12 times what the median
# tile misses, or by .05 and 4 times: saving, resizing and blur harm all tiles, another part one or two
_ENOUGH, _MAY_MISS, _OF_MEDIAN, _STANDS_OUT, _WHERE_ALL_MISS = 0.02, 0.02, 12.0, 0.05, 4.0
# the tiles of a mark: three beside each other in a corner, (4, 36)
_CORNERS = np.zeros((4, _TILES**2), np.bool_)
for _corner, _first in enumerate((0, _TILES - 3, _TILES**2 - _TILES, _TILES**2 - 3)):
    _CORNERS[_corner, _first : _first + 3] = True
# contrast and brightness change all colours by the factor of the greys, give or take this
_GAIN = 1.25
# pairs at a time: 128 of 96 pixels take about 100 MB, 512 of 32 take 50
_PAIRS, _SMALL_PAIRS = 128, 512
# images kept reduced: 12 KB each
_CACHE = 16_384
# pairs whose images are decoded before they are compared
_STRETCH = 2048
# images a job decodes, and whose colours are converted as one image
_DECODED = 32


@dataclass(frozen=True)
class ComparedImage:
    """What is kept of a decoded image: grey (96, 96), None for a small one; colours (3, 32, 32) YCbCr (ITU-R 601)."""

    grey: Pixels | None
    colours: Pixels


@dataclass(frozen=True)
class TileAgreement:
    """How well the detail of P pairs agrees, tile by tile.

    Args:
        mean: (P,) mean correlation of the tiles, weighted by their detail.
        clear: (P,) the correlation that all tiles reach but those of the worst 40 % of the detail.
        whole: (P,) no tile stands out as different.
        marked: (P,) the tiles that stand out lie in one corner, as those of a mark do.
    """

    mean: Floats
    clear: Floats
    whole: Flags
    marked: Flags


@dataclass(frozen=True)
class Refinement:
    """What decoded images say of P near pairs.

    Args:
        warp: (P, 4) as in NearPairs, more exact.
        score: (P,) correlation of the greys; NaN where an image is small.
        detail, clear, whole, marked: (P,) of TileAgreement; NaN, NaN, True and True where an image is small.
        colour_score: (P,) correlation of the colours, 32 pixels.
        apart: (P,) mean |difference| of Cb and Cr, levels.
        colourful: (P,) mean |Cb|, |Cr| of the duller one, levels from grey.
        strongest: (P,) largest |Cb|, |Cr| of the duller one.
        recoloured: (P,) largest distance of (Cb, Cr), means of 3 x 3 of 32 x 32 pixels, once the colours of one are
            scaled to those of the other by about the factor of the greys, beyond a fifth of the strongest; -inf where
            an image is small.
    """

    warp: Floats
    score: Floats
    detail: Floats
    clear: Floats
    whole: Flags
    marked: Flags
    colour_score: Floats
    apart: Floats
    colourful: Floats
    strongest: Floats
    recoloured: Floats


def refine_pairs(pairs: NearPairs, pixels: Callable[[int], Pixels], large: Flags) -> Iterator[tuple[slice, Refinement]]:
    """Compare pairs on their decoded images, some at a time.

    Args:
        pairs: P of them; neighbours that share images save decoding.
        pixels: decodes a row to (H, W, 3) RGB; called from several threads.
        large: (N,) images whose shorter side has SMALLEST_LARGE pixels.

    Yields:
        which pairs, and what was found.
    """
    seen: dict[int, ComparedImage] = {}
    with ThreadPoolExecutor(num_workers()) as pool:
        for begin in range(0, len(pairs), _STRETCH):
            stretch = pairs.take(slice(begin, begin + _STRETCH))
            rows = np.unique(np.concatenate([stretch.moving, stretch.fixed])).tolist()
            missing = [row for row in rows if row not in seen]
            if len(seen) + len(missing) > _CACHE:
                seen = {row: seen[row] for row in rows if row in seen}
            some = [missing[start : start + _DECODED] for start in range(0, len(missing), _DECODED)]
            any_large = bool(large[rows].any())
            # threads that decode small images wait for the interpreter longer than they decode
            decode = pool.map if any_large else map
            for inside, found in zip(some, decode(lambda rows: _reduce(map(pixels, rows)), some), strict=True):
                seen |= zip(inside, found, strict=True)
            step = _PAIRS if any_large else _SMALL_PAIRS
            parts = [slice(start, min(start + step, len(stretch))) for start in range(0, len(stretch), step)]
            refined = pool.map(_compare, map(stretch.take, parts), repeat(seen))
            for part, compared in zip(parts, refined, strict=True):
                yield slice(begin + part.start, begin + part.stop), compared


def _reduce(images: Iterable[Pixels]) -> list[ComparedImage]:
    """Shrink (H, W, 3) RGB images, one held at a time."""
    greys: list[Pixels | None] = []
    small: list[Pixels] = []
    for pixels in images:
        is_large = min(pixels.shape[:2]) >= SMALLEST_LARGE
        greys.append(np.asarray(_resized(pixels, LARGE_SIDE).convert("L")) if is_large else None)
        small.append(pixels if pixels.shape[:2] == (SIDE, SIDE) else np.asarray(_resized(pixels, SIDE)))
    # as one image: a conversion costs far more than the 1,024 pixels of each
    ycc = np.asarray(Image.fromarray(np.concatenate(small)).convert("YCbCr"))
    colours = ycc.reshape(-1, SIDE, SIDE, 3).transpose(0, 3, 1, 2)
    return [ComparedImage(grey, np.ascontiguousarray(one)) for grey, one in zip(greys, colours, strict=True)]


def _resized(pixels: Pixels, side: int) -> Image.Image:
    filter_ = Image.Resampling.BOX if min(pixels.shape[:2]) >= side else Image.Resampling.BILINEAR
    return Image.fromarray(pixels).resize((side, side), filter_)


def _compare(pairs: NearPairs, seen: dict[int, ComparedImage]) -> Refinement:
    moving = [seen[row] for row in pairs.moving.tolist()]
    fixed = [seen[row] for row in pairs.fixed.tolist()]
    colours = _rotate(pairs, (one.colours for one in moving)), _mirror(pairs, (one.colours for one in fixed))
    warp, none = pairs.warp.copy(), np.full(len(pairs), np.nan, np.float32)
    score, detail, clear = none, none.copy(), none.copy()
    whole, marked = np.ones((2, len(pairs)), np.bool_)
    large = np.array(
        [one.grey is not None and other.grey is not None for one, other in zip(moving, fixed, strict=True)]
    )
    if large.any():
        few = pairs.take(large)
        at = np.flatnonzero(large).tolist()
        one = _rotate(few, (moving[i].grey[None] for i in at))[:, 0]  # type: ignore[index]  # all of these are large
        other = _mirror(few, (fixed[i].grey[None] for i in at))[:, 0]  # type: ignore[index]
        scale = np.array([1, LARGE_SIDE / SIDE, 1, LARGE_SIDE / SIDE], np.float32)
        score[large], exact = align(one, other, few.warp * scale)
        within = inner(LARGE_SIDE)
        still = other[:, within, within]
        agreement = tile_agreement(sample(one, exact), still)
        # a mark pulls the alignment off; most edits do not move the image at all
        unmoved = tile_agreement(one[:, within, within], still)
        better = unmoved.clear > agreement.clear
        exact[better] = (1, 0, 1, 0)
        score[large] = np.where(better, correlation(one[:, within, within], still), score[large])
        for name, found in (("mean", detail), ("clear", clear), ("whole", whole), ("marked", marked)):
            found[large] = np.where(better, getattr(unmoved, name), getattr(agreement, name))
        warp[large] = exact / scale
    if not large.all():
        # six more steps: crops of small images have not converged after the first six
        warp[~large] = align(colours[0][~large, 0], colours[1][~large, 0], warp[~large])[1]
    within = inner(SIDE)
    laid = np.stack([sample(np.ascontiguousarray(colours[0][:, channel]), warp) for channel in range(3)], axis=1)
    below = colours[1][:, :, within, within]
    colour_score = correlation(_rgb(laid), _rgb(below))
    # four decimals, as the scores of thumbnails: no processor's last digits decide
    score, detail, clear, colour_score = (np.round(one, 4) for one in (score, detail, clear, colour_score))
    one, other = laid[:, 1:] - 128, below[:, 1:] - 128
    recoloured = np.full(len(pairs), -np.inf, np.float32)
    if large.any():
        recoloured[large] = _recoloured(laid[large], below[large])
    return Refinement(
        np.round(warp, 4),
        score,
        detail,
        clear,
        whole,
        marked,
        colour_score,
        apart=np.abs(one - other).mean(axis=(1, 2, 3)),
        colourful=np.minimum(np.abs(one).mean(axis=(1, 2, 3)), np.abs(other).mean(axis=(1, 2, 3))),
        strongest=np.minimum(np.abs(one).max(axis=(1, 2, 3)), np.abs(other).max(axis=(1, 2, 3))),
        recoloured=recoloured,
    )


def _recoloured(laid: Floats, below: Floats) -> Floats:
    """(P,) `recoloured` of Refinement from (P, 3, M, M) YCbCr: at the worst place, since the frame may be white."""
    contrast = below[:, 0].std(axis=(1, 2)) / np.maximum(laid[:, 0].std(axis=(1, 2)), 1e-3)
    one, other = laid[:, 1:] - 128, below[:, 1:] - 128
    gain = (one * other).sum(axis=(1, 2, 3)) / np.maximum((one**2).sum(axis=(1, 2, 3)), 1)
    apart = other - one * np.clip(gain, contrast / _GAIN, contrast * _GAIN)[:, None, None, None]
    distance, strength = (
        np.sqrt(_box(each[:, 0], 1) ** 2 + _box(each[:, 1], 1) ** 2).max(axis=(1, 2)) for each in (apart, other)
    )
    found: Floats = np.round(distance - strength / 5, 2)
    return found


def _rotate(pairs: NearPairs, images: Iterable[Pixels]) -> Floats:
    """(P, C, S, S) float32, each turned by its pair's rotation."""
    turned = (np.rot90(one, int(turn), axes=(1, 2)) for one, turn in zip(images, pairs.rotation, strict=True))
    stacked: Floats = np.stack([*turned]).astype(np.float32)
    return stacked


def _mirror(pairs: NearPairs, images: Iterable[Pixels]) -> Floats:
    flipped = (one[:, :, ::-1] if mirror else one for one, mirror in zip(images, pairs.mirrored, strict=True))
    stacked: Floats = np.stack([*flipped]).astype(np.float32)
    return stacked


def _rgb(ycc: Floats) -> Floats:
    """(P, 3, M, M) YCbCr to RGB, unclipped."""
    grey, blue, red = ycc[:, 0], ycc[:, 1] - 128, ycc[:, 2] - 128
    found: Floats = np.stack([grey + 1.402 * red, grey - 0.344136 * blue - 0.714136 * red, grey + 1.772 * blue], axis=1)
    return found


def tile_agreement(first: Floats, second: Floats) -> TileAgreement:
    """Compare the detail of P pairs tile by tile; in the mean, correlations below 0 count as 0.

    Args:
        first, second: (P, M, M) grey, M a multiple of the tiles.
    """
    one, other = _tiles(_detail(first)), _tiles(_detail(second))
    energy = np.einsum("ptk,ptk->pt", one, one), np.einsum("ptk,ptk->pt", other, other)
    noise = np.float32(one.shape[2] * _NOISE**2)
    alike = (np.einsum("ptk,ptk->pt", one, other) + noise) / (np.sqrt(energy[0] * energy[1]) + noise)
    weight = np.sqrt(np.maximum(*energy))
    weight /= np.maximum(weight.sum(axis=1, keepdims=True), 1e-6)
    mean: Floats = (np.clip(alike, 0, 1) * weight).sum(axis=1)
    order = np.argsort(-alike, axis=1, kind="stable")
    reached = np.cumsum(np.take_along_axis(weight, order, 1), axis=1) >= 1 - _COVERED - 1e-6
    clear: Floats = np.take_along_axis(np.take_along_axis(alike, order, 1), reached.argmax(axis=1)[:, None], 1)[:, 0]
    counts, missing = weight > _ENOUGH, np.round(1 - alike, 4)
    counts[~counts.any(axis=1)] = True  # no detail at all
    middle = np.nanmedian(np.where(counts, missing, np.nan), axis=1)
    allowed = np.maximum(np.clip(_OF_MEDIAN * middle, _MAY_MISS, _STANDS_OUT), _WHERE_ALL_MISS * middle)
    stands_out = counts & (missing > allowed[:, None])
    elsewhere = [(stands_out & ~corner).any(axis=1) for corner in _CORNERS]
    return TileAgreement(mean, clear, ~stands_out.any(axis=1), ~np.logical_and.reduce(elsewhere))


def _detail(images: Floats) -> Floats:
    detail: Floats = _box(images, _FINE) - _box(images, _COARSE)
    return detail


def _box(images: Floats, radius: int) -> Floats:
    """Box filter of 2 * radius + 1 pixels, the edge repeated outside."""
    width = 2 * radius + 1
    for axis in (1, 2):
        around = [(0, 0), (0, 0), (0, 0)]
        around[axis] = (radius + 1, radius)
        sums = np.cumsum(np.pad(images, around, mode="edge"), axis=axis, dtype=np.float64)
        after, before = [slice(None)] * 3, [slice(None)] * 3
        after[axis], before[axis] = slice(width, None), slice(None, -width)
        images = ((sums[tuple(after)] - sums[tuple(before)]) / width).astype(np.float32)
    return images


def _tiles(images: Floats) -> Floats:
    """(P, M, M) to (P, 36, K)."""
    count, side = len(images), images.shape[1] // _TILES
    cut = images[:, : side * _TILES, : side * _TILES].reshape(count, _TILES, side, _TILES, side)
    tiles: Floats = cut.transpose(0, 1, 3, 2, 4).reshape(count, _TILES**2, side**2)
    return tiles

"""A closer look at near pairs, on the decoded pictures: 96 pixels of grey where they have them, and their colours.

Thumbnails of 32 grey pixels say where two pictures may be one; two guitars of one shop differ in what is smaller. Each
picture of a near pair is decoded once, and the pair laid on each other again at the larger size.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipelines.dedupe.hashes import SIDE
from pipelines.dedupe.near import NearPairs
from pipelines.dedupe.verify import Floats, align, correlation, inner, sample
from pipelines.images.decoding import Pixels
from pipelines.parallel.pool import num_workers

LARGE_SIDE = 96
"""pixels; what is smaller than this in a picture is not compared"""
SMALLEST_LARGE = 64
"""pictures with a shorter side have too little beyond their thumbnail"""

# tiles an axis; the margin leaves 84 of 96 pixels, so a tile is 14
_TILES = 6
# detail is what is between these two box filters: 3 pixels take out JPEG's noise, 13 take out light and shade
_FINE, _COARSE = 1, 6
# levels: what saving does to a smooth tile; differences of this size say nothing
_NOISE = 1.0
# the share of the detail that `clear` leaves out
_COVERED = 0.4
# a tile with this share of the detail stands out where its correlation misses 1 by .02 and by 12 times what the middle
# one of the tiles misses, or by .05 and 4 times: saving, resizing and blur harm all tiles, another part one or two
_ENOUGH, _MAY_MISS, _OF_MIDDLE, _STANDS_OUT, _WHERE_ALL_MISS = 0.02, 0.02, 12.0, 0.05, 4.0
# the tiles of a mark: three beside each other in a corner, (4, 36)
_CORNERS = np.zeros((4, _TILES**2), np.bool_)
for _corner, _first in enumerate((0, _TILES - 3, _TILES**2 - _TILES, _TILES**2 - 3)):
    _CORNERS[_corner, _first : _first + 3] = True
# contrast and brightness change all colours by the factor of the greys, give or take this
_GAIN = 1.25
# pairs at a time: 128 of 96 pixels take about 100 MB, 512 of 32 take 50
_PAIRS, _SMALL_PAIRS = 128, 512
# pictures kept decoded: 12 KB each
_CACHE = 16_384
# pairs whose pictures are decoded before they are compared
_STRETCH = 2048
# pictures that are decoded before they are handed over, and whose colours are converted as one picture
_LOOKS = 32


@dataclass(frozen=True)
class Look:
    """What is kept of a decoded picture."""

    grey: Pixels | None
    """(96, 96), None for a small picture"""
    colours: Pixels
    """(3, 32, 32) YCbCr (ITU-R 601)"""


@dataclass(frozen=True)
class Closer:
    """What a closer look at P pairs found.

    Args:
        warp: (P, 4) as in NearPairs, more exact.
        score: (P,) correlation of the greys; NaN where a picture is small.
        detail: (P,) mean correlation of the tiles' detail, weighted by how much there is; NaN where one is small.
        clear: (P,) the correlation that all tiles reach but those of the worst 40 % of the detail; NaN where one is
            small.
        whole: (P,) no tile's detail stands out as another; True where one is small.
        marked: (P,) the tiles that do lie in one corner, as those of a mark; True where one is small.
        colour_score: (P,) correlation of the colours, 32 pixels.
        apart: (P,) mean |difference| of Cb and Cr, levels.
        colourful: (P,) mean |Cb|, |Cr| of the duller one, levels from grey.
        strongest: (P,) largest |Cb|, |Cr| of the duller one.
        recoloured: (P,) largest distance of (Cb, Cr), means of 3 x 3 of 32 x 32 pixels, with the colours of one made
            as strong as those of the other by about the factor of the greys, beyond a fifth of the strongest; -inf
            where one is small.
    """

    warp: Floats
    score: Floats
    detail: Floats
    clear: Floats
    whole: npt.NDArray[np.bool_]
    marked: npt.NDArray[np.bool_]
    colour_score: Floats
    apart: Floats
    colourful: Floats
    strongest: Floats
    recoloured: Floats


def looks(pictures: Iterable[Pixels]) -> list[Look]:
    """Keep of each (H, W, 3) RGB picture what comparing needs; no two of them are held at a time."""
    greys: list[Pixels | None] = []
    small: list[Pixels] = []
    for pixels in pictures:
        shorter, grey = min(pixels.shape[:2]), None
        if shorter >= SMALLEST_LARGE:
            grey = np.asarray(_resized(pixels, LARGE_SIDE).convert("L"))
        greys.append(grey)
        small.append(pixels if pixels.shape[:2] == (SIDE, SIDE) else np.asarray(_resized(pixels, SIDE)))
    # as one picture: a conversion costs far more than the 1,024 pixels of each
    ycc = np.asarray(Image.fromarray(np.concatenate(small)).convert("YCbCr"))
    colours = ycc.reshape(-1, SIDE, SIDE, 3).transpose(0, 3, 1, 2)
    return [Look(grey, np.ascontiguousarray(one)) for grey, one in zip(greys, colours, strict=True)]


def _resized(pixels: Pixels, side: int) -> Image.Image:
    filter_ = Image.Resampling.BOX if min(pixels.shape[:2]) >= side else Image.Resampling.BILINEAR
    return Image.fromarray(pixels).resize((side, side), filter_)


def look_closer(
    pairs: NearPairs, pixels: Callable[[int], Pixels], large: npt.NDArray[np.bool_]
) -> Iterator[tuple[slice, Closer]]:
    """Compare pairs on their decoded pictures, some at a time.

    Args:
        pairs: P of them; neighbours that share pictures save decoding.
        pixels: the decoded picture of a row, (H, W, 3) RGB; called from several threads.
        large: (N,) pictures whose shorter side has SMALLEST_LARGE pixels.

    Yields:
        which pairs, and what was found.
    """
    seen: dict[int, Look] = {}
    with ThreadPoolExecutor(num_workers()) as pool:
        for begin in range(0, len(pairs), _STRETCH):
            stretch = pairs.of(slice(begin, begin + _STRETCH))
            rows = np.unique(np.concatenate([stretch.moving, stretch.fixed])).tolist()
            missing = [row for row in rows if row not in seen]
            if len(seen) + len(missing) > _CACHE:
                seen = {row: seen[row] for row in rows if row in seen}
            some = [missing[start : start + _LOOKS] for start in range(0, len(missing), _LOOKS)]
            any_large = bool(large[rows].any())
            # threads that decode small pictures wait for the interpreter longer than they decode
            decode = pool.map if any_large else map
            for inside, found in zip(some, decode(lambda rows: looks(map(pixels, rows)), some), strict=True):
                seen |= zip(inside, found, strict=True)
            step = _PAIRS if any_large else _SMALL_PAIRS
            parts = [slice(start, min(start + step, len(stretch))) for start in range(0, len(stretch), step)]
            closer = pool.map(_compare, map(stretch.of, parts), repeat(seen))
            for part, compared in zip(parts, closer, strict=True):
                yield slice(begin + part.start, begin + part.stop), compared


def _compare(pairs: NearPairs, seen: dict[int, Look]) -> Closer:
    moving = [seen[row] for row in pairs.moving.tolist()]
    fixed = [seen[row] for row in pairs.fixed.tolist()]
    colours = _laid(pairs, (one.colours for one in moving)), _mirrored(pairs, (one.colours for one in fixed))
    warp, none = pairs.warp.copy(), np.full(len(pairs), np.nan, np.float32)
    score, detail, clear = none, none.copy(), none.copy()
    whole, marked = np.ones((2, len(pairs)), np.bool_)
    large = np.array(
        [one.grey is not None and other.grey is not None for one, other in zip(moving, fixed, strict=True)]
    )
    if large.any():
        few = pairs.of(large)
        at = np.flatnonzero(large).tolist()
        one = _laid(few, (moving[i].grey[None] for i in at))[:, 0]  # type: ignore[index]  # all of these are large
        other = _mirrored(few, (fixed[i].grey[None] for i in at))[:, 0]  # type: ignore[index]
        scale = np.array([1, LARGE_SIDE / SIDE, 1, LARGE_SIDE / SIDE], np.float32)
        score[large], exact = align(one, other, few.warp * scale)
        within = inner(LARGE_SIDE)
        still = other[:, within, within]
        agreement = tile_agreement(sample(one, exact), still)
        # a mark pulls the first picture off the second; most changes do not move it at all
        unmoved = tile_agreement(one[:, within, within], still)
        better = unmoved.clear > agreement.clear
        exact[better] = (1, 0, 1, 0)
        score[large] = np.where(better, correlation(one[:, within, within], still), score[large])
        for name, found in (("mean", detail), ("clear", clear), ("whole", whole), ("marked", marked)):
            found[large] = np.where(better, getattr(unmoved, name), getattr(agreement, name))
        warp[large] = exact / scale
    if not large.all():
        # six more steps from where the first six ended: crops of small pictures had not yet arrived
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
    return Closer(
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
    """`recoloured` of Closer, (P,), from (P, 3, M, M) YCbCr: at the worst place, since the frame may be white."""
    contrast = below[:, 0].std(axis=(1, 2)) / np.maximum(laid[:, 0].std(axis=(1, 2)), 1e-3)
    one, other = laid[:, 1:] - 128, below[:, 1:] - 128
    gain = (one * other).sum(axis=(1, 2, 3)) / np.maximum((one**2).sum(axis=(1, 2, 3)), 1)
    apart = other - one * np.clip(gain, contrast / _GAIN, contrast * _GAIN)[:, None, None, None]
    distance, strength = (
        np.sqrt(_box(each[:, 0], 1) ** 2 + _box(each[:, 1], 1) ** 2).max(axis=(1, 2)) for each in (apart, other)
    )
    found: Floats = np.round(distance - strength / 5, 2)
    return found


def _laid(pairs: NearPairs, pictures: Iterable[Pixels]) -> Floats:
    """(P, C, S, S) float32, each turned as its pair says."""
    turned = (np.rot90(one, int(turns), axes=(1, 2)) for one, turns in zip(pictures, pairs.turns, strict=True))
    stacked: Floats = np.stack([*turned]).astype(np.float32)
    return stacked


def _mirrored(pairs: NearPairs, pictures: Iterable[Pixels]) -> Floats:
    flipped = (one[:, :, ::-1] if mirror else one for one, mirror in zip(pictures, pairs.mirrored, strict=True))
    stacked: Floats = np.stack([*flipped]).astype(np.float32)
    return stacked


def _rgb(ycc: Floats) -> Floats:
    """(P, 3, M, M) YCbCr to RGB, unclipped."""
    grey, blue, red = ycc[:, 0], ycc[:, 1] - 128, ycc[:, 2] - 128
    found: Floats = np.stack([grey + 1.402 * red, grey - 0.344136 * blue - 0.714136 * red, grey + 1.772 * blue], axis=1)
    return found


@dataclass(frozen=True)
class TileAgreement:
    """How alike the detail of P pictures is: the fields `detail`, `clear`, `whole` and `marked` of Closer."""

    mean: Floats
    clear: Floats
    whole: npt.NDArray[np.bool_]
    marked: npt.NDArray[np.bool_]


def tile_agreement(first: Floats, second: Floats) -> TileAgreement:
    """Compare the detail of two pictures tile by tile; correlations are weighted by contrast, those below 0 are 0.

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
    allowed = np.maximum(np.clip(_OF_MIDDLE * middle, _MAY_MISS, _STANDS_OUT), _WHERE_ALL_MISS * middle)
    stands_out = counts & (missing > allowed[:, None])
    elsewhere = [(stands_out & ~corner).any(axis=1) for corner in _CORNERS]
    return TileAgreement(mean, clear, ~stands_out.any(axis=1), ~np.logical_and.reduce(elsewhere))


def _detail(pictures: Floats) -> Floats:
    detail: Floats = _box(pictures, _FINE) - _box(pictures, _COARSE)
    return detail


def _box(pictures: Floats, radius: int) -> Floats:
    """Mean of the square of 2 * radius + 1 pixels around each, the edge repeated outside."""
    width = 2 * radius + 1
    for axis in (1, 2):
        around = [(0, 0), (0, 0), (0, 0)]
        around[axis] = (radius + 1, radius)
        sums = np.cumsum(np.pad(pictures, around, mode="edge"), axis=axis, dtype=np.float64)
        after, before = [slice(None)] * 3, [slice(None)] * 3
        after[axis], before[axis] = slice(width, None), slice(None, -width)
        pictures = ((sums[tuple(after)] - sums[tuple(before)]) / width).astype(np.float32)
    return pictures


def _tiles(pictures: Floats) -> Floats:
    """(P, M, M) to (P, 36, K)."""
    count, side = len(pictures), pictures.shape[1] // _TILES
    cut = pictures[:, : side * _TILES, : side * _TILES].reshape(count, _TILES, side, _TILES, side)
    tiles: Floats = cut.transpose(0, 1, 3, 2, 4).reshape(count, _TILES**2, side**2)
    return tiles

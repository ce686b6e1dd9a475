"""Classify near pairs: a copy, another crop of the same photograph, or only a look-alike.

    near      one is made from the other: resized, saved again, brightened, cut by up to 12 %, mirrored, marked in a
              corner, framed
    recrop    the same photograph, but each shows something that the other does not, or one was stretched: both were
              made from a third image
    similar   thumbnails agree and detail or colours do not, be it in one place: the next guitar of a shop, the same one
              with another pickup or in another finish, a burst of photographs

Copies are dropped by default. For `recrop` and `similar` pairs both images are kept, in the same split: dropping an
image asks for more certainty than keeping two on one side.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipelines.dedupe.alignment import Floats
from pipelines.dedupe.near_pairs import NearPairs
from pipelines.dedupe.refine import Flags, Refinement
from pipelines.images.decoding import THUMBNAIL_SIDE as SIDE

NOTHING, NEAR, RECROP, SIMILAR = "", "near", "recrop", "similar"

# The thresholds, and what each buys: the change without it, measured on 991 copies that were found before and on 454
# pairs of different things of benchmarks/peers_dedupe (guitars, clothing, instruments, drawn guitars). With all of them
# 943 of the former are copies, and 21 of the latter are taken for copies (8 of 322 real ones).
#
# Large images (shorter side of 64 pixels and more): one of four clauses must hold.
# 1 detail   mean of the tiles' detail | +7 copies        greys | +3 copies; guards where no tile stands out, as in blur
_DETAIL, _DETAIL_SCORE = 0.985, 0.97
#            where random images resemble each other: 1 - detail is at most the thumbnails' distance times this, but the
#            detail need not exceed the second number | +1 false
_OF_LIMIT_DETAIL, _DETAIL_AT_MOST = 1.2, 0.99
# 2 clear    a mark in a corner: the rest of the detail, and the greys | clause -68 copies; numbers +2 false
_CLEAR, _CLEAR_SCORE = 0.996, 0.94
# 3 sure     thumbnails that agree so well, though blur or a small size took detail away; and the greys | -4 copies
_SURE_SCORE, _SURE_DETAIL_SCORE = 0.998, 0.93
# 4 framed   low quality takes detail away but moves nothing: thumbnails, greys and detail within this zoom and shift
#            | no copy of these; quality 20 of a smooth image (test_a_low_quality_copy_is_found…)
_FRAMED_SCORE, _FRAMED_GREY, _FRAMED_DETAIL, _FRAMED_ZOOM, _FRAMED_SHIFT = 0.995, 0.99, 0.95, 0.006, 0.15
#
# Colours.
# levels that one place may differ beyond a fifth of the strongest colour; quality 15 costs 5
# | +17 copies (contrast 1.4 clips colours), +17 false
_RECOLOURED = 6.0
# mean |difference| of Cb and Cr: at most this share of the colourfulness of the duller one | -226 copies, -4 false
_OF_COLOURFULNESS = 0.3
# plus the levels that JPEG's coarse colours (blocks of 16 pixels) cost, at 32 pixels and at least
# | CIFAR-10's copies at quality 40; of large ones -1 copy
_LEVELS_AT_32, _LEVELS = 2.5, 0.4
# times this where the greys are sure, by thumbnail or by this detail: brightened, or saved at low quality
# | -78 copies, -1 false
_SURE_FACTOR, _SURE_DETAIL = 3.0, 0.992
# largest |Cb|, |Cr| of a grey image (rounding) | all grey copies; the score that one without colour needs | +2 copies
_GREY, _GREY_SCORE = 1.5, 0.99
#
# Small images have no more detail than their thumbnails, but colours: their distance, as a share of the greys'
# | precision among 62,500 of CIFAR-10
_OF_LIMIT = 0.8
#
# Geometry, derived: a cut of up to 12 % of an axis; an edge that sticks out, share of a side; unequal zoom of the axes,
# logarithm. Beyond these a copy is a recrop
_MAX_CUT, _MAX_OVERHANG, _MAX_STRETCH = 0.13, 0.2 / SIDE, 0.02
# among few images the cut may be larger by this (two of 32 pixels off each side, a cut of 10 % rounded up, are 0.1335),
# and the other two by this factor. The chance that two photographs were made from a third grows with N, the chance that
# one is a copy does not: the slack, also that of _OF_LIMIT, shrinks from 10,000 to 60,000 images
_SLACK_CUT, _LOOSER, _FEW, _MANY = 0.02, 2.0, 10_000, 60_000


@dataclass(frozen=True)
class PairSizes:
    """(P, 2) width and height in pixels of the moving images, upright and after their rotation, and of the fixed."""

    moving: npt.NDArray[np.int64]
    fixed: npt.NDArray[np.int64]


def geometry_slack(num_images: int) -> float:
    """How much of the doubt allowed among few images is left among so many: 1 to 0."""
    return min(1.0, max(0.0, math.log(_MANY / max(1, num_images)) / math.log(_MANY / _FEW)))


def classify_pairs(
    pairs: NearPairs, refined: Refinement, sizes: PairSizes, *, limit: float, slack: float
) -> npt.NDArray[np.str_]:
    """Classify each of P pairs; "" stands for two different images.

    Args:
        limit: of `score_threshold`.
        slack: of `geometry_slack`.
    """
    large = ~np.isnan(refined.score)
    sure = pairs.score >= _SURE_SCORE
    colourless = refined.strongest <= _GREY
    detail = min(max(_DETAIL, 1 - _OF_LIMIT_DETAIL * (1 - limit)), _DETAIL_AT_MOST)
    by_detail = (refined.detail >= detail) & (refined.score >= _DETAIL_SCORE)
    by_rest = (refined.clear >= _CLEAR) & (refined.score >= _CLEAR_SCORE)
    by_thumbnail = sure & (refined.score >= _SURE_DETAIL_SCORE)
    by_frame = _in_one_frame(refined.warp) & (pairs.score >= _FRAMED_SCORE)
    by_frame &= (refined.score >= _FRAMED_GREY) & (refined.detail >= _FRAMED_DETAIL)
    small_alike = (refined.colour_score >= 1 - (_OF_LIMIT + (1 - _OF_LIMIT) * slack) * (1 - limit)) | colourless
    by_most = by_detail | by_thumbnail | by_frame
    similar = np.where(large, by_most | by_rest, small_alike & (pairs.score >= limit))
    sure |= refined.detail >= _SURE_DETAIL
    similar &= _same_colours(refined, sizes, sure=sure, colourless=colourless, score=pairs.score)
    # another part, or another colour of a part, is another thing
    same = similar & (~large | (by_most & refined.whole) | (by_rest & refined.marked))
    same &= colourless | (refined.recoloured <= _RECOLOURED)
    copies = np.where(is_crop_or_resize(refined.warp, sizes, slack=slack), NEAR, RECROP)
    found: npt.NDArray[np.str_] = np.where(same, copies, np.where(similar | (pairs.score >= limit), SIMILAR, NOTHING))
    return found


def is_crop_or_resize(warp: Floats, sizes: PairSizes, *, slack: float) -> Flags:
    """(P,) whether one image may be a part of the other, both axes resized alike or stretched as a whole."""
    looser = 1 + (_LOOSER - 1) * slack
    zoom, shift = warp[:, 0::2].astype(np.float64), warp[:, 1::2].astype(np.float64) / SIDE  # (P, 2) of width, height
    low, high = shift - zoom / 2, shift + zoom / 2  # edges of the fixed image within the moving one
    fixed_sticks_out = np.maximum(-0.5 - low, high - 0.5).max(axis=1)
    moving_sticks_out = (np.maximum(low + 0.5, 0.5 - high) / zoom).max(axis=1)
    inside = np.minimum(fixed_sticks_out, moving_sticks_out) <= _MAX_OVERHANG * looser
    cut = np.abs(np.log(zoom))
    stretch = np.log(zoom[:, 0] / zoom[:, 1])
    # cutting one side off and resizing the rest as a whole changes the proportions of the file by as much
    files = np.log(sizes.fixed[:, 0] / sizes.fixed[:, 1]) - np.log(sizes.moving[:, 0] / sizes.moving[:, 1])
    stretched = np.minimum(np.abs(stretch), np.abs(stretch - files))
    possible: Flags = inside & (cut.max(axis=1) <= _MAX_CUT + _SLACK_CUT * slack) & (stretched <= _MAX_STRETCH * looser)
    return possible


def _in_one_frame(warp: Floats) -> Flags:
    zoom, shift = np.abs(warp[:, 0::2] - 1).max(axis=1), np.abs(warp[:, 1::2]).max(axis=1)
    framed: Flags = (zoom <= _FRAMED_ZOOM) & (shift <= _FRAMED_SHIFT)
    return framed


def _same_colours(
    refined: Refinement, sizes: PairSizes, *, sure: Flags, colourless: Flags, score: npt.NDArray[np.float64]
) -> Flags:
    """(P,) whether the colours may be those of one image; without any colour only the greys must agree very well."""
    shorter = np.minimum(sizes.moving.min(axis=1), sizes.fixed.min(axis=1))
    allowed = np.maximum(_LEVELS, _LEVELS_AT_32 * SIDE / shorter) + _OF_COLOURFULNESS * refined.colourful
    close = refined.apart <= allowed * np.where(sure, _SURE_FACTOR, 1.0)
    found: Flags = np.where(colourless, score >= _GREY_SCORE, close)
    return found

"""What a near pair is: a copy, the same photograph cut differently, or only a look-alike.

    near    one is made from the other: resized, saved again, brightened, cut by up to 12 %, mirrored, marked in a
            corner, framed
    recrop  the same photograph, but each shows something that the other does not, or one was stretched: both were made
            from a third picture
    similar thumbnails agree and detail or colours do not, be it in one place: the next guitar of a shop, the same one
            with another pickup or in another finish, a burst of photographs

Copies are dropped by default. For recrop and similar pairs both images are kept, in the same split: dropping a picture
asks for more certainty than keeping two on one side.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipelines.dedupe.detail import Closer
from pipelines.dedupe.hashes import SIDE
from pipelines.dedupe.near import NearPairs
from pipelines.dedupe.verify import Floats

NOTHING, NEAR, RECROP, SIMILAR = "", "near", "recrop", "similar"

Truths = npt.NDArray[np.bool_]

# What each number buys. "without" is what its absence changed, measured on 991 copies that were found before and on 454
# pairs of different things of benchmarks/peers_dedupe, in guitars, clothing, instruments and drawn guitars; with all
# numbers 943 of the former are copies, and 21 of the latter are taken for copies (8 of 322 real ones).
#
# large pictures (64 pixels and more): the mean of the tiles' detail, and the greys
_DETAIL, _DETAIL_SCORE = 0.985, 0.97  # without: +7 and +3 copies; a guard where no tile stands out, as in blur
# where pictures taken at random are alike already: the thumbnails' distance times this, but not below
_OF_LIMIT_DETAIL, _DETAIL_AT_MOST = 1.2, 0.99  # without: +1 false
# a mark in a corner: the rest of the detail, and the greys
_CLEAR, _CLEAR_SCORE = 0.996, 0.94  # without the clause -68 copies; without the numbers +2 false
# thumbnails that agree so well are of one picture, though blur or a small size took its detail away
_SURE_SCORE, _SURE_DETAIL_SCORE = 0.998, 0.93  # without: -4 copies
# low quality takes detail away too, but moves nothing: thumbnails, greys and detail, in one and the same frame
_FRAMED_SCORE, _FRAMED_GREY, _FRAMED_DETAIL, _FRAMED_ZOOM, _FRAMED_SHIFT = 0.995, 0.99, 0.95, 0.006, 0.15
# ... without: no copy of these; quality 20 of a smooth picture (test_a_low_quality_copy_is_found…)
# levels that the colours of one place may be apart beyond a fifth of the strongest colour: quality 15 costs 5
_RECOLOURED = 6.0  # without: +17 copies (contrast 1.4 cuts colours off) and +17 false
# mean |difference| of Cb and Cr that copies of one picture show: a share of the colourfulness of the duller one ...
_OF_COLOURFULNESS = 0.3  # without: -226 copies, -4 false
# ... and levels that JPEG's coarse colours (blocks of 16 pixels) cost: this at 32 pixels, less in larger pictures
_LEVELS_AT_32, _LEVELS = 2.5, 0.4  # CIFAR-10's copies at quality 40; large ones: -1 copy
# where the greys are sure the colours may be further apart: brightened, or saved at low quality
_SURE_FACTOR, _SURE_DETAIL = 3.0, 0.992  # without: -78 copies, -1 false
# largest |Cb|, |Cr| in a grey picture (rounding), and the score from which one without colour is a copy
_GREY, _GREY_SCORE = 1.5, 0.99  # all grey copies; without the score +2 copies
# small pictures have no more detail than their thumbnails, but colours: the allowed distance, as a share of the greys'.
# From 10,000 to 60,000 pictures it shrinks from 1 to this, as do the last two below: the chance that two photographs
# were made from a third one grows with N, the chance that one is a copy does not
_OF_LIMIT = 0.8  # precision among 62,500 of CIFAR-10
# derived: a cut of up to 12 % of an axis; an edge that sticks out, share of a side; unequal zoom of the axes, logarithm
_MAX_CUT, _MAX_OVERHANG, _MAX_STRETCH = 0.13, 0.2 / SIDE, 0.02  # beyond: recrop, in place of near
# two of 32 pixels off each side, a cut of 10 % rounded up, are 0.1335
_SLACK_CUT = 0.02
# where there are few pictures: half the certainty is enough
_FEW, _MANY, _LOOSER = 10_000, 60_000, 2.0


@dataclass(frozen=True)
class Sizes:
    """Width and height of the P pictures that lie on others, upright, after their turns, and of those they lie on."""

    moving: npt.NDArray[np.int64]
    """(P, 2) pixels"""
    fixed: npt.NDArray[np.int64]
    """(P, 2) pixels"""


def slack_of(num_images: int) -> float:
    """How much of the doubt that is allowed among few pictures is left among so many: 1 to 0."""
    return min(1.0, max(0.0, math.log(_MANY / max(1, num_images)) / math.log(_MANY / _FEW)))


def kinds_of(pairs: NearPairs, closer: Closer, sizes: Sizes, *, limit: float, slack: float) -> npt.NDArray[np.str_]:
    """The kind of each of P pairs, "" for two different pictures.

    Args:
        limit: the score from which thumbnails count as alike.
        slack: of `slack_of`.
    """
    large = ~np.isnan(closer.score)
    sure = pairs.score >= _SURE_SCORE
    colourless = closer.strongest <= _GREY
    detail = min(max(_DETAIL, 1 - _OF_LIMIT_DETAIL * (1 - limit)), _DETAIL_AT_MOST)
    by_detail = (closer.detail >= detail) & (closer.score >= _DETAIL_SCORE)
    by_rest = (closer.clear >= _CLEAR) & (closer.score >= _CLEAR_SCORE)
    by_thumbnail = sure & (closer.score >= _SURE_DETAIL_SCORE)
    by_frame = _in_one_frame(closer.warp) & (pairs.score >= _FRAMED_SCORE)
    by_frame &= (closer.score >= _FRAMED_GREY) & (closer.detail >= _FRAMED_DETAIL)
    small_alike = (closer.colour_score >= 1 - (_OF_LIMIT + (1 - _OF_LIMIT) * slack) * (1 - limit)) | colourless
    by_most = by_detail | by_thumbnail | by_frame
    similar = np.where(large, by_most | by_rest, small_alike & (pairs.score >= limit))
    similar &= _same_colours(
        closer, sizes, sure=sure | (closer.detail >= _SURE_DETAIL), colourless=colourless, score=pairs.score
    )
    # another part, or another colour of a part, is another thing: the doubt keeps both, in one group
    same = similar & (~large | (by_most & closer.whole) | (by_rest & closer.marked))
    same &= colourless | (closer.recoloured <= _RECOLOURED)
    copies = np.where(made_from_each_other(closer.warp, sizes, slack=slack), NEAR, RECROP)
    found: npt.NDArray[np.str_] = np.where(same, copies, np.where(similar | (pairs.score >= limit), SIMILAR, NOTHING))
    return found


def made_from_each_other(warp: Floats, sizes: Sizes, *, slack: float) -> Truths:
    """(P,) whether one picture may be a part of the other, both axes resized alike or stretched as a whole."""
    looser = 1 + (_LOOSER - 1) * slack
    zoom, shift = warp[:, 0::2].astype(np.float64), warp[:, 1::2].astype(np.float64) / SIDE  # (P, 2) of width, height
    low, high = shift - zoom / 2, shift + zoom / 2  # where the edges of the fixed one lie in the moving one
    fixed_sticks_out = np.maximum(-0.5 - low, high - 0.5).max(axis=1)
    moving_sticks_out = (np.maximum(low + 0.5, 0.5 - high) / zoom).max(axis=1)
    inside = np.minimum(fixed_sticks_out, moving_sticks_out) <= _MAX_OVERHANG * looser
    cut = np.abs(np.log(zoom))
    stretch = np.log(zoom[:, 0] / zoom[:, 1])
    # a part cut off one side and resized as a whole changes the proportions of the file by as much
    files = np.log(sizes.fixed[:, 0] / sizes.fixed[:, 1]) - np.log(sizes.moving[:, 0] / sizes.moving[:, 1])
    stretched = np.minimum(np.abs(stretch), np.abs(stretch - files))
    possible: Truths = (
        inside & (cut.max(axis=1) <= _MAX_CUT + _SLACK_CUT * slack) & (stretched <= _MAX_STRETCH * looser)
    )
    return possible


def _in_one_frame(warp: Floats) -> Truths:
    zoom, shift = np.abs(warp[:, 0::2] - 1).max(axis=1), np.abs(warp[:, 1::2]).max(axis=1)
    framed: Truths = (zoom <= _FRAMED_ZOOM) & (shift <= _FRAMED_SHIFT)
    return framed


def _same_colours(
    closer: Closer, sizes: Sizes, *, sure: Truths, colourless: Truths, score: npt.NDArray[np.float64]
) -> Truths:
    """Whether the colours may be those of one picture; one without any only asks that the greys be very alike."""
    shorter = np.minimum(sizes.moving.min(axis=1), sizes.fixed.min(axis=1))
    allowed = np.maximum(_LEVELS, _LEVELS_AT_32 * SIDE / shorter) + _OF_COLOURFULNESS * closer.colourful
    found: Truths = np.where(
        colourless, score >= _GREY_SCORE, closer.apart <= allowed * np.where(sure, _SURE_FACTOR, 1.0)
    )
    return found

"""Near-duplicate pairs among thumbnails: search by hash, then score by alignment."""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from pipelines.dedupe.alignment import align_candidates
from pipelines.dedupe.hashes import (
    MAX_DISTANCE,
    WHOLE,
    CropBox,
    Hashes,
    HashIndex,
    Thumbnails,
    ThumbnailSubset,
    five_crops,
    hash_crops,
    mirror_mask,
    side_crops,
)
from pipelines.images.decoding import THUMBNAIL_SIDE as SIDE
from pipelines.parallel.pool import num_workers

MIN_CONTRAST = 3.0
"""grey levels of standard deviation: below, a thumbnail is blank and correlations are those of noise"""

# within 7 bits, these meet the crops that take up to about 12 % off each axis, or off one side
_CROPS = (*five_crops((0.06, 0.1)), *side_crops(0.08))
# each holds some blocks of candidates; more threads wait for each other
_MAX_THREADS = 4
# images that the threshold is estimated from, and the number below which it is not estimated
_SAMPLE, _FEW = 2048, 50
# (z of .999 - z of .99) / (z of .99 - z of .9): .84 guitars, .82 clothing, .94 instruments, .85 CIFAR-10
_TAIL = 0.85
# the allowed distance changes in this many steps a decade
_STEPS = 20
# thumbnails at a time: 1 MB stays in the cache
_GATHERED = 1024
# 1 - the score of one random pair in a thousand; from here on min_score counts as it stands. Photographs of anything
# have 0.28 (CIFAR-10), phone photographs of clothing 0.14, guitars on white 0.08
_USUAL_GAP = 0.2
# pairs that are refined later may be this much further apart, but score no less than _FLOOR
_LOOSER, _FLOOR = 5.0, 0.93

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class NearPairs:
    """P pairs of rows, each once, sorted by their smaller row, then the larger.

    Args:
        moving: (P,) row of the image that `warp` lays on the other.
        fixed: (P,) row of the other, mirrored where `mirrored` is set.
        mirrored: (P,).
        rotation: (P,) quarter turns of `moving`, anticlockwise, before the warp.
        warp: (P, 4) float32, as `pipelines.dedupe.alignment.sample` takes it.
        score: (P,).
    """

    moving: npt.NDArray[np.int64]
    fixed: npt.NDArray[np.int64]
    mirrored: npt.NDArray[np.bool_]
    rotation: npt.NDArray[np.int8]
    warp: npt.NDArray[np.float32]
    score: Floats

    def __len__(self) -> int:
        return len(self.score)

    def take(self, which: npt.NDArray[np.int64] | npt.NDArray[np.bool_] | slice) -> "NearPairs":
        """Select some of the pairs."""
        return NearPairs(*(getattr(self, field.name)[which] for field in fields(NearPairs)))


def contrast(thumbnails: Thumbnails) -> Floats:
    """(N,) standard deviations, grey levels; of exact sums, so equal on every machine."""
    found = np.empty(len(thumbnails))
    for start in range(0, len(thumbnails), _GATHERED):
        some = thumbnails[start : start + _GATHERED]
        # sums of 256 squares of bytes are below the 2**24 that float32 holds exactly
        blocks = some.reshape(len(some), -1, 256).astype(np.float32)
        squares = np.einsum("pbk,pbk->pb", blocks, blocks).sum(axis=1, dtype=np.float64).astype(np.int64)
        variance = SIDE**2 * squares - some.sum(axis=(1, 2), dtype=np.int64) ** 2
        found[start : start + _GATHERED] = np.sqrt(variance) / SIDE**2
    return found


def score_threshold(thumbnails: Thumbnails | ThumbnailSubset, image_ids: Sequence[str], min_score: float) -> float:
    """The score from which a pair counts as near, for this set of images.

    Product shots on white all resemble each other: random pairs correlate, so a copy must be closer. The allowed
    distance 1 - min_score shrinks with the square of the gap between 1 and the score of one random pair in a thousand
    (with the gap itself many guitars of one model still passed for copies), and with the logarithm of N beyond 100,000,
    as chance pairs grow with N². It sets in between 50 and 100 images.

    The random pairs are all pairs of the 2,048 images of lowest id, which is a hash of the content: an image more or
    less changes 1 pair in 1,024, or none. One in a thousand is extrapolated from one in ten and one in a hundred by
    Fisher's z: these rest on a hundred times as many pairs, and copies, which are rare among all pairs, do not show.
    What is left of an image's weight, 0.2 % of the allowed distance, seldom shows in that distance's steps of 12 %:
    of 60 guitars taken away one by one, 58 left the threshold as it was and 2 moved it by one step.

    Args:
        thumbnails: (N, 32, 32) uint8, none blank.
        image_ids: (N,) sha256 of the files.
    """
    num_images = len(thumbnails)
    if num_images <= _FEW:
        return min_score
    chosen = np.array(sorted(range(num_images), key=image_ids.__getitem__)[:_SAMPLE])
    # sums of whole numbers below 2**53: exact with every BLAS
    flat = thumbnails[chosen].reshape(len(chosen), -1).astype(np.float64)
    total = flat.sum(axis=1)
    products = SIDE**2 * (flat @ flat.T) - np.outer(total, total)
    deviation = np.sqrt(np.diag(products))
    of_pair = np.triu_indices(len(chosen), 1)
    scores = products[of_pair] / (deviation[of_pair[0]] * deviation[of_pair[1]])
    tenth, hundredth = np.arctanh(np.clip(np.quantile(scores, (0.9, 0.99)), 0.0, 0.9999))
    usual = math.tanh(hundredth + _TAIL * (hundredth - tenth))
    crowded = max(1.0, math.log10(num_images) / 5)
    certain = min(1.0, num_images / _FEW - 1)
    share = min(1.0, (1 - usual) / _USUAL_GAP) ** (2 * certain) / crowded
    return round(1 - (1 - min_score) * 10 ** (round(_STEPS * math.log10(share)) / _STEPS), 4)


def find_near_pairs(
    thumbnails: Thumbnails | ThumbnailSubset,
    *,
    limit: float,
    mirror: bool,
    rotations: bool = False,
    large: npt.NDArray[np.bool_] | None = None,
    foreign: npt.NDArray[np.bool_] | None = None,
) -> NearPairs:
    """Find every pair whose hashes meet and whose aligned thumbnails score high enough.

    Args:
        thumbnails: (N, 32, 32) uint8, none blank.
        limit: least score, see `score_threshold`.
        rotations: look for quarter turns too.
        large: (N,) images large enough to refine: a pair of two of them need only come near the limit.
        foreign: (N,) images of reference sets, which are not compared with each other.
    """
    num_images = len(thumbnails)
    large = np.zeros(num_images, np.bool_) if large is None else large
    foreign = np.zeros(num_images, np.bool_) if foreign is None else foreign
    floor = min(limit, max(_FLOOR, 1 - _LOOSER * (1 - limit)))
    boxes = (WHOLE, *_CROPS)
    hashes_of = hash_crops(thumbnails, boxes)
    index = HashIndex(hashes_of[0])

    def search(box: CropBox, hashes: Hashes, flipped: bool, rotation: int) -> NearPairs:
        found = [np.zeros(0, np.int64)]
        for query, hit in index.near(hashes ^ mirror_mask() if flipped else hashes, MAX_DISTANCE):
            # whole images upright or upside down find each other both ways: once is enough
            wanted = query < hit if box is WHOLE and rotation != 1 else query != hit
            wanted &= ~(foreign[query] & foreign[hit])
            found.append(query[wanted] * num_images + hit[wanted])
        query, hit = np.divmod(np.unique(np.concatenate(found)), num_images)
        mirrored = np.full(len(query), flipped)
        score, warp = align_candidates(thumbnails, query, hit, mirrored, box, rotation)
        good = score >= np.where(large[query] & large[hit], floor, limit)
        turned = np.full(int(good.sum()), rotation, np.int8)
        return NearPairs(query[good], hit[good], mirrored[good], turned, warp[good], np.minimum(score[good], 1.0))

    searches = [(box, hashes, 0) for box, hashes in zip(boxes, hashes_of, strict=True)]
    if rotations:
        searches += [(WHOLE, hash_crops(thumbnails, (WHOLE,), rotation=turn)[0], turn) for turn in (1, 2, 3)]
    # three quarter turns are one of the other image, but three of a mirrored one are their own inverse
    jobs = [
        (box, hashes, flip, turn)
        for box, hashes, turn in searches
        for flip in (False, True)
        if (mirror or not flip) and (flip or turn < 3)
    ]
    # numpy releases the interpreter in its long loops; results come back in the order of the jobs
    with ThreadPoolExecutor(min(num_workers(), _MAX_THREADS)) as pool:
        parts = list(pool.map(lambda job: search(*job), jobs))
    every = NearPairs(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(NearPairs)))
    # the best score of each pair; of equal ones the first found
    key = np.minimum(every.moving, every.fixed) * num_images + np.maximum(every.moving, every.fixed)
    order = np.lexsort((np.arange(len(key)), -every.score, key))
    return every.take(order[np.unique(key[order], return_index=True)[1]])

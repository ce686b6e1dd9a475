"""Near copies among thumbnails: hash, search, verify."""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from pipelines.dedupe.hashes import (
    SIDE,
    WHOLE,
    Chosen,
    Hashes,
    Thumbnails,
    View,
    crop_views,
    hash_view,
    hash_views,
    mirror_mask,
    side_views,
)
from pipelines.dedupe.search import MAX_DISTANCE, HashIndex
from pipelines.dedupe.verify import Candidates, verify
from pipelines.parallel.pool import num_workers

# within the seven bits, these meet the crops that take up to about 12 % off each axis, or off one side
_CROPS = (*crop_views((0.06, 0.1)), *side_views(0.08))
# grey levels of standard deviation: below, a thumbnail is blank, and its correlations are those of noise
MIN_CONTRAST = 3.0
# each holds some blocks of candidates; more threads wait for each other
_MAX_THREADS = 4
# pictures that stand for all, and how few tell nothing
_SAMPLE, _FEW = 2048, 50
# (z of .999 - z of .99) / (z of .99 - z of .9): .84 guitars, .82 clothing, .94 instruments, .85 CIFAR-10
_TAIL = 0.85
# of the allowed distance, a decade
_STEPS = 20
# thumbnails at a time: 1 MB stays in the cache
_GATHERED = 1024
# 1 - the score of one random pair in a thousand for photographs of anything (0.28 for CIFAR-10's, 0.14 for phone
# photographs of clothing, 0.08 for guitars on white): from here on min_score is taken as it stands
_USUAL_GAP = 0.2
# pictures that are looked at more closely afterwards may be this much further apart here, but not below _FLOOR
_LOOSER = 5.0
_FLOOR = 0.93

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class NearPairs:
    """P pairs of rows, each once, sorted by their smaller row, then the larger.

    Args:
        moving: (P,) row that lies on the other as `warp` says.
        fixed: (P,) row of the other, mirrored where `mirrored` says so.
        mirrored: (P,).
        turns: (P,) quarter turns of `moving`, anticlockwise, before it lies so; 0 but where turns are looked for.
        warp: (P, 4) float32, as `pipelines.dedupe.verify.sample` takes it.
        score: (P,).
    """

    moving: npt.NDArray[np.int64]
    fixed: npt.NDArray[np.int64]
    mirrored: npt.NDArray[np.bool_]
    turns: npt.NDArray[np.int8]
    warp: npt.NDArray[np.float32]
    score: Floats

    def __len__(self) -> int:
        return len(self.score)

    def of(self, which: npt.NDArray[np.int64] | npt.NDArray[np.bool_] | slice) -> "NearPairs":
        """Some of the pairs."""
        return NearPairs(*(getattr(self, field.name)[which] for field in fields(NearPairs)))


def contrast(thumbnails: Thumbnails) -> Floats:
    """(N,) standard deviations, grey levels; exact sums, so the same everywhere."""
    found = np.empty(len(thumbnails))
    for start in range(0, len(thumbnails), _GATHERED):
        flat = _flat(thumbnails[start : start + _GATHERED])
        found[start : start + _GATHERED] = np.sqrt(_sums(flat)[1]) / flat.shape[1]
    return found


def _flat(thumbnails: Thumbnails) -> Thumbnails:
    return thumbnails.reshape(len(thumbnails), -1)


def _sums(flat: Thumbnails) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(P,) sums of (P, M) bytes, and (P,) M² times their variances, exact."""
    total = flat.sum(axis=1, dtype=np.int64)
    return total, flat.shape[1] * _products(flat, flat) - total**2


def _products(first: Thumbnails, second: Thumbnails) -> npt.NDArray[np.int64]:
    """(P,) sums of products of (P, M) bytes, exact: 256 products of two bytes are below the 2**24 of float32."""
    found = np.empty(len(first), np.int64)
    for start in range(0, len(first), 256):
        one, other = (
            array[start : start + 256].reshape(-1, array.shape[1] // 256, 256).astype(np.float32)
            for array in (first, second)
        )
        found[start : start + 256] = np.einsum("pbk,pbk->pb", one, other).sum(axis=1, dtype=np.float64)
    return found


def threshold(thumbnails: Thumbnails | Chosen, image_ids: Sequence[str], min_score: float) -> float:
    """The score from which a pair counts, for this set of pictures.

    Product shots on white all resemble each other: pairs taken at random already correlate, so a copy must be
    closer. The allowed distance 1 - min_score shrinks with the square of the gap between 1 and the score that one
    random pair in a thousand reaches, since with the gap itself many guitars of one model still passed for copies;
    and with the logarithm of N beyond 100,000, as chance pairs grow with N². It sets in between 50 and 100 pictures.

    The random pairs are all pairs of the 2,048 pictures of lowest id, a hash of their content: a picture more or less
    changes its own pairs, 1 in 1,024, or none. One in a thousand is read off one in ten and one in a hundred, by
    Fisher's z: these rest on a hundred times as many pairs, and copies, which are rare among all pairs, do not show.
    What is left of a picture's weight, about 0.2 % of the allowed distance, hides in that distance's steps of 12 %.

    Args:
        thumbnails: (N, 32, 32) uint8, none blank.
        image_ids: (N,) sha256 of the files.
    """
    num_images = len(thumbnails)
    if num_images <= _FEW:
        return min_score
    chosen = np.array(sorted(range(num_images), key=image_ids.__getitem__)[:_SAMPLE])
    flat = _flat(thumbnails[chosen]).astype(np.float64)  # sums of whole numbers below 2**53: exact, whatever the BLAS
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


def near_pairs(
    thumbnails: Thumbnails | Chosen,
    *,
    limit: float,
    mirror: bool,
    turns: bool = False,
    large: npt.NDArray[np.bool_] | None = None,
    foreign: npt.NDArray[np.bool_] | None = None,
) -> NearPairs:
    """Every pair whose hashes meet and whose aligned score reaches what is asked of it.

    Args:
        thumbnails: (N, 32, 32) uint8, none blank.
        limit: of `threshold`: what a pair must score.
        turns: look for quarter turns too.
        large: (N,) pictures that a closer look can tell apart: a pair of these need only come near the limit.
        foreign: (N,) pictures that are of no interest to each other, only to the rest.
    """
    num_images = len(thumbnails)
    large = np.zeros(num_images, np.bool_) if large is None else large
    foreign = np.zeros(num_images, np.bool_) if foreign is None else foreign
    floor = min(limit, max(_FLOOR, 1 - _LOOSER * (1 - limit)))
    views = (WHOLE, *_CROPS)
    hashes_of = hash_views(thumbnails, views)
    index = HashIndex(hashes_of[0])

    def search(view: View, hashes: Hashes, flipped: bool, turned: int) -> NearPairs:
        found = [np.zeros(0, np.int64)]
        for query, hit in index.near(hashes ^ mirror_mask() if flipped else hashes, MAX_DISTANCE):
            # seen whole, upright or turned half, the second of two is found from the first as the first from the second
            wanted = query < hit if view is WHOLE and turned != 1 else query != hit
            wanted &= ~(foreign[query] & foreign[hit])
            found.append(query[wanted] * num_images + hit[wanted])
        query, hit = np.divmod(np.unique(np.concatenate(found)), num_images)
        mirrored = np.full(len(query), flipped)
        judged = verify(thumbnails, Candidates(query, hit, mirrored, view, turned))
        good = judged.score >= np.where(large[query] & large[hit], floor, limit)
        score = np.minimum(judged.score[good], 1.0)
        quarter = np.full(len(score), turned, np.int8)
        return NearPairs(query[good], hit[good], mirrored[good], quarter, judged.warp[good], score)

    looks = [(view, hashes, 0) for view, hashes in zip(views, hashes_of, strict=True)]
    if turns:
        looks += [(WHOLE, hash_view(thumbnails, WHOLE, turns=turn), turn) for turn in (1, 2, 3)]
    # three quarters are one quarter of the other picture, but three quarters of a mirrored one are its own inverse
    jobs = [
        (view, hashes, flip, turn)
        for view, hashes, turn in looks
        for flip in (False, True)
        if (mirror or not flip) and (flip or turn < 3)
    ]
    # numpy lets go of the interpreter in its long loops; results come back in the order of the jobs
    with ThreadPoolExecutor(min(num_workers(), _MAX_THREADS)) as pool:
        parts = list(pool.map(lambda job: search(*job), jobs))
    every = NearPairs(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(NearPairs)))
    # the best score of each pair; among equal ones the first that was found
    key = np.minimum(every.moving, every.fixed) * num_images + np.maximum(every.moving, every.fixed)
    order = np.lexsort((np.arange(len(key)), -every.score, key))
    return every.of(order[np.unique(key[order], return_index=True)[1]])

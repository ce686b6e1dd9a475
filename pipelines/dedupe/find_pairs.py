"""Find every pair of rows that shows one image, or nearly: by bytes, pixels, thumbnails and detail."""

import hashlib
from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pipelines.core.errors import DecisionError
from pipelines.dedupe.hashes import ThumbnailSubset
from pipelines.dedupe.inputs import ImageSet, ManifestRows
from pipelines.dedupe.near_pairs import MIN_CONTRAST, contrast, find_near_pairs, score_threshold
from pipelines.dedupe.pair_classes import NOTHING, PairSizes, classify_pairs, geometry_slack
from pipelines.dedupe.refine import SMALLEST_LARGE, refine_pairs
from pipelines.images.decoding import Pixels
from pipelines.params.dedupe import DedupeParams


@dataclass(frozen=True)
class DuplicatePair:
    """Two rows that show the same image, or look as if they did.

    Args:
        kind: exact (equal bytes), pixels (equal pixels), embedding, or a class of `pipelines.dedupe.pair_classes`.
        transform: from one to the other: none, mirror, rotate90 (either way), rotate180, mirror+rotate90,
            mirror+rotate180.
    """

    first: int
    second: int
    kind: str
    score: float
    transform: str = "none"


@dataclass(frozen=True)
class ReferencePair:
    """A row, and an image of a reference set that shows the same or seems to; `image` is its row among all sets."""

    row: int
    image: int
    kind: str
    score: float


@dataclass(frozen=True)
class FoundPairs:
    """What was found among items, the rows that stand for one (image_id, label) each.

    Args:
        nodes: the node of each item. A node is a set of items with equal bytes, equal pixels, or equal thumbnails that
            are not blank.
        leaders: the best item of each node.
        edges: pairs of nodes by kind, the most alike first.
        foreign: pairs with reference sets.
    """

    nodes: list[int]
    leaders: list[int]
    pairs: list[DuplicatePair] = field(default_factory=list)
    edges: dict[str, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))
    foreign: list[ReferencePair] = field(default_factory=list)


def find_pairs(
    params: DedupeParams, rows: ManifestRows, standing: list[int], images: ImageSet, foreign: ImageSet
) -> FoundPairs:
    """Find every pair.

    Args:
        standing: the row of each item.
        images: of all rows.
        foreign: images of reference sets, compared with the rows but not with each other.
    """
    blank = contrast(images.thumbnails) < MIN_CONTRAST
    found = _find_nodes(rows, standing, images, blank if params.near else None)
    by_id: dict[str, list[int]] = defaultdict(list)
    for item in found.leaders:
        by_id[rows.image_id[standing[item]]].append(standing[item])
    for image, image_id in enumerate(foreign.image_id):
        found.foreign.extend(ReferencePair(row, image, "exact", 1.0) for row in by_id.get(image_id, ()))
    if params.near:
        _add_near_pairs(params, standing, images, foreign, blank, found)
    return found


def _find_nodes(
    rows: ManifestRows, standing: list[int], images: ImageSet, blank: npt.NDArray[np.bool_] | None
) -> FoundPairs:
    """Join items of equal bytes or pixels and, where `blank` (N,) is given, of equal thumbnails that are not blank."""
    # a dropped image leads a node only where all are dropped
    order = sorted(range(len(standing)), key=lambda item: (rows.dropped[standing[item]], rows.rank(standing[item])))
    # 16 bytes instead of 1,024: a million thumbnails are keys of a dictionary
    thumbnail = [hashlib.blake2b(images.thumbnails[row].tobytes(), digest_size=16).digest() for row in standing]
    digests = _digest_pixels(rows, standing, images, thumbnail)
    node_of: dict[object, int] = {}
    found = FoundPairs([-1] * len(standing), [])

    def is_kept_apart(item: int, node: int) -> bool:
        """Whether a person called an image of `node` different from `item`."""
        row = standing[item]
        different = rows.different[rows.image_id[row]]
        for other in (other for other, inside in enumerate(found.nodes) if inside == node):
            where = different.get(rows.image_id[standing[other]])
            if where and item in digests and digests[item] == digests.get(other):
                raise DecisionError(
                    f"{where}: {rows.path[row]} and {rows.path[standing[other]]} are equal in every pixel: these are "
                    "no two pictures. Delete the row; where their labels differ, say in relabel.csv which is right"
                )
            if where:
                return True
        return False

    for item in order:
        row = standing[item]
        keys: list[object] = [rows.image_id[row]]
        if item in digests:
            keys.append(("pixels", digests[item]))
        if blank is not None and not blank[row]:
            keys.append(thumbnail[item])
        nodes = [node_of[key] for key in keys if key in node_of]
        if rows.image_id[row] in rows.different:
            nodes = [node for node in nodes if not is_kept_apart(item, node)]
        node = nodes[0] if nodes else len(found.leaders)
        if node == len(found.leaders):
            found.leaders.append(item)
        else:
            leader = found.leaders[node]
            same_id = rows.image_id[row] == rows.image_id[standing[leader]]
            same_pixels = item in digests and digests[item] == digests.get(leader)
            kind = "exact" if same_id else "pixels" if same_pixels else "near"
            found.pairs.append(DuplicatePair(standing[leader], row, kind, 1.0))
        found.nodes[item] = node
        for key in keys:
            node_of.setdefault(key, node)
    return found


def _digest_pixels(
    rows: ManifestRows, standing: list[int], images: ImageSet, thumbnail: list[bytes]
) -> dict[int, bytes]:
    """By item a digest of the decoded pixels, for items that share size and thumbnail with another file."""
    alike: dict[tuple[int, int, bytes], list[int]] = defaultdict(list)
    for item, (width, height) in enumerate(rows.extent[standing].tolist()):
        alike[width, height, thumbnail[item]].append(item)
    found: dict[int, bytes] = {}
    for inside in alike.values():
        if len({rows.image_id[standing[item]] for item in inside}) > 1:
            for item in inside:
                pixels = images.pixels(standing[item])
                found[item] = hashlib.sha256(np.array(pixels.shape).tobytes() + pixels.tobytes()).digest()
    return found


def _add_near_pairs(
    params: DedupeParams,
    standing: list[int],
    images: ImageSet,
    foreign: ImageSet,
    blank: npt.NDArray[np.bool_],
    found: FoundPairs,
) -> None:
    """Add the pairs of leaders, and of leaders and foreign images, that look alike."""
    able = [node for node, leader in enumerate(found.leaders) if not blank[standing[leader]]]
    row_of = np.array([standing[found.leaders[node]] for node in able], np.int64)
    image_of = np.flatnonzero(contrast(foreign.thumbnails) >= MIN_CONTRAST)
    own = ThumbnailSubset(images.thumbnails, row_of)
    limit = score_threshold(own, [images.image_id[row] for row in row_of.tolist()], params.min_score)
    seen = np.concatenate([own[:], foreign.thumbnails[image_of]]) if len(image_of) else own
    extent = np.concatenate([images.extent[row_of], foreign.extent[image_of]])
    large = extent.min(axis=1) >= SMALLEST_LARGE
    is_foreign = np.arange(len(seen)) >= len(own)
    near = find_near_pairs(
        seen, limit=limit, mirror=params.mirror, rotations=params.rotations, large=large, foreign=is_foreign
    )

    def pixels(end: int) -> Pixels:
        return images.pixels(int(row_of[end])) if end < len(own) else foreign.pixels(int(image_of[end - len(own)]))

    kinds, slack = np.full(len(near), NOTHING, "U8"), geometry_slack(len(own))
    for part, refined in refine_pairs(near, pixels, large):
        few = near.take(part)
        # a quarter turn makes the height the width
        moving = np.where(few.rotation[:, None] % 2 == 1, extent[few.moving][:, ::-1], extent[few.moving])
        kinds[part] = classify_pairs(few, refined, PairSizes(moving, extent[few.fixed]), limit=limit, slack=slack)
    transforms = [_transform(*one) for one in zip(near.mirrored.tolist(), near.rotation.tolist(), strict=True)]
    ends = zip(near.moving.tolist(), near.fixed.tolist(), kinds.tolist(), near.score.tolist(), transforms, strict=True)
    known = {(pair.row, pair.image) for pair in found.foreign}
    strongest = sorted(
        (-score, *sorted((one, other)), kind, transform) for one, other, kind, score, transform in ends if kind
    )
    for negative, one, other, kind, transform in strongest:
        first = int(row_of[one])
        if other < len(own):
            found.edges[kind].append((able[one], able[other]))
            found.pairs.append(DuplicatePair(first, int(row_of[other]), kind, -negative, transform))
        elif (first, image := int(image_of[other - len(own)])) not in known:
            found.foreign.append(ReferencePair(first, image, kind, -negative))


def _transform(mirrored: bool, rotation: int) -> str:
    """As `DuplicatePair.transform` spells it."""
    parts = ["mirror"] * mirrored + ["rotate180" if rotation == 2 else "rotate90"] * (rotation != 0)
    return "+".join(parts) or "none"

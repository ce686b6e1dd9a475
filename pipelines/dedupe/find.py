"""Every pair of rows that shows one picture: by bytes, by pixels, by thumbnails, by detail."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pipelines.core.errors import DecisionError
from pipelines.dedupe.detail import SMALLEST_LARGE, look_closer
from pipelines.dedupe.hashes import Chosen
from pipelines.dedupe.kinds import NOTHING, Sizes, kinds_of, slack_of
from pipelines.dedupe.near import MIN_CONTRAST, contrast, near_pairs, threshold
from pipelines.dedupe.rows import Pictures, Rows
from pipelines.params.dedupe import DedupeParams

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Pair:
    """Two rows that show the same picture, or look as if they did."""

    first: int
    second: int
    kind: str
    score: float
    transform: str = "none"
    """how one lies on the other: none, mirror, rotate90 (either way), rotate180, mirror+rotate90, mirror+rotate180"""


@dataclass(frozen=True)
class ForeignPair:
    """A row that a picture of a reference set shows too, or seems to."""

    row: int
    picture: int
    """row among the foreign pictures"""
    kind: str
    score: float


@dataclass(frozen=True)
class Found:
    """What was found among the items: rows that stand for themselves.

    A node is a set of items with equal bytes, equal pixels, or equal thumbnails that are not blank.
    """

    nodes: list[int]
    """the node of each item"""
    leaders: list[int]
    """the best item of each node"""
    pairs: list[Pair] = field(default_factory=list)
    edges: dict[str, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))
    """pairs of nodes by kind, the most alike first"""
    foreign: list[ForeignPair] = field(default_factory=list)


def find(params: DedupeParams, rows: Rows, standing: list[int], pictures: Pictures, foreign: Pictures) -> Found:
    """Find every pair.

    Args:
        standing: the rows that take part; item i is row standing[i].
        pictures: of all rows.
        foreign: pictures that only their copies among the rows make interesting.
    """
    blank = contrast(pictures.thumbnails) < MIN_CONTRAST
    found = _nodes(rows, standing, pictures, None if not params.near else blank)
    by_id: dict[str, list[int]] = defaultdict(list)
    for item in found.leaders:
        by_id[rows.image_id[standing[item]]].append(standing[item])
    for picture, image_id in enumerate(foreign.image_id):
        found.foreign.extend(ForeignPair(row, picture, "exact", 1.0) for row in by_id.get(image_id, ()))
    if params.near:
        _near(params, standing, pictures, foreign, blank, found)
    return found


def _nodes(rows: Rows, standing: list[int], pictures: Pictures, blank: npt.NDArray[np.bool_] | None) -> Found:
    """Items of equal bytes, equal pixels, or equal thumbnails: these where `blank` is given, for those that are not."""
    # a dropped picture stands for others only where all are dropped
    order = sorted(range(len(standing)), key=lambda item: (rows.dropped[standing[item]], rows.rank(standing[item])))
    # 16 bytes instead of 1,024: a million thumbnails are keys of a dictionary
    thumbnail = [hashlib.blake2b(pictures.thumbnails[row].tobytes(), digest_size=16).digest() for row in standing]
    digests = _pixel_digests(rows, standing, pictures, thumbnail)
    node_of: dict[object, int] = {}
    found = Found([-1] * len(standing), [])
    for item in order:
        row = standing[item]
        keys: list[object] = [rows.image_id[row]]
        if item in digests:
            keys.append(("pixels", digests[item]))
        if blank is not None and not blank[row]:
            keys.append(thumbnail[item])
        nodes = [node_of[key] for key in keys if key in node_of]
        if foes := rows.different.get(rows.image_id[row]):
            nodes = [node for node in nodes if not _meets_a_foe(foes, rows, standing, found, node, digests, item)]
        node = nodes[0] if nodes else len(found.leaders)
        if node == len(found.leaders):
            found.leaders.append(item)
        else:
            leader = found.leaders[node]
            same_id = rows.image_id[row] == rows.image_id[standing[leader]]
            same_pixels = item in digests and digests[item] == digests.get(leader)
            kind = "exact" if same_id else "pixels" if same_pixels else "near"
            found.pairs.append(Pair(standing[leader], row, kind, 1.0))
        found.nodes[item] = node
        for key in keys:
            node_of.setdefault(key, node)
    return found


def _meets_a_foe(
    foes: Mapping[str, str],
    rows: Rows,
    standing: list[int],
    found: Found,
    node: int,
    digests: Mapping[int, bytes],
    item: int,
) -> bool:
    """Whether a picture of `node` is one that a person called different from `item`.

    Raises:
        DecisionError: the two have equal pixels.
    """
    for other in (other for other, inside in enumerate(found.nodes) if inside == node):
        where = foes.get(rows.image_id[standing[other]])
        if where and item in digests and digests[item] == digests.get(other):
            one, two = rows.path[standing[item]], rows.path[standing[other]]
            raise DecisionError(
                f"{where}: {one} and {two} are equal in every pixel: these are no two pictures. Delete the row; where "
                "their labels differ, say in relabel.csv which is right"
            )
        if where:
            return True
    return False


def _pixel_digests(rows: Rows, standing: list[int], pictures: Pictures, thumbnail: list[bytes]) -> dict[int, bytes]:
    """A digest of the decoded pixels of each standing item that shares size and thumbnail with another file."""
    items_of: dict[bytes, list[int]] = defaultdict(list)
    for item, digest in enumerate(thumbnail):
        items_of[digest].append(item)
    alike: dict[tuple[int, int, bytes], list[int]] = defaultdict(list)
    for digest, items in items_of.items():
        for item in items if len(items) > 1 else ():
            width, height = rows.extent[standing[item]].tolist()
            alike[width, height, digest].append(item)
    found: dict[int, bytes] = {}
    for inside in alike.values():
        if len({rows.image_id[standing[item]] for item in inside}) > 1:
            for item in inside:
                pixels = pictures.pixels(standing[item])
                shape: Indices = np.array(pixels.shape)
                found[item] = hashlib.sha256(shape.tobytes() + pixels.tobytes()).digest()
    return found


def _near(
    params: DedupeParams,
    standing: list[int],
    pictures: Pictures,
    foreign: Pictures,
    blank: npt.NDArray[np.bool_],
    found: Found,
) -> None:
    """Add the pairs of leaders, and of leaders and foreign pictures, that look alike."""
    able = [node for node, leader in enumerate(found.leaders) if not blank[standing[leader]]]
    row_of = np.array([standing[found.leaders[node]] for node in able], np.int64)
    picture_of = np.flatnonzero(contrast(foreign.thumbnails) >= MIN_CONTRAST)
    own = Chosen(pictures.thumbnails, row_of)
    limit = threshold(own, [pictures.image_id[row] for row in row_of.tolist()], params.min_score)
    seen = np.concatenate([own[:], foreign.thumbnails[picture_of]]) if len(picture_of) else own
    extent = np.concatenate([pictures.extent[row_of], foreign.extent[picture_of]])
    large = extent.min(axis=1) >= SMALLEST_LARGE
    near = near_pairs(
        seen,
        limit=limit,
        mirror=params.mirror,
        turns=params.rotations,
        large=large,
        foreign=np.arange(len(seen)) >= len(own),
    )

    def pixels(end: int) -> npt.NDArray[np.uint8]:
        return pictures.pixels(int(row_of[end])) if end < len(own) else foreign.pixels(int(picture_of[end - len(own)]))

    kinds = np.full(len(near), NOTHING, "U8")
    for part, closer in look_closer(near, pixels, large):
        few = near.of(part)
        # a quarter turn makes the height the width
        moving = np.where(few.turns[:, None] % 2 == 1, extent[few.moving][:, ::-1], extent[few.moving])
        kinds[part] = kinds_of(few, closer, Sizes(moving, extent[few.fixed]), limit=limit, slack=slack_of(len(own)))
    moves = [_transform(*move) for move in zip(near.mirrored.tolist(), near.turns.tolist(), strict=True)]
    ends = zip(near.moving.tolist(), near.fixed.tolist(), kinds.tolist(), near.score.tolist(), moves, strict=True)
    known = {(pair.row, pair.picture) for pair in found.foreign}
    strongest = sorted(
        ((-score, *sorted((one, other)), kind, move) for one, other, kind, score, move in ends if kind != NOTHING)
    )
    for negative, one, other, kind, move in strongest:
        first = int(row_of[one])
        if other < len(own):
            found.edges[kind].append((able[one], able[other]))
            found.pairs.append(Pair(first, int(row_of[other]), kind, -negative, move))
        elif (first, picture := int(picture_of[other - len(own)])) not in known:
            found.foreign.append(ForeignPair(first, picture, kind, -negative))


def _transform(mirrored: bool, turns: int) -> str:
    """As `Pair.transform` has it."""
    parts = ["mirror"] * mirrored + ["rotate180" if turns == 2 else "rotate90"] * (turns != 0)
    return "+".join(parts) or "none"

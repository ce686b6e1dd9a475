"""Turn pairs into groups and verdicts: which image is kept, which are copies, and which are in a label conflict.

Copies form star clusters: a centre, the best image not yet taken, and every image that was itself compared with it and
matches. So nothing is dropped for a chain of half-alike images, and no two centres match each other.

A group is what no split divides: stars whose kept images match as recrops or look alike. Look-alikes are joined the
most alike first, and only while the group stays narrow: a thousand product shots that each resemble a neighbour are
not one group.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pipelines.core.disjoint_sets import DisjointSets

MAX_DIAMETER = 4
"""edges from one end of a group to the other, at most, where look-alikes join it"""

Edges = Sequence[tuple[int, int]]
_Rank = tuple[bool, int, int, str, str]


@dataclass(frozen=True)
class LabelledImage:
    """One image under one label.

    Args:
        image_id: sha256 of the file.
        label: after relabel.csv.
        decided: whether a person gave or confirmed the label.
        area: pixels.
        size: bytes.
        has_label: whether `label` is a class; else the image came without one.
    """

    image_id: str
    label: str
    decided: bool
    area: int
    size: int
    has_label: bool = True

    @property
    def rank(self) -> _Rank:
        """Sort key, the best image first: one with a label, then resolution, then bytes, then id."""
        return (not self.has_label, -self.area, -self.size, self.image_id, self.label)


class ImageVerdict(NamedTuple):
    """The columns group, verdict and best_id of the table DEDUPED."""

    group: str
    verdict: str
    best_id: str


@dataclass(frozen=True)
class Clusters:
    """The star clusters of some items.

    Args:
        members: the items of each node, by rank.
        centres: the centre, a node, of each node.
        items: by centre the items of its star, by rank.
    """

    members: list[list[int]]
    centres: list[int]
    items: dict[int, list[int]]


def star_clusters(
    ranks: Sequence[_Rank], edges: Iterable[tuple[int, int]], cannot_link: Mapping[int, set[int]] | None = None
) -> list[int]:
    """The centre of each of N nodes, by rank: a node that no better centre claims is a centre itself.

    Args:
        ranks: N, all different; smaller is better.
        edges: pairs of nodes that match.
        cannot_link: by node, those that are never in one star with it.
    """
    neighbours: dict[int, list[int]] = defaultdict(list)
    for first, second in edges:
        neighbours[first].append(second)
        neighbours[second].append(first)
    centres = [-1] * len(ranks)
    for node in sorted(range(len(ranks)), key=ranks.__getitem__):
        if centres[node] >= 0:
            continue
        centres[node] = node
        for other in neighbours.get(node, ()):
            barred = cannot_link.get(other, ()) if cannot_link else ()
            if centres[other] < 0 and not any(centres[one] == node for one in barred):
                centres[other] = node
    return centres


def cluster_items(
    ranks: Sequence[_Rank],
    nodes: Sequence[int],
    edges: Iterable[tuple[int, int]],
    cannot_link: Mapping[int, set[int]] | None = None,
) -> Clusters:
    """Form the star clusters of items.

    Args:
        ranks: of the items.
        nodes: the node of each item.
        edges, cannot_link: of nodes, as `star_clusters` takes them.
    """
    members: list[list[int]] = [[] for _ in range(max(nodes, default=-1) + 1)]
    for item in sorted(range(len(nodes)), key=ranks.__getitem__):
        members[nodes[item]].append(item)
    centres = star_clusters([ranks[inside[0]] for inside in members], edges, cannot_link)
    items: dict[int, list[int]] = defaultdict(list)
    for item, node in enumerate(nodes):
        items[centres[node]].append(item)
    for inside in items.values():
        inside.sort(key=ranks.__getitem__)
    return Clusters(members, centres, items)


def assign_verdicts(
    images: Sequence[LabelledImage],
    nodes: Sequence[int],
    edges: Edges,
    *,
    recrops: Edges = (),
    similar: Edges = (),
    drop_copies: bool,
    hold_conflicts: bool,
) -> list[ImageVerdict]:
    """Decide on each image: keep, copy or conflict, and its group.

    An image without a label never conflicts with one that has a label: it is one more copy of the best of them.

    Args:
        images: each (image_id, label) once.
        nodes: the node of each image: those of one node are the same image.
        edges: pairs of nodes that match.
        recrops: pairs of nodes that show the same photograph, neither holding all of the other: both stay, in one
            group, and two labels are a conflict.
        similar: pairs of nodes that look alike, the most alike first: both stay, in one group where it stays narrow.
    """
    clusters = cluster_items([image.rank for image in images], nodes, edges)
    same = [*edges, *recrops]
    disputed = _disputed_stars(images, clusters, same) if hold_conflicts else set()

    verdicts: list[str] = [""] * len(images)
    best: list[str] = [""] * len(images)
    for centre, inside in clusters.items.items():
        decided = {images[item].label for item in inside if images[item].decided}
        first_of_label: dict[str, str] = {}
        for item in inside:
            # the best comes first, and has a label if any of them does
            label = images[item if images[item].has_label else inside[0]].label
            if centre in disputed and label not in decided:
                # a disputed label has no best image of its own: the best of the star is the one to look at
                verdicts[item], best[item] = "conflict", images[inside[0]].image_id
                continue
            is_first = label not in first_of_label
            best[item] = first_of_label.setdefault(label, images[item].image_id)
            verdicts[item] = "keep" if is_first or not drop_copies else "copy"
    groups = _join_stars(images, clusters, same, similar, verdicts)
    return [ImageVerdict(*row) for row in zip(groups, verdicts, best, strict=True)]


def _disputed_stars(images: Sequence[LabelledImage], clusters: Clusters, edges: Edges) -> set[int]:
    """Centres of the stars that hold two labels, or match an image of another label in another star."""

    def labels(some: Iterable[int]) -> set[str]:
        return {images[item].label for item in some if images[item].has_label}

    found = {centre for centre, inside in clusters.items.items() if len(labels(inside)) > 1}
    for first, second in edges:
        both = [item for node in (first, second) for item in clusters.members[node]]
        ends = {clusters.centres[first], clusters.centres[second]}
        # no conflict if both labels are human decisions
        if len(ends) > 1 and len(labels(both)) > 1 and not all(images[item].decided for item in both):
            found |= ends
    return found


def _join_stars(
    images: Sequence[LabelledImage], clusters: Clusters, same: Edges, similar: Edges, verdicts: Sequence[str]
) -> list[str]:
    """The group of each image, named by its smallest image_id: its star, and the stars whose kept images match.

    With copies dropped, kept images of two stars match only as label conflicts, recrops or look-alikes. With copies
    kept, this is what holds them on one side of a split. Joins depend on the diameter of what they make.
    """
    kept = [any(verdicts[item] == "keep" for item in inside) for inside in clusters.members]
    joined = DisjointSets(len(clusters.members))
    # an upper bound: two members of a star are at most two edges apart
    diameter = dict.fromkeys(clusters.items, 0)
    for node, centre in enumerate(clusters.centres):
        if node != centre:
            diameter[centre] = 2

    for edges, most in ((same, len(clusters.members) * 3), (similar, MAX_DIAMETER)):
        for first, second in edges:
            one, other = sorted(joined.find(clusters.centres[node]) for node in (first, second))
            across = diameter[one] + diameter[other] + 1
            if kept[first] and kept[second] and one != other and across <= most:
                joined.union(one, other)
                diameter[one] = across
    smallest: dict[int, str] = {}
    for centre, inside in clusters.items.items():
        names = [images[item].image_id for item in inside]
        smallest[joined.find(centre)] = min([*names, smallest.get(joined.find(centre), names[0])])
    group = [""] * len(images)
    for centre, inside in clusters.items.items():
        for item in inside:
            group[item] = smallest[joined.find(centre)]
    return group

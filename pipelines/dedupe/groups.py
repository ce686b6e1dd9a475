"""From pairs to groups and verdicts: which picture stays, which are copies, and which are under dispute.

Copies form stars: the best picture not yet taken, and every picture that was itself compared with it and matches. So
nothing is dropped because of a chain of half-alike pictures, and no two centres match each other.

A group is what no split parts: stars whose kept pictures match, though by another cut, or look alike. Look-alikes are
joined the most alike first, and only while the group stays narrow: a thousand product shots that each resemble a
neighbour are not one group.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

# matches from one end of a group to the other, at most, where look-alikes join it
MAX_DIAMETER = 4

_Rank = tuple[bool, int, int, str, str]


@dataclass(frozen=True)
class Item:
    """One picture under one label.

    Args:
        image_id: sha256 of the file.
        label: after relabel.csv.
        decided: the label is a person's decision.
        area: pixels.
        size: bytes.
        has_label: whether `label` is a class; else the picture came without one.
    """

    image_id: str
    label: str
    decided: bool
    area: int
    size: int
    has_label: bool = True

    @property
    def rank(self) -> _Rank:
        """Sorts the best picture first: one with a label, then resolution, then bytes, then id."""
        return (not self.has_label, -self.area, -self.size, self.image_id, self.label)


@dataclass(frozen=True)
class Verdict:
    """What becomes of an item; fields as in the table DEDUPED."""

    group: str
    verdict: str
    best_id: str


def stars(
    ranks: Sequence[_Rank], edges: Iterable[tuple[int, int]], foes: Mapping[int, set[int]] | None = None
) -> list[int]:
    """The centre of each of N nodes, by rank: a node that no better centre claims is a centre itself.

    Args:
        ranks: N, all different; smaller is better.
        edges: pairs of nodes that match.
        foes: of some nodes, those that are never in one star with it.
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
            if centres[other] < 0 and not (foes and any(centres[foe] == node for foe in foes.get(other, ()))):
                centres[other] = node
    return centres


def stars_of(
    ranks: Sequence[_Rank],
    nodes: Sequence[int],
    edges: Iterable[tuple[int, int]],
    foes: Mapping[int, set[int]] | None = None,
) -> tuple[list[list[int]], list[int], dict[int, list[int]]]:
    """The items of each node by rank, the centre of each node, and the items of each centre's star by rank.

    Args:
        ranks: of the items.
        nodes: the node of each item.
        edges, foes: as `stars` takes them.
    """
    members: list[list[int]] = [[] for _ in range(max(nodes, default=-1) + 1)]
    for item, node in enumerate(nodes):
        members[node].append(item)
    for inside in members:
        inside.sort(key=ranks.__getitem__)
    centres = stars([ranks[inside[0]] for inside in members], edges, foes)
    star_items: dict[int, list[int]] = defaultdict(list)
    for item, node in enumerate(nodes):
        star_items[centres[node]].append(item)
    for inside in star_items.values():
        inside.sort(key=ranks.__getitem__)
    return members, centres, star_items


def judge(
    items: Sequence[Item],
    nodes: Sequence[int],
    edges: Sequence[tuple[int, int]],
    *,
    recuts: Sequence[tuple[int, int]] = (),
    alike: Sequence[tuple[int, int]] = (),
    drop_copies: bool,
    hold_conflicts: bool,
) -> list[Verdict]:
    """The verdict of each item.

    A picture without a label is never in dispute with one that has a label: it is one more copy of the best of them.

    Args:
        items: each (image_id, label) once.
        nodes: the node of each item: items of one node have equal thumbnails and are all the same picture.
        edges: pairs of nodes that match.
        recuts: pairs of nodes that show the same photograph, but neither holds all of the other: both stay, in one
            group, and two labels are a conflict.
        alike: pairs of nodes that look alike, the most alike first: both stay, in one group where it stays narrow.
    """
    members, centres, star_items = stars_of([item.rank for item in items], nodes, edges)
    same = [*edges, *recuts]
    disputed = _disputed(items, members, centres, star_items, same) if hold_conflicts else set()

    verdicts: list[str] = [""] * len(items)
    best: list[str] = [""] * len(items)
    for centre, inside in star_items.items():
        decided = {items[item].label for item in inside if items[item].decided}
        first_of_label: dict[str, str] = {}
        for item in inside:
            # the best comes first, and has a label if any of them does
            label = items[item if items[item].has_label else inside[0]].label
            if centre in disputed and label not in decided:
                # under dispute there is no best of the label: the group's best picture is the one to look at
                verdicts[item], best[item] = "conflict", items[inside[0]].image_id
                continue
            is_first = label not in first_of_label
            best[item] = first_of_label.setdefault(label, items[item].image_id)
            verdicts[item] = "keep" if is_first or not drop_copies else "copy"
    groups = _groups(items, members, centres, star_items, same, alike, verdicts)
    return [Verdict(*row) for row in zip(groups, verdicts, best, strict=True)]


def _disputed(
    items: Sequence[Item],
    members: Sequence[Sequence[int]],
    centres: Sequence[int],
    star_items: dict[int, list[int]],
    edges: Iterable[tuple[int, int]],
) -> set[int]:
    """Centres of the stars that hold two labels, or match a picture of another label in another star."""

    def labels(some: Iterable[int]) -> set[str]:
        return {items[item].label for item in some if items[item].has_label}

    found = {centre for centre, inside in star_items.items() if len(labels(inside)) > 1}
    for first, second in edges:
        if centres[first] == centres[second]:
            continue
        both = [item for node in (first, second) for item in members[node]]
        # two labels that people gave stand beside each other: they looked, and saw two pictures
        if len(labels(both)) > 1 and not all(items[item].decided for item in both):
            found |= {centres[first], centres[second]}
    return found


def _groups(
    items: Sequence[Item],
    members: Sequence[Sequence[int]],
    centres: Sequence[int],
    star_items: dict[int, list[int]],
    same: Iterable[tuple[int, int]],
    alike: Iterable[tuple[int, int]],
    verdicts: Sequence[str],
) -> list[str]:
    """The group of each item: its star, joined with the stars whose kept pictures match kept pictures of it.

    With copies dropped, kept pictures of two stars match only where their labels dispute, or where they are cut
    differently or look alike. With copies kept, this is what keeps them from standing on both sides of a split.
    """
    kept = [any(verdicts[item] == "keep" for item in inside) for inside in members]
    parent = {centre: centre for centre in star_items}
    # an upper bound: two members of a star are at most two matches apart
    diameter = dict.fromkeys(star_items, 0)
    for node, centre in enumerate(centres):
        if node != centre:
            diameter[centre] = 2

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for pairs, most in ((same, len(members) * 3), (alike, MAX_DIAMETER)):
        for first, second in pairs:
            one, other = root(centres[first]), root(centres[second])
            across = diameter[one] + diameter[other] + 1
            if kept[first] and kept[second] and one != other and across <= most:
                parent[max(one, other)] = min(one, other)
                diameter[min(one, other)] = across
    smallest: dict[int, str] = {}
    for centre, inside in star_items.items():
        name = min(items[item].image_id for item in inside)
        smallest[root(centre)] = min(name, smallest.get(root(centre), name))
    group = [""] * len(items)
    for centre, inside in star_items.items():
        for item in inside:
            group[item] = smallest[root(centre)]
    return group

"""How far a decision reaches: a person decided on one picture, and dedupe knows its copies.

    different   the copies of two different pictures are no copies of each other either
    relabel,    the copies of a picture get its label. So do pictures of the same photograph that are no copies of it,
    keep        where all came under the label that it came under: they agreed before, and agree again
    drop        takes along what was left out for the picture: copies that are not better, under the same label

A decision on a copy itself goes before. Where two decided pictures of one photograph disagree, each stands for itself.
"""

from collections import defaultdict
from dataclasses import replace

from pipelines.core.tables import short_id
from pipelines.dedupe.find import Found
from pipelines.dedupe.groups import stars_of
from pipelines.dedupe.rows import Rows, first_rows

COPY_OF = " (copy of "
"""stands in a note that a decision on a copy left"""

_SAME = ("near", "recrop")
_Links = list[tuple[int, int]]
_Stars = dict[int, list[int]]


def reach(
    rows: Rows, standing: list[int], found: Found, *, copies: str, recuts: str, unlabelled: str | None
) -> tuple[Rows, Found]:
    """The rows, and what was found among those of them that still stand, after decisions have reached the copies.

    Args:
        rows: after decisions on the pictures themselves.
        standing: the first row of each (image_id, label), of dropped pictures too.
        found: among `standing`.
        copies, recuts: of the params.
    """
    if not any(rows.note) and not rows.different:
        return rows, found
    foes = _foes(rows, standing, found.nodes)
    near, recut = ([edge for edge in found.edges.get(kind, ()) if edge[1] not in foes[edge[0]]] for kind in _SAME)
    ranks = [(rows.label[row] == unlabelled, *rows.rank(row)) for row in standing]
    _, centres, stars = stars_of(ranks, found.nodes, near + recut if recuts == "drop" else near, foes)
    apart = {frozenset((centres[one], centres[other])) for one, some in foes.items() for other in some}
    links = [(centres[one], centres[other]) for one, other in near + recut]
    links = [link for link in links if frozenset(link) not in apart]
    source = _sources(rows, standing, stars, links, unlabelled)
    change: dict[tuple[str, str], tuple[str, str]] = {}
    for centre, inside in stars.items():
        for item, told in _told(rows, [standing[item] for item in inside], source.get(centre), copies, unlabelled):
            change[rows.image_id[item], rows.label[item]] = told
    settled = _changed(rows, change)
    item_of = {row: item for item, row in enumerate(standing)}
    star_of_row = {row: centres[found.nodes[item]] for row, item in item_of.items()}
    return settled, replace(
        found,
        nodes=[found.nodes[item_of[row]] for row in first_rows(settled).values()],
        leaders=[],
        pairs=[
            pair
            for pair in found.pairs
            if frozenset((star_of_row[pair.first], star_of_row[pair.second])) not in apart
            and not (settled.dropped[pair.first] or settled.dropped[pair.second])
        ],
        edges={
            kind: [edge for edge in edges if frozenset((centres[edge[0]], centres[edge[1]])) not in apart]
            for kind, edges in found.edges.items()
        },
    )


def _foes(rows: Rows, standing: list[int], nodes: list[int]) -> dict[int, set[int]]:
    """Of each node those that people called another picture."""
    node_of: dict[str, int] = {}
    if rows.different:
        node_of = {rows.image_id[row]: node for row, node in zip(standing, nodes, strict=True)}
    found: dict[int, set[int]] = defaultdict(set)
    for one, others in rows.different.items():
        found[node_of[one]] |= {node_of[other] for other in others}
    return found


def _sources(rows: Rows, standing: list[int], stars: _Stars, links: _Links, unlabelled: str | None) -> dict[int, int]:
    """By star the row whose label all of it gets: a decided one of its own, or of a star that it is linked to.

    Args:
        stars: items by rank, by centre.
        links: pairs of centres of which members show one photograph.
    """
    own: dict[int, list[int]] = {}
    for centre, inside in stars.items():
        if decided := [standing[item] for item in inside if rows.decided[standing[item]]]:
            own[centre] = decided
    agreed = {centre: some[0] for centre, some in own.items() if len({rows.label[row] for row in some}) == 1}
    offered: dict[int, list[int]] = defaultdict(list)
    for link in links:
        for here, there in (link, link[::-1]):
            if here in agreed and there not in own:
                offered[there].append(agreed[here])
    followed = {}
    for centre, some in offered.items():
        came = {rows.came[standing[item]] for item in stars[centre] if not rows.dropped[standing[item]]} - {unlabelled}
        if len({rows.label[row] for row in some}) == 1 and came == {rows.came[some[0]]}:
            followed[centre] = some[0]
    return agreed | followed


def _told(
    rows: Rows, inside: list[int], source: int | None, copies: str, unlabelled: str | None
) -> list[tuple[int, tuple[str, str]]]:
    """The rows of a star, given by rank, that a decision on another one reaches, with their label and note."""
    open_rows = [row for row in inside if not rows.decided[row] and not rows.dropped[row]]
    if source is not None:
        label, reason = rows.label[source], rows.note[source].split(": ", 1)[1]
        of = f"{reason}{COPY_OF}{short_id(rows.image_id[source])})"
        return [
            (row, (label, f"{'keep' if rows.label[row] == label else 'relabel'}: {of}"))
            for row in open_rows
            if rows.label[row] != unlabelled
        ]
    if copies != "drop":
        return []
    found = []
    best: dict[str, int] = {}
    for row in inside:
        # the best comes first, and has a label if any of them does
        best.setdefault(rows.label[row if rows.label[row] != unlabelled else inside[0]], row)
    decided = {rows.label[row] for row in inside if rows.decided[row]}
    for row in open_rows:
        label = rows.label[row if rows.label[row] != unlabelled else inside[0]]
        first = best[label]
        if rows.dropped[first] and label not in decided:
            found.append((row, (rows.label[row], f"{rows.note[first]}{COPY_OF}{short_id(rows.image_id[first])})")))
    return found


def _changed(rows: Rows, change: dict[tuple[str, str], tuple[str, str]]) -> Rows:
    """The rows with label and note changed, by (image_id, label)."""
    keys = zip(rows.image_id, rows.label, strict=True)
    told = [change.get(key, (key[1], note)) for key, note in zip(keys, rows.note, strict=True)]
    note = [one[1] for one in told]
    return replace(
        rows,
        label=[one[0] for one in told],
        note=note,
        decided=[one.startswith(("keep: ", "relabel: ")) for one in note],
        dropped=[one.startswith("drop: ") for one in note],
    )

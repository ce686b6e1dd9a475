"""Propagate human decisions from an image to its copies.

    different   copies of two different images are no copies of each other either
    relabel,    copies of an image get its label. So do images of the same photograph that are no copies of it, where
    keep        all came under the label that it came under: they agreed before, and agree again
    drop        takes along what was left out for the image: copies that are not better, under the same label

A decision on a copy itself takes precedence. Where two decided images of one photograph disagree, each stands for
itself.
"""

from collections import defaultdict
from dataclasses import replace

from pipelines.core.tables import short_id
from pipelines.dedupe.find_pairs import FoundPairs
from pipelines.dedupe.groups import Edges, cluster_items
from pipelines.dedupe.inputs import ManifestRows
from pipelines.params.dedupe import DedupeParams

COPY_OF = " (copy of "
"""stands in the note that a decision on a copy left"""


def propagate_decisions(
    params: DedupeParams, rows: ManifestRows, standing: list[int], found: FoundPairs, *, unlabelled: str | None
) -> tuple[ManifestRows, FoundPairs]:
    """Apply decisions to copies.

    Args:
        rows: after decisions on the images themselves.
        standing: the first row of each (image_id, label), of dropped images too.
        found: among `standing`.

    Returns:
        the rows, and what was found among those of them that still stand.
    """
    if not any(rows.note) and not rows.different:
        return rows, found
    cannot_link = _cannot_link(rows, standing, found.nodes)
    near, recrop = (
        [edge for edge in found.edges.get(kind, ()) if edge[1] not in cannot_link[edge[0]]]
        for kind in ("near", "recrop")
    )
    ranks = [(rows.label[row] == unlabelled, *rows.rank(row)) for row in standing]
    edges = near + recrop if params.recrops == "drop" else near
    clusters = cluster_items(ranks, found.nodes, edges, cannot_link)
    centres, stars = clusters.centres, clusters.items
    apart = {frozenset((centres[one], centres[other])) for one, some in cannot_link.items() for other in some}
    links = [(centres[one], centres[other]) for one, other in near + recrop]
    links = [link for link in links if frozenset(link) not in apart]
    source = _label_sources(rows, standing, stars, links, unlabelled)
    change: dict[tuple[str, str], tuple[str, str]] = {}
    for centre, inside in stars.items():
        members = [standing[item] for item in inside]
        for row, label, note in _changes(rows, members, source.get(centre), params.duplicates, unlabelled):
            change[rows.image_id[row], rows.label[row]] = label, note
    keys = zip(rows.image_id, rows.label, rows.note, strict=True)
    changed = [change.get((image_id, label), (label, note)) for image_id, label, note in keys]
    settled = replace(rows, label=[label for label, _ in changed], note=[note for _, note in changed])
    item_of = {row: item for item, row in enumerate(standing)}
    star_of_row = {row: centres[found.nodes[item]] for row, item in item_of.items()}
    return settled, replace(
        found,
        nodes=[found.nodes[item_of[row]] for row in settled.first_rows().values()],
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


def _cannot_link(rows: ManifestRows, standing: list[int], nodes: list[int]) -> dict[int, set[int]]:
    """By node the nodes that a person called different from it."""
    node_of = dict(zip((rows.image_id[row] for row in standing), nodes, strict=True)) if rows.different else {}
    found: dict[int, set[int]] = defaultdict(set)
    for one, others in rows.different.items():
        found[node_of[one]] |= {node_of[other] for other in others}
    return found


def _label_sources(
    rows: ManifestRows, standing: list[int], stars: dict[int, list[int]], links: Edges, unlabelled: str | None
) -> dict[int, int]:
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
        members = [standing[item] for item in stars[centre]]
        originals = {rows.original_label[row] for row in members if not rows.dropped[row]} - {unlabelled}
        if len({rows.label[row] for row in some}) == 1 and originals == {rows.original_label[some[0]]}:
            followed[centre] = some[0]
    return agreed | followed


def _changes(
    rows: ManifestRows, members: list[int], source: int | None, duplicates: str, unlabelled: str | None
) -> list[tuple[int, str, str]]:
    """The rows of a star, given by rank, that a decision on another one reaches, with their new label and note."""
    open_rows = [row for row in members if not rows.decided[row] and not rows.dropped[row]]
    if source is not None:
        label, reason = rows.label[source], rows.note[source].split(": ", 1)[1]
        of = f"{reason}{COPY_OF}{short_id(rows.image_id[source])})"
        return [
            (row, label, f"{'keep' if rows.label[row] == label else 'relabel'}: {of}")
            for row in open_rows
            if rows.label[row] != unlabelled
        ]
    if duplicates != "drop":
        return []
    # the best comes first, and has a label if any of them does
    label_of = {row: rows.label[row if rows.label[row] != unlabelled else members[0]] for row in members}
    best = {label: row for row, label in reversed(label_of.items())}
    decided = {rows.label[row] for row in members if rows.decided[row]}
    found = []
    for row in open_rows:
        first = best[label_of[row]]
        if rows.dropped[first] and label_of[row] not in decided:
            found.append((row, rows.label[row], f"{rows.note[first]}{COPY_OF}{short_id(rows.image_id[first])})"))
    return found

"""What tells two snapshots apart: files added, gone, changed, relabelled or moved.

A file is known by its source and path. Each row of both manifests counts once:

changed     the same source and path in both, other bytes
relabelled  the same bytes in both, under another label; the path may be another too
moved       the same bytes and label in both, another source or path
added       in the second alone
gone        in the first alone
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from pipelines.core.errors import InputError
from pipelines.core.tables import MANIFEST, read_table
from pipelines.ingest.snapshots import FOLDER, find_snapshot, list_snapshots

Kind = Literal["added", "gone", "changed", "relabelled", "moved"]
KINDS: tuple[Kind, ...] = ("added", "gone", "changed", "relabelled", "moved")


class File(NamedTuple):
    """One row of a manifest, as far as it matters here."""

    label: str
    source: str
    source_path: str
    image_id: str


@dataclass(frozen=True)
class Change:
    """One file that is not the same in both.

    Args:
        kind: see the head of this module.
        before: None for added.
        after: None for gone.
    """

    kind: Kind
    before: File | None
    after: File | None

    @property
    def file(self) -> File:
        """As it is now, or as it was last."""
        found = self.after or self.before
        assert found is not None
        return found


@dataclass(frozen=True)
class Difference:
    """Two snapshots compared.

    Args:
        same: rows that are in both.
        changes: all others, sorted by kind, label, path.
    """

    same: int
    changes: list[Change]

    @property
    def counts(self) -> Counter[Kind]:
        return Counter(change.kind for change in self.changes)

    @property
    def by_class(self) -> dict[str, Counter[Kind]]:
        """Label (the new one of a relabelled file) → counts, sorted."""
        found: dict[str, Counter[Kind]] = defaultdict(Counter)
        for change in self.changes:
            found[change.file.label][change.kind] += 1
        return dict(sorted(found.items()))


def find_manifest(name: str, *, cache: Path) -> Path:
    """The manifest that `name` means: a snapshot in the cache, a folder that ingest wrote, or a manifest itself.

    Raises:
        InputError: there is none; names those that there are.
    """
    folder = find_snapshot(cache, name)
    if folder is not None:
        return folder / "manifest.parquet"
    path = Path(name)
    if path.is_dir():
        path /= "manifest.parquet"
    if path.is_file():
        return path
    known = ", ".join(list_snapshots(cache)) or "none yet"
    raise InputError(
        f"{name!r} is no snapshot in {cache / FOLDER} (there are: {known}), no folder with a manifest.parquet and no "
        "manifest; name two of these"
    )


def diff(before: Path, after: Path) -> Difference:
    """Compare two manifests.

    Raises:
        InputError: one is missing or no manifest.
    """
    old, new = Counter(_files(before)), Counter(_files(after))
    same = old & new
    gone, added = sorted((old - same).elements()), sorted((new - same).elements())
    changes: list[Change] = []
    # a pair is made by the first rule that fits, and leaves the rows that no rule pairs
    rules: tuple[tuple[Kind, tuple[str, ...]], ...] = (
        ("relabelled", ("image_id", "source", "source_path")),
        ("changed", ("label", "source", "source_path")),
        ("changed", ("source", "source_path")),
        ("moved", ("image_id", "label")),
        ("relabelled", ("image_id",)),
    )
    for kind, key in rules:
        waiting: dict[tuple[str, ...], list[File]] = defaultdict(list)
        for file in reversed(gone):
            waiting[_key(file, key)].append(file)
        left = []
        for file in added:
            pairs = waiting.get(_key(file, key))
            if pairs:
                changes.append(Change(kind, pairs.pop(), file))
            else:
                left.append(file)
        added, gone = left, sorted(file for files in waiting.values() for file in files)
    changes += [Change("gone", file, None) for file in gone] + [Change("added", None, file) for file in added]
    changes.sort(key=lambda change: (KINDS.index(change.kind), change.file))
    return Difference(same.total(), changes)


def describe(difference: Difference, *, names: tuple[str, str], limit: int) -> Iterator[str]:
    """Lines for a person: a sum, counts a class, then at most `limit` files of each kind."""
    counts = difference.counts
    total = ", ".join(f"{counts[kind]:,} {kind}" for kind in KINDS)
    yield f"{names[0]} → {names[1]}: {total}; {difference.same:,} the same"
    if not difference.changes:
        return
    by_class = difference.by_class
    width = max(5, *(len(_visible(label)) for label in by_class))
    yield ""
    yield f"{'class':{width}}" + "".join(f"{kind:>12}" for kind in KINDS)
    for label, row in by_class.items():
        yield f"{_visible(label):{width}}" + "".join(f"{row[kind] or '':>12}" for kind in KINDS)
    for kind in KINDS:
        some = [change for change in difference.changes if change.kind == kind]
        if some:
            yield ""
            yield f"{kind}:"
        for change in some[:limit]:
            yield f"  {_line(change)}"
        if len(some) > limit:
            yield f"  and {len(some) - limit:,} more (--limit shows more, --json all)"


def as_json(difference: Difference, *, names: tuple[str, str]) -> dict[str, object]:
    """Everything, for a program: counts, and each change with its file before and after."""
    counts = difference.counts
    return {
        "before": names[0],
        "after": names[1],
        "same": difference.same,
        "counts": {kind: counts[kind] for kind in KINDS},
        "by_class": {
            label: {kind: row[kind] for kind in KINDS if row[kind]} for label, row in difference.by_class.items()
        },
        "changes": [
            {
                "kind": change.kind,
                "before": change.before and change.before._asdict(),
                "after": change.after and change.after._asdict(),
            }
            for change in difference.changes
        ],
    }


def _files(manifest: Path) -> Iterator[File]:
    columns = list(File._fields)
    table = read_table(manifest, MANIFEST, columns=columns)
    return map(File, *(table[name].to_pylist() for name in columns))


def _key(file: File, names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(getattr(file, name) for name in names)


def _line(change: Change) -> str:
    before, after, file = change.before, change.after, change.file
    path = f"{file.source}: {_visible(file.source_path)}"
    if before is None or after is None:
        return f"{_visible(file.label)}  {path}"
    if change.kind == "changed":
        return f"{_visible(file.label)}  {path}  {before.image_id[:12]} → {after.image_id[:12]}"
    was = f"{before.source}: {_visible(before.source_path)}"
    labels = f"{_visible(before.label)} → " if change.kind == "relabelled" else ""
    return f"{labels}{_visible(after.label)}  {path}" + (f"  (was {was})" if was != path else "")


def _visible(text: str) -> str:
    """Names come from outside: what would steer a terminal is spelt out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)

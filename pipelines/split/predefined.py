"""`method: predefined`: the source's own subsets decide, and what lies across them is found and resolved.

A data set's own split is often leaky: copies of test pictures among the training pictures. dedupe looks at pictures,
not at subsets, so the file that it keeps may be the one given for training while its copy was given for testing. Here
every file counts, copies and pictures held for their labels too. `leaks: keep_test` leaves the test set whole: where
the file that was given for testing is the smaller copy, it takes the place of the larger one.
"""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.core.errors import InputError, count
from pipelines.core.files import write_csv
from pipelines.params.split import SplitParams
from pipelines.split.links import Bools, Ints, ends_of, read_pairs
from pipelines.split.stratified import ALWAYS_TRAIN, TEST, Bins, draw_bins
from pipelines.split.units import (
    Linked,
    Pictures,
    link,
    read_files,
    sorted_codes,
    without_repeats,
)

HEADER = ("group", "given_subset", "subset", "verdict", "image_id", "label", "source", "source_path")
NUM_EXAMPLES = 10
"""groups that audit.json shows whole; leaks.csv has all"""
NAMED = 10


@dataclass(frozen=True)
class Leaks:
    """Groups (duplicates, joined by group_by) with files in two given subsets or more.

    Args:
        files: their files, a row each, with HEADER's columns but `subset`; sorted by group, subset and path.
    """

    files: list[dict[str, str]]

    @property
    def num_groups(self) -> int:
        return len({file["group"] for file in self.files})

    @property
    def summary(self) -> dict[str, Any]:
        """What audit.json says of them."""
        groups: dict[str, list[dict[str, str]]] = {}
        for file in self.files:
            groups.setdefault(file["group"], []).append(file)
        across = Counter(" and ".join(sorted({f["given_subset"] for f in g} - {""})) for g in groups.values())
        labels = Counter(label for g in groups.values() for label in {f["label"] for f in g})
        return {
            "num_groups": len(groups),
            "num_files": len(self.files),
            "across": dict(sorted(across.items())),
            "classes": dict(sorted(labels.items(), key=lambda item: (-item[1], item[0]))),
            "examples": list(groups.values())[:NUM_EXAMPLES],
        }


def find_leaks(table: pa.Table, linked: Linked) -> Leaks:
    """Every group across subsets, copies and pictures held for their labels among them; files of verdict drop apart.

    Args:
        table: of `read_files`, with given_subset, source and source_path.
    """
    table = table.filter(pc.not_equal(table["verdict"], "drop"))
    # groups that keep no picture are units of their own
    at = pc.index_in(table["group"], pa.array(linked.groups, pa.string()))
    unit = pa.array(linked.units, pa.string()).take(pa.array(linked.unit_of_group)).take(at.combine_chunks())
    table = table.set_column(table.schema.get_field_index("group"), "group", pc.coalesce(unit, table["group"]))
    given = table.filter(pc.not_equal(table["given_subset"], ""))
    if given.num_rows == 0:
        return Leaks([])
    groups, number = sorted_codes(given["group"])
    _, side = sorted_codes(given["given_subset"])
    low, high = ends_of(number, side, len(groups))
    astray = [groups[k] for k in np.flatnonzero(low < high)]
    found = table.filter(pc.is_in(table["group"], pa.array(astray, pa.string())))
    keys = ("group", "given_subset", "source_path", "image_id", "label", "source", "verdict")
    return Leaks(sorted(found.select(list(keys)).to_pylist(), key=lambda file: tuple(file[key] for key in keys)))


def write_leaks(leaks: Leaks, splits: pa.Table, path: Path) -> None:
    """leaks.csv: every file of every leak, and the subset of SPLITS that it ended in; "" where it takes no part."""
    images = pa.array(sorted({file["image_id"] for file in leaks.files}), pa.string())
    ended: dict[str, set[str]] = {}
    for row in splits.filter(pc.is_in(splits["image_id"], images)).select(["image_id", "subset"]).to_pylist():
        ended.setdefault(row["image_id"], set()).add(row["subset"])
    rows = [{**file, "subset": " and ".join(sorted(ended.get(file["image_id"], ())))} for file in leaks.files]
    write_csv(path, HEADER, ([row[name] for name in HEADER] for row in rows))


def refuse_leaks(leaks: Leaks) -> NoReturn:
    """Stop, and name what leaks.

    Raises:
        InputError: always.
    """
    found = leaks.summary
    across = ", ".join(f"{many} of {what}" for what, many in found["across"].items())
    classes = [f"{label!r} ({many})" for label, many in found["classes"].items()]
    shown = classes[:NAMED] + ([f"and {len(classes) - NAMED} more"] if len(classes) > NAMED else [])
    first = ", ".join(f"{file['source_path']} ({file['given_subset'] or 'no subset'})" for file in found["examples"][0])
    groups = count(found["num_groups"], "group lies", "groups lie")
    raise InputError(
        f"{groups} across the given split: {across}; classes {', '.join(shown)}.\n"
        f"The first: {first}\n"
        "What helps: set split.leaks: keep_test (copies leave training), keep_train (copies leave the test set) or "
        "keep (the leak stays, and the report says so); or drop one side in data/decisions/drop.csv"
    )


SIDES = ("test", "val", "train")
"""What the source may say; the index of each is the bin that it means where folds is 1."""
VAL, TRAIN, NONE = 1, 2, -1
_COLUMNS = ("given_subset", "best_id", "width", "height", "size", "source", "source_path")


@dataclass(frozen=True)
class Given:
    """What the source says of N pictures.

    Args:
        side: (N,) index into SIDES, or NONE.
        leaks: what lies across the given subsets.
    """

    side: Ints
    leaks: Leaks

    def of(self, rows: Ints) -> Self:
        """The same of some rows."""
        return replace(self, side=self.side[rows])


def read_given(manifest: Path, duplicates: Path, params: SplitParams) -> tuple[Pictures, Given]:
    """The pictures that take part, and where the source wants them; leaks are resolved as split.leaks says.

    Raises:
        InputError: as read_pictures; no file has a subset, one has none or leaks against the rules, no test picture.
    """
    table = read_files(manifest, params.group_by, unlabelled=params.unlabelled, more=_COLUMNS)
    at = table.schema.get_field_index("given_subset")
    table = table.set_column(at, "given_subset", pc.fill_null(table["given_subset"], ""))
    # a copy may take the place of the picture that dedupe kept: its own pairs count too
    linked = link(table, params.group_by, pairs=read_pairs(duplicates)[0])
    files = linked.files
    code = given_codes(files["given_subset"])
    if (code == NONE).all():
        raise InputError(
            f"split.method is predefined, but no file of {manifest} that takes part has a given subset: in "
            "ingest.sources set subset_from: first_folder (folders train, val and test above the class folders) or the "
            "table's subset_column, choose a source that has subsets, or set split.method: stratified"
        )
    leaks = find_leaks(table, linked)
    if leaks.num_groups and params.leaks == "refuse":
        refuse_leaks(leaks)
    rows, side = _standing(files, linked, code, params.leaks)
    table = files.take(pa.array(rows)).append_column("side", pa.array(side))
    table = table.sort_by([*((name, "ascending") for name in ("label", "image_id", "side")), ("factors", "descending")])
    table = without_repeats(table, "image_id", "label", "side")
    side = table["side"].to_numpy()
    if (side == NONE).any() and params.unassigned == "refuse":
        _refuse_unassigned(table, side)
    if not (side == TEST).any() and not ((side == NONE).any() and params.unassigned == "stratify"):
        raise InputError(
            f"split.method is predefined, but no picture that takes part is given for testing ({_counted(side)}): "
            "let the source call a subset test, or set split.method: stratified"
        )
    return Pictures(table, linked, may_repeat=params.leaks == "keep"), Given(side, leaks)


def given_codes(column: pa.ChunkedArray) -> Ints:
    """(N,) index into SIDES of each value; NONE for "".

    Raises:
        InputError: a value is none of these.
    """
    column = pc.fill_null(column, "")
    found: Ints = pc.fill_null(pc.index_in(column, pa.array(SIDES)), NONE).to_numpy().astype(np.int64)
    strange = pc.unique(column.filter(pa.array(found == NONE))).to_pylist()
    if set(strange) - {""}:
        raise InputError(
            f"given_subset holds {min(set(strange) - {''})!r}, which is none of {', '.join(SIDES)}: "
            "run `dvc repro --force ingest`"
        )
    return found


def predefined_bins(pictures: Pictures, given: Given, bins: Bins, params: SplitParams, rare: Bools) -> Ints:
    """(N,) the bin of each picture: as given; validation or folds are drawn from training where they are not.

    Args:
        rare: (K,) classes whose pictures no draw takes out of training.
    """
    side = given.side.copy()
    drawn = bins.folds > 1 or not (side == VAL).any()
    unassigned = side == NONE
    if params.unassigned == "train":
        side[unassigned] = TRAIN
    elif unassigned.any():
        shares = (params.test_fraction, 1.0 - params.test_fraction) if drawn else bins.fractions
        found = draw_bins(pictures, shares, params.seed, rows=unassigned)
        side[unassigned] = np.where(found == TEST, TEST, TRAIN) if drawn else found
    if not drawn:
        return side
    pool = side != TEST
    shares = (params.val_fraction, 1.0 - params.val_fraction) if bins.folds == 1 else bins.fractions[1:]
    bin_of = np.full(len(side), TEST, dtype=np.int64)
    shares = tuple(share / sum(shares) for share in shares)
    # bins count test first
    bin_of[pool] = draw_bins(pictures, shares, params.seed, rows=pool, rare=rare) + 1
    return np.where(pool & (bin_of == 0), ALWAYS_TRAIN, bin_of)


def refuse_untrained(pictures: Pictures, bin_of: Ints, bins: Bins) -> None:
    """Stop where a given split has classes that nothing can be learnt of.

    Raises:
        InputError: names them.
    """
    trains = (bin_of == bins.train) | (bin_of == ALWAYS_TRAIN) | ((bin_of != TEST) & (bins.folds > 1))
    have = np.bincount(pictures.label_of[trains], minlength=len(pictures.labels))
    without = [repr(label) for label, number in zip(pictures.labels, have, strict=True) if number == 0]
    if without:
        raise InputError(
            f"the given split has no training picture of {', '.join(without[:20])}"
            + (f" and {count(len(without) - 20, 'more class', 'more classes')}" if len(without) > 20 else "")
            + ": add some, drop the class in data/decisions/drop.csv, or set split.method: stratified"
        )


def _standing(files: pa.Table, linked: Linked, code: Ints, rule: str) -> tuple[Ints, Ints]:
    """The files that take part and the side of each, (n,): the kept ones, and in leaks the best file of each side."""
    verdict = files["verdict"].to_numpy(zero_copy_only=False)
    counts = (verdict == "keep") | (verdict == "copy")
    says = np.zeros((len(linked.units), len(SIDES)), dtype=bool)
    known = np.flatnonzero(counts & (code != NONE))
    says[linked.unit_of[known], code[known]] = True
    if rule == "keep_train":
        wins = np.where(says.any(axis=1), TRAIN - says[:, ::-1].argmax(axis=1), NONE)
    else:
        wins = np.where(says.any(axis=1), says.argmax(axis=1), NONE)
    leaks = (says.sum(axis=1) > 1)[linked.unit_of]
    plain = np.flatnonzero((verdict == "keep") & ~leaks)
    rows, sides = plain.tolist(), wins[linked.unit_of[plain]].tolist()
    places: dict[tuple[str, str, int], list[tuple[bool, int, int, str, int]]] = {}
    inside = np.flatnonzero(counts & leaks)
    needed = files.select(["verdict", "width", "height", "size", "image_id", "best_id", "label"]).take(pa.array(inside))
    for row, file in zip(inside.tolist(), needed.to_pylist(), strict=True):
        winner = int(wins[linked.unit_of[row]])
        side = int(code[row]) if code[row] != NONE else winner
        if rule == "keep" or side == winner:
            rank = (file["verdict"] != "keep", -file["width"] * file["height"], -file["size"], file["image_id"], row)
            places.setdefault((file["best_id"], file["label"], side), []).append(rank)
    for (_, _, side), ranks in places.items():
        standing = [rank for rank in ranks if not rank[0]] or [min(ranks)]
        rows += [rank[-1] for rank in standing]
        sides += [side] * len(standing)
    return np.array(rows, dtype=np.int64), np.array(sides, dtype=np.int64)


def _counted(side: Ints) -> str:
    return ", ".join(f"{int((side == code).sum())} {name}" for code, name in enumerate(SIDES))


def _refuse_unassigned(table: pa.Table, side: Ints) -> None:
    without = np.flatnonzero(side == NONE)
    first = table["source_path"][int(without[0])].as_py()
    raise InputError(
        f"{len(without)} of {len(side)} pictures that take part have no given subset, first {first!r}: set "
        "split.unassigned: train to train on them, or stratify to divide them by the fractions; or fill the source's "
        "subset_column"
    )

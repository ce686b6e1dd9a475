"""What each stage left behind, as one page of Markdown for the Prefect UI; a missing file is said, never an error."""

import csv
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from flows.markdown import page, picture, table
from pipelines.core.layout import Layout
from pipelines.core.params import Params

MAX_ROWS = 50
"""rows of a table; the files hold them all"""

Page = Callable[[Layout, Params, bool], str]


def leave(name: str, markdown: str) -> None:
    """Leave `markdown` as the newest version of the artifact `miwake-<name>`, with the run that is under way."""
    from prefect.artifacts import create_markdown_artifact

    create_markdown_artifact(
        key=f"miwake-{name}", markdown=markdown, description=f"{name}: one page a run, the newest first"
    )


def stage_page(stage: str, layout: Layout, params: Params, *, with_picture: bool) -> str:
    """The page of one stage.

    Args:
        stage: as dvc.yaml names it.
        layout: where its files lie.
        params: say which members and folds to expect.
        with_picture: whether the report stage has drawn this run's confusion matrix.
    """
    make = PAGES.get(stage)
    if make is None:
        return page(stage.capitalize(), f"`{stage}` has no page of its own; its files lie in `data/{stage}/`.")
    try:
        return make(layout, params, with_picture)
    except FileNotFoundError as error:
        return page(stage.capitalize(), f"`{error.filename}` does not exist: the stage did not write it.")
    except (pa.ArrowInvalid, KeyError, ValueError) as error:
        return page(stage.capitalize(), f"The files of this stage cannot be read: {type(error).__name__}: {error}")


def pipeline_page(outcomes: Sequence[tuple[str, str, str]]) -> str:
    """What became of every stage.

    Args:
        outcomes: stage, outcome (ran, cached, …) and detail, of which the last line is shown.
    """
    rows = [(stage, outcome, (detail.strip().splitlines() or [""])[-1]) for stage, outcome, detail in outcomes]
    return page("Pipeline", table(["stage", "outcome", "detail"], rows))


def _ingest(layout: Layout, _params: Params, _with_picture: bool) -> str:
    manifest = pq.read_table(
        layout.ingest_manifest, columns=["image_id", "label", "size", "format", "source", "license"]
    )
    classes, formats = _counts(manifest, "label"), _counts(manifest, "format")
    refused = _csv(layout.rejects)
    rejects = Counter(row["reason"] for row in refused)
    taken, left = _counts(manifest, "source"), Counter(row["source"] for row in refused)
    licenses = {name or "unknown": count for name, count in _counts(manifest, "license").items()}
    num_bytes = sum(manifest["size"].to_pylist())
    return page(
        "Ingest",
        f"{manifest.num_rows:,} pictures in {len(classes)} classes, {num_bytes / 1e6:,.1f} MB; "
        f"{len(set(manifest['image_id'].to_pylist())):,} different files; {rejects.total():,} files refused.",
        table(
            ["source", "pictures:", "refused:"],
            [(name, f"{taken.get(name, 0):,}", f"{left[name]:,}") for name in sorted({*taken, *left}, key=_numbered)],
        ),
        _counted("class", classes, "data/ingest/manifest.parquet"),
        _counted("format", formats, ""),
        _counted("licence", licenses, "data/ingest/manifest.parquet") if licenses.keys() - {"unknown"} else "",
        "## Refused" if rejects else "",
        _counted("reason", dict(rejects.most_common()), "data/ingest/rejected.csv") if rejects else "",
    )


def _numbered(source: str) -> tuple[int, str]:
    """Sorts `10-folder` after `2-crawl`."""
    number, _, kind = source.partition("-")
    return (int(number), kind) if number.isdecimal() else (0, source)


def _dedupe(layout: Layout, _params: Params, _with_picture: bool) -> str:
    manifest = pq.read_table(layout.manifest, columns=["group", "verdict"])
    pairs = _csv(layout.duplicates)
    conflicts = [row for row in pairs if row["verdict"] == "conflict"]
    kinds = Counter((row["kind"], row["verdict"]) for row in pairs)
    return page(
        "Dedupe",
        f"{manifest.num_rows:,} pictures in {len(set(manifest['group'].to_pylist())):,} groups of copies.",
        _counted("verdict", _counts(manifest, "verdict"), ""),
        "## Pairs" if pairs else "No two pictures are copies of each other.",
        table(["kind", "verdict", "pairs:"], [(*kind, f"{n:,}") for kind, n in sorted(kinds.items())]) if pairs else "",
        "## The same picture under two labels" if conflicts else "",
        table(
            ["label", "path", "other label", "other path", "score:"],
            [
                (row["label_a"], row["path_a"], row["label_b"], row["path_b"], f"{float(row['score']):.3f}")
                for row in conflicts
            ],
            limit=MAX_ROWS,
            more="data/dedupe/duplicates.csv",
        )
        if conflicts
        else "",
    )


def _validate(layout: Layout, _params: Params, _with_picture: bool) -> str:
    found = json.loads(layout.expectations.read_text(encoding="utf-8"))
    broken = [rule for rule in found["rules"] if not rule["success"]]
    offenders = [
        (rule["rule"], who["label"], who["source_path"]) for rule in broken for who in rule.get("offenders", [])
    ]
    verdict = "The data may be used." if found["success"] else "**The run stops here.**"
    return page(
        "Validate",
        f"{verdict} {len(found['rules'])} rules, {found['num_errors']} errors, {found['num_warnings']} warnings.",
        table(
            ["", "rule", "severity", "limit:", "observed:", "offenders:"],
            [
                (
                    "✓" if rule["success"] else "✗",
                    rule["description"],
                    rule["severity"],
                    _short(rule["limit"]),
                    _short(rule["observed"]),
                    f"{rule['num_offenders']:,}",
                )
                for rule in sorted(found["rules"], key=lambda rule: bool(rule["success"]))
            ],
        ),
        "## Offenders" if offenders else "",
        table(["rule", "label", "path"], offenders, limit=MAX_ROWS, more="data/validate/offenders.csv")
        if offenders
        else "",
    )


def _split(layout: Layout, _params: Params, _with_picture: bool) -> str:
    splits = pq.read_table(layout.splits, columns=["label", "subset", "fold"])
    return page("Split", f"{splits.num_rows:,} pictures take part.", _by_subset(splits, "data/split/splits.parquet"))


def _augment(layout: Layout, params: Params, _with_picture: bool) -> str:
    index = pq.read_table(layout.pack_index, columns=["label", "subset"])
    preview = layout.stage("augment") / "preview.png"
    return page(
        "Augment",
        f"{index.num_rows:,} pictures packed at {params.augment.image_size} pixels.",
        picture(preview, "how training sees some pictures") if preview.exists() else "There is no preview.",
        _by_subset(index, "data/augment/index.parquet"),
    )


def _train(layout: Layout, params: Params, _with_picture: bool) -> str:
    rows: list[tuple[object, ...]] = []
    for member in params.train.members:
        for fold in params.train.folds:
            history = layout.member(member, fold) / "history.csv"
            steps = _csv(history) if history.exists() else []
            if not steps:
                rows.append((member, fold, "not trained", "", "", "", ""))
                continue
            # the file's first column is its x axis
            axis = next(iter(steps[0]))
            best = min(steps, key=lambda step: float(step["val_loss"]))
            figures = (
                f"{float(best[key]):.3f}" for key in ("train_accuracy", "val_accuracy", "train_loss", "val_loss")
            )
            rows.append((member, fold, f"{axis.replace('_', ' ')} {best[axis]} of {len(steps)}", *figures))
    return page(
        "Train",
        "Each model at its best step, by validation loss. The fit to the training pictures is shown beside it: "
        "a wide gap means that the model has learnt them by heart.",
        table(
            ["member", "fold:", "best step", "train accuracy:", "val accuracy:", "train loss:", "val loss:"],
            rows,
        ),
    )


def _evaluate(layout: Layout, _params: Params, with_picture: bool) -> str:
    folder = layout.stage("evaluate")
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    drawn = layout.stage("report") / "confusion_matrix.png"
    image = (
        picture(drawn, "confusion matrix: actual class by row, predicted class by column")
        if with_picture and drawn.exists()
        else "The confusion matrix is drawn by the stage `report`, which did not run to its end."
    )
    intervals = [
        (key.replace("_", " "), _figure(metrics[key]["value"]), f"{_figure(value['low'])} to {_figure(value['high'])}")
        for key in ("accuracy", "balanced_accuracy", "macro_f1", "log_loss", "expected_calibration_error")
        if (value := metrics.get(key)) is not None
    ]
    return page(
        "Evaluate",
        f"{metrics['num_images']:,} test pictures, {metrics['num_classes']} classes.",
        image,
        table(["metric", "value:", f"{metrics['confidence']:.0%} interval:"], intervals),
        "## Most confused",
        _most_confused(folder / "confusion.csv"),
        "## By class, weakest first",
        _per_class(metrics["per_class"]),
        "## By member" if len(metrics.get("members", {})) > 1 else "",
        table(
            ["member", "accuracy:"],
            [(name, _figure(member["accuracy"]["value"])) for name, member in metrics["members"].items()],
        )
        if len(metrics.get("members", {})) > 1
        else "",
    )


def _report(layout: Layout, _params: Params, _with_picture: bool) -> str:
    folder = layout.stage("report")
    text = (folder / "summary.md").read_text(encoding="utf-8")
    where = f"The whole report is one file: `{(folder / 'index.html').resolve()}`"
    return page("Report", where, text_only(text))


PAGES: dict[str, Page] = {
    "ingest": _ingest,
    "dedupe": _dedupe,
    "validate": _validate,
    "split": _split,
    "augment": _augment,
    "train": _train,
    "evaluate": _evaluate,
    "report": _report,
}


def confused_pairs(header: Sequence[str], counts: Sequence[Sequence[int]]) -> list[tuple[str, str, int, int]]:
    """Off-diagonal entries of a confusion matrix: actual, predicted, how many, out of how many; most first.

    Args:
        header: the K class labels.
        counts: (K, K), actual class by row, predicted class by column.
    """
    found = [
        (header[row], header[column], count, sum(counts[row]))
        for row in range(len(header))
        for column, count in enumerate(counts[row])
        if row != column and count
    ]
    return sorted(found, key=lambda pair: (-pair[2], pair[3], pair[0], pair[1]))


def text_only(markdown: str) -> str:
    """Markdown without pictures, whose files the UI cannot reach, and with its headings one level lower."""
    without = re.sub(r"!\[[^\]]*\]\((?!data:)[^)]*\)\n?", "", markdown)
    return re.sub(r"^(#{1,5}) ", r"#\1 ", without, flags=re.M)


def _most_confused(path: Path) -> str:
    with path.open(encoding="utf-8", newline="") as file:
        header, *lines = list(csv.reader(file))
    pairs = confused_pairs(header[1:], [[int(value) for value in line[1:]] for line in lines])
    if not pairs:
        return "No test picture was taken for another class."
    rows = [(actual, predicted, f"{n} of {total}", f"{n / total:.0%}") for actual, predicted, n, total in pairs]
    return table(
        ["actual", "taken for", "pictures:", "of the class:"], rows, limit=10, more="data/evaluate/confusion.csv"
    )


def _per_class(per_class: dict[str, dict[str, Any]]) -> str:
    # a class without test pictures has no recall
    weakest = sorted(per_class.items(), key=lambda item: (item[1]["recall"] is None, item[1]["recall"] or 0.0, item[0]))
    rows = [
        (
            label,
            f"{row['num_images']:,}",
            _figure(row["recall"]),
            f"{_figure(row['recall_low'])} to {_figure(row['recall_high'])}",
            _figure(row["precision"]),
            _figure(row["f1"]),
        )
        for label, row in weakest
    ]
    header = ["class", "pictures:", "recall:", "interval:", "precision:", "F1:"]
    return table(header, rows, limit=MAX_ROWS, more="data/evaluate/metrics.json")


def _by_subset(rows: pa.Table, more: str) -> str:
    """Pictures per class and subset, the largest class first."""
    counts = Counter(zip(rows["label"].to_pylist(), rows["subset"].to_pylist(), strict=True))
    labels = _counts(rows, "label")
    subsets = [name for name in ("train", "val", "test") if any(subset == name for _, subset in counts)]
    lines = [(label, *(f"{counts[label, name]:,}" for name in subsets), f"{n:,}") for label, n in labels.items()]
    total = ("all", *(f"{sum(counts[label, name] for label in labels):,}" for name in subsets), f"{rows.num_rows:,}")
    header = ["class", *(f"{name}:" for name in subsets), "all:"]
    return table(header, [total, *lines], limit=MAX_ROWS + 1, more=more)


def _counts(rows: pa.Table, column: str) -> dict[str, int]:
    """How often each value of `column` stands in `rows`, most frequent first, then by name."""
    found = Counter(rows[column].to_pylist())
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def _counted(what: str, counts: dict[str, int], more: str) -> str:
    return table([what, "pictures:"], [(name, f"{n:,}") for name, n in counts.items()], limit=MAX_ROWS, more=more)


def _csv(path: Path) -> list[dict[str, str]]:
    # a file name that is not UTF-8 was written byte for byte
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return [{key: value or "" for key, value in row.items()} for row in csv.DictReader(file)]


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "–" if value is None else str(value)

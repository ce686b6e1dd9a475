"""The Markdown page that each stage leaves in Prefect's UI; it says which file is missing instead of failing."""

import contextlib
import csv
import json
import math
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq

from flows import pictures
from flows.bridge import DvcStage
from flows.markdown import cell, page, picture, table
from flows.settings import REPORTS_AT, REPORTS_IN
from pipelines.core.errors import InputError, count
from pipelines.core.files import write_bytes
from pipelines.core.layout import Layout
from pipelines.params import Params
from pipelines.report.data_card import VERDICTS
from pipelines.report.split_card import split_card
from pipelines.report.wording import calibration, change_sentence, decisions_taken, ensemble_sentence, member_rows

PROGRESS = re.compile(r"\S.*?: ([\d,]+) of ([\d,]+) \S.* left")
PROGRESS_SECONDS = 5.0
KEEP_REPORTS = 50
MAX_ROWS = 50
"""rows of a table; the files hold them all"""
PUBLISH_ATTEMPTS = 60
"""one every two seconds: `flows.serve` starts a server that was lost again"""


def publish(name: str, markdown: str, description: str = "") -> None:
    """Store `markdown` as the newest version of the artifact `miwake-<name>`, with the current task or flow run.

    Args:
        description: its headline, as Markdown; the page's first line of text when empty.
    """
    from prefect.artifacts import create_markdown_artifact

    headline = description or next((line for line in markdown.splitlines() if line and not line.startswith("#")), name)
    _store(lambda: create_markdown_artifact(key=artifact_key(name), markdown=markdown, description=headline))


def artifact_key(name: str) -> str:
    """`miwake-train-linear-probe-0`: Prefect allows lower-case letters, digits and dashes."""
    return "miwake-" + re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def publish_stage(stage: DvcStage, layout: Layout, params: Params) -> None:
    """Leave the page of a stage that ran or was restored; the report's copy for this very run and a link to it."""
    if stage.group == "params":  # its file is in git
        return
    publish(stage.name, stage_page(stage.group, layout, params, item=stage.name.partition("@")[2]))
    report = layout.stage("report") / "index.html"
    if stage.group == "report" and report.exists():
        _publish_report(report)


def _publish_report(report: Path) -> None:
    """Keep this run's own copy, which `flows.serve` serves while it runs, and link to it."""
    from prefect.artifacts import create_link_artifact
    from prefect.runtime import flow_run

    address, folder = os.environ.get(REPORTS_AT), os.environ.get(REPORTS_IN)
    if not address or not folder:
        return
    run = str(flow_run.id)
    write_bytes(Path(folder) / f"{run}.html", report.read_bytes())
    kept = sorted(Path(folder).glob("*.html"), key=lambda path: path.stat().st_mtime)
    for old in kept[:-KEEP_REPORTS]:
        old.unlink(missing_ok=True)
    _store(
        lambda: create_link_artifact(
            link=f"{address}/{run}.html",
            link_text="Open the full report",
            key="miwake-full-report",
            description="The whole report of this very run, with every picture.",
        )
    )


def _store(create: Callable[[], object]) -> None:
    """Call `create`, again while the server is lost."""
    from httpx import TransportError

    for attempt in range(1, PUBLISH_ATTEMPTS + 1):
        try:
            create()
            return
        except TransportError:
            if attempt == PUBLISH_ATTEMPTS:
                raise
            time.sleep(2)


class ProgressBar:
    """The progress artifact of a stage that says how far it is; at most one update every five seconds."""

    def __init__(self, stage: str) -> None:
        self._stage, self._said = stage, -math.inf
        self._artifact: UUID | None = None

    def see(self, line: str) -> None:
        """Take in a line of the stage: `train: a: 640 of 2,000 pictures, 90 a second, 15 s left, loss 0.123`."""
        found = PROGRESS.match(line)
        if found and time.monotonic() - self._said >= PROGRESS_SECONDS:
            done, total = (int(text.replace(",", "")) for text in found.groups())
            self._said = time.monotonic()
            self._show(100.0 * done / max(1, total), line)

    def done(self) -> None:
        """Say that the stage is done, where there is a bar."""
        if self._artifact is not None:
            self._show(100.0, f"{self._stage}: done")

    def _show(self, percentage: float, text: str) -> None:
        from httpx import HTTPError
        from prefect.artifacts import create_progress_artifact, update_progress_artifact

        # a bar that cannot be drawn now is drawn with the next line
        with contextlib.suppress(HTTPError):
            if self._artifact is None:
                key = artifact_key(f"progress-{self._stage}")
                self._artifact = create_progress_artifact(percentage, key=key, description=text)  # type: ignore[assignment]
            else:
                update_progress_artifact(self._artifact, percentage, description=text)


def stage_page(stage: str, layout: Layout, params: Params, *, item: str = "") -> str:
    """The page of one stage.

    Args:
        stage: as dvc.yaml names it.
        layout: where its files are.
        params: say which members and folds to expect.
        item: of its matrix; "linear_probe-0".
    """
    make = PAGES.get(stage)
    if make is None:
        return page(stage.capitalize(), f"`{stage}` has no page of its own; its files are in `data/{stage}/`.")
    try:
        return make(layout, params, item)
    except FileNotFoundError as error:
        return page(stage.capitalize(), f"`{error.filename}` does not exist: the stage did not write it.")
    except (pa.ArrowInvalid, KeyError, ValueError, InputError) as error:
        return page(stage.capitalize(), f"The files of this stage cannot be read: {type(error).__name__}: {error}")


def pipeline_page(outcomes: Sequence[tuple[str, str, str]]) -> str:
    """The outcome of every stage.

    Args:
        outcomes: stage, outcome (ran, cached, …) and detail, of which the last line that is not DVC's own is shown.
    """
    rows = []
    for stage, outcome, detail in outcomes:
        lines = [line for line in detail.splitlines() if line and not line.startswith("ERROR: failed to reproduce")]
        rows.append((stage, outcome, lines[-1] if lines else detail))
    return page("Pipeline", table(["stage", "outcome", "detail"], rows))


# data -----------------------------------------------------------------------------------------------------------------


def _ingest(layout: Layout, _params: Params, _item: str) -> str:
    manifest = pq.read_table(
        layout.ingest_manifest, columns=["image_id", "label", "size", "format", "source", "license"]
    )
    classes, formats = _counts(manifest, "label"), _counts(manifest, "format")
    refused = read_csv(layout.rejects)
    reasons = dict(Counter(row["reason"] for row in refused).most_common())
    accepted, rejected = _counts(manifest, "source"), Counter(row["source"] for row in refused)
    licenses = {name or "unknown": number for name, number in _counts(manifest, "license").items()}
    num_bytes = sum(manifest["size"].to_pylist())
    return page(
        "Ingest",
        f"{count(manifest.num_rows, 'file')} of {count(len(classes), 'class', 'classes')}, {num_bytes / 1e6:,.1f} MB; "
        f"{count(len(set(manifest['image_id'].to_pylist())), 'picture')}, by content; "
        f"{count(len(refused), 'file')} rejected.",
        table(
            ["source", "files:", "rejected:"],
            [
                (name, f"{accepted.get(name, 0):,}", f"{rejected[name]:,}")
                for name in sorted({*accepted, *rejected}, key=_source_number)
            ],
        ),
        _counted("class", classes, "data/ingest/manifest.parquet"),
        _counted("format", formats),
        _counted("licence", licenses, "data/ingest/manifest.parquet") if licenses.keys() - {"unknown"} else "",
        "## Rejected" if reasons else "",
        _counted("reason", reasons, "data/ingest/rejected.csv") if reasons else "",
    )


def _source_number(source: str) -> tuple[int, str]:
    """Sorts `10-folder` after `2-crawl`."""
    number, _, kind = source.partition("-")
    return (int(number), kind) if number.isdecimal() else (0, source)


def _dedupe(layout: Layout, params: Params, _item: str) -> str:
    manifest = pq.read_table(layout.manifest, columns=["verdict"])
    pairs = read_csv(layout.duplicates)
    kinds = Counter((row["kind"], row["verdict"]) for row in pairs)
    conflicts = [
        (row["label_a"], row["path_a"], row["label_b"], row["path_b"], f"{float(row['score']):.3f}")
        for row in pairs
        if row["verdict"] == "conflict"
    ]
    header = ["label", "path", "other label", "other path", "score:"]
    return page(
        "Dedupe",
        f"{count(manifest.num_rows, 'file')}: "
        + ", ".join(count(number, *VERDICTS[name]) for name, number in _counts(manifest, "verdict").items())
        + ".",
        "## Pairs" if pairs else "No two pictures look alike.",
        table(["kind", "verdict", "pairs:"], [(*kind, f"{n:,}") for kind, n in sorted(kinds.items())]) if pairs else "",
        "## Pairs under two labels" if conflicts else "",
        table(header, conflicts, limit=MAX_ROWS, more="data/dedupe/duplicates.csv") if conflicts else "",
        *pictures.duplicates(layout, params, pairs),
    )


def _validate(layout: Layout, _params: Params, _item: str) -> str:
    found = json.loads(layout.expectations.read_text(encoding="utf-8"))
    rules = sorted(found["rules"], key=lambda rule: bool(rule["success"]))
    offenders = [
        (rule["rule"], who["label"], who["source_path"])
        for rule in rules
        if not rule["success"]
        for who in rule.get("offenders", [])
    ]
    rows = [
        (
            "no data" if rule["no_data"] else "✓" if rule["success"] else "✗",
            rule["fault"] or rule["description"],
            rule["severity"],
            _short(rule["limit"]),
            _short(rule["observed"]),
            f"{rule['num_offenders']:,}",
        )
        for rule in rules
    ]
    return page(
        "Validate",
        f"{'The data may be used.' if found['success'] else '**The run stops here.**'} {count(len(rules), 'rule')}, "
        f"{count(found['num_errors'], 'error')}, {count(found['num_warnings'], 'warning')}.",
        table(["", "rule", "severity", "limit:", "observed:", "offenders:"], rows),
        "## Offenders" if offenders else "",
        table(["rule", "label", "path"], offenders, limit=MAX_ROWS, more="data/validate/offenders.csv")
        if offenders
        else "",
    )


def _split(layout: Layout, _params: Params, _item: str) -> str:
    splits = pq.read_table(layout.splits, columns=["label", "subset"])
    taking_part = f"{count(splits.num_rows, 'picture takes', 'pictures take')} part."
    card = split_card(layout.stage("split"), {})
    audit = [cell(text) for text in (card.notice, card.leak, card.audit) if text]
    return page("Split", taking_part, *audit, _by_subset(splits, "data/split/splits.parquet"))


def _augment(layout: Layout, params: Params, _item: str) -> str:
    index = pq.read_table(layout.pack_index, columns=["label", "subset"])
    preview = layout.stage("augment") / "preview.png"
    return page(
        "Augment",
        f"{count(index.num_rows, 'picture')} packed at {params.augment.image_size} pixels.",
        picture(preview.read_bytes(), "how training sees some pictures")
        if preview.exists()
        else "There is no preview.",
        _by_subset(index, "data/augment/index.parquet"),
    )


# models ---------------------------------------------------------------------------------------------------------------


def _train(layout: Layout, params: Params, item: str) -> str:
    return _best_steps("Train", params.train.members, layout, params, item)


def _students(layout: Layout, params: Params, item: str) -> str:
    return _best_steps("Students", params.train.students, layout, params, item)


def _best_steps(title: str, members: Sequence[str], layout: Layout, params: Params, item: str) -> str:
    """Every model of `members` at its best step, by validation loss, and the curves of `item`."""
    if not members:
        return page(title, f"`train.{title.lower()}` of params.yaml names none.")
    rows: list[tuple[object, ...]] = []
    for member in members:
        for fold in params.train.folds:
            history = layout.member(params.train, member, fold) / "history.csv"
            steps = read_csv(history) if history.exists() else []
            if not steps:
                rows.append((member, fold, "not trained", "", "", "", ""))
                continue
            axis = next(iter(steps[0]))  # the first column is the x axis: epoch, C, …
            best = min(steps, key=lambda step: float(step["val_loss"]))
            shown = (f"{float(best[key]):.3f}" for key in ("train_accuracy", "val_accuracy", "train_loss", "val_loss"))
            rows.append((member, fold, f"{axis.replace('_', ' ')} {best[axis]} of {len(steps)}", *shown))
    return page(
        title,
        "Each model at its best step, by validation loss. The fit to the training pictures is shown beside it: "
        "a wide gap means that the model has learnt them by heart.",
        pictures.curves(layout.root / "data" / title.lower() / item / "history.csv", item) if item else "",
        table(["member", "fold:", "best step", "train accuracy:", "val accuracy:", "train loss:", "val loss:"], rows),
    )


def _evaluate(layout: Layout, params: Params, _item: str) -> str:
    """Verdict, matrix, metrics, the most confused classes with pictures, the weakest ones and the members."""
    folder = layout.stage("evaluate")
    metrics = json.loads((folder / "figures.json").read_text(encoding="utf-8"))
    verdict, change = metrics.get("verdict"), change_sentence(metrics.get("change"))
    intervals = [
        (key.replace("_", " "), *_estimate(metrics[key]))
        for key in ("accuracy", "balanced_accuracy", "macro_f1", "log_loss")
        if metrics.get(key) is not None
    ]
    return page(
        "Evaluate",
        f"**{cell(verdict['sentence'])}**" if verdict else "",
        f"{count(metrics['num_images'], 'test picture')} of {count(metrics['num_classes'], 'class', 'classes')}.",
        cell(change),
        *map(cell, decisions_taken(metrics)),
        pictures.matrix(folder / "confusion.csv"),
        table(["metric", "value:", f"{metrics['confidence']:.0%} interval:"], intervals),
        cell(calibration(metrics)),
        "## Most confused",
        _most_confused(folder / "confusion.csv"),
        *pictures.look_alikes(layout, params),
        "## By class, weakest first",
        _per_class(metrics["per_class"]),
        *(("## Members", cell(ensemble_sentence(metrics)), _members(metrics)) if "ensemble" in metrics else ()),
    )


def _members(metrics: dict[str, Any]) -> str:
    rows = [
        (
            row.name,
            row.tells,
            *_estimate(row.accuracy),
            _number(row.log_loss["value"]),
            _number(row.out_of_fold["accuracy"]),
            _number(row.weight),
        )
        for row in member_rows(metrics)
    ]
    return table(["member", "tells", "accuracy:", "interval:", "log loss:", "out of fold:", "weight:"], rows)


def confused_pairs(header: Sequence[str], counts: Sequence[Sequence[int]]) -> list[tuple[str, str, int, int]]:
    """Off-diagonal entries of a confusion matrix: actual, predicted, how many, out of how many; most first.

    Args:
        header: the K class labels.
        counts: (K, K), actual class by row, predicted class by column.
    """
    found = [
        (header[row], header[column], number, sum(counts[row]))
        for row in range(len(header))
        for column, number in enumerate(counts[row])
        if row != column and number
    ]
    return sorted(found, key=lambda pair: (-pair[2], pair[3], pair[0], pair[1]))


def _most_confused(path: Path) -> str:
    with path.open(encoding="utf-8", newline="") as file:
        header, *lines = list(csv.reader(file))
    pairs = confused_pairs(header[1:], [[int(value) for value in line[1:]] for line in lines])
    if not pairs:
        return "No test picture was taken for another class."
    rows = [(actual, predicted, f"{n} of {total}", f"{n / total:.0%}") for actual, predicted, n, total in pairs]
    header = ["actual", "predicted", "pictures:", "of the class:"]
    return table(header, rows, limit=10, more="data/evaluate/confusion.csv")


def _per_class(per_class: dict[str, dict[str, Any]]) -> str:
    # a class without test pictures has no recall
    weakest = sorted(per_class.items(), key=lambda item: (item[1]["recall"] is None, item[1]["recall"] or 0.0, item[0]))
    rows = [
        (
            label,
            f"{row['num_images']:,}",
            *_estimate({"value": row["recall"], "low": row["recall_low"], "high": row["recall_high"]}),
            _number(row["precision"]),
            _number(row["f1"]),
        )
        for label, row in weakest
    ]
    header = ["class", "pictures:", "recall:", "interval:", "precision:", "F1:"]
    return table(header, rows, limit=MAX_ROWS, more="data/evaluate/figures.json")


def _report(layout: Layout, _params: Params, _item: str) -> str:
    folder = layout.stage("report")
    text = (folder / "summary.md").read_text(encoding="utf-8")
    # without pictures, whose files the UI cannot reach, and with its headings one level lower
    text = re.sub(r"!\[[^\]]*\]\((?!data:)[^)]*\)\n?", "", text)
    text = re.sub(r"^(#{1,5}) ", r"#\1 ", text, flags=re.M)
    return page("Report", text, f"The whole report is one file: `{(folder / 'index.html').resolve()}`")


PAGES: dict[str, Callable[[Layout, Params, str], str]] = {
    "ingest": _ingest,
    "dedupe": _dedupe,
    "validate": _validate,
    "split": _split,
    "augment": _augment,
    "train": _train,
    "students": _students,
    "evaluate": _evaluate,
    "report": _report,
}


# cells and counts -----------------------------------------------------------------------------------------------------


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV table."""
    # a file name that is not UTF-8 was written byte for byte
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return [{key: value or "" for key, value in row.items()} for row in csv.DictReader(file)]


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
    """How often each value of `column` occurs in `rows`, most frequent first, then by name."""
    found = Counter(rows[column].to_pylist())
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def _counted(what: str, counts: dict[str, int], more: str = "") -> str:
    return table([what, "files:"], [(name, f"{n:,}") for name, n in counts.items()], limit=MAX_ROWS, more=more)


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "–" if value is None else str(value)


def _number(value: float | None) -> str:
    """Three decimals; a dash without evidence."""
    return "–" if value is None else f"{value:.3f}"


def _estimate(metric: dict[str, Any]) -> tuple[str, str]:
    """A value and its interval."""
    return _number(metric["value"]), f"{_number(metric['low'])} to {_number(metric['high'])}"

"""What each stage left behind, as one page of Markdown for the Prefect UI; a missing file is said, never an error."""

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from flows.markdown import page, picture, table
from flows.results import MAX_ROWS, evaluate_page, read_csv, students_page, train_page
from pipelines.core.errors import count
from pipelines.core.layout import Layout
from pipelines.params import Params
from pipelines.report.data_card import VERDICTS

Page = Callable[[Layout, Params, bool], str]


def leave(name: str, markdown: str) -> None:
    """Leave `markdown` as the newest version of the artifact `miwake-<name>`, with the run that is under way."""
    from httpx import TransportError
    from prefect.artifacts import create_markdown_artifact

    for attempt in range(60):
        try:
            create_markdown_artifact(
                key=f"miwake-{name}", markdown=markdown, description=f"{name}: one page a run, the newest first"
            )
            return
        except TransportError:  # the server is lost: `flows.serve` starts it again
            if attempt == 59:
                raise
            time.sleep(2)


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
        outcomes: stage, outcome (ran, cached, …) and detail, of which the last line that is not DVC's own is shown.
    """
    rows = []
    for stage, outcome, detail in outcomes:
        lines = [line for line in detail.splitlines() if line and not line.startswith("ERROR: failed to reproduce")]
        rows.append((stage, outcome, lines[-1] if lines else detail))
    return page("Pipeline", table(["stage", "outcome", "detail"], rows))


def _ingest(layout: Layout, _params: Params, _with_picture: bool) -> str:
    manifest = pq.read_table(
        layout.ingest_manifest, columns=["image_id", "label", "size", "format", "source", "license"]
    )
    classes, formats = _counts(manifest, "label"), _counts(manifest, "format")
    refused = read_csv(layout.rejects)
    rejects = Counter(row["reason"] for row in refused)
    taken, left = _counts(manifest, "source"), Counter(row["source"] for row in refused)
    licenses = {name or "unknown": number for name, number in _counts(manifest, "license").items()}
    num_bytes = sum(manifest["size"].to_pylist())
    return page(
        "Ingest",
        f"{count(manifest.num_rows, 'file')} of {count(len(classes), 'class', 'classes')}, {num_bytes / 1e6:,.1f} MB; "
        f"{count(len(set(manifest['image_id'].to_pylist())), 'picture')}, by content; "
        f"{count(rejects.total(), 'file')} rejected.",
        table(
            ["source", "files:", "rejected:"],
            [(name, f"{taken.get(name, 0):,}", f"{left[name]:,}") for name in sorted({*taken, *left}, key=_numbered)],
        ),
        _counted("class", classes, "data/ingest/manifest.parquet"),
        _counted("format", formats),
        _counted("licence", licenses, "data/ingest/manifest.parquet") if licenses.keys() - {"unknown"} else "",
        "## Rejected" if rejects else "",
        _counted("reason", dict(rejects.most_common()), "data/ingest/rejected.csv") if rejects else "",
    )


def _numbered(source: str) -> tuple[int, str]:
    """Sorts `10-folder` after `2-crawl`."""
    number, _, kind = source.partition("-")
    return (int(number), kind) if number.isdecimal() else (0, source)


def _dedupe(layout: Layout, _params: Params, _with_picture: bool) -> str:
    manifest = pq.read_table(layout.manifest, columns=["verdict"])
    pairs = read_csv(layout.duplicates)
    conflicts = [row for row in pairs if row["verdict"] == "conflict"]
    kinds = Counter((row["kind"], row["verdict"]) for row in pairs)
    return page(
        "Dedupe",
        f"{count(manifest.num_rows, 'file')}: "
        + ", ".join(count(number, *VERDICTS[name]) for name, number in _counts(manifest, "verdict").items())
        + ".",
        "## Pairs" if pairs else "No two pictures look alike.",
        table(["kind", "verdict", "pairs:"], [(*kind, f"{n:,}") for kind, n in sorted(kinds.items())]) if pairs else "",
        "## Pairs under two labels" if conflicts else "",
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
        f"{verdict} {count(len(found['rules']), 'rule')}, {count(found['num_errors'], 'error')}, "
        f"{count(found['num_warnings'], 'warning')}.",
        table(
            ["", "rule", "severity", "limit:", "observed:", "offenders:"],
            [
                (
                    "no data" if rule["no_data"] else "✓" if rule["success"] else "✗",
                    rule["fault"] or rule["description"],
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
    return page(
        "Split",
        f"{count(splits.num_rows, 'picture takes', 'pictures take')} part.",
        _by_subset(splits, "data/split/splits.parquet"),
    )


def _augment(layout: Layout, params: Params, _with_picture: bool) -> str:
    index = pq.read_table(layout.pack_index, columns=["label", "subset"])
    preview = layout.stage("augment") / "preview.png"
    return page(
        "Augment",
        f"{count(index.num_rows, 'picture')} packed at {params.augment.image_size} pixels.",
        picture(preview, "how training sees some pictures") if preview.exists() else "There is no preview.",
        _by_subset(index, "data/augment/index.parquet"),
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
    "train": train_page,
    "students": students_page,
    "evaluate": evaluate_page,
    "report": _report,
}


def text_only(markdown: str) -> str:
    """Markdown without pictures, whose files the UI cannot reach, and with its headings one level lower."""
    without = re.sub(r"!\[[^\]]*\]\((?!data:)[^)]*\)\n?", "", markdown)
    return re.sub(r"^(#{1,5}) ", r"#\1 ", without, flags=re.M)


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


def _counted(what: str, counts: dict[str, int], more: str = "") -> str:
    return table([what, "files:"], [(name, f"{n:,}") for name, n in counts.items()], limit=MAX_ROWS, more=more)


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "–" if value is None else str(value)

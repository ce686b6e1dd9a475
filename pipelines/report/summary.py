"""summary.md: the report on one page of GitHub-flavoured Markdown, for pull requests and Prefect."""

import re
from typing import Any

from pipelines.core.errors import count
from pipelines.report.actions import Action
from pipelines.report.confusion import ConfusedPair
from pipelines.report.inputs import Inputs
from pipelines.report.split_card import SplitCard
from pipelines.report.wording import (
    calibration,
    decimal,
    decisions_taken,
    ensemble_sentence,
    idle_decisions,
    member_rows,
    percent,
    percent_range,
    verdict_sentences,
)

NUM_CLASSES, NUM_PAIRS = 10, 5


def summary_markdown(
    title: str,
    run: str,
    inputs: Inputs,
    pairs: list[ConfusedPair],
    actions: list[Action],
    legend: dict[str, str],
    division: SplitCard,
) -> str:
    """Write the file; `legend` says what numbers stand for in confusion_matrix.png."""
    metrics = inputs.metrics
    blocks = [
        f"# {escape(title)}",
        escape(run),
        " ".join(map(escape, verdict_sentences(inputs, pairs))),
        *([f"> **Copies on both sides.** {escape(division.notice)}"] if division.notice else []),
        *["> The pictures are drawn, not photographed: the sample that comes with miwake."] * inputs.is_drawn,
        _figures(metrics),
        escape(calibration(metrics)),
        *_decisions(inputs),
        escape(" ".join(filter(None, [division.leak, division.audit, division.premium]))),
        *_members(metrics),
        *_classes(metrics),
        *_pairs(inputs, pairs),
        *_actions(actions),
        *_legend(legend),
    ]
    return "\n\n".join(blocks) + "\n"


def escape(text: str) -> str:
    """Escape what Markdown, a table or HTML would interpret."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]|#~!$])", r"\\\1", re.sub(r"\s+", " ", text))


def table(header: list[str], rows: list[list[str]]) -> str:
    """A table of escaped texts, the first column left-aligned, the others right."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _figures(metrics: dict[str, Any]) -> str:
    confidence = f"{100 * metrics['confidence']:g} % interval"
    rows = [
        [name, percent(metrics[key]["value"]), percent_range(metrics[key]["low"], metrics[key]["high"])]
        for name, key in (
            ("Accuracy", "accuracy"),
            ("Balanced accuracy", "balanced_accuracy"),
            ("Macro F1", "macro_f1"),
        )
    ]
    loss = metrics["log_loss"]
    rows.append(["Log loss", decimal(loss["value"]), f"{decimal(loss['low'])} to {decimal(loss['high'])}"])
    return table(["Figure", "Value", confidence], rows)


def _decisions(inputs: Inputs) -> list[str]:
    sentences, idle = decisions_taken(inputs.metrics), idle_decisions(inputs.decisions)
    if idle:
        sentences.append(f"{count(len(idle), 'decision has', 'decisions have')} no effect: {'; '.join(idle)}.")
    return [escape(" ".join(sentences))] if sentences else []


def _members(metrics: dict[str, Any]) -> list[str]:
    if len(metrics["members"]) == 1:
        return []
    rows = [
        [
            *(escape(m.name), escape(m.tells), percent(m.accuracy["value"])),
            percent_range(m.accuracy["low"], m.accuracy["high"]),
            *(decimal(m.log_loss["value"]), percent(m.out_of_fold["accuracy"]), percent(m.weight)),
        ]
        for m in member_rows(metrics)
    ]
    header = ["Member", "Tells", "Accuracy", "Interval", "Log loss", "Out of fold", "Weight"]
    return ["## Members", *filter(None, [escape(ensemble_sentence(metrics))]), table(header, rows)]


def _classes(metrics: dict[str, Any]) -> list[str]:
    known = [(label, c) for label, c in metrics["per_class"].items() if c["recall"] is not None]
    hardest = sorted(known, key=lambda item: (item[1]["recall"], item[0]))[:NUM_CLASSES]
    if not hardest:
        return []
    rows = [
        [
            *(escape(label), f"{c['num_images']:,}", percent(c["recall"])),
            *(percent_range(c["recall_low"], c["recall_high"]), percent(c["precision"])),
        ]
        for label, c in hardest
    ]
    title = "## Classes" if len(known) <= NUM_CLASSES else f"## The {NUM_CLASSES} hardest of {len(known)} classes"
    return [title, table(["Class", "Test pictures", "Recall", "Interval", "Precision"], rows)]


def _pairs(inputs: Inputs, pairs: list[ConfusedPair]) -> list[str]:
    if not pairs:
        return []
    rows = [
        [*(escape(inputs.classes[k]) for k in (p.first, p.second)), f"{p.first_as_second:,}", f"{p.second_as_first:,}"]
        for p in pairs[:NUM_PAIRS]
    ]
    return ["## Most confused", table(["A", "B", "A taken for B", "B taken for A"], rows)]


def _actions(actions: list[Action]) -> list[str]:
    if not actions:
        return []
    lines = [
        f"{i}. **{escape(a.what)}.** {escape(a.why)}" + (f" *Where: {escape(a.where)}.*" if a.where else "")
        for i, a in enumerate(actions, 1)
    ]
    return ["## What to do first", "\n".join(lines)]


def _legend(legend: dict[str, str]) -> list[str]:
    if not legend:
        return []
    rows = [[name, escape(label)] for name, label in legend.items()]
    said = "Labels that no font here can draw stand as numbers in confusion_matrix.png:"
    return [said, table(["In the picture", "Label"], rows)]

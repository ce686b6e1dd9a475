"""Write the report: index.html, summary.md, confusion_matrix.png and credits.csv."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from pipelines.core.errors import count
from pipelines.core.files import empty_folder, write_bytes, write_csv, write_text
from pipelines.params.report import ReportParams
from pipelines.params.train import TrainParams
from pipelines.report.actions import Action, what_to_fix
from pipelines.report.confusion import (
    DIGITS_UP_TO,
    NUMBERS_UP_TO,
    ConfusedPair,
    confused_pairs,
    draw_heatmap,
    matrix_cells,
    order_classes,
)
from pipelines.report.credits import HEADER, find_credits
from pipelines.report.data_card import (
    KINDS,
    VERDICTS,
    class_counts,
    data_card,
    find_duplicates,
    num_in_conflict,
    planted_flaws,
    quality_flaws,
    reject_reasons,
    suspect_subsets,
)
from pipelines.report.galleries import (
    ThumbnailMaker,
    duplicate_gallery,
    pair_anchors,
    pair_galleries,
    suspect_gallery,
)
from pipelines.report.inputs import Inputs, read_inputs
from pipelines.report.page import curve_svg, render_page
from pipelines.report.split_card import split_card
from pipelines.report.summary import summary_markdown
from pipelines.report.wording import (
    ENSEMBLE_METHODS,
    calibration,
    clipped,
    decisions_taken,
    easiest,
    ensemble_sentence,
    headline,
    idle_decisions,
    member_rows,
    most_confused,
    worst_class,
)

PACKAGES = (
    *("torch", "torchvision", "scikit-learn", "numpy", "pyarrow", "pillow"),
    *("great-expectations", "dvc", "prefect"),
)
"""of which the page tells the versions"""
SAMPLE_TITLE, SAMPLE_CLASSES = "Thirteen electric guitars", 13
"""report.title of the params.yaml that miwake ships, and how many classes it speaks of"""
LONGEST = 40
"""characters of a class in a title"""


@dataclass(frozen=True)
class ReportArtifact:
    """What report wrote: index.html, confusion_matrix.png, summary.md; credits.csv where a source names any."""

    page: Path
    matrix: Path
    summary: Path

    def __str__(self) -> str:
        return f"{self.page.name} ({self.page.stat().st_size / 1e6:.1f} MB)"


def report(
    params: ReportParams,
    *,
    train: TrainParams,
    max_pixels: int,
    ingest_dir: Path,
    dedupe_dir: Path,
    validate_dir: Path,
    split_dir: Path,
    augment_dir: Path,
    folders: Mapping[tuple[str, int], Path],
    evaluate_dir: Path,
    out_dir: Path,
) -> ReportArtifact:
    """Write the report.

    Args:
        train: the section `train`: members, folds and recipes.
        max_pixels: larger originals are not opened, as in ingest.
        ingest_dir, dedupe_dir, validate_dir, split_dir, augment_dir, evaluate_dir: what these stages wrote.
        folders: (member, fold) to the folder that its training wrote.
        out_dir: emptied first.

    Raises:
        InputError: something that a stage writes is missing, or does not fit the rest.
    """
    inputs = read_inputs(
        folders,
        ingest_dir=ingest_dir,
        dedupe_dir=dedupe_dir,
        validate_dir=validate_dir,
        augment_dir=augment_dir,
        evaluate_dir=evaluate_dir,
    )
    pictures = ThumbnailMaker(
        inputs.manifest, inputs.index, ingest_dir, augment_dir, size=params.picture_size, max_pixels=max_pixels
    )
    order = order_classes(inputs.counts)
    pairs = confused_pairs(inputs.counts)
    division = split_card(split_dir, inputs.metrics)
    actions = what_to_fix(inputs, pairs, train, division)
    title = _title(params, inputs)
    credits = find_credits(inputs)
    png, legend = draw_heatmap(inputs.counts, inputs.classes, order)
    page = render_page(
        {
            **_results(title, inputs, pairs, actions),
            **_matrix(params, inputs, pairs, order),
            **_data(params, inputs, pictures),
            "legend": legend,
            "credits": credits,
            "pairs": pair_galleries(inputs, pairs[: params.confused_pairs], params, pictures),
            "num_pairs": len(pairs),
            "split": division,
            "suspects": suspect_gallery(inputs.suspects, params.gallery, pictures),
            "num_suspects": len(inputs.suspects),
            "curves": _curves(inputs),
            "train": train,
            "recipes": {m: train.recipes[m].model_dump(mode="json") for m in train.all_members},
            "versions": _versions(),
        }
    )
    empty_folder(out_dir)
    write_bytes(out_dir / "confusion_matrix.png", png)
    write_text(out_dir / "summary.md", summary_markdown(title, inputs, pairs, actions, legend, division))
    if credits is not None:
        columns = (credits.table[name].to_pylist() for name in HEADER)
        write_csv(out_dir / "credits.csv", HEADER, zip(*columns, strict=True))
    write_text(out_dir / "index.html", page)
    return ReportArtifact(out_dir / "index.html", out_dir / "confusion_matrix.png", out_dir / "summary.md")


def _title(params: ReportParams, inputs: Inputs) -> str:
    """report.title, or "10 classes: dress, hat, longsleeve and 7 more", also where the sample's was left behind."""
    left_behind = params.title == SAMPLE_TITLE and not inputs.is_drawn and len(inputs.classes) != SAMPLE_CLASSES
    if params.title is not None and not left_behind:
        return params.title
    names = [name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…" for name in inputs.classes]
    return f"{count(len(names), 'class', 'classes')}: {clipped(names, 3)}"


def _results(title: str, inputs: Inputs, pairs: list[ConfusedPair], actions: list[Action]) -> dict[str, Any]:
    """What the first screen, the table of members and that of classes say."""
    counts = inputs.counts
    taken_for = {}
    for k, label in enumerate(inputs.classes):
        mistakes = [(int(n), inputs.classes[j]) for j, n in enumerate(counts[k]) if j != k and n]
        taken_for[label] = sorted(mistakes, key=lambda m: (-m[0], m[1]))[:2]
    return {
        "title": title,
        "metrics": inputs.metrics,
        "is_drawn": inputs.is_drawn,
        "headline": headline(inputs.metrics, int(counts.trace())),
        "more": [
            *filter(None, (easiest(inputs.metrics), most_confused(inputs, pairs))),
            *decisions_taken(inputs.metrics),
        ],
        "worst": worst_class(inputs.metrics),
        "calibration": calibration(inputs.metrics),
        "idle_decisions": idle_decisions(inputs.decisions),
        "suspects_of": suspect_subsets(inputs),
        "expected_precision": inputs.metrics.get("suspects", {}).get("expected_precision"),
        "actions": actions,
        "members": member_rows(inputs.metrics),
        "together": ensemble_sentence(inputs.metrics),
        "method": ENSEMBLE_METHODS[inputs.metrics["ensemble"]["method"]],
        "taken_for": taken_for,
    }


def _matrix(params: ReportParams, inputs: Inputs, pairs: list[ConfusedPair], order: list[int]) -> dict[str, Any]:
    targets = pair_anchors(pairs[: params.confused_pairs]) if params.pictures_per_pair else {}
    shown = {key: anchor for key, anchor in targets.items() if inputs.counts[key]}
    share = inputs.counts / inputs.counts.sum(axis=1, keepdims=True).clip(1)
    off_diagonal = [float(share[a, b]) for a in order for b in order if a != b]
    return {
        "names": [inputs.classes[k] for k in order],
        "totals": [int(inputs.counts[k].sum()) for k in order],
        "cells": matrix_cells(inputs.counts, order, shown),
        "is_large": len(order) <= NUMBERS_UP_TO,
        "has_numbers": len(order) <= NUMBERS_UP_TO or int(inputs.counts.max()) <= DIGITS_UP_TO,
        "largest_mistake": max(off_diagonal, default=0.0),
    }


def _data(params: ReportParams, inputs: Inputs, pictures: ThumbnailMaker) -> dict[str, Any]:
    columns = (inputs.manifest[name].to_pylist() for name in ("image_id", "group", "verdict"))
    group_of = {image_id: group for image_id, group, verdict in zip(*columns, strict=True) if verdict == "keep"}
    pairs = find_duplicates(inputs.duplicates, group_of)
    return {
        "card": data_card(inputs),
        "flaws": quality_flaws(inputs),
        "class_counts": class_counts(inputs),
        "rules": inputs.expectations["rules"],
        "refused": reject_reasons(inputs),
        "num_rejects": len(inputs.rejects),
        "verdicts": VERDICTS,
        "duplicates": pairs,
        "num_conflicts": num_in_conflict(inputs),
        "meanings": KINDS,
        "references": [str(reference) for reference in pairs.references],
        "conflicts": duplicate_gallery(pairs.conflicts, params.gallery, pictures),
        "copies": duplicate_gallery(pairs.copies, params.gallery, pictures),
        "kept": duplicate_gallery(pairs.kept, params.gallery, pictures),
        "planted": planted_flaws(inputs),
    }


def _curves(inputs: Inputs) -> list[tuple[str, Markup, Markup]]:
    """Per member its name, and panels for loss and accuracy with a line a fold."""
    found = []
    for member in dict.fromkeys(member for member, _ in inputs.histories):
        runs = [history for (name, _), history in inputs.histories.items() if name == member and history]
        if not runs:
            continue
        x_name = next(iter(runs[0]))
        xs = max((run[x_name] for run in runs), key=len)
        panels = [
            curve_svg(
                xs,
                {side: [run[f"{side}_{what}"] for run in runs] for side in ("train", "val")},
                x_name=x_name,
                title=f"{what} of {member} against {x_name}, training and validation",
            )
            for what in ("loss", "accuracy")
        ]
        found.append((member, panels[0], panels[1]))
    return found


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found

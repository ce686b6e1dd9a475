"""Write the report: index.html, summary.md, confusion_matrix.png and .svg, and credits.csv."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.core.errors import count
from pipelines.core.files import empty_folder, write_bytes, write_csv, write_text
from pipelines.params.report import ReportParams
from pipelines.params.train import TrainParams
from pipelines.report.advice import what_to_do
from pipelines.report.confusion import (
    DIGITS_UP_TO,
    NUMBERS_UP_TO,
    ConfusedPair,
    confused_pairs,
    draw_heatmap,
    matrix_cells,
    order_classes,
)
from pipelines.report.credits import HEADER, Credits, find_credits
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
from pipelines.report.evidence import (
    MAP_PICTURE_SIZE,
    coverage_chart,
    embedding_chart,
    learning_chart,
    pictures_on_map,
    reliability_chart,
    robustness_charts,
    training_charts,
)
from pipelines.report.galleries import ThumbnailMaker, duplicate_gallery, suspect_gallery
from pipelines.report.inputs import Inputs, read_inputs
from pipelines.report.language import Say, sayer
from pipelines.report.mistakes import MistakeGallery, anchor_of
from pipelines.report.page import render_page
from pipelines.report.split_card import split_card
from pipelines.report.summary import summary_markdown
from pipelines.report.wording import (
    ENSEMBLE_METHODS,
    calibration,
    change_sentence,
    clipped,
    decisions_taken,
    ensemble_sentence,
    idle_decisions,
    member_rows,
    run_line,
    verdict_sentences,
    worst_class,
)

PACKAGES = (
    *("torch", "torchvision", "scikit-learn", "numpy", "pyarrow", "pillow"),
    *("great-expectations", "dvc", "prefect"),
)
"""of which the page tells the versions"""
SAMPLE_TITLE, SAMPLE_CLASSES = "Thirteen electric guitars", 13
"""report.title of the params.yaml that miwake ships, and how many classes it speaks of"""
FOLDED = ("rules", "conflicts", "duplicates", "rejects", "split", "made")
"""anchors of parts of the last section"""
LONGEST = 40
"""characters of a class in a title"""


@dataclass(frozen=True)
class ReportArtifact:
    """What report wrote: index.html, confusion_matrix.png and .svg, summary.md; credits.csv where sources name any."""

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
    snapshot: str,
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
        snapshot: the name of ingest's snapshot, which the page tells.
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
    say = sayer(params.language)
    order = order_classes(inputs.counts)
    pairs = confused_pairs(inputs.counts)
    division = split_card(split_dir, inputs.metrics)
    actions = what_to_do(inputs, pairs, train, division)
    title = _title(params, inputs)
    run = run_line(inputs, snapshot=snapshot, members=train.all_members)
    credits = find_credits(inputs)
    drawn = draw_heatmap(inputs.counts, inputs.classes, order, (say("What it is"), say("What the model said")))
    context = {
        **_results(title, inputs, pairs),
        **_matrix(inputs, order),
        **_mistakes(params, inputs, pairs, pictures),
        **_evidence(inputs, say),
        **_data(params, inputs, pictures, credits),
        "_": say,
        "language": params.language,
        "run": run,
        "actions": actions,
        "legend": drawn.legend,
        "split": division,
        "train": train,
        "recipes": {m: train.recipes[m].model_dump(mode="json") for m in train.all_members},
        "versions": _versions(),
    }
    sections = _sections(context, say)
    targets = {*(name for name, _ in sections), "figures", *FOLDED}
    page = render_page(context | {"sections": sections, "targets": targets})
    empty_folder(out_dir)
    write_bytes(out_dir / "confusion_matrix.png", drawn.png)
    write_bytes(out_dir / "confusion_matrix.svg", drawn.svg)
    write_text(out_dir / "summary.md", summary_markdown(title, run, inputs, pairs, actions, drawn.legend, division))
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


def _sections(context: dict[str, Any], say: Say) -> list[tuple[str, str]]:
    """(anchor and template, title) of the sections for which there is evidence, in their order."""
    figures: dict[str, Any] = context["metrics"]
    shown = [
        ("pairs", "Look-alikes", True),
        ("fix", "What to do first", True),
        ("mistakes", "Mistakes", context["groups"]),
        ("changed", "What changed", figures["change"]),
        ("classes", "Classes", True),
        ("factors", "Factors", figures["factors"]),
        ("training", "Training", True),
        ("calibration", "Calibration and abstention", True),
        ("more", "More pictures or a better model", context["learning"]),
        ("robustness", "Robustness", context["disturbed"]),
        ("strangers", "Strangers", figures["strangers"]),
        ("slices", "Slices", figures["slices"]),
        ("map", "Map of the pictures", context["embedding"]),
        ("suspects", "Suspects", True),
        ("data", "The data", True),
        ("order", "What is in order", True),
    ]
    return [(name, say(title)) for name, title, is_known in shown if is_known]


def _results(title: str, inputs: Inputs, pairs: list[ConfusedPair]) -> dict[str, Any]:
    """What the first screen, the table of members and that of classes say."""
    counts, figures = inputs.counts, inputs.metrics
    taken_for = {}
    for k, label in enumerate(inputs.classes):
        mistakes = [(int(n), inputs.classes[j], anchor_of(k, j)) for j, n in enumerate(counts[k]) if j != k and n]
        taken_for[label] = sorted(mistakes, key=lambda m: (-m[0], m[1]))[:2]
    return {
        "title": title,
        "metrics": figures,
        "is_drawn": inputs.is_drawn,
        "verdict": figures["verdict"],
        "change_sentence": change_sentence(figures["change"]),
        "sentences": verdict_sentences(inputs, pairs),
        "factor_matrices": _factors(figures["factors"] or {}),
        "fold_rows": [
            (name, fold, row)
            for name, member in figures["members"].items()
            for fold, row in member.get("folds", {}).items()
            if len(member["folds"]) > 1
        ],
        "decided": decisions_taken(figures),
        "worst": worst_class(figures),
        "calibration_sentence": calibration(figures),
        "idle_decisions": idle_decisions(inputs.decisions),
        "suspects_of": suspect_subsets(inputs),
        "expected_precision": (figures.get("suspects") or {}).get("expected_precision"),
        "suspects_per_class": (figures.get("suspects") or {}).get("per_class"),
        "members": member_rows(figures),
        "together": ensemble_sentence(figures),
        "method": ENSEMBLE_METHODS[figures["ensemble"]["method"]],
        "taken_for": taken_for,
        # the worst first; those without test pictures last
        "ranked": sorted(
            figures["per_class"].items(),
            key=lambda item: (item[1]["recall"] is None, item[1]["recall"] or 0.0, -item[1]["num_images"], item[0]),
        ),
        "learnt": {c.label: c.subsets["train"] for c in class_counts(inputs)},
        "class_anchors": {label: f"class-{k}" for k, label in enumerate(inputs.classes)},
    }


def _factors(factors: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Per factor its name and accuracy, and the matrix as the template draws it."""
    found = []
    for name, one in factors.items():
        counts = np.asarray(one["counts"], np.int64)
        order = order_classes(counts)
        names, totals = [one["classes"][k] for k in order], [int(counts[k].sum()) for k in order]
        found.append((name, one["accuracy"], names, totals, matrix_cells(counts, order, {})))
    return found


def _matrix(inputs: Inputs, order: list[int]) -> dict[str, Any]:
    targets = {(a, b): anchor_of(a, b) if a != b else f"class-{a}" for a in order for b in order if inputs.counts[a, b]}
    share = inputs.counts / inputs.counts.sum(axis=1, keepdims=True).clip(1)
    off_diagonal = [float(share[a, b]) for a in order for b in order if a != b]
    return {
        "names": [inputs.classes[k] for k in order],
        "totals": [int(inputs.counts[k].sum()) for k in order],
        "cells": matrix_cells(inputs.counts, order, targets),
        "is_large": len(order) <= NUMBERS_UP_TO,
        "has_numbers": len(order) <= NUMBERS_UP_TO or int(inputs.counts.max()) <= DIGITS_UP_TO,
        "largest_mistake": max(off_diagonal, default=0.0),
    }


def _mistakes(
    params: ReportParams, inputs: Inputs, pairs: list[ConfusedPair], pictures: ThumbnailMaker
) -> dict[str, Any]:
    gallery = MistakeGallery(inputs, pairs, params)
    groups, num_unlisted = gallery.groups(pictures)
    anchors = {one.image_id: f"m-{one.image_id[:12]}" for group in groups for one in (*group.shown, *group.listed)}
    # by the first digits of the id
    whole = {image_id[:16]: image_id for image_id in inputs.image_ids}
    changed = (inputs.metrics.get("change") or {}).get("changed") or []
    shown = [(one, whole.get(one["image_id"][:16], "")) for one in changed[: params.gallery]]
    thumbnails = pictures.packed(image_id for _, image_id in shown)
    return {
        "look_alikes": gallery.pairs(pictures),
        "num_pairs": len(pairs),
        "groups": groups,
        "num_unlisted": num_unlisted,
        "anchors": anchors,
        "embedding": embedding_chart(inputs, anchors, pictures.packed(pictures_on_map(inputs), size=MAP_PICTURE_SIZE)),
        "sides": [(one, thumbnails.get(image_id)) for one, image_id in shown],
        "num_sides": len(changed),
    }


def _evidence(inputs: Inputs, say: Say) -> dict[str, Any]:
    return {
        "curves": training_charts(inputs, say),
        "reliability": reliability_chart(inputs, say),
        "coverage": coverage_chart(inputs, say),
        "learning": learning_chart(inputs, say),
        "disturbed": robustness_charts(inputs, say),
    }


def _data(params: ReportParams, inputs: Inputs, pictures: ThumbnailMaker, credits: Credits | None) -> dict[str, Any]:
    columns = (inputs.manifest[name].to_pylist() for name in ("image_id", "group", "verdict"))
    group_of = {image_id: group for image_id, group, verdict in zip(*columns, strict=True) if verdict == "keep"}
    pairs = find_duplicates(inputs.duplicates, group_of)
    return {
        "credits": credits,
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
        "suspected": suspect_gallery(inputs.suspects, params.gallery, pictures),
        "num_suspects": len(inputs.suspects),
        "planted": planted_flaws(inputs),
    }


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found

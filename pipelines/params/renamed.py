"""Keys and values of earlier versions, and what they are called today; read only where params.yaml has a mistake."""

import json
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

RETIRED = {
    "evaluate.suspect_confidence": "suspects are found by confident learning, whose thresholds come from the data",
}
"""keys that earlier versions had, and what stands in their place"""

RENAMED_KEYS = {
    "ingest.download.tries": "max_attempts",
    "ingest.download.open_hosts": "private_hosts",
    "ingest.crop.none": "if_no_face",
    "ingest.crop.several": "if_several",
    "dedupe.turns": "rotations",
    "dedupe.recuts": "recrops",
    "dedupe.copies": "duplicates",
    "dedupe.conflicts": "label_conflicts",
    "dedupe.against": "reference_sets",
    "augment.fit": "resize_mode",
    "augment.policies.*.flip": "hflip",
    "augment.policies.*.flip_vertical": "vflip",
    "augment.policies.*.rotation": "degrees",
    "augment.policies.*.shift": "translate",
    "augment.policies.*.zoom": "scale",
    "augment.policies.*.crop": "random_resized_crop",
    "augment.policies.*.erase": "random_erasing",
    "augment.policies.*.auto": "auto_augment",
    "train.fast": "deterministic",
    "train.resident_bytes": "max_device_cache_bytes",
    "train.recipes.*.views": "tta",
    "train.recipes.*.mixing": "mixup, cutmix and mixup_prob",
    "train.recipes.*.balance": "class_balance",
    "train.recipes.*.accumulate": "grad_accum_steps",
    "train.recipes.*.max_gradient_norm": "clip_grad_norm",
    "train.recipes.*.stopping": "early_stopping",
    "train.recipes.*.stopping.metric": "monitor",
    "train.recipes.*.frozen_stages": "freeze_stages",
    "train.recipes.*.colour": "in_chans",
    "train.recipes.*.head.inverse_strengths": "Cs",
    "train.recipes.*.distillation.see": "teacher_input",
    "train.recipes.*.schedule.rise": "pct_start",
    "train.recipes.*.schedule.start": "div_factor",
    "train.recipes.*.schedule.end": "min_lr_ratio",
    "train.recipes.*.schedule.every_epochs": "step_size",
}
"""what keys of earlier versions are called today; `*` is any name"""
_TUNINGS = {
    **{"frozen": "linear_probe", "full": "finetune", "partial": "partial_finetune"},
    "two_stage": "linear_then_finetune",
}
_VIEWS = {"plain": "original", "mirror": "hflip", "zoom": "center_crop", "zoom_mirror": "center_crop_hflip"}
_RECIPES = {"lite0_frozen": "linear_probe", "lite0_full": "finetune", "resnet18_scratch": "scratch"}
RENAMED_VALUES: dict[str, dict[Any, Any]] = {
    "ingest.crop.kind": {"centre": "center"},
    "ingest.crop.none": {"centre": "center"},
    "split.method": {"exact": "stratified", "stable": "hash", "given": "predefined"},
    "augment.fit": {"crop": "center_crop", "stretch": "squash"},
    "train.fast": {True: False, False: True},
    "train.members": _RECIPES,
    "train.students": _RECIPES,
    "train.recipes.*.weights.member": _RECIPES,
    "train.recipes.*.distillation.teachers": _RECIPES,
    "train.recipes.*.distillation.see": {"plain": "original"},
    "train.recipes.*.tuning": _TUNINGS,
    "train.recipes.*.views": _VIEWS,
    "train.recipes.*.balance": {"weights": "loss_weights", "sampling": "oversampling"},
    "train.recipes.*.stem": {"small": "cifar"},
    "train.recipes.*.colour": {"rgb": 3, "grey": 1},
}
"""what values of earlier versions are called today, by the key that they stood under then"""


def renamed(raw: Any) -> dict[str, str]:
    """By its path, a line for each key and value of `raw` that an earlier version had under another name."""
    found: dict[str, str] = {}
    recipes = _below(_below(raw, "train"), "recipes")
    for where, place, value in _places(raw, "", ""):
        if where.endswith("]") and where.rpartition("[")[0] in found:
            continue  # the line of the list says it
        new = _of(RENAMED_KEYS, place)
        words = _of(RENAMED_VALUES, place) or {}
        if words is _RECIPES:  # a recipe of one's own may have such a name
            words = {old: word for old, word in words.items() if old not in recipes}
        if new == "div_factor" and isinstance(value, float) and value > 0:
            words = {value: round(1.0 / value, 6)}
        elif new is None:
            old_key = next((old for old, key in RENAMED_KEYS.items() if _same_place(old, key, place)), None)
            words = words or RENAMED_VALUES.get(old_key or "", {})
        if new is not None and " " not in new:
            written = [_reworded(one, words) for one in value] if isinstance(value, list) else _reworded(value, words)
            shown = f"{new}: {json.dumps(written, ensure_ascii=False)}" if _is_short(written) else f"{new}:"
            found[where] = f"{where}: this key is now called {new}; write `{shown}`"
        elif new is not None:
            found[where] = f"{where}: this key is now {new} of the recipe itself: move them there, or delete it"
        elif isinstance(value, str) and value in words:
            found[where] = (
                f"{where} = {json.dumps(value)}: this value is now called {words[value]}; write {words[value]}"
            )
    return found


def _places(value: Any, where: str, place: str) -> Iterator[tuple[str, str, Any]]:
    """Every value below `value`: its path, the same without the numbers of lists, and the value itself."""
    if isinstance(value, dict):
        for key, below in value.items():
            inner, bare = (f"{path}.{key}".removeprefix(".") for path in (where, place))
            yield inner, bare, below
            yield from _places(below, inner, bare)
    elif isinstance(value, list):
        for number, below in enumerate(value):
            yield f"{where}[{number}]", place + ".", below  # no key stands here, only a value
            yield from _places(below, f"{where}[{number}]", place)


def _of(table: Mapping[str, Any], place: str) -> Any:
    if place.endswith("."):
        return _of(table, place[:-1]) if table is RENAMED_VALUES else None
    return next((entry for pattern, entry in table.items() if fnmatchcase(place, pattern)), None)


def _same_place(old: str, new: str, place: str) -> bool:
    """Whether `place` is that of the key `old`, by its new name."""
    return fnmatchcase(place.rstrip("."), f"{old.rpartition('.')[0]}.{new}")


def _reworded(value: Any, words: Mapping[Any, Any]) -> Any:
    return words[value] if isinstance(value, str | bool | float) and value in words else value


def _is_short(value: Any) -> bool:
    return (
        value is None
        or isinstance(value, str | bool | int | float)
        or (isinstance(value, list) and not any(isinstance(one, dict | list) for one in value))
    )


def _below(raw: Any, key: str) -> Any:
    found = raw.get(key) if isinstance(raw, dict) else None
    return found if isinstance(found, dict) else {}

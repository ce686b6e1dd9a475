"""What is wrong in params.yaml, in words: path, value, rule, remedy. Imported only where there is a mistake."""

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

READ_AS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "null": "nothing",
    "timestamp": "a date",
}
"""what YAML makes of a word without quotes, by the end of its tag"""
MANY = 12
"""allowed words that are too many to list where one is close to what was written"""
REMEDIES = {
    "missing": "add it: this key has no default",
    "int_type": "write a whole number",
    "int_from_float": "write a whole number",
    "float_type": "write a number",
    "string_type": "write a text, in quotes",
    "bool_type": "write true or false",
    "tuple_type": "write a list: one `- item` a line",
    "model_type": "write `key: value` lines below it",
    "dict_type": "write `key: value` lines below it",
    "union_tag_not_found": "say which one it is",
}

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


def taken_otherwise(text: str) -> list[str]:
    """A line for each key of the YAML `text` that is no text to YAML, and for each value that no param can be."""
    return list(_taken_otherwise(_compose(text), ""))


def _compose(text: str) -> Node:
    node: Node = YAML(typ="safe", pure=True).compose(text)
    return node


def _kind(node: Node) -> str:
    return (node.tag or "").removeprefix("tag:yaml.org,2002:")


def _taken_otherwise(node: Node, where: str) -> Iterator[str]:
    if isinstance(node, MappingNode):
        for key, value in node.value:
            if _kind(key) not in ("str", "merge"):
                yield f"{where or 'the file'}: the key {_quotes(key)}"
            yield from _taken_otherwise(value, f"{where}.{key.value}" if where else str(key.value))
    elif isinstance(node, SequenceNode):
        for number, value in enumerate(node.value):
            yield from _taken_otherwise(value, f"{where}[{number}]")
    elif _kind(node) == "timestamp":
        yield f"{where}: {_quotes(node)}"
    if _kind(node) not in ("map", "seq", "str", *READ_AS):
        yield f"{where}: !!{_kind(node)} has no place in params; write a number, a text or a list"


def _quotes(node: Node) -> str:
    if not isinstance(node, ScalarNode):
        return "is no text; write one"
    read_as = READ_AS.get(_kind(node), "something else")
    return f'{node.value} was read as {read_as}; put it in quotes: "{node.value}"'


def explain(model: type[BaseModel], raw: Any, text: str, error: ValidationError) -> list[str]:
    """A line for each mistake.

    Args:
        model: that was read.
        raw: what YAML made of `text`, the file.
        error: pydantic's.
    """
    # an item that is wrong also makes its list too short: only what a person wrote counts
    found = [(_locate(raw, m["loc"]), m) for m in error.errors() if m["type"] != "too_short" or not m["input"]]
    refused = ("literal_error", "value_error", "string_pattern_mismatch")
    words = {where for where, m in found if m["type"] in refused and isinstance(m["input"], str)}
    old = renamed(raw)
    lines = list(old.values())
    for where, m in found:
        if where in old or _is_renamed(m, where, old):
            continue
        # where a word or a group of keys may stand, what was meant is what was written
        if m["type"] in ("model_type", "dict_type") and where in words:
            continue
        if m["type"] == "literal_error" and isinstance(m["input"], dict) and len(found) > 1:
            continue
        lines.append(_explain(model, where, text, dict(m)))
    return lines


def _is_renamed(mistake: Any, where: str, old: Mapping[str, str]) -> bool:
    """Whether pydantic only misses a key that stands there under its old name, or does not know an old tag."""
    if mistake["type"] == "union_tag_invalid":
        return f"{where}.{mistake['ctx']['discriminator'][1:-1]}" in old
    above = where.rpartition(".")[0]
    return mistake["type"] == "missing" and any(path.rpartition(".")[0] == above for path in old)


def _explain(model: type[BaseModel], where: str, text: str, mistake: dict[str, Any]) -> str:
    """One line for one of pydantic's errors: path, value, rule, remedy."""
    kind, loc, value, context = mistake["type"], mistake["loc"], mistake["input"], mistake.get("ctx", {})
    if kind == "extra_forbidden":
        if where in RETIRED:
            return f"{where}: this key is no more: {RETIRED[where]}; delete its line"
        known = _known_keys(model, loc)
        hint = f"did you mean `{close}`?" if (close := closest(loc[-1], known)) else f"known here: {', '.join(known)}"
        return f"{where}: unknown key; {hint}"
    rule = mistake["msg"].removeprefix("Value error, ")
    if kind == "value_error":
        return f"{where}: {rule}" if where else rule
    if kind == "missing":
        return f"{where}: required key is missing; {REMEDIES[kind]}"
    rule = (rule[0].lower() + rule[1:]).replace("tuple", "list")
    remedy = REMEDIES.get(kind, "change it to keep this rule")
    if kind == "union_tag_invalid":
        where, value = f"{where}.{context['discriminator'][1:-1]}", context["tag"]
        rule = f"is none of {context['expected_tags']}"
    written = json.dumps(value, ensure_ascii=False, default=str)
    if not isinstance(value, str | list | dict) and (node := _node(_compose(text), where)) is not None:
        written = node.value
        if kind == "string_type":
            return f"{where} = {_quotes(node)}"
    if allowed := re.findall(r"'([^']*)'", context.get("expected") or context.get("expected_tags") or ""):
        close = closest(written.strip('"'), allowed)
        if close and len(allowed) > MANY:
            rule = f"is none of the {len(allowed)} that are known here"
        if close:
            remedy = f"did you mean '{close}'?" if isinstance(value, str) else f'put it in quotes: "{close}"'
    if len(written) > 80:
        written = written[:77] + "..."
    return f"{where} = {written}: {rule}; {remedy}"


def closest(word: object, known: list[str]) -> str | None:
    lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(str(word).lower(), lower, n=1)
    return lower[close[0]] if close else None


def _node(node: Node, where: str) -> ScalarNode | None:
    """The word that stands at the path `where`; None where it cannot be followed (aliases that are merged)."""
    for name, number in re.findall(r"([^.\[\]]+)|\[(\d+)\]", where):
        if isinstance(node, SequenceNode) and number:
            node = node.value[int(number)]
        elif isinstance(node, MappingNode):
            values = [value for key, value in node.value if key.value == (name or number)]
            if not values:
                return None
            node = values[0]
    return node if isinstance(node, ScalarNode) else None


def _locate(raw: Any, loc: tuple[int | str, ...]) -> str:
    """The dotted path in the file of pydantic's `loc`, which also holds the names of union branches."""
    parts: list[str] = []
    here = raw
    for step, key in enumerate(loc):
        if isinstance(here, list) and isinstance(key, int) and key < len(here):
            parts[-1:] = [f"{parts[-1]}[{key}]"] if parts else [f"[{key}]"]
            here = here[key]
        elif isinstance(here, dict) and key in here:
            parts.append(str(key))
            here = here[key]
        elif step == len(loc) - 1 and isinstance(here, dict) and isinstance(key, str) and "[" not in key:
            parts.append(key)  # the missing key itself
    return ".".join(parts)


def _known_keys(model: Any, loc: tuple[int | str, ...]) -> list[str]:
    """The keys that the model at `loc[:-1]` has; read from the schema, which names union branches as `loc` does."""
    for key in loc[:-1]:
        model = _step(model, key)
        if model is None:
            return []
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        return []
    return [field.alias or name for name, field in model.model_fields.items()]


def _step(kind: Any, key: int | str) -> Any:
    """The type found below `kind` at `key`: a field of a model, a branch of a union, an item of a container."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        for name, field in kind.model_fields.items():
            if key in (name, field.alias):
                return field.annotation
        return None
    branches = [
        branch
        for branch in _flatten(kind)
        if isinstance(branch, type)
        and issubclass(branch, BaseModel)
        and any(
            str(key) in map(str, getattr(field.annotation, "__args__", ())) for field in branch.model_fields.values()
        )
    ]
    if branches:
        return branches[0]
    arguments = [argument for argument in _flatten(kind) if argument not in (Ellipsis, str, int)]
    return arguments[-1] if arguments else None


def _flatten(kind: Any) -> list[Any]:
    """The members of a union, a container or an Annotated type, Annotated ones unwrapped."""
    if hasattr(kind, "__metadata__"):
        return _flatten(kind.__origin__)
    return [a.__origin__ if hasattr(a, "__metadata__") else a for a in getattr(kind, "__args__", ())]

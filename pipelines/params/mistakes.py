"""What is wrong in params.yaml, in words: path, value, rule, remedy. Imported only where there is a mistake."""

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from pipelines.params.renamed import RETIRED, renamed

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

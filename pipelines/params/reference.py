"""What the keys of params.yaml mean, in words from the JSON Schema: docs/params.md and `miwake params KEY`."""

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipelines.core.errors import InputError

Schema = dict[str, Any]
TYPES = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false", "null": "null"}
LIMITS = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "below"}
HEAD = """\
# Params

Every key of params.yaml, written from the models by `make schema`. params.yaml holds what differs from the defaults;
`miwake params` prints every value of the next run, `miwake params KEY` explains one key. Where a section is one of
several kinds, a key that not all of them have names those that do.
"""


def reference_page(schema: Schema) -> str:
    """docs/params.md: a table of the keys of each section, in the order of the stages."""
    return HEAD + "".join(_tables({"": [schema]}, schema))


def explain_key(key: str, *, schema: Schema, values: Mapping[str, Any], written: object) -> list[str]:
    """What `miwake params KEY` prints: the value, the meaning, what else it may be, how to try another.

    Args:
        key: a path such as split.test_fraction or ingest.sources[0].kind, or its end where only one key ends so.
        values: every value of the next run.
        written: what params.yaml itself holds.

    Raises:
        InputError: there is no such key; the message has the nearest ones.
    """
    path = [int(part) if part.isdecimal() else part for part in re.findall(r"[^.\[\]]+", key)]
    if _value(values, path) is _ABSENT:
        path = _whole_path(path, values)
    node, here = schema, dict(values)
    for part in path:
        node, here = _child(node, here, part, schema), here[part]  # type: ignore[index]
    shown = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)[1:]
    meaning = _meaning(node, schema)
    if isinstance(here, dict):
        section = _section_of(node, here, schema)
        keys = [(name, one, _meaning(_child(section, here, name, schema), schema)) for name, one in here.items()]
        return [shown, *([f"  {meaning}"] if meaning else []), *(f"  {_line(name, one)}  {m}" for name, one, m in keys)]
    is_written = _value(written, path) is not _ABSENT
    lines = [_line(shown, here), f"  meaning  {meaning}", f"  values   {_allowed(node, schema).replace('`', '')}"]
    lines += [f"  default  {_json(node['default'])}"] if "default" in node else []
    lines += [f"  {'written in params.yaml' if is_written else 'not written in params.yaml'}"]
    if not any(isinstance(part, int) for part in path):
        lines += [f"  to try another: dvc exp run -S {'' if is_written else '+'}{shown}=VALUE"]
    return lines


# a place in the schema, and one in the values ---------------------------------------------------


_ABSENT = object()


def _value(values: object, path: Sequence[str | int]) -> object:
    """What stands at `path`, _ABSENT where nothing does."""
    for part in path:
        try:
            values = values[part]  # type: ignore[index]
        except (KeyError, IndexError, TypeError):
            return _ABSENT
    return values


def _paths(values: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    items = values.items() if isinstance(values, Mapping) else enumerate(values) if isinstance(values, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from _paths(value, (*path, key))


def _whole_path(path: Sequence[str | int], values: Mapping[str, Any]) -> list[str | int]:
    """The one path that ends as `path` does."""
    known = [".".join(map(str, one)) for one in _paths(values)]
    asked = ".".join(map(str, path))
    ends = [one for one in known if one.endswith(f".{asked}")]
    if len(ends) == 1:
        return [int(part) if part.isdecimal() else part for part in ends[0].split(".")]
    last = {one.rpartition(".")[2]: one for one in reversed(known)}
    close = ends or difflib.get_close_matches(asked, known, n=3)
    close = close or [last[one] for one in difflib.get_close_matches(str(path[-1] if path else ""), last, n=3)]
    hint = f"did you mean {', '.join(close[:5])}?" if close else f"sections: {', '.join(values)}"
    raise InputError(f"{asked}: {'more than one key ends so' if ends else 'unknown key'}; {hint}")


def _followed(node: Schema, root: Schema) -> Schema:
    """The definition that a `$ref` names, with what stands beside it."""
    if "$ref" not in node:
        return node
    return {**root["$defs"][node["$ref"].rpartition("/")[2]], **{k: v for k, v in node.items() if k != "$ref"}}


def _options(node: Schema) -> list[Schema]:
    return [*node.get("oneOf", []), *node.get("anyOf", [])]


def _named(node: Schema) -> list[Schema]:
    """What stands below names of one's own: recipes, policies, classes."""
    more = node.get("additionalProperties")
    return [*node.get("patternProperties", {}).values(), *([more] if isinstance(more, dict) else [])]


def _sections(node: Schema, root: Schema, where: str) -> Iterator[tuple[str, Schema]]:
    """The sections that a value may be or hold, with their paths: `ingest.sources[]`, `train.recipes.NAME`.

    Not those that are filled in (readOnly): train.policies would repeat augment.policies.
    """
    if node.get("readOnly"):
        return
    node = _followed(node, root)
    if "properties" in node:
        yield where, node
    for one in _options(node):
        yield from _sections(one, root, where)
    if "items" in node:
        yield from _sections(node["items"], root, f"{where}[]")
    for one in _named(node):
        yield from _sections(one, root, f"{where}.NAME")


def _section_of(node: Schema, value: object, root: Schema) -> Schema:
    """The option of `node` that `value` is."""
    node = _followed(node, root)
    for one in (_section_of(option, value, root) for option in _options(node)):
        keys = one.get("properties", {})
        if (
            isinstance(value, dict)
            and value.keys() <= keys.keys()
            and all(value[name] == part["const"] for name, part in keys.items() if "const" in part and name in value)
        ):
            return one
        if isinstance(value, list) and "items" in one:
            return one
    return node


def _child(node: Schema, value: object, part: str | int, root: Schema) -> Schema:
    """The schema of what stands below `value` at `part`."""
    node = _section_of(node, value, root)
    if isinstance(part, int):
        return dict(node.get("items", {}))
    return dict(node.get("properties", {}).get(part) or next(iter(_named(node)), {}))


# in words ---------------------------------------------------------------------------------------


def _allowed(node: Schema, root: Schema) -> str:
    """The values that a key takes."""
    node = _followed(node, root)
    if "const" in node or "enum" in node:
        return ", ".join(map(_code, node.get("enum", [node.get("const")])))
    if options := _options(node):
        return " or ".join(dict.fromkeys(_allowed(one, root) for one in options))
    kind = node.get("type", "")
    if kind == "array":
        return f"list of {_allowed(node.get('items', {}), root)}{', not empty' if node.get('minItems') else ''}"
    if kind == "object":
        return "section" if "properties" in node else "sections by name"
    limits = ", ".join(f"{word} {node[key]:.12g}" for key, word in LIMITS.items() if key in node)
    return f"{TYPES.get(kind, kind)} {limits}".strip()


def _meaning(node: Schema, root: Schema) -> str:
    return " ".join(str(_followed(node, root).get("description", "")).split())


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _code(value: object) -> str:
    return f"`{value if isinstance(value, str) and value else _json(value)}`"


def _default(node: Schema) -> str:
    """The default of a value; those of a section stand in its own table."""
    default = node.get("default", {})
    return "" if isinstance(default, dict) else _code(default)


def _line(name: str, value: object) -> str:
    text = _json(value)
    return f"{name} = {text if len(text) <= 60 else text[:57] + '...'}"


def _variant(section: Schema) -> str:
    """The kind of a section that is one of several: `folder`, `finetune`."""
    return next((str(one["const"]) for one in section["properties"].values() if "const" in one), "")


def _tables(groups: Mapping[str, Sequence[Schema]], root: Schema) -> Iterator[str]:
    """The tables of these sections and of all below them; sections at one path are the kinds of one."""
    for where, kinds in groups.items():
        below: dict[str, list[Schema]] = {}
        rows: dict[tuple[str, str, str, str], list[str]] = {}
        for kind in kinds:
            for key, node in kind["properties"].items():
                for path, one in _sections(node, root, f"{where}.{key}".lstrip(".")):
                    if one not in below.setdefault(path, []):
                        below[path].append(one)
                if "const" in node:
                    row = (key, "which one it is", ", ".join(f"`{_variant(one)}`" for one in kinds), "")
                else:
                    shown = "required" if key in kind.get("required", ()) else _default(node)
                    row = (key, _meaning(node, root), _allowed(node, root), shown)
                rows.setdefault(row, []).append(_variant(kind))
        if where:
            yield f"\n{'###' if '.' in where else '##'} {where}\n"
            for kind in kinds:
                if words := " ".join(kind.get("description", "").split()):
                    yield f"\n{f'`{_variant(kind)}`: ' if _variant(kind) else ''}{words}\n"
            yield "\n| key | meaning | values | default |\n|---|---|---|---|\n"
            for (key, *cells), having in rows.items():
                only = f" ({', '.join(having)})" if len(having) < len(kinds) else ""
                yield "| " + " | ".join(cell.replace("|", "\\|") for cell in (f"`{key}`{only}", *cells)) + " |\n"
        yield from _tables(below, root)

"""The JSON Schema of params.yaml, as editors read it; `python -m pipelines.params.schema` writes it."""

import ast
import inspect
import json
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from pipelines.core.files import write_json, write_text
from pipelines.params.load import Params
from pipelines.params.reference import reference_page
from pipelines.params.validate import AnyRule


def params_schema() -> dict[str, Any]:
    """The schema, each field described by the line below it in the code.

    pydantic would read those lines itself, whenever a model is made: a third of the time that any stage takes to start.
    """
    schema = Params.model_json_schema(by_alias=True)
    schema["title"] = "miwake params.yaml"
    models = {model.__name__: model for model in _subclasses(BaseModel) if model.__module__.startswith("pipelines.")}
    for name, part in {**schema.get("$defs", {}), Params.__name__: schema}.items():
        if name in models:
            _describe(part, models[name])
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def editor_schema() -> dict[str, Any]:
    """params.schema.json: `params_schema` and the short forms that `with_builtins` makes whole.

    A rule of validate may be its limit alone or off; an entry of recipes or policies may begin with another (`base`).
    """
    schema = params_schema()
    parts = schema["$defs"]
    base = {"base": {"type": "string", "description": "the built-in or own entry that this one begins with"}}
    parts["AugmentPolicy"]["properties"] |= base
    recipes = parts["TrainParams"]["properties"]["recipes"]["patternProperties"]
    ((pattern, by_tuning),) = recipes.items()
    kinds = [parts[one["$ref"].rpartition("/")[2]]["properties"] for one in by_tuning["oneOf"]]
    keys: dict[str, list[Any]] = {}
    for key, part in (item for kind in kinds for item in kind.items()):
        keys[key] = [*keys.get(key, []), *([part] if part not in keys.get(key, []) else [])]
    any_of = {key: found[0] if len(found) == 1 else {"anyOf": found} for key, found in keys.items()}
    any_of = json.loads(json.dumps(any_of).replace('"oneOf"', '"anyOf"'))  # its kind may be the one of the base
    parts["AnyRecipe"] = {"type": "object", "additionalProperties": False, "properties": base | any_of}
    recipes[pattern] = {"$ref": "#/$defs/AnyRecipe"}
    for rule in (one.__name__ for one in get_args(AnyRule)):
        full = parts[f"{rule}InFull"] = {key: part for key, part in parts[rule].items() if key != "required"}
        limit = next(iter(full["properties"].values()))
        parts[rule] = {"anyOf": [{"$ref": f"#/$defs/{rule}InFull"}, limit, {"const": "off"}]}
    return schema


def _subclasses(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for one in model.__subclasses__():
        yield one
        yield from _subclasses(one)


def _describe(part: dict[str, Any], model: type[BaseModel]) -> None:
    """Add what is said of each field of `model` to its part of the schema."""
    aliases = {name: field.alias or name for name, field in model.model_fields.items()}
    for one in reversed(model.__mro__):  # what a class says of a field holds before what the one it extends says
        for name, words in _field_words(one).items():
            if name in aliases:
                place = part["properties"]
                place[aliases[name]] = dict(sorted({**place[aliases[name]], "description": words}.items()))


def _field_words(model: type) -> dict[str, str]:
    """By field, the text that stands as an expression below it in the code of the class."""
    if not model.__module__.startswith("pipelines."):
        return {}
    module = ast.parse(inspect.getsource(sys.modules[model.__module__]))
    body = next(node for node in module.body if isinstance(node, ast.ClassDef) and node.name == model.__name__).body
    words = {}
    for field, below in pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            match below:
                case ast.Expr(value=ast.Constant(value=str(text))):
                    words[field.target.id] = inspect.cleandoc(text)
    return words


if __name__ == "__main__":
    write_json(Path("params.schema.json"), editor_schema())
    write_text(Path("docs/params.md"), reference_page(params_schema()))
    print("params.schema.json and docs/params.md written")

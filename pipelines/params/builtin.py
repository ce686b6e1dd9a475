"""Built-in recipes and policies, `base:`, and rules in short: all that is filled in before params are validated."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from pipelines.params import recipes
from pipelines.params.train import TrainParams
from pipelines.params.validate import AnyRule, ValidateParams

Entries = dict[str, dict[str, Any]]

_FIELDS = {
    model.model_fields["tuning"].default: model.model_fields.keys()
    for model in (
        *(recipes.LinearProbeRecipe, recipes.ScratchRecipe, recipes.FinetuneRecipe),
        *(recipes.PartialFinetuneRecipe, recipes.LinearThenFinetuneRecipe),
    )
}
"""by tuning, the keys that its recipes may have"""


@functools.cache
def builtins() -> dict[str, Entries]:
    """The recipes and policies of builtin.yaml, each with what it is based on; do not change them."""
    shipped = YAML(typ="safe").load(Path(__file__).with_name("builtin.yaml"))
    return {kind: {name: _with_base(name, entries, {}) for name in entries} for kind, entries in shipped.items()}


def with_builtins(raw: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """What YAML made of a params.yaml, with everything said in full that it may leave to others.

    - An empty section (`validate:`) is its defaults.
    - A rule of validate may be its limit alone, `off`, or half of {limit, severity}.
    - Built-in policies are all there, built-in recipes where train.members or students name them; an entry of the
      same name changes single keys of them.
    - `base: name` starts an entry of train.recipes or augment.policies from another of them or from a built-in one.

    The result of a file that leaves nothing out is the file itself; whatever is of the wrong type stays, and is for
    the models to refuse.

    Returns:
        The values, and a line for each base that is unknown or goes round in a circle.
    """
    found = {name: {} if section is None else section for name, section in raw.items()}
    mistakes: list[str] = []
    train, augment = ({**_below(found, section)} for section in ("train", "augment"))
    if "train" not in found or train:
        own = _below(train, "recipes")
        named = [
            name
            for key in ("members", "students")
            for name in _list(train.get(key, TrainParams.model_fields[key].default))
            if isinstance(name, str)
        ]
        shipped = builtins()["recipes"]
        used = {name: shipped[name] for name in named if name in shipped and name not in own}
        if isinstance(train.get("recipes", {}), dict):
            found["train"] = {**train, "recipes": used | _resolved("train.recipes", own, shipped, mistakes)}
    if isinstance(augment.get("policies", {}), dict) and isinstance(found.get("augment", {}), dict):
        own, shipped = _below(augment, "policies"), builtins()["policies"]
        found["augment"] = {**augment, "policies": shipped | _resolved("augment.policies", own, shipped, mistakes)}
    if isinstance(rules := found.get("validate"), dict):
        found["validate"] = {name: _rule(name, value) for name, value in rules.items()}
    return found, list(dict.fromkeys(mistakes))


def _resolved(where: str, own: Mapping[str, Any], shipped: Entries, mistakes: list[str]) -> dict[str, Any]:
    """The entries of a file, each with what it is based on; what is wrong goes to `mistakes`."""
    found: dict[str, Any] = {}
    for name, entry in own.items():
        try:
            found[name] = _with_base(name, own, shipped) if isinstance(entry, dict) else entry
        except ValueError as error:
            mistakes.append(f"{where}.{error}")
    return found


def _with_base(name: str, own: Mapping[str, Any], shipped: Entries, above: tuple[str, ...] = ()) -> dict[str, Any]:
    """The entry `name`: its own keys over those of its base.

    Args:
        own: entries as written.
        shipped: entries to fall back to, resolved.
        above: the entries that are based on this one.

    Raises:
        ValueError: a base is unknown, no text, or based on the entry itself.
    """
    entry = own[name]
    base = entry.get("base", name if name in shipped else None)
    said = {key: value for key, value in entry.items() if key != "base"}
    if said.get("models"):  # of a linear probe: several backbones take the place of one
        said = {"model": None, **said}
    elif said.get("model") and "models" in shipped.get(str(base), {}):
        said = {"models": [], **said}
    if base is None:
        return said
    if base in (*above, name) and not (base == name and name in shipped):
        chain = " -> ".join((*above, name, base)) if base != name else f"{name} -> {name}"
        raise ValueError(f"{(above or (name,))[0]}.base: {chain} ends nowhere; take `base:` out of one of them")
    if base != name and isinstance(own.get(base) if isinstance(base, str) else None, dict):
        return _merged(_with_base(base, own, shipped, (*above, name)), said)
    if isinstance(base, str) and base in shipped:
        return _merged(shipped[base], said)
    from pipelines.params.mistakes import closest

    known = list(dict.fromkeys([*shipped, *own]))
    hint = f"did you mean `{near}`?" if (near := closest(base, known)) else "name one of them or write it"
    raise ValueError(f"{name}.base = {base!r}: there are {', '.join(known)}; {hint}")


def _merged(base: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    """`said` over `base`, group by group. A group of another `kind` takes the whole place of the base's; a recipe of
    another tuning keeps of its base what that tuning knows."""
    if (tuning := said.get("tuning", base.get("tuning"))) != base.get("tuning"):
        base = {key: value for key, value in base.items() if key in _FIELDS.get(str(tuning), base)}
    found = {**base, **said}
    for key, value in said.items():
        under = base.get(key)
        if (
            isinstance(value, dict)
            and isinstance(under, dict)
            and value.get("kind", under.get("kind")) == under.get("kind")
        ):
            found[key] = _merged(under, value)
    return found


def _rule(name: str, value: Any) -> Any:
    """A rule of validate as {limit, severity}, with the default's for what is left out."""
    field = ValidateParams.model_fields.get(name)
    if field is None or not isinstance(field.default, AnyRule):
        return value
    default = field.default.model_dump(mode="json")
    main = next(iter(default))  # limit or allowed
    if value == "off" or value is False:
        return {**default, main: None}
    if isinstance(value, dict):
        return {**default, **value}
    if isinstance(value, list if main == "allowed" else int | float) and not isinstance(value, bool):
        return {**default, main: value}
    return value


def _below(raw: Any, key: str) -> dict[str, Any]:
    found = raw.get(key) if isinstance(raw, dict) else None
    return found if isinstance(found, dict) else {}


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []

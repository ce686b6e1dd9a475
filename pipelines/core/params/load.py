"""Read params.yaml into frozen models, and say of each mistake where it stands, what the rule is and what to do."""

import datetime
import json
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipelines.core.errors import ParamsError
from pipelines.core.params.augment import AugmentParams
from pipelines.core.params.base import Section
from pipelines.core.params.dedupe import DedupeParams
from pipelines.core.params.evaluate import EvaluateParams
from pipelines.core.params.ingest import IngestParams
from pipelines.core.params.recipes import FrozenRecipe
from pipelines.core.params.report import ReportParams
from pipelines.core.params.retrain import RetrainParams
from pipelines.core.params.split import SplitParams
from pipelines.core.params.train import TrainParams
from pipelines.core.params.validate import ValidateParams


class Params(Section):
    """All of params.yaml: one section a stage, in stage order, and the schedule of retraining."""

    ingest: IngestParams
    dedupe: DedupeParams
    # pydantic models already have a method `validate`; in the file the section is `validate`
    validate_: ValidateParams = Field(alias="validate")
    split: SplitParams
    augment: AugmentParams
    train: TrainParams
    evaluate: EvaluateParams
    report: ReportParams
    retrain: RetrainParams

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        for fold in self.train.folds:
            if fold >= self.split.folds:
                raise ValueError(
                    f"train.folds names fold {fold}, but split.folds is {self.split.folds}: folds count from 0; "
                    "raise split.folds or drop the fold"
                )
        if self.validate_.drift_from == self.ingest.snapshot:
            raise ValueError(
                f"validate.drift_from {self.ingest.snapshot!r} is ingest.snapshot itself, from which nothing can have "
                "drifted: name an earlier snapshot, or set it to null"
            )
        for name, recipe in self.train.recipes.items():
            where = f"train.recipes.{name}"
            if name in self.train.all_members and recipe.image_size > self.augment.image_size:
                raise ValueError(
                    f"{where}.image_size {recipe.image_size} is larger than augment.image_size "
                    f"{self.augment.image_size}: packed pictures are never enlarged; raise augment.image_size"
                )
            if not isinstance(recipe, FrozenRecipe) and recipe.augmentation not in self.augment.policies:
                raise ValueError(
                    f"{where}.augmentation {recipe.augmentation!r} is not among augment.policies "
                    f"({', '.join(self.augment.policies)}); name one of these or add it"
                )
        return self


def load_params(path: Path) -> Params:
    """Read and check the whole of `path`, whichever section the caller needs.

    Raises:
        ParamsError: the file is missing, is no YAML, or breaks a rule. Every mistake is listed, each with its
            path in the file, its value, the rule and the remedy.
    """
    try:
        raw = _parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ParamsError(f"{path} does not exist: run this in the folder that holds params.yaml") from error
    except (YAMLError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path} is not valid YAML: {error}") from error
    try:
        text = json.dumps(raw, default=_refuse_date)
        return Params.model_validate_json(text)
    except ValidationError as error:
        # an item that is wrong also makes its list too short: only what a person wrote counts
        mistakes = [_explain(raw, dict(m)) for m in error.errors() if m["type"] != "too_short" or not m["input"]]
        raise ParamsError("\n".join(f"{path.name}: {line}" for line in mistakes)) from error
    except TypeError as error:
        raise ParamsError(f"{path.name}: {error}") from error


def _parse(text: str) -> Any:
    """What the reader of YAML 1.2 makes of `text` that DVC uses too, so that 1e-4 is the same number to both.

    libyaml, where ruamel.yaml has it, cuts the text up in a fifth of the time; what a word means is decided by the same
    rules. It knows YAML 1.1 alone, which takes tabs and directives otherwise and finds fault with `[a:b]`: the reader
    of 1.2 then has the word.
    """
    if "\t" not in text and "%YAML" not in text:
        try:
            return YAML(typ="safe").load(text)
        except YAMLError:
            pass
    return YAML(typ="safe", pure=True).load(text)


def _refuse_date(value: object) -> str:
    """YAML turns an unquoted 2026-11-21 into a date, and DVC and editors each read it their own way."""
    if isinstance(value, datetime.date):
        raise TypeError(f'{value} was read as a date; write it in quotes: "{value}"')
    raise TypeError(f"{value!r} ({type(value).__name__}) has no place in params; write a number, a text or a list")


REMEDIES = {
    "missing": "add it; params.yaml has no hidden defaults",
    "extra_forbidden": "",  # answered with the nearest known key
    "int_type": "write a whole number",
    "int_from_float": "write a whole number",
    "float_type": "write a number",
    "string_type": "put it in quotes",
    "bool_type": "write true or false",
    "tuple_type": "write a list: one `- item` a line",
    "model_type": "write `key: value` lines below it",
    "dict_type": "write `key: value` lines below it",
    "union_tag_not_found": "say which one it is",
}

RETIRED = {
    "evaluate.bootstrap_resamples": "intervals are computed without resampling",
    "evaluate.suspect_confidence": "suspects are found by confident learning, whose thresholds come from the data",
}
"""keys that earlier versions had, and what stands in their place"""


def _explain(raw: Any, mistake: dict[str, Any]) -> str:
    """One line for one of pydantic's errors: path, value, rule, remedy."""
    where = _locate(raw, mistake["loc"])
    kind = mistake["type"]
    if kind == "extra_forbidden":
        import difflib  # only where there is a mistake

        if where in RETIRED:
            return f"{where}: this key is no more: {RETIRED[where]}; delete its line"
        known = _known_keys(mistake["loc"])
        close = difflib.get_close_matches(str(mistake["loc"][-1]), known, n=1)
        hint = f"did you mean `{close[0]}`?" if close else f"known here: {', '.join(known)}"
        return f"{where}: unknown key; {hint}"
    rule = mistake["msg"].removeprefix("Value error, ")
    if kind == "value_error":
        return f"{where}: {rule}" if where else rule
    if kind == "missing":
        return f"{where}: required key is missing; {REMEDIES[kind]}"
    rule = (rule[0].lower() + rule[1:]).replace("tuple", "list")
    value = json.dumps(mistake["input"], ensure_ascii=False, default=str)
    if len(value) > 80:
        value = value[:77] + "..."
    remedy = REMEDIES.get(kind, "change it to keep this rule")
    return f"{where} = {value}: {rule}; {remedy}"


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
        elif step == len(loc) - 1 and isinstance(here, dict) and isinstance(key, str):
            parts.append(key)  # the missing key itself
    return ".".join(parts)


def _known_keys(loc: tuple[int | str, ...]) -> list[str]:
    """The keys that the model at `loc[:-1]` has; read from the schema, which names union branches as `loc` does."""
    model: Any = Params
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

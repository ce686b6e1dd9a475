"""Read params.yaml into frozen models, and say of each mistake where it stands, what the rule is and what to do."""

import codecs
import json
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import YAMLError

from pipelines.core.errors import ParamsError
from pipelines.params.augment import AugmentParams, AugmentPolicy
from pipelines.params.base import Section, did_you_mean
from pipelines.params.builtin import with_builtins
from pipelines.params.dedupe import DedupeParams
from pipelines.params.evaluate import EvaluateParams
from pipelines.params.ingest import IngestParams
from pipelines.params.recipes import LinearProbeRecipe
from pipelines.params.report import ReportParams
from pipelines.params.retrain import RetrainParams
from pipelines.params.split import SplitParams
from pipelines.params.train import TrainParams
from pipelines.params.validate import ValidateParams


class Params(Section):
    """All of params.yaml: one section a stage, in stage order, and the schedule of retraining."""

    ingest: IngestParams
    dedupe: DedupeParams = Field(default_factory=DedupeParams)
    # pydantic models already have a method `validate`; in the file the section is `validate`
    validate_: ValidateParams = Field(alias="validate", default_factory=ValidateParams)
    split: SplitParams = Field(default_factory=SplitParams)
    augment: AugmentParams = Field(default_factory=AugmentParams)
    train: TrainParams = Field(default_factory=TrainParams)
    evaluate: EvaluateParams = Field(default_factory=EvaluateParams)
    report: ReportParams = Field(default_factory=ReportParams)
    retrain: RetrainParams = Field(default_factory=RetrainParams)

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
        self.split.check_sources(self.ingest.sources)
        for name, recipe in self.train.recipes.items():
            where = f"train.recipes.{name}"
            if name in self.train.all_members and recipe.image_size > self.augment.image_size:
                raise ValueError(
                    f"{where}.image_size {recipe.image_size} is larger than augment.image_size "
                    f"{self.augment.image_size}: packed pictures are never enlarged; raise augment.image_size"
                )
            if not isinstance(recipe, LinearProbeRecipe) and recipe.augmentation not in self.augment.policies:
                raise ValueError(
                    f"{where}.augmentation {recipe.augmentation!r} is not among augment.policies "
                    f"({', '.join(self.augment.policies)}); name one of these or add it"
                    + did_you_mean(recipe.augmentation, self.augment.policies)
                )
        if self.train.policies not in ({}, self.policies_of_members):
            raise ValueError(
                "train.policies differs from augment.policies, from which it is filled in: take it out, and change "
                "augment.policies"
            )
        return self

    @property
    def policies_of_members(self) -> dict[str, AugmentPolicy | None]:
        """What `train.policies` holds."""
        recipes = {member: self.train.recipes[member] for member in self.train.all_members}
        return {
            member: None if isinstance(recipe, LinearProbeRecipe) else self.augment.policies[recipe.augmentation]
            for member, recipe in recipes.items()
        }

    @property
    def mirroring(self) -> list[str]:
        """What to change so that training mirrors no picture, where left and right tell classes apart."""
        members = {name: self.train.recipes[name] for name in self.train.all_members}
        policies = {recipe.augmentation for recipe in members.values() if not isinstance(recipe, LinearProbeRecipe)}
        policies |= {self.augment.copies.policy} if self.augment.copies else set()
        flips = [name for name, policy in self.augment.policies.items() if name in policies and policy.hflip > 0]
        views = [name for name, recipe in members.items() if any("hflip" in view for view in recipe.tta)]
        return [f"augment.policies.{name}.hflip: 0" for name in flips] + [
            f"train.recipes.{name}.tta: without hflip" for name in views
        ]


def load_params(path: Path) -> Params:
    """Read and check the whole of `path`, whichever section the caller needs.

    Raises:
        ParamsError: the file is missing, is no YAML, or breaks a rule. Every mistake is listed, each with its
            path in the file, its value, the rule and the remedy.
    """
    raw = read_yaml(path)
    if isinstance(raw, dict):
        raw, mistakes = with_builtins(raw)
        _refuse(path, mistakes)
    try:
        params = Params.model_validate_json(json.dumps(raw))
    except ValidationError as error:
        from pipelines.params.mistakes import explain

        _refuse(path, explain(Params, raw, _text(path), error))
        raise
    train = params.train.model_copy(update={"policies": params.policies_of_members})
    return params.model_copy(update={"train": train})


def read_yaml(path: Path) -> Any:
    """What `path` holds, of the types of JSON alone, before any rule of params.

    Raises:
        ParamsError: the file is missing, is no YAML, or has words that YAML takes for something else.
    """
    text = _text(path)
    try:
        raw = _parse(text)
        if not _is_plain(raw):
            _refuse(path, _taken_otherwise(text))
    except YAMLError as error:
        if isinstance(error, DuplicateKeyError):  # 1 and 01 are one key to YAML, and two to who wrote them
            _refuse(path, _taken_otherwise(text))
        raise ParamsError(f"{path} is not valid YAML: {error}") from error
    except RecursionError as error:
        raise ParamsError(f"{path} has an alias (*name) inside of what it names: write the value itself") from error
    return raw


def _refuse(path: Path, mistakes: list[str]) -> None:
    if mistakes:
        raise ParamsError("\n".join(f"{path.name}: {line}" for line in mistakes))


def _taken_otherwise(text: str) -> list[str]:
    from pipelines.params.mistakes import taken_otherwise

    return taken_otherwise(text)


def _text(path: Path) -> str:
    """The text of the file; an error names its first line that is not UTF-8."""
    try:
        found = path.read_bytes()
    except FileNotFoundError as error:
        raise ParamsError(f"{path} does not exist: run this in the folder that holds params.yaml") from error
    try:
        return found.decode("utf-8")
    except UnicodeDecodeError as error:
        if found.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise ParamsError(f"{path} is UTF-16: save it as UTF-8 (an editor's `encoding`)") from error
        line = found.count(b"\n", 0, error.start) + 1
        text = found.splitlines()[line - 1].decode("cp1252", "replace").strip()
        raise ParamsError(
            f"{path}, line {line}, is not UTF-8 (read as Windows-1252 it says {text!r}): save the file as UTF-8"
        ) from error


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


def _is_plain(value: object) -> bool:
    """Whether all keys are texts, and all values what JSON knows."""
    if isinstance(value, dict):
        return all(type(key) is str and _is_plain(one) for key, one in value.items())
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, str | bool | int | float)

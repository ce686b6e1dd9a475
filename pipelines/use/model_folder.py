"""The model of a run: its members, how they are combined and below which probability they say nothing.

`read_model` finds it in a project that has run, and in a folder that `write_model` wrote, which predicts where the
pipeline's data is not:

    model.json          all that `ModelInfo` names
    members/            <member>-<fold>.safetensors, as train wrote them
    strangers.safetensors
                        where evaluate could fit it
    known.parquet       predictions of pictures whose label is known: see `pipelines.use.known`
"""

import json
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from pipelines.core.errors import InputError
from pipelines.core.files import TEMPORARY_SUFFIX, empty_folder, write_json
from pipelines.core.git import git
from pipelines.core.layout import Layout
from pipelines.core.licenses import canonical_license
from pipelines.core.tables import DEDUPED, LABEL, PACK_INDEX, read_classes, read_table
from pipelines.params.augment import ResizeMode
from pipelines.params.base import Fraction, PositiveFloat, PositiveInt, Section
from pipelines.params.evaluate import Ensemble
from pipelines.params.ingest import CropParams, DownloadParams
from pipelines.params.load import load_params
from pipelines.use.known import KNOWN, write_known

FORMAT: Literal[1] = 1
MODEL_JSON = "model.json"
STRANGERS = "strangers.safetensors"
FIGURES = ("num_images", "confidence", "accuracy", "balanced_accuracy", "macro_f1", "log_loss")
"""what model.json repeats of figures.json"""


class Interval(Section):
    value: float
    low: float | None
    high: float | None


class ModelMember(Section):
    """One trained network.

    Args:
        name, fold: the recipe, and the fold that it did not learn from.
        file: below the folder, with /.
        weight: of its recipe in the weighted mean; None for one that tells a factor apart.
        target: label, or the factor.
        temperature: of the mean over the recipe's folds.
    """

    name: str
    fold: int
    file: Annotated[str, Field(pattern=r"^members/[^/\\]+$")]
    weight: Fraction | None
    target: str
    temperature: PositiveFloat


class JoinedFactors(Section):
    """How members that tell factors apart give a label: see `pipelines.evaluate.members.join_factors`.

    Args:
        name: of the joined member.
        names: F factors.
        labels: the F values of each combination that exists, and the class that they make.
        weight, temperature: of the joined member.
    """

    name: str
    names: tuple[str, ...]
    labels: tuple[tuple[tuple[str, ...], int], ...]
    weight: Fraction
    temperature: PositiveFloat


class Threshold(Section):
    """Below `value` no class is named.

    Args:
        wished_precision: fraction of the answers that should be right; `value` reached it on validation pictures.
        precision, coverage: of test pictures: fraction of the answers that are right, and of pictures answered.
    """

    value: Fraction
    wished_precision: Fraction
    precision: Interval | None
    coverage: Interval


class StrangerTest(Section):
    """What tells pictures of no known class: see `pipelines.evaluate.strangers`.

    Args:
        file: that its `read_scorer` reads.
        member: whose features they take, with its fold: "linear_probe-0".
        threshold: a picture that scores less is a stranger.
        false_rate: fraction of the run's test pictures that are called strangers; None where it was not measured.
    """

    file: str
    member: str
    threshold: float
    method: str
    false_rate: Fraction | None


class Fit(Section):
    """How a picture becomes a square of `image_size` pixels; what of it counts is `ModelInfo.crop`'s."""

    image_size: PositiveInt
    resize_mode: ResizeMode


class Limits(Section):
    """What is refused: see params.ingest."""

    max_file_bytes: PositiveInt
    max_pixels: PositiveInt
    min_side: PositiveInt


class ModelInfo(Section):
    """model.json.

    Args:
        run: 8 digits, as the report shows them.
        commit: of the project, "" where there is none.
        classes: K labels.
        target: label, or the factors that the label is joined from.
        image_size: of the squares that members get, pixels; each resizes them to its own.
        crop: ingest.crop.
        temperature: of what the members say together; 1 where one alone says it, whose own is enough.
        figures: of the test pictures, with intervals.
        licence: of the pictures that it learnt from and was tested on: number by licence, "" where it is not known.
    """

    format: Literal[1]
    title: str
    run: str
    commit: str
    classes: Annotated[tuple[str, ...], Field(min_length=1)]
    target: str | tuple[str, ...]
    image_size: PositiveInt
    crop: CropParams
    fit: Fit
    limits: Limits
    ensemble: Ensemble
    members: Annotated[tuple[ModelMember, ...], Field(min_length=1)]
    factors: JoinedFactors | None
    temperature: PositiveFloat
    threshold: Threshold | None
    strangers: StrangerTest | None
    figures: dict[str, Any]
    licence: dict[str, int]


@dataclass(frozen=True)
class Model:
    """A model that was read.

    Args:
        files: where each file that `info` names lies.
        where: the folder, for messages.
    """

    info: ModelInfo
    files: Mapping[str, Path]
    where: Path


def read_model(path: Path) -> Model:
    """Read the model of a project that has run, or of a folder that `write_model` wrote.

    Raises:
        InputError: there is none, or it is not whole.
    """
    if (path / MODEL_JSON).is_file():
        return _read_folder(path)
    if (path / "params.yaml").is_file():
        return _read_project(Layout(path))
    raise InputError(
        f"{path} holds no model: neither {MODEL_JSON}, which `miwake export safetensors` writes, nor the params.yaml "
        "of a project; name one with --model, or begin a project with `miwake new`"
    )


def find_model(root: Path, named: Path | None) -> Model:
    """The model that a command of the project at `root` works with: the named one, the champion's, the last run's.

    Raises:
        InputError: as `read_model`.
    """
    from pipelines.use.registry import champion_model

    return read_model(named or champion_model(root) or root)


def download_rules(root: Path) -> DownloadParams:
    """ingest.download of the project at `root`; the defaults where there is none."""
    path = root / "params.yaml"
    return load_params(path).ingest.download if path.is_file() else DownloadParams()


def write_model(model: Model, folder: Path) -> None:
    """Write `model` as a folder that needs nothing else, whole or not at all.

    Raises:
        InputError: the folder exists and is not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists and is not empty: name a new folder, or delete it first")
    partial = empty_folder(folder.with_name(folder.name + TEMPORARY_SUFFIX))
    try:
        for name, source in model.files.items():
            (partial / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(source, partial / name)
        write_known(model.where, partial / KNOWN, classes=model.info.classes)
        write_json(partial / MODEL_JSON, model.info.model_dump(mode="json"))
        partial.replace(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _read_folder(folder: Path) -> Model:
    path = folder / MODEL_JSON
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(raw, dict) and raw.get("format") != FORMAT:
            raise InputError(
                f"{path} has format {raw.get('format')!r}, and this version reads {FORMAT}: export the model anew"
            )
        info = ModelInfo.model_validate_json(json.dumps(raw))
    except (ValidationError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise InputError(f"{path} is not as `miwake export` writes it ({first}): export the model anew") from error
    files = {name: folder / name for name in _names(info)}
    for name, file in files.items():
        if not file.is_file():
            raise InputError(f"{path} names {name}, which {folder} lacks: copy the folder whole, or export it anew")
    return Model(info, files, folder)


def _names(info: ModelInfo) -> list[str]:
    return [member.file for member in info.members] + ([info.strangers.file] if info.strangers else [])


def _read_project(layout: Layout) -> Model:
    figures_path = layout.stage("evaluate") / "figures.json"
    if not layout.resolved.is_file() or not figures_path.is_file():
        raise InputError(
            f"{layout.root} has no trained model yet: {figures_path.relative_to(layout.root)} does not exist; run "
            "`miwake run`, or name a model folder with --model"
        )
    params = load_params(layout.resolved)
    figures: dict[str, Any] = json.loads(figures_path.read_text(encoding="utf-8"))
    classes = read_classes(layout.pack_index)
    folders = layout.members(params.train)
    lacking = [name for name in dict.fromkeys(name for name, _ in folders) if name not in figures["members"]]
    if lacking:
        raise InputError(f"{figures_path} knows no member {lacking[0]}: run `miwake run`")
    members, files = [], {}
    for (name, fold), folder in folders.items():
        measured = figures["members"][name]
        file = f"members/{name}-{fold}.safetensors"
        files[file] = folder / "model.safetensors"
        if not files[file].is_file():
            raise InputError(f"{files[file]} does not exist: run `miwake run`, or `dvc checkout`")
        members.append(
            ModelMember(
                name=name,
                fold=fold,
                file=file,
                weight=measured["weight"],
                target=measured["target"],
                temperature=measured["temperature"],
            )
        )
    strangers = _read_strangers(layout.stage("evaluate") / STRANGERS, figures)
    if strangers is not None:
        files[STRANGERS] = layout.stage("evaluate") / STRANGERS
    factors = _read_factors(layout, classes, members, figures)
    labelled = {member.name for member in members if member.target == LABEL} | ({factors.name} if factors else set())
    info = ModelInfo(
        format=FORMAT,
        title=params.report.title or _title(classes),
        run=_run_id(layout),
        commit=_commit(layout.root),
        classes=tuple(classes),
        target=factors.names if factors else LABEL,
        image_size=params.augment.image_size,
        crop=params.ingest.crop,
        fit=Fit(image_size=params.augment.image_size, resize_mode=params.augment.resize_mode),
        limits=Limits(**{name: getattr(params.ingest, name) for name in Limits.model_fields}),
        ensemble=params.evaluate.ensemble,
        members=tuple(members),
        factors=factors,
        temperature=figures["ensemble"]["temperature"] if len(labelled) > 1 else 1.0,
        threshold=_threshold(figures["coverage"]),
        strangers=strangers,
        figures={name: figures[name] for name in FIGURES},
        licence=_licences(layout),
    )
    return Model(info, files, layout.root)


def _title(classes: list[str]) -> str:
    shown = ", ".join(classes[:3])
    return f"{len(classes)} classes: {shown}" + (", …" if len(classes) > 3 else "")


def _run_id(layout: Layout) -> str:
    from pipelines.report.inputs import digest_of

    evaluate = layout.stage("evaluate")
    paths = [layout.manifest, layout.pack_index, evaluate / "predictions.parquet", evaluate / "figures.json"]
    lacking = [path for path in paths if not path.is_file()]
    if lacking:
        raise InputError(f"{lacking[0]} does not exist: run `miwake run`, or `dvc checkout`")
    return digest_of(paths)


def _commit(root: Path) -> str:
    try:
        return git("-C", str(root), "rev-parse", "HEAD").strip()
    except InputError:  # no repository, or no commit yet
        return ""


def _threshold(coverage: Mapping[str, Any]) -> Threshold | None:
    """None where no confidence reaches the wished precision."""
    if coverage["threshold"] is None:
        return None
    found = coverage["at_threshold"]
    return Threshold(
        value=coverage["threshold"],
        wished_precision=coverage["wished_precision"],
        precision=Interval(**found["accuracy"]) if found["accuracy"] else None,
        coverage=Interval(**found["coverage"]),
    )


def _read_strangers(path: Path, figures: Mapping[str, Any]) -> StrangerTest | None:
    """None where evaluate could not fit it."""
    from pipelines.evaluate.strangers import METHOD, read_scorer

    scorer = read_scorer(path) if path.is_file() else None
    if scorer is None:
        return None
    measured = figures.get("strangers")
    return StrangerTest(
        file=STRANGERS,
        member=scorer.member,
        threshold=scorer.threshold,
        method=METHOD,
        false_rate=measured["num_test_flagged"] / figures["num_images"] if measured else None,
    )


def _read_factors(
    layout: Layout, classes: list[str], members: list[ModelMember], figures: Mapping[str, Any]
) -> JoinedFactors | None:
    """None where all members tell labels."""
    if all(member.target == LABEL for member in members):
        return None
    from pipelines.evaluate.members import read_factors

    known = read_factors(layout.pack_index, classes)
    # no recipe has a space in its name, and this has
    (name,) = figures["members"].keys() - {member.name for member in members}
    return JoinedFactors(
        name=name,
        names=tuple(known.names),
        labels=tuple(known.labels.items()),
        weight=figures["members"][name]["weight"],
        temperature=figures["members"][name]["temperature"],
    )


def _licences(layout: Layout) -> dict[str, int]:
    used = set(read_table(layout.pack_index, PACK_INDEX, columns=["image_id"])["image_id"].to_pylist())
    table = read_table(layout.manifest, DEDUPED, columns=["image_id", "license"])
    of_picture = dict(zip(table["image_id"].to_pylist(), table["license"].to_pylist(), strict=True))
    found = Counter(canonical_license(text or "") for image_id, text in of_picture.items() if image_id in used)
    return dict(sorted(found.items()))

"""Every cure that validate prints is taken as it is printed, and then the rule holds."""

import csv
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from dedupe_inputs import File, drawn, jpeg, params, png, write_ingest
from PIL import ImageOps
from test_validate import LIMITED, PARAMS, entries

from pipelines.core.errors import BrokenRulesError
from pipelines.core.tables import MANIFEST, read_table, rows, write_table
from pipelines.dedupe import dedupe
from pipelines.params import load_params
from pipelines.params.augment import policy_of
from pipelines.params.validate import CountRule, FormatRule, FractionRule, LicenseRule, RatioRule
from pipelines.validate import validate
from pipelines.validate.frames import REJECT_COLUMNS
from pipelines.validate.rules import build_rules

OFF: dict[str, Any] = {name: getattr(PARAMS, name).model_copy(update={"limit": None}) for name in LIMITED}
GOOD = [File("cat" if seed < 6 else "dog", f"{seed:02}.jpg", jpeg(drawn(seed, 96))) for seed in range(12)]
ODD = [File("cat", "odd, one.jpg", jpeg(drawn(90, 96))), File("cat", "odd copy.jpg", jpeg(drawn(90, 96), 60))]
BOTH = drawn(91, 96)
MIRRORED = [
    File(label, f"{label}{seed}.png", png(picture))
    for seed in (80, 81, 82)
    for label, picture in (("left", drawn(seed, 96)), ("right", ImageOps.mirror(drawn(seed, 96))))
]
MIRRORING = ["augment.policies.standard.hflip: 0", "train.recipes.linear_probe.tta: without hflip"]


@dataclass(frozen=True)
class Broken:
    """What breaks a rule.

    Args:
        odd: values of the manifest's row of each of the files of ODD, which are there if it has any.
        limits: validate's.
    """

    rule: str
    limits: dict[str, Any]
    odd: dict[str, Any] = field(default_factory=dict)
    files: tuple[File, ...] = ()
    name: str = ""


def low(name: str, limit: float, **odd: Any) -> Broken:
    return Broken(name, {name: RatioRule(limit=limit, severity="warn")}, odd)


def share(name: str, limit: float, *files: File, named: str = "", **odd: Any) -> Broken:
    return Broken(name, {name: FractionRule(limit=limit, severity="warn")}, odd, files, named)


def classes(limit: int, *files: File, named: str = "") -> Broken:
    limits = {"min_images_per_class": CountRule(limit=limit, severity="error")}
    return Broken("min_images_per_class", limits, files=files, name=named)


SMALL = (File("cat", "small.jpg", jpeg(drawn(92, 24))), File("cat", "small copy.jpg", jpeg(drawn(92, 24), 60)))
NEAR = (File("cat", "a.jpg", jpeg(BOTH)), File("dog", "b.jpg", jpeg(BOTH, 60)))
EXACT = (File("cat", "a.jpg", jpeg(BOTH)), File("dog", "b.jpg", jpeg(BOTH)))
OWLS = tuple(File("owl", f"owl{seed}.jpg", jpeg(drawn(seed, 96))) for seed in (93, 94))
TORN = tuple(
    File(label, f"{label}{seed}.jpg", jpeg(drawn(seed, 96), quality))
    for seed in (95, 96)
    for label, quality in (("owl", 92), ("cat", 60))
)
SPELLED = tuple(File("Cat", one.path, one.data) for one in OWLS)
CASES = [
    Broken("formats", {"formats": FormatRule(allowed=("JPEG",), severity="warn")}, {"format": "GIF"}),
    Broken("licenses", {"licenses": LicenseRule(allowed=("cc0-1.0",), severity="error")}, {"license": "CC BY-NC 4.0"}),
    Broken("provenance", {"provenance": "warn"}, {"url": ""}),
    Broken("min_side", {"min_side": CountRule(limit=32, severity="warn")}, files=SMALL),
    low("max_aspect", 4.0, aspect=9.0),
    low("min_bytes_per_pixel", 0.03, bytes_per_pixel=0.01),
    low("min_contrast", 2.0, contrast=0.5),
    low("min_sharpness", 20.0, sharpness=1.0),
    low("min_brightness", 10.0, brightness=2.0),
    low("max_brightness", 250.0, brightness=254.0),
    low("min_entropy", 0.5, entropy=0.1),
    share("max_greyscale_fraction", 0.0, greyscale=True),
    share("max_transparent_fraction", 0.0, transparent=True),
    share("max_unassigned_fraction", 0.0, given_subset=""),
    share("max_conflict_fraction", 0.05, *NEAR, named="near"),
    share("max_conflict_fraction", 0.05, *EXACT, named="exact"),
    share("max_conflict_fraction", 0.05, *MIRRORED, named="mirrored"),
    Broken("label_text", {}, files=tuple(File("owl ", one.path, one.data) for one in OWLS)),
    Broken("label_look_alikes", {"label_look_alikes": "error"}, files=SPELLED),
    classes(3, *OWLS, named="small"),
    classes(2, *TORN, named="torn"),
    classes(2, *MIRRORED, named="mirrored"),
    share("max_near_duplicate_fraction", 0.0, *NEAR[:1], File("cat", "b.jpg", NEAR[1].data)),
]  # fmt: skip


@dataclass
class Project:
    """A folder with data/ingest and data/decisions, and dedupe and validate run in it."""

    root: Path
    broken: Broken
    dedupe_params: dict[str, Any] = field(default_factory=dict)

    def write(self) -> None:
        ingest = write_ingest(self.root / "data/ingest", self.files)
        table = rows(read_table(ingest / "manifest.parquet", MANIFEST))
        usual: dict[str, Any] = {
            "sharpness": 300.0,
            "entropy": 6.0,
            "aspect": 1.5,
            "bytes_per_pixel": 0.2,
            "greyscale": False,
        }
        usual |= {"transparent": False, "license": "CC0-1.0", "url": "https://a.example/1.jpg", "given_subset": "train"}
        usual |= {"brightness": 100.0, "contrast": 40.0}
        for row in table:
            row |= usual | (self.broken.odd if row["source_path"].startswith("odd") else {})
        write_table(pa.Table.from_pylist(table, schema=MANIFEST), ingest / "manifest.parquet")
        with (ingest / "rejected.csv").open("w", newline="") as file:
            csv.writer(file).writerow(REJECT_COLUMNS)
        shutil.copytree(Path(__file__).parents[1] / "data/decisions", self.root / "data/decisions")

    @property
    def files(self) -> list[File]:
        return [*GOOD, *(ODD if self.broken.odd else ()), *self.broken.files]

    def run(self, capfd: pytest.CaptureFixture[str]) -> str:
        """What the rule's message says; "" where it holds."""
        data = self.root / "data"
        dedupe(
            params(**self.dedupe_params),
            root=self.root,
            cache=self.root / "cache",
            ingest_dir=data / "ingest",
            decisions_dir=data / "decisions",
            out_dir=data / "dedupe",
        )
        changes = OFF | {"label_look_alikes": "off"} | self.broken.limits
        capfd.readouterr()
        try:
            validate(
                PARAMS.model_copy(update=changes),
                manifest=data / "dedupe/manifest.parquet",
                rejects=data / "ingest/rejected.csv",
                out_dir=data / "validate",
                mirroring=MIRRORING,
            )
            message = capfd.readouterr().err
        except BrokenRulesError as error:
            message = str(error)
        assert bool(message) != entries(data)[self.broken.rule]["success"]
        return message


def chosen(path: Path) -> None:
    """Leave one line of each picture, as a person would; the first is as good as any."""
    lines = path.read_text(encoding="utf-8").splitlines()
    best: dict[str, str] = {}
    for line in lines:
        best.setdefault(line[:12], line)
    path.write_text("\n".join(best.values()) + "\n", encoding="utf-8")


def cures_of(message: str) -> Iterator[tuple[str, Callable[[Project], None]]]:
    """Each cure of a message, and how it is taken."""

    def appended(command: str, choose: bool) -> Callable[[Project], None]:
        def take(project: Project) -> None:
            if choose:
                chosen(project.root / command.split()[1])
            subprocess.run(["bash", "-c", command], cwd=project.root, check=True)

        return take

    def written(file: str, line: str) -> Callable[[Project], None]:
        def take(project: Project) -> None:
            with (project.root / file).open("a", encoding="utf-8") as lines:
                lines.write(f"{line}\n")

        return take

    def switched(key: str) -> Callable[[Project], None]:
        return lambda project: project.dedupe_params.update({key: False})

    for line in message.splitlines():
        if found := re.search(r"to cure it.*`(cat \S+\.(\w+)\.csv >> data/decisions/\2\.csv)`", line):
            yield found[2], appended(found[1], "right line" in line)
        if found := re.search(r"(data/decisions/drop.csv): `([^`]+)`", line):
            yield "line", written(found[1], found[2])
        for key in re.findall(r"set dedupe\.(\w+): false", line):
            yield key, switched(key)


EXPECTED = {
    "min_images_per_class-small": ["drop"],
    "min_images_per_class-torn": ["drop", "keep", "relabel"],
    "min_images_per_class-mirrored": ["drop", "keep", "mirror", "relabel"],
    "max_conflict_fraction-near": ["drop", "keep", "relabel"],
    "max_conflict_fraction-exact": ["drop", "relabel"],
    "max_conflict_fraction-mirrored": ["drop", "keep", "mirror", "relabel"],
    "label_text": ["relabel"],
    "label_look_alikes": ["relabel"],
    "max_near_duplicate_fraction": [],
    "max_greyscale_fraction": ["drop"],
    "max_transparent_fraction": ["drop"],
}
"""by rule and name of the case; all others have a ready file of drops, and a line that is shown"""


def case_name(case: Broken) -> str:
    return f"{case.rule}-{case.name}" if case.name else case.rule


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_every_cure_that_is_printed_cures(
    tmp_path: Path, case: Broken, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    project = Project(tmp_path / "before", case)
    project.write()
    monkeypatch.chdir(project.root)
    message = project.run(capfd)
    assert f"{case.rule}: " in message
    found = list(cures_of(message))
    assert sorted(name for name, _ in found) == EXPECTED.get(case_name(case), ["drop", "line"])
    for number, (name, take) in enumerate(found):
        again = Project(tmp_path / str(number), case)
        shutil.copytree(project.root, again.root)
        monkeypatch.chdir(again.root)
        take(again)
        assert again.run(capfd) == "", name


def test_mirrored_classes_are_told_of_dedupe_mirror_and_flip_and_not_to_add_pictures(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    project = Project(tmp_path, classes(2, *MIRRORED))
    project.write()
    monkeypatch.chdir(project.root)
    message = project.run(capfd)
    assert (
        "what helps: 6 pictures of 'left' and 'right' are held, since they stand under other labels too: 3 of 3 pairs "
        "are mirror images: where left and right tell classes apart, set dedupe.mirror: false, and for training "
        "augment.policies.standard.hflip: 0 and train.recipes.linear_probe.tta: without hflip; else say which label "
    ) in message
    assert "add pictures" not in message


def test_what_mirrors_in_training_is_named_for_the_members_that_are_trained() -> None:
    whole = load_params(Path(__file__).with_name("whole_params.yaml"))
    assert whole.mirroring == ["train.recipes.linear_probe.tta: without hflip"]
    full = whole.train.recipes["finetune"].model_copy(
        update={"tta": ("original", "center_crop_hflip"), "augmentation": "flip"}
    )
    policies = {"flip": policy_of(hflip=0.5), "other": policy_of(hflip=0.5)}
    changed = whole.model_copy(
        update={
            "train": whole.train.model_copy(update={"members": ("full",), "recipes": {"full": full}}),
            "augment": whole.augment.model_copy(update={"policies": policies}),
        }
    )
    assert changed.mirroring == ["augment.policies.flip.hflip: 0", "train.recipes.full.tta: without hflip"]


def test_every_rule_with_a_ready_cure_has_a_case() -> None:
    on: dict[str, Any] = {"licenses": LicenseRule(allowed=("cc0-1.0",), severity="warn"), "provenance": "warn"}
    on |= {name: getattr(PARAMS, name).model_copy(update={"limit": 1}) for name in LIMITED}
    rules = build_rules(PARAMS.model_copy(update=on | {"formats": CASES[0].limits["formats"]}))
    assert {rule.name for rule in rules if rule.drop} <= {case.rule for case in CASES}

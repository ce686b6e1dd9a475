"""The paths of a project, below one root. No other module spells a path of data/."""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Protocol

OUTPUTS = ("ingest", "dedupe", "validate", "split", "augment", "train", "students", "evaluate", "report")
"""the stages of dvc.yaml that write a folder of data/, which has their name; DVC deletes it before it runs one"""


def repro_of(path: Path) -> str:
    """The command that makes `path`, a file that a stage writes: `dvc repro` and the name of that stage."""
    above = pairwise(path.absolute().parts)
    return " ".join(["dvc repro", *[name for data, name in above if data == "data" and name in OUTPUTS][-1:]])


class Trained(Protocol):
    """The part of params.train that paths depend on."""

    @property
    def students(self) -> tuple[str, ...]: ...
    @property
    def all_members(self) -> tuple[str, ...]: ...
    @property
    def folds(self) -> tuple[int, ...]: ...


@dataclass(frozen=True)
class Layout:
    """The paths of one pipeline.

    Args:
        root: the folder that holds params.yaml and data/; the working folder when DVC runs a stage.
    """

    root: Path

    @property
    def params(self) -> Path:
        return self.root / "params.yaml"

    @property
    def resolved(self) -> Path:
        """Every value of params.yaml and of the defaults, which the stage `params` writes and all others read."""
        return self.root / "data" / "params.yaml"

    @property
    def decisions(self) -> Path:
        return self.root / "data" / "decisions"

    @property
    def cache(self) -> Path:
        """Features, downloads and the like, keyed by content: deleting it changes no result."""
        return self.root / ".miwake"

    @property
    def latency(self) -> Path:
        """What `miwake latency` measured: of this machine, and so in no output of DVC."""
        return self.cache / "latency.json"

    def stage(self, name: str) -> Path:
        """The folder that stage `name` writes."""
        return self.root / "data" / name

    @property
    def outputs(self) -> list[Path]:
        return [self.stage(name) for name in OUTPUTS]

    # what stages hand to each other ----------------------------------------------------------

    @property
    def ingest_manifest(self) -> Path:
        return self.stage("ingest") / "manifest.parquet"

    @property
    def thumbnails(self) -> Path:
        return self.stage("ingest") / "thumbnails.npy"

    @property
    def rejects(self) -> Path:
        return self.stage("ingest") / "rejected.csv"

    @property
    def truth(self) -> Path:
        """What the sample source planted; absent for real pictures."""
        return self.stage("ingest") / "truth.csv"

    @property
    def manifest(self) -> Path:
        """The manifest after dedupe: what every later stage reads."""
        return self.stage("dedupe") / "manifest.parquet"

    @property
    def duplicates(self) -> Path:
        return self.stage("dedupe") / "duplicates.csv"

    @property
    def expectations(self) -> Path:
        return self.stage("validate") / "expectations.json"

    @property
    def splits(self) -> Path:
        return self.stage("split") / "splits.parquet"

    @property
    def pack_index(self) -> Path:
        return self.stage("augment") / "index.parquet"

    def member(self, train: Trained, member: str, fold: int) -> Path:
        """The folder that training `member` on `fold` writes; students have one that their teachers are not in."""
        return self.stage("students" if member in train.students else "train") / f"{member}-{fold}"

    def members(self, train: Trained) -> dict[tuple[str, int], Path]:
        """The folder of every member and fold that params name: members, then students, fold by fold."""
        return {
            (member, fold): self.member(train, member, fold) for member in train.all_members for fold in train.folds
        }

"""The registry of models: versions and the stages `champion` and `challenger`, as annotated git tags.

The tags are GTO's (`gto show model`): `model@v2.0.0` is a version, `model#champion#3` the third change of a stage. The
message of a tag says why, in words and in the numbers of the gate. A version's bytes are those of its commit's
dvc.lock; `.miwake/models/<version>/` is a model folder made of them, verified by their digests, which `miwake predict`
uses while the version is the champion.

Nothing here touches the user's tree, index or branch.
"""

import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ruamel.yaml import YAML

from pipelines.core.errors import InputError
from pipelines.core.git import git
from pipelines.core.layout import Layout
from pipelines.params import load_params
from pipelines.use.experiments import IDENTITY, remove_worktree, worktree

if TYPE_CHECKING:
    from pipelines.use.gate import Run

NAME = "model"
RegistryStage = Literal["champion", "challenger"]
PARTS = ("data/augment/index.parquet", "data/dedupe/manifest.parquet", "data/validate/expectations.json")
"""what of a run `read_model` and the gate read, of what DVC keeps, beside members and data/evaluate"""
_VERSION = re.compile(rf"{NAME}@v(\d+)\.0\.0$")


@dataclass(frozen=True)
class Version:
    """A registered model.

    Args:
        name: "v2.0.0".
        commit: 40 hex digits.
        message: of its tag.
    """

    name: str
    commit: str
    message: str

    @property
    def tag(self) -> str:
        return f"{NAME}@{self.name}"


def versions(root: Path) -> list[Version]:
    """All of them, the oldest first; none where there is no git."""
    tags = [(_VERSION.match(tag), commit, message) for tag, commit, message in _tags(root, f"{NAME}@*")]
    found = sorted((int(hit[1]), commit, message) for hit, commit, message in tags if hit)
    return [Version(f"v{number}.0.0", commit, message) for number, commit, message in found]


def history(root: Path, stage: RegistryStage) -> list[Version]:
    """The versions that a stage can go back to, its own last: one that was rolled back from is left out."""
    known = {version.commit: version for version in versions(root)}
    tags = [(int(tag.rpartition("#")[2]), commit) for tag, commit, _ in _tags(root, f"{NAME}#{stage}#*")]
    found: list[Version] = []
    for _, commit in sorted(tags):
        if commit not in known:
            continue
        if len(found) > 1 and found[-2].commit == commit:
            found.pop()
        elif not found or found[-1].commit != commit:
            found.append(known[commit])
    return found


def _last(found: list[Version]) -> Version | None:
    return found[-1] if found else None


def champion(root: Path) -> Version | None:
    return _last(history(root, "champion"))


def challenger(root: Path) -> Version | None:
    return _last(history(root, "challenger"))


def champion_model(root: Path) -> Path | None:
    """The model folder of the champion; None where there is no champion, or its bytes are not here."""
    version = champion(root)
    folder = None if version is None else model_folder(root, version)
    return folder if folder is not None and (folder / "model.json").is_file() else None


def model_folder(root: Path, version: Version) -> Path:
    return root / ".miwake" / "models" / version.name


def find(root: Path, name: str) -> Version:
    """A version by its name, v2.0.0 or v2 or 2.

    Raises:
        InputError: there is none.
    """
    known = versions(root)
    number = name.removeprefix(f"{NAME}@").removeprefix("v").partition(".")[0]
    for version in known:
        if version.name == f"v{number}.0.0":
            return version
    have = (
        ", ".join(version.name for version in known) or "none yet: `miwake champion promote` registers the last commit"
    )
    raise InputError(f"no version {name}; there are {have}")


def register(root: Path, commit: str, message: str) -> Version:
    """The version of a commit, made where it has none yet.

    Raises:
        InputError: there is no such commit, or it holds no finished run.
    """
    full = git("rev-parse", "--verify", f"{commit}^{{commit}}", cwd=root).strip()
    known = versions(root)
    for version in known:
        if version.commit == full:
            return version
    lock = _lock(root, full)
    if "evaluate" not in lock.get("stages", {}):
        raise InputError(f"{commit} holds no finished run, for its dvc.lock has no evaluate: `miwake run`, then commit")
    number = max((int(version.name[1:].partition(".")[0]) for version in known), default=0) + 1
    version = Version(f"v{number}.0.0", full, message)
    _tag(root, version.tag, full, message)
    return version


def assign(root: Path, version: Version, stage: RegistryStage, message: str) -> None:
    """Give a stage to a version; nothing where it has it already."""
    if _last(history(root, stage)) == version:
        return
    numbers = [int(tag.rpartition("#")[2]) for tag, _, _ in _tags(root, f"{NAME}#*")]
    _tag(root, f"{NAME}#{stage}#{max(numbers, default=0) + 1}", version.commit, message)


def promote(root: Path, version: Version, message: str) -> Path:
    """Make `version` the champion: its bytes first, then the tag. Its model folder.

    Raises:
        InputError: its bytes are neither here nor in the remote, or are not those of its dvc.lock.
    """
    folder = restore(root, version)
    assign(root, version, "champion", message)
    return folder


def rollback(root: Path, message: str) -> tuple[Version, Version]:
    """Make the version champion that was it before: (the one that was, the one that is). Twice goes two back.

    Raises:
        InputError: there is none before, or its bytes cannot be had; the champion stays.
    """
    found = history(root, "champion")
    if len(found) < 2:
        only = f"{found[0].name} is the first champion" if found else "there is no champion yet"
        raise InputError(f"{only}: there is none to go back to; `miwake champion promote VERSION` names one")
    promote(root, found[-2], message)
    return found[-1], found[-2]


def restore(root: Path, version: Version) -> Path:
    """The model folder of a version, made anew from DVC's cache or remote, whole or not at all.

    Raises:
        InputError: a file is in neither, or its bytes are not those of the commit's dvc.lock.
    """
    from pipelines.use.model_folder import read_model, write_model

    folder = model_folder(root, version)
    fresh = folder.with_name(f"{version.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    place = f"model-{version.name}"
    remove_worktree(
        root, root / ".miwake" / "worktrees" / place
    )  # what failed may have left damaged files, old remotes
    with worktree(root, place, version.commit) as inner:
        fetch(inner, version.name)
        write_model(read_model(inner), fresh)
    shutil.rmtree(folder, ignore_errors=True)
    fresh.replace(folder)
    return folder


def read_run(root: Path, version: Version) -> "Run":
    """What the gate reads of a version, from cache or remote.

    Raises:
        InputError: as `restore`.
    """
    import pyarrow.parquet as pq

    from pipelines.use.gate import Run

    with worktree(root, f"model-{version.name}", version.commit) as inner:
        fetch(inner, version.name)
        layout = Layout(inner)
        figures = json.loads((layout.stage("evaluate") / "figures.json").read_text(encoding="utf-8"))
        rules = json.loads(layout.expectations.read_text(encoding="utf-8")) if layout.expectations.is_file() else {}
        predictions = pq.read_table(layout.stage("evaluate") / "predictions.parquet")
        return Run(predictions, pq.read_table(layout.pack_index), figures, rules.get("rules", ()))


def fetch(inner: Path, name: str) -> None:
    """Bring PARTS of a worktree's commit from cache or remote, and verify them against its dvc.lock.

    Args:
        name: of what is fetched, for messages.
    """
    layout = Layout(inner)
    lock = YAML(typ="safe", pure=True).load((inner / "dvc.lock").read_text(encoding="utf-8"))
    # dvc.lock keeps stages that dvc.yaml no longer has: members that once were
    members = [folder.relative_to(inner) for folder in layout.members(load_params(layout.resolved).train).values()]
    parts = (*PARTS, *(folder.as_posix() for folder in members))
    outs = [out for stage in lock["stages"].values() for out in stage.get("outs", [])]
    stored, targets = [], set()
    for out in outs:
        path = out["path"]
        inside = [part for part in parts if part == path or part.startswith(f"{path}/")]
        if (inside or path.startswith("data/evaluate/")) and not _in_git(inner, path):
            stored.append(out)
            targets |= set(inside or [path])
    cache = inner / _dvc_out(inner, "cache", "dir").strip()
    said = _dvc(inner, "checkout", "--force", *targets)
    bad = _damaged(inner, cache, stored, targets)
    if said or bad:
        has_remote = bool(_dvc_out(inner, "remote", "list").strip())
        for path, digest in bad.items():  # DVC takes a damaged object, and a file made of it, for the right one
            if (inner / path).is_file():
                (inner / path).unlink()
            stored_as = _object(cache, digest)
            if has_remote and stored_as.is_file() and _md5(stored_as) != digest.removesuffix(".dir"):
                stored_as.unlink()
        said = _dvc(inner, "pull", "--force", *targets) if has_remote else said or "there is no remote to pull from"
        bad = _damaged(inner, cache, stored, targets)
    if said or bad:
        what = f"{next(iter(bad))} is missing or not as dvc.lock has it" if bad else "its files cannot be had"
        raise InputError(
            f"the bytes of {name} are not to be had: {what} ({said.splitlines()[-1] if said else 'from the remote'}); "
            "`dvc push` where they are, then this again"
        )


def _damaged(inner: Path, cache: Path, outs: Sequence[dict[str, Any]], targets: Collection[str]) -> dict[str, str]:
    """The files that are missing or not as dvc.lock has them, and the md5 that it has."""
    return {
        path: digest
        for path, digest in _files(cache, outs)
        if path.startswith(tuple(targets)) or digest.endswith(".dir")
        if not (inner / path).is_file() or _md5(inner / path) != digest
    }


def _files(cache: Path, outs: Sequence[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """Path and md5 of each file of outs; a folder that cannot be listed counts as a file that is missing."""
    for out in outs:
        listing = _object(cache, out["md5"])
        is_listed = out["md5"].endswith(".dir") and listing.is_file() and _md5(listing) == out["md5"][:-4]
        if not is_listed:
            yield out["path"], out["md5"]
        else:
            for one in json.loads(listing.read_text(encoding="utf-8")):
                yield f"{out['path']}/{one['relpath']}", one["md5"]


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _object(cache: Path, digest: str) -> Path:
    return cache / "files" / "md5" / digest[:2] / digest[2:]


def _in_git(inner: Path, path: str) -> bool:
    return bool(git("ls-files", "--", path, cwd=inner).strip()) and (inner / path).is_file()


def _dvc(inner: Path, *words: str) -> str:
    """Run dvc; "" where it went well, else what it said."""
    done = subprocess.run([sys.executable, "-m", "dvc", *words], cwd=inner, capture_output=True, text=True)
    return (done.stderr.strip() or f"status {done.returncode}") if done.returncode else ""


def _dvc_out(inner: Path, *words: str) -> str:
    return subprocess.run([sys.executable, "-m", "dvc", *words], cwd=inner, capture_output=True, text=True).stdout


def _lock(root: Path, commit: str) -> dict[str, Any]:
    prefix = git("rev-parse", "--show-prefix", cwd=root).strip()
    try:
        return dict(YAML(typ="safe", pure=True).load(git("show", f"{commit}:{prefix}dvc.lock", cwd=root)) or {})
    except InputError:
        return {}


def _tags(root: Path, pattern: str) -> list[tuple[str, str, str]]:
    """Name, commit and message of the tags of a pattern; none where there is no repository."""
    form = "%(refname:strip=2)%09%(*objectname)%(if)%(*objectname)%(then)%(else)%(objectname)%(end)%09%(contents)%00"
    try:
        text = git("for-each-ref", f"--format={form}", f"refs/tags/{pattern}", cwd=root)
    except InputError:
        return []
    rows = [row.strip("\n").split("\t", 2) for row in text.split("\0")]
    return [(row[0], row[1], row[2].strip()) for row in rows if len(row) == 3]


def _tag(root: Path, tag: str, commit: str, message: str) -> None:
    git(*identity(root), "tag", "--annotate", "--cleanup=verbatim", "-m", message, tag, commit, cwd=root)


def identity(root: Path) -> tuple[str, ...]:
    """Words for git where the user has no name: miwake's; none where there is one."""
    done = subprocess.run(["git", "var", "GIT_COMMITTER_IDENT"], cwd=root, capture_output=True, check=False)
    return IDENTITY if done.returncode else ()

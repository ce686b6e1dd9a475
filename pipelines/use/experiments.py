"""Experiments: a run with other params in a git worktree of its own, kept as an experiment of DVC.

The user's tree, index and params.yaml stay as they are. The worktree lies in `.miwake/worktrees/`, has the state of the
user's tracked files (edits too), DVC's cache and the caches of `.miwake`, so that nothing is computed twice, and is
removed when the run is done. One that failed or was killed stays, and the same command goes on in it.
"""

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from configparser import ConfigParser
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipelines.core.errors import InputError, ParamsError
from pipelines.core.files import write_text
from pipelines.core.git import committed_text, git
from pipelines.core.layout import Layout
from pipelines.core.tables import PACK_INDEX, read_table
from pipelines.evaluate.change import ID_DIGITS, Answer, change
from pipelines.params import Params, load_params
from pipelines.report.compare import ComparedRun, read_run
from pipelines.use.running import Show, StageLine, repro

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
KEPT = ("dvc.lock", "params.yaml", "data")
"""what of a finished worktree an experiment holds, beside files that git tracks already"""
IDENTITY = ("-c", "user.name=miwake", "-c", "user.email=miwake@localhost")
"""of the commits of experiments, which are in no branch"""


@dataclass(frozen=True)
class Experiment:
    """An experiment on top of a commit.

    Args:
        name: as `dvc exp show` has it.
        ref: that `git show` understands.
        overrides: "a.b=c", as they were given.
        seconds: that its run took, restored stages included; 0 where it was made by `dvc exp run`.
    """

    name: str
    ref: str
    overrides: tuple[str, ...]
    seconds: float


def default_name(overrides: Sequence[str]) -> str:
    """ "split.folds=5" is folds-5."""
    words = [re.sub(r"[^A-Za-z0-9._]+", "-", text.partition("=")[0].rpartition(".")[2] + "-" + text.partition("=")[2]) for text in overrides]  # fmt: skip # noqa: E501
    return "-".join(word.strip("-.") for word in words)[:100] or "again"


def override(path: Path, overrides: Sequence[str]) -> Params:
    """Set keys of a params.yaml, written there or not, and check the whole.

    Args:
        overrides: "a.b=c", the value as YAML has it.

    Raises:
        ParamsError: one is no such text, or what comes out breaks a rule of the params; the file is as it was.
    """
    text = path.read_text(encoding="utf-8")
    yaml = YAML()
    document = yaml.load(text)
    for one in overrides:
        key, equals, value = one.partition("=")
        names = key.strip().removeprefix("+").split(".")
        if not equals or not all(names):
            raise ParamsError(f"-S {one!r} sets nothing: write key=value, such as split.folds=5")
        place: Any = document
        for name in names[:-1]:
            if not isinstance(place.get(name), Mapping):
                place[name] = {}
            place = place[name]
        try:
            place[names[-1]] = YAML(typ="safe", pure=True).load(value)
        except YAMLError as error:
            raise ParamsError(f"-S {one!r}: {value!r} is no value of YAML: put it in quotes") from error
    with path.open("w", encoding="utf-8") as file:
        yaml.dump(document, file)
    try:
        return load_params(path)
    except ParamsError:
        write_text(path, text)
        raise


@contextmanager
def worktree(root: Path, name: str, base: str | None = None) -> Iterator[Path]:
    """The project in a worktree of its own, which goes when the block ends without an error.

    Args:
        root: the project, in a git repository with a commit.
        name: of the folder; one that was left there by a run of the same state is taken up again.
        base: a commit; the user's tracked files as they are, edits too, without it.

    Raises:
        InputError: there is no repository or no commit.
    """
    if committed_text(root / "dvc.yaml") is None:
        raise InputError(
            f"{root} has no commit with dvc.yaml, which experiments begin with: `git add -A && git commit`"
        )
    base = base or git("stash", "create", cwd=root).strip() or git("rev-parse", "HEAD", cwd=root).strip()
    folder = root / ".miwake" / "worktrees" / name
    inner = folder / git("rev-parse", "--show-prefix", cwd=root).strip()
    if not _same_state(folder, base):
        remove_worktree(root, folder)
        git("worktree", "add", "--quiet", "--detach", str(folder), base, cwd=root)
        _share(root, inner)
    yield inner
    remove_worktree(root, folder)


def _same_state(folder: Path, base: str) -> bool:
    if not (folder / ".git").is_file():
        return False
    try:
        here, there = (git("rev-parse", f"{one}^{{tree}}", cwd=folder) for one in ("HEAD", base))
    except InputError:
        return False
    return here == there


def remove_worktree(root: Path, folder: Path) -> None:
    """Remove it, whole or half made."""
    if folder.exists():
        shutil.rmtree(folder)
    git("worktree", "prune", cwd=root)


def _share(root: Path, inner: Path) -> None:
    """Let the worktree use the caches of the project, and find sources that git does not track."""
    words = [sys.executable, "-m", "dvc", "cache", "dir"]
    found = subprocess.run(words, cwd=root, capture_output=True, text=True, encoding="utf-8", check=False)
    if found.returncode:
        raise InputError(f"dvc cache dir: {found.stderr.strip()}")
    # today's settings, remotes too, whichever commit stands there
    config = ConfigParser(interpolation=None)
    config.read([root / ".dvc" / "config", root / ".dvc" / "config.local"], encoding="utf-8")
    for section in config.sections():
        url = config.get(section, "url", fallback="")
        if section.strip("'").startswith("remote ") and url and "://" not in url:
            config.set(section, "url", str((root / ".dvc" / url).resolve()))
    config.read_dict({"cache": {"dir": str(root / found.stdout.strip())}})
    with (inner / ".dvc" / "config.local").open("w", encoding="utf-8") as file:
        config.write(file)
    (inner / ".miwake").symlink_to((root / ".miwake").resolve(), target_is_directory=True)
    for source in load_params(Layout(root).params).ingest.sources:
        for path in (getattr(source, name, None) for name in ("path", "root")):
            if path is None or path.startswith(("~", "$")) or Path(path).is_absolute():
                continue
            first = Path(path).parts[:1]
            if first and first[0] not in (".", "..") and not (inner / first[0]).exists() and (root / first[0]).exists():
                (inner / first[0]).symlink_to((root / first[0]).resolve())


def keep(root: Path, inner: Path, name: str, *, overrides: Sequence[str], seconds: float) -> str:
    """Keep the state of a finished worktree as experiment `name` on the user's commit; its ref."""
    head = git("rev-parse", "HEAD", cwd=root).strip()
    git("add", "--update", cwd=inner)
    git("add", "--all", "--", *(one for one in KEPT if (inner / one).exists()), cwd=inner)
    tree = git("write-tree", cwd=inner).strip()
    message = json.dumps({"overrides": list(overrides), "seconds": round(seconds, 1)}, ensure_ascii=False)
    words = ("commit-tree", tree, "-p", head, "-m", f"miwake: experiment {name}\n\n{message}")
    commit = git(*IDENTITY, *words, cwd=root).strip()
    ref = f"refs/exps/{head[:2]}/{head[2:]}/{name}"  # where DVC looks for them
    git("update-ref", ref, commit, cwd=root)
    return ref


def experiments(root: Path, *, base: str = "HEAD") -> list[Experiment]:
    """Those on a commit, by name."""
    head = git("rev-parse", base, cwd=root).strip()
    prefix = f"refs/exps/{head[:2]}/{head[2:]}/"
    found = []
    for ref in git("for-each-ref", "--format=%(refname)", prefix, cwd=root).splitlines():
        body = git("log", "-1", "--format=%b", ref, cwd=root).strip()
        about = json.loads(body) if body.startswith("{") else {}
        found.append(
            Experiment(ref.removeprefix(prefix), ref, tuple(about.get("overrides", ())), about.get("seconds", 0.0))
        )
    return found


def revision(root: Path, name: str) -> str:
    """What git understands: the name itself, or the ref of the experiment of that name, the newest first.

    Raises:
        InputError: it is neither.
    """
    done = subprocess.run(
        ["git", "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}"], cwd=root, capture_output=True, check=False
    )
    if done.returncode == 0:
        return name
    refs = git("for-each-ref", "--sort=-committerdate", "--format=%(refname)", "refs/exps", cwd=root).splitlines()
    same = [ref for ref in refs if ref.rpartition("/")[2] == name]
    if not same:
        known = ", ".join(dict.fromkeys(ref.rpartition("/")[2] for ref in refs if ref.count("/") == 4)) or "none"
        raise InputError(f"{name} is neither a commit nor an experiment: see `git log`; experiments: {known}")
    return same[0]


def run(root: Path, name: str, overrides: Sequence[str], show: Show) -> list[StageLine]:
    """Run the pipeline with other params, and keep what comes out as experiment `name` on the user's commit.

    Raises:
        ParamsError: an override breaks a rule; nothing ran.
        InputError: a stage failed, or there is no commit.
    """
    if not NAME.fullmatch(name):
        raise InputError(f"{name!r} cannot name an experiment: use letters, digits, dots, dashes, 100 at most")
    started = time.monotonic()
    with worktree(root, name) as inner:
        git("checkout", "--quiet", "HEAD", "--", "params.yaml", cwd=inner)
        override(inner / "params.yaml", overrides)
        stages = repro(inner, [], show)
        keep(root, inner, name, overrides=overrides, seconds=time.monotonic() - started)
    return stages


# Comparing ---------------------------------------------------------------------------------------

HEADER = ("experiment", "accuracy", "change, points", "pictures in both", "verdict", "seconds", "set")


def table(root: Path, found: Sequence[Experiment], *, base: str = "HEAD") -> list[tuple[str, ...]]:
    """A row under HEADER for the commit, where it holds a run, and one for each experiment: paired with the commit.

    The change is that of accuracy on the test pictures that both have, with its interval over groups of duplicates:
    better or worse only where the interval leaves out zero.
    """
    groups = _groups(Layout(root))
    before = _read(root, base, base)
    rows: list[tuple[str, ...]] = [] if before is None else [(base, _accuracy(before), "", "", "", "", "")]
    for one in found:
        seconds, words = f"{one.seconds:,.0f}" if one.seconds else "", " ".join(one.overrides)
        after = _read(root, one.name, one.ref)
        if after is None:
            rows.append((one.name, "no metrics", "", "", "", seconds, words))
            continue
        told = None if before is None else _change(before, after, groups)
        if told is None:
            rows.append((one.name, _accuracy(after), "", "0", "", seconds, words))
            continue
        points = {name: f"{100 * value:+.1f}" for name, value in told["difference"].items()}
        moved = f"{points['value']} ({points['low']} to {points['high']})"
        rows.append((one.name, _accuracy(after), moved, f"{told['num_shared']:,}", told["verdict"], seconds, words))
    return rows


def _read(root: Path, name: str, ref: str) -> ComparedRun | None:
    files = [f"{ref}:./data/evaluate/{file}" for file in ("metrics.json", "compared.csv")]
    try:
        return read_run(name, *(git("show", file, cwd=root) for file in files))
    except InputError:
        return None


def _change(before: ComparedRun, after: ComparedRun, groups: Mapping[str, str]) -> dict[str, Any] | None:
    answers = [Answer(i, *answer, before.answers[i][1]) for i, answer in after.answers.items() if i in before.answers]
    return change(answers, groups, confidence=after.metrics["confidence"], num_before=len(before.answers))


def _accuracy(run: ComparedRun) -> str:
    value, low, high = (100 * run.metrics["accuracy"][name] for name in ("value", "low", "high"))
    return f"{value:.1f} % ({low:.1f} to {high:.1f})"


def _groups(layout: Layout) -> dict[str, str]:
    """The first digits of an image_id to its group of duplicates; none where data/ is gone: each is its own."""
    if not layout.pack_index.is_file():
        return {}
    index = read_table(layout.pack_index, PACK_INDEX, columns=["image_id", "group"])
    names, groups = (index[column].to_pylist() for column in ("image_id", "group"))
    return {image_id[:ID_DIGITS]: group for image_id, group in zip(names, groups, strict=True)}

"""`miwake run -S`: other values in a worktree of its own, and the table of what came out."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from test_ingest import put
from test_project import SOMEBODY, miwake, pictures

from pipelines.core.errors import InputError, ParamsError
from pipelines.core.git import git
from pipelines.use import experiments
from pipelines.use.experiments import default_name, override, revision, table


def commit(folder: Path, message: str) -> None:
    for words in (["add", "--all"], ["-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-qm", message]):
        subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True)


def test_a_trial_leaves_the_project_as_it_is_and_goes_on_where_it_failed(tmp_path: Path) -> None:
    """With edits that are not committed, and pictures that git does not hold."""
    job = tmp_path / "job"
    assert miwake("new", "job", "--title", "Trials", cwd=tmp_path).returncode == 0
    # the first five stages do for what is tested here, on pictures of its own
    pictures(job / "mine", per_class=12)
    put(job / ".gitignore", (job / ".gitignore").read_bytes() + b"/mine\n")
    yaml = YAML()
    stages = yaml.load((job / "dvc.yaml").read_text())
    kept = {name: stages["stages"][name] for name in ("params", "ingest", "dedupe", "validate", "split")}
    yaml.dump({"stages": kept}, job / "dvc.yaml")
    params = yaml.load((job / "params.yaml").read_text())
    params["ingest"]["sources"] = [{"kind": "folder", "path": "mine"}]
    yaml.dump(params, job / "params.yaml")
    commit(job, "pictures of its own")
    first = miwake("run", cwd=job, code=job)
    assert first.returncode == 0, first.stderr
    commit(job, "a run")
    put(job / "params.yaml", (job / "params.yaml").read_bytes() + b"# an edit\n")
    before = {path: path.read_bytes() for path in job.rglob("*") if path.is_file() and job / ".git" not in path.parents}

    wrong = miwake("run", "-S", "split.sed=7", cwd=job, code=job)
    assert wrong.returncode == 1
    assert "split.sed: unknown key; did you mean `seed`?" in wrong.stderr
    found = miwake("run", "-S", "split.seed=7", "--name", "seven", cwd=job, code=job)
    assert found.returncode == 0, found.stderr
    outcomes = dict(line.split()[:2] for line in found.stdout.splitlines()[:5])
    assert outcomes == {
        **{"params": "ran", "split": "ran"},
        **dict.fromkeys(("ingest", "dedupe", "validate"), "restored"),
    }
    after = {path: path.read_bytes() for path in before if path.exists()}
    changed = {path.relative_to(job).as_posix() for path in before if after.get(path) != before[path]}
    assert {path for path in changed if not path.startswith((".dvc/", ".miwake/"))} == set()
    (one,) = experiments.experiments(job)
    assert (one.name, one.overrides) == ("seven", ("split.seed=7",))
    kept_params = git("show", f"{one.ref}:params.yaml", cwd=job)
    assert "seed: 7" in kept_params
    assert "# an edit" in kept_params
    assert "seed: 7" in git("show", f"{one.ref}:data/params.yaml", cwd=job)
    assert revision(job, "seven") == one.ref
    # only the wrong one is left, and cleared by the next of its name
    assert [path.name for path in (job / ".miwake" / "worktrees").iterdir()] == ["sed-7"]


def test_without_a_commit_there_is_nothing_to_begin_with(tmp_path: Path) -> None:
    put(tmp_path / "dvc.yaml", b"")
    with pytest.raises(InputError, match=r"has no commit with dvc.yaml, which experiments begin with: `git add -A"):
        experiments.run(tmp_path, "a", [], show=None)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"'a/b' cannot name an experiment: use letters"):
        experiments.run(tmp_path, "a/b", [], show=None)  # type: ignore[arg-type]


TEXT = """\
# mine
ingest:
  snapshot: '1'
  sources:
  - kind: sample
train:
  members:
  - linear_probe
  students: []
  folds:
  - 0
"""


def test_an_override_sets_its_key_and_what_is_wrong_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    put(path, TEXT.encode())
    params = override(path, ["split.folds=5", "+split.seed = 3", "train.folds=[0, 1]", "report.title='a: b'"])
    assert (params.split.folds, params.split.seed, params.train.folds) == (5, 3, (0, 1))
    assert params.report.title == "a: b"
    assert path.read_text().startswith("# mine\n")
    before = path.read_bytes()
    for words, said in (
        (["split.folds"], "sets nothing: write key=value"),
        (["=5"], "sets nothing"),
        (["split.folds=[1"], "is no value of YAML"),
        (["split.folds=0"], "split.folds"),
    ):
        with pytest.raises(ParamsError, match=said):
            override(path, words)
        assert path.read_bytes() == before


def test_a_trial_without_a_name_is_called_by_what_it_sets() -> None:
    assert default_name(["split.folds=5", "train.recipes.mine.lr=1e-3"]) == "folds-5-lr-1e-3"
    assert default_name(["train.members=[a, b]"]) == "members-a-b"
    assert default_name([]) == "again"


def store_run(folder: Path, answers: list[tuple[str, str]]) -> None:
    """metrics.json and compared.csv of a run: (actual, predicted) of each picture."""
    right = sum(a == b for a, b in answers) / len(answers)
    metrics: dict[str, Any] = {
        "confidence": 0.95,
        "accuracy": {"value": right, "low": right - 0.1, "high": right + 0.1},
    }
    put(folder / "data" / "evaluate" / "metrics.json", json.dumps(metrics).encode())
    lines = [f"{i:016x},{actual},{predicted},\n" for i, (actual, predicted) in enumerate(answers)]
    put(
        folder / "data" / "evaluate" / "compared.csv",
        "".join(["image_id,actual,predicted,previous\n", *lines]).encode(),
    )


def test_the_table_pairs_each_trial_with_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SOMEBODY.items():
        monkeypatch.setenv(name, value)
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    store_run(tmp_path, [("a", "a")] * 60 + [("a", "b")] * 40)
    commit(tmp_path, "a run")
    for name, answers in (
        ("better", [("a", "a")] * 90 + [("a", "b")] * 10),
        ("same", [("a", "a")] * 60 + [("a", "b")] * 40),
    ):
        store_run(tmp_path, answers)
        experiments.keep(tmp_path, tmp_path, name, overrides=[f"x={name}"], seconds=12.3)
    put(tmp_path / "data" / "evaluate" / "metrics.json", b"")
    (tmp_path / "data" / "evaluate" / "metrics.json").unlink()
    experiments.keep(tmp_path, tmp_path, "unfinished", overrides=[], seconds=1)
    rows = table(tmp_path, experiments.experiments(tmp_path))
    assert rows[0] == ("HEAD", "60.0 % (50.0 to 70.0)", "", "", "", "", "")
    assert [row[0] for row in rows[1:]] == ["better", "same", "unfinished"]
    assert rows[1][2].startswith("+30.0 (+")
    assert rows[1][3:] == ("100", "better", "12", "x=better")
    assert rows[2][4] == "unclear"
    assert rows[3][1] == "no metrics"
    with pytest.raises(InputError, match=r"nix is neither a commit nor an experiment: .* experiments: "):
        revision(tmp_path, "nix")

"""Versions, champion and challenger; the way back to the bytes of a version."""

import json
import shutil
from pathlib import Path

import pytest
from registry_inputs import another_run, dvc, git, registry_project
from test_cli import miwake

from pipelines.core.errors import InputError
from pipelines.use import registry
from pipelines.use.model_folder import find_model


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three commits: HEAD~2, HEAD~1 and HEAD; a remote that holds everything."""
    repo = registry_project(tmp_path_factory.mktemp("registry") / "repo", tmp_path_factory)
    another_run(repo, "two")
    another_run(repo, "three")
    return repo


@pytest.fixture
def repo(project: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(project, tmp_path / "repo", symlinks=True))


def test_a_project_without_git_or_tags_has_no_champion(tmp_path: Path) -> None:
    assert registry.champion(tmp_path) is None
    assert registry.champion_model(tmp_path) is None
    with pytest.raises(InputError, match="there is no champion yet: there is none to go back to"):
        registry.rollback(tmp_path, "no")


def test_versions_are_promoted_and_rolled_back_step_by_step(repo: Path) -> None:
    before = git(repo, "status", "--porcelain"), git(repo, "rev-parse", "HEAD")
    ones = [registry.register(repo, commit, f"why {commit}") for commit in ("HEAD~2", "HEAD~1", "HEAD")]
    assert [one.name for one in ones] == ["v1.0.0", "v2.0.0", "v3.0.0"]
    assert registry.register(repo, "HEAD~1", "again") == ones[1]
    for one in ones:
        registry.promote(repo, one, f"promoted {one.name}")
        assert registry.champion(repo) == one
        assert find_model(repo, None).info.commit == one.commit
    registry.assign(repo, ones[0], "challenger", "lost")
    assert registry.challenger(repo) == ones[0]
    assert registry.rollback(repo, "worse in use") == (ones[2], ones[1])
    assert registry.rollback(repo, "and worse") == (ones[1], ones[0])
    with pytest.raises(InputError, match=r"v1\.0\.0 is the first champion: there is none to go back to"):
        registry.rollback(repo, "no")
    assert registry.champion(repo) == ones[0]
    registry.promote(repo, ones[2], "mended")
    assert registry.rollback(repo, "again") == (ones[2], ones[0])
    # neither tree, index nor branch was touched, and no worktree is left
    assert (git(repo, "status", "--porcelain"), git(repo, "rev-parse", "HEAD")) == before
    assert git(repo, "worktree", "list").count("\n") == 1


def test_gto_reads_the_tags(repo: Path) -> None:
    import gto.api

    one = registry.register(repo, "HEAD", "why")
    registry.promote(repo, one, "better: accuracy went up")
    found = gto.api.find_versions_in_stage(str(repo), "model", "champion")
    assert [version.version for version in found] == ["v1.0.0"]
    assert git(repo, "tag", "-l", "--format=%(contents)", "model#champion#1").strip() == "better: accuracy went up"


def test_damaged_bytes_keep_the_champion_until_the_remote_has_them(repo: Path, tmp_path: Path) -> None:
    one, two = (registry.register(repo, commit, "why") for commit in ("HEAD~1", "HEAD"))
    registry.promote(repo, one, "first")
    registry.promote(repo, two, "second")
    shutil.copytree(repo / ".dvc" / "cache" / "files", tmp_path / "remote" / "files")  # as `dvc push` would have
    lock = git(repo, "show", f"{one.commit}:dvc.lock").splitlines()
    digest = lock[next(n for n, line in enumerate(lock) if line.endswith("evaluate/figures.json")) + 2].split()[-1]
    stored = repo / ".dvc" / "cache" / "files" / "md5" / digest[:2] / digest[2:]
    stored.chmod(0o644)
    stored.write_text(json.dumps({"accuracy": 1}))
    stored.chmod(0o444)
    with pytest.raises(InputError, match=r"the bytes of v1\.0\.0 are not to be had: data/evaluate/figures\.json"):
        registry.rollback(repo, "no")
    assert registry.champion(repo) == two
    assert registry.champion_model(repo) == repo / ".miwake" / "models" / "v2.0.0"
    assert not list((repo / ".miwake" / "models").glob("*.new"))
    dvc(repo, "remote", "add", "-d", "store", str(tmp_path / "remote"))
    git(repo, "commit", "-qam", "a remote")
    # the old commit names no remote: today's is asked
    assert registry.rollback(repo, "yes") == (two, one)
    assert find_model(repo, None).info.commit == one.commit


def test_a_commit_without_a_run_is_no_version(repo: Path) -> None:
    git(repo, "rm", "-q", "dvc.lock")
    git(repo, "commit", "-qm", "no run")
    with pytest.raises(InputError, match=r"HEAD holds no finished run.*`miwake run`, then commit"):
        registry.register(repo, "HEAD", "")
    with pytest.raises(InputError, match="no version v9; there are none yet"):
        registry.find(repo, "v9")


def test_the_command_shows_promotes_and_rolls_back(repo: Path) -> None:
    assert "no model is registered yet: commit a run" in miwake("champion", "show", cwd=repo).stderr
    assert "v1.0.0" in miwake("champion", "promote", "HEAD~1", cwd=repo).stdout
    # the same answers are not better
    held = miwake("champion", "promote", cwd=repo)
    assert held.returncode == 1
    assert "v2.0.0 stays what it is: " in held.stderr
    assert held.stdout.splitlines()[1].startswith("accuracy")
    forced = miwake("champion", "promote", "--force", "-m", "a trial", cwd=repo)
    assert "is the champion; its model: .miwake/models/v2.0.0" in forced.stdout
    decision = json.loads((repo / ".miwake" / "models" / "v2.0.0" / "decision.json").read_text())
    assert decision["outcome"] in ("hold", "unclear")
    back = miwake("champion", "rollback", "-m", "too slow", cwd=repo)
    assert back.stdout.endswith("is the champion again; it was v2.0.0\n")
    shown = [line.split() for line in miwake("champion", "show", cwd=repo).stdout.splitlines()]
    assert [(words[0], words[2]) for words in shown] == [("v2.0.0", "here"), ("v1.0.0", "champion")]

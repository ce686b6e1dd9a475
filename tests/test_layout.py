"""Where members and students lie."""

import errno
import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipelines.core.errors import InputError, ParamsError
from pipelines.core.layout import OUTPUTS, Layout, repro_of
from pipelines.core.tables import SPLITS, read_classes, read_table
from pipelines.params import load_params
from pipelines.params.command import check_project, run_stage
from pipelines.params.preflight import preflight
from pipelines.params.resolve import resolve

ROOT = Path(__file__).parent.parent


def test_students_have_a_folder_of_their_own_and_come_last() -> None:
    train = load_params(ROOT / "params.yaml").train.model_copy(
        update={"members": ("teacher", "other"), "students": ("pupil",), "folds": (0, 2)}
    )
    layout = Layout(Path("root"))
    assert [(*key, path.as_posix()) for key, path in layout.members(train).items()] == [
        ("teacher", 0, "root/data/train/teacher-0"),
        ("teacher", 2, "root/data/train/teacher-2"),
        ("other", 0, "root/data/train/other-0"),
        ("other", 2, "root/data/train/other-2"),
        ("pupil", 0, "root/data/students/pupil-0"),
        ("pupil", 2, "root/data/students/pupil-2"),
    ]
    assert layout.member(train, "pupil", 2) == Path("root/data/students/pupil-2")


@pytest.mark.parametrize(
    ("path", "command"),
    [
        ("data/train/lite0-0/model.safetensors", "dvc repro train"),
        ("/mnt/data/project/data/augment/index.parquet", "dvc repro augment"),
        ("data/decisions/drop.csv", "dvc repro"),
        ("elsewhere/index.parquet", "dvc repro"),
    ],
)
def test_which_stage_writes_a_file_is_known(path: str, command: str) -> None:
    assert repro_of(Path(path)) == command


@pytest.mark.parametrize(
    ("command", "first"),
    [
        ("dedupe", "ingest/manifest.parquet"),
        ("validate", "dedupe/manifest.parquet"),
        ("split", "dedupe/manifest.parquet"),
        ("augment", "ingest/manifest.parquet"),
        ("train linear_probe 0", "augment/index.parquet"),
        ("evaluate", "augment/index.parquet"),
        ("report", "augment/index.parquet"),
    ],
)
def test_a_stage_that_is_run_too_early_names_the_file_and_the_stage_to_run(
    tmp_path: Path, command: str, first: str
) -> None:
    resolved(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", *f"pipelines.{command}".split()],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    stage = first.split("/")[0]
    assert done.returncode == 1
    said = f"{tmp_path}/data/{first} does not exist: run the stage that writes it (`dvc repro {stage}`)"
    assert done.stderr.endswith(f"{said}\n")


def resolved(root: Path) -> None:
    """Put params.yaml there, and what the stage params makes of it."""
    shutil.copy(ROOT / "params.yaml", root)
    resolve(Layout(root))


def error_of(error: OSError, root: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What a stage that meets `error` says."""
    resolved(root)

    def stage(*_: object) -> None:
        raise error

    with pytest.raises(SystemExit):
        run_stage("split", stage, root=root)
    return capsys.readouterr().err


@pytest.mark.slow
def test_a_training_has_the_threads_that_params_say(tmp_path: Path) -> None:
    """With one of these variables a convolution's gradient waits for threads that do not come."""
    (tmp_path / "stage.py").write_text(
        "from pipelines.params.command import run_stage\n"
        "def stage(params, layout):\n"
        "    import torch\n"
        "    torch.set_num_threads(2)\n"
        "    layer = torch.nn.Conv2d(64, 64, 3, padding=1).to(memory_format=torch.channels_last)\n"
        "    pictures = torch.ones(16, 64, 32, 32).contiguous(memory_format=torch.channels_last)\n"
        "    with torch.autocast('cpu', torch.bfloat16):\n"
        "        layer(pictures).sum().backward()\n"
        "    return 'learnt'\n"
        "run_stage('train', stage)\n"
    )
    resolved(tmp_path)
    limits = {"OMP_THREAD_LIMIT": "1", "OMP_DYNAMIC": "true", "OMP_MAX_ACTIVE_LEVELS": "0"}
    done = subprocess.run(
        [sys.executable, "stage.py"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT), **limits},
        capture_output=True, text=True, check=False, timeout=250,
    )  # fmt: skip
    assert done.stdout.startswith("train: learnt"), done.stderr


def test_errors_of_files_name_the_file_whoever_raises_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "data" / "split" / "splits.parquet"
    for name in (missing, tmp_path / "it's here"):
        with pytest.raises(FileNotFoundError) as caught:
            pq.read_schema(name)
        assert caught.value.filename is None  # Arrow's
        said = error_of(caught.value, tmp_path, capsys)
        assert str(name) in said
        assert ("run `dvc repro split` first" in said) == (name == missing)
    plain = FileNotFoundError(errno.ENOENT, "", str(missing))
    assert f"split: {missing} does not exist: run `dvc repro split` first" in error_of(plain, tmp_path, capsys)
    full = OSError(errno.ENOSPC, "", str(missing))
    assert f"split: {missing}: No space left on device; nothing half" in error_of(full, tmp_path, capsys)


def test_a_broken_table_names_the_file_and_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "data" / "split" / "splits.parquet"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"PAR1, but no more")
    remedy = r"splits.parquet is no Parquet file \(.*\): delete it and run `dvc repro split`"
    with pytest.raises(InputError, match=remedy):
        read_table(path, SPLITS)
    with pytest.raises(InputError, match=remedy):
        read_classes(path)


def test_the_stages_that_write_are_those_of_dvc_yaml() -> None:
    text = (ROOT / "dvc.yaml").read_text(encoding="utf-8")
    assert all(f"\n  {name}:\n" in text for name in OUTPUTS)


# before the first stage -------------------------------------------------------------------------


def project(root: Path) -> Path:
    (root / ".dvc").mkdir(parents=True)
    shutil.copy(ROOT / ".dvc" / "config", root / ".dvc" / "config")
    shutil.copy(ROOT / "params.yaml", root)
    return root


@pytest.mark.parametrize("name", [".miwake", ".dvc", "data", "data/train"])
def test_a_project_that_cannot_be_written_stops_the_first_stage(tmp_path: Path, name: str) -> None:
    """A file in the place of the folder, because no rights keep a superuser from writing."""
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    with pytest.raises(
        InputError, match=rf"{name} cannot be written \(Not a directory\), and every stage writes there"
    ):
        check_project(tmp_path, by_dvc=False)


def test_a_stage_looks_at_the_project_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = project(tmp_path / "a{x}")
    check_project(root, by_dvc=False)  # a stage by hand works there
    monkeypatch.setenv("DVC_ROOT", str(root))
    with pytest.raises(SystemExit):
        run_stage("ingest", lambda *_: pytest.fail("it ran"), root=root)
    said = f"ingest: {root} has {{ or }} in its path, which DVC takes for a placeholder: rename the folder\n"
    assert capsys.readouterr().err == said
    with pytest.raises(InputError, match="rename the folder"):
        preflight(root)


def test_the_keys_of_dvcs_matrix_must_be_written(tmp_path: Path) -> None:
    root = project(tmp_path)
    text = (root / "params.yaml").read_text()
    (root / "params.yaml").write_text(text.replace("  students: []\n", ""))
    with pytest.raises(ParamsError, match=r"params.yaml: train.students must be written, default or not: DVC reads"):
        preflight(root)


def test_without_git_dvc_is_told_so_and_with_git_no_longer(tmp_path: Path) -> None:
    """As with a downloaded zip; `dvc status` is the judge."""
    root = project(tmp_path)
    (root / "dvc.yaml").write_text("stages:\n  a:\n    cmd: echo\n")

    def status() -> int:
        dvc = [sys.executable, "-m", "dvc", "status"]
        return subprocess.run(dvc, cwd=root, capture_output=True, check=False).returncode

    assert status() != 0
    assert preflight(root) == [
        "no git repository is here (a downloaded zip?): DVC does without; `git init` lets it compare and go back"
    ]
    assert status() == 0
    assert preflight(root) == []
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
    assert preflight(root) == ["a git repository is here now: DVC uses it"]
    assert (preflight(root), status()) == ([], 0)


@pytest.mark.parametrize(
    ("known", "says"),
    [
        ({}, "has no name and no home folder on this machine (a container's?), and DVC needs both: run `export "
         "USER=miwake HOME=/tmp` first"),
        ({"HOME": "/"}, "run `export USER=miwake` first"),
        ({"USER": "me"}, "run `export HOME=/tmp` first"),
    ],
)  # fmt: skip
def test_a_user_that_the_machine_does_not_know_is_told_what_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: dict[str, str], says: str
) -> None:
    """docker run --user 12345."""

    def unknown(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    for name in ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in known.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with pytest.raises(InputError) as caught:
        preflight(project(tmp_path))
    assert says in str(caught.value)


def test_make_repro_looks_before_dvc_does_anything() -> None:
    target = (ROOT / "Makefile").read_text(encoding="utf-8").split("\nrepro: ")[1].split("\n\n")[0]
    assert target.index("pipelines.params.preflight") < target.index("dvc repro\n")

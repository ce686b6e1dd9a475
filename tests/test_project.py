"""A project of one's own: what `miwake new` writes, what `miwake run` says, and what both refuse."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_ingest import picture, put

from pipelines.core.errors import InputError
from pipelines.params import load_params
from pipelines.params.sources import CrawlSource, FolderSource, TableSource
from pipelines.use import project
from pipelines.use.running import StageLine, follow, read_verdict, totals

ROOT = Path(__file__).parents[1]
NOBODY = {"HOME": "/nowhere", "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
SOMEBODY = {**dict.fromkeys(("GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"), "A"), **dict.fromkeys(("GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"), "a@b.c")}  # fmt: skip # noqa: E501


def miwake(
    *words: str, cwd: Path, code: Path = ROOT, variables: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "pipelines.cli", *words],
        cwd=cwd, env={**os.environ, **SOMEBODY, "PYTHONPATH": str(code), **(variables or {})},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def pictures(folder: Path, *, per_class: int = 2) -> Path:
    for k, name in enumerate(("jazz master", "jaguar")):
        for i in range(per_class):
            put(folder / name / f"{i}.png", picture(seed=100 * k + i))
    return folder


def test_a_project_is_begun_from_a_folder_and_runs_with_its_own_code(tmp_path: Path) -> None:
    """One command makes it, another runs it; what the stages did is a line each, and twice is once."""
    pictures(tmp_path / "my pictures", per_class=12)
    made = miwake("new", "my-job", "--from", "my pictures", "--title", "Two guitars", cwd=tmp_path)
    assert (made.returncode, made.stderr) == (0, "")
    assert made.stdout == "my-job: 2 classes: jaguar, jazz master\nNext: cd my-job && miwake run\n"
    job = tmp_path / "my-job"
    params = load_params(job / "params.yaml")
    assert params.ingest.sources == (FolderSource(path=str(tmp_path / "my pictures")),)
    assert params.report.title == "Two guitars"
    assert len((job / "params.yaml").read_text().splitlines()) <= 30
    assert (job / ".venv").readlink() == Path(sys.prefix)
    state = subprocess.run(["git", "status", "--porcelain"], cwd=job, capture_output=True, text=True, check=True)
    assert state.stdout == ""

    first, second = (miwake("run", "split", cwd=job, code=job) for _ in range(2))
    assert first.returncode == 0, first.stderr
    lines = [line.split(maxsplit=2)[:2] for line in first.stdout.splitlines()]
    names = ["params", "ingest", "dedupe", "validate", "split"]
    assert lines == [*([name, "ran"] for name in names), ["5", "stages"]]
    assert "24 of 24 files accepted" in first.stdout
    assert second.stdout.splitlines()[-1] == "0 stages ran, 5 unchanged"

    put(job / "params.yaml", (job / "params.yaml").read_bytes().replace(b"folds: 1\n", b"folds: 2\n"))
    assert miwake("status", cwd=job, code=job).stdout.splitlines() == [
        "status: nothing that can be seen without reading changed since snapshot '1'",
        "status: params: split.folds: 1 → 2",
        "status: `miwake run` would do split, augment, train, evaluate, report, and what depends on what they write",
    ]


def test_the_code_that_a_project_holds_is_all_that_its_stages_need() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    top = {name.partition("/")[0] for name in tracked}
    left = {"README.md", "CONTRIBUTING.md", "benchmarks", "docs", "tests", "presets", ".ci", "data", "dvc.lock"}
    assert top - left == {name.partition("/")[0] for name in project.COPIED} | {"params.yaml"}


def test_an_existing_folder_is_never_written_into(tmp_path: Path) -> None:
    put(tmp_path / "job" / "mine.txt", b"mine")
    found = miwake("new", "job", cwd=tmp_path)
    assert found.returncode == 1
    assert found.stderr == "miwake: job exists and is not empty: name a new folder\n"
    assert [one.name for one in (tmp_path / "job").iterdir()] == ["mine.txt"]


def test_without_a_name_for_git_the_project_is_whole_and_says_what_is_left(tmp_path: Path) -> None:
    found = miwake("new", "job", cwd=tmp_path, variables={**NOBODY, **dict.fromkeys(SOMEBODY, "")})
    assert found.returncode == 0
    assert "git config user.name" in found.stdout
    assert load_params(tmp_path / "job" / "params.yaml").ingest.sources[0].kind == "sample"


def test_run_outside_of_a_project_says_how_to_begin_one(tmp_path: Path) -> None:
    found = miwake("run", cwd=tmp_path)
    assert found.returncode == 1
    assert found.stderr.endswith("begin one with `miwake new my-job --from PICTURES`\n")


def test_a_folder_without_class_folders_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "flat" / "a.png", picture(seed=1))
    with pytest.raises(InputError, match="must hold a folder for each class, two at least, and has none"):
        project.folder_source(tmp_path / "flat", project=tmp_path)
    put(tmp_path / "flat" / "one" / "a.png", picture(seed=1))
    with pytest.raises(InputError, match="and has only 'one'"):
        project.folder_source(tmp_path / "flat", project=tmp_path)
    with pytest.raises(InputError, match="is no folder"):
        project.folder_source(tmp_path / "absent", project=tmp_path)


def test_folders_of_subsets_are_known_and_pictures_in_the_project_are_named_from_there(tmp_path: Path) -> None:
    for subset in ("Train", "val"):
        put(tmp_path / "job" / "pictures" / subset / "a" / "1.png", picture(seed=1))
    source, found = project.folder_source(tmp_path / "job" / "pictures", project=tmp_path / "job")
    assert source == {"kind": "folder", "path": "pictures", "subset_from": "first_folder"}
    assert found == "the subsets Train, val"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("File,Class\na.jpg,x\n", {"image_column": "File", "label_columns": ("Class",), "image_is": "path"}),
        ("label,url\nx,https://a.b/c.jpg\n", {"image_column": "url", "label_columns": ("label",), "image_is": "url"}),
    ],
)
def test_columns_of_a_table_are_known_by_their_names(text: str, wanted: dict[str, object], tmp_path: Path) -> None:
    put(tmp_path / "t" / "labels.csv", text.encode())
    source, _ = project.table_source(
        tmp_path / "t" / "labels.csv", image_column=None, label_columns=(), project=tmp_path / "job"
    )
    found = TableSource.model_validate_json(json.dumps(source)).model_dump()
    assert {name: found[name] for name in wanted} == wanted
    assert found["root"] == (str(tmp_path / "t") if wanted["image_is"] == "path" else ".")


def test_other_columns_are_named_by_hand(tmp_path: Path) -> None:
    put(tmp_path / "faces.csv", b"face,gender,status\n1.jpg,male,noble\n")
    table = tmp_path / "faces.csv"
    with pytest.raises(
        InputError, match="none of its columns face, gender, status is known for pictures: name it with"
    ):
        project.table_source(table, image_column=None, label_columns=(), project=tmp_path)
    with pytest.raises(InputError, match="known for labels: name it with --label-column"):
        project.table_source(table, image_column="face", label_columns=(), project=tmp_path)
    with pytest.raises(InputError, match="has no column rank; it has face, gender, status"):
        project.table_source(table, image_column="face", label_columns=["rank"], project=tmp_path)
    source, _ = project.table_source(
        table, image_column="face", label_columns=["gender", "status"], project=tmp_path / "job"
    )
    assert source["label_columns"] == ["gender", "status"]


def test_parquet_and_json_lines_are_read_by_their_schema_and_first_row(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [b"x"], "label": ["a"]}), tmp_path / "t.parquet")
    put(tmp_path / "t.jsonl", json.dumps({"path": "a.jpg", "label": "x"}).encode())
    for name, kind, column in (("t.parquet", "parquet", "image"), ("t.jsonl", "jsonl", "path")):
        source, _ = project.table_source(tmp_path / name, image_column=None, label_columns=(), project=tmp_path)
        assert (source["format"], source["image_column"], source["path"]) == (kind, column, name)
    put(tmp_path / "t.xlsx", b"")
    with pytest.raises(InputError, match=r"is of no kind known here: give .csv, .parquet, .jsonl, .ndjson"):
        project.table_source(tmp_path / "t.xlsx", image_column=None, label_columns=(), project=tmp_path)
    put(tmp_path / "broken.csv", b"\xff\xfe\x00a")
    with pytest.raises(InputError, match="is no csv in UTF-8"):
        project.table_source(tmp_path / "broken.csv", image_column=None, label_columns=(), project=tmp_path)


def test_search_words_are_classes(tmp_path: Path) -> None:
    source, found = project.search_source(["Fender Jaguar", "Gibson SG"])
    text = project.params_text(source, title="ギター: a #1")
    put(tmp_path / "params.yaml", text.encode())
    params = load_params(tmp_path / "params.yaml")
    assert params.ingest.sources == (
        CrawlSource(classes={"Fender Jaguar": ("Fender Jaguar",), "Gibson SG": ("Gibson SG",)}),
    )
    assert params.report.title == "ギター: a #1"
    assert found == "to be searched for: Fender Jaguar, Gibson SG"
    with pytest.raises(InputError, match="two different classes at least"):
        project.search_source(["a", "a"])


def test_one_source_at_a_time(tmp_path: Path) -> None:
    found = miwake("new", "job", "--from", ".", "--search", "a", cwd=tmp_path)
    assert found.returncode == 1
    assert "give one" in found.stderr
    assert not (tmp_path / "job").exists()


def test_a_new_snapshot_has_a_name_of_its_own() -> None:
    assert project.next_snapshot("1", []) == "2"
    assert project.next_snapshot("1", ["1", "2", "3"]) == "4"
    day = project.next_snapshot("first", [])
    assert project.next_snapshot(day, []) == project.next_snapshot("first", [day]) == f"{day}-2"


class Seen:
    """What a display was told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def began(self, stage: str) -> None:
        self.lines.append(f"began {stage}")

    def at(self, done: int, total: int, line: str) -> None:  # noqa: ARG002
        self.lines.append(f"{done}/{total}")

    def said(self, line: str) -> None:
        self.lines.append(f"said {line}")

    def ended(self, stage: StageLine) -> None:
        self.lines.append(f"{stage.name} {stage.outcome} {stage.seconds:g} {stage.said}".rstrip())


REPRO = """\
Stage 'params' didn't change, skipping
Running stage 'ingest':
> python -m pipelines.ingest
ingest: 1,024 of 2,048 files, 100 a second, 10 s left
ingest: one file is odd
ingest: 2,000 of 2,048 files accepted (48 rejected), 13 classes, 1 shard [9.3 s]
Updating lock file 'dvc.lock'

Stage 'dedupe' is cached - skipping run, checking out outputs
Running stage 'train@linear_probe-0':
> python -m pipelines.train linear_probe 0
train: the loss is no number
ERROR: failed to reproduce 'train@linear_probe-0': failed to run: python, exited with 1
"""


def test_what_dvc_prints_becomes_a_line_a_stage() -> None:
    seen, clock = Seen(), iter(range(100))
    stages = follow(iter(REPRO.splitlines(keepends=True)), seen, clock=lambda: next(clock))
    assert seen.lines == [
        "params unchanged 0",
        "began ingest",
        "1024/2048",
        "said ingest: one file is odd",
        "ingest ran 1 2,000 of 2,048 files accepted (48 rejected), 13 classes, 1 shard",
        "dedupe restored 0",
        "began train@linear_probe-0",
        "said train: the loss is no number",
        "train@linear_probe-0 failed 1",
    ]
    assert totals(stages) == "1 stage ran, 1 restored, 1 unchanged"


def test_the_verdict_is_what_summary_md_says_first() -> None:
    blocks = [
        "# A\\_b",
        "run 7 · snapshot 1",
        "9 of 10 right &amp; 90 \\#.",
        "1. **Look at 3 a\\_b.** Why.\n2. **Train.** So.",
    ]
    found = read_verdict("\n\n".join(blocks))
    assert (found.run, found.sentences) == ("run 7 · snapshot 1", "9 of 10 right & 90 #.")
    assert found.to_do == ["Look at 3 a_b.", "Train."]
    assert read_verdict("").to_do == []

"""The `miwake` command: light to start, exact in what it counts, and clear where it cannot."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from ruamel.yaml import YAML
from test_ingest import params, picture, put
from test_snapshots import store

from pipelines.core.errors import InputError
from pipelines.core.tables import MANIFEST, write_table
from pipelines.ingest import ingest
from pipelines.ingest.diff import Change, File, describe, diff, find_manifest

ROOT = Path(__file__).parents[1]
HEAVY = ["torch", "torchvision", "great_expectations", "pandas", "sklearn", "prefect", "dvc", "matplotlib", "numpy"]


def miwake(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipelines.cli", *words],
        cwd=cwd, env={**os.environ, "PYTHONPATH": str(ROOT), "LC_ALL": "C"}, capture_output=True, text=True,
        encoding="utf-8", check=False,
    )  # fmt: skip


def manifest(path: Path, *files: str) -> Path:
    """A manifest of "label source_path id" rows."""
    table = []
    for file in files:
        label, source_path, image_id = file.split()
        row: dict[str, Any] = dict.fromkeys(MANIFEST.names)
        table.append(row | {"label": label, "source": "0-folder", "source_path": source_path, "image_id": image_id})
    write_table(pa.Table.from_pylist(table, schema=MANIFEST), path)
    return path


def changes(before: Path, after: Path) -> list[tuple[str, str, str]]:
    """Kind, label and path before, label and path after."""

    def words(file: File | None) -> str:
        return "" if file is None else f"{file.label} {file.source_path}"

    return [(change.kind, words(change.before), words(change.after)) for change in diff(before, after).changes]


def test_each_file_that_is_not_the_same_is_counted_once(tmp_path: Path) -> None:
    before = manifest(
        tmp_path / "a", "cat cat/same 1", "cat cat/edited 2", "cat cat/moved 3", "cat cat/gone 4", "cat cat/renamed 5",
        "cat table/7 7", "cat cat/swapped 8", "dog dog/swapped 9",
    )  # fmt: skip
    after = manifest(
        tmp_path / "b", "cat cat/same 1", "cat cat/edited 20", "dog dog/moved 3", "bird bird/new 6", "cat cat/other 5",
        "dog table/7 7", "cat cat/swapped 9", "dog dog/swapped 8",
    )  # fmt: skip
    found = diff(before, after)
    assert changes(before, after) == [
        ("added", "", "bird bird/new"),
        ("gone", "cat cat/gone", ""),
        ("changed", "cat cat/edited", "cat cat/edited"),
        ("changed", "cat cat/swapped", "cat cat/swapped"),
        ("changed", "dog dog/swapped", "dog dog/swapped"),
        ("relabelled", "cat cat/moved", "dog dog/moved"),
        ("relabelled", "cat table/7", "dog table/7"),
        ("moved", "cat cat/renamed", "cat cat/other"),
    ]
    assert found.same == 1
    assert found.by_class["dog"] == {"changed": 1, "relabelled": 2}


def test_a_relabelled_and_edited_picture_is_changed(tmp_path: Path) -> None:
    before, after = manifest(tmp_path / "a", "cat t/1 1"), manifest(tmp_path / "b", "dog t/1 2")
    assert changes(before, after) == [("changed", "cat t/1", "dog t/1")]


def test_a_second_copy_of_a_picture_is_added(tmp_path: Path) -> None:
    before, after = manifest(tmp_path / "a", "cat x 1"), manifest(tmp_path / "b", "cat x 1", "cat y 1", "cat z 1")
    assert changes(before, after) == [("added", "", "cat y"), ("added", "", "cat z")]
    assert changes(after, before) == [("gone", "cat y", ""), ("gone", "cat z", "")]


def test_equal_snapshots_differ_in_nothing(tmp_path: Path) -> None:
    one = manifest(tmp_path / "a", "cat x 1")
    assert list(describe(diff(one, one), names=("a", "b"), limit=9)) == [
        "a → b: 0 added, 0 gone, 0 changed, 0 relabelled, 0 moved; 1 the same"
    ]
    none = manifest(tmp_path / "none")
    assert diff(none, none).changes == []
    assert [change.kind for change in diff(none, one).changes] == ["added"]


def test_names_that_would_steer_a_terminal_are_spelt_out(tmp_path: Path) -> None:
    before = manifest(tmp_path / "a")
    hostile = File("猫", "0-folder", "a\x1b[2J\u202e.jpg", "1")
    lines = list(describe(type(diff(before, before))(0, [Change("added", None, hostile)]), names=("a", "b"), limit=9))
    assert lines[-1] == "  猫  0-folder: a\\x1b[2J\\u202e.jpg"


@pytest.fixture
def two_snapshots(tmp_path: Path) -> Path:
    for index in range(3):
        store(tmp_path / "pictures" / "cat" / f"{index}.jpg", picture(index))
    for snapshot in ("1", "2"):
        where = {"root": tmp_path, "cache": tmp_path / ".miwake", "out_dir": tmp_path / "data/ingest"}
        ingest(params(snapshot=snapshot), **where, workers=1)
        store(tmp_path / "pictures" / "dog" / "new.jpg", picture(9))
        (tmp_path / "pictures" / "cat" / "0.jpg").unlink(missing_ok=True)
    return tmp_path


def test_status_says_what_is_new_and_make_repro_asks_it_first(two_snapshots: Path) -> None:
    (two_snapshots / "data" / "decisions").mkdir(parents=True, exist_ok=True)
    yaml = YAML()
    whole = yaml.load(ROOT / "params.yaml")
    whole["ingest"] = json.loads(params(snapshot="2").model_dump_json())
    whole["ingest"]["snapshot"] = "3"
    yaml.dump(whole, two_snapshots / "params.yaml")
    assert miwake("status", cwd=two_snapshots).stdout == (
        "status: snapshot '3' was not read here yet: `miwake run` does\n"
    )
    whole["ingest"]["snapshot"] = "2"
    yaml.dump(whole, two_snapshots / "params.yaml")
    found = miwake("status", cwd=two_snapshots)
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout == "status: nothing that can be seen without reading changed since snapshot '2'\n"
    assert miwake("status", "--quiet", cwd=two_snapshots).stdout == ""
    store(two_snapshots / "pictures" / "cat" / "newer.jpg", picture(20))
    found = miwake("status", "--quiet", cwd=two_snapshots)
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout.splitlines() == [
        "status: the sources changed since snapshot '2' was read: 1 file is new (cat/newer.jpg)",
        'status: to read them: `snapshot: "3"` in params.yaml, then `make repro`',
    ]
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8").split("\nrepro:")[1].split("\n\n")[0]
    assert recipe.index("miwake status --quiet") < recipe.index("dvc repro")


def test_snapshots_are_compared_by_name(two_snapshots: Path) -> None:
    found = miwake("ingest", "diff", "1", "2", cwd=two_snapshots)
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout.splitlines() == [
        "1 → 2: 1 added, 1 gone, 0 changed, 0 relabelled, 0 moved; 2 the same",
        "",
        "class       added        gone     changed  relabelled       moved",
        "cat                         1                                    ",
        "dog             1                                                ",
        "",
        "added:",
        "  dog  0-folder: dog/new.jpg",
        "",
        "gone:",
        "  cat  0-folder: cat/0.jpg",
    ]
    short = miwake("ingest", "diff", "1", "2", "--limit", "0", cwd=two_snapshots).stdout
    assert "  and 1 more (--limit shows more, --json all)" in short


def test_a_program_gets_everything_as_json(two_snapshots: Path) -> None:
    found = json.loads(miwake("ingest", "diff", "1", "data/ingest", "--json", cwd=two_snapshots).stdout)
    assert (found["before"], found["after"], found["same"]) == ("1", "data/ingest", 2)
    assert found["counts"] == {"added": 1, "gone": 1, "changed": 0, "relabelled": 0, "moved": 0}
    assert found["by_class"] == {"cat": {"gone": 1}, "dog": {"added": 1}}
    assert [(c["kind"], (c["after"] or c["before"])["source_path"]) for c in found["changes"]] == [
        ("added", "dog/new.jpg"),
        ("gone", "cat/0.jpg"),
    ]


def test_an_unknown_name_lists_those_that_there_are(two_snapshots: Path) -> None:
    found = miwake("ingest", "diff", "1", "3", cwd=two_snapshots)
    assert found.returncode == 1
    assert found.stderr.startswith("miwake: '3' is no snapshot in ")
    assert "(there are: 2, 1), no folder with a manifest.parquet and no manifest; name two of these" in found.stderr
    with pytest.raises(InputError, match="there are: none yet"):
        find_manifest("1", cache=two_snapshots / "nothing")
    put(two_snapshots / "text", b"no table")
    assert "is no Parquet file" in miwake("ingest", "diff", "1", "text", cwd=two_snapshots).stderr


def test_the_command_starts_light() -> None:
    code = f"import sys; sys.argv = ['miwake', '--help']\nfrom pipelines.cli import main\ntry: main()\nexcept SystemExit: pass\nprint([m for m in {HEAVY} if m in sys.modules])"  # noqa: E501
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "ingest" in found.stdout
    assert found.stdout.splitlines()[-1] == "[]"


def test_the_version_is_that_of_the_project_and_says_where_its_code_is(tmp_path: Path) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    found = miwake("--version", cwd=tmp_path)
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout == f"miwake {version}, Python {sys.version.split()[0]}, code in {ROOT}\n"


def test_a_report_is_opened_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = miwake("report", "open", cwd=tmp_path)
    assert missing.returncode == 1
    assert "data/report/index.html does not exist: `miwake run` makes it" in missing.stderr
    page = put(tmp_path / "data" / "report" / "index.html", b"")
    monkeypatch.setenv("BROWSER", "true")
    assert miwake("report", "open", cwd=tmp_path).stdout == f"{page}\n"


def test_the_makefile_puts_the_command_into_the_environment(tmp_path: Path) -> None:
    """A stand-in for python says what it would run, and with which path."""
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]["miwake"] == "pipelines.cli:main"
    put(tmp_path / "a project/.venv/bin/python", b'#!/bin/sh\necho "$PYTHONPATH" "$@"\n').chmod(0o755)
    for name in ("Makefile", "requirements.lock"):
        put(tmp_path / "a project" / name, (ROOT / name).read_bytes())
    put(tmp_path / "a project/.venv/.installed-auto", b"")
    subprocess.run(["make", "env"], cwd=tmp_path / "a project", check=True, env={"PATH": os.environ["PATH"]})
    found = subprocess.run(
        ["a project/.venv/bin/miwake", "ingest", "diff", "a b", "c"],
        cwd=tmp_path, capture_output=True, text=True, check=True, env={"PATH": os.environ["PATH"]},
    )  # fmt: skip
    assert found.stdout == f"{tmp_path}/a project -P -m pipelines.cli ingest diff a b c\n"


FAKE_UV = r"""#!/bin/sh
case "$*" in
  venv*) mkdir -p .venv/bin ;;
  *--torch-backend*)
    echo "$*" | sed -E 's/.*--torch-backend ([a-z]*) torch==.* torchvision==.*/\1/' >> asked
    test -n "$REACHED" || { echo refused >&2; exit 1; } ;;
  *--require-hashes*requirements.lock) echo whole >> asked ;;
  *--require-hashes*) if grep -qE '^(torch|nvidia-cublas|triton)=='; then echo torch; else echo rest; fi >> asked ;;
esac
"""


@pytest.mark.parametrize(
    ("torch", "reached", "asked", "said"),
    [
        ("auto", True, ["rest", "auto"], ""),
        ("cpu", True, ["rest", "cpu"], ""),
        ("auto", False, ["rest", "auto", "whole"], "cannot be reached: taking those of the package index"),
        ("cpu", False, ["rest", "cpu"], "refused"),
        ("cuda", True, ["whole"], ""),
    ],
)
def test_pytorch_comes_in_the_builds_that_were_asked_for(
    tmp_path: Path, torch: str, reached: bool, asked: list[str], said: str
) -> None:
    """A stand-in for uv writes down what it was asked for: hashes are kept for all but PyTorch's own builds."""
    for name in ("Makefile", "requirements.lock"):
        put(tmp_path / name, (ROOT / name).read_bytes())
    put(tmp_path / "bin/uv", FAKE_UV.encode()).chmod(0o755)
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    done = subprocess.run(
        ["make", "env", f"TORCH={torch}"], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={"PATH": path, "REACHED": "yes" if reached else ""},
    )  # fmt: skip
    assert (tmp_path / "asked").read_text().split() == asked
    assert said in done.stdout + done.stderr
    assert (done.returncode == 0) is (reached or torch == "auto")
    assert re.search(r"about [0-9.]+ GB to fetch, [0-9.]+ GB on disk", done.stdout)
    assert (tmp_path / f".venv/.installed-{torch}").exists() is (done.returncode == 0)

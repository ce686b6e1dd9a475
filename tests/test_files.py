"""Files are whole or absent."""

import errno
import json
import shutil
from pathlib import Path

import pytest
from test_house import code_of

from pipelines.core import files
from pipelines.core.files import empty_folder, whole_file, write_csv, write_json, write_text


def test_a_file_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.bin"
    with whole_file(path) as file:
        file.write(b"12")
        assert not path.exists()
    assert path.read_bytes() == b"12"
    assert [p.name for p in path.parent.iterdir()] == ["a.bin"]


def test_an_error_half_way_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def write_until_the_disk_is_full() -> None:
        with whole_file(path) as file:
            file.write(b"half of the n")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_until_the_disk_is_full()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_json_keeps_order_and_script_and_refuses_nan(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": 1, "a": "見分け"})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n  "b": 1,\n  "a": "見分け"\n}\n'
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "nan.json", float("nan"))
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))["b"] == 1


def test_csv_quotes_what_must_be_quoted_and_keeps_names_that_are_not_utf8(tmp_path: Path) -> None:
    odd = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    write_csv(tmp_path / "a.csv", ["path", "n"], [["a,b", 1], [odd, 2]])
    assert (tmp_path / "a.csv").read_bytes() == b'path,n\n"a,b",1\ncaf\xe9.jpg,2\n'


def test_an_emptied_folder_holds_nothing_of_an_earlier_run(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    (folder / "old").mkdir(parents=True)
    assert list(empty_folder(folder).iterdir()) == []
    assert empty_folder(tmp_path / "new" / "deep").is_dir()


@pytest.mark.parametrize(
    ("stage", "packages"),
    [
        ("ingest", ("core", "images", "parallel", "ingest")),
        ("dedupe", ("core", "features", "images", "parallel", "dedupe")),
        ("train", ("core", "augmentation", "features", "train")),
    ],
)
def test_a_changed_byte_in_any_module_of_a_stage_is_another_cache(
    tmp_path: Path, stage: str, packages: tuple[str, ...]
) -> None:
    """What caches are keyed by covers all that the stage can import, a module deep in a subfolder and data as well.

    Of params the values are part of the key, not the code.
    """
    root = tmp_path / "pipelines"
    shutil.copytree(files.__file__.rpartition("/core/")[0], root, ignore=shutil.ignore_patterns("__pycache__"))
    before = files.code_digest(*packages, root=root)
    modules = sorted(name for name in code_of(stage) if not name.startswith("pipelines/params/"))
    modules += [str(path.relative_to(tmp_path)) for path in (root / stage).rglob("*.json")]
    for name in modules:
        path = tmp_path / name
        data = path.read_bytes()
        path.write_bytes(data + b"\n")
        assert files.code_digest(*packages, root=root) != before, name
        path.write_bytes(data)
    assert files.code_digest(*packages, root=root) == before
    (root / "core" / "deep" / "er").mkdir(parents=True)
    (root / "core" / "deep" / "er" / "new.py").write_text("")
    assert files.code_digest(*packages, root=root) != before

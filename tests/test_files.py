"""Files are whole or absent."""

import errno
import json
from pathlib import Path

import pytest

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

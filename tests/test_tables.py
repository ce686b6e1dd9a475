"""Tables that are written in parts: equal rows give equal bytes, however they were cut."""

from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.core import tables
from pipelines.core.files import whole_file

SCHEMA = pa.schema([("label", pa.string()), ("number", pa.int64())])


def rows(start: int, stop: int) -> pa.RecordBatch:
    numbers = list(range(start, stop))
    return pa.RecordBatch.from_pylist([{"label": f"c{n % 3}", "number": n} for n in numbers], SCHEMA)


def write(path: Path, cuts: list[int]) -> bytes:
    with whole_file(path) as file, tables.TableWriter(file, SCHEMA) as writer:
        for start, stop in pairwise(cuts):
            writer.write(rows(start, stop))
        assert writer.num_rows == cuts[-1]
    return path.read_bytes()


@pytest.mark.parametrize("total", [0, 1, 9, 10, 11, 37])
def test_cuts_change_no_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, total: int) -> None:
    monkeypatch.setattr(tables, "ROW_GROUP", 10)
    whole = write(tmp_path / "whole", [0, total])
    for step in (1, 3, 10, 25):
        assert write(tmp_path / "parts", [*range(0, total, step), total]) == whole
    assert pq.read_table(tmp_path / "whole").to_pylist() == rows(0, total).to_pylist()
    groups = pq.ParquetFile(tmp_path / "whole").metadata
    sizes = [groups.row_group(index).num_rows for index in range(groups.num_row_groups)]
    assert sizes == ([10] * (total // 10) + [total % 10] * (total % 10 > 0) or [0])


def test_a_small_table_has_the_bytes_of_one_written_at_once(tmp_path: Path) -> None:
    tables.write_table(pa.Table.from_batches([rows(0, 50)]), tmp_path / "at once")
    assert write(tmp_path / "parts", [0, 20, 50]) == (tmp_path / "at once").read_bytes()


def test_dictionaries_are_for_texts_that_repeat(tmp_path: Path) -> None:
    columns = {"image_id": ["a", "b"], "label": ["x", "x"], "brightness": [0.5, 0.5], "url": ["", ""]}
    tables.write_table(pa.table(columns), tmp_path / "table")
    group = pq.ParquetFile(tmp_path / "table").metadata.row_group(0)
    found = {group.column(i).path_in_schema: "RLE_DICTIONARY" in group.column(i).encodings for i in range(4)}
    assert found == {"image_id": False, "label": True, "brightness": False, "url": False}


def test_after_an_error_nothing_is_left_and_nothing_complains(tmp_path: Path) -> None:
    def fail() -> None:
        with whole_file(tmp_path / "table") as file, tables.TableWriter(file, SCHEMA) as writer:
            writer.write(rows(0, 5))
            raise ValueError("on the way")

    with pytest.raises(ValueError, match="on the way"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_the_target_of_predictions_is_label_unless_they_say_a_factor(tmp_path: Path) -> None:
    table = pa.Table.from_batches([rows(0, 2)])
    for target, expected in ((None, "label"), ("label", "label"), ("status", "status")):
        tables.write_table(table, tmp_path / "table", classes=["a", "ä"], target=target)
        assert tables.read_target(tmp_path / "table") == expected
        assert tables.read_classes(tmp_path / "table") == ["a", "ä"]
    first = (tmp_path / "table").read_bytes()
    tables.write_table(table, tmp_path / "table", classes=["a", "ä"], target="status")
    assert (tmp_path / "table").read_bytes() == first

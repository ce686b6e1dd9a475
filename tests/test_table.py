"""The table source: rows of CSV, Parquet and JSON Lines become pictures; a bad row is a reject that names its line."""

import csv
import functools
import io
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hostile_server import Answer, Hit, HostileServer
from pydantic import ValidationError
from test_ingest import DOWNLOAD, Result, params, picture, put, run

from pipelines.core.errors import InputError
from pipelines.ingest import ingest
from pipelines.ingest.listing import UNKNOWN_STAMP, Listing, Place
from pipelines.ingest.table import list_table
from pipelines.params.ingest import IngestParams
from pipelines.params.sources import TableSource

COLUMNS = {
    "kind": "table", "path": "a.csv", "format": "csv", "image_column": "image", "image_is": "path", "root": "pictures",
    "label_columns": ["label"], "joined_by": "×", "subset_column": None, "box": None, "license_column": None,
    "creator_column": None, "page_url_column": None, "group_column": None, "symlinks": "skip", "encoding": "utf-8",
    "subset_from": None,
}  # fmt: skip
BOX = {"columns": ["l", "t", "r", "b"], "order": "left_top_right_bottom", "unit": "pixels"}


def settings(**changes: Any) -> IngestParams:
    source = COLUMNS | {key: changes.pop(key) for key in list(changes) if key in COLUMNS}
    return params(sources=[source], **changes)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four pictures, 0.jpg to 3.jpg, below pictures/."""
    for number in range(4):
        put(tmp_path / f"pictures/{number}.jpg", picture(number))
    return tmp_path


def rejects(result: Result) -> list[tuple[str, str]]:
    return [(row["reason"], row["detail"]) for row in result.rejects]


def lines(result: Result) -> dict[str, str]:
    """Reason by the line that the detail names."""
    return {row["detail"].split(":")[0]: row["reason"] for row in result.rejects}


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    buffer = io.StringIO()
    table = csv.DictWriter(buffer, list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    put(path, buffer.getvalue().encode())


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    put(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=2)


WRITERS: dict[str, Callable[[Path, list[dict[str, Any]]], None]] = {
    "csv": write_csv,
    "jsonl": write_jsonl,
    "parquet": write_parquet,
}


@pytest.mark.parametrize("format", WRITERS)
def test_every_format_gives_labels_factors_subsets_and_provenance(root: Path, format: str) -> None:
    people = [("male", "noble", "train"), ("female", "commoner", "dev"), ("male", "noble", "test"), ("f", "n", "")]
    rows = [
        {
            "image": f"{number}.jpg", "gender": gender, "status": status, "set": subset, "licence": "CC0",
            "by": f"painter {number}", "page": f"https://a.example/{number}",
        }
        for number, (gender, status, subset) in enumerate(people)
    ]  # fmt: skip
    WRITERS[format](root / "a", rows)
    own = settings(
        path="a", format=format, label_columns=["gender", "status"], subset_column="set", license_column="licence",
        creator_column="by", page_url_column="page",
    )  # fmt: skip
    result = run(root, own)
    found = {row["source_path"]: row for row in result.rows}
    assert [found[f"{number}.jpg"]["label"] for number in range(4)] == [
        "male×noble", "female×commoner", "male×noble", "f×n",
    ]  # fmt: skip
    assert [found[f"{number}.jpg"]["given_subset"] for number in range(4)] == ["train", "val", "test", ""]
    assert found["1.jpg"]["factors"] == '{"gender": "female", "status": "commoner"}'
    assert found["2.jpg"]["license"] == "CC0"
    assert found["2.jpg"]["creator"] == "painter 2"
    assert found["2.jpg"]["page_url"] == "https://a.example/2"
    assert found["2.jpg"]["url"] == ""
    assert run(root, own, out="again").bytes == result.bytes


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_numbers_are_labels_and_keys_inside_keys_are_named_by_dots(root: Path, format: str) -> None:
    values: list[Any] = [3, 7, 10, 3]
    rows = [{"file": {"name": f"{number}.jpg", "class": {"id": value}}} for number, value in enumerate(values)]
    WRITERS[format](root / "a", rows)
    own = settings(path="a", format=format, image_column="file.name", label_columns=["file.class.id"])
    assert Counter(row["label"] for row in run(root, own).rows) == {"3": 2, "7": 1, "10": 1}


@pytest.mark.parametrize("format", WRITERS)
def test_the_order_of_columns_does_not_matter_and_an_empty_one_is_no_missing_one(root: Path, format: str) -> None:
    rows = [
        {"by": None, "label": label, "n": 1, "image": f"{number}.jpg"} for number, label in enumerate(["cat", "dog"])
    ]
    if format == "parquet":
        schema = pa.schema([("by", pa.string()), ("label", pa.string()), ("n", pa.int8()), ("image", pa.string())])
        pq.write_table(pa.Table.from_pylist(rows, schema), root / "a")
    else:
        WRITERS[format](root / "a", rows)
    result = run(root, settings(path="a", format=format, creator_column="by"))
    assert {row["source_path"]: row["label"] for row in result.rows} == {"0.jpg": "cat", "1.jpg": "dog"}
    assert {row["creator"] for row in result.rows} == {""}


def test_a_parquet_file_with_text_that_is_none_or_two_columns_of_one_name_is_refused(root: Path) -> None:
    broken = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\x01\0\0\0"), pa.py_buffer(b"\xff")])
    pq.write_table(pa.table({"image": broken, "label": ["cat"]}), root / "a.csv")
    with pytest.raises(InputError, match="a.csv is a broken Parquet file .*utf-8"):
        run(root, settings(format="parquet"))
    pq.write_table(pa.Table.from_arrays([pa.array(["0.jpg"])] * 3, ["image", "label", "label"]), root / "a.csv")
    with pytest.raises(InputError, match="a.csv has several columns 'label'; give each its own name"):
        run(root, settings(format="parquet"))


def test_kinds_of_json_values_are_labels_or_rejects(root: Path) -> None:
    labels = [3.0, 2.5, True, None, float("nan"), [1], {"a": 1}, " cat ", 10**30]
    put(root / "a.jsonl", "".join(json.dumps({"image": "0.jpg", "label": label}) + "\n" for label in labels).encode())
    result = run(root, settings(path="a.jsonl", format="jsonl"))
    assert result.labels == sorted(["3", "2.5", "true", "cat", str(10**30)])
    assert lines(result) == {"line 4": "no-label", "line 5": "no-label", "line 6": "bad-row", "line 7": "bad-row"}


@pytest.mark.parametrize(
    "text",
    [
        "image,label\n0.jpg,cat\n1.jpg,dog\n",
        "image;label\n0.jpg;cat\n1.jpg;dog\n",
        "image\tlabel\n0.jpg\tcat\n1.jpg\tdog\n",
        "\ufeffimage,label\r\n0.jpg,cat\r\n1.jpg,dog",
        '"label","image"\n"cat","0.jpg"\n"dog","1.jpg"\n',
        "a;b,image,c,label\n,0.jpg,,cat\n,1.jpg,,dog\n",
        "image, label\n\n0.jpg, cat\n\n\n1.jpg,  dog \n",
        "image,label\r0.jpg,cat\r1.jpg,dog\r",
        "image,label\n0.jpg,cat,,\n1.jpg,dog,\n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_csv_is_read_as_people_write_it(root: Path, text: str, encoding: str) -> None:
    put(root / "a.csv", (text if encoding == "utf-8" else text.lstrip("\ufeff")).encode(encoding))
    result = run(root, settings())
    assert {row["source_path"]: row["label"] for row in result.rows} == {"0.jpg": "cat", "1.jpg": "dog"}
    assert not result.rejects


def test_a_bad_row_is_a_reject_that_names_its_line(root: Path) -> None:
    (root / "pictures/link.jpg").symlink_to("0.jpg")
    (root / "pictures/linked").symlink_to(".")
    (root / "pictures/folder").mkdir()
    table = (
        "image,label,note,set\n"
        '0.jpg,cat,"two\nlines",train\n'  # 2 and 3
        ",cat,,\n"  # 4
        "nothing.jpg,cat,,\n"
        "1.jpg,,,\n"
        "1.jpg,..,,\n"
        "1.jpg,cat\n"
        "1.jpg,cat,,,cat\n"
        "1.jpg,cat,,holdout\n"  # 10
        "../secret.jpg,cat,,\n"
        "/etc/passwd,cat,,\n"
        "link.jpg,cat,,\n"
        "linked/1.jpg,cat,,\n"
        "folder,cat,,\n"
        "0.jpg/1.jpg,cat,,\n"  # 16
        "1.jpg,cat,,VALIDATION\n"
    )
    put(root / "a.csv", table.encode())
    result = run(root, settings(subset_column="set"))
    assert lines(result) == {
        "line 4": "no-path", "line 5": "missing-file", "line 6": "no-label", "line 7": "bad-label", "line 8": "bad-row",
        "line 9": "bad-row", "line 10": "bad-subset", "line 11": "unsafe-path", "line 12": "unsafe-path",
        "line 13": "symlink", "line 14": "symlink", "line 15": "not-a-file", "line 16": "not-a-file",
    }  # fmt: skip
    details = dict(rejects(result))
    assert details["bad-row"] == "line 9: 5 cells, where the header has 4"
    assert details["bad-subset"].startswith("line 10: set is 'holdout'; write one of train, training, trainset, val")
    assert details["bad-label"].endswith("is no name; change it in the table")
    assert {row["source_path"] for row in result.rejects} >= {"line 4", "nothing.jpg", "../secret.jpg"}
    assert {row["source_path"]: row["given_subset"] for row in result.rows} == {"0.jpg": "train", "1.jpg": "val"}
    assert result.artifact.num_files == 15


def test_a_quote_that_is_never_closed_costs_one_row(root: Path) -> None:
    put(root / "a.csv", b'image,label\n0.jpg,cat\n"1.jpg,cat\n2.jpg,dog\n3.jpg,"dog"s\n3.jpg,dog\n')
    result = run(root, settings())
    assert {row["source_path"] for row in result.rows} == {"0.jpg", "2.jpg", "3.jpg"}
    assert lines(result) == {"line 3": "bad-row", "line 5": "bad-row"}


def test_broken_json_lines_are_rejects_and_the_others_are_read(root: Path) -> None:
    good = b'{"image": "0.jpg", "label": "cat"}\n'
    deep = b"[" * 100_000 + b"\n"
    long = b'{"image": "' + b"x" * (3 << 20) + b'"}\n'
    bad = b'{"image": \n[1]\n\n"text"\n{"image": "1.jpg"}\n{"image": 1, "label": "cat"}\n' + deep + long
    put(root / "a.jsonl", b"\xef\xbb\xbf" + good + bad + b'{"image": "2.jpg", "label": "cat"}')
    result = run(root, settings(path="a.jsonl", format="jsonl"))
    assert {row["source_path"] for row in result.rows} == {"0.jpg", "1.jpg", "2.jpg"}
    assert lines(result) == {
        "line 2": "bad-row", "line 3": "bad-row", "line 5": "bad-row", "line 6": "no-label",
        "line 8": "bad-row", "line 9": "bad-row",
    }  # fmt: skip


def test_a_row_that_stands_twice_is_a_reject_and_one_with_another_label_stays(root: Path) -> None:
    put(root / "a.csv", b"image,label,set\n0.jpg,cat,train\n0.jpg,cat,train\n./0.jpg,dog,train\n0.jpg,cat,test\n")
    result = run(root, settings(subset_column="set"))
    assert sorted((row["source_path"], row["label"]) for row in result.rows) == [("0.jpg", "cat"), ("0.jpg", "dog")]
    assert rejects(result) == [
        ("duplicate-row", "line 3: line 2 has it under the same label"),
        ("duplicate-row", "line 5: line 2 has it under the same label, as train and not test"),
    ]


def test_a_picture_has_one_box(root: Path) -> None:
    put(root / "a.csv", b"image,label,l,t,r,b\n0.jpg,cat,0,0,9,9\n0.jpg,cat,1,1,9,9\n0.jpg,dog,1,1,9,9\n")
    result = run(root, settings(box=BOX))
    assert rejects(result) == [
        ("several-boxes", "line 3: line 2 has it with another box; a picture has one: keep one of the rows")
    ]
    assert len(result.rows) == 2


def crops(result: Result) -> dict[str, list[float]]:
    sides = ("crop_left", "crop_top", "crop_right", "crop_bottom")
    return {row["source_path"]: [round(row[side], 4) for side in sides] for row in result.rows}


@pytest.mark.parametrize(
    ("order", "unit", "numbers"),
    [("left_top_right_bottom", "pixels", "4 8 20 40"), ("left_top_width_height", "pixels", "4 8 16 32"),
     ("left_top_right_bottom", "fraction", "0.1 0.2 0.5 1.0"), ("left_top_width_height", "fraction", ".1 .2 .4 .8")],
)  # fmt: skip
def test_boxes_become_crops_whatever_their_form(root: Path, order: str, unit: str, numbers: str) -> None:
    values = numbers.split()
    rows = [f"0.jpg,cat,{','.join(values)}", "1.jpg,cat,,,,"]
    put(root / "a.csv", ("image,label,l,t,r,b\n" + "\n".join(rows)).encode())
    box = {"columns": ["l", "t", "r", "b"], "order": order, "unit": unit}
    wanted = {"0.jpg": [0.1, 0.2, 0.5, 1.0], "1.jpg": [0.0, 0.0, 1.0, 1.0]}
    assert crops(run(root, settings(box=box))) == wanted
    for text in (f"[{', '.join(values)}]", numbers, f"({';'.join(values)})"):
        put(root / "a.csv", f'image;label;box\n0.jpg;cat;"{text}"\n1.jpg;cat;""\n'.encode())
        assert crops(run(root, settings(box={**box, "columns": ["box"]}))) == wanted
    write_parquet(
        root / "a.parquet",
        [{"image": "0.jpg", "label": "cat", "box": [float(value) for value in values]},
         {"image": "1.jpg", "label": "cat", "box": None}],
    )  # fmt: skip
    own = settings(path="a.parquet", format="parquet", box={**box, "columns": ["box"]})
    assert crops(run(root, own)) == wanted


@pytest.mark.parametrize(
    "numbers", ["1,2,3", "1,2,3,x", "5,5,5,9", "9,0,5,9", "-1,0,5,5", "nan,0,1,1", "0,0,inf,5", "1,2,3,4,5", "0,0,99,9"]
)
def test_a_box_that_is_none_is_a_reject(root: Path, numbers: str) -> None:
    put(root / "a.csv", f'image,label,box\n0.jpg,cat,"{numbers}"\n1.jpg,cat,\n'.encode())
    result = run(root, settings(box={**BOX, "columns": ["box"]}))
    assert result.reasons == {"0.jpg": "bad-box"}


def test_factors_that_hold_what_joins_them_are_refused(root: Path) -> None:
    put(root / "a.csv", "image,a,b\n0.jpg,x×y,z\n1.jpg,x,y\n2.jpg,x,\n".encode())
    result = run(root, settings(label_columns=["a", "b"]))
    assert rejects(result) == [
        ("bad-label", "line 2: a 'x×y' holds '×', which joins labels; change joined_by"),
        ("no-label", "line 4: b is empty"),
    ]
    assert result.labels == ["x×y"]


def test_labels_are_cleaned_part_by_part(root: Path) -> None:
    put(root / "a.csv", "image,a,b\n0.jpg, e\u0301 ,b\n1.jpg,é,b \n".encode())
    result = run(root, settings(label_columns=["a", "b"]))
    assert result.labels == ["é×b"]
    assert {row["factors"] for row in result.rows} == {'{"a": "é", "b": "b"}'}


def test_paths_may_be_absolute_below_the_root_or_windows_like(root: Path) -> None:
    put(root / "pictures/sub/4.jpg", picture(4))
    put(root / "pictures/odd\\5.jpg", picture(5))
    rows = [f"{root}/pictures/0.jpg", "sub\\4.jpg", "odd\\5.jpg", "..\\..\\x.jpg", f"{root}/pictures/../x.jpg"]
    put(root / "a.csv", ("image,label\n" + "".join(f"{row},cat\n" for row in rows)).encode())
    result = run(root, settings())
    assert {row["source_path"] for row in result.rows} == {"0.jpg", "sub/4.jpg", "odd\\5.jpg"}
    assert Counter(result.reasons.values()) == {"unsafe-path": 2}


def test_a_path_that_is_not_utf8_finds_its_file(root: Path) -> None:
    put(root / "pictures" / b"\xf6.jpg".decode("utf-8", "surrogateescape"), picture(9))
    put(root / "a.csv", b"image,label\n\xf6.jpg,cat\n0.jpg,gr\xfc\xdfe\n")
    result = run(root, settings(encoding="windows-1252"))
    assert {row["source_path"]: row["label"] for row in result.rows} == {"\\xf6.jpg": "cat", "0.jpg": "grüße"}


TEXT = "image,label\n0.jpg,Blüte\n1.jpg,Rübe\n2.jpg,ラベル\n"


@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        ("utf-8", TEXT.encode("utf-8-sig")), ("utf-8", TEXT.encode("utf-16")), ("shift_jis", TEXT.encode("utf-32")),
        ("utf-8", TEXT.encode("utf-16-le")), ("utf-8", TEXT.encode("utf-16-be")), ("gb18030", TEXT.encode("gb18030")),
        ("utf-16", b"\xef\xbb\xbf" + TEXT.encode()),
    ],
)  # fmt: skip
def test_a_table_is_read_in_any_encoding(root: Path, encoding: str, data: bytes) -> None:
    put(root / "a.csv", data)
    assert run(root, settings(encoding=encoding)).labels == ["Blüte", "Rübe", "ラベル"]


@pytest.mark.parametrize(
    ("text", "encoding", "wanted"),
    [
        (TEXT[:32], "windows-1252", r"is not utf-8 \(line 2, byte 0xfc\): set .*windows-1252 .* '0.jpg,Blüte'"),
        ("image,ラベル\n0.jpg,cat\n", "shift_jis", r"\(line 1, byte 0x83\).*shift_jis where it says 'image,ラベル'"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("format", ["csv", "jsonl"])
def test_a_table_in_another_encoding_is_one_error(
    root: Path, text: str, encoding: str, wanted: str, format: str
) -> None:
    put(root / "a.csv", text.encode(encoding))
    with pytest.raises(InputError, match=wanted):
        run(root, settings(format=format))
    with pytest.raises(ValidationError, match="encoding 'cp9999' is none that Python knows: write utf-8, windows-1252"):
        settings(encoding="cp9999")


@pytest.mark.parametrize("first", ["sep=;\r\n", '"sep=;"\r\n', "sep=|\n", "SEP=,\n", "sep=\t\n"])
def test_the_line_that_excel_reads_its_delimiter_from_is_none_of_the_table(root: Path, first: str) -> None:
    delimiter = first.strip('"\r\n')[-1] if "\t" not in first else "\t"
    put(root / "a.csv", (first + "image,label\n0.jpg,cat\n1.jpg\n".replace(",", delimiter)).encode("utf-8-sig"))
    result = run(root, settings())
    assert result.labels == ["cat"]
    assert rejects(result) == [("bad-row", "line 4: 1 cells, where the header has 2")]


@pytest.mark.parametrize("format", WRITERS)
def test_a_missing_column_is_named_with_those_there_are_and_the_nearest(root: Path, format: str) -> None:
    WRITERS[format](root / "a", [{"image": "0.jpg", "lable": "cat", "licence": "CC0"}])
    with pytest.raises(
        InputError, match=r"a has no column 'label'; did you mean 'lable'\? It has: image, lable, licence"
    ):
        run(root, settings(path="a", format=format))
    with pytest.raises(InputError, match="a has no column 'photographer'; It has: image, lable, licence"):
        run(root, settings(path="a", format=format, label_columns=["lable"], creator_column="photographer"))


def test_a_column_that_stands_twice_is_refused(root: Path) -> None:
    put(root / "a.csv", b"image,label,label\n0.jpg,cat,dog\n")
    with pytest.raises(InputError, match="2 columns 'label'; give each its own name"):
        run(root, settings())


@pytest.mark.parametrize(
    ("format", "data", "message"),
    [
        ("csv", b"", "a.csv is empty; write a row for each picture"),
        ("csv", b"image,label\n", "a.csv has no rows"),
        ("jsonl", b"\n\n", "a.csv has no rows"),
        ("csv", b"PAR1....PAR1", "a.csv is a Parquet file; set format: parquet"),
        ("parquet", b"image,label\n0.jpg,cat\n", "a.csv is no Parquet file; set format: csv or jsonl"),
        ("parquet", b"PAR1" + bytes(99) + b"PAR1", "a.csv is a broken Parquet file"),
        ("csv", b"\x1f\x8b....", "compressed by gzip; unpack it"),
        ("csv", b"PK\x03\x04...", "a zip, or a spreadsheet; unpack it, or save it as CSV"),
    ],
)
def test_what_is_no_table_is_refused_with_a_remedy(root: Path, format: str, data: bytes, message: str) -> None:
    put(root / "a.csv", data)
    with pytest.raises(InputError, match=message):
        run(root, settings(format=format))


@pytest.mark.parametrize(
    ("named", "there"),
    [
        ("a", "a.JPG"), ("a.jpg", "a.JPG"), ("A.Jpg", "a.JPG"), ("SUB/B.JPEG", "Sub/b.jpeg"),
        ("sub\\b", "Sub/b.jpeg"), ("./sub//b.jpeg", "Sub/b.jpeg"),
        ("gru\u0308n.png", "grün.png"), ("Straße.jpg", "STRASSE.JPG"),
        ("two  words.jpg", "two words.jpg"), ("two%20words.jpg", "two words.jpg"), ("１.jpg", "1.jpg"),
        ("ver.2", "ver.2.jpg"),
        (7, "7.jpg"),
    ],
)  # fmt: skip
def test_a_path_that_means_one_file_without_doubt_is_it(
    root: Path, capsys: pytest.CaptureFixture[str], named: str | int, there: str
) -> None:
    names = "a.JPG", "Sub/b.jpeg", "grün.png", "STRASSE.JPG", "two words.jpg", "1.jpg", "ver.2.jpg", "7.jpg", "._a.JPG"
    for number, name in enumerate(names):
        put(root / "photos" / name, picture(number))
    put(root / "a.jsonl", json.dumps({"image": named, "label": "cat"}).encode())
    result = run(root, settings(path="a.jsonl", format="jsonl", root="photos"))
    assert [row["source_path"] for row in result.rows] == [there]
    told = capsys.readouterr().err
    assert (
        "1 path found under a name that differs in letter case, Unicode form, spaces or suffix alone; the first" in told
    )


@pytest.mark.parametrize(
    ("named", "detail"),
    [
        ("x", "there is no x below root; x.jpg or x.png may be meant"),
        ("X.JPEG", "there is no X.JPEG below root; x.jpg or x.png may be meant"),
        ("y.jpg", "there is no y.jpg below root; Y.jpg or y.JPG may be meant"),
        ("photos/x.jpg", "there is no photos below root, but below the folder above it: name that one as root"),
        ("data/x.jpg", "there is no data below root; x.jpg may be meant"),
        ("z.jpg", "there is no z.jpg below root; deep/in/z.jpg may be meant"),
        ("12.jpg", "there is no 12.jpg below root; 00012.jpg may be meant"),
        ("/mnt/disk/z.jpg", "the path is absolute; deep/in/z.jpg may be meant"),
        ("C:\\pictures\\z.jpg", "the path starts with a drive letter; deep/in/z.jpg may be meant"),
        ("../z.jpg", "the path holds .., which leads out of a folder; deep/in/z.jpg may be meant"),
        ("nothing.jpg", "there is no nothing.jpg below root"),
    ],
)  # fmt: skip
def test_a_path_that_may_mean_several_files_names_them(root: Path, named: str, detail: str) -> None:
    for number, name in enumerate(("x.jpg", "x.png", "Y.jpg", "y.JPG", "deep/in/z.jpg", "00012.jpg", "good.jpg")):
        put(root / "photos" / name, picture(number))
    put(root / "a.csv", f"image,label\ngood.jpg,cat\n{named},cat\n".encode())
    remedy = ": correct the path or root" if "meant" in detail else ""
    assert [row["detail"] for row in run(root, settings(root="photos")).rejects] == [f"line 3: {detail}" + remedy]


def test_litter_that_a_listing_made_by_a_program_names_is_skipped(root: Path) -> None:
    put(root / "a.csv", b"image,label\n0.jpg,cat\n._0.jpg,cat\n__MACOSX\\x.jpg,cat\n.DS_Store,\n")
    result = run(root, settings())
    assert not result.rejects
    assert result.artifact.num_litter == 3


def test_a_missing_table_and_a_missing_root_are_named(root: Path) -> None:
    with pytest.raises(InputError, match=r"sources\[0\].path: a.csv does not exist; name the table"):
        run(root, settings())
    put(root / "a.csv", b"image,label\n0.jpg,cat\n")
    with pytest.raises(InputError, match=r"sources\[0\].root: nowhere does not exist; name the folder where the paths"):
        run(root, settings(root="nowhere"))


def test_a_table_without_a_single_good_row_is_refused_with_counts(root: Path) -> None:
    put(root / "a.csv", b"image,label\nx.jpg,cat\ny.jpg,cat\n0.jpg,\n")
    with pytest.raises(InputError, match=r"none of its 3 files can be used \(2 missing-file, 1 no-label\)") as caught:
        run(root, settings())
    assert str(caught.value).endswith(
        "Correct ingest.sources (path, root, image_column, label_columns, …) or the table"
    )


def test_stamps_are_those_of_the_files(root: Path) -> None:
    put(root / "a.csv", b"image,label\n1.jpg,dog\n0.jpg,cat\n")
    own = settings()
    entry = own.sources[0]
    assert isinstance(entry, TableSource)
    found: Listing = list_table(entry, source="0-table", place=Place(root, root / "cache", own))
    assert found.stamps is not None
    assert set(found.stamps[:, 0].tolist()) == {UNKNOWN_STAMP}  # they may change again within the same moment
    for number in range(2):
        os.utime(root / f"pictures/{number}.jpg", ns=(5, 5))
    found = list_table(entry, source="0-table", place=Place(root, root / "cache", own))
    assert found.stamps is not None
    wanted = [(root / f"pictures/{number}.jpg").stat() for number in range(2)]
    assert found.stamps.tolist() == [[one.st_size, one.st_mtime_ns, one.st_ino] for one in wanted]
    assert found.paths == ["0.jpg", "1.jpg"]


def test_a_long_table_is_never_held(tmp_path: Path) -> None:
    put(tmp_path / "pictures/0.jpg", picture(0))
    with (tmp_path / "a.csv").open("w", encoding="utf-8") as file:
        file.write("image,label,note\n")
        for number in range(200_000):
            file.write(f"0.jpg,label {number % 20},{'x' * 500}\n")
    code = f"""
import resource, sys
from hashlib import sha256
from pathlib import Path
from pipelines.params.ingest import IngestParams
from pipelines.ingest.listing import Place
from pipelines.ingest.table.formats import read_rows
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
path = Path({str(tmp_path / "a.csv")!r})
print(sum(1 for _ in read_rows(path, "csv", ["image", "label"], "a.csv")))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True
    )
    num_rows, more_kilobytes = map(int, found.stdout.split())
    assert num_rows == 200_000
    assert more_kilobytes < 20_000  # the file has 100 MB


# URLs ------------------------------------------------------------------------------------------


def answer_picture(number: int, _: Hit) -> bytes:
    return picture(number)


def test_a_table_of_urls_is_fetched_and_every_row_is_accounted_for(tmp_path: Path) -> None:
    with HostileServer() as server:
        for number in range(3):
            server.add(f"/{number}.jpg", functools.partial(answer_picture, number))
        server.add("/gone.jpg", lambda _: Answer(b"", status=404))
        rows = [
            "url,label,by,set,l,t,r,b",
            f"{server.url('/0.jpg')},cat,Ada,train,0,0,20,20",
            f"{server.url('/1.jpg')},dog,Bob,test,,,,",
            f"{server.url('/1.jpg')},cat,Bob,test,,,,",
            f"{server.url('/1.jpg')},cat,Bob,test,,,,",
            f"{server.url('/gone.jpg')},cat,,,,,,",
            "ftp://a.example/x.jpg,cat,,,,,,",
            f"{server.url('/2.jpg')},,,,,,,",
            ",cat,,,,,,",
        ]
        put(tmp_path / "a.csv", "\n".join(rows).encode())
        own = settings(
            image_column="url", image_is="url", creator_column="by", subset_column="set", box=BOX,
            download=DOWNLOAD | {"private_hosts": ["127.0.0.1"]},
        )  # fmt: skip
        result = run(tmp_path, own)
        again = run(tmp_path, own, out="again")
        assert server.hits["/0.jpg"] == server.hits["/1.jpg"] == 1
        assert server.hits["/2.jpg"] == 0
    assert again.bytes == result.bytes
    assert sorted((row["url"][-5:], row["label"], row["creator"], row["given_subset"]) for row in result.rows) == [
        ("0.jpg", "cat", "Ada", "train"),
        ("1.jpg", "cat", "Bob", "test"),
        ("1.jpg", "dog", "Bob", "test"),
    ]
    assert {row["crop_right"] for row in result.rows} == {0.5, 1.0}
    assert lines(result) == {
        "line 5": "duplicate-row", "line 6": "http-404", "line 7": "unsupported-scheme", "line 8": "no-label",
        "line 9": "no-path",
    }  # fmt: skip
    records = [json.loads(line) for line in (tmp_path / "out/sources.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {record["source"] for record in records} == {"0-table"}
    assert Counter(record["outcome"] for record in records)["ok"] == 3


def test_refused_rows_count_under_their_label(root: Path) -> None:
    """So that a class all of whose rows are refused is seen to have no picture."""
    write_csv(root / "a.csv", [
        {"image": "0.jpg", "label": "cat"}, {"image": "", "label": "dog"}, {"image": "9.jpg", "label": "fox"},
        {"image": "1.jpg", "label": "b\x07d"}, {"image": "2.jpg", "label": ""},
    ])  # fmt: skip
    found = [(row["label"], row["reason"]) for row in run(root, settings()).rejects]
    assert sorted(found) == [("", "no-label"), ("b\x07d", "bad-label"), ("dog", "no-path"), ("fox", "missing-file")]


# pictures inside ---------------------------------------------------------------------------------


def hub_table(labels: list[int | None], *, start: int = 0) -> pa.Table:
    """As `datasets` writes one: the column image of {bytes, path}, label a number with a name beside the schema."""
    cells = [{"bytes": picture(start + number), "path": f"x/{number}.jpg"} for number in range(len(labels))]
    features = {"image": {"_type": "Image"}, "label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    table = pa.table({"image": cells, "label": pa.array(labels, pa.int64())})
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def inside(**changes: Any) -> IngestParams:
    return settings(**({"format": "parquet", "root": "."} | changes))


def test_parquet_with_the_pictures_inside_is_read_as_hubs_serve_it(root: Path) -> None:
    labels = [0, 1, 0, None, -1, 7, 1, 1]
    table = hub_table(labels)
    cells = table["image"].to_pylist()
    cells[6] = {"bytes": None, "path": "6.jpg"}
    cells[7] = {"bytes": b"no picture", "path": None}
    table = table.set_column(0, "image", pa.array(cells, table["image"].type)).cast(table.schema)
    pq.write_table(table, root / "a.parquet", row_group_size=3)
    for workers in (1, 2):
        result = Result(
            ingest(inside(path="a.parquet"), root=root, cache=root / "cache", out_dir=root / "out", workers=workers)
        )
        assert {row["source_path"]: row["label"] for row in result.rows} == {
            "a.parquet/0000001/0.jpg": "cat", "a.parquet/0000002/1.jpg": "dog", "a.parquet/0000003/2.jpg": "cat",
        }  # fmt: skip
        assert {row["image_id"] for row in result.rows} == {sha256(picture(number)).hexdigest() for number in range(3)}
        assert result.reasons == {
            "a.parquet/0000004/3.jpg": "no-label", "a.parquet/0000005/4.jpg": "no-label",
            "a.parquet/0000006/5.jpg": "no-label", "a.parquet/0000007/6.jpg": "no-picture",
            "a.parquet/0000008": "not-an-image",
        }  # fmt: skip


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary_view()])
@pytest.mark.parametrize(("column", "image_is"), [("image", "bytes"), ("image", "path"), ("x.image", "bytes")])
def test_so_is_a_column_of_bytes(root: Path, kind: pa.DataType, column: str, image_is: str) -> None:
    cells = pa.array([picture(number) for number in range(3)], kind)
    table = pa.table({"image": cells, "label": ["a", "b", "a"]})
    if column != "image":
        table = pa.table({"x": pa.StructArray.from_arrays([cells], ["image"]), "label": ["a", "b", "a"]})
    pq.write_table(table, root / "a.parquet")
    result = run(root, inside(path="a.parquet", image_column=column, image_is=image_is))
    assert sorted(row["source_path"] for row in result.rows) == [f"a.parquet/000000{row}" for row in (1, 2, 3)]


@pytest.mark.parametrize("path", ["data", "data/*.parquet", "{root}/data/t*.parquet"])
def test_the_parts_of_a_table_are_one_table(root: Path, path: str) -> None:
    (root / "data").mkdir()
    pq.write_table(hub_table([0, 1, 0]), root / "data/train-00000-of-00002.parquet")
    pq.write_table(hub_table([1, None], start=3), root / "data/train-00001-of-00002.parquet")
    pq.write_table(hub_table([0], start=5), root / "data/test-00000-of-00001.parquet")
    put(root / "data/._train-00000-of-00002.parquet", b"Mac OS X")
    put(root / "data/README.md", b"# data")
    result = run(root, inside(path=path.format(root=root), subset_from="file_name"))
    assert Counter(row["given_subset"] for row in result.rows) == {"train": 4, "test": 1}
    assert [row["detail"] for row in result.rejects] == ["train-00001-of-00002.parquet, line 2: label is empty"]
    assert len({row["image_id"] for row in result.rows}) == 5
    assert result.artifact.num_litter == ("t*" not in path and "*" not in path)


def test_parts_of_a_csv_name_their_lines(root: Path) -> None:
    put(root / "lists/a.csv", b"image,label\n0.jpg,cat\n")
    put(root / "lists/b/c.CSV", b"label;image\ncat;1.jpg\ncat;0.jpg\ncat\n")
    result = run(root, settings(path="lists"))
    assert sorted(row["source_path"] for row in result.rows) == ["0.jpg", "1.jpg"]
    assert rejects(result) == [
        ("duplicate-row", "b/c.CSV, line 3: a.csv, line 2 has it under the same label"),
        ("bad-row", "b/c.CSV, line 4: 1 cells, where the header has 2"),
    ]
    with pytest.raises(InputError, match="the name of a.csv begins with no train, val or test; rename it, or take"):
        run(root, settings(path="lists", subset_from="file_name"))
    with pytest.raises(InputError, match="path: pictures holds no file of csv; name the table"):
        run(root, settings(path="pictures"))


def test_a_changed_table_with_pictures_inside_is_unpacked_anew_and_the_old_one_goes(root: Path) -> None:
    pq.write_table(hub_table([0, 1]), root / "a.parquet")
    first = run(root, inside(path="a.parquet"))
    kept = {path.name for path in (root / "cache/tables").glob("*.bytes")}
    again = run(root, inside(path="a.parquet"), out="again")
    assert kept == {path.name for path in (root / "cache/tables").glob("*.bytes")}
    assert again.bytes == first.bytes
    pq.write_table(hub_table([0, 1], start=2), root / "a.parquet")
    changed = run(root, inside(path="a.parquet").model_copy(update={"snapshot": "2"}), out="changed")
    assert not {row["image_id"] for row in changed.rows} & {row["image_id"] for row in first.rows}
    assert len(list((root / "cache/tables").glob("*.bytes"))) == 1


def test_what_holds_no_pictures_is_told_so(root: Path) -> None:
    write_parquet(root / "a.parquet", [{"image": "0.jpg", "label": "cat"}])
    with pytest.raises(InputError, match="a.parquet has no column 'image' of bytes, or of {bytes, path}; correct"):
        run(root, inside(path="a.parquet", image_is="bytes"))
    with pytest.raises(ValidationError, match="image_is is bytes, which csv cannot hold: set format: parquet"):
        settings(image_is="bytes")

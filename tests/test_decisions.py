"""Human decisions are read row by row, and a wrong one is named with its file, line and remedy."""

import subprocess
from pathlib import Path

import pytest

from pipelines.core.decisions import Crop, Decisions, read_crops, read_decisions, told_of
from pipelines.core.errors import DecisionError

A, B = "a" * 64, "a" * 20 + "b" * 44
LABELS = ["SG", "Les Paul", "ES"]
GONE, TYPED = "c" * 64, "d" * 12
DROP, RELABEL, CROP = "image_id,reason\n", "image_id,label,reason\n", "image_id,left,top,right,bottom\n"
KEEP = "image_id,other_id,reason\n"


def read(folder: Path, *, drop: str = DROP, relabel: str = RELABEL, keep: str = KEEP, crop: str = CROP) -> Decisions:
    for name, text in (("drop", drop), ("relabel", relabel), ("keep", keep), ("crop", crop)):
        (folder / f"{name}.csv").write_bytes(text.encode())
    return read_decisions(folder, [A, B, B], LABELS)


def crops(folder: Path, text: str) -> dict[str, Crop]:
    (folder / "crop.csv").write_text(text, encoding="utf-8")
    return read_crops(folder, [A, B, B])


def test_no_files_and_no_rows_are_no_decisions(tmp_path: Path) -> None:
    assert read_decisions(tmp_path, [A], LABELS) == Decisions()
    assert read_crops(tmp_path, [A]) == {}
    assert read(tmp_path) == Decisions()
    assert crops(tmp_path, CROP) == {}
    assert read_crops(tmp_path, []) == {}


def test_full_ids_and_unique_prefixes_name_a_picture(tmp_path: Path) -> None:
    decisions = read(
        tmp_path,
        drop=f"image_id,reason\n{B[:24].upper()},blurred\n\n",
        relabel=f'image_id,label,reason\n{A}, SG ,"horns, both"\n',
    )
    assert (decisions.drops, decisions.relabels) == ({B: "blurred"}, {A: ("SG", "horns, both")})
    assert [one[:6] for one in decisions.taken] == [
        ("drop", "drop.csv", 2, B, "", ""),
        ("relabel", "relabel.csv", 2, A, "", "SG"),
    ]
    assert crops(tmp_path, f"{CROP}{B[:24].upper()},0.1,0.2,0.9,1\n") == {B: Crop(0.1, 0.2, 0.9, 1.0)}


def test_the_same_row_twice_is_one_decision(tmp_path: Path) -> None:
    assert read(tmp_path, drop=f"image_id,reason\n{A},x\n{A},x\n").drops == {A: "x"}
    assert crops(tmp_path, f"{CROP}{A},0,0,1,0.5\n{A},0,0,1,.50\n") == {A: Crop(0.0, 0.0, 1.0, 0.5)}


def test_files_of_spreadsheets_are_read(tmp_path: Path) -> None:
    """A byte order mark, \\r\\n, and separators that Python counts as line ends but CSV does not."""
    decisions = read(tmp_path, drop=f"\ufeffimage_id,reason\r\n{A},too\u2028dark\r\n")
    assert decisions.drops == {A: "too\u2028dark"}


@pytest.mark.parametrize(
    "text",
    [
        "image_id;label;reason\n{A};SG;horns, both\n",
        "sep=;\r\nimage_id;label;reason\r\n{A};SG;horns, both\r\n",
        '"sep=\t"\nimage_id\tlabel\treason\n{A}\tSG\thorns, both\n',
        'Image_ID,Label,REASON,,\n\n,,,,\n{A},SG,"horns, both",,\n,,\n',
        '"image_id","label","reason"\r"{A}","SG","horns, both"\r',
        'image_id,label,reason,file\n{A},SG,"horns, both",a b.jpg\n',
        'image_id;label;reason\n"{A},SG,""horns, both"""\n',
        'image_id;label;reason;file\n{A},SG,"horns, both",a b.jpg\n',
    ],
    ids=["semicolons", "sep=", "tabs", "empty cells", "quotes, \\r", "file", "one cell", "mixed"],
)
def test_what_editors_and_spreadsheets_write_is_read(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, relabel=text.replace("{A}", A)).relabels == {A: ("SG", "horns, both")}


def test_numbers_of_another_country_are_crops(tmp_path: Path) -> None:
    text = f"image_id;left;top;right;bottom\n{A};0,1;0,25;0,9;1\n"
    assert crops(tmp_path, text) == {A: Crop(0.1, 0.25, 0.9, 1.0)}


@pytest.mark.parametrize("before", ["{B},blurred", "{B},blurred\n", "{B};blurred\r\n", "{B},blurred\n\n"])
def test_ready_lines_may_be_appended_to_any_file(tmp_path: Path, before: str) -> None:
    """Files of ready lines begin with a line end, for files that do not end in one."""
    read(tmp_path, drop=DROP + before.replace("{B}", B))
    (tmp_path / "ready.csv").write_text(f"\n{A[:24]},too dark,sg/a.jpg\n")
    subprocess.run(["bash", "-c", "cat ready.csv >> drop.csv"], cwd=tmp_path, check=True)
    found = read_decisions(tmp_path, [A, B], LABELS)
    assert found.drops == {A: "too dark", B: "blurred"}
    assert [one.path for one in found.taken] == ["", "sg/a.jpg"]


def test_a_picture_that_left_is_waited_for_in_every_file(tmp_path: Path) -> None:
    rows: dict[str, str] = {
        "drop": f"{DROP}{GONE},blurred,cat/p1.jpg\n{A},x\n",
        "relabel": f"{RELABEL}{TYPED},a class that left,x\n",
        "keep": f"{KEEP}{GONE},,right\n{B},{GONE},two guitars\n",
        "crop": f"{CROP}{GONE},0,0,1,0.5\n",
    }
    found = read(tmp_path, **rows)
    assert (found.drops, found.relabels, found.keeps, found.different) == ({A: "x"}, {}, {}, {})
    assert [(one.decision, one.line, one.status) for one in found.taken] == [
        ("drop", 2, "left"),
        ("drop", 3, "applied"),
        ("relabel", 2, "left"),
        ("keep", 2, "left"),
        ("different", 3, "left"),
        ("crop", 2, "left"),
    ]
    (warning,) = told_of(found.taken)
    told = warning.splitlines()
    assert told[0] == (
        "5 of 6 decisions without a picture in the data set; each counts again when its picture comes back. Delete a "
        "row that is no longer wanted, correct an id that is mistyped:"
    )
    assert [line.strip() for line in told[1:]] == [
        "drop.csv:2 cccccccccccc (cat/p1.jpg)",
        "relabel.csv:2 dddddddddddd",
        "keep.csv:2 cccccccccccc",
        f"keep.csv:3 {B[:12]} and cccccccccccc",
        "crop.csv:2 cccccccccccc",
    ]
    back = read_decisions(tmp_path, [A, B, GONE], LABELS)
    assert back.drops == {A: "x", GONE: "blurred"}
    assert back.different == {}
    assert read_crops(tmp_path, [A, GONE]) == {GONE: Crop(0.0, 0.0, 1.0, 0.5)}


def test_a_class_stays_declared_when_the_picture_of_that_row_leaves(tmp_path: Path) -> None:
    rows = f"{RELABEL}{GONE},Bass,new class\n{A},Bass,four strings\n"
    assert read(tmp_path, relabel=rows).relabels == {A: ("Bass", "four strings")}


def test_keep_confirms_labels_and_tells_pictures_apart(tmp_path: Path) -> None:
    found = read(tmp_path, keep=f"{KEEP}{A},,label is right\n{A[:24]},{B},two guitars\n")
    assert found.keeps == {A: "label is right"}
    where = f"{tmp_path / 'keep.csv'}:3"
    assert found.different == {A: {B: where}, B: {A: where}}
    assert [one.decision for one in found.taken] == ["keep", "different"]


def test_a_dropped_picture_needs_no_other_decision(tmp_path: Path) -> None:
    keep, crop = f"{KEEP}{A},,right\n{A},{B},two\n", f"{CROP}{A},0,0,1,0.5\n"
    found = read(tmp_path, drop=f"{DROP}{A},x\n", keep=keep, crop=crop)
    assert (found.keeps, found.different) == ({}, {})
    assert [one.status for one in found.taken] == ["applied", "superseded", "superseded", "superseded"]


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        (
            f"{A},{A[:24]},two\n",
            r"keep.csv:2: a+ and a+ are one image_id, so the same bytes: these are no two pictures",
        ),
        (f"{A},x,two\n", r"keep.csv:2: 'x' is no image_id"),
        (f"{A},{B}\n", r"keep.csv:2: 2 values where 3 belong"),
    ],
)
def test_a_wrong_keep_is_named(tmp_path: Path, keep: str, message: str) -> None:
    with pytest.raises(DecisionError, match=message):
        read(tmp_path, keep=KEEP + keep)


@pytest.mark.parametrize("changed", ["1.23457E+11", "1,23457E+11", "12345678901", "1.2E+457"])
def test_an_id_that_a_spreadsheet_changed_is_named(tmp_path: Path, changed: str) -> None:
    with pytest.raises(DecisionError, match=r"drop.csv:2: the image_id is '1.*': a spreadsheet took it for a number"):
        read(tmp_path, drop=f'{DROP}"{changed}",x\n')


@pytest.mark.parametrize("glued", ["{A},blurred{B},wrong\n", "{A},{B},wrong\n", "{A},bad{B},wrong,a.jpg\n"])
def test_two_rows_on_one_line_are_no_row_with_a_file_name(tmp_path: Path, glued: str) -> None:
    with pytest.raises(DecisionError, match=r"drop.csv:2: two rows stand on one line: begin a new line"):
        read(tmp_path, drop=DROP + glued.replace("{A}", A).replace("{B}", B[:12]))


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16"])
def test_another_encoding_is_named_with_its_line(tmp_path: Path, encoding: str) -> None:
    read(tmp_path)
    (tmp_path / "relabel.csv").write_bytes(f"{RELABEL}{A},SG,für\n".encode(encoding))
    with pytest.raises(
        DecisionError, match=r"relabel.csv is not UTF-8 \(line [12]: .*save it as UTF-8; in Excel that is"
    ):
        read_decisions(tmp_path, [A], LABELS)


@pytest.mark.parametrize(
    ("drop", "relabel", "message"),
    [
        ("id,reason\n", "", r"drop.csv:1: the header is 'id,reason', it must be image_id,reason"),
        ("", "", r"drop.csv:1: the header is nothing"),
        (f"image_id,reason\n{A},x, y\n", "", r"drop.csv:2: 3 values where 2 belong .* double quotes"),
        ("image_id,reason\nxyz,x\n", "", r"drop.csv:2: 'xyz' is no image_id: give its first 12 to 64 hex digits"),
        (f"image_id,reason\n{A[:12]},x\n", "", r"drop.csv:2: several pictures' .* a{12}: give more digits"),
        (f"image_id,reason\n{A},x\n{A},y\n", "", r"drop.csv:3: a+ is dropped a second time, .*drop.csv:2: delete one"),
        (f'image_id,reason\n{A},"x\n', "", r"drop.csv:2: not valid CSV .*: mend the quotes"),
        (f'image_id,reason\n{B},"x\ny"\nhand.jpg,z\n', "", r"drop.csv:4: 'hand.jpg' is no image_id"),
        (None, f"image_id,label,reason\n{A}, ,x\n", r"relabel.csv:2: the label is empty"),
        (
            None,
            f"image_id,label,reason\n{A},SG,x\n{A},ES,x\n",
            r"relabel.csv:3: .* becomes 'ES' .* 'SG' .*csv:2: delete",
        ),
        (f"image_id,reason\n{A},x\n", f"image_id,label,reason\n{A},SG,x\n", r"relabel.csv:2: .* is dropped in .*csv:2"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, drop: str | None, relabel: str, message: str) -> None:
    with pytest.raises(DecisionError, match=message):
        read(tmp_path, drop=DROP if drop is None else drop, relabel=relabel or RELABEL)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,left\n", r"crop.csv:1: the header is 'image,left', it must be image_id,left,top,right,bottom"),
        (f"{CROP}{A},0,0,1\n", r"crop.csv:2: 4 values where 5 belong"),
        (f"{CROP}xyz,0,0,1,1\n", r"crop.csv:2: 'xyz' is no image_id: give its first 12"),
        (f"{CROP}{A[:12]},0,0,1,1\n", r"crop.csv:2: several pictures' image_ids start with a+: give more digits"),
        (f"{CROP}{A},0,0,one,1\n", r"crop.csv:2: right 'one' is no number: write a fraction from 0 to 1"),
        (f"{CROP}{A},0,0,224,1\n", r"crop.csv:2: right 224 is outside of 0 to 1: .* fractions of the side, not pixels"),
        (f"{CROP}{A},nan,0,1,1\n", r"crop.csv:2: left nan is outside of 0 to 1"),
        (f"{CROP}{A},-inf,0,1,1\n", r"crop.csv:2: left -inf is outside of 0 to 1"),
        (f"{CROP}{A},0.6,0,0.5,1\n", r"crop.csv:2: left 0.6 is not less than right 0.5: swap or widen them"),
        (f"{CROP}{A},0,0.5,1,0.5\n", r"crop.csv:2: top 0.5 is not less than bottom 0.5"),
        (f"{CROP}{A},0,0,1,1\n{A},0,0,1,0.9\n", r"crop.csv:3: a+ is cropped a second time, .*crop.csv:2: delete one"),
    ],
)
def test_a_wrong_crop_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DecisionError, match=message):
        crops(tmp_path, text)


@pytest.mark.parametrize("name", ["drop.csv", "crop.csv"])
def test_a_file_that_is_no_text_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DecisionError, match=rf"{name} is not UTF-8 .*: save it as UTF-8"):
        _ = (read_decisions(tmp_path, [A], LABELS), read_crops(tmp_path, [A]))


def test_a_label_that_no_picture_has_names_the_nearest_and_how_to_add_a_class(tmp_path: Path) -> None:
    with pytest.raises(DecisionError) as caught:
        read(tmp_path, relabel=f"{RELABEL}{A},SG,x\n{B},les poul,x\n")
    assert str(caught.value) == (
        f"{tmp_path / 'relabel.csv'}:3: no picture came under the label 'les poul'; did you mean 'Les Paul'? "
        "Correct it, or, if a class of that name is to be, begin the reason of one of its rows with 'new class'"
    )
    with pytest.raises(DecisionError, match=r"the label '東京'; Correct it"):
        read(tmp_path, relabel=f"{RELABEL}{A},東京,x\n")


def test_one_row_that_says_so_allows_a_new_class_for_all_rows(tmp_path: Path) -> None:
    rows = f'{RELABEL}{A},Bass,four strings\n{B},Bass,"New class, for basses"\n'
    assert set(read(tmp_path, relabel=rows).relabels) == {A, B}
    with pytest.raises(DecisionError, match=r"csv:2: no picture came under the label 'Bas'; did you mean 'Bass'?"):
        read(tmp_path, relabel=rows.replace(f"{A},Bass", f"{A},Bas"))

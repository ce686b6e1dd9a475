"""Human decisions are read row by row, and a wrong one is named with its file, line and remedy."""

from pathlib import Path

import pytest

from pipelines.core.crops import Crop
from pipelines.core.decisions import Decisions, read_crops, read_decisions
from pipelines.core.errors import DecisionError

A, B = "a" * 64, "a" * 20 + "b" * 44
LABELS = ["SG", "Les Paul", "ES"]
DROP, RELABEL, CROP = "image_id,reason\n", "image_id,label,reason\n", "image_id,left,top,right,bottom\n"


def read(folder: Path, *, drop: str = DROP, relabel: str = RELABEL) -> Decisions:
    (folder / "drop.csv").write_text(drop, encoding="utf-8")
    (folder / "relabel.csv").write_text(relabel, encoding="utf-8")
    return read_decisions(folder, [A, B, B], LABELS)


def crops(folder: Path, text: str) -> dict[str, Crop]:
    (folder / "crop.csv").write_text(text, encoding="utf-8")
    return read_crops(folder, [A, B, B])


def test_no_files_and_no_rows_are_no_decisions(tmp_path: Path) -> None:
    assert read_decisions(tmp_path, [A], LABELS) == Decisions({}, {})
    assert read_crops(tmp_path, [A]) == {}
    assert read(tmp_path) == Decisions({}, {})
    assert crops(tmp_path, CROP) == {}
    assert read_crops(tmp_path, []) == {}


def test_full_ids_and_unique_prefixes_name_a_picture(tmp_path: Path) -> None:
    decisions = read(
        tmp_path,
        drop=f"image_id,reason\n{B[:24].upper()},blurred\n\n",
        relabel=f'image_id,label,reason\n{A}, SG ,"horns, both"\n',
    )
    assert decisions == Decisions({B: "blurred"}, {A: ("SG", "horns, both")})
    assert crops(tmp_path, f"{CROP}{B[:24].upper()},0.1,0.2,0.9,1\n") == {B: Crop(0.1, 0.2, 0.9, 1.0)}


def test_the_same_row_twice_is_one_decision(tmp_path: Path) -> None:
    assert read(tmp_path, drop=f"image_id,reason\n{A},x\n{A},x\n").drops == {A: "x"}
    assert crops(tmp_path, f"{CROP}{A},0,0,1,0.5\n{A},0,0,1,.50\n") == {A: Crop(0.0, 0.0, 1.0, 0.5)}


def test_files_of_spreadsheets_are_read(tmp_path: Path) -> None:
    """A byte order mark, \\r\\n, and separators that Python counts as line ends but CSV does not."""
    decisions = read(tmp_path, drop=f"\ufeffimage_id,reason\r\n{A},too\u2028dark\r\n")
    assert decisions.drops == {A: "too\u2028dark"}


@pytest.mark.parametrize(
    ("drop", "relabel", "message"),
    [
        ("id,reason\n", "", r"drop.csv:1: the header is 'id,reason', it must be image_id,reason"),
        ("", "", r"drop.csv:1: the header is nothing"),
        (f"image_id,reason\n{A},x,y\n", "", r"drop.csv:2: 3 values where 2 belong .* double quotes"),
        ("image_id,reason\nxyz,x\n", "", r"drop.csv:2: 'xyz' is no image_id: give its first 12 to 64 hex digits"),
        (f"image_id,reason\n{'c' * 64},x\n", "", r"drop.csv:2: no picture has the image_id c+: .* delete the row"),
        (f"image_id,reason\n{A[:12]},x\n", "", r"drop.csv:2: several pictures' .* a{12}: give more digits"),
        (f"image_id,reason\n{A},x\n{A},y\n", "", r"drop.csv:3: a+ is dropped a second time, .*drop.csv:2: delete one"),
        (f'image_id,reason\n{A},"x\n', "", r"drop.csv:2: not valid CSV .*: mend the quotes"),
        (f'image_id,reason\n{B},"x\ny"\n{"c" * 12},z\n', "", r"drop.csv:4: no picture has the image_id c+"),
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
        (f"{CROP}{'c' * 64},0,0,1,1\n", r"crop.csv:2: no picture has the image_id c+: .* delete the row"),
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

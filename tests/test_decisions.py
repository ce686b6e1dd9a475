"""Human decisions are read row by row, and a wrong one is named with its file, line and remedy."""

from pathlib import Path

import pytest

from pipelines.core.decisions import Decisions, read_decisions
from pipelines.core.errors import DecisionError

A, B = "a" * 64, "a" * 20 + "b" * 44


def read(folder: Path, *, drop: str = "image_id,reason\n", relabel: str = "image_id,label,reason\n") -> Decisions:
    (folder / "drop.csv").write_text(drop, encoding="utf-8")
    (folder / "relabel.csv").write_text(relabel, encoding="utf-8")
    return read_decisions(folder, [A, B, B])


def test_no_files_are_no_decisions(tmp_path: Path) -> None:
    assert read_decisions(tmp_path, [A]) == Decisions({}, {})


def test_full_ids_and_unique_prefixes_name_a_picture(tmp_path: Path) -> None:
    decisions = read(
        tmp_path,
        drop=f"image_id,reason\n{B[:24].upper()},blurred\n\n",
        relabel=f'image_id,label,reason\n{A}, SG ,"horns, both"\n',
    )
    assert decisions == Decisions({B: "blurred"}, {A: ("SG", "horns, both")})


def test_the_same_row_twice_is_one_decision(tmp_path: Path) -> None:
    assert read(tmp_path, drop=f"image_id,reason\n{A},x\n{A},x\n").drops == {A: "x"}


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
        read(
            tmp_path,
            drop="image_id,reason\n" if drop is None else drop,
            relabel=relabel or "image_id,label,reason\n",
        )

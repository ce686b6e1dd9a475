"""A decision about one picture reaches its copies, and closes what it decides."""

import csv
import hashlib
from pathlib import Path

import pytest
from dedupe_inputs import File, drawn, jpeg, png, run
from PIL import Image, ImageDraw, ImageOps

from pipelines.core.errors import DecisionError
from pipelines.core.tables import short_id

BEST, COPY, WORSE = jpeg(drawn(1)), jpeg(drawn(1), 60), jpeg(drawn(1), 30)


def image_id(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def taken(folder: Path) -> list[dict[str, str]]:
    with (folder / "dedupe/decisions.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("decided", [BEST, WORSE], ids=["the best", "a copy"])
def test_a_new_label_reaches_near_copies_so_that_none_is_held(tmp_path: Path, decided: bytes) -> None:
    files = [File("SG", name, data) for name, data in (("a", BEST), ("b", COPY), ("c", WORSE), ("d", jpeg(drawn(2))))]
    files += [File("ES", "e", jpeg(drawn(3)))]
    result = run(tmp_path, files, relabel=(f"{image_id(decided)[:12]},ES,horns,sg/a.jpg",))
    assert result.verdicts() == {"a": "keep", "b": "copy", "c": "copy", "d": "keep", "e": "keep"}
    assert [result.rows[name]["label"] for name in "abcd"] == ["ES", "ES", "ES", "SG"]
    assert [result.rows[name]["original_label"] for name in "abc"] == ["SG"] * 3
    told = {name: result.rows[name]["decision"] for name in "abcd"}
    of = f"relabel: horns (copy of {image_id(decided)[:12]})"
    assert told == {"a": of, "b": of, "c": of, "d": ""} | {"ac"[decided == WORSE]: "relabel: horns"}
    assert "; 1 decision, 2 copies reached" in str(result.artifact)


def test_a_confirmed_label_settles_a_conflict_and_confirms_its_copies(tmp_path: Path) -> None:
    files = [File("SG", "a", BEST), File("ES", "b", COPY), File("SG", "c", WORSE)]
    assert set(run(tmp_path / "before", files).verdicts().values()) == {"conflict"}
    result = run(tmp_path, files, keep=(f"{image_id(WORSE)},,four strings",))
    assert result.verdicts() == {"a": "keep", "b": "copy", "c": "copy"}
    of = f"four strings (copy of {image_id(WORSE)[:12]})"
    assert [result.rows[name]["decision"] for name in "abc"] == [f"keep: {of}", f"relabel: {of}", "keep: four strings"]
    assert {row["label"] for row in result.rows.values()} == {"SG"}
    assert taken(tmp_path) == [
        {"decision": "keep", "file": "keep.csv", "line": "2", "image_id": image_id(WORSE), "other_id": "", "label": ""}
        | {"reason": "four strings", "status": "applied", "path": "c"}
    ]


def test_equal_bytes_under_two_labels_follow_a_confirmed_copy_as_one(tmp_path: Path) -> None:
    files = [File("ES", "a", BEST), File("SG", "b", BEST), File("SG", "c", COPY)]
    reference = tmp_path / "reference"
    reference.mkdir()
    (reference / "d.jpg").write_bytes(jpeg(drawn(2)))
    against = ({"name": "last month", "path": "reference", "found": "drop"},)
    result = run(tmp_path, files, keep=(f"{image_id(COPY)},,x",), reference_sets=against)
    assert result.verdicts() == {"a": "keep", "b": "copy", "c": "copy"}
    assert {row["label"] for row in result.rows.values()} == {"SG"}
    assert sorted((pair["path_a"], pair["path_b"]) for pair in result.pairs if pair["kind"] == "exact") == [("a", "b")]
    assert len(result.pairs) == 2
    (reference / "d.jpg").write_bytes(BEST)
    result = run(
        tmp_path / "found",
        files,
        keep=(f"{image_id(COPY)},,x",),
        reference_sets=({**against[0], "path": "../reference"},),
    )
    assert set(result.verdicts().values()) == {"drop"}
    result = run(
        tmp_path / "dropped",
        files,
        drop=(f"{image_id(BEST)},x",),
        reference_sets=({**against[0], "path": "../reference"},),
    )
    assert result.verdicts() == {"a": "drop", "b": "drop", "c": "drop"}


def test_two_confirmed_labels_stand_beside_each_other(tmp_path: Path) -> None:
    files = [File("SG", "a", BEST), File("ES", "b", COPY)]
    result = run(tmp_path, files, keep=(f"{image_id(BEST)},,x", f"{image_id(COPY)},,y"))
    assert result.verdicts() == {"a": "keep", "b": "keep"}
    assert result.rows["a"]["group"] == result.rows["b"]["group"]


def test_of_equal_bytes_under_two_labels_keep_cannot_say_which_is_right(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    files = [File("SG", "a", BEST), File("ES", "b", BEST)]
    result = run(tmp_path, files, keep=(f"{image_id(BEST)},,x",))
    assert set(result.verdicts().values()) == {"conflict"}
    assert [row["status"] for row in taken(tmp_path)] == ["two labels"]
    assert "Say in relabel.csv which is right:\n    keep.csv:2" in capfd.readouterr().err
    result = run(tmp_path / "said", files, keep=(f"{image_id(BEST)},,x",), relabel=(f"{image_id(BEST)},SG,x",))
    assert sorted(result.verdicts().values()) == ["copy", "keep"]


@pytest.mark.parametrize("other", ["SG", "ES"])
def test_pictures_that_a_person_calls_different_have_no_link(tmp_path: Path, other: str) -> None:
    files = [File("SG", "a", BEST), File(other, "b", COPY), File("SG", "c", jpeg(drawn(2)))]
    result = run(tmp_path, files, keep=(f"{image_id(COPY)[:12]},{image_id(BEST)[:12]},two guitars",))
    assert set(result.verdicts().values()) == {"keep"}
    assert result.rows["a"]["group"] != result.rows["b"]["group"]
    assert (result.pairs, {row["decision"] for row in result.rows.values()}) == ([], {""})
    assert [(row["decision"], row["status"]) for row in taken(tmp_path)] == [("different", "applied")]


def signs() -> list[bytes]:
    """Two drawings of which thumbnails are equal, details are not."""
    found = []
    for hidden in (17, 18):
        sign = Image.new("RGB", (256, 256), "white")
        draw = ImageDraw.Draw(sign)
        draw.rectangle((40, 40, 200, 120), fill="black")
        draw.point((hidden, 17), fill=(250, 250, 250))
        found.append(png(sign))
    return found


def test_equal_thumbnails_may_be_different_but_equal_pixels_may_not(tmp_path: Path) -> None:
    one, other = signs()
    files = [File("a", "a", one), File("b", "b", other)]
    assert set(run(tmp_path / "before", files).verdicts().values()) == {"conflict"}
    row = f"{image_id(one)},{image_id(other)},x"
    assert set(run(tmp_path / "after", files, keep=(row,)).verdicts().values()) == {"keep"}
    one, other = png(drawn(1)), png(drawn(1), 0)
    with pytest.raises(DecisionError, match=r"keep.csv:2: \w and \w are equal in every pixel: these are no two pictur"):
        run(
            tmp_path / "pixels",
            [File("a", "a", one), File("b", "b", other)],
            keep=(f"{image_id(one)},{image_id(other)},x",),
        )


def test_a_third_picture_is_a_copy_of_one_of_two_different_ones_and_nothing_is_lost(tmp_path: Path) -> None:
    files = [File("SG", "a", COPY), File("ES", "b", WORSE), File("SG", "c", BEST)]
    result = run(tmp_path, files, keep=(f"{image_id(COPY)},{image_id(WORSE)},two guitars",))
    assert result.rows["a"]["verdict"] == "copy"
    assert result.rows["b"]["verdict"] == result.rows["c"]["verdict"] == "keep"
    assert result.rows["b"]["group"] != result.rows["c"]["group"]
    assert [(pair["path_a"], pair["path_b"]) for pair in result.pairs] in ([("a", "c")], [("c", "a")])


def test_a_dropped_picture_takes_along_what_was_left_out_for_it(tmp_path: Path) -> None:
    files = [File("SG", "a", BEST), File("SG", "b", COPY), File("ES", "c", WORSE), File("SG", "d", jpeg(drawn(2)))]
    drop = (f"{image_id(BEST)[:12]},blurred",)
    result = run(tmp_path / "1", files, drop=drop)
    assert result.verdicts() == {"a": "drop", "b": "drop", "c": "keep", "d": "keep"}
    assert result.rows["b"]["decision"] == f"drop: blurred (copy of {image_id(BEST)[:12]})"
    assert (result.pairs, result.artifact.num_dropped) == ([], 2)
    kept = run(tmp_path / "2", files, drop=drop, keep=(f"{image_id(COPY)},,sharp enough",))
    assert (kept.rows["b"]["verdict"], kept.rows["b"]["decision"]) == ("keep", "keep: sharp enough")
    assert run(tmp_path / "3", files, drop=drop, duplicates="keep").rows["b"]["verdict"] in ("keep", "conflict")


def test_a_dropped_copy_leaves_the_better_picture(tmp_path: Path) -> None:
    files = [File("SG", "a", BEST), File("SG", "b", COPY), File("SG", "c", WORSE)]
    result = run(tmp_path, files, drop=(f"{image_id(COPY)},marked",))
    assert result.verdicts() == {"a": "keep", "b": "drop", "c": "copy"}


@pytest.mark.parametrize(("label", "held"), [("SG", False), ("LP", True)])
def test_a_new_label_reaches_other_cuts_that_came_under_the_same_label(tmp_path: Path, label: str, held: bool) -> None:
    photograph = drawn(1, 240)
    cuts = [jpeg(photograph.crop(box)) for box in ((0, 0, 230, 240), (10, 0, 240, 240))]
    files = [File("SG", "a", cuts[0]), File(label, "b", cuts[1]), File("ES", "c", jpeg(drawn(2)))]
    assert [pair["kind"] for pair in run(tmp_path / "before", files).pairs] == ["recrop"]
    result = run(tmp_path / "after", files, relabel=(f"{image_id(cuts[0])},ES,x",))
    assert result.verdicts() == {"a": "keep", "b": "conflict" if held else "keep", "c": "keep"}
    assert result.rows["b"]["label"] == ("LP" if held else "ES")


def test_decisions_about_pictures_that_left_are_told_and_stop_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    result = run(
        tmp_path,
        [File("SG", "a", BEST), File("SG", "b", jpeg(drawn(2)))],
        drop=(f"{'c' * 64},blurred,cat/gone.jpg", f"{image_id(BEST)},x"),
        keep=(f"{'d' * 12},,x",),
    )
    assert result.verdicts() == {"a": "drop", "b": "keep"}
    assert capfd.readouterr().err.splitlines() == [
        "dedupe: warning: 2 of 3 decisions without a picture in the data set; each counts again when its picture comes "
        "back. Delete a row that is no longer wanted, correct an id that is mistyped:",
        "    drop.csv:2 cccccccccccc (cat/gone.jpg)",
        "    keep.csv:2 dddddddddddd",
    ]
    assert str(result.artifact).endswith("; 3 decisions, 2 without a picture in the data set")
    assert [(row["status"], row["path"]) for row in taken(tmp_path)] == [
        ("left", "cat/gone.jpg"),
        ("applied", "a"),
        ("left", ""),
    ]


def test_pairs_say_how_one_picture_lies_on_the_other(tmp_path: Path) -> None:
    pictures = [drawn(1), ImageOps.mirror(drawn(1)), drawn(2), drawn(2).rotate(90), drawn(3), drawn(3).rotate(180)]
    files = [
        File("x", str(n), png(picture)) for n, picture in enumerate([*pictures, drawn(4), drawn(4).resize((80, 80))])
    ]
    result = run(tmp_path, files, rotations=True)
    found = {frozenset((pair["path_a"], pair["path_b"])): pair["transform"] for pair in result.pairs}
    names = ("mirror", "rotate90", "rotate180", "none")
    assert found == {frozenset((str(2 * n), str(2 * n + 1))): name for n, name in enumerate(names)}


def test_a_short_id_is_no_number() -> None:
    assert short_id("0a" * 32) == "0a" * 6
    assert short_id("1234567890123b" + "0" * 50) == "1234567890123b"
    assert short_id("12345e7890123b" + "0" * 50) == "12345e7890123b"

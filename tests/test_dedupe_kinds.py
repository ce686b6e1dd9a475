"""What else dedupe finds: other cuts, turns, marks, pictures of reference sets, pairs by features; how groups end."""

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from dedupe_inputs import File, drawn, jpeg, params, png, run, write_ingest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFilter
from pydantic import ValidationError

from pipelines.core.errors import InputError
from pipelines.dedupe.find_pairs import FoundPairs, ReferencePair
from pipelines.dedupe.groups import MAX_DIAMETER, ImageVerdict, LabelledImage, assign_verdicts
from pipelines.dedupe.output import ReferenceMatch, _apart
from pipelines.dedupe.pair_classes import PairSizes, geometry_slack, is_crop_or_resize
from pipelines.dedupe.refine import tile_agreement
from pipelines.dedupe.stage import _dropped_for_references
from pipelines.params.dedupe import EmbeddingParams, ReferenceParams


def detailed(seed: int, size: int = 240) -> Image.Image:
    """A drawn picture with sharp detail: what tells two photographs of one scene apart."""
    picture = drawn(seed, size)
    draw = ImageDraw.Draw(picture)
    rng = np.random.default_rng(seed + 1000)
    for _ in range(40):
        x, y, w, h = rng.integers(0, size, 2).tolist() + rng.integers(4, size // 8, 2).tolist()
        draw.rectangle((x, y, x + w, y + h), fill=tuple(rng.integers(0, 256, 3).tolist()))
    return picture.filter(ImageFilter.GaussianBlur(1))


def boxed(picture: Image.Image) -> Image.Image:
    """With an opaque white logo."""
    copy = picture.copy()
    ImageDraw.Draw(copy).rectangle((196, 224, 232, 232), fill="white")
    return copy


def test_an_opaque_mark_does_not_hide_a_copy(tmp_path: Path) -> None:
    files = [File("x", f"{seed}.jpg", jpeg(detailed(seed))) for seed in range(6)]
    files += [File("x", f"{seed}-marked.jpg", jpeg(boxed(detailed(seed)))) for seed in range(6)]
    result = run(tmp_path, files)
    assert {pair["kind"] for pair in result.pairs} == {"near"}
    assert len(result.pairs) == 6


def two_cuts(first: str, second: str) -> list[File]:
    photograph = detailed(1)
    left, right = photograph.crop((0, 0, 230, 240)), photograph.crop((10, 0, 240, 240))
    return [File(first, "left", jpeg(left)), File(second, "right", jpeg(right))]


def test_two_cuts_of_one_photograph_both_stay_in_one_group(tmp_path: Path) -> None:
    files = two_cuts("x", "x")
    result = run(tmp_path, files)
    assert [(pair["kind"], pair["verdict"]) for pair in result.pairs] == [("recrop", "keep")]
    assert result.verdicts() == {"left": "keep", "right": "keep"}
    assert result.rows["left"]["group"] == result.rows["right"]["group"]
    dropped = run(tmp_path / "drop", files, recrops="drop")
    assert sorted(dropped.verdicts().values()) == ["copy", "keep"]
    assert str(dropped.artifact) == "1 picture kept of 2 files, 1 copy dropped"
    assert [pair["verdict"] for pair in dropped.pairs] == ["copy"]


def test_two_cuts_under_two_labels_are_a_conflict(tmp_path: Path) -> None:
    files = two_cuts("x", "y")
    result = run(tmp_path, files)
    assert [(pair["kind"], pair["verdict"]) for pair in result.pairs] == [("recrop", "conflict")]
    assert result.verdicts() == {"left": "conflict", "right": "conflict"}


def test_the_next_article_of_a_shop_is_no_copy(tmp_path: Path) -> None:
    """Equal in all that a thumbnail shows, different in detail."""
    shape = drawn(1, 240).filter(ImageFilter.GaussianBlur(6))
    files = []
    for seed in range(2):
        grain = np.random.default_rng(seed).integers(-12, 13, (80, 80, 1), dtype=np.int16)
        noise = np.repeat(np.repeat(np.repeat(grain, 3, 0), 3, 1), 3, 2)
        pixels = np.clip(np.asarray(shape, np.int16) + noise, 0, 255).astype(np.uint8)
        files.append(File("x", str(seed), png(Image.fromarray(pixels))))
    result = run(tmp_path, files)
    assert [(pair["kind"], pair["verdict"]) for pair in result.pairs] == [("similar", "keep")]
    assert set(result.verdicts().values()) == {"keep"}


@pytest.mark.parametrize("turn", [Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270])
def test_a_turned_copy_is_found_only_when_asked(tmp_path: Path, turn: Image.Transpose) -> None:
    tall = detailed(1).crop((0, 0, 180, 240))
    files = [File("x", "a", jpeg(tall)), File("x", "b", jpeg(tall.transpose(turn))), File("x", "c", jpeg(detailed(2)))]
    assert run(tmp_path / "off", files).pairs == []
    found = run(tmp_path / "on", files, rotations=True)
    assert [(pair["path_a"], pair["path_b"], pair["kind"]) for pair in found.pairs] in (
        [("a", "b", "near")],
        [("b", "a", "near")],
    )


def sizes(moving: tuple[int, int], fixed: tuple[int, int]) -> PairSizes:
    return PairSizes(np.array([moving]), np.array([fixed]))


@pytest.mark.parametrize(
    ("warp", "moving", "fixed", "possible"),
    [
        ((1, 0, 1, 0), (100, 100), (50, 80), True),  # resized, stretched as a whole
        ((0.9, 1.6, 0.9, 1.6), (100, 100), (90, 90), True),  # a corner cut off
        ((0.9, 1.6, 1, 0), (100, 100), (90, 100), True),  # a side cut off
        ((0.9, 1.6, 1, 0), (100, 100), (100, 100), False),  # ... and stretched
        ((1, 1.6, 1, 0), (100, 100), (100, 100), False),  # shifted: each shows what the other does not
        ((0.8, 0, 0.8, 0), (100, 100), (80, 80), False),  # a fifth cut off
        ((1.1, 0, 1.1, 0), (100, 100), (110, 110), True),  # framed
    ],
)
def test_a_copy_holds_nothing_that_its_original_does_not(
    warp: tuple[float, ...], moving: tuple[int, int], fixed: tuple[int, int], possible: bool
) -> None:
    found = is_crop_or_resize(np.array([warp], np.float32), sizes(moving, fixed), slack=0.0)
    assert found.tolist() == [possible]


def test_doubt_shrinks_with_the_number_of_pictures() -> None:
    assert [geometry_slack(count) for count in (0, 1, 10_000, 60_000, 1_000_000)] == [1, 1, 1, 0, 0]
    assert 0 < geometry_slack(30_000) < geometry_slack(20_000) < 1


def test_detail_of_one_picture_agrees_and_of_two_does_not() -> None:
    one, other = (np.asarray(detailed(seed, 84).convert("L"), np.float32)[None] for seed in (1, 2))
    same = tile_agreement(one, one * 0.7 + 20)
    assert min(same.mean[0], same.clear[0]) > 0.99
    assert same.whole.tolist() == same.marked.tolist() == [True]
    apart = tile_agreement(one, other)
    assert apart.mean[0] < 0.5
    covered = one.copy()
    covered[:, 78:, 50:] = 255
    found = tile_agreement(one, covered)
    assert found.mean[0] < found.clear[0]
    assert found.clear[0] > 0.99
    assert (found.whole[0], found.marked[0]) == (False, True)
    refitted = one.copy()
    refitted[:, 36:48, 36:48] = 255
    found = tile_agreement(one, refitted)
    assert found.clear[0] > 0.99
    assert (found.whole[0], found.marked[0]) == (False, False)
    blank = np.zeros_like(one)
    assert tile_agreement(blank, blank).whole.tolist() == [True]


def items(count: int) -> list[LabelledImage]:
    return [LabelledImage(f"{number:064x}", "x", decided=False, area=1, size=1) for number in range(count)]


def test_a_chain_of_look_alikes_is_not_one_group() -> None:
    chain = [(number, number + 1) for number in range(99)]
    judged = assign_verdicts(items(100), range(100), [], similar=chain, drop_copies=True, hold_conflicts=True)
    assert {one.verdict for one in judged} == {"keep"}
    groups: dict[str, list[int]] = {}
    for number, one in enumerate(judged):
        groups.setdefault(one.group, []).append(number)
    assert max(map(len, groups.values())) == MAX_DIAMETER + 1
    assert all(inside == list(range(inside[0], inside[-1] + 1)) for inside in groups.values())


def test_two_labels_are_not_in_dispute_through_a_picture_that_has_none() -> None:
    three = [
        LabelledImage("1" * 64, "a", decided=False, area=1, size=1),
        LabelledImage(
            "2" * 64, "", decided=False, area=9, size=9, has_label=False
        ),  # the best, were it not for its label
        LabelledImage("3" * 64, "b", decided=False, area=1, size=1),
    ]
    judged = assign_verdicts(three, range(3), [(0, 1), (1, 2)], drop_copies=True, hold_conflicts=True)
    assert [one.verdict for one in judged] == ["keep", "copy", "keep"]
    assert judged[1].best_id == "1" * 64
    kept = assign_verdicts(three, range(3), [(0, 1), (1, 2)], drop_copies=False, hold_conflicts=True)
    assert [one.verdict for one in kept] == ["keep"] * 3
    assert len({one.group for one in kept}) == 1


def test_a_chain_of_copies_drops_only_what_matches_the_picture_that_stays() -> None:
    chain = [(number, number + 1) for number in range(9)]
    judged = assign_verdicts(items(10), range(10), chain, drop_copies=True, hold_conflicts=True)
    kept = [number for number, one in enumerate(judged) if one.verdict == "keep"]
    assert kept == [0, 2, 4, 6, 8]
    assert all(int(one.best_id, 16) == number - number % 2 for number, one in enumerate(judged))


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=20), st.randoms(use_true_random=False))
def test_verdicts_do_not_depend_on_the_order_of_pairs(edges: list[tuple[int, int]], rng: random.Random) -> None:
    edges = [(one, other) for one, other in edges if one != other]
    shuffled = [(other, one) for one, other in edges]
    rng.shuffle(shuffled)
    first, second = (
        assign_verdicts(items(12), range(12), some, drop_copies=True, hold_conflicts=True) for some in (edges, shuffled)
    )
    assert [one.verdict for one in first] == [one.verdict for one in second]
    assert [one.best_id for one in first] == [one.best_id for one in second]


def as_folder(place: Path, files: list[File]) -> str:
    for file in files:
        path = place / "last" / file.label / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.data)
    (place / "last" / "notes.txt").write_text("no picture")
    return "last"


def as_manifest(place: Path, files: list[File]) -> str:
    write_ingest(place / "last", files)
    return "last/manifest.parquet"


@pytest.mark.parametrize("write", [as_folder, as_manifest])
@pytest.mark.parametrize("found", ["drop", "report"])
def test_a_picture_of_a_reference_set_is_found(
    tmp_path: Path, write: Callable[[Path, list[File]], str], found: str
) -> None:
    mine = [File("x", f"{seed}.jpg", jpeg(detailed(seed))) for seed in range(4)]
    theirs = [
        File("old", "same.jpg", mine[0].data),
        File("old", "smaller.jpg", jpeg(detailed(1).resize((120, 120)), 60)),
        File("old", "other.jpg", jpeg(detailed(9))),
    ]
    place = tmp_path / "run"
    place.mkdir()
    reference = ReferenceParams(name="last month", path=write(place, theirs), found=found)  # type: ignore[arg-type]
    result = run(place, mine, reference_sets=(reference,))
    rows = {(row["path_a"], row["path_b"].rpartition("/")[2], row["kind"], row["verdict"]) for row in result.pairs}
    verdict = "drop" if found == "drop" else "keep"
    assert rows == {
        ("0.jpg", "same.jpg", "exact in last month", verdict),
        ("1.jpg", "smaller.jpg", "near in last month", verdict),
    }
    assert result.verdicts() == {"0.jpg": verdict, "1.jpg": verdict, "2.jpg": "keep", "3.jpg": "keep"}
    notes = [result.rows[name]["decision"].replace("old/", "") for name in ("0.jpg", "1.jpg", "2.jpg")]
    assert notes == (
        ["drop: in last month: same.jpg", "drop: in last month: smaller.jpg", ""] if found == "drop" else [""] * 3
    )
    assert result.artifact.num_against == 2
    assert result.artifact.num_skipped == (1 if write is as_folder else 0)


def test_a_copy_of_a_picture_that_goes_goes_too() -> None:
    """Nodes 0, 1 and 2, 3: the reference holds 0, 1 is a copy of 0, 2 looks like 0, 3 is a copy of 1 alone."""
    edges = {"near": [(0, 1), (1, 3)], "similar": [(0, 2)]}
    found = FoundPairs(nodes=[0, 1, 2, 3, 0], leaders=[0, 1, 2, 3], edges=edges)
    hit = ReferenceMatch(ReferencePair(10, 0, "near", 0.99), "old", "f" * 64, "a.jpg", "x", drops=True)
    assert _dropped_for_references([hit], [10, 11, 12, 13, 14], found) == dict.fromkeys((0, 1, 4), "in old: a.jpg")


def test_references_do_not_meet_each_other(tmp_path: Path) -> None:
    place = tmp_path / "run"
    place.mkdir()
    twins = [File("x", "a.jpg", jpeg(detailed(1))), File("x", "b.jpg", jpeg(detailed(1), 50))]
    reference = ReferenceParams(name="old", path=as_folder(place, twins), found="drop")
    result = run(place, [File("x", "c.jpg", jpeg(detailed(2)))], reference_sets=(reference,))
    assert (result.pairs, result.verdicts()) == ([], {"c.jpg": "keep"})


def test_a_reference_that_is_not_there_is_named(tmp_path: Path) -> None:
    reference = ReferenceParams(name="old", path="nowhere", found="drop")
    with pytest.raises(
        InputError, match=r"dedupe.reference_sets 'old': nowhere is no file and no folder; give a manifest"
    ):
        run(tmp_path, [File("x", "a", jpeg(drawn(1)))], reference_sets=(reference,))
    (tmp_path / "empty" / "nowhere").mkdir(parents=True)
    with pytest.raises(InputError, match="none of the 0 files below nowhere is a picture"):
        run(tmp_path / "empty", [File("x", "a", jpeg(drawn(1)))], reference_sets=(reference,))


def test_two_references_of_one_name_are_refused() -> None:
    twice = (ReferenceParams(name="old", path="a", found="drop"), ReferenceParams(name="old", path="b", found="drop"))
    with pytest.raises(ValidationError, match=r"dedupe.reference_sets names old more than once"):
        params(reference_sets=twice)


def test_features_find_heavier_edits_and_drop_nothing(tmp_path: Path) -> None:
    """A quarter cut off is beyond what pixels are asked; with the cache and without, the bytes are the same."""
    files = [File("x", f"{seed}.jpg", jpeg(detailed(seed))) for seed in range(3)]
    files.append(File("x", "cut.jpg", jpeg(detailed(0).crop((30, 30, 210, 210)))))
    assert run(tmp_path / "off", files).pairs == []
    wanted = EmbeddingParams(min_cosine=0.5, num_threads=1)
    first = run(tmp_path / "on", files, embeddings=wanted)
    assert {(pair["kind"], pair["verdict"]) for pair in first.pairs} == {("embedding", "keep")}
    of_cut = [pair for pair in first.pairs if "cut.jpg" in pair.values()]
    best = max(of_cut, key=lambda pair: float(pair["score"]))
    assert {best["path_a"], best["path_b"]} == {"0.jpg", "cut.jpg"}
    assert set(first.verdicts().values()) == {"keep"}
    assert first.rows["0.jpg"]["group"] == first.rows["cut.jpg"]["group"]
    (tmp_path / "again").mkdir()
    (tmp_path / "on" / "cache").rename(tmp_path / "again" / "cache")
    second = run(tmp_path / "again", files, embeddings=wanted)
    assert second.artifact.duplicates.read_bytes() == first.artifact.duplicates.read_bytes()
    assert second.artifact.manifest.read_bytes() == first.artifact.manifest.read_bytes()


def test_look_alikes_of_a_chain_that_lie_in_two_groups_are_said_to_be_apart() -> None:
    keep, other, copy = ImageVerdict("a", "keep", "x"), ImageVerdict("b", "keep", "x"), ImageVerdict("b", "copy", "x")
    assert _apart(keep, other)
    assert not _apart(keep, keep)
    assert not _apart(keep, copy)  # one of them takes no part: nothing can be parted

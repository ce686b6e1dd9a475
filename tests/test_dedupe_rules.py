"""Dedupe's rules one by one: the threshold of a set, what a picture more or less changes, different things, turns."""

import hashlib
import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from dedupe_inputs import File, Result, drawn, jpeg, run, write_ingest
from PIL import Image, ImageDraw
from test_dedupe_kinds import as_folder, detailed, two_cuts
from test_dedupe_real import CONFLICTS, COPIES, LOOK_ALIKES, members

from pipelines.dedupe.alignment import align_candidates
from pipelines.dedupe.embeddings import alike_pairs
from pipelines.dedupe.groups import LabelledImage, assign_verdicts
from pipelines.dedupe.hashes import WHOLE, Thumbnails, ThumbnailSubset
from pipelines.dedupe.near_pairs import score_threshold
from pipelines.dedupe.output import shared_photographs
from pipelines.dedupe.pair_classes import PairSizes, is_crop_or_resize
from pipelines.params.dedupe import ReferenceParams


def ids(count: int) -> list[str]:
    return [hashlib.sha256(str(number).encode()).hexdigest() for number in range(count)]


def noise(count: int, *, shared: float = 0.0) -> Thumbnails:
    """(count, 32, 32); `shared` of each is the same picture, as in product shots."""
    rng = np.random.default_rng(0)
    own, common = rng.normal(0, 40, (count, 32, 32)), rng.normal(0, 40, (32, 32))
    return np.clip(128 + shared * common + (1 - shared) * own, 0, 255).astype(np.uint8)


def test_pictures_that_all_resemble_each_other_must_be_closer_to_be_copies() -> None:
    assert score_threshold(noise(500), ids(500), 0.95) == 0.95
    assert (
        0.98
        < score_threshold(noise(500, shared=0.75), ids(500), 0.95)
        < score_threshold(noise(500, shared=0.8), ids(500), 0.95)
    )
    # too few to tell; and where it sets in, it does not jump
    assert score_threshold(noise(50, shared=0.8), ids(50), 0.95) == 0.95
    assert score_threshold(noise(52, shared=0.8), ids(52), 0.95) < 0.96


def test_many_pictures_must_be_closer_too() -> None:
    """Beyond 100,000 with the logarithm of N: a million allows 5/6 of the distance, in steps of 12 %."""
    many = ThumbnailSubset(noise(500), np.arange(1_000_000) % 500)
    assert score_threshold(many, [f"{number:07}" for number in range(1_000_000)], 0.95) == pytest.approx(
        0.9603, abs=1e-4
    )


def test_copies_among_the_pictures_do_not_hide_each_other() -> None:
    """A fifth of 300 pictures are there twice."""
    pictures = noise(300)
    pictures[240:] = np.clip(pictures[:60].astype(int) + 1, 0, 255)
    assert score_threshold(pictures, ids(300), 0.95) == 0.95


def test_a_guitar_that_goes_moves_the_threshold_by_one_step_or_not_at_all(tmp_path: Path) -> None:
    files = members("guitars.tar", None, "guitars")
    write_ingest(tmp_path / "in", files)
    thumbnails = np.load(tmp_path / "in" / "thumbnails.npy")
    names = [one for _, one in sorted((file.label, hashlib.sha256(file.data).hexdigest()) for file in files)]
    whole = score_threshold(thumbnails, names, 0.95)
    assert 0.99 < whole < 0.995
    without = []
    for gone in np.random.default_rng(0).choice(len(names), 20, replace=False).tolist():
        rest = np.delete(np.arange(len(names)), gone)
        without.append(score_threshold(ThumbnailSubset(thumbnails, rest), [names[row] for row in rest], 0.95))
    assert sum(found == whole for found in without) >= 18
    step = 10 ** (1 / 20)  # of the distance that is allowed, which is rounded to four digits
    assert all((1 - whole) / step - 1e-4 < 1 - found < (1 - whole) * step + 1e-4 for found in without)


def another_pickup(picture: Image.Image) -> Image.Image:
    copy, (width, height) = picture.copy(), picture.size
    ImageDraw.Draw(copy).rectangle((0.4 * width, 0.47 * height, 0.52 * width, 0.52 * height), fill=(150, 110, 60))
    return copy


def another_colour(picture: Image.Image) -> Image.Image:
    hue, saturation, value = picture.convert("HSV").split()
    turned = hue.point(lambda level: (level + 110) % 256)
    where = saturation.point(lambda level: 255 * (level > 60))
    return Image.merge("HSV", (Image.composite(turned, hue, where), saturation, value)).convert("RGB")


@pytest.mark.parametrize("change", [another_pickup, another_colour])
def test_another_part_or_another_colour_of_it_is_no_copy(tmp_path: Path, change) -> None:  # type: ignore[no-untyped-def]
    wanted = {pair[0] for pairs in (COPIES, LOOK_ALIKES, CONFLICTS) for pair in pairs}
    files, changed = members("guitars.tar", wanted, "guitars"), []
    for file in files:
        picture = Image.open(io.BytesIO(file.data)).convert("RGB")
        other = change(picture)
        if np.abs(np.asarray(other, int) - np.asarray(picture, int)).max(axis=2).clip(20).mean() > 20.2:
            changed.append(File(file.label, f"other/{file.path}", jpeg(other)))
    assert len(changed) >= 6
    result = run(tmp_path, files + changed)
    assert Counter(result.verdicts().values()) == {"keep": len(files) + len(changed)}
    if change is another_pickup:
        # the doubt keeps them on one side of every split
        together = [group(result, file.path) == group(result, file.path.removeprefix("other/")) for file in changed]
        assert sum(together) >= len(changed) / 2


def group(result: Result, path: str) -> str:
    name: str = result.rows[path]["group"]
    return name


def test_all_eight_orientations_of_a_photograph_are_one_group(tmp_path: Path) -> None:
    photographs = members("clothing.tar", None, "clothing")[::240]
    files = [
        File("x", f"{number}-{turn}{flip}", jpeg(Image.open(io.BytesIO(file.data)).convert("RGB").transpose(turned)))
        for number, file in enumerate(photographs)
        for turn, flip, turned in (
            (0, "", Image.Transpose.ROTATE_180),  # the first is turned too, so that nothing is as it was
            (1, "", Image.Transpose.ROTATE_90),
            (3, "", Image.Transpose.ROTATE_270),
            (0, "m", Image.Transpose.FLIP_LEFT_RIGHT),
            (2, "m", Image.Transpose.FLIP_TOP_BOTTOM),
            (1, "m", Image.Transpose.TRANSPOSE),
            (3, "m", Image.Transpose.TRANSVERSE),
        )
    ]
    files += [File("x", f"{number}-itself", file.data) for number, file in enumerate(photographs)]
    assert len(photographs) == 3
    result = run(tmp_path, files, rotations=True)
    pairs = Counter(pair["path_a"][0] for pair in result.pairs if pair["path_a"][0] == pair["path_b"][0])
    assert pairs == {"0": 28, "1": 28, "2": 28}
    assert {len({group(result, path) for path in result.rows if path[0] == one}) for one in "012"} == {1}
    assert Counter(result.verdicts().values())["keep"] == 3


def test_a_stretch_of_three_per_cent_is_another_cut() -> None:
    sizes = PairSizes(np.array([[100, 100]]), np.array([[100, 100]]))
    for zoom, possible in ((1.015, True), (1.03, False)):
        warp = np.array([[zoom, 0, 1, 0]], np.float32)
        assert is_crop_or_resize(warp, sizes, slack=0.0).tolist() == [possible]


def test_a_pair_that_fits_badly_as_it_was_found_is_still_laid_together() -> None:
    """Four fifths alike at first, nearly all once it is moved by two pixels."""
    large = np.asarray(drawn(3, 40).convert("L"))
    pair = np.stack([large[4:36, 4:36], large[4:36, 6:38]])
    one, other = (half.astype(float)[2:30, 2:30].ravel() for half in pair)
    assert 0.75 < np.corrcoef(one, other)[0, 1] < 0.9
    rows = np.array([0]), np.array([1]), np.array([False])
    assert align_candidates(pair, *rows, WHOLE)[0][0] > 0.95


def test_a_picture_has_at_most_five_pairs_by_features() -> None:
    found = alike_pairs(np.tile(np.array([[0.6, 0.8]], np.float32), (9, 1)), min_cosine=0.9)
    assert max(Counter(row for pair in found for row in pair[:2]).values()) == 5


@pytest.mark.parametrize(("decided", "verdicts"), [((1, 2), {"keep", "copy"}), ((2,), {"keep", "copy", "conflict"})])
def test_labels_of_two_groups_are_no_conflict_once_both_are_decided(
    decided: tuple[int, ...], verdicts: set[str]
) -> None:
    """0 and 1 are one star, 2 and 3 another; 1 and 2 match, under two labels."""
    four = [LabelledImage(f"{n:064x}", "aabb"[n], decided=n in decided, area=9 - n, size=1) for n in range(4)]
    judged = assign_verdicts(four, range(4), [(0, 1), (1, 2), (2, 3)], drop_copies=True, hold_conflicts=True)
    assert {one.verdict for one in judged} == verdicts


def test_another_cut_in_a_reference_set_goes_too(tmp_path: Path) -> None:
    place = tmp_path / "run"
    place.mkdir()
    mine, theirs = two_cuts("x", "x")
    reference = ReferenceParams(name="old", path=as_folder(place, [theirs]), found="drop")
    result = run(place, [mine], reference_sets=(reference,))
    assert [(pair["kind"], pair["verdict"]) for pair in result.pairs] == [("recrop in old", "drop")]
    assert result.verdicts() == {"left": "drop"}


def test_two_classes_of_one_set_of_photographs_are_named(tmp_path: Path) -> None:
    files = []
    for seed in range(4):
        whole = detailed(seed)
        files.append(File("wide", f"{seed}.jpg", jpeg(whole.crop((0, 0, 230, 240)))))
        files.append(File("close", f"{seed}.jpg", jpeg(whole.crop((10, 0, 240, 240)))))
    sizes = {"wide": 4, "close": 4}
    result = run(tmp_path / "four", files)
    (warning,) = shared_photographs(result.artifact.duplicates, sizes)
    assert warning.startswith(
        "the classes 'close' and 'wide' share photographs: 4 pairs (0 near, 4 cut differently, 0 alike) among the 4 and"
    )
    assert "There are probably more" in warning
    few = run(tmp_path / "two", files[:4])
    assert shared_photographs(few.artifact.duplicates, sizes) == []


def test_classes_of_mirror_images_are_not_told_to_be_one_class(tmp_path: Path) -> None:
    header = "kind,label_a,label_b,verdict,transform\n"
    pairs = tmp_path / "duplicates.csv"
    for transform, warnings in (("mirror", 0), ("mirror+rotate90", 0), ("none", 1)):
        pairs.write_text(header + f"near,left,right,conflict,{transform}\n" * 4)
        assert len(shared_photographs(pairs, {"left": 4, "right": 4})) == warnings, transform

"""Copies of every kind are found, other pictures are left alone, and verdicts follow the rules."""

import hashlib
from itertools import combinations
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pytest
from dedupe_inputs import File, drawn, jpeg, params, png, run, write_ingest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from pipelines.core.errors import InputError
from pipelines.dedupe import dedupe
from pipelines.dedupe.groups import star_clusters
from pipelines.dedupe.hashes import HashIndex


def image_id(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def framed(picture: Image.Image) -> Image.Image:
    return ImageOps.expand(picture, 6, "white")


def marked(picture: Image.Image) -> Image.Image:
    copy = picture.copy()
    copy.paste(Image.blend(copy, Image.new("RGB", copy.size, "white"), 0.5).crop((120, 144, 148, 150)), (120, 144))
    return copy


CHANGES = {
    "half": lambda p: p.resize((80, 80)),
    "squashed": lambda p: p.resize((160, 110)),
    "brighter": lambda p: ImageEnhance.Brightness(p).enhance(1.15),
    "contrast": lambda p: ImageEnhance.Contrast(p).enhance(0.7),
    "gamma": lambda p: p.point([round(255 * (v / 255) ** 1.3) for v in range(256)] * 3),
    "blurred": lambda p: p.filter(ImageFilter.GaussianBlur(1.5)),
    "corner 5 %": lambda p: p.crop((8, 8, 160, 160)),
    "corner 10 %": lambda p: p.crop((0, 0, 144, 144)),
    "centre 10 %": lambda p: p.crop((8, 8, 152, 152)),
    "mirrored": ImageOps.mirror,
    "grey": lambda p: p.convert("L"),
    "framed": framed,
    "marked": marked,
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_found(tmp_path: Path, change: str) -> None:
    files = [File("x", f"{seed}.jpg", jpeg(drawn(seed))) for seed in range(12)]
    files += [File("x", f"{seed}-copy.jpg", jpeg(CHANGES[change](drawn(seed)))) for seed in range(6)]
    result = run(tmp_path, files)
    found = {tuple(sorted((pair["path_a"], pair["path_b"]))) for pair in result.pairs}
    assert found == {(f"{seed}-copy.jpg", f"{seed}.jpg") for seed in range(6)}
    assert all(pair["kind"] == "near" and pair["verdict"] == "copy" for pair in result.pairs)
    assert result.artifact.num_kept == 12


def test_a_low_quality_copy_is_found_and_the_better_file_stays(tmp_path: Path) -> None:
    result = run(tmp_path, [File("x", "q92", jpeg(drawn(1))), File("x", "q20", jpeg(drawn(1), 20))])
    assert result.verdicts() == {"q92": "keep", "q20": "copy"}
    assert result.rows["q20"]["best_id"] == result.rows["q92"]["image_id"]
    assert result.rows["q20"]["group"] == min(row["image_id"] for row in result.rows.values())


def test_other_pictures_are_left_alone(tmp_path: Path) -> None:
    result = run(tmp_path, [File("x", str(seed), jpeg(drawn(seed, 64))) for seed in range(300)])
    assert (result.pairs, result.artifact.num_kept, result.artifact.num_groups) == ([], 300, 0)


def test_a_mirror_counts_only_when_asked(tmp_path: Path) -> None:
    files = [File("x", "a", jpeg(drawn(1))), File("x", "b", jpeg(ImageOps.mirror(drawn(1))))]
    assert run(tmp_path, files, mirror=False).pairs == []


def test_equal_files_are_exact_copies_even_where_copies_stay(tmp_path: Path) -> None:
    data = jpeg(drawn(1))
    for copies in ("drop", "keep"):
        result = run(tmp_path / copies, [File("x", name, data) for name in "abc"], duplicates=copies, near=False)
        assert result.verdicts() == {"a": "keep", "b": "copy", "c": "copy"}
        assert [(pair["kind"], pair["score"]) for pair in result.pairs] == [("exact", "1.0000")] * 2


def test_equal_pixels_in_another_file_are_found_by_decoding(tmp_path: Path) -> None:
    blank = Image.new("RGB", (50, 50), "red")
    files = [File("x", "a", png(drawn(1))), File("x", "b", png(drawn(1), 0))]
    files += [File("x", "c", png(blank)), File("x", "d", png(blank, 0)), File("x", "e", jpeg(blank))]
    result = run(tmp_path, files, near=False)
    kinds = {tuple(sorted((pair["path_a"], pair["path_b"]))): pair["kind"] for pair in result.pairs}
    assert kinds == {("a", "b"): "pixels", ("c", "d"): "pixels"}


def in_another_finish(picture: Image.Image) -> Image.Image:
    """The same grey picture in other colours, and not quite the same: what a shop's next guitar looks like."""
    y, cb, cr = picture.filter(ImageFilter.GaussianBlur(4)).convert("YCbCr").split()
    return Image.merge("YCbCr", (y, cr, ImageOps.invert(cb))).convert("RGB")


def test_look_alikes_in_other_colours_stay_and_share_a_group(tmp_path: Path) -> None:
    pictures = [drawn(1), in_another_finish(drawn(1)), drawn(2)]
    files = [File("a", f"{n}.png", png(picture)) for n, picture in enumerate(pictures)]
    result = run(tmp_path, files)
    assert set(result.verdicts().values()) == {"keep"}
    assert str(result.artifact).endswith(", 1 pair of look-alikes kept together")
    assert [(pair["kind"], pair["verdict"]) for pair in result.pairs] == [("similar", "keep")]
    assert result.rows["0.png"]["group"] == result.rows["1.png"]["group"] != result.rows["2.png"]["group"]


def test_look_alikes_in_other_colours_are_no_conflict(tmp_path: Path) -> None:
    files = [File("a", "0.png", png(drawn(1))), File("b", "1.png", png(in_another_finish(drawn(1))))]
    assert run(tmp_path, files).verdicts() == {"0.png": "keep", "1.png": "keep"}


def test_a_grey_copy_and_a_brighter_one_are_copies(tmp_path: Path) -> None:
    bright = ImageEnhance.Brightness(drawn(1)).enhance(1.15)
    files = [File("a", f"{n}.jpg", jpeg(p)) for n, p in enumerate([drawn(1), ImageOps.grayscale(drawn(1)), bright])]
    assert sorted(run(tmp_path, files).verdicts().values()) == ["copy", "copy", "keep"]


def test_blank_pictures_do_not_resemble_each_other(tmp_path: Path) -> None:
    files = [File("x", name, png(Image.new("RGB", (40, 40), name))) for name in ("white", "black", "grey", "#fefefe")]
    assert run(tmp_path, files).artifact.num_kept == 4


def test_copies_stay_in_one_group_when_asked(tmp_path: Path) -> None:
    files = [File("x", "a", jpeg(drawn(1))), File("x", "b", jpeg(drawn(1), 50)), File("x", "c", jpeg(drawn(2)))]
    result = run(tmp_path, files, duplicates="keep")
    assert set(result.verdicts().values()) == {"keep"}
    assert result.rows["a"]["group"] == result.rows["b"]["group"] != result.rows["c"]["group"]


@pytest.mark.parametrize("second", [jpeg(drawn(1)), jpeg(drawn(1), 40)], ids=["exact", "near"])
def test_a_picture_under_two_labels_is_held_until_decided(tmp_path: Path, second: bytes) -> None:
    first = jpeg(drawn(1))
    files = [File("SG", "a", first), File("ES", "b", second), File("SG", "c", jpeg(drawn(2)))]
    held = run(tmp_path / "held", files)
    assert held.verdicts() == {"a": "conflict", "b": "conflict", "c": "keep"}
    assert [pair["verdict"] for pair in held.pairs] == ["conflict"]
    assert held.artifact.num_conflicts == 2
    kept = run(tmp_path / "kept", files, label_conflicts="keep")
    assert set(kept.verdicts().values()) == {"keep"}
    assert kept.rows["a"]["group"] == kept.rows["b"]["group"]
    settled = run(tmp_path / "settled", files, relabel=(f"{image_id(second)},SG,seen",))
    assert sorted(settled.verdicts().values()) == ["copy", "keep", "keep"]
    assert settled.rows["b"]["label"] == "SG"
    assert settled.rows["b"]["original_label"] == "ES"
    assert settled.rows["b"]["decision"] == "relabel: seen"


@pytest.mark.parametrize("second", [jpeg(drawn(1)), jpeg(drawn(1), 99)], ids=["exact", "near and larger"])
@pytest.mark.parametrize("label_conflicts", ["hold", "keep"])
def test_a_picture_without_a_label_is_a_copy_of_one_that_has_one(
    tmp_path: Path, second: bytes, label_conflicts: Literal["hold", "keep"]
) -> None:
    first = jpeg(drawn(1))
    files = [File("SG", "a", first), File("none", "b", second), File("none", "c", jpeg(drawn(2)))]
    result = run(tmp_path, files, label_conflicts=label_conflicts, unlabelled="none")
    assert result.verdicts() == {"a": "keep", "b": "copy", "c": "keep"}
    assert result.rows["b"]["best_id"] == image_id(first)
    assert [pair["verdict"] for pair in result.pairs] == ["copy"]
    assert result.artifact.num_conflicts == 0


def test_copies_without_a_label_are_copies_of_each_other(tmp_path: Path) -> None:
    files = [File("none", "a", jpeg(drawn(1))), File("none", "b", jpeg(drawn(1), 40))]
    assert sorted(run(tmp_path, files, unlabelled="none").verdicts().values()) == ["copy", "keep"]


def test_a_picture_without_a_label_settles_no_conflict_of_others(tmp_path: Path) -> None:
    files = [File(label, label, jpeg(drawn(1), quality)) for label, quality in (("SG", 92), ("ES", 40), ("none", 60))]
    result = run(tmp_path, files, unlabelled="none")
    assert result.verdicts() == {"SG": "conflict", "ES": "conflict", "none": "conflict"}


def test_two_confirmed_labels_are_two_pictures_in_one_group(tmp_path: Path) -> None:
    one, other = jpeg(drawn(1)), jpeg(drawn(1), 40)
    decisions = (f"{image_id(one)},SG,seen", f"{image_id(other)},ES,seen")
    result = run(tmp_path, [File("SG", "a", one), File("ES", "b", other)], relabel=decisions)
    assert result.verdicts() == {"a": "keep", "b": "keep"}
    assert len({row["group"] for row in result.rows.values()}) == 1


def test_a_dropped_picture_takes_every_row_and_settles_a_conflict(tmp_path: Path) -> None:
    bad = jpeg(drawn(1), 40)
    files = [File("SG", "a", jpeg(drawn(1))), File("ES", "b", bad), File("ES", "c", bad)]
    result = run(tmp_path, files, drop=(f"{image_id(bad)[:12]},wrong",))
    assert result.verdicts() == {"a": "keep", "b": "drop", "c": "drop"}
    assert (result.rows["b"]["decision"], result.pairs, result.artifact.num_dropped) == ("drop: wrong", [], 2)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_few_pictures_are_enough(tmp_path: Path, count: int) -> None:
    result = run(tmp_path, [File("x", str(seed), jpeg(drawn(seed))) for seed in range(count)])
    assert result.artifact.num_kept == count


def test_all_identical_leaves_one(tmp_path: Path) -> None:
    result = run(tmp_path, [File("x", str(number), jpeg(drawn(1))) for number in range(30)])
    assert (result.artifact.num_kept, result.artifact.num_groups, len(result.pairs)) == (1, 1, 29)


def test_two_runs_write_the_same_bytes_whatever_the_order(tmp_path: Path) -> None:
    files = [File("x", str(seed), jpeg(drawn(seed % 9), 50 + seed)) for seed in range(20)]
    one, other = run(tmp_path / "1", files).artifact, run(tmp_path / "2", files[::-1]).artifact
    assert one.manifest.read_bytes() == other.manifest.read_bytes()
    assert one.duplicates.read_bytes() == other.duplicates.read_bytes()
    assert str(one) == "9 pictures kept of 20 files, 11 copies dropped"


def test_thumbnails_of_another_manifest_are_refused(tmp_path: Path) -> None:
    folder = write_ingest(tmp_path / "ingest", [File("x", "a", jpeg(drawn(1)))])
    np.save(folder / "thumbnails.npy", np.zeros((2, 32, 32), np.uint8))
    with pytest.raises(InputError, match=r"has 1 rows, so it must be uint8 \(1, 32, 32\): run `dvc repro --force"):
        dedupe(
            params(),
            root=tmp_path,
            cache=tmp_path,
            ingest_dir=folder,
            decisions_dir=tmp_path,
            out_dir=tmp_path / "out",
        )


def test_the_search_finds_what_brute_force_finds() -> None:
    rng = np.random.default_rng(0)
    hashes: npt.NDArray[np.uint64] = rng.integers(0, 2**64, 4000, dtype=np.uint64)
    for row in range(1, 2000):
        turned = np.bitwise_or.reduce(np.uint64(1) << rng.choice(64, row % 12, replace=False).astype(np.uint64))
        hashes[row] = hashes[row + 2000 - 1] ^ turned
    found = {
        pair
        for one, other in HashIndex(hashes).near(hashes, 7)
        for pair in zip(one.tolist(), other.tolist(), strict=True)
    }
    distances = np.bitwise_count(hashes[:, None] ^ hashes[None])
    assert found == set(zip(*(axis.tolist() for axis in np.nonzero(distances <= 7)), strict=True))
    assert len(found) > 5000


@given(st.sets(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=20), st.permutations(range(9)))
def test_stars_cover_all_and_no_two_centres_match(edges: set[tuple[int, int]], ranks: list[int]) -> None:
    edges = {(one, other) for one, other in edges if one != other}
    centres = star_clusters([(False, rank, 0, "", "") for rank in ranks], sorted(edges))
    both = edges | {(other, one) for one, other in edges}
    for node, centre in enumerate(centres):
        assert node == centre or (node, centre) in both
        assert ranks[centre] <= ranks[node]
    assert not any(pair in both for pair in combinations(sorted(set(centres)), 2))

"""The sample source: the same pictures everywhere, and flaws that are what truth.csv says."""

import hashlib
import pickle
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from pydantic import ValidationError

from pipelines.core.errors import ImageError
from pipelines.images.decoding import decode
from pipelines.ingest.sample import CLASSES, PlantedFlaw, list_sample, planted, write_truth
from pipelines.ingest.sample.dice import file_index, file_name
from pipelines.ingest.sample.files import draw, draw_pixels
from pipelines.ingest.sample.models import catalogue
from pipelines.params.sources import SampleFlaws, SampleSource

NO_FLAWS = dict.fromkeys(SampleFlaws.model_fields, 0)
ALL_FLAWS = {
    "exact_copies": 5,
    "near_copies": 10,
    "label_conflicts": 4,
    "wrong_labels": 3,
    "broken_files": 8,
    "foreign_files": 9,
}


def sample(
    *, images: int = 3, size: int = 64, difficulty: float = 0.5, seed: int = 42, flaws: dict[str, int] | None = None
) -> SampleSource:
    return SampleSource(
        kind="sample",
        seed=seed,
        images_per_class=images,
        image_size=size,
        difficulty=difficulty,
        flaws=SampleFlaws(**(NO_FLAWS if flaws is None else flaws)),
    )


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def pixels(data: bytes) -> npt.NDArray[np.uint8]:
    return decode(data, max_pixels=10**7).pixels


def rows(params: SampleSource, flaw: str) -> list[PlantedFlaw]:
    return [row for row in planted(params) if row.flaw == flaw]


def likeness(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> float:
    """Correlation of two pictures' 32 x 32 grey thumbnails."""
    small = [np.asarray(Image.fromarray(p).convert("L").resize((32, 32), Image.Resampling.BOX)).ravel() for p in (a, b)]
    return float(np.corrcoef(small[0], small[1])[0, 1])


def test_every_class_has_its_count_and_paths_are_sorted() -> None:
    listing = list_sample(sample(images=4), source="0-sample")
    assert listing.source == "0-sample"
    assert Counter(listing.labels) == dict.fromkeys(CLASSES, 4)
    assert tuple(sorted(catalogue().models)) == CLASSES
    assert len(CLASSES) == 13
    assert listing.paths == sorted(set(listing.paths))
    assert [path.split("/")[0] for path in listing.paths] == listing.labels
    assert listing.rejects == []


def test_order_and_process_of_reading_change_no_byte() -> None:
    listing = list_sample(sample(images=2, flaws=ALL_FLAWS), source="0-sample")
    forward = [digest(listing.read(path)) for path in listing.paths]
    backward = [digest(listing.read(path)) for path in reversed(listing.paths)][::-1]
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        elsewhere = [digest(data) for data in pool.map(listing.read, listing.paths)]
    assert forward == backward == elsewhere


def test_the_reader_stays_small_for_a_million_pictures() -> None:
    params = sample(images=76_924, size=32)
    listing = list_sample(params, source="0-sample")
    assert len(listing.paths) == 1_000_012
    assert len(pickle.dumps(listing.read)) < 1500
    assert pixels(listing.read(listing.paths[-1])).shape == (32, 32, 3)


def test_a_name_leads_back_to_its_index() -> None:
    for index in (0, 1, 59, 50_000_000, 99_999_999):
        assert file_index(7, "Jaguar", Path(file_name(7, "Jaguar", index)).stem) == index


def test_a_path_that_is_not_listed_is_a_reject() -> None:
    read = list_sample(sample(images=1), source="0-sample").read
    for path in ("Jaguar/nothing.jpg", "Ukulele/00000001.jpg", file_name(42, "Jaguar", 1), "Jaguar"):
        with pytest.raises(ImageError, match="missing: the sample has no file"):
            read(path)


@pytest.mark.parametrize("size", [16, 32, 224, 512])
def test_every_class_is_drawn_at_every_size(size: int) -> None:
    seen = set()
    for model in CLASSES:
        picture = pixels(draw(sample(images=1, size=size), model, 0))
        assert picture.shape == (size, size, 3)
        assert picture.std() > 5
        seen.add(picture.tobytes())
    assert len(seen) == 13


@pytest.mark.parametrize("difficulty", [0.0, 1.0])
def test_both_ends_of_difficulty_draw(difficulty: float) -> None:
    for model in CLASSES:
        for index in range(4):
            assert draw_pixels(sample(size=32, difficulty=difficulty), model, index).std() > 3


def test_more_pictures_leave_the_earlier_ones_as_they_were() -> None:
    few, many = (list_sample(sample(images=n), source="0-sample") for n in (2, 6))
    assert set(few.paths) < set(many.paths)
    assert [digest(few.read(p)) for p in few.paths] == [digest(many.read(p)) for p in few.paths]


def test_another_seed_draws_other_pictures_under_other_names() -> None:
    one, two = (list_sample(sample(images=1, seed=seed), source="0-sample") for seed in (1, 2))
    assert not set(one.paths) & set(two.paths)
    assert not {digest(one.read(p)) for p in one.paths} & {digest(two.read(p)) for p in two.paths}


def test_truth_lists_each_planted_flaw_once() -> None:
    params = sample(flaws=ALL_FLAWS)
    listing = list_sample(params, source="0-sample")
    assert Counter(row.flaw for row in planted(params)) == {
        "exact_copy": 5,
        "near_copy": 10,
        "label_conflict": 4,
        "wrong_label": 3,
        "broken_file": 8,
        "foreign_file": 9,
    }
    assert len(listing.paths) == 13 * 3 + 39
    assert {row.source_path for row in planted(params)} <= set(listing.paths)
    originals = [row.original_path for row in planted(params) if row.original_path]
    assert len(originals) == len(set(originals)) == 19
    assert set(originals) <= set(listing.paths)


def test_exact_copies_have_the_bytes_of_their_original() -> None:
    params = sample(flaws=ALL_FLAWS)
    read = list_sample(params, source="0-sample").read
    for row in rows(params, "exact_copy"):
        assert read(row.source_path) == read(row.original_path)
        assert row.source_path.split("/")[0] == row.original_path.split("/")[0] == row.true_label


def test_near_copies_differ_in_bytes_and_show_the_same() -> None:
    params = sample(size=128, flaws=ALL_FLAWS)
    read = list_sample(params, source="0-sample").read
    near = rows(params, "near_copy")
    assert Counter(row.detail for row in near) == dict.fromkeys(
        ("resized", "recompressed", "cropped", "mirrored", "brightness"), 2
    )
    for row in near:
        assert row.source_path.split("/")[0] == row.original_path.split("/")[0] == row.true_label
        assert read(row.source_path) != read(row.original_path)
        copy, original = pixels(read(row.source_path)), pixels(read(row.original_path))
        if row.detail == "mirrored":
            copy = copy[:, ::-1]
        if row.detail == "resized":
            assert copy.shape == (96, 96, 3)
        if row.detail == "cropped":
            assert copy.shape != original.shape
            assert min(copy.shape[:2]) >= 128 * 0.84 - 1
        else:
            assert likeness(copy, original) > 0.97, row


def test_conflicts_lie_under_both_labels_half_of_them_byte_for_byte() -> None:
    params = sample(flaws=ALL_FLAWS)
    read = list_sample(params, source="0-sample").read
    conflicts = rows(params, "label_conflict")
    assert Counter(read(row.source_path) == read(row.original_path) for row in conflicts) == {True: 2, False: 2}
    for row in conflicts:
        label = row.source_path.split("/")[0]
        assert row.original_path.split("/")[0] == row.true_label != label
        assert label in [name for name, _ in catalogue().look_alikes[row.true_label]]
        assert likeness(pixels(read(row.source_path)), pixels(read(row.original_path))) > 0.97


def test_wrong_labels_show_a_look_alike_that_is_filed_nowhere_else() -> None:
    params = sample(flaws=ALL_FLAWS)
    listing = list_sample(params, source="0-sample")
    broken = {row.source_path for row in planted(params) if row.flaw in ("broken_file", "foreign_file")}
    times = Counter(digest(listing.read(path)) for path in listing.paths if path not in broken)
    for row in rows(params, "wrong_label"):
        label = row.source_path.split("/")[0]
        assert label in [name for name, _ in catalogue().look_alikes[row.true_label]]
        assert times[digest(listing.read(row.source_path))] == 1
        assert row.original_path == ""


def test_broken_and_foreign_files_do_not_decode_and_the_rest_does() -> None:
    params = sample(flaws=ALL_FLAWS)
    listing = list_sample(params, source="0-sample")
    bad = {row.source_path for row in planted(params) if row.flaw in ("broken_file", "foreign_file")}
    refused = set()
    for path in listing.paths:
        try:
            pixels(listing.read(path))
        except ImageError:
            refused.add(path)
    assert refused == bad
    assert {row.detail for row in rows(params, "broken_file")} == {"truncated", "empty", "garbage", "corrupt-png"}
    assert {row.detail for row in rows(params, "foreign_file")} == {"note", "html", "ds_store", "thumbs"}


def test_names_do_not_betray_a_flaw() -> None:
    for row in planted(sample(flaws=ALL_FLAWS)):
        if row.flaw != "foreign_file":
            stem, _, ext = row.source_path.split("/")[1].partition(".")
            assert len(stem) == 8
            assert stem.isdecimal()
            assert ext == ("png" if row.detail == "corrupt-png" else "jpg")


def test_truth_is_written_as_a_table(tmp_path: Path) -> None:
    write_truth(sample(flaws=ALL_FLAWS), tmp_path / "truth.csv")
    lines = (tmp_path / "truth.csv").read_text().splitlines()
    assert lines[0] == "source_path,flaw,original_path,true_label,detail"
    assert len(lines) == 1 + 39
    assert lines[1:] == sorted(lines[1:])
    write_truth(sample(), tmp_path / "none.csv")
    assert (tmp_path / "none.csv").read_text() == lines[0] + "\n"


def test_every_picture_may_be_copied_once_and_no_more() -> None:
    flaws = NO_FLAWS | {"exact_copies": 13, "near_copies": 10, "label_conflicts": 3}
    assert len(planted(sample(images=2, flaws=flaws))) == 26
    with pytest.raises(ValidationError, match=r"exact_copies \+ flaws.near_copies \+ .* is 27, but .* is 26; lower"):
        sample(images=2, flaws=flaws | {"exact_copies": 14})
    with pytest.raises(ValidationError, match=r"flaws.wrong_labels is 14, more than the 13 x images_per_class = 13"):
        sample(images=1, flaws=NO_FLAWS | {"wrong_labels": 14})


def test_the_smallest_pictures_carry_every_flaw() -> None:
    params = sample(images=2, size=16, flaws=ALL_FLAWS)
    read = list_sample(params, source="0-sample").read
    for row in rows(params, "near_copy"):
        assert read(row.source_path) != read(row.original_path), row
        assert min(pixels(read(row.source_path)).shape[:2]) >= 12

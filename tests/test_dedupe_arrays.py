"""The array code of dedupe beside its plain definition: hashes, the search's lookups, sampling, exact sums."""

import numpy as np
import numpy.typing as npt
import pytest

from pipelines.dedupe.alignment import sample
from pipelines.dedupe.hashes import (
    WHOLE,
    CropBox,
    HashIndex,
    five_crops,
    hash_crops,
    mirror_mask,
    resample_matrix,
)
from pipelines.dedupe.near_pairs import contrast


def pictures(count: int) -> npt.NDArray[np.uint8]:
    """(count, 32, 32) of random grey."""
    return np.random.default_rng(0).integers(0, 256, (count, 32, 32), dtype=np.uint8)


def plain_hash(picture: npt.NDArray[np.uint8], view: CropBox) -> int:
    """The signs of the lowest frequencies of one part of one picture, frequency by frequency."""
    position = 2 * np.arange(32) + 1
    frequencies = [(v, u) for v in range(8) for u in range(8) if (v, u) != (0, 0)] + [(0, 8)]
    found = 0
    for number, (v, u) in enumerate(frequencies):
        down = np.rint(np.cos(np.pi * v * position / 64) @ resample_matrix(view.top, view.bottom) * 4096)
        across = np.rint(np.cos(np.pi * u * position / 64) @ resample_matrix(view.left, view.right) * 4096)
        # of each four neighbours one goes to each quarter of the hash
        bit = number % 4 * 16 + number // 4
        found |= int(down @ picture.astype(np.float64) @ across > 0) << bit
    return found


def test_hashes_are_the_signs_of_the_cosine_transform() -> None:
    views = (WHOLE, CropBox(0.08, 0.0, 1.0, 1.0), *five_crops((0.1,)))
    some = pictures(300)
    for view, hashes in zip(views, hash_crops(some, views), strict=True):
        assert hashes.tolist()[::60] == [plain_hash(picture, view) for picture in some[::60]]
        np.testing.assert_array_equal(hashes, hash_crops(some, (view,))[0])


def test_no_pictures_have_no_hashes() -> None:
    assert [len(one) for one in hash_crops(pictures(0), (WHOLE, CropBox(0.1, 0.0, 1.0, 1.0)))] == [0, 0]


def test_the_hash_of_a_mirror_image_is_one_exclusive_or_away() -> None:
    some = pictures(50)
    np.testing.assert_array_equal(
        hash_crops(some[:, :, ::-1], (WHOLE,))[0], hash_crops(some, (WHOLE,))[0] ^ mirror_mask()
    )


@pytest.mark.parametrize("all_keys_below", [0, 100_000])
def test_the_search_finds_every_pair_of_many_queries(monkeypatch: pytest.MonkeyPatch, all_keys_below: int) -> None:
    """More than are looked up at once, among hashes of which many share a quarter; both ways of indexing."""
    monkeypatch.setattr("pipelines.dedupe.hashes._ALL_KEYS_BELOW", all_keys_below)
    rng = np.random.default_rng(1)
    indexed = rng.integers(0, 2**64, 4000, dtype=np.uint64)
    indexed[:2000] &= np.uint64(0xFFFFFFFFFFFF0003)
    queries = np.concatenate([rng.integers(0, 2**64, 16_000, dtype=np.uint64), indexed ^ np.uint64(0x11111)])
    found = set()
    for one, other in HashIndex(indexed).near(queries, 6):
        found |= set(zip(one.tolist(), other.tolist(), strict=True))
    expected = set()
    for start in range(0, len(queries), 1000):
        near = np.bitwise_count(queries[start : start + 1000, None] ^ indexed[None]) <= 6
        expected |= {(start + one, other) for one, other in np.argwhere(near).tolist()}
    assert found == expected
    assert len(found) >= 4000


def test_sampling_is_linear_between_pixels_and_repeats_the_edge() -> None:
    rng = np.random.default_rng(2)
    for side in (32, 96):
        some = rng.integers(0, 256, (3, side, side)).astype(np.float32)
        warp = np.array([[1, 0, 1, 0], [0.9, 1.5, 1.1, -2.25], [1.2, side, 0.8, -side]], np.float32)
        margin, middle = side // 16, (side - 1) / 2
        grid = np.arange(margin, side - margin) - middle
        for picture, (zoom_x, shift_x, zoom_y, shift_y), found in zip(some, warp, sample(some, warp), strict=True):
            x = np.clip(zoom_x * grid + shift_x + middle, 0, side - 1)
            y = np.clip(zoom_y * grid + shift_y + middle, 0, side - 1)
            rows = np.stack([np.interp(y, np.arange(side), column) for column in picture.T], axis=1)
            expected = np.stack([np.interp(x, np.arange(side), row) for row in rows])
            np.testing.assert_allclose(found, expected, atol=2e-2)
        np.testing.assert_array_equal(sample(some, warp)[0], some[0, margin:-margin, margin:-margin])


def test_contrast_is_exact_where_sums_are_largest() -> None:
    some = np.full((300, 32, 32), 255, np.uint8)
    some[1, ::2] = 0
    some[2, 0, 0] = 254
    found = contrast(some)
    assert (found[0], found[1], found[-1]) == (0.0, 127.5, 0.0)
    assert found[2] == np.sqrt(1023) / 1024

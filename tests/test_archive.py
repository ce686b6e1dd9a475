"""The archive source: every kind gives what its folder gives, is unpacked once, and is noticed when it changes."""

import csv
import functools
import gzip
import io
import json
import os
import re
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest
from archives import FILES, KINDS, comparable, files_of, listing, settings, tar_bytes, without_manifest, zip_bytes
from test_ingest import SHARED, params, picture, put, run

from pipelines.core.errors import InputError
from pipelines.ingest import run as ingest_run
from pipelines.parallel.pool import map_chunks


@pytest.fixture
def folder_bytes(tmp_path: Path) -> dict[str, str]:
    for name, data in FILES.items():
        put(tmp_path / "pictures" / name, data)
    return without_manifest(run(tmp_path, out="folder"))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_what_the_folder_gives_and_is_told_by_its_content(
    tmp_path: Path, folder_bytes: dict[str, str], kind: str
) -> None:
    put(tmp_path / "pictures.jpg", KINDS[kind]())
    result = run(tmp_path, settings("pictures.jpg"))
    assert without_manifest(result) == folder_bytes
    assert {row["source_path"]: row["label"] for row in result.rows} == {
        "pets/cat/0.jpg": "cat",
        "pets/cat/1.jpg": "cat",
        "pets/dog/2.jpg": "dog",
        "pets/dog/old/3.jpg": "old",
    }
    assert {row["source"] for row in result.rows} == {"0-archive"}
    assert not result.rejects


def test_zip64_is_read(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, archive.open("cat/0.jpg", "w", force_zip64=True) as file:
        file.write(picture(0))
    put(tmp_path / "a.zip", buffer.getvalue())
    assert run(tmp_path, settings("a.zip")).labels == ["cat"]


@pytest.mark.parametrize(
    ("label_from", "labels"),
    [("first_folder", ["pets"]), ("last_folder", ["cat", "dog", "old"]),
     ("whole_path", ["pets/cat", "pets/dog", "pets/dog/old"])],
)  # fmt: skip
def test_labels_follow_the_rule_of_the_folder_source(tmp_path: Path, label_from: str, labels: list[str]) -> None:
    put(tmp_path / "a.zip", KINDS["deflate.zip"]())
    assert run(tmp_path, settings("a.zip", label_from=label_from)).labels == labels


@pytest.mark.parametrize("kind", ["deflate.zip", "gnu.tar", "tar.gz"])
def test_workers_read_members_and_change_no_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    put(tmp_path / "a", KINDS[kind]())
    whole = run(tmp_path, settings("a"))
    shutil.rmtree(tmp_path / "cache" / "snapshots")  # nothing is taken over
    monkeypatch.setattr(ingest_run, "FILES_PER_CHUNK", 1)
    monkeypatch.setattr(ingest_run, "map_chunks", functools.partial(map_chunks, pool_pays_seconds=0.0))
    assert run(tmp_path, settings("a"), out="two", workers=2).bytes == whole.bytes


def test_the_reader_is_small_however_many_members_there_are(tmp_path: Path) -> None:
    import pickle

    put(tmp_path / "a.tar", tar_bytes({f"cat/{number}.jpg": b"x" for number in range(900)}))
    found = listing(tmp_path, settings("a.tar"))
    assert len(found.paths) == 900
    assert len(pickle.dumps(found.read)) < 500
    assert found.read("cat/899.jpg") == b"x"


# the cache and what changes --------------------------------------------------------------------


def test_a_packed_tar_is_unpacked_once_and_again_when_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = put(tmp_path / "a.tar.gz", gzip.compress(tar_bytes({"cat/0.jpg": picture(0)})))
    first = run(tmp_path, settings("a.tar.gz"))
    unpacked = list((tmp_path / "cache/archives").glob("*.tar"))
    assert len(unpacked) == 1
    monkeypatch.setattr(gzip, "open", None)
    assert run(tmp_path, settings("a.tar.gz"), out="again").bytes == first.bytes
    monkeypatch.undo()
    archive.write_bytes(gzip.compress(tar_bytes({"dog/1.jpg": picture(1)})))
    os.utime(archive, ns=(1, 1))
    assert run(tmp_path, settings("a.tar.gz", snapshot="2")).labels == ["dog"]
    assert len(list((tmp_path / "cache/archives").glob("*.tar"))) == 1
    for file in (tmp_path / "cache/archives").iterdir():
        file.unlink()
    assert run(tmp_path, settings("a.tar.gz", snapshot="2")).labels == ["dog"]


def test_an_archive_that_changes_between_listing_and_reading_is_noticed(tmp_path: Path) -> None:
    archive = put(tmp_path / "a.zip", zip_bytes({"cat/0.jpg": picture(0)}))
    found = listing(tmp_path, settings("a.zip"))
    archive.write_bytes(zip_bytes({"cat/0.jpg": picture(1)}))
    os.utime(archive, ns=(1, 1))
    with pytest.raises(InputError, match="was changed while it was read; run again"):
        found.read("cat/0.jpg")


def test_stamps_tell_members_apart_and_follow_the_archive(tmp_path: Path) -> None:
    archive = put(tmp_path / "a.zip", KINDS["stored.zip"]())

    def stamps() -> list[tuple[int, ...]]:
        found = listing(tmp_path, settings("a.zip")).stamps
        assert found is not None
        assert found.shape == (4, 3)
        assert found.dtype == "int64"
        return [tuple(row) for row in found.tolist()]

    first = stamps()
    assert len(set(first)) == 4
    assert stamps() == first
    os.utime(archive, ns=(5, 5))
    assert not set(stamps()) & set(first)


# real data -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("archive", "inside", "rows"),
    [("clothing.tar", r"clothing/(s|hat)", 259), ("guitars.tar", r"guitars/gibson_.[a-z]", 1002),
     ("stress.tar.gz", r"stress/(pillow|exif|stb)", 671), ("cifar10.tar.gz", r"cifar10/test/.*[05]0\.jpg", 200)],
)  # fmt: skip
def test_real_pictures_are_the_same_as_folder_archive_and_table(
    tmp_path: Path, archive: str, inside: str, rows: int
) -> None:
    if not (SHARED / archive).is_file():
        pytest.skip(f"{SHARED / archive} is not there")
    limits = {"max_file_bytes": 1 << 26, "max_pixels": 100_000_000}
    with tarfile.open(SHARED / archive) as tar:
        tar.extractall(
            tmp_path / "pictures", [member for member in tar if re.match(inside, member.name)], filter="data"
        )
    names = files_of(tmp_path / "pictures", keep="")
    with (
        tarfile.open(tmp_path / "a.tar", "w") as plain,
        zipfile.ZipFile(tmp_path / "a.zip", "w", strict_timestamps=False) as packed,
    ):
        for name in reversed(names):
            plain.add(tmp_path / "pictures" / name, name)
            packed.write(tmp_path / "pictures" / name, name)
    put(tmp_path / "a.tar.gz", gzip.compress((tmp_path / "a.tar").read_bytes(), 1))
    with (tmp_path / "a.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "label"])
        table.writerows((name, name.split("/")[-2]) for name in names)
    expected = run(tmp_path, params(**limits), out="folder")
    wanted_rows, wanted_rejects = comparable(expected)
    wanted_rejects = [reject for reject in wanted_rejects if reject[1] != "hidden"]
    assert len(wanted_rows) == rows
    table_source = {
        "kind": "table", "path": "a.csv", "format": "csv", "image_column": "image", "image_is": "path",
        "root": "pictures", "label_columns": ["label"], "joined_by": "×", "subset_column": None, "box": None,
        "license_column": None, "creator_column": None, "page_url_column": None,
    }  # fmt: skip
    for name, own in {
        "tar": settings("a.tar", max_files=5000, max_bytes=1 << 30, **limits),
        "tar.gz": settings("a.tar.gz", max_files=5000, max_bytes=1 << 30, **limits),
        "zip": settings("a.zip", max_files=5000, max_bytes=1 << 30, **limits),
        "table": params(sources=[table_source], **limits),
    }.items():
        result = run(tmp_path, own, out=name)
        assert comparable(result) == (wanted_rows, wanted_rejects), name
        assert without_manifest(result) == without_manifest(expected), name
    assert json.loads(result.rows[0]["factors"]) == {"label": result.rows[0]["label"]}


def test_a_real_archive_gives_what_its_unpacked_folder_gives(tmp_path: Path) -> None:
    if not (SHARED / "stress.tar.gz").is_file():
        pytest.skip(f"{SHARED / 'stress.tar.gz'} is not there")
    limits = {"max_file_bytes": 1 << 26, "max_pixels": 100_000_000}
    with tarfile.open(SHARED / "stress.tar.gz") as tar:
        tar.extractall(tmp_path / "pictures", filter="data")
    (tmp_path / "a").symlink_to(SHARED / "stress.tar.gz")
    given = run(tmp_path, settings("a", max_files=5000, max_bytes=1 << 30, **limits))
    folder = run(tmp_path, params(**limits), out="folder")
    assert comparable(given) == comparable(folder)
    assert given.reasons == folder.reasons
    assert given.artifact.num_files + given.artifact.num_litter == 1262

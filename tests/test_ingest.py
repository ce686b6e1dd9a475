"""Ingest: every file of every source becomes a row or a reject with a reason, and nothing depends on names or order."""

import csv
import errno
import functools
import hashlib
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import tarfile
import threading
import time
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.core.errors import ImageError, InputError
from pipelines.core.tables import MANIFEST, read_table
from pipelines.images.shards import ShardReader
from pipelines.ingest import IngestArtifact, file_reader, ingest, inspection
from pipelines.ingest import folder as folder_source
from pipelines.ingest import run as ingest_run
from pipelines.ingest.labels import clean_label, printable
from pipelines.parallel.pool import map_chunks
from pipelines.params.ingest import IngestParams
from pipelines.params.sources import FolderSource

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data"


DOWNLOAD: dict[str, Any] = {
    "contact": "",
    "connections": 4,
    "connections_per_host": 4,
    "delay_seconds": 0.0,
    "timeout_seconds": 5.0,
    "max_attempts": 3,
    "max_wait_seconds": 1.0,
    "max_redirects": 5,
    "robots": "obey",
    "private_hosts": [],
}


def picture(seed: int, *, size: int = 40, format: str = "JPEG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format)
    return buffer.getvalue()


def put(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def params(*folders: str, **changes: Any) -> IngestParams:
    source = {"kind": "folder", "label_from": "last_folder", "symlinks": "skip", "hidden": "skip"}
    source |= {key: changes.pop(key) for key in list(changes) if key in source}
    section: dict[str, Any] = {
        "snapshot": "1",
        "sources": [{**source, "path": path} for path in folders or ("pictures",)],
        "download": DOWNLOAD,
        "crop": {"kind": "none"},
        "max_file_bytes": 1 << 20,
        "max_pixels": 1_000_000,
        "min_side": 8,
        "shard_bytes": 1 << 28,
    }
    return IngestParams.model_validate_json(json.dumps(section | changes))


class Result:
    """What ingest wrote, read back."""

    def __init__(self, artifact: IngestArtifact) -> None:
        self.artifact = artifact
        self.folder = artifact.out_dir
        self.rows = read_table(self.folder / "manifest.parquet", MANIFEST).to_pylist()
        self.thumbnails = np.load(self.folder / "thumbnails.npy")
        with (self.folder / "rejected.csv").open(encoding="utf-8", newline="") as file:
            self.rejects = list(csv.DictReader(file))
        assert len(self.rows) == artifact.num_images == len(self.thumbnails)
        assert len(self.rejects) == artifact.num_rejected
        assert artifact.num_files == artifact.num_images + artifact.num_rejected
        assert not list(self.folder.glob("*.partial"))

    @property
    def labels(self) -> list[str]:
        return sorted({row["label"] for row in self.rows})

    @property
    def reasons(self) -> dict[str, str]:
        return {row["source_path"]: row["reason"] for row in self.rejects}

    @property
    def bytes(self) -> dict[str, str]:
        return {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in self.folder.iterdir()
            if path.name != "rejected.csv"
        }


def run(root: Path, settings: IngestParams | None = None, *, out: str = "out", workers: int = 1) -> Result:
    return Result(ingest(settings or params(), root=root, cache=root / "cache", out_dir=root / out, workers=workers))


@pytest.fixture
def two_classes(tmp_path: Path) -> Path:
    for index, label in enumerate(["cat", "cat", "cat", "dog", "dog"]):
        put(tmp_path / "pictures" / label / f"{index}.jpg", picture(index))
    return tmp_path


def test_every_image_is_packed_and_described(two_classes: Path) -> None:
    result = run(two_classes)
    assert str(result.artifact) == "5 of 5 files accepted (0 rejected), 2 classes, 1 shard"
    assert [row["label"] for row in result.rows] == ["cat"] * 3 + ["dog"] * 2
    with ShardReader(result.folder) as reader:
        for row, thumbnail in zip(result.rows, result.thumbnails, strict=True):
            data = (two_classes / "pictures" / row["source_path"]).read_bytes()
            assert reader.read(row["shard"], row["offset"], row["size"]) == data
            assert row["image_id"] == hashlib.sha256(data).hexdigest()
            assert (row["format"], row["mode"], row["width"], row["height"]) == ("JPEG", "RGB", 40, 40)
            assert (row["orientation"], row["num_frames"], row["source"]) == (1, 1, "0-folder")
            assert row["brightness"] == pytest.approx(thumbnail.mean(), abs=1e-3)
            assert row["contrast"] == pytest.approx(thumbnail.std(), abs=1e-3)
    assert sorted(path.name for path in result.folder.iterdir()) == [
        "images-00000.tar",
        "manifest.parquet",
        "rejected.csv",
        "thumbnails.npy",
    ]


def test_rows_are_sorted_by_label_and_content(two_classes: Path) -> None:
    keys = [(row["label"], row["image_id"]) for row in run(two_classes).rows]
    assert keys == sorted(keys)


def test_two_runs_give_the_same_bytes(two_classes: Path) -> None:
    assert run(two_classes).bytes == run(two_classes, out="again").bytes


def test_renaming_files_changes_no_shard_and_no_thumbnail(two_classes: Path) -> None:
    before = run(two_classes).bytes
    cats = two_classes / "pictures" / "cat"
    for name, other in (("0.jpg", "z.png"), ("1.jpg", "0.jpg"), ("2.jpg", "an other")):
        (cats / name).rename(cats / other)
    after = run(two_classes, params(snapshot="2")).bytes
    assert before.pop("manifest.parquet") != after.pop("manifest.parquet")
    assert before == after


def test_workers_change_no_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in range(24):
        put(tmp_path / "pictures" / f"c{index % 3}" / f"{index}.jpg", picture(index % 20))
    put(tmp_path / "pictures" / "c0" / "broken.jpg", b"")
    whole = run(tmp_path)
    monkeypatch.setattr(ingest_run, "FILES_PER_CHUNK", 3)
    monkeypatch.setattr(ingest_run, "map_chunks", functools.partial(map_chunks, pool_pays_seconds=0.0))
    for workers in (2, 3):
        shutil.rmtree(tmp_path / "cache")
        assert run(tmp_path, out=str(workers), workers=workers).bytes == whole.bytes
        assert (tmp_path / "out/rejected.csv").read_bytes() == (tmp_path / f"{workers}/rejected.csv").read_bytes()


def test_a_disk_that_is_full_for_the_spool_is_named(two_classes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(inspection, "sharpness", full)
    num_open = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(InputError, match="No space left"):
        run(two_classes)
    assert len(list(Path("/proc/self/fd").iterdir())) == num_open
    assert list((two_classes / "out").iterdir()) == []


def test_threads_that_inspect_large_files_change_no_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    formats = ("JPEG", "PNG", "TIFF", "WEBP")
    for index in range(48):
        put(tmp_path / "pictures" / f"c{index % 3}" / f"{index}", picture(index % 20, format=formats[index % 4]))
    put(tmp_path / "pictures" / "c0" / "broken.jpg", b"")
    whole = run(tmp_path)
    monkeypatch.setattr(ingest_run, "FILES_PER_CHUNK", 2)
    monkeypatch.setattr(ingest_run, "THREADS_FROM_BYTES", 0)
    threads = set()

    def inspect_slowly(chunk: inspection.Chunk) -> inspection.Inspected:
        threads.add(threading.get_ident())
        time.sleep(0.005)
        return inspection.inspect_chunk(chunk)

    monkeypatch.setattr(ingest_run, "inspect_chunk", inspect_slowly)
    assert run(tmp_path, out="many", workers=3).bytes == whole.bytes
    assert len(threads) == 3
    assert threading.get_ident() not in threads
    threads.clear()
    assert run(tmp_path, out="one", workers=1).bytes == whole.bytes
    assert threads == {threading.get_ident()}
    assert (tmp_path / "out/rejected.csv").read_bytes() == (tmp_path / "many/rejected.csv").read_bytes()


def test_threads_are_for_files_known_to_be_large(tmp_path: Path) -> None:
    def suits(size: int, **changes: Any) -> bool:
        path = put(tmp_path / "pictures" / "cat" / "0.jpg", b"x" * size)
        os.utime(path, (1_600_000_000, 1_600_000_000))  # a file younger than 2 s has no size that counts
        settings = params(**changes)
        source = settings.sources[0]
        assert isinstance(source, FolderSource)
        listing = folder_source.list_folder(source, source="0-folder", root=tmp_path, max_file_bytes=1 << 20)
        return ingest_run.plan_work(settings, [listing], [np.arange(1)], None).threads

    assert not suits(ingest_run.THREADS_FROM_BYTES - 1)
    assert suits(ingest_run.THREADS_FROM_BYTES)
    faces = {"margin": 0.1, "min_side": 20, "min_confidence": 0.85, "if_no_face": "center", "if_several": "largest"}
    assert not suits(ingest_run.THREADS_FROM_BYTES, crop={"kind": "face", **faces})


def test_equal_files_are_packed_once_a_label_and_keep_a_row_each(tmp_path: Path) -> None:
    for path in ("cat/a.jpg", "cat/b.png", "dog/c.jpg"):
        put(tmp_path / "pictures" / path, picture(1))
    result = run(tmp_path)
    assert [row["source_path"] for row in result.rows] == ["cat/a.jpg", "cat/b.png", "dog/c.jpg"]
    assert result.rows[0]["offset"] == result.rows[1]["offset"] != result.rows[2]["offset"]
    with tarfile.open(result.folder / "images-00000.tar") as tar:
        name = f"{hashlib.sha256(picture(1)).hexdigest()}.jpg"
        assert tar.getnames() == [f"cat/{name}", f"dog/{name}"]


def test_tar_gives_the_folder_back_whatever_its_labels(tmp_path: Path) -> None:
    labels = ["日本 の猫", "a b#c", "😀", "ελληνικά", "-rf", "x" * 200, "ギター" * 20]
    for index, label in enumerate(labels):
        put(tmp_path / "pictures" / label / "x.jpg", picture(index))
    result = run(tmp_path)
    assert result.labels == sorted(labels)
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    subprocess.run(["tar", "xf", str(result.folder / "images-00000.tar"), "-C", str(unpacked)], check=True)
    for index, label in enumerate(labels):
        (path,) = (unpacked / label).iterdir()
        assert path.read_bytes() == picture(index)
        assert path.name == f"{hashlib.sha256(picture(index)).hexdigest()}.jpg"


def test_two_spellings_of_one_name_are_one_label(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "ギター é") for form in ("NFC", "NFD"))
    assert composed != decomposed
    put(tmp_path / "pictures" / composed / "a.jpg", picture(1))
    put(tmp_path / "pictures" / decomposed / "b.jpg", picture(2))
    put(tmp_path / "pictures" / f" {composed} " / "c.jpg", picture(3))
    assert run(tmp_path).labels == [composed]


@pytest.mark.parametrize(
    ("label_from", "labels"),
    [("first_folder", ["a"]), ("last_folder", ["a", "b"]), ("whole_path", ["a", "a/b"])],
)
def test_the_label_is_the_folder_that_was_asked_for(tmp_path: Path, label_from: str, labels: list[str]) -> None:
    put(tmp_path / "pictures" / "a" / "1.jpg", picture(1))
    put(tmp_path / "pictures" / "a" / "b" / "2.jpg", picture(2))
    put(tmp_path / "pictures" / "3.jpg", picture(3))
    result = run(tmp_path, params(label_from=label_from))
    assert result.labels == labels
    assert result.reasons == {"3.jpg": "no-label"}
    assert result.rejects[0]["detail"] == "lies in no class folder; move it into one"


def test_labels_are_made_safe_or_refused() -> None:
    assert clean_label(" a b ") == "a b"
    assert clean_label("a / b") == "a/b"
    for raw, rule in {
        " .. ": "is no name",
        "a/../b": "is no name",
        "/a": "is no name",
        "a\nb": "control character",
        "caf\udce9": "not UTF-8",
        "x" * 256: "more than the 255",
    }.items():
        with pytest.raises(ImageError, match=rule) as caught:
            clean_label(raw)
        assert caught.value.reason == "bad-label"
        caught.value.detail.encode()
    with pytest.raises(ImageError, match="no-label"):
        clean_label("  ")
    assert printable("caf\udce9.jpg") == "caf\\xe9.jpg"


def test_names_that_are_not_utf8_lose_no_file(tmp_path: Path) -> None:
    pictures = os.fsencode(tmp_path / "pictures")
    os.makedirs(pictures + b"/cat")  # noqa: PTH103 - pathlib takes no bytes
    os.makedirs(pictures + b"/caf\xe9")  # noqa: PTH103
    for name in (b"/cat/\xff.jpg", b"/caf\xe9/x.jpg"):
        with open(pictures + name, "wb") as file:  # noqa: PTH123
            file.write(picture(1))
    result = run(tmp_path)
    assert [row["source_path"] for row in result.rows] == ["cat/\\xff.jpg"]
    assert result.reasons == {"caf\\xe9/x.jpg": "bad-label"}
    assert "it is not UTF-8; rename the folder" in result.rejects[0]["detail"]


def test_each_kind_of_unusable_file_has_its_reason(two_classes: Path) -> None:
    cat = two_classes / "pictures" / "cat"
    huge = Image.new("1", (1001, 1000))
    huge.save(cat / "bomb.png")
    put(cat / "empty.jpg", b"")
    put(cat / "half.jpg", picture(9)[:-200])
    put(cat / "page.jpg", b"<html><body>404</body></html>")
    put(cat / "dot.png", picture(1, size=1, format="PNG"))
    put(cat / "large.jpg", bytes((1 << 20) + 1))
    put(cat / "notes.txt", b"remember the milk")
    put(cat / ".note", b"")
    put(cat / ".old" / "a.jpg", picture(3))
    os.mkfifo(cat / "pipe.jpg")
    (cat / "link.jpg").symlink_to("0.jpg")
    result = run(two_classes)
    assert result.reasons == {
        "cat/.note": "hidden",
        "cat/.old": "hidden",
        "cat/bomb.png": "too-many-pixels",
        "cat/dot.png": "too-small",
        "cat/empty.jpg": "empty-file",
        "cat/half.jpg": "truncated",
        "cat/large.jpg": "too-large",
        "cat/link.jpg": "symlink",
        "cat/notes.txt": "not-an-image",
        "cat/page.jpg": "not-an-image",
        "cat/pipe.jpg": "not-a-file",
    }
    details = {row["source_path"]: row["detail"] for row in result.rejects}
    assert details["cat/bomb.png"] == "1001 x 1000 pixels; ingest.max_pixels is 1000000"
    assert details["cat/dot.png"] == "1 x 1 pixels; ingest.min_side is 8"
    assert details["cat/large.jpg"] == "1048577 bytes; ingest.max_file_bytes is 1048576"
    assert details["cat/page.jpg"] == "an HTML page"
    assert details["cat/pipe.jpg"] == "a FIFO"
    assert details["cat/.old"] == "a hidden folder; nothing in it was read"
    assert {(row["source"], row["label"]) for row in result.rejects} == {("0-folder", "cat")}
    assert len(result.rows) == 5


def test_hidden_files_are_read_when_asked_for(two_classes: Path) -> None:
    put(two_classes / "pictures" / ".bird" / ".x.jpg", picture(7))
    assert run(two_classes, params(hidden="read")).labels == [".bird", "cat", "dog"]


def test_followed_links_stay_inside_and_go_in_no_circle(two_classes: Path) -> None:
    pictures = two_classes / "pictures"
    put(two_classes / "elsewhere" / "secret.jpg", picture(8))
    (pictures / "bird").mkdir()
    for link, target in {
        "bird/inside.jpg": "../cat/0.jpg",
        "bird/outside.jpg": "../../elsewhere/secret.jpg",
        "bird/nowhere.jpg": "absent.jpg",
        "bird/self.jpg": "self.jpg",
        "bird/up": "..",
        "kitten": "cat",
        "cat/mate": "../dog",
        "elsewhere": "../elsewhere",
    }.items():
        (pictures / link).symlink_to(target)
    result = run(two_classes, params(symlinks="follow"))
    assert result.reasons == {
        "bird/nowhere.jpg": "broken-link",
        "bird/outside.jpg": "symlink-outside",
        "bird/self.jpg": "directory-loop",
        "bird/up": "directory-loop",
        "elsewhere": "symlink-outside",
        "kitten/mate": "symlink",
    }
    found = sorted(row["source_path"] for row in result.rows if not row["source_path"].startswith(("cat/0", "dog")))
    assert found == [
        "bird/inside.jpg", "cat/1.jpg", "cat/2.jpg", "cat/mate/3.jpg", "cat/mate/4.jpg",
        "kitten/0.jpg", "kitten/1.jpg", "kitten/2.jpg",
    ]  # fmt: skip


def test_a_directory_loop_ends_when_links_are_skipped_too(two_classes: Path) -> None:
    (two_classes / "pictures" / "cat" / "loop").symlink_to("..")
    assert run(two_classes).reasons == {"cat/loop": "symlink"}


def test_a_very_deep_folder_is_walked(tmp_path: Path) -> None:
    deep = tmp_path / "pictures"
    deep.mkdir()
    for _ in range(1200):  # pathlib's own mkdir(parents=True) calls itself
        deep /= "d"
        deep.mkdir()
    put(deep / "x.jpg", picture(1))
    (row,) = run(tmp_path).rows
    assert row["source_path"] == "d/" * 1200 + "x.jpg"
    (deep / "x.jpg").unlink()
    for folder in (deep, *deep.parents[:1199]):  # pytest's own removal calls itself too
        folder.rmdir()


def test_an_unreadable_file_or_folder_is_a_reject(two_classes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The super-user reads everything, so the refusal is played."""
    put(two_classes / "pictures" / "locked" / "x.jpg", picture(5))
    really_open = os.open

    def refuse(path: Any, *arguments: Any, **options: Any) -> int:
        if str(path).rstrip("/").endswith(("locked", "cat/0.jpg")):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return really_open(path, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)
    result = run(two_classes)
    assert result.reasons == {"cat/0.jpg": "unreadable", "locked": "unreadable"}
    assert {row["detail"] for row in result.rejects} == {"Permission denied"}


def test_a_file_that_vanishes_after_it_was_listed_is_a_reject(tmp_path: Path) -> None:
    read = file_reader.FolderReader(str(tmp_path), 100, False)
    with pytest.raises(ImageError, match="unreadable: No such file or directory"):
        read("gone.jpg")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ImageError, match="not-a-file: a FIFO"):
        read("pipe")
    writer = os.open(tmp_path / "pipe", os.O_RDWR)
    os.write(writer, b"as if it were a file")
    with pytest.raises(ImageError, match="not-a-file: a FIFO"):
        read("pipe")
    os.close(writer)
    (tmp_path / "folder").mkdir()
    with pytest.raises(ImageError, match="not-a-file: no regular file"):
        read("folder")
    with pytest.raises(ImageError, match="not-a-file: a device"):
        file_reader.FolderReader("/dev", 100, False)("zero")
    with pytest.raises(ImageError, match="too-large: 101 bytes"):
        read(put(tmp_path / "large", bytes(101)).name)
    put(tmp_path / "file", b"file")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    with pytest.raises(ImageError, match="symbolic links"):
        read("link")
    assert file_reader.FolderReader(str(tmp_path), 100, follow=True)("link") == b"file"


@pytest.mark.parametrize("size", [0, 1, 99, 100, (1 << 14) - 1, 1 << 14, (1 << 14) + 1, 50_000])
def test_the_reader_gives_whole_files_up_to_its_limit(tmp_path: Path, size: int) -> None:
    data = np.random.default_rng(size).bytes(size)
    put(tmp_path / "file", data)
    assert file_reader.FolderReader(str(tmp_path), size, False)("file") == data
    assert file_reader.FolderReader(str(tmp_path), 1 << 20, False)("file") == data
    if size:
        with pytest.raises(ImageError, match=f"too-large: {size} bytes; ingest.max_file_bytes is {size - 1}"):
            file_reader.FolderReader(str(tmp_path), size - 1, False)("file")


def test_one_class_and_one_picture_are_no_business_of_ingest(tmp_path: Path) -> None:
    put(tmp_path / "pictures" / "cat" / "0.jpg", picture(1))
    assert str(run(tmp_path).artifact) == "1 of 1 file accepted (0 rejected), 1 class, 1 shard"


def test_several_sources_meet_in_one_manifest(two_classes: Path) -> None:
    put(two_classes / "more" / "cat" / "0.jpg", picture(0))
    put(two_classes / "more" / "bird" / "0.jpg", picture(50))
    result = run(two_classes, params("pictures", "more"))
    assert Counter((row["source"], row["label"]) for row in result.rows) == {
        ("0-folder", "cat"): 3, ("0-folder", "dog"): 2, ("1-folder", "bird"): 1, ("1-folder", "cat"): 1,
    }  # fmt: skip
    same = [row for row in result.rows if row["image_id"] == hashlib.sha256(picture(0)).hexdigest()]
    assert [row["source"] for row in same] == ["0-folder", "1-folder"]
    assert same[0]["offset"] == same[1]["offset"]


def test_a_missing_folder_is_named_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        run(tmp_path)
    assert str(caught.value) == (
        "ingest.sources[0].path: pictures does not exist; correct it (a relative path starts at the folder of "
        "params.yaml)"
    )
    put(tmp_path / "pictures", b"")
    with pytest.raises(InputError, match="pictures is a file; name the folder"):
        run(tmp_path)


def test_an_empty_folder_is_named_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "pictures" / "cat").mkdir(parents=True)
    with pytest.raises(InputError, match=r"sources\[0\].path: pictures is empty; put a folder of pictures for each"):
        run(tmp_path)


def test_a_source_without_a_single_image_is_refused_with_counts(two_classes: Path) -> None:
    put(two_classes / "notes" / "a" / "b.txt", b"hello")
    put(two_classes / "notes" / "a" / "c.jpg", b"")
    with pytest.raises(InputError) as caught:
        run(two_classes, params("pictures", "notes"))
    assert str(caught.value) == (
        "source 1-folder: none of its 2 files can be used (1 empty-file, 1 not-an-image); the first is a/b.txt: "
        "starts with b'hello'. Correct ingest.sources, or put pictures there: a folder for each class"
    )
    assert list((two_classes / "out").iterdir()) == []


@pytest.mark.parametrize(("out", "rule"), [("pictures/data", "holds pictures/data"), (".", "lies in .,")])
def test_ingest_does_not_eat_its_own_output(two_classes: Path, out: str, rule: str) -> None:
    with pytest.raises(InputError, match=rule):
        run(two_classes, out=out)
    assert len(list((two_classes / "pictures" / "cat").iterdir())) == 3


def test_what_an_earlier_run_left_is_gone(two_classes: Path) -> None:
    put(two_classes / "out" / "images-00007.tar", b"old")
    put(two_classes / "out" / "truth.csv", b"old")
    assert not {"images-00007.tar", "truth.csv"} & set(run(two_classes).bytes)


@pytest.mark.parametrize("room", [2_000, 40_000, 300_000])
def test_a_full_disk_is_an_error_and_leaves_nothing_half_written(tmp_path: Path, room: int) -> None:
    """A limit on the size of files stands for the disk; a process of its own, since limits stay."""
    for index in range(300):
        put(tmp_path / "pictures" / "cat" / f"{index}.jpg", picture(index))
    code = (
        "import json, sys; from pathlib import Path; from pipelines.ingest import ingest; "
        "from pipelines.params.ingest import IngestParams; "
        "ingest(IngestParams.model_validate_json(sys.argv[1]), root=Path(sys.argv[2]), "
        "cache=Path(sys.argv[2]) / 'cache', out_dir=Path(sys.argv[2]) / 'out', workers=1)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, params().model_dump_json(), str(tmp_path)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room, room)),
    )  # fmt: skip
    assert found.returncode != 0
    assert "InputError" in found.stderr
    assert "File too large; ingest needs about the size of the pictures" in found.stderr
    assert "nothing half-written was left" in found.stderr
    assert list((tmp_path / "out").iterdir()) == []


def test_a_disk_that_fills_up_is_named(two_classes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ingest_run, "write_csv", full)
    with pytest.raises(InputError, match="No space left on device; ingest needs about the size of the pictures"):
        run(two_classes)
    assert list((two_classes / "out").iterdir()) == []


def test_importing_ingest_loads_nothing_heavy() -> None:
    code = "import sys, pipelines.ingest; print([m for m in ('torch', 'torchvision', 'pandas', 'sklearn', 'great_expectations', 'PIL', 'rich', 'matplotlib') if m in sys.modules])"  # noqa: E501
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert found.stdout == "[]\n"


@pytest.mark.parametrize(
    ("name", "accepted", "rejected", "litter"), [("stress.tar.gz", 849, 412, 1), ("clothing.tar", 713, 0, 0)]
)
def test_every_real_file_is_a_row_or_a_reject(
    tmp_path: Path, name: str, accepted: int, rejected: int, litter: int
) -> None:
    archive = SHARED / name
    if not archive.exists():
        pytest.skip(f"shared/data/{name} is absent")
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path / "pictures", filter="data")
    files = sum(path.is_file() for path in (tmp_path / "pictures").rglob("*"))
    settings = params(max_pixels=100_000_000, max_file_bytes=1 << 26)
    result = run(tmp_path, settings)
    assert (result.artifact.num_images, result.artifact.num_rejected) == (accepted, rejected)
    assert result.artifact.num_files + result.artifact.num_litter == files
    assert result.artifact.num_litter == litter
    assert all(row["reason"] and row["detail"] for row in result.rejects)
    with ShardReader(result.folder) as reader:
        for row in result.rows:
            data = reader.read(row["shard"], row["offset"], row["size"])
            assert hashlib.sha256(data).hexdigest() == row["image_id"]


def lost_classes(result: Result) -> dict[str, str]:
    """Label and reason of the rejects of classes that have no picture."""
    accepted = {row["label"] for row in result.rows}
    return {row["label"]: row["reason"] for row in result.rejects if row["label"] not in accepted | {""}}


@pytest.mark.parametrize("label_from", ["first_folder", "last_folder", "whole_path"])
def test_no_class_folder_leaves_without_a_word(
    two_classes: Path, monkeypatch: pytest.MonkeyPatch, label_from: str
) -> None:
    pictures = two_classes / "pictures"
    for name in ("bird", "eel", "cat/old", "ant\tlion"):
        (pictures / name).mkdir()
    put(pictures / "ant\tlion" / "0.jpg", picture(9))
    put(two_classes / "other" / "0.jpg", picture(8))
    (pictures / "fox").symlink_to(two_classes / "other")
    (pictures / "gnu").symlink_to("/not/mounted")
    (pictures / "again").symlink_to("cat")
    (pictures / "lost.jpg").symlink_to("/not/there.jpg")
    open_file = os.open

    def refuse(path: Any, *arguments: Any, **options: Any) -> int:
        if str(path).endswith("/eel/"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return open_file(path, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)
    assert lost_classes(run(two_classes, params(label_from=label_from))) == {
        "bird": "empty-folder", "eel": "unreadable", "ant\tlion": "bad-label", "fox": "symlink", "gnu": "symlink",
    }  # fmt: skip
    followed = lost_classes(run(two_classes, params(label_from=label_from, symlinks="follow", snapshot="2")))
    assert (followed["fox"], followed["gnu"]) == ("symlink-outside", "broken-link")


def test_an_empty_folder_is_a_class_only_where_classes_lie(two_classes: Path) -> None:
    """Between class folders it is one; in a class's folder, or with pictures of its label elsewhere, it is none."""
    for name in ("cat/new", "cat/deep/er", "Gibson/SG", "Gibson/cat"):
        (two_classes / "pictures" / name).mkdir(parents=True)
    put(two_classes / "pictures" / "Gibson" / "Flying V" / "0.jpg", picture(7))
    assert lost_classes(run(two_classes)) == {"SG": "empty-folder", "er": "empty-folder"}

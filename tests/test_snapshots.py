"""Growth: what an earlier run read is taken over byte for byte, and everything else is as if it had never run."""

import csv
import dataclasses
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from test_ingest import params, picture, put

from pipelines.core import tables
from pipelines.core.errors import ImageError, InputError
from pipelines.core.tables import MANIFEST, read_table
from pipelines.images.shards import ShardReader
from pipelines.ingest import changes, file_reader, incremental, ingest, inspection, output, snapshots
from pipelines.ingest import stage as ingest_stage
from pipelines.ingest.listing import Listing, Origin, Reject
from pipelines.params.ingest import IngestParams

ROOT = Path(__file__).parents[1]
LONG_AGO = 1_600_000_000
PLACE = ("shard", "offset")


def store(path: Path, data: bytes, *, when: int = LONG_AGO) -> Path:
    """A file that was last modified long ago; a young one would not be trusted."""
    put(path, data)
    os.utime(path, (when, when))
    return path


def run(root: Path, *, cache: str = "cache", settings: IngestParams | None = None, **changes: Any) -> Path:
    out = root / "out"
    chosen = settings or params(**changes)
    ingest(chosen, root=root, cache=root / cache, out_dir=out, workers=1)
    assert not list(out.glob("*.partial"))
    return out


def digests(out: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(out.iterdir())}


def rows(out: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = read_table(out / "manifest.parquet", MANIFEST).to_pylist()
    return found


def without_place(out: Path) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key not in PLACE} for row in rows(out)]


def assert_same_pictures(root: Path, out: Path, **changes: Any) -> None:
    """All of `out` but the layout of its shards is what a run without any history gives; every byte can be had."""
    fresh = root / "fresh"
    ingest(params(**changes), root=root, cache=root / "no-cache", out_dir=fresh, workers=1)
    shutil.rmtree(root / "no-cache")
    assert without_place(out) == without_place(fresh)
    for name in ("thumbnails.npy", "rejected.csv"):
        assert (out / name).read_bytes() == (fresh / name).read_bytes()
    assert {path.name for path in out.glob("*.tar")} == {row["shard"] for row in rows(out)}
    with ShardReader(out) as reader:
        for row in rows(out):
            data = reader.read(row["shard"], row["offset"], row["size"])
            assert hashlib.sha256(data).hexdigest() == row["image_id"]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for index, label in enumerate(["bird", "cat", "cat", "cat", "dog", "dog"]):
        store(tmp_path / "pictures" / label / f"{index}.jpg", picture(index))
    store(tmp_path / "pictures" / "cat" / "notes.txt", b"remember the milk")
    return tmp_path


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files below the source that are opened, whatever opens them; folders are, to be listed."""
    found: list[str] = []
    open_file = os.open

    def watch(path: Any, *arguments: Any, **options: Any) -> int:
        name = os.fsdecode(path) if not isinstance(path, int) else ""
        if options.get("dir_fd") is not None:
            name = f"{Path('/proc/self/fd', str(options['dir_fd'])).readlink()}/{name}"
        if "/pictures/" in name and not arguments[0] & os.O_DIRECTORY:
            found.append(name.split("/pictures/")[1])
        return open_file(path, *arguments, **options)

    monkeypatch.setattr(os, "open", watch)
    return found


def test_a_run_with_nothing_changed_opens_no_file_and_gives_the_same_bytes(
    pictures: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = digests(run(pictures))
    assert sorted(opened) == [
        "bird/0.jpg", "cat/1.jpg", "cat/2.jpg", "cat/3.jpg", "cat/notes.txt", "dog/4.jpg", "dog/5.jpg",
    ]  # fmt: skip
    opened.clear()

    def refuse(*_: Any) -> bytes:
        raise AssertionError("a file is read")

    monkeypatch.setattr(file_reader.FolderReader, "__call__", refuse)
    assert digests(run(pictures)) == first
    assert digests(run(pictures, snapshot="2")) == first
    assert opened == []
    assert snapshots.list_snapshots(pictures / "cache") == ["2", "1"]


def test_what_is_taken_over_is_linked_not_copied(pictures: Path) -> None:
    first = run(pictures).joinpath("images-00000.tar").stat().st_ino
    assert run(pictures).joinpath("images-00000.tar").stat().st_ino == first
    assert (pictures / "cache/snapshots/1/images-00000.tar").stat().st_ino == first


def test_where_links_cannot_be_made_files_are_copied(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    first = digests(run(pictures))
    assert digests(run(pictures)) == first
    shards = [pictures / where / "images-00000.tar" for where in ("out", "cache/snapshots/1")]
    assert shards[0].stat().st_ino != shards[1].stat().st_ino


def test_growth_opens_new_files_alone_and_old_shards_keep_their_bytes(pictures: Path, opened: list[str]) -> None:
    first = digests(run(pictures))
    opened.clear()
    for index, label in [(10, "ant"), (11, "cat"), (12, "dog"), (13, "eel")]:
        store(pictures / "pictures" / label / f"{index}.jpg", picture(index))
    out = run(pictures, snapshot="2")
    assert sorted(opened) == ["ant/10.jpg", "cat/11.jpg", "dog/12.jpg", "eel/13.jpg"]
    second = digests(out)
    assert second["images-00000.tar"] == first["images-00000.tar"]
    assert [row["shard"] for row in rows(out)].count("images-00001.tar") == 4
    with tarfile.open(out / "images-00001.tar") as tar:
        assert [name.split("/")[0] for name in tar.getnames()] == ["ant", "cat", "dog", "eel"]
    assert_same_pictures(pictures, out)


def test_changed_and_gone_files_and_new_rejects_are_told_apart(pictures: Path, opened: list[str]) -> None:
    run(pictures)
    opened.clear()
    store(pictures / "pictures" / "cat" / "1.jpg", picture(50), when=LONG_AGO + 1)
    store(pictures / "pictures" / "dog" / "broken.jpg", b"")
    (pictures / "pictures" / "cat" / "2.jpg").unlink()
    (pictures / "pictures" / "bird" / "0.jpg").unlink()
    (pictures / "pictures" / "bird").rmdir()
    out = run(pictures, snapshot="2")
    assert sorted(opened) == ["cat/1.jpg", "dog/broken.jpg"]
    assert {row["label"] for row in rows(out)} == {"cat", "dog"}
    assert_same_pictures(pictures, out)
    with (out / "rejected.csv").open(newline="") as file:
        assert [(row["source_path"], row["reason"]) for row in csv.DictReader(file)] == [
            ("cat/notes.txt", "not-an-image"),
            ("dog/broken.jpg", "empty-file"),
        ]


def test_a_renamed_file_is_read_but_not_packed_again_and_a_moved_one_is(pictures: Path) -> None:
    run(pictures)
    (pictures / "pictures" / "cat" / "1.jpg").rename(pictures / "pictures" / "cat" / "z.jpg")
    out = run(pictures, snapshot="2")
    assert [path.name for path in out.glob("*.tar")] == ["images-00000.tar"]
    assert_same_pictures(pictures, out)
    (pictures / "pictures" / "cat" / "z.jpg").rename(pictures / "pictures" / "dog" / "z.jpg")
    out = run(pictures, snapshot="3")
    (moved,) = [row for row in rows(out) if row["source_path"] == "dog/z.jpg"]
    assert moved["shard"] == "images-00001.tar"
    assert_same_pictures(pictures, out)


def test_a_shard_without_a_living_row_goes_and_its_number_is_not_given_again(pictures: Path) -> None:
    first = run(pictures, shard_bytes=4096)
    names = sorted(path.name for path in first.glob("*.tar"))
    dead = {row["shard"] for row in rows(first) if row["label"] == "bird"}
    assert len(names) > 2
    assert not dead & {row["shard"] for row in rows(first) if row["label"] != "bird"}
    store(pictures / "pictures" / "bird" / "0.jpg", picture(60), when=LONG_AGO + 1)
    second = run(pictures, shard_bytes=4096, snapshot="2")
    assert sorted(path.name for path in second.glob("*.tar")) == sorted(
        {*names} - dead | {f"images-{len(names):05d}.tar"}
    )
    assert_same_pictures(pictures, second, shard_bytes=4096)


@pytest.mark.parametrize("row_group", [3, tables.ROW_GROUP])
def test_many_generations_differ_from_one_run_in_nothing_but_the_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row_group: int
) -> None:
    monkeypatch.setattr(tables, "ROW_GROUP", row_group)
    monkeypatch.setattr(incremental, "ROW_GROUP", row_group)
    monkeypatch.setattr(output, "_BLOCK_ROWS", row_group)
    random = np.random.default_rng(0)
    for generation in range(8):
        for _ in range(6):
            where = tmp_path / "pictures" / f"c{random.integers(4)}" / f"{random.integers(12)}.jpg"
            if where.exists() and random.random() < 0.3:
                where.unlink()
            else:
                store(where, picture(int(random.integers(20))), when=LONG_AGO + generation)
        out = run(tmp_path, snapshot=f"g{generation}")
        assert_same_pictures(tmp_path, out)


def test_a_file_too_young_to_be_trusted_is_read_again(pictures: Path, opened: list[str]) -> None:
    now = int(time.time())
    store(pictures / "pictures" / "cat" / "young.jpg", picture(20), when=now + 60)
    first = digests(run(pictures))
    opened.clear()
    assert digests(run(pictures)) == first
    assert opened == ["cat/young.jpg"]
    # the same size and time, other bytes: what a write within one tick of the clock looks like
    data = bytearray(picture(20))
    data[-3] ^= 1
    store(pictures / "pictures" / "cat" / "young.jpg", bytes(data), when=now + 60)
    with pytest.raises(InputError, match=r"hold others: 1 changed \(cat/young.jpg\)"):
        run(pictures)
    out = run(pictures, snapshot="2")
    assert hashlib.sha256(data).hexdigest() in {row["image_id"] for row in rows(out)}


def test_other_files_under_the_same_name_stop_the_run_and_a_new_name_reads_them(
    pictures: Path, opened: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run(pictures)
    kept = digests(pictures / "cache/snapshots/1")
    opened.clear()
    store(pictures / "pictures" / "cat" / "1.jpg", picture(30, size=50), when=LONG_AGO + 5)
    store(pictures / "pictures" / "cat" / "new.jpg", picture(31))
    (pictures / "pictures" / "dog" / "5.jpg").unlink()
    with pytest.raises(InputError) as caught:
        run(pictures)
    assert str(caught.value) == (
        "ingest.snapshot '1' names the files that were read under it, and the sources hold others: 1 file is new "
        "(cat/new.jpg), 1 changed (cat/1.jpg), 1 is gone (dog/5.jpg). To read them, write a new name: "
        "`snapshot: \"2\"`; of files, only new ones are read. To keep '1', bring the old files and settings back"
    )
    assert opened == []
    assert digests(pictures / "cache/snapshots/1") == kept
    run(pictures, snapshot="2")
    assert sorted(opened) == ["cat/1.jpg", "cat/new.jpg"]
    assert capsys.readouterr().err == "ingest: 5 files as in snapshot 1, 2 to read\n"


def test_other_bytes_of_the_same_size_under_the_same_name_stop_the_run(pictures: Path) -> None:
    run(pictures)
    path = pictures / "pictures" / "cat" / "1.jpg"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    store(path, bytes(data), when=LONG_AGO + 5)
    with pytest.raises(InputError, match=r"hold others: 1 changed \(cat/1.jpg\)"):
        run(pictures)
    # whatever code or limits made the old run
    with pytest.raises(InputError, match=r"hold others: 1 changed \(cat/1.jpg\)"):
        run(pictures, min_side=9)


def moved(root: Path) -> IngestParams:
    (root / "pictures").rename(root / "elsewhere")
    return params("elsewhere")


def restored(root: Path) -> IngestParams:
    """As a backup gives files back: other inodes, other times."""
    shutil.copytree(root / "pictures", root / "copy", copy_function=shutil.copyfile)
    shutil.rmtree(root / "pictures")
    (root / "copy").rename(root / "pictures")
    return params()


@pytest.mark.parametrize("change", [moved, restored])
def test_the_same_files_elsewhere_are_the_same_snapshot(pictures: Path, change: Any) -> None:
    run(pictures)
    before = without_place(pictures / "out")
    run(pictures, settings=change(pictures))
    assert without_place(pictures / "out") == before


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"label_from": "whole_path"}, "3 files have other labels"),
        ({"sources": "more"}, "1 file is new (cat/0.jpg), 7 are gone (bird/0.jpg, cat/1.jpg, cat/2.jpg, and 4 more)"),
    ],
)
def test_other_settings_of_a_source_under_the_same_name_stop_the_run(
    pictures: Path, settings: dict[str, Any], said: str
) -> None:
    for index in range(3):
        store(pictures / "pictures" / "deep" / "cat" / f"{index}.jpg", picture(index + 70))
    if "sources" in settings:
        shutil.rmtree(pictures / "pictures" / "deep")
        store(pictures / "more" / "cat" / "0.jpg", picture(70))
    run(pictures)
    with pytest.raises(InputError) as caught:
        run(pictures, settings=params("more") if "sources" in settings else params(**settings))
    assert said in str(caught.value)


def test_status_says_what_changed_and_what_to_write(pictures: Path, opened: list[str]) -> None:
    run(pictures)
    cache = pictures / "cache"
    assert changes.status(params(), root=pictures, cache=cache) == []
    for index in range(5):
        store(pictures / "pictures" / "eel" / f"{index}.jpg", picture(index + 70))
    store(pictures / "pictures" / "cat" / "1.jpg", picture(1), when=LONG_AGO + 9)
    (pictures / "pictures" / "bird" / "0.jpg").unlink()
    opened.clear()
    assert changes.status(params(), root=pictures, cache=cache) == [
        "the sources changed since snapshot '1' was read: 5 files are new (eel/0.jpg, eel/1.jpg, eel/2.jpg, and 2 "
        "more), 1 changed (cat/1.jpg), 1 is gone (bird/0.jpg)",
        'to read them: `snapshot: "2"` in params.yaml, then `make repro`',
    ]
    assert opened == []
    assert changes.status(params(snapshot="never-read"), root=pictures, cache=cache) == []


def test_status_goes_on_past_a_source_that_is_offline(pictures: Path) -> None:
    store(pictures / "more" / "cat" / "0.jpg", picture(70))
    both = params("pictures", "more")
    run(pictures, settings=both)
    (pictures / "more").rename(pictures / "away")
    store(pictures / "pictures" / "cat" / "new.jpg", picture(71))
    said = changes.status(both, root=pictures, cache=pictures / "cache")
    assert said[0].startswith("ingest.sources[1] cannot be looked at now: ingest.sources[1].path: more does not exist")
    assert said[1].endswith("since snapshot '1' was read: 1 file is new (cat/new.jpg)")


def test_going_back_to_an_old_snapshot_over_an_unchanged_folder_gives_its_bytes(pictures: Path) -> None:
    first = digests(run(pictures))
    store(pictures / "pictures" / "ant" / "new.jpg", picture(31))
    second = digests(run(pictures, snapshot="2"))
    (pictures / "pictures" / "ant" / "new.jpg").unlink()
    (pictures / "pictures" / "ant").rmdir()
    assert digests(run(pictures)) == first != second


@pytest.mark.parametrize(
    "change",
    [
        {"min_side": 41},
        {"max_pixels": 2000},
        {"crop": {"kind": "center"}},
        {"max_file_bytes": 10},
        {"shard_bytes": 4096},
    ],
)
def test_other_limits_make_all_rows_anew(pictures: Path, change: dict[str, Any], opened: list[str]) -> None:
    store(pictures / "pictures" / "cat" / "large.png", picture(40, size=64, format="PNG"))
    store(pictures / "pictures" / "ok" / "ok.jpg", picture(41, size=50))
    run(pictures)
    opened.clear()
    settings = params(**change)
    if "max_file_bytes" in change:
        with pytest.raises(InputError, match="none of its 9 files can be used"):
            run(pictures, settings=settings)
    else:
        run(pictures, settings=settings)
    assert len(opened) >= 8


def test_other_code_or_another_library_makes_all_rows_anew(
    pictures: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = digests(run(pictures))
    opened.clear()
    monkeypatch.setattr(snapshots, "version", lambda name: "0.0.1" if name == "pillow" else "1")
    assert digests(run(pictures)) == first
    assert len(opened) == 7


def spoil_state(at: Path) -> None:
    (at / "state.json").write_text('{"snapshot": 1}')


def spoil_text(at: Path) -> None:
    (at / "state.json").write_bytes(b"\xff\xfe{")


def spoil_shard(at: Path) -> None:
    at.joinpath("images-00000.tar").unlink()
    at.joinpath("images-00000.tar").write_bytes(b"x" * 100)


def spoil_listing(at: Path) -> None:
    at.joinpath("listing.arrow").write_bytes(b"ARROW1")


def spoil_thumbnails(at: Path) -> None:
    os.truncate(at / "thumbnails.npy", 5000)


def spoil_manifest(at: Path) -> None:
    """The same size, and a time that was put back."""
    path = at / "manifest.parquet"
    when = path.stat().st_mtime_ns
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[:4] + bytes(len(data) // 2) + data[4 + len(data) // 2 :])
    os.utime(path, ns=(when, when))


def spoil_all(at: Path) -> None:
    for path in at.iterdir():
        path.unlink()


def link_elsewhere(at: Path) -> None:
    """Everything is there, but a shard is a link to a file of the same size and time."""
    shard = at / "images-00000.tar"
    shard.rename(at.parents[2] / "elsewhere.tar")
    shard.symlink_to(at.parents[2] / "elsewhere.tar")


def point_outside(at: Path) -> None:
    state = json.loads((at / "state.json").read_text())
    secret = put(at.parents[2] / "secret", b"secret")
    found = secret.stat()
    state["files"]["../../../secret"] = [found.st_size, found.st_mtime_ns]
    (at / "state.json").write_text(json.dumps(state))


@pytest.mark.parametrize(
    "spoil",
    [
        spoil_state,
        spoil_text,
        spoil_shard,
        spoil_listing,
        spoil_thumbnails,
        spoil_manifest,
        spoil_all,
        point_outside,
        link_elsewhere,
    ],
)
def test_a_damaged_or_foreign_cache_means_a_full_run(pictures: Path, opened: list[str], spoil: Any) -> None:
    run(pictures)
    store(pictures / "pictures" / "cat" / "new.jpg", picture(31))
    shutil.copytree(pictures / "cache", pictures / "other")
    shutil.rmtree(pictures / "cache")
    (pictures / "other").rename(pictures / "cache")
    for path in (pictures / "cache/snapshots/1").iterdir():  # copies have times of their own
        if path.name != "state.json":
            state = json.loads((pictures / "cache/snapshots/1/state.json").read_text())
            when = state["files"][path.name][1]
            os.utime(path, ns=(when, when))
    spoil(pictures / "cache/snapshots/1")
    opened.clear()
    out = run(pictures)
    assert len(opened) == 8
    fresh = pictures / "fresh"
    ingest(params(), root=pictures, cache=pictures / "none", out_dir=fresh, workers=1)
    assert digests(out) == digests(fresh)
    opened.clear()
    assert digests(run(pictures)) == digests(fresh)
    assert opened == []


def test_a_cache_that_cannot_be_written_is_said_and_costs_nothing_else(
    pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(pictures / "cache" / "snapshots", b"in the way")
    assert len(rows(run(pictures))) == 6
    assert "cannot be kept (Not a directory); the next run reads every file anew" in capsys.readouterr().err


def test_sources_may_change_places_and_a_new_one_may_come_first(pictures: Path, opened: list[str]) -> None:
    for index in range(3):
        store(pictures / "more/pictures" / "cat" / f"{index}.jpg", picture(index + 70))
    ingest(params("pictures"), root=pictures, cache=pictures / "cache", out_dir=pictures / "out", workers=1)
    opened.clear()
    both = params("more/pictures", "pictures", snapshot="2")
    ingest(both, root=pictures, cache=pictures / "cache", out_dir=pictures / "out", workers=1)
    assert sorted(opened) == ["cat/0.jpg", "cat/1.jpg", "cat/2.jpg"]
    fresh = pictures / "fresh"
    ingest(both, root=pictures, cache=pictures / "none", out_dir=fresh, workers=1)
    assert without_place(pictures / "out") == without_place(fresh)
    assert (pictures / "out/thumbnails.npy").read_bytes() == (fresh / "thumbnails.npy").read_bytes()


@dataclasses.dataclass(frozen=True)
class Stored:
    """A reader that says what was asked of it."""

    files: dict[str, bytes]
    asked: list[str]

    def __call__(self, source_path: str) -> bytes:
        self.asked.append(source_path)
        if source_path not in self.files:
            raise ImageError("unreadable", "gone")
        return self.files[source_path]


def listed(monkeypatch: pytest.MonkeyPatch, root: Path, **fields: Any) -> tuple[Path, list[str]]:
    """Run ingest over one listing that a source of another kind would give."""
    files = {f"http://host/{index}": picture(index) for index in range(4)}
    asked: list[str] = []
    listing = Listing("0-folder", sorted(files), ["cat"] * 4, Stored(files, asked), [], **fields)
    monkeypatch.setattr(ingest_stage, "list_source", lambda *_, **__: listing)
    (root / "pictures").mkdir(exist_ok=True)
    return run(root), asked


STAMPS: npt.NDArray[np.int64] = np.arange(12, dtype=np.int64).reshape(4, 3)


def test_a_source_without_stamps_is_read_every_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, asked = listed(monkeypatch, tmp_path)
    first = digests(out)
    out, asked = listed(monkeypatch, tmp_path)
    assert len(asked) == 4
    assert digests(out) == first


def test_a_picture_of_which_more_is_known_is_described_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    origins = [Origin(url=f"http://host/{index}", license="CC0") for index in range(4)]
    _, asked = listed(monkeypatch, tmp_path, stamps=STAMPS, origins=origins)
    assert len(asked) == 4
    _, asked = listed(monkeypatch, tmp_path, stamps=STAMPS, origins=origins)
    assert asked == []
    origins[2] = Origin(url="http://host/2", license="CC BY 4.0")
    out, asked = listed(monkeypatch, tmp_path, stamps=STAMPS, origins=origins)
    assert asked == ["http://host/2"]
    assert sorted(row["license"] for row in rows(out)) == ["CC BY 4.0", "CC0", "CC0", "CC0"]
    assert [path.name for path in out.glob("*.tar")] == ["images-00000.tar"]


def test_records_are_those_of_this_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed(monkeypatch, tmp_path, stamps=STAMPS, records=[{"url": "http://host/0", "time": 1}])
    out, asked = listed(monkeypatch, tmp_path, stamps=STAMPS, records=[{"url": "http://host/0", "time": 2}])
    assert asked == []
    assert (out / "sources.jsonl").read_text() == '{"source": "0-folder", "url": "http://host/0", "time": 2}\n'


def test_other_rejects_while_listing_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed(monkeypatch, tmp_path, stamps=STAMPS)
    monkeypatch.setattr(inspection, "summarize", None)  # nothing is decoded
    files = {f"http://host/{index}": picture(index) for index in range(4)}
    listing = Listing(
        "0-folder", sorted(files), ["cat"] * 4, Stored(files, []), [Reject("0-folder", "x", "", "hidden", "y")],
        stamps=STAMPS,
    )  # fmt: skip
    monkeypatch.setattr(ingest_stage, "list_source", lambda *_, **__: listing)
    assert (run(tmp_path) / "rejected.csv").read_text().splitlines()[1:] == ["0-folder,x,,hidden,y"]


def test_names_that_print_alike_are_never_mixed_up(tmp_path: Path, opened: list[str]) -> None:
    folder_bytes = os.fsencode(tmp_path / "pictures" / "cat")
    os.makedirs(folder_bytes)  # noqa: PTH103 - pathlib takes no bytes
    for name, seed in ((b"\xff.jpg", 1), (b"\\xff.jpg", 2)):
        with open(folder_bytes + b"/" + name, "wb") as file:  # noqa: PTH123
            file.write(picture(seed))
        os.utime(folder_bytes + b"/" + name, (LONG_AGO, LONG_AGO))
    store(tmp_path / "pictures" / "cat" / "plain.jpg", picture(3))
    run(tmp_path)
    store(tmp_path / "pictures" / "dog" / "new.jpg", picture(4))
    opened.clear()
    out = run(tmp_path, snapshot="2")
    assert sorted(opened) == ["cat/\\xff.jpg", "cat/\udcff.jpg", "dog/new.jpg"]
    assert_same_pictures(tmp_path, out)


KILLED_AT = """
import json, os, signal, sys
from pathlib import Path
from pipelines.params.ingest import IngestParams
from pipelines.ingest import ingest, run, snapshots, output
where, count = sys.argv[3], int(sys.argv[4])
module, name = {"label": (output.Output, "_write_label"), "finish": (output.Output, "finish"),
    "csv": (run, "write_csv"), "keep": (run, "keep"), "link": (snapshots, "link"), "rename": (Path, "rename"),
    "state": (snapshots, "write_text")}[where]
real, calls = getattr(module, name), []
def die(*arguments, **options):
    calls.append(1)
    if len(calls) == count:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments, **options)
setattr(module, name, die)
root = Path(sys.argv[2])
ingest(IngestParams.model_validate_json(sys.argv[1]), root=root, cache=root / "cache", out_dir=root / "out", workers=1)
"""


@pytest.mark.parametrize(
    ("where", "count"),
    [("label", 1), ("label", 3), ("finish", 1), ("csv", 1), ("keep", 1), ("link", 2), ("state", 1), ("rename", 1),
     ("rename", 2)],
)  # fmt: skip
def test_a_run_killed_while_growing_ends_in_the_bytes_of_an_unbroken_one(
    pictures: Path, where: str, count: int
) -> None:
    run(pictures)
    for label in ("ant", "cat", "dog"):
        store(pictures / "pictures" / label / "new.jpg", picture(len(label) + 80))
    if where == "rename":  # what lies there under the name of this run is replaced
        run(pictures, snapshot="2")
        os.utime(pictures / "pictures" / "ant" / "new.jpg", (LONG_AGO, LONG_AGO + 1))
    shutil.copytree(pictures / "cache", pictures / "spare", copy_function=os.link)
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_AT, params(snapshot="2").model_dump_json(), str(pictures), where, str(count)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False, capture_output=True,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    after = digests(run(pictures, snapshot="2"))
    unbroken = digests(run(pictures, cache="spare", snapshot="2"))
    assert after == unbroken
    assert set(after) >= {"images-00000.tar", "images-00001.tar"}
    assert sorted(path.name for path in (pictures / "cache/snapshots").iterdir()) == ["1", "2"]


def lock(root: Path, out: Path, settings: IngestParams) -> None:
    """dvc.lock and DVC's cache as they are after `dvc repro` of a run that wrote `out`."""
    objects = root / ".dvc/cache/files/md5"
    listed = []
    for path in sorted(out.iterdir()):
        digest = hashlib.md5(path.read_bytes()).hexdigest()
        put(objects / digest[:2] / digest[2:], path.read_bytes())
        listed.append({"md5": digest, "relpath": path.name})
    put(objects / "ab" / "cdef.dir", json.dumps(listed).encode())
    stage = {
        "params": {"data/params.yaml": {"ingest": settings.model_dump(mode="json")}},
        "outs": [{"path": "data/ingest", "md5": "abcdef.dir"}],
    }
    put(root / "dvc.lock", json.dumps({"stages": {"ingest": stage}}).encode())  # JSON is YAML


@pytest.mark.parametrize("change", ["none", "new", "gone", "other bytes", "no cache of DVC", "another name"])
def test_without_the_cache_dvc_lock_says_what_a_name_holds(pictures: Path, change: str) -> None:
    """Deleting .miwake, or cloning, changes no answer as long as DVC has the old pictures."""
    lock(pictures, run(pictures), params())
    shutil.rmtree(pictures / "cache")
    if change in ("new", "no cache of DVC", "another name"):
        store(pictures / "pictures" / "cat" / "new.jpg", picture(31))
    elif change == "gone":
        (pictures / "pictures" / "dog" / "5.jpg").unlink()
    elif change == "other bytes":
        store(pictures / "pictures" / "cat" / "1.jpg", picture(30))
    if change == "no cache of DVC":
        shutil.rmtree(pictures / ".dvc")
    said = {
        "new": "1 file is new (cat/new.jpg)", "gone": "1 is gone (dog/5.jpg)", "other bytes": "1 changed (cat/1.jpg)",
    }.get(change)  # fmt: skip
    settings = params(snapshot="2") if change == "another name" else params()
    if said is None:
        run(pictures, settings=settings)
        return
    with pytest.raises(InputError) as caught:
        run(pictures, settings=settings)
    assert f"the sources hold others: {said}. To read them" in str(caught.value)
    # limits that refuse a file do not make it another one
    if change == "gone":
        run(pictures, min_side=9)

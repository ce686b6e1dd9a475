"""The archive source: every member becomes a row or a reject, whatever packed it, and nothing leaves the archive."""

import bz2
import csv
import functools
import gzip
import io
import json
import lzma
import os
import re
import shutil
import stat
import struct
import subprocess
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from test_ingest import SHARED, Result, params, picture, put, run

from pipelines.core.errors import ImageError, InputError
from pipelines.core.executor import map_chunks
from pipelines.core.params.ingest import IngestParams
from pipelines.core.params.sources import ArchiveSource
from pipelines.ingest import plan as ingest_plan
from pipelines.ingest import run as ingest_run
from pipelines.ingest.archive import list_archive, tars
from pipelines.ingest.listing import Listing, Place
from pipelines.ingest.paths import inner_path

FILES = {
    "pets/cat/0.jpg": picture(0),
    "pets/cat/1.jpg": picture(1),
    "pets/dog/2.jpg": picture(2),
    "pets/dog/old/3.jpg": picture(3),
}


def settings(path: str, **changes: Any) -> IngestParams:
    source = {
        "kind": "archive", "path": path, "label_from": "last_folder", "hidden": "skip", "max_files": 1000,
        "max_bytes": 1 << 24,
    }  # fmt: skip
    source |= {key: changes.pop(key) for key in list(changes) if key in source}
    return params(sources=[source], **changes)


def listing(root: Path, own: IngestParams) -> Listing:
    entry = own.sources[0]
    assert isinstance(entry, ArchiveSource)
    return list_archive(entry, source="0-archive", place=Place(root, root / "cache", own))


def tar_bytes(files: dict[str, bytes], format: int = tarfile.PAX_FORMAT, **kwargs: Any) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format, **kwargs) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def zip_bytes(files: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return buffer.getvalue()


def zstd(data: bytes) -> bytes:
    compressed: bytes = pa.compress(data, "zstd", asbytes=True)
    return compressed


KINDS: dict[str, Callable[[], bytes]] = {
    "stored.zip": lambda: zip_bytes(FILES),
    "deflate.zip": lambda: zip_bytes(FILES, zipfile.ZIP_DEFLATED),
    "bzip2.zip": lambda: zip_bytes(FILES, zipfile.ZIP_BZIP2),
    "lzma.zip": lambda: zip_bytes(FILES, zipfile.ZIP_LZMA),
    "program.zip": lambda: b"#!/bin/sh\nexit\n" + zip_bytes(FILES),
    "ustar.tar": lambda: tar_bytes(FILES, tarfile.USTAR_FORMAT),
    "gnu.tar": lambda: tar_bytes(FILES, tarfile.GNU_FORMAT),
    "pax.tar": lambda: tar_bytes(FILES, pax_headers={"comment": "a header that stands for all members"}),
    "tar.gz": lambda: gzip.compress(tar_bytes(FILES)),
    "tar.gz in two parts": lambda: gzip.compress(tar_bytes(FILES)[:999]) + gzip.compress(tar_bytes(FILES)[999:]),
    "tar.bz2": lambda: bz2.compress(tar_bytes(FILES)),
    "tar.xz": lambda: lzma.compress(tar_bytes(FILES)),
    "tar.zst": lambda: zstd(tar_bytes(FILES)),
}


@pytest.fixture
def folder_bytes(tmp_path: Path) -> dict[str, str]:
    for name, data in FILES.items():
        put(tmp_path / "pictures" / name, data)
    return without_manifest(run(tmp_path, out="folder"))


def without_manifest(result: Result) -> dict[str, str]:
    return {name: digest for name, digest in result.bytes.items() if name != "manifest.parquet"}


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
    monkeypatch.setattr(ingest_plan, "FILES_PER_CHUNK", 1)
    monkeypatch.setattr(ingest_run, "map_chunks", functools.partial(map_chunks, pool_pays_seconds=0.0))
    assert run(tmp_path, settings("a"), out="two", workers=2).bytes == whole.bytes


def test_the_reader_is_small_however_many_members_there_are(tmp_path: Path) -> None:
    import pickle

    put(tmp_path / "a.tar", tar_bytes({f"cat/{number}.jpg": b"x" for number in range(900)}))
    found = listing(tmp_path, settings("a.tar"))
    assert len(found.paths) == 900
    assert len(pickle.dumps(found.read)) < 500
    assert found.read("cat/899.jpg") == b"x"


# names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["/etc/cat.jpg", "../cat.jpg", "cat/../../x.jpg", "C:/cat/x.jpg", "c:x.jpg", "cat\\x.jpg", "..\\x.jpg", "a/..", ".",
     "//", "a\0b"],
)  # fmt: skip
def test_a_path_that_may_lead_out_is_refused(name: str) -> None:
    with pytest.raises(ImageError, match="unsafe-path"):
        inner_path(name)


@pytest.mark.parametrize(
    ("name", "plain"),
    [("./a//b.jpg", "a/b.jpg"), ("a/b...c", "a/b...c"), ("a/..b/c", "a/..b/c"),
     (".a/b", ".a/b"), ("a b/ü.jpg", "a b/ü.jpg"), ("ab:c/d", "ab:c/d")],
)  # fmt: skip
def test_a_path_has_one_form(name: str, plain: str) -> None:
    assert inner_path(name) == plain


@pytest.mark.parametrize("pack", [zip_bytes, tar_bytes])
def test_no_member_leaves_the_archive(tmp_path: Path, pack: Callable[[dict[str, bytes]], bytes]) -> None:
    put(tmp_path / "cat/secret.jpg", picture(9))
    names = ["../cat/secret.jpg", "/cat/secret.jpg", "cat/../../secret.jpg", "C:/cat/x.jpg", "cat\\x.jpg"]
    put(tmp_path / "a", pack({**dict.fromkeys(names, picture(1)), "cat/0.jpg": picture(0)}))
    result = run(tmp_path, settings("a"))
    assert [row["source_path"] for row in result.rows] == ["cat/0.jpg"]
    assert result.reasons == dict.fromkeys(names, "unsafe-path")


def test_links_and_devices_in_a_tar_are_rejects(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo("cat/0.jpg")
        info.size = len(picture(0))
        tar.addfile(info, io.BytesIO(picture(0)))
        kinds = {
            "sym": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE, "tty": tarfile.CHRTYPE, "sda": tarfile.BLKTYPE,
            "fifo": tarfile.FIFOTYPE, "folder": tarfile.DIRTYPE,
        }  # fmt: skip
        for name, kind in kinds.items():
            info = tarfile.TarInfo(f"cat/{name}")
            info.type, info.linkname = kind, "/etc/passwd" if name == "sym" else "cat/0.jpg"
            tar.addfile(info)
    put(tmp_path / "a.tar", buffer.getvalue())
    result = run(tmp_path, settings("a.tar"))
    assert result.reasons == {
        "cat/sym": "symlink", "cat/hard": "hard-link", "cat/tty": "not-a-file", "cat/sda": "not-a-file",
        "cat/fifo": "not-a-file",
    }  # fmt: skip
    assert {row["label"] for row in result.rejects} == {"cat"}


def test_a_sparse_file_in_a_tar_is_a_reject(tmp_path: Path) -> None:
    if not shutil.which("tar"):
        pytest.skip("there is no tar command to pack a sparse file with")
    put(tmp_path / "cat/0.jpg", picture(0))
    with (tmp_path / "cat/holes").open("wb") as file:
        file.truncate(1 << 20)
        file.seek(1 << 19)
        file.write(b"not a hole")
    for format in ("gnu", "posix"):
        pack = ["tar", "-C", str(tmp_path), "--sparse", f"--format={format}", "-cf", str(tmp_path / "a.tar"), "cat"]
        if subprocess.run(pack, capture_output=True).returncode:
            pytest.skip("this tar command packs no sparse files")
        result = run(tmp_path, settings("a.tar"), out=format)
        assert len(result.rows) == 1
        assert result.reasons == {"cat/holes": "sparse-file"}


def test_links_in_a_zip_are_rejects_and_its_folders_are_none(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("cat/", b"")
        archive.writestr("cat/0.jpg", picture(0))
        for name, mode in {"link": stat.S_IFLNK, "fifo": stat.S_IFIFO}.items():
            info = zipfile.ZipInfo(f"cat/{name}")
            info.external_attr = (mode | 0o777) << 16
            archive.writestr(info, "/etc/passwd")
    put(tmp_path / "a.zip", buffer.getvalue())
    assert run(tmp_path, settings("a.zip")).reasons == {"cat/link": "symlink", "cat/fifo": "not-a-file"}


@pytest.mark.parametrize("pack", [zip_bytes, tar_bytes])
def test_litter_is_hidden_unless_it_is_asked_for(tmp_path: Path, pack: Callable[[dict[str, bytes]], bytes]) -> None:
    litter = {
        "__MACOSX/cat/._0.jpg": b"Mac OS X", "cat/._0.jpg": b"Mac OS X", "cat/.DS_Store": b"Bud1",
        ".git/cat/1.jpg": picture(1), "cat/.tmp/2.jpg": picture(2),
    }  # fmt: skip
    put(tmp_path / "a", pack({"cat/0.jpg": picture(0), **litter}))
    skipped = run(tmp_path, settings("a"))
    assert skipped.reasons == dict.fromkeys(litter, "hidden")
    assert {row["source_path"]: row["label"] for row in skipped.rejects}["cat/.DS_Store"] == "cat"
    read = run(tmp_path, settings("a", hidden="read"), out="read")
    assert Counter(read.reasons.values()) == {"not-an-image": 3}
    assert len(read.rows) == 3


def zip_with_raw_name(name: bytes, *, flags: int, extra: bytes = b"") -> bytes:
    """A zip whose only member has this very name."""
    placeholder = "N" * len(name)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        info = zipfile.ZipInfo(placeholder)
        info.extra = extra
        archive.writestr(info, picture(0))
    data = bytearray(buffer.getvalue().replace(placeholder.encode(), name))
    for signature, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        struct.pack_into("<H", data, data.index(signature) + place, flags)
    return bytes(data)


@pytest.mark.parametrize(
    ("name", "flags", "extra", "label"),
    [
        ("猫/0.jpg".encode(), 0x800, b"", "猫"),  # as the standard asks
        ("猫/0.jpg".encode(), 0, b"", "猫"),  # as macOS packs it
        ("Königskatze/0.jpg".encode("cp437"), 0, b"", "Königskatze"),  # as DOS and Windows pack it
        (b"?/0.jpg\x81", 0, None, "猫"),  # as Info-ZIP packs it
    ],
)
def test_names_in_a_zip_are_read_whoever_packed_it(
    tmp_path: Path, name: bytes, flags: int, extra: bytes | None, label: str
) -> None:
    if extra is None:
        field = b"\x01" + struct.pack("<I", zlib.crc32(name)) + "猫/0.jpg".encode()
        extra = struct.pack("<HH", 0x7075, len(field)) + field
    put(tmp_path / "a.zip", zip_with_raw_name(name, flags=flags, extra=extra))
    result = run(tmp_path, settings("a.zip"))
    assert result.labels == [label]
    assert result.rows[0]["source_path"] == f"{label}/0.jpg"


def test_a_latin_1_name_in_a_tar_loses_no_file(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT, encoding="latin-1") as tar:
        for name in ("cat/größe.jpg", "größe/0.jpg"):
            info = tarfile.TarInfo(name)
            info.size = len(picture(0))
            tar.addfile(info, io.BytesIO(picture(0)))
    put(tmp_path / "a.tar", buffer.getvalue())
    result = run(tmp_path, settings("a.tar"))
    assert [row["source_path"] for row in result.rows] == ["cat/gr\\xf6\\xdfe.jpg"]
    assert result.reasons == {"gr\\xf6\\xdfe/0.jpg": "bad-label"}


def test_long_and_unusual_names_are_kept(tmp_path: Path) -> None:
    names = ["c/" + "n" * 150 + ".jpg", "c/" + "d" * 90 + "/" + "n" * 90 + ".jpg", "c/日本 語.jpg", "c/a\nb.jpg"]
    for format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        put(tmp_path / "a.tar", tar_bytes({name: picture(0) for name in names}, format))
        result = run(tmp_path, settings("a.tar", label_from="first_folder"))
        assert {row["source_path"] for row in result.rows} == set(names)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("pack", ["zip", "tar"])
def test_of_two_members_with_one_name_the_last_counts_and_the_other_is_a_reject(tmp_path: Path, pack: str) -> None:
    buffer = io.BytesIO()
    if pack == "zip":
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("cat/0.jpg", picture(1))
            archive.writestr("./cat//0.jpg", picture(2))
    else:
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for name, data in (("cat/0.jpg", picture(1)), ("./cat//0.jpg", picture(2))):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    put(tmp_path / "a", buffer.getvalue())
    own = settings("a")
    assert listing(tmp_path, own).read("cat/0.jpg") == picture(2)
    result = run(tmp_path, own)
    assert result.reasons == {"cat/0.jpg": "duplicate-name"}
    assert "has the same name and replaces it" in result.rejects[0]["detail"]


# broken, bombs, limits -------------------------------------------------------------------------


def test_encrypted_members_and_unknown_compression_are_rejects(tmp_path: Path) -> None:
    data = bytearray(zip_bytes({"cat/0.jpg": picture(0), "cat/1.jpg": picture(1), "cat/2.jpg": picture(2)}))
    first = data.index(b"PK\x01\x02")
    second = data.index(b"PK\x01\x02", first + 1)
    struct.pack_into("<H", data, first + 8, 0x1)
    struct.pack_into("<H", data, second + 10, 9)
    put(tmp_path / "a.zip", bytes(data))
    result = run(tmp_path, settings("a.zip"))
    assert result.reasons == {"cat/0.jpg": "encrypted", "cat/1.jpg": "unsupported-compression"}
    assert "needs a password" in result.rejects[0]["detail"]
    assert "zip's method 9; pack it stored, or with deflate" in result.rejects[1]["detail"]


def flip(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :]


def test_a_damaged_member_is_a_reject_and_the_others_are_read(tmp_path: Path) -> None:
    files = {f"cat/{number}.jpg": picture(number) for number in range(5)}
    stored = zip_bytes(files)
    damaged = flip(stored, stored.index(picture(1)) + 300)
    put(tmp_path / "stored.zip", damaged)
    assert run(tmp_path, settings("stored.zip")).reasons == {"cat/1.jpg": "bad-crc"}
    packed = zip_bytes(files, zipfile.ZIP_DEFLATED)
    start = packed.index(b"cat/1.jpg") + len("cat/1.jpg")
    put(tmp_path / "packed.zip", flip(packed, start))
    assert list(run(tmp_path, settings("packed.zip")).reasons) == ["cat/1.jpg"]
    put(tmp_path / "header.zip", flip(stored, stored.index(b"PK\x03\x04", 99)))
    result = run(tmp_path, settings("header.zip"))
    assert result.reasons == {"cat/1.jpg": "unreadable"}
    assert "no member starts at byte" in result.rejects[0]["detail"]


def forge_size(data: bytes, size: int) -> bytes:
    """A zip of one member whose directory gives it another unpacked size."""
    forged = bytearray(data)
    struct.pack_into("<I", forged, forged.index(b"PK\x01\x02") + 24, size)
    return bytes(forged)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@pytest.mark.parametrize("size", [10, 60_000_000])
def test_a_member_never_unpacks_to_more_than_its_header_says(tmp_path: Path, method: int, size: int) -> None:
    put(tmp_path / "bomb.zip", forge_size(zip_bytes({"cat/0.jpg": bytes(50_000_000)}, method), size))
    with pytest.raises(InputError, match="none of its 1 files can be used"):
        run(tmp_path, settings("bomb.zip", max_file_bytes=1 << 28, max_bytes=1 << 30))
    found = listing(tmp_path, settings("bomb.zip", max_file_bytes=1 << 28, max_bytes=1 << 30))
    if found.paths:
        with pytest.raises(ImageError, match=r"wrong-size: unpacks to (more|50000000) bytes, where the archive says"):
            found.read("cat/0.jpg")
    else:
        assert found.rejects[0].reason == "wrong-size"


def test_members_that_share_bytes_are_rejects(tmp_path: Path) -> None:
    """The bomb that sells one stream many times (Fifield 2019): here two names for one place."""
    data = zip_bytes({"cat/0.jpg": picture(0), "cat/1.jpg": picture(1), "cat/2.jpg": picture(2)})
    forged = bytearray(data)
    second = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 1)
    struct.pack_into("<I", forged, second + 42, 0)
    put(tmp_path / "a.zip", bytes(forged))
    result = run(tmp_path, settings("a.zip"))
    assert result.reasons == {"cat/0.jpg": "overlapping", "cat/1.jpg": "overlapping"}


@pytest.mark.parametrize("kind", ["stored.zip", "gnu.tar", "tar.gz"])
def test_more_files_or_bytes_than_allowed_are_refused(tmp_path: Path, kind: str) -> None:
    put(tmp_path / "a", KINDS[kind]())
    with pytest.raises(InputError, match=r"sources\[0\].path: a holds more files than max_files: 3; raise it"):
        run(tmp_path, settings("a", max_files=3))
    assert len(run(tmp_path, settings("a", max_files=4)).rows) == 4
    with pytest.raises(InputError, match="a unpacks to more than max_bytes: 1000"):
        run(tmp_path, settings("a", max_bytes=1000))


def test_a_bomb_of_zeros_is_stopped_while_it_is_unpacked(tmp_path: Path) -> None:
    bomb = tar_bytes({"cat/0.jpg": picture(0), "cat/zeros": bytes(40 << 20)})
    put(tmp_path / "a.tar.gz", gzip.compress(bomb))
    with pytest.raises(InputError, match=r"max_bytes: 4194304 \(with the headers of the tar\)"):
        run(tmp_path, settings("a.tar.gz", max_bytes=4 << 20))
    assert not list((tmp_path / "cache/archives").iterdir())


def test_a_member_larger_than_a_file_may_be_is_a_reject(tmp_path: Path) -> None:
    put(tmp_path / "a.zip", zip_bytes({"cat/0.jpg": picture(0), "cat/big.jpg": bytes(9000)}, zipfile.ZIP_DEFLATED))
    result = run(tmp_path, settings("a.zip", max_file_bytes=8000))
    assert [(row["reason"], row["detail"]) for row in result.rejects] == [
        ("too-large", "9000 bytes; ingest.max_file_bytes is 8000")
    ]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("tar.gz in two parts", "program.zip")])
@pytest.mark.parametrize("part", [0.3, 0.9, 0.97])
def test_an_archive_that_is_cut_short_is_refused(tmp_path: Path, kind: str, part: float) -> None:
    data = KINDS[kind]()
    if ".tar" in kind:
        data = data[: data.rindex(picture(3)) + len(picture(3))]  # without its end, which is nothing but zeros
    put(tmp_path / "a", data[: int(len(data) * part)])
    with pytest.raises(InputError, match=r"sources\[0\].path: a .*(cut short|broken)"):
        run(tmp_path, settings("a"))
    assert not list((tmp_path / "cache").rglob("*.partial"))


def test_a_tar_without_its_end_mark_says_so(tmp_path: Path) -> None:
    data = tar_bytes({"cat/0.jpg": picture(0)})
    end = data.rindex(picture(0)) + -(-len(picture(0)) // 512) * 512
    put(tmp_path / "a.tar", data[:end])
    result = run(tmp_path, settings("a.tar"))
    assert len(result.rows) == 1
    assert result.reasons == {f"byte {end}": "no-end"}


def test_tars_one_after_the_other_are_read_and_what_follows_is_a_reject(tmp_path: Path) -> None:
    first, second = tar_bytes({"cat/0.jpg": picture(0)}), tar_bytes({"dog/1.jpg": picture(1)})
    put(tmp_path / "a.tar", first + second)
    assert run(tmp_path, settings("a.tar")).labels == ["cat", "dog"]
    put(tmp_path / "a.tar", first + second + b"what is this")
    result = run(tmp_path, settings("a.tar"))
    assert result.labels == ["cat", "dog"]
    assert result.reasons == {f"byte {len(first + second)}": "trailing-data"}


def test_a_broken_header_within_a_tar_is_an_error_not_an_end(tmp_path: Path) -> None:
    data = tar_bytes({"cat/0.jpg": picture(0), "cat/1.jpg": picture(1)})
    put(tmp_path / "a.tar", flip(data, data.index(b"cat/1.jpg")))
    with pytest.raises(InputError, match="a.tar is a broken tar .no header at about byte 2560"):
        run(tmp_path, settings("a.tar"))


def hostile_tars() -> Iterator[tuple[str, bytes]]:
    def block(name: bytes, size: bytes, kind: bytes = b"0") -> bytes:
        head = bytearray(name.ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2 + size + b"00000000000\0" + b" " * 8)
        head += kind + b"\0" * 100 + b"ustar\x0000" + bytes(247)
        head[148:156] = b"%06o\0 " % sum(head)
        return bytes(head)

    yield "a size below zero", block(b"cat/0.jpg", b"\xff" * 11 + b"\0") * 4 + bytes(1024)
    yield "a size beyond all", block(b"cat/0.jpg", b"77777777777\0") + bytes(1024)
    yield "a name of gigabytes", block(b"././@LongLink", b"17777777777\0", b"L") + bytes(4096)
    yield "names without end", block(b"././@LongLink", b"00000000001\0", b"L").ljust(1024, b"x") * 3000
    yield "a pax record of nonsense", block(b"pax", b"00000000020\0", b"x") + b"99 path=\n".ljust(512, b"\0")


HOSTILE = dict(hostile_tars())


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_tar_is_refused_at_once(tmp_path: Path, what: str) -> None:
    put(tmp_path / "a.tar", HOSTILE[what])
    with pytest.raises(InputError, match=r"a\.tar (is a broken tar|is cut short|holds no file|is no archive)"):
        run(tmp_path, settings("a.tar"))


def test_a_long_header_is_never_held(tmp_path: Path) -> None:
    assert tars._MAX_HEADER_BYTES <= 1 << 20
    put(tmp_path / "a.tar", tar_bytes({"cat/" + "n" * (2 << 20): b""}))
    with pytest.raises(InputError, match="a.tar is a broken tar .*a header says that it has"):
        run(tmp_path, settings("a.tar"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "a is empty; get the archive again"),
        (b"no archive at all" * 99, "a is no archive; name a zip or a tar"),
        (b"7z\xbc\xaf\x27\x1c" + bytes(99), "a is a 7z archive; name a zip or a tar"),
        (b"Rar!\x1a\x07" + bytes(99), "a is a RAR archive"),
        (gzip.compress(b"a note" * 99), "a is gzip, but what it holds is no tar"),
        (zip_bytes({}), "a holds no file; put a folder of pictures"),
        (tar_bytes({}), "a holds no file; put a folder of pictures"),
        (gzip.compress(tar_bytes({})), "a holds no file; put a folder of pictures"),
    ],
    ids=["empty", "text", "7z", "rar", "packed text", "empty zip", "empty tar", "empty packed tar"],
)
def test_what_is_no_archive_of_files_is_refused_with_a_remedy(tmp_path: Path, data: bytes, message: str) -> None:
    put(tmp_path / "a", data)
    with pytest.raises(InputError, match=message):
        run(tmp_path, settings("a"))


def test_a_missing_archive_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"sources\[0\].path: a.zip does not exist; correct it"):
        run(tmp_path, settings("a.zip"))
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="folder is a folder; name the archive, or use kind: folder"):
        run(tmp_path, settings("folder"))


def test_an_archive_that_ingest_would_delete_is_refused(tmp_path: Path) -> None:
    archive = put(tmp_path / "out/a.zip", zip_bytes(FILES))
    with pytest.raises(InputError, match=r"sources\[0\].path: out/a.zip lies in .*out, which ingest empties"):
        run(tmp_path, settings("out/a.zip"))
    assert archive.is_file()


def test_an_archive_inside_an_archive_is_no_image(tmp_path: Path) -> None:
    put(tmp_path / "a.zip", zip_bytes({"cat/0.jpg": picture(0), "cat/inner.zip": KINDS["stored.zip"]()}))
    assert run(tmp_path, settings("a.zip")).reasons == {"cat/inner.zip": "not-an-image"}


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
    assert run(tmp_path, settings("a.tar.gz")).labels == ["dog"]
    assert len(list((tmp_path / "cache/archives").glob("*.tar"))) == 1
    for file in (tmp_path / "cache/archives").iterdir():
        file.unlink()
    assert run(tmp_path, settings("a.tar.gz")).labels == ["dog"]


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


def comparable(result: Result) -> tuple[list[dict[str, Any]], list[tuple[str, ...]]]:
    """Rows without where they came from; rejects without their names."""
    source = {"source", "source_path", "url", "page_url", "query", "license", "creator", "given_subset", "factors"}
    rows = [{key: value for key, value in row.items() if key not in source} for row in result.rows]
    return rows, sorted((row["label"], row["reason"]) for row in result.rejects)


def files_of(folder: Path, *, keep: str) -> list[str]:
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.relative_to(folder).as_posix().startswith(keep) and not path.name.startswith(".")
    )


@pytest.mark.parametrize(
    ("archive", "inside", "rows"),
    [("clothing.tar", r"clothing/(s|hat)", 259), ("guitars.tar", r"guitars/gibson_.[a-z]", 1002),
     ("stress.tar.gz", r"stress/(pillow|exif|stb)", 680), ("cifar10.tar.gz", r"cifar10/test/.*[05]0\.jpg", 200)],
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
    assert given.artifact.num_files == 1262

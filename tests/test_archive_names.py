"""Names of members: none leads out of the archive, and none is lost, whoever packed it."""

import io
import shutil
import stat
import struct
import subprocess
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from archives import listing, settings, tar_bytes, zip_bytes
from test_ingest import picture, put, run

from pipelines.core.errors import ImageError
from pipelines.ingest.paths import inner_path


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
def test_hidden_members_are_read_when_asked_for_and_litter_never(
    tmp_path: Path, pack: Callable[[dict[str, bytes]], bytes]
) -> None:
    litter = {"__MACOSX/cat/._0.jpg": b"Mac OS X", "cat/._0.jpg": b"Mac OS X", "a/@eaDir/0.jpg/THUMB.jpg": picture(4)}
    hidden = {".old/cat/1.jpg": picture(1), "cat/.tmp/2.jpg": picture(2), "cat/.3.jpg": picture(3)}
    put(tmp_path / "a", pack({"cat/0.jpg": picture(0), **hidden, **litter}))
    skipped = run(tmp_path, settings("a"))
    assert skipped.reasons == dict.fromkeys(hidden, "hidden")
    assert {row["source_path"]: row["label"] for row in skipped.rejects}["cat/.3.jpg"] == "cat"
    assert str(skipped.artifact) == "1 of 4 files accepted (3 rejected), 1 class, 1 shard, 3 litter files skipped"
    read = run(tmp_path, settings("a", hidden="read").model_copy(update={"snapshot": "2"}), out="read")
    assert not read.rejects
    assert len(read.rows) == 4


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


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_empty_class_folder_in_an_archive_is_a_reject_of_its_class(tmp_path: Path, kind: str) -> None:
    """Under each rule for labels; a folder between class folders, one in a class's folder and a hidden one are none."""
    files = {"pets/cat/0.jpg": picture(0), "pets/dog/": b"", "pets/": b"", "pets/cat/old/": b"", "pets/.x/": b""}
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, data in files.items():
                archive.writestr(name, data)
    else:
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for name, data in files.items():
                info = tarfile.TarInfo(name.rstrip("/"))
                info.type, info.size = (tarfile.DIRTYPE, 0) if name.endswith("/") else (tarfile.REGTYPE, len(data))
                tar.addfile(info, io.BytesIO(data))
    put(tmp_path / "a.bin", buffer.getvalue())
    found = listing(tmp_path, settings("a.bin", max_files=1))
    assert [(one.source_path, one.label, one.reason) for one in found.rejects] == [("pets/dog", "dog", "empty-folder")]
    assert listing(tmp_path, settings("a.bin", label_from="first_folder")).rejects == []
    (whole,) = listing(tmp_path, settings("a.bin", label_from="whole_path")).rejects
    assert whole.label == "pets/dog"

"""Broken archives, bombs and limits: an error with a remedy or a counted reject, at once and in little memory."""

import gzip
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from archives import FILES, KINDS, listing, settings, tar_bytes, zip_bytes
from test_ingest import picture, put, run

from pipelines.core.errors import ImageError, InputError
from pipelines.ingest.archive import members


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
    assert members._MAX_HEADER_BYTES <= 1 << 20
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
    with pytest.raises(InputError, match=r"sources\[0\].path: out/a.zip lies in .*out, which the pipeline empties"):
        run(tmp_path, settings("out/a.zip"))
    assert archive.is_file()


def test_an_archive_inside_an_archive_is_no_image(tmp_path: Path) -> None:
    put(tmp_path / "a.zip", zip_bytes({"cat/0.jpg": picture(0), "cat/inner.zip": KINDS["stored.zip"]()}))
    assert run(tmp_path, settings("a.zip")).reasons == {"cat/inner.zip": "not-an-image"}

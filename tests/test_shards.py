"""Shards: what is written is what tarfile would write, and what is read is what was written."""

import hashlib
import tarfile
from pathlib import Path

import pytest

from pipelines.core.errors import InputError
from pipelines.images.shards import ShardReader, ShardWriter


def pack(folder: Path, label: str, contents: list[bytes], *, shard_bytes: int = 1 << 20) -> list[tuple[str, int, int]]:
    """Pack `contents` and give (shard, offset, size) of each, by ascending image id."""
    files = {hashlib.sha256(data).hexdigest(): data for data in contents}
    with ShardWriter(folder, shard_bytes) as writer:
        return [(*writer.add(f"{label}/{name}.jpg", files[name]), len(files[name])) for name in sorted(files)]


LABELS = ["cat", "日本 の猫", "a b#c", "😀", "a/b/c", "x" * 31, "x" * 32, "x" * 255, "é" * 120, "a/" + "猫" * 80]


@pytest.mark.parametrize("label", LABELS)
def test_tarfile_and_the_reader_give_the_bytes_back(tmp_path: Path, label: str) -> None:
    contents = [b"", b"one", b"x" * 512, b"y" * 513]
    places = pack(tmp_path, label, contents)
    with tarfile.open(tmp_path / "images-00000.tar") as tar:
        members = tar.getmembers()
        for member in members:
            data = tar.extractfile(member).read()  # type: ignore[union-attr]
            assert member.name == f"{label}/{hashlib.sha256(data).hexdigest()}.jpg"
            assert (member.mtime, member.uid, member.gid, member.uname) == (0, 0, 0, "")
    assert len(members) == 4
    with ShardReader(tmp_path) as reader:
        assert sorted(reader.read(*place) for place in places) == sorted(contents)


def test_a_shard_is_closed_before_it_would_grow_too_large(tmp_path: Path) -> None:
    places = pack(tmp_path, "cat", [bytes([n]) * 1000 for n in range(10)], shard_bytes=6144)
    sizes = [path.stat().st_size for path in sorted(tmp_path.glob("*.tar"))]
    # a file takes 512 + 1024 bytes, the end of a tar 1024: three files in 6144
    assert sizes == [5632, 5632, 5632, 2560]
    assert [shard for shard, _, _ in places] == [f"images-0000{n // 3}.tar" for n in range(10)]


def test_a_file_larger_than_a_shard_has_one_of_its_own(tmp_path: Path) -> None:
    pack(tmp_path, "cat", [b"a" * 10, b"b" * 9000, b"c" * 10], shard_bytes=2048)
    assert len(list(tmp_path.glob("*.tar"))) == 3


def test_nothing_half_written_stays(tmp_path: Path) -> None:
    def fail() -> None:
        with ShardWriter(tmp_path, 1 << 20) as writer:
            writer.add("cat/a.jpg", b"abc")
            raise OSError("on the way")

    with pytest.raises(OSError, match="on the way"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_missing_or_short_shard_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "images-00000.tar").write_bytes(b"abc")
    with ShardReader(tmp_path) as reader:
        assert reader.read("images-00000.tar", 1, 2) == b"bc"
        with pytest.raises(InputError, match="ends inside an image: run `dvc checkout --force`"):
            reader.read("images-00000.tar", 1, 3)
        with pytest.raises(InputError, match="is missing: run `dvc checkout`"):
            reader.read("images-00001.tar", 0, 1)

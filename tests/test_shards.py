"""Shards: what is written is what tarfile would write, and what is read is what was written."""

import hashlib
import tarfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from pipelines.core.errors import InputError
from pipelines.images.shards import ShardReader
from pipelines.ingest.blocks import BLOCK, Runs, num_blocks, padded, read_runs
from pipelines.ingest.packing import ShardWriter, tar_headers
from pipelines.ingest.spool import append, make_spool, spool_file, write


def pack(folder: Path, label: str, contents: list[bytes], *, shard_bytes: int = 1 << 20) -> list[tuple[str, int, int]]:
    """Pack `contents` and give (shard, offset, size) of each, by ascending image id."""
    files = {hashlib.sha256(data).digest(): data for data in contents}
    digests = sorted(files)
    sizes = np.array([len(files[digest]) for digest in digests])
    with ShardWriter(folder, shard_bytes) as writer:
        shards, offsets, _ = writer.pack(
            label, rows_of(digests), ["jpg"] * len(digests), sizes, runs_of([files[digest] for digest in digests])
        )
    return list(zip(shards, offsets.tolist(), sizes.tolist(), strict=True))


def rows_of(digests: list[bytes]) -> npt.NDArray[np.uint8]:
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)


def runs_of(files: list[bytes]) -> Runs:
    lengths = num_blocks(np.array(list(map(len, files))))
    blocks = np.frombuffer(b"".join(padded(files)), np.uint8).reshape(-1, BLOCK)
    starts = np.cumsum(lengths) - lengths
    return Runs([blocks], np.zeros(len(files), np.int64), starts, lengths)


def characters(ids: list[str]) -> npt.NDArray[np.uint8]:
    return np.array([list(image_id.encode()) for image_id in ids], np.uint8)


LABELS = ["cat", "日本 の猫", "a b#c", "😀", "a/b/c", "x" * 31, "x" * 32, "x" * 255, "é" * 120, "a/" + "猫" * 80]


@pytest.mark.parametrize("label", LABELS)
def test_a_header_is_byte_for_byte_what_tarfile_writes(label: str) -> None:
    ids = [hashlib.sha256(text).hexdigest() for text in (b"a", b"b", b"c")]
    sizes = [0, 1234567, (1 << 33) - 1]
    made = tar_headers(label, "png", characters(ids), np.array(sizes))
    for row, (image_id, size) in enumerate(zip(ids, sizes, strict=True)):
        info = tarfile.TarInfo(f"{label}/{image_id}.png")
        info.size = size
        assert made[row].tobytes() == info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")


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
    gone = Runs([tmp_path / "gone.bin"], *np.array([[0, 0], [0, 1], [1, 1]]))
    with pytest.raises(FileNotFoundError, match=r"gone\.bin"), ShardWriter(tmp_path, 1 << 20) as writer:
        writer.pack("cat", rows_of([bytes(32), b"1" * 32]), ["jpg", "jpg"], np.array([3, 3]), gone)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("longer", [0, 100_000])
def test_files_in_memory_and_on_disk_under_two_suffixes_are_packed_in_order(tmp_path: Path, longer: int) -> None:
    random = np.random.default_rng(longer)
    files = [random.bytes(longer + 700), random.bytes(longer - longer % 512 + 512), random.bytes(longer + 3)]
    held = np.frombuffer(b"".join(padded([files[2], files[0]])), np.uint8).reshape(-1, BLOCK)
    spool = spool_file(make_spool(tmp_path / "spool"), 0)
    write(spool, padded([files[1]]))
    append(spool, [b"what else is known"])  # ends inside a block
    lengths = num_blocks(np.array([*map(len, files)]))
    runs = Runs([held, spool], *np.array([[0, 1, 0], [lengths[2], 0, 0], lengths]))
    digests = [bytes([number]) * 32 for number in range(3)]
    with ShardWriter(tmp_path, 1 << 20) as writer:
        writer.pack("é", rows_of(digests), ["jpg", "png", "jpg"], np.array([*map(len, files)]), runs)
    with tarfile.open(tmp_path / "images-00000.tar") as tar:
        found = [(member.name, tar.extractfile(member).read()) for member in tar]  # type: ignore[union-attr]
    suffixes = ["jpg", "png", "jpg"]
    names = [f"é/{digest.hex()}.{suffix}" for digest, suffix in zip(digests, suffixes, strict=True)]
    assert found == list(zip(names, files, strict=True))


def test_an_empty_file_takes_no_block() -> None:
    assert b"".join(padded([b"", b"x", b"y" * 512])) == b"x" + bytes(511) + b"y" * 512
    assert num_blocks(np.array([0, 1, 512, 513])).tolist() == [0, 1, 1, 2]
    empty = Runs([], *np.zeros((3, 0), np.int64))
    assert read_runs(empty).shape == (0, BLOCK)


def test_a_missing_or_short_shard_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "images-00000.tar").write_bytes(b"abc")
    with ShardReader(tmp_path) as reader:
        assert reader.read("images-00000.tar", 1, 2) == b"bc"
        with pytest.raises(InputError, match="ends inside an image: run `dvc checkout --force`"):
            reader.read("images-00000.tar", 1, 3)
        with pytest.raises(InputError, match="is missing: run `dvc checkout`"):
            reader.read("images-00001.tar", 0, 1)

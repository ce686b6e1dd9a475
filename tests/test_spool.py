"""The files in which ingest keeps what waits: each byte as it was written, whoever had the file before."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from pipelines.ingest.spool import append, make_spool, release, remove_spool, spool_file, write


@pytest.mark.parametrize("size", [0, 3, 5000, 9000])
def test_a_file_that_is_released_is_written_over(tmp_path: Path, size: int) -> None:
    spool = make_spool(tmp_path / "spool")
    first, second = spool_file(spool, 1), spool_file(spool, 2)
    write(first, [b"a" * 5000])
    inode = first.stat().st_ino
    release(first)
    assert not first.exists()
    write(second, [b"b" * size])
    append(second, [b"", b"cd"])
    assert second.read_bytes() == b"b" * size + b"cd"
    assert second.stat().st_ino == inode


def test_a_file_that_is_needed_is_left_alone(tmp_path: Path) -> None:
    spool = make_spool(tmp_path / "spool")
    write(spool_file(spool, 1), [b"a"])
    write(spool_file(spool, 2), [b"b"])
    assert spool_file(spool, 1).read_bytes() + spool_file(spool, 2).read_bytes() == b"ab"
    remove_spool(spool)
    assert not spool.exists()


def test_another_may_be_first_to_take_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = make_spool(tmp_path / "spool")
    write(spool_file(spool, 1), [b"a"])
    release(spool_file(spool, 1))
    monkeypatch.setattr(os, "listdir", lambda _folder: ["0.bin", "1.bin"])  # 0.bin was there a moment ago
    write(spool_file(spool, 2), [b"b"])
    assert spool_file(spool, 2).read_bytes() == b"b"
    write(spool_file(spool, 3), [b"c"])  # nor is 1.bin now
    assert spool_file(spool, 3).read_bytes() == b"c"


def test_files_go_round_among_many_that_write(tmp_path: Path) -> None:
    spool = make_spool(tmp_path / "spool")

    def keep_one(number: int) -> bool:
        content = np.random.default_rng(number).bytes(2000 + number)
        write(spool_file(spool, number), [content[:number], content[number:]])
        same = spool_file(spool, number).read_bytes() == content
        release(spool_file(spool, number))
        return same

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(keep_one, range(400)))
    # one more now and then, where several looked for a free one at once
    assert len([path for path in spool.rglob("*") if path.is_file()]) < 100


def test_parts_are_written_whole_though_a_write_may_take_but_some_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writev = os.writev

    def half(file: int, parts: Sequence[memoryview]) -> int:
        return writev(file, [parts[0][: 1 + len(parts[0]) // 2]])

    monkeypatch.setattr(os, "writev", half)
    random = np.random.default_rng(1)
    path = spool_file(make_spool(tmp_path / "spool"), 0)
    expected = b""
    for number in (1, 3, 40):
        sizes = random.integers(0, 50, number)
        parts = [random.bytes(size) if size % 2 else random.integers(0, 9, (size, 3)).data for size in sizes]
        (append if expected else write)(path, parts)
        expected += b"".join(parts)
    assert path.read_bytes() == expected

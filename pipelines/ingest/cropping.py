"""Which part of a picture counts: what its source says of it, else what `ingest.crop` asks for."""

from pipelines.core.decisions import WHOLE, Crop
from pipelines.core.errors import ImageError
from pipelines.images.decoding import ImageSummary
from pipelines.ingest.listing import Box
from pipelines.params.ingest import CenterCrop, CropParams, FaceCrop


def check_crop(params: CropParams) -> None:
    """Refuse a crop that cannot be made here, before anything is read.

    Raises:
        InputError: the extra `face` is missing.
    """
    if isinstance(params, FaceCrop):
        from pipelines.ingest.faces import check_installed

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
    from pipelines.ingest.faces import find_faces

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

"""Which part of a picture counts: what its source says of it, else what `ingest.crop` asks for."""

from pipelines.core.crops import WHOLE, Crop
from pipelines.core.errors import ImageError
from pipelines.core.images import Sketch
from pipelines.core.params.ingest import CentreCrop, CropParams
from pipelines.ingest.listing import Box


def find_crop(params: CropParams, data: bytes, sketch: Sketch, box: Box | None, *, max_pixels: int) -> Crop:  # noqa: ARG001
    """The crop of one picture, as fractions.

    Args:
        params: `ingest.crop`.
        data: the file.
        sketch: what is known of it.
        box: the part that its source names.
        max_pixels: of ingest.

    Raises:
        ImageError: `bad-box`: the box is empty or leaves the picture.
    """
    if box is not None:
        return _of_box(box, sketch)
    if isinstance(params, CentreCrop):
        side = min(sketch.width, sketch.height)
        margin_x, margin_y = (1 - side / sketch.width) / 2, (1 - side / sketch.height) / 2
        return Crop(margin_x, margin_y, 1 - margin_x, 1 - margin_y)
    return WHOLE


def _of_box(box: Box, sketch: Sketch) -> Crop:
    width, height = (sketch.width, sketch.height) if box.in_pixels else (1, 1)
    crop = Crop(box.left / width, box.top / height, box.right / width, box.bottom / height)
    if not (0.0 <= crop.left < crop.right <= 1.0 and 0.0 <= crop.top < crop.bottom <= 1.0):
        raise ImageError(
            "bad-box",
            f"{box.left:g}, {box.top:g}, {box.right:g}, {box.bottom:g} "
            f"{'pixels' if box.in_pixels else 'of the sides'} is empty or leaves the picture of {sketch.width} x "
            f"{sketch.height}",
        )
    return crop

"""Pictures with the activation map of their most probable class laid over them, as files of a folder."""

import base64
import io
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from pipelines.core.files import write_bytes
from pipelines.use.classifier import Classifier
from pipelines.use.predict import Prediction

_SIDE = 448
"""pixels"""


def write_maps(classifier: Classifier, answers: Sequence[Prediction], folder: Path, *, first: int) -> None:
    """Write `<number>-<name>-<class>.jpg` for each answer with a picture.

    Args:
        first: number of the first of `answers`, in the order of all.
    """
    from pipelines.evaluate.maps import class_maps
    from pipelines.report.mistakes import map_uri

    numbered = [(first + i, one, one.pixels) for i, one in enumerate(answers) if one.pixels is not None]
    if not numbered:
        return
    member = classifier.explained
    # a member of a factor explains its own most probable value
    known = {name: k for k, name in enumerate(member.classes)}
    classes = [
        known.get(one.top[0][0], known.get(((one.factors or {}).get(member.target) or ("",))[0], 0))
        for _, one, _ in numbered
    ]
    found = class_maps(
        member, np.stack([pixels for _, _, pixels in numbered]), np.arange(len(numbered)), np.array(classes, np.int64)
    )
    for (number, one, pixels), activation, k in zip(numbered, found.maps, classes, strict=True):
        image = Image.fromarray(pixels).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC).convert("RGBA")
        overlay = Image.open(io.BytesIO(base64.b64decode(map_uri(activation).partition(",")[2])))
        image.alpha_composite(overlay.convert("RGBA").resize((_SIDE, _SIDE), Image.Resampling.BICUBIC))
        buffer = io.BytesIO()
        image.convert("RGB").save(buffer, "JPEG", quality=88)
        write_bytes(
            folder / f"{number:06d}-{_name(Path(one.path).stem)}-{_name(member.classes[k])}.jpg", buffer.getvalue()
        )


def _name(text: str) -> str:
    """Letters of any script, digits and dashes, at most 40."""
    return re.sub(r"[^\w-]+", "_", text.encode("utf-8", "replace").decode())[:40]

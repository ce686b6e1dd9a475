"""Serve a model that `miwake export onnx DIR` wrote; needs fastapi, uvicorn, onnxruntime, numpy and pillow, not miwake.

MODEL=DIR uvicorn serve:app --host 127.0.0.1 --port 8000
curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg' http://127.0.0.1:8000/predict
"""

import asyncio
import io
import json
import os
from pathlib import Path
from typing import Annotated

import numpy as np
import onnxruntime
from fastapi import FastAPI, HTTPException, Request
from PIL import Image, ImageOps, UnidentifiedImageError
from pydantic import BaseModel, Field

MAX_BYTES, MAX_PIXELS, MAX_SECONDS = 20_000_000, 50_000_000, 10.0
TYPES = ("image/jpeg", "image/png", "image/webp")
folder = Path(os.environ.get("MODEL", "."))
about = json.loads((folder / "model.json").read_text(encoding="utf-8"))
session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
Image.MAX_IMAGE_PIXELS = MAX_PIXELS
app = FastAPI(title="miwake model", version=about["run"])


class Guess(BaseModel):
    label: str
    probability: Annotated[float, Field(ge=0, le=1.0001)]


class Answer(BaseModel):
    """The most probable classes; `label` is null where the first is below the model's threshold."""

    label: str | None
    top: list[Guess]


class Health(BaseModel):
    status: str
    classes: int


class Problem(BaseModel):
    detail: str


@app.get("/health")
def health() -> Health:
    return Health(status="ok", classes=len(about["classes"]))


BODY = {"required": True, "content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in TYPES}}
PROBLEMS = {413: "too large", 415: "no JPEG, PNG or WebP", 422: "no picture that can be read", 504: "took too long"}


@app.post(
    "/predict",
    openapi_extra={"requestBody": BODY},
    responses={status: {"model": Problem, "description": text} for status, text in PROBLEMS.items()},
)
async def predict(request: Request) -> Answer:
    """Name the class of the picture in the body."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() not in TYPES:
        raise HTTPException(415, f"send {', '.join(TYPES)}")
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > MAX_BYTES:
            raise HTTPException(413, f"at most {MAX_BYTES:,} bytes")
    try:
        return await asyncio.wait_for(asyncio.to_thread(answer, bytes(data)), MAX_SECONDS)
    except TimeoutError:
        raise HTTPException(504, f"not done within {MAX_SECONDS:g} s") from None
    except Image.DecompressionBombError:
        raise HTTPException(413, f"at most {MAX_PIXELS:,} pixels") from None
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError):
        raise HTTPException(422, "the body is no picture that can be read") from None


def answer(data: bytes) -> Answer:
    side = about["image_size"]
    fits = {"center_crop": ImageOps.fit, "letterbox": lambda image, size: ImageOps.pad(image, size, color="#808080")}
    with Image.open(io.BytesIO(data), formats=["JPEG", "PNG", "WEBP"]) as opened:
        if opened.width * opened.height > MAX_PIXELS:
            raise Image.DecompressionBombError
        opened.draft("RGB", (2 * side, 2 * side))
        picture = ImageOps.exif_transpose(opened).convert("RGB")
    square = fits.get(about["resize_mode"], Image.Image.resize)(picture, (side, side))
    (found,) = session.run(None, {"pixels": np.asarray(square, np.uint8)[None]})
    order = found[0].argsort()[::-1][:3]
    top = [Guess(label=about["classes"][k], probability=float(found[0][k])) for k in order]
    return Answer(label=top[0].label if top[0].probability >= (about["threshold"] or 0) else None, top=top)

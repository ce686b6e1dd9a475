"""The model card, README.md of an exported model, in the form of the Hugging Face Hub; written without a network."""

from typing import TYPE_CHECKING, Any

from pipelines.core.errors import count
from pipelines.core.layout import Layout
from pipelines.use.model_folder import ModelInfo

if TYPE_CHECKING:
    from pipelines.use.export import Parity

ONNX = """```python
import json
import numpy as np, onnxruntime
from PIL import Image, ImageOps

model = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
about = json.load(open("model.json", encoding="utf-8"))
side = about["image_size"]
picture = {fit}
pixels = np.asarray(picture, np.uint8)[None]  # (N, {side}, {side}, 3)
(probabilities,) = model.run(None, {{"pixels": pixels}})
print(about["classes"][probabilities[0].argmax()], probabilities[0].max())
```"""
TORCH = """```python
import json
import numpy as np, torch
from PIL import Image, ImageOps

model = torch.export.load("model.pt2").module()
about = json.load(open("model.json", encoding="utf-8"))
side = about["image_size"]
picture = {fit}
pixels = torch.from_numpy(np.asarray(picture, np.uint8)[None].copy())  # (N, {side}, {side}, 3)
probabilities = model(pixels)[0]
print(about["classes"][int(probabilities.argmax())], float(probabilities.max()))
```"""
SAFETENSORS = """```
miwake predict --model . photo.jpg
```"""
_PICTURE = 'ImageOps.exif_transpose(Image.open("photo.jpg")).convert("RGB")'
FITS = {
    "center_crop": f"ImageOps.fit({_PICTURE}, (side, side), Image.BICUBIC)",
    "letterbox": f"ImageOps.pad({_PICTURE}, (side, side), Image.BICUBIC, color='#808080')",
    "squash": f"{_PICTURE}.resize((side, side), Image.BICUBIC)",
}


def model_card(info: ModelInfo, *, kind: str, parity: "Parity | None", layout: Layout, side: int | None = None) -> str:
    """The card: what it is for, data with licences, figures with intervals, limits, how to load it.

    Args:
        parity: how the exported graph differs from the model; None for a copy of its files.
        layout: of the project, for how many pictures it learnt from; a model folder has none.
        side: of the squares that a graph takes.
    """
    from huggingface_hub import ModelCard, ModelCardData

    accuracy = info.figures["accuracy"]
    licences = [name for name in info.licence if name]
    data = ModelCardData(
        library_name={"onnx": "onnx", "torch": "pytorch"}.get(kind, "timm"),
        pipeline_tag="image-classification",
        license=licences[0].lower() if len(licences) == 1 and "" not in info.licence else "other",
        tags=["image-classification", "miwake"],
        metrics=["accuracy"],
    )
    examples = {"onnx": ONNX, "torch": TORCH}
    fit = FITS.get(str(info.fit.resize_mode), FITS["center_crop"])
    example = examples[kind].format(fit=fit, side=side) if kind in examples else SAFETENSORS
    share = f"{_percent(accuracy['value'])} ({_percent(accuracy['low'])} to {_percent(accuracy['high'])})"
    text = [
        f"# {info.title}",
        f"Tells {count(len(info.classes), 'class', 'classes')} apart: {', '.join(map(_plain, info.classes))}. "
        f"{share} of {info.figures['num_images']:,} test pictures right, {100 * info.figures['confidence']:g} % "
        "interval.",
        f"Run `{info.run}`{f', commit `{info.commit[:12]}`' if info.commit else ''}; members "
        f"{', '.join(dict.fromkeys(one.name for one in info.members))}.",
        "## Use",
        example,
        "Small differences to `miwake predict` come from how the picture is decoded and shrunk."
        if kind in examples
        else "",
        "## Figures",
        _figures(info),
        _threshold(info),
        f"Checked when it was exported, on {parity}; accuracy {_percent(parity.accuracy)} "
        f"(before {_percent(parity.accuracy_before)})."
        if parity
        else "",
        "## Data",
        _data(info, layout),
        "## Limits",
        "It knows these classes alone. " + _strangers(info),
        "The figures hold for pictures like the test pictures: of the same sources, copies on one side of the split. "
        "Robustness, slices and mistakes are in the report of the run.",
    ]
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(filter(None, text)) + "\n"))


def _figures(info: ModelInfo) -> str:
    rows = ["| figure | value | interval |", "|---|--:|--:|"]
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "log_loss"):
        one: dict[str, Any] = info.figures[name]
        shown = [f"{one[key]:.3f}" if one[key] is not None else "–" for key in ("value", "low", "high")]
        rows.append(f"| {name.replace('_', ' ')} | {shown[0]} | {shown[1]} to {shown[2]} |")
    return "\n".join(rows)


def _threshold(info: ModelInfo) -> str:
    one = info.threshold
    if one is None:
        return ""
    right = f", of which {_percent(one.precision.value)} are right" if one.precision else ""
    return (
        f"Below a probability of {one.value:.3f} the answer should be *none of these*: then "
        f"{_percent(one.coverage.value)} of the test pictures are answered{right}."
    )


def _data(info: ModelInfo, layout: Layout) -> str:
    from collections import Counter

    from pipelines.core.tables import PACK_INDEX, read_table

    lines = []
    if layout.pack_index.is_file():
        subsets = Counter(read_table(layout.pack_index, PACK_INDEX, columns=["subset"])["subset"].to_pylist())
        lines.append(", ".join(f"{subsets[name]:,} pictures of {name}" for name in ("train", "val", "test")) + ".")
    number = sum(info.licence.values())
    told = ", ".join(f"{_plain(name) or 'unknown'} ({num:,})" for name, num in info.licence.items())
    lines.append(f"Licences of {count(number, 'picture')}: {told}. Credits are in the report of the run.")
    return "\n".join(lines)


def _strangers(info: ModelInfo) -> str:
    if info.strangers is None:
        return "Of a picture of anything else it names one of them all the same."
    return (
        "`miwake predict` calls pictures of anything else strangers where their features are like no class; the graph "
        "alone names one of the classes."
    )


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _plain(text: str) -> str:
    """Without what Markdown would interpret."""
    return "".join(f"\\{letter}" if letter in "\\`*_[]<>|#" else letter for letter in text)

"""The pictures of the pages: curves, the confusion matrix, duplicates and look-alike pairs with maps."""

import base64
import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image, ImageDraw

from flows.markdown import cell, picture
from pipelines.core.errors import InputError
from pipelines.core.layout import Layout
from pipelines.core.tables import DEDUPED, PACK_INDEX, read_table
from pipelines.params import Params
from pipelines.report.confusion import confused_pairs, draw_heatmap, order_classes
from pipelines.report.galleries import ThumbnailMaker, ThumbnailUri, duplicate_gallery
from pipelines.report.inputs import read_inputs
from pipelines.report.mistakes import MistakeGallery, ShownImage

SIDE, STEP, COLUMNS = 128, 136, 6
"""of a sheet: pixels of a picture, and from one to the next; pictures in a row"""
NUM_PAIRS, NUM_MISTAKES = 3, 4
NUM_DUPLICATES = 6


def curves(path: Path, title: str) -> str:
    """Loss and accuracy of history.csv, training and validation, as a picture; "" without that file."""
    if not path.exists():
        return ""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    x = next(iter(rows[0]))
    figure = Figure(figsize=(8, 3), dpi=90, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, what in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for side, style in (("train", "--"), ("val", "-")):
            values = [(float(row[x]), float(row[f"{side}_{what}"])) for row in rows]
            axes.plot(*zip(*values, strict=True), style, marker=".", label=side)
        axes.set_xlabel(x.replace("_", " "))
        axes.set_title(what)
        axes.set_xscale("log" if x == "inverse_strength" else "linear")
        axes.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor="white")
    return picture(buffer.getvalue(), f"loss and accuracy of {title}, training and validation")


def matrix(path: Path) -> str:
    """confusion.csv as a picture: actual class by row, predicted class by column."""
    with path.open(encoding="utf-8", newline="") as file:
        header, *lines = list(csv.reader(file))
    counts = np.array([[int(value) for value in line[1:]] for line in lines], np.int64)
    drawn = draw_heatmap(counts, header[1:], order_classes(counts))
    return picture(drawn.png, "confusion matrix: actual class by row, predicted class by column")


def duplicates(layout: Layout, params: Params, rows: Sequence[dict[str, str]]) -> list[str]:
    """A sheet of pairs, those under two labels first; nothing where there are none."""
    first = [row for row in rows if row["verdict"] == "conflict"]
    chosen = [*first, *(row for row in rows if row["verdict"] != "conflict")][:NUM_DUPLICATES]
    if not chosen:
        return []
    maker = _maker(layout, params, PACK_INDEX.empty_table())
    try:
        shown = duplicate_gallery(chosen, NUM_DUPLICATES, maker)
    except (OSError, InputError):  # the shards are not here
        return []
    tiles = [
        (_open(tile), f"{label} ({pair.row['kind']})")
        for pair in shown
        for tile, label in ((pair.first, pair.row["label_a"]), (pair.second, pair.row["label_b"]))
    ]
    return ["## Some pairs, side by side", _sheet(tiles, "pairs")]


def look_alikes(layout: Layout, params: Params) -> list[str]:
    """The classes that are confused most: a typical picture of each, then mistakes with what the network looked at."""
    try:
        inputs = read_inputs(
            {},
            ingest_dir=layout.stage("ingest"),
            dedupe_dir=layout.stage("dedupe"),
            validate_dir=layout.stage("validate"),
            augment_dir=layout.stage("augment"),
            evaluate_dir=layout.stage("evaluate"),
        )
    except (OSError, InputError, KeyError, ValueError) as error:
        return [f"Their pictures cannot be shown: {cell(error)}"]
    pairs = confused_pairs(inputs.counts)[:NUM_PAIRS]
    shown = params.report.model_copy(update={"confused_pairs": NUM_PAIRS, "pictures_per_pair": NUM_MISTAKES})
    parts = []
    for pair in MistakeGallery(inputs, pairs, shown).pairs(_maker(layout, params, inputs.index)):
        tiles = [(_open(one.picture), f"a {group.actual}") for typical, group in pair.directions for one in typical[:1]]
        tiles += [
            (_with_map(one), f"{group.actual}, said {group.predicted}")
            for _, group in pair.directions
            for one in group.shown
        ]
        title = f"### {cell(pair.first)} and {cell(pair.second)}: {pair.mistakes} mistakes"
        parts += [title, cell(pair.causes), _sheet(tiles[: 2 + NUM_MISTAKES], f"{pair.first} and {pair.second}")]
    return parts


def _maker(layout: Layout, params: Params, index: pa.Table) -> ThumbnailMaker:
    return ThumbnailMaker(
        read_table(layout.manifest, DEDUPED),
        index,
        layout.stage("ingest"),
        layout.stage("augment"),
        size=SIDE,
        max_pixels=params.ingest.max_pixels,
    )


def _open(thumbnail: ThumbnailUri | None) -> Image.Image | None:
    if thumbnail is None:
        return None
    with Image.open(io.BytesIO(base64.b64decode(thumbnail.uri.partition(",")[2]))) as image:
        return image.convert("RGB")


def _with_map(shown: ShownImage) -> Image.Image | None:
    """The picture under the map of the class that was said, as the report lays it over."""
    image = _open(shown.picture)
    said = next((one for one in shown.maps if one.kind == "said"), None)
    if image is None or said is None:
        return image
    with Image.open(io.BytesIO(base64.b64decode(said.uri.partition(",")[2]))) as small:
        heat = small.convert("RGBA").resize(image.size, Image.Resampling.BICUBIC)
    image.paste(heat, mask=heat.getchannel("A"))
    return image


def _sheet(tiles: Sequence[tuple[Image.Image | None, str]], description: str) -> str:
    """Pictures in a grid, numbered, as one JPEG on white, and what each shows in words."""
    rows = -(-len(tiles) // COLUMNS)
    sheet = Image.new("RGB", (STEP * min(COLUMNS, len(tiles)), (STEP + 14) * rows), "white")
    draw = ImageDraw.Draw(sheet)
    for at, (image, _) in enumerate(tiles):
        x, y = STEP * (at % COLUMNS), (STEP + 14) * (at // COLUMNS)
        if image is not None:
            sheet.paste(image, (x + (SIDE - image.width) // 2, y + (SIDE - image.height) // 2))
        draw.text((x + 2, y + SIDE + 2), str(at + 1) if image is not None else f"{at + 1}: no picture", fill="black")
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=80, optimize=True)
    encoded = base64.b64encode(buffer.getvalue()).decode()
    words = "; ".join(f"{at} {cell(text)}" for at, (_, text) in enumerate(tiles, start=1))
    return f"![{cell(description)}](data:image/jpeg;base64,{encoded})\n\n{words}"

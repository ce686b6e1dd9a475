"""Every mistake with its picture, chances, nearest training pictures, maps and likely cause; look-alike pairs."""

import base64
import io
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipelines.params.report import ReportParams
from pipelines.report.confusion import ConfusedPair
from pipelines.report.galleries import ThumbnailMaker, ThumbnailUri
from pipelines.report.inputs import Inputs

NUM_CHANCES = 3
NEIGHBOUR_SIZE = 96
"""pixels of the longer side of a nearest training picture"""
MAX_LISTED = 1000
"""mistakes in words alone, beside those with pictures; all are in mistakes.csv"""
MAP_COLOUR = (214, 0, 147)
"""magenta, which few things have"""
CAUSES = {
    "label": "the label may be wrong",
    "picture": "the picture is poor",
    "too_few": "too few like it to learn from",
    "model": "the model, which learnt from some like it",
}
"""of mistakes.csv"""
NEIGHBOUR = re.compile(r"([0-9a-f]{64}):(-?[\d.]+)")
"""of mistakes.csv: a training picture and its similarity"""


@dataclass(frozen=True)
class ShownNeighbour:
    """A training picture, its label, and its cosine similarity to the mistaken picture."""

    picture: ThumbnailUri | None
    label: str
    similarity: float


@dataclass(frozen=True)
class ShownMap:
    """Where the network looked for a class: a data URI of a small picture that is laid over the mistaken one.

    Args:
        kind: said or actual: the class that was predicted, or the true one.
    """

    uri: str
    label: str
    kind: str


@dataclass(frozen=True)
class ShownImage:
    """A test image with (label, probability) of its most probable classes, the most probable first.

    Args:
        picture: None where it cannot be shown, or is only listed.
        path: its source.
        cause: of a mistake, in words; "" where it is not known.
    """

    image_id: str
    picture: ThumbnailUri | None
    chances: list[tuple[str, float]]
    path: str
    neighbours: list[ShownNeighbour]
    maps: list[ShownMap]
    cause: str


@dataclass(frozen=True)
class MistakeGroup:
    """The pictures of `actual` that were predicted as `predicted`, the most confident first; some are only listed."""

    actual: str
    predicted: str
    anchor: str
    num: int
    num_actual: int
    shown: list[ShownImage]
    listed: list[ShownImage]


@dataclass(frozen=True)
class PairGallery:
    """Two classes that are confused, with typical pictures of each.

    Args:
        causes: "too few pictures to learn from (3), the model (1)"; "" where none is known.
        directions: each with typical pictures of its true class, and a few of its mistakes.
    """

    first: str
    second: str
    mistakes: int
    causes: str
    directions: list[tuple[list[ShownImage], MistakeGroup]]


def anchor_of(actual: int, predicted: int) -> str:
    """Of the pictures behind a cell of the matrix."""
    return f"cell-{actual}-{predicted}"


class MistakeGallery:
    """Chooses and describes pictures of the test set; thumbnails are read once for all that was chosen."""

    def __init__(self, inputs: Inputs, pairs: Sequence[ConfusedPair], params: ReportParams) -> None:
        self._inputs, self._params = inputs, params
        self._predicted = inputs.probabilities.argmax(axis=1)
        self._pairs = pairs
        self._paths = _paths(inputs, set(inputs.image_ids))

    @cached_property
    def _groups(self) -> list[tuple[int, int, list[int]]]:
        """(actual, predicted, rows) of every confused cell, as the pairs are ordered."""
        cells = [cell for p in self._pairs for cell in ((p.first, p.second), (p.second, p.first))]
        found = [(a, b, self._rows(a, b)) for a, b in cells]
        return [(a, b, rows) for a, b, rows in found if rows]

    def _rows(self, actual: int, predicted: int) -> list[int]:
        """The rows of a cell, the most probable first; of equals by image_id."""
        found = np.flatnonzero((self._inputs.actual == actual) & (self._predicted == predicted))
        chance = self._inputs.probabilities[:, predicted]
        return sorted(found.tolist(), key=lambda i: (-float(chance[i]), self._inputs.image_ids[i]))

    def groups(self, pictures: ThumbnailMaker) -> tuple[list[MistakeGroup], int]:
        """Every mistake by its cell, and how many are not even listed.

        Each cell gets a picture before any gets a second one, until params.mistakes are shown.
        """
        turns = sorted((rank, at, i) for at, (_, _, rows) in enumerate(self._groups) for rank, i in enumerate(rows))
        shown = {i for _, _, i in turns[: self._params.mistakes]}
        named = {i for _, _, i in turns[: self._params.mistakes + MAX_LISTED]}
        describe = self._describer(shown, pictures)
        found = [
            MistakeGroup(
                self._inputs.classes[a],
                self._inputs.classes[b],
                anchor_of(a, b),
                len(rows),
                int(self._inputs.counts[a].sum()),
                [describe(i) for i in rows if i in shown],
                [describe(i) for i in rows if i in named - shown],
            )
            for a, b, rows in self._groups
        ]
        return found, len(turns) - len(named)

    def pairs(self, pictures: ThumbnailMaker) -> list[PairGallery]:
        """The worst pairs. Mistakes: the most confident first. Typical: right, and the most confident."""
        few, classes = self._params.pictures_per_pair, self._inputs.classes
        pairs = self._pairs[: self._params.confused_pairs]
        cells = {cell: self._rows(*cell) for p in pairs for cell in ((p.first, p.second), (p.second, p.first))}
        typical = {k: self._rows(k, k)[: max(few, 1)] for cell in cells for k in cell}
        mistaken = {i for rows in cells.values() for i in rows[:few]}
        describe = self._describer(mistaken, pictures, also={i for rows in typical.values() for i in rows})
        found = []
        for p in pairs:
            directions = []
            for a, b in ((p.first, p.second), (p.second, p.first)):
                shown = [describe(i, (a, b)) for i in cells[a, b][:few]]
                group = MistakeGroup(
                    classes[a],
                    classes[b],
                    anchor_of(a, b),
                    len(cells[a, b]),
                    int(self._inputs.counts[a].sum()),
                    shown,
                    [],
                )
                directions.append(([describe(i, (a, b)) for i in typical[a]], group))
            causes = self._causes([*cells[p.first, p.second], *cells[p.second, p.first]])
            found.append(PairGallery(classes[p.first], classes[p.second], p.mistakes, causes, directions))
        return found

    def _causes(self, rows: Iterable[int]) -> str:
        known = [self._inputs.mistakes.get(self._inputs.image_ids[i], {}).get("cause", "") for i in rows]
        counted = Counter(CAUSES[cause] for cause in known if cause in CAUSES)
        return ", ".join(f"{cause} ({n:,})" for cause, n in sorted(counted.items(), key=lambda c: (-c[1], c[0])))

    def _describer(self, mistaken: set[int], pictures: ThumbnailMaker, also: Iterable[int] = ()) -> "_Describer":
        ids = self._inputs.image_ids
        near = {
            ids[i]: NEIGHBOUR.findall(self._inputs.mistakes.get(ids[i], {}).get("neighbours", "")) for i in mistaken
        }
        thumbnails = pictures.packed(ids[i] for i in {*mistaken, *also})
        wanted = {image_id for found in near.values() for image_id, _ in found}
        rows = zip(*(self._inputs.index[name].to_pylist() for name in ("image_id", "label")), strict=True)
        labels = {image_id: label for image_id, label in rows if image_id in wanted}
        small = pictures.packed(wanted, size=NEIGHBOUR_SIZE)
        neighbours = {
            image_id: [ShownNeighbour(small.get(n), labels.get(n, ""), float(score)) for n, score in found]
            for image_id, found in near.items()
        }
        return _Describer(self._inputs, self._paths, thumbnails, neighbours)


@dataclass(frozen=True)
class _Describer:
    """Describes rows of the predictions with what was read for them."""

    inputs: Inputs
    paths: dict[str, str]
    thumbnails: dict[str, ThumbnailUri]
    neighbours: dict[str, list[ShownNeighbour]]

    def __call__(self, row: int, classes: tuple[int, ...] = ()) -> ShownImage:
        """Row `row`, with the chances of these classes, or of the three most probable."""
        inputs, image_id = self.inputs, self.inputs.image_ids[row]
        chance = inputs.probabilities[row]
        chosen = classes or tuple(np.argsort(-chance, kind="stable")[:NUM_CHANCES].tolist())
        label, said = inputs.classes[inputs.actual[row]], inputs.classes[int(chance.argmax())]
        sides = [("said", said), ("actual", label)] if image_id in self.thumbnails else []
        return ShownImage(
            image_id,
            self.thumbnails.get(image_id),
            sorted(((inputs.classes[k], float(chance[k])) for k in chosen), key=lambda c: -c[1]),
            self.paths.get(image_id, ""),
            self.neighbours.get(image_id, []),
            [
                ShownMap(map_uri(inputs.maps[image_id, name]), name, kind)
                for kind, name in sides
                if (image_id, name) in inputs.maps
            ],
            CAUSES.get(inputs.mistakes.get(image_id, {}).get("cause", ""), ""),
        )


def map_uri(activation: npt.NDArray[np.float16]) -> str:
    """A PNG of (h, w) activations in 0 to 1, coloured and as opaque as they are high; the browser makes it larger."""
    alpha = np.clip(np.nan_to_num(activation.astype(np.float32)), 0.0, 1.0)
    pixels = np.empty((*alpha.shape, 4), np.uint8)
    pixels[..., :3] = MAP_COLOUR
    pixels[..., 3] = (140 * alpha).round()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _paths(inputs: Inputs, wanted: set[str]) -> dict[str, str]:
    """By image_id, the first path of each picture."""
    pairs = zip(inputs.manifest["image_id"].to_pylist(), inputs.manifest["source_path"].to_pylist(), strict=True)
    found: dict[str, str] = {}
    for image_id, path in pairs:
        if image_id in wanted and (image_id not in found or path < found[image_id]):
            found[image_id] = path
    return found

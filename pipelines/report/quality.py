"""How many of the pictures used are blurred, dark, grey, transparent and so on, and in which class most of them are.

A class whose pictures alone are grey or blurred is told apart by that, not by what it shows.
"""

from collections import Counter
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.report.inputs import Inputs

BLURRED_BELOW, DARK_BELOW, BRIGHT_ABOVE = 100.0, 10.0, 250.0
"""where validate's rule on it is off, whose limit counts otherwise. Of sharpness (variance of the Laplacian, see
pipelines.ingest.quality): none of 360 photographs of clothing, guitars and instruments lies below; 85 % of them do
after a Gaussian blur of 1/128 of their shorter side, all after 1/64. Of the mean grey level"""


_RULES = {"min_sharpness": BLURRED_BELOW, "min_brightness": DARK_BELOW, "max_brightness": BRIGHT_ABOVE}


@dataclass(frozen=True)
class Flaw:
    """What some of the pictures have in common.

    Args:
        name: in a word.
        meaning: what follows from it.
        count: of the pictures used.
        fraction: of them.
        label: the class with the most of them, and how many of its pictures these are.
    """

    name: str
    meaning: str
    count: int
    fraction: float
    label: str
    in_label: int
    of_label: int


def quality_flaws(inputs: Inputs) -> list[Flaw]:
    """The kinds that occur, in a fixed order."""
    table = inputs.manifest.filter(pc.equal(inputs.manifest["verdict"], "keep"))
    whole = pc.and_(
        pc.and_(pc.equal(table["crop_left"], 0.0), pc.equal(table["crop_top"], 0.0)),
        pc.and_(pc.equal(table["crop_right"], 1.0), pc.equal(table["crop_bottom"], 1.0)),
    )
    limits = {rule["rule"]: float(rule["limit"]) for rule in inputs.expectations["rules"] if rule["rule"] in _RULES}
    blurred, dark, bright = (limits.get(rule, limit) for rule, limit in _RULES.items())
    kinds = [
        ("Blurred", f"sharpness below {blurred:g}", pc.less(table["sharpness"], blurred)),
        ("Dark", f"mean grey level below {dark:g}", pc.less(table["brightness"], dark)),
        ("Bright", f"mean grey level above {bright:g}", pc.greater(table["brightness"], bright)),
        ("Greyscale", "no colour to learn from", table["greyscale"]),
        ("Transparent", "laid on white", table["transparent"]),
        ("Animated", "the first frame is used", pc.greater(table["num_frames"], 1)),
        ("Cropped", "a part of the picture is used", pc.invert(whole)),
    ]
    sizes = _counted(table["label"])
    found = []
    for name, meaning, mask in kinds:
        counts = _counted(table["label"].filter(pc.fill_null(mask, False)))
        if counts:
            label, most = min(counts.items(), key=lambda item: (-item[1], item[0]))
            total = counts.total()
            found.append(Flaw(name, meaning, total, total / table.num_rows, label, most, sizes[label]))
    return found


def _counted(labels: pa.ChunkedArray) -> Counter[str]:
    return Counter({row["values"]: row["counts"] for row in pc.value_counts(labels).to_pylist()})

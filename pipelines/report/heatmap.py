"""confusion_matrix.png: the matrix for places that show pictures only. Labels in any script, or visibly numbered."""

import io
import unicodedata
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pipelines.report.confusion import NUMBERS_UP_TO, Counts, shares

FONTS = (
    "DejaVu Sans",  # ships with matplotlib: Latin, Greek, Cyrillic
    "Noto Sans CJK JP",
    "Noto Sans JP",
    "Source Han Sans JP",
    "IPAexGothic",
    "IPAGothic",
    "TakaoPGothic",
    "Hiragino Sans",
    "Yu Gothic",
    "Meiryo",
    "MS Gothic",
    "WenQuanYi Zen Hei",
    "Droid Sans Fallback",
)
LONGEST = 26
"""characters of a label beside an axis"""


def draw_heatmap(counts: Counts, classes: Sequence[str], order: Sequence[int]) -> tuple[bytes, dict[str, str]]:
    """Draw the confusion matrix.

    Args:
        counts: (K, K), rows are the truth.
        classes: K labels.
        order: the order of rows and columns.

    Returns:
        the PNG, and what stands for labels that no installed font can write: {"no. 3": label}.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    fonts = _installed_fonts()
    names = [_drawable(classes[k], k, fonts) for k in order]
    legend = {name: classes[k] for k, name in zip(order, names, strict=True) if name == f"no. {k + 1}"}
    size = len(order)
    shown = counts[np.ix_(order, order)]
    share = shares(shown)
    cell = 0.42 if size <= NUMBERS_UP_TO else 0.16
    side = max(cell * size, 2.2)
    with matplotlib.rc_context({"font.family": list(fonts), "axes.unicode_minus": False}):
        figure = Figure(figsize=(side + 3.2, side + 2.6), dpi=110 if size <= NUMBERS_UP_TO else 100)
        FigureCanvasAgg(figure)
        axes = figure.add_axes((2.3 / (side + 3.2), 0.5 / (side + 2.6), side / (side + 3.2), side / (side + 2.6)))
        axes.imshow(_colours(share), aspect="equal", interpolation="nearest")
        if size <= NUMBERS_UP_TO:
            _write_counts(axes, shown, share)
        font_size = 9 if size <= NUMBERS_UP_TO else 6.5
        axes.set_xticks(range(size), names, rotation=90, fontsize=font_size, parse_math=False)
        axes.set_yticks(range(size), names, fontsize=font_size, parse_math=False)
        axes.xaxis.tick_top()
        axes.tick_params(length=0, pad=4)
        axes.spines[:].set_visible(False)
        axes.set_xticks(np.arange(size + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(size + 1) - 0.5, minor=True)
        axes.grid(which="minor", color="white", linewidth=1.2 if size <= NUMBERS_UP_TO else 0.3)
        axes.tick_params(which="minor", length=0)
        axes.set_xlabel("rows: what it is · columns: what the model said", fontsize=8, color="#5b606b", labelpad=8)
        buffer = io.BytesIO()
        # no Software key: it names matplotlib's version
        figure.savefig(buffer, format="png", metadata={"Software": None}, facecolor="white", bbox_inches="tight")
    return buffer.getvalue(), legend


def _colours(share: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(K, K, 3) RGB: blue for right answers, orange-red for mistakes (a pair that colour-blind people tell apart)."""
    diagonal = np.eye(len(share), dtype=bool)
    largest = max(float((share * ~diagonal).max()), 1e-9)
    strength = np.where(diagonal, share, share / largest)[..., None]
    strength = np.where(strength > 0, 0.08 + 0.92 * strength, 0.0)
    hue = np.where(diagonal[..., None], RIGHT, MISTAKE)
    blank = np.array([0.965, 0.96, 0.945])
    return np.asarray(blank * (1 - strength) + hue * strength)


RIGHT = np.array([0x23, 0x4B, 0x8A]) / 255
MISTAKE = np.array([0x9A, 0x34, 0x12]) / 255


def _write_counts(axes: object, shown: Counts, share: npt.NDArray[np.float64]) -> None:
    colours = _colours(share)
    for row, column in zip(*np.nonzero(shown), strict=True):
        light = colours[row, column] @ np.array([0.2126, 0.7152, 0.0722]) < 0.5
        axes.text(  # type: ignore[attr-defined]
            column,
            row,
            f"{shown[row, column]}",
            ha="center",
            va="center",
            fontsize=8.5,
            color="white" if light else "#1d1f24",
        )


def _installed_fonts() -> dict[str, set[int]]:
    """Of FONTS, what is installed, with the characters that each can write."""
    from matplotlib.font_manager import fontManager, get_font

    files = {font.name: font.fname for font in sorted(fontManager.ttflist, key=lambda f: f.fname, reverse=True)}
    regular = {
        f.name: f.fname for f in fontManager.ttflist if f.weight in (400, "normal", "regular") and f.style == "normal"
    }
    files |= regular
    return {name: set(get_font(files[name]).get_charmap()) for name in FONTS if name in files}


def _drawable(label: str, class_index: int, fonts: dict[str, set[int]]) -> str:
    """The label, shortened; or "no. <class_index + 1>" where a character has no glyph in any font."""
    text = "".join(" " if unicodedata.category(c).startswith(("C", "Z")) else c for c in label)
    if not all(any(ord(c) in known for known in fonts.values()) for c in text):
        return f"no. {class_index + 1}"
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"

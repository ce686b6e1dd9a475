"""The confusion matrix: look-alikes side by side, worst pairs first, shaded cells, confusion_matrix.png and .svg."""

import io
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]
NUMBERS_UP_TO = 30
"""classes up to which cells are large"""
DIGITS_UP_TO = 999
"""images in a cell up to which a small cell has room for the number"""
FONTS = (
    # the first ships with matplotlib: Latin, Greek, Cyrillic
    *("DejaVu Sans", "Noto Sans CJK JP", "Noto Sans JP", "Source Han Sans JP", "IPAexGothic", "IPAGothic"),
    *("TakaoPGothic", "Hiragino Sans", "Yu Gothic", "Meiryo", "MS Gothic", "WenQuanYi Zen Hei", "Droid Sans Fallback"),
)
LONGEST = 26
"""characters of a label beside an axis"""
RIGHT, MISTAKE = np.array([[0x23, 0x4B, 0x8A], [0x9A, 0x34, 0x12]]) / 255
_BLANK = np.array([0.965, 0.96, 0.945])


def order_classes(counts: Counts) -> list[int]:
    """Order the classes so that those often confused stand together.

    Chains of classes are joined at their ends, the strongest confusion (as a share of both classes' images, either way)
    first; chains then follow each other by their first class. Takes (K, K) counts, rows are the truth; returns the K
    class indices in order.
    """
    num_classes = len(counts)
    pictures = np.maximum(counts.sum(axis=1), 1)
    mistakes = counts - np.diag(np.diag(counts))
    likeness = (mistakes / pictures[:, None]) + (mistakes / pictures[:, None]).T
    chains = {k: [k] for k in range(num_classes)}  # by either end
    pairs = [(-likeness[a, b], a, b) for a in range(num_classes) for b in range(a + 1, num_classes) if likeness[a, b]]
    for _, a, b in sorted(pairs):
        first, second = chains.get(a), chains.get(b)
        if first is None or second is None or first is second:
            continue  # inside a chain already, or its two ends
        joined = (first if first[-1] == a else first[::-1]) + (second if second[0] == b else second[::-1])
        for end in (first[0], first[-1], second[0], second[-1]):
            chains.pop(end, None)
        if joined[0] > joined[-1]:
            joined = joined[::-1]
        chains[joined[0]] = chains[joined[-1]] = joined
    distinct = {id(chain): chain for chain in chains.values()}
    return [k for chain in sorted(distinct.values(), key=min) for k in chain]


@dataclass(frozen=True)
class ConfusedPair:
    """Two classes and how often each was predicted for the other."""

    first: int
    second: int
    first_as_second: int
    second_as_first: int

    @property
    def mistakes(self) -> int:
        return self.first_as_second + self.second_as_first


def confused_pairs(counts: Counts) -> list[ConfusedPair]:
    """Every pair with a mistake, the most mistakes first; of equals the pair with fewer images."""
    pictures = counts.sum(axis=1)
    found = [
        ConfusedPair(a, b, int(counts[a, b]), int(counts[b, a]))
        for a in range(len(counts))
        for b in range(a + 1, len(counts))
        if counts[a, b] + counts[b, a]
    ]
    return sorted(found, key=lambda p: (-p.mistakes, int(pictures[p.first] + pictures[p.second]), p.first, p.second))


def shares(counts: Counts) -> npt.NDArray[np.float64]:
    """(K, K) each row divided by its sum; a row without images is 0."""
    return np.asarray(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))


@dataclass(frozen=True)
class MatrixCell:
    """A cell of the matrix that is not zero.

    Args:
        share: of the row, 0 to 1.
        shade: strength of the colour, 0 to 1.
        right: on the diagonal.
        target: anchor of the pair's gallery; "" for none.
    """

    count: int
    share: float
    shade: float
    right: bool
    target: str


def matrix_cells(
    counts: Counts, order: list[int], targets: dict[tuple[int, int], str]
) -> list[list[MatrixCell | None]]:
    """The matrix in the given order; None for zero.

    Shades go by the share of the row: a class of 11 images, all right, is as blue as one of 500. Mistakes have a scale
    of their own: one image in twenty is what the reader looks for, and would be invisible beside a diagonal of 95 %.
    """
    share = shares(counts)
    mistake = ~np.eye(len(counts), dtype=bool)
    largest = {True: 1.0, False: max(float((share * mistake).max()), 1e-9)}
    return [
        [
            MatrixCell(
                count=int(counts[a, b]),
                share=float(share[a, b]),
                shade=shade(share[a, b] / largest[a == b]),
                right=a == b,
                target=targets.get((a, b), ""),
            )
            if counts[a, b]
            else None
            for b in order
        ]
        for a in order
    ]


def shade(fraction: float) -> float:
    """Strength of a colour for a fraction in (0, 1]: rising, but never between .5 and .78.

    Between these, neither dark nor light digits are readable on the colour (contrast below 4.5).
    """
    return round(0.1 + 0.8 * fraction, 3) if fraction < 0.5 else round(0.78 + 0.44 * (fraction - 0.5), 3)


@dataclass(frozen=True)
class Heatmap:
    """A drawn matrix, and what stands for labels that no installed font can write: {"no. 3": label}."""

    png: bytes
    svg: bytes
    legend: dict[str, str]


def draw_heatmap(
    counts: Counts,
    classes: Sequence[str],
    order: Sequence[int],
    axes_names: tuple[str, str] = ("What it is", "What the model said"),
) -> Heatmap:
    """Draw (K, K) counts, rows are the truth, in this order of classes; `axes_names` are those of rows and columns."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    fonts = installed_fonts()
    names = [_drawable(classes[k], k, fonts) for k in order]
    legend = {name: classes[k] for k, name in zip(order, names, strict=True) if name == f"no. {k + 1}"}
    size = len(order)
    shown = counts[np.ix_(order, order)]
    share = shares(shown)
    cell = 0.42 if size <= NUMBERS_UP_TO else 0.16
    side = max(cell * size, 2.2)
    # names that no font can write are left to the page
    rows, columns = (name if _drawable(name, 0, fonts) == name else "" for name in axes_names)
    with matplotlib.rc_context({"font.family": list(fonts), "axes.unicode_minus": False, "svg.hashsalt": "miwake"}):
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
        axes.xaxis.set_label_position("top")
        axes.set_xlabel(columns, fontsize=9, color="#5b606b", labelpad=8)
        axes.set_ylabel(rows, fontsize=9, color="#5b606b", labelpad=8)
        # without the keys that name matplotlib's version, or the time
        drawn = []
        for kind, metadata in (("png", {"Software": None}), ("svg", {"Creator": None, "Date": None})):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=kind, metadata=metadata, facecolor="white", bbox_inches="tight")
            drawn.append(buffer.getvalue())
    return Heatmap(drawn[0], drawn[1], legend)


def _colours(share: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(K, K, 3) RGB: blue for right answers, orange-red for mistakes, which colour-blind people can tell apart."""
    diagonal = np.eye(len(share), dtype=bool)
    largest = max(float((share * ~diagonal).max()), 1e-9)
    strength = np.where(diagonal, share, share / largest)[..., None]
    strength = np.where(strength > 0, 0.08 + 0.92 * strength, 0.0)
    hue = np.where(diagonal[..., None], RIGHT, MISTAKE)
    return np.asarray(_BLANK * (1 - strength) + hue * strength)


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


def installed_fonts() -> dict[str, set[int]]:
    """The installed ones of FONTS, with the characters that each can write."""
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

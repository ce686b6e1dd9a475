"""Markdown as both of Prefect's UIs draw it: tables, pictures as data URIs, nothing else."""

import base64
import html
import io
import re
from collections.abc import Iterable, Sequence

MAX_BYTES = 300_000
"""the UI's list pages download every artifact whole"""
MAX_PICTURE_BYTES = 180_000
"""becomes 240,000 characters of base64, which leaves room for tables"""


def cell(value: object) -> str:
    """`value` as the text of a table cell: whatever a label contains, it neither ends the cell nor formats it."""
    text = html.escape(" ".join(str(value).split()), quote=False)
    return re.sub(r"([\\`*_\[\]|~!#])", r"\\\1", text)


def table(header: Sequence[str], rows: Iterable[Sequence[object]], *, limit: int | None = None, more: str = "") -> str:
    """A Markdown table. Columns whose header ends in `:` are aligned to the right.

    Args:
        header: column names.
        rows: values, turned to text by `cell`.
        limit: at most so many rows are shown.
        more: where the rest can be found; said when there is one.
    """
    rows = list(rows)
    shown = rows if limit is None else rows[:limit]
    lines = [
        "| " + " | ".join(name.removesuffix(":") for name in header) + " |",
        "|" + "|".join("--:" if name.endswith(":") else "---" for name in header) + "|",
        *("| " + " | ".join(map(cell, row)) + " |" for row in shown),
    ]
    if len(shown) < len(rows):
        lines += ["", f"{len(rows) - len(shown):,} more{f' in `{more}`' if more else ''}."]
    return "\n".join(lines)


def picture(data: bytes, description: str) -> str:
    """A PNG as Markdown, made smaller until it takes at most `MAX_PICTURE_BYTES`."""
    if len(data) > MAX_PICTURE_BYTES:
        data = _smaller(data)
    return f"![{cell(description)}](data:image/png;base64,{base64.b64encode(data).decode()})"


def _smaller(data: bytes) -> bytes:
    """The PNG with 256 colours, at the largest size that fits into `MAX_PICTURE_BYTES`."""
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        # on white, because one of the UIs is dark
        flat = Image.new("RGB", image.size, "white")
        flat.paste(image, mask=image.convert("RGBA").getchannel("A"))
    scale = 1.0
    while True:
        size = (max(1, round(flat.width * scale)), max(1, round(flat.height * scale)))
        buffer = io.BytesIO()
        resized = flat if scale == 1.0 else flat.resize(size, Image.Resampling.LANCZOS)
        resized.quantize(256).save(buffer, "PNG", optimize=True)
        if buffer.tell() <= MAX_PICTURE_BYTES or max(size) <= 64:
            return buffer.getvalue()
        scale *= 0.8


def page(title: str, *parts: str) -> str:
    """Title and parts as one page of at most `MAX_BYTES` bytes; what does not fit is left out, and that is said."""
    text = "\n\n".join([f"# {title}", *filter(None, parts)]) + "\n"
    if len(text.encode()) <= MAX_BYTES:
        return text
    note = "\n\nThe rest is left out: a page holds 300 kB.\n"
    kept = text.encode()[: MAX_BYTES - len(note)].decode(errors="ignore")
    return kept[: kept.rfind("\n")] + note

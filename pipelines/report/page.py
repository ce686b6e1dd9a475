"""Render index.html from its templates, with learning curves as SVG: one file that needs no network and no server."""

import base64
import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from pipelines.core.errors import count
from pipelines.report.wording import decimal, figure_of, percent, percent_range

TEMPLATES = Path(__file__).parent / "templates"
WIDTH, HEIGHT = 420, 220
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 12, 40
MAX_TICKS = 6
AXIS_NAMES = {"inverse_strength": "C, the inverse of regularisation (larger fits closer)"}


def render_page(context: dict[str, Any]) -> str:
    """Render the page. All data is escaped; only our own style, script and SVG are not."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"percent": percent, "decimal": decimal, "count": count, "figure": figure_of}
    environment.globals |= {"percent_range": percent_range}
    script = (TEMPLATES / "script.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    return environment.get_template("index.html.j2").render(
        **context,
        style=Markup((TEMPLATES / "style.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash=f"sha256-{digest}",
    )


@dataclass(frozen=True)
class CurveAxis:
    """Maps values to pixels, with the values to write beside it."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool
    ticks: list[float]

    def place(self, value: float) -> float:
        low, high, at = (math.log10(v) if self.is_log else v for v in (self.low, self.high, value))
        return round(self.start + (self.end - self.start) * (at - low) / ((high - low) or 1.0), 1)


def curve_svg(xs: list[float], lines: dict[str, list[list[float]]], *, x_name: str, title: str) -> Markup:
    """Draw learning curves as inline SVG with the CSS classes of the page, so that dark mode and print apply.

    Args:
        xs: the longest x axis among the runs.
        lines: by name (`train`, `val`: CSS classes), one list of y values per fold; NaN leaves a gap.
        x_name: written below the axis; `inverse_strength` has a logarithmic scale.
        title: for screen readers.

    Returns:
        SVG markup, its texts escaped; empty where there is nothing to draw.
    """
    values = [y for runs in lines.values() for run in runs for y in run if math.isfinite(y)]
    if not xs or not values:
        return Markup("")
    is_log = x_name == "inverse_strength" and min(xs) > 0
    x = CurveAxis(min(xs), max(xs), LEFT, WIDTH - RIGHT, is_log, _x_ticks(sorted(set(xs))))
    y_ticks = _round_ticks(min(values), max(values))
    y = CurveAxis(y_ticks[0], y_ticks[-1], HEIGHT - BOTTOM, TOP, False, y_ticks)
    parts = [
        f'<svg class="curve" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">',
        *(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y.place(t)}" y2="{y.place(t)}"/>'
            f'<text x="{LEFT - 8}" y="{y.place(t) + 4}" text-anchor="end">{t:g}</text>'
            for t in y.ticks
        ),
        *(f'<text x="{x.place(t)}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{t:g}</text>' for t in x.ticks),
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 4}" text-anchor="middle">'
        f"{escape(AXIS_NAMES.get(x_name, x_name))}</text>",
        *(
            _line(name, [(x.place(a), y.place(b)) for a, b in zip(xs, run, strict=False) if math.isfinite(b)])
            for name, runs in lines.items()
            for run in runs
        ),
    ]
    return Markup("".join([*parts, "</svg>"]))


def _line(name: str, points: list[tuple[float, float]]) -> str:
    if not points:
        return ""
    path = "M" + "L".join(f"{a} {b}" for a, b in points)
    # few points are marked one by one
    dots = points if len(points) <= 12 else points[-1:]
    marks = "".join(f'<circle class="{name}" cx="{a}" cy="{b}" r="2.5"/>' for a, b in dots)
    return f'<path class="{name}" d="{path}"/>{marks}'


def _x_ticks(xs: list[float]) -> list[float]:
    """At most six of the x values, evenly chosen, with both ends."""
    if len(xs) <= MAX_TICKS:
        return xs
    return [xs[round(i * (len(xs) - 1) / (MAX_TICKS - 1))] for i in range(MAX_TICKS)]


def _round_ticks(low: float, high: float) -> list[float]:
    """Three to six round values around [low, high]."""
    span = (high - low) or max(abs(high), 1.0) * 0.1
    raw = span / 4
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(i * step, 10) for i in range(first, max(last, first + 1) + 1)]

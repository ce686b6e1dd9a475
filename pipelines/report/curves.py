"""Learning curves as inline SVG: a few lines of path, coloured by the page's style, so that dark and print follow."""

import math
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH, HEIGHT = 420, 220
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 12, 40
MAX_TICKS = 6


@dataclass(frozen=True)
class Axis:
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
    """One panel.

    Args:
        xs: the longest x axis among the runs.
        lines: by name (`train`, `val`: the CSS classes), one list of y values per fold; NaN leaves a gap.
        x_name: written below the axis; `inverse_strength` is drawn to a logarithmic scale.
        title: for readers who cannot see the panel.

    Returns:
        SVG markup, its texts escaped; empty where there is nothing to draw.
    """
    values = [y for runs in lines.values() for run in runs for y in run if math.isfinite(y)]
    if not xs or not values:
        return Markup("")
    is_log = x_name == "inverse_strength" and min(xs) > 0
    x = Axis(min(xs), max(xs), LEFT, WIDTH - RIGHT, is_log, _x_ticks(sorted(set(xs))))
    low, high, ticks = _nice_range(min(values), max(values))
    y = Axis(low, high, HEIGHT - BOTTOM, TOP, False, ticks)
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
    ]
    for name, runs in lines.items():
        for run in runs:
            parts.append(
                _line(name, [(x.place(a), y.place(b)) for a, b in zip(xs, run, strict=False) if math.isfinite(b)])
            )
    # numbers of ours, and texts escaped above
    return Markup("".join([*parts, "</svg>"]))


AXIS_NAMES = {
    "epoch": "epoch",
    "inverse_strength": "C, the inverse of regularisation (larger fits closer)",
}


def _line(name: str, points: list[tuple[float, float]]) -> str:
    if not points:
        return ""
    path = "M" + "L".join(f"{a} {b}" for a, b in points)
    # few points are measurements to be seen one by one
    dots = points if len(points) <= 12 else points[-1:]
    marks = "".join(f'<circle class="{name}" cx="{a}" cy="{b}" r="2.5"/>' for a, b in dots)
    return f'<path class="{name}" d="{path}"/>{marks}'


def _x_ticks(xs: list[float]) -> list[float]:
    """At most six of the x values, evenly chosen, the ends among them."""
    if len(xs) <= MAX_TICKS:
        return xs
    steps = [round(i * (len(xs) - 1) / (MAX_TICKS - 1)) for i in range(MAX_TICKS)]
    return [xs[i] for i in steps]


def _nice_range(low: float, high: float) -> tuple[float, float, list[float]]:
    """Round ends around [low, high], and three to six round values from one to the other."""
    span = (high - low) or max(abs(high), 1.0) * 0.1
    raw = span / 4
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first, last = math.floor(low / step), math.ceil(high / step)
    if first == last:
        last += 1
    ticks = [round(i * step, 10) for i in range(first, last + 1)]
    return ticks[0], ticks[-1], ticks

"""Charts as inline SVG with the CSS classes of the page, so that dark mode and print apply and no script is needed."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH, HEIGHT = 420, 240
LEFT, RIGHT, TOP, BOTTOM = 52, 18, 12, 44
MAX_TICKS = 6
TICK_WIDTH = 38
"""pixels that a number below the x axis takes"""
Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """Points joined in order; a y that is not a number leaves a gap.

    Args:
        style: CSS class: train, val, guide (no marks) or forecast.
    """

    style: str
    points: Sequence[Point]


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


def chart(
    lines: Sequence[Line],
    *,
    title: str,
    x_name: str,
    y_name: str,
    band: Sequence[tuple[float, float, float]] = (),
    x_is_log: bool = False,
    x_ticks: Sequence[float] = (),
    in_percent: bool = False,
) -> Markup:
    """Draw lines over a band, with titles of both axes.

    Args:
        title: for screen readers.
        band: (x, low, high) of an interval, drawn below the lines.
        x_ticks: values to write below the x axis; by default some of the lines' own x values.
        in_percent: y are fractions: written as percentages.

    Returns:
        SVG markup, its texts escaped; empty where there is nothing to draw.
    """
    points = [p for line in lines for p in line.points if math.isfinite(p[1])]
    if not points:
        return Markup("")
    xs = sorted({x for line in lines for x, _ in line.points} | {x for x, _, _ in band})
    ys = [y for _, y in points] + [end for _, *ends in band for end in ends]
    x = CurveAxis(xs[0], xs[-1], LEFT, WIDTH - RIGHT, x_is_log and xs[0] > 0, list(x_ticks) or _some(xs))
    y_ticks = _round_ticks(min(ys), max(ys))
    if in_percent:  # a tick above 100 % promises what cannot be
        y_ticks = [tick for tick in y_ticks if 0 <= tick <= 1] or [0.0, 1.0]
        y_ticks = y_ticks if len(y_ticks) > 1 else [max(0.0, y_ticks[0] - 0.1), y_ticks[0]]
    ends = (min(y_ticks[0], min(ys)), max(y_ticks[-1], max(ys)))
    y = CurveAxis(*ends, HEIGHT - BOTTOM, TOP, False, y_ticks)
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts = [
        f'<svg class="curve" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">',
        *(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y.place(t)}" y2="{y.place(t)}"/>'
            f'<text x="{LEFT - 8}" y="{y.place(t) + 4}" text-anchor="end">{100 * t if in_percent else t:g}</text>'
            for t in y.ticks
        ),
        *(f'<text x="{at}" y="{HEIGHT - BOTTOM + 17}" text-anchor="middle">{t:.6g}</text>' for t, at in _apart(x)),
        f'<text class="axis" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 6}" text-anchor="middle">'
        f"{escape(x_name)}</text>",
        f'<text class="axis" transform="translate(12 {middle}) rotate(-90)" text-anchor="middle">'
        f"{escape(y_name)}{', %' if in_percent else ''}</text>",
        _band([(x.place(a), y.place(low), y.place(high)) for a, low, high in band]),
        *(_line(line.style, [(x.place(a), y.place(b)) for a, b in line.points if math.isfinite(b)]) for line in lines),
    ]
    return Markup("".join([*parts, "</svg>"]))


def _line(style: str, points: list[Point]) -> str:
    if not points:
        return ""
    path = "M" + "L".join(f"{a} {b}" for a, b in points)
    # few points are marked one by one
    dots = [] if style == "guide" else points if len(points) <= 15 else points[-1:]
    marks = "".join(f'<circle class="{style}" cx="{a}" cy="{b}" r="2.5"/>' for a, b in dots)
    return f'<path class="{style}" d="{path}"/>{marks}'


def _band(points: list[tuple[float, float, float]]) -> str:
    if not points:
        return ""
    edge = [f"{a} {low}" for a, low, _ in points] + [f"{a} {high}" for a, _, high in reversed(points)]
    return f'<path class="band" d="M{"L".join(edge)}Z"/>'


def _apart(axis: CurveAxis) -> list[tuple[float, float]]:
    """The ticks of the x axis with their places, from the last on those that do not touch the one before."""
    found: list[tuple[float, float]] = []
    for tick in reversed(axis.ticks):
        if not found or found[-1][1] - axis.place(tick) >= TICK_WIDTH:
            found.append((tick, axis.place(tick)))
    return found[::-1]


def _some(xs: list[float]) -> list[float]:
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


PEEK = 96
"""side of a picture that is pointed at, in the units of the plane"""


@dataclass(frozen=True)
class Dot:
    """A picture in the plane.

    Args:
        label: its class.
        target: anchor of the mistake that it is; "" for none.
        picture: data URI of a small square one, shown where the dot is pointed at; "" for none.
    """

    x: float
    y: float
    label: str
    target: str
    is_mistake: bool
    picture: str = ""


def scatter(dots: Sequence[Dot], *, title: str) -> Markup:
    """Draw dots coloured by class, the class's name where it is densest, mistakes as rings that lead to them.

    What can be pointed at lies above all else, so that no dot covers a picture.
    """
    if not dots:
        return Markup("")
    width, height, edge = 900, 620, 24
    lows, highs = ([pick(getattr(d, axis) for d in dots) for axis in "xy"] for pick in (min, max))

    def place(x: float, y: float) -> tuple[float, float]:
        across, up = ((v - low) / ((high - low) or 1.0) for v, low, high in zip((x, y), lows, highs, strict=True))
        return round(edge + across * (width - 2 * edge), 1), round(height - edge - up * (height - 2 * edge), 1)

    labels = sorted({dot.label for dot in dots})
    # the golden angle: neighbours in the alphabet have distant hues
    hues = {label: round(k * 137.508) % 360 for k, label in enumerate(labels)}
    groups, names, above = [], [], []
    taken: set[tuple[int, int]] = set()
    for label in labels:
        own = [dot for dot in dots if dot.label == label]
        at = [(dot, *place(dot.x, dot.y)) for dot in own]
        calm = "".join(f'<circle cx="{a}" cy="{b}" r="3"/>' for dot, a, b in at if not dot.is_mistake)
        rings = "".join(f'<circle class="ring" cx="{a}" cy="{b}" r="6"/>' for dot, a, b in at if dot.is_mistake)
        above += [_pointed_at(dot, a, b, width, height) for dot, a, b in at if dot.target or dot.picture]
        groups.append(f'<g style="--hue:{hues[label]}">{calm}{rings}</g>')
        # where the class is densest, in a place that no name has
        found = Counter((int(a / 150), int(b / 20)) for _, a, b in at)
        place_of = min(found, key=lambda cell: (cell in taken, -found[cell], cell))
        taken.add(place_of)
        a, b = 150 * place_of[0] + 75, 20 * place_of[1] + 15
        names.append(f'<text x="{a}" y="{b}" text-anchor="middle">{escape(label[:24])}</text>')
    names = names if len(labels) <= 40 else []
    # a group: what has links in it is no image to screen readers
    begin = f'<svg class="plane" viewBox="0 0 {width} {height}" role="group" aria-label="{escape(title)}">'
    return Markup("".join([begin, *groups, *names, *above, "</svg>"]))


def _pointed_at(dot: Dot, a: float, b: float, width: int, height: int) -> str:
    """A place to point at, which shows the picture and, of a mistake, leads to it."""
    found = f'<circle class="spot" cx="{a}" cy="{b}" r="7"/>'
    if dot.picture:
        left = a + 10 if a + 10 + PEEK < width else a - 10 - PEEK
        top = min(max(b - PEEK / 2, 0), height - PEEK)
        found += (
            f'<image class="peek" x="{left:g}" y="{top:g}" width="{PEEK}" height="{PEEK}" href="{dot.picture}" '
            'aria-hidden="true"/>'
        )
    if dot.target:
        return f'<a href="#{dot.target}" aria-label="a mistake: {escape(dot.label)}">{found}</a>'
    return f'<g class="seen">{found}</g>'

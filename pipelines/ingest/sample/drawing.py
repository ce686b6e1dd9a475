"""Smooth curves through hand-set points, and drawings in millimetres that a camera projects to pixels."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from math import cos, pi, sin, sqrt

import numpy as np
from PIL import ImageDraw

from pipelines.ingest.sample.models import Anchor, Colour, PartDrawing, catalogue

Point = tuple[float, float]

POINTS_PER_HALF = 44
"""so that a body of 450 mm is drawn in steps of about 15 mm: no visible corners at 512 px"""


def curve(anchors: tuple[Anchor, ...], steps: int) -> list[Point]:
    """The closed shape through `anchors`: centripetal Catmull-Rom splines between corners.

    Centripetal (Yuksel, Schaefer, Keyser 2009), because the plain kind makes loops where points lie close together.

    Args:
        anchors: (x, y) or (x, y, corner), millimetres; the first and the last are corners.
        steps: points drawn per pair of anchors.
    """
    spots = [(float(a[0]), float(a[1])) for a in anchors]
    corner = [len(a) == 3 for a in anchors]
    corner[0] = corner[-1] = True
    points = [spots[0]]
    for i in range(len(spots) - 1):
        here, there = spots[i], spots[i + 1]
        before = _reflect(there, here) if corner[i] else spots[i - 1]
        after = _reflect(here, there) if corner[i + 1] else spots[i + 2]
        points += _piece(before, here, there, after, steps)
    return points


def _reflect(point: Point, centre: Point) -> Point:
    return (2 * centre[0] - point[0], 2 * centre[1] - point[1])


def _piece(a: Point, b: Point, c: Point, d: Point, steps: int) -> list[Point]:
    """`steps` points after b up to and with c (Barry and Goldman's pyramid)."""
    t1 = _root_distance(a, b)
    t2 = t1 + _root_distance(b, c)
    t3 = t2 + _root_distance(c, d)
    points = []
    for step in range(1, steps + 1):
        t = t1 + (t2 - t1) * step / steps
        ab = _mix(a, b, t / t1)
        bc = _mix(b, c, (t - t1) / (t2 - t1))
        cd = _mix(c, d, (t - t2) / (t3 - t2))
        points.append(_mix(_mix(ab, bc, t / t2), _mix(bc, cd, (t - t1) / (t3 - t1)), (t - t1) / (t2 - t1)))
    return points


def _root_distance(a: Point, b: Point) -> float:
    return max(sqrt(sqrt((a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2)), 1e-3)


def _mix(a: Point, b: Point, t: float) -> Point:
    return (a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t)


def evenly(points: list[Point], count: int) -> list[Point]:
    """`count` points at equal distances along the open line through `points`, ends included."""
    reach = [0.0]
    for a, b in pairwise(points):
        reach.append(reach[-1] + sqrt((a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2))
    result, i = [], 0
    for step in range(count):
        target = reach[-1] * step / (count - 1)
        while i < len(points) - 2 and reach[i + 1] < target:
            i += 1
        length = reach[i + 1] - reach[i]
        result.append(_mix(points[i], points[i + 1], min(1.0, (target - reach[i]) / length) if length else 0.0))
    return result


def _halves(points: list[Point], count: int) -> tuple[Point, ...]:
    """The outline as two halves of `count` points, split at its lowest point near the middle: what makes two bodies
    comparable point by point."""
    bottom = max(range(len(points)), key=lambda i: points[i][1] - abs(points[i][0]) * 2)
    return (*evenly(points[: bottom + 1], count)[:-1], *evenly(points[bottom:], count))


@lru_cache(maxsize=64)
def outline(model: str) -> tuple[Point, ...]:
    """The body of `model`: 2 x POINTS_PER_HALF - 1 points, bass side first, millimetres."""
    return _halves(curve(catalogue().bodies[model], 8), POINTS_PER_HALF)


@lru_cache(maxsize=64)
def guard(model: str) -> tuple[Point, ...]:
    """The pickguard of `model`: 120 points, millimetres."""
    points = curve(catalogue().guards[model], 8)
    return tuple(evenly([*points, points[0]], 121)[:-1])


@lru_cache(maxsize=64)
def headstock(kind: str) -> tuple[Point, ...]:
    """The headstock: (x, y) from the middle of the nut, millimetres."""
    return tuple(curve(catalogue().headstocks[kind], 3))


def between(a: tuple[Point, ...], b: tuple[Point, ...], t: float) -> tuple[Point, ...]:
    """The shape that is a at t = 0 and b at t = 1, point by point."""
    if t == 0:
        return a
    return tuple(_mix(p, q, t) for p, q in zip(a, b, strict=True))


@dataclass(frozen=True)
class Camera:
    """From millimetres on the guitar to pixels on the canvas: mirror, turn, tilt, scale, shift.

    Args:
        side: of the square canvas, pixels.
        scale: pixels a millimetre, at the centre.
        turn: clockwise, degrees.
        centre: the point of the guitar (mm) that comes to `place`.
        place: on the canvas, as fractions of its side.
        tilt: how much nearer the guitar comes along its own x and y, per millimetre (perspective).
        left_handed: mirrored.
    """

    side: int
    scale: float
    turn: float
    centre: Point
    place: Point
    tilt: Point
    left_handed: bool

    def project(self, points: Sequence[Point]) -> list[int]:
        """x0, y0, x1, y1, … whole pixels. Elementwise arithmetic only: every CPU rounds it the same."""
        xy = np.array(points, dtype=np.float64).reshape(-1, 2)
        x = xy[:, 0] - self.centre[0]
        y = xy[:, 1] - self.centre[1]
        if self.left_handed:
            x = -x
        depth = self.scale / (1.0 + x * self.tilt[0] + y * self.tilt[1])
        # rounded: the last digit of sin and cos is the maths library's own
        c, s = round(cos(self.turn * pi / 180), 9), round(sin(self.turn * pi / 180), 9)
        result = np.empty((len(xy), 2))
        result[:, 0] = (x * c - y * s) * depth + self.place[0] * self.side
        result[:, 1] = (x * s + y * c) * depth + self.place[1] * self.side
        whole: list[int] = np.floor(result + 0.5).astype(np.int64).ravel().tolist()
        return whole


@lru_cache(maxsize=16)
def _circle(corners: int) -> tuple[Point, ...]:
    return tuple((round(cos(2 * pi * i / corners), 9), round(sin(2 * pi * i / corners), 9)) for i in range(corners))


class Strokes:
    """Polygons, lines and discs, in the order in which they are painted.

    Args:
        pixel: what a canvas pixel measures on the guitar, millimetres: smaller things are left out.
    """

    def __init__(self, pixel: float) -> None:
        self.pixel = pixel
        self._points: list[Point] = []
        self._items: list[tuple[int, Colour, float]] = []  # end in _points, colour, line width; 0: polygon, < 0: disc

    def shows(self, size: float) -> bool:
        """Whether something of `size` millimetres is worth painting."""
        return size >= 0.5 * self.pixel

    def polygon(self, points: Sequence[Point], colour: Colour) -> None:
        self._points += points
        self._items.append((len(self._points), colour, 0.0))

    def line(self, points: Sequence[Point], colour: Colour, width: float) -> None:
        self._points += points
        self._items.append((len(self._points), colour, width))

    def disc(self, x: float, y: float, radius: float, colour: Colour) -> None:
        if not self.shows(radius):
            return
        if radius < 3 * self.pixel:  # an ellipse of Pillow's own costs less than a polygon
            self._points.append((x, y))
            self._items.append((len(self._points), colour, -radius))
        else:
            self.polygon([(x + radius * c, y + radius * s) for c, s in _circle(24)], colour)

    def box(self, x: float, y: float, width: float, height: float, colour: Colour, turn: float = 0.0) -> None:
        """A rectangle around (x, y), turned by `turn`: the tangent of the angle, small."""
        w, h = width / 2, height / 2
        corners = ((-w, -h), (w, -h), (w, h), (-w, h))
        self.polygon([(x + a - b * turn, y + b + a * turn) for a, b in corners], colour)

    def pill(self, x: float, y: float, width: float, height: float, colour: Colour, turn: float = 0.0) -> None:
        """A rectangle with round ends."""
        if not self.shows(height):
            return
        w, h = width / 2, height / 2
        k = min(h, w) * 0.45
        outline = (
            (-w, -h + k), (-w + k, -h), (w - k, -h), (w, -h + k), (w, h - k), (w - k, h), (-w + k, h), (-w, h - k),
        )  # fmt: skip
        self.polygon([(x + a - b * turn, y + b + a * turn) for a, b in outline], colour)

    def part(self, operations: PartDrawing) -> None:
        """A pickup, bridge or set of controls, as the catalogue has it."""
        for name, *arguments in operations:
            getattr(self, name)(*arguments)

    def paint(self, draw: ImageDraw.ImageDraw, camera: Camera) -> None:
        """Paint everything on `draw`, an RGB canvas."""
        flat = camera.project(self._points)
        start = 0
        for end, colour, width in self._items:
            xy = flat[2 * start : 2 * end]
            if width == 0:
                draw.polygon(xy, fill=colour)
            elif width > 0:
                draw.line(xy, fill=colour, width=max(1, int(width * camera.scale + 0.5)))
            else:
                r = int(-width * camera.scale + 0.5)
                draw.ellipse((xy[0] - r, xy[1] - r, xy[0] + r, xy[1] + r), fill=colour)
            start = end


def shade(colour: Colour, percent: int) -> Colour:
    """`colour` darker (below 100) or lighter (above)."""
    return (
        min(255, colour[0] * percent // 100),
        min(255, colour[1] * percent // 100),
        min(255, colour[2] * percent // 100),
    )

"""A drawing in millimetres that is projected and painted at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import cos, pi, sin

import numpy as np
from PIL import ImageDraw

from pipelines.ingest.sample.models import Colour
from pipelines.ingest.sample.shapes import Point


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

    def box(self, x: float, y: float, width: float, height: float, colour: Colour, *, turn: float = 0.0) -> None:
        """A rectangle around (x, y), turned by `turn`: the tangent of the angle, small."""
        w, h = width / 2, height / 2
        corners = ((-w, -h), (w, -h), (w, h), (-w, h))
        self.polygon([(x + a - b * turn, y + b + a * turn) for a, b in corners], colour)

    def pill(self, x: float, y: float, width: float, height: float, colour: Colour, *, turn: float = 0.0) -> None:
        """A rectangle with round ends."""
        if not self.shows(height):
            return
        w, h = width / 2, height / 2
        k = min(h, w) * 0.45
        outline = (
            (-w, -h + k),
            (-w + k, -h),
            (w - k, -h),
            (w, -h + k),
            (w, h - k),
            (w - k, h),
            (-w + k, h),
            (-w, h - k),
        )
        self.polygon([(x + a - b * turn, y + b + a * turn) for a, b in outline], colour)

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

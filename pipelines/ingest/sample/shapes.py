"""Smooth curves through hand-set points, and shapes half-way between two of them."""

from functools import lru_cache
from itertools import pairwise
from math import sqrt

from pipelines.ingest.sample.outlines import GUARDS, HEADSTOCKS, OUTLINES, Anchor

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
    return _halves(curve(OUTLINES[model], 8), POINTS_PER_HALF)


@lru_cache(maxsize=64)
def guard(model: str) -> tuple[Point, ...]:
    """The pickguard of `model`: 120 points, millimetres."""
    points = curve(GUARDS[model], 8)
    return tuple(evenly([*points, points[0]], 121)[:-1])


@lru_cache(maxsize=64)
def headstock(kind: str) -> tuple[Point, ...]:
    """The headstock: (x, y) from the middle of the nut, millimetres."""
    return tuple(curve(HEADSTOCKS[kind], 3))


def between(a: tuple[Point, ...], b: tuple[Point, ...], t: float) -> tuple[Point, ...]:
    """The shape that is a at t = 0 and b at t = 1, point by point."""
    if t == 0:
        return a
    return tuple(_mix(p, q, t) for p, q in zip(a, b, strict=True))

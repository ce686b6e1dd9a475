"""The 13 models as data: `outlines.json` says what each may carry and in which colours, and how every part is drawn.

All coordinates are millimetres on the guitar: x = 0 is the middle of the strings, y = 0 the bridge, and the neck points
to negative y, as on a guitar that hangs on a wall, with the bass side left. A body's outline runs from the bass side of
the neck around to its treble side; a third value marks a corner, and a smooth curve joins corners. Headstocks start at
the middle of the nut. Pickups, bridges and controls are lists of `Strokes` operations, in the order of painting.
"""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

Colour = tuple[int, int, int]
Anchor = tuple[float, float] | tuple[float, float, bool]
PartDrawing = tuple[tuple[Any, ...], ...]
"""operations: the name of a method of `Strokes`, and its arguments"""

CLASSES = (
    "Acoustic", "Explorer", "Firebird", "FlyingV", "Hollow", "Jaguar", "Jazzmaster", "LesPaul", "Mustang", "SG",
    "SemiHollow", "Stratocaster", "Telecaster",
)  # fmt: skip


@dataclass(frozen=True)
class GuitarModel:
    """What one model may look like; every tuple lists equally likely options.

    Args:
        scale: nut to bridge, millimetres; frets follow from it.
        num_frets: on the fingerboard.
        headstocks, boards, inlays, pickups, bridges, controls: names of parts.
        guards: colours of the pickguard; "none" where it may be missing.
        palette: name of the finishes.
        holes: "none", "f" or "round".
        binding: how often the body's edge is bound.
    """

    scale: float
    num_frets: int
    headstocks: tuple[str, ...]
    boards: tuple[str, ...]
    inlays: tuple[str, ...]
    pickups: tuple[str, ...]
    bridges: tuple[str, ...]
    controls: tuple[str, ...]
    guards: tuple[str, ...]
    palette: str
    holes: str
    binding: float


@dataclass(frozen=True)
class Finish:
    """The colour of a body.

    Args:
        kind: solid, metallic, wood (grain shows) or burst (dark edge over wood).
        face: colour of the middle.
        ring: colour between middle and edge of a burst.
        edge: colour of the edge of a burst.
    """

    kind: str
    face: Colour
    ring: Colour = (0, 0, 0)
    edge: Colour = (0, 0, 0)


@dataclass(frozen=True)
class GuitarCatalogue:
    """All of `outlines.json`, by name of model or part.

    Args:
        colours: of hardware.
        look_alikes: the nearest models first, each with how far outline and parts may lean to it at difficulty 1.
    """

    colours: dict[str, Colour]
    models: dict[str, GuitarModel]
    look_alikes: dict[str, tuple[tuple[str, float], ...]]
    bodies: dict[str, tuple[Anchor, ...]]
    guards: dict[str, tuple[Anchor, ...]]
    headstocks: dict[str, tuple[Anchor, ...]]
    pickups: dict[str, PartDrawing]
    bridges: dict[str, PartDrawing]
    controls: dict[str, PartDrawing]
    palettes: dict[str, tuple[Finish, ...]]
    guard_colours: dict[str, Colour]
    board_colours: dict[str, Colour]


@lru_cache(maxsize=1)
def catalogue() -> GuitarCatalogue:
    """Read `outlines.json`."""
    found = json.loads(Path(__file__).with_name("outlines.json").read_text(encoding="utf-8"))
    tables = {name: {key: _tuples(value) for key, value in table.items()} for name, table in found.items()}
    for kind in ("pickups", "bridges", "controls"):
        tables[kind] = {name: _tuples(part, tables["colours"]) for name, part in found[kind].items()}
    tables["models"] = {
        name: GuitarModel(**{key: _tuples(value) for key, value in model.items()})
        for name, model in found["models"].items()
    }
    tables["palettes"] = {name: tuple(Finish(*one) for one in palette) for name, palette in tables["palettes"].items()}
    return GuitarCatalogue(**tables)


def _tuples(value: Any, colours: dict[str, Colour] | None = None) -> Any:
    """Lists as tuples, names of `colours` as colours."""
    if isinstance(value, list):
        return tuple(_tuples(one, colours) for one in value)
    return colours.get(value, value) if colours and isinstance(value, str) else value

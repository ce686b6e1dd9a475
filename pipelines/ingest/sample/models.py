"""The 13 models: which parts each one carries, in which colours it was sold, and which others look like it."""

from dataclasses import dataclass

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Model:
    """What one model may look like; every tuple lists equally likely options.

    Args:
        scale: nut to bridge, millimetres; frets follow from it.
        num_frets: on the fingerboard.
        headstocks, boards, inlays, pickups, bridges, controls: names of parts (parts.py, hardware.py).
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
    holes: str = "none"
    binding: float = 0.0


_FENDER_GUARDS = ("white", "mint", "parchment", "tortoise", "tortoise", "black")
_ROSEWOOD = ("rosewood", "rosewood", "rosewood", "maple")

MODELS: dict[str, Model] = {
    "Acoustic": Model(
        648, 20, ("flat_top", "slotted"), ("rosewood", "ebony"), ("dot", "dot", "block"), ("none",), ("pins",),
        ("none",), ("black", "tortoise", "tortoise"), "acoustic", "round", 1.0,
    ),
    "Explorer": Model(
        628, 22, ("hockey", "hockey", "v"), ("rosewood", "ebony"), ("dot",), ("humbuckers", "zebras"), ("stop",),
        ("explorer",), ("white", "white", "black", "none"), "gibson", binding=0.1,
    ),
    "Firebird": Model(
        628, 22, ("reverse",), ("rosewood", "ebony"), ("dot", "trapezoid"), ("minis", "minis", "soap_blacks"),
        ("stop", "vibrola"), ("firebird",), ("white", "white", "parchment", "black"), "firebird",
    ),
    "FlyingV": Model(
        628, 22, ("v",), ("rosewood", "ebony"), ("dot",), ("humbuckers", "zebras"), ("stop", "tailpiece_v"),
        ("flying_v",), ("white", "white", "black", "none"), "gibson", binding=0.1,
    ),
    "Hollow": Model(
        628, 20, ("gibson",), ("rosewood", "ebony"), ("trapezoid", "block", "dot"),
        ("humbuckers", "soap_blacks", "neck_p90"), ("trapeze", "trapeze", "bigsby"), ("hollow",),
        ("black", "tortoise", "none"), "hollow", "f", 1.0,
    ),
    "Jaguar": Model(
        610, 22, ("fender",), _ROSEWOOD, ("dot", "dot", "block"), ("claws",), ("offset",), ("jaguar",),
        _FENDER_GUARDS, "fender", binding=0.15,
    ),
    "Jazzmaster": Model(
        648, 21, ("fender",), _ROSEWOOD, ("dot", "dot", "block"), ("soapbars", "soapbars", "soap_blacks"), ("offset",),
        ("jazzmaster",), (*_FENDER_GUARDS, "gold"), "fender", binding=0.15,
    ),
    "LesPaul": Model(
        628, 22, ("gibson",), ("rosewood", "rosewood", "ebony"), ("trapezoid", "trapezoid", "block"),
        ("humbuckers", "humbuckers", "zebras", "p90s"), ("stop", "stop", "bigsby"), ("les_paul",),
        ("cream", "cream", "black", "none"), "les_paul", binding=0.9,
    ),
    "Mustang": Model(
        610, 22, ("fender", "fender_slim"), _ROSEWOOD, ("dot",), ("slanted", "slanted_white"), ("mustang",),
        ("mustang",), ("white", "mint", "parchment", "tortoise", "tortoise"), "fender",
    ),
    "SG": Model(
        628, 22, ("gibson",), ("rosewood", "ebony"), ("trapezoid", "dot", "block"),
        ("humbuckers", "zebras", "p90s"), ("stop", "vibrola"), ("sg",), ("black", "black", "black", "white"), "gibson",
    ),
    "SemiHollow": Model(
        628, 22, ("gibson",), ("rosewood", "ebony"), ("dot", "block", "trapezoid"), ("humbuckers", "zebras"),
        ("stop", "stop", "bigsby", "trapeze"), ("semi",), ("black", "black", "tortoise", "none"), "hollow", "f", 1.0,
    ),
    "Stratocaster": Model(
        648, 21, ("fender",), ("rosewood", "maple"), ("dot",), ("singles", "singles", "singles_hss"), ("tremolo",),
        ("strat",), ("white", "white", "mint", "parchment", "black", "tortoise"), "fender",
    ),
    "Telecaster": Model(
        648, 21, ("fender_slim",), ("maple", "maple", "rosewood"), ("dot",), ("tele", "tele", "tele_neck_hb"),
        ("ashtray",), ("tele",), ("white", "white", "black", "mint", "tortoise", "parchment"), "tele", binding=0.25,
    ),
}  # fmt: skip

CLASSES = tuple(sorted(MODELS))

LOOK_ALIKES: dict[str, tuple[tuple[str, float], ...]] = {
    # the nearest first; how far outline and parts may melt into it at difficulty 1
    "Acoustic": (("Hollow", 0.6),),
    "Explorer": (("Firebird", 0.35), ("FlyingV", 0.25)),
    "Firebird": (("Explorer", 0.35),),
    "FlyingV": (("Explorer", 0.25),),
    "Hollow": (("SemiHollow", 1.0), ("SemiHollow", 1.0), ("LesPaul", 0.7)),
    "Jaguar": (("Jazzmaster", 1.0), ("Mustang", 0.9)),
    "Jazzmaster": (("Jaguar", 1.0), ("Jaguar", 1.0), ("Mustang", 0.8)),
    "LesPaul": (("Hollow", 0.7), ("SemiHollow", 0.6)),
    "Mustang": (("Jaguar", 0.9), ("Jazzmaster", 0.8)),
    "SG": (("LesPaul", 0.5), ("SemiHollow", 0.4)),
    "SemiHollow": (("Hollow", 1.0), ("Hollow", 1.0), ("LesPaul", 0.6)),
    "Stratocaster": (("Telecaster", 0.9), ("Jazzmaster", 0.6)),
    "Telecaster": (("Stratocaster", 0.9), ("LesPaul", 0.5)),
}


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


def _solid(*colours: Colour) -> tuple[Finish, ...]:
    return tuple(Finish("solid", colour) for colour in colours)


BLACK, OLYMPIC, VINTAGE = (24, 23, 25), (236, 234, 222), (232, 214, 160)
FIESTA, CHERRY, WINE, SONIC = (214, 62, 48), (150, 24, 28), (104, 18, 28), (136, 188, 196)
SURF, DAPHNE, SHELL, SEAFOAM = (150, 206, 184), (120, 176, 206), (236, 178, 172), (120, 172, 150)
THREE_TONE = Finish("burst", (222, 142, 50), (146, 40, 22), (28, 16, 14))
TWO_TONE = Finish("burst", (224, 158, 66), (120, 62, 26), (30, 20, 16))
TOBACCO = Finish("burst", (206, 126, 48), (110, 52, 22), (26, 18, 16))
CHERRY_BURST = Finish("burst", (232, 150, 56), (206, 70, 40), (150, 26, 30))
HONEY_BURST = Finish("burst", (226, 154, 60), (190, 100, 40), (124, 58, 28))
NATURAL, SPRUCE = Finish("wood", (214, 168, 104)), Finish("wood", (228, 190, 130))
MAHOGANY, CHERRY_WOOD, WALNUT = (Finish("wood", c) for c in ((112, 54, 34), (142, 30, 30), (92, 58, 38)))
METAL = tuple(
    Finish("metallic", c)
    for c in ((40, 92, 148), (140, 28, 42), (176, 178, 182), (196, 156, 84), (38, 92, 78), (98, 104, 116))
)

PALETTES: dict[str, tuple[Finish, ...]] = {
    "fender": (
        *_solid(BLACK, OLYMPIC, VINTAGE, FIESTA, SONIC, SURF, DAPHNE, SHELL, SEAFOAM, (34, 62, 48)),
        THREE_TONE, THREE_TONE, THREE_TONE, TWO_TONE, NATURAL, *METAL[:3],
    ),
    "tele": (
        *_solid(BLACK, OLYMPIC, (226, 190, 116), (226, 190, 116), FIESTA, SONIC, SURF, VINTAGE),
        THREE_TONE, TWO_TONE, NATURAL, NATURAL, CHERRY_BURST, *METAL[:2],
    ),
    "gibson": (
        *_solid(BLACK, BLACK, OLYMPIC, VINTAGE, CHERRY), CHERRY_WOOD, CHERRY_WOOD, MAHOGANY, WALNUT, NATURAL, TOBACCO,
        METAL[2], METAL[0],
    ),
    "firebird": (
        TOBACCO, TOBACCO, THREE_TONE, TWO_TONE, CHERRY_WOOD, MAHOGANY, METAL[0], METAL[2], *_solid(OLYMPIC, BLACK),
    ),
    "les_paul": (
        CHERRY_BURST, CHERRY_BURST, HONEY_BURST, HONEY_BURST, TOBACCO, METAL[3], WALNUT, CHERRY_WOOD,
        *_solid(BLACK, BLACK, OLYMPIC, WINE),
    ),
    "hollow": (
        CHERRY_WOOD, CHERRY_WOOD, TOBACCO, TOBACCO, THREE_TONE, HONEY_BURST, CHERRY_BURST, NATURAL, SPRUCE, WALNUT,
        *_solid(BLACK, OLYMPIC, WINE),
    ),
    "acoustic": (SPRUCE, SPRUCE, SPRUCE, NATURAL, TOBACCO, THREE_TONE, HONEY_BURST, MAHOGANY, *_solid(BLACK)),
}  # fmt: skip

GUARD_COLOURS: dict[str, Colour] = {
    "white": (240, 240, 236),
    "mint": (222, 234, 210),
    "parchment": (236, 226, 196),
    "cream": (234, 218, 170),
    "black": (26, 26, 28),
    "tortoise": (104, 32, 24),
    "gold": (206, 174, 104),
}

BOARD_COLOURS: dict[str, Colour] = {"rosewood": (64, 40, 30), "ebony": (32, 28, 28), "maple": (222, 178, 108)}

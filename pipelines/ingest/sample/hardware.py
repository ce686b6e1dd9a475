"""Pickups, bridges and controls, each drawn where it sits on the real guitar (mm; bridge at y = 0)."""

from collections.abc import Callable

from pipelines.ingest.sample.models import Colour
from pipelines.ingest.sample.strokes import Strokes, shade

CHROME: Colour = (192, 196, 202)
STEEL: Colour = (142, 146, 152)
DARK: Colour = (30, 30, 32)
WHITE: Colour = (240, 239, 232)
CREAM: Colour = (230, 216, 172)
BROWN: Colour = (58, 38, 28)
GOLD: Colour = (206, 168, 92)


def _poles(s: Strokes, y: float, spread: float, colour: Colour, *, turn: float = 0.0, radius: float = 2.6) -> None:
    if s.shows(radius):
        for i in range(6):
            x = spread * (i - 2.5) / 2.5
            s.disc(x, y + x * turn, radius, colour)


def _single(s: Strokes, y: float, cover: Colour, *, turn: float = 0.0) -> None:
    s.pill(1.5, y + 1.5, 80, 19, (60, 58, 56), turn=turn)
    s.pill(0, y, 80, 18, cover, turn=turn)
    _poles(s, y, 26, STEEL, turn=turn)


def _humbucker(s: Strokes, y: float, cover: Colour, ring: Colour, *, zebra: bool = False) -> None:
    s.box(0, y, 90, 46, ring)
    if zebra:
        s.box(0, y - 9, 70, 18, CREAM)
        s.box(0, y + 9, 70, 18, DARK)
        _poles(s, y - 9, 25, STEEL)
    else:
        s.box(0, y, 72, 38, cover)
        s.box(0, y - 16, 72, 5, shade(cover, 118))
        _poles(s, y - 9, 25, shade(cover, 60))


def _soapbar(s: Strokes, y: float, cover: Colour, *, wide: float = 94, high: float = 42) -> None:
    s.pill(1.5, y + 2, wide, high, (50, 46, 44))
    s.pill(0, y, wide, high, cover)
    _poles(s, y, 27, shade(cover, 62) if cover[0] > 90 else STEEL, radius=3)


def _claw(s: Strokes, y: float) -> None:
    s.box(0, y, 92, 30, CHROME)
    for x in (-40, -24, -8, 8, 24, 40):
        s.box(x, y + 12, 6, 8, DARK)
    _single(s, y, WHITE)


def singles(s: Strokes) -> None:
    _single(s, -160, WHITE)
    _single(s, -104, WHITE)
    _single(s, -42, WHITE, turn=-0.16)


def singles_hss(s: Strokes) -> None:
    _single(s, -160, DARK)
    _single(s, -104, DARK)
    s.box(0, -40, 76, 38, DARK)
    _poles(s, -50, 25, CHROME)
    _poles(s, -31, 25, CHROME)


def tele(s: Strokes) -> None:
    s.pill(0, -150, 70, 18, CHROME)
    s.pill(0, -152, 66, 6, shade(CHROME, 120))


def tele_neck_hb(s: Strokes) -> None:
    _humbucker(s, -144, CHROME, CHROME)


def humbuckers(s: Strokes) -> None:
    _humbucker(s, -142, CHROME, CREAM)
    _humbucker(s, -42, CHROME, CREAM)


def zebras(s: Strokes) -> None:
    _humbucker(s, -142, DARK, DARK, zebra=True)
    _humbucker(s, -42, DARK, DARK, zebra=True)


def minis(s: Strokes) -> None:
    for y in (-136, -44):
        s.box(0, y, 80, 38, DARK)
        s.box(0, y, 68, 28, CHROME)
        s.box(0, y - 10, 68, 4, WHITE)


def p90s(s: Strokes) -> None:
    _soapbar(s, -142, CREAM, wide=88, high=44)
    _soapbar(s, -42, CREAM, wide=88, high=44)


def soapbars(s: Strokes) -> None:
    _soapbar(s, -150, WHITE)
    _soapbar(s, -52, WHITE)


def soap_blacks(s: Strokes) -> None:
    _soapbar(s, -146, DARK)
    _soapbar(s, -50, DARK)


def neck_p90(s: Strokes) -> None:
    _soapbar(s, -128, DARK, wide=100, high=36)


def claws(s: Strokes) -> None:
    _claw(s, -138)
    _claw(s, -44)


def slanted(s: Strokes) -> None:
    _slanted(s, DARK)


def slanted_white(s: Strokes) -> None:
    _slanted(s, WHITE)


def _slanted(s: Strokes, cover: Colour) -> None:
    for y, turn in ((-118, 0.2), (-42, 0.2)):
        s.pill(1.5, y + 2, 80, 20, (70, 68, 64), turn=turn)
        s.pill(0, y, 80, 19, cover, turn=turn)


def no_part(s: Strokes) -> None:
    """Nothing is drawn."""


def tremolo(s: Strokes) -> None:
    s.pill(0, 6, 84, 40, CHROME)
    for i in range(6):
        s.box(-26 + i * 10.4, 2, 8, 24, STEEL)
    s.line([(40, 4), (72, -36), (80, -90)], CHROME, 5)
    s.pill(80, -98, 9, 26, WHITE)


def ashtray(s: Strokes) -> None:
    s.box(0, -22, 84, 88, CHROME)
    s.box(-40, -22, 4, 88, shade(CHROME, 118))
    s.pill(0, -40, 72, 20, DARK, turn=-0.2)
    _poles(s, -40, 26, CHROME, turn=-0.2)
    for x in (-22, 0, 22):
        s.box(x, 4, 18, 26, GOLD)


def offset(s: Strokes) -> None:
    s.pill(0, 0, 92, 20, STEEL)
    s.box(0, 0, 76, 11, shade(CHROME, 115))
    s.polygon([(-34, 46), (34, 46), (46, 118), (34, 130), (-34, 130), (-46, 118)], CHROME)
    s.polygon([(-34, 46), (34, 46), (36, 58), (-36, 58)], shade(CHROME, 80))
    s.disc(0, 96, 8, STEEL)
    s.line([(22, 70), (62, 10), (72, -80)], shade(CHROME, 112), 6)


def mustang(s: Strokes) -> None:
    s.pill(0, 22, 112, 74, CHROME)
    s.box(0, 0, 88, 18, STEEL)
    s.pill(0, 40, 92, 12, shade(CHROME, 118))
    s.box(0, 54, 104, 5, shade(CHROME, 60))
    s.line([(38, 40), (58, 0), (64, -56)], CHROME, 6)


def stop(s: Strokes) -> None:
    _tune_o_matic(s)
    s.pill(1, 46, 108, 19, (50, 46, 44))
    s.pill(0, 44, 106, 16, CHROME)
    s.box(0, 41, 92, 4, WHITE)


def _tune_o_matic(s: Strokes) -> None:
    s.pill(1, 2, 98, 16, (50, 46, 44))
    s.pill(0, 0, 96, 13, CHROME)
    s.box(0, 1, 68, 6, STEEL)


def vibrola(s: Strokes) -> None:
    _tune_o_matic(s)
    s.polygon([(-44, 46), (44, 46), (34, 84), (30, 168), (-30, 168), (-34, 84)], CHROME)
    s.polygon([(-44, 46), (44, 46), (40, 62), (-40, 62)], shade(CHROME, 120))
    s.line([(20, 70), (58, 40), (78, -60)], CHROME, 6)


def tailpiece_v(s: Strokes) -> None:
    _tune_o_matic(s)
    s.polygon([(-38, 40), (38, 40), (8, 104), (-8, 104)], CHROME)


def trapeze(s: Strokes) -> None:
    s.pill(1, 3, 130, 20, (40, 30, 26))
    s.pill(0, 0, 128, 16, BROWN)
    s.box(0, -2, 86, 5, CHROME)
    s.pill(0, 104, 74, 15, CHROME)
    s.line([(-24, 108), (-14, 200), (-10, 232)], CHROME, 5)
    s.line([(24, 108), (14, 200), (10, 232)], CHROME, 5)
    s.box(0, 222, 26, 30, CHROME)


def bigsby(s: Strokes) -> None:
    _tune_o_matic(s)
    s.polygon([(-56, 66), (56, 66), (52, 100), (18, 130), (14, 186), (-14, 186), (-18, 130), (-52, 100)], CHROME)
    s.pill(0, 78, 118, 14, STEEL)
    s.polygon([(-20, 104), (20, 104), (8, 140), (-8, 140)], DARK)
    s.line([(46, 84), (74, 50), (84, -30)], CHROME, 7)


def pins(s: Strokes) -> None:
    s.polygon([(-78, 2), (-50, -8), (50, -8), (78, 2), (78, 14), (50, 26), (-50, 26), (-78, 14)], (44, 30, 24))
    s.box(0, -2, 74, 5, WHITE)
    _poles(s, 14, 28, WHITE, radius=3.2)


def _knob(s: Strokes, x: float, y: float, colour: Colour, radius: float = 12) -> None:
    s.disc(x + 1.5, y + 2, radius, (36, 32, 30))
    s.disc(x, y, radius, colour)
    s.disc(x, y, radius * 0.6, shade(colour, 84 if colour[0] > 90 else 180))


def _jack(s: Strokes, x: float, y: float) -> None:
    s.disc(x, y, 9, CHROME)
    s.disc(x, y, 4.5, DARK)


def strat(s: Strokes) -> None:
    for x, y in ((76, 6), (96, 40), (116, 72)):
        _knob(s, x, y, WHITE)
    s.box(78, -34, 5, 26, DARK, turn=0.4)
    s.pill(84, 106, 56, 26, CHROME, turn=0.55)
    s.disc(84, 106, 6, DARK)


def tele_plate(s: Strokes) -> None:
    s.pill(86, 28, 34, 158, CHROME)
    s.box(86, -26, 5, 26, DARK)
    _knob(s, 86, 22, CHROME, 11)
    _knob(s, 86, 68, CHROME, 11)


def jazzmaster(s: Strokes) -> None:
    _knob(s, 82, 20, WHITE, 13)
    _knob(s, 104, 66, WHITE, 13)
    _jack(s, 132, 100)
    s.disc(86, -150, 6, CHROME)
    s.box(-94, -208, 9, 26, DARK, turn=-0.35)
    for y in (-176, -160):
        s.disc(-92, y, 5, WHITE)


def jaguar(s: Strokes) -> None:
    s.polygon([(-82, -214), (-116, -262), (-126, -232), (-120, -180), (-100, -118), (-86, -130)], CHROME)
    for y in (-220, -190, -160):
        s.box(-106, y, 8, 16, DARK)
    s.polygon([(74, -150), (98, -144), (104, -110), (96, -80), (72, -86), (68, -118)], CHROME)
    for y in (-132, -115, -98):
        s.box(86, y, 14, 7, DARK)
    s.polygon([(62, 24), (82, 0), (150, 96), (146, 128), (124, 128)], CHROME)
    _knob(s, 88, 40, DARK)
    _knob(s, 110, 74, DARK)
    _jack(s, 132, 108)


def mustang_plate(s: Strokes) -> None:
    s.polygon([(70, -6), (92, -16), (130, 70), (124, 106), (106, 108)], shade(DARK, 120))
    _knob(s, 92, 14, DARK)
    _knob(s, 106, 48, DARK)
    _jack(s, 118, 84)
    for y in (-100, -52):
        s.box(-62, y, 8, 24, DARK)


def _four(s: Strokes, spots: tuple[tuple[float, float], ...], colour: Colour) -> None:
    for x, y in spots:
        _knob(s, x, y, colour)


def les_paul(s: Strokes) -> None:
    _four(s, ((78, 46), (116, 68), (70, 98), (108, 122)), GOLD)
    s.disc(-100, -180, 22, CREAM)
    s.disc(-100, -180, 6, CHROME)


def sg(s: Strokes) -> None:
    _four(s, ((86, 54), (126, 48), (82, 98), (122, 96)), DARK)
    s.disc(92, 20, 8, CREAM)
    _jack(s, 78, 142)


def flying_v(s: Strokes) -> None:
    _four(s, ((66, 36), (92, 84), (118, 132)), DARK)
    s.disc(54, -16, 6, CREAM)


def explorer(s: Strokes) -> None:
    _four(s, ((76, 68), (92, 106), (108, 144)), GOLD)
    s.disc(148, -172, 8, CREAM)


def firebird(s: Strokes) -> None:
    _four(s, ((72, 76), (108, 70), (84, 116), (118, 112)), GOLD)
    s.disc(66, 40, 6, CREAM)


def semi(s: Strokes) -> None:
    _four(s, ((106, 70), (148, 84), (86, 116), (128, 132)), DARK)
    s.disc(84, 38, 6, CREAM)
    _jack(s, 84, 176)


def hollow(s: Strokes) -> None:
    _four(s, ((112, 76), (150, 96), (98, 124), (134, 146)), GOLD)
    s.disc(-108, -176, 8, CREAM)


PICKUPS: dict[str, Callable[[Strokes], None]] = {
    "singles": singles, "singles_hss": singles_hss, "tele": tele, "tele_neck_hb": tele_neck_hb,
    "humbuckers": humbuckers, "zebras": zebras, "minis": minis, "p90s": p90s, "soapbars": soapbars,
    "soap_blacks": soap_blacks, "neck_p90": neck_p90, "claws": claws, "slanted": slanted,
    "slanted_white": slanted_white, "none": no_part,
}  # fmt: skip

BRIDGES: dict[str, Callable[[Strokes], None]] = {
    "tremolo": tremolo, "ashtray": ashtray, "offset": offset, "mustang": mustang, "stop": stop, "vibrola": vibrola,
    "tailpiece_v": tailpiece_v, "trapeze": trapeze, "bigsby": bigsby, "pins": pins,
}  # fmt: skip

CONTROLS: dict[str, Callable[[Strokes], None]] = {
    "strat": strat, "tele": tele_plate, "jazzmaster": jazzmaster, "jaguar": jaguar, "mustang": mustang_plate,
    "les_paul": les_paul, "sg": sg, "flying_v": flying_v, "explorer": explorer, "firebird": firebird, "semi": semi,
    "hollow": hollow, "none": no_part,
}  # fmt: skip

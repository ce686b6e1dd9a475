"""One guitar: which parts this very picture's instrument has, and how they are painted."""

from dataclasses import dataclass
from typing import TypeVar

from PIL import Image, ImageDraw, ImageFilter

from pipelines.ingest.sample.dice import Dice
from pipelines.ingest.sample.drawing import Camera, Point, Strokes, between, guard, headstock, outline, shade
from pipelines.ingest.sample.models import Colour, Finish, catalogue

T = TypeVar("T")

CHROME, CREAM, DARK, WHITE = (192, 196, 202), (230, 216, 172), (30, 30, 32), (240, 239, 232)


@dataclass(frozen=True)
class GuitarLook:
    """The guitar of one picture: one option of every part, and shapes that may lean towards a look-alike.

    Args:
        body, guard_shape: outlines, millimetres.
        guard: colour of the pickguard by name, "none" without one.
        scale: nut to bridge, millimetres.
    """

    body: tuple[Point, ...]
    guard_shape: tuple[Point, ...]
    guard: str
    scale: float
    num_frets: int
    headstock: str
    matching_head: bool
    board: str
    inlay: str
    pickups: str
    bridge: str
    controls: str
    holes: str
    binding: bool
    finish: Finish


def look(model: str, dice: Dice, difficulty: float) -> GuitarLook:
    """Choose the parts of one guitar of `model`.

    At difficulty 0 every part and line is the model's own. Above, the body leans towards a look-alike, and each part
    is now and then the look-alike's: both by chance, in proportion to `difficulty` and to how close the two are.
    """
    parts = catalogue()
    own = parts.models[model]
    other_name, closeness = dice.pick(parts.look_alikes[model])
    other = parts.models[other_name]
    melt = difficulty * closeness
    swap = 0.25 * melt

    def part(mine: tuple[T, ...], theirs: tuple[T, ...]) -> T:
        # both draws always happen, so that one more swap changes nothing else
        mine_now, theirs_now = dice.pick(mine), dice.pick(theirs)
        return theirs_now if dice.chance(swap) else mine_now

    lean = 0.5 * melt * dice.between(0.0, 1.0)
    return GuitarLook(
        body=between(outline(model), outline(other_name), lean),
        guard_shape=between(guard(model), guard(other_name), lean),
        guard=part(own.guards, other.guards),
        scale=part((own.scale,), (other.scale,)),
        num_frets=own.num_frets,
        headstock=part(own.headstocks, other.headstocks),
        matching_head=dice.chance(0.15),
        board=part(own.boards, other.boards),
        inlay=part(own.inlays, other.inlays),
        pickups=part(own.pickups, other.pickups),
        bridge=part(own.bridges, other.bridges),
        controls=part(own.controls, other.controls),
        holes=part((own.holes,), (other.holes,)),
        binding=dice.chance(part((own.binding,), (other.binding,))),
        finish=dice.pick(part((parts.palettes[own.palette],), (parts.palettes[other.palette],))),
    )


def silhouette(guitar: GuitarLook, camera: Camera, size: int) -> Image.Image:
    """The whole guitar as an L mask of size x size pixels: what casts the shadow."""
    mask = Image.new("L", (size, size), 0)
    draw = ImageDraw.Draw(mask)
    nut = -guitar.scale
    shapes = (
        guitar.body,
        ((-22, nut), (22, nut), (28, -190), (-28, -190)),
        [(x, y + nut) for x, y in headstock("gibson" if guitar.headstock == "slotted" else guitar.headstock)],
    )
    for shape in shapes:
        draw.polygon([v * size // camera.side for v in camera.project(shape)], fill=255)
    return mask


def paint_body(canvas: Image.Image, guitar: GuitarLook, camera: Camera, dice: Dice) -> None:
    """Paint the bare body: finish, grain or burst, rim shadow and a reflection of the light."""
    side = camera.side
    shape = camera.project(guitar.body)
    mask = Image.new("L", (side, side), 0)
    ImageDraw.Draw(mask).polygon(shape, fill=255)
    left, top, right, bottom = mask.getbbox() or (0, 0, side, side)
    mask = mask.crop((left, top, right, bottom))
    width, height = mask.size
    finish = guitar.finish
    face = Image.new("RGB", mask.size, finish.face)
    draw = ImageDraw.Draw(face)
    unit = camera.scale
    if finish.kind in ("wood", "burst"):
        _grain(draw, finish.face, camera, (left, top), dice)
    # the mask, blurred: dark in horns and along the edge, as a burst is sprayed
    coarse = max(1, round(unit * 6))
    small = mask.resize((max(1, width // coarse), max(1, height // coarse)), Image.Resampling.BOX)
    padded = Image.new("L", (small.width + 24, small.height + 24), 0)
    padded.paste(small, (12, 12))
    reach = unit / coarse
    if finish.kind == "burst":
        spread = dice.between(0.85, 1.15)
        wide = padded.filter(ImageFilter.BoxBlur(30 * reach * spread)).filter(ImageFilter.BoxBlur(18 * reach))
        for colour, low, high in ((finish.ring, 205, 252), (finish.edge, 160, 228)):
            face.paste(colour, (0, 0), _ramp(wide, small.size, mask.size, low, high))
    rim = padded.filter(ImageFilter.BoxBlur(7 * reach))
    face.paste(
        shade(finish.face, 30) if finish.kind != "burst" else (8, 6, 5),
        (0, 0),
        _ramp(rim, small.size, mask.size, 100, 232, 150),
    )
    _reflection(face, finish, dice)
    canvas.paste(face, (left, top), mask)
    edge = CREAM if guitar.binding else shade(finish.edge if finish.kind == "burst" else finish.face, 55)
    closed = [*shape, *shape[:2]]
    ImageDraw.Draw(canvas).line(closed, fill=edge, width=max(1, int(unit * (4.5 if guitar.binding else 2))))


def _ramp(
    blurred: Image.Image, inner: tuple[int, int], size: tuple[int, int], low: int, high: int, strength: int = 255
) -> Image.Image:
    """A paste mask from a padded, blurred body: `strength` where it is below `low`, 0 above `high`."""
    table = [strength * (high - min(max(v, low), high)) // (high - low) for v in range(256)]
    cut = blurred.crop((12, 12, 12 + inner[0], 12 + inner[1])).point(table)
    return cut.resize(size, Image.Resampling.BILINEAR)


def _grain(draw: ImageDraw.ImageDraw, colour: Colour, camera: Camera, corner: tuple[int, int], dice: Dice) -> None:
    """Lines along the wood, each a little off its neighbour."""
    if camera.scale < 0.2:
        return
    x = -210.0
    while x < 215:
        bend, tone = dice.between(-7, 7), dice.whole(86, 108)
        line = camera.project([(x, -310), (x + bend, -60), (x - bend, 120), (x + bend, 260)])
        moved = [v - corner[i % 2] for i, v in enumerate(line)]
        draw.line(moved, fill=shade(colour, tone), width=max(1, round(camera.scale * 3)))
        x += dice.between(5, 16)


def _reflection(face: Image.Image, finish: Finish, dice: Dice) -> None:
    """A soft streak of light across the lacquer; on metallic paint a broad sheen."""
    width, height = face.size
    size = 24
    glow = Image.new("L", (size, size), 0)
    at = dice.between(-0.2, 1.0) * size
    broad = 9 if finish.kind == "metallic" else 5
    strength = dice.whole(36, 96)
    slope = dice.pick((-0.6, 0.6, 0.3))
    top, low = int(at), int(at + slope * size)
    ImageDraw.Draw(glow).polygon([top, 0, top + broad, 0, low + broad, size, low, size], fill=strength)
    face.paste(
        (255, 255, 255), (0, 0), glow.filter(ImageFilter.BoxBlur(2)).resize((width, height), Image.Resampling.BILINEAR)
    )


def paint_parts(canvas: Image.Image, guitar: GuitarLook, camera: Camera, dice: Dice) -> None:
    """Paint everything that is screwed to the body, the neck and the strings."""
    s = Strokes(1 / camera.scale)
    _holes(s, guitar)
    if guitar.guard != "none":
        _guard(s, guitar, dice)
    if guitar.holes == "round":
        _sound_hole(s)
    _neck(s, guitar)
    parts = catalogue()
    for drawing in (parts.pickups[guitar.pickups], parts.bridges[guitar.bridge], parts.controls[guitar.controls]):
        s.part(drawing)
    _headstock(s, guitar)
    if s.shows(1.6):
        end = 108 if guitar.bridge == "trapeze" else 90 if guitar.bridge in ("offset", "bigsby") else 2
        for i in range(6):
            x = i - 2.5
            s.line([(x * 6.8, -guitar.scale), (x * 10.4, 0), (x * 10, end)], (186, 180, 168), 0.9)
    s.paint(ImageDraw.Draw(canvas), camera)


def _holes(s: Strokes, guitar: GuitarLook) -> None:
    if guitar.holes != "f":
        return
    for side in (-1, 1):
        stem = ((108, -58), (98, -48), (102, -30), (112, 6), (122, 44), (124, 62), (114, 72))
        s.line([(side * x, y) for x, y in stem], (20, 14, 12), 9)
        s.disc(side * 112, -52, 9, (20, 14, 12))
        s.disc(side * 110, 66, 10, (20, 14, 12))


def _sound_hole(s: Strokes) -> None:
    for radius, colour in ((60, (70, 46, 32)), (57, CREAM), (54, (60, 40, 28)), (50, (24, 17, 14))):
        s.disc(0, -128, radius, colour)


def _guard(s: Strokes, guitar: GuitarLook, dice: Dice) -> None:
    colour = catalogue().guard_colours[guitar.guard]
    s.polygon(guitar.guard_shape, colour)
    if guitar.guard == "tortoise" and s.shows(6):
        for _ in range(26):  # the flames of the celluloid, within the guard: half-way between two of its points
            a, b = dice.pick(guitar.guard_shape), dice.pick(guitar.guard_shape)
            t = dice.between(0.2, 0.8)
            x, y = a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t
            width, height = dice.between(3, 8), dice.between(3, 10)
            s.box(x, y, width, height, dice.pick(((132, 46, 26), (72, 20, 20), (156, 66, 34))), 0.5)
    if s.shows(2):
        rim = (206, 204, 196) if colour[0] > 150 else (222, 218, 206)
        s.line([*guitar.guard_shape, guitar.guard_shape[0]], rim, 2)
        for x, y in guitar.guard_shape[7::15]:
            s.disc(x, y, 2.4, (150, 150, 148))


def _neck(s: Strokes, guitar: GuitarLook) -> None:
    board = catalogue().board_colours[guitar.board]
    nut = -guitar.scale
    end = nut * 0.5 ** ((guitar.num_frets + 0.6) / 12)

    def half(y: float) -> float:
        return 21 + 7.5 * (y - nut) / (guitar.scale * 0.72)

    s.polygon([(-half(nut), nut), (half(nut), nut), (half(end), end), (-half(end), end)], board)
    bound = guitar.inlay in ("block", "trapezoid")
    if s.shows(2.5):
        rim = CREAM if bound else shade(board, 70 if guitar.board == "maple" else 150)
        for side in (-1, 1):
            s.line([(side * half(nut), nut), (side * half(end), end)], rim, 2.2)
    frets = [nut * 0.5 ** (fret / 12) for fret in range(guitar.num_frets + 1)]
    if s.shows(3):
        for y in frets[1:]:
            s.line([(-half(y), y), (half(y), y)], (176, 174, 170) if guitar.board != "maple" else (150, 128, 88), 1.8)
    ink = (46, 36, 30) if guitar.board == "maple" else (232, 228, 214)
    for fret in (3, 5, 7, 9, 12, 15, 17, 19, 21):
        if fret > guitar.num_frets:
            break
        a, b = frets[fret - 1], frets[fret]
        y, gap = (a + b) / 2, b - a
        w = half(y)
        if guitar.inlay == "block":
            s.box(0, y, w * 1.4, gap * 0.62, ink)
        elif guitar.inlay == "trapezoid":
            w, low, high = w * 0.72, gap * 0.22, gap * 0.3
            s.polygon([(-w, y - high), (w, y - low), (w, y + low), (-w, y + high)], ink)
        elif fret == 12:
            s.disc(-w * 0.5, y, 3.4, ink)
            s.disc(w * 0.5, y, 3.4, ink)
        else:
            s.disc(0, y, 3.4, ink)


def _headstock(s: Strokes, guitar: GuitarLook) -> None:
    nut = -guitar.scale
    kind = "gibson" if guitar.headstock == "slotted" else guitar.headstock
    maple = kind.startswith("fender")
    face = (224, 182, 116) if maple else (26, 24, 24)
    if guitar.matching_head and guitar.finish.kind in ("solid", "metallic"):
        face = guitar.finish.face
    tuners: list[Point]
    if maple:
        tuners = [(-44 + i * 2.2, -40 - i * 25) for i in range(6)]
    elif kind == "hockey":
        tuners = [(-38 + i * i * 1.5, -48 - i * 24) for i in range(6)]
    elif kind == "reverse":
        tuners = [(44 - i * 1.6, -48 - i * 24) for i in range(6)]
    else:
        lean = 7 if kind == "v" else -1.5
        tuners = [(side * (50 - i * lean), -62 - i * 40) for i in range(3) for side in (-1, 1)]
    for x, y in tuners:
        s.pill(x, y + nut, 17, 11, CHROME)
    shape = [(x, y + nut) for x, y in headstock(kind)]
    s.polygon(shape, face)
    if s.shows(2):
        s.line([*shape, shape[0]], shade(face, 62 if maple else 220), 1.6)
    if guitar.headstock == "slotted":
        for side in (-1, 1):
            s.pill(side * 17, -105 + nut, 11, 92, (196, 168, 128))
    for x, y in tuners:
        inward = x + (16 if x < 0 else -16)
        s.disc(inward, y + nut, 4.5, CHROME)
    s.box(0, nut, 43, 5, WHITE)
    if s.shows(5):
        if kind == "reverse":
            s.disc(-6, nut - 90, 8, WHITE)
        else:
            s.pill(0, nut - 92, 9, 50, DARK if maple else (214, 196, 150))

"""What training does to pictures: the rules that all changes keep, and each beside the classic way of doing it.

The classic way is tests/pil_reference.py: a picture at a time, Pillow and torchvision.
"""

from typing import Any

import numpy as np
import pil_reference as classic
import pytest
import torch
from PIL import Image, ImageEnhance
from torch.utils._python_dispatch import TorchDispatchMode

from pipelines.core.augmentation import GREY, apply
from pipelines.core.draws import Draws, draw, picture_keys
from pipelines.core.draws.auto import GEOMETRY, RANGES, Op
from pipelines.core.params.augment import OFF, AugmentPolicy, policy_of

KEYS = picture_keys(np.array([f"{i * 7919:064x}"[::-1] for i in range(1000)]))
SEVERAL: dict[str, Any] = {
    **{"flip": 0.5, "flip_vertical": 0.5, "rotation": 30.0, "shift": 0.2, "zoom": 0.5, "shear": 10.0},
    **{"perspective": 0.3, "crop": 0.5, "erase": 0.5, "brightness": 0.5, "contrast": 0.5, "saturation": 0.5},
    **{"hue": 0.1, "blur": {"probability": 0.5, "sigma": 0.03}, "noise": 9.0, "scribble": 0.7},
    **{"jpeg": {"probability": 0.6, "quality": 20}, "auto": {"kind": "randaugment", "num_ops": 3, "magnitude": 15}},
}
STRONG = policy_of(**SEVERAL)
TRIVIAL = policy_of(flip=0.5, auto={"kind": "trivialaugment"})


def photo(size: int = 48, count: int = 1) -> torch.Tensor:
    """(count, 3, size, size): smooth, without symmetry, 0 to 255."""
    y, x = torch.meshgrid(torch.linspace(0, 1, size), torch.linspace(0, 1, size), indexing="ij")
    planes = [x * 200 + 20, y * y * 220, (x * y) * 180 + 40]
    pictures = [torch.stack(planes) * (1.0 - 0.1 * i / max(1, count)) for i in range(count)]
    return torch.stack(pictures).round()


def scene(height: int = 48, width: int = 48, count: int = 2) -> torch.Tensor:
    """(count, 3, H, W): patches of colour with soft edges, and some grain; whole numbers."""
    random = np.random.default_rng(5)
    pictures = []
    for _ in range(count):
        patches = Image.fromarray(random.integers(0, 256, (6, 6, 3), np.uint8)).resize((width, height))
        pictures.append(np.asarray(patches) + random.integers(-3, 4, (height, width, 3)))
    return torch.from_numpy(np.stack(pictures).clip(0, 255)).permute(0, 3, 1, 2).contiguous().float()


def fixed(count: int, **values: Any) -> Draws:
    """Draws of nothing but `values`, the same for all pictures, or one each."""
    draws = vars(draw(policy_of(), seed=0, epoch=0, pictures=KEYS[:count]))
    for name, value in values.items():
        array = np.asarray(value)
        draws[name] = array if array.ndim else np.full(count, value)
    return Draws(**draws)


def change(images: torch.Tensor, chosen: AugmentPolicy, **values: Any) -> torch.Tensor:
    """Apply one known draw to all of `images`."""
    return apply(images, fixed(len(images), **values), chosen)


def one_op(images: torch.Tensor, op: Op, value: float) -> torch.Tensor:
    shape = (len(images), 1)
    return change(images, TRIVIAL, auto_op=np.full(shape, int(op)), auto_value=np.full(shape, value))


def distance(found: torch.Tensor, expected: torch.Tensor, *, border: int = 0) -> float:
    """The largest difference, but for so many pixels at each border."""
    inside = (found - expected)[..., border : found.shape[-2] - border, border : found.shape[-1] - border]
    return inside.abs().max().item()


# what all changes keep ----------------------------------------------------------------------


def test_a_policy_of_nothing_gives_the_same_bits() -> None:
    images = torch.rand(4, 3, 16, 16) * 255
    draws = draw(policy_of(), seed=1, epoch=1, pictures=KEYS[:4])
    assert torch.equal(apply(images, draws, policy_of()), images)


@pytest.mark.parametrize("name", sorted(OFF))
def test_each_change_alone_changes_and_its_neutral_draw_gives_the_same_bits(name: str) -> None:
    """Whatever one more policy computes, a picture that draws nothing keeps its bits."""
    images = scene(count=6)
    chosen = policy_of(**{name: 1.0 if name in ("flip", "flip_vertical", "erase", "scribble") else SEVERAL[name]})
    drawn = apply(images, draw(chosen, seed=1, epoch=1, pictures=KEYS[:6]), chosen)
    assert not torch.equal(drawn, images)
    assert torch.equal(change(images, chosen), images)


@pytest.mark.parametrize("name", ["blur", "jpeg"])
def test_probability_zero_gives_the_same_bits_and_one_changes_every_picture(name: str) -> None:
    images = scene(count=8)
    for probability in (0.0, 1.0):
        chosen = policy_of(**{name: {**SEVERAL[name], "probability": probability}})
        found = apply(images, draw(chosen, seed=1, epoch=1, pictures=KEYS[:8]), chosen)
        same = [torch.equal(after, before) for after, before in zip(found, images, strict=True)]
        assert same == [probability == 0.0] * 8


@pytest.mark.parametrize("size", [16, 33, 64])
@pytest.mark.parametrize("chosen", [STRONG, TRIVIAL], ids=["strong", "trivial"])
def test_a_batch_of_seven_is_seven_batches_of_one_to_the_bit(size: int, chosen: AugmentPolicy) -> None:
    images = scene(size, size, count=7)
    for epoch in range(3):
        draws = draw(chosen, seed=1, epoch=epoch, pictures=KEYS[:7])
        whole = apply(images, draws, chosen)
        alone = [apply(images[i : i + 1], draws.part(i, i + 1), chosen) for i in range(7)]
        assert torch.equal(whole, torch.cat(alone))


def test_how_many_go_through_together_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    images = scene(count=9)
    draws = draw(STRONG, seed=1, epoch=1, pictures=KEYS[:9])
    whole = apply(images, draws, STRONG)
    monkeypatch.setattr("pipelines.core.augmentation.changes.CPU_NUMBERS", 2 * 3 * 48 * 48)
    assert torch.equal(apply(images, draws, STRONG), whole)


def test_the_pictures_given_are_left_as_they_are_and_their_memory_format_is_kept() -> None:
    images = scene(count=5)
    for layout in (torch.contiguous_format, torch.channels_last):
        given = images.clone(memory_format=layout)
        draws = draw(STRONG, seed=1, epoch=1, pictures=KEYS[:5])
        found = apply(given, draws, STRONG)
        assert torch.equal(given, images)
        assert found.is_contiguous(memory_format=layout)
        assert torch.equal(found, apply(images, draws, STRONG))


@pytest.mark.parametrize("chosen", [STRONG, TRIVIAL], ids=["strong", "trivial"])
def test_values_stay_between_0_and_255(chosen: AugmentPolicy) -> None:
    images = torch.cat([torch.zeros(30, 3, 16, 16), torch.full((30, 3, 16, 16), 255.0), scene(16, 16, 30)])
    found = apply(images, draw(chosen, seed=1, epoch=1, pictures=KEYS[:90]), chosen)
    assert found.isfinite().all()
    assert found.min() >= 0.0
    assert found.max() <= 255.0


@pytest.mark.parametrize("shape", [(0, 3, 16, 16), (2, 3, 1, 1), (2, 3, 8, 8), (3, 3, 20, 37)])
def test_any_shape_comes_back_as_it_was(shape: tuple[int, int, int, int]) -> None:
    images = torch.full(shape, 100.0)
    found = apply(images, draw(STRONG, seed=1, epoch=1, pictures=KEYS[: shape[0]]), STRONG)
    assert found.shape == shape
    assert found.isfinite().all()


class _Wait(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes every operation for which the host would wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.waits: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in ("_local_scalar_dense", "nonzero", "masked_select", "unique_dim", "_unique2", "is_nonzero", "equal"):
            self.waits.append(name)
        if name in ("index", "index_put", "index_put_"):
            self.waits += [name for index in args[1] if index is not None and index.dtype == torch.bool]
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("chosen", [STRONG, TRIVIAL], ids=["strong", "trivial"])
def test_the_host_never_waits_for_the_device(chosen: AugmentPolicy) -> None:
    images = scene(count=40)
    draws = draw(chosen, seed=1, epoch=1, pictures=KEYS[:40])
    with _Wait() as mode:
        apply(images, draws, chosen)
        assert mode.waits == []
        images[images > 300.0].sum().item()
    assert len(mode.waits) >= 2  # it does see them


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("chosen", [STRONG, TRIVIAL], ids=["strong", "trivial"])
def test_a_gpu_makes_the_same_pictures(chosen: AugmentPolicy) -> None:
    images = scene(count=40)
    draws = draw(chosen, seed=1, epoch=1, pictures=KEYS[:40])
    apply(images.cuda(), draws, chosen)  # fills the table of noise, for which the first call waits
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = apply(images.cuda(non_blocking=True), draws, chosen)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    # equalize and posterize turn a last digit into a level
    assert (found.cpu() - apply(images, draws, chosen)).abs().mean() < 0.3


# what moves ---------------------------------------------------------------------------------


def test_the_standard_policy_makes_the_pictures_that_it_always_made() -> None:
    """Every 12th pixel of two pictures, their colours averaged, as the first version made them."""
    y, x = torch.meshgrid(torch.linspace(0, 1, 32), torch.linspace(0, 1, 32), indexing="ij")
    planes = torch.stack([x * 200 + 20, y * y * 220, x * y * 180 + 40])
    images = torch.stack([planes, planes * 0.95]).round()
    standard = policy_of(
        **{"flip": 0.5, "rotation": 15.0, "shift": 0.1, "zoom": 0.2},
        **{"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "erase": 0.25},
    )
    keys = np.array([0x0123456789ABCDEF, 0xFEDCBA9876543210], np.uint64)
    found = apply(images, draw(standard, seed=42, epoch=18, pictures=keys), standard)[:, :, 4::12, 4::12].mean(1)
    expected = [
        [[85.70, 57.75, 142.66], [128.0, 84.05, 142.66], [183.23, 137.58, 107.63]],
        [[24.07, 45.26, 64.62], [41.65, 65.13, 86.81], [72.42, 99.62, 125.48]],
    ]
    assert (found - torch.tensor(expected)).abs().max() < 0.02


@pytest.mark.parametrize(("name", "axis"), [("flip", -1), ("flip_vertical", -2)])
def test_a_flip_mirrors_to_the_bit(name: str, axis: int) -> None:
    images = torch.rand(3, 3, 16, 16) * 255
    found = change(images, policy_of(**{name: 1.0}), **{name: np.array([True, False, True])})
    assert torch.equal(found[::2], images[::2].flip(axis))
    assert torch.equal(found[1], images[1])


def test_both_flips_turn_by_half_to_the_bit() -> None:
    images = torch.rand(2, 3, 16, 16) * 255
    found = change(images, policy_of(flip=1.0, flip_vertical=1.0), flip=True, flip_vertical=True)
    assert torch.equal(found, images.flip(-1, -2))


@pytest.mark.parametrize("angle", [-30.0, 7.0, 90.0])
def test_a_turn_agrees_with_pillow(angle: float) -> None:
    images = photo(64)
    expected = classic.each(images, lambda image, _: classic.rotate(image, angle))
    assert distance(change(images, policy_of(rotation=180.0), angle=angle), expected, border=16) <= 1.5


def test_a_shift_moves_right_and_down_and_leaves_grey() -> None:
    images = photo(40)
    found = change(images, policy_of(shift=0.5), shift_x=0.25, shift_y=0.1)
    assert distance(found[..., 4:, 10:], images[..., :-4, :-10]) < 0.01
    assert (found[..., :10] - GREY).abs().max() < 0.01
    assert (found[..., :4, :] - GREY).abs().max() < 0.01


def test_a_zoom_agrees_with_pillow() -> None:
    images = photo(64)
    side = 1 / 1.6
    expected = classic.each(images, lambda image, _: classic.crop(image, 0.5 - side / 2, 0.5 - side / 2, side, side))
    assert distance(change(images, policy_of(zoom=0.9), zoom=1.6), expected, border=2) <= 1.5


@pytest.mark.parametrize("degrees", [(20.0, 0.0), (0.0, -15.0), (12.0, 25.0)])
def test_a_shear_agrees_with_pillow(degrees: tuple[float, float]) -> None:
    images = scene(60, 60)
    found = change(images, policy_of(shear=30.0), shear_x=degrees[0], shear_y=degrees[1])
    expected = classic.each(images, lambda image, _: classic.shear(image, *degrees))
    # Pillow leaves a pixel grey whose middle lies outside; here it shades off over two
    assert distance(found, expected, border=18) <= 1.5
    assert (found - expected).abs().mean() < 1.5


def test_a_perspective_agrees_with_pillow() -> None:
    images = scene(48, 60)
    corners = np.array([[0.3, 0.1, 0.0, 0.4, 0.2, 0.25, 0.35, 0.05], [0.6, 0.6, 0.0, 0.0, 0.6, 0.6, 0.0, 0.0]])
    found = change(images, policy_of(perspective=0.6), corners=corners)
    expected = classic.each(images, lambda image, row: classic.perspective(image, corners[row].tolist()))
    inside = ~((expected == GREY).all(1) | (found == GREY).all(1))  # not at the slanted borders
    inner = torch.nn.functional.avg_pool2d(inside.float()[:, None], 5, 1, 2)[:, 0] == 1.0
    assert inner.float().mean() > 0.2
    assert (found - expected).abs().amax(1)[inner].max() <= 1.5


def test_a_crop_agrees_with_pillow() -> None:
    images = scene(48, 60)
    found = change(images, policy_of(crop=0.1), crop_left=0.2, crop_top=0.1, crop_width=0.5, crop_height=0.7)
    expected = classic.each(images, lambda image, _: classic.crop(image, 0.2, 0.1, 0.5, 0.7))
    assert distance(found, expected, border=2) <= 1.5


@pytest.mark.parametrize("op", sorted(GEOMETRY))
@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_what_moves_in_randaugment_agrees_with_pillow(op: Op, side: float) -> None:
    images = scene(60, 60)
    value = side * RANGES[op].rand * 0.7
    expected = classic.each(images, lambda image, _: classic.AUTO[op](image, value))
    inner = ((expected != GREY).any(1)).float()[:, None]
    inner = torch.nn.functional.avg_pool2d(inner, 5, 1, 2, count_include_pad=False)[:, 0] == 1.0
    assert inner.float().mean() > 0.5
    assert (one_op(images, op, value) - expected).abs().amax(1)[inner].max() <= 1.5


def test_all_moves_at_once_are_the_moves_one_after_the_other() -> None:
    images = photo(96)
    moves: list[dict[str, Any]] = [
        {"crop_left": 0.1, "crop_top": 0.05, "crop_width": 0.8, "crop_height": 0.9},
        {"flip": True},
        {"angle": 10.0, "zoom": 1.2},
        {"shear_y": -5.0},
        {"shear_x": 8.0},
        {"corners": np.array([[0.1, 0.05, 0.0, 0.1, 0.02, 0.08, 0.1, 0.0]])},
        {"shift_x": 0.05, "shift_y": -0.03},
        {"auto_op": np.array([[Op.ROTATE]]), "auto_value": np.array([[-6.0]])},
    ]
    step = images
    for move in moves:
        step = change(step, TRIVIAL, **move)
    at_once = change(images, TRIVIAL, **{name: value for move in moves for name, value in move.items()})
    assert distance(at_once, step, border=24) < 2.0
    assert distance(at_once, images, border=24) > 20.0


# colours ------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.5])
@pytest.mark.parametrize(
    ("name", "enhancer"),
    [
        ("brightness", ImageEnhance.Brightness),
        ("contrast", ImageEnhance.Contrast),
        ("saturation", ImageEnhance.Color),
    ],
)
def test_a_change_of_colour_agrees_with_pillow(name: str, enhancer: Any, factor: float) -> None:
    images = scene()
    found = change(images, policy_of(**{name: 1.0}), **{name: factor})
    expected = classic.each(images, lambda image, _: enhancer(image).enhance(factor))
    assert distance(found, expected) <= 1.5


@pytest.mark.parametrize("turn", [-0.5, -0.1, 0.03, 0.25, 0.5])
def test_a_turn_of_the_hue_agrees_with_torchvision(turn: float) -> None:
    images = scene()
    images[0, :, :8] = 77.0  # grey has no hue
    images[0, :, 8:16] = 0.0
    found = change(images, policy_of(hue=0.5), hue=turn)
    assert distance(found, classic.each(images, lambda image, _: classic.hue(image, turn))) <= 1.01
    assert torch.equal(found[0, :, :16], images[0, :, :16])


@pytest.mark.parametrize("op", [op for op in Op if op not in GEOMETRY])
@pytest.mark.parametrize("strength", [0.0, 0.4, 1.0])
def test_colours_in_trivialaugment_agree_with_pillow(op: Op, strength: float) -> None:
    images = scene(40, 56, count=3)
    images[2] = 90.0  # flat
    space = RANGES[op]
    for side in (-1.0, 1.0) if space.both_ways else (1.0,):
        value = space.start + side * strength * (space.trivial - space.start if not space.both_ways else 0.99)
        value = round(value) if space.whole else value
        expected = classic.each(images, lambda image, _: classic.AUTO[op](image, value))  # noqa: B023
        exact = op in (Op.IDENTITY, Op.POSTERIZE, Op.SOLARIZE, Op.EQUALIZE)
        assert distance(one_op(images, op, value), expected) <= (0.0 if exact else 1.5), (side, value)


def test_one_pixel_of_another_colour_is_what_equalize_counts_exactly() -> None:
    images = torch.full((1, 3, 20, 20), 60.0)
    images[:, :, 0, 0] = 61.0
    assert torch.equal(
        one_op(images, Op.EQUALIZE, 0.0), classic.each(images, lambda i, _: classic.AUTO[Op.EQUALIZE](i, 0))
    )


def test_changes_of_a_round_follow_one_another() -> None:
    images = scene(count=1)
    ops, values = np.array([[Op.SOLARIZE, Op.POSTERIZE]]), np.array([[100.0, 3.0]])
    found = change(images, TRIVIAL, auto_op=ops, auto_value=values)
    assert torch.equal(found, one_op(one_op(images, Op.SOLARIZE, 100.0), Op.POSTERIZE, 3.0))
    other = change(images, TRIVIAL, auto_op=ops[:, ::-1], auto_value=values[:, ::-1])
    assert not torch.equal(found, other)


# wear ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.4, 1.0, 2.0])
def test_a_blur_agrees_with_torchvision(sigma: float) -> None:
    images = scene(50, 50)
    chosen = policy_of(blur={"probability": 1.0, "sigma": 0.04})
    found = change(images, chosen, blur=sigma / 50)
    expected = classic.each(images, lambda image, _: classic.blur(image, sigma, 6))
    assert distance(found, expected) <= 0.51  # the reference is rounded


def test_noise_has_its_strength_and_is_like_no_other() -> None:
    images = torch.full((40, 3, 64, 64), 128.0)
    chosen = policy_of(noise=10.0)
    noise = change(images, chosen, noise=10.0, noise_place=np.arange(40) / 40) - images
    assert abs(noise.mean().item()) < 0.1
    assert abs(noise.std().item() - 10.0) < 0.1
    assert abs((noise**4).mean().item() / 10.0**4 - 3.0) < 0.1  # a normal distribution's
    flat = noise.flatten(1)
    like = torch.corrcoef(flat) - torch.eye(40)
    assert like.abs().max() < 0.05  # five standard deviations
    neighbours = torch.corrcoef(torch.stack([noise[..., 1:].flatten(), noise[..., :-1].flatten()]))[0, 1]
    assert abs(neighbours.item()) < 0.01


@pytest.mark.parametrize("quality", [10, 30, 49, 50, 75, 95])
@pytest.mark.parametrize("size", [(48, 48), (37, 50)])
def test_a_jpeg_agrees_with_pillow(quality: int, size: tuple[int, int]) -> None:
    images = scene(*size)
    found = change(images, policy_of(jpeg={"probability": 1.0, "quality": 5}), jpeg=quality)
    expected = classic.each(images, lambda image, _: classic.jpeg(image, quality))
    # libjpeg computes in whole numbers: where a frequency lies midway between two steps, it may take the other one
    assert (found - expected).abs().mean() < 1.0
    lost = (expected - images).square().mean()
    assert (found - expected).square().mean() < 0.05 * lost + 0.3
    assert ((found - images).square().mean() / lost).item() == pytest.approx(1.0, abs=0.06)


def test_a_jpeg_of_each_picture_has_its_own_quality() -> None:
    images = scene(count=1).expand(3, -1, -1, -1).contiguous()
    found = change(images, policy_of(jpeg={"probability": 1.0, "quality": 5}), jpeg=np.array([10, 0, 90]))
    lost = (found - images).square().mean((1, 2, 3))
    assert lost[1] == 0.0
    assert lost[0] > 5 * lost[2] > 0.0


def test_a_stroke_is_where_a_pen_would_draw_it() -> None:
    """A straight stroke: from a tenth to nine tenths of its window, which is the right lower quarter."""
    images = torch.full((1, 3, 200, 200), 255.0)
    straight = [0.1, 0.2, 0.1 + 0.8 / 3, 0.2 + 0.4 / 3, 0.1 + 1.6 / 3, 0.2 + 0.8 / 3, 0.9, 0.6]
    stroke = np.array([[[0.999, 0.999, *straight, 0.5, 0.0, 0.0, 0.0]]])
    found = change(images, policy_of(scribble=1.0), num_strokes=1, strokes=stroke)
    width = (0.008 + 0.5 * (0.025 - 0.008)) * 200
    margin = width / 2 + 1
    ends = [
        (100 + margin + x * (100 - 2 * margin), 100 + margin + y * (100 - 2 * margin))
        for y, x in ((0.1, 0.2), (0.9, 0.6))
    ]
    expected = classic.each(images, lambda image, _: classic.pen(image, ends, width))
    assert (found - expected).abs().max() < 70  # a pixel's corner
    assert (found - expected).abs().mean() < 0.15
    assert found.min() == 0.0


def test_strokes_lie_over_one_another_in_their_order() -> None:
    images = torch.full((2, 3, 64, 64), 200.0)
    curve = [0.0, 0.0, 0.9, 0.1, 0.1, 0.9, 1.0, 1.0]
    red, blue = ([0.0, 0.0, *curve, 0.9, *colour] for colour in ((0.999, 0.0, 0.0), (0.0, 0.0, 0.999)))
    both = np.array([[red, blue], [blue, red]])
    found = change(images, policy_of(scribble=1.0), num_strokes=2, strokes=both)
    covered = (found[0] != 200.0).any(0) & (found[0, 1] < 0.001)
    assert covered.sum() > 10
    assert (found[0, 2][covered] - 255).abs().max() < 5
    assert (found[1, 0][covered] - 255).abs().max() < 5
    one = change(images, policy_of(scribble=1.0), num_strokes=np.array([1, 0]), strokes=both)
    assert torch.equal(one[1], images[1])
    assert (one[0, 0][covered] - 255).abs().max() < 5


def test_an_erased_rectangle_is_grey_and_the_rest_untouched() -> None:
    images = photo(40)
    found = change(images, policy_of(erase=1.0), erase_left=0.25, erase_top=0.5, erase_width=0.2, erase_height=0.1)
    assert (found[..., 20:24, 10:18] == GREY).all()
    found[..., 20:24, 10:18] = images[..., 20:24, 10:18]
    assert torch.equal(found, images)


def test_what_is_erased_stays_grey_under_noise_and_jpeg() -> None:
    chosen = policy_of(erase=1.0, noise=30.0, jpeg={"probability": 1.0, "quality": 10}, scribble=1.0)
    found = apply(scene(count=6), draw(chosen, seed=1, epoch=1, pictures=KEYS[:6]), chosen)
    assert ((found == GREY).all(1).flatten(1).float().mean(1) > 0.01).all()

"""What changes colours or wears pictures, each beside the classic way of doing it (tests/pil_reference.py)."""

from typing import Any

import numpy as np
import pil_reference as classic
import pytest
import torch
from changing import KEYS, TRIVIAL, change, distance, one_op, photo, scene
from PIL import ImageEnhance

from pipelines.augmentation.applying import apply
from pipelines.augmentation.packs import GREY
from pipelines.augmentation.sampling import GEOMETRY, RANGES, Op, sample_params
from pipelines.params.augment import policy_of


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
    found = change(
        images, policy_of(random_erasing=1.0), erase_left=0.25, erase_top=0.5, erase_width=0.2, erase_height=0.1
    )
    assert (found[..., 20:24, 10:18] == GREY).all()
    found[..., 20:24, 10:18] = images[..., 20:24, 10:18]
    assert torch.equal(found, images)


def test_what_is_erased_stays_grey_under_noise_and_jpeg() -> None:
    chosen = policy_of(random_erasing=1.0, noise=30.0, jpeg={"probability": 1.0, "quality": 10}, scribble=1.0)
    found = apply(scene(count=6), sample_params(chosen, seed=1, epoch=1, pictures=KEYS[:6]), chosen)
    assert ((found == GREY).all(1).flatten(1).float().mean(1) > 0.01).all()

"""What moves pictures, each beside the classic way of doing it (tests/pil_reference.py: Pillow and torchvision)."""

from typing import Any

import numpy as np
import pil_reference as classic
import pytest
import torch
from changing import TRIVIAL, change, distance, one_op, photo, scene

from pipelines.augmentation.applying import apply
from pipelines.augmentation.packs import GREY
from pipelines.augmentation.sampling import GEOMETRY, RANGES, Op, sample_params
from pipelines.params.augment import policy_of


def test_the_standard_policy_makes_the_pictures_that_it_always_made() -> None:
    """Every 12th pixel of two pictures, their colours averaged, as the first version made them."""
    y, x = torch.meshgrid(torch.linspace(0, 1, 32), torch.linspace(0, 1, 32), indexing="ij")
    planes = torch.stack([x * 200 + 20, y * y * 220, x * y * 180 + 40])
    images = torch.stack([planes, planes * 0.95]).round()
    standard = policy_of(
        **{"hflip": 0.5, "degrees": 15.0, "translate": 0.1, "scale": 0.2},
        **{"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "random_erasing": 0.25},
    )
    keys = np.array([0x0123456789ABCDEF, 0xFEDCBA9876543210], np.uint64)
    found = apply(images, sample_params(standard, seed=42, epoch=18, pictures=keys), standard)[:, :, 4::12, 4::12].mean(
        1
    )
    expected = [
        [[85.70, 57.75, 142.66], [128.0, 84.05, 142.66], [183.23, 137.58, 107.63]],
        [[24.07, 45.26, 64.62], [41.65, 65.13, 86.81], [72.42, 99.62, 125.48]],
    ]
    assert (found - torch.tensor(expected)).abs().max() < 0.02


@pytest.mark.parametrize(("name", "axis"), [("hflip", -1), ("vflip", -2)])
def test_a_flip_mirrors_to_the_bit(name: str, axis: int) -> None:
    images = torch.rand(3, 3, 16, 16) * 255
    found = change(images, policy_of(**{name: 1.0}), **{name: np.array([True, False, True])})
    assert torch.equal(found[::2], images[::2].flip(axis))
    assert torch.equal(found[1], images[1])


def test_both_flips_turn_by_half_to_the_bit() -> None:
    images = torch.rand(2, 3, 16, 16) * 255
    found = change(images, policy_of(hflip=1.0, vflip=1.0), hflip=True, vflip=True)
    assert torch.equal(found, images.flip(-1, -2))


@pytest.mark.parametrize("angle", [-30.0, 7.0, 90.0])
def test_a_turn_agrees_with_pillow(angle: float) -> None:
    images = photo(64)
    expected = classic.each(images, lambda image, _: classic.rotate(image, angle))
    assert distance(change(images, policy_of(degrees=180.0), angle=angle), expected, border=16) <= 1.5


def test_a_shift_moves_right_and_down_and_leaves_grey() -> None:
    images = photo(40)
    found = change(images, policy_of(translate=0.5), shift_x=0.25, shift_y=0.1)
    assert distance(found[..., 4:, 10:], images[..., :-4, :-10]) < 0.01
    assert (found[..., :10] - GREY).abs().max() < 0.01
    assert (found[..., :4, :] - GREY).abs().max() < 0.01


def test_a_zoom_agrees_with_pillow() -> None:
    images = photo(64)
    side = 1 / 1.6
    expected = classic.each(images, lambda image, _: classic.crop(image, 0.5 - side / 2, 0.5 - side / 2, side, side))
    assert distance(change(images, policy_of(scale=0.9), zoom=1.6), expected, border=2) <= 1.5


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
    found = change(
        images, policy_of(random_resized_crop=0.1), crop_left=0.2, crop_top=0.1, crop_width=0.5, crop_height=0.7
    )
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
        {"hflip": True},
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

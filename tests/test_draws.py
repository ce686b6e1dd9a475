"""The random numbers of augmentation: what they depend on, how they are spread, and the ends of what is drawn."""

from typing import Any

import numpy as np
import pytest

from pipelines.augmentation.random import picture_keys, uniform, uniforms
from pipelines.augmentation.sampling import RANGES, Op, sample_params
from pipelines.params.augment import AugmentPolicy, RandAugment, policy_of

STRONG = policy_of(
    **{"hflip": 0.5, "vflip": 0.5, "degrees": 30.0, "translate": 0.2, "scale": 0.5, "shear": 20.0},
    **{
        "perspective": 0.3,
        "random_resized_crop": 0.3,
        "random_erasing": 0.5,
        "brightness": 0.5,
        "contrast": 0.5,
        "saturation": 0.5,
    },
    **{"hue": 0.1, "blur": {"probability": 0.5, "sigma": 0.02}, "noise": 9.0, "scribble": 0.5},
    **{
        "jpeg": {"probability": 0.5, "quality": 20},
        "auto_augment": {"kind": "randaugment", "num_ops": 3, "magnitude": 9},
    },
)
TRIVIAL = policy_of(auto_augment={"kind": "trivialaugment"})
KEYS = picture_keys(np.array([f"{i * 7919:064x}"[::-1] for i in range(1000)]))


def fields(draws: object) -> dict[str, np.ndarray[Any, Any]]:
    return dict(vars(draws))


def test_a_draw_depends_on_the_picture_alone_not_on_its_batch() -> None:
    whole = fields(sample_params(STRONG, seed=1, epoch=3, pictures=KEYS))
    order = np.random.default_rng(0).permutation(len(KEYS))
    shuffled = fields(sample_params(STRONG, seed=1, epoch=3, pictures=KEYS[order]))
    alone = fields(sample_params(STRONG, seed=1, epoch=3, pictures=KEYS[5:6]))
    for name, values in whole.items():
        assert (shuffled[name] == values[order]).all()
        assert (alone[name][0] == values[5]).all()


def test_seed_epoch_and_picture_each_change_the_draw() -> None:
    base = sample_params(STRONG, seed=1, epoch=3, pictures=KEYS).angle
    assert (sample_params(STRONG, seed=2, epoch=3, pictures=KEYS).angle != base).all()
    assert (sample_params(STRONG, seed=1, epoch=4, pictures=KEYS).angle != base).all()
    assert len(np.unique(base)) == len(KEYS)


def test_another_change_leaves_the_other_draws_alone() -> None:
    one = sample_params(policy_of(degrees=30.0), seed=1, epoch=1, pictures=KEYS)
    both = sample_params(policy_of(degrees=30.0, hflip=0.5, random_erasing=1.0), seed=1, epoch=1, pictures=KEYS)
    assert (one.angle == both.angle).all()


def test_numbers_are_uniform_and_streams_are_unrelated() -> None:
    keys = np.arange(20_000, dtype=np.uint64)
    a, b = (uniform(0, 1, keys, stream) for stream in (0, 1))
    assert a.min() >= 0.0
    assert a.max() < 1.0
    counts, _ = np.histogram(a, bins=20, range=(0, 1))
    assert (abs(counts - 1000) < 150).all()  # five standard deviations
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.035
    assert abs(np.corrcoef(a[1:], a[:-1])[0, 1]) < 0.035


def test_probabilities_zero_and_one_are_never_and_always() -> None:
    never = sample_params(policy_of(), seed=1, epoch=1, pictures=KEYS)
    always = sample_params(policy_of(hflip=1.0, random_erasing=1.0), seed=1, epoch=1, pictures=KEYS)
    assert not never.hflip.any()
    assert (never.erase_width == 0).all()
    assert always.hflip.all()
    assert (always.erase_width > 0).all()


def test_draws_keep_their_limits() -> None:
    draws = sample_params(STRONG, seed=1, epoch=1, pictures=KEYS)
    assert abs(draws.angle).max() <= 30.0
    assert abs(draws.angle).max() > 29.0
    assert abs(draws.shift_x).max() <= 0.2
    assert draws.zoom.min() >= 1 / 1.5
    assert draws.zoom.max() <= 1.5
    erased = draws.erase_width > 0
    area = (draws.erase_width * draws.erase_height)[erased]
    assert area.min() >= 0.02 - 1e-9
    assert area.max() <= 0.2 + 1e-9
    assert (draws.erase_left + draws.erase_width <= 1 + 1e-9).all()
    assert (draws.erase_top + draws.erase_height <= 1 + 1e-9).all()


def test_the_numbers_of_several_streams_are_those_of_each() -> None:
    both = uniforms(3, 5, KEYS, [0, 12])
    assert (both[0] == uniform(3, 5, KEYS, 0)).all()
    assert (both[1] == uniform(3, 5, KEYS, 12)).all()
    assert uniforms(3, 5, KEYS, []).shape == (0, 1000)


def test_what_was_drawn_once_is_drawn_for_ever() -> None:
    """A change of the hash, of a stream or of a formula would train other networks under the same params."""
    standard = policy_of(
        **{"hflip": 0.5, "degrees": 15.0, "translate": 0.1, "scale": 0.2},
        **{"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "random_erasing": 0.25},
    )
    found = fields(sample_params(standard, seed=42, epoch=18, pictures=np.array([0x0123456789ABCDEF], np.uint64)))
    expected = {
        **{"hflip": True, "angle": 4.151514, "shift_x": -0.090285, "shift_y": 0.069801, "zoom": 0.923623},
        **{"brightness": 1.150557, "contrast": 0.880961, "saturation": 1.033136},
        **{"erase_left": 0.013468, "erase_top": 0.256851, "erase_width": 0.270676, "erase_height": 0.377862},
    }
    for name, value in expected.items():
        assert found[name][0] == pytest.approx(value, abs=1e-6), name


def test_a_part_of_the_draws_is_that_of_its_pictures() -> None:
    part = sample_params(STRONG, seed=1, epoch=3, pictures=KEYS).part(10, 12)
    alone = fields(sample_params(STRONG, seed=1, epoch=3, pictures=KEYS[10:12]))
    assert len(part) == 2
    for name, values in fields(part).items():
        assert (values == alone[name]).all(), name


def test_no_pictures_have_no_draws() -> None:
    draws = sample_params(STRONG, seed=1, epoch=3, pictures=KEYS[:0])
    assert len(draws) == 0
    assert draws.strokes.shape == (0, 3, 14)
    assert draws.auto_op.shape == (0, 3)


def test_a_policy_of_nothing_draws_nothing() -> None:
    draws = sample_params(policy_of(), seed=1, epoch=3, pictures=KEYS)
    for name in ("angle", "shift_x", "shear_x", "shear_y", "corners", "hue", "blur", "noise", "jpeg", "num_strokes"):
        assert (getattr(draws, name) == 0).all(), name
    for name in ("zoom", "brightness", "contrast", "saturation", "crop_width", "crop_height"):
        assert (getattr(draws, name) == 1).all(), name
    assert (draws.crop_left == 0).all()
    assert (draws.crop_top == 0).all()
    assert draws.strokes.size == draws.auto_op.size == 0


def test_what_is_cut_out_keeps_its_limits() -> None:
    draws = sample_params(policy_of(random_resized_crop=0.3), seed=1, epoch=1, pictures=KEYS)
    area, aspect = draws.crop_width * draws.crop_height, draws.crop_width / draws.crop_height
    assert 0.3 <= area.min() < 0.31
    assert 0.95 < area.max() <= 1.0
    assert 0.75 - 1e-9 <= aspect.min() < 0.77
    assert 1.30 < aspect.max() <= 4 / 3 + 1e-9
    assert (draws.crop_left + draws.crop_width <= 1 + 1e-9).all()
    assert (draws.crop_top + draws.crop_height <= 1 + 1e-9).all()


def test_blur_jpeg_and_pen_happen_as_often_as_they_should() -> None:
    for probability in (0.0, 0.3, 1.0):
        chosen = policy_of(
            blur={"probability": probability, "sigma": 0.02},
            jpeg={"probability": probability, "quality": 20},
            scribble=probability,
        )
        draws = sample_params(chosen, seed=1, epoch=1, pictures=KEYS)
        for values in (draws.blur, draws.jpeg, draws.num_strokes):
            share = (values > 0).mean()
            assert share == probability if probability in (0.0, 1.0) else abs(share - probability) < 0.07
    assert 0.005 <= draws.blur.min() < draws.blur.max() <= 0.02
    assert (draws.jpeg.min(), draws.jpeg.max()) == (20, 95)
    assert np.unique(draws.num_strokes).tolist() == [1, 2, 3]


# RandAugment and TrivialAugment -------------------------------------------------------------


def test_every_change_comes_equally_often() -> None:
    for chosen in (STRONG, TRIVIAL):
        ops = sample_params(chosen, seed=1, epoch=1, pictures=KEYS).auto_op
        counts = np.bincount(ops[:, 0], minlength=len(Op))
        assert len(counts) == 14
        assert (abs(counts - 1000 / 14) < 42).all()  # five standard deviations


def test_the_changes_of_a_picture_are_drawn_apart() -> None:
    ops = sample_params(STRONG, seed=1, epoch=1, pictures=KEYS).auto_op
    assert ops.shape == (1000, 3)
    assert abs((ops[:, 0] == ops[:, 1]).mean() - 1 / 14) < 0.05


def auto_values(chosen: AugmentPolicy, op: Op) -> list[float]:
    """What `op` is drawn with, each number once, in order."""
    draws = sample_params(chosen, seed=1, epoch=1, pictures=np.arange(20_000, dtype=np.uint64))
    return [float(value) for value in np.unique(draws.auto_value[:, 0][draws.auto_op[:, 0] == op].round(6))]


def strength(magnitude: int) -> AugmentPolicy:
    return policy_of(auto_augment=RandAugment(kind="randaugment", num_ops=1, magnitude=magnitude))


def test_randaugment_has_the_strengths_of_its_paper() -> None:
    assert auto_values(strength(30), Op.ROTATE) == [-30.0, 30.0]
    assert auto_values(strength(10), Op.ROTATE) == [-10.0, 10.0]
    assert auto_values(strength(30), Op.SHEAR_X) == [-0.3, 0.3]
    assert auto_values(strength(30), Op.CONTRAST) == pytest.approx([0.1, 1.9])
    assert auto_values(strength(30), Op.TRANSLATE_Y) == pytest.approx([-150 / 331, 150 / 331], abs=1e-6)
    assert auto_values(strength(9), Op.POSTERIZE) == [7.0]
    assert auto_values(strength(30), Op.POSTERIZE) == [4.0]
    assert auto_values(strength(9), Op.SOLARIZE) == [178.5]
    assert auto_values(strength(0), Op.SOLARIZE) == [255.0]


def test_randaugment_of_no_strength_leaves_its_factors_at_one() -> None:
    for op in (Op.BRIGHTNESS, Op.COLOR, Op.CONTRAST, Op.SHARPNESS):
        assert auto_values(strength(0), op) == [1.0]
    assert auto_values(strength(0), Op.ROTATE) == [0.0]


def test_trivialaugment_draws_any_of_31_strengths() -> None:
    rotations = auto_values(TRIVIAL, Op.ROTATE)
    assert len(rotations) == 61  # both ways, and none
    assert (rotations[0], rotations[-1]) == (-135.0, 135.0)
    assert np.diff(rotations) == pytest.approx(4.5)
    assert auto_values(TRIVIAL, Op.SHEAR_Y)[-1] == pytest.approx(0.99)
    assert auto_values(TRIVIAL, Op.SHARPNESS)[0] == pytest.approx(0.01)
    assert auto_values(TRIVIAL, Op.POSTERIZE) == [2, 3, 4, 5, 6, 7, 8]
    assert len(auto_values(TRIVIAL, Op.SOLARIZE)) == 31


def test_every_change_has_a_range() -> None:
    assert list(RANGES) == list(Op)

"""Intervals that cover, where pictures are few and where they are copies; probabilities that mean what they say."""

import math
from dataclasses import replace

import numpy as np
import pytest
from evaluate_inputs import sure_of
from scipy.stats import binom

from pipelines.evaluate.calibration import calibration
from pipelines.evaluate.intervals import (
    effective_numbers,
    metric_intervals,
    paired_interval,
    wilson_interval,
)
from pipelines.evaluate.metrics import (
    Floats,
    Ints,
    metric_of,
    score,
)
from pipelines.train.temperature import fit_temperature, temper


def test_wilson_gives_the_textbook_interval_and_stays_within_0_and_1() -> None:
    low, high = wilson_interval(np.array([8.0, 0.0, 10.0, 0.0]), np.array([10.0, 10.0, 10.0, 0.0]), 0.95)
    # Newcombe 1998, table I, gives .4902 to .9433 for 8 of 10
    assert (low[0], high[0]) == (pytest.approx(0.4902, abs=1e-4), pytest.approx(0.9433, abs=1e-4))
    assert low[1] == 0.0
    assert high[1] == pytest.approx(0.2775, abs=1e-4)
    assert high[2] == 1.0
    assert np.isnan(low[3])
    assert np.isnan(high[3])


def intervals(actual: Ints, predicted: Ints, groups: Ints, num_classes: int = 2) -> dict[str, tuple[float, float]]:
    return metric_intervals(score(actual, sure_of(predicted.tolist(), num_classes)), groups, 0.95)


def test_all_of_18_right_is_not_certain() -> None:
    found = intervals(np.arange(18) % 2, np.arange(18) % 2, np.arange(18))
    for name in ("accuracy", "balanced_accuracy", "macro_f1"):
        assert found[name] == pytest.approx((0.8241, 1.0), abs=5e-4)  # Wilson: 18 of 18 is 82.4 to 100


@pytest.mark.parametrize("num_images", [20, 40, 150, 2000])
@pytest.mark.parametrize("truth", [0.5, 0.9, 0.98])
def test_an_accuracy_lies_in_its_interval_about_as_often_as_it_says(num_images: int, truth: float) -> None:
    """Every number of right pictures, weighed by its chance: exact, and the same for any seed."""
    groups, actual = np.arange(num_images), np.zeros(num_images, np.int64)
    covered = 0.0
    for wrong in range(num_images + 1):
        chance = float(binom.pmf(wrong, num_images, 1 - truth))
        if chance > 1e-9:
            low, high = intervals(actual, np.minimum(np.arange(num_images) // max(num_images - wrong, 1), 1), groups)[
                "accuracy"
            ]
            covered += chance * (low <= truth <= high)
    # between the steps of a discrete count no interval is exact
    assert 0.93 <= covered <= 0.97


@pytest.mark.parametrize(
    ("num_images", "num_classes", "truth"), [(20, 2, 0.9), (40, 4, 0.5), (40, 4, 0.98), (150, 10, 0.9)]
)
def test_the_other_figures_lie_in_their_intervals_about_as_often(
    num_images: int, num_classes: int, truth: float
) -> None:
    """400 samples: a standard error of 1.1 points, so 91.5 to 98.5 is the narrowest that luck does not leave."""
    rng = np.random.default_rng(num_images)
    actual = np.arange(num_images) % num_classes
    covered = dict.fromkeys(("balanced_accuracy", "macro_f1", "log_loss"), 0)
    # calibrated: confidence is the chance to be right; the true log loss is the mean entropy
    sure, unsure = min(truth + 0.015, 1.0), truth - 0.015
    entropy = {c: -c * math.log(c) - (1 - c) * math.log((1 - c) / (num_classes - 1)) for c in (sure, unsure)}
    values = {"balanced_accuracy": truth, "macro_f1": truth, "log_loss": sum(entropy.values()) / 2}
    for _ in range(400):
        confidence = rng.choice([sure, unsure], num_images)
        step = rng.integers(1, num_classes, num_images) * (rng.random(num_images) >= confidence)
        predicted = (actual + step) % num_classes
        probabilities = np.tile(((1 - confidence) / (num_classes - 1))[:, None], num_classes)
        probabilities[np.arange(num_images), predicted] = confidence
        found = metric_intervals(
            replace(score(actual, probabilities), predicted=predicted), np.arange(num_images), 0.95
        )
        for name, value in values.items():
            covered[name] += found[name][0] <= value <= found[name][1]
    assert all(0.915 <= number / 400 <= 0.995 for number in covered.values()), covered


def test_copies_of_pictures_do_not_make_the_interval_narrower() -> None:
    predicted = (np.random.default_rng(0).random(100) >= 0.7).astype(np.int64)
    alone = intervals(np.zeros(100, np.int64), predicted, np.arange(100))
    fourfold = np.repeat(predicted, 4)
    grouped = intervals(np.zeros(400, np.int64), fourfold, np.repeat(np.arange(100), 4))
    naive = intervals(np.zeros(400, np.int64), fourfold, np.arange(400))
    for name in ("accuracy", "log_loss"):
        assert grouped[name] == pytest.approx(alone[name], abs=2e-3)
        assert naive[name][1] - naive[name][0] < 0.6 * (grouped[name][1] - grouped[name][0])


def test_pictures_of_a_group_that_are_told_apart_count_more_than_copies() -> None:
    """Groups of a patient or a product are no copies: where half of each is right, they hardly cluster."""
    groups, actual = np.repeat(np.arange(50), 4), np.zeros(200, np.int64)
    copies = effective_numbers(score(actual, sure_of(np.repeat(np.arange(50) % 2, 4).tolist(), 2)), groups)
    mixed = effective_numbers(score(actual, sure_of((np.arange(200) % 2).tolist(), 2)), groups)
    assert copies.tolist() == [50.0, 0.0]
    assert 80 < mixed[0] <= 200


def test_a_class_of_copies_has_a_wide_recall() -> None:
    """Ten pictures in one group say as much as one."""
    scored = score(np.zeros(10, np.int64), sure_of([0] * 10, 2))
    assert effective_numbers(scored, np.zeros(10, np.int64))[0] == pytest.approx(1.0)


def test_two_models_that_agree_on_few_pictures_need_not_be_equal() -> None:
    """Agresti and Min: 30 for one alone and 20 for the other of 100 are -.04 to .23; of 20 equal ones ±.11."""
    gain = np.repeat([1.0, -1.0, 0.0], [30, 20, 50])
    low, high = paired_interval(gain, np.arange(100), 0.95, of_fractions=True)
    assert (low, high) == pytest.approx((-0.0404, 0.2365), abs=2e-3)
    low, high = paired_interval(np.zeros(20), np.arange(20), 0.95, of_fractions=True)
    assert high == -low == pytest.approx(0.095, abs=5e-3)
    assert paired_interval(np.zeros(20), np.arange(20), 0.95, of_fractions=False) == (0.0, 0.0)


# calibration -------------------------------------------------------------------------------------


def calibrated_set(num_images: int, sharpness: float) -> tuple[Ints, Floats]:
    """Labels drawn from probabilities, and these probabilities made too sure (above 1) or too cautious (below)."""
    rng = np.random.default_rng(3)
    logits = rng.normal(0, 2, (num_images, 5))
    true = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    actual = (true.cumsum(1) > rng.random((num_images, 1))).argmax(1)
    return actual, temper(true, 1 / sharpness)


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 2.0])
def test_the_temperature_undoes_what_made_probabilities_too_sure_or_too_cautious(sharpness: float) -> None:
    actual, probabilities = calibrated_set(3000, sharpness)
    temperature = fit_temperature(probabilities, actual)
    assert temperature == pytest.approx(sharpness, rel=0.06)
    after = temper(probabilities, temperature)
    assert (after.argmax(1) == probabilities.argmax(1)).all()
    losses = [float(score(actual, p).loss.mean()) for p in (probabilities, after)]
    assert losses[1] <= losses[0]
    if sharpness != 1.0:
        scored = score(actual, after)
        error = metric_of("expected_calibration_error", scored)
        found = calibration(scored, np.arange(3000), temperature=1.0, confidence=0.95, draws=1000, seed=0)
        before = metric_of("expected_calibration_error", score(actual, probabilities))
        assert error == found["error"] <= found["calibrated_high"] < before
        assert found["is_calibrated"]


def test_few_pictures_move_the_temperature_little_or_not_at_all() -> None:
    surely = sure_of([0] * 400, 2, 0.6)
    actual = np.zeros(400, np.int64)
    assert fit_temperature(surely[:19], actual[:19]) == 1.0
    assert 0.2 < fit_temperature(surely[:20], actual[:20]) < 0.9
    assert fit_temperature(surely, actual) < fit_temperature(surely[:20], actual[:20])
    assert fit_temperature(np.ones((50, 1)), np.zeros(50, np.int64)) == 1.0
    assert fit_temperature(np.eye(2)[[1] * 50], np.zeros(50, np.int64)) == pytest.approx(10.0, rel=1e-3)


def test_a_calibrated_model_shows_an_error_and_copies_make_it_larger() -> None:
    """Confidence .8 on N pictures: one bin, whose error is the distance of a fraction from .8, .32 / sqrt(N) in mean
    (.8 times the standard deviation)."""
    scored = score(np.zeros(100, np.int64), sure_of([0] * 100, 2, 0.8))
    found = calibration(scored, np.arange(100), temperature=1.0, confidence=0.95, draws=1000, seed=0)
    assert found["calibrated_mean"] == pytest.approx(0.032, abs=0.003)
    assert found["calibrated_low"] < found["calibrated_mean"] < found["calibrated_high"]
    assert found["calibrated_high"] == pytest.approx(1.96 * 0.04, abs=0.02)
    groups = np.repeat(np.arange(25), 4)
    copies = calibration(scored, groups, temperature=1.0, confidence=0.95, draws=1000, seed=0)
    assert copies["calibrated_mean"] == pytest.approx(0.064, abs=0.006)

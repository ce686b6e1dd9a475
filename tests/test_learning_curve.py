"""The learning curve finds the law that made the data, says how sure it is, and is silent about too little."""

import numpy as np
import pytest

from pipelines.evaluate.learning_curve import (
    FRACTIONS,
    SubsetProbe,
    fit_power_law,
    learning_curve,
)

N = np.array([50.0, 100.0, 200.0, 400.0, 600.0, 800.0])


@pytest.mark.parametrize(("a", "b", "c"), [(0.95, 2.0, 0.5), (1.0, 1.5, 0.4), (0.8, 3.0, 0.75), (0.9, 0.0, 0.5)])
def test_a_known_law_is_found_and_carried_on(a: float, b: float, c: float) -> None:
    law = fit_power_law(N, (a - b * N**-c)[None], noise=1e-3)
    for times in (1.5, 2.0):
        assert law.accuracy(800 * times)[0] == pytest.approx(a - b * (800 * times) ** -c, abs=0.002)


def test_a_curve_never_passes_one_and_never_falls() -> None:
    falling = fit_power_law(N, np.linspace(0.9, 0.8, 6)[None], noise=0.01)
    assert falling.b[0] == 0.0
    assert falling.accuracy(10_000)[0] == pytest.approx(0.85)
    steep = fit_power_law(N, np.linspace(0.5, 0.999, 6)[None], noise=0.01)
    assert steep.a[0] <= 1.0
    assert steep.accuracy(1e6)[0] <= 1.0


def test_the_interval_of_a_forecast_holds_the_truth() -> None:
    """200 noisy curves of one law; each with 100 resamples of its noise, as groups of test pictures are resampled."""
    rng = np.random.default_rng(1)
    a, b, c, noise = 0.93, 2.0, 0.5, 0.01
    held = 0
    for _ in range(200):
        curve = a - b * N**-c + rng.normal(scale=noise, size=6)
        law = fit_power_law(N, np.concatenate([curve[None], curve + rng.normal(scale=noise, size=(100, 6))]), noise)
        low, high = np.quantile(law.accuracy(1600), [0.025, 0.975])
        held += low <= a - b * 1600**-c <= high
    assert held >= 180


def pictures(
    num_images: int, *, num_classes: int = 3, distance: float = 1.2, num_features: int = 60, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Features and classes of normal clouds, `distance` standard deviations from the middle."""
    rng = np.random.default_rng(seed)
    actual = np.arange(num_images) % num_classes
    return rng.normal(size=(num_images, num_features)) + distance * np.eye(num_features)[actual], actual


def measure(
    features: np.ndarray, actual: np.ndarray, groups: np.ndarray | None = None, repeats: int = 1
) -> dict | None:
    classes = [f"class {k}" for k in range(int(actual.max()) + 1)]
    return learning_curve(
        features,
        actual,
        np.arange(len(actual)) if groups is None else groups,
        classes=classes,
        num_train=[int((actual == k).sum() * 0.8) for k in range(len(classes))],
        repeats=repeats,
        confidence=0.95,
        seed=5,
    )


def test_what_half_of_the_pictures_forecast_is_what_the_whole_reaches() -> None:
    features, actual = pictures(1600)
    half, whole = measure(features[:800], actual[:800], repeats=2), measure(features, actual)
    assert half is not None
    assert whole is not None
    forecast, reached = half["forecast"][1], whole["points"][-1]
    assert forecast["num_images"] == pytest.approx(reached["num_images"], rel=0.01)
    assert forecast["accuracy"] == pytest.approx(reached["accuracy"], abs=0.03)
    assert forecast["low"] <= reached["high"]
    assert forecast["high"] >= reached["low"]


def test_points_grow_in_pictures_and_each_figure_lies_in_its_interval() -> None:
    found = measure(*pictures(300))
    assert found is not None
    numbers = [row["num_images"] for row in found["points"]]
    assert numbers == [round(240 * part) for part in FRACTIONS]
    assert found["points"][0]["accuracy"] < found["points"][-1]["accuracy"]
    for row in (*found["points"], *found["forecast"]):
        assert 0 <= row["low"] <= row["accuracy"] <= row["high"] <= 1
    assert set(found["per_class"]) == {"class 0", "class 1", "class 2"}


def test_a_starved_class_is_what_to_collect_and_a_satisfied_one_gains_nothing() -> None:
    features, actual = pictures(600, num_classes=2, distance=1.5)
    starved = np.concatenate([np.flatnonzero(actual == 0), np.flatnonzero(actual == 1)[:30]])
    found = measure(features[starved], actual[starved], repeats=2)
    assert found is not None
    advice = found["advice"]
    assert (advice["class"], advice["more_images"]) == ("class 1", 100)
    assert advice["recall_gain"]["value"] > 0.1
    assert advice["low"] <= advice["expected_gain"] <= advice["high"]
    easy = measure(*pictures(600, num_classes=2, distance=9.0))
    assert easy is not None
    assert easy["advice"]["expected_gain"] == pytest.approx(0.0, abs=1e-3)


def test_copies_are_learnt_from_and_tested_together() -> None:
    """Features that say nothing of the class, each picture five times: only leaked copies could be told."""
    rng = np.random.default_rng(2)
    group = np.repeat(np.arange(80), 5)
    features, actual = rng.normal(size=(80, 300))[group], rng.integers(0, 2, 80)[group]
    found = measure(features, actual, group)
    assert found is not None
    assert found["points"][-1]["accuracy"] < 0.65


def test_too_few_pictures_have_no_curve() -> None:
    assert measure(*pictures(40)) is None
    assert measure(*pictures(60, num_classes=30)) is None
    assert measure(*pictures(300), repeats=0) is None
    few = measure(*pictures(330, num_classes=30, distance=3.0))
    assert few is not None
    assert (few["per_class"], few["advice"]) == ({}, None)


def test_either_form_of_the_probe_is_ridge_regression() -> None:
    """More features than pictures, and fewer; beside scikit-learn's Ridge on the same scaled features."""
    from sklearn.linear_model import Ridge

    for num_features in (30, 200):
        features, actual = pictures(120, num_features=num_features)
        probe = SubsetProbe(features, actual, 3)
        order = np.random.default_rng(1).permutation(120)
        nested, tests = [order[:40], order[:80]], order[80:]
        found = probe.right(nested, tests)
        for learnt, right in zip(nested, found, strict=True):
            targets = np.eye(3)[actual[learnt]]
            ridge = Ridge(probe.penalty, fit_intercept=False).fit(probe.rows[learnt], targets - targets.mean(axis=0))
            told = (ridge.predict(probe.rows[tests]) + targets.mean(axis=0)).argmax(axis=1)
            assert (right == (told == actual[tests])).all()

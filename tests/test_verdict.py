"""The goal, the threshold, the reliability band, what changed, slices: against cases by hand, peers and simulation."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import sklearn.metrics as peer
from evaluate_inputs import run, small_stage, sure_of, table

from pipelines.evaluate.calibration import FEWEST_IN_BIN, calibration, draw_right
from pipelines.evaluate.change import ID_DIGITS, Answer, change, compare_answers, mcnemar
from pipelines.evaluate.coverage import accuracy_curve, coverage, fit_threshold, top_k
from pipelines.evaluate.factors import factor_figures
from pipelines.evaluate.figures import rounded
from pipelines.evaluate.intervals import fraction_interval, wilson_interval
from pipelines.evaluate.members import Predictions
from pipelines.evaluate.metrics import ScoredImages, average_precision, calibration_bins, score
from pipelines.evaluate.slices import Column, holm, slices
from pipelines.evaluate.verdict import verdict
from pipelines.params.evaluate import GoalParams

NONE = np.zeros(0)


def scored_as(num_right: int, num_wrong: int, confidence: float = 0.8) -> ScoredImages:
    """Two classes told with one confidence."""
    predicted = [0] * (num_right + num_wrong)
    actual = np.array([0] * num_right + [1] * num_wrong)
    return score(actual, sure_of(predicted, 2, confidence))


# fractions -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("accuracy", [0.5, 0.9, 0.98])
@pytest.mark.parametrize("num_images", [20, 40, 150, 2000])
def test_the_interval_of_a_fraction_covers_the_truth(num_images: int, accuracy: float) -> None:
    """Over all outcomes, weighted by how probable each is: about .95, never far below."""
    from scipy.stats import binom

    outcomes = np.arange(num_images + 1)
    ends = [
        fraction_interval(np.arange(num_images) < k, np.arange(num_images), 0.95)
        for k in outcomes[binom.pmf(outcomes, num_images, accuracy) > 1e-9]
    ]
    probable = binom.pmf(outcomes, num_images, accuracy)
    probable = probable[probable > 1e-9]
    covered = probable[[one.low <= accuracy <= one.high for one in ends]].sum()
    assert 0.915 <= covered <= 0.985


def test_copies_widen_the_interval_of_a_fraction() -> None:
    right = np.repeat(np.arange(10) < 8, 4)
    alone = fraction_interval(right, np.arange(40), 0.95)
    copied = fraction_interval(right, np.repeat(np.arange(10), 4), 0.95)
    assert alone.value == copied.value == 0.8
    assert copied.low < alone.low < alone.high < copied.high


# the goal --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("num_right", "num_wrong", "goal", "status"),
    [(95, 5, 0.85, "met"), (95, 5, 0.995, "missed"), (95, 5, 0.94, "unclear"), (20, 0, 0.9, "unclear")],
)
def test_a_goal_is_met_missed_or_too_few_pictures_tell(
    num_right: int, num_wrong: int, goal: float, status: str
) -> None:
    test = scored_as(num_right, num_wrong)
    found = verdict(GoalParams(value=goal), test, np.arange(num_right + num_wrong), NONE, confidence=0.95)
    assert found["status"] == status
    assert found["num_images"] == num_right + num_wrong
    assert (found["more_images_needed"] is not None) == (status == "unclear")
    assert f"{100 * goal:g} % accuracy" in found["sentence"]


def test_as_many_more_pictures_as_are_said_would_tell() -> None:
    found = verdict(GoalParams(value=0.9), scored_as(94, 6), np.arange(100), NONE, confidence=0.95)
    more = found["more_images_needed"]
    for num_images, tells in ((100 + more, True), (100 + more // 2, False)):
        low, _ = wilson_interval(np.array([0.94 * num_images]), np.array([float(num_images)]), 0.95)
        assert (low[0] >= 0.9) == tells


def test_a_goal_that_equals_the_value_is_never_told() -> None:
    found = verdict(GoalParams(value=0.9), scored_as(90, 10), np.arange(100), NONE, confidence=0.95)
    assert found["status"] == "unclear"
    assert found["more_images_needed"] is None or found["more_images_needed"] > 1e5


def test_without_a_goal_nothing_is_promised() -> None:
    found = verdict(GoalParams(), scored_as(9, 1), np.arange(10), NONE, confidence=0.95)
    assert found["status"] == "no_goal"
    assert found["sentence"].startswith("No goal is set")


def test_a_share_of_the_pictures_may_be_left_to_a_person() -> None:
    actual = np.zeros(100, np.int64)
    probabilities = np.concatenate([sure_of([0] * 80, 2, 0.95), sure_of([1] * 20, 2, 0.6)])
    goal = GoalParams(value=0.9, coverage=0.8)
    found = verdict(goal, score(actual, probabilities), np.arange(100), probabilities.max(1), confidence=0.95)
    assert (found["measured_coverage"], found["value"], found["status"]) == (0.8, 1.0, "met")


# the threshold ---------------------------------------------------------------------------------------


def test_the_threshold_is_the_lowest_that_keeps_the_promise_on_validation_pictures() -> None:
    sure = np.linspace(1.0, 0.01, 100)
    right = np.arange(100) < 50
    assert fit_threshold(sure, right, 0.9) == pytest.approx(sure[54], abs=1e-6)  # 50 of 55 are right, 50 of 56 are not
    assert fit_threshold(sure, right, 0.4) == 0.0
    assert fit_threshold(sure, ~right, 0.9) is None
    assert fit_threshold(sure[:19], right[:19], 0.9) is None
    assert fit_threshold(NONE, np.zeros(0, bool), 0.9) is None


def test_pictures_of_one_confidence_are_answered_together() -> None:
    assert fit_threshold(np.full(40, 0.7), np.arange(40) < 30, 0.9) is None
    curve = accuracy_curve(scored_as(30, 10), np.arange(40), 0.95)
    assert [(point["coverage"], point["accuracy"]) for point in curve] == [(1.0, 0.75)]


def test_fewer_answers_of_a_sure_model_are_better_answers() -> None:
    rng = np.random.default_rng(0)
    sure = rng.uniform(0.5, 1, 2000)
    actual = (rng.random(2000) > sure).astype(np.int64)
    test = score(actual, np.stack([sure, 1 - sure], axis=1))
    found = coverage(test, np.arange(2000), test, wished_precision=0.9, confidence=0.95)
    curve = found["curve"]
    assert len(curve) == 20
    assert curve[0]["accuracy"] < 0.8 < 0.95 < curve[-1]["accuracy"]
    at = found["at_threshold"]
    assert at["accuracy"]["value"] >= 0.9
    assert at["coverage"]["value"] == pytest.approx(at["num_answered"] / 2000)
    # calibrated: from .8 to 1 the mean is .9
    assert found["threshold"] == pytest.approx(0.8, abs=0.04)


def test_top_k_is_scikit_learns() -> None:
    rng = np.random.default_rng(1)
    probabilities = rng.dirichlet(np.ones(6), 300)
    actual = rng.integers(6, size=300)
    found = top_k(probabilities, actual, np.arange(300), 0.95)
    assert list(found) == ["1", "2", "3", "5"]
    for k, one in found.items():
        expected = peer.top_k_accuracy_score(actual, probabilities, k=int(k), labels=range(6))
        assert one["value"] == pytest.approx(expected)
    assert list(top_k(probabilities[:, :2], np.zeros(300, np.int64), np.arange(300), 0.95)) == ["1"]


def test_average_precision_is_scikit_learns_ties_and_all() -> None:
    rng = np.random.default_rng(2)
    probabilities = rng.dirichlet(np.ones(4), 200).round(1)
    actual = rng.integers(3, size=200)
    found = average_precision(probabilities, actual)
    for k in range(3):
        assert found[k] == pytest.approx(peer.average_precision_score(actual == k, probabilities[:, k]))
    assert np.isnan(found[3])


# calibration -----------------------------------------------------------------------------------------


def drawn(num_images: int, rng: np.random.Generator) -> ScoredImages:
    """Two classes whose probabilities are exact."""
    sure = rng.uniform(0.5, 1.0, num_images)
    actual = (rng.random(num_images) > sure).astype(np.int64)
    return score(actual, np.stack([sure, 1 - sure], axis=1))


@pytest.mark.parametrize("num_images", [20, 150])
def test_a_calibrated_model_is_called_calibrated(num_images: int) -> None:
    rng = np.random.default_rng(num_images)
    groups = np.arange(num_images)
    told = [
        calibration(drawn(num_images, rng), groups, temperature=1.0, confidence=0.95, draws=200, seed=i)[
            "is_calibrated"
        ]
        for i in range(100)
    ]
    assert np.mean(told) >= 0.9


def test_the_band_holds_the_points_of_a_calibrated_model_and_not_of_an_overconfident_one() -> None:
    rng = np.random.default_rng(5)
    bins = []
    for _ in range(40):
        found = calibration(drawn(150, rng), np.arange(150), temperature=1.0, confidence=0.95, draws=200, seed=0)
        assert sum(one["num"] for one in found["bins"]) == 150
        assert all(one["num"] >= FEWEST_IN_BIN for one in found["bins"])
        bins += found["bins"]
    assert np.mean([one["low"] <= one["accuracy"] <= one["high"] for one in bins]) > 0.93
    over = score((rng.random(300) > 0.6).astype(np.int64), sure_of([0] * 300, 2, 0.9))
    wrong = calibration(over, np.arange(300), temperature=1.0, confidence=0.95, draws=200, seed=0)
    assert not wrong["is_calibrated"]
    assert wrong["bins"][0]["accuracy"] < wrong["bins"][0]["low"]


def test_large_sets_are_drawn_from_the_normal_distribution_of_the_same_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    probabilities, groups = rng.uniform(0.4, 1.0, 3000), rng.integers(900, size=3000)
    bins = calibration_bins(probabilities)
    exact = draw_right(probabilities, bins, groups, draws=3000, seed=0)
    monkeypatch.setattr("pipelines.evaluate.calibration.MAX_DRAWN", 0)
    normal = draw_right(probabilities, bins, groups, draws=3000, seed=0)
    np.testing.assert_allclose(normal.mean(axis=0), exact.mean(axis=0), atol=0.5)
    used = exact.std(axis=0) > 0
    np.testing.assert_allclose(normal.std(axis=0)[used], exact.std(axis=0)[used], rtol=0.08)


# what changed ----------------------------------------------------------------------------------------


def answers(text: str) -> list[Answer]:
    """One row a word of four letters: id, actual, predicted, previous (. for none)."""
    return [Answer(w[0], w[1], w[2], "" if w[3] == "." else w[3]) for w in text.split()]


def test_two_runs_are_compared_on_the_pictures_that_both_have() -> None:
    found = change(answers("axxy bxxx cyxy dyy."), {}, confidence=0.95)
    assert found is not None
    assert (found["num_shared"], found["num_now"], found["gained"], found["lost"]) == (3, 4, 1, 1)
    assert found["difference"]["value"] == 0.0
    assert found["per_class"] == {"x": {"gained": 1, "lost": 0}, "y": {"gained": 0, "lost": 1}}
    assert [one["image_id"] for one in found["changed"]] == ["a", "c"]
    assert change(answers("axx. byy."), {}, confidence=0.95) is None


def test_better_is_said_of_what_chance_does_not_explain() -> None:
    better = change([Answer(f"{i:03}", "x", "x", "y" if i < 30 else "x") for i in range(150)], {}, confidence=0.95)
    assert better is not None
    assert (better["verdict"], better["p_mcnemar"] < 1e-6) == ("better", True)
    # the same thirty pictures, all copies of one
    one_group = {f"{i:03}": "same" for i in range(30)}
    copies = change(
        [Answer(f"{i:03}", "x", "x", "y" if i < 30 else "x") for i in range(150)], one_group, confidence=0.95
    )
    assert copies is not None
    assert (copies["verdict"], copies["p_mcnemar"]) == ("unclear", 1.0)


def test_mcnemar_is_the_exact_binomial_test() -> None:
    gain = np.array([1.0] * 8 + [-1.0] * 2 + [0.0] * 90)
    assert mcnemar(gain, np.arange(100)) == pytest.approx(2 * (1 + 10 + 45) / 1024)
    assert mcnemar(np.zeros(5), np.arange(5)) == 1.0


def test_chance_alone_is_rarely_called_better_or_worse() -> None:
    rng = np.random.default_rng(4)
    told = []
    for _ in range(200):
        both = rng.random((60, 2)) < 0.85
        rows = [Answer(str(i), "x", "x" if now else "y", "x" if then else "y") for i, (now, then) in enumerate(both)]
        found = change(rows, {}, confidence=0.95)
        assert found is not None
        told.append(found["verdict"] != "unclear")
    assert np.mean(told) <= 0.07


def git(root: Path, *arguments: str) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *who, *arguments], cwd=root, check=True, capture_output=True)


def test_a_run_is_compared_with_the_last_committed_one_and_a_committed_state_stays_as_it_is(tmp_path: Path) -> None:
    root = small_stage(tmp_path)
    git(root, "init")
    assert run(root, members=("one",))["change"] is None
    git(root, "add", ".")
    git(root, "commit", "-m", "one")
    found = run(root, members=("one", "two"))["change"]
    assert (found["num_shared"], found["gained"], found["lost"]) == (3, 1, 0)
    assert [row["previous"] for row in table(root / "evaluate" / "compared.csv")] == ["Jaguar"] * 3
    before = (root / "evaluate" / "compared.csv").read_bytes()
    git(root, "add", ".")
    git(root, "commit", "-m", "both")
    assert run(root, members=("one", "two"))["change"] == found
    assert (root / "evaluate" / "compared.csv").read_bytes() == before


def test_what_git_holds_of_another_form_is_no_run_before() -> None:
    ids = np.array(["a" * 64], object)
    for text in (None, "", "a,b\n1,2\n"):
        assert compare_answers(ids, ["x"], ["x"], text) == [Answer("a" * ID_DIGITS, "x", "x", "")]


# slices ----------------------------------------------------------------------------------------------


def test_a_slice_that_is_clearly_worse_is_named_and_luck_is_not() -> None:
    rng = np.random.default_rng(6)
    right = rng.random(600) < 0.9
    source = np.where(np.arange(600) < 100, "shop", "web")
    right[:100] = np.arange(100) < 50
    columns: dict[str, Column] = {
        "source": source.tolist(),
        "sharpness": rng.random(600).tolist(),
        "noise": [True, False] * 300,
    }
    found = slices(right, np.arange(600), columns, confidence=0.95)
    assert found["num_looked_at"] == 2 + 3 + 2
    assert [(one["kind"], one["name"]) for one in found["worse"]] == [("source", "shop")]
    assert found["worse"][0]["accuracy"]["value"] == 0.5
    assert found["worse"][0]["rest"] > 0.85


def test_small_slices_unknown_values_and_columns_of_names_are_passed_over() -> None:
    right = np.ones(100, bool)
    columns: dict[str, Column] = {
        "rare": ["x"] * 5 + ["y"] * 95,
        "path": [str(i) for i in range(100)],
        "unknown": [None] * 100,
        "one": ["x"] * 100,
    }
    assert slices(right, np.arange(100), columns, confidence=0.95)["num_looked_at"] == 0


def test_holms_correction() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


# factors ---------------------------------------------------------------------------------------------


def test_each_factor_has_a_matrix_of_its_own(tmp_path: Path) -> None:
    import pyarrow as pa

    from pipelines.core.tables import PACK_INDEX, write_table

    classes = ["man-noble", "woman-noble", "woman-monk"]
    said = ['{"sex": "man", "rank": "noble"}', '{"sex": "woman", "rank": "noble"}', '{"sex": "woman", "rank": "monk"}']
    columns = {field.name: pa.nulls(3, field.type) for field in PACK_INDEX}
    columns |= {"class_index": pa.array([0, 1, 2], pa.int32()), "factors": pa.array(said)}
    write_table(pa.table(columns, schema=PACK_INDEX), tmp_path / "index.parquet", classes=classes)
    # the label is told wrong, but the sex of both women right: .3 and .3 are more than .4
    test = Predictions(np.array(["a", "b"], object), np.array([0, 1]), np.array([[0.9, 0.1, 0.0], [0.4, 0.3, 0.3]]))
    found = factor_figures(tmp_path / "index.parquet", test, np.arange(2), classes, confidence=0.95)
    assert found["sex"]["classes"] == ["man", "woman"]
    assert found["sex"]["counts"] == [[1, 0], [0, 1]]
    assert found["rank"]["counts"] == [[0, 0], [0, 2]]


def test_figures_are_rounded_and_what_is_not_known_is_null() -> None:
    found = rounded({"a": [1.23456789, float("nan")], "b": {"c": np.float64(0.1), "d": 3, "e": None}})
    assert json.dumps(found) == '{"a": [1.234568, null], "b": {"c": 0.1, "d": 3, "e": null}}'


def test_the_keys_of_metrics_json_are_the_documented_ones(tmp_path: Path) -> None:
    import re

    run(small_stage(tmp_path))
    keys = list(json.loads((tmp_path / "evaluate" / "metrics.json").read_text(encoding="utf-8")))
    text = (Path(__file__).parents[1] / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \|", text, flags=re.MULTILINE) == keys

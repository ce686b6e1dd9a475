"""Ensembles: means, votes, fitted weights, and members of factors that are joined to labels."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipelines.core.errors import InputError
from pipelines.core.tables import PACK_INDEX, PREDICTIONS, read_table, write_table
from pipelines.evaluate import evaluate
from pipelines.evaluate.ensemble import PRIOR, combine, fit_weights, vote, weighted_mean
from pipelines.evaluate.members import MemberPredictions, Predictions
from pipelines.evaluate.metrics import Floats
from pipelines.params.evaluate import Ensemble, EvaluateParams
from pipelines.report.wording import ensemble_sentence, member_rows
from pipelines.train.temperature import temper


def of(*rows: Sequence[float]) -> Floats:
    return np.array(rows, np.float64)


# vote ---------------------------------------------------------------------------------------------


def test_two_votes_beat_one_however_sure_it_is() -> None:
    said = [of([0.51, 0.49]), of([0.51, 0.49]), of([0.0, 1.0])]
    assert weighted_mean(said, np.full(3, 1 / 3)).argmax() == 1
    # votes 2 and 1, mean .34 and .66: 2.34 / 4
    assert vote(said).tolist() == [pytest.approx([0.585, 0.415])]


def test_a_tie_goes_to_the_class_with_the_larger_mean() -> None:
    # votes 1, 1 and 0, mean .45, .5 and .05
    assert vote([of([0.6, 0.3, 0.1]), of([0.3, 0.7, 0.0])]) == pytest.approx(of([1.45 / 3, 1.5 / 3, 0.05 / 3]))


def test_votes_sum_to_one_and_are_ordered_by_votes_and_then_by_the_mean() -> None:
    rng = np.random.default_rng(0)
    for num_members in (1, 2, 5):
        said = [rng.dirichlet(np.full(4, 0.3), size=300) for _ in range(num_members)]
        shares = vote(said)
        np.testing.assert_allclose(shares.sum(axis=1), 1.0)
        votes = np.sum([one.argmax(axis=1)[:, None] == np.arange(4) for one in said], axis=0)
        mean = np.mean(said, axis=0)
        for row in range(300):
            expected = sorted(range(4), key=lambda k: (votes[row, k], mean[row, k]))
            assert np.argsort(shares[row]).tolist() == expected


# weights ------------------------------------------------------------------------------------------


def test_without_pictures_weights_are_equal() -> None:
    assert fit_weights(np.empty((0, 3))).tolist() == pytest.approx([1 / 3] * 3)


def test_equal_members_get_equal_weights() -> None:
    of_truth = np.repeat(np.random.default_rng(0).random((40, 1)), 2, axis=1)
    assert fit_weights(of_truth).tolist() == pytest.approx([0.5, 0.5])


def test_a_weight_follows_from_counts_where_members_never_agree() -> None:
    """Each picture is known to one member alone: 30 and 10, plus half the prior each, out of 40 plus the prior."""
    of_truth = np.zeros((40, 2))
    of_truth[:30, 0] = of_truth[30:, 1] = 1.0
    assert fit_weights(of_truth).tolist() == pytest.approx(
        [(30 + PRIOR / 2) / (40 + PRIOR), (10 + PRIOR / 2) / (40 + PRIOR)]
    )
    assert fit_weights(of_truth, prior=1e6).tolist() == pytest.approx([0.5, 0.5], abs=1e-4)


def test_few_pictures_move_weights_less_than_many() -> None:
    better = np.tile([0.9, 0.3], (400, 1))
    few, many = fit_weights(better[:3])[0], fit_weights(better)[0]
    assert 0.5 < few < 0.85 < 0.99 < many < 1.0


@pytest.mark.parametrize(("num_images", "num_members"), [(1, 2), (7, 9), (60, 4), (3000, 6)])
def test_weights_are_at_the_minimum(num_images: int, num_members: int) -> None:
    """There, and only there, every weight is the mean share of its member in what pictures get, the prior's included:
    the fixed point of expectation maximisation."""
    rng = np.random.default_rng(num_images)
    of_truth = rng.random((num_images, num_members)) ** rng.integers(1, 6, size=num_members)
    weights = fit_weights(of_truth)
    assert (weights > 0).all()
    assert weights.sum() == pytest.approx(1.0, abs=1e-12)
    shares = of_truth * weights / (of_truth @ weights)[:, None]
    expected = (shares.sum(axis=0) + PRIOR / num_members) / (num_images + PRIOR)
    np.testing.assert_allclose(weights, expected, rtol=1e-6)


def test_extreme_probabilities_are_survived() -> None:
    of_truth = np.array([[0.0, 1.0], [1e-300, 1.0], [1.0, 0.0]] * 50)
    weights = fit_weights(of_truth)
    assert np.isfinite(weights).all()
    assert weights[1] == pytest.approx((100 + PRIOR / 2) / (150 + PRIOR), rel=1e-3)


def member(name: str, test: Floats, val: Floats) -> MemberPredictions:
    def predicted(probabilities: Floats) -> Predictions:
        image_ids = np.array([f"{i:04}" for i in range(len(probabilities))], object)
        return Predictions(image_ids, np.zeros(len(probabilities), np.int64), probabilities)

    return MemberPredictions(name, "label", ["a", "b"], predicted(test), predicted(val))


@pytest.mark.parametrize("method", ["mean", "vote", "weighted"])
def test_one_member_alone_stays_as_it_is(method: Ensemble) -> None:
    alone = member("one", of([0.7, 0.3]), of([0.4, 0.6]))
    combined = combine(method, [alone], val_groups=np.array([0]), seed=1)
    assert combined.test is alone.test
    assert combined.val is alone.val
    assert combined.weights.tolist() == [1.0]


def test_the_test_set_never_changes_a_weight() -> None:
    val = [of(*[[0.9, 0.1]] * 50), of(*[[0.2, 0.8]] * 50)]
    groups = np.arange(50)

    def weights(test: Floats) -> list[float]:
        members = [member(str(i), test, v) for i, v in enumerate(val)]
        found: list[float] = combine("weighted", members, val_groups=groups, seed=1).weights.tolist()
        return found

    assert weights(of([0.0, 1.0])) == weights(of([1.0, 0.0]))
    assert weights(of([0.5, 0.5]))[0] > 0.9


def test_validation_pictures_are_weighed_without_themselves_and_without_their_copies() -> None:
    """One picture, in many copies, is all that speaks for the second member; its own figure does not profit from it."""
    good, bad = [0.9, 0.1], [0.1, 0.9]
    val = [of(*[good] * 40, *[bad] * 60), of(*[bad] * 40, *[good] * 60)]
    groups = np.array([*range(40), *[40] * 60])
    members = [member(str(i), v, v) for i, v in enumerate(val)]
    combined = combine("weighted", members, val_groups=groups, seed=1)
    assert combined.weights[1] > 0.5
    of_copies = temper(combined.val.probabilities, 1 / combined.temperature)[40:, 0]
    assert (of_copies < 0.2).all()
    by_all = weighted_mean([m.val.probabilities for m in members], combined.weights)[40:, 0]
    assert (by_all > 0.4).all()


# the stage ----------------------------------------------------------------------------------------

LABELS = ["man, merchant", "man, noble", "woman, merchant", "woman, noble"]
PICTURES = [(f"{i:02}", i % 4, "test" if i < 8 else "val" if i < 16 else "train") for i in range(24)]


def sexes(label: int) -> int:
    return label // 2


def ranks(label: int) -> int:
    return label % 2


def factors(label: int) -> str:
    sex, rank = LABELS[label].split(", ")
    return json.dumps({"sex": sex, "rank": rank})


def write_index(root: Path, *, said: Sequence[str] | None = None, labels: Sequence[str] = LABELS, **more: Any) -> None:
    pictures = more.get("pictures", PICTURES)
    columns: dict[str, list[Any]] = {
        "image_id": [p[0] for p in pictures],
        "label": [labels[p[1]] for p in pictures],
        "class_index": [p[1] for p in pictures],
        "group": [p[0] for p in pictures],
        "subset": [p[2] for p in pictures],
        "fold": [0 if p[2] == "val" else -1 for p in pictures],
        "position": list(range(len(pictures))),
        "factors": list(said) if said is not None else [factors(p[1]) for p in pictures],
        "copy": [0] * len(pictures),
    }
    write_table(pa.table(columns, schema=PACK_INDEX), root / "index.parquet", classes=list(labels))


def write_member(
    root: Path, name: str, classes: list[str], rows: list[tuple[str, str, int, list[float]]], target: str = "label"
) -> None:
    columns: dict[str, list[Any]] = {
        "image_id": [r[0] for r in rows],
        "subset": [r[1] for r in rows],
        "class_index": [r[2] for r in rows],
        "probabilities": [r[3] for r in rows],
    }
    table = pa.table(columns, schema=PREDICTIONS)
    write_table(table, root / "train" / f"{name}-0" / "predictions.parquet", classes=classes, target=target)


def tells(root: Path, name: str, target: str, *, wrong: Sequence[str] = (), sure: float = 0.8) -> None:
    """A member of a factor or of the label that is `sure` of the truth, and of the next class for pictures `wrong`."""
    classes, of_label = {
        "sex": (["man", "woman"], sexes),
        "rank": (["merchant", "noble"], ranks),
        "label": (LABELS, lambda label: label),
    }[target]
    rows = []
    for image_id, label, subset in PICTURES:
        if subset != "train":
            truth = of_label(label)
            probabilities = [(1 - sure) / (len(classes) - 1)] * len(classes)
            probabilities[(truth + (image_id in wrong)) % len(classes)] = sure
            rows.append((image_id, subset, truth, probabilities))
    write_member(root, name, classes, rows, target)


def run(root: Path, *members: str, ensemble: Ensemble = "mean") -> dict[str, Any]:
    evaluate(
        EvaluateParams(
            seed=7,
            ensemble=ensemble,
            confidence=0.95,
            leak_repeats=0,
        ),
        folders={(name, 0): root / "train" / f"{name}-0" for name in members},
        index=root / "index.parquet",
        manifest=None,
        out_dir=root / "evaluate",
        ask=False,
    )
    metrics: dict[str, Any] = json.loads((root / "evaluate" / "figures.json").read_text(encoding="utf-8"))
    return metrics


def predicted(root: Path) -> Floats:
    table = read_table(root / "evaluate" / "predictions.parquet", PREDICTIONS)
    return np.array(table["probabilities"].to_pylist())


def test_factors_are_multiplied_to_labels(tmp_path: Path) -> None:
    write_index(tmp_path)
    tells(tmp_path, "by_sex", "sex", sure=0.8)
    tells(tmp_path, "by_rank", "rank", sure=0.7, wrong=["00"])
    metrics = run(tmp_path, "by_sex", "by_rank")
    # a merchant, a man: taken for a noble one
    assert predicted(tmp_path)[0] == pytest.approx([0.8 * 0.3, 0.8 * 0.7, 0.2 * 0.3, 0.2 * 0.7])
    assert predicted(tmp_path)[1] == pytest.approx([0.8 * 0.3, 0.8 * 0.7, 0.2 * 0.3, 0.2 * 0.7])
    assert metrics["accuracy"]["value"] == 0.875
    assert list(metrics["members"]) == ["sex × rank", "by_sex", "by_rank"]
    # each factor is measured on its own classes, and has no weight of its own
    assert [(m["target"], m["weight"]) for m in metrics["members"].values()] == [
        ("label", 1.0),
        ("sex", None),
        ("rank", None),
    ]
    assert metrics["members"]["by_sex"]["accuracy"]["value"] == 1.0
    assert metrics["members"]["by_rank"]["accuracy"]["value"] == 0.875
    assert metrics["members"]["by_rank"]["out_of_fold"] == {
        "num_images": 8,
        "accuracy": 1.0,
        "log_loss": round(-np.log(0.7), 6),
    }
    assert metrics["ensemble"]["best_member"] is None


def test_only_combinations_that_are_labels_get_a_share(tmp_path: Path) -> None:
    labels = ["man, merchant", "man, noble", "woman, noble"]
    said = [json.dumps(dict(zip(("sex", "rank"), label.split(", "), strict=True))) for label in labels]
    pictures = [("a", 0, "test"), ("b", 1, "test"), ("c", 2, "val")]
    write_index(tmp_path, said=said, labels=labels, pictures=pictures)
    for name, classes, of_label in (("sex", ["man", "woman"], (0, 0, 1)), ("rank", ["merchant", "noble"], (0, 1, 1))):
        rows = [(p[0], p[2], of_label[p[1]], [0.5, 0.5]) for p in pictures]
        write_member(tmp_path, name, classes, rows, target=name)
    run(tmp_path, "sex", "rank")
    assert predicted(tmp_path)[0] == pytest.approx([1 / 3] * 3)


def test_a_label_of_several_combinations_gets_the_sum_of_them(tmp_path: Path) -> None:
    """As after split has merged rare labels."""
    labels = ["man, noble", "other"]
    combinations = [("man", "noble"), ("man", "merchant"), ("woman", "noble"), ("woman", "noble")]
    pictures = [("a", 0, "test"), ("b", 1, "test"), ("c", 1, "val"), ("d", 1, "val")]
    said = [json.dumps({"sex": sex, "rank": rank}) for sex, rank in combinations]
    write_index(tmp_path, said=said, labels=labels, pictures=pictures)
    for name, classes, f in (("sex", ["man", "woman"], 0), ("rank", ["merchant", "noble"], 1)):
        rows = [
            (p[0], p[2], classes.index(values[f]), [0.6, 0.4]) for p, values in zip(pictures, combinations, strict=True)
        ]
        write_member(tmp_path, name, classes, rows, target=name)
    run(tmp_path, "sex", "rank")
    # man noble .24; man merchant .36 and woman noble .16; woman merchant is no label
    assert predicted(tmp_path)[0] == pytest.approx([0.24 / 0.76, 0.52 / 0.76])


def test_a_relabelled_picture_does_not_move_its_old_combination(tmp_path: Path) -> None:
    said = [factors(p[1]) for p in PICTURES]
    said[20] = factors(3)  # of label 0 now
    write_index(tmp_path, said=said)
    tells(tmp_path, "by_sex", "sex")
    tells(tmp_path, "by_rank", "rank")
    assert run(tmp_path, "by_sex", "by_rank")["accuracy"]["value"] == 1.0


def test_members_of_one_factor_are_averaged_before_they_are_joined(tmp_path: Path) -> None:
    write_index(tmp_path)
    tells(tmp_path, "one", "sex", sure=0.9)
    tells(tmp_path, "two", "sex", sure=0.6, wrong=["00"])
    tells(tmp_path, "three", "rank", sure=0.5)
    run(tmp_path, "one", "two", "three")
    man = (0.9 + 0.4) / 2
    assert predicted(tmp_path)[0] == pytest.approx([man / 2, man / 2, (1 - man) / 2, (1 - man) / 2])


def test_joined_factors_stand_beside_members_that_tell_labels(tmp_path: Path) -> None:
    write_index(tmp_path)
    tells(tmp_path, "by_sex", "sex", sure=0.9)
    tells(tmp_path, "by_rank", "rank", sure=0.9)
    tells(tmp_path, "whole", "label", sure=0.7, wrong=["00", "08", "09"])
    metrics = run(tmp_path, "by_sex", "whole", "by_rank")
    assert list(metrics["members"]) == ["whole", "sex × rank", "by_sex", "by_rank"]
    assert predicted(tmp_path)[0] == pytest.approx(
        [(0.1 + 0.81) / 2, (0.7 + 0.09) / 2, (0.1 + 0.09) / 2, (0.1 + 0.01) / 2]
    )
    assert metrics["ensemble"]["num_members"] == 2
    assert metrics["ensemble"]["best_member"] == "sex × rank"
    assert metrics["ensemble"]["gain"]["accuracy"]["value"] == 0.0
    assert [row.name for row in member_rows(metrics)] == ["all together", "whole", "sex × rank", "by_sex", "by_rank"]
    assert "2 members" in ensemble_sentence(metrics)


def test_a_certain_factor_does_not_make_everything_impossible(tmp_path: Path) -> None:
    labels = ["man, merchant", "woman, noble"]
    pictures = [("a", 0, "test"), ("b", 1, "val")]
    said = [json.dumps({"sex": "man", "rank": "merchant"}), json.dumps({"sex": "woman", "rank": "noble"})]
    write_index(tmp_path, said=said, labels=labels, pictures=pictures)
    write_member(tmp_path, "s", ["man", "woman"], [(p[0], p[2], p[1], [1.0, 0.0]) for p in pictures], "sex")
    write_member(tmp_path, "r", ["merchant", "noble"], [(p[0], p[2], p[1], [0.0, 1.0]) for p in pictures], "rank")
    run(tmp_path, "s", "r")
    assert predicted(tmp_path)[0] == pytest.approx([0.5, 0.5])


def test_a_picture_under_two_labels_is_measured_under_both(tmp_path: Path) -> None:
    pictures = [*PICTURES, ("00", 1, "test")]
    write_index(tmp_path, pictures=pictures)
    for name, classes, of_label in (("sex", ["man", "woman"], sexes), ("rank", ["merchant", "noble"], ranks)):
        rows = [(p[0], p[2], of_label(p[1]), [0.8, 0.2]) for p in pictures if p[2] != "train"]
        write_member(tmp_path, name, classes, rows, name)
    assert run(tmp_path, "sex", "rank")["num_images"] == 9


@pytest.mark.parametrize(
    ("members", "said", "message"),
    [
        (["by_sex"], None, "members tell sex apart, but none tells rank, without which no label is known: add a recipe "
         "with target: rank to train.members"),
        (["by_sex", "whole"], None, "none tells rank"),
        (["by_sex", "by_rank"], [""] * 24, "knows no factors of its labels"),
        (["by_sex", "by_rank"], ["{"] * 24, "holds the factors '{', no JSON object of texts"),
        (["by_sex", "by_rank"], ["[1]"] * 24, "not an object of texts"),
        (["by_sex", "by_rank"], ['{"sex": "man"}'] * 24, "no picture of man, noble, woman, merchant"),
        (["by_sex", "by_rank"], ['{"age": "old"}'] * 6 + [factors(p[1]) for p in PICTURES[6:]], "says which"),
        (["by_age", "by_sex", "by_rank"], None, "by_age tells age apart, which is not among the factors of the labels "
         "(sex, rank): change its recipe's target"),
        (["by_sex", "short"], None, "members of sex and of rank predicted different test pictures"),
        (["by_sex", "foreign"], None, "does not know the rank 'merchant', which a label has"),
        (["by_sex", "by_rank", "foreign"], None, "by_rank and foreign know different values of rank"),
    ],
)  # fmt: skip
def test_factors_that_cannot_be_joined_are_refused(
    tmp_path: Path, members: list[str], said: list[str] | None, message: str
) -> None:
    write_index(tmp_path, said=said)
    tells(tmp_path, "by_sex", "sex")
    tells(tmp_path, "by_rank", "rank")
    tells(tmp_path, "whole", "label")
    rows = [(p[0], p[2], ranks(p[1]), [0.5, 0.5]) for p in PICTURES if p[2] != "train"]
    write_member(tmp_path, "by_age", ["old", "young"], rows, "age")
    write_member(tmp_path, "short", ["merchant", "noble"], rows[1:], "rank")
    write_member(tmp_path, "foreign", ["noble", "peasant"], rows, "rank")
    with pytest.raises(InputError) as caught:
        run(tmp_path, *members)
    assert message in str(caught.value)
    assert not (tmp_path / "evaluate").exists()


def test_folds_of_one_member_tell_the_same(tmp_path: Path) -> None:
    write_index(tmp_path)
    tells(tmp_path, "by_sex", "sex")
    write_member(
        tmp_path, "other", ["merchant", "noble"], [(p[0], "test", 0, [0.5, 0.5]) for p in PICTURES[:8]], "rank"
    )
    with pytest.raises(InputError, match="other-0/predictions.parquet was predicted for other classes than"):
        evaluate(
            EvaluateParams(
                seed=1,
                ensemble="mean",
                confidence=0.9,
                leak_repeats=0,
            ),
            folders={("x", 0): tmp_path / "train" / "by_sex-0", ("x", 1): tmp_path / "train" / "other-0"},
            index=tmp_path / "index.parquet",
            manifest=None,
            out_dir=tmp_path / "evaluate",
            ask=False,
        )


def test_pictures_without_a_label_are_not_measured(tmp_path: Path) -> None:
    write_index(tmp_path)
    tells(tmp_path, "whole", "label")
    before = run(tmp_path, "whole")
    rows = [(p[0], p[2], p[1], [0.1 + 0.6 * (k == p[1]) for k in range(4)]) for p in PICTURES if p[2] != "train"]
    write_member(tmp_path, "whole", LABELS, [*rows, ("nobody", "unlabelled", -1, [0.25] * 4)])
    after = run(tmp_path, "whole")
    assert after["num_images"] == before["num_images"] == 8
    assert after["members"]["whole"]["out_of_fold"]["num_images"] == 8


def test_predictions_of_strangers_are_refused(tmp_path: Path) -> None:
    write_index(tmp_path)
    rows = [(p[0], p[2], p[1], [0.25] * 4) for p in PICTURES if p[2] != "train"]
    write_member(tmp_path, "whole", LABELS, [*rows, ("stranger", "val", 0, [0.25] * 4)])
    with pytest.raises(
        InputError, match="lacks 1 of the pictures that were predicted, the first stranger: run `dvc repro"
    ):
        run(tmp_path, "whole")


def test_weights_stand_in_the_metrics_and_favour_the_better_member(tmp_path: Path) -> None:
    write_index(tmp_path)
    tells(tmp_path, "good", "label", sure=0.9)
    tells(tmp_path, "poor", "label", sure=0.9, wrong=[p[0] for p in PICTURES[:14]])
    metrics = run(tmp_path, "good", "poor", ensemble="weighted")
    weights = [m["weight"] for m in metrics["members"].values()]
    assert weights[0] > 0.7
    assert sum(weights) == pytest.approx(1.0, abs=1e-6)
    assert metrics["ensemble"]["best_member"] == "good"
    assert metrics["ensemble"]["method"] == "weighted"
    assert metrics["ensemble"]["gain"]["log_loss"]["value"] > 0
    assert metrics["accuracy"]["value"] == 1.0
    assert [m["weight"] for m in run(tmp_path, "good", "poor")["members"].values()] == [0.5, 0.5]


def test_the_gain_is_of_the_same_pictures(tmp_path: Path) -> None:
    """Two members that err alike gain nothing, however uncertain each figure is; 8 groups leave that in some doubt."""
    write_index(tmp_path)
    for name in ("one", "two"):
        tells(tmp_path, name, "label", wrong=["00", "03"])
    metrics = run(tmp_path, "one", "two")
    assert metrics["accuracy"]["high"] - metrics["accuracy"]["low"] > 0.3
    assert metrics["ensemble"]["gain"]["log_loss"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    gain = metrics["ensemble"]["gain"]["accuracy"]
    assert gain["value"] == 0.0
    assert gain["high"] == -gain["low"] < 0.25
    assert "chance alone could explain that" in ensemble_sentence(metrics)


def test_the_best_member_is_chosen_by_validation_and_not_by_the_test_set(tmp_path: Path) -> None:
    write_index(tmp_path)
    of = {subset: [p[0] for p in PICTURES if p[2] == subset] for subset in ("val", "test")}
    tells(tmp_path, "lucky", "label", wrong=of["val"][:4])
    tells(tmp_path, "good", "label", wrong=of["test"][:4])
    metrics = run(tmp_path, "lucky", "good")
    accuracies = [metrics["members"][name]["accuracy"]["value"] for name in ("lucky", "good")]
    assert accuracies[0] > accuracies[1]
    assert metrics["ensemble"]["best_member"] == "good"


@pytest.mark.parametrize("ensemble", ["mean", "vote", "weighted"])
def test_two_runs_give_the_same_bytes(tmp_path: Path, ensemble: Ensemble) -> None:
    write_index(tmp_path)
    tells(tmp_path, "by_sex", "sex", wrong=["01", "11"])
    tells(tmp_path, "by_rank", "rank", wrong=["03"])
    tells(tmp_path, "whole", "label", wrong=["02", "09"])
    runs = []
    for _ in range(2):
        run(tmp_path, "by_sex", "by_rank", "whole", ensemble=ensemble)
        runs.append({path.name: path.read_bytes() for path in (tmp_path / "evaluate").iterdir()})
    assert runs[0] == runs[1]

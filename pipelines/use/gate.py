"""The gate: whether a new model takes the champion's place, and why.

Both answer the same test pictures, which neither learnt from, by today's labels. The accuracy decides: promoted is a
model that is better with `confidence`, one-sided. Checks can only stop it, and only where chance does not explain what
was lost: the interval of the change lies wholly beyond the margin. So chance promotes no more than 1 - confidence of
the models that are no better, and the checks cost hardly any of the better ones (tests/test_gate.py draws both).

    promote   better, and no check is broken; or there is no champion yet
    hold      surely within accuracy_margin of the champion: no reason to change
    reject    surely worse, or a check is broken
    unclear   the pictures cannot tell, or the two do not measure the same

Differences of fractions have `paired_interval` over groups of duplicates; the worst class and the calibration error,
which are no means, a paired bootstrap over the same groups.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.core.errors import InputError, count
from pipelines.evaluate.intervals import group_numbers, paired_interval
from pipelines.evaluate.metrics import Floats, Ints
from pipelines.params.base import Section
from pipelines.params.retrain import GateParams

Outcome = Literal["promote", "hold", "reject", "unclear"]
CheckVerdict = Literal["better", "as good", "unclear", "worse"]

RESAMPLES = 1000
SEED = 0
NUM_BINS = 15
"""of confidence, for the calibration error: as evaluate's"""


class Check(Section):
    """One figure of both models.

    Args:
        champion, candidate: its values.
        low, high: of the interval of candidate - champion; None where the figure has none.
        margin: the loss that is accepted.
        verdict: worse: the loss is surely larger than the margin.
    """

    name: str
    champion: float
    candidate: float
    low: float | None
    high: float | None
    margin: float
    num_images: int | None
    verdict: CheckVerdict


class Decision(Section):
    """decision.json: what was decided, every number it was decided by, and by whom.

    Args:
        champion: its version; "" where there was none.
        candidate: commit of the new model.
        num_champion_test, num_candidate_test: test pictures of each run.
        checks: the accuracy on pictures of both runs first, which decides.
        broken_rules: of the data, that validate found.
        decided_by: gate, or the person who answered.
    """

    outcome: Outcome
    reason: str
    champion: str
    candidate: str
    num_champion_test: int
    num_candidate_test: int
    confidence: float
    checks: tuple[Check, ...]
    broken_rules: tuple[str, ...]
    decided_by: str = "gate"


@dataclass(frozen=True)
class Run:
    """What the gate reads of a run.

    Args:
        predictions: data/evaluate/predictions.parquet.
        index: data/augment/index.parquet.
        figures: data/evaluate/figures.json.
        rules: "rules" of data/validate/expectations.json.
    """

    predictions: pa.Table
    index: pa.Table
    figures: Mapping[str, Any]
    rules: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Pair:
    """N ≥ 0 test pictures that two models answered.

    Args:
        actual: (N,) class, 0 to K - 1.
        champion, candidate: (N, K) probabilities.
        groups: (N,) group of duplicates of each, 0 to G - 1.
    """

    actual: Ints
    champion: Floats
    candidate: Floats
    groups: Ints

    def right(self, probabilities: Floats) -> npt.NDArray[np.bool_]:
        return np.asarray(probabilities.argmax(1) == self.actual)


def decide(
    params: GateParams, candidate: Run, champion: Run | None, *, version: str = "", commit: str = "",
    new_answers: pa.Table | None = None,
) -> Decision:  # fmt: skip
    """Decide on a new model.

    Args:
        candidate: the new run.
        champion: the run of the champion, None without one.
        version, commit: of champion and candidate, for the record.
        new_answers: what the champion says of test pictures that its run did not have, as PREDICTIONS has it.

    Raises:
        InputError: a table is not one of evaluate's.
    """
    broken = tuple(str(rule["rule"]) for rule in candidate.rules if not rule["success"] and rule["severity"] == "error")
    now, classes = _answers(candidate.predictions)
    told: dict[str, Any] = {
        "champion": version,
        "candidate": commit,
        "num_champion_test": 0,
        "num_candidate_test": len(now),
        "confidence": params.confidence,
        "checks": (),
        "broken_rules": broken,
    }
    if broken:
        return Decision(outcome="reject", reason=f"the data breaks {', '.join(broken)}: see data/validate", **told)
    if champion is None:
        return Decision(outcome="promote", reason="there is no champion yet: this is the first", **told)
    before, known = _answers(champion.predictions)
    told["num_champion_test"] = len(before)
    if known != classes:
        changes = [f"{name} is new" for name in classes if name not in known]
        changes += [f"{name} is gone" for name in known if name not in classes]
        return Decision(
            outcome="unclear",
            reason=f"the classes changed ({', '.join(changes[:4]) or 'in order'}), so the two do not answer the same",
            **told,
        )
    learnt = _learnt(champion.index)
    pair = join(now, before, candidate.index, learnt)
    fresh = None
    if new_answers is not None:
        answers, _ = _answers(new_answers)
        fresh = join(now, {i: one for i, one in answers.items() if i not in before}, candidate.index, learnt)
    checks = compare(params, pair, fresh, candidate.figures, champion.figures)
    return Decision(**{**told, "checks": checks}, **_judge(params, pair, checks))


def compare(
    params: GateParams, pair: Pair, fresh: Pair | None, candidate: Mapping[str, Any], champion: Mapping[str, Any]
) -> tuple[Check, ...]:
    """Every check that can be made; that of accuracy first, and none where no picture is shared.

    Args:
        pair: test pictures of both runs.
        fresh: those of the new run alone, where the champion answered them.
        candidate, champion: figures.json.
    """
    if not len(pair.actual):
        return ()
    found = [_accuracy("accuracy", params, pair, 0.0)]
    worst, calibration = bootstrap(pair, params.confidence)
    n = len(pair.actual)
    found.append(_check("worst class", *worst, margin=params.worst_class_margin, num_images=n))
    found.append(_check("calibration error", *calibration, margin=params.calibration_margin, sign=-1, num_images=n))
    if fresh is not None and len(fresh.actual):
        found.append(_accuracy("accuracy, new pictures", params, fresh, params.new_margin))
    a, b = (_robustness(figures) for figures in (champion, candidate))
    if a is not None and b is not None:
        found.append(_check("robustness", a, b, None, None, margin=params.robustness_margin))
    a, b = (_computation(figures) for figures in (champion, candidate))
    if a and b:
        margin = (params.max_slowdown - 1) * a
        found.append(_check("multiply-adds a picture", a, b, None, None, margin=margin, sign=-1))
    return tuple(found)


def _judge(params: GateParams, pair: Pair, checks: Sequence[Check]) -> dict[str, Any]:
    """The outcome and the reason, as Decision names them."""
    num_independent = len(np.unique(pair.groups))
    if not checks:
        return {"outcome": "unclear", "reason": "no test picture is in both runs that neither learnt from"}
    accuracy, others = checks[0], checks[1:]
    assert accuracy.low is not None
    change = f"accuracy went from {accuracy.champion:.1%} to {accuracy.candidate:.1%} ({_points(accuracy)})"
    about = f"of {count(len(pair.actual), 'test picture')} in both runs that neither learnt from, "
    worse = [check.name for check in others if check.verdict == "worse"]
    if accuracy.verdict == "worse":
        return {"outcome": "reject", "reason": f"worse: {about}{change}"}
    if worse:
        return {"outcome": "reject", "reason": f"{', '.join(worse)} lost more than the margin; {about}{change}"}
    if num_independent < params.min_pictures:
        few = f"{num_independent} independent test pictures are fewer than retrain.gate.min_pictures"
        return {"outcome": "unclear", "reason": f"{few} ({params.min_pictures}); {change}"}
    if accuracy.verdict == "better":
        return {"outcome": "promote", "reason": f"better: {about}{change}"}
    if (pair.champion.argmax(1) == pair.candidate.argmax(1)).all():
        return {"outcome": "hold", "reason": f"the same answers as the champion's, which stays: {about}{change}"}
    if accuracy.low >= -params.accuracy_margin:
        return {"outcome": "hold", "reason": f"as good as the champion, which stays: {about}{change}"}
    return {"outcome": "unclear", "reason": f"{about}{change}, which chance alone could explain"}


def _points(check: Check) -> str:
    moved = 100 * (check.candidate - check.champion)
    if check.low is None or check.high is None:
        return f"{moved:+.1f} points"
    return f"{moved:+.1f} points; {100 * check.low:+.1f} to {100 * check.high:+.1f}"


def _accuracy(name: str, params: GateParams, pair: Pair, margin: float) -> Check:
    a, b = pair.right(pair.champion), pair.right(pair.candidate)
    gain = b.astype(np.float64) - a
    # both ends one-sided
    low, high = paired_interval(gain, pair.groups, 2 * params.confidence - 1, of_fractions=True)
    return _check(name, float(a.mean()), float(b.mean()), low, high, margin=margin, num_images=len(gain))


def _check(
    name: str, champion: float, candidate: float, low: float | None, high: float | None, *, margin: float,
    sign: int = 1, num_images: int | None = None,
) -> Check:  # fmt: skip
    """A check; `sign` is -1 where less is better."""
    ends = [candidate - champion] * 2 if low is None or high is None else [low, high]
    worst, best = sorted(sign * end for end in ends)
    verdict: CheckVerdict = (
        "worse" if best < -margin else "better" if worst > 0 else "as good" if worst >= -margin else "unclear"
    )
    return Check(
        name=name, champion=champion, candidate=candidate, low=low, high=high, margin=margin, num_images=num_images,
        verdict=verdict,
    )  # fmt: skip


def bootstrap(
    pair: Pair, confidence: float
) -> tuple[tuple[float, float, float, float], tuple[float, float, float, float]]:
    """Of the worst class's recall, and of the calibration error: champion, candidate, and the ends of the change.

    Whole groups of duplicates are drawn, the same for both models. The ends are each one-sided.
    """
    groups = np.unique(pair.groups, return_inverse=True)[1]
    num_groups = int(groups.max()) + 1
    rng = np.random.default_rng(SEED)
    drawn = rng.multinomial(num_groups, np.full(num_groups, 1 / num_groups), RESAMPLES)
    weights = np.vstack([np.ones(num_groups), drawn]).astype(np.float64)[:, groups]  # (1 + RESAMPLES, N)
    of_class = np.eye(pair.champion.shape[1])[pair.actual]  # (N, K)
    num = weights @ of_class
    worst, calibration = [], []
    for probabilities in (pair.champion, pair.candidate):
        right = pair.right(probabilities).astype(np.float64)
        recall = np.divide(weights @ (of_class * right[:, None]), num, out=np.ones_like(num), where=num > 0)
        worst.append(recall.min(1))
        sure = probabilities.max(1)
        bins = np.eye(NUM_BINS)[np.minimum((sure * NUM_BINS).astype(int), NUM_BINS - 1)]
        calibration.append(np.abs(weights @ (bins * (sure - right)[:, None])).sum(1) / weights.sum(1))
    return _ends(worst, confidence), _ends(calibration, confidence)


def _ends(both: Sequence[Floats], confidence: float) -> tuple[float, float, float, float]:
    low, high = np.quantile(both[1][1:] - both[0][1:], [1 - confidence, confidence])
    return float(both[0][0]), float(both[1][0]), float(low), float(high)


def _robustness(figures: Mapping[str, Any]) -> float | None:
    """Mean accuracy over kinds and strengths; None where it was not measured."""
    kinds = (figures.get("robustness") or {}).get("kinds", {})
    values = [point["accuracy"] for points in kinds.values() for point in points]
    return float(np.mean(values)) if values else None


def _computation(figures: Mapping[str, Any]) -> float | None:
    """Multiply-adds of all members and views for one picture; None where one is not known."""
    costs = list((figures.get("cost") or {}).values())
    if not costs or any(not cost.get("macs") for cost in costs):
        return None
    return float(sum(cost["macs"] * cost["num_views"] for cost in costs))


def _answers(predictions: pa.Table) -> tuple[dict[str, tuple[int, list[float]]], list[str]]:
    """Class and probabilities of each test picture, and the classes."""
    metadata = predictions.schema.metadata or {}
    if b"classes" not in metadata:
        raise InputError("predictions.parquet names no classes: run `dvc repro evaluate`")
    return {
        row["image_id"]: (row["class_index"], row["probabilities"])
        for row in predictions.to_pylist()
        if row["subset"] == "test"
    }, json.loads(metadata[b"classes"])


def _learnt(index: pa.Table) -> set[str]:
    """The pictures that a run learnt from or chose by."""
    pairs = zip(index["image_id"].to_pylist(), index["subset"].to_pylist(), strict=True)
    return {image_id for image_id, subset in pairs if subset not in ("test", "unlabelled")}


def join(
    now: Mapping[str, tuple[int, list[float]]], before: Mapping[str, tuple[int, list[float]]], index: pa.Table,
    learnt: set[str],
) -> Pair:  # fmt: skip
    """The test pictures of `now` that `before` answers too, but for groups that its run learnt from.

    Args:
        index: of the new run, whose groups and labels count.
        learnt: pictures that the old run learnt from.
    """
    group = dict(zip(index["image_id"].to_pylist(), index["group"].to_pylist(), strict=True))
    seen = {group.get(image_id) for image_id in learnt}
    ids = sorted(i for i in now if i in before and group[i] not in seen)
    return Pair(
        actual=np.array([now[i][0] for i in ids], np.int64),
        champion=np.array([before[i][1] for i in ids], np.float64),
        candidate=np.array([now[i][1] for i in ids], np.float64),
        groups=group_numbers(np.array([group[i] for i in ids], np.str_)),
    )


def decision_table(decision: Decision) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and rows for people: a check a row."""

    def shown(value: float) -> str:
        return f"{value:.1%}" if abs(value) <= 1 else f"{value:,.0f}"

    rows: list[tuple[str, ...]] = [
        (
            check.name,
            shown(check.champion),
            shown(check.candidate),
            _points(check) if abs(check.champion) <= 1 else f"{check.candidate / check.champion:.2f} times",
            "" if check.num_images is None else f"{check.num_images:,}",
            check.verdict,
        )
        for check in decision.checks
    ]
    return ("figure", "champion:", "new:", "change:", "pictures:", "verdict"), rows

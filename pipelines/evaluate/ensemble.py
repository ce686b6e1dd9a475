"""Combine members: each member's temperature, then their mean, their vote, or their weighted mean."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipelines.evaluate.members import MemberPredictions, Predictions
from pipelines.evaluate.metrics import Floats, Ints
from pipelines.params.evaluate import Ensemble
from pipelines.train.temperature import fit_temperature, temper

PRIOR = 3.0
"""images worth of belief in equal weights. On the digits, with 25 to 500 to fit on: where three or eight networks
are alike, 3 costs at most 0.001 of log loss beside equal weights, and 0.1 up to 0.027; where one of three is poor, 3
lowers 0.72 to between 0.40 and 0.34, 0.1 to 0.34, 20 to between 0.56 and 0.36"""
NUM_PARTS = 5
"""that validation images are divided into, so that each is weighed by what the others say"""
_MAX_STEPS = 100
"""of Newton's method; ten are usual"""


def calibrate(member: MemberPredictions) -> MemberPredictions:
    """Scale the probabilities of a member by the temperature that suits its validation images."""
    temperature = fit_temperature(member.val.probabilities, member.val.actual)
    test, val = (
        replace(one, probabilities=temper(one.probabilities, temperature)) for one in (member.test, member.val)
    )
    return replace(member, test=test, val=val, temperature=temperature)


@dataclass(frozen=True)
class EnsemblePredictions:
    """What members predict together.

    Args:
        weights: (M,) of the members, non-negative, sum to 1; equal where all count alike.
        test: of the test images.
        val: of the validation images, each by weights that it had no part in.
        temperature: of their probabilities; of one member, its own.
    """

    weights: Floats
    test: Predictions
    val: Predictions
    temperature: float


def combine(
    method: Ensemble, members: Sequence[MemberPredictions], *, val_groups: Ints, seed: int
) -> EnsemblePredictions:
    """Combine members; one alone stays as it is.

    Args:
        method: evaluate.ensemble.
        members: M, each with the same test and validation images and the same classes.
        val_groups: (N,) the duplicate group of each validation image, 0 to G - 1.
        seed: of the parts that weights are fitted without.
    """
    first = members[0]
    tests = [member.test.probabilities for member in members]
    vals = [member.val.probabilities for member in members]
    weights = np.full(len(members), 1.0 / len(members))
    if len(members) == 1:
        return EnsemblePredictions(weights, first.test, first.val, first.temperature)
    if method == "vote":
        test, val = vote(tests), vote(vals)
    elif method == "mean":
        test, val = weighted_mean(tests, weights), weighted_mean(vals, weights)
    else:
        of_truth = np.stack([p[np.arange(len(p)), first.val.actual] for p in vals], axis=1)
        weights = fit_weights(of_truth)
        test, val = weighted_mean(tests, weights), _weighted_out_of_part(vals, of_truth, val_groups, seed)
    # the mean of calibrated members is too cautious
    temperature = fit_temperature(val, first.val.actual)
    return EnsemblePredictions(
        weights,
        replace(first.test, probabilities=temper(test, temperature)),
        replace(first.val, probabilities=temper(val, temperature)),
        temperature,
    )


def vote(probabilities: Sequence[Floats]) -> Floats:
    """Each member's most probable class is its vote, and the mean of their probabilities one more vote, divided.

    (votes + mean) / (M + 1) sums to 1, keeps the order of the votes, and breaks their ties by the mean: a class with
    fewer votes cannot catch up, since the mean gives it less than the one vote it lacks.

    Args:
        probabilities: M times (N, K).
    """
    share = np.zeros_like(probabilities[0])
    rows = np.arange(len(share))
    for one in probabilities:
        share += one / len(probabilities)
        share[rows, one.argmax(axis=1)] += 1.0
    return np.asarray(share / (len(probabilities) + 1))


def weighted_mean(probabilities: Sequence[Floats], weights: Floats) -> Floats:
    """(N, K) from M times (N, K) and (M,)."""
    mean = np.zeros_like(probabilities[0])
    for one, weight in zip(probabilities, weights, strict=True):
        mean += weight * one
    return mean


def fit_weights(of_truth: Floats, *, prior: float = PRIOR) -> Floats:
    """The weights whose mean of probabilities has the least log loss, shrunk towards equal ones.

    Minimises -sum_i log(sum_m w_m p_im) - prior/M sum_m log(w_m) on the simplex: the log loss, and a Dirichlet prior
    worth `prior` images. It is convex. The term (N + prior) * sum(w) replaces the constraint: both logarithms depend on
    proportions only, so the minimum sums to 1. Newton's method in steps proportional to the weights, halved until they
    help.

    Args:
        of_truth: (N, M) probability of each image's true class by each member.
        prior: strength of the pull, in images, more than 0.

    Returns:
        (M,) positive, sums to 1; equal where N is 0.
    """
    num_images, num_members = of_truth.shape
    p = np.clip(of_truth, np.finfo(np.float64).eps, 1.0)
    pull = prior / num_members

    def cost(w: Floats) -> float:
        return float(-np.log(p @ w).sum() - pull * np.log(w).sum() + (num_images + prior) * w.sum())

    weights = np.full(num_members, 1.0 / num_members)
    now = cost(weights)
    for _ in range(_MAX_STEPS):
        share = p * weights / (p @ weights)[:, None]  # (N, M): what each member adds to an image's probability
        slope = (num_images + prior) * weights - share.sum(axis=0) - pull
        step = -np.linalg.solve(share.T @ share + pull * np.eye(num_members), slope)
        gain = float(-slope @ step)  # twice what the step would bring were the cost a parabola
        if gain < 1e-12 * (num_images + prior):
            break
        size = min(1.0, 0.9 / max(float(-step.min()), 1e-12))
        while cost(weights * (1 + size * step)) > now - 0.1 * size * gain and size > 1e-9:
            size /= 2
        weights = weights * (1 + size * step)
        now = cost(weights)
    return np.asarray(weights / weights.sum())


def _weighted_out_of_part(probabilities: Sequence[Floats], of_truth: Floats, groups: Ints, seed: int) -> Floats:
    """(N, K) weighted means of validation images, each by weights fitted on the four fifths of groups it is not in."""
    mean = np.zeros_like(probabilities[0])
    num_groups = int(groups.max(initial=-1)) + 1
    part = np.random.default_rng(seed).permutation(num_groups)[groups] % NUM_PARTS
    for number in np.unique(part):
        here = part == number
        mean[here] = weighted_mean([p[here] for p in probabilities], fit_weights(of_truth[~here]))
    return mean

"""train, part by part: schedules, optimisers, losses, mixing, the order of an epoch, averages, phases, arithmetic."""

import copy
import json
import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import nn
from train_inputs import SCRATCH, SGD, pretrained

from pipelines.core.errors import InputError
from pipelines.params.optimizers import Adam, AdamW, Constant, Cosine, OneCycle, Plateau, Sgd, Step
from pipelines.params.recipes import CrossEntropy, Focal, LinearThenFinetuneRecipe, PartialFinetuneRecipe, ScratchRecipe
from pipelines.train.averaging import Average
from pipelines.train.judging import figures
from pipelines.train.losses import class_weights, distillation_losses, losses
from pipelines.train.mixing import draw_mixture, mix, mix_labels
from pipelines.train.optimizers import Optimizer, parameter_groups
from pipelines.train.order import balanced, batches, count_turns, turn_keys
from pipelines.train.phases import freeze, phases_of, set_training_mode
from pipelines.train.schedules import Span, factor_at

KEYS = np.random.default_rng(0).integers(0, 2**63, 400).astype(np.uint64)
SPAN = Span(num_steps=100, epoch_steps=10, warmup_steps=0)


# schedules ----------------------------------------------------------------------------------


def curve(schedule: Any, span: Span = SPAN) -> list[float]:
    return [factor_at(step, schedule, span) for step in range(span.num_steps)]


@pytest.mark.parametrize("schedule", [Constant(kind="constant"), Plateau(kind="plateau", factor=0.5, patience=2)])
def test_a_constant_rate_stays_and_a_plateau_leaves_falling_to_results(schedule: Any) -> None:
    assert curve(schedule) == [1.0] * 100


def test_steps_fall_by_a_factor_every_so_many_epochs() -> None:
    found = curve(Step(kind="step", step_size=3, gamma=0.1))
    assert found[0] == found[29] == 1.0
    assert found[30] == found[59] == pytest.approx(0.1)
    assert found[99] == pytest.approx(0.001)


def test_a_cosine_falls_from_all_to_its_end() -> None:
    found = curve(Cosine(kind="cosine", min_lr_ratio=0.2))
    assert found[0] == 1.0
    assert found[50] == pytest.approx(0.6)  # half way between 1 and 0.2
    assert 0.2 < found[99] < 0.201
    assert found == sorted(found, reverse=True)


def test_one_cycle_rises_to_its_top_then_falls_to_almost_nothing() -> None:
    found = curve(OneCycle(kind="one_cycle", pct_start=0.3, div_factor=25.0), Span(101, 10, 0))
    assert found[0] == pytest.approx(0.04)
    assert found[30] == pytest.approx(1.0)
    assert found[100] == pytest.approx(1e-4)
    assert max(found) == found[30]


def test_one_cycle_is_the_one_of_torch() -> None:
    weight = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 1.0, total_steps=50, pct_start=0.3, div_factor=25, final_div_factor=400, cycle_momentum=False
    )
    rates = []
    for _ in range(50):
        rates.append(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()
    # theirs ends its rise a step earlier where the share does not fall on one
    assert (
        np.abs(
            np.array(curve(OneCycle(kind="one_cycle", pct_start=0.3, div_factor=25.0), Span(50, 10, 0))) - rates
        ).max()
        < 0.06
    )


@pytest.mark.parametrize("schedule", [Constant(kind="constant"), Cosine(kind="cosine", min_lr_ratio=0.0)])
def test_any_schedule_warms_up_in_a_straight_line(schedule: Any) -> None:
    found = curve(schedule, Span(100, 10, 9))
    assert found[:9] == pytest.approx([0.1 * (i + 1) for i in range(9)])
    assert found[9] == 1.0


def test_a_single_step_has_a_rate() -> None:
    for schedule in (
        Cosine(kind="cosine", min_lr_ratio=0.0),
        OneCycle(kind="one_cycle", pct_start=0.3, div_factor=25.0),
    ):
        assert 0.0 < factor_at(0, schedule, Span(1, 1, 0)) <= 1.0


# optimisers ---------------------------------------------------------------------------------


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


def test_weights_decay_and_norms_and_biases_do_not() -> None:
    model = network()
    stages = [[model[0], model[1]], [model[3]]]
    groups = parameter_groups(stages, weight_decay=0.1, layer_decay=1.0)
    decaying = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    assert decaying == {id(model[0].weight), id(model[3].weight)}
    assert {id(p) for group in groups for p in group["params"]} == {id(p) for p in model.parameters()}


def test_decay_shrinks_weights_alone() -> None:
    model = network()
    before = [p.detach().clone() for p in model.parameters()]
    optimizer = Optimizer(
        Sgd.model_validate({**SGD, "momentum": 0.0, "nesterov": False}),
        parameter_groups([[model]], weight_decay=0.5, layer_decay=1.0),
    )
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.inner.step()
    for was, p in zip(before, model.parameters(), strict=True):
        factor = 1.0 if p.ndim <= 1 else 1.0 - 0.01 * 0.5
        assert torch.allclose(p, was * factor)


def test_each_stage_learns_slower_than_the_next() -> None:
    model = network()
    groups = parameter_groups([[model[0]], [model[1]], [model[3]]], weight_decay=0.0, layer_decay=0.5)
    optimizer = Optimizer(Sgd.model_validate(SGD), groups)
    optimizer.set_learning_rate(0.8)
    rates = {id(p): group["lr"] for group in optimizer.inner.param_groups for p in group["params"]}
    assert [rates[id(model[i].weight)] for i in (0, 1, 3)] == pytest.approx([0.2, 0.4, 0.8])


def test_frozen_parameters_are_in_no_group() -> None:
    model = network()
    model[0].requires_grad_(False)
    groups = parameter_groups([[model[0]], [model[1], model[3]]], weight_decay=0.0, layer_decay=1.0)
    assert id(model[0].weight) not in {id(p) for group in groups for p in group["params"]}


@pytest.mark.parametrize(
    ("params", "kind"),
    [
        (Sgd.model_validate(SGD), torch.optim.SGD),
        (Adam(kind="adam", learning_rate=0.1, weight_decay=0.0), torch.optim.Adam),
        (AdamW(kind="adamw", learning_rate=0.1, weight_decay=0.0), torch.optim.AdamW),
    ],
)
def test_each_kind_of_optimizer_is_built_as_named(params: Any, kind: type) -> None:
    found = Optimizer(params, parameter_groups([[network()]], weight_decay=0.0, layer_decay=1.0))
    assert type(found.inner) is kind
    if kind is torch.optim.SGD:
        assert (found.inner.defaults["momentum"], found.inner.defaults["nesterov"]) == (0.9, True)


@pytest.mark.parametrize(
    ("params", "theirs"),
    [
        (Sgd.model_validate(SGD), partial(torch.optim.SGD, lr=0.01, momentum=0.9, nesterov=True)),
        (Adam(kind="adam", learning_rate=0.01, weight_decay=0.1), partial(torch.optim.Adam, lr=0.01)),
        (AdamW(kind="adamw", learning_rate=0.01, weight_decay=0.1), partial(torch.optim.AdamW, lr=0.01)),
    ],
)
def test_weights_whose_channels_are_last_move_as_torch_moves_them(params: Any, theirs: Any) -> None:
    # in eval mode, where the bias before a norm has a gradient: Adam would make steps of the noise that it else is
    model = network().to(memory_format=torch.channels_last).eval()
    twin = copy.deepcopy(model)
    optimizer = Optimizer(params, parameter_groups([[model]], weight_decay=0.1, layer_decay=1.0))
    vectors = [p for p in twin.parameters() if p.ndim <= 1]
    plain = theirs(
        [
            {"params": [p for p in twin.parameters() if p.ndim > 1], "weight_decay": 0.1},
            {"params": vectors, "weight_decay": 0.0},
        ]
    )
    optimizer.set_learning_rate(0.01)
    for step in range(3):
        images = torch.randn(8, 3, 3, 3, generator=torch.Generator().manual_seed(step))
        for module in (model, twin):
            module.zero_grad()
            module(images).square().sum().backward()
        optimizer.take_gradients()
        optimizer.inner.step()
        plain.step()
    for mine, its in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine, its)
    (filters,) = [p for p in model.parameters() if p.ndim == 4]
    assert filters.is_contiguous(memory_format=torch.channels_last)
    assert all(p.is_contiguous() for group in optimizer.inner.param_groups for p in group["params"])


def test_gradients_are_forgotten_by_weights_and_by_what_the_optimizer_sees() -> None:
    model = network().to(memory_format=torch.channels_last)
    optimizer = Optimizer(Sgd.model_validate(SGD), parameter_groups([[model]], weight_decay=0.1, layer_decay=1.0))
    model(torch.randn(2, 3, 3, 3)).sum().backward()
    optimizer.take_gradients()
    seen = [p for group in optimizer.inner.param_groups for p in group["params"]]
    assert all(p.grad is not None for p in [*seen, *model.parameters()])
    optimizer.zero_grad()
    assert all(p.grad is None for p in [*seen, *model.parameters()])
    optimizer.take_gradients()
    assert all(p.grad is None for p in seen)


# losses -------------------------------------------------------------------------------------

LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.2, 0.1]])
LABELS = torch.tensor([0, 2])


def test_cross_entropy_is_smoothed_as_torch_does() -> None:
    found = losses(LOGITS, LABELS, CrossEntropy(kind="cross_entropy", label_smoothing=0.2))
    assert torch.allclose(found.mean(), F.cross_entropy(LOGITS, LABELS, label_smoothing=0.2))


def test_focal_without_gamma_is_cross_entropy_and_with_it_easy_pictures_count_less() -> None:
    plain = losses(LOGITS, LABELS, Focal(kind="focal", gamma=0.0))
    assert torch.allclose(plain, F.cross_entropy(LOGITS, LABELS, reduction="none"))
    focal = losses(LOGITS, LABELS, Focal(kind="focal", gamma=2.0))
    p = LOGITS.softmax(dim=1)[[0, 1], LABELS]
    assert torch.allclose(focal, (1 - p) ** 2 * -p.log())
    easy, hard = focal / plain
    assert easy < hard


def test_a_student_that_agrees_with_its_teachers_has_no_loss() -> None:
    teachers = LOGITS.softmax(dim=1)
    assert torch.allclose(distillation_losses(LOGITS, teachers, temperature=3.0), torch.zeros(2), atol=1e-6)
    assert (distillation_losses(-LOGITS, teachers, temperature=3.0) > 0.05).all()


def test_a_teacher_that_is_certain_gives_a_finite_loss() -> None:
    certain = torch.tensor([[1.0, 0.0, 0.0]])
    assert torch.isfinite(distillation_losses(LOGITS[:1], certain, temperature=4.0)).all()


def test_class_weights_make_every_class_count_alike() -> None:
    labels = np.array([0] * 8 + [1] * 2)
    weights = class_weights(labels, 3)
    assert weights.tolist() == pytest.approx([0.625, 2.5, 0.0])  # 8 * .625 = 2 * 2.5
    assert float(weights[torch.from_numpy(labels)].mean()) == pytest.approx(1.0)


def test_figures_count_and_divide_once() -> None:
    found = torch.tensor([[0.9, 0.1, 0.0], [0.8, 0.2, 0.0], [0.3, 0.7, 0.0]], dtype=torch.float64)
    result = figures(found, np.array([0, 1, 1]))
    assert result.accuracy == pytest.approx(2 / 3)
    assert result.loss == pytest.approx(-(math.log(0.9) + math.log(0.2) + math.log(0.7)) / 3)
    assert result.macro_f1 == pytest.approx(2 / 3)  # both classes: 2 * 1 / (1 + 2); the absent third does not count


def test_no_pictures_have_no_figures() -> None:
    result = figures(torch.zeros((0, 3), dtype=torch.float64), np.zeros(0, np.int64))
    assert all(math.isnan(value) for value in (result.loss, result.accuracy, result.macro_f1))


# mixing -------------------------------------------------------------------------------------


def mixing(**changes: float) -> ScratchRecipe:
    return ScratchRecipe.model_validate_json(json.dumps({**SCRATCH, **changes}))


def pictures(count: int) -> torch.Tensor:
    """Picture i is i everywhere: (N, 3, 20, 20)."""
    return torch.arange(count, dtype=torch.float32).view(-1, 1, 1, 1).expand(count, 3, 20, 20).clone()


def test_mixup_gives_the_weighted_mean_with_the_next_picture() -> None:
    mixed, share = mix(pictures(5), draw_mixture(mixing(mixup=0.4), seed=1, epoch=1, pictures=KEYS[:5]))
    other = torch.tensor([1.0, 2.0, 3.0, 4.0, 0.0])
    expected = torch.arange(5.0) * (1 - share) + other * share
    assert torch.allclose(mixed[:, 0, 0, 0], expected)
    assert torch.equal(mixed.amin(dim=(1, 2, 3)), mixed.amax(dim=(1, 2, 3)))
    assert 0.0 < float(share.max()) <= 0.5


def test_cutmix_pastes_a_rectangle_and_counts_its_pixels() -> None:
    mixed, share = mix(pictures(60), draw_mixture(mixing(cutmix=1.0), seed=1, epoch=1, pictures=KEYS[:60]))
    other = torch.arange(60.0).roll(-1)
    pasted = (mixed[:, 0] == other.view(-1, 1, 1)).float().mean(dim=(1, 2))
    assert torch.allclose(pasted, share)
    assert 0.2 < float(share.mean()) < 0.5


def test_mixing_with_probability_0_changes_nothing_and_draws_do_not_depend_on_the_batch() -> None:
    images = pictures(5)
    mixed, share = mix(images, draw_mixture(mixing(mixup=0.4, mixup_prob=0.0), seed=1, epoch=1, pictures=KEYS[:5]))
    assert torch.equal(mixed, images)
    assert not share.any()
    both = mixing(mixup=0.4, cutmix=1.0, mixup_prob=0.5)
    whole = draw_mixture(both, seed=1, epoch=1, pictures=KEYS)
    part = draw_mixture(both, seed=1, epoch=1, pictures=KEYS[7:9])
    assert np.array_equal(whole.share[7:9], part.share)
    assert np.array_equal(whole.left[7:9], part.left)
    cut = whole.right > whole.left
    # a quarter each, of 400
    assert 70 < (whole.share > 0).sum() < 130
    assert 70 < cut.sum() < 130
    assert not (cut & (whole.share > 0)).any()


def test_labels_are_mixed_as_pictures_are() -> None:
    share = torch.tensor([0.25, 0.0])
    assert mix_labels(torch.tensor([1.0, 3.0]), share).tolist() == [1.5, 3.0]
    assert mix_labels(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), share).tolist() == [[0.75, 0.25], [0.0, 1.0]]


# the order of an epoch ----------------------------------------------------------------------


def test_every_picture_is_in_one_batch_of_an_epoch() -> None:
    one, two = (batches(KEYS[:50], seed=1, epoch=epoch, batch_size=16, smallest=1) for epoch in (1, 2))
    assert sorted(np.concatenate(one).tolist()) == list(range(50))
    assert np.concatenate(one).tolist() != np.concatenate(two).tolist()
    assert [len(part) for part in one] == [13, 13, 12, 12]


@pytest.mark.parametrize(("count", "size"), [(17, 16), (3, 2), (5, 4), (9, 1)])
def test_no_batch_holds_one_picture_alone(count: int, size: int) -> None:
    found = batches(KEYS[:count], seed=1, epoch=1, batch_size=size, smallest=2)
    assert min(len(part) for part in found) >= 2
    assert sum(len(part) for part in found) == count


def test_where_one_picture_is_enough_batches_are_as_large_as_asked() -> None:
    found = batches(KEYS[:9], seed=1, epoch=1, batch_size=1, smallest=1)
    assert [len(part) for part in found] == [1] * 9


def test_balanced_sampling_draws_each_class_as_often() -> None:
    labels = np.array([0] * 300 + [1] * 90 + [2] * 10)
    chosen = balanced(labels, KEYS, seed=1, epoch=1)
    assert len(chosen) == 400
    assert np.abs(np.bincount(labels[chosen]) - 400 / 3).max() < 1.01
    # 133.3 turns of 10 pictures: 13 or 14 each; of 300, 0 or 1
    assert set(np.bincount(chosen, minlength=400)[390:]) <= {13, 14}
    assert set(np.bincount(chosen, minlength=400)[:300]) == {0, 1}
    assert not np.array_equal(chosen, balanced(labels, KEYS, seed=1, epoch=2))


def test_repeats_of_a_picture_have_keys_of_their_own() -> None:
    chosen = np.array([5, 3, 5, 5, 3, 0])
    turns = count_turns(chosen)
    assert turns.tolist() == [0, 0, 1, 2, 1, 0]
    keys = turn_keys(KEYS[chosen], turns)
    assert len(set(keys.tolist())) == 6
    assert (keys[0], keys[5]) == (KEYS[5], KEYS[0])


# averages, phases ---------------------------------------------------------------------------


def test_the_average_follows_slowly_and_takes_the_statistics_as_they_are() -> None:
    linear, norm = nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1)
    model = nn.Sequential(linear, norm)
    nn.init.zeros_(linear.weight)
    average = Average(model, 0.5)
    nn.init.ones_(linear.weight)
    average.update(model)  # at most (1 + 1) / (10 + 1) of the old
    assert float(average.module[0].weight) == pytest.approx(1 - 2 / 11)  # type: ignore[index]
    for _ in range(50):
        average.update(model)
    assert float(average.module[0].weight) == pytest.approx(1.0)  # type: ignore[index]
    norm.running_mean = torch.full((1,), 7.0)
    average.copy_buffers(model)
    assert float(average.module[1].running_mean) == 7.0  # type: ignore[index]


def test_an_average_restored_goes_on_as_it_would_have() -> None:
    model = nn.Linear(2, 2)
    one = Average(model, 0.9)
    nn.init.ones_(model.weight)
    one.update(model)
    two = Average(model, 0.9)
    two.restore(one.state())
    one.update(model)
    two.update(model)
    assert torch.equal(one.module.weight, two.module.weight)  # type: ignore[arg-type]


def test_two_stages_are_two_phases() -> None:
    recipe = LinearThenFinetuneRecipe.model_validate_json(
        json.dumps(
            pretrained(
                "linear_then_finetune", "imagenet", model="resnet18", epochs=10, head_epochs=3, head_learning_rate=0.5
            )
        )
    )
    head, whole = phases_of(recipe, num_stages=6, where="r")
    assert (head.first_epoch, head.last_epoch, head.first_stage, head.rate) == (1, 3, 5, 0.5)
    assert (whole.first_epoch, whole.last_epoch, whole.first_stage, whole.rate) == (4, 10, 0, 0.001)


def test_the_head_is_never_frozen() -> None:
    recipe = PartialFinetuneRecipe.model_validate_json(
        json.dumps(pretrained("partial_finetune", "imagenet", model="resnet18", freeze_stages=6))
    )
    with pytest.raises(InputError, match=r"r.freeze_stages is 6, but its network has 6 stages.*at most 5"):
        phases_of(recipe, num_stages=6, where="r")


def test_frozen_stages_have_no_gradients_and_keep_their_statistics() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4))
    stages = [[model[0], model[1]], [model[2], model[3]]]
    freeze(stages, first_stage=1)
    set_training_mode(model, stages, first_stage=1, freeze_norms=False)
    assert [p.requires_grad for p in model.parameters()] == [False] * 4 + [True] * 4
    assert [m.training for m in model] == [False, False, True, True]
    set_training_mode(model, stages, first_stage=0, freeze_norms=True)
    assert [m.training for m in model] == [True, False, True, False]

"""train, part by part: schedules, optimisers, losses, mixup, the order of an epoch, averages, phases, arithmetic."""

import copy
import json
import math
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
from pipelines.train.checkpoints import TrainState
from pipelines.train.examples import count_repeats, epoch_batches, oversample, repeat_keys
from pipelines.train.losses import class_weights, classification_loss, distillation_loss, validation_metrics
from pipelines.train.mixup import mix_images, mix_targets, sample_mixup
from pipelines.train.optim import (
    build_ema,
    build_optimizer,
    freeze,
    lr_factor,
    parameter_groups,
    phases_of,
    set_learning_rate,
    set_training_mode,
    update_ema,
)

KEYS = np.random.default_rng(0).integers(0, 2**63, 400).astype(np.uint64)


# schedules ----------------------------------------------------------------------------------


def curve(schedule: Any, num_steps: int = 100, *, warmup_steps: int = 0) -> list[float]:
    return [
        lr_factor(step, schedule, num_steps=num_steps, epoch_steps=10, warmup_steps=warmup_steps)
        for step in range(num_steps)
    ]


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
    found = curve(OneCycle(kind="one_cycle", pct_start=0.3, div_factor=25.0), 101)
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
    assert np.abs(np.array(curve(OneCycle(kind="one_cycle", pct_start=0.3, div_factor=25.0), 50)) - rates).max() < 0.06


@pytest.mark.parametrize("schedule", [Constant(kind="constant"), Cosine(kind="cosine", min_lr_ratio=0.0)])
def test_any_schedule_warms_up_in_a_straight_line(schedule: Any) -> None:
    found = curve(schedule, warmup_steps=9)
    assert found[:9] == pytest.approx([0.1 * (i + 1) for i in range(9)])
    assert found[9] == 1.0


def test_a_single_step_has_a_rate() -> None:
    one_cycle = OneCycle(kind="one_cycle", pct_start=0.3, div_factor=25.0)
    for schedule in (Cosine(kind="cosine", min_lr_ratio=0.0), one_cycle):
        assert 0.0 < curve(schedule, 1)[0] <= 1.0


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
    optimizer = build_optimizer(
        Sgd.model_validate({**SGD, "momentum": 0.0, "nesterov": False}),
        parameter_groups([[model]], weight_decay=0.5, layer_decay=1.0),
    )
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for was, p in zip(before, model.parameters(), strict=True):
        factor = 1.0 if p.ndim <= 1 else 1.0 - 0.01 * 0.5
        assert torch.allclose(p, was * factor)


def test_each_stage_learns_slower_than_the_next() -> None:
    model = network()
    groups = parameter_groups([[model[0]], [model[1]], [model[3]]], weight_decay=0.0, layer_decay=0.5)
    optimizer = build_optimizer(Sgd.model_validate(SGD), groups)
    set_learning_rate(optimizer, 0.8)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
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
    found = build_optimizer(params, parameter_groups([[network()]], weight_decay=0.0, layer_decay=1.0))
    assert type(found) is kind
    if kind is torch.optim.SGD:
        assert (found.defaults["momentum"], found.defaults["nesterov"]) == (0.9, True)


# losses -------------------------------------------------------------------------------------

LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.2, 0.1]])
LABELS = torch.tensor([0, 2])


def test_cross_entropy_is_smoothed_as_torch_does() -> None:
    found = classification_loss(LOGITS, LABELS, CrossEntropy(kind="cross_entropy", label_smoothing=0.2))
    assert torch.allclose(found.mean(), F.cross_entropy(LOGITS, LABELS, label_smoothing=0.2))


def test_focal_without_gamma_is_cross_entropy_and_with_it_easy_pictures_count_less() -> None:
    plain = classification_loss(LOGITS, LABELS, Focal(kind="focal", gamma=0.0))
    assert torch.allclose(plain, F.cross_entropy(LOGITS, LABELS, reduction="none"))
    focal = classification_loss(LOGITS, LABELS, Focal(kind="focal", gamma=2.0))
    p = LOGITS.softmax(dim=1)[[0, 1], LABELS]
    assert torch.allclose(focal, (1 - p) ** 2 * -p.log())
    easy, hard = focal / plain
    assert easy < hard


def test_a_student_that_agrees_with_its_teachers_has_no_loss() -> None:
    teachers = LOGITS.softmax(dim=1)
    assert torch.allclose(distillation_loss(LOGITS, teachers, temperature=3.0), torch.zeros(2), atol=1e-6)
    assert (distillation_loss(-LOGITS, teachers, temperature=3.0) > 0.05).all()


def test_a_teacher_that_is_certain_gives_a_finite_loss() -> None:
    certain = torch.tensor([[1.0, 0.0, 0.0]])
    assert torch.isfinite(distillation_loss(LOGITS[:1], certain, temperature=4.0)).all()


def test_class_weights_make_every_class_count_alike() -> None:
    labels = np.array([0] * 8 + [1] * 2)
    weights = class_weights(labels, 3)
    assert weights.tolist() == pytest.approx([0.625, 2.5, 0.0])  # 8 * .625 = 2 * 2.5
    assert float(weights[torch.from_numpy(labels)].mean()) == pytest.approx(1.0)


def test_figures_count_and_divide_once() -> None:
    found = torch.tensor([[0.9, 0.1, 0.0], [0.8, 0.2, 0.0], [0.3, 0.7, 0.0]], dtype=torch.float64)
    result = validation_metrics(found, np.array([0, 1, 1]))
    assert result.accuracy == pytest.approx(2 / 3)
    assert result.loss == pytest.approx(-(math.log(0.9) + math.log(0.2) + math.log(0.7)) / 3)
    assert result.macro_f1 == pytest.approx(2 / 3)  # both classes: 2 * 1 / (1 + 2); the absent third does not count


def test_no_pictures_have_no_figures() -> None:
    result = validation_metrics(torch.zeros((0, 3), dtype=torch.float64), np.zeros(0, np.int64))
    assert all(math.isnan(value) for value in (result.loss, result.accuracy, result.macro_f1))


# mixing -------------------------------------------------------------------------------------


def mixing(**changes: float) -> ScratchRecipe:
    return ScratchRecipe.model_validate_json(json.dumps({**SCRATCH, **changes}))


def pictures(count: int) -> torch.Tensor:
    """Picture i is i everywhere: (N, 3, 20, 20)."""
    return torch.arange(count, dtype=torch.float32).view(-1, 1, 1, 1).expand(count, 3, 20, 20).clone()


def test_mixup_gives_the_weighted_mean_with_the_next_picture() -> None:
    mixed, share = mix_images(pictures(5), sample_mixup(mixing(mixup=0.4), seed=1, epoch=1, keys=KEYS[:5]))
    other = torch.tensor([1.0, 2.0, 3.0, 4.0, 0.0])
    expected = torch.arange(5.0) * (1 - share) + other * share
    assert torch.allclose(mixed[:, 0, 0, 0], expected)
    assert torch.equal(mixed.amin(dim=(1, 2, 3)), mixed.amax(dim=(1, 2, 3)))
    assert 0.0 < float(share.max()) <= 0.5


def test_cutmix_pastes_a_rectangle_and_counts_its_pixels() -> None:
    mixed, share = mix_images(pictures(60), sample_mixup(mixing(cutmix=1.0), seed=1, epoch=1, keys=KEYS[:60]))
    other = torch.arange(60.0).roll(-1)
    pasted = (mixed[:, 0] == other.view(-1, 1, 1)).float().mean(dim=(1, 2))
    assert torch.allclose(pasted, share)
    assert 0.2 < float(share.mean()) < 0.5


def test_mixing_with_probability_0_changes_nothing_and_draws_do_not_depend_on_the_batch() -> None:
    images = pictures(5)
    mixed, share = mix_images(images, sample_mixup(mixing(mixup=0.4, mixup_prob=0.0), seed=1, epoch=1, keys=KEYS[:5]))
    assert torch.equal(mixed, images)
    assert not share.any()
    both = mixing(mixup=0.4, cutmix=1.0, mixup_prob=0.5)
    whole = sample_mixup(both, seed=1, epoch=1, keys=KEYS)
    part = sample_mixup(both, seed=1, epoch=1, keys=KEYS[7:9])
    assert np.array_equal(whole.share[7:9], part.share)
    assert np.array_equal(whole.left[7:9], part.left)
    cut = whole.right > whole.left
    # a quarter each, of 400
    assert 70 < (whole.share > 0).sum() < 130
    assert 70 < cut.sum() < 130
    assert not (cut & (whole.share > 0)).any()


def test_labels_are_mixed_as_pictures_are() -> None:
    share = torch.tensor([0.25, 0.0])
    assert mix_targets(torch.tensor([1.0, 3.0]), share).tolist() == [1.5, 3.0]
    assert mix_targets(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), share).tolist() == [[0.75, 0.25], [0.0, 1.0]]


# the order of an epoch ----------------------------------------------------------------------


def test_every_picture_is_in_one_batch_of_an_epoch() -> None:
    one, two = (epoch_batches(KEYS[:50], seed=1, epoch=epoch, batch_size=16, smallest=1) for epoch in (1, 2))
    assert sorted(np.concatenate(one).tolist()) == list(range(50))
    assert np.concatenate(one).tolist() != np.concatenate(two).tolist()
    assert [len(part) for part in one] == [13, 13, 12, 12]


@pytest.mark.parametrize(("count", "size"), [(17, 16), (3, 2), (5, 4), (9, 1)])
def test_no_batch_holds_one_picture_alone(count: int, size: int) -> None:
    found = epoch_batches(KEYS[:count], seed=1, epoch=1, batch_size=size, smallest=2)
    assert min(len(part) for part in found) >= 2
    assert sum(len(part) for part in found) == count


def test_where_one_picture_is_enough_batches_are_as_large_as_asked() -> None:
    found = epoch_batches(KEYS[:9], seed=1, epoch=1, batch_size=1, smallest=1)
    assert [len(part) for part in found] == [1] * 9


def test_balanced_sampling_draws_each_class_as_often() -> None:
    labels = np.array([0] * 300 + [1] * 90 + [2] * 10)
    chosen = oversample(labels, KEYS, seed=1, epoch=1)
    assert len(chosen) == 400
    assert np.abs(np.bincount(labels[chosen]) - 400 / 3).max() < 1.01
    # 133.3 repeats of 10 pictures: 13 or 14 each; of 300, 0 or 1
    assert set(np.bincount(chosen, minlength=400)[390:]) <= {13, 14}
    assert set(np.bincount(chosen, minlength=400)[:300]) == {0, 1}
    assert not np.array_equal(chosen, oversample(labels, KEYS, seed=1, epoch=2))


def test_repeats_of_a_picture_have_keys_of_their_own() -> None:
    chosen = np.array([5, 3, 5, 5, 3, 0])
    repeats = count_repeats(chosen)
    assert repeats.tolist() == [0, 0, 1, 2, 1, 0]
    keys = repeat_keys(KEYS[chosen], repeats)
    assert len(set(keys.tolist())) == 6
    assert (keys[0], keys[5]) == (KEYS[5], KEYS[0])


# averages, phases ---------------------------------------------------------------------------


def test_the_average_follows_slowly_and_takes_the_statistics_as_they_are() -> None:
    linear, norm = nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1)
    model = nn.Sequential(linear, norm)
    nn.init.zeros_(linear.weight)
    ema = build_ema(model, 0.5)
    nn.init.ones_(linear.weight)
    norm.running_mean = torch.full((1,), 7.0)
    update_ema(ema, model, num_updates=1)  # at most (1 + 1) / (10 + 1) of the old
    assert float(ema.module[0].weight.detach()) == pytest.approx(1 - 2 / 11)
    assert float(ema.module[1].running_mean) == 7.0
    for number in range(2, 52):
        update_ema(ema, model, num_updates=number)
    assert float(ema.module[0].weight.detach()) == pytest.approx(1.0)


@pytest.mark.parametrize(("num_updates", "share"), [(3, 4 / 13), (8, 0.5), (1000, 0.5)])
def test_the_decay_grows_to_the_one_given(num_updates: int, share: float) -> None:
    model = nn.Linear(1, 1)
    nn.init.ones_(model.weight)
    ema = build_ema(model, 0.5)
    nn.init.zeros_(model.weight)
    update_ema(ema, model, num_updates=num_updates)
    assert float(ema.module.weight.detach()) == pytest.approx(share)  # of the old


def test_a_state_restored_goes_on_as_it_would_have() -> None:
    def fresh() -> TrainState:
        torch.manual_seed(0)
        model = nn.Linear(2, 2)
        groups = parameter_groups([[model]], weight_decay=0.1, layer_decay=1.0)
        optimizer = build_optimizer(AdamW(kind="adamw", learning_rate=0.1, weight_decay=0.1), groups)
        return TrainState(model, optimizer, torch.amp.GradScaler("cpu", enabled=False), build_ema(model, 0.9), 1)

    def step(state: TrainState) -> None:
        state.optimizer.zero_grad()
        state.module(torch.ones(1, 2)).square().sum().backward()
        state.optimizer.step()
        state.num_updates += 1
        assert state.ema is not None
        update_ema(state.ema, state.module, num_updates=state.num_updates)

    one, two = fresh(), fresh()
    step(one)
    two.load_state_dict(copy.deepcopy(one.state_dict()))
    step(one)
    step(two)
    assert two.num_updates == 2
    for ours, theirs in ((one.module, two.module), (one.evaluated, two.evaluated)):
        assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_two_stages_are_two_phases() -> None:
    recipe = LinearThenFinetuneRecipe.model_validate_json(
        json.dumps(
            pretrained(
                "linear_then_finetune", "imagenet", model="resnet18", epochs=10, head_epochs=3, head_learning_rate=0.5
            )
        )
    )
    head, whole = phases_of(recipe, num_stages=6, where="r")
    assert (head.first_epoch, head.last_epoch, head.first_stage, head.learning_rate) == (1, 3, 5, 0.5)
    assert (whole.first_epoch, whole.last_epoch, whole.first_stage, whole.learning_rate) == (4, 10, 0, 0.001)


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

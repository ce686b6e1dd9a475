"""train, networks by gradient descent: what each field of a recipe changes, and what changes nothing."""

import csv
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
from pydantic import ValidationError
from torch import nn
from train_inputs import (
    FROZEN,
    SCRATCH,
    SGD,
    colours,
    history,
    params,
    pretrained,
    run,
    small_packs,
    write_packs,
    written,
)

from pipelines.augmentation.packs import Rows
from pipelines.core.errors import InputError, TrainingError
from pipelines.core.tables import PREDICTIONS, read_classes, read_target, write_table
from pipelines.features.backbones import ModelSpec
from pipelines.train import data_loader, load_member, loop, processes, train
from pipelines.train.data_loader import StreamingLoader
from pipelines.train.inference import InputSpec, penultimate_features, to_float
from pipelines.train.member import read_info
from pipelines.train.models import build_network
from pipelines.train.processes import ProcessGroup, join_group

ROOT = Path(__file__).resolve().parent.parent


def recipe(**changes: Any) -> dict[str, Any]:
    return {**SCRATCH, **changes}


def model(root: Path) -> Path:
    return root / "out" / "model.safetensors"


def by_heart(folder: Path) -> Path:
    """16 pictures with labels drawn by lot, which also validate: nothing but memory can get them right."""
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 16, 3)).astype(np.uint8)
    labels = np.random.default_rng(1).integers(0, 3, 16)
    both = np.concatenate([pixels, pixels])
    return write_packs(folder, ["train"] * 16 + ["val"] * 16, np.tile(labels, 2), both, [-1] * 16 + [0] * 16)


HEART = {
    "batch_size": 8,
    "augmentation": "nothing",
    "epochs": 20,
    "dropout": 0.0,
    "early_stopping": {"monitor": "val_accuracy", "patience": 20},
    "loss": {"kind": "cross_entropy", "label_smoothing": 0.0},
    "optimizer": {"kind": "adam", "learning_rate": 0.003, "weight_decay": 0.0},
}
DENSE = {"model": {"kind": "mlp", "hidden_sizes": [128, 64]}}
"""a CPU takes a minute for this training with convolutions in float16"""


# every recipe learns ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {},
        DENSE,
        {"optimizer": {**SGD, "learning_rate": 0.1}},
        {"optimizer": {"kind": "adamw", "learning_rate": 0.003, "weight_decay": 0.01}},
        {"schedule": {"kind": "one_cycle", "pct_start": 0.3, "div_factor": 25.0}},
        {"loss": {"kind": "focal", "gamma": 2.0}},
        {"class_balance": "loss_weights"},
        {"class_balance": "oversampling"},
        {"ema_decay": 0.9},
        {"grad_accum_steps": 3},
        {"clip_grad_norm": 1.0},
        {"in_chans": 1},
        {"precision": "bfloat16", **DENSE},
        {"precision": "float16", **DENSE},
    ],
    ids=lambda changes: json.dumps(changes)[:40],
)
def test_it_learns_16_pictures_by_heart(tmp_path: Path, changes: dict[str, Any]) -> None:
    artifact = run(tmp_path, by_heart(tmp_path / "packs"), recipe(**{**HEART, **changes}))
    assert artifact.val_accuracy == 1.0  # the same pictures as trained


@pytest.mark.parametrize("mixing", [{"mixup": 0.2, "cutmix": 0.0}, {"mixup": 0.0, "cutmix": 1.0}])
def test_mixed_pictures_teach_too(tmp_path: Path, mixing: dict[str, float]) -> None:
    packs = small_packs(tmp_path / "packs", num_train=48)
    made = recipe(**mixing, mixup_prob=0.5, epochs=15, augmentation="nothing")
    assert run(tmp_path, packs, made).val_accuracy == 1.0


# what is written ----------------------------------------------------------------------------


def test_a_run_writes_weights_history_and_predictions(tmp_path: Path) -> None:
    packs = small_packs(tmp_path / "packs", num_unlabelled=4)
    run(tmp_path, packs)
    assert set(written(tmp_path)) == {"model.safetensors", "history.csv", "penultimate.parquet", "predictions.parquet"}
    table = pq.read_table(tmp_path / "out" / "predictions.parquet")
    subsets = table["subset"].to_pylist()
    assert [subsets.count(name) for name in ("test", "unlabelled", "val")] == [6, 4, 6]
    assert subsets == sorted(subsets)
    assert np.allclose(np.array(table["probabilities"].to_pylist()).sum(axis=1), 1.0)
    assert {c for c, s in zip(table["class_index"].to_pylist(), subsets, strict=True) if s == "unlabelled"} == {-1}
    assert [row["epoch"] for row in history(tmp_path)] == [1, 2]
    assert list(history(tmp_path)[0]) == [
        *("epoch", "train_loss", "val_loss", "train_accuracy", "val_accuracy", "val_macro_f1", "learning_rate"),
    ]
    info = read_info(model(tmp_path))
    assert (info["precision"], info["grad_accum_steps"], info["epochs"], info["deterministic"]) == (
        "float32",
        1,
        2,
        True,
    )


def test_two_runs_write_the_same_bytes(tmp_path: Path) -> None:
    packs = small_packs(tmp_path / "packs")
    made = recipe(mixup=0.2, cutmix=1.0, mixup_prob=0.5, ema_decay=0.9, class_balance="oversampling")
    run(tmp_path, packs, made)
    first = written(tmp_path)
    run(tmp_path, packs, made)
    assert written(tmp_path) == first


def test_the_weights_of_the_best_epoch_are_kept(tmp_path: Path) -> None:
    packs = small_packs(tmp_path / "packs")
    made = recipe(epochs=4, optimizer={**SGD, "learning_rate": 3.0}, schedule={"kind": "constant"})
    run(tmp_path, packs, made)
    losses = [row["val_loss"] for row in history(tmp_path)]
    best = read_info(model(tmp_path))["best_epoch"]
    assert losses[best - 1] == min(losses)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tta": ["original", "hflip", "center_crop", "turn_left"]},
        {"model": {"kind": "mlp", "hidden_sizes": [8]}, "in_chans": 1},
        {"model": "nin"},
        {"model": "resnet18", "stem": "cifar"},
    ],
    ids=["small_cnn", "views", "mlp", "nin", "resnet18"],
)
def test_a_member_read_back_predicts_what_was_written(tmp_path: Path, changes: dict[str, Any]) -> None:
    """From model.safetensors alone."""
    packs = small_packs(tmp_path / "packs")
    run(tmp_path, packs, recipe(**changes))
    table = pq.read_table(tmp_path / "out" / "predictions.parquet").to_pylist()
    expected = {row["image_id"]: row["probabilities"] for row in table if row["subset"] == "test"}
    rows = pq.read_table(packs / "index.parquet").to_pylist()
    order = [row["image_id"] for row in rows if row["subset"] == "test"]
    (tmp_path / "alone").mkdir()
    model(tmp_path).rename(tmp_path / "alone" / "model.safetensors")
    found = load_member(tmp_path / "alone").predict(np.load(packs / "test.npy"))
    assert np.allclose(found, np.array([expected[image_id] for image_id in order]), atol=1e-5)


# what changes nothing -----------------------------------------------------------------------


def test_streamed_packs_give_the_bytes_of_resident_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packs = small_packs(tmp_path / "packs", size=32)  # twice the recipe's side: resized on the way
    run(tmp_path, packs)
    resident = written(tmp_path)
    streamed = []
    plain = StreamingLoader.batches

    def spied(feed: StreamingLoader, parts: Any) -> Any:
        streamed.append(len(parts))
        return plain(feed, parts)

    monkeypatch.setattr(StreamingLoader, "batches", spied)
    run(tmp_path, packs, max_device_cache_bytes=0)
    assert written(tmp_path) == resident
    assert streamed


def test_packs_of_the_recipes_size_are_read_as_they_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packs = small_packs(tmp_path / "packs")
    run(tmp_path, packs, max_device_cache_bytes=0)
    streamed = written(tmp_path)

    def refused(*_: Any) -> None:
        raise AssertionError("pictures were copied into memory, or streamed")

    monkeypatch.setattr(data_loader, "read_resized", refused)
    monkeypatch.setattr(StreamingLoader, "batches", refused)
    run(tmp_path, packs)
    assert written(tmp_path) == streamed


def test_an_error_while_streaming_reaches_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise InputError("the disk is gone")

    packs = small_packs(tmp_path / "packs")
    monkeypatch.setattr(data_loader, "resize", broken)
    with pytest.raises(InputError, match="the disk is gone"):
        run(tmp_path, packs, max_device_cache_bytes=0)


def test_parts_of_a_batch_add_up_to_the_batch(tmp_path: Path) -> None:
    """A network without batch norm: the gradient of three parts is that of the whole."""
    packs = small_packs(tmp_path / "packs")
    made = recipe(model={"kind": "mlp", "hidden_sizes": [16]}, dropout=0.0, optimizer=SGD, epochs=3)
    run(tmp_path, packs, made)
    whole = history(tmp_path)
    run(tmp_path, packs, {**made, "grad_accum_steps": 3})
    for one, other in zip(whole, history(tmp_path), strict=True):
        assert one == pytest.approx(other, rel=1e-4)


def test_running_out_of_memory_computes_batches_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    packs = small_packs(tmp_path / "packs")
    made = recipe(model={"kind": "mlp", "hidden_sizes": [16]}, dropout=0.0, optimizer=SGD)
    run(tmp_path, packs, made)
    whole = history(tmp_path)
    plain = loop.forward_loss

    def hungry(model: nn.Module, context: Any, batch: Any, **named: Any) -> Any:
        if len(batch.pixels) > 3:
            raise torch.OutOfMemoryError("out of memory")
        return plain(model, context, batch, **named)

    monkeypatch.setattr(loop, "forward_loss", hungry)
    run(tmp_path, packs, made)
    assert "out of memory; batches of 8 are computed in 2 parts from here on" in capsys.readouterr().out
    assert read_info(model(tmp_path))["grad_accum_steps"] == 2
    for one, other in zip(whole, history(tmp_path), strict=True):
        assert one == pytest.approx(other, rel=1e-4)


def test_memory_too_small_for_a_single_picture_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def starving(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(loop, "forward_loss", starving)
    with pytest.raises(
        TrainingError, match=r"cpu has no memory for \d pictures of 16 px in \d parts: lower image_size"
    ):
        run(tmp_path, small_packs(tmp_path / "packs"))


SMALL_RESNET = {"model": "resnet18", "image_size": 16, "stem": "standard", "epochs": 1}
"""its last maps are 1 x 1: batch norm there has as many numbers as a part has pictures"""


@pytest.mark.parametrize(
    ("changes", "num_train"),
    [
        ({"batch_size": 4, "grad_accum_steps": 2}, 10),  # batches of 4, 3 and 3: parts of 2, 3 and 3
        ({"batch_size": 2}, 3),  # a last batch of one
        ({"batch_size": 5, "grad_accum_steps": 2}, 11),
        ({"batch_size": 4, "class_balance": "oversampling"}, 5),
        ({"batch_size": 64, "grad_accum_steps": 32}, 3),  # fewer pictures than parts
    ],
)
def test_no_part_holds_one_picture_where_batch_norms_learn(
    tmp_path: Path, changes: dict[str, Any], num_train: int
) -> None:
    run(tmp_path, small_packs(tmp_path / "packs", num_train=num_train), recipe(**SMALL_RESNET, **changes))
    assert len(history(tmp_path)) == 1


def test_parts_are_halved_for_memory_down_to_two_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = loop.forward_loss
    seen: list[int] = []

    def hungry(model: nn.Module, context: Any, batch: Any, **named: Any) -> Any:
        if len(batch.pixels) > limit:
            raise torch.OutOfMemoryError("out of memory")
        seen.append(len(batch.pixels))
        return plain(model, context, batch, **named)

    monkeypatch.setattr(loop, "forward_loss", hungry)
    packs, limit = small_packs(tmp_path / "packs", num_train=10), 3
    run(tmp_path, packs, recipe(**SMALL_RESNET, batch_size=5))
    assert set(seen) == {2, 3}
    limit = 1
    with pytest.raises(TrainingError, match="no memory for 5 pictures of 16 px in 2 parts"):
        run(tmp_path, packs, recipe(**{**SMALL_RESNET, "epochs": 2}, batch_size=5))


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (recipe(batch_size=1), "batch_size 1 make parts of 1 pictures, of which batch norm needs 2: raise batch_size "
         "to 2, or take a network without batch norm"),
        (recipe(batch_size=4, grad_accum_steps=4), "batch_size 4, grad_accum_steps 4 and train.num_devices 1 "
         "make parts of 1"),
        (pretrained("finetune", "imagenet", model="tf_efficientnet_lite0", batch_size=7, grad_accum_steps=4),
         "or set freeze_norms: true, or"),
    ],
)  # fmt: skip
def test_a_recipe_whose_parts_are_too_small_for_its_batch_norms_is_refused_before_it_trains(
    tmp_path: Path, made: dict[str, Any], says: str
) -> None:
    packs = small_packs(tmp_path / "packs", size=made["image_size"], num_train=6)
    with pytest.raises(InputError) as caught:
        run(tmp_path, packs, made)
    assert says in str(caught.value)


def test_parts_too_small_to_mix_are_refused_with_the_params() -> None:
    made = recipe(batch_size=1, model={"kind": "mlp", "hidden_sizes": [4]}, mixup=0.2)
    with pytest.raises(ValidationError, match="of which mixing needs 2"):
        params({"m": made})


def test_parts_on_several_devices_are_counted_too() -> None:
    made = recipe(model={"kind": "mlp", "hidden_sizes": [4]}, mixup=0.2)
    params({"m": {**made, "batch_size": 8}}, num_devices=4)
    with pytest.raises(ValidationError, match="train.num_devices 4 make parts of 1 pictures"):
        params({"m": {**made, "batch_size": 7}}, num_devices=4)


@pytest.mark.parametrize(
    "made",
    [
        recipe(batch_size=1, model={"kind": "mlp", "hidden_sizes": [4]}),
        recipe(batch_size=3, grad_accum_steps=3, model="torchvision/squeezenet1_1", image_size=32),
        pretrained("finetune", {"kind": "member", "member": "a"}, freeze_norms=True, batch_size=1),
        # its stages but the head are frozen, and the head has no batch norm
        pretrained("partial_finetune", {"kind": "member", "member": "a"}, freeze_stages=4, batch_size=1),
    ],
)
def test_without_batch_norms_that_learn_steps_of_one_picture_are_taken(
    tmp_path: Path, made: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = loop.forward_loss
    seen: list[int] = []

    def watched(model: nn.Module, context: Any, batch: Any, **named: Any) -> Any:
        seen.append(len(batch.pixels))
        return plain(model, context, batch, **named)

    packs = small_packs(tmp_path / "packs", size=made["image_size"], num_train=6)
    if made["tuning"] != "scratch":
        run(tmp_path, packs, recipe(epochs=1), member="a")
        (tmp_path / "members").mkdir()
        (tmp_path / "out").rename(tmp_path / "members" / "a-0")
    monkeypatch.setattr(loop, "forward_loss", watched)
    run(tmp_path, packs, {**made, "epochs": 1}, others={"a": recipe()} if made["tuning"] != "scratch" else None)
    assert set(seen) == {1}


def test_a_partial_recipe_whose_last_stages_hold_batch_norms_is_refused_before_training(tmp_path: Path) -> None:
    packs = small_packs(tmp_path / "packs")
    run(tmp_path, packs, recipe(epochs=1), member="a")
    (tmp_path / "members").mkdir()
    (tmp_path / "out").rename(tmp_path / "members" / "a-0")
    made = pretrained("partial_finetune", {"kind": "member", "member": "a"}, freeze_stages=2, batch_size=1)
    with pytest.raises(InputError, match="train.recipes.m: batch_size 1 make parts of 1 pictures, of which batch norm"):
        run(tmp_path, packs, made, others={"a": recipe()})
    assert not (tmp_path / "out").exists()


# stopping and going on ----------------------------------------------------------------------


def test_training_stops_when_validation_no_longer_improves(tmp_path: Path) -> None:
    packs = small_packs(tmp_path / "packs")
    still = {**SGD, "learning_rate": 1e-12}
    # macro F1 and accuracy of a network that does not move stay as they are in the first epoch or two
    made = recipe(
        epochs=40,
        early_stopping={"monitor": "val_macro_f1", "patience": 2},
        optimizer=still,
        schedule={"kind": "constant"},
        model={"kind": "mlp", "hidden_sizes": [4]},
    )
    run(tmp_path, packs, made)
    assert len(history(tmp_path)) == 3
    assert read_info(model(tmp_path))["best_epoch"] == 1


def test_a_plateau_lowers_the_rate(tmp_path: Path) -> None:
    packs = small_packs(tmp_path / "packs")
    made = recipe(
        epochs=6,
        early_stopping={"monitor": "val_accuracy", "patience": 40},
        optimizer={**SGD, "learning_rate": 1e-12},
        schedule={"kind": "plateau", "factor": 0.1, "patience": 2},
        model={"kind": "mlp", "hidden_sizes": [4]},
    )
    run(tmp_path, packs, made)
    rates = [row["learning_rate"] for row in history(tmp_path)]
    assert rates == pytest.approx([1e-12, 1e-12, 1e-12, 1e-13, 1e-13, 1e-14])


def test_a_loss_that_is_no_number_stops_with_epoch_batch_rate_and_remedy(tmp_path: Path) -> None:
    packs = small_packs(tmp_path / "packs")
    wild = recipe(optimizer={**SGD, "learning_rate": 1e30}, schedule={"kind": "constant"})
    message = r"the loss is (nan|inf) in epoch 1, batch \d of 3, at learning rate 1e\+30: lower optimizer.learning_rate"
    with pytest.raises(TrainingError, match=message):
        run(tmp_path, packs, wild)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("last", [1, 2, 3])
@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": SGD, "ema_decay": 0.9, "schedule": {"kind": "plateau", "factor": 0.5, "patience": 1}},
        {"tuning": "linear_then_finetune", "head_epochs": 2, "head_learning_rate": 0.01, "precision": "float16"},
    ],
    ids=["ema and plateau", "two stages in half precision"],
)
def test_a_killed_run_continues_to_the_same_bytes(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    last: int,
    changes: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    packs = small_packs(tmp_path / "packs")
    made = recipe(**{"epochs": 4, **changes})
    if "tuning" in changes:
        weights = file_weights(tmp_path, packs)
        made = {**made, "weights": weights, "layer_decay": 0.8, "freeze_norms": False}
    run(tmp_path, packs, made)
    unbroken = written(tmp_path)
    plain = loop.train_epoch

    def killed(state: Any, *others: Any, **named: Any) -> Any:
        if state.epoch > last:
            raise KeyboardInterrupt
        return plain(state, *others, **named)

    monkeypatch.setattr(loop, "train_epoch", killed)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, packs, made)
    assert written(tmp_path) == unbroken  # the old result stands until a new one is whole
    monkeypatch.undo()
    shutil.rmtree(tmp_path / "out")
    run(tmp_path, packs, made)
    assert written(tmp_path) == unbroken
    assert f"continues after epoch {last}" in capsys.readouterr().out
    assert list((tmp_path / "cache" / "checkpoints").iterdir()) == []


def test_a_process_that_is_killed_continues(tmp_path: Path) -> None:
    """Really killed, in the middle of an epoch, by a signal that cannot be caught."""
    packs = small_packs(tmp_path / "packs", num_train=60)
    made = recipe(epochs=4)
    run(tmp_path, packs, made)
    unbroken = written(tmp_path)
    shutil.rmtree(tmp_path / "out")
    script = (
        "import os, signal, sys; from pathlib import Path; import json; from pipelines.train import loop\n"
        "from train_inputs import run\n"
        "plain, count = loop.train_step, [0]\n"
        "def step(*a, **k):\n"
        "    count[0] += 1\n"
        "    if count[0] == 20: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return plain(*a, **k)\n"
        "loop.train_step = step\n"
        f"run(Path({str(tmp_path)!r}), Path({str(packs)!r}), json.loads({json.dumps(made)!r}))\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    assert "epoch 2 of 4" in done.stdout
    run(tmp_path, packs, made)
    assert written(tmp_path) == unbroken


def test_a_checkpoint_of_another_recipe_is_not_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.train import checkpoints

    packs = small_packs(tmp_path / "packs")
    monkeypatch.setattr(checkpoints.Checkpoint, "remove", lambda _: None)
    run(tmp_path, packs)
    run(tmp_path, packs, recipe(loss={"kind": "cross_entropy", "label_smoothing": 0.2}))
    assert len(list((tmp_path / "cache" / "checkpoints").iterdir())) == 2


def test_a_damaged_checkpoint_is_a_fresh_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.train import checkpoints

    packs = small_packs(tmp_path / "packs")
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.Checkpoint, "remove", lambda _: None)
        run(tmp_path, packs)
    first = written(tmp_path)
    [path] = (tmp_path / "cache" / "checkpoints").rglob("last.pt")
    path.write_bytes(path.read_bytes()[:1000])
    run(tmp_path, packs)
    assert written(tmp_path) == first


# weights to begin with ----------------------------------------------------------------------


def file_weights(root: Path, packs: Path) -> dict[str, str]:
    """The weights of a member trained before, as a file."""
    run(root / "before", packs, recipe(epochs=1))
    path = root / "weights.safetensors"
    path.write_bytes(model(root / "before").read_bytes())
    return {"kind": "file", "path": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def test_frozen_stages_do_not_move_and_the_others_do(tmp_path: Path) -> None:
    packs = small_packs(tmp_path / "packs")
    weights = file_weights(tmp_path, packs)
    run(tmp_path, packs, pretrained("partial_finetune", weights, freeze_stages=2))
    before = safetensors.torch.load_file(tmp_path / "weights.safetensors")
    after = safetensors.torch.load_file(model(tmp_path))
    from pipelines.train.models import build_network, stages

    built = build_network("small_cnn", num_classes=3, image_size=16, stem="standard", in_chans=3, dropout=0.1)
    names = {id(tensor): name for name, tensor in built.state_dict(keep_vars=True).items()}
    groups = [
        [names[id(t)] for m in modules for t in m.state_dict(keep_vars=True).values()]
        for modules in stages(built, "small_cnn")
    ]
    frozen = [name for group in groups[:2] for name in group if not name.endswith("num_batches_tracked")]
    assert len(frozen) > 10
    assert all(torch.equal(before[name], after[name]) for name in frozen)
    assert all(not torch.equal(before[name], after[name]) for group in groups[2:] for name in group if "weight" in name)


def test_the_head_learns_first_then_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packs = small_packs(tmp_path / "packs")
    weights = file_weights(tmp_path, packs)
    learning = []
    plain = loop.train_epoch

    def spied(state: Any, *others: Any, **named: Any) -> Any:
        learning.append(sum(p.requires_grad for p in state.module.parameters()))
        return plain(state, *others, **named)

    monkeypatch.setattr(loop, "train_epoch", spied)
    run(tmp_path, packs, pretrained("linear_then_finetune", weights, epochs=4, head_epochs=2, head_learning_rate=0.01))
    assert learning[0] == learning[1] == 2  # weight and bias of the head
    assert learning[2] == learning[3] > 20
    rates = [row["learning_rate"] for row in history(tmp_path)]
    assert rates[:2] == [0.01, 0.01]
    assert rates[2] <= 0.001


def test_frozen_norms_keep_their_statistics(tmp_path: Path) -> None:
    packs = small_packs(tmp_path / "packs")
    weights = file_weights(tmp_path, packs)
    before = safetensors.torch.load_file(tmp_path / "weights.safetensors")
    for frozen in (True, False):
        run(tmp_path, packs, pretrained("finetune", weights, freeze_norms=frozen))
        after = safetensors.torch.load_file(model(tmp_path))
        statistics = [name for name in before if "running_mean" in name]
        assert statistics
        assert all(torch.equal(before[name], after[name]) == frozen for name in statistics)


def test_a_student_begins_with_the_weights_of_a_member(tmp_path: Path) -> None:
    packs = small_packs(tmp_path / "packs")
    first = recipe(epochs=6)
    run(tmp_path / "first", packs, first, member="first")
    shutil.copytree(tmp_path / "first" / "out", tmp_path / "members" / "first-0")
    slow = pretrained("finetune", {"kind": "member", "member": "first"}, optimizer={**SGD, "learning_rate": 1e-9})
    run(tmp_path, packs, slow, others={"first": first})
    before, after = (safetensors.torch.load_file(model(root)) for root in (tmp_path / "first", tmp_path))
    assert all(torch.allclose(before[n], after[n], atol=1e-5) for n in before if n.endswith("weight"))


# teachers and pseudo-labels -----------------------------------------------------------------


@pytest.mark.parametrize("see", ["original", "augmented"])
def test_a_student_learns_from_its_teachers_alone(tmp_path: Path, see: str) -> None:
    """The student's own labels are weighed 0: what it knows it has from the teachers, one of them frozen."""
    packs = small_packs(tmp_path / "packs", size=32, num_train=48)
    others = {"cnn": recipe(epochs=8), "lite": FROZEN}
    for name, made in others.items():
        run(tmp_path / name, packs, made, member=name)
        shutil.copytree(tmp_path / name / "out", tmp_path / "members" / f"{name}-0")
    student = recipe(
        model={"kind": "mlp", "hidden_sizes": [32]},
        epochs=8,
        distillation={"teachers": ["cnn", "lite"], "temperature": 2.0, "weight": 1.0, "teacher_input": see},
    )
    artifact = run(tmp_path, packs, student, others=others)
    assert artifact.val_accuracy == 1.0


def test_teachers_of_other_classes_are_refused(tmp_path: Path) -> None:
    packs = small_packs(tmp_path / "packs")
    run(tmp_path / "cnn", packs, recipe(), member="cnn")
    shutil.copytree(tmp_path / "cnn" / "out", tmp_path / "members" / "cnn-0")
    table = pq.read_table(packs / "index.parquet")
    for name in ("index", "copies", "unlabelled"):
        write_table(pq.read_table(packs / f"{name}.parquet"), packs / f"{name}.parquet", classes=["a", "b", "c"])
    assert table.num_rows == 30
    distillation = {"teachers": ["cnn"], "temperature": 2.0, "weight": 0.5, "teacher_input": "original"}
    with pytest.raises(InputError, match="tells r, g, b apart, not a, b, c: run `dvc repro train`"):
        run(tmp_path, packs, recipe(distillation=distillation), others={"cnn": recipe()})


def pseudo(root: Path, packs: Path, confidences: list[float], **changes: Any) -> dict[str, Any]:
    """A former run's predictions of the unlabelled pictures: the i-th is sure of class i % 3 by confidences[i]."""
    import pyarrow as pa

    ids = pq.read_table(packs / "unlabelled.parquet")["image_id"].to_pylist()
    rows = []
    for i, (image_id, sure) in enumerate(zip(ids, confidences, strict=True)):
        line = [(1 - sure) / 2] * 3
        line[i % 3] = sure
        rows.append({"image_id": image_id, "subset": "unlabelled", "class_index": -1, "probabilities": line})
    path = root / "former.parquet"
    write_table(pa.Table.from_pylist(rows, schema=PREDICTIONS), path, classes=list("rgb"))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"path": path.name, "sha256": digest, "min_confidence": 0.9, "weight": 0.5, **changes}


def test_unlabelled_pictures_teach_where_a_former_run_was_sure(tmp_path: Path) -> None:
    packs = small_packs(tmp_path / "packs", num_unlabelled=4)
    labels = pseudo(tmp_path, packs, [0.95, 0.5, 0.92, 0.89])
    run(tmp_path, packs)
    without = model(tmp_path).read_bytes()
    run(tmp_path, packs, recipe(pseudo_labels=labels))
    assert read_info(model(tmp_path))["num_pseudo"] == 2
    assert model(tmp_path).read_bytes() != without


def test_pseudo_labels_alone_can_teach_a_class(tmp_path: Path) -> None:
    """No labelled picture of the third class trains: what the network knows of it, it has from a former run."""
    pixels, labels = colours(60, 16)
    subsets = ["train" if label < 2 else "unlabelled" for label in labels[:48]] + ["val"] * 12
    packs = write_packs(tmp_path / "packs", subsets, labels, pixels, [-1] * 48 + [0] * 12)
    number = subsets.count("unlabelled")
    made = recipe(epochs=12, pseudo_labels=pseudo(tmp_path, packs, [0.34] * number, min_confidence=0.5))
    with pytest.raises(InputError, match=r"is sure \(at least 0.5\) of none of 16 unlabelled pictures: lower"):
        run(tmp_path, packs, made)
    import pyarrow as pa

    ids = pq.read_table(packs / "unlabelled.parquet")["image_id"].to_pylist()
    line = {"subset": "unlabelled", "class_index": -1, "probabilities": [0.0, 0.0, 1.0]}
    path = tmp_path / "former.parquet"
    write_table(
        pa.Table.from_pylist([{**line, "image_id": i} for i in ids], schema=PREDICTIONS), path, classes=[*"rgb"]
    )
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    made["pseudo_labels"] = {**made["pseudo_labels"], "sha256": digest, "weight": 1.0}
    assert run(tmp_path, packs, made).val_accuracy == 1.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"path": "gone.parquet"}, "train.recipes.m.pseudo_labels.path gone.parquet: No such file"),
        ({"sha256": "0" * 64}, "former.parquet has [0-9a-f]{64}: if that is the file you mean, write it"),
    ],
)
def test_a_former_run_that_is_not_there_is_refused(tmp_path: Path, changes: dict[str, str], message: str) -> None:
    packs = small_packs(tmp_path / "packs", num_unlabelled=2)
    labels = pseudo(tmp_path, packs, [0.95, 0.95], **changes)
    with pytest.raises(InputError, match=message):
        run(tmp_path, packs, recipe(pseudo_labels=labels))


# copies, factors, folds ---------------------------------------------------------------------


def test_copies_are_trained_on(tmp_path: Path) -> None:
    pixels, labels = colours(36, 16)
    both = np.concatenate([pixels, pixels])
    subsets = ["train"] * 24 + ["val"] * 6 + ["test"] * 6
    all_subsets = [*subsets, *["copies"] * 3, *["unlabelled"] * 33]
    packs = write_packs(tmp_path / "packs", all_subsets, np.tile(labels, 2), both, ([-1] * 24 + [0] * 6 + [-1] * 6) * 2)
    assert run(tmp_path, packs).num_train == 27


def test_a_member_of_a_factor_tells_its_values_apart(tmp_path: Path) -> None:
    pixels, labels = colours(30, 16)
    factors = [{"warm": "yes" if label == 0 else "no"} for label in labels]
    subsets = ["train"] * 18 + ["val"] * 6 + ["test"] * 6
    packs = write_packs(tmp_path / "packs", subsets, labels, pixels, [-1] * 18 + [0] * 6 + [-1] * 6, factors=factors)
    artifact = run(tmp_path, packs, recipe(target="warm", epochs=10))
    path = tmp_path / "out" / "predictions.parquet"
    assert read_classes(path) == ["no", "yes"]
    assert read_target(path) == "warm"
    assert artifact.val_accuracy == 1.0
    assert load_member(model(tmp_path)).classes == ["no", "yes"]


def test_each_fold_predicts_its_own_pictures(tmp_path: Path) -> None:
    pixels, labels = colours(24, 16)
    packs = write_packs(tmp_path / "packs", ["train"] * 18 + ["test"] * 6, labels, pixels, [0, 1] * 9 + [-1] * 6)
    seen = []
    for fold in (0, 1):
        run(tmp_path, packs, fold=fold, folds=[0, 1])
        rows = pq.read_table(tmp_path / "out" / "predictions.parquet").to_pylist()
        seen.append({row["image_id"] for row in rows if row["subset"] == "val"})
    assert len(seen[0]) == len(seen[1]) == 9
    assert not seen[0] & seen[1]


# several processes --------------------------------------------------------------------------


def two_processes(root: Path, packs: Path, made: dict[str, Any]) -> str:
    """Train with two processes that torchrun starts, gloo between them; what they print."""
    script = root.with_name("together.py")
    script.write_text(
        "import json, sys; from pathlib import Path; from train_inputs import run\n"
        f"root, packs = Path({str(root)!r}), Path({str(packs)!r})\n"
        f"run(root, packs, json.loads({json.dumps(json.dumps(made))}), num_devices=2)\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_more_processes_than_the_params_say_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable of torchrun's, left over from elsewhere, changes no result."""
    monkeypatch.setattr(processes, "join_group", lambda device: nullcontext((ProcessGroup(0, 2), device)))
    with pytest.raises(InputError, match="torchrun started 2 processes, but train.num_devices is 1"):
        run(tmp_path, small_packs(tmp_path / "packs"))


@pytest.mark.slow
def test_each_of_two_processes_has_two_pictures_where_batch_norms_learn(tmp_path: Path) -> None:
    """9 pictures in steps of at most 4 would be shares of two and one."""
    packs = small_packs(tmp_path / "packs", num_train=9)
    two_processes(tmp_path / "both", packs, recipe(**SMALL_RESNET, batch_size=4))
    assert len(history(tmp_path / "both")) == 1


@pytest.mark.slow
def test_two_processes_train_to_the_result_of_one(tmp_path: Path) -> None:
    """A network without batch norm, so that only rounding may differ."""
    packs = small_packs(tmp_path / "packs", num_train=20)
    made = recipe(
        model={"kind": "mlp", "hidden_sizes": [16]}, dropout=0.0, optimizer=SGD, epochs=3, class_balance="loss_weights"
    )
    run(tmp_path, packs, made)
    alone = history(tmp_path)
    said = two_processes(tmp_path / "both", packs, made)
    assert said.count("epoch 1 of 3") == 1  # one of them speaks
    for one, other in zip(alone, history(tmp_path / "both"), strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-6)
    assert read_info(model(tmp_path / "both"))["num_devices"] == 2
    one, other = (pq.read_table(root / "out" / "predictions.parquet") for root in (tmp_path, tmp_path / "both"))
    found, expected = (np.array(table["probabilities"].to_pylist()) for table in (other, one))
    assert np.allclose(found, expected, atol=1e-3)


# refusals -----------------------------------------------------------------------------------


def test_layers_without_repeatable_arithmetic_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def irregular(*_: Any, **__: Any) -> Any:
        raise RuntimeError("adaptive_avg_pool2d_backward_cuda does not have a deterministic implementation")

    monkeypatch.setattr(loop, "train_epoch", irregular)
    with pytest.raises(TrainingError, match=r"no repeatable arithmetic on cpu .* set train.deterministic: false"):
        run(tmp_path, small_packs(tmp_path / "packs"))


def test_a_member_without_its_policy_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="policies has none for m, whose augmentation is 'wild': read params"):
        run(tmp_path, small_packs(tmp_path / "packs"), recipe(augmentation="wild"))


def test_history_is_a_table_of_plain_numbers(tmp_path: Path) -> None:
    run(tmp_path, small_packs(tmp_path / "packs"))
    with (tmp_path / "out" / "history.csv").open() as file:
        assert all(float(value) == float(value) for row in csv.DictReader(file) for value in row.values())


def test_a_training_by_the_stage_function_needs_no_params_file(tmp_path: Path) -> None:
    packs = small_packs(tmp_path / "packs")
    artifact = train(
        params({"one": recipe()}),
        member="one",
        fold=0,
        augment_dir=packs,
        members_dir=tmp_path,
        root=tmp_path,
        cache_dir=tmp_path / "cache",
        out_dir=tmp_path / "out",
    )
    assert str(artifact).startswith("one on fold 0: learnt from 18 pictures, ")


@pytest.mark.parametrize("model", ["small_cnn", "nin", "resnet18"])
def test_penultimate_features_are_what_the_layer_of_the_classes_is_given(model: str) -> None:
    torch.manual_seed(1)
    network = build_network(model, num_classes=4, image_size=32, stem="standard", in_chans=3, dropout=0.5)
    pixels = torch.randint(0, 256, (20, 32, 32, 3), dtype=torch.uint8)

    class Loader:
        def batches(self, parts: Sequence[Rows]) -> Iterator[torch.Tensor]:
            return (pixels[torch.from_numpy(part)] for part in parts)

    cpu = torch.device("cpu")
    spec = InputSpec(ModelSpec((127.0,) * 3, (128.0,) * 3), 3, "float32", cpu)
    with join_group(cpu) as (processes, _):
        found = penultimate_features(network, Loader(), 20, spec=spec, image_size=32, processes=processes)
    images = spec.prepare(to_float(pixels))
    with torch.inference_mode():
        logits = network.eval()(images)
        if model == "resnet18":
            expected = network.forward_head(network.forward_features(images), pre_logits=True)  # type: ignore[operator]
            assert torch.allclose(found.float(), expected, atol=2e-3)
            assert torch.allclose(network.get_submodule("fc")(expected), logits, atol=1e-4)
    assert found.dtype == torch.float16
    assert found.shape[0] == 20
    assert found.isfinite().all()
    assert (found.float().std(dim=0) > 0).any()

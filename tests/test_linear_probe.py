"""Linear probes: views, features and their cache, both heads, and members read back."""

import json
import math
import shutil
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn
from train_inputs import FROZEN, colours, history, write_packs, written
from train_inputs import run as run_recipe
from train_inputs import small_packs as packs_of

from pipelines.augmentation.packs import GREY, read_index
from pipelines.core.errors import InputError, TrainingError
from pipelines.core.tables import read_classes
from pipelines.features import cache
from pipelines.features.backbones import (
    FrozenBackbone,
    ModelSpec,
    fold_batch_norms,
    packaged_backbone,
    packaged_weights,
    rename_packaged,
)
from pipelines.params.recipes import Recipe, SgdHead, TtaView
from pipelines.train import TrainArtifact, job, linear_probe, load_member
from pipelines.train.device import has_bfloat16
from pipelines.train.job import HISTORY_HEADER
from pipelines.train.linear_probe import FittedHead, ProbeData, fit_by_sgd
from pipelines.train.logistic import LinearHead, fit_heads, mean_probabilities
from pipelines.train.member import FrozenClassifier, read_info
from pipelines.train.tta import view

LOGISTIC: dict[str, Any] = {"kind": "logistic_regression", "Cs": [0.01, 1.0]}
SGD: dict[str, Any] = {"kind": "sgd", "learning_rate": 0.01, "weight_decay": 0.01, "epochs": 3, "batch_size": 8}


def run(root: Path, packs: Path, **changes: Any) -> TrainArtifact:
    return run_recipe(root, packs, {**FROZEN, "head": LOGISTIC, **changes}, member="frozen")


def small_packs(folder: Path, *, size: int = 32, num_train: int = 18) -> Path:
    return packs_of(folder, size=size, num_train=num_train)


def predictions(root: Path, subset: str) -> dict[str, list[float]]:
    rows = pq.read_table(root / "out" / "predictions.parquet").to_pylist()
    return {row["image_id"]: row["probabilities"] for row in rows if row["subset"] == subset}


# views --------------------------------------------------------------------------------------


def test_plain_is_the_picture_itself_and_mirror_its_mirror_image() -> None:
    images = torch.arange(24.0).reshape(1, 2, 3, 4)
    assert torch.equal(view(images, "original"), images)
    assert view(images, "hflip")[0, 0].tolist() == [[3, 2, 1, 0], [7, 6, 5, 4], [11, 10, 9, 8]]


def test_zoom_is_the_middle_stretched_over_all() -> None:
    """Of a ramp from left to right the middle seven eighths: the same middle, seven eighths as steep."""
    ramp = torch.arange(64.0).expand(1, 3, 64, 64)
    expected = 31.5 + 0.875 * (torch.arange(64.0) - 31.5)
    torch.testing.assert_close(view(ramp, "center_crop")[0, 0, 20], expected, atol=1e-3, rtol=0)
    torch.testing.assert_close(view(ramp, "center_crop_hflip"), view(ramp, "center_crop").flip(-1), atol=1e-3, rtol=0)


def test_zoom_agrees_with_cutting_out_and_resizing() -> None:
    smooth = torch.nn.functional.interpolate(
        torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 255, (64, 64), mode="bicubic"
    )
    cut = torch.nn.functional.interpolate(smooth[..., 4:60, 4:60], (64, 64), mode="bilinear", align_corners=False)
    # at the border the cut has nothing beyond it to blend with
    assert (view(smooth, "center_crop") - cut)[..., 2:-2, 2:-2].abs().max() < 1e-2


@pytest.mark.parametrize(("name", "row"), [("turn_left", 27), ("turn_right", 36)])
def test_turning_left_lifts_what_is_on_the_right(name: TtaView, row: int) -> None:
    images = torch.full((1, 3, 64, 64), GREY)
    images[..., 31:33, 57:59] = 255.0  # 26 to the right of the middle: 26 sin 10° = 4.5 rows
    turned = view(images, name)[0, 0]
    assert abs(int(turned.amax(dim=1).argmax()) - row) <= 1
    assert turned[0, 0] == GREY  # what a turn uncovers


@pytest.mark.parametrize("name", ["hflip", "center_crop", "center_crop_hflip", "turn_left", "turn_right"])
def test_a_view_depends_on_no_other_picture_nor_the_order_in_memory(name: TtaView) -> None:
    images = torch.rand(3, 3, 20, 20, generator=torch.Generator().manual_seed(0)) * 255
    whole = view(images, name)
    assert whole.shape == images.shape
    assert torch.equal(view(images[1:2], name), whole[1:2])
    assert torch.equal(view(images.contiguous(memory_format=torch.channels_last), name), whole)
    assert view(images[:0], name).shape == (0, 3, 20, 20)
    assert not torch.equal(whole, images)


# what is written ----------------------------------------------------------------------------


@pytest.mark.parametrize("head", [LOGISTIC, SGD], ids=["logistic", "sgd"])
def test_two_runs_write_the_same_bytes_with_or_without_the_cache(tmp_path: Path, head: dict[str, Any]) -> None:
    packs = small_packs(tmp_path / "packs")
    artifact = run(tmp_path, packs, head=head)
    assert (artifact.num_train, artifact.num_val, artifact.device) == (18, 6, "cpu")
    first = written(tmp_path)
    assert set(first) == {"model.safetensors", "history.csv", "predictions.parquet", "features.parquet"}
    run(tmp_path, packs, head=head)
    assert written(tmp_path) == first
    shutil.rmtree(tmp_path / "cache")
    run(tmp_path, packs, head=head)
    assert written(tmp_path) == first


@pytest.mark.parametrize(
    ("changes", "tolerance"),
    [
        ({}, 1e-5),
        ({"head": SGD, "tta": ["center_crop", "turn_left"]}, 1e-5),
        ({"precision": "bfloat16"}, 2e-3),
        ({"model": "resnet18", "weights": "file"}, 1e-5),
    ],
    ids=["logistic", "sgd", "bfloat16", "resnet18"],
)
def test_a_member_read_back_predicts_what_was_written(
    tmp_path: Path, changes: dict[str, Any], tolerance: float
) -> None:
    if changes.get("precision") == "bfloat16" and not has_bfloat16():
        pytest.skip("this processor has no bfloat16: predict would compute in float32")
    if changes.get("weights") == "file":
        changes = {**changes, "weights": weights_of_resnet18(tmp_path)}
    packs = small_packs(tmp_path / "packs")
    run(tmp_path, packs, **changes)
    loaded = load_member(tmp_path / "out")
    expected = predictions(tmp_path, "test")
    index = read_index(packs / "index.parquet")
    ids = index.image_id[index.subset == "test"].tolist()
    found = loaded.predict(np.load(packs / "test.npy"))
    assert loaded.classes == ["r", "g", "b"]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [expected[image_id] for image_id in ids], atol=tolerance)


def weights_of_resnet18(folder: Path) -> dict[str, str]:
    """Random ones, as a file that a recipe names."""
    import hashlib

    from pipelines.train.models import build_network

    torch.manual_seed(0)
    network = build_network("resnet18", num_classes=7, image_size=32, stem="standard", in_chans=3, dropout=0.0)
    path = folder / "resnet18.safetensors"
    safetensors.torch.save_file(network.state_dict(), path)
    return {"kind": "file", "path": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def test_what_a_run_did_is_in_the_members_file(tmp_path: Path) -> None:
    run(tmp_path, small_packs(tmp_path / "packs"), precision="auto", tta=["original", "center_crop"])
    info = read_info(tmp_path / "out" / "model.safetensors")
    assert info["precision"] == ("bfloat16" if has_bfloat16() else "float32")
    assert info["tta"] == ["original", "center_crop"]
    assert info["target"] == "label"
    assert info["inverse_strength"] in LOGISTIC["Cs"]
    assert info["normalisation"] == {"mean": [127.0] * 3, "std": [128.0] * 3}
    assert len(info["weights"]) == 64


def test_unlabelled_pictures_are_predicted_and_copies_are_learnt_from(tmp_path: Path) -> None:
    pixels, labels = colours(20, 32)
    subsets = ["train"] * 6 + ["val"] * 4 + ["copies"] * 4 + ["test"] * 3 + ["unlabelled"] * 3
    packs = write_packs(tmp_path / "packs", subsets, labels, pixels, [-1] * 6 + [0] * 4 + [-1] * 10)
    artifact = run(tmp_path, packs)
    assert artifact.num_train == 10
    assert [len(predictions(tmp_path, subset)) for subset in ("val", "test", "unlabelled")] == [4, 3, 3]


def test_a_factor_is_learnt_in_its_own_classes(tmp_path: Path) -> None:
    pixels, labels = colours(24, 32)
    factors = [{"red": "yes" if label == 0 else "no"} for label in labels]
    subsets = ["train"] * 12 + ["val"] * 6 + ["test"] * 6
    packs = write_packs(tmp_path / "packs", subsets, labels, pixels, [-1] * 12 + [0] * 6 + [-1] * 6, factors=factors)
    artifact = run(tmp_path, packs, target="red")
    assert load_member(tmp_path / "out").classes == ["no", "yes"]
    assert read_classes(tmp_path / "out" / "predictions.parquet") == ["no", "yes"]
    assert artifact.val_accuracy > 0.6


def test_the_backbone_is_not_trained(tmp_path: Path) -> None:
    run(tmp_path, small_packs(tmp_path / "packs"))
    stored = safetensors.torch.load_file(tmp_path / "out" / "model.safetensors")
    backbone = {name: t for name, t in lite0().state_dict().items() if not name.startswith("classifier.")}
    assert {f"backbone.{name}" for name in backbone} == {name for name in stored if name.startswith("backbone.")}
    for name, tensor in backbone.items():
        assert torch.equal(stored[f"backbone.{name}"], tensor)


def test_a_loaded_member_has_gradients_for_explanations(tmp_path: Path) -> None:
    run(tmp_path, small_packs(tmp_path / "packs"), precision="auto")
    member = load_member(tmp_path / "out")
    assert isinstance(member.module, FrozenClassifier)
    images = torch.randn(1, 3, 32, 32, requires_grad=True)
    member.module(images)[0, 0].backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0


# Lite0 --------------------------------------------------------------------------------------


def lite0() -> nn.Module:
    """timm's, with the packaged weights and ImageNet's own head."""
    import timm

    model: nn.Module = timm.create_model("tf_efficientnet_lite0")
    held = torch.load(packaged_weights("tf_efficientnet_lite0"), weights_only=True)
    state = model.state_dict()
    state.update(rename_packaged(held, model))
    model.load_state_dict(state)
    return model.eval()


def test_lite0_recalls_imagenet() -> None:
    """Its own head gives 1,000 logits that differ from picture to picture; a wrong padding would shift them."""
    model = lite0()
    dice = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        logits = model(torch.randn(2, 3, 224, 224, generator=dice))
    assert logits.shape == (2, 1000)
    # computed with efficientnet-lite-pytorch 0.1.0 on the same pictures
    torch.testing.assert_close(
        logits[:, :3], torch.tensor([[-2.42594, 0.48605, 1.69304], [-2.55062, 0.49641, 1.41402]]), atol=1e-4, rtol=0
    )


def test_folded_batch_norm_computes_the_same() -> None:
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected, plain = lite0()(images), cast(Any, lite0())
        features = plain.forward_head(plain.forward_features(images), pre_logits=True)
        folded = fold_batch_norms(lite0())
        assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
        torch.testing.assert_close(folded(images), expected, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(packaged_backbone("tf_efficientnet_lite0")(images), features, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("model", ["tf_efficientnet_lite1", "tf_efficientnet_lite2"])
def test_packaged_weights_recognise_a_drawn_thing(model: str) -> None:
    """Features of equal pictures are equal, of different ones not: weights in the wrong layers give zeros."""
    images = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.inference_mode():
        found = packaged_backbone(model)(images)
    assert found.shape == (2, 1280)
    assert 0.05 < float((found > 0).float().mean()) < 0.95


# the cache ----------------------------------------------------------------------------------


def count_features(monkeypatch: pytest.MonkeyPatch, *, killed_after: int = -1) -> list[int]:
    """The number of pictures of every batch that is computed."""
    calls: list[int] = []
    plain = FrozenBackbone.__call__

    def counted(backbone: FrozenBackbone, images: torch.Tensor) -> Any:
        if len(calls) == killed_after:
            raise KeyboardInterrupt
        calls.append(len(images))
        return plain(backbone, images)

    monkeypatch.setattr(FrozenBackbone, "__call__", counted)
    return calls


def test_features_are_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packs = small_packs(tmp_path / "packs")
    calls = count_features(monkeypatch)
    run(tmp_path, packs)
    assert sum(calls) == 60  # 30 pictures, 2 views
    calls.clear()
    run(tmp_path, packs, head=SGD)
    assert calls == []


@pytest.mark.parametrize(
    "changes",
    [{"precision": "bfloat16"}, {"tta": ["center_crop"]}, {"image_size": 40}],
    ids=["precision", "view", "size"],
)
def test_features_of_another_kind_are_computed_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    packs = small_packs(tmp_path / "packs", size=40)
    run(tmp_path, packs, tta=["original"])
    calls = count_features(monkeypatch)
    run(tmp_path, packs, **{"tta": ["original"], **changes})
    assert sum(calls) == 30


def test_only_new_pictures_are_computed_and_the_bytes_are_those_of_a_fresh_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, small_packs(tmp_path / "few"))
    calls = count_features(monkeypatch)
    more = small_packs(tmp_path / "more", num_train=24)
    run(tmp_path, more)
    assert 0 < sum(calls) < 72
    grown = written(tmp_path)
    shutil.rmtree(tmp_path / "cache")
    run(tmp_path, more)
    assert written(tmp_path) == grown


def test_a_killed_run_keeps_the_features_it_has_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "SEGMENT", 16)
    packs = small_packs(tmp_path / "packs")
    run(tmp_path, packs)
    unbroken = written(tmp_path)
    shutil.rmtree(tmp_path / "cache")
    with monkeypatch.context() as patch:
        count_features(patch, killed_after=3)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, packs)
    calls = count_features(monkeypatch)
    run(tmp_path, packs)
    assert calls == [14]  # 46 of 60 were kept: a segment of 16 and one of 14 plain, one of 16 mirrored
    assert written(tmp_path) == unbroken


def test_a_damaged_cache_is_computed_anew(tmp_path: Path) -> None:
    packs = small_packs(tmp_path / "packs")
    run(tmp_path, packs)
    first = written(tmp_path)
    for path in (tmp_path / "cache").rglob("*.npy"):
        path.write_bytes(path.read_bytes()[:100])
    run(tmp_path, packs)
    assert written(tmp_path) == first


def test_equal_pictures_are_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels, labels = colours(9, 32)
    packs = write_packs(
        tmp_path / "packs", ["train"] * 9 + ["val"] * 9, np.tile(labels, 2), np.tile(pixels, (2, 1, 1, 1)),
        [-1] * 9 + [0] * 9,
    )  # fmt: skip
    calls = count_features(monkeypatch)
    run(tmp_path, packs, tta=["original"])
    assert calls == [9]


def test_stored_features_are_read_from_their_segments_without_being_copied_whole() -> None:
    segments = [np.arange(6, dtype=np.float16).reshape(3, 2), np.arange(10, 14, dtype=np.float16).reshape(2, 2)]
    stored = cache.CachedFeatures(segments, np.array([1, 0, 1, 0]), np.array([0, 2, 1, 0]), 2)
    assert stored.read(np.array([3, 0, 1, 0])).tolist() == [[0, 1], [10, 11], [4, 5], [10, 11]]
    assert stored.read(np.array([], np.int64)).shape == (0, 2)


def test_a_run_holds_features_as_memory_maps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[cache.CachedFeatures] = []
    plain = cache.cached_features

    def noted(*values: Any, **named: Any) -> cache.CachedFeatures:
        found.append(plain(*values, **named))
        return found[-1]

    monkeypatch.setattr(linear_probe, "cached_features", noted)
    run(tmp_path, small_packs(tmp_path / "packs"))
    assert len(found) == 2
    assert all(isinstance(segment, np.memmap) for stored in found for segment in stored.segments)


def test_features_that_are_no_numbers_stop_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Endless(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.full((len(images), 1280), 1e6)

    monkeypatch.setattr(linear_probe, "fold_batch_norms", lambda _: Endless())
    with pytest.raises(TrainingError, match=r"tf_efficientnet_lite0 gives features beyond 65,504.*precision: float32"):
        run(tmp_path, small_packs(tmp_path / "packs"))
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not has_bfloat16(), reason="this processor has no bfloat16")
def test_bfloat16_features_are_near_those_of_float32(tmp_path: Path) -> None:
    packs = small_packs(tmp_path / "packs", size=64)
    found = {}
    for precision in ("float32", "bfloat16"):
        run(tmp_path, packs, precision=precision, image_size=64)
        rows = pq.read_table(tmp_path / "out" / "features.parquet")["plain"].to_pylist()
        found[precision] = np.stack([np.frombuffer(row, "<f2") for row in rows]).astype(np.float64)
    one, two = found["float32"], found["bfloat16"]
    cosine = (one * two).sum(axis=1) / np.linalg.norm(one, axis=1) / np.linalg.norm(two, axis=1)
    assert 0.995 < cosine.min() < 1.0
    assert not np.array_equal(one, two)


# the heads ----------------------------------------------------------------------------------


def clusters(count: int, *, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """(1, N, 20) features of three overlapping classes, and (N,) labels."""
    dice = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    found = torch.randn(count, 20, generator=dice)
    found[:, :3] += 1.5 * torch.nn.functional.one_hot(labels, 3)
    return found[None] * 7.0 + 3.0, labels


def test_the_head_is_the_optimum_that_scikit_learn_finds() -> None:
    from sklearn.linear_model import LogisticRegression

    found, labels = clusters(90)
    [fit] = fit_heads(found, labels, found, labels, num_classes=3, inverse_strengths=[0.1])
    rows = (found[0] - found[0].mean(0)) / found[0].std(0, correction=0)
    reference = LogisticRegression(C=0.1, tol=1e-10, max_iter=10_000).fit(rows.double().numpy(), labels.numpy())
    expected = reference.predict_proba(rows.double().numpy())
    np.testing.assert_allclose(mean_probabilities(fit.head, found).numpy(), expected, atol=2e-4)


def test_two_equal_views_change_nothing() -> None:
    found, labels = clusters(60)
    twice = found.repeat(2, 1, 1)
    [one] = fit_heads(found, labels, found, labels, num_classes=3, inverse_strengths=[0.1])
    [two] = fit_heads(twice, labels, twice, labels, num_classes=3, inverse_strengths=[0.1])
    assert math.isclose(one.val.loss, two.val.loss, abs_tol=1e-5)


def test_a_weaker_penalty_fits_the_training_pictures_better() -> None:
    found, labels = clusters(60)
    fits = fit_heads(found, labels, found, labels, num_classes=3, inverse_strengths=[1.0, 0.001, 0.1])
    assert [fit.inverse_strength for fit in fits] == [0.001, 0.1, 1.0]
    losses = [fit.train.loss for fit in fits]
    assert losses == sorted(losses, reverse=True)


def test_the_strength_with_the_least_validation_loss_is_kept(tmp_path: Path) -> None:
    head = {**LOGISTIC, "Cs": [1e-6, 0.1]}
    run(tmp_path, small_packs(tmp_path / "packs"), head=head)
    assert read_info(tmp_path / "out" / "model.safetensors")["inverse_strength"] == 0.1
    assert [row["inverse_strength"] for row in history(tmp_path)] == [1e-6, 0.1]


def test_a_feature_that_never_varies_is_harmless() -> None:
    found, labels = clusters(60)
    found[..., 5] = 4.0
    [fit] = fit_heads(found, labels, found, labels, num_classes=3, inverse_strengths=[0.1])
    assert math.isfinite(fit.val.loss)
    stepped = steps(found, labels, learning_rate=0.01)
    assert math.isfinite(stepped.history[-1][2])


def test_more_features_than_the_memory_holds_are_refused_for_logistic_regression(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear_probe, "LOGISTIC_BYTES", 10**15)
    with pytest.raises(
        InputError, match=r"train\.recipes\.frozen\.head logistic_regression needs .* take the head sgd"
    ):
        run(tmp_path, small_packs(tmp_path / "packs"))
    run(tmp_path, small_packs(tmp_path / "same"), head=SGD)


def test_predicting_piece_by_piece_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    found, labels = clusters(50)
    [fit] = fit_heads(found, labels, found, labels, num_classes=3, inverse_strengths=[0.1])
    whole = mean_probabilities(fit.head, found)
    monkeypatch.setattr(linear_probe, "PIECE", 7)
    parts = linear_probe.predict(fit.head, lambda rows: found[:, torch.from_numpy(rows)], np.arange(50))
    torch.testing.assert_close(parts, whole, atol=1e-12, rtol=0)
    assert linear_probe.predict(fit.head, lambda rows: found[:, torch.from_numpy(rows)], np.arange(0)).shape == (0, 3)


def steps(found: torch.Tensor, labels: torch.Tensor, **changes: Any) -> FittedHead:
    """The head sgd, on features of which the last third validates."""
    cut = len(labels) * 2 // 3
    values = {**SGD, "weight_decay": 0.0, "epochs": 10, **changes}
    return fit_by_sgd(
        SgdHead.model_validate(values),
        lambda rows: found[:, torch.from_numpy(rows)].half(),
        ProbeData(np.arange(cut), labels[:cut].numpy(), np.arange(cut, len(labels)), labels[cut:].numpy(), 3),
        keys=np.arange(cut, dtype=np.uint64),
        seed=changes.pop("seed", 1),
        device=torch.device("cpu"),
        where="train.recipes.frozen",
        advance=lambda _: None,
    )


def test_steps_come_to_what_logistic_regression_finds() -> None:
    found, labels = clusters(300)
    [fit] = fit_heads(
        found[:, :200], labels[:200], found[:, 200:], labels[200:], num_classes=3, inverse_strengths=[0.1]
    )
    stepped = steps(found, labels, epochs=30)
    assert min(line[2] for line in stepped.history) < fit.val.loss + 0.05


def test_the_best_epoch_is_kept_and_the_rate_falls_along_a_cosine() -> None:
    found, labels = clusters(90)
    fit = steps(found, labels, learning_rate=0.3, epochs=12)
    losses = [line[HISTORY_HEADER.index("val_loss")] for line in fit.history]
    assert fit.info["best_epoch"] == losses.index(min(losses)) + 1
    assert fit.info["best_epoch"] < 12  # it overfits
    rates = [line[HISTORY_HEADER.index("learning_rate")] for line in fit.history]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.01
    kept = mean_probabilities(fit.head, found[:, 60:].half())
    loss = -kept[torch.arange(30), labels[60:]].log().mean()
    assert math.isclose(float(loss), min(losses), abs_tol=1e-6)


def test_steps_learn_a_few_pictures_by_heart() -> None:
    """Labels drawn by lot: nothing but memory can get them right."""
    found = torch.randn(1, 32, 200, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(0, 3, (32,), generator=torch.Generator().manual_seed(1))
    twice, both = found.repeat(1, 3, 1), labels.repeat(3)
    fit = steps(twice, both, learning_rate=0.03, epochs=20)
    assert fit.history[-1][HISTORY_HEADER.index("val_accuracy")] == 1.0


def test_steps_decay_weights_and_not_biases() -> None:
    found, labels = clusters(90)
    labels = labels.clamp_max(1)  # two thirds are of class 1: the bias says so
    free, decayed = steps(found, labels), steps(found, labels, weight_decay=50.0)
    assert decayed.head.get_buffer("weight").norm() < 0.1 * free.head.get_buffer("weight").norm()
    bias = decayed.head.get_buffer("bias")
    assert bias[1] - bias[0] > 0.1


def test_a_loss_that_is_no_number_stops_with_epoch_batch_rate_and_remedy() -> None:
    found, labels = clusters(90)
    message = (
        r"train\.recipes\.frozen: the loss is (nan|inf) in epoch \d, batch \d of 8, at learning rate .*: lower head"
    )
    with pytest.raises(TrainingError, match=message):
        steps(found, labels, learning_rate=3e37)


def test_a_head_is_exact_inside_half_precision() -> None:
    found, labels = clusters(30)
    [fit] = fit_heads(found, labels, found, labels, num_classes=3, inverse_strengths=[0.1])
    head: LinearHead = fit.head
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(head(found), head(found.double()))
        assert head(found).dtype == torch.float64


# several backbones ---------------------------------------------------------------------------


def test_several_backbones_are_one_member_that_is_read_back(tmp_path: Path) -> None:
    packs = small_packs(tmp_path / "packs")
    models = ["tf_efficientnet_lite0", "tf_efficientnet_lite1"]
    run(tmp_path, packs, model=None, models=models, tta=["original"])
    loaded = load_member(tmp_path / "out")
    assert loaded.info["model"] == "tf_efficientnet_lite0+tf_efficientnet_lite1"
    expected = predictions(tmp_path, "test")
    index = read_index(packs / "index.parquet")
    ids = index.image_id[index.subset == "test"].tolist()
    found = loaded.predict(np.load(packs / "test.npy"))
    np.testing.assert_allclose(found, [expected[image_id] for image_id in ids], atol=1e-5)
    joined = pq.read_table(tmp_path / "out" / "features.parquet").to_pylist()
    # the first half is what Lite0 alone gives
    run(tmp_path, packs, tta=["original"])
    alone = pq.read_table(tmp_path / "out" / "features.parquet").to_pylist()
    assert [row["plain"][: 2 * 1280] for row in joined] == [row["plain"] for row in alone]
    assert {len(row["plain"]) for row in joined} == {2 * 2 * 1280}


def test_backbones_of_other_scales_are_fed_their_own() -> None:
    specs = [ModelSpec((0.0,) * 3, (1.0,) * 3), ModelSpec((10.0,) * 3, (2.0,) * 3)]
    head = LinearHead(torch.eye(6), torch.zeros(6), torch.zeros(6), torch.ones(6))
    mean = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    found = FrozenClassifier([mean, mean], specs, head)(torch.full((1, 3, 4, 4), 30.0))
    assert found.tolist() == [[30.0, 30.0, 30.0, 10.0, 10.0, 10.0]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": None}, "a linear probe has either model or models"),
        ({"models": ["tf_efficientnet_lite1"]}, "a linear probe has either model or models"),
        ({"model": None, "models": ["resnet18", "resnet18"]}, "one stands there twice"),
        (
            {"model": None, "models": ["resnet18"], "weights": {"kind": "member", "member": "a"}},
            "each begins with its own ImageNet weights",
        ),
    ],
)
def test_a_probe_names_its_backbones_once(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TypeAdapter(Recipe).validate_json(json.dumps({**FROZEN, **changes}))


# features for the leak premium --------------------------------------------------------------


def test_features_are_those_of_every_packed_picture_in_both_views(tmp_path: Path) -> None:
    packs = small_packs(tmp_path / "packs")
    run(tmp_path, packs, tta=["hflip", "original"])
    index = read_index(packs / "index.parquet")
    found = pq.read_table(tmp_path / "out" / "features.parquet").to_pylist()
    assert [row["image_id"] for row in found] == sorted(index.image_id.tolist())
    assert read_classes(tmp_path / "out" / "features.parquet") == ["r", "g", "b"]
    plain = {row["image_id"]: row["plain"] for row in found}
    edited = {row["image_id"]: row["edited"] for row in found}
    assert {len(line) for line in plain.values()} == {2 * 1280}
    assert all(plain[name] != edited[name] for name in plain)
    run(tmp_path, packs, tta=["original"])
    alone = pq.read_table(tmp_path / "out" / "features.parquet").to_pylist()
    assert {row["image_id"]: row["plain"] for row in alone} == plain
    assert {row["image_id"]: row["edited"] for row in alone} == plain


def test_of_a_large_set_whole_groups_leave_features(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = [f"group {i // 3}" for i in range(60)]
    assert job.exported_rows(groups).tolist() == list(range(60))
    monkeypatch.setattr(job, "MAX_EXPORTED", 20)
    rows = job.exported_rows(groups)
    assert rows.tolist() == sorted(rows)
    assert len(rows) == 18
    assert all(sum(groups[row] == name for row in rows) == 3 for name in {groups[row] for row in rows})
    assert job.exported_rows(["one"] * 21).tolist() == []

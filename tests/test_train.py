"""train: frozen and scratch recipes, their outputs, and what must not change them."""

import csv
import io
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
from torch import nn

from pipelines.core.draws import picture_keys
from pipelines.core.errors import InputError, TrainingError
from pipelines.core.lite0 import fold_batch_norm, load_backbone
from pipelines.core.packs import new_pack, read_index
from pipelines.core.params.augment import policy_of
from pipelines.core.params.train import Adam, Sgd, TrainParams
from pipelines.core.tables import PACK_INDEX, read_classes, write_table
from pipelines.train import TrainArtifact, load_member, probe, train
from pipelines.train.devices import choose_device
from pipelines.train.head import fit_heads, mean_probabilities, score
from pipelines.train.member import FrozenClassifier, read_info, save_member
from pipelines.train.models.resnet18 import build_resnet18
from pipelines.train.optimizers import build_optimizer, decay_groups, learning_rate_at
from pipelines.train.pictures import resize
from pipelines.train.scratch import batches

NOTHING = policy_of()
STRONG = policy_of(
    **{"flip": 0.5, "rotation": 10.0, "shift": 0.1, "zoom": 0.1},
    **{"brightness": 0.1, "contrast": 0.1, "saturation": 0.1, "erase": 0.2},
)
POLICIES = {"nothing": NOTHING, "strong": STRONG}

FROZEN: dict[str, Any] = {
    "tuning": "frozen",
    "model": "efficientnet_lite0",
    "weights": "imagenet",
    "image_size": 32,
    "head": {"kind": "logistic_regression", "inverse_strengths": [0.01, 1.0], "views": ["plain", "mirror"]},
}
SCRATCH: dict[str, Any] = {
    "tuning": "scratch",
    "model": "resnet18",
    "image_size": 16,
    "stem": "standard",
    "augmentation": "strong",
    "optimizer": {"kind": "adam", "learning_rate": 0.001, "weight_decay": 0.0},
    "schedule": "cosine",
    "warmup_epochs": 0,
    "epochs": 2,
    "batch_size": 8,
    "label_smoothing": 0.1,
    "dropout": 0.1,
    "patience": 10,
}


def params(**changes: Any) -> TrainParams:
    """Train params with members `frozen` and `scratch`; changes to either recipe by its name."""
    recipes = {
        "frozen": {**FROZEN, **changes.pop("frozen", {})},
        "scratch": {**SCRATCH, **changes.pop("scratch", {})},
    }
    values = {"seed": 1, "num_threads": 1, "device": "cpu", "members": ["frozen"], "folds": [0], "recipes": recipes}
    return TrainParams.model_validate_json(json.dumps({**values, **changes}))


def colours(count: int, size: int, *, seed: int = 0) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Noisy pictures of three classes, redder, greener and bluer: (N, S, S, 3) uint8, (N,) class indices."""
    dice = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    pixels = dice.integers(0, 120, (count, size, size, 3))
    pixels[np.arange(count), :, :, labels] += 100
    return pixels.astype(np.uint8), labels


def write_packs(
    folder: Path, subsets: list[str], labels: np.ndarray[Any, Any], pixels: np.ndarray[Any, Any], folds: list[int]
) -> Path:
    """What augment writes, for N pictures in the given subsets."""
    folder.mkdir(parents=True)
    rows = []
    for subset in ("test", "train", "val"):
        here = [i for i, name in enumerate(subsets) if name == subset]
        with new_pack(folder / f"{subset}.npy", num_images=len(here), image_size=pixels.shape[1]) as pack:
            for position, i in enumerate(here):
                pack[position] = pixels[i]
                image_id = f"{(i + 1) * 0x9E3779B97F4A7C15 % 2**64:016x}" + f"{i:048x}"
                rows.append(
                    {
                        **{"image_id": image_id, "label": "rgb"[labels[i]], "class_index": int(labels[i])},
                        **{"group": image_id, "subset": subset, "fold": folds[i], "position": position},
                    }
                )
    table = pa.Table.from_pylist(rows, schema=PACK_INDEX)
    write_table(table, folder / "index.parquet", classes=list("rgb"))
    return folder


def small_packs(folder: Path, *, size: int = 32, num_train: int = 18) -> Path:
    """`num_train` training, 6 validation and 6 test pictures of three classes."""
    count = num_train + 12
    pixels, labels = colours(count, size)
    subsets = ["train"] * num_train + ["val"] * 6 + ["test"] * 6
    return write_packs(folder, subsets, labels, pixels, [-1] * num_train + [0] * 6 + [-1] * 6)


def run(root: Path, member: str, packs: Path, *, fold: int = 0, **changes: Any) -> TrainArtifact:
    return train(
        params(**changes),
        POLICIES,
        member=member,
        fold=fold,
        augment_dir=packs,
        cache_dir=root / "cache",
        out_dir=root / "out",
    )


def written(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((root / "out").iterdir())}


# what is written ----------------------------------------------------------------------------


@pytest.mark.parametrize("member", ["frozen", "scratch"])
def test_a_run_writes_weights_history_and_predictions(tmp_path: Path, member: str) -> None:
    packs = small_packs(tmp_path / "packs")
    artifact = run(tmp_path, member, packs)
    assert (artifact.num_train, artifact.num_val, artifact.device) == (18, 6, "cpu")
    features = {"features.parquet"} if member == "frozen" else set()
    assert set(written(tmp_path)) == {"model.safetensors", "history.csv", "predictions.parquet"} | features

    predictions = pq.read_table(tmp_path / "out" / "predictions.parquet").to_pylist()
    assert [row["subset"] for row in predictions] == ["test"] * 6 + ["val"] * 6
    assert predictions == sorted(predictions, key=lambda row: (row["subset"], row["image_id"]))
    assert read_classes(tmp_path / "out" / "predictions.parquet") == ["r", "g", "b"]
    index = read_index(packs / "index.parquet")
    truth = dict(zip(index.image_id.tolist(), index.class_index.tolist(), strict=True))
    for row in predictions:
        assert truth[row["image_id"]] == row["class_index"]
        assert math.isclose(sum(row["probabilities"]), 1.0, abs_tol=1e-6)

    with (tmp_path / "out" / "history.csv").open() as file:
        history = list(csv.DictReader(file))
    assert len(history) == 2
    assert next(iter(history[0])) == ("epoch" if member == "scratch" else "inverse_strength")
    assert all(0 <= float(row["val_accuracy"]) <= 1 for row in history)

    info = read_info(tmp_path / "out" / "model.safetensors")
    assert info["member"] == member
    assert info["classes"] == ["r", "g", "b"]
    assert info["device"] == "cpu"


@pytest.mark.parametrize("member", ["frozen", "scratch"])
def test_two_runs_write_the_same_bytes_with_or_without_the_cache(tmp_path: Path, member: str) -> None:
    packs = small_packs(tmp_path / "packs")
    run(tmp_path, member, packs)
    first = written(tmp_path)
    run(tmp_path, member, packs)
    assert written(tmp_path) == first
    shutil.rmtree(tmp_path / "cache")
    run(tmp_path, member, packs)
    assert written(tmp_path) == first


@pytest.mark.parametrize("member", ["frozen", "scratch"])
def test_a_member_read_back_predicts_what_was_written(tmp_path: Path, member: str) -> None:
    packs = small_packs(tmp_path / "packs")
    run(tmp_path, member, packs)
    loaded = load_member(tmp_path / "out" / "model.safetensors")
    index = read_index(packs / "index.parquet")
    predictions = pq.read_table(tmp_path / "out" / "predictions.parquet").to_pylist()
    expected = {row["image_id"]: row["probabilities"] for row in predictions}
    found = loaded.predict(np.load(packs / "test.npy"))
    assert loaded.classes == ["r", "g", "b"]
    assert found.dtype == np.float32
    ids = index.image_id[index.subset == "test"].tolist()
    np.testing.assert_allclose(found, [expected[image_id] for image_id in ids], atol=1e-4)


def test_a_loaded_member_refuses_what_is_no_picture(tmp_path: Path) -> None:
    run(tmp_path, "scratch", small_packs(tmp_path / "packs"))
    member = load_member(tmp_path / "out" / "model.safetensors")
    assert member.predict(np.zeros((0, 16, 16, 3), np.uint8)).shape == (0, 3)
    assert member.predict(np.zeros((2, 40, 40, 3), np.uint8)).shape == (2, 3)  # resized to its own size
    with pytest.raises(InputError, match=r"shape \(2, 16, 8, 3\) cannot be predicted"):
        member.predict(np.zeros((2, 16, 8, 3), np.uint8))
    with pytest.raises(InputError, match="type float32 cannot be predicted: give uint8"):
        member.predict(np.zeros((2, 16, 16, 3), np.float32))


def test_a_file_that_is_no_member_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with pytest.raises(InputError, match="does not exist: run `dvc repro train`"):
        load_member(path)
    path.write_bytes(b"not at all")
    with pytest.raises(InputError, match="is no whole safetensors file"):
        load_member(path)
    path.write_bytes(safetensors.torch.save({"a": torch.zeros(1)}))
    with pytest.raises(InputError, match="was not written by this project"):
        load_member(path)
    path.write_bytes(save_member({"a": torch.zeros(1)}, {"model": "unheard_of"}))
    with pytest.raises(InputError, match="was written by another version"):
        load_member(path)


def test_what_an_earlier_run_left_goes(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model.safetensors.partial").write_bytes(b"half")
    run(tmp_path, "frozen", small_packs(tmp_path / "packs"))
    assert "model.safetensors.partial" not in written(tmp_path)


# folds --------------------------------------------------------------------------------------


def test_each_fold_predicts_its_own_pictures(tmp_path: Path) -> None:
    pixels, labels = colours(24, 32)
    folds = [(i // 3) % 2 for i in range(18)] + [-1] * 6
    packs = write_packs(tmp_path / "packs", ["train"] * 18 + ["test"] * 6, labels, pixels, folds)
    seen: set[str] = set()
    for fold in (0, 1):
        artifact = run(tmp_path, "frozen", packs, fold=fold)
        assert (artifact.num_train, artifact.num_val) == (9, 9)
        rows = pq.read_table(tmp_path / "out" / "predictions.parquet").to_pylist()
        seen |= {row["image_id"] for row in rows if row["subset"] == "val"}
    assert len(seen) == 18


def test_a_fold_without_validation_pictures_is_refused(tmp_path: Path) -> None:
    packs = small_packs(tmp_path / "packs")
    with pytest.raises(InputError, match=r"fold 3 has no validation pictures \(folds that have: 0\)"):
        run(tmp_path, "frozen", packs, fold=3)
    assert not (tmp_path / "out").exists()


def test_one_class_to_train_on_is_refused(tmp_path: Path) -> None:
    pixels, _ = colours(6, 32)
    labels = np.array([1, 1, 1, 1, 0, 0])
    packs = write_packs(tmp_path / "packs", ["train"] * 4 + ["val"] * 2, labels, pixels, [-1] * 4 + [0] * 2)
    with pytest.raises(InputError, match=r"training pictures of 1 class \(g\); a classifier needs at least 2"):
        run(tmp_path, "frozen", packs)


def test_a_class_that_cannot_be_learnt_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pixels, _ = colours(8, 32)
    labels = np.array([0, 0, 1, 1, 0, 1, 2, 0])
    packs = write_packs(tmp_path / "packs", ["train"] * 4 + ["val"] * 4, labels, pixels, [-1] * 4 + [0] * 4)
    run(tmp_path, "frozen", packs)
    assert "no training picture of b: never predicted" in capsys.readouterr().err


def test_no_test_pictures_are_no_error(tmp_path: Path) -> None:
    pixels, labels = colours(12, 32)
    packs = write_packs(tmp_path / "packs", ["train"] * 9 + ["val"] * 3, labels, pixels, [-1] * 9 + [0] * 3)
    for member in ("frozen", "scratch"):
        run(tmp_path, member, packs)
        assert pq.read_table(tmp_path / "out" / "predictions.parquet").num_rows == 3


# what cannot be trained ---------------------------------------------------------------------


def test_an_unknown_member_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="member 'lite1' is not among train.recipes: frozen, scratch"):
        run(tmp_path, "lite1", tmp_path)


def test_packs_that_are_missing_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="index.parquet does not exist"):
        run(tmp_path, "frozen", tmp_path / "nowhere")


def test_pictures_are_never_enlarged(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="image_size 32 is larger than the packed pictures, 16 px"):
        run(tmp_path, "frozen", small_packs(tmp_path / "packs", size=16))


def test_a_policy_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"augmentation 'wild' is not among augment.policies \(nothing, strong\)"):
        run(tmp_path, "scratch", small_packs(tmp_path / "packs"), scratch={"augmentation": "wild"})


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="train.device is cuda, but torch finds none on this machine"):
        choose_device("cuda")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device("auto").type == "cpu"


# the frozen backbone ------------------------------------------------------------------------


def test_the_backbone_is_not_trained(tmp_path: Path) -> None:
    run(tmp_path, "frozen", small_packs(tmp_path / "packs"))
    stored = safetensors.torch.load_file(tmp_path / "out" / "model.safetensors")
    for name, tensor in load_backbone().state_dict().items():
        if not name.startswith("_fc."):
            assert torch.equal(stored[f"backbone.{name}"], tensor)


def test_the_backbone_recalls_imagenet() -> None:
    """Its own head gives 1,000 logits that differ from picture to picture; a wrong padding would shift them."""
    model = load_backbone()
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
        plain = load_backbone().features(images)
        folded = fold_batch_norm(load_backbone())
        assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
        torch.testing.assert_close(folded.features(images), plain, atol=1e-4, rtol=1e-4)


def test_a_loaded_member_has_gradients_for_explanations(tmp_path: Path) -> None:
    run(tmp_path, "frozen", small_packs(tmp_path / "packs"))
    member = load_member(tmp_path / "out" / "model.safetensors")
    assert isinstance(member.module, FrozenClassifier)
    images = torch.randn(1, 3, 32, 32, requires_grad=True)
    member.module(images)[0, 0].backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0


def count_features(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of pictures of every call that computes features."""
    from pipelines.train import features

    calls: list[int] = []
    plain = features._compute

    def counted(pixels: Any, *others: Any) -> Any:
        calls.append(len(pixels))
        return plain(pixels, *others)

    monkeypatch.setattr(features, "_compute", counted)
    return calls


def test_features_are_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packs = small_packs(tmp_path / "packs")
    calls = count_features(monkeypatch)
    run(tmp_path, "frozen", packs)
    assert sum(calls) == 60  # 30 pictures, 2 views
    calls.clear()
    run(tmp_path, "frozen", packs, frozen={"head": {**FROZEN["head"], "inverse_strengths": [0.1]}})
    assert calls == []


def test_only_new_pictures_are_computed_and_the_bytes_are_those_of_a_fresh_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, "frozen", small_packs(tmp_path / "few"))
    calls = count_features(monkeypatch)
    more = small_packs(tmp_path / "more", num_train=24)
    run(tmp_path, "frozen", more)
    assert 0 < sum(calls) < 72
    grown = written(tmp_path)
    shutil.rmtree(tmp_path / "cache")
    run(tmp_path, "frozen", more)
    assert written(tmp_path) == grown


def test_a_killed_run_keeps_the_features_it_has_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.train import features

    packs = small_packs(tmp_path / "packs")
    run(tmp_path, "frozen", packs)
    unbroken = written(tmp_path)
    shutil.rmtree(tmp_path / "cache")
    monkeypatch.setattr(features, "SEGMENT", 16)
    plain, calls = features._compute, count_features(monkeypatch)

    def killed(*arguments: Any) -> Any:
        if len(calls) == 3:
            raise KeyboardInterrupt
        calls.append(1)
        return plain(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(features, "_compute", killed)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, "frozen", packs)
    calls.clear()
    run(tmp_path, "frozen", packs)
    assert calls == [14]  # 46 of 60 were kept: a segment of 16 and one of 14 plain, one of 16 mirrored
    assert written(tmp_path) == unbroken


def test_a_damaged_cache_is_computed_anew(tmp_path: Path) -> None:
    packs = small_packs(tmp_path / "packs")
    run(tmp_path, "frozen", packs)
    first = written(tmp_path)
    for path in (tmp_path / "cache").rglob("*.npy"):
        path.write_bytes(path.read_bytes()[:100])
    run(tmp_path, "frozen", packs)
    assert written(tmp_path) == first


# the head -----------------------------------------------------------------------------------


def clusters(count: int, *, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """(1, N, 20) features of three overlapping classes, and (N,) labels."""
    dice = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    features = torch.randn(count, 20, generator=dice)
    features[:, :3] += 1.5 * torch.nn.functional.one_hot(labels, 3)
    return features[None] * 7.0 + 3.0, labels


def test_the_head_is_the_optimum_that_scikit_learn_finds() -> None:
    from sklearn.linear_model import LogisticRegression

    features, labels = clusters(90)
    [fit] = fit_heads(features, labels, features, labels, num_classes=3, inverse_strengths=[0.1])
    rows = (features[0] - features[0].mean(0)) / features[0].std(0, correction=0)
    reference = LogisticRegression(C=0.1, tol=1e-10, max_iter=10_000).fit(rows.double().numpy(), labels.numpy())
    expected = reference.predict_proba(rows.double().numpy())
    np.testing.assert_allclose(mean_probabilities(fit.head, features).numpy(), expected, atol=2e-4)


def test_two_equal_views_change_nothing() -> None:
    features, labels = clusters(60)
    twice = features.repeat(2, 1, 1)
    [one] = fit_heads(features, labels, features, labels, num_classes=3, inverse_strengths=[0.1])
    [two] = fit_heads(twice, labels, twice, labels, num_classes=3, inverse_strengths=[0.1])
    assert math.isclose(one.val_loss, two.val_loss, abs_tol=1e-5)


def test_a_weaker_penalty_fits_the_training_pictures_better() -> None:
    features, labels = clusters(60)
    fits = fit_heads(features, labels, features, labels, num_classes=3, inverse_strengths=[1.0, 0.001, 0.1])
    assert [fit.inverse_strength for fit in fits] == [0.001, 0.1, 1.0]
    losses = [fit.train_loss for fit in fits]
    assert losses == sorted(losses, reverse=True)


def test_the_strength_with_the_least_validation_loss_is_kept(tmp_path: Path) -> None:
    head = {**FROZEN["head"], "inverse_strengths": [1e-6, 0.1]}
    run(tmp_path, "frozen", small_packs(tmp_path / "packs"), frozen={"head": head})
    assert read_info(tmp_path / "out" / "model.safetensors")["inverse_strength"] == 0.1


def test_a_feature_that_never_varies_is_harmless() -> None:
    features, labels = clusters(60)
    features[..., 5] = 4.0
    [fit] = fit_heads(features, labels, features, labels, num_classes=3, inverse_strengths=[0.1])
    assert math.isfinite(fit.val_loss)


def test_score_counts_and_divides_once() -> None:
    probabilities = torch.tensor([[0.5, 0.5], [0.25, 0.75]], dtype=torch.float64)
    loss, accuracy = score(probabilities, torch.tensor([0, 0]))
    assert math.isclose(loss, (math.log(2) + math.log(4)) / 2)
    assert accuracy == 0.5
    assert all(math.isnan(value) for value in score(torch.empty(0, 2), torch.empty(0, dtype=torch.int64)))


# from scratch -------------------------------------------------------------------------------


def test_it_learns_32_pictures_by_heart(tmp_path: Path) -> None:
    """Labels drawn by lot: nothing but memory can get them right."""
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 32, 3)).astype(np.uint8)
    labels = np.random.default_rng(1).integers(0, 3, 32)
    both = np.concatenate([pixels, pixels])
    packs = write_packs(
        tmp_path / "packs", ["train"] * 32 + ["val"] * 32, np.tile(labels, 2), both, [-1] * 32 + [0] * 32
    )
    recipe = {
        "image_size": 32,
        "batch_size": 16,
        "augmentation": "nothing",
        "epochs": 20,
        "dropout": 0.0,
        "patience": 20,
    }
    artifact = run(tmp_path, "scratch", packs, scratch=recipe)
    assert artifact.val_accuracy == 1.0  # the same pictures as trained


def test_training_stops_when_validation_no_longer_improves_and_keeps_the_best(tmp_path: Path) -> None:
    packs = small_packs(tmp_path / "packs", size=16)
    optimizer = {"kind": "sgd", "learning_rate": 1e-12, "momentum": 0.0, "nesterov": False, "weight_decay": 0.0}
    recipe = {"epochs": 40, "patience": 2, "optimizer": optimizer, "schedule": "constant"}
    run(tmp_path, "scratch", packs, scratch=recipe)
    with (tmp_path / "out" / "history.csv").open() as file:
        history = list(csv.DictReader(file))
    best = read_info(tmp_path / "out" / "model.safetensors")["best_epoch"]
    losses = [float(row["val_loss"]) for row in history]
    assert len(history) in (best + 2, 40)
    assert losses[best - 1] == min(losses)


def test_a_loss_that_is_no_number_stops_with_epoch_batch_rate_and_remedy(tmp_path: Path) -> None:
    packs = small_packs(tmp_path / "packs", size=16)
    optimizer = {"kind": "sgd", "learning_rate": 1e30, "momentum": 0.0, "nesterov": False, "weight_decay": 0.0}
    message = r"the loss is (nan|inf) in epoch 1, batch \d of 3, at learning rate 1e\+30: lower optimizer.learning_rate"
    with pytest.raises(TrainingError, match=message):
        run(tmp_path, "scratch", packs, scratch={"optimizer": optimizer, "schedule": "constant"})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("last", [1, 2])
def test_a_killed_run_continues_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: int, capsys: pytest.CaptureFixture[str]
) -> None:
    from pipelines.train import scratch

    packs = small_packs(tmp_path / "packs", size=16)
    recipe = {"epochs": 3, "stem": "small", "image_size": 8}
    run(tmp_path, "scratch", packs, scratch=recipe)
    unbroken = written(tmp_path)
    plain = scratch._train_epoch

    def killed(run: Any, *others: Any) -> Any:
        if run.epoch > last:
            raise KeyboardInterrupt
        return plain(run, *others)

    monkeypatch.setattr(scratch, "_train_epoch", killed)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, "scratch", packs, scratch=recipe)
    assert written(tmp_path) == unbroken  # the old result stands until a new one is whole
    monkeypatch.undo()
    shutil.rmtree(tmp_path / "out")
    run(tmp_path, "scratch", packs, scratch=recipe)
    assert written(tmp_path) == unbroken
    assert f"continues after epoch {last}" in capsys.readouterr().out
    assert list((tmp_path / "cache" / "checkpoints").iterdir()) == []


def test_a_checkpoint_of_another_recipe_is_not_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.train import checkpoints

    packs = small_packs(tmp_path / "packs", size=16)
    monkeypatch.setattr(checkpoints.Checkpoint, "remove", lambda _: None)
    run(tmp_path, "scratch", packs)
    run(tmp_path, "scratch", packs, scratch={"label_smoothing": 0.2})
    assert len(list((tmp_path / "cache" / "checkpoints").iterdir())) == 2


def test_a_damaged_checkpoint_is_a_fresh_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.train import checkpoints

    packs = small_packs(tmp_path / "packs", size=16)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.Checkpoint, "remove", lambda _: None)
        run(tmp_path, "scratch", packs)
    first = written(tmp_path)
    [path] = (tmp_path / "cache" / "checkpoints").rglob("last.pt")
    path.write_bytes(path.read_bytes()[:1000])
    run(tmp_path, "scratch", packs)
    assert written(tmp_path) == first


def test_every_picture_is_in_one_batch_of_an_epoch() -> None:
    keys = picture_keys(np.array([f"{i:x}".ljust(64, "0") for i in range(50, 100)]))
    one, two = (batches(keys, seed=1, epoch=epoch, batch_size=16) for epoch in (1, 2))
    assert sorted(np.concatenate(one).tolist()) == list(range(50))
    assert np.concatenate(one).tolist() != np.concatenate(two).tolist()
    assert [len(part) for part in one] == [13, 13, 12, 12]


@pytest.mark.parametrize(("count", "size"), [(17, 16), (3, 2), (5, 4), (9, 1)])
def test_no_batch_holds_one_picture_alone(count: int, size: int) -> None:
    keys = np.arange(count, dtype=np.uint64)
    found = batches(keys, seed=1, epoch=1, batch_size=size)
    assert min(len(part) for part in found) >= 2
    assert sum(len(part) for part in found) == count


def test_weights_decay_and_norms_and_biases_do_not() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    decayed, free = decay_groups(model, 0.1)
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.1, 0.0)
    assert decayed["params"] == [model[0].weight, model[3].weight]
    assert free["params"] == [model[0].bias, model[1].weight, model[1].bias, model[3].bias]


def test_decay_shrinks_weights_alone() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    params = Sgd(kind="sgd", learning_rate=0.5, momentum=0.0, nesterov=False, weight_decay=0.2)
    optimizer = build_optimizer(params, decay_groups(model, 0.2))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        factor = 0.9 if name == "0.weight" else 1.0
        torch.testing.assert_close(parameter.detach(), before[name] * factor)


def test_each_kind_of_optimizer_is_built_as_named() -> None:
    model = nn.Linear(2, 2)
    sgd = build_optimizer(
        Sgd(kind="sgd", learning_rate=0.1, momentum=0.9, nesterov=True, weight_decay=0.0), decay_groups(model, 0.0)
    )
    adam = build_optimizer(Adam(kind="adam", learning_rate=0.1, weight_decay=0.0), decay_groups(model, 0.0))
    assert isinstance(sgd, torch.optim.SGD)
    assert sgd.defaults["nesterov"] is True
    assert isinstance(adam, torch.optim.Adam)


def test_the_learning_rate_warms_up_then_falls_along_a_cosine() -> None:
    def rate(step: int, schedule: Any = "cosine") -> float:
        return learning_rate_at(step, peak=1.0, schedule=schedule, warmup_steps=4, num_steps=24)

    assert [round(rate(step), 6) for step in range(5)] == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert math.isclose(rate(14), 0.5)
    assert 0.0 < rate(23) < 0.01
    assert rate(23, "constant") == 1.0
    assert learning_rate_at(0, peak=1.0, schedule="cosine", warmup_steps=0, num_steps=10) == 1.0


def test_the_small_stem_keeps_the_resolution() -> None:
    small, standard = (build_resnet18(5, stem=stem, dropout=0.0).eval() for stem in ("small", "standard"))
    images = torch.zeros(1, 3, 32, 32)
    assert small.get_submodule("maxpool")(small.get_submodule("conv1")(images)).shape == (1, 64, 32, 32)
    assert standard.get_submodule("maxpool")(standard.get_submodule("conv1")(images)).shape == (1, 64, 8, 8)
    assert small(images).shape == (1, 5)


def test_dropout_is_before_the_last_layer_and_off_when_predicting() -> None:
    model = build_resnet18(5, stem="small", dropout=0.9).eval()
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(model(images), model(images))
    assert [type(module) for module in model.get_submodule("fc").children()] == [nn.Dropout, nn.Linear]
    assert isinstance(build_resnet18(5, stem="small", dropout=0.0).get_submodule("fc"), nn.Linear)


def test_pictures_are_resized_with_antialiasing() -> None:
    stripes = np.zeros((1, 64, 64, 3), np.uint8)
    stripes[:, :, ::2] = 254
    small = resize(stripes, 8)
    assert small.shape == (1, 8, 8, 3)
    assert abs(int(small.mean()) - 127) <= 2
    assert small.std() < 5
    assert resize(stripes, 64) is stripes


def test_importing_train_does_not_import_torch() -> None:
    import subprocess
    import sys

    code = "import sys, pipelines.train; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout.strip() == b"False"


def test_equal_members_are_equal_bytes() -> None:
    tensors = {"b": torch.ones(2), "a": torch.zeros(3, 2).T}
    one = save_member(tensors, {"x": 1, "y": "琴"})
    two = save_member(dict(reversed(tensors.items())), {"y": "琴", "x": 1})
    assert one == two
    loaded = safetensors.torch.load(one)
    assert loaded["a"].shape == (2, 3)
    assert io.BytesIO(one).read() == two


# features for the leak premium ------------------------------------------------------------------


def test_features_are_those_of_every_packed_picture_in_both_views(tmp_path: Path) -> None:
    packs = small_packs(tmp_path / "packs")
    run(tmp_path, "frozen", packs)
    index = read_index(packs / "index.parquet")
    found = pq.read_table(tmp_path / "out" / "features.parquet").to_pylist()
    assert [row["image_id"] for row in found] == sorted(index.image_id.tolist())
    assert read_classes(tmp_path / "out" / "features.parquet") == ["r", "g", "b"]
    plain = [np.frombuffer(row["plain"], "<f2") for row in found]
    assert {line.shape for line in plain} == {(1280,)}
    assert all(np.isfinite(line).all() and line.any() for line in plain)


def test_of_a_large_set_whole_groups_leave_features(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = [f"group {i // 3}" for i in range(60)]
    assert probe.probe_rows(groups).tolist() == list(range(60))
    monkeypatch.setattr(probe, "MAX_PICTURES", 20)
    rows = probe.probe_rows(groups)
    assert rows.tolist() == sorted(rows)
    assert len(rows) == 18
    assert all(sum(groups[row] == name for row in rows) == 3 for name in {groups[row] for row in rows})
    assert probe.probe_rows(["one"] * 21).tolist() == []

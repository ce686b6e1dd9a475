"""What training does to pictures: the rules that all changes keep."""

from typing import Any

import pytest
import torch
from changing import KEYS, TRIVIAL, change, scene
from torch.utils._python_dispatch import TorchDispatchMode

from pipelines.augmentation.applying import apply
from pipelines.augmentation.sampling import sample_params
from pipelines.params.augment import AugmentPolicy, policy_of

SEVERAL: dict[str, Any] = {
    **{"hflip": 0.5, "vflip": 0.5, "degrees": 30.0, "translate": 0.2, "scale": 0.5, "shear": 10.0},
    **{
        "perspective": 0.3,
        "random_resized_crop": 0.5,
        "random_erasing": 0.5,
        "brightness": 0.5,
        "contrast": 0.5,
        "saturation": 0.5,
    },
    **{"hue": 0.1, "blur": {"probability": 0.5, "sigma": 0.03}, "noise": 9.0, "scribble": 0.7},
    **{
        "jpeg": {"probability": 0.6, "quality": 20},
        "auto_augment": {"kind": "randaugment", "num_ops": 3, "magnitude": 15},
    },
}
STRONG = policy_of(**SEVERAL)


def test_a_policy_of_nothing_gives_the_same_bits() -> None:
    images = torch.rand(4, 3, 16, 16) * 255
    draws = sample_params(policy_of(), seed=1, epoch=1, pictures=KEYS[:4])
    assert torch.equal(apply(images, draws, policy_of()), images)


@pytest.mark.parametrize("name", sorted(AugmentPolicy.model_fields))
def test_each_change_alone_changes_and_its_neutral_draw_gives_the_same_bits(name: str) -> None:
    """Whatever one more policy computes, a picture that draws nothing keeps its bits."""
    images = scene(count=6)
    chosen = policy_of(**{name: 1.0 if name in ("hflip", "vflip", "random_erasing", "scribble") else SEVERAL[name]})
    drawn = apply(images, sample_params(chosen, seed=1, epoch=1, pictures=KEYS[:6]), chosen)
    assert not torch.equal(drawn, images)
    assert torch.equal(change(images, chosen), images)


@pytest.mark.parametrize("name", ["blur", "jpeg"])
def test_probability_zero_gives_the_same_bits_and_one_changes_every_picture(name: str) -> None:
    images = scene(count=8)
    for probability in (0.0, 1.0):
        chosen = policy_of(**{name: {**SEVERAL[name], "probability": probability}})
        found = apply(images, sample_params(chosen, seed=1, epoch=1, pictures=KEYS[:8]), chosen)
        same = [torch.equal(after, before) for after, before in zip(found, images, strict=True)]
        assert same == [probability == 0.0] * 8


@pytest.mark.parametrize("size", [16, 33, 64])
@pytest.mark.parametrize("chosen", [STRONG, TRIVIAL], ids=["strong", "trivial"])
def test_a_batch_of_seven_is_seven_batches_of_one_to_the_bit(size: int, chosen: AugmentPolicy) -> None:
    images = scene(size, size, count=7)
    for epoch in range(3):
        draws = sample_params(chosen, seed=1, epoch=epoch, pictures=KEYS[:7])
        whole = apply(images, draws, chosen)
        alone = [apply(images[i : i + 1], draws.part(i, i + 1), chosen) for i in range(7)]
        assert torch.equal(whole, torch.cat(alone))


def test_how_many_go_through_together_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    images = scene(count=9)
    draws = sample_params(STRONG, seed=1, epoch=1, pictures=KEYS[:9])
    whole = apply(images, draws, STRONG)
    monkeypatch.setattr("pipelines.augmentation.applying.CPU_NUMBERS", 2 * 3 * 48 * 48)
    assert torch.equal(apply(images, draws, STRONG), whole)


def test_the_pictures_given_are_left_as_they_are_and_their_memory_format_is_kept() -> None:
    images = scene(count=5)
    for layout in (torch.contiguous_format, torch.channels_last):
        given = images.clone(memory_format=layout)
        draws = sample_params(STRONG, seed=1, epoch=1, pictures=KEYS[:5])
        found = apply(given, draws, STRONG)
        assert torch.equal(given, images)
        assert found.is_contiguous(memory_format=layout)
        assert torch.equal(found, apply(images, draws, STRONG))


@pytest.mark.parametrize("chosen", [STRONG, TRIVIAL], ids=["strong", "trivial"])
def test_values_stay_between_0_and_255(chosen: AugmentPolicy) -> None:
    images = torch.cat([torch.zeros(30, 3, 16, 16), torch.full((30, 3, 16, 16), 255.0), scene(16, 16, 30)])
    found = apply(images, sample_params(chosen, seed=1, epoch=1, pictures=KEYS[:90]), chosen)
    assert found.isfinite().all()
    assert found.min() >= 0.0
    assert found.max() <= 255.0


@pytest.mark.parametrize("shape", [(0, 3, 16, 16), (2, 3, 1, 1), (2, 3, 8, 8), (3, 3, 20, 37)])
def test_any_shape_comes_back_as_it_was(shape: tuple[int, int, int, int]) -> None:
    images = torch.full(shape, 100.0)
    found = apply(images, sample_params(STRONG, seed=1, epoch=1, pictures=KEYS[: shape[0]]), STRONG)
    assert found.shape == shape
    assert found.isfinite().all()


class _Wait(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes every operation for which the host would wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.waits: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in ("_local_scalar_dense", "nonzero", "masked_select", "unique_dim", "_unique2", "is_nonzero", "equal"):
            self.waits.append(name)
        if name in ("index", "index_put", "index_put_"):
            self.waits += [name for index in args[1] if index is not None and index.dtype == torch.bool]
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("chosen", [STRONG, TRIVIAL], ids=["strong", "trivial"])
def test_the_host_never_waits_for_the_device(chosen: AugmentPolicy) -> None:
    images = scene(count=40)
    draws = sample_params(chosen, seed=1, epoch=1, pictures=KEYS[:40])
    with _Wait() as mode:
        apply(images, draws, chosen)
        assert mode.waits == []
        images[images > 300.0].sum().item()
    assert len(mode.waits) >= 2  # it does see them


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("chosen", [STRONG, TRIVIAL], ids=["strong", "trivial"])
def test_a_gpu_makes_the_same_pictures(chosen: AugmentPolicy) -> None:
    images = scene(count=40)
    draws = sample_params(chosen, seed=1, epoch=1, pictures=KEYS[:40])
    apply(images.cuda(), draws, chosen)  # fills the table of noise, for which the first call waits
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = apply(images.cuda(non_blocking=True), draws, chosen)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    # equalize and posterize turn a last digit into a level
    assert (found.cpu() - apply(images, draws, chosen)).abs().mean() < 0.3

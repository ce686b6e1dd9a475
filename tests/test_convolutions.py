"""Convolutions that learn by other kernels than torch's: they are the same sums, and nothing else is touched."""

import copy
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import nn

from pipelines.train import convolutions
from pipelines.train.convolutions import MAX_POSITIONS, MIN_WEIGHTS, is_small_map, quick_convolutions
from pipelines.train.models import build_network
from pipelines.train.runtime import SPIN_COUNT, limit_thread_spinning

CPU = torch.device("cpu")
BF16 = torch.bfloat16
Step = Callable[[], torch.Tensor]


def layer(channels: int, outputs: int, *, taps: int, bias: bool = False, **how: int) -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(channels, outputs, taps, bias=bias, **how).to(memory_format=torch.channels_last)  # type: ignore[arg-type]


def pictures(*shape: int) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(*shape).to(memory_format=torch.channels_last)


def gradients(conv: nn.Conv2d, images: torch.Tensor, *, quick: bool) -> list[torch.Tensor]:
    """The map, and the gradients of weight, pictures and bias, in float64."""
    conv.zero_grad(set_to_none=True)
    seen = images.clone().requires_grad_()
    with torch.autocast("cpu", BF16):
        if quick:
            with quick_convolutions("bfloat16", CPU):
                found = conv(seen)
        else:
            found = conv(seen)
    torch.manual_seed(2)
    found.backward(torch.randn_like(found))
    results = [found, conv.weight.grad, seen.grad, *([] if conv.bias is None else [conv.bias.grad])]
    assert all(result is not None for result in results)
    return [result.detach().double() for result in results if result is not None]


def exact_gradients(conv: nn.Conv2d, images: torch.Tensor) -> list[torch.Tensor]:
    """The same, computed in float64, for the same gradient of the map."""
    conv = copy.deepcopy(conv).double()
    seen = images.double().requires_grad_()
    found = conv(seen)
    torch.manual_seed(2)
    found.backward(torch.randn_like(found.to(BF16)).double())
    results = [found, conv.weight.grad, seen.grad, *([] if conv.bias is None else [conv.bias.grad])]
    return [result.detach() for result in results if result is not None]


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """How convolutions were computed that torch was not left to."""
    seen: list[str] = []

    def counted(name: str, plain: Callable[..., object]) -> Callable[..., object]:
        def apply(*arguments: object) -> object:
            seen.append(name)
            return plain(*arguments)

        return apply

    for name, kind in (("product", convolutions._MatrixProduct), ("depthwise", convolutions._Depthwise)):
        monkeypatch.setattr(kind, "apply", counted(name, kind.apply))
    return seen


@pytest.mark.parametrize(
    ("conv", "side", "way"),
    [
        (layer(128, 128, taps=3, padding=1), 2, "product"),
        (layer(128, 128, taps=3, padding=1, bias=True), 3, "product"),
        (layer(128, 128, taps=3, padding=1), 1, "product"),
        (layer(128, 192, taps=3, padding=1, stride=2), 4, "product"),
        (layer(128, 192, taps=3, padding=1, stride=2), 5, "product"),
        (layer(256, 512, taps=1, stride=2), 4, "product"),
        (layer(512, 256, taps=1), 2, "product"),
        (layer(128, 64, taps=5, padding=2, stride=3), 7, "product"),
        (layer(128, 128, taps=3), 5, "product"),
        (layer(32, 32, taps=3, padding=1, stride=2, groups=32), 9, "depthwise"),
        (layer(32, 32, taps=3, stride=2, groups=32, bias=True), 9, "depthwise"),
        (layer(32, 32, taps=5, padding=2, groups=32), 8, "depthwise"),
        (layer(48, 48, taps=5, stride=2, groups=48), 13, "depthwise"),
        (layer(32, 32, taps=7, padding=3, groups=32, bias=True), 6, "depthwise"),
        (layer(16, 16, taps=4, padding=1, stride=3, groups=16), 11, "depthwise"),
    ],
)
def test_it_is_the_convolution(conv: nn.Conv2d, side: int, way: str, ways: list[str]) -> None:
    """Beside the same in float64 it is no further off than torch's own in bfloat16; 9 pictures."""
    images = pictures(9, conv.in_channels, side, side)
    wanted = exact_gradients(conv, images)
    theirs = gradients(conv, images, quick=False)
    assert not ways
    ours = gradients(conv, images, quick=True)
    assert ways == [way]
    for mine, its, true in zip(ours, theirs, wanted, strict=True):
        scale = true.abs().max()
        assert mine.shape == true.shape
        assert (mine - true).abs().max() / scale < max(0.01, 1.5 * float((its - true).abs().max() / scale))


@pytest.mark.parametrize(
    "conv", [layer(128, 128, taps=3, padding=1, stride=2), layer(32, 32, taps=5, padding=2, stride=2, groups=32)]
)
def test_maps_and_gradients_keep_their_channels_last(conv: nn.Conv2d) -> None:
    images = pictures(4, conv.in_channels, 5, 5).requires_grad_()
    with torch.autocast("cpu", BF16), quick_convolutions("bfloat16", CPU):
        found = conv(images)
    found.float().sum().backward()
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert images.grad is not None
    assert images.grad.is_contiguous(memory_format=torch.channels_last)


def test_without_rounding_the_sums_are_equal() -> None:
    weight = torch.randn(64, 32, 3, 3, dtype=torch.float64, requires_grad=True)
    images = torch.randn(2, 32, 4, 6, dtype=torch.float64, requires_grad=True)
    theirs = F.conv2d(images, weight, None, (2, 3), (1, 1))
    ours = convolutions._MatrixProduct.apply(images, weight, (2, 3), (1, 1))
    torch.testing.assert_close(ours, theirs)
    gradient = torch.randn_like(theirs)
    wanted = torch.autograd.grad(theirs, (images, weight), gradient)
    found = torch.autograd.grad(ours, (images, weight), gradient)
    torch.testing.assert_close(found[1], wanted[1])
    # these are added in float32, whatever comes in
    torch.testing.assert_close(found[0], wanted[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("conv", "side"),
    [
        (layer(128, 128, taps=3, padding=1), 4),  # a larger map
        (layer(64, 64, taps=3, padding=1), 2),  # a small filter
        (layer(512, 512, taps=3, padding=1, groups=2), 2),
        (layer(32, 32, taps=3, padding=1, groups=32), 8),  # oneDNN is good at these
        (layer(32, 64, taps=3, padding=1, stride=2, groups=32), 8),  # two filters a channel
        (layer(32, 32, taps=1, stride=2, groups=32), 8),
        (layer(128, 128, taps=3, padding=2, dilation=2), 2),
        (nn.Conv2d(128, 128, 3, padding="same"), 2),
    ],
)
def test_other_convolutions_are_left_as_they_are(conv: nn.Conv2d, side: int, ways: list[str]) -> None:
    images = pictures(4, conv.in_channels, side, side)
    plain = gradients(conv, images, quick=False)
    within = gradients(conv, images, quick=True)
    assert not ways
    assert all(torch.equal(a, b) for a, b in zip(plain, within, strict=True))


def test_only_bfloat16_on_a_cpu_gains() -> None:
    conv, images = layer(128, 128, taps=3, padding=1), pictures(4, 128, 2, 2)
    with quick_convolutions("float32", CPU):
        assert torch.equal(conv(images), conv(images))
    assert type(quick_convolutions("float32", CPU)) is type(quick_convolutions("bfloat16", torch.device("cuda")))
    assert type(quick_convolutions("bfloat16", CPU)) is not type(quick_convolutions("float32", CPU))


@pytest.mark.parametrize(
    "conv", [layer(256, 256, taps=3, padding=1), layer(64, 64, taps=5, padding=2, stride=2, groups=64)]
)
def test_two_times_give_the_same_bits(conv: nn.Conv2d) -> None:
    images = pictures(16, conv.in_channels, 3, 3)
    first, second = (gradients(conv, images, quick=True) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(
    "conv", [layer(128, 128, taps=3, padding=1), layer(32, 32, taps=5, padding=2, stride=2, groups=32)]
)
def test_frozen_weights_and_first_pictures_have_no_gradient(conv: nn.Conv2d) -> None:
    images = pictures(4, conv.in_channels, 2, 2)
    conv.requires_grad_(False)
    seen = images.clone().requires_grad_()
    with torch.autocast("cpu", BF16), quick_convolutions("bfloat16", CPU):
        conv(seen).float().sum().backward()
    assert conv.weight.grad is None
    assert seen.grad is not None
    conv.requires_grad_(True)
    with torch.autocast("cpu", BF16), quick_convolutions("bfloat16", CPU):
        conv(images).float().sum().backward()
    assert conv.weight.grad is not None
    assert images.grad is None


@pytest.mark.parametrize(
    ("model", "side", "expected"),
    [
        ("resnet18", 64, {"product": 5}),
        ("tf_efficientnet_lite0", 160, {"depthwise": 11}),
        ("torchvision/mobilenet_v2", 160, {"depthwise": 4}),
        ("vit_base_patch16_224", 224, {}),
    ],
)
def test_networks_have_so_many_of_them(model: Any, side: int, expected: dict[str, int], ways: list[str]) -> None:
    network = build_network(model, num_classes=10, image_size=side, stem="standard", in_chans=3, dropout=0.0)
    network.to(memory_format=torch.channels_last).train()
    with torch.autocast("cpu", BF16), quick_convolutions("bfloat16", CPU):
        network(pictures(2, 3, side, side))
    assert Counter(ways) == expected


def test_a_filter_is_a_product_from_a_size_and_to_a_map_on() -> None:
    large, small = torch.empty(1, MIN_WEIGHTS, 1, 1), torch.empty(1, MIN_WEIGHTS - 1, 1, 1)
    how: Any = {"stride": (1, 1), "padding": (0, 0), "groups": 1}

    def applies(weight: torch.Tensor, side: int) -> bool:
        return is_small_map(torch.empty(1, weight.shape[1], 1, side), weight, **how)

    assert [applies(large, MAX_POSITIONS), applies(large, MAX_POSITIONS + 1), applies(small, 1)] == [True, False, False]


# how threads wait ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "spins"),
    [({}, str(SPIN_COUNT)), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)],
)
def test_threads_look_for_work_a_moment_unless_the_user_says_otherwise(
    given: dict[str, str], spins: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    limit_thread_spinning()
    found = os.environ.get("GOMP_SPINCOUNT")
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    assert found == spins


def test_the_way_of_waiting_is_set_before_torch_is_imported() -> None:
    code = "import sys, pipelines.train.runtime, pipelines.train.stage; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)

"""Convolutions to maps of few pixels: as products they are the same sums, and nothing else is touched."""

import copy
import os
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import nn

from pipelines.train import small_maps as module
from pipelines.train.small_maps import MAX_POSITIONS, MIN_WEIGHTS, small_maps
from pipelines.train.threads import SPINS, wait_briefly

CPU = torch.device("cpu")
BF16 = torch.bfloat16
Step = Callable[[], torch.Tensor]


def layer(channels: int, outputs: int, *, taps: int, bias: bool = False, **how: int) -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(channels, outputs, taps, bias=bias, **how).to(memory_format=torch.channels_last)  # type: ignore[arg-type]


def pictures(*shape: int) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(*shape).to(memory_format=torch.channels_last)


def gradients(conv: nn.Conv2d, images: torch.Tensor, *, products: bool) -> list[torch.Tensor]:
    """The map, and the gradients of weight, pictures and bias, in float64."""
    conv.zero_grad(set_to_none=True)
    seen = images.clone().requires_grad_()
    with torch.autocast("cpu", BF16):
        if products:
            with small_maps("bfloat16", CPU):
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
def products(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """The shapes of filters that were computed as products."""
    seen: list[torch.Size] = []
    plain = module._Product.apply

    def counted(images: torch.Tensor, weight: torch.Tensor, *rest: object) -> object:
        seen.append(weight.shape)
        return plain(images, weight, *rest)

    monkeypatch.setattr(module._Product, "apply", counted)
    return seen


@pytest.mark.parametrize(
    ("conv", "side"),
    [
        (layer(128, 128, taps=3, padding=1), 2),
        (layer(128, 128, taps=3, padding=1, bias=True), 3),
        (layer(128, 128, taps=3, padding=1), 1),
        (layer(128, 192, taps=3, padding=1, stride=2), 4),
        (layer(128, 192, taps=3, padding=1, stride=2), 5),
        (layer(256, 512, taps=1, stride=2), 4),
        (layer(512, 256, taps=1), 2),
        (layer(128, 64, taps=5, padding=2, stride=3), 7),
        (layer(128, 128, taps=3), 5),
    ],
)
def test_a_product_is_the_convolution(conv: nn.Conv2d, side: int, products: list[torch.Size]) -> None:
    """Beside the same in float64 it is no further off than torch's own in bfloat16."""
    images = pictures(8, conv.in_channels, side, side)
    wanted = exact_gradients(conv, images)
    theirs = gradients(conv, images, products=False)
    assert not products
    ours = gradients(conv, images, products=True)
    assert products == [conv.weight.shape]
    for mine, its, true in zip(ours, theirs, wanted, strict=True):
        scale = true.abs().max()
        assert mine.shape == true.shape
        assert (mine - true).abs().max() / scale < max(0.01, 1.5 * float((its - true).abs().max() / scale))


def test_without_rounding_the_sums_are_equal() -> None:
    weight = torch.randn(64, 32, 3, 3, dtype=torch.float64, requires_grad=True)
    images = torch.randn(2, 32, 4, 6, dtype=torch.float64, requires_grad=True)
    theirs = F.conv2d(images, weight, None, (2, 3), (1, 1))
    ours = module._Product.apply(images, weight, (2, 3), (1, 1))
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
        (layer(128, 128, taps=3, padding=2, dilation=2), 2),
        (nn.Conv2d(128, 128, 3, padding="same"), 2),
    ],
)
def test_other_convolutions_are_left_as_they_are(conv: nn.Conv2d, side: int, products: list[torch.Size]) -> None:
    images = pictures(4, conv.in_channels, side, side)
    plain = gradients(conv, images, products=False)
    within = gradients(conv, images, products=True)
    assert not products
    assert all(torch.equal(a, b) for a, b in zip(plain, within, strict=True))


def test_only_bfloat16_on_a_cpu_gains() -> None:
    conv, images = layer(128, 128, taps=3, padding=1), pictures(4, 128, 2, 2)
    with small_maps("float32", CPU):
        assert torch.equal(conv(images), conv(images))
    assert type(small_maps("float32", CPU)) is type(small_maps("bfloat16", torch.device("cuda")))
    assert type(small_maps("bfloat16", CPU)) is not type(small_maps("float32", CPU))


def test_two_times_give_the_same_bits() -> None:
    conv, images = layer(256, 256, taps=3, padding=1), pictures(16, 256, 2, 2)
    first, second = (gradients(conv, images, products=True) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_frozen_weights_and_first_pictures_have_no_gradient() -> None:
    conv, images = layer(128, 128, taps=3, padding=1), pictures(4, 128, 2, 2)
    conv.requires_grad_(False)
    seen = images.clone().requires_grad_()
    with torch.autocast("cpu", BF16), small_maps("bfloat16", CPU):
        conv(seen).float().sum().backward()
    assert conv.weight.grad is None
    assert seen.grad is not None
    conv.requires_grad_(True)
    with torch.autocast("cpu", BF16), small_maps("bfloat16", CPU):
        conv(images).float().sum().backward()
    assert conv.weight.grad is not None
    assert conv.weight.grad.is_contiguous(memory_format=torch.channels_last)


def test_resnet18_at_64_px_has_five_such_layers(products: list[torch.Size]) -> None:
    from pipelines.train.models import build_network

    network = build_network("resnet18", num_classes=10, image_size=64, stem="standard", colour="rgb", dropout=0.0)
    network.to(memory_format=torch.channels_last).train()
    with torch.autocast("cpu", BF16), small_maps("bfloat16", CPU):
        network(pictures(4, 3, 64, 64))
    assert len(products) == 5
    assert min(shape.numel() for shape in products) >= MIN_WEIGHTS
    assert MAX_POSITIONS < 16


# how threads wait ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "spins"),
    [({}, str(SPINS)), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)],
)
def test_threads_look_for_work_a_moment_unless_the_user_says_otherwise(
    given: dict[str, str], spins: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    wait_briefly()
    found = os.environ.get("GOMP_SPINCOUNT")
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    assert found == spins


def test_the_way_of_waiting_is_set_before_torch_is_imported() -> None:
    code = "import sys, pipelines.train.threads, pipelines.train.stage; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)

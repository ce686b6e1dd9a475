"""Depthwise convolutions in bfloat16 on a CPU: gradients by kernels that are not oneDNN's slow ones.

Forward, back, and on squares of 3 pixels, oneDNN is twice as fast in bfloat16 as in float32. Two gradients it leaves to
a reference loop: that of the pictures where the stride is 2 (104 ms for 32 pictures of 96 channels at 81x81, in float32
6 ms), and that of filters of 5 pixels and more (28 ms for 672 channels at 10x10, in float32 8 ms). So the first is
computed in float32, and the second 3x3 taps at a time (4 ms). MobileNets and EfficientNets are made of these.
"""

from itertools import product

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)

from pipelines.train.small_maps import Context, Pair

TAPS = 3
"""of filters whose gradient has a good kernel"""
AT_ONCE = 4
"""pictures that are in float32 at a time"""


def applies(weight: torch.Tensor, *, stride: Pair, groups: int) -> bool:
    """Whether gradients of such a convolution are slow; each channel has one filter, (C, 1, taps, taps)."""
    if groups == 1 or groups != len(weight) or weight.shape[1] != 1 or min(weight.shape[2:]) < TAPS:
        return False
    return max(stride) > 1 or max(weight.shape[2:]) > TAPS


def convolve(images: torch.Tensor, weight: torch.Tensor, stride: Pair, padding: Pair) -> torch.Tensor:
    """(B, C, h, w) → (B, C, H, W), channels last; weight (C, 1, taps, taps)."""
    found: torch.Tensor = _Depthwise.apply(images, weight, stride, padding)
    return found


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Context, images: torch.Tensor, weight: torch.Tensor, stride: Pair, padding: Pair) -> torch.Tensor:
        ctx.save_for_backward(images, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(images, weight, None, stride, padding, 1, len(weight))

    @staticmethod
    def backward(ctx: Context, gradient: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None, None]:
        images, weight = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        of_images = of_weight = None
        if ctx.needs_input_grad[0]:
            of_images = _of_images(gradient, images, weight, ctx.stride, ctx.padding)
        if ctx.needs_input_grad[1]:
            of_weight = _of_weight(gradient, images, weight, ctx.stride, ctx.padding)
        return of_images, of_weight, None, None


def _of_images(
    gradient: torch.Tensor, images: torch.Tensor, weight: torch.Tensor, stride: Pair, padding: Pair
) -> torch.Tensor:
    """Like `images`."""
    if max(stride) == 1:
        return _gradient(gradient, _shaped(images, images.dtype), weight, stride, padding, wanted=0)
    exact = weight.float()
    found = torch.empty_like(images)
    for start in range(0, len(images), AT_ONCE):
        some = slice(start, start + AT_ONCE)
        like = _shaped(images[some], torch.float32)
        found[some] = _gradient(gradient[some].float(), like, exact, stride, padding, wanted=0)
    return found


def _shaped(images: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Where only shape and layout of `images` are looked at."""
    return torch.empty(images.shape, dtype=dtype, memory_format=torch.channels_last)


def _of_weight(
    gradient: torch.Tensor, images: torch.Tensor, weight: torch.Tensor, stride: Pair, padding: Pair
) -> torch.Tensor:
    """Like `weight`; TAPS x TAPS of its taps at a time, each from the part of the pictures that they see."""
    rows, columns = weight.shape[2:]
    if max(rows, columns) <= TAPS:
        return _gradient(gradient, images, weight, stride, padding, wanted=1)
    found = torch.empty_like(weight)
    taps = weight[:, :, :TAPS, :TAPS].contiguous(memory_format=torch.channels_last)
    padded = F.pad(images.permute(0, 2, 3, 1), (0, 0, padding[1], padding[1], padding[0], padding[0]))
    height, width = ((size - 1) * step + TAPS for size, step in zip(gradient.shape[2:], stride, strict=True))
    for top, left in product(_starts(rows), _starts(columns)):
        part = padded[:, top : top + height, left : left + width].contiguous().permute(0, 3, 1, 2)
        some = _gradient(gradient, part, taps, stride, (0, 0), wanted=1)
        found[:, :, top : top + TAPS, left : left + TAPS] = some
    return found


def _starts(taps: int) -> list[int]:
    """Of windows of TAPS that cover `taps`."""
    return sorted({*range(0, taps - TAPS + 1, TAPS), taps - TAPS})


def _gradient(
    gradient: torch.Tensor, images: torch.Tensor, weight: torch.Tensor, stride: Pair, padding: Pair, *, wanted: int
) -> torch.Tensor:
    """Of the pictures (`wanted` 0), or of the filters (1)."""
    mask = [wanted == 0, wanted == 1, False]
    found: torch.Tensor = torch.ops.aten.convolution_backward(
        gradient, images, weight, None, stride, padding, (1, 1), False, (0, 0), len(weight), mask
    )[wanted]
    return found

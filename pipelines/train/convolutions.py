"""Faster convolutions for training in bfloat16 on a CPU. Optional: without this module training only is slower.

torch computes convolutions on a CPU by oneDNN. In bfloat16 oneDNN is about twice as fast as in float32, but it computes
three gradients by a slow reference loop or a poor kernel. `quick_convolutions` replaces torch.nn.functional.conv2d for
these, by the same sums in another order, which makes the default fine-tuning 1.5 to 2 times faster:

- Dense filters with at least MIN_WEIGHTS weights on maps of at most MAX_POSITIONS pixels become matrix products
  (im2col). 512 to 512 channels, 3x3, batch 64, forward and backward: 16.5 ms on 2x2 maps and 22.7 ms on 3x3 by oneDNN,
  7.5 and 15.1 ms as products. Larger maps, smaller filters (64 to 64 channels take 1.4 times as long) and float32 gain
  nothing. resnet18 at 64 px has five such layers.
- Depthwise filters with a stride: the gradient of the input is computed in float32. 32 images of 96 channels, 81x81,
  stride 2: 104 ms by oneDNN in bfloat16, 6 ms in float32.
- Depthwise filters of 5x5 and more: the gradient of the weights is computed for 3x3 windows of the filter at a time,
  for which oneDNN has a good kernel. 672 channels, 10x10, 5x5: 28 ms by oneDNN, 4 ms in windows. MobileNets and
  EfficientNets consist of both.

Times: two threads of an AMD EPYC 9005. The only caller is `loop.forward_loss`: to remove this module, delete its use
there and this file. torch.compile does not trace it.
"""

from contextlib import AbstractContextManager, nullcontext
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch.autograd.function import FunctionCtx
from torch.overrides import TorchFunctionMode

from pipelines.train.device import Arithmetic

MAX_POSITIONS = 9
MIN_WEIGHTS = 1 << 17
WINDOW = 3
"""side of filters whose gradient oneDNN computes fast"""
FLOAT32_IMAGES = 4
"""images converted to float32 at a time"""

Pair = tuple[int, int]
Gradients = tuple[torch.Tensor | None, torch.Tensor | None, None, None]


def quick_convolutions(precision: Arithmetic, device: torch.device) -> AbstractContextManager[object]:
    """Return a context that replaces slow convolutions on a CPU in bfloat16; elsewhere it does nothing.

    Enter it inside the autocast context.
    """
    if device.type != "cpu" or precision != "bfloat16":
        return nullcontext()
    return _QuickConvolutions()


class _QuickConvolutions(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return (_conv2d if func is F.conv2d else func)(*args, **(kwargs or {}))


def _conv2d(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> torch.Tensor:
    """torch.nn.functional.conv2d, with its arguments."""
    function: type[_MatrixProduct | _Depthwise] | None = None
    if input.ndim == 4 and not isinstance(padding, str) and _pair(dilation) == (1, 1):
        stride, padding = _pair(stride), _pair(padding)
        if is_small_map(input, weight, stride=stride, padding=padding, groups=groups):
            function = _MatrixProduct
        elif is_slow_depthwise(weight, stride=stride, groups=groups):
            function = _Depthwise
    if function is None:
        return F.conv2d(input, weight, bias, stride, padding, dilation, groups)
    found: torch.Tensor = function.apply(input.to(torch.bfloat16), weight.to(torch.bfloat16), stride, padding)
    return found if bias is None else found + bias.to(torch.bfloat16)[:, None, None]


def _pair(value: int | tuple[int, ...]) -> Pair:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


class _Context(FunctionCtx):
    """What a forward pass saves."""

    saved_tensors: tuple[torch.Tensor, torch.Tensor]
    needs_input_grad: tuple[bool, ...]
    stride: Pair
    padding: Pair


# dense filters on small maps ----------------------------------------------------------------


def is_small_map(images: torch.Tensor, weight: torch.Tensor, *, stride: Pair, padding: Pair, groups: int) -> bool:
    """Whether (B, C, h, w) convolved with (O, C, rows, columns) is faster as a matrix product."""
    if groups != 1 or weight.numel() < MIN_WEIGHTS:
        return False
    height, width = _map_size(images, weight, stride, padding)
    return height * width <= MAX_POSITIONS


def _map_size(images: torch.Tensor, weight: torch.Tensor, stride: Pair, padding: Pair) -> Pair:
    height, width = (
        (size + 2 * border - taps) // step + 1
        for size, taps, step, border in zip(images.shape[2:], weight.shape[2:], stride, padding, strict=True)
    )
    return height, width


class _MatrixProduct(torch.autograd.Function):
    """(B, C, h, w), (O, C, rows, columns) → (B, O, H, W), channels last."""

    @staticmethod
    def forward(ctx: _Context, images: torch.Tensor, weight: torch.Tensor, stride: Pair, padding: Pair) -> torch.Tensor:
        ctx.save_for_backward(images, weight)
        ctx.stride, ctx.padding = stride, padding
        height, width = _map_size(images, weight, stride, padding)
        columns = _im2col(images, (weight.shape[2], weight.shape[3]), stride, padding)
        result = columns @ _matrix(weight).t()
        return result.view(len(images), height, width, len(weight)).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: _Context, gradient: torch.Tensor) -> Gradients:
        images, weight = ctx.saved_tensors
        outputs, channels, rows, columns = weight.shape
        flat = gradient.permute(0, 2, 3, 1).reshape(-1, outputs)
        of_images = of_weight = None
        if ctx.needs_input_grad[1]:
            # computed again, because it is nine times as large as the images
            seen = _im2col(images, (rows, columns), ctx.stride, ctx.padding)
            of_weight = (flat.t() @ seen).view(outputs, rows, columns, channels).permute(0, 3, 1, 2)
        if ctx.needs_input_grad[0]:
            of_seen = (flat @ _matrix(weight)).view(len(images), *gradient.shape[2:], rows, columns, channels)
            of_images = _col2im(of_seen, images, ctx.stride, ctx.padding)
        return of_images, of_weight, None, None


def _matrix(weight: torch.Tensor) -> torch.Tensor:
    """(O, rows * columns * C); a view of channels_last weights."""
    return weight.permute(0, 2, 3, 1).reshape(len(weight), -1)


def _pad(images: torch.Tensor, padding: Pair) -> torch.Tensor:
    """(B, C, h, w) to (B, h + 2 * top, w + 2 * left, C)."""
    return F.pad(images.permute(0, 2, 3, 1), (0, 0, padding[1], padding[1], padding[0], padding[0]))


def _im2col(images: torch.Tensor, taps: Pair, stride: Pair, padding: Pair) -> torch.Tensor:
    """(B * H * W, rows * columns * C): the window of each position of the map, channels last."""
    windows = _pad(images, padding).unfold(1, taps[0], stride[0]).unfold(2, taps[1], stride[1])
    return windows.permute(0, 1, 2, 4, 5, 3).reshape(-1, taps[0] * taps[1] * images.shape[1])


def _col2im(windows: torch.Tensor, images: torch.Tensor, stride: Pair, padding: Pair) -> torch.Tensor:
    """Add (B, H, W, rows, columns, C) windows where they overlap, in float32; shape and dtype of `images`."""
    count, height, width, rows, columns, channels = windows.shape
    top, left = padding
    whole = torch.zeros(count, images.shape[2] + 2 * top, images.shape[3] + 2 * left, channels)
    for row, column in product(range(rows), range(columns)):
        down = slice(row, row + stride[0] * (height - 1) + 1, stride[0])
        across = slice(column, column + stride[1] * (width - 1) + 1, stride[1])
        whole[:, down, across] += windows[:, :, :, row, column]
    inner = whole[:, top : top + images.shape[2], left : left + images.shape[3]]
    return inner.to(images.dtype).permute(0, 3, 1, 2)


# depthwise filters --------------------------------------------------------------------------


def is_slow_depthwise(weight: torch.Tensor, *, stride: Pair, groups: int) -> bool:
    """Whether (C, 1, rows, columns) is a depthwise filter with a slow gradient."""
    if groups == 1 or groups != len(weight) or weight.shape[1] != 1 or min(weight.shape[2:]) < WINDOW:
        return False
    return max(stride) > 1 or max(weight.shape[2:]) > WINDOW


class _Depthwise(torch.autograd.Function):
    """(B, C, h, w), (C, 1, rows, columns) → (B, C, H, W), channels last."""

    @staticmethod
    def forward(ctx: _Context, images: torch.Tensor, weight: torch.Tensor, stride: Pair, padding: Pair) -> torch.Tensor:
        ctx.save_for_backward(images, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(images, weight, None, stride, padding, 1, len(weight))

    @staticmethod
    def backward(ctx: _Context, gradient: torch.Tensor) -> Gradients:
        images, weight = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        of_images = of_weight = None
        if ctx.needs_input_grad[0]:
            of_images = _gradient_of_images(gradient, images, weight, ctx.stride, ctx.padding)
        if ctx.needs_input_grad[1]:
            of_weight = _gradient_of_weight(gradient, images, weight, ctx.stride, ctx.padding)
        return of_images, of_weight, None, None


def _gradient_of_images(
    gradient: torch.Tensor, images: torch.Tensor, weight: torch.Tensor, stride: Pair, padding: Pair
) -> torch.Tensor:
    """Shape of `images`; in float32 where there is a stride."""
    if max(stride) == 1:
        return _gradient(gradient, _like(images, images.dtype), weight, stride, padding, wanted=0)
    exact = weight.float()
    found = torch.empty_like(images)
    for start in range(0, len(images), FLOAT32_IMAGES):
        some = slice(start, start + FLOAT32_IMAGES)
        like = _like(images[some], torch.float32)
        found[some] = _gradient(gradient[some].float(), like, exact, stride, padding, wanted=0)
    return found


def _like(images: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """An empty tensor of their shape; the kernel reads shape and layout alone."""
    return torch.empty(images.shape, dtype=dtype, memory_format=torch.channels_last)


def _gradient_of_weight(
    gradient: torch.Tensor, images: torch.Tensor, weight: torch.Tensor, stride: Pair, padding: Pair
) -> torch.Tensor:
    """Shape of `weight`; one WINDOW x WINDOW part at a time, from the part of the images that it is applied to."""
    rows, columns = weight.shape[2:]
    if max(rows, columns) <= WINDOW:
        return _gradient(gradient, images, weight, stride, padding, wanted=1)
    found = torch.empty_like(weight)
    window = weight[:, :, :WINDOW, :WINDOW].contiguous(memory_format=torch.channels_last)
    padded = _pad(images, padding)
    height, width = ((size - 1) * step + WINDOW for size, step in zip(gradient.shape[2:], stride, strict=True))
    for top, left in product(_window_starts(rows), _window_starts(columns)):
        part = padded[:, top : top + height, left : left + width].contiguous().permute(0, 3, 1, 2)
        of_window = _gradient(gradient, part, window, stride, (0, 0), wanted=1)
        found[:, :, top : top + WINDOW, left : left + WINDOW] = of_window
    return found


def _window_starts(taps: int) -> list[int]:
    """First taps of windows that together cover `taps`."""
    return sorted({*range(0, taps - WINDOW + 1, WINDOW), taps - WINDOW})


def _gradient(
    gradient: torch.Tensor, images: torch.Tensor, weight: torch.Tensor, stride: Pair, padding: Pair, *, wanted: int
) -> torch.Tensor:
    """The gradient of the images (`wanted` 0) or of the weights (1), by oneDNN."""
    mask = [wanted == 0, wanted == 1, False]
    found: torch.Tensor = torch.ops.aten.convolution_backward(
        gradient, images, weight, None, stride, padding, (1, 1), False, (0, 0), len(weight), mask
    )[wanted]
    return found

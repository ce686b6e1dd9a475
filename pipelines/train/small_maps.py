"""Convolutions whose maps are a few pixels, as matrix products: how the last stages of a network learn from small
pictures.

On a CPU oneDNN, which torch calls, is slow at the gradient of a large filter over few positions: in bfloat16 512 to 512
channels, 3x3, batch 64, forward and back, takes 16.5 ms on maps of 2x2 and 22.7 ms on 3x3; as products 7.5 and 15.1 ms
(2 threads, AMD EPYC 9005). On larger maps, of fewer channels and in float32 there is no gain. resnet18 at 64 px has
five such layers.
"""

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch.autograd.function import FunctionCtx

MAX_POSITIONS = 9
"""of a map that is computed as a product"""
MIN_WEIGHTS = 1 << 17
"""of a filter that is: at 64 to 64 channels, 3x3, products take 1.4 times as long"""

Pair = tuple[int, int]


class Context(FunctionCtx):
    """What a convolution keeps for its gradients."""

    saved_tensors: tuple[torch.Tensor, torch.Tensor]
    needs_input_grad: tuple[bool, ...]
    stride: Pair
    padding: Pair


def applies(images: torch.Tensor, weight: torch.Tensor, *, stride: Pair, padding: Pair, groups: int) -> bool:
    """Whether such a convolution, (B, C, h, w) by (O, C, taps, taps), is faster as a product."""
    if groups != 1 or weight.numel() < MIN_WEIGHTS:
        return False
    height, width = _map_size(images, weight, stride, padding)
    return height * width <= MAX_POSITIONS


def convolve(images: torch.Tensor, weight: torch.Tensor, stride: Pair, padding: Pair) -> torch.Tensor:
    """(B, C, h, w) → (B, O, H, W), channels last."""
    found: torch.Tensor = _Product.apply(images, weight, stride, padding)
    return found


def _map_size(images: torch.Tensor, weight: torch.Tensor, stride: Pair, padding: Pair) -> Pair:
    height, width = (
        (size + 2 * border - taps) // step + 1
        for size, taps, step, border in zip(images.shape[2:], weight.shape[2:], stride, padding, strict=True)
    )
    return height, width


def _columns(images: torch.Tensor, taps: Pair, stride: Pair, padding: Pair) -> torch.Tensor:
    """(B * H * W, taps * C): what each position of the map sees, channels last."""
    padded = F.pad(images.permute(0, 2, 3, 1), (0, 0, padding[1], padding[1], padding[0], padding[0]))
    windows = padded.unfold(1, taps[0], stride[0]).unfold(2, taps[1], stride[1])  # (B, H, W, C, taps, taps)
    return windows.permute(0, 1, 2, 4, 5, 3).reshape(-1, taps[0] * taps[1] * images.shape[1])


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Context, images: torch.Tensor, weight: torch.Tensor, stride: Pair, padding: Pair) -> torch.Tensor:
        """(B, O, H, W), channels last.

        Args:
            images: (B, C, h, w).
            weight: (O, C, taps, taps).
        """
        ctx.save_for_backward(images, weight)
        ctx.stride, ctx.padding = stride, padding
        height, width = _map_size(images, weight, stride, padding)
        seen = _columns(images, (weight.shape[2], weight.shape[3]), stride, padding)
        product = seen @ _matrix(weight).t()
        return product.view(len(images), height, width, len(weight)).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Context, gradient: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None, None]:
        images, weight = ctx.saved_tensors
        outputs, channels, rows, columns = weight.shape
        flat = gradient.permute(0, 2, 3, 1).reshape(-1, outputs)
        of_images = of_weight = None
        if ctx.needs_input_grad[1]:
            # seen again, not kept: nine times the pictures
            seen = _columns(images, (rows, columns), ctx.stride, ctx.padding)
            of_weight = (flat.t() @ seen).view(outputs, rows, columns, channels).permute(0, 3, 1, 2)
        if ctx.needs_input_grad[0]:
            of_seen = (flat @ _matrix(weight)).view(len(images), *gradient.shape[2:], rows, columns, channels)
            of_images = _scatter(of_seen, images, ctx.stride, ctx.padding)
        return of_images, of_weight, None, None


def _matrix(weight: torch.Tensor) -> torch.Tensor:
    """(O, taps * C); of weights that are channels last this is a view."""
    return weight.permute(0, 2, 3, 1).reshape(len(weight), -1)


def _scatter(seen: torch.Tensor, images: torch.Tensor, stride: Pair, padding: Pair) -> torch.Tensor:
    """Like `images`: the sums of `seen`, (B, H, W, taps, taps, C), where its windows overlap; added in float32."""
    count, height, width, rows, columns, channels = seen.shape
    top, left = padding
    whole = torch.zeros(count, images.shape[2] + 2 * top, images.shape[3] + 2 * left, channels)
    for row in range(rows):
        for column in range(columns):
            down = slice(row, row + stride[0] * (height - 1) + 1, stride[0])
            across = slice(column, column + stride[1] * (width - 1) + 1, stride[1])
            whole[:, down, across] += seen[:, :, :, row, column]
    inner = whole[:, top : top + images.shape[2], left : left + images.shape[3]]
    return inner.to(images.dtype).permute(0, 3, 1, 2)

"""Convolutions that learn in bfloat16 on a CPU, by other sums where oneDNN, which torch calls, has no good kernel."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch.overrides import TorchFunctionMode

from pipelines.train import depthwise, small_maps
from pipelines.train.precision import Arithmetic


def quick_convolutions(precision: Arithmetic, device: torch.device) -> AbstractContextManager[object]:
    """Within it, on a CPU in bfloat16, large filters on maps of few pixels are matrix products (`small_maps`), and
    depthwise filters learn by quicker kernels (`depthwise`).

    They are the same sums in another order. To be entered inside of the autocast; not for what torch.compile traces.
    """
    if device.type != "cpu" or precision != "bfloat16":
        return nullcontext()
    return _Quick()


class _Quick(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.conv2d:
            return _convolve(*args, **kwargs)
        return func(*args, **kwargs)


def _convolve(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> torch.Tensor:
    """conv2d, by its own arguments."""
    way = None
    if input.ndim == 4 and not isinstance(padding, str) and _pair(dilation) == (1, 1):
        stride, padding = _pair(stride), _pair(padding)
        if small_maps.applies(input, weight, stride=stride, padding=padding, groups=groups):
            way = small_maps.convolve
        elif depthwise.applies(weight, stride=stride, groups=groups):
            way = depthwise.convolve
    if way is None:
        return F.conv2d(input, weight, bias, stride, padding, dilation, groups)
    half = torch.bfloat16
    found = way(input.to(half), weight.to(half), stride, padding)
    return found if bias is None else found + bias.to(half)[:, None, None]


def _pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])

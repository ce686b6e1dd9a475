"""The arithmetic of a training: what `auto` means on a device, and what scales gradients in half precision."""

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

from pipelines.params.recipes import Precision

Arithmetic = Literal["float32", "bfloat16", "float16"]


def choose_precision(wanted: Precision, *, device: torch.device) -> Arithmetic:
    """The arithmetic of `auto`, or the one named.

    On a GPU bfloat16 where its units have it, else float16; on a CPU bfloat16 where it has such instructions. Pictures
    a second in bfloat16 beside float32, forward and back at 160 px, batch 16, two threads of an AMD EPYC 9005 with
    `quick_convolutions`: convnext_tiny 2.5, mobilenet_v2 2.0, resnet50 1.8, densenet121 1.7, resnext50 1.6,
    tf_efficientnet_lite0, squeezenet1_1 1.5, mnasnet1_0, regnet_x 1.4, mobilenet_v3_large, efficientnet_v2_s 1.2,
    efficientnet_b0 1.2, shufflenet_v2 1.1, mobilenet_v3_small 0.9.
    """
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    if device.type == "cpu" and has_bfloat16():
        return "bfloat16"
    return "float32"


def has_bfloat16() -> bool:
    """Whether this CPU has instructions for bfloat16."""
    # no public question exists; torch.compile's own backend asks this one
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def arithmetic(precision: Arithmetic, device: torch.device) -> AbstractContextManager[object]:
    """Within it, layers compute in `precision` where that is safe; weights stay float32."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=getattr(torch, precision))


def gradient_scaler(precision: Arithmetic, device: torch.device) -> torch.amp.GradScaler:
    """Keeps the small gradients of float16 from becoming zero; does nothing in other arithmetic."""
    return torch.amp.GradScaler(device.type, enabled=precision == "float16")

"""The device of a training, its arithmetic, and what makes a run on it repeat to the last bit."""

import os
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

from pipelines.core.errors import InputError
from pipelines.params.recipes import Precision

Arithmetic = Literal["float32", "bfloat16", "float16"]

BUSY_SHARE = 0.6
"""of the CPU time asked for, below which other programs slow a training down"""
BUSY_AFTER_SECONDS = 5.0
"""length of an epoch from which on that is measured: in a shorter one, start-up counts too much"""


def choose_device(wanted: Literal["auto", "cpu", "cuda", "mps"]) -> torch.device:
    """Return the named device; for `auto` the first of CUDA, MPS and the CPU that is available.

    Raises:
        InputError: this machine does not have the named device.
    """
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wanted == "auto":
        return torch.device("cuda" if available["cuda"] else "mps" if available["mps"] else "cpu")
    if not available[wanted]:
        raise InputError(f"train.device is {wanted}, but torch finds none on this machine: set it to auto or cpu")
    return torch.device(wanted)


def configure_torch(device: torch.device, *, seed: int, num_threads: int, deterministic: bool) -> None:
    """Set torch's process-wide state: number of threads, seed, deterministic kernels.

    Args:
        deterministic: False allows the fastest kernels and TF32 products on a GPU; other devices have no choice.
    """
    relaxed = not deterministic and device.type == "cuda"
    if not relaxed:
        # cuBLAS reads this when the GPU is first used
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(num_threads)
    torch.manual_seed(seed)
    # as use_deterministic_algorithms, which also imports the compiler (2 s, 170 MB)
    torch.set_deterministic_debug_mode("default" if relaxed else "error")
    # would fill each new tensor, though nothing here reads uninitialised memory
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = relaxed
    torch.backends.cudnn.allow_tf32 = relaxed
    torch.backends.cuda.matmul.allow_tf32 = relaxed


def choose_precision(wanted: Precision, *, device: torch.device) -> Arithmetic:
    """Return the named arithmetic; for `auto` bfloat16 where the device has instructions for it.

    Without them a GPU takes float16, a CPU float32. Images a second in bfloat16 divided by those in float32, forward
    and backward at 160 px, batch 16, two threads of an AMD EPYC 9005 with `quick_convolutions`: convnext_tiny 2.5,
    mobilenet_v2 2.0, resnet50 1.8, densenet121 1.7, resnext50 1.6, tf_efficientnet_lite0 and squeezenet1_1 1.5,
    mnasnet1_0 and regnet_x 1.4, mobilenet_v3_large, efficientnet_v2_s and efficientnet_b0 1.2, shufflenet_v2 1.1,
    mobilenet_v3_small 0.9.
    """
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    return "bfloat16" if device.type == "cpu" and has_bfloat16() else "float32"


def has_bfloat16() -> bool:
    """Whether this CPU has bfloat16 instructions."""
    # torch has no public function for this; its compiler calls these
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def autocast(precision: Arithmetic, device: torch.device) -> AbstractContextManager[object]:
    """Return a context in which layers compute in `precision` where torch considers that safe; weights stay float32."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=getattr(torch, precision))


def gradient_scaler(precision: Arithmetic, device: torch.device) -> torch.amp.GradScaler:
    """Return torch's scaler, which keeps small float16 gradients from becoming zero; a no-op in other precisions."""
    return torch.amp.GradScaler(device.type, enabled=precision == "float16")


def busy_note(device: torch.device, seconds: float, cpu_seconds: float, *, num_threads: int) -> str:
    """A note where other programs took the CPU during an epoch, because threads of a layer wait for the slowest; or "".

    Measured at a load of 8 on 2 cores in bfloat16: 16 images a second with 2 threads, 85 with 1.

    Args:
        seconds, cpu_seconds: wall time and CPU time of the epoch.
    """
    if device.type != "cpu" or num_threads == 1 or seconds <= BUSY_AFTER_SECONDS:
        return ""
    if cpu_seconds >= BUSY_SHARE * num_threads * seconds:
        return ""
    return (
        f"note: this process had {cpu_seconds / seconds:.1f} of {num_threads} processors; while other programs run, "
        "train.num_threads: 1 is faster"
    )

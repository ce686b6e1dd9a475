"""The device, and what makes a run on it repeat to the last bit."""

import os
from typing import Literal

import torch

from pipelines.core.errors import InputError


def choose_device(wanted: Literal["auto", "cpu", "cuda", "mps"]) -> torch.device:
    """The device named, or the best there is.

    Raises:
        InputError: the named device is not on this machine.
    """
    here = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wanted == "auto":
        return torch.device("cuda" if here["cuda"] else "mps" if here["mps"] else "cpu")
    if not here[wanted]:
        raise InputError(f"train.device is {wanted}, but torch finds none on this machine: set it to auto or cpu")
    return torch.device(wanted)


def set_up(device: torch.device, *, seed: int, num_threads: int, fast: bool) -> None:
    """Set what torch keeps for the whole process: threads, seed, and whether kernels must repeat to the last bit.

    Args:
        fast: on a GPU, let each layer take its fastest kernel, and products TF32; no other device has a choice.
    """
    relaxed = fast and device.type == "cuda"
    if not relaxed:
        # read by cuBLAS when it starts, so before the first use of a GPU
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(num_threads)
    torch.manual_seed(seed)
    # the same as use_deterministic_algorithms, which imports the compiler: 2 s and 170 MB, unless torchvision has
    torch.set_deterministic_debug_mode("default" if relaxed else "error")
    # deterministic, and filling new memory is a pass over it that nothing here reads
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = relaxed
    torch.backends.cudnn.allow_tf32 = relaxed
    torch.backends.cuda.matmul.allow_tf32 = relaxed

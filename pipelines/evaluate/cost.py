"""What a member costs: weights, arithmetic, bytes; and, when asked, milliseconds on this machine."""

import math
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pipelines.core.files import write_json

if TYPE_CHECKING:
    from pipelines.train.member import TrainedMember

STATISTICS = ("running_mean", "running_var", "num_batches_tracked", "head.mean", "head.std")
"""what a file holds beside parameters: of batch norms, and of a linear probe's features"""
BATCH_SIZES = (1, 32)
WARM_UP = 3
MIN_SECONDS = 0.5
"""that each batch size is measured for"""
MIN_CALLS = 5


def member_cost(member: "TrainedMember", path: Path) -> dict[str, int]:
    """Parameters, MACs of one view, bytes of the file, side of a picture in pixels, views of each picture.

    MACs (multiplications with an addition) are those of torch's own counter: convolutions, matrix products and
    attention; norms and activations count nothing. A picture takes `macs` times `num_views`.

    Args:
        path: of the member's model.safetensors.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    image = torch.zeros(1, member.in_chans, member.image_size, member.image_size, device=member.device)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        member.module(image)
    return {
        "num_params": _count_params(path),
        "macs": counter.get_total_flops() // 2,
        "file_bytes": path.stat().st_size,
        "image_size": member.image_size,
        "num_views": len(member.tta),
    }


def _count_params(path: Path) -> int:
    """Of the file, since a loaded backbone has its batch norms in its convolutions."""
    import safetensors

    with safetensors.safe_open(path, framework="numpy") as file:
        names = [name for name in file.keys() if not name.endswith(STATISTICS)]  # noqa: SIM118  (it is no mapping)
        return sum(math.prod(file.get_slice(name).get_shape()) for name in names)


def measure_latency(folders: Mapping[tuple[str, int], Path], *, device: str, num_threads: int) -> dict[str, Any]:
    """Milliseconds that each member takes for one picture and for 32, with all its views, from uint8 to probabilities.

    The first fold of each member is measured, after a warm-up.

    Args:
        folders: (member, fold) to its folder.
        device: a torch device.
        num_threads: of torch on a CPU.

    Returns:
        machine, and by member and batch size the median, the quartiles and the number of calls.

    Raises:
        InputError: a member is not trained.
    """
    import platform

    import torch

    from pipelines.features.cache import processor_name
    from pipelines.train import load_member

    torch.set_num_threads(num_threads)
    place = torch.device(device)
    found: dict[str, Any] = {}
    for (name, _), folder in folders.items():
        if name in found:
            continue
        member = load_member(folder, device=device)
        found[name] = {
            str(size): _milliseconds(member, np.zeros((size, member.image_size, member.image_size, 3), np.uint8))
            for size in BATCH_SIZES
        }
    machine = {
        "device": place.type,
        "processor": processor_name(place),
        "num_threads": num_threads,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    return {"machine": machine, "members": found}


def _milliseconds(member: "TrainedMember", pixels: npt.NDArray[np.uint8]) -> dict[str, float]:
    for _ in range(WARM_UP):
        member.predict(pixels)
    calls: list[float] = []
    while len(calls) < MIN_CALLS or sum(calls) < MIN_SECONDS:
        started = time.perf_counter()
        member.predict(pixels)  # ends on the CPU, so nothing is left to wait for
        calls.append(time.perf_counter() - started)
    low, middle, high = statistics.quantiles(calls, n=4)
    return {
        "median_ms": round(1000 * middle, 3),
        "quartile_low_ms": round(1000 * low, 3),
        "quartile_high_ms": round(1000 * high, 3),
        "num_calls": len(calls),
    }


def write_latency(
    folders: Mapping[tuple[str, int], Path], *, device: str, num_threads: int, path: Path
) -> dict[str, Any]:
    """Measure, and write the figures to `path`, which is no output of DVC: they are of this machine and this hour."""
    found = measure_latency(folders, device=device, num_threads=num_threads)
    write_json(path, found)
    return found

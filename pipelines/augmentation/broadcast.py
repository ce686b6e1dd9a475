"""From the draws on the host to numbers beside the pictures, without waiting for the device."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

Rows = npt.NDArray[np.int64]
Array = npt.NDArray[Any]


def to_device(values: Array, device: torch.device) -> torch.Tensor:
    """`values` on `device`; a copy to a GPU waits in its queue, and the host goes on."""
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def columns(values: Array, images: torch.Tensor) -> torch.Tensor:
    """(B,) numbers as (B, 1, 1, 1), or (B, n) as (B, n, 1, 1), of the type and on the device of `images`."""
    floats = values.reshape(len(values), -1, 1, 1).astype(np.float32)
    return to_device(floats, images.device).to(images.dtype)


def change_some(
    images: torch.Tensor, chosen: npt.NDArray[np.bool_], change: Callable[[torch.Tensor, Rows], torch.Tensor]
) -> torch.Tensor:
    """Change those pictures of `images` in place that are chosen on the host, so that no size depends on the device.

    Args:
        images: (B, 3, H, W), contiguous.
        chosen: (B,)
        change: of pictures (b, 3, H, W) that it may overwrite, and their rows (b,): the changed ones.

    Returns:
        `images`, or what took its place.
    """
    rows = np.flatnonzero(chosen)
    if len(rows) == 0:
        return images
    if len(rows) == len(images):
        return change(images, rows)
    places = to_device(rows, images.device)
    changed = change(images.index_select(0, places), rows)
    if images.device.type != "cpu":
        return images.index_copy_(0, places, changed)
    for place, row in enumerate(rows.tolist()):  # index_copy_ takes five times as long here
        images[row] = changed[place]
    return images

"""Several processes that train one network together, each on its share of every batch (torchrun)."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn

from pipelines.augmentation.packs import Rows
from pipelines.core.errors import TrainingError


@dataclass(frozen=True)
class Processes:
    """This process among those that train together.

    Args:
        rank: from 0; only 0 writes.
        count: of all; 1 for a process of its own.
    """

    rank: int = 0
    count: int = 1

    @property
    def writes(self) -> bool:
        return self.rank == 0

    def share(self, rows: Rows) -> Rows:
        """This process's part of `rows`."""
        return rows[self.rank :: self.count]

    def add(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum over all processes, in place."""
        if self.count > 1:
            dist.all_reduce(tensor)
        return tensor

    def wrap(self, module: nn.Module) -> nn.Module:
        """`module` whose gradients are the mean over all processes."""
        if self.count == 1:
            return module
        return nn.parallel.DistributedDataParallel(module, broadcast_buffers=False)

    def agree_on_buffers(self, module: nn.Module) -> None:
        """Give every process the statistics of the first."""
        if self.count > 1:
            for buffer in module.buffers():
                dist.broadcast(buffer, 0)


def synchronise_norms(module: nn.Module, device: torch.device, processes: Processes) -> nn.Module:
    """Batch norms over the whole batch, where there is such a thing: on GPUs. On a CPU each process has its own."""
    if processes.count > 1 and device.type == "cuda":
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
        return converted
    return module


def launch(arguments: Sequence[str], *, num_devices: int) -> None:
    """Run `python -m pipelines.train <arguments>` in as many processes, and wait.

    Raises:
        TrainingError: one of them failed; it has said why.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_devices}"]
    done = subprocess.run([*command, "-m", "pipelines.train", *arguments], check=False)
    if done.returncode != 0:
        raise TrainingError(
            f"one of {num_devices} training processes ended with status {done.returncode}: see its message above"
        )


@contextmanager
def joined(device: torch.device) -> Iterator[tuple[Processes, torch.device]]:
    """Join the processes that torchrun started; a process of its own otherwise.

    Args:
        device: of the params; on GPUs each process takes its own.
    """
    if not dist.is_torchelastic_launched():
        yield Processes(), device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Processes(dist.get_rank(), dist.get_world_size()), device
    finally:
        dist.destroy_process_group()

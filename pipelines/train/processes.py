"""Distributed data parallel training: several processes train one network, each on its share of every batch."""

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
class ProcessGroup:
    """This process among those that train together; all methods do nothing where it is alone.

    Args:
        rank: from 0.
        count: number of processes.
    """

    rank: int = 0
    count: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process prints and writes files."""
        return self.rank == 0

    def shard(self, rows: Rows) -> Rows:
        """Return this process's share of `rows`."""
        return rows[self.rank :: self.count]

    def all_reduce(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum `tensor` over all processes, in place."""
        if self.count > 1:
            dist.all_reduce(tensor)
        return tensor

    def wrap(self, module: nn.Module) -> nn.Module:
        """Return `module` with gradients averaged over all processes."""
        if self.count == 1:
            return module
        return nn.parallel.DistributedDataParallel(module, broadcast_buffers=False)

    def broadcast_buffers(self, module: nn.Module) -> None:
        """Copy the first process's buffers, the statistics of batch norms, to all."""
        if self.count > 1:
            for buffer in module.buffers():
                dist.broadcast(buffer, 0)

    def synchronise_batch_norms(self, module: nn.Module, device: torch.device) -> nn.Module:
        """Make batch norms normalise over the whole batch; torch can on GPUs only."""
        if self.count > 1 and device.type == "cuda":
            converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
            return converted
        return module


def launch(arguments: Sequence[str], *, num_devices: int) -> None:
    """Run `python -m pipelines.train <arguments>` in `num_devices` processes by torchrun, and wait.

    Raises:
        TrainingError: one of them failed; it has printed why.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_devices}"]
    done = subprocess.run([*command, "-m", "pipelines.train", *arguments], check=False)
    if done.returncode != 0:
        raise TrainingError(
            f"one of {num_devices} training processes ended with status {done.returncode}: see its message above"
        )


@contextmanager
def join_group(device: torch.device) -> Iterator[tuple[ProcessGroup, torch.device]]:
    """Join the processes that torchrun started, if it did; give the group and this process's device.

    Args:
        device: of the params; on GPUs each process takes its own.
    """
    if not dist.is_torchelastic_launched():
        yield ProcessGroup(), device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield ProcessGroup(dist.get_rank(), dist.get_world_size()), device
    finally:
        dist.destroy_process_group()

"""One process or many: the only file that knows torch.distributed.

Under torchrun every rank makes one `Distributed` and passes it on; without torchrun the same object is a
working single process, so that there is one code path.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from resnets.engine.device import check_cuda
from resnets.specs.errors import DeviceError, SpecError

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Distributed:
    """Who this process is among the processes of a run."""

    rank: int = 0
    world_size: int = 1
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and progress."""
        return self.rank == 0

    def check_batch(self, global_batch: int, accumulation: int) -> None:
        """Refuse a global batch that does not divide among the ranks and their passes.

        Raises:
            SpecError: naming the numbers of processes that would work.
        """
        if global_batch % (self.world_size * accumulation):
            fitting = [n for n in range(1, 65) if global_batch % (n * accumulation) == 0]
            raise SpecError(
                f"global_batch {global_batch} with accumulation {accumulation} does not divide among "
                f"{self.world_size} processes; {', '.join(map(str, fitting))} would work."
            )

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return the model whose backward pass averages gradients over the ranks.

        BatchNorm's statistics are those of rank 0, sent to the others before each forward pass.
        """
        if self.world_size == 1:
            return model
        device_ids = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=device_ids)

    def without_averaging(self, model: nn.Module) -> AbstractContextManager[None]:
        """Return a context in which the backward pass only accumulates, as all but the last pass of a step do."""
        return model.no_sync() if isinstance(model, DistributedDataParallel) else nullcontext()

    def synchronize_batch_norm(self, model: nn.Module) -> nn.Module:
        """Return the model with BatchNorm statistics over the global batch.

        Raises:
            DeviceError: on devices other than CUDA, which torch's implementation does not cover.
        """
        if self.world_size == 1:
            return model
        if self.device.type != "cuda":
            raise DeviceError(
                f"batch_norm.across_ranks=sync needs CUDA devices, and this run is on {self.device.type}; use local."
            )
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)

    def share_buffers(self, model: nn.Module) -> None:
        """Copy the buffers of rank 0 (BatchNorm's statistics) to every rank."""
        if self.world_size > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, src=0)

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum of `values` (any shape, on `device` or the CPU) over the ranks; `values` itself is overwritten."""
        if self.world_size > 1:
            dist.all_reduce(values)
        return values

    def gather(self, items: Sequence[T]) -> list[T]:
        """Return the items of all ranks, in the order of the ranks."""
        if self.world_size == 1:
            return list(items)
        parts: list[Sequence[T]] = [()] * self.world_size
        dist.all_gather_object(parts, items)
        return [item for part in parts for item in part]

    @contextmanager
    def first_goes_ahead(self) -> Iterator[None]:
        """Let rank 0 run the block before the others do, so that one process downloads what all read."""
        if self.world_size > 1 and not self.is_first:
            dist.barrier()
        yield
        if self.world_size > 1 and self.is_first:
            dist.barrier()

    def any(self, flag: bool) -> bool:
        """Return whether `flag` is true on at least one rank; does not wait for what a GPU is at."""
        if self.world_size == 1:
            return flag
        return bool(self.sum(torch.tensor(float(flag))).item())


@contextmanager
def distributed(device: torch.device) -> Iterator[Distributed]:
    """Join the processes that torchrun started, if any, and leave them at the end.

    Args:
        device: cpu, or cuda, of which each rank takes the one of its local rank; the first where none is said.

    Raises:
        DeviceError: on mps, or there is no GPU for this rank, or it cannot work.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1 or "RANK" not in os.environ:
        yield Distributed(device=device)
        return
    if device.type == "mps":
        raise DeviceError("mps trains in one process; start it without torchrun.")
    on_gpu = device.type == "cuda"
    if on_gpu:
        device = _gpu_of(int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    dist.init_process_group(
        # What lives on the CPU is sent from there: a GPU would first finish its steps.
        "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
        # Ranks wait while the first one downloads, or reads the training images for their mean.
        timeout=timedelta(hours=3),
        device_id=device if on_gpu else None,
    )
    try:
        yield Distributed(rank=dist.get_rank(), world_size=world_size, device=device)
    finally:
        dist.destroy_process_group()


def _gpu_of(local_rank: int) -> torch.device:
    gpus = torch.cuda.device_count()
    if local_rank >= gpus:
        raise DeviceError(
            f"This is process {local_rank} of this machine, counted from 0, and each takes a GPU, of which there are "
            f"{gpus}; start as many: torchrun --nproc-per-node {gpus}."
        )
    name = f"cuda:{local_rank}"
    check_cuda(name, local_rank)
    return torch.device(name)

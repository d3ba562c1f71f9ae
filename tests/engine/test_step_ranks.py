"""Steps of two processes of which one has no image that can be read in a pass."""

import dataclasses
import multiprocessing
import os
import socket
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.nn.functional import all_reduce

import resnets
from resnets.engine.distributed import Distributed, distributed
from resnets.engine.optimizer import build_optimizer
from resnets.engine.state import TrainState
from resnets.engine.step import train_step

pytestmark = pytest.mark.dist


class OverRanks(nn.SyncBatchNorm):
    """As torch's own, which the CPU lacks: every layer waits for all ranks, forward and backward."""

    def forward(self, x):
        if not self.training or not dist.is_initialized():
            return nn.functional.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, self.training, self.momentum, self.eps
            )
        sums = torch.cat([x.sum((0, 2, 3)), x.square().sum((0, 2, 3)), x.new_tensor([x.numel() / x.shape[1]])])
        sums = all_reduce(sums)
        mean, square = sums[:-1].div(sums[-1]).chunk(2)
        variance = square - mean**2
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * sums[-1] / (sums[-1] - 1), self.momentum)
        x = (x - mean[:, None, None]) * (variance + self.eps).rsqrt()[:, None, None]
        return x * self.weight[:, None, None] + self.bias[:, None, None]


def images_of(counts):
    """Return the passes of each rank, of so many images each."""
    generator = torch.Generator().manual_seed(1)
    return [[batch_of(count, generator) for count in passes] for passes in counts]


def batch_of(count, generator):
    images = torch.randn(count, 3, 6, 6, generator=generator)
    return SimpleNamespace(images=images, labels=torch.arange(count) % 2, partner_labels=None, own_share=1.0)


def joined(*batches):
    images, labels = (torch.cat([getattr(batch, name) for batch in batches]) for name in ("images", "labels"))
    return SimpleNamespace(images=images, labels=labels, partner_labels=None, own_share=1.0)


def step(norm, precision, counts, passes, ranks):
    """Return the totals of a step over all ranks, and the weights and buffers of the net."""
    spec = dataclasses.replace(
        resnets.recipe("cifar10.resnet20"), global_batch=16, accumulation=len(passes), precision=precision
    )
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), norm(4), nn.ReLU(), nn.Conv2d(4, 4, 3), norm(4), nn.Flatten(1), nn.Linear(16, 2)
    )
    state = TrainState(
        model=model,
        optimizer=build_optimizer(model, spec.optimizer),
        scaler=torch.amp.GradScaler("cpu", enabled=precision == "fp16", init_scale=256.0),
    )
    totals = ranks.sum(train_step(ranks.wrap(model), passes, state, spec, ranks))
    return [totals.tolist(), *(value.double().flatten().tolist() for value in model.state_dict().values())]


def main(rank, port, cases, pipe):
    """Take each step with the other rank, then with the images of both in one process."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "RANK": str(rank)}
    torch.set_num_threads(1)
    # It refuses SyncBatchNorm on a CPU.
    nn.parallel.DistributedDataParallel._passing_sync_batchnorm_handle = lambda self, module: None
    cpu = torch.device("cpu")
    with distributed(cpu) as ranks:
        together = [step(*case, images_of(case[2])[rank], ranks) for case in cases]
    alone = []
    if rank == 0:
        for case in cases:
            passes = [joined(*batches) for batches in zip(*images_of(case[2]), strict=True)]
            alone.append(step(*case, passes, Distributed(device=cpu)))
    pipe.send((together, alone))


SYNCHRONIZED = [
    [[4, 0], [4, 4]],
    [[0, 4], [4, 4]],
    [[0, 0], [4, 4]],
    [[4, 0], [4, 0]],
]
CASES = [*((OverRanks, "fp32", counts) for counts in SYNCHRONIZED), (nn.BatchNorm2d, "fp16", [[0], [4]])]


def test_no_rank_waits_for_one_without_readable_images():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe(duplex=False) for _ in range(2)]
    started = [context.Process(target=main, args=(rank, port, CASES, pipes[rank][1]), daemon=True) for rank in range(2)]
    try:
        for process in started:
            process.start()
        for _, sent in pipes:
            sent.close()  # so that a process that fails is seen
        assert all(received.poll(300) for received, _ in pipes), "the ranks wait for each other"
        (first, alone), (second, _) = (received.recv() for received, _ in pipes)
    finally:
        for process in started:
            process.kill()
            process.join()
    for (norm, _, counts), ours, theirs, expected in zip(CASES, first, second, alone, strict=True):
        assert ours[0] == theirs[0], counts
        assert ours[0][2] == sum(map(sum, counts))
        weights = slice(None) if norm is OverRanks else slice(1, 2)
        torch.testing.assert_close([*map(torch.tensor, ours[weights])], [*map(torch.tensor, theirs[weights])])
        if norm is OverRanks:
            torch.testing.assert_close([*map(torch.tensor, ours)], [*map(torch.tensor, expected)], rtol=1e-4, atol=1e-5)

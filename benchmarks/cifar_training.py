"""CIFAR training speed on a CPU: ours beside the usual implementation, data included, in one run.

    python benchmarks/cifar_training.py --depth 20 --data-root ~/data --out benchmarks/results/DATE-HARDWARE-cifar-training.json

Each system is a process of its own (the allocator's settings are a process's), runs while the others wait,
and takes its turn in every round; the figure is the median over rounds. The first row is what nearly every
public repository does: a He-style model of its own, `Dataset` + `DataLoader` with 2 workers and PIL
transforms, fp32, eager, default layout. The rows below it add one thing each, so that the gain of each is seen.
Compilation happens in the warm-up and is reported apart.

What was learned on two Xeon cores with AMX: bf16 is the larger part of the gain (1.6x), since convolutions run on the
matrix unit; channels-last gives 1.2x in fp32; NumPy augmentation of resident images instead of two loader processes
another 1.2x; compilation 1.06x in fp32 and 1.25x in bf16, where what is left is memory traffic between the
convolutions. Keeping freed memory gives nothing here.

On two Zen 4 cores convolutions take two thirds of a bf16 step and run at 300 (backward) to 385 (forward) of the 400
GFLOP/s that these cores reach, so that no more than 1.5 times is left in all the rest. bf16 gives 1.4x, channels-last 1.45x with the resident data, kept
memory 1.05x, compilation 1.04x. Huge pages give nothing more: torch asks for them by itself.

`--repeats` rounds of `--steps` steps each; without `--data-root` the images are noise, which takes as long.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

BATCH = 128


@dataclass(frozen=True)
class System:
    """One way to train, as a row of the table."""

    name: str
    usual: bool = False
    channels_last: bool = False
    precision: str = "fp32"
    allocator: bool = False
    compile: bool = False


SYSTEMS = (
    System("usual: eager fp32, Dataset + DataLoader(2)", usual=True),
    System("ours, fp32, contiguous"),
    System("ours, fp32, channels-last", channels_last=True),
    System("ours, fp32, channels-last, freed memory kept", channels_last=True, allocator=True),
    System("ours, fp32, …, compiled", channels_last=True, allocator=True, compile=True),
    System("ours, bf16, channels-last, freed memory kept", channels_last=True, precision="bf16", allocator=True),
    System("ours, bf16, …, compiled", channels_last=True, precision="bf16", allocator=True, compile=True),
)


def images_of(root: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Return CIFAR-10's training images, uint8 (n, 32, 32, 3), and labels; noise without a root."""
    if root is None:
        generator = np.random.default_rng(0)
        return generator.integers(0, 256, (10_000, 32, 32, 3), np.uint8), generator.integers(0, 10, 10_000)
    from resnets.data.open import open_dataset
    from resnets.specs.data import Cifar

    split = open_dataset(Cifar(), Path(root)).splits["train"]
    return split.images, split.labels  # pyright: ignore[reportAttributeAccessIssue]


def usual_stepper(depth: int, root: str | None) -> Callable[[], None]:
    """Return a function that does one step the way most public repositories do."""
    import torch
    from PIL import Image
    from torch import nn
    from torch.nn import functional
    from torch.utils.data import DataLoader, Dataset
    from torchvision import transforms

    pixels, labels = images_of(root)
    augment = transforms.Compose(
        [
            transforms.RandomHorizontalFlip(),
            transforms.RandomCrop(32, 4),
            transforms.ToTensor(),
            transforms.Normalize((0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.262)),
        ]
    )

    class Images(Dataset[Any]):
        def __len__(self) -> int:
            return len(labels)

        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            return augment(Image.fromarray(pixels[index])), int(labels[index])

    class BasicBlock(nn.Module):
        def __init__(self, channels: int, width: int, stride: int) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(width)
            self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(width)
            self.widen = (width - channels) // 2 if stride > 1 else 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = functional.relu(self.bn1(self.conv1(x)))
            y = self.bn2(self.conv2(y))
            if self.widen:
                x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.widen, self.widen))
            return functional.relu(y + x)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(16)
            blocks, channels = [], 16
            for width, first in ((16, 1), (32, 2), (64, 2)):
                for number in range((depth - 2) // 6):
                    blocks.append(BasicBlock(channels, width, first if number == 0 else 1))
                    channels = width
            self.blocks = nn.Sequential(*blocks)
            self.linear = nn.Linear(64, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.blocks(functional.relu(self.bn1(self.conv1(x))))
            return self.linear(functional.avg_pool2d(x, x.shape[3]).flatten(1))

    loader = DataLoader(
        Images(),
        BATCH,
        shuffle=True,
        num_workers=2,
        drop_last=True,
        persistent_workers=True,
        multiprocessing_context="fork",
    )
    model = Net().train()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=1e-4)
    criterion = nn.CrossEntropyLoss()
    source = iter(loader)

    def step() -> None:
        nonlocal source
        batch = next(source, None)
        if batch is None:
            source = iter(loader)
            batch = next(source)
        images, targets = batch
        loss = criterion(model(images), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()

    return step


def our_stepper(system: System, depth: int, root: str | None) -> Callable[[], None]:
    """Return a function that does one step with the parts of the product."""
    import torch

    from resnets.data.batches import training_batches
    from resnets.data.preprocess import preprocess_for
    from resnets.data.splits import ResidentSplit
    from resnets.engine.device import keep_freed_memory
    from resnets.engine.distributed import Distributed
    from resnets.engine.optimizer import build_optimizer
    from resnets.engine.state import TrainState
    from resnets.engine.step import train_step
    from resnets.models.build import build
    from resnets.recipes.find import recipe

    if system.allocator:
        keep_freed_memory()
    spec = replace(recipe(f"cifar10.resnet{depth}"), precision=system.precision)
    images, labels = images_of(root)
    split = ResidentSplit(images=images, labels=labels.astype(np.int64))
    device = torch.device("cpu")
    batches = training_batches(
        split,
        preprocess_for(spec.dataset, split),
        replace(spec, global_batch=BATCH),
        device=device,
        channels_last=system.channels_last,
        workers=0,
    ).batches(0)
    layout = torch.channels_last if system.channels_last else torch.contiguous_format
    model = build(spec.model, seed=0).to(memory_format=layout).train()  # pyright: ignore[reportCallIssue]
    state = TrainState(
        model=model,
        optimizer=build_optimizer(model, spec.optimizer),
        scaler=torch.amp.GradScaler("cpu", enabled=False),
    )
    fast = torch.compile(model, dynamic=False) if system.compile else model

    def step() -> None:
        train_step(fast, [next(batches)], state, spec, Distributed(device=device)).tolist()

    return step


def serve(system: System, depth: int, root: str | None, threads: int, pipe: Connection) -> None:
    """Run in a process of its own: build, warm up, then time as many steps as the pipe asks for."""
    import torch

    torch.set_num_threads(threads)
    step = usual_stepper(depth, root) if system.usual else our_stepper(system, depth, root)
    started = time.perf_counter()
    step()
    first = time.perf_counter() - started
    for _ in range(4):
        step()
    pipe.send(first)
    while steps := pipe.recv():
        started = time.perf_counter()
        for _ in range(steps):
            step()
        pipe.send(steps * BATCH / (time.perf_counter() - started))


def main() -> None:
    """Measure and print the table; write it as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depth", type=int, default=20)
    parser.add_argument("--data-root")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--only", type=int, nargs="+", help="numbers of the systems to run, from 0")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    systems = [SYSTEMS[number] for number in given.only] if given.only else list(SYSTEMS)
    context = multiprocessing.get_context("spawn")
    running = []
    for system in systems:
        ours, theirs = context.Pipe()
        process = context.Process(target=serve, args=(system, given.depth, given.data_root, given.threads, theirs))
        process.start()
        theirs.close()  # so that a process that dies ends our wait
        running.append((system, process, ours, ours.recv()))
    rates: dict[str, list[float]] = {system.name: [] for system in systems}
    for _ in range(given.repeats):
        for system, _, pipe, _ in running:
            time.sleep(0.5)  # the threads of the system before spin for a moment after its last step
            pipe.send(given.steps)
            rates[system.name].append(pipe.recv())
    for _, process, pipe, _ in running:
        pipe.send(0)
        process.join(10)
        if process.is_alive():
            process.terminate()
    usual = statistics.median(rates[systems[0].name])
    rows = [
        {
            "system": system.name,
            "images_per_second": round(statistics.median(rates[system.name]), 1),
            "ratio": round(statistics.median(rates[system.name]) / usual, 3),
            "spread": [round(min(rates[system.name]), 1), round(max(rates[system.name]), 1)],
            "first_step_seconds": round(first, 2),
        }
        for system, _, _, first in running
    ]
    report = {"what": f"CIFAR ResNet-{given.depth} training, batch {BATCH}, data included", "rows": rows} | facts(given)
    for row in rows:
        print(
            f"{row['images_per_second']:>8.0f} images/s {row['ratio']:>6.2f}x  first step {row['first_step_seconds']:>6.1f} s  {row['system']}"
        )
    if given.out:
        given.out.write_text(json.dumps(report, indent=2) + "\n")


def facts(given: argparse.Namespace) -> dict[str, Any]:
    """Return commit, versions, hardware and repetitions."""
    from resnets.artifacts.run_directory import environment

    here = environment()
    return {
        "hardware": {"processor": here["processor"], "cores": given.threads, "platform": platform.platform()},
        "versions": {"python": here["python"]} | here["versions"],
        "commit": here["commit"],
        "command": f"python benchmarks/cifar_training.py --depth {given.depth} --steps {given.steps} --repeats {given.repeats}",
        "repeats": given.repeats,
        "steps_each": given.steps,
    }


if __name__ == "__main__":
    main()

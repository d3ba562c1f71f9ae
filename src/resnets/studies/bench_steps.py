"""Training steps for the training benchmark: the product's, and the usual way to write the same.

Both crop, mirror and normalise the same images and update the weights of the same net with the same rule. Colours,
policies, mixing and averaged weights of the recipe are left out: they are ours alone.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from resnets.data.batches import training_batches
from resnets.data.open import open_dataset
from resnets.data.preprocess import preprocess_for
from resnets.data.splits import Batch, FileSplit, ResidentSplit
from resnets.data.statistics import Statistics
from resnets.engine.device import check_precision, choose_device, set_up, use
from resnets.engine.distributed import Distributed
from resnets.engine.optimizer import build_optimizer
from resnets.engine.state import TrainState
from resnets.engine.step import autocast, train_step
from resnets.models.build import build
from resnets.specs.data import IMAGENET_MEAN, IMAGENET_STD, AreaCrop, Cifar, ImageFolder, PadCrop, ScaleCrop
from resnets.specs.run import Machine, TrainSpec
from resnets.studies.accelerator import give_back, is_current, wait_for
from resnets.studies.bench import Prepared, System
from resnets.studies.usual_nets import plain_cifar_net, torchvision_net

if TYPE_CHECKING:
    from torch import Tensor

    from resnets.data.splits import Split

Source = Callable[[], tuple[Iterator[Any], Callable[[], None]]]
"""Starts endless batches; returns them and what ends their processes."""

NOISE_IMAGES = 10_000
_READ_AHEAD = 2
_WORKER_START = "fork" if sys.platform == "linux" else None
"""As ours start; elsewhere a process cannot be forked, or not once it uses the GPU."""


@dataclass(frozen=True, kw_only=True)
class TrainingSystem(System):
    """A way to train; subclasses say which. It can be sent to a process."""

    spec: TrainSpec
    root: Path | None
    data: Literal["images", "noise", "none"]
    """Images of the recipe; noise of their size in memory; or one batch on the device, for the step alone."""
    device: str
    workers: int
    steps: int
    """Of a turn."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    channels_last: bool = False
    compile: bool = False

    def prepare(self) -> Prepared:
        """Build the net, do the first step, and return the function that does the steps of a turn."""
        device = choose_device(self.device)
        check_precision(self.precision, device)
        spec, split = split_for(self)
        start, step = self.parts(spec, split, device)
        started = time.perf_counter()
        _turn(start, step, 1, 0, device)
        facts = {"first_step_seconds": round(time.perf_counter() - started, 2)} | self.settings()
        unmeasured = 1 + (_READ_AHEAD * self.workers if self.data != "none" else 0)
        return Prepared(lambda number: _turn(start, step, self.steps, unmeasured, device), facts)

    def parts(self, spec: TrainSpec, split: Split | None, device: torch.device) -> tuple[Source, Callable[[Any], None]]:
        """Return what starts the batches, and what does a step with one."""
        raise NotImplementedError

    def settings(self) -> dict[str, Any]:
        """Return the facts of the row."""
        return {"precision": self.precision, "channels_last": self.channels_last, "compile": self.compile}

    def layout(self) -> torch.memory_format:
        """Return the memory format of images and weights."""
        return torch.channels_last if self.channels_last else torch.contiguous_format


@dataclass(frozen=True, kw_only=True)
class OurTraining(TrainingSystem):
    """The product's data, model, optimiser and step."""

    keep_memory: bool = True
    """Set up the device as training does: on a CPU, freed memory is kept."""

    def settings(self) -> dict[str, Any]:
        """Return the facts of the row."""
        return super().settings() | {"keep_memory": self.keep_memory}

    def parts(self, spec: TrainSpec, split: Split | None, device: torch.device) -> tuple[Source, Callable[[Any], None]]:
        """Return the training stream and `train_step`."""
        if self.keep_memory or device.type != "cpu":
            set_up(device, Machine())
        spec = replace(spec, precision=self.precision)
        model = build(spec.model, seed=0).to(device=device, memory_format=self.layout()).train()  # pyright: ignore
        scaling = self.precision == "fp16"
        state = TrainState(
            model=model,
            optimizer=build_optimizer(model, spec.optimizer),
            scaler=torch.amp.GradScaler(device.type, enabled=scaling),
            window=torch.zeros(3, dtype=torch.float64 if device.type != "mps" else torch.float32, device=device),
        )
        fast: Any = torch.compile(model, dynamic=False) if self.compile else model
        ranks = Distributed(device=device)

        def step(passes: list[Batch]) -> None:
            train_step(fast, passes, state, spec, ranks)

        return self._source(spec, split, device), step

    def _source(self, spec: TrainSpec, split: Split | None, device: torch.device) -> Source:
        if split is None:
            images, labels = fixed_batch(spec, device, self.layout())
            batch = Batch(images=images, labels=labels, indices=np.arange(len(labels)))
            return lambda: (iter(lambda: [batch] * spec.accumulation, None), lambda: None)
        batches = training_batches(
            split,
            preprocess_for(spec.dataset, split, _statistics(spec, split)),
            spec,
            device=device,
            channels_last=self.channels_last,
            workers=self.workers,
        )

        def start() -> tuple[Iterator[list[Batch]], Callable[[], None]]:
            source = batches.batches(0)
            return iter(lambda: [next(source) for _ in range(spec.accumulation)], None), batches.close

        return start


@dataclass(frozen=True, kw_only=True)
class UsualTraining(TrainingSystem):
    """Dataset and DataLoader, torchvision's transforms on one image after the other, autocast, SGD."""

    tf32: bool = False
    """In fp32 on a GPU: round what goes into convolutions to TF32, as torch does by itself; ours never does."""

    def settings(self) -> dict[str, Any]:
        """Return the facts of the row."""
        return super().settings() | ({"precision": "tf32"} if self.tf32 else {})

    def parts(self, spec: TrainSpec, split: Split | None, device: torch.device) -> tuple[Source, Callable[[Any], None]]:
        """Return the loader and a step."""
        if device.type == "cuda":
            torch.backends.cudnn.benchmark = True
        use(device)
        if self.tf32:
            torch.backends.cudnn.allow_tf32 = True
        model = usual_model(spec).to(device=device, memory_format=self.layout()).train()  # pyright: ignore
        sgd = spec.optimizer
        optimizer = torch.optim.SGD(model.parameters(), sgd.base_lr, sgd.momentum, weight_decay=sgd.weight_decay)
        criterion = nn.CrossEntropyLoss(label_smoothing=spec.label_smoothing)
        scaler = torch.amp.GradScaler(device.type, enabled=self.precision == "fp16")
        fast: Any = torch.compile(model, dynamic=False) if self.compile else model
        layout = self.layout()
        is_pinned = device.type == "cuda"  # elsewhere, a copy that nobody waits for can read memory that was freed

        def step(batch: tuple[Tensor, Tensor]) -> None:
            images = batch[0].to(device, non_blocking=is_pinned).contiguous(memory_format=layout)
            labels = batch[1].to(device, non_blocking=is_pinned)
            for part, targets in zip(images.chunk(spec.accumulation), labels.chunk(spec.accumulation), strict=True):
                with autocast(self.precision, device):
                    loss = criterion(fast(part), targets)
                scaler.scale(loss / spec.accumulation).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()

        return self._source(spec, split, device), step

    def _source(self, spec: TrainSpec, split: Split | None, device: torch.device) -> Source:
        if split is None:
            batch = fixed_batch(spec, device, self.layout())
            return lambda: (iter(lambda: batch, None), lambda: None)
        loader = DataLoader(
            _Images(spec, split),
            spec.global_batch,
            shuffle=True,
            drop_last=True,
            num_workers=self.workers,
            pin_memory=device.type == "cuda",
            multiprocessing_context=_WORKER_START if self.workers else None,
        )

        def start() -> tuple[Iterator[Any], Callable[[], None]]:
            current: list[Any] = []

            def batches() -> Iterator[Any]:
                while True:
                    current[:] = [iter(loader)]
                    yield from current[0]

            def close() -> None:
                if current and self.workers:
                    current[0]._shutdown_workers()

            return batches(), close

        return start


class _Images(TorchDataset[Any]):
    """Images of a split, one by one, as most training scripts make them."""

    def __init__(self, spec: TrainSpec, split: Split) -> None:
        self._split = split
        self._transform = usual_transform(spec)

    def __len__(self) -> int:
        return len(self._split)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        from PIL import Image

        if isinstance(self._split, FileSplit):
            with Image.open(self._split.images.path(index)) as opened:
                image = opened.convert("RGB")
        else:
            pixels = self._split.images[index]
            image = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0])
        return self._transform(image), int(self._split.labels[index])


def usual_transform(spec: TrainSpec) -> Callable[[Any], Tensor]:
    """Return torchvision's transforms for the crops of a recipe, to normalised float32."""
    from torchvision import transforms
    from torchvision.transforms import v2

    channels, side = spec.model.in_channels, spec.dataset.image_px if isinstance(spec.dataset, ImageFolder) else 0
    match spec.augment:
        case PadCrop(pad_px=pad):
            side = spec.dataset.image_px if isinstance(spec.dataset, Cifar) else 8
            crop: list[Any] = [transforms.RandomCrop(side, pad)]
        case AreaCrop(min_area=least, max_aspect=aspect):
            crop = [transforms.RandomResizedCrop(side, (least, 1.0), (1 / aspect, aspect))]
        case ScaleCrop(min_resize_px=shortest, max_resize_px=longest):
            crop = [v2.RandomShortestSize(list(range(shortest, longest + 1))), transforms.RandomCrop(side)]
    mirror = [transforms.RandomHorizontalFlip()] if spec.augment.flip else []
    means, deviations = ([value / 255 for value in values[:channels]] for values in (IMAGENET_MEAN, IMAGENET_STD))
    normalise = transforms.Normalize(means, deviations)
    return transforms.Compose([*crop, *mirror, transforms.ToTensor(), normalise])


def usual_model(spec: TrainSpec) -> nn.Module:
    """Return the net of a recipe as others have it; ours where nobody has it."""
    return torchvision_net(spec.model) or plain_cifar_net(spec.model) or build(spec.model)


def split_for(system: TrainingSystem) -> tuple[TrainSpec, Split | None]:
    """Return the recipe with the classes of its data, and the training images; None for the step alone.

    Raises:
        DataError: the data cannot be read.
    """
    spec = system.spec
    if system.data == "none":
        return spec, None
    if system.data == "noise":
        assert isinstance(spec.dataset, Cifar)
        generator, side = np.random.default_rng(0), spec.dataset.image_px
        images = generator.integers(0, 256, (NOISE_IMAGES, side, side, 3), np.uint8)
        return spec, ResidentSplit(images=images, labels=generator.integers(0, spec.model.num_classes, NOISE_IMAGES))
    dataset = open_dataset(spec.dataset, system.root)
    split = dataset.splits["train"]
    channels = split.images.shape[3] if isinstance(split, ResidentSplit) else 3
    changes: dict[str, Any] = {"num_classes": len(dataset.classes), "in_channels": channels}
    return replace(spec, model=replace(spec.model, **changes)), split


def fixed_batch(spec: TrainSpec, device: torch.device, layout: torch.memory_format) -> tuple[Tensor, Tensor]:
    """Return one batch of noise on the device, as large as a pass of the recipe."""
    side = spec.dataset.image_px if isinstance(spec.dataset, ImageFolder | Cifar) else 8
    count = spec.global_batch // spec.accumulation
    images = torch.randn(count, spec.model.in_channels, side, side).to(device).contiguous(memory_format=layout)
    return images, torch.randint(spec.model.num_classes, (count,)).to(device)


def _statistics(spec: TrainSpec, split: Split) -> Statistics | None:
    """Return a mean image of noise where the recipe subtracts one: it takes as long, and need not be computed."""
    if not isinstance(spec.dataset, ImageFolder) or not spec.dataset.mean_image:
        return None
    side = spec.dataset.image_px
    mean_image = np.random.default_rng(0).random((side, side, 3)).astype(np.float32) * 255
    return Statistics(mean_image=mean_image, axes=np.eye(3), eigenvalues=np.ones(3), images=len(split))


def _turn(start: Source, step: Callable[[Any], None], steps: int, unmeasured: int, device: torch.device) -> float:
    """Return the mean seconds of a step, over `steps` of them after some that are not measured.

    On an NVIDIA GPU its own clock is read; what was cached on a GPU is given back for the turns of the others.
    """
    with is_current(device):
        batches, close = start()
        try:
            for _ in range(unmeasured):
                step(next(batches))
            wait_for(device)
            if device.type == "cuda":
                first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                first.record()
                for _ in range(steps):
                    step(next(batches))
                last.record()
                wait_for(device)
                seconds = first.elapsed_time(last) / 1e3
            else:
                started = time.perf_counter()
                for _ in range(steps):
                    step(next(batches))
                wait_for(device)
                seconds = time.perf_counter() - started
        finally:
            close()
        give_back(device)
    return seconds / steps

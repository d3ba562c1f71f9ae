"""Whole loaders with worker processes, for the loader benchmark: from files to uint8 batches in the training process.

A turn starts the workers anew and ends them, so that nothing is read ahead while others are measured, and what was read
ahead before the first batch was taken is not counted.
"""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader, Dataset

from resnets.studies.bench import Prepared, System
from resnets.studies.bench_crops import CropPlan
from resnets.studies.bench_pipelines import our_files, reference_maker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

BATCHES_A_WORKER = 6
_READ_AHEAD = 2
"""Batches a worker that torch's loader reads ahead by default."""


@dataclass(frozen=True, kw_only=True)
class Loader(System):
    """A loader with worker processes; subclasses say which."""

    plan: CropPlan
    workers: int
    alone: str
    """The system that does the same on one core."""

    def prepare(self) -> Prepared:
        """Return the function that starts the loader, waits until what was read ahead is used up, and takes the time."""
        start = self.starter()
        measured, unmeasured = BATCHES_A_WORKER * self.workers, _READ_AHEAD * self.workers + 1

        def run(number: int) -> float:
            batches, close = start(number * (measured + unmeasured))
            try:
                for _ in range(unmeasured):
                    next(batches)
                started = time.perf_counter()
                for _ in range(measured):
                    next(batches)
                return time.perf_counter() - started
            finally:
                close()

        return Prepared(run, {"workers": self.workers, "alone": self.alone})

    def starter(self) -> Callable[[int], tuple[Iterator[Any], Callable[[], None]]]:
        """Return what gives endless batches from a number on, and ends their processes."""
        raise NotImplementedError


class OurLoader(Loader):
    """The product's."""

    def starter(self) -> Callable[[int], tuple[Iterator[Any], Callable[[], None]]]:
        """Return what starts it."""
        from resnets.data.read_ahead import decoded_batches

        files = our_files(self.plan)

        def start(first: int) -> tuple[Iterator[Any], Callable[[], None]]:
            numbers = (number % len(self.plan.batches) for number in itertools.count(first))
            batches = decoded_batches(files, numbers, workers=self.workers, device=torch.device("cpu"))
            return batches, batches.close

        return start


class UsualLoader(Loader):
    """torch's DataLoader over a dataset that makes one crop as torchvision's reference does."""

    def starter(self) -> Callable[[int], tuple[Iterator[Any], Callable[[], None]]]:
        """Return what starts it."""
        images = _Crops(self.plan)

        def start(first: int) -> tuple[Iterator[Any], Callable[[], None]]:
            loader = DataLoader(
                images,
                self.plan.batch,
                sampler=itertools.count(first * self.plan.batch),  # pyright: ignore[reportArgumentType]
                num_workers=self.workers,
                multiprocessing_context="fork",
            )
            batches: Any = iter(loader)
            return batches, batches._shutdown_workers

        return start


class _Crops(Dataset[Any]):
    """The crops of the plan, one after the other."""

    def __init__(self, plan: CropPlan) -> None:
        self._plan = plan
        self._make = reference_maker(plan.side)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        number, place = divmod(index, self._plan.batch)
        return self._make(self._plan[number][place]), 0

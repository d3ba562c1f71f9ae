"""The speed of loading: photographs as encoded files to training crops, ours beside the usual ways and other libraries.

On one core, every system cuts the same boxes out of the same photographs, batch after batch in turn. With workers, the
whole loaders take turns too, from the files to the batch in the process that would train.
"""

from __future__ import annotations

import dataclasses
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from resnets.specs.errors import UserError, counted
from resnets.studies.bench import System, benchmark, chosen
from resnets.studies.bench_crops import large_photographs, photographs, plan_crops
from resnets.studies.bench_loaders import BATCHES_A_WORKER, OurLoader, UsualLoader
from resnets.studies.bench_pipelines import (
    OpenCV,
    Ours,
    PillowDraft,
    PillowTorchvision,
    SimpleJpeg,
    Timm,
    TorchvisionIO,
    WebDataset,
)
from resnets.studies.bench_shards import SHORTER_PX, OurShards, PillowOnResized
from resnets.studies.timing import spread

if TYPE_CHECKING:
    from collections.abc import Sequence

    from resnets.studies.bench import Benchmark, Row
    from resnets.studies.bench_crops import CropPlan

REFERENCE = "Pillow + torchvision"
OURS = "resnets"
ROUNDS = 15
BATCH = 32
SIDE = 224
MOST_PHOTOGRAPHS = 2_000
LARGE_COUNT = 8
MOST_MEGABYTES = 30
"""Of a photograph of 12 megapixels: its pixels are 36."""


def bench_data(
    data: Path,
    *,
    workers: Sequence[int] = (),
    large_mb: float = 0.0,
    shards: bool = False,
    side: int = SIDE,
    batch: int | None = None,
    rounds: int = ROUNDS,
    only: Sequence[str] = (),
    quiet: bool = False,
) -> Benchmark:
    """Return images a second of each system on one core and, for each count of `workers`, of the whole loaders.

    Args:
        data: a folder of photographs, with or without subfolders.
        workers: numbers of processes; each adds our loader and the usual one.
        large_mb: measure on photographs of 12 megapixels and so many megabytes, made from those of `data` in a
            temporary folder; 0: on those of `data`.
        shards: measure shards too, in which the photographs are resized to a shorter side of 256 pixels.
        side: of the crops, in pixels.
        batch: crops a system makes in its turn; None is 32, of large photographs 8.
        rounds: turns of each system that count.
        only: words; systems whose names have none of them are left out, except the references.
        quiet: show no progress.

    Raises:
        UserError: there are no photographs, or a number is wrong.
    """
    _check(side=side, batch=1 if batch is None else batch, rounds=rounds, workers=min(workers, default=1))
    if not 0 <= large_mb <= MOST_MEGABYTES:
        raise UserError(f"--large is {large_mb:g}; it is above 0 and at most {MOST_MEGABYTES} MB, by default 3.")
    paths, left_out = photographs(data, MOST_PHOTOGRAPHS)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="resnets-bench-")))
        if large_mb:
            paths = large_photographs(paths, folder, LARGE_COUNT, large_mb)
        plan = plan_crops(paths, side=side, batch=batch or (LARGE_COUNT if large_mb else BATCH), batches=rounds + 1)
        systems: list[System] = [*one_core_systems(plan, folder)]
        if shards:
            systems += shard_systems(plan, folder)
        for count in workers:
            systems += loader_systems(plan, count)
        found = benchmark(
            chosen(systems, only),
            what=f"random crops of {side} x {side} pixels, uint8, from {plan.about}",
            rounds=rounds,
            threads=1,
            settings={
                "data": str(data),
                "large_mb": large_mb,
                "shards": shards,
                "batch": plan.batch,
                "side": side,
                "workers": list(workers),
            },
            notes=_notes(left_out, large=large_mb > 0),
            quiet=quiet,
        )
    return dataclasses.replace(found, rows=tuple(_with_share(row, found.rows) for row in found.rows))


def one_core_systems(plan: CropPlan, folder: Path) -> list[System]:
    """Return the systems that one thread is measured with, the reference first; `folder` is theirs for a while."""
    return [
        PillowTorchvision(name=REFERENCE, images=plan.batch, plan=plan),
        Ours(name=OURS, images=plan.batch, plan=plan),
        PillowDraft(name="Pillow draft", images=plan.batch, plan=plan),
        TorchvisionIO(name="torchvision.io + v2", images=plan.batch, plan=plan),
        OpenCV(name="OpenCV", images=plan.batch, plan=plan),
        SimpleJpeg(name="simplejpeg + Pillow", images=plan.batch, plan=plan),
        Timm(name="timm transforms", images=plan.batch, plan=plan),
        WebDataset(name="webdataset", images=plan.batch, plan=plan, folder=folder),
    ]


def shard_systems(plan: CropPlan, folder: Path) -> list[System]:
    """Return the systems that read photographs which were resized once, with those of the reference on the same."""
    return [
        PillowOnResized(name=f"Pillow + torchv., {SHORTER_PX}", images=plan.batch, plan=plan, folder=folder),
        OurShards(name=f"resnets, shards {SHORTER_PX}", images=plan.batch, plan=plan, folder=folder, raw=False),
        OurShards(name=f"resnets, raw {SHORTER_PX}", images=plan.batch, plan=plan, folder=folder, raw=True),
    ]


def loader_systems(plan: CropPlan, workers: int) -> list[System]:
    """Return our loader and the usual one with `workers` processes."""
    suffix, images = counted(workers, "worker"), plan.batch * BATCHES_A_WORKER * workers
    usual, ours = f"DataLoader, {suffix}", f"{OURS}, {suffix}"
    return [
        UsualLoader(name=usual, images=images, plan=plan, workers=workers, alone=REFERENCE, against=usual),
        OurLoader(name=ours, images=images, plan=plan, workers=workers, alone=OURS, against=usual),
    ]


def _with_share(row: Row, rows: Sequence[Row]) -> Row:
    """Return the row of a loader with its share of workers times what one core does, from the ratios of the rounds."""
    alone = next((other for other in rows if other.system == row.facts.get("alone")), None)
    if alone is None or not alone.round_rates or not row.round_rates:
        return row
    workers = row.facts["workers"]
    shares = spread(loaded / (workers * one) for loaded, one in zip(row.round_rates, alone.round_rates, strict=True))
    share = {"of_linear": round(shares.median, 3), "of_linear_spread": [round(shares.low, 3), round(shares.high, 3)]}
    return dataclasses.replace(row, facts=row.facts | share)


def _notes(left_out: int, *, large: bool) -> list[str]:
    notes = []
    if left_out:
        notes.append(
            f"{counted(left_out, 'file')} left out: no JPEG, no RGB or gray, to be turned, or damaged, which the systems "
            "treat in different ways."
        )
    if large:
        notes.append(
            "The photographs of 12 megapixels are real ones enlarged, with as much grain as brings them to these bytes at quality 90."
        )
    return notes


def _check(*, side: int, batch: int, rounds: int, workers: int) -> None:
    for name, value in (("size", side), ("batch", batch), ("rounds", rounds), ("workers", workers)):
        if value < 1:
            raise UserError(f"--{name} is {value}; it is at least 1.")

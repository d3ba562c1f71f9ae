"""Training crops from shards, for the loader benchmark: photographs that were resized once, as JPEG or as raw pixels.

The crops are those of the plan. Their fidelity is measured twice: against the photographs as they were, which shows what
the resizing has cost, and against the reference's crops of the stored images, which shows how exactly we crop.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from resnets import api
from resnets.data.decode import read_image
from resnets.data.listing import undivided
from resnets.data.open import list_images
from resnets.data.raw_pixels import RAW_MAGIC
from resnets.data.splits import FileSplit
from resnets.studies.bench import Prepared
from resnets.studies.bench_crops import CropPlan, fidelity, plan_crops
from resnets.studies.bench_pipelines import PillowTorchvision, Pipeline, our_boxes, our_files

if TYPE_CHECKING:
    from resnets.data.sources import ImageSource

SHORTER_PX = 256
"""To which the photographs are resized."""


@dataclass(frozen=True, kw_only=True)
class OurShards(Pipeline):
    """The product on shards that `resnets prepare --resize 256` makes, or with `--raw`."""

    folder: Path
    raw: bool

    def prepare(self) -> Prepared:
        """Make the shards, and return the function that makes a batch from them."""
        images = resized(self.plan, self.folder, raw=self.raw)
        files = our_files(self.plan, FileSplit(images=images, labels=np.zeros(len(images), np.int64)))
        pixels = files[0].pixels.numpy()

        def run(number: int) -> None:
            _ = files[number % len(self.plan.batches)]

        stored = np.mean([len(images.read(index)) for index in range(len(images))])
        about: dict[str, Any] = {"boxes": "whole pixels", "kilobytes": round(float(stored) / 1e3, 1)}
        about |= fidelity(lambda place: pixels[place], self.plan, fractional=False)
        stored_plan = stored_as_files(self.plan, images, self.folder / f"stored-{'raw' if self.raw else 'jpeg'}")
        boxes = our_boxes(stored_plan)
        exactness = fidelity(lambda place: pixels[place], stored_plan, fractional=False, boxes=boxes)
        return Prepared(run, about | {f"{name}_of_stored": value for name, value in exactness.items()})


@dataclass(frozen=True, kw_only=True)
class PillowOnResized(PillowTorchvision):
    """The reference on the same resized JPEGs, as files."""

    folder: Path

    def prepare(self) -> Prepared:
        """Write the files, and return the function that makes a batch from them."""
        images = resized(self.plan, self.folder, raw=False)
        smaller = stored_as_files(self.plan, images, self.folder / "resized-files")
        prepared = replace(self, plan=smaller).ready()
        make = replace(self, plan=smaller).maker()
        close = fidelity(
            lambda place: make(smaller[0][place]).permute(1, 2, 0).numpy(),  # pyright: ignore[reportAttributeAccessIssue]
            self.plan,
            fractional=False,
        )
        return replace(prepared, facts=prepared.facts | close)


def stored_as_files(plan: CropPlan, images: ImageSource, folder: Path) -> CropPlan:
    """Write stored images to files of the same pixels, and return the plan on them.

    The draws are those of `plan`, so the boxes are the same parts of smaller images.
    """
    folder.mkdir(exist_ok=True)
    paths = []
    for index in range(len(images)):
        content = images.read(index)
        if content.startswith(RAW_MAGIC):
            paths.append(folder / f"{index:06d}.png")
            read_image(content).save(paths[-1], compress_level=1)
        else:
            paths.append(folder / f"{index:06d}.jpg")
            paths[-1].write_bytes(content)
    return plan_crops(paths, side=plan.side, batch=plan.batch, batches=len(plan.batches))


def resized(plan: CropPlan, folder: Path, *, raw: bool) -> ImageSource:
    """Return the photographs of the plan in its order, from shards that are made below `folder` where they are not."""
    source = folder / "photographs" / "all"
    if not source.exists():
        source.mkdir(parents=True)
        for index, path in enumerate(plan.paths):
            (source / f"{index:06d}.jpg").symlink_to(path.resolve())
    shards = folder / f"shards-{'raw' if raw else 'jpeg'}"
    api.prepare(source.parent, shards, resize_px=SHORTER_PX, raw=raw, workers=0)
    (split,) = undivided(list_images(shards, to_train=False)).splits.values()
    assert isinstance(split, FileSplit)
    names = [Path(split.images.name(index)).stem for index in range(len(split))]
    if names != [f"{index:06d}" for index in range(len(plan.paths))]:
        raise RuntimeError("the shards do not hold all photographs in their order")
    return split.images

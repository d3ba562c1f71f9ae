"""Ways from a JPEG file to a training crop, each at its best: what a turn of the loader benchmark does on one core.

All deliver a batch of uint8 RGB crops as one tensor, mirrored where the plan says so. Libraries that can decode a JPEG
at 1/2, 1/4 or 1/8 of its size do so where the crop is that much larger than what it is resized to.
"""

from __future__ import annotations

import math
import tarfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from resnets.data.augment import AREA_CROP_DRAWS
from resnets.data.order import TrainingStream
from resnets.studies.bench import Need, Prepared, System
from resnets.studies.bench_crops import AUGMENT, SEED, Crop, CropPlan, fidelity

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

_MIRROR = Image.Transpose.FLIP_LEFT_RIGHT


@dataclass(frozen=True, kw_only=True)
class Pipeline(System):
    """A library's way, crop by crop; subclasses say how one is made."""

    plan: CropPlan
    fractional: bool = False
    """Whether it cuts the exact box, or whole pixels."""

    def prepare(self) -> Prepared:
        """Return the function that makes a batch, and how close its crops are to the reference's."""
        make = self.maker()

        def first(place: int) -> np.ndarray:
            made = make(self.plan[0][place])
            return made.permute(1, 2, 0).numpy() if isinstance(made, torch.Tensor) else made

        ready = self.ready()
        return replace(ready, facts=ready.facts | fidelity(first, self.plan, fractional=self.fractional))

    def ready(self) -> Prepared:
        """Return the function that makes a batch."""
        make = self.maker()

        def run(number: int) -> None:
            _stack([make(crop) for crop in self.plan[number]])

        return Prepared(run, self.about())

    def maker(self) -> Callable[[Crop], Tensor | np.ndarray]:
        """Return what makes a crop: a tensor (3, side, side) or an array (side, side, 3)."""
        raise NotImplementedError

    def about(self) -> dict[str, Any]:
        """Return facts for the row."""
        boxes = "exact" if self.fractional else "whole pixels"
        return {"boxes": boxes, "kilobytes": round(self.plan.mean_bytes / 1e3, 1)}


class PillowTorchvision(Pipeline):
    """The reference of torchvision's training scripts: Pillow decodes, crops, resizes with antialiasing, mirrors."""

    def maker(self) -> Callable[[Crop], Tensor | np.ndarray]:
        """Return the reference."""
        make = _reference_of_image(self.plan.side)

        def crop(one: Crop) -> Tensor:
            with Image.open(one.path) as opened:
                return make(opened.convert("RGB"), one)

        return crop


class TorchvisionIO(Pipeline):
    """torchvision's own decoder and the transforms of its version 2, on tensors."""

    def maker(self) -> Callable[[Crop], Tensor | np.ndarray]:
        """Return what makes a crop."""
        from torchvision.io import ImageReadMode, decode_jpeg, read_file
        from torchvision.transforms.v2 import functional

        size = [self.plan.side, self.plan.side]

        def crop(one: Crop) -> Tensor:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # torchvision 0.29 points to TorchCodec
                image: Any = decode_jpeg(read_file(str(one.path)), mode=ImageReadMode.RGB)
            left, top, width, height = one.whole
            image = functional.resized_crop(image, top, left, height, width, size, antialias=True)
            return functional.horizontal_flip(image) if one.flip else image

        return crop


@dataclass(frozen=True, kw_only=True)
class PillowDraft(Pipeline):
    """Pillow alone, decoding at a smaller size where that is enough."""

    fractional: bool = True

    def maker(self) -> Callable[[Crop], Tensor | np.ndarray]:
        """Return what makes a crop."""
        side = self.plan.side

        def crop(one: Crop) -> np.ndarray:
            scale = one.scale(side)
            with Image.open(one.path) as image:
                image.draft("RGB", (one.width // scale, one.height // scale))
                return _resized(image.convert("RGB"), one, side)

        return crop


@dataclass(frozen=True, kw_only=True)
class SimpleJpeg(Pipeline):
    """simplejpeg (libjpeg-turbo) decodes, at a smaller size where that is enough; Pillow resizes."""

    fractional: bool = True
    needs: tuple[Need, ...] = (Need("simplejpeg", "simplejpeg"),)

    def maker(self) -> Callable[[Crop], Tensor | np.ndarray]:
        """Return what makes a crop."""
        import simplejpeg  # pyright: ignore[reportMissingImports]

        side = self.plan.side

        def crop(one: Crop) -> np.ndarray:
            scale = one.scale(side)
            pixels = simplejpeg.decode_jpeg(
                one.path.read_bytes(),
                colorspace="RGB",
                min_height=math.ceil(one.height / scale),
                min_width=math.ceil(one.width / scale),
            )
            return _resized(Image.fromarray(pixels), one, side)

        return crop


@dataclass(frozen=True, kw_only=True)
class OpenCV(Pipeline):
    """OpenCV decodes, at a smaller size where that is enough, and resizes: area averages where it shrinks."""

    needs: tuple[Need, ...] = (Need("cv2", "opencv-python-headless"),)

    def maker(self) -> Callable[[Crop], Tensor | np.ndarray]:
        """Return what makes a crop."""
        import cv2  # pyright: ignore[reportMissingImports]

        cv2.setNumThreads(1)
        side = self.plan.side
        modes = {
            1: cv2.IMREAD_COLOR,
            2: cv2.IMREAD_REDUCED_COLOR_2,
            4: cv2.IMREAD_REDUCED_COLOR_4,
            8: cv2.IMREAD_REDUCED_COLOR_8,
        }

        def crop(one: Crop) -> np.ndarray:
            scale = one.scale(side)
            image = cv2.imread(str(one.path), modes[scale] | cv2.IMREAD_IGNORE_ORIENTATION)
            left, top, width, height = (round(value / scale) for value in one.whole)
            part = image[top : top + max(1, height), left : left + max(1, width)]
            shrinks = min(part.shape[:2]) > side
            part = cv2.resize(part, (side, side), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
            part = cv2.cvtColor(part, cv2.COLOR_BGR2RGB)
            return cv2.flip(part, 1) if one.flip else part

        return crop


@dataclass(frozen=True, kw_only=True)
class Timm(Pipeline):
    """timm's training transform, to the uint8 batches that its loader sends to the device."""

    needs: tuple[Need, ...] = (Need("timm", "timm"),)
    note: str = "draws boxes of its own, from the same distribution"

    def prepare(self) -> Prepared:
        """Return the function that makes a batch; there is no crop to compare with the reference's."""
        ready = self.ready()
        return replace(ready, facts=ready.facts | {"boxes": "its own"})

    def maker(self) -> Callable[[Crop], Tensor | np.ndarray]:
        """Return what makes a crop."""
        from timm.data.transforms_factory import create_transform  # pyright: ignore[reportMissingImports]

        transform: Any = create_transform(
            self.plan.side,
            is_training=True,
            use_prefetcher=True,
            scale=(AUGMENT.min_area, 1.0),
            ratio=(1 / AUGMENT.max_aspect, AUGMENT.max_aspect),
            interpolation="bilinear",
            color_jitter=None,
        )

        def crop(one: Crop) -> Tensor:
            with Image.open(one.path) as opened:
                return torch.as_tensor(np.asarray(transform(opened.convert("RGB"))))

        return crop


@dataclass(frozen=True, kw_only=True)
class WebDataset(Pipeline):
    """The same JPEG files in a tar archive, read by webdataset, then as in the reference."""

    folder: Path
    needs: tuple[Need, ...] = (Need("webdataset", "webdataset"),)
    note: str = "reads a tar of the same files, one after the other"

    def prepare(self) -> Prepared:
        """Write the archive, in the order in which the crops are made, and return what makes a batch."""
        import webdataset as installed  # pyright: ignore[reportMissingImports]

        webdataset: Any = installed

        archive = self.folder / "photographs.tar"
        with tarfile.open(archive, "w") as tar:
            for number, batch in enumerate(self.plan.batches):
                for place, crop in enumerate(batch):
                    tar.add(crop.path, f"{number:04d}{place:04d}.jpg")
        make = _reference_of_image(self.plan.side)
        samples = iter(webdataset.WebDataset(str(archive), shardshuffle=False).decode("pil").repeat())

        def run(number: int) -> None:
            _stack([make(next(samples)["jpg"], crop) for crop in self.plan[number]])

        return Prepared(run, self.about())


@dataclass(frozen=True, kw_only=True)
class Ours(Pipeline):
    """The product: what a worker process of `resnets train` does for a batch."""

    def prepare(self) -> Prepared:
        """Return the function that makes a batch, and how close its crops are to the reference's."""
        files = our_files(self.plan)
        pixels = files[0].pixels.numpy()

        def run(number: int) -> None:
            _ = files[number % len(self.plan.batches)]

        return Prepared(
            run,
            self.about()
            | fidelity(lambda place: pixels[place], self.plan, fractional=False, boxes=our_boxes(self.plan)),
        )


def our_boxes(plan: CropPlan) -> list[tuple[int, int, int, int]]:
    """Return the pixels of the photographs that we cut for the first batch: left, top, width, height."""
    from resnets.data.crop import place_crop
    from resnets.data.window import open_encoded

    stream = _stream(plan)
    draws = stream.uniforms(stream.positions(0), AREA_CROP_DRAWS)
    boxes = []
    for crop, uniforms in zip(plan[0], draws, strict=True):
        with open_encoded(crop.path, color="rgb") as image:
            divisor, left, top, right, bottom = place_crop(image, AUGMENT, plan.side, uniforms[:-1]).window
        right, bottom = min(crop.width, right * divisor), min(crop.height, bottom * divisor)
        boxes.append((left * divisor, top * divisor, right - left * divisor, bottom - top * divisor))
    return boxes


def _stream(plan: CropPlan) -> TrainingStream:
    return TrainingStream(seed=SEED, num_images=len(plan.paths), global_batch=plan.batch)


def our_files(plan: CropPlan, split: Any = None) -> Any:
    """Return the training files of the plan, or of a split that holds its photographs; item n is its n-th batch."""
    from resnets.data.loader import TrainingFiles
    from resnets.data.preprocess import Preprocessor
    from resnets.data.sources import FolderFiles
    from resnets.data.splits import FileSplit
    from resnets.specs.preprocess import Preprocess

    split = split or FileSplit(images=FolderFiles.of(plan.paths), labels=np.zeros(len(plan.paths), np.int64))
    spec = Preprocess(resize_px=plan.side, crop_px=plan.side, mean=(0.0,) * 3, std=(1.0,) * 3)
    return TrainingFiles(split, Preprocessor(spec), AUGMENT, _stream(plan))


def _reference_of_image(side: int) -> Callable[[Image.Image, Crop], Tensor]:
    from torchvision.transforms import functional

    size = [side, side]

    def make(image: Image.Image, crop: Crop) -> Tensor:
        left, top, width, height = crop.whole
        image = functional.resized_crop(image, top, left, height, width, size)  # pyright: ignore
        return functional.pil_to_tensor(functional.hflip(image) if crop.flip else image)  # pyright: ignore

    return make


def reference_maker(side: int) -> Callable[[Crop], Tensor]:
    """Return what makes a crop as torchvision's reference does, for loaders that are measured with it."""
    make = _reference_of_image(side)

    def crop(one: Crop) -> Tensor:
        with Image.open(one.path) as opened:
            return make(opened.convert("RGB"), one)

    return crop


def _resized(image: Image.Image, crop: Crop, side: int) -> np.ndarray:
    """Return the crop of a photograph that may have been decoded smaller than it is."""
    across, down = image.width / crop.width, image.height / crop.height
    left, top, right, bottom = crop.box
    box = (left * across, top * down, min(right * across, image.width), min(bottom * down, image.height))
    image = image.resize((side, side), Image.Resampling.BILINEAR, box=box, reducing_gap=2.0)
    return np.asarray(image.transpose(_MIRROR) if crop.flip else image)


def _stack(crops: list[Tensor | np.ndarray]) -> Tensor:
    if isinstance(crops[0], torch.Tensor):
        return torch.stack(crops)  # pyright: ignore[reportArgumentType]
    return torch.from_numpy(np.stack(crops))  # pyright: ignore[reportArgumentType, reportCallIssue]

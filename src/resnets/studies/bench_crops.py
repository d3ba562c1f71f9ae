"""The photographs of a loader benchmark, and which crop of each is taken when: the same for every system.

The crops are those of the training stream: a share of 8 to 100 % of the area at an aspect ratio of 3/4 to 4/3, half of
them mirrored, resized to a square. Most libraries cut whole pixels, so each crop has its exact box and a rounded one.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from resnets.data.augment import AREA_CROP_DRAWS, area_crop_box, mirrored
from resnets.data.decode import is_image_name
from resnets.data.order import TrainingStream
from resnets.specs.data import AreaCrop
from resnets.specs.errors import DataError, counted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jaxtyping import UInt8

AUGMENT = AreaCrop(min_area=0.08)
"""What torchvision's RandomResizedCrop draws."""
SEED = 0
LARGE_PX = (4000, 3000)
"""Width and height of a photograph of 12 megapixels."""
_ORIENTATION = 0x0112
_MOST_GRAIN = 16.0
_GRAIN_HALVINGS = 6


@dataclass(frozen=True, kw_only=True, slots=True)
class Crop:
    """One crop of one photograph."""

    path: Path
    width: int
    """Of the photograph."""
    height: int
    box: tuple[float, float, float, float]
    """Left, top, right, bottom, in its pixels and fractions of them."""
    flip: bool

    @property
    def whole(self) -> tuple[int, int, int, int]:
        """The box in whole pixels: left, top, width, height."""
        left, top, right, bottom = (round(edge) for edge in self.box)
        return left, top, max(1, right - left), max(1, bottom - top)

    def scale(self, side: int) -> int:
        """Return how many times smaller a JPEG may be decoded, so that the crop still has `side` pixels: 1, 2, 4 or 8."""
        shrink = min(self.box[2] - self.box[0], self.box[3] - self.box[1]) / side
        return 1 << min(3, max(0, math.floor(math.log2(shrink))))


@dataclass(frozen=True, kw_only=True, slots=True)
class CropPlan:
    """What is cropped, batch after batch."""

    paths: tuple[Path, ...]
    side: int
    """Of the squares that crops are resized to."""
    batch: int
    batches: tuple[tuple[Crop, ...], ...]
    """The crops of each batch; after the last comes the first again."""
    mean_bytes: float
    """Of the photographs' files."""
    mean_size: tuple[float, float]
    """Mean width and height of the photographs."""

    def __getitem__(self, number: int) -> tuple[Crop, ...]:
        """Return the crops of a batch."""
        return self.batches[number % len(self.batches)]

    @property
    def about(self) -> str:
        """The photographs in a few words."""
        width, height = self.mean_size
        return f"{counted(len(self.paths), 'photograph')} of {width:.0f} x {height:.0f} pixels and {self.mean_bytes / 1e3:.0f} kB on average"


def plan_crops(paths: Sequence[Path], *, side: int, batch: int, batches: int) -> CropPlan:
    """Draw the crops of `batches` batches of `batch` photographs (or as many as there are).

    Raises:
        DataError: there are no photographs.
    """
    if not paths:
        raise DataError("There are no photographs to measure with.")
    batch = min(batch, len(paths))
    sizes = [_size(path) for path in paths]
    stream = TrainingStream(seed=SEED, num_images=len(paths), global_batch=batch)

    def crops(number: int) -> tuple[Crop, ...]:
        positions = stream.positions(number)
        draws = stream.uniforms(positions, AREA_CROP_DRAWS)
        flips = mirrored(AUGMENT, draws[:, -1])
        return tuple(
            Crop(
                path=paths[index],
                width=sizes[index][0],
                height=sizes[index][1],
                box=area_crop_box(AUGMENT, sizes[index][0], sizes[index][1], draws[place, :-1]),
                flip=bool(flips[place]),
            )
            for place, index in enumerate(stream.indices(positions).tolist())
        )

    return CropPlan(
        paths=tuple(paths),
        side=side,
        batch=batch,
        batches=tuple(crops(number) for number in range(batches)),
        mean_bytes=float(np.mean([path.stat().st_size for path in paths])),
        mean_size=(float(np.mean([size[0] for size in sizes])), float(np.mean([size[1] for size in sizes]))),
    )


def photographs(folder: Path, most: int) -> tuple[list[Path], int]:
    """Return up to `most` photographs of a folder, evenly spaced over the sorted paths, and how many were left out.

    Taken are JPEG files, RGB or gray, that need not be turned: what every system of a benchmark reads alike.

    Raises:
        DataError: there is none.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder of photographs.")
    names = sorted(path for path in folder.rglob("*") if path.is_file() and is_image_name(path.name))
    step = max(1.0, len(names) / most)
    names = [names[int(place * step)] for place in range(min(most, len(names)))]
    kept = [path for path in names if _is_plain_jpeg(path)]
    if not kept:
        raise DataError(f"{folder} has no JPEG photographs, RGB or gray, that are stored upright.")
    return kept, len(names) - len(kept)


def large_photographs(sources: Sequence[Path], folder: Path, count: int, megabytes: float) -> list[Path]:
    """Write `count` photographs of 12 megapixels into `folder`: real ones enlarged, with grain, as a camera stores them.

    The time to decode a JPEG follows its bytes, and an enlarged image has few; so each gets as much grain as brings its
    file to `megabytes`, or near it.
    """
    generator = np.random.default_rng(SEED)
    written = []
    for number in range(count):
        with Image.open(sources[number % len(sources)]) as opened:
            image = opened.convert("RGB").resize(LARGE_PX, Image.Resampling.BICUBIC)
        pixels = np.asarray(image, np.float32)
        grain = generator.standard_normal((LARGE_PX[1], LARGE_PX[0], 1), np.float32)
        least, most = 0.0, _MOST_GRAIN
        file = io.BytesIO()
        for _ in range(_GRAIN_HALVINGS):
            strength = (least + most) / 2
            file = io.BytesIO()
            Image.fromarray((pixels + strength * grain).clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
            least, most = (strength, most) if file.tell() < 1e6 * megabytes else (least, strength)
        written.append(folder / f"large-{number}.jpg")
        written[-1].write_bytes(file.getvalue())
    return written


def reference_crop(
    crop: Crop, side: int, *, fractional: bool, whole: tuple[int, int, int, int] | None = None
) -> UInt8[np.ndarray, "side side 3"]:
    """Return a crop by Pillow: decoded in full, resized with the antialiased bilinear filter.

    Args:
        crop: what to cut.
        side: of the result.
        fractional: take the exact box and let the filter see the pixels around it; else the whole pixels alone.
        whole: the whole pixels, where they are others than `crop.whole`: left, top, width, height.
    """
    with Image.open(crop.path) as opened:
        image = opened.convert("RGB")
    if fractional:
        image = image.resize((side, side), Image.Resampling.BILINEAR, box=crop.box)
    else:
        left, top, width, height = whole or crop.whole
        image = image.crop((left, top, left + width, top + height)).resize((side, side), Image.Resampling.BILINEAR)
    return np.asarray(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if crop.flip else image)


def fidelity(
    produced: Callable[[int], UInt8[np.ndarray, "side side 3"]],
    plan: CropPlan,
    *,
    fractional: bool,
    boxes: Sequence[tuple[int, int, int, int]] | None = None,
) -> dict[str, float | int | None]:
    """Return how close a system's crops of the first batch are to the reference's, in decibels.

    `boxes` are the whole pixels that the system cuts, where they are others than the plan's: a photograph that is
    decoded at a fraction of its size is cut at multiples of it. `psnr_db` is over all their pixels, `psnr_db_lowest` that of the worst crop; both are None where all are identical.
    """
    crops = plan[0]
    errors = []
    for place, crop in enumerate(crops):
        whole = None if boxes is None else boxes[place]
        expected = reference_crop(crop, plan.side, fractional=fractional, whole=whole)
        difference = produced(place).astype(np.float64) - expected
        errors.append(float(np.square(difference).mean()))
    return {"psnr_db": _decibels(float(np.mean(errors))), "psnr_db_lowest": _decibels(max(errors))} | {
        "psnr_crops": len(crops)
    }


def _decibels(mean_square: float) -> float | None:
    return round(10 * math.log10(255**2 / mean_square), 1) if mean_square else None


def _size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def _is_plain_jpeg(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            if image.format != "JPEG" or image.mode not in ("RGB", "L"):
                return False
            if image.getexif().get(_ORIENTATION, 1) != 1:
                return False
            image.load()
    except Exception:  # damaged, in as many ways as there are: not what this measures
        return False
    return True

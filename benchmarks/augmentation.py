"""What the paper's colours, mirroring and mean image cost beside decoding and cropping, and what the usual way costs.

    python benchmarks/augmentation.py --photographs FOLDER --out benchmarks/results/DATE-HARDWARE-augmentation.json

All systems read the same photographs, one batch after the other, in one process; each takes its turn with every batch,
and the figure is the median over batches. The first row decodes, resizes to a random shorter side of 256 to 480 pixels
and crops 224 x 224 at a random place. The others add to it: "paper" all that the paper's run does until the batch is
ready for the model. The last row is the usual implementation of the same: torchvision's transforms on one image
after the other, the whole image resized before the crop.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from resnets.cli.bench_screen import print_benchmarks
from resnets.data.decode import is_image_name
from resnets.engine.device import keep_freed_memory
from resnets.studies.bench import Work, benchmark

if TYPE_CHECKING:
    from collections.abc import Callable

    from resnets.studies.bench import Row

BATCH = 16
CROP = "decode and crop"
USUAL = "usual: torchvision transforms, image by image"


def our_systems(paths: tuple[Path, ...]) -> dict[str, Callable[[int], object]]:
    """Return functions that make batch number n, by name; the first only decodes and crops."""
    import torch

    from resnets.data.batches import training_batches
    from resnets.data.loader import TrainingFiles
    from resnets.data.order import TrainingStream
    from resnets.data.preprocess import preprocess_for
    from resnets.data.sources import FolderFiles
    from resnets.data.splits import FileSplit
    from resnets.data.statistics import Statistics
    from resnets.recipes.find import recipe
    from resnets.specs.data import Color, Mix, RandAugment, ScaleCrop

    paper = replace(recipe("imagenet.resnet18"), global_batch=BATCH)
    split = FileSplit(images=FolderFiles.of(paths), labels=np.zeros(len(paths), np.int64))
    mean_image = np.random.default_rng(0).random((224, 224, 3)).astype(np.float32) * 255
    found = Statistics(mean_image=mean_image, axes=np.eye(3), eigenvalues=np.ones(3), images=len(paths))
    preprocessor = preprocess_for(paper.dataset, split, found)
    stream = TrainingStream(seed=0, num_images=len(paths), global_batch=BATCH)
    jitter = Color(pca_std=0.1, brightness=0.4, contrast=0.4, saturation=0.4)

    def of(spec: Any) -> Callable[[int], object]:
        batches = training_batches(split, preprocessor, spec, device=torch.device("cpu"), channels_last=True).batches(0)
        return lambda _: next(batches)

    crops = TrainingFiles(split, preprocessor, ScaleCrop(flip=False), stream)
    return {
        CROP: lambda number: crops[number],
        "paper: mirrored, colours shifted, mean image subtracted": of(paper),
        "paper without the colours": of(replace(paper, color=Color())),
        "paper, and brightness, contrast, saturation": of(replace(paper, color=jitter)),
        "paper, and brightness, contrast, saturation, hue": of(replace(paper, color=replace(jitter, hue=0.1))),
        "paper, and RandAugment": of(replace(paper, policy=RandAugment())),
        "paper, and a quarter erased, mixup or cutmix": of(
            replace(paper, erase_probability=0.25, mix=Mix(mixup_alpha=0.2, cutmix_alpha=1.0))
        ),
    }


def usual_system(paths: tuple[Path, ...]) -> Callable[[int], object]:
    """Return a function that makes batch number n the way most public repositories do."""
    import torch
    from PIL import Image
    from torchvision.transforms import v2

    from resnets.data.color import PUBLISHED_AXES, PUBLISHED_EIGENVALUES

    axes = torch.from_numpy(PUBLISHED_AXES * PUBLISHED_EIGENVALUES).float()
    mean_image = torch.rand(3, 224, 224)
    augment = v2.Compose(
        [
            v2.RandomShortestSize(list(range(256, 481))),
            v2.RandomCrop(224),
            v2.RandomHorizontalFlip(),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
        ]
    )

    def one(path: Path) -> torch.Tensor:
        with Image.open(path) as image:
            pixels = augment(image.convert("RGB"))
        shift = axes @ (torch.randn(3) * 0.1)
        return pixels + shift[:, None, None] - mean_image

    return lambda number: torch.stack([one(paths[(number * BATCH + i) % len(paths)]) for i in range(BATCH)])


def added_to_crop(row: Row) -> str:
    """Return what a row takes beside decoding and cropping, in percent."""
    return "" if row.ratio is None else f"{100 * (1 / row.ratio.median - 1):+.1f} %"


def main() -> None:
    """Measure and print the table; write it as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--photographs", type=Path, required=True, help="folder of photographs, with or without subfolders"
    )
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    keep_freed_memory()  # as training does
    paths = tuple(sorted(path for path in given.photographs.rglob("*") if is_image_name(path.name)))
    systems = our_systems(paths) | {USUAL: usual_system(paths)}
    found = benchmark(
        [Work(name=name, images=BATCH, start=lambda work=work: work) for name, work in systems.items()],
        what=f"training images of 224 pixels from {len(paths)} photographs, batch {BATCH}, one process",
        rounds=given.batches,
        threads=given.threads,
    )
    print_benchmarks([found], [("added", added_to_crop)])
    if given.out:
        found.write(given.out)


if __name__ == "__main__":
    main()

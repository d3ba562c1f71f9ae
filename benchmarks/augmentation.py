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
import json
import os
import platform
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

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
    import torch

    from resnets.artifacts.run_directory import environment
    from resnets.data.decode import is_image_name
    from resnets.engine.device import keep_freed_memory

    keep_freed_memory()  # as training does
    torch.set_num_threads(given.threads)
    paths = tuple(sorted(path for path in given.photographs.rglob("*") if is_image_name(path.name)))
    systems = our_systems(paths) | {USUAL: usual_system(paths)}
    seconds: dict[str, list[float]] = {name: [] for name in systems}
    for number in range(given.batches + 1):
        # Each system is the first to read its images as often as any other.
        first = number % len(systems)
        for name, batch in [*systems.items()][first:] + [*systems.items()][:first]:
            started = time.perf_counter()
            batch(number)
            if number:  # the first batch imports and fills caches
                seconds[name].append((time.perf_counter() - started) / BATCH)
    rows = [
        {
            "system": name,
            "ms_per_image": round(1e3 * statistics.median(times), 3),
            # Each batch against the same images in the same round: what the machine does meanwhile cancels out.
            "added_to_crop_percent": round(
                100 * statistics.median(one / crop - 1 for one, crop in zip(times, seconds[CROP], strict=True)), 1
            ),
            "spread_ms": [round(1e3 * min(times), 3), round(1e3 * max(times), 3)],
        }
        for name, times in seconds.items()
    ]
    for row in rows:
        print(f"{row['ms_per_image']:>8.2f} ms/image {row['added_to_crop_percent']:>+7.1f} %  {row['system']}")
    if given.out:
        here = environment()
        report = {
            "what": f"training images of 224 pixels from {len(paths)} photographs, batch {BATCH}, one process",
            "rows": rows,
            "hardware": {"processor": here["processor"], "cores": os.cpu_count(), "platform": platform.platform()},
            "versions": {"python": here["python"]} | here["versions"],
            "commit": here["commit"],
            "command": f"python benchmarks/augmentation.py --batches {given.batches} --threads {given.threads}",
            "batches": given.batches,
        }
        given.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()

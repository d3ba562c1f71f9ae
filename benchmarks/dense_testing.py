"""Speed of dense five-scale testing on a CPU: ours beside a plain loop over images, decoding included, in one run.

    python benchmarks/dense_testing.py --images FOLDER --out benchmarks/results/DATE-HARDWARE-dense-testing.json

FOLDER holds photographs, in whatever subfolders. Each system is a process of its own (the allocator's settings are a
process's), runs while the others wait, and takes its turn in every round; the figure is the median over rounds.
Every system tests ResNet-18 (torchvision's variant) with the same weights on the same photographs: shorter sides 224,
256, 384, 480 and 640, mirror images, 7x7 windows of the last map, softmax averaged. The first row is what a person
writes: torchvision's net and transforms, one image after the other, one forward pass a size (the image and its mirror
image together), eager fp32 in the default layout. The rows below are the product, and the product with one of its
measures left out. The probabilities of all fp32 systems are checked to agree to 1e-5.

What was learned on two Zen 4 cores: in fp32, 94 % of our time is convolutions at 205 GFLOP/s, which is what these
cores can do, so that no more than about 1.5 times the loop is left to win; bf16 doubles what they can do. Processes
that decode beside the threads that compute cost more than they save (every convolution waits for the slowest of its
threads), so on the CPU the same threads' worth of decoders takes turns with the net. Fusing ReLU and the addition
into the convolutions would save another 5 % in fp32.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from resnets.cli.bench_screen import fact, print_benchmarks
from resnets.studies.bench import Prepared, System, benchmark, chosen

if TYPE_CHECKING:
    from collections.abc import Callable

SIDES = (224, 256, 384, 480, 640)
TOLERANCE = 1e-5


@dataclass(frozen=True, kw_only=True)
class Testing(System):
    """One way to test, as a row of the table."""

    paths: tuple[Path, ...]
    threads: int
    usual: bool = False
    folded: bool = True
    channels_last: bool = True
    precision: str = "fp32"
    workers: int = -1

    def prepare(self) -> Prepared:
        """Build the net, test once, and return the function that tests again."""
        test = usual_tester(self.paths) if self.usual else our_tester(self, self.paths, self.threads)
        return Prepared(lambda _: test(), {"probabilities": test()})


def systems_of(paths: tuple[Path, ...], threads: int) -> list[Testing]:
    """Return the usual way, ours, and ours with one of its measures left out."""
    common: dict[str, Any] = {"images": len(paths), "paths": paths, "threads": threads}
    return [
        Testing(name="usual: eager fp32, one image and size at a time", usual=True, **common),
        Testing(name="ours, fp32", **common),
        Testing(name="ours, fp32, BatchNorm not folded", folded=False, **common),
        Testing(name="ours, fp32, contiguous", channels_last=False, **common),
        Testing(name="ours, fp32, one thread decodes", workers=0, **common),
        Testing(name="ours, bf16", precision="bf16", **common),
    ]


def photographs(folder: Path, count: int) -> tuple[Path, ...]:
    """Return `count` photographs, evenly spaced over the sorted paths."""
    from resnets.data.decode import is_image_name

    paths = sorted(path for path in folder.rglob("*") if path.is_file() and is_image_name(path.name))
    chosen = np.linspace(0, len(paths), min(count, len(paths)), endpoint=False).astype(int)
    return tuple(paths[index] for index in chosen)


def usual_tester(paths: tuple[Path, ...]) -> Callable[[], np.ndarray]:
    """Return a function that tests all photographs the way a person writes it."""
    import torch
    from PIL import Image
    from torch.nn import functional
    from torchvision import transforms
    from torchvision.models import resnet18

    torch.manual_seed(0)
    model = resnet18().eval()
    sized = [
        transforms.Compose(
            [
                transforms.Resize(side),
                transforms.ToTensor(),
                transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
            ]
        )
        for side in SIDES
    ]
    trunk = torch.nn.Sequential(*list(model.children())[:-2])
    score = torch.nn.Conv2d(512, 1000, 1)
    score.load_state_dict({"weight": model.fc.weight[:, :, None, None], "bias": model.fc.bias})

    @torch.no_grad()
    def test() -> np.ndarray:
        rows = []
        for path in paths:
            image = Image.open(path).convert("RGB")
            scores = []
            for transform in sized:
                x = transform(image)
                x = torch.stack([x, x.flip(2)])
                windows = score(functional.avg_pool2d(trunk(x), 7, stride=1))
                scores.append(windows.softmax(1).mean(dim=(0, 2, 3)))
            rows.append(torch.stack(scores).mean(0))
        return torch.stack(rows).numpy()

    return test


def our_tester(system: Testing, paths: tuple[Path, ...], threads: int) -> Callable[[], np.ndarray]:
    """Return a function that tests all photographs with the parts of the product."""
    import torch
    from torchvision.models import resnet18

    from resnets.data.preprocess import Preprocessor
    from resnets.data.sources import FolderFiles
    from resnets.data.splits import FileSplit
    from resnets.engine.device import set_up
    from resnets.engine.distributed import Distributed
    from resnets.models.build import build
    from resnets.models.fold import fold_batch_norm
    from resnets.specs.catalogue import model_spec
    from resnets.specs.data import IMAGENET_MEAN, IMAGENET_STD
    from resnets.specs.preprocess import Preprocess
    from resnets.specs.protocol import Dense
    from resnets.specs.run import Machine
    from resnets.tasks.classify.score import scored_batches

    device = torch.device("cpu")
    set_up(device, Machine(threads=threads))
    model = build(model_spec("resnet18-v1.5")).eval()
    torch.manual_seed(0)
    model.load_state_dict(resnet18().state_dict())
    layout = torch.channels_last if system.channels_last else torch.contiguous_format
    model = (fold_batch_norm(model) if system.folded else model).to(memory_format=layout)  # pyright: ignore[reportCallIssue]
    preprocessor = Preprocessor(Preprocess(resize_px=256, crop_px=224, mean=IMAGENET_MEAN, std=IMAGENET_STD))
    split = FileSplit(images=FolderFiles.of(paths), labels=np.zeros(len(paths), dtype=np.int64))

    def test() -> np.ndarray:
        rows = np.empty((len(paths), 1000), np.float32)
        for batch in scored_batches(
            model,
            split,
            preprocessor,
            Dense(scales_px=SIDES),
            ranks=Distributed(device=device),
            precision=system.precision,
            channels_last=system.channels_last,
            workers=threads if system.workers < 0 else system.workers,
        ):
            rows[batch.indices] = batch.logits.exp().numpy()
        return rows

    return test


def main() -> None:
    """Measure and print the table; write it as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--count", type=int, default=24, help="photographs")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--only", nargs="+", default=[], help="words in the names of the systems to run")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    paths = photographs(given.images, given.count)
    found = benchmark(
        chosen(systems_of(paths, given.threads), given.only),
        what=f"ResNet-18, dense testing of {len(paths)} photographs at {len(SIDES)} sizes with mirror images",
        rounds=given.repeats,
        own_process=True,
        threads=given.threads,
    )
    expected = found.rows[0].facts.pop("probabilities")
    found.rows[0].facts["difference"] = 0.0
    for row in found.rows[1:]:
        if row.images_per_second is None:
            continue
        difference = float(np.abs(row.facts.pop("probabilities") - expected).max())
        if "bf16" not in row.system and not difference <= TOLERANCE:
            raise SystemExit(f"{row.system}: probabilities differ by {difference:.2g}")
        row.facts["difference"] = difference
    print_benchmarks([found], [("difference", fact("difference", "{:.1g}"))])
    if given.out:
        found.write(given.out)


if __name__ == "__main__":
    main()

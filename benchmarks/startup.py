"""Time to the first answer of the commands, beside the imports that they cannot avoid, in one run.

    python benchmarks/startup.py --out benchmarks/results/DATE-HARDWARE-startup.json

Every row is a fresh process; rounds are interleaved and the figure is the median. `predict` is compared with the
least that any torch program does: import torch and the forward pass of the net's convolutions.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

LEAST = """
import sys
import torch
from torch.nn.functional import conv2d, linear, max_pool2d
x = torch.rand(1, 3, 128, 128)
with torch.no_grad():
    x = max_pool2d(conv2d(x, torch.rand(64, 3, 7, 7), stride=2, padding=3).relu(), 3, 2, 1)
    for width in (64, 128, 256, 512):
        for number in range(4):
            stride = 2 if number == 0 and width > 64 else 1
            x = conv2d(x, torch.rand(width, x.shape[1], 3, 3) / x.shape[1], stride=stride, padding=1).relu()
    print(linear(x.mean((2, 3)), torch.rand(5, 512)).softmax(1).tolist())
"""


def make_model(folder: Path) -> Path:
    """Return the run directory of a ResNet-18 for 5 classes with random weights."""
    from resnets.artifacts.model_folder import StoredModel, save_model
    from resnets.data.preprocess import Preprocessor
    from resnets.models.build import build
    from resnets.specs.catalogue import model_spec
    from resnets.specs.data import IMAGENET_MEAN, IMAGENET_STD
    from resnets.specs.preprocess import Preprocess

    spec = model_spec("resnet18", num_classes=5)
    preprocess = Preprocess(resize_px=146, crop_px=128, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    stored = StoredModel(
        model=build(spec, seed=0),
        spec=spec,
        preprocessor=Preprocessor(preprocess),
        classes=tuple("abcde"),
        metrics={},
    )
    save_model(folder / "model", stored)
    return folder


def main() -> None:
    """Measure, print the table, and write it as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        run = make_model(folder / "run")
        picture = folder / "photo.jpg"
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (375, 500, 3), np.uint8)).save(picture)
        commands = {
            "import torch": [sys.executable, "-c", "import torch"],
            "import torch, torchvision": [sys.executable, "-c", "import torch, torchvision"],
            "least prediction": [sys.executable, "-c", LEAST],
            "resnets predict": [sys.executable, "-m", "resnets", "predict", str(run), str(picture)],
            "resnets --help": [sys.executable, "-m", "resnets", "--help"],
            "resnets describe resnet50": [sys.executable, "-m", "resnets", "describe", "resnet50"],
        }
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(given.repeats + 1):
            for name, command in commands.items():
                started = time.perf_counter()
                subprocess.run(command, check=True, capture_output=True)
                seconds[name].append(time.perf_counter() - started)
    rows = []
    base = statistics.median(seconds["least prediction"][1:])
    for name, times in seconds.items():
        warm = times[1:]  # the first round fills the page cache
        rows.append(
            {
                "system": name,
                "seconds": round(statistics.median(warm), 3),
                "ratio": round(statistics.median(warm) / base, 3),
                "spread": [round(min(warm), 3), round(max(warm), 3)],
            }
        )
        print(f"{rows[-1]['seconds']:>8.3f} s {rows[-1]['ratio']:>6.2f}x the least prediction   {name}")
    if given.out:
        from resnets.artifacts.run_directory import environment

        here = environment()
        report = {
            "what": "start-up and first answer, fresh processes",
            "rows": rows,
            "hardware": {"processor": here["processor"], "cores": here["cores"], "platform": here["platform"]},
            "versions": {"python": here["python"]} | here["versions"],
            "commit": here["commit"],
            "command": f"python benchmarks/startup.py --repeats {given.repeats}",
            "repeats": given.repeats,
        }
        given.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()

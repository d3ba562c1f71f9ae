"""Time to the first answer of the commands, beside the imports that they cannot avoid, in one run.

    python benchmarks/startup.py --out benchmarks/results/DATE-HARDWARE-startup.json

Every row is a fresh process; rounds are interleaved and the figure is the median. `predict` is compared with the
least that any torch program does: import torch and the forward pass of the net's convolutions.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from resnets.artifacts.run_directory import environment, write_json
from resnets.studies.timing import interleaved, paired_ratio, spread

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
        runs = {name: lambda _, command=command: call(command) for name, command in commands.items()}
        measured = interleaved(runs, rounds=given.repeats)  # the warm-up fills the page cache
    seconds = {name: [took for turn in turns for took in turn] for name, turns in measured.items()}
    rows = []
    for name, times in seconds.items():
        took, ratio = spread(times), paired_ratio(times, seconds["least prediction"])
        rows.append(
            {
                "system": name,
                "seconds": round(took.median, 3),
                "ratio": round(ratio.median, 3),
                "spread": [round(took.smallest, 3), round(took.largest, 3)],
            }
        )
        print(f"{took.median:>8.3f} s {ratio.median:>6.2f}x the least prediction   {name}")
    if given.out:
        here = environment()
        report = {
            "what": "start-up and first answer, fresh processes",
            "rows": rows,
            "hardware": {"processor": here["processor"], "cores": here["cores"], "platform": here["platform"]},
            "versions": {"python": here["python"]} | here["versions"],
            "commit": here["commit"],
            "command": here["command"],
            "repeats": given.repeats,
        }
        write_json(given.out, report)


def call(command: list[str]) -> None:
    """Run a command to its end."""
    subprocess.run(command, check=True, capture_output=True)


if __name__ == "__main__":
    main()

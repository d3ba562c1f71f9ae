"""CIFAR training speed on a CPU: ours beside the usual implementation, data included, in one run.

    python benchmarks/cifar_training.py --depth 20 --data-root ~/data --out benchmarks/results/DATE-HARDWARE-cifar-training.json

Each system is a process of its own (the allocator's settings are a process's), runs while the others wait,
and takes its turn in every round; the figure is the median over rounds. The first row is what nearly every
public repository does: a He-style model of its own, `Dataset` + `DataLoader` with 2 workers and PIL
transforms, fp32, eager, default layout. The rows below it add one thing each, so that the gain of each is seen.
Compilation happens in the warm-up and is reported apart.

What was learned on two Xeon cores with AMX: bf16 is the larger part of the gain (1.6x), since convolutions run on the
matrix unit; channels-last gives 1.2x in fp32; NumPy augmentation of resident images instead of two loader processes
another 1.2x; compilation 1.06x in fp32 and 1.25x in bf16, where what is left is memory traffic between the
convolutions. Keeping freed memory gives nothing here.

On two Zen 4 cores convolutions take two thirds of a bf16 step and run at 300 (backward) to 385 (forward) of the 400
GFLOP/s that these cores reach, so that no more than 1.5 times is left in all the rest. bf16 gives 1.4x, channels-last 1.45x with the resident data, kept
memory 1.05x, compilation 1.04x. Huge pages give nothing more: torch asks for them by itself.

The same as `resnets bench train cifar10.resnet20 --ladder`. `--repeats` rounds of `--steps` steps each; without
`--data-root` the images are noise, which takes as long.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from resnets.cli.bench_screen import fact, print_benchmarks
from resnets.specs.run import Machine
from resnets.studies.bench_train import bench_train


def main() -> None:
    """Measure and print the table; write it as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depth", type=int, default=20)
    parser.add_argument("--data-root")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--only", nargs="+", default=[], help="words in the names of the systems to run")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    found = bench_train(
        f"cifar10.resnet{given.depth}",
        data_root=given.data_root,
        ladder=True,
        steps=given.steps,
        rounds=given.repeats,
        only=given.only,
        machine=Machine(device="cpu", threads=given.threads, workers=2),
    )
    print_benchmarks([found], [("first step", fact("first_step_seconds", "{:.1f} s"))])
    if given.out:
        found.write(given.out)


if __name__ == "__main__":
    main()

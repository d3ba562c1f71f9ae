"""`resnets bench`: how fast this project is on this machine, beside the usual ways and other libraries."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from resnets.cli import flags
from resnets.specs.errors import UserError, near_misses
from resnets.specs.visible import json_text

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from resnets.studies.bench import Benchmark, Row

HELP = """\
usage: resnets bench data|train|predict ...     resnets bench data --help

Measure this project and others on this machine: the same work, in turns, in one run.

  resnets bench data FOLDER      photographs to training crops: images a second of a core, or of whole loaders
  resnets bench train RECIPE     training steps of a recipe, ours and the usual way to write them
  resnets bench predict MODEL    milliseconds and images a second of a trained net, or of one by name

Speeds of different days, machines or programs beside it say little. So the systems take turns, round after round, and
a ratio is taken within each round: what the machine does meanwhile meets all of them. Printed are medians, and the
middle half of the rounds. A library that is not installed is listed as such, without a figure:

  pip install 'resnets[peers]'   timm, webdataset, OpenCV, simplejpeg

examples:
  resnets bench data photos/ --workers 2
  resnets bench train cifar10.resnet20 --precision fp32 bf16
  resnets bench predict resnet50 --batch 1 16 --compile
  resnets bench predict runs/folder.scratch-seed0 --json
"""
DATA = """\
Photographs to crops of a training batch: a random box of 8 to 100 % of the area, resized to a square, mirrored or not.
On one core, every system cuts the same boxes out of the same files. The reference is that of torchvision's training
scripts: Pillow decodes, torchvision crops and resizes. PSNR tells how close a system's crops are to those of Pillow
decoding in full, for the same boxes; above 40 dB a difference is hard to see.
"""
DATA_EXAMPLES = """\
examples:
  resnets bench data photos/                       all systems, one core
  resnets bench data photos/ --workers 1 2         and whole loaders of 1 and 2 processes, beside torch's DataLoader
  resnets bench data photos/ --large               12 megapixels a photograph, made from yours for the measurement
  resnets bench data photos/ --shards              and shards made of yours for the measurement
  resnets bench data photos/ --only resnets opencv --rounds 30
  resnets bench data photos/ --json > data.json
"""
TRAIN = """\
Steps of a recipe, data included: reading, cropping and mirroring, forward, backward, update. The reference is what most
public repositories do: Dataset and DataLoader with torchvision's transforms, fp32, eager, default layout. The rows
below it are the same at its best settings, and ours. Each system is a process of its own and waits while others work.

Without --data, digits are read, CIFAR's images are noise in memory (which takes as long), and of a recipe for a folder
the step alone is measured, on one batch that stays on the device. Colours, policies and mixing of the recipe are left
out, and weights are random.
"""
TRAIN_EXAMPLES = """\
examples:
  resnets bench train cifar10.resnet20                                 fp32 and bf16, where the device can
  resnets bench train cifar10.resnet56 --compile --steps 10            compiled nets too: a minute each before
  resnets bench train cifar10.resnet20 --ladder                        each measure of ours alone
  resnets bench train imagenet.resnet50 --batch 16 --rounds 3          the step alone
  resnets bench train folder.scratch --data photos/ --workers 2 --precision bf16
  resnets bench train imagenet.resnet50 --device cuda --precision bf16 --compile --json > train.json
"""
PREDICT = """\
Predictions of a trained net, or of one by name with random weights: from image files to labels, and of the net alone on
normalised images. The references are a script as most people write it (Pillow, torchvision's transforms, an eager
net), and torchvision's net. The logits of every net are compared with the model's before anything is timed.
"""
PREDICT_EXAMPLES = """\
examples:
  resnets bench predict resnet50                          one image a call, and 16
  resnets bench predict resnet18-v1.5 --batch 1 --compile --precision fp32 bf16
  resnets bench predict runs/folder.scratch-seed0 --data photos/
  resnets bench predict torchvision:resnet50 --threads 1 --json
"""


def main(arguments: list[str]) -> int:
    """Run the benchmark that `arguments` name."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(HELP, end="")
        return 0 if arguments else 2
    kinds = {"data": _data, "train": _train, "predict": _predict}
    kind, *rest = arguments
    if kind not in kinds:
        raise UserError(
            f"There is no benchmark {kind!r}.{near_misses(kind, kinds)} It is {', '.join(kinds)}; `resnets bench --help` "
            "tells what they do."
        )
    return kinds[kind](rest)


def _data(arguments: list[str]) -> int:
    parser = flags.Parser(
        "bench data", DATA, "FOLDER [--workers N ...] [--large [MB]] [--shards] [options]", DATA_EXAMPLES
    )
    parser.add_argument("data", metavar="FOLDER", help="photographs, with or without subfolders")
    group = parser.add_argument_group("work")
    group.add_argument(
        "--workers", type=int, nargs="+", default=[], metavar="N", help="measure whole loaders of N processes too"
    )
    group.add_argument(
        "--large",
        nargs="?",
        type=float,
        const=3.0,
        default=0.0,
        metavar="MB",
        help="photographs of 12 megapixels and MB megabytes (3), made from those of FOLDER",
    )
    group.add_argument(
        "--shards", action="store_true", help="shards too, resized to a shorter side of 256, JPEG and raw"
    )
    group.add_argument("--size", type=int, default=224, metavar="PX", help="side of the crops (224)")
    group.add_argument("--batch", type=int, metavar="N", help="crops a turn (32; 8 with --large)")
    _add_measurement(parser, rounds=15)
    given = parser.parse_args(arguments)
    from resnets.cli.bench_screen import fact
    from resnets.studies.bench_data import bench_data

    found = bench_data(
        Path(given.data),
        workers=given.workers,
        large_mb=given.large,
        shards=given.shards,
        side=given.size,
        batch=given.batch,
        rounds=given.rounds,
        only=given.only,
        quiet=given.quiet,
    )
    columns = [("PSNR dB", fact("psnr_db", "{:.1f}", empty="exact"))]
    if given.shards:
        columns.append(("of stored", fact("psnr_db_of_stored", "{:.1f}", empty="exact")))
        columns.append(("kB", fact("kilobytes", "{:.0f}")))
    if given.workers:
        columns.append(("linear", fact("of_linear", "{:.0%}")))
    _show([found], given.json, columns)
    return 0


def _train(arguments: list[str]) -> int:
    parser = flags.Parser("bench train", TRAIN, "RECIPE [--data DATA] [options]", TRAIN_EXAMPLES)
    parser.add_argument("recipe", help="such as cifar10.resnet56, or mypackage.module:function of your own")
    flags.add_data(parser)
    group = parser.add_argument_group("work")
    group.add_argument("--batch", type=int, metavar="N", help="images a step (the recipe's)")
    group.add_argument("--steps", type=int, default=20, metavar="N", help="steps a turn (20)")
    group.add_argument("--precision", nargs="+", default=[], metavar="P", help="fp32, bf16, fp16")
    group.add_argument("--ladder", action="store_true", help="ours with one measure more in each row")
    group.add_argument("--step-only", action="store_true", help="one batch that stays on the device, no data")
    _add_layout(flags.add_machine(parser))
    _add_measurement(parser, rounds=7)
    given = parser.parse_args(arguments)
    from resnets.cli.bench_screen import fact
    from resnets.studies.bench_train import bench_train

    found = bench_train(
        given.recipe,
        data=given.data,
        data_root=given.data_root,
        batch=given.batch,
        precisions=given.precision,
        ladder=given.ladder,
        step_only=given.step_only,
        steps=given.steps,
        rounds=given.rounds,
        only=given.only,
        machine=flags.machine(given),
        quiet=given.quiet,
    )
    _show([found], given.json, [("first step", fact("first_step_seconds", "{:.1f} s"))])
    return 0


def _predict(arguments: list[str]) -> int:
    parser = flags.Parser("bench predict", PREDICT, "MODEL [--batch N ...] [options]", PREDICT_EXAMPLES)
    parser.add_argument("model", help="a run directory, a model folder, weights by name, or a net such as resnet50")
    group = parser.add_argument_group("work")
    group.add_argument("--batch", type=int, nargs="+", default=[1, 16], metavar="N", help="images a call (1 16)")
    group.add_argument("--data", metavar="FOLDER", help="photographs to predict; without it, some are made")
    group.add_argument("--precision", nargs="+", default=["fp32"], metavar="P", help="fp32, bf16, fp16")
    group.add_argument("--compile", action="store_true", help="compiled nets too: a minute each before")
    machine = parser.add_argument_group("machine")
    machine.add_argument(
        "--device", default="auto", help="cpu, cuda, cuda:N, mps, or auto, the best there is (default)"
    )
    machine.add_argument("--threads", type=int, default=0, metavar="N", help="CPU threads; 0 leaves torch's choice")
    _add_measurement(parser, rounds=7).add_argument(
        "--seconds", type=float, default=1.0, metavar="S", help="seconds a turn, at least (1)"
    )
    given = parser.parse_args(arguments)
    from resnets.cli.bench_screen import milliseconds
    from resnets.studies.bench_predict import bench_predict

    found = bench_predict(
        given.model,
        data=given.data,
        batches=given.batch,
        precisions=given.precision,
        rounds=given.rounds,
        seconds=given.seconds,
        only=given.only,
        machine=flags.machine(given),
        quiet=given.quiet,
    )
    _show(found, given.json, [("ms", milliseconds(0)), ("p90", milliseconds(1))])
    return 0


def _add_layout(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--channels-last", choices=("auto", "yes", "no"), default="auto", help="memory layout n h w c")
    group.add_argument("--compile", action="store_true", help="compiled nets too: a minute each before")


def _add_measurement(parser: argparse.ArgumentParser, *, rounds: int) -> argparse._ArgumentGroup:
    group = parser.add_argument_group("measurement")
    group.add_argument(
        "--rounds", type=int, default=rounds, metavar="N", help=f"turns of each system that count ({rounds})"
    )
    group.add_argument(
        "--only", nargs="+", default=[], metavar="WORD", help="only systems with one of these words in their name"
    )
    group.add_argument("--quiet", action="store_true", help="show no progress")
    flags.add_json(parser)
    return group


def _show(found: Sequence[Benchmark], as_json: bool, columns: Sequence[tuple[str, Callable[[Row], str]]]) -> None:
    if as_json:
        from resnets.studies.bench import joined

        print(json_text(joined(found).document()))
        return
    from resnets.cli.bench_screen import print_benchmarks

    print_benchmarks(found, columns)

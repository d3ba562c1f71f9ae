"""`resnets train`: a recipe, changed from the command line, trained or resumed."""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from resnets.cli import flags
from resnets.cli.overrides import HINT, override, shortened, with_weights
from resnets.cli.usual_names import TRAIN, refuse_usual_names
from resnets.recipes.find import list_recipes, recipe
from resnets.specs import io
from resnets.specs.errors import counted
from resnets.specs.visible import in_line

if TYPE_CHECKING:
    from resnets.specs.run import TrainSpec
    from resnets.tasks.classify.train import TrainedRun

DESCRIPTION = """\
Train a recipe. The same command resumes an interrupted run; on a finished one it says so and exits with 0, on one
that diverged it says so and exits with 1.
Every field of the run can be changed by its path, as in --optimizer.base-lr 0.05.
"""
EPILOG = """\
examples:
  resnets train --list                                          all recipes, a line each
  resnets train digits.resnet20                                 half a minute on a CPU
  resnets train cifar10.resnet56 --data-root ~/data             Table 6 of the paper
  resnets train cifar10.resnet56 --steps 6400                   a tenth of it, schedule scaled to the same shape
  resnets train cifar10.resnet20 --optimizer.base-lr 0.05 --seed 1 --run runs/lower-lr
  resnets train cifar10.resnet20 schedule:cosine                another schedule; the fields of the choice follow it
  resnets train folder.scratch --data photos/ --precision bf16  your own images, one subfolder a class
  resnets train folder.finetune --data photos/ --init-from torchvision:resnet50    from ImageNet's weights
  resnets train imagenet.resnet50 --data imagenet/ --workers 16                     Table 3: train/ and val/ inside
  resnets train imagenet.resnet18 --data small/ --dataset.image-px 64 --dataset.resize-px 73 \
      --augment.min-resize-px 73 --augment.max-resize-px 137 --steps 10000          the same at 64 pixels
  resnets train --from runs/lower-lr/config.json --run runs/again
  resnets train cifar10.resnet20 --print-config                 the resolved run as JSON, without training
  resnets train cifar10.resnet20 --fields                       every field that can be changed, with its default
"""


def main(arguments: list[str]) -> int:
    """Train the recipe that `arguments` name."""
    parser = _parser()
    given, rest = parser.parse_known_args(arguments)
    if given.run == "":
        parser.error("--run is empty; name a folder")
    # Before the recipe is looked up: argparse takes the value of a flag it does not know for the recipe.
    refuse_usual_names(rest, TRAIN, HINT)
    if given.list:
        _print_list(given.json)
        return 0
    spec = spec_of(parser, given, rest)
    if given.print_config:
        print(json.dumps(io.to_json(spec), indent=2))
        return 0
    from resnets import api

    trained = api.train(
        spec,
        data=given.data,
        data_root=given.data_root,
        run=given.run,
        machine=flags.machine(given),
        command=shlex.join(["resnets", "train", *arguments]),
        quiet=given.quiet,
    )
    if trained.rank == 0:
        _print_result(trained, given.json)
    return 0


def _parser() -> flags.Parser:
    parser = flags.Parser("train", DESCRIPTION, "RECIPE [--data DATA] [--run DIR] [options] [fields]", EPILOG)
    parser.add_argument("--list", action="store_true", help="list the recipes and stop")
    parser.add_argument("--print-config", action="store_true", help="print the resolved run as JSON and stop")
    add_run(parser)
    flags.add_json(parser)
    return parser


def add_run(parser: flags.Parser) -> None:
    """Add the flags that say which run is meant, and on which machine it goes on."""
    parser.add_argument("recipe", nargs="?", help="such as cifar10.resnet56, or mypackage.module:function of your own")
    parser.add_argument(
        "--from", dest="config", metavar="CONFIG", help="replay the config.json of a run, instead of a recipe"
    )
    parser.add_argument(
        "--fields", action="store_true", help="list every field of the run that can be changed, and stop"
    )
    flags.add_data(parser)
    group = parser.add_argument_group("run")
    group.add_argument("--run", metavar="DIR", help="run directory (default: runs/RECIPE-seedN)")
    group.add_argument(
        "--init-from",
        metavar="MODEL",
        help="start from trained weights: a run directory, a model folder, torchvision:resnet50, timm:NAME, "
        "hf-hub:OWNER/NAME",
    )
    group.add_argument("--seed", type=int, metavar="N", help="seed of weights, order and augmentation")
    group.add_argument(
        "--steps",
        type=int,
        metavar="N",
        help="shorten to N steps; what the recipe counts in steps is scaled to the same shape, what is given here is not",
    )
    group.add_argument("--quiet", action="store_true", help="show no progress")
    machine = flags.add_machine(parser)
    machine.add_argument("--channels-last", choices=("auto", "yes", "no"), default="auto", help="memory layout n h w c")
    machine.add_argument("--compile", action="store_true", help="compile the model: a slower start, faster steps")
    flags.add_deterministic(machine)
    machine.add_argument(
        "--checkpoint-every", type=int, default=1_000, metavar="N", help="steps between checkpoints (1000)"
    )
    machine.add_argument("--keep-checkpoints", type=int, default=0, metavar="N", help="newest to keep; 0 keeps all")


def spec_of(parser: flags.Parser, given: argparse.Namespace, rest: list[str]) -> TrainSpec:
    """Return the spec of the run that the flags of `add_run`, and the fields in `rest`, describe.

    Raises:
        UserError: there is no such recipe, file or field, or it cannot have the value.
    """
    if given.recipe is not None and given.config is not None:
        parser.error("a recipe and --from CONFIG exclude each other")
    if given.recipe is not None:
        spec = recipe(given.recipe)
        if ":" in given.recipe and not spec.recipe:
            spec = dataclasses.replace(spec, recipe=given.recipe)
    elif given.config is not None:
        from resnets.artifacts.run_directory import read_spec

        path = Path(given.config)
        spec = read_spec(path / "config.json" if path.is_dir() else path)
    else:
        parser.error("name one recipe, such as cifar10.resnet20, or --from CONFIG")
    if given.fields:
        rest = [*rest, "--help"]
    if given.steps is not None:
        spec = shortened(spec, given.steps, rest)
    spec = override(spec, rest)
    if given.init_from is not None:
        spec = with_weights(spec, given.init_from)
    if given.seed is not None:
        spec = dataclasses.replace(spec, seed=given.seed)
    return spec


def _print_list(as_json: bool) -> None:
    recipes = list(list_recipes())
    if as_json:
        print(json.dumps([{"recipe": name, "about": line} for name, line in recipes], indent=2))
        return
    width = max(len(name) for name, _ in recipes)
    for name, line in recipes:
        print(f"{name:<{width}}  {line}")


def _print_result(trained: TrainedRun, as_json: bool) -> None:
    metrics = trained.metrics
    if as_json:
        print(json.dumps({"run": str(trained.path), "was_finished": trained.was_finished} | metrics, indent=2))
        return
    if trained.was_finished:
        print(in_line(f"{trained.path} is finished; nothing to do."))
    split = "test" if metrics["split"] == "test" else f"{metrics['split']} (this dataset has no test split)"
    top5 = "" if metrics["top5_error"] is None else f", top-5 {metrics['top5_error']:.2f} %"
    print(
        in_line(f"top-1 error {metrics['top1_error']:.2f} %{top5}, on {counted(metrics['images'], 'image')} of {split}")
    )
    if "best_step" in metrics:
        steps = metrics.get("stopped_at_step", metrics["steps"])
        print(f"with the weights of step {metrics['best_step']:,}, the best of {steps:,} steps")
    if metrics["steps"] < metrics["full_steps"]:
        share = metrics["steps"] / metrics["full_steps"]
        print(f"after {metrics['steps']:,} steps: {100 * share:.3g} % of the recipe's {metrics['full_steps']:,}")
    skipped = len(metrics["skipped"]) + metrics["left_out_in_training"]
    if skipped:
        print(f"{counted(skipped, 'image')} could not be read, left out of every score; metrics.jsonl has the names")
    print(in_line(f"model {trained.path / 'model'}"))

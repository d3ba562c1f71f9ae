"""`resnets compare`: two recipes, n seeds each, and what can be said of the difference."""

from __future__ import annotations

import dataclasses
import json
import shlex
from typing import TYPE_CHECKING

from resnets.cli import flags
from resnets.cli.overrides import is_choice, override, shortened, with_weights
from resnets.recipes.find import recipe
from resnets.specs import io
from resnets.specs.errors import UserError
from resnets.specs.visible import json_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from resnets.specs.run import TrainSpec

DESCRIPTION = """\
Train two recipes with the same seeds, test them on the same images, and say what can be said of the difference: each
seed's errors, the mean difference with its 95 % interval, and what a net of each costs. Both runs of a seed see the
same images in the same order, so that one field can be changed and everything else stays as it is.

The same command goes on after an interruption, and more --seeds add to runs that are there. A run of the very same
spec that is finished in `runs` or `results`, another comparison's among them, is taken from there, and it says so.
"""
RECIPES = """\
  A   such as digits.resnet20, or mypackage.module:function of your own
  B   what it is compared with; may be left out where fields of one side are changed
"""
FIELDS = """\
  --FIELD VALUE     changes both sides, as in `resnets train` (--optimizer.base-lr 0.05, schedule:cosine)
  --a.FIELD VALUE   changes A only
  --b.FIELD VALUE   changes B only (--b.optimizer.base-lr 0.05, b.schedule:cosine)
  --init-from MODEL starts from trained weights, as in `resnets train`; --a.init-from and --b.init-from too
  `resnets train RECIPE --fields` lists the fields.
"""
EPILOG = """\
examples:
  resnets compare digits.resnet20 digits.plain20               shortcuts or none, 5 seeds: minutes on a CPU
  resnets compare digits.resnet20 --b.optimizer.base-lr 0.05   one field of one recipe
  resnets compare digits.resnet20 --b.model.shortcut B --seeds 10
  resnets compare digits.resnet20 b.schedule:cosine            another schedule for B
  resnets compare digits.resnet20 myblock:mine                 a block in your file myblock.py against the paper's
  resnets compare cifar10.resnet20 cifar10.plain20 --steps 6400 --seeds 3 --precision bf16
  resnets compare folder.scratch --data photos/ --b.erase-probability 0.25 --run runs/erasing
  resnets compare folder.finetune --data photos/ --a.init-from torchvision:resnet18 --b.init-from torchvision:resnet50
  resnets compare digits.resnet20 digits.resnet32 --print-config   what would run, and where both differ

What counts is the interval. Where it leaves out 0, a difference of this size is unlikely to be chance; where it does
not, more seeds narrow it: four times as many for half the width.
"""


def main(arguments: list[str]) -> int:
    """Compare the recipes that `arguments` name."""
    parser = _parser()
    given, rest = parser.parse_known_args(arguments)
    if given.run == "":
        parser.error("--run is empty; name a folder")
    a, b = _specs(parser, rest, given.steps)
    if given.print_config:
        _print_config(a, b)
        return 0
    from resnets.studies.compare import compare

    comparison = compare(
        a,
        b,
        seeds=given.seeds,
        first_seed=given.seed,
        data=given.data,
        data_root=given.data_root,
        run=given.run,
        reuse=not given.no_reuse,
        machine=flags.machine(given),
        command=shlex.join(["resnets", "compare", *arguments]),
        quiet=given.quiet,
    )
    if given.json:
        print(json_text(comparison.document()))
    else:
        from resnets.cli.comparison_screen import print_comparison

        print_comparison(comparison)
    return 0


def _parser() -> flags.Parser:
    parser = flags.Parser("compare", DESCRIPTION, "A [B] [--seeds N] [--steps N] [options] [fields]", EPILOG)
    parser.add_argument_group("recipes, before everything else", RECIPES)
    parser.add_argument_group("fields", FIELDS)
    group = parser.add_argument_group("study")
    group.add_argument("--seeds", type=int, default=5, metavar="N", help="runs of each recipe (default 5)")
    group.add_argument("--seed", type=int, default=0, metavar="N", help="the first seed (default 0)")
    group.add_argument("--steps", type=int, metavar="N", help="shorten both to N steps, scaled to the same shape")
    group.add_argument("--run", metavar="DIR", help="folder of the runs and the result (default: runs/compare-A-vs-B)")
    group.add_argument(
        "--no-reuse", action="store_true", help="train every run here, also those that are finished in runs or results"
    )
    group.add_argument("--print-config", action="store_true", help="print both runs as JSON, and stop")
    group.add_argument("--quiet", action="store_true", help="show no progress")
    flags.add_data(parser)
    machine = flags.add_machine(parser)
    machine.add_argument("--channels-last", choices=("auto", "yes", "no"), default="auto", help="memory layout n h w c")
    machine.add_argument("--compile", action="store_true", help="compile the models: a slower start, faster steps")
    flags.add_deterministic(machine)
    machine.add_argument(
        "--checkpoint-every", type=int, default=1_000, metavar="N", help="steps between checkpoints (1000)"
    )
    machine.add_argument(
        "--keep-checkpoints", type=int, default=1, metavar="N", help="newest to keep of each run (1); 0 keeps all"
    )
    flags.add_json(parser)
    return parser


def _specs(parser: flags.Parser, rest: Sequence[str], steps: int | None) -> tuple[TrainSpec, TrainSpec]:
    """Return both specs that the recipes and fields of the command line describe.

    Raises:
        UserError: a recipe or field is unknown, or there is nothing to compare.
    """
    if not rest or rest[0].startswith("-"):
        parser.error("name the recipes first, before any field: A, and B where it is another")
    first, *rest = rest
    a = _recipe(first)
    b, second = a, first
    names_both = bool(rest) and not rest[0].startswith("-") and not is_choice(_without_side(rest[0]), a)
    if names_both:
        second, *rest = rest
        b = _recipe(second)
    shared, own = _fields(parser, rest, {"a": a, "b": b})
    if first == second and not (own["a"] or own["b"]):
        there = f"A and B are the same recipe, {first}," if names_both else f"There is one recipe, {first},"
        raise UserError(
            f"{there} and no field of one side: name {'another' if names_both else 'a second'} recipe, or change a field of B "
            "(--b.optimizer.base-lr 0.05)."
        )
    return _resolve("A", a, shared, own["a"], steps), _resolve("B", b, shared, own["b"], steps)


def _recipe(name: str) -> TrainSpec:
    spec = recipe(name)
    return spec if spec.recipe else dataclasses.replace(spec, recipe=name)


def _without_side(argument: str) -> str:
    return argument[2:] if argument.startswith(("a.", "b.")) else argument


def _fields(
    parser: flags.Parser, arguments: Sequence[str], specs: dict[str, TrainSpec]
) -> tuple[list[str], dict[str, list[str]]]:
    """Return the arguments that change both sides, and those that change one, each as `override` takes them."""
    shared: list[str] = []
    own: dict[str, list[str]] = {"a": [], "b": []}
    current = None
    for argument in arguments:
        word = argument.removeprefix("--")
        side = word[0] if word.startswith(("a.", "b.")) else ""
        target = own[side] if side else shared
        if argument.startswith("--"):
            current = target
            target.append(f"--{word[2:]}" if side else argument)
        elif any(is_choice(_without_side(argument), spec) for spec in specs.values()):
            current = target
            target.append(_without_side(argument))
        elif current is None:
            parser.error(f"there is one recipe too many, or a value without a field: {argument}")
        else:
            current.append(argument)
    return shared, own


def _resolve(side: str, spec: TrainSpec, shared: list[str], own: list[str], steps: int | None) -> TrainSpec:
    for argument in own:
        if argument.partition("=")[0] in ("--seed", "--recipe"):
            raise UserError(
                f"--{side.lower()}.{argument[2:]} cannot differ: both sides have the seeds of --seed and --seeds."
            )
    (shared, shared_weights), (own, own_weights) = _without_weights(shared), _without_weights(own)
    try:
        if steps is not None:
            spec = shortened(spec, steps, shared, own)
        spec = override(override(spec, shared), own)
        for source in (*shared_weights, *own_weights):
            spec = with_weights(spec, source)
    except UserError as error:
        raise type(error)(f"{side}: {error}") from error
    return spec


def _without_weights(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Return the arguments without --init-from, and what that names.

    Raises:
        UserError: it names nothing.
    """
    kept: list[str] = []
    sources: list[str] = []
    words = iter(arguments)
    for word in words:
        name, _, value = word.partition("=")
        if name != "--init-from":
            kept.append(word)
            continue
        source = value or next(words, "")
        if not source or source.startswith("--"):
            raise UserError("--init-from names no weights; give a run directory, a model folder or torchvision:NAME.")
        sources.append(source)
    return kept, sources


def _print_config(a: TrainSpec, b: TrainSpec) -> None:
    from resnets.studies.differing import differing_fields

    document = {"a": io.to_json(a), "b": io.to_json(b), "differing": differing_fields(a, b)}
    print(json.dumps(document, indent=2))

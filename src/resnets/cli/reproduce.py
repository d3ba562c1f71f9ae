"""`resnets reproduce`: the paper's tables and figures, ours beside the paper's, with a verdict."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from resnets.cli import flags
from resnets.paper.core.experiment import BUDGETS
from resnets.specs.visible import visible

if TYPE_CHECKING:
    import argparse

DESCRIPTION = """\
Reproduce a table, a figure or a claim of the paper: ours, the paper's, the difference and a verdict. Finished runs
are found by what they trained and never trained again; what the budget allows and is missing is trained, an unfinished
run goes on (a copy of it below --run-root where it lies elsewhere), and so does an interrupted command that is given
again. Without a name, all experiments are listed with their state.

budgets:
  check   what is exact, in seconds: counts, schedules, the views and averages of the test modes. Runs that are there are
          read, none is trained (default)
  cpu     the claims in small, in minutes on two CPU cores: fewer iterations, smaller images, thinner nets
  gpu     the paper's nets with a shorter schedule of the same shape, minutes to about an hour on one GPU (estimated)
  full    the paper's own runs: hours to days on one GPU (estimated); ImageNet is not trained here, you supply its runs
The paper's errors stand beside `full` runs only. PASS and FAIL are for claims that a run can support; anything else
is REPORT. The paper's number never stands in for ours: a row that was not run says why.
"""
EPILOG = """\
examples:
  resnets reproduce                                      the whole paper as a checklist
  resnets reproduce table1                               multiply-adds of the five ImageNet nets, exact
  resnets reproduce degradation --budget cpu             deep plain nets train worse, residual ones do not; minutes
  resnets reproduce degradation --budget cpu --seeds 0 1 2
  resnets reproduce table6                               what there is of Table 6 already
  resnets reproduce table6 --budget full --precision bf16    64,000 iterations for every net
  resnets reproduce all --json                           every exact check, as one JSON document
"""


def main(arguments: list[str]) -> int:
    """Reproduce what `arguments` name."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.run_root == "":
        parser.error("--run-root is empty; name a folder")
    if not given.experiments:
        if given.budget is not None or given.seeds:
            parser.error("--budget and --seeds say how an experiment is run; name one, or all of them with: all")
        return _list(given)
    from resnets.paper.core.execute import reproduce_each
    from resnets.paper.core.find import canonical_name, experiment_names
    from resnets.paper.core.workshop import Settings

    names = experiment_names() if "all" in given.experiments else list(map(canonical_name, given.experiments))
    settings = Settings(
        budget=given.budget or "check",
        seeds=tuple(dict.fromkeys(given.seeds)),
        run_root=Path(given.run_root),
        data_root=Path(given.data_root).expanduser() if given.data_root is not None else None,
        machine=flags.machine(given),
        precision=given.precision,
        command=shlex.join(["resnets", "reproduce", *arguments]),
        quiet=given.quiet,
        say=lambda line: None if given.quiet else print(visible(line), file=sys.stderr, flush=True),
    )
    documents = []
    for place, outcome in enumerate(reproduce_each(names, settings)):
        if given.json:
            documents.append(outcome.to_json())
            continue
        from resnets.paper.core.render import outcome_text

        if place:
            print("\n")
        _print(outcome_text(outcome, _width()))
    if given.json:
        print(json.dumps(documents[0] if len(documents) == 1 else {"experiments": documents}, indent=2))
    return 0


def _parser() -> flags.Parser:
    parser = flags.Parser("reproduce", DESCRIPTION, "[EXPERIMENT ...] [--budget BUDGET] [options]", EPILOG)
    parser.add_argument("experiments", nargs="*", metavar="EXPERIMENT", help="such as table6 or degradation; or all")
    parser.add_argument("--budget", choices=BUDGETS, help="how much may be trained (default: check)")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[], metavar="N", help="seeds of every run (default: the experiment's)"
    )
    parser.add_argument(
        "--run-root",
        default="runs",
        metavar="DIR",
        help="folder of the run directories and pictures (default: runs); finished runs are found there, in runs and in "
        "results",
    )
    parser.add_argument("--data-root", metavar="DIR", help="folder that holds CIFAR's files, or receives them")
    parser.add_argument(
        "--precision",
        choices=("fp32", "bf16", "fp16"),
        help="arithmetic of the runs that are trained (default: the recipe's); rows state what is not fp32",
    )
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    machine = flags.add_machine(parser)
    machine.add_argument("--compile", action="store_true", help="compile the model: a slower start, faster steps")
    flags.add_deterministic(machine)
    machine.add_argument(
        "--checkpoint-every", type=int, default=1_000, metavar="N", help="steps between checkpoints (1000)"
    )
    machine.add_argument("--keep-checkpoints", type=int, default=1, metavar="N", help="newest to keep (1); 0 keeps all")
    flags.add_json(parser)
    return parser


def _list(given: argparse.Namespace) -> int:
    from resnets.paper.core.listing import states
    from resnets.paper.core.render import listing_text

    found = states(Path(given.run_root))
    if given.json:
        print(json.dumps({"experiments": [state.to_json() for state in found]}, indent=2))
        return 0
    _print(listing_text(found, _width()))
    return 0


def _width() -> int:
    return max(60, min(shutil.get_terminal_size().columns, 120))


def _print(text: str) -> None:
    """Print text with its verdicts in colour, where the terminal has colours."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    for line in visible(text).splitlines():
        rich_line = Text(line)
        rich_line.highlight_regex(r"\bPASS\b|^\[x\]", "green")
        rich_line.highlight_regex(r"\bFAIL(ED)?\b|^\[!\]", "bold red")
        rich_line.highlight_regex(r"\bnot run\b(?=.* -$)|\bREPORT$", "dim")
        console.print(rich_line, soft_wrap=True)

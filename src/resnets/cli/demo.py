"""`resnets demo`: the paper's claim on this machine, in two minutes."""

from __future__ import annotations

import json
from pathlib import Path

from resnets.cli import flags

DESCRIPTION = """\
Train a plain and a residual net of 44 layers on 1,437 real handwritten digits, same width, same schedule, same
seed, and show what the paper shows: the plain net has the higher *training* error, so what fails is the
optimisation, and shortcuts mend it (He et al. 2015, Sec. 4.1 and 4.2). No download, no GPU.
"""
EPILOG = """\
examples:
  resnets demo
  resnets demo --seed 1 --run runs/demo-1
  resnets demo --steps 100 --json
"""


def main(arguments: list[str]) -> int:
    """Run the demonstration."""
    parser = flags.Parser("demo", DESCRIPTION, "[options]", EPILOG)
    parser.add_argument("--run", metavar="DIR", help="where both runs go (default: runs/demo-seedN)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of both runs (default 0)")
    parser.add_argument("--steps", type=int, metavar="N", help="steps of each run (default 500)")
    flags.add_machine(parser)
    flags.add_json(parser)
    given = parser.parse_args(arguments)
    from resnets.studies.demo import run_demo

    shortened = "" if given.steps is None else f"-{given.steps}steps"
    report = run_demo(
        Path(given.run or f"runs/demo-seed{given.seed}{shortened}"),
        seed=given.seed,
        steps=given.steps,
        machine=flags.machine(given),
        quiet=given.json,
    )
    if given.json:
        print(json.dumps(report, indent=2))
    return 0

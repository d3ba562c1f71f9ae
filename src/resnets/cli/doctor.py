"""`resnets doctor`: what limits or endangers a run on this machine, and the fix."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from resnets.cli import flags
from resnets.cli.overrides import HINT
from resnets.cli.train import add_run, spec_of
from resnets.cli.usual_names import TRAIN, refuse_usual_names
from resnets.specs.errors import ResnetsError, UserError
from resnets.specs.visible import in_line, json_text

if TYPE_CHECKING:
    from collections.abc import Callable

DESCRIPTION = """\
What limits or endangers a run on this machine, and the fix.

Alone, it looks at the machine and the installation: versions, devices, threads, other programs, memory, limits. With
a recipe, it also trains it for about 20 seconds on the data, in memory: how fast the disk, the decoding, the transfer,
the model and all of them together are, which of them limits, and what each option that could help brings, measured.
The flags and fields are those of `resnets train`. Nothing is written, neither to the data nor to a run directory.
"""
EPILOG = """\
examples:
  resnets doctor                                                the machine
  resnets doctor folder.scratch --data photos/                  a run: put doctor in the place of train
  resnets doctor imagenet.resnet50 --data imagenet/ --workers 16 --precision bf16
  resnets doctor cifar10.resnet56 --compile-trial               would --compile pay? (a minute more)
  resnets doctor folder.scratch --data photos/ --seconds 60     a longer look, on a machine that is not quiet
  resnets doctor folder.scratch --data photos/ --json           every figure, and the advice

Gains are of the whole run as it would be started, with the option switched on, relative to without; what is below the
trial's own noise is no advice. The exit code is 0, whatever is found.
"""


def main(arguments: list[str]) -> int:
    """Look at the machine, and at the run that `arguments` name."""
    parser = flags.Parser("doctor", DESCRIPTION, "[RECIPE] [--data DATA] [options] [fields]", EPILOG)
    add_run(parser)
    group = parser.add_argument_group("trial")
    group.add_argument("--seconds", type=float, default=20.0, metavar="S", help="about how long it takes (20)")
    group.add_argument("--compile-trial", action="store_true", help="try --compile too, which takes a minute more")
    flags.add_json(parser)
    given, rest = parser.parse_known_args(arguments)
    refuse_usual_names(rest, TRAIN, HINT)
    is_run = given.recipe is not None or given.config is not None
    if not is_run and (rest or given.data or given.fields):
        parser.error("name the recipe first, such as folder.scratch, or nothing at all for the machine alone")
    spec = spec_of(parser, given, rest) if is_run else None
    from resnets.studies.commands import without_flag
    from resnets.studies.doctor import doctor

    words = ["resnets", "train", *arguments]
    for name, values in (("--seconds", 1), ("--compile-trial", 0), ("--json", 0), ("--debug", 0), ("--quiet", 0)):
        words = without_flag(words, name, values=values)
    try:
        examination = doctor(
            spec,
            data=given.data,
            data_root=given.data_root,
            run=given.run,
            machine=flags.machine(given),
            words=words,
            seconds=given.seconds,
            compile_trial=given.compile_trial,
            on_stage=_silent if given.quiet else _progress(),
        )
    except UserError:
        raise
    except ResnetsError:
        # The trial could not be made, and the reason may be among what is wrong with the machine.
        _clear()
        if not given.json:
            from resnets.cli.doctor_screen import print_examination

            print_examination(doctor())
        raise
    _clear()
    if given.json:
        print(json_text(examination.document()))
    else:
        from resnets.cli.doctor_screen import print_examination

        print_examination(examination)
    return 0


def _silent(_: str) -> None:
    pass


def _progress() -> Callable[[str], None]:
    """Return what shows a stage on stderr: on a terminal, each in place of the one before."""
    live = sys.stderr.isatty()

    def show(stage: str) -> None:
        line = in_line(f"measuring: {stage}")
        print(f"\r\x1b[K{line}" if live else line, end="" if live else "\n", file=sys.stderr, flush=True)

    return show


def _clear() -> None:
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)

"""The command `resnets`: finds the command's file, and turns errors into one line and an exit code."""

from __future__ import annotations

import errno
import importlib
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO, cast

from resnets import __version__
from resnets.specs.errors import InterruptedRunError, ResnetsError, UserError, near_misses
from resnets.specs.visible import visible

if TYPE_CHECKING:
    from types import FrameType

COMMANDS = {
    "demo": "train a plain and a residual net side by side: the paper's claim in two minutes",
    "train": "train a recipe; run again, it resumes",
    "evaluate": "test errors of a trained model, or of several as an ensemble",
    "check-data": "broken, duplicated, leaking and odd images of a folder, before training meets them",
    "predict": "the most probable classes of images",
    "report": "one web page about a run or several: curves, confusions, mistakes, environment",
    "prepare": "a folder of images into shards: few large files that stream from disk or a web server",
    "convert": "weights from and to torchvision, timm, Hugging Face, Caffe; proven equal",
    "reproduce": "tables and figures of the paper: ours, the paper's, the verdict",
    "compare": "two recipes, the same seeds for both: the difference, with its interval, in a sentence",
    "bench": "the speed of this project and of others on this machine: loading, training, predicting",
    "describe": "an architecture as in Table 1: layers, parameters, multiply-adds, memory",
    "doctor": "what limits a run on this machine: disk, decoding, transfer or model; and the fix, measured",
}

HELP = f"""\
Deep residual learning (He, Zhang, Ren and Sun, 2015): train, test, study and ship the paper's networks.

usage: resnets COMMAND [ARGUMENTS]     resnets COMMAND --help

commands:
{chr(10).join(f"  {name:<10} {line}" for name, line in COMMANDS.items())}

begin here:
  resnets demo                                      no data needed
  resnets train cifar10.resnet20                    Table 6; downloads CIFAR-10 (--steps 6400 for a tenth)
  resnets train folder.scratch --data photos/       your own images, one subfolder a class
  resnets evaluate runs/folder.scratch-seed0 --data photos/
  resnets predict  runs/folder.scratch-seed0 cat.jpg

options:
  -h, --help   this text           --version   the version           --debug   show the traceback of an error

exit codes: 0 done   1 failed   2 wrong usage or input   75 stopped by SIGTERM, saved   130 Ctrl-C, saved
"""


class _Output:
    """A stream that keeps the last error of its own, which tells a full disk under stdout from one under other files."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.error: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self.error = error
            raise

    def finish(self) -> None:
        """Write what is held back, and raise too what the caller of `write` has swallowed, as argparse does."""
        self.flush()
        if self.error is not None:
            raise self.error


def main(arguments: list[str]) -> int:
    """Run the command that `arguments` name and return the exit code."""
    stdout = sys.stdout
    if stdout is None:  # the process was started with stdout closed
        return _run(arguments)
    output = _Output(stdout)
    sys.stdout = cast("TextIO", output)
    code = 0
    try:
        try:
            code = _run(arguments)
        except SystemExit as end:  # after --help, or by a signal
            code = end.code if isinstance(end.code, int) else 0
            output.finish()
            raise
        output.finish()
        return code
    except BrokenPipeError:
        # The reader of our output went away (`resnets describe | head`); leave quietly.
        _discard(stdout)
        return code
    except OSError as error:
        if error is not output.error or "--debug" in arguments:
            raise
        _discard(stdout)
        return _told(UserError(f"the output cannot be written: {error.strerror or error}"))
    finally:
        sys.stdout = stdout


def _discard(stdout: Any) -> None:
    """Let what is still held back go nowhere, so that Python's last flush does not fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stdout.fileno())


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(f"resnets {__version__}")
        return 0
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"] or ["--help"]
    command, *rest = arguments
    if command not in COMMANDS:
        message = f"There is no command {command!r}.{near_misses(command, COMMANDS)} `resnets --help` lists them."
        print(f"error: {visible(message)}", file=sys.stderr)
        return 2
    try:
        return importlib.import_module(f"resnets.cli.{command.replace('-', '_')}").main(rest)
    except InterruptedRunError as interruption:
        print(visible(interruption), file=sys.stderr)
        return interruption.exit_code
    except ResnetsError as error:
        if debug:
            raise
        return _told(error)
    except RuntimeError as error:
        if debug or (no_memory := _no_memory(error)) is None:
            raise
        return _told(no_memory)
    except KeyboardInterrupt:
        if debug:
            raise
        print("Stopped.", file=sys.stderr)
        return 130
    except OSError as error:
        if debug or error.errno != errno.ENAMETOOLONG or error.filename is None:
            raise
        return _told(UserError(f"The name {error.filename} is too long for the file system; choose a shorter one."))


def _told(error: ResnetsError) -> int:
    print(f"error: {visible(error)}", file=sys.stderr)
    return error.exit_code


def _no_memory(error: RuntimeError) -> ResnetsError | None:
    """Return what a person is told where a GPU's memory is full; None for every other error."""
    if "torch" not in sys.modules:
        return None
    from resnets.engine.gpu_memory import is_out_of_memory, no_memory

    return no_memory(error) if is_out_of_memory(error) else None


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    """End at a signal as an error would, so that what is half written is removed; `train` saves instead."""
    sys.exit(128 + number)


def entry() -> None:
    """Start the command line; modules of the user's own are found in the current folder too, behind all others."""
    sys.path.append(str(Path.cwd()))
    for name in ("SIGTERM", "SIGHUP"):
        if (number := getattr(signal, name, None)) is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _end)
    sys.exit(main(sys.argv[1:]))

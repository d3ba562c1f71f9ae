"""The errors that a person sees as one or two lines, and the exit code of each.

Every message says what is wrong, the value, what is allowed, and what to do. Whatever is not one of
these is a defect of the library and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ResnetsError(Exception):
    """A failure that the message explains in full; the command line exits with 1."""

    exit_code = 1


class UserError(ResnetsError):
    """Wrong usage or bad input; the command line exits with 2."""

    exit_code = 2


class SpecError(UserError, ValueError):
    """A field of a spec has a value that it cannot have, or a spec file cannot be read."""


class DataError(UserError):
    """A dataset, an archive or an image cannot be used."""


class ImageError(DataError):
    """One image cannot be read; the others can."""


class ModelError(UserError):
    """Weights or a model folder are damaged, or belong to another net."""


class RunError(UserError):
    """A run directory cannot be written, or belongs to another run."""


class DeviceError(UserError):
    """The device that was asked for cannot do the work."""


class TrainingError(ResnetsError):
    """Training cannot go on: the loss is not finite, the disk is full or memory too small. What was saved stays usable."""


class DivergedError(TrainingError):
    """The loss or a weight became no finite number. The run directory says so, and what was saved stays usable."""


class InterruptedRunError(ResnetsError):
    """A run was stopped by a signal and has saved its state; the same command goes on."""

    def __init__(self, message: str, exit_code: int) -> None:
        """Keep `exit_code`: 130 for Ctrl-C, 75 for SIGTERM (EX_TEMPFAIL, which schedulers can requeue)."""
        super().__init__(message)
        self.exit_code = exit_code


def near_misses(word: str, known: Iterable[str], limit: int = 3) -> str:
    """Return ` Did you mean a, b or c?` for the known words closest to `word`, or an empty string.

    >>> near_misses("resnet51", ["resnet50", "resnet18", "vgg16"], limit=1)
    ' Did you mean resnet50?'
    """
    close = difflib.get_close_matches(word, list(known), n=limit, cutoff=0.6)
    if not close:
        return ""
    *firsts, last = close
    return f" Did you mean {', '.join(firsts)} or {last}?" if firsts else f" Did you mean {last}?"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, which takes an s where there is not exactly one.

    >>> counted(1, "image"), counted(1200, "class name")
    ('1 image', '1,200 class names')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"

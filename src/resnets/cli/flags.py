"""Flags that several commands share, and what they mean."""

from __future__ import annotations

import argparse
import importlib
from typing import TYPE_CHECKING, NoReturn

from resnets.specs.errors import UserError

if TYPE_CHECKING:
    from resnets.specs.run import Machine


class Parser(argparse.ArgumentParser):
    """argparse with help laid out as written, no abbreviations, and errors as `UserError`."""

    def __init__(self, command: str, description: str, usage: str, epilog: str = "") -> None:
        super().__init__(
            prog=f"resnets {command}",
            description=description,
            usage=f"resnets {command} {usage}",
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print and exit with."""
        raise UserError(f"{message[:1].upper()}{message[1:]}. `{self.prog} --help` shows the usage.")


def add_data(parser: argparse.ArgumentParser) -> None:
    """Add --data and --data-root."""
    group = parser.add_argument_group("data")
    group.add_argument(
        "--data",
        metavar="DATA",
        help="digits (embedded), cifar10, cifar100, a folder of images or of shards, or the address of shards",
    )
    group.add_argument("--data-root", metavar="DIR", help="folder that holds CIFAR's files, or receives them")


def add_machine(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Add the flags of the machine, and return their group."""
    group = parser.add_argument_group("machine (changes the speed, not the result)")
    group.add_argument("--device", default="auto", help="cpu, cuda, cuda:N, mps, or auto, the best there is (default)")
    group.add_argument(
        "--workers",
        type=int,
        default=-1,
        metavar="N",
        help="processes that decode images; -1: one a core beside a GPU, none on the CPU, where the net takes turns",
    )
    group.add_argument("--threads", type=int, default=0, metavar="N", help="CPU threads; 0 leaves torch's choice")
    return group


def add_deterministic(group: argparse._ArgumentGroup) -> None:
    """Add --deterministic, for what trains."""
    group.add_argument("--deterministic", action="store_true", help="the same bits on a GPU too: slower")


def machine(arguments: argparse.Namespace) -> Machine:
    """Return the machine that the flags describe."""
    from resnets.specs.run import Machine

    names = (
        "device",
        "workers",
        "threads",
        "channels_last",
        "compile",
        "deterministic",
        "checkpoint_every",
        "keep_checkpoints",
    )
    return Machine(**{name: getattr(arguments, name) for name in names if hasattr(arguments, name)})


def add_import(parser: argparse.ArgumentParser) -> None:
    """Add --import, for models whose spec is a class of the user's own."""
    parser.add_argument(
        "--import",
        dest="modules",
        action="append",
        default=[],
        metavar="MODULE",
        help="import a module of your own that defines the model; a model file never makes us import code",
    )


def import_modules(arguments: argparse.Namespace) -> None:
    """Import what --import names.

    Raises:
        UserError: there is no such module.
    """
    for name in arguments.modules:
        try:
            if not all(name.split(".")):  # what importlib refuses with errors that a module may raise too
                raise ModuleNotFoundError(f"No module named {name!r}")
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            raise UserError(f"--import {name}: {error}. Start from the folder that holds it.") from error


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add --json and --debug, which every command has."""
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout, and nothing else there")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")

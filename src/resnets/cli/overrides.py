"""Fields of a run changed from the command line, by their paths: `--optimizer.base-lr 0.05 schedule:cosine`."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import re
import shlex
import sys
import types
import typing
from typing import TYPE_CHECKING, Any

from resnets.cli.usual_names import TRAIN, refuse_usual_names
from resnets.specs.errors import UserError, near_misses
from resnets.specs.finetune import GivenWeights
from resnets.specs.run import TrainSpec, shorten

if TYPE_CHECKING:
    from collections.abc import Iterator

HINT = "`resnets train RECIPE --fields` lists every field."
_UNWRAPPED = 1_000_000
"""Columns of a terminal that has every message in one line."""


def override(spec: TrainSpec, arguments: list[str]) -> TrainSpec:
    """Return the spec with the fields changed that `arguments` name.

    Raises:
        UserError: there is no such field or choice, or it cannot have the value.
    """
    if not arguments:
        return spec
    refuse_usual_names(arguments, TRAIN, HINT)
    lists_fields = arguments[-1] == "--help"
    if not lists_fields:
        _check_names(type(spec), spec, arguments)
    import tyro

    output, errors = io.StringIO(), io.StringIO()
    width = contextlib.nullcontext() if lists_fields else _terminal_of(_UNWRAPPED)
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors), width:
            return tyro.cli(
                TrainSpec,
                default=spec,
                prog="resnets train RECIPE",
                args=arguments,
                config=(tyro.conf.CascadeSubcommandArgs,),
            )
    except SystemExit as stop:
        if not stop.code:
            sys.stdout.write(output.getvalue())
            raise
        raise UserError(_plain(output.getvalue() + errors.getvalue(), arguments)) from None


def shortened(spec: TrainSpec, steps: int, *arguments: list[str]) -> TrainSpec:
    """Return the spec with `steps` steps, before it is overridden with each of `arguments`.

    What is typed there stays as typed; the steps that a chosen schedule or warm-up brings along are the recipe's, and
    scale with its length.
    """
    for words in arguments:
        spec = override(spec, [word for word in words if word.startswith(("schedule:", "warmup:"))])
    return shorten(spec, steps)


def with_weights(spec: TrainSpec, source: str) -> TrainSpec:
    """Return the spec with the weights to start from that --init-from names."""
    model = spec.init.model if isinstance(spec.init, GivenWeights) else "check"
    return dataclasses.replace(spec, init=GivenWeights(source=source, model=model))


def is_choice(argument: str, spec: TrainSpec) -> bool:
    """Return whether `argument` chooses the kind of a field of `spec`, as `schedule:cosine` does."""
    return (argument, True) in _names(type(spec), spec)


def _check_names(kind: type, spec: TrainSpec, arguments: list[str]) -> None:
    """Refuse names that no field or choice has, with the nearest that there is."""
    paths, choices = set[str](), set[str]()
    for name, is_choice in _names(kind, spec):
        (choices if is_choice else paths).add(name)
    for argument in arguments:
        if argument.startswith("--"):
            name = argument[2:].partition("=")[0].replace("_", "-")
            kinds = sorted(choice for choice in choices if choice.startswith(f"{name}:"))
            if kinds:
                flag = argument.partition("=")[0]
                raise UserError(f"{flag} is a choice, not a value: write {' or '.join(kinds)}, without dashes.")
            if name not in paths and re.sub(r"(^|\.)no-", r"\1", name) not in paths:
                near = near_misses(f"--{name}", [f"--{path}" for path in paths], limit=2)
                raise UserError(f"There is no field or flag {argument.partition('=')[0]}.{near} {HINT}")
        elif re.fullmatch(r"[a-z.-]+:[\w-]+", argument) and argument not in choices:
            field = argument.partition(":")[0]
            known = sorted(choice for choice in choices if choice.startswith(f"{field}:"))
            if known:
                raise UserError(f"There is no choice {argument}; it is one of {', '.join(known)}.")


def _names(kind: Any, value: Any, prefix: str = "") -> Iterator[tuple[str, bool]]:
    """Yield the path of every field below a spec class, and every choice `path:kind` of a union."""
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        path = prefix + field.name.replace("_", "-")
        hint = hints[field.name]
        members = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        yield path, False
        for member in {*members, type(getattr(value, field.name, None))}:
            if isinstance(member, type) and dataclasses.is_dataclass(member):
                yield from _names(member, getattr(value, field.name, None), f"{path}.")
                yield f"{path}:{re.sub('(?<=[a-z])(?=[A-Z])', '-', member.__name__).lower()}", True


@contextlib.contextmanager
def _terminal_of(columns: int) -> Iterator[None]:
    """Let the terminal seem to have so many columns: where tyro breaks a line, inside numbers too, cannot be undone."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(columns)
    try:
        yield
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before


def _plain(text: str, arguments: list[str]) -> str:
    """Return tyro's boxed message as one or two plain lines."""
    lines = [line.strip(" │╭╮╰╯─") for line in re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()]
    lines = [line for line in lines if line.strip("-") and not re.match(r"(Parsing|Value) error|.*--help|usage:", line)]
    message = " ".join(lines)
    message = message.replace("Invalid choice invalid choice", "Invalid choice")
    message = re.sub(r"^Error parsing [\w.-]+: (?=[a-z])", "", message)
    return f"{message.rstrip('.') or f'{shlex.join(arguments)} was not understood'}. {HINT}"

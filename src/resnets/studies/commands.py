"""A command that somebody has typed, with other flags."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def with_flags(words: Sequence[str], flags: Iterable[tuple[str, ...]]) -> list[str]:
    """Return the words of a command with flags set, each in the place of what it was before, else at the end.

    A flag that is there already has as many values as it gets.

    Args:
        words: what was typed.
        flags: a name with dashes and its values each.

    >>> with_flags(["train", "x", "--workers=1", "--data", "d"], [("--workers", "4"), ("--compile",)])
    ['train', 'x', '--workers', '4', '--data', 'd', '--compile']
    """
    result = list(words)
    for name, *values in flags:
        place = next((place for place, word in enumerate(result) if word.partition("=")[0] == name), len(result))
        before = without_flag(result[:place], name, values=len(values))
        result = [*before, name, *values, *without_flag(result[place:], name, values=len(values))]
    return result


def without_flag(words: Sequence[str], name: str, *, values: int) -> list[str]:
    """Return the words without a flag and its values: so many of the words that follow, but no other flag.

    >>> without_flag(["a", "--model.blocks", "3", "4", "--seed", "-1"], "--model.blocks", values=2)
    ['a', '--seed', '-1']
    >>> without_flag(["--seconds", "5", "folder.scratch"], "--seconds", values=1)
    ['folder.scratch']
    """
    kept: list[str] = []
    left = 0
    for word in words:
        left = 0 if word.startswith("--") else left
        if word.partition("=")[0] == name:
            left = values if word == name else 0
        elif left:
            left -= 1
        else:
            kept.append(word)
    return kept


def typed(words: Iterable[str]) -> str:
    """Return the words as a line for a shell."""
    return shlex.join(words)

"""A command that somebody has typed, with other flags."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def with_flags(words: Sequence[str], flags: Iterable[tuple[str, ...]]) -> list[str]:
    """Return the words of a command with flags set, each in the place of what it was before, else at the end.

    Args:
        words: what was typed.
        flags: a name with dashes and its values each.

    >>> with_flags(["train", "x", "--workers=1", "--data", "d"], [("--workers", "4"), ("--compile",)])
    ['train', 'x', '--workers', '4', '--data', 'd', '--compile']
    """
    result = list(words)
    for name, *values in flags:
        place = next((place for place, word in enumerate(result) if word.partition("=")[0] == name), len(result))
        before = without_flag(result[:place], name, values=bool(values))
        result = [*before, name, *values, *without_flag(result[place:], name, values=bool(values))]
    return result


def without_flag(words: Sequence[str], name: str, *, values: bool) -> list[str]:
    """Return the words without a flag; with `values`, without what follows it too, up to the next flag.

    >>> without_flag(["a", "--model.blocks", "3", "4", "--seed", "-1"], "--model.blocks", values=True)
    ['a', '--seed', '-1']
    """
    kept: list[str] = []
    within = False
    for word in words:
        is_flag = word.startswith("--")
        within = values and (word == name or (within and not is_flag))
        if not within and word.partition("=")[0] != name:
            kept.append(word)
    return kept


def typed(words: Iterable[str]) -> str:
    """Return the words as a line for a shell."""
    return shlex.join(words)

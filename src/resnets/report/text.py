"""Words and numbers as a page shows them; text of files is cut to length and cannot turn the text around it."""

from __future__ import annotations

import math

from resnets.specs.visible import in_line

MINUS = "\N{MINUS SIGN}"
TIMES = "\N{MULTIPLICATION SIGN}"
NOTHING = "\N{EN DASH}"
"""What stands where there is no number."""
LONGEST_NOTE = 1_000
"""Characters of a note, which may hold a message or a path of any length."""


def printable(text: object, most: int = 120) -> str:
    r"""Return a text of a file or folder on one line, at most `most` characters long, its middle left out.

    Characters that do not print, such as those that reverse the direction of writing, become escapes.

    >>> printable("a\u202eb\n" + "c" * 50, most=20)
    'a\\u202eb\\ncc…ccccccc'
    """
    # Cut before it is escaped: an escape is longer than its character.
    text = _shortened(str(text), 2 * most)
    return _shortened(in_line(text), most)


def _shortened(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    end = max(1, (most - 1) * 2 // 5)
    return f"{text[: most - 1 - end]}…{text[-end:]}"


def count(value: int) -> str:
    """Return a whole number with commas: 272,474."""
    return f"{value:,}"


def percent(value: float | None) -> str:
    """Return a percentage with two decimals, and a dash for None.

    >>> percent(14.19), percent(None) == NOTHING
    ('14.19', True)
    """
    return NOTHING if value is None else f"{value:.2f}"


def points(value: float) -> str:
    """Return a difference of two percentages and its sign, in percentage points: +1.20, 0.00."""
    rounded = round(value, 2)
    return f"{abs(rounded):.2f}" if rounded == 0 else f"{'+' if rounded > 0 else MINUS}{abs(rounded):.2f}"


def large(value: int) -> str:
    """Return a number of parameters or multiply-adds in words of three digits.

    >>> large(853018), large(40_813_184), large(3_857_973_248)
    ('853 thousand', '40.8 million', '3.86 billion')
    """
    for unit, word in ((10**9, "billion"), (10**6, "million"), (10**3, "thousand")):
        if value >= unit:
            digits = max(0, 2 - int(math.log10(value / unit)))
            return f"{value / unit:.{digits}f} {word}"
    return str(value)


def listed(words: list[str]) -> str:
    """Return words as a sentence lists them.

    >>> listed(["a"]), listed(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"

"""Text from files and folders of others, made safe to print: nothing in it can steer the terminal."""

from __future__ import annotations


def visible(text: object) -> str:
    r"""Return the text with every character that does not print, except line breaks, written as an escape.

    >>> visible("caf\u00e9\x1b[31m red\n")
    'café\\x1b[31m red\n'
    """
    return "".join(
        letter if letter.isprintable() or letter == "\n" else letter.encode("unicode_escape").decode()
        for letter in str(text)
    )

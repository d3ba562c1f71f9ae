"""Text from files and folders of others, made safe to print: nothing in it can steer the terminal."""

from __future__ import annotations

import json
from typing import Any


def visible(text: object) -> str:
    r"""Return the text with every character that does not print, except line breaks, written as an escape.

    >>> visible("caf\u00e9\x1b[31m red\n")
    'café\\x1b[31m red\n'
    """
    return "".join(
        letter if letter.isprintable() or letter == "\n" else letter.encode("unicode_escape").decode()
        for letter in str(text)
    )


def in_line(text: object) -> str:
    r"""Return the text as `visible` does, with line breaks as escapes too: a name in a line or in a cell of a table.

    >>> in_line("two\nlines")
    'two\\nlines'
    """
    return visible(text).replace("\n", "\\n")


def json_text(document: Any) -> str:
    r"""Return a document for stdout; names of files that are not valid UTF-8 are escaped, as UTF-8 has no place for them.

    >>> json_text("caf\u00e9 \udcff")
    '"café \\udcff"'
    """
    return json.dumps(document, indent=2, ensure_ascii=False).encode("utf-8", "backslashreplace").decode("utf-8")

"""The list of images that training leaves out: `quarantine.json` in the dataset's folder. Nothing is moved.

    {"version": 1, "images": [{"path": "train/cat/7.jpg", "reason": "it is empty (0 bytes)", "kind": "empty"}]}

Paths are relative to the folder, with forward slashes. A person may edit the file; `kind` may be missing.
"""

from __future__ import annotations

import json
import os
import tempfile
from typing import TYPE_CHECKING, Any, NamedTuple

from resnets.data.replace_file import replace_file
from resnets.data.sources import read_file
from resnets.specs.errors import DataError, ImageError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

QUARANTINE_FILE = "quarantine.json"
VERSION = 1


class Quarantined(NamedTuple):
    """An image that is left out."""

    path: str
    reason: str
    kind: str = "manual"
    """Name of a kind of finding; "manual" where a person added it."""


def read_quarantine(root: Path) -> dict[str, str]:
    """Return the images to leave out of a dataset's folder, relative path to reason; empty where there is no list.

    Raises:
        DataError: the list cannot be read or is damaged; the message names it.
    """
    return {entry.path: entry.reason for entry in read_list(root / QUARANTINE_FILE)}


def read_list(path: Path) -> list[Quarantined]:
    """Return the entries of a quarantine list, none where there is no such file.

    Raises:
        DataError: it cannot be read or is damaged.
    """
    if not os.path.lexists(path):
        return []
    try:
        document = json.loads(read_file(path).decode("utf-8-sig"))
    except ImageError as error:
        raise DataError(f"{path} cannot be read: {error}.") from error
    except (ValueError, RecursionError) as error:  # ValueError: not JSON, or not UTF-8
        raise DataError(f"{path} is not valid JSON ({error}). {_MEND}") from error
    return _entries(path, document)


_MEND = "Mend it, or delete it and run `resnets check-data FOLDER --quarantine` again."


def _entries(path: Path, document: Any) -> list[Quarantined]:
    if not isinstance(document, dict) or not isinstance(document.get("images"), list):
        raise DataError(f'{path} has no list "images". {_MEND}')
    if document.get("version") != VERSION or isinstance(document["version"], bool):
        raise DataError(f"{path} is of version {document.get('version')!r:.40}; this program reads version {VERSION}.")
    entries = []
    for number, entry in enumerate(document["images"]):
        fields = entry if isinstance(entry, dict) else {}
        values = [fields.get("path"), fields.get("reason", "no reason is given"), fields.get("kind", "manual")]
        if not all(isinstance(value, str) for value in values) or not values[0]:
            raise DataError(f'{path}: entry {number} of "images" is no object with a "path" and a "reason". {_MEND}')
        entries.append(Quarantined(*values))
    return entries


def write_list(path: Path, entries: Iterable[Quarantined]) -> None:
    """Write a quarantine list, so that the file is either the old one or complete.

    Raises:
        DataError: it cannot be written.
    """
    document = {"version": VERSION, "images": [entry._asdict() for entry in entries]}
    try:
        # The escapes of names that are not valid UTF-8 are valid JSON, and are read back as they were.
        text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
        replace_file(path, text.encode(errors="backslashreplace"))
    except OSError as error:
        raise _unwritable(path, error) from error


def check_place(path: Path) -> None:
    """Refuse a path at which no list can be written.

    Raises:
        DataError: saying why.
    """
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}."):
            pass
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> DataError:
    return DataError(f"{path} cannot be written: {error.strerror or error}. Name another file: --quarantine FILE.")

"""Write a file whole or not at all."""

from __future__ import annotations

import glob
import os
import secrets
import time
from contextlib import suppress
from pathlib import Path


def replace_file(path: Path, content: bytes) -> None:
    """Let `path` hold `content`; what was there stays until all of it is written.

    Raises:
        OSError: it cannot be written.
    """
    # A name of its own: the processes of a run may write the same file at once.
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def clear_parts(path: Path, *, older_than_seconds: float = 0.0) -> None:
    """Remove what processes that were killed had begun to write for `path`.

    Args:
        path: a file that `replace_file` writes.
        older_than_seconds: leave what another process may still be writing.
    """
    for part in path.parent.glob(f"{glob.escape(path.name)}.*.part"):
        with suppress(OSError):
            if time.time() - part.stat().st_mtime >= older_than_seconds:
                part.unlink()

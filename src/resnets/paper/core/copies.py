"""Copies of unfinished runs: one that lies where runs are only read goes on in a folder of its own."""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING

from resnets.artifacts.run_directory import RunDirectory

if TYPE_CHECKING:
    from pathlib import Path


def has_checkpoint(run: Path) -> bool:
    """Return whether a run directory holds something to go on from; needs no torch."""
    return any(RunDirectory(run).checkpoints.glob("step-*.pt"))


def copy_unfinished(run: Path, destination: Path) -> None:
    """Copy what a run goes on from: its latest checkpoint, log, configuration and environment.

    Args:
        run: the run directory; nothing in it is changed.
        destination: the new run directory. What was copied is removed again where not all of it can be.

    Raises:
        OSError: a file cannot be read or written, or there is no checkpoint any more.
        ModelError: the checkpoint is damaged, or of another version.
    """
    from resnets.engine.checkpoint import latest_checkpoint, load_checkpoint

    source, target = RunDirectory(run), RunDirectory(destination)
    checkpoint = latest_checkpoint(source.checkpoints)
    if checkpoint is None:
        raise FileNotFoundError(errno.ENOENT, "its checkpoint is gone")
    load_checkpoint(checkpoint)
    # The log after the checkpoint: where the run is going on meanwhile, it has all lines before it, and what is after it
    # is cut off. The configuration last: a folder without it is no run.
    files = [
        (checkpoint, target.checkpoints / checkpoint.name),
        (source.statistics, target.statistics),
        (source.metrics, target.metrics),
        (source.environment, target.environment),
        (source.config, target.config),
    ]
    optional = (source.statistics, source.environment)
    copied: list[Path] = []
    try:
        target.checkpoints.mkdir(parents=True, exist_ok=True)
        for file, copy in files:
            if file in optional and not file.is_file():
                continue
            # Of a name that training removes where a kill has left it.
            temporary = copy.with_name(f".{copy.name}.tmp-{os.getpid()}")
            copied.append(temporary)
            shutil.copyfile(file, temporary)
            copied.append(copy)
            temporary.replace(copy)
    except BaseException:
        for copy in copied:
            with suppress(OSError):
                copy.unlink(missing_ok=True)
        raise

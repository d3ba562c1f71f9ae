"""The record of a run: `metrics.jsonl`, one JSON object a line, and TensorBoard where it is installed."""

from __future__ import annotations

import importlib.util
import json
import math
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from resnets.artifacts.run_directory import write_text
from resnets.specs.errors import TrainingError

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType


class MetricsLog:
    """Appends lines to `metrics.jsonl`; on other ranks than the first, `path` is None and nothing is written.

    Args:
        path: the file; None writes nothing.
        from_step: the step training starts from; later lines of an interrupted run are cut off.
        tensorboard: folder for event files, written where the package tensorboard is installed.
    """

    def __init__(self, path: Path | None, *, from_step: int = 0, tensorboard: Path | None = None) -> None:
        self._file = None
        self._writer = None
        if path is None:
            return
        self._path = path
        try:
            cut_after(path, from_step)
            self._file = path.open("a", encoding="utf-8")
        except OSError as error:
            raise self._failure(error) from error
        if tensorboard is not None and importlib.util.find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(tensorboard), purge_step=from_step + 1 if from_step else None)

    def write(self, step: int, split: str, **values: Any) -> None:
        """Append one line: the step, the split it is about ("train", "validation", "test") and its values."""
        if self._file is None:
            return
        finite = {name: value for name, value in values.items() if not _is_not_finite(value)}
        try:
            self._file.write(json.dumps({"step": step, "split": split} | finite) + "\n")
            self._file.flush()
        except OSError as error:
            raise self._failure(error) from error
        if self._writer is not None:
            try:
                for name, value in finite.items():
                    if isinstance(value, int | float) and not isinstance(value, bool):
                        self._writer.add_scalar(f"{split}/{name}", value, step)
            except OSError:  # its copy of the log is not worth the run
                self._writer = None

    def sync(self) -> None:
        """Force what was written to the disk, as before a checkpoint that relies on it."""
        if self._file is not None:
            try:
                os.fsync(self._file.fileno())
            except OSError as error:
                raise self._failure(error) from error

    def _failure(self, error: OSError) -> TrainingError:
        return TrainingError(
            f"{self._path} cannot be written: {error.strerror or error}. The checkpoints are intact; make room and run "
            "the same command again."
        )

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            with suppress(OSError):  # of a full disk, which write has reported
                self._file.close()
        if self._writer is not None:
            with suppress(OSError):
                self._writer.close()


def cut_after(path: Path, step: int) -> None:
    """Drop the lines of `path` after `step`, those about the finished model, and those that hold no entry of a log.

    The file is either the old one or complete.

    Raises:
        OSError: it cannot be written.
    """
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):  # also numbers of thousands of digits, and thousands of levels
            continue
        if _is_entry(entry) and entry["step"] <= step and "final" not in entry:
            kept.append(line + "\n")
    write_text(path, "".join(kept))


def _is_entry(value: Any) -> bool:
    """Return whether a JSON value is an entry of a log: it says which step it is about."""
    step = value.get("step") if isinstance(value, dict) else None
    return isinstance(step, int) and not isinstance(step, bool)


def _is_not_finite(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)

"""What a run has written into `metrics.jsonl`, read with care: the file may be unfinished, old, or edited by hand."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from resnets.artifacts.divergence import Divergence
from resnets.specs.errors import RunError

if TYPE_CHECKING:
    from pathlib import Path

_LARGEST_COUNT = 2**53


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingPoint:
    """A line about training: means since the line before, over augmented images."""

    step: int
    """Optimiser steps done."""
    epoch: float | None = None
    """Passes over the training images."""
    loss: float | None = None
    """Cross entropy, in nats."""
    top1_error: float | None = None
    """In percent."""
    lr: float | None = None
    """Learning rate of the step."""
    images_per_second: float | None = None
    """Training speed just before the line."""
    waiting_share: float | None = None
    """Share of the time, 0 to 1, that was spent waiting for images."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """A line about a test over every image of a split that can be read."""

    step: int
    """Optimiser steps done."""
    split: Literal["validation", "test"]
    """The images."""
    top1_error: float
    """In percent."""
    top5_error: float | None = None
    """In percent; None with five classes or fewer."""
    loss: float | None = None
    """Cross entropy, in nats."""
    images: int | None = None
    """Images the error is over."""
    skipped: int = 0
    """Images that could not be read and are in no score."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunLog:
    """The lines of a log, each kind in the order of the steps."""

    training: tuple[TrainingPoint, ...] = ()
    evaluations: tuple[Evaluation, ...] = ()
    """Those on the way; the last of them may be of the last step."""
    final: Evaluation | None = None
    """That of the weights the run has left; None where the run is not finished, or the line has no error."""
    ended: bool = False
    """Whether the line is there that a finished run ends with, readable or not."""
    diverged: Divergence | None = None
    """How the last start of the run ended, where its loss or a weight became no finite number; None where the log goes on
    behind that line."""
    left_out: tuple[tuple[str, str], ...] = ()
    """Path and reason of each training image that could not be read."""
    unreadable_lines: int = 0
    """Lines that hold no entry of a log; the one that is just being written is one."""

    @property
    def last_step(self) -> int:
        """The last step that a line is about; 0 where there is none."""
        return max((entry.step for entry in (*self.training, *self.evaluations)), default=0)

    @property
    def best(self) -> Evaluation | None:
        """The first of the evaluations on the way that have the lowest error."""
        return min(self.evaluations, key=lambda entry: entry.top1_error, default=None)


def read_run_log(path: Path) -> RunLog:
    """Return what the `metrics.jsonl` at `path` holds.

    Values that cannot be (text for a number, an error above 100 %) are left out, and of two lines about one step and
    split the later one counts.

    Raises:
        RunError: the file cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}. Is {path.parent} a run directory?") from error
    lines = [line for line in lines if line.strip()]
    collected = _Collected()
    for line in lines:
        collected.add(line)
    return RunLog(
        training=tuple(point for _, point in sorted(collected.training.items())),
        evaluations=tuple(entry for _, entry in sorted(collected.evaluations.items())),
        final=collected.completed_final(),
        ended=collected.ended,
        diverged=collected.diverged,
        left_out=tuple(collected.left_out.items()),
        unreadable_lines=collected.unreadable,
    )


@dataclass(slots=True)
class _Collected:
    training: dict[int, TrainingPoint] = field(default_factory=dict)
    evaluations: dict[tuple[int, str], Evaluation] = field(default_factory=dict)
    final: Evaluation | None = None
    final_names_skipped: bool = False
    ended: bool = False
    diverged: Divergence | None = None
    left_out: dict[str, str] = field(default_factory=dict)
    unreadable: int = 0

    def add(self, line: str) -> None:
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            entry = None
        step = _count(entry.get("step")) if isinstance(entry, dict) else None
        if not isinstance(entry, dict) or step is None:
            self.unreadable += 1
            return
        self.ended = self.ended or entry.get("final") is True
        self.diverged = _divergence(step, entry)
        if self.diverged is not None:
            return
        if isinstance(left_out := entry.get("left_out"), dict):
            self.left_out[str(left_out.get("path", ""))] = str(left_out.get("reason", ""))
        elif entry.get("split") == "train":
            self.training[step] = _training_point(step, entry)
        elif (
            entry.get("split") in ("validation", "test") and (error := _percentage(entry.get("top1_error"))) is not None
        ):
            evaluation = _evaluation(step, error, entry)
            if entry.get("final") is True:
                self.final = evaluation
                self.final_names_skipped = isinstance(entry.get("skipped"), list)
            else:
                self.evaluations[step, evaluation.split] = evaluation

    def completed_final(self) -> Evaluation | None:
        """Return the final evaluation; what it skipped, which old logs leave out there, is that of its step and split."""
        if self.final is None or self.final_names_skipped:
            return self.final
        before = self.evaluations.get((self.final.step, self.final.split))
        return replace(self.final, skipped=before.skipped) if before else self.final


def _divergence(step: int, entry: dict[str, Any]) -> Divergence | None:
    """Return what a line says of the end of its start; None where it is another line."""
    said = entry.get("diverged")
    if not isinstance(said, dict):
        return None
    conditions = said.get("conditions")
    return Divergence(
        step=step,
        checkpoint_step=_count(said.get("checkpoint_step")) or 0,
        lr=_at_least_0(said.get("lr")),
        conditions=conditions if isinstance(conditions, dict) else {},
    )


def _training_point(step: int, entry: dict[str, Any]) -> TrainingPoint:
    share = number(entry.get("waiting_share"))
    return TrainingPoint(
        step=step,
        epoch=_at_least_0(entry.get("epoch")),
        loss=_at_least_0(entry.get("loss")),
        top1_error=_percentage(entry.get("top1_error")),
        lr=_at_least_0(entry.get("lr")),
        images_per_second=_at_least_0(entry.get("images_per_second")),
        waiting_share=share if share is not None and 0 <= share <= 1 else None,
    )


def _evaluation(step: int, error: float, entry: dict[str, Any]) -> Evaluation:
    skipped = entry.get("skipped")
    return Evaluation(
        step=step,
        split=entry["split"],
        top1_error=error,
        top5_error=_percentage(entry.get("top5_error")),
        loss=_at_least_0(entry.get("loss")),
        images=_count(entry.get("images")),
        skipped=len(skipped) if isinstance(skipped, list) else 0,
    )


def number(value: Any) -> float | None:
    """Return a value of a JSON file as a finite number, or None.

    >>> number(2), number("2"), number(float("nan")), number(True)
    (2.0, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        result = float(value)
    except OverflowError:
        return None
    return result if math.isfinite(result) else None


def _at_least_0(value: Any) -> float | None:
    result = number(value)
    return result if result is not None and 0 <= result < 1e100 else None


def _percentage(value: Any) -> float | None:
    result = number(value)
    return result if result is not None and 0 <= result <= 100 else None


def _count(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value <= _LARGEST_COUNT else None

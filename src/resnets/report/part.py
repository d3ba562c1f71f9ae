"""One run of a report: what its files say, and what testing its net has found or why there is nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resnets.report.examination import Examination
    from resnets.report.run_record import RunRecord


@dataclass(frozen=True, kw_only=True, slots=True)
class Missing:
    """What a report lacks about a run, and the command that adds it."""

    reason: str
    command: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunPart:
    """One run with what was found out about it."""

    record: RunRecord
    examination: Examination | None = None
    missing: Missing | None = None

"""When a result agrees with the paper: rules with their reason, and the verdict they give.

PASS and FAIL are for claims that the run can support; everything else is REPORT.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["PASS", "FAIL", "REPORT"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Within:
    """PASS if ours is no further from the paper's number than `tolerance`."""

    tolerance: int | float
    """Largest difference, in the unit of the row."""
    why: str
    """Where the tolerance comes from."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AtLeast:
    """PASS if ours is `limit` or more."""

    limit: int | float
    """In the unit of the row."""
    why: str
    """What the paper claims, and where the limit comes from."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AtMost:
    """PASS if ours is `limit` or less."""

    limit: int | float
    """In the unit of the row."""
    why: str
    """What the paper claims, and where the limit comes from."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Above:
    """PASS if ours is more than `limit`, as where the paper says that one number is above another."""

    limit: int | float
    """In the unit of the row."""
    why: str
    """What the paper claims, and where the limit comes from."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Below:
    """PASS if ours is less than `limit`."""

    limit: int | float
    """In the unit of the row."""
    why: str
    """What the paper claims, and where the limit comes from."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """The number is shown and not judged."""

    why: str
    """Why no verdict can be given."""


Rule = Within | AtLeast | AtMost | Above | Below | Report

_ROUNDING = 1e-9
"""What decimal fractions lose in binary: 3.858 - 3.798 is not above 0.06."""


def judge(rule: Rule, ours: int | float, paper: int | float | None) -> Verdict:
    """Return the verdict on `ours`; a value that is not a number never passes.

    Raises:
        ValueError: the rule compares with a number of the paper, and there is none.

    >>> judge(Within(tolerance=0.06, why="rounding"), 3.858, 3.8)
    'PASS'
    """
    match rule:
        case Report():
            return "REPORT"
        case Within(tolerance=tolerance):
            if paper is None:
                raise ValueError("Within compares with a number of the paper, and the row has none.")
            holds = abs(ours - paper) <= tolerance + _ROUNDING
        case AtLeast(limit=limit):
            holds = ours >= limit - _ROUNDING
        case AtMost(limit=limit):
            holds = ours <= limit + _ROUNDING
        case Above(limit=limit):
            holds = ours > limit + _ROUNDING
        case Below(limit=limit):
            holds = ours < limit - _ROUNDING
    return "PASS" if holds else "FAIL"


def rule_text(rule: Rule) -> str:
    """Return a rule as a person reads it: what is asked, and why.

    >>> rule_text(AtLeast(limit=0.1, why="Fig. 1"))
    'at least 0.1: Fig. 1'
    """
    match rule:
        case Report(why=why):
            return f"not judged: {why}"
        case Within(tolerance=0, why=why):
            return f"equal: {why}"
        case Within(tolerance=tolerance, why=why):
            return f"within {tolerance:g} of the paper: {why}"
        case AtLeast(limit=limit, why=why):
            return f"at least {limit:g}: {why}"
        case AtMost(limit=limit, why=why):
            return f"at most {limit:g}: {why}"
        case Above(limit=limit, why=why):
            return f"above {limit:g}: {why}"
        case Below(limit=limit, why=why):
            return f"below {limit:g}: {why}"

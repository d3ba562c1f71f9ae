"""Rows for numbers that stand in the paper alone: quoted, waiting for a part of this package, or checked by arithmetic."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from resnets.paper.core.experiment import Computed, NotRun, Row
from resnets.paper.core.verdict import Above, Report, Within

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from resnets.paper.core.verdict import Rule

ARITHMETIC = "the paper's arithmetic on its own numbers"
"""Meaning of rows whose `ours` is computed from printed numbers: they check the text and the typing, no net."""

_QUOTED = "another group's net, quoted by the paper"


def quoted(run: str, meaning: str, paper: int | float, source: str, *, decimals: int = 2, printed: str = "") -> Row:
    """Return the row of another group's net, which is never filled."""
    return waiting(run, meaning, paper, source, _QUOTED, rule=Report(why="quoted"), decimals=decimals, printed=printed)


def waiting(
    run: str,
    meaning: str,
    paper: int | float,
    source: str,
    reason: str,
    *,
    rule: Rule,
    decimals: int = 1,
    printed: str = "",
) -> Row:
    """Return a row that stays empty until what `reason` names is there."""
    return Row(
        run=run,
        meaning=meaning,
        ours=NotRun(reason=reason),
        rule=rule,
        paper=paper,
        printed=printed or f"{paper:.{decimals}f}",
        source=source,
        budget="full",
        decimals=decimals,
    )


def arithmetic(
    run: str,
    value: Callable[[], int | float],
    paper: int | float,
    source: str,
    *,
    tolerance: int | float,
    why: str,
    unit: str = "points",
    decimals: int = 2,
    printed: str = "",
) -> Row:
    """Return a row that compares a number of the text with the same computed from the numbers of its tables."""
    rule = Within(tolerance=tolerance, why=why)
    return _of_printed(run, unit, value, rule, paper, source, decimals=decimals, printed=printed)


def more_than(
    run: str, value: Callable[[], int | float], limit: int | float, source: str, *, why: str, printed: str
) -> Row:
    """Return a row that compares what the text has as "more than" a number with the numbers of its tables."""
    rule = Above(limit=limit, why=why)
    return _of_printed(run, "points", value, rule, limit, source, decimals=1, printed=printed)


def in_order(run: str, values: Sequence[float], source: str, *, why: str) -> Row:
    """Return a row that counts neighbours of printed numbers that do not fall, which the paper says all do."""
    rule = Within(tolerance=0, why=why)
    return _of_printed(run, "neighbours out of order", lambda: out_of_order(values), rule, 0, source, decimals=0)


def _of_printed(
    run: str,
    unit: str,
    value: Callable[[], int | float],
    rule: Rule,
    paper: int | float,
    source: str,
    *,
    decimals: int,
    printed: str = "",
) -> Row:
    return Row(
        run=run,
        meaning=f"{ARITHMETIC}: {unit}",
        ours=Computed(value=value),
        rule=rule,
        paper=paper,
        printed=printed,
        source=source,
        decimals=decimals,
    )


def out_of_order(values: Sequence[float]) -> int:
    """Return how many of the values are not below the one before.

    >>> out_of_order([28.54, 25.03, 25.03, 24.19])
    1
    """
    return sum(after >= before for before, after in itertools.pairwise(values))

"""How far each experiment has come: the checklist of the whole paper."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from resnets.artifacts.found_runs import default_roots, find_runs
from resnets.paper.core.experiment import BUDGETS, Computed, FromRuns, Unavailable
from resnets.paper.core.find import experiment, experiment_names
from resnets.paper.core.verdict import judge

if TYPE_CHECKING:
    from pathlib import Path

    from resnets.artifacts.found_runs import FoundRuns
    from resnets.paper.core.experiment import Budget, Experiment, Row


@dataclass(frozen=True, kw_only=True, slots=True)
class Count:
    """The rows of one budget."""

    rows: int = 0
    possible: int = 0
    """Rows that can be filled and leave a trace: computed at once, or from runs."""
    on_call: int = 0
    """Rows that take too long to compute for a list."""
    filled: int = 0
    """Those that are computed, or whose runs are finished."""
    failed: int = 0
    """Computed rows that do not agree."""


@dataclass(frozen=True, kw_only=True, slots=True)
class State:
    """How far one experiment has come."""

    name: str
    title: str
    claim: str
    counts: dict[Budget, Count]

    @property
    def mark(self) -> str:
        """Return x where all rows of the largest budget are filled, / where some of any are, ! for a failed check."""
        # The largest budget an experiment has is the nearest to the paper: its own runs, short ones, or exact counts.
        largest = next((self.counts[budget] for budget in reversed(BUDGETS) if self.counts[budget].rows), Count())
        if any(count.failed for count in self.counts.values()):
            return "!"
        if largest.possible and largest.filled == largest.possible and not largest.on_call:
            return "x"
        return "/" if any(count.filled for count in self.counts.values()) else " "

    def cell(self, budget: Budget) -> str:
        """Return `done/rows` of a budget, a dash where nothing can be run yet, blank without rows."""
        count = self.counts[budget]
        if not count.rows:
            return ""
        if not count.possible:
            return "on call" if count.on_call else "-"
        return f"{count.filled}/{count.possible}"

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        marks = {"x": "done", "/": "partly", "!": "failed", " ": "open"}
        return {
            "experiment": self.name,
            "title": self.title,
            "claim": self.claim,
            "state": marks[self.mark],
            "rows": {budget: dataclasses.asdict(count) for budget, count in self.counts.items() if count.rows},
        }


def states(run_root: Path) -> list[State]:
    """Return the state of every experiment, with the runs below `run_root` and the default folders."""
    found = find_runs((run_root, *default_roots()))
    return [_state(name, experiment(name), found) for name in experiment_names()]


def _state(name: str, planned: Experiment, found: FoundRuns) -> State:
    counts: dict[Budget, Count] = {}
    for budget in BUDGETS:
        counts[budget] = _count([row for row in planned.rows if row.budget == budget], found)
    return State(name=name, title=planned.title, claim=planned.claim, counts=counts)


def _count(rows: list[Row], found: FoundRuns) -> Count:
    judged = [_filled(row, found) for row in rows]
    return Count(
        rows=len(rows),
        possible=sum(isinstance(row.ours, Computed | FromRuns) and not _is_slow(row) for row in rows),
        on_call=sum(map(_is_slow, rows)),
        filled=sum(verdict is not None for verdict in judged),
        failed=sum(verdict == "FAIL" for verdict in judged),
    )


def _is_slow(row: Row) -> bool:
    return isinstance(row.ours, Computed) and row.ours.slow


def _filled(row: Row, found: FoundRuns) -> str | None:
    """Return the verdict of a computed row, "there" for runs that are finished, None for what is missing."""
    match row.ours:
        case Computed(slow=False, value=value):
            try:
                return judge(row.rule, float(value()), row.paper)
            except Unavailable:
                return None
        case FromRuns(runs=runs, needs_weights=needs_weights):
            specs = [dataclasses.replace(plan.spec, seed=seed) for plan in runs for seed in plan.seeds]
            finished = [found.finished(spec) for spec in specs]
            there = all(run is not None and (run.has_weights or not needs_weights) for run in finished)
            return "there" if there else None
        case _:
            return None

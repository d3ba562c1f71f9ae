"""How far each experiment has come: the checklist of the whole paper."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from resnets.artifacts.found_runs import default_roots
from resnets.paper.core.execute import fill_row
from resnets.paper.core.experiment import BUDGETS, Computed, FromRuns
from resnets.paper.core.find import experiment, experiment_names
from resnets.paper.core.workshop import Settings, Workshop

if TYPE_CHECKING:
    from pathlib import Path

    from resnets.paper.core.experiment import Budget, Experiment, Row


@dataclass(frozen=True, kw_only=True, slots=True)
class Count:
    """The rows of one budget."""

    rows: int = 0
    possible: int = 0
    """Rows that a list can tell to be filled or not: computed at once, or read off the logs of runs."""
    on_call: int = 0
    """Rows that take too long to compute for a list."""
    with_images: int = 0
    """Rows whose runs are there with their weights, and that are computed from the training images when asked for."""
    filled: int = 0
    """Those of the possible ones that have their number, of all seeds."""
    failed: int = 0
    """Those of the filled ones that do not agree."""


@dataclass(frozen=True, kw_only=True, slots=True)
class State:
    """How far one experiment has come."""

    name: str
    title: str
    claim: str
    counts: dict[Budget, Count]

    @property
    def mark(self) -> str:
        """Return x where all rows of the largest budget are filled, / where some of any are, ! where one fails."""
        # The largest budget an experiment has is the nearest to the paper: its own runs, short ones, or exact counts.
        largest = next((self.counts[budget] for budget in reversed(BUDGETS) if self.counts[budget].rows), Count())
        if any(count.failed for count in self.counts.values()):
            return "!"
        on_call = largest.on_call + largest.with_images
        if largest.possible and largest.filled == largest.possible and not on_call:
            return "x"
        return "/" if any(count.filled + count.with_images for count in self.counts.values()) else " "

    def cell(self, budget: Budget) -> str:
        """Return `done/rows` of a budget and `+N` on call, a dash where nothing can be run yet, blank without rows."""
        count = self.counts[budget]
        if not count.rows:
            return ""
        on_call = count.on_call + count.with_images
        if not count.possible:
            return "on call" if on_call else "-"
        return f"{count.filled}/{count.possible}" + (f" +{on_call}" if on_call else "")

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
    workshop = Workshop(Settings(run_root=run_root, roots=default_roots()))
    return [_state(name, experiment(name), workshop) for name in experiment_names()]


def _state(name: str, planned: Experiment, workshop: Workshop) -> State:
    counts: dict[Budget, Count] = {}
    for budget in BUDGETS:
        counts[budget] = _count([row for row in planned.rows if row.budget == budget], workshop)
    return State(name=name, title=planned.title, claim=planned.claim, counts=counts)


def _count(rows: list[Row], workshop: Workshop) -> Count:
    on_call = [row for row in rows if isinstance(row.ours, Computed) and row.ours.slow]
    with_images = [row for row in rows if _waits_for_images(row, workshop)]
    apart = [*map(id, on_call), *map(id, with_images)]
    possible = [row for row in rows if isinstance(row.ours, Computed | FromRuns) and id(row) not in apart]
    # Where weights are needed and not all there, the row is not filled; a list loads none.
    outcomes = [
        fill_row(row, workshop, train=False) for row in possible if not getattr(row.ours, "needs_weights", False)
    ]
    # A reason is that of a row with fewer seeds than planned, or of one that failed because a run diverged.
    filled = [one for one in outcomes if one.ours is not None and (not one.reason or one.verdict == "FAIL")]
    return Count(
        rows=len(rows),
        possible=len(possible),
        on_call=len(on_call),
        with_images=len(with_images),
        filled=len(filled),
        failed=sum(one.verdict == "FAIL" for one in filled),
    )


def _waits_for_images(row: Row, workshop: Workshop) -> bool:
    """Return whether a row needs the weights of its runs, with the images that they were trained on, and has them."""
    ours = row.ours
    if not isinstance(ours, FromRuns) or not ours.needs_weights:
        return False
    specs = [dataclasses.replace(plan.spec, seed=seed) for plan in ours.runs for seed in plan.seeds]
    finished = [workshop.found.finished(spec) for spec in specs]
    return all(run is not None and run.has_weights for run in finished)

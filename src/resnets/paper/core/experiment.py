"""What a table, figure or claim of the paper is made of: published rows, the runs behind them, rules, pictures.

Everything here is data and needs the standard library only; what computes is a function that imports what it needs
when it is called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from resnets.specs.errors import SpecError

if TYPE_CHECKING:
    from pathlib import Path

    from resnets.artifacts.found_runs import FoundRun
    from resnets.paper.core.verdict import Rule
    from resnets.specs.run import TrainSpec

Budget = Literal["check", "cpu", "gpu", "full"]
BUDGETS: tuple[Budget, ...] = get_args(Budget)


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedRun:
    """A training run that a row reads, once for each seed."""

    name: str
    """The net as the paper writes it: ResNet-56, plain-20."""
    spec: TrainSpec
    """What is trained; its seed is replaced."""
    seeds: tuple[int, ...] = (0,)
    """Seeds that are trained where none are asked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Computed:
    """Ours comes from a function, in seconds and without training."""

    value: Callable[[], int | float]
    """Returns the number in the row's unit. May raise `Unavailable`."""
    slow: bool = False
    """Whether it takes seconds: then the list of all experiments does not compute it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FromRuns:
    """Ours is read off finished runs."""

    runs: tuple[PlannedRun, ...]
    """Runs that `read` compares; each seed is read by itself."""
    read: Callable[..., int | float]
    """Takes one finished run (`FoundRun`) for each of `runs`, all of the same seed, and returns the number."""
    over_seeds: Literal["mean", "best"] = "mean"
    """How the numbers of several seeds become one; best is the lowest, as in Table 6 for ResNet-110."""
    needs_weights: bool = False
    """Whether `read` loads the model: a run that was kept without weights does not do."""
    has_to_train: bool = False
    """Whether the claim is that the net can be trained: then a loss that is no finite number is a FAIL in the call that
    trained it, not a row that was not run."""
    tested_in: Callable[..., Iterable[str]] = lambda *runs: ()
    """Takes what `read` takes, and returns the precisions of the tests that it read, where they are not those of the
    training: `bf16`. Nothing is an error of the run's own log."""
    missing: str = ""
    """What the row says where a run is not there and cannot be trained here; empty says how to train it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NotRun:
    """Ours stays empty."""

    reason: str
    """What is missing: a part of this package, data, or a net that is not the paper's own."""


Ours = Computed | FromRuns | NotRun


class Unavailable(Exception):  # noqa: N818 - no error: the row stays empty
    """A number cannot be had here; the message is the reason that the row shows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One line of a table: what it is, the paper's number, ours, and when they agree."""

    run: str
    """What the line is about, up to 40 letters: `ResNet-56`, `plain-56 - plain-20`."""
    meaning: str
    """What the number is, with its unit: `test error, %`."""
    ours: Ours
    """Where our number comes from."""
    rule: Rule
    """When ours agrees."""
    paper: int | float | None = None
    """The paper's number; None where it prints none."""
    printed: str = ""
    """The number as the paper prints it, where that says more: `6.61 ± 0.16`."""
    source: str
    """Where in the paper it stands: `Table 6`, `Sec. 4.2`."""
    budget: Budget = "check"
    """The smallest budget at which the row is made; nothing is trained at `check`, so rows read from runs have another.
    `check` and `full` rows are always shown: full ones are filled from finished runs at every budget, and trained at
    `full` only. `cpu` and `gpu` rows belong to that budget."""
    decimals: int = 2
    """Digits after the point when shown; JSON has all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """A figure drawn from runs, once they are there."""

    name: str
    """File name without suffix: `figure6-plain`."""
    title: str
    """Printed above it."""
    runs: tuple[PlannedRun, ...]
    """Runs it shows, each with its first seed that is finished."""
    budget: Budget
    """As for a row."""
    draw: Callable[[Mapping[str, FoundRun], Path, str], Any] | None = None
    """Takes finished runs by the name of their net, the file to write and the title; may raise `Unavailable`. None draws
    error curves."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Experiment:
    """A table, a figure or a claim of the paper."""

    title: str
    """`Table 6. Error on the CIFAR-10 test set`."""
    claim: str
    """What the paper says with it, in a sentence or two of our own."""
    rows: tuple[Row, ...]
    """In the order in which they are shown."""
    pictures: tuple[Picture, ...] = ()
    """What is drawn beside the rows."""
    cost: Mapping[Budget, str] = field(default_factory=dict[Budget, str])
    """What each budget that trains takes: `4 nets of 600 iterations, about 3 minutes on two cores`."""
    notes: tuple[str, ...] = ()
    """What a reader should know: conventions, inconsistencies of the paper, departures."""

    def __post_init__(self) -> None:
        """Refuse what contradicts itself.

        Raises:
            SpecError: a row is read from runs and has the budget at which none are trained.
        """
        for row in self.rows:
            if isinstance(row.ours, FromRuns) and row.budget == "check":
                raise SpecError(
                    f"{row.run!r} ({row.meaning}) of {self.title!r} is read from runs, and none are trained at budget "
                    "check; give the row budget cpu, gpu or full."
                )

    def rows_at(self, budget: Budget) -> tuple[Row, ...]:
        """Return the rows that are shown at a budget."""
        return tuple(row for row in self.rows if row.budget in ("check", "full", budget))

    def budgets(self) -> tuple[Budget, ...]:
        """Return the budgets that have rows of their own."""
        return tuple(budget for budget in BUDGETS if any(row.budget == budget for row in self.rows))

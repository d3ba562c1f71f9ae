"""Fill the rows of an experiment from its runs, and judge them."""

from __future__ import annotations

import dataclasses
import math
import time
from typing import TYPE_CHECKING

from resnets.engine.interruption import listen
from resnets.paper.core.experiment import Computed, FromRuns, NotRun, Unavailable
from resnets.paper.core.find import canonical_name, experiment
from resnets.paper.core.images import images_below
from resnets.paper.core.outcome import Outcome, RowOutcome, SeedValue, filled
from resnets.paper.core.pictures import draw_pictures
from resnets.paper.core.verdict import judge
from resnets.paper.core.workshop import Diverged, Workshop
from resnets.specs.data import ImageFolder
from resnets.specs.errors import DataError, InterruptedRunError, ModelError, RunError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from resnets.artifacts.found_runs import FoundRun
    from resnets.paper.core.experiment import Experiment, PlannedRun, Row
    from resnets.paper.core.workshop import Settings


def reproduce(name: str, settings: Settings) -> Outcome:
    """Return what comes of the experiment called `name`, after training what the budget allows and is missing.

    Raises:
        UserError: there is no such experiment, or the data root that was given holds no CIFAR.
        InterruptedRunError: Ctrl-C or SIGTERM; what was trained so far is kept, and the same call goes on.
    """
    (outcome,) = reproduce_each([name], settings)
    return outcome


def reproduce_each(names: Iterable[str], settings: Settings) -> Iterator[Outcome]:
    """Yield what comes of several experiments; see `reproduce`. What cannot be had for one is not tried for the next."""
    workshop = Workshop(settings)
    for name in map(canonical_name, names):
        yield _fill(name, experiment(name), workshop)


def fill(name: str, planned: Experiment, settings: Settings) -> Outcome:
    """Return the outcome of an experiment; see `reproduce`."""
    return _fill(name, planned, Workshop(settings))


def _fill(name: str, planned: Experiment, workshop: Workshop) -> Outcome:
    started, trained_before, noted_before = time.perf_counter(), workshop.trained, len(workshop.notes)
    settings = workshop.settings
    try:
        with listen(), images_below(settings.data_root, quiet=settings.quiet):
            rows = tuple(
                fill_row(row, workshop, train=row.budget == settings.budget) for row in planned.rows_at(settings.budget)
            )
            pictures, notes = draw_pictures(planned, workshop)
    except InterruptedRunError as interruption:
        if settings.command in str(interruption):
            raise
        # Between two runs there is nothing to save, but much that is done.
        message = f"Stopped; finished runs are kept. Go on with: {settings.command}"
        raise InterruptedRunError(message, interruption.exit_code) from interruption
    return Outcome(
        name=name,
        experiment=planned,
        budget=settings.budget,
        rows=rows,
        pictures=pictures,
        notes=(*_shortened_notes(rows, workshop), *workshop.notes[noted_before:], *notes),
        seconds=time.perf_counter() - started,
        trained=workshop.trained - trained_before,
    )


def fill_row(row: Row, workshop: Workshop, *, train: bool) -> RowOutcome:
    """Return what comes of one row, after training its runs that are missing if allowed; see `reproduce`."""
    match row.ours:
        case NotRun(reason=reason):
            return RowOutcome(row=row, reason=reason)
        case Computed(value=value):
            try:
                ours = float(value())
            except Unavailable as missing:
                return RowOutcome(row=row, reason=str(missing))
            return RowOutcome(row=row, ours=ours, verdict=judge(row.rule, ours, row.paper))
        case FromRuns():
            return _fill_from_runs(row, row.ours, workshop, train=train)


def _fill_from_runs(row: Row, ours: FromRuns, workshop: Workshop, *, train: bool) -> RowOutcome:
    seeds = workshop.settings.seeds or ours.runs[0].seeds
    values: list[SeedValue] = []
    read: list[FoundRun] = []
    tested_in: set[str] = set()
    reason = ""
    for seed in seeds:
        runs = _runs_of_seed(ours.runs, seed, workshop, train=train)
        if isinstance(runs, Diverged) and ours.has_to_train:
            # What is no number never passes, whatever the other seeds give.
            return RowOutcome(row=row, ours=math.nan, verdict=judge(row.rule, math.nan, row.paper), reason=str(runs))
        if isinstance(runs, str):
            kept = isinstance(runs, Diverged) or not ours.missing
            reason = reason or (runs if kept else "") or _how_to_run(row, ours, seed, workshop)
            continue
        if ours.needs_weights and not all(run.has_weights for run in runs):
            reason = reason or "the finished run was kept without its weights"
            continue
        try:
            value = float(ours.read(*runs))
            tested_in.update(ours.tested_in(*runs))
        except (Unavailable, RunError, ModelError, DataError) as missing:
            # A damaged run is the reason of its own rows; the others are read all the same.
            reason = reason or str(missing).partition("\n")[0]
            continue
        values.append(SeedValue(seed=seed, value=value))
        read += runs
    if not values:
        return RowOutcome(row=row, reason=reason)
    # A row about five seeds is not judged by fewer that were asked for.
    outcome = filled(row, values, max(len(seeds), len(ours.runs[0].seeds)), read, reason)
    return dataclasses.replace(outcome, tested_in=", ".join(sorted(tested_in)))


def _runs_of_seed(
    planned: tuple[PlannedRun, ...], seed: int, workshop: Workshop, *, train: bool
) -> list[FoundRun] | str:
    """Return the finished runs of one seed, or why one of them is missing; the others are not trained then."""
    runs: list[FoundRun] = []
    for plan in planned:
        run = workshop.run(dataclasses.replace(plan.spec, seed=seed), train=train, name=plan.name)
        if isinstance(run, str):
            return run
        runs.append(run)
    return runs


def _how_to_run(row: Row, ours: FromRuns, seed: int, workshop: Workshop) -> str:
    steps = max(plan.spec.steps for plan in ours.runs)
    for plan in ours.runs:
        spec = dataclasses.replace(plan.spec, seed=seed)
        if (begun := workshop.begun(spec)) is not None:
            return workshop.how_to_go_on(begun, spec, row.budget)
    if ours.missing:
        return ours.missing
    if isinstance(ours.runs[0].spec.dataset, ImageFolder):
        return "needs ImageNet, which you supply"
    return f"no finished run of {steps:,} iterations; --budget {row.budget} trains it"


def _shortened_notes(rows: tuple[RowOutcome, ...], workshop: Workshop) -> list[str]:
    """Return a line about each shortened run of a net whose full one is missing; it fills no row."""
    notes: dict[Path, str] = {}
    for outcome in rows:
        if outcome.ours is not None or outcome.row.budget != "full" or not isinstance(outcome.row.ours, FromRuns):
            continue
        for plan in outcome.row.ours.runs:
            for run in workshop.found.shortened(dataclasses.replace(plan.spec, seed=plan.seeds[0]))[:1]:
                error = "not known" if run.log.final is None else f"{run.log.final.top1_error:.2f} %"
                notes[run.path] = (
                    f"{plan.name} after {run.spec.steps:,} of {run.spec.full_steps:,} iterations (shortened, fills no "
                    f"row): test error {error}, {run.path}"
                )
    return list(notes.values())

"""Fill the rows of an experiment: find the runs that are there, train those that are missing, read and judge."""

from __future__ import annotations

import dataclasses
import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from resnets.artifacts.found_runs import default_roots, find_runs
from resnets.engine.interruption import listen
from resnets.paper.core.experiment import Computed, FromRuns, NotRun, Unavailable
from resnets.paper.core.find import canonical_name, experiment
from resnets.paper.core.images import images_below
from resnets.paper.core.outcome import Outcome, RowOutcome, SeedValue, filled
from resnets.paper.core.threads import one_thread
from resnets.paper.core.verdict import judge
from resnets.recipes.find import recipe
from resnets.specs.data import Cifar, ImageFolder
from resnets.specs.errors import DataError, InterruptedRunError, RunError, SpecError, TrainingError
from resnets.specs.io import spec_hash
from resnets.specs.run import Machine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Literal

    from resnets.artifacts.found_runs import FoundRun, FoundRuns
    from resnets.paper.core.experiment import Budget, Experiment, Picture, PlannedRun, Row
    from resnets.specs.run import TrainSpec

    Precision = Literal["fp32", "bf16", "fp16"]


_FULL_PX = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """How experiments are run here."""

    budget: Budget = "check"
    """How much may be trained."""
    seeds: tuple[int, ...] = ()
    """Seeds of every run; empty takes those of the experiment."""
    run_root: Path = Path("runs")
    """Folder that receives run directories and pictures."""
    roots: tuple[Path, ...] | None = None
    """Folders in which finished runs are looked for besides; None is `default_roots()`."""
    data_root: Path | None = None
    """Where CIFAR is, or is downloaded to."""
    machine: Machine | None = None
    """Device, threads and other facts that do not change a result."""
    precision: Precision | None = None
    """Arithmetic of the runs that are trained; None is the recipe's. A finished run of any precision is read."""
    command: str = "resnets reproduce"
    """What to type to go on after an interruption."""
    quiet: bool = False
    """Show no progress."""
    say: Callable[[str], None] = field(default=lambda line: None)
    """Told about every run that is trained."""


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
    workshop = _Workshop(settings)
    for name in map(canonical_name, names):
        yield _fill(name, experiment(name), workshop)


def fill(name: str, planned: Experiment, settings: Settings) -> Outcome:
    """Return the outcome of an experiment; see `reproduce`."""
    return _fill(name, planned, _Workshop(settings))


def _fill(name: str, planned: Experiment, workshop: _Workshop) -> Outcome:
    started, trained_before = time.perf_counter(), workshop.trained
    settings = workshop.settings
    try:
        with listen(), images_below(settings.data_root):
            rows = tuple(_fill_row(row, workshop) for row in planned.rows_at(settings.budget))
            pictures, notes = _draw(planned, workshop)
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
        notes=(*_shortened_notes(rows, workshop), *notes),
        seconds=time.perf_counter() - started,
        trained=workshop.trained - trained_before,
    )


class _Workshop:
    """Finished runs, and the training of those that are missing; every failure is remembered, none is repeated."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        roots = default_roots() if settings.roots is None else settings.roots
        self._roots = (settings.run_root, *roots)
        self.found: FoundRuns = find_runs(self._roots)
        self.trained = 0
        self._failures: dict[str, str] = {}
        self._absent: dict[str, str] = {}
        """Why data could not be had, by their name: a failed download takes its time, and fails again."""

    def run(self, spec: TrainSpec, *, train: bool, name: str = "") -> FoundRun | str:
        """Return the finished run of a spec, trained now if allowed; or why there is none."""
        found = self.found.finished(spec)
        if found is not None:
            return found
        if not train:
            return ""
        key = spec_hash(spec)
        if key not in self._failures:
            self._failures[key] = self._train(spec, name)
        return self.found.finished(spec) or self._failures[key]

    def _train(self, spec: TrainSpec, name: str) -> str:
        """Train a run; return why there may be none of it after that."""
        from resnets import api

        settings = self.settings
        if settings.precision is not None:
            spec = dataclasses.replace(spec, precision=settings.precision)
        if isinstance(spec.dataset, ImageFolder):
            return (
                "needs ImageNet, which you supply: train its recipe with `resnets train`; finished runs are found in runs, "
                "in results and in --run-root"
            )
        if (data := _data_name(spec)) in self._absent:
            return self._absent[data]
        started = self.found.started(spec)
        directory = started or self._new_directory(spec)
        # Maps of 8 x 8 pixels are too small to be divided: the threads would wait for each other.
        small = isinstance(spec.dataset, Cifar) and spec.dataset.image_px < _FULL_PX
        machine = settings.machine or Machine()
        threads = one_thread() if small and not machine.threads else nullcontext()
        settings.say(f"{name or spec.recipe}, seed {spec.seed}, {spec.steps:,} iterations: {directory}")
        try:
            with threads:
                api.train(
                    spec,
                    data_root=settings.data_root,
                    run=directory,
                    machine=machine,
                    command=settings.command,
                    quiet=settings.quiet,
                )
        except DataError as error:
            if settings.data_root is not None:
                raise
            self._absent[data] = f"the data are not here: {str(error).splitlines()[0]}"
            return self._absent[data]
        except RunError as error:
            if started is None:
                raise
            # Most often another process trains there; the other rows need not wait for it.
            return str(error).splitlines()[0]
        except TrainingError as error:
            return f"training ended: {str(error).splitlines()[0]}"
        self.trained += 1
        self.found = find_runs(self._roots)
        return f"{directory} has ended, and its log has no final test that can be read"

    def _new_directory(self, spec: TrainSpec) -> Path:
        """Return the run directory of a run that is not begun yet, beside one of the same name that holds another.

        Raises:
            RunError: there can be no folder at the run root.
        """
        root = self.settings.run_root
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(
                f"--run-root {root} cannot be written: {error.strerror or error}. Choose another folder."
            ) from error
        directory = root / directory_name(spec)
        taken = (directory / "config.json").exists()
        return directory.with_name(f"{directory.name}-{spec_hash(spec)[:6]}") if taken else directory


def _data_name(spec: TrainSpec) -> str:
    """Return what runs share that need the same files."""
    dataset = spec.dataset
    return f"{type(dataset).__name__}{dataset.num_classes if isinstance(dataset, Cifar) else ''}"


def directory_name(spec: TrainSpec) -> str:
    """Return the name of a run's folder: that of `resnets train`, with a hash where the recipe was changed."""
    plain = f"{spec.recipe.replace(':', '.')}-seed{spec.seed}"
    try:
        unchanged = spec_hash(dataclasses.replace(recipe(spec.recipe), seed=spec.seed)) == spec_hash(spec)
    except SpecError:
        unchanged = False
    if unchanged:
        return plain
    identity = spec_hash(dataclasses.replace(spec, seed=0))[:6]
    return f"{spec.recipe.replace(':', '.')}-{spec.steps}-{identity}-seed{spec.seed}"


def _fill_row(row: Row, workshop: _Workshop) -> RowOutcome:
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
            return _fill_from_runs(row, row.ours, workshop)


def _fill_from_runs(row: Row, ours: FromRuns, workshop: _Workshop) -> RowOutcome:
    settings = workshop.settings
    seeds = settings.seeds or ours.runs[0].seeds
    values: list[SeedValue] = []
    read: list[FoundRun] = []
    reason = ""
    for seed in seeds:
        runs = _runs_of_seed(ours.runs, seed, workshop, train=row.budget == settings.budget)
        if isinstance(runs, str):
            reason = reason or ("" if ours.missing else runs) or _how_to_run(row, ours, seed, workshop)
            continue
        if ours.needs_weights and not all(run.has_weights for run in runs):
            reason = reason or "the finished run was kept without its weights"
            continue
        try:
            value = float(ours.read(*runs))
        except (Unavailable, RunError) as missing:
            reason = reason or str(missing)
            continue
        values.append(SeedValue(seed=seed, value=value))
        read += runs
    if not values:
        return RowOutcome(row=row, reason=reason)
    # A row about five seeds is not judged by fewer that were asked for.
    return filled(row, values, max(len(seeds), len(ours.runs[0].seeds)), read, reason)


def _runs_of_seed(
    planned: tuple[PlannedRun, ...], seed: int, workshop: _Workshop, *, train: bool
) -> list[FoundRun] | str:
    """Return the finished runs of one seed, or why one of them is missing; the others are not trained then."""
    runs: list[FoundRun] = []
    for plan in planned:
        run = workshop.run(dataclasses.replace(plan.spec, seed=seed), train=train, name=plan.name)
        if isinstance(run, str):
            return run
        runs.append(run)
    return runs


def _how_to_run(row: Row, ours: FromRuns, seed: int, workshop: _Workshop) -> str:
    steps = max(plan.spec.steps for plan in ours.runs)
    begun = [workshop.found.unfinished(dataclasses.replace(plan.spec, seed=seed)) for plan in ours.runs]
    begun = [run for run in begun if run is not None]
    if begun:
        return f"{begun[0].path} is at step {begun[0].log.last_step:,} of {steps:,}"
    if ours.missing:
        return ours.missing
    if isinstance(ours.runs[0].spec.dataset, ImageFolder):
        return "needs ImageNet, which you supply"
    return f"no finished run of {steps:,} iterations; --budget {row.budget} trains it"


def _shortened_notes(rows: tuple[RowOutcome, ...], workshop: _Workshop) -> list[str]:
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


def _draw(planned: Experiment, workshop: _Workshop) -> tuple[tuple[Path, ...], list[str]]:
    """Draw the pictures whose runs are there; return them, and a line about each that was not drawn."""
    drawn: list[Path] = []
    notes: list[str] = []
    for picture in planned.pictures:
        if picture.budget not in ("full", workshop.settings.budget):
            continue
        runs = {plan.name: run for plan in picture.runs if (run := _first_seed(plan, workshop)) is not None}
        if not runs:
            # Where something smaller was asked for, the paper's own figure is not missed.
            if picture.budget == "full" and workshop.settings.budget in ("cpu", "gpu"):
                continue
            notes.append(f"{picture.name} is not drawn: none of its runs is there.")
            continue
        missing = [plan.name for plan in picture.runs if plan.name not in runs]
        if missing:
            notes.append(f"{picture.name} is drawn without {', '.join(missing)}: not trained yet.")
        try:
            drawn.append(_draw_picture(picture, runs, workshop.settings))
        except (Unavailable, RunError) as reason:
            notes.append(f"{picture.name} is not drawn: {str(reason).rstrip('.')}.")
    return tuple(drawn), notes


def _first_seed(plan: PlannedRun, workshop: _Workshop) -> FoundRun | None:
    for seed in workshop.settings.seeds or plan.seeds:
        run = workshop.run(dataclasses.replace(plan.spec, seed=seed), train=False)
        if not isinstance(run, str):
            return run
    return None


def _draw_picture(picture: Picture, runs: dict[str, FoundRun], settings: Settings) -> Path:
    path = settings.run_root / f"{picture.name}.png"
    try:
        settings.run_root.mkdir(parents=True, exist_ok=True)
        if picture.draw is not None:
            picture.draw(runs, path, picture.title)
        else:
            from resnets.report.curves import curves_from_metrics, draw_error_curves

            curves = [curve for name, run in runs.items() for curve in curves_from_metrics(run.path, name)]
            draw_error_curves(curves, path, title=picture.title)
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror or error}.") from error
    return path

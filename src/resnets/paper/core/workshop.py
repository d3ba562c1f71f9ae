"""The runs behind an experiment: those that are there are found, those that are missing are trained."""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from resnets.artifacts.divergence import kept_in
from resnets.artifacts.found_runs import default_roots, find_runs
from resnets.artifacts.run_directory import RunDirectory
from resnets.engine.threads import threads
from resnets.paper.core.copies import copy_unfinished, has_checkpoint
from resnets.recipes.find import recipe
from resnets.specs.data import Cifar, ImageFolder
from resnets.specs.errors import DataError, DivergedError, ModelError, RunError, SpecError, TrainingError
from resnets.specs.io import spec_hash
from resnets.specs.run import Machine

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal

    from resnets.artifacts.found_runs import FoundRun, FoundRuns
    from resnets.paper.core.experiment import Budget, PlannedRun
    from resnets.specs.run import TrainSpec

    Precision = Literal["fp32", "bf16", "fp16"]

_FULL_PX = 32


class Diverged(str):
    """Why there is no finished run: its loss or a weight became no finite number."""

    __slots__ = ()


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
    """Told about every run that is trained, and of every one that is copied for it."""


class Workshop:
    """Finished runs, and the training of those that are missing; every failure is remembered, none is repeated."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        roots = default_roots() if settings.roots is None else settings.roots
        self._roots = (settings.run_root, *roots)
        self.found: FoundRuns = find_runs(self._roots)
        self.trained = 0
        self.notes: list[str] = []
        """What became of unfinished runs that lie elsewhere than below the run root."""
        self._failures: dict[str, str] = {}
        self._absent: dict[str, str] = {}
        """Why data could not be had, by their name: a failed download takes its time, and fails again."""

    def run(self, spec: TrainSpec, *, train: bool, name: str = "") -> FoundRun | str:
        """Return the finished run of a spec, trained now if allowed; or why there is none.

        One that diverged counts as a finished one does, on whatever machine it was, and is not trained again.
        """
        found = self.found.finished(spec)
        if found is not None:
            return found
        diverged = self.found.diverged(self._as_trained(spec))
        if diverged is not None and diverged.log.diverged is not None:
            return _diverged(diverged.log.diverged.noticed(), diverged.path)
        if not train:
            return ""
        key = spec_hash(spec)
        if key not in self._failures:
            self._failures[key] = self._train(spec, name)
        return self.found.finished(spec) or self._failures[key]

    def first_seed(self, plan: PlannedRun) -> FoundRun | None:
        """Return the finished run of a plan with its first seed that has one; None if none has."""
        for seed in self.settings.seeds or plan.seeds:
            run = self.run(dataclasses.replace(plan.spec, seed=seed), train=False)
            if not isinstance(run, str):
                return run
        return None

    def begun(self, spec: TrainSpec) -> FoundRun | None:
        """Return the unfinished run that comes next to training a spec here; None if there is none.

        One in the precision that would be trained comes before others, then one below the run root, then the furthest.
        One elsewhere has to have a checkpoint: without, there is nothing to copy.
        """
        spec = self._as_trained(spec)
        runs = [run for run in self.found.unfinished(spec) if self._may_write(run) or has_checkpoint(run.path)]
        return min(runs, key=lambda run: (run.spec.precision != spec.precision, not self._may_write(run)), default=None)

    def how_to_go_on(self, run: FoundRun, spec: TrainSpec, budget: Budget) -> str:
        """Return how far an unfinished run of a planned spec is, and what goes on with it."""
        far = f"{run.path} is at step {run.log.last_step:,} of {run.spec.steps:,}"
        if isinstance(spec.dataset, ImageFolder):
            there = run.path if self._may_write(run) else self.settings.run_root / run.path.name
            copied = "" if self._may_write(run) else f"copy it to {there}, and "
            return (
                f"{far}; {copied}resnets train --from {there / 'config.json'} --run {there} --data FOLDER goes on with it, "
                f"where FOLDER has the same images, of {run.spec.model.num_classes:,} classes"
            )
        precision = "" if run.spec.precision == spec.precision else f" --precision {run.spec.precision}"
        what = "it" if self._may_write(run) else f"a copy of it below {self.settings.run_root}"
        return f"{far}; --budget {budget}{precision} goes on with {what}"

    def _as_trained(self, spec: TrainSpec) -> TrainSpec:
        precision = self.settings.precision
        return spec if precision is None else dataclasses.replace(spec, precision=precision)

    def _may_write(self, run: FoundRun) -> bool:
        """Return whether a run lies below the run root: what is kept elsewhere, as in `results`, is only read."""
        return run.path.resolve().is_relative_to(self.settings.run_root.resolve())

    def _train(self, planned: TrainSpec, name: str) -> str:
        """Train a run; return why there may be none of it after that."""
        from resnets import api

        settings, spec = self.settings, self._as_trained(planned)
        if isinstance(spec.dataset, ImageFolder):
            return (
                "needs ImageNet, which you supply: train its recipe with `resnets train`; finished runs are found in runs, "
                "in results and in --run-root"
            )
        if (data := _data_name(spec)) in self._absent:
            return self._absent[data]
        begun, directory = self.begun(planned), None
        if begun is not None and begun.spec.precision == spec.precision:
            directory = begun.path if self._may_write(begun) else self._copied(begun)
        if begun is not None and directory is not None:
            # Its own spec: it may be evaluated at other steps, and nothing else is different.
            spec = begun.spec
        else:
            begun, directory = None, self._new_directory(spec)
        # Maps of 8 x 8 pixels are too small to be divided: the threads would wait for each other.
        small = isinstance(spec.dataset, Cifar) and spec.dataset.image_px < _FULL_PX
        machine = settings.machine or Machine()
        computing = threads(1) if small and not machine.threads else nullcontext()
        settings.say(f"{name or spec.recipe}, seed {spec.seed}, {spec.steps:,} iterations: {directory}")
        try:
            with computing:
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
            if begun is None:
                raise
            # Most often another process trains there; the other rows need not wait for it.
            return str(error).splitlines()[0]
        except ModelError as error:
            return str(error).splitlines()[0]
        except DivergedError as error:
            self.found = find_runs(self._roots)
            divergence = RunDirectory(directory).divergence()
            return _diverged(str(error) if divergence is None else divergence.noticed(), directory)
        except TrainingError as error:
            return f"training ended: {str(error).splitlines()[0]}"
        self.trained += 1
        self.found = find_runs(self._roots)
        return f"{directory} has ended, and its log has no final test that can be read"

    def _copied(self, run: FoundRun) -> Path | None:
        """Return the copy of an unfinished run below the run root, or None where there can be none; both are noted.

        Raises:
            RunError: there can be no folder at the run root.
        """
        directory = self._new_directory(run.spec)
        try:
            copy_unfinished(run.path, directory)
        except (OSError, ModelError) as error:
            reason = str(error).splitlines()[0] if isinstance(error, ModelError) else error.strerror or str(error)
            self._note(f"{run.path} is not finished and cannot be gone on with, so it is trained anew: {reason}")
            return None
        self._note(f"{run.path} is not finished; a copy of it goes on in {directory}")
        return directory

    def _note(self, line: str) -> None:
        self.notes.append(line)
        self.settings.say(line)

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


def _diverged(message: str, directory: Path) -> Diverged:
    return Diverged(f"training ended: {message.splitlines()[0]} {kept_in(directory)}")


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

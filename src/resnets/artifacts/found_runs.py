"""Runs that are there already: found below some folders by what they trained, so that nothing is trained twice.

A run is known by the hash of its spec (`specs.io.spec_hash`), wherever it lies and whatever its folder is called.
Precision is looked at apart: a run in bf16 stands for one in fp32, and says so. So is the interval of evaluations where
these decide nothing.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from resnets.artifacts.run_directory import RunDirectory, read_spec
from resnets.artifacts.run_log import RunLog, read_run_log
from resnets.specs.errors import RunError, counted
from resnets.specs.io import spec_hash
from resnets.specs.optim import Plateau
from resnets.specs.run import shorten

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from resnets.specs.run import TrainSpec

Measurement = Literal["loss", "top1_error"]
"""A value of the training log: cross entropy in nats, error in percent."""

_DEEPEST = 4
"""Folders below a root in which a run is looked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundRun:
    """A run directory: what it trained, and its log."""

    path: Path
    """The run directory."""
    spec: TrainSpec
    """What was trained."""
    log: RunLog = field(repr=False)
    """What `metrics.jsonl` holds; empty where it cannot be read."""

    @property
    def has_weights(self) -> bool:
        """Whether the model folder is there; runs of large nets are kept without."""
        return RunDirectory(self.path).is_finished

    def training_mean(self, name: Measurement, steps: int) -> float:
        """Return the mean of a value of the training log over the last `steps` steps.

        Each line covers the steps since the one before it.

        Raises:
            RunError: the log has no such lines.
        """
        return self.training_mean_at(name, steps, at_step=self.spec.steps)

    def training_mean_at(self, name: Measurement, steps: int, at_step: int) -> float:
        """Return the mean of a value of the training log over the `steps` steps that end with `at_step`."""
        weighted = total = last = 0.0
        for point in self.log.training:
            value: float | None = getattr(point, name)
            if at_step - steps < point.step <= at_step and value is not None:
                weighted += value * (point.step - last)
                total += point.step - last
            last = point.step
        if not total:
            raise RunError(f"{RunDirectory(self.path).metrics} has no {name} of the steps before {at_step}.")
        return weighted / total

    @property
    def seconds(self) -> float | None:
        """Time that the training steps took, from the rates in the log; evaluations are left out."""
        seconds, last = 0.0, 0
        for point in self.log.training:
            # A first line may come before any rate was measured; its steps count at the next one's.
            if point.images_per_second:
                seconds += (point.step - last) * self.spec.global_batch / point.images_per_second
                last = point.step
        return seconds or None

    @property
    def device(self) -> str:
        """What the run was computed on, as its environment says: the GPU, or the processor and its threads."""
        try:
            environment = json.loads(RunDirectory(self.path).environment.read_text(encoding="utf-8"))
            start = environment["starts"][-1] if environment.get("starts") else {}
            if environment.get("gpu") and start.get("device", "cuda") != "cpu":
                return str(environment["gpu"])
            threads = start.get("threads")
            return f"{environment['processor']}" + (f", {counted(threads, 'thread')}" if threads else "")
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return "unknown device"


@dataclass(frozen=True, slots=True)
class FoundRuns:
    """The runs below some folders, by what they trained."""

    _by_key: dict[str, list[tuple[Path, TrainSpec]]]
    _finished: dict[Path, FoundRun] = field(default_factory=dict)

    def finished(self, spec: TrainSpec) -> FoundRun | None:
        """Return a finished run of this spec, the one in the same precision before another; None if there is none."""
        runs = [run for run in self._runs(spec) if run.log.ended]
        return min(runs, key=lambda run: (run.spec.precision != spec.precision, not run.has_weights), default=None)

    def exactly(self, spec: TrainSpec) -> list[FoundRun]:
        """Return the finished runs of this very spec, precision and evaluations included, that have a model folder."""
        wanted = spec_hash(spec)
        runs = (run for run in self._runs(spec) if run.log.ended and run.has_weights)
        return [run for run in runs if spec_hash(run.spec) == wanted]

    def diverged(self, spec: TrainSpec) -> FoundRun | None:
        """Return a run of this spec that diverged in its precision; None if there is none, or one got past that step.

        In another precision it may not diverge.
        """
        runs = [run for run in self._runs(spec) if run.spec.precision == spec.precision and not run.log.ended]
        furthest = max((run.log.last_step for run in runs if run.log.diverged is None), default=0)
        return next((run for run in runs if run.log.diverged and run.log.diverged.step > furthest), None)

    def unfinished(self, spec: TrainSpec) -> list[FoundRun]:
        """Return the runs of this spec that can be gone on with: those in its precision before others, the furthest first.

        One that diverged would do so again. Each goes on by its own spec, which may have other evaluations on the way.
        """
        runs = [run for run in self._runs(spec) if not (run.log.ended or run.log.diverged)]
        return sorted(runs, key=lambda run: (run.spec.precision != spec.precision, -run.log.last_step))

    def shortened(self, spec: TrainSpec) -> list[FoundRun]:
        """Return finished runs of this spec shortened (`shorten`), the longest first.

        They never stand for the full run; a person may want to know of them.
        """
        runs = []
        for path, other in (entry for entries in self._by_key.values() for entry in entries):
            if other.steps < spec.steps == other.full_steps and other.seed == spec.seed and other.model == spec.model:
                run = self._read(path, other)
                if _key(shorten(spec, other.steps)) == _key(other) and run.log.ended:
                    runs.append(run)
        return sorted(runs, key=lambda run: -run.spec.steps)

    def _runs(self, spec: TrainSpec) -> Iterator[FoundRun]:
        for path, found in self._by_key.get(_key(spec), ()):
            yield self._read(path, found)

    def _read(self, path: Path, spec: TrainSpec) -> FoundRun:
        """Return a run with its log; that of a finished one is read once."""
        run = self._finished.get(path) or _found(path, spec)
        if run.log.ended:
            self._finished[path] = run
        return run


def default_roots() -> tuple[Path, ...]:
    """Return the folders in which runs are looked for: `runs` and `results` here, and `results` of the checkout."""
    checkout = Path(__file__).resolve().parents[3] / "results"
    roots = [Path("runs"), Path("results")]
    if (checkout / "README.md").is_file() and checkout != Path("results").resolve():
        roots.append(checkout)
    return tuple(root for root in roots if root.is_dir())


def find_runs(roots: Iterable[Path]) -> FoundRuns:
    """Return the runs below `roots`; folders that hold none, or a damaged one, are passed over."""
    by_key: dict[str, list[tuple[Path, TrainSpec]]] = {}
    seen: set[Path] = set()
    for root in roots:
        for folder in _run_folders(root, _DEEPEST):
            if (resolved := folder.resolve()) in seen:
                continue
            seen.add(resolved)
            try:
                spec = read_spec(folder / "config.json")
            except RunError:
                continue
            by_key.setdefault(_key(spec), []).append((folder, spec))
    return FoundRuns(by_key)


def _key(spec: TrainSpec) -> str:
    """Return what two runs share that end with the same weights but for the arithmetic.

    How often a run is evaluated on the way changes its weights only where the evaluations steer it.
    """
    steered = isinstance(spec.schedule, Plateau) or spec.finetune.patience_evaluations > 0
    every = spec.evaluate_every_steps if steered else 1
    return spec_hash(dataclasses.replace(spec, precision="fp32", evaluate_every_steps=every))


def _run_folders(folder: Path, deeper: int) -> Iterator[Path]:
    """Yield the run directories below a folder; a model folder has a config.json too, but no environment or log."""
    try:
        if (folder / "config.json").is_file() and (
            (folder / "metrics.jsonl").exists() or (folder / "env.json").exists()
        ):
            yield folder
            return
        if deeper == 0:
            return
        below = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except OSError:  # a folder that may not be read
        return
    for entry in below:
        yield from _run_folders(entry, deeper - 1)


def _found(path: Path, spec: TrainSpec) -> FoundRun:
    try:
        log = read_run_log(RunDirectory(path).metrics)
    except RunError:
        log = RunLog()
    return FoundRun(path=path, spec=spec, log=log)

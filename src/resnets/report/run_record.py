"""A run as its directory describes it: spec, log and environment, read for a report."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from resnets.artifacts.run_directory import RunDirectory, read_spec
from resnets.artifacts.run_log import RunLog, read_run_log
from resnets.engine.checkpoint import latest_checkpoint
from resnets.report.text import printable
from resnets.specs.errors import RunError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from resnets.specs.run import TrainSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRecord:
    """What is on the disk about one run, without its weights."""

    path: Path
    """The run directory, as it was given."""
    name: str
    """What the report calls it; no other run of the report has this name."""
    spec: TrainSpec
    log: RunLog
    environment: dict[str, Any]
    """Of `env.json`; empty where that is missing or damaged."""
    finished: bool
    """Whether it has ended, with weights or, in a folder of results, without."""
    has_weights: bool
    """Whether a model, or a checkpoint of the run, is there to be tested."""
    fingerprint: str = ""
    """Of the dataset that it was trained on; empty where its files do not say."""
    problems: tuple[str, ...] = ()
    """What is missing or damaged, one sentence each."""

    @property
    def steps_done(self) -> int:
        """Optimiser steps that the log tells of."""
        return max(self.log.last_step, self.log.final.step if self.log.final else 0)

    @property
    def diverged_at(self) -> int | None:
        """The step at which the run diverged; None where it has not, or is finished."""
        return None if self.finished or self.log.diverged is None else self.log.diverged.step

    @property
    def is_shortened(self) -> bool:
        """Whether the run has fewer steps than its recipe."""
        return self.spec.steps < self.spec.full_steps


def read_runs(paths: Sequence[Path]) -> list[RunRecord]:
    """Return the runs in these directories, each under a name of its own.

    Raises:
        RunError: there is no run in one of them, it is damaged, or one is named twice.
    """
    places = [path.resolve() for path in paths]
    for index, place in enumerate(places):
        if place in places[:index]:
            raise RunError(f"{paths[index]} is named twice; name each run once.")
    return [_read_run(path, name) for path, name in zip(paths, _names(paths), strict=True)]


def _names(paths: Sequence[Path]) -> list[str]:
    """Return the last part of each path, or as much of its end as tells it from the others."""
    parts = [path.resolve().parts for path in paths]
    names: list[str] = []
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(some[-length:]) for some in parts]
        if len(set(names)) == len(names):
            break
    shown = [printable(name, 60) for name in names]
    return shown if len(set(shown)) == len(shown) else [f"{name} ({index})" for index, name in enumerate(shown, 1)]


def _read_run(path: Path, name: str) -> RunRecord:
    directory = RunDirectory(path)
    _check_is_run(directory)
    problems: list[str] = []
    log = RunLog()
    if directory.metrics.is_file():
        log = read_run_log(directory.metrics)
    else:
        problems.append("metrics.jsonl is missing, so there are no curves.")
    # The last line of a run that goes on may be half written; anything more is damage.
    unreadable = log.unreadable_lines
    if unreadable > 1 or (unreadable and log.final is not None):
        problems.append(f"{unreadable:,} lines of metrics.jsonl cannot be read and are left out.")
    has_weights = directory.is_finished or latest_checkpoint(directory.checkpoints) is not None
    if not (log.training or log.evaluations or log.final or log.diverged or has_weights):
        raise RunError(
            f"{path} has nothing to report yet: its log holds no line and there is no model. Train some steps first."
        )
    environment, problem = _read_environment(directory.environment)
    return RunRecord(
        path=path,
        name=name,
        spec=read_spec(directory.config),
        log=log,
        environment=environment,
        finished=directory.is_finished or log.final is not None,
        has_weights=has_weights,
        fingerprint=_read_fingerprint(directory.model),
        problems=(*problems, *([problem] if problem else [])),
    )


def _check_is_run(directory: RunDirectory) -> None:
    """Refuse a path without a run, and say where one may be meant."""
    path = directory.path
    if directory.metrics.is_file() and directory.config.is_file():
        return
    if not path.exists():
        raise RunError(f"There is no run at {path}; name a run directory, such as runs/cifar10.resnet20-seed0.")
    if not path.is_dir():
        raise RunError(f"{path} is a file; name the run directory, the folder with config.json and metrics.jsonl.")
    if (path / "model.safetensors").is_file():
        raise RunError(
            f"{path} is a model folder, which has no curves; name the run directory that it lies in"
            + (f" ({path.parent})." if (path.parent / "config.json").is_file() else ".")
        )
    if not directory.config.is_file():
        inside = sorted(
            child.parent for child in path.glob("*/config.json") if (child.parent / "metrics.jsonl").is_file()
        )
        meant = f" Runs lie in it: {' '.join(map(str, inside[:4]))}{' …' if len(inside) > 4 else ''}" if inside else ""
        raise RunError(f"{path} is no run directory: it has no config.json.{meant}")


def _read_fingerprint(model: Path) -> str:
    """Return the fingerprint that a model folder names; nothing where there is none, or it is damaged."""
    try:
        value = json.loads((model / "config.json").read_text(encoding="utf-8"))["dataset_fingerprint"]
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return ""
    return value if isinstance(value, str) else ""


def _read_environment(path: Path) -> tuple[dict[str, Any], str | None]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}, "env.json is missing, so versions and hardware are not known."
    except (OSError, ValueError, RecursionError):
        return {}, "env.json is damaged, so versions and hardware are not known."
    return (value, None) if isinstance(value, dict) else ({}, "env.json is damaged, so versions are not known.")

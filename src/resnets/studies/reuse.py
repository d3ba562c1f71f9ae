"""Runs that have ended elsewhere, which a comparison takes instead of training them again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resnets.artifacts.model_folder import read_config
from resnets.artifacts.run_directory import has_own_code
from resnets.specs import io
from resnets.specs.data import Cifar, Digits
from resnets.specs.errors import ModelError
from resnets.specs.finetune import GivenWeights

if TYPE_CHECKING:
    from pathlib import Path

    from resnets.artifacts.found_runs import FoundRun, FoundRuns
    from resnets.specs.run import TrainSpec


def finished_elsewhere(spec: TrainSpec, found: FoundRuns, own: Path, fingerprint: str) -> FoundRun | None:
    """Return a finished run that may stand for one of `spec`, outside of the folder `own`; None where there is none.

    It has the very spec, and the spec says all: the images are digits or CIFAR, not whatever a folder held; the weights
    are new, not those that lay at a path; and no part is code of the user's own, which may have changed since. Its
    images are those of `fingerprint`, in the same order.
    """
    if not _says_all(spec):
        return None
    others = (run for run in found.exactly(spec) if not run.path.resolve().is_relative_to(own.resolve()))
    return next((run for run in others if _fingerprint_of(run) == fingerprint), None)


def diverged_elsewhere(spec: TrainSpec, found: FoundRuns, own: Path) -> FoundRun | None:
    """Return a run that may stand for one of `spec`, as a finished one may, and has diverged, on whatever images."""
    run = found.diverged(spec) if _says_all(spec) else None
    if run is None or run.log.diverged is None or run.path.resolve().is_relative_to(own.resolve()):
        return None
    return run if io.spec_hash(run.spec) == io.spec_hash(spec) else None


def _says_all(spec: TrainSpec) -> bool:
    """Return whether a run of this spec is the same wherever it was trained, on the same images."""
    if not isinstance(spec.dataset, Digits | Cifar) or isinstance(spec.init, GivenWeights):
        return False
    return not has_own_code(spec)


def _fingerprint_of(run: FoundRun) -> Any:
    try:
        return read_config(run.path / "model" / "config.json").get("dataset_fingerprint")
    except ModelError:
        return None

"""How a finished run of a comparison ended: its errors, its speed, and the net it is about."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from resnets.artifacts.model_folder import read_config, read_field
from resnets.artifacts.run_log import number, read_run_log
from resnets.report.curves import curves_of_log
from resnets.specs.errors import ModelError, RunError
from resnets.specs.preprocess import Preprocess

if TYPE_CHECKING:
    from pathlib import Path

    from resnets.report.curves import Curve
    from resnets.specs.model import ModelSpec

LAST_SHARE = 0.1
"""Part of the run, at its end, that the training error is averaged over."""

_AGAIN = "Delete {} and give the same command: this run alone is trained again."


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """One finished run."""

    path: Path
    top1_error: float
    """Of the final weights, in percent."""
    images: int
    """Images that is over."""
    split: str
    """Split of these images."""
    skipped: int
    """Images of the split that could not be read."""
    train_error: float | None
    """Mean over the last tenth of the run, in percent, as it was logged: augmented images, weights in motion."""
    images_per_second: float | None
    """Median over the log; None of a run that was trained at another time."""
    seconds: float | None
    """Wall time of the run, with its evaluations; None where a part was not timed."""
    fingerprint: str
    """Digest of the images."""
    curves: tuple[Curve, ...]
    """Its errors over the run."""
    model: ModelSpec
    """The net, with the classes and channels of the data."""
    side_px: int
    """Side of the images that the net sees."""
    reused: bool = False
    """Whether it was finished elsewhere before; its speed and time are left out then."""


def read_outcome(path: Path, model: ModelSpec, *, label: str, seconds: float | None, reused: bool = False) -> Outcome:
    """Return how a run ended.

    Args:
        path: the run directory.
        model: its net, with the classes and channels of the data.
        label: what its curves are called.
        seconds: its wall time, where it is known.
        reused: it was trained at another time, so that its speed says nothing beside that of the other runs.

    Raises:
        UserError: a file of the run is damaged.
    """
    config = path / "model" / "config.json"
    stored = read_config(config)
    metrics: Any = stored.get("metrics")
    metrics = metrics if isinstance(metrics, dict) else {}
    error, images = number(metrics.get("top1_error")), number(metrics.get("images"))
    split, skipped = metrics.get("split"), metrics.get("skipped")
    if error is None or not 0 <= error <= 100 or not images or not isinstance(split, str):
        raise ModelError(f"{config} lacks or garbles the errors of the run. {_AGAIN.format(path)}")
    log = read_run_log(path / "metrics.jsonl")
    curves = tuple(curves_of_log(log, label))
    if not curves:
        raise RunError(f"{path / 'metrics.jsonl'} holds no errors. {_AGAIN.format(path)}")
    last = [
        point.top1_error
        for point in log.training
        if point.top1_error is not None and point.step > (1 - LAST_SHARE) * log.last_step
    ]
    rates = [point.images_per_second for point in log.training if point.images_per_second]
    fingerprint = stored.get("dataset_fingerprint")
    preprocess = read_field(stored, "preprocess", Preprocess, config)
    return Outcome(
        path=path,
        top1_error=error,
        images=int(images),
        split=split,
        skipped=len(skipped) if isinstance(skipped, list) else 0,
        train_error=statistics.fmean(last) if last else None,
        images_per_second=statistics.median(rates) if rates and not reused else None,
        seconds=seconds,
        fingerprint=fingerprint if isinstance(fingerprint, str) else "",
        curves=curves,
        model=model,
        side_px=preprocess.crop_px,
        reused=reused,
    )

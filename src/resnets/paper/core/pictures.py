"""The pictures of an experiment, drawn from the runs that are there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resnets.paper.core.experiment import Unavailable
from resnets.specs.errors import DataError, ModelError, RunError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from resnets.artifacts.found_runs import FoundRun
    from resnets.paper.core.experiment import Experiment, Picture
    from resnets.paper.core.workshop import Settings, Workshop


def draw_pictures(planned: Experiment, workshop: Workshop) -> tuple[tuple[Path, ...], list[str]]:
    """Draw the pictures whose runs are there; return them, and a line about each that was not drawn."""
    drawn: list[Path] = []
    notes: list[str] = []
    for picture in planned.pictures:
        if picture.budget not in ("full", workshop.settings.budget):
            continue
        runs = {plan.name: run for plan in picture.runs if (run := workshop.first_seed(plan)) is not None}
        if not runs:
            # Where something smaller was asked for, the paper's own figure is not missed.
            if picture.budget == "full" and workshop.settings.budget in ("cpu", "gpu"):
                continue
            notes.append(f"{picture.name} is not drawn: none of its runs is there.")
            continue
        try:
            drawn.append(_draw_picture(picture, runs, workshop.settings))
        except (Unavailable, RunError, ModelError, DataError) as reason:
            first, _, _ = str(reason).partition("\n")
            notes.append(f"{picture.name} is not drawn: {first.rstrip('.')}.")
            continue
        missing = [plan.name for plan in picture.runs if plan.name not in runs]
        if missing:
            notes.append(f"{picture.name} is drawn without {', '.join(missing)}: not trained yet.")
    return tuple(drawn), notes


def draw_curves(runs: Mapping[str, FoundRun], path: Path, title: str) -> None:
    """Draw the error curves of runs, named by their net."""
    from resnets.report.curves import curves_from_metrics, draw_error_curves

    curves = [curve for name, run in runs.items() for curve in curves_from_metrics(run.path, name)]
    draw_error_curves(curves, path, title=title)


def _draw_picture(picture: Picture, runs: dict[str, FoundRun], settings: Settings) -> Path:
    path = settings.run_root / f"{picture.name}.png"
    try:
        settings.run_root.mkdir(parents=True, exist_ok=True)
        (picture.draw or draw_curves)(runs, path, picture.title)
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror or error}.") from error
    return path

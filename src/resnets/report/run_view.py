"""What the templates show of one run: sentences, how its training went, its environment, its test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnets.report.comparison import error_of
from resnets.report.examination import MOST_MISTAKES
from resnets.report.examination_figures import (
    SHOWN_CLASSES,
    class_rows,
    confidence_figure,
    heat_map,
    pairs_table,
    reliability_figure,
    shown_classes,
)
from resnets.report.figure import Table
from resnets.report.prose import description
from resnets.report.run_figures import course_figures
from resnets.report.text import LONGEST_NOTE, count, percent, printable
from resnets.specs import io
from resnets.specs.errors import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from resnets.report.part import RunPart

_ROUNDING = 0.005
"""Errors that differ by less, in points, are shown as equal."""
_MOST_ROWS = 200
"""Rows of a list of files; the rest is counted."""


def run_view(part: RunPart, anchor: str, several: bool) -> dict[str, Any]:
    """Return what `report.html.jinja` shows of a run; `anchor` begins the identifiers of its sections."""
    run = part.record
    notes = list(run.problems)
    if run.log.left_out:
        notes.append(f"{counted(len(run.log.left_out), 'training image')} could not be read and had no part in it.")
    if run.diverged_at is not None:
        notes.insert(
            0,
            f"The run diverged at step {count(run.diverged_at)}: the loss or a weight was not a finite number. These are its "
            "numbers before.",
        )
    elif not run.finished:
        notes.insert(0, "The run is not finished: these are its numbers so far.")
    environment = run.environment
    return {
        "name": run.name,
        "anchor": anchor,
        "of": f" of {run.name}" if several else "",
        "sentences": description(run),
        "notes": [printable(note, LONGEST_NOTE) for note in notes],
        "examination": _examination_view(part, anchor, several) if part.examination else None,
        "course": course_figures(run, anchor),
        "left_out": _files_table("Training images that could not be read", run.log.left_out),
        "environment": _environment(environment),
        "command": printable(environment.get("command", ""), 2_000),
        "starts": _starts(environment),
        "config": json.dumps(io.to_json(run.spec), indent=2),
    }


def _examination_view(part: RunPart, anchor: str, several: bool) -> dict[str, Any]:
    tested = part.examination
    assert tested is not None
    names = shown_classes(tested)
    classes, heat = len(names), heat_map(tested)
    of = f" of {part.record.name}" if several else ""
    shown = f"the {SHOWN_CLASSES} classes with the highest error, of {count(classes)}"
    cards = [
        {
            "image": picture.image,
            "pixelated": picture.pixelated,
            "predicted_map": picture.predicted_map,
            "label_map": picture.label_map,
            "label": names[picture.mistake.label],
            "predicted": names[picture.mistake.predicted],
            "name": printable(picture.name, 80),
            "alt": f"{printable(picture.name, 80)}: {names[picture.mistake.label]}, taken for {names[picture.mistake.predicted]}",
            "figures": f"{100 * picture.mistake.probability:.2f} % confident; {100 * picture.mistake.label_probability:.2f} % "
            f"for the right class, its {_ordinal(picture.mistake.label_rank)}",
        }
        for picture in tested.pictures
    ]
    maps = any(card["predicted_map"] for card in cards)
    return {
        "heading": f"Errors of the classes{of}",
        "sentence": _tested_sentence(part),
        "notes": [printable(note, LONGEST_NOTE) for note in tested.notes],
        "skipped": _files_table("Images that could not be read", tested.skipped),
        "class_rows": class_rows(tested),
        "class_caption": f"Error of {shown if classes > SHOWN_CLASSES else 'each class'}, {tested.split} split",
        "split": tested.split,
        "heat_map": heat,
        "heat_sentence": f"The diagonal counts the images that are right. The darkest mistake is {heat.highest:.1f} % of its "
        "row; the others are shaded in proportion."
        if heat and heat.highest
        else "Every image is right.",
        "pairs": pairs_table(tested),
        "calibration": [reliability_figure(tested, anchor), confidence_figure(tested, anchor)],
        "cards": cards,
        "mistakes_sentence": f"The {min(MOST_MISTAKES, len(cards))} wrong predictions with the highest probability: wrong "
        "labels and images of several things are found here first."
        + (
            " Beside what the net saw, the pixels that speak for the class it chose and for the right one, both on one scale: "
            "the brighter, the more (class activation maps; Grad-CAM where a net has no such maps)."
            if maps
            else ""
        ),
    }


def _ordinal(rank: int) -> str:
    ending = "th" if rank % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(rank % 10, "th")
    return f"{rank}{ending} choice"


def _tested_sentence(part: RunPart) -> str:
    """Return what the net was tested on again, and whether the error is that of the log."""
    tested, logged = part.examination, error_of(part.record)
    assert tested is not None
    result = tested.result
    skipped = f" {counted(len(tested.skipped), 'image')} could not be read." if tested.skipped else ""
    sentence = (
        f"Tested again for this report on the {tested.split} split of {printable(Path(tested.dataset).name, 80)}: "
        f"{percent(result.top1_error)} % error over {counted(result.images, 'image')}.{skipped}"
    )
    if logged is None or logged.split != tested.split:
        return sentence
    if part.record.log.final is None:
        return f"{sentence} The last error of the log, at step {count(logged.step)}, is {percent(logged.top1_error)} %."
    same = abs(logged.top1_error - result.top1_error) < _ROUNDING
    return f"{sentence} The log says {'the same' if same else f'{percent(logged.top1_error)} %'}."


def _files_table(caption: str, entries: Sequence[tuple[str, str]]) -> Table | None:
    if not entries:
        return None
    rows = [(printable(path, 200), printable(reason, 200)) for path, reason in entries[:_MOST_ROWS]]
    if len(entries) > _MOST_ROWS:
        rows.append((f"and {count(len(entries) - _MOST_ROWS)} more", ""))
    return Table(caption=caption, headers=("file", "reason"), rows=tuple(rows), text_columns=frozenset({0, 1}))


def _environment(environment: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the lines about versions and hardware."""
    versions, commit = environment.get("versions"), environment.get("commit")
    rows: list[tuple[str, Any]] = []
    if isinstance(versions, dict):
        rows.append(("Versions", ", ".join(f"{name} {version}" for name, version in versions.items())))
    rows.append(("Python", environment.get("python")))
    if isinstance(commit, dict) and commit.get("sha"):
        rows.append(("Commit", f"{commit['sha']}{', with changes' if commit.get('modified') else ''}"))
    rows += [(title, environment.get(key)) for title, key in (("Processor", "processor"), ("Cores", "cores"))]
    rows += [(title, environment.get(key)) for title, key in (("GPU", "gpu"), ("System", "platform"))]
    return [(name, printable(value, 400)) for name, value in rows if value]


def _starts(environment: dict[str, Any]) -> Table | None:
    """Return the starts of the run, the first and those after interruptions; None where the file has none."""
    starts = environment.get("starts")
    if not isinstance(starts, list):
        return None
    fields = ("step", "device", "processes", "threads")
    rows = tuple(
        (str(number), *(printable(start.get(field, ""), 40) for field in fields))
        for number, start in enumerate(starts[:_MOST_ROWS], 1)
        if isinstance(start, dict)
    )
    if not rows:
        return None
    return Table(caption="Starts of the run", headers=("start", "from step", *fields[1:]), rows=rows)

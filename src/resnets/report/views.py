"""From runs and examinations to what the templates show: sentences, tables, figures, and where each stands."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnets.report.comparison import (
    differences_table,
    error_of,
    last_training_error,
    results_table,
    verdict,
)
from resnets.report.examination import MOST_MISTAKES, overlap
from resnets.report.examination_figures import (
    SHOWN_CLASSES,
    class_comparison,
    class_rows,
    confidence_figure,
    heat_map,
    pairs_table,
    reliability_figure,
    shown_classes,
)
from resnets.report.figure import Table
from resnets.report.prose import description
from resnets.report.response_figures import response_figures, response_sentence, response_table
from resnets.report.run_figures import course_figures, error_figure
from resnets.report.text import count, listed, percent, plural, printable
from resnets.specs import io

if TYPE_CHECKING:
    from collections.abc import Sequence

    from resnets.report.examination import Examination
    from resnets.report.run_record import RunRecord

_LONGEST_NOTE = 1_000
_ROUNDING = 0.005
"""Errors that differ by less, in points, are shown as equal."""
_MOST_ROWS = 200
"""Rows of a list of files; the rest is counted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fact:
    """A number in large type."""

    name: str
    value: str
    unit: str
    about: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Missing:
    """What a report lacks about a run, and the command that adds it."""

    reason: str
    command: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunPart:
    """One run with what was found out about it."""

    record: RunRecord
    examination: Examination | None = None
    missing: Missing | None = None


def page_view(parts: Sequence[RunPart], title: str | None, generator: str) -> dict[str, Any]:
    """Return what `report.html.jinja` is filled with."""
    records = [part.record for part in parts]
    several = len(parts) > 1
    runs = [_run_view(part, f"run-{index}", several) for index, part in enumerate(parts, 1)]
    errors = error_figure(records)
    comparison = _comparison(parts) if several else None
    responses = _responses(parts)
    missing = _missing(parts)
    names = [record.name for record in records]
    default = listed(names) if len(names) <= 2 else f"{len(names)} runs compared"
    return {
        "title": printable(title, 200) if title else default,
        "over": "Training runs" if several else "Training run",
        "lead": [] if several else runs[0]["sentences"],
        "notes": [] if several else runs[0]["notes"],
        "facts": [] if several else _facts(records[0], parts[0].examination),
        "contents": _contents(runs, errors is not None, comparison, responses, missing),
        "comparison": comparison,
        "errors": errors,
        "responses": responses,
        "missing": missing,
        "runs": runs,
        "several": several,
        "generator": generator,
        "footer": f"Made by {generator} from the files of the {'runs' if several else 'run'}: config.json, metrics.jsonl, "
        "env.json and, where its images were at hand, the weights. Errors are top-1 errors in percent of all images.",
    }


def _responses(parts: Sequence[RunPart]) -> dict[str, Any] | None:
    nets = [
        (part.record.name, color, part.examination)
        for color, part in enumerate(parts)
        if part.examination is not None and part.examination.responses
    ]
    if not nets:
        return None
    return {
        "sentence": response_sentence(nets),
        "figures": response_figures(nets),
        "table": response_table(nets),
    }


def _missing(parts: Sequence[RunPart]) -> list[dict[str, str]]:
    """Return what each run lacks, and the command that adds it."""
    found = [(part.record.name, part.missing) for part in parts if part.missing is not None]
    several = len(parts) > 1
    return [
        {
            "text": printable(f"{name}: {missing.reason}" if several else missing.reason, _LONGEST_NOTE),
            "command": printable(missing.command, 2 * _LONGEST_NOTE),
        }
        for name, missing in found
    ]


def _contents(
    runs: list[dict[str, Any]],
    errors: bool,
    comparison: dict[str, Any] | None,
    responses: dict[str, Any] | None,
    missing: list[dict[str, str]],
) -> list[dict[str, str]]:
    entries = [("comparison", "Comparison")] if comparison else []
    entries += [("errors", "Error curves")] if errors else []
    if comparison:
        entries += [("tested-together", "Tested side by side")] if comparison["tested"] else []
        entries += [("responses", "Layer responses")] if responses else []
        entries += [(run["anchor"], run["name"]) for run in runs]
    else:
        (run,) = runs
        anchor = run["anchor"]
        if run["examination"]:
            entries += [(f"{anchor}-tested", "Classes"), (f"{anchor}-confusion", "Confusions")]
            entries += [(f"{anchor}-calibration", "Calibration")]
            entries += [(f"{anchor}-mistakes", "Surest mistakes")] if run["examination"]["cards"] else []
        entries += [("responses", "Layer responses")] if responses else []
        entries += [(f"{anchor}-course", "Course of the training")] if run["course"] else []
        entries += [(f"{anchor}-environment", "Environment")]
    entries += [("missing", "Not in this report")] if missing else []
    return [{"identifier": identifier, "text": text} for identifier, text in entries]


def _facts(run: RunRecord, examination: Examination | None) -> list[Fact]:
    """Return the numbers that a single run is judged by, as its log has them."""
    facts = []
    if end := error_of(run):
        which = "final weights" if run.log.final else f"step {count(end.step)}"
        over = f", {count(end.images)} images" if end.images is not None else ""
        # The line about the finished model does not repeat what was skipped; the evaluation of its step does.
        skipped = max((entry.skipped for entry in (end, *run.log.evaluations) if entry.step == end.step), default=0)
        about = f"{which}{over}, {count(skipped)} skipped"
        facts.append(Fact(name=f"{end.split} error", value=percent(end.top1_error), unit="%", about=about))
    if (best := run.log.best) and (end is None or best.top1_error < end.top1_error):
        about = f"at step {count(best.step)}; chosen by the {best.split} split itself"
        facts.append(Fact(name="lowest on the way", value=percent(best.top1_error), unit="%", about=about))
    if (training := last_training_error(run)) is not None:
        about = "augmented images, last line of the log"
        facts.append(Fact(name="training error", value=percent(training), unit="%", about=about))
    top5 = next((entry.top5_error for entry in reversed(run.log.evaluations) if entry.top5_error is not None), None)
    if top5 is not None and run.log.evaluations:
        about = f"at step {count(run.log.evaluations[-1].step)}"
        facts.append(Fact(name="top-5 error", value=percent(top5), unit="%", about=about))
    if examination:
        found = examination.calibration
        about = f"expected, {len(found.bins)} bins"
        name = "calibration error"
        facts.append(Fact(name=name, value=percent(found.expected_calibration_error), unit="points", about=about))
    return facts


def _comparison(parts: Sequence[RunPart]) -> dict[str, Any]:
    records = [part.record for part in parts]
    tested = [(part.record.name, part.examination) for part in parts if part.examination is not None]
    tables: list[Table] = []
    sentence = ""
    if len(tested) > 1:
        shares = overlap([one for _, one in tested])
        by_class = class_comparison(tested)
        tables = [table for table in (by_class, _overlap_table(tested, shares) if shares else None) if table]
        sentence = f"The nets of {listed([name for name, _ in tested])}, tested again for this report."
    return {
        "verdict": verdict(records),
        "results": results_table(records),
        "differences": differences_table(records),
        "tested": tables,
        "tested_sentence": sentence,
    }


def _overlap_table(tested: Sequence[tuple[str, Examination]], shares: Sequence[tuple[int, int, int, int]]) -> Table:
    first = tested[0][0]
    rows = tuple((name, *map(count, numbers)) for (name, _), numbers in zip(tested[1:], shares, strict=True))
    headers = ("run", "both right", f"only {first} right", "only this run right", "both wrong")
    return Table(caption=f"Images that {first} and another run get right", headers=headers, rows=rows)


def _run_view(part: RunPart, anchor: str, several: bool) -> dict[str, Any]:
    run = part.record
    notes = list(run.problems)
    if run.log.left_out:
        notes.append(f"{plural(len(run.log.left_out), 'training image')} could not be read and had no part in it.")
    if not run.finished:
        notes.insert(0, "The run is not finished: these are its numbers so far.")
    environment = run.environment
    return {
        "name": run.name,
        "anchor": anchor,
        "of": f" of {run.name}" if several else "",
        "sentences": description(run),
        "notes": [printable(note, _LONGEST_NOTE) for note in notes],
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
            "figures": f"{100 * picture.mistake.probability:.2f} % sure; {100 * picture.mistake.label_probability:.2f} % "
            f"for the right class, its {_ordinal(picture.mistake.label_rank)}",
        }
        for picture in tested.pictures
    ]
    maps = any(card["predicted_map"] for card in cards)
    return {
        "heading": f"Errors of the classes{of}",
        "sentence": _tested_sentence(part),
        "notes": [printable(note, _LONGEST_NOTE) for note in tested.notes],
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
    skipped = f" {plural(len(tested.skipped), 'image')} could not be read." if tested.skipped else ""
    sentence = (
        f"Tested again for this report on the {tested.split} split of {printable(Path(tested.dataset).name, 80)}: "
        f"{percent(result.top1_error)} % error over {plural(result.images, 'image')}.{skipped}"
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

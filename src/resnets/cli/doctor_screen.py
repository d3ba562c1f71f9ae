"""The doctor's findings on a terminal: the diagnosis in sentences, the stages as bars, the advice, the machine."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from resnets.specs.errors import counted
from resnets.specs.visible import in_line, visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console

    from resnets.studies.diagnosis import Advice, Diagnosis, Measured
    from resnets.studies.doctor import Examination
    from resnets.studies.machine_limits import Finding
    from resnets.studies.trial import Rate

_NARROWEST, _WIDEST = 72, 120
_STATES = {"ok": ("ok", "green"), "note": ("note", "cyan"), "warning": ("warning", "yellow")}
_ORDER = ("warning", "note", "ok")
_STATE_WIDTH, _SUBJECT_WIDTH = 9, 19
_BLOCKS = " ▏▎▍▌▋▊▉█"


def print_examination(examination: Examination, console: Console | None = None) -> None:
    """Print what the doctor has found."""
    from rich.console import Console

    console = console or Console(highlight=False, soft_wrap=True)
    width = max(_NARROWEST, min(console.width, _WIDEST))
    diagnosis = examination.diagnosis
    findings = examination.findings
    if diagnosis is not None:
        _print_diagnosis(console, diagnosis, width)
        findings = (*diagnosis.findings, *findings)
        console.print("\n[bold]the machine, and this run on it[/]")
    else:
        console.print("[bold]the machine[/]")
    for finding in sorted(findings, key=lambda finding: _ORDER.index(finding.state)):
        _print_finding(console, finding, width)
    warnings = sum(finding.state == "warning" for finding in findings)
    if diagnosis is None:
        console.print()
        text = f"{counted(warnings, 'warning')}." if warnings else "Nothing stands out."
        text += " For what limits a run: resnets doctor RECIPE --data DATA"
        console.print(textwrap.fill(text, width), markup=False)


def _print_diagnosis(console: Console, diagnosis: Diagnosis, width: int) -> None:
    for number, sentence in enumerate(diagnosis.sentences):
        console.print(textwrap.fill(visible(sentence), width), style="" if number else "bold", markup=False)
    console.print()
    for line, style in _stage_lines(diagnosis.measured, width):
        console.print(line, style=style, markup=False)
    if diagnosis.advice:
        console.print("\n[bold]what helps, measured[/]")
        for number, advice in enumerate(diagnosis.advice, start=1):
            _print_advice(console, number, advice, width)
    _print_tried(console, diagnosis, width)
    for note in diagnosis.notes:
        console.print(textwrap.fill(visible(note), width), style="dim", markup=False)


def _stage_lines(measured: Measured, width: int) -> Iterator[tuple[str, str]]:
    """Yield the stages as a table with bars of milliseconds an image: the longest is what the others wait for."""
    from resnets.studies.diagnosis import figure

    rows = list(_stages(measured))
    name_width = max(len(name) for name, _, _ in rows)
    bar_width = min(40, width - name_width - 24 - len(_LIMITS))
    slowest = max(rate.ms_an_image for _, rate, _ in rows)
    yield f"{'each stage alone':<{name_width}}  {'images/s':>9}  {'ms/image':>9}", "bold"
    for name, rate, limits in rows:
        if name == _WHOLE:
            yield "", ""
        bar = _bar(rate.ms_an_image / slowest, bar_width)
        style = "yellow" if limits else ("bold" if name == _WHOLE else "")
        line = f"{name:<{name_width}}  {figure(rate.images_per_second):>9}  {_ms(rate.ms_an_image):>9}  {bar}"
        yield line.rstrip() + (_LIMITS if limits else ""), style


_WHOLE = "all together"
_LIMITS = "  limits"


def _stages(measured: Measured) -> Iterator[tuple[str, Rate, bool]]:
    """Yield name and rate of each stage, and whether it is the one that limits."""
    limit, workers = measured.limit, measured.workers
    who = counted(workers, "worker") if workers else "no workers"
    readers = counted(measured.readers, "reader")
    if measured.read is not None and measured.read_again is not None:
        disk = limit == "disk"
        yield f"read files from disk, {readers}", measured.read, disk and not measured.cached
        yield f"read them again, {readers}", measured.read_again, disk and measured.cached
    if measured.decode_one is not None and measured.decode is not None:
        yield "decode and crop, 1 core", measured.decode_one, False
        yield f"decode and crop, {who}", measured.decode, limit == "decode"
        yield f"loader: read and decode, {who}", measured.load, limit == "batches"
    else:
        yield "crop and normalise", measured.load, limit == "batches"
    if measured.transfer is not None:
        yield f"transfer to {measured.device}", measured.transfer, limit == "transfer"
    where = measured.device if measured.device != "cpu" else counted(measured.threads, "thread")
    yield f"model: training step, {where}", measured.model, limit == "model"
    yield _WHOLE, measured.whole, False


def _bar(share: float, width: int) -> str:
    eighths = max(1, round(share * width * 8))
    whole, rest = divmod(eighths, 8)
    return _BLOCKS[8] * whole + (_BLOCKS[rest] if rest else "")


def _ms(milliseconds: float) -> str:
    decimals = 3 if milliseconds < 1 else 2 if milliseconds < 10 else 1 if milliseconds < 100 else 0
    return f"{milliseconds:,.{decimals}f}"


def _print_advice(console: Console, number: int, advice: Advice, width: int) -> None:
    from resnets.studies.diagnosis import duration, figure

    text = f"{advice.label}: {advice.gain:.2f} times as fast, {figure(advice.images_per_second)} images/s"
    console.print(_filled(in_line(text), width, f"{number}. "), style="green", markup=False)
    before, after = duration(advice.hours_before), duration(advice.hours_after)
    text = f"the run's training steps take {after} instead of {before}"
    text += f"; {advice.note}" if advice.note else ""
    console.print(_filled(in_line(text), width, "   "), style="dim", markup=False)
    for command in advice.commands:
        # In one line, however long, so that it can be copied.
        console.print(f"   {in_line(command)}", markup=False)


def _filled(text: str, width: int, start: str) -> str:
    return textwrap.fill(text, width, initial_indent=start, subsequent_indent=" " * len(start))


def _print_tried(console: Console, diagnosis: Diagnosis, width: int) -> None:
    from resnets.studies.diagnosis import labels

    advised = {advice.label for advice in diagnosis.advice}
    rest = [one for one in diagnosis.tried if one.label not in advised]
    if not rest or not diagnosis.advice:
        return
    console.print()
    console.print(textwrap.fill(in_line(f"also tried: {labels(rest)}."), width), style="dim", markup=False)


def _print_finding(console: Console, finding: Finding, width: int) -> None:
    from rich.text import Text

    word, style = _STATES[finding.state]
    indent = _STATE_WIDTH + _SUBJECT_WIDTH
    lines = _wrapped(f"{finding.text}", width - indent)
    console.print(Text.assemble((f"{word:<{_STATE_WIDTH}}", style), f"{finding.subject:<{_SUBJECT_WIDTH}}", lines[0]))
    for line in lines[1:]:
        console.print(f"{'':<{indent}}{line}", markup=False)
    if finding.fix:
        for number, line in enumerate(_wrapped(finding.fix, width - indent - 3)):
            console.print(f"{'':<{indent}}{'-> ' if not number else '   '}{line}", style=style, markup=False)


def _wrapped(text: str, width: int) -> Sequence[str]:
    return textwrap.wrap(in_line(text), width, break_long_words=False, break_on_hyphens=False) or [""]

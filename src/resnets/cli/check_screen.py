"""What `resnets check-data` prints: the classes, how large the images are, and every kind of finding with examples."""

from __future__ import annotations

import itertools
import shutil
import textwrap
from typing import TYPE_CHECKING

from resnets.specs.errors import counted
from resnets.specs.visible import in_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import Console

    from resnets.data.check_report import CheckReport, Histogram
    from resnets.data.findings import Finding

EXAMPLES = 5
_MOST_CLASSES = 12
_WIDEST = 100
_STYLES = {"error": "bold red", "warning": "bold yellow", "note": "bold"}
_UNITS = {"kB": 1e3, "MB": 1e6, "GB": 1e9}
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def print_check(report: CheckReport, *, every: bool = False) -> None:
    """Print a report for the width of the terminal; of each kind a few findings, or `every` one."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    width = min(shutil.get_terminal_size((80, 24)).columns, _WIDEST)
    _print_head(console, report, width)
    _print_classes(console, report, width)
    _print_histograms(console, report, width)
    _print_findings(console, report, width, every)
    _print_end(console, report, width)


def _print_head(console: Console, report: CheckReport, width: int) -> None:
    figures = report.figures
    rate = report.images / report.seconds if report.seconds else 0.0
    console.print(in_line(report.name), style="bold", markup=False)
    for line in (
        f"{counted(report.images, 'image')}, {_size(figures.total_bytes)}, looked at in {report.seconds:.1f} s "
        f"({rate:,.0f}/s)",
        f"formats {_shares(figures.formats)}; colours {_shares(figures.modes)}",
        f"median {figures.median_width_px} x {figures.median_height_px} pixels, largest "
        f"{figures.largest_px[0]:,} x {figures.largest_px[1]:,}",
    ):
        console.print(_filled(line, width), markup=False)


def _size(size: int) -> str:
    """Return a number of bytes with three digits at most.

    >>> _size(900), _size(11_522_946), _size(3 * 10**12)
    ('900 bytes', '11.5 MB', '3000 GB')
    """
    if size < 1000:
        return counted(size, "byte")
    unit = next((unit for unit, factor in _UNITS.items() if size < 1000 * factor), "GB")
    scaled = size / _UNITS[unit]
    return f"{scaled:.0f} {unit}" if scaled >= 100 else f"{scaled:.1f} {unit}"


def _shares(counts: dict[str, int]) -> str:
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{in_line(name)} {number:,}" for name, number in counts.items()) or "-"


def _print_classes(console: Console, report: CheckReport, width: int) -> None:
    """Print the images of each class in each split; of many classes, the largest and the smallest."""
    splits = [split for split in ("train", "validation", "test") if split in report.counts]
    totals: dict[str, int] = {}
    for split in splits:
        for name, images in report.counts[split].items():
            totals[name] = totals.get(name, 0) + images
    if not totals:
        return
    first = report.counts[splits[0]]
    order = sorted(totals, key=lambda name: (-first.get(name, 0), -totals[name], name))
    shown: list[str | None] = [*order]
    if len(order) > _MOST_CLASSES:
        half = _MOST_CLASSES // 2
        shown = [*order[:half], None, *order[-half:]]
    title = counted(len(order), "class") if len(order) == 1 else f"{len(order):,} classes"
    widest = max(min(max(len(in_line(name or "")) for name in shown), width // 3), len(title))
    largest = max(max(first.values(), default=0), 1)
    bar = max(width - widest - 12 * len(splits) - 4, 8)
    head = "".join(f"{split:>12}" for split in splits)
    console.print(f"\n{title:<{widest}}{head}", style="dim", markup=False)
    for name in shown:
        if name is None:
            console.print(f"… {len(order) - len(shown) + 1:,} classes between …", style="dim", markup=False)
            continue
        cells = "".join(f"{report.counts[split].get(name, 0):>12,}" for split in splits)
        _print_bars(
            console, f"{_cut(in_line(name), widest):<{widest}}{cells}  {_bar(first.get(name, 0) / largest, bar)}"
        )
    if len(splits) > 1 or len(order) > 1:
        cells = "".join(f"{sum(report.counts[split].values()):>12,}" for split in splits)
        console.print(f"{'together':<{widest}}{cells}", style="dim", markup=False)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _bar(share: float, width: int) -> str:
    """Return a bar of blocks, to an eighth of a column; whatever is not nothing shows."""
    eighths = round(share * width * 8)
    if share > 0:
        eighths = max(eighths, 1)
    return ("█" * (eighths // 8) + _EIGHTHS[eighths % 8]).rstrip()


def _print_bars(console: Console, line: str, style: str = "") -> None:
    """Print a line whose bars are dimmer than its text."""
    from rich.text import Text

    text = Text(line.rstrip(), style=style)
    text.highlight_regex(f"[{_EIGHTHS.strip()}]+", "dim")
    console.print(text)


def _print_histograms(console: Console, report: CheckReport, width: int) -> None:
    figures = report.figures
    if not figures.images:
        return
    half = width // 2 - 1
    sizes = _histogram("shorter side, pixels", figures.shorter_side_px, _size_labels(figures.shorter_side_px), half)
    aspects = _histogram("width : height", figures.aspect, _aspect_labels(figures.aspect), half)
    console.print()
    for place in range(max(len(sizes), len(aspects))):
        left = sizes[place] if place < len(sizes) else ""
        right = aspects[place] if place < len(aspects) else ""
        _print_bars(console, f"{left:<{half + 2}}{right}", style="" if place else "dim")


def _histogram(title: str, histogram: Histogram, labels: list[str], width: int) -> list[str]:
    """Return lines of a histogram from its first to its last bin that is not empty."""
    filled = [place for place, count in enumerate(histogram.counts) if count]
    bins = range(filled[0], filled[-1] + 1)
    label = max(len(labels[place]) for place in bins)
    most = max(histogram.counts)
    number = len(f"{most:,}")
    bar = max(width - label - number - 4, 4)
    lines = [title]
    for place in bins:
        count = histogram.counts[place]
        lines.append(f"{labels[place]:>{label}}  {count:>{number},}  {_bar(count / most, bar)}")
    return lines


def _size_labels(histogram: Histogram) -> list[str]:
    edges = [f"{edge:.0f}" for edge in histogram.edges]
    between = [f"{low} - {int(high) - 1}" for low, high in itertools.pairwise(edges)]
    return [f"below {edges[0]}", *between, f"{edges[-1]} or more"]


def _aspect_labels(histogram: Histogram) -> list[str]:
    edges = [_ratio(edge) for edge in histogram.edges]
    between = [f"{low} - {high}" for low, high in itertools.pairwise(edges)]
    return [f"below {edges[0]}", *between, f"{edges[-1]} or more"]


def _ratio(value: float) -> str:
    """Return a ratio of small whole numbers.

    >>> _ratio(0.75), _ratio(2.0), _ratio(1 / 3)
    ('3:4', '2:1', '1:3')
    """
    from fractions import Fraction

    ratio = Fraction(value).limit_denominator(10)
    return f"{ratio.numerator}:{ratio.denominator}"


def _print_findings(console: Console, report: CheckReport, width: int, every: bool) -> None:
    from resnets.data.findings import KINDS

    severity = ""
    for kind, findings in report.by_kind().items():
        about = KINDS[kind]
        if about.severity != severity:
            severity = about.severity
            number = report.numbers()[severity]
            console.print(f"\n{counted(number, severity).upper()}", style=_STYLES[severity], markup=False)
        console.print()
        gap = " " * max(width - len(about.title) - len(f"{len(findings):,}") - len(kind) - 2, 2)
        console.print(f"[bold]{len(findings):,}  {about.title}[/][dim]{gap}{kind}[/]")
        limit = len(findings) if every else EXAMPLES
        _print_examples(console, findings[:limit], width)
        if len(findings) > limit:
            console.print(f"   … and {len(findings) - limit:,} more (--all)", style="dim", markup=False)
        console.print(_filled(about.advice, width, "   "), style="cyan", markup=False)


def _print_examples(console: Console, findings: Sequence[Finding], width: int) -> None:
    """Print findings, each on one line where it fits, and else the detail below the paths."""
    details = {finding.detail for finding in findings}
    shared = next(iter(details)) if len(details) == 1 and len(findings) > 1 else None
    longest = max(len(in_line(finding.paths[0])) for finding in findings)
    if shared is not None:
        console.print(_filled(f"{shared}:", width, "   "), style="dim", markup=False)
    for finding in findings:
        path = in_line(finding.paths[0])
        if shared is None and len(finding.paths) == 1 and longest + len(finding.detail) + 5 <= width:
            console.print(f"   {path:<{longest}}  ", end="", markup=False)
            console.print(in_line(finding.detail), style="dim", markup=False)
            continue
        console.print(f"   {path}", markup=False)
        for other in _some(finding.paths[1:]):
            console.print(f"     {other}", markup=False)
        if shared is None:
            console.print(_filled(in_line(finding.detail), width, "     "), style="dim", markup=False)


def _some(paths: Sequence[str]) -> Iterable[str]:
    shown = paths if len(paths) <= EXAMPLES else paths[: EXAMPLES - 1]
    yield from (f"= {in_line(path)}" for path in shown)
    if len(paths) > len(shown):
        yield f"= {len(paths) - len(shown):,} more (--json names all)"


def _print_end(console: Console, report: CheckReport, width: int) -> None:
    from resnets.data.findings import BROKEN

    numbers = report.numbers()
    words = ", ".join(f"{counted(number, severity)}" for severity, number in numbers.items() if number)
    style = "bold red" if numbers["error"] else "bold green"
    console.print(f"\n{words or 'nothing is wrong'}", style=style, markup=False)
    settled = sum(map(report.is_settled, report.findings))
    if settled:
        line = f"{settled:,} more are about images that quarantine.json already leaves out of training"
        console.print(_filled(line, width), style="dim", markup=False)
    broken = sum(map(len, (found for kind, found in report.by_kind().items() if kind in BROKEN)))
    if report.quarantine is not None:
        line = f"{in_line(report.quarantine)} lists {counted(report.quarantine_images, 'image')} to leave out"
        console.print(line, markup=False)
    elif broken:
        line = f"resnets check-data {in_line(report.name)} --quarantine"
        console.print(f"{line}\n   lists the {counted(broken, 'broken image')} for training to leave out", markup=False)


def _filled(text: str, width: int, indent: str = "") -> str:
    return textwrap.fill(in_line(text), width, initial_indent=indent, subsequent_indent=indent)

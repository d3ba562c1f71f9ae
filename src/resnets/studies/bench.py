"""One way to measure speed: systems that do the same work, in turns, beside a named reference.

A system is a class with a name, what it needs to be installed, and `prepare`, which returns the work as a function.
`bench_data`, `bench_train` and `bench_predict` have the systems; `benchmark` measures any of them. What is not
installed, or fails, stands in the table with the reason and without a figure.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib import metadata
from typing import TYPE_CHECKING, Any

from resnets.artifacts.run_directory import environment, write_json
from resnets.engine.threads import threads as torch_threads
from resnets.specs.errors import ResnetsError, UserError, counted, near_misses
from resnets.specs.visible import in_line
from resnets.studies.timing import LostError, Run, Spread, interleaved, paired_ratio, percentile, rates, spread

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import torch

    from resnets.studies.timing import Rounds

SETTLE_SECONDS = 0.5
"""Between the turns of processes: the threads of the one before spin for a moment after their last work."""


@dataclass(frozen=True, slots=True)
class Need:
    """A package that a system cannot do without."""

    module: str
    """What is imported."""
    package: str
    """What pip installs."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A system that is ready."""

    run: Run
    facts: dict[str, Any] = field(default_factory=dict)
    """What else is known of it, for its row: fidelity, first step, sizes."""
    close: Callable[[], None] = lambda: None


@dataclass(frozen=True, kw_only=True)
class System:
    """One way to do the work, as a row of the table. Subclasses say how; their fields can be sent to a process."""

    name: str
    images: int
    """Images that one call works on."""
    needs: tuple[Need, ...] = ()
    against: str = ""
    """The system that its ratio is to; empty is the first of all."""
    note: str = ""
    """In what its work differs from that of the others, or what a reader must know."""

    def prepare(self) -> Prepared:
        """Build whatever the work needs, and return it."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Work(System):
    """A function as a system, for one process."""

    start: Callable[[], Run]
    """Returns the work."""

    def prepare(self) -> Prepared:
        """Return the work."""
        return Prepared(self.start())


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """What was measured of a system, or why nothing was."""

    system: str
    images_per_second: Spread | None = None
    round_rates: tuple[float, ...] = ()
    """Images a second in each round."""
    ratio: Spread | None = None
    against: str = ""
    call_ms: tuple[float, float] | None = None
    """Median and 90th percentile of the milliseconds of a call, over all rounds."""
    facts: dict[str, Any] = field(default_factory=dict)
    note: str = ""
    reason: str = ""
    hint: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the row of the document: rates in images a second, the spread as quartiles."""
        if self.images_per_second is None:
            row: dict[str, Any] = {"system": self.system, "images_per_second": None, "ratio": None, "spread": None}
            return row | {"reason": self.reason} | ({"hint": self.hint} if self.hint else {})
        row = {
            "system": self.system,
            "images_per_second": _rounded(self.images_per_second.median),
            "ratio": None if self.ratio is None else _rounded(self.ratio.median),
            "spread": [_rounded(self.images_per_second.low), _rounded(self.images_per_second.high)],
            "range": [_rounded(self.images_per_second.smallest), _rounded(self.images_per_second.largest)],
            "ratio_spread": None if self.ratio is None else [_rounded(self.ratio.low), _rounded(self.ratio.high)],
            "against": self.against,
        }
        if self.call_ms is not None:
            row |= {"ms": _rounded(self.call_ms[0]), "ms_p90": _rounded(self.call_ms[1])}
        return row | self.facts | ({"note": self.note} if self.note else {})


@dataclass(frozen=True, kw_only=True, slots=True)
class Benchmark:
    """The rows of one benchmark, and under what circumstances they were measured."""

    what: str
    """The work, in a line."""
    rows: tuple[Row, ...]
    rounds: int
    environment: dict[str, Any]
    hardware: dict[str, Any]
    peers: dict[str, str]
    """Versions of the packages that systems need."""
    settings: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        """Return all of it for JSON."""
        here = self.environment
        return {
            "what": self.what,
            "rows": [row.to_json() for row in self.rows],
            "figures": "medians over the rounds; spread and ratio_spread are quartiles, range is smallest and largest; "
            "a ratio is taken within each round",
            "hardware": self.hardware,
            "versions": {"python": here["python"]} | here["versions"] | self.peers,
            "commit": here["commit"],
            "command": here["command"],
            "date": time.strftime("%Y-%m-%d"),
            "rounds": self.rounds,
            "settings": self.settings,
            "notes": list(self.notes),
        }

    def write(self, path: Path) -> None:
        """Write the document to a file, whole or not at all.

        Raises:
            OSError: it cannot be written.
        """
        write_json(path, self.document())


def joined(benchmarks: Sequence[Benchmark]) -> Benchmark:
    """Return the rows of several benchmarks of one kind as one; what else is known is that of the first."""
    first = benchmarks[0]
    rows = tuple(row for one in benchmarks for row in one.rows)
    return replace(first, what="; ".join(one.what for one in benchmarks), rows=rows)


def benchmark(
    systems: Sequence[System],
    *,
    what: str,
    rounds: int = 7,
    calls: int = 1,
    seconds: float = 0.0,
    unmeasured: int = 0,
    own_process: bool = False,
    threads: int = 0,
    device: torch.device | None = None,
    settings: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
    quiet: bool = False,
    clock: Callable[[], float] = time.perf_counter,
) -> Benchmark:
    """Measure the systems in turns, in random order, and return a row for each, those that cannot run included.

    Args:
        systems: the first is the reference of those that name none.
        what: the work, in a line.
        rounds: that count; one more goes before.
        calls: calls a turn, at least.
        seconds: and until they have taken this long.
        unmeasured: calls at the beginning of each turn that do not count.
        own_process: give each a process of its own, for systems that change how their process works (allocator,
            threads, compiler). Otherwise they share this one.
        threads: of torch; 0 leaves its choice.
        device: that the systems compute on; None is the CPU.
        settings: for the document.
        notes: what a reader must know.
        quiet: show no progress.
        clock: seconds, for systems that share this process.

    Raises:
        UserError: a count is wrong, or the input that a system was given.
    """
    if rounds < 1:
        raise UserError(f"--rounds is {rounds}; it is at least 1.")
    hardware, load_notes = _hardware(threads, device)
    say = _silent if quiet else _say
    for note in load_notes:
        say(note)
    absent = {system.name: lacking for system in systems if (lacking := missing(system.needs))}
    reasons: dict[str, str] = {}
    ready: dict[str, Prepared] = {}
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch_threads(0 if own_process else threads))
        # Some libraries print when they are imported; stdout is for the result.
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        for system in systems:
            if system.name in absent:
                continue
            say(f"preparing {system.name}")
            try:
                ready[system.name] = _prepare(system, own_process, threads)
            except LostError as error:
                reasons[system.name] = str(error)
                continue
            stack.callback(ready[system.name].close)
        measured = interleaved(
            {name: prepared.run for name, prepared in ready.items()},
            rounds=rounds,
            calls=calls,
            seconds=seconds,
            unmeasured=unmeasured,
            rest=(lambda: time.sleep(SETTLE_SECONDS)) if own_process else (lambda: None),
            clock=clock,
            on_round=lambda number: say("warming up" if number < 0 else f"round {number + 1} of {rounds}"),
            on_lost=lambda name, error: reasons.update({name: str(error)}),
        )
    for name, reason in reasons.items():
        say(f"{name} has failed: {reason}")
    return Benchmark(
        what=what,
        rows=tuple(rows_of(systems, measured, ready, absent, reasons)),
        rounds=rounds,
        environment=environment(),
        hardware=hardware,
        peers=_versions(systems),
        settings=dict(settings or {}),
        notes=(*notes, *load_notes),
    )


def rows_of(
    systems: Sequence[System],
    measured: Mapping[str, Rounds],
    ready: Mapping[str, Prepared],
    absent: Mapping[str, tuple[Need, ...]],
    reasons: Mapping[str, str],
) -> list[Row]:
    """Return a row for each system, in their order; a ratio where the reference was measured too."""
    by_name = {system.name: system for system in systems}
    rows = []
    for system in systems:
        if system.name not in measured:
            if lacking := absent.get(system.name):
                hint = f"pip install {' '.join(need.package for need in lacking)}"
                rows.append(Row(system=system.name, reason="not installed", hint=hint))
            else:
                rows.append(Row(system=system.name, reason=f"failed: {reasons[system.name]}"))
            continue
        reference = by_name[system.against] if system.against else systems[0]
        own = rates(measured[system.name], system.images)
        ratio = None
        if reference.name in measured:
            ratio = paired_ratio(own, rates(measured[reference.name], reference.images))
        calls = [1e3 * call for turn in measured[system.name] for call in turn]
        rows.append(
            Row(
                system=system.name,
                images_per_second=spread(own),
                round_rates=tuple(own),
                ratio=ratio,
                against=reference.name,
                call_ms=(percentile(calls, 50.0), percentile(calls, 90.0)),
                facts=ready[system.name].facts,
                note=system.note,
            )
        )
    return rows


def missing(needs: Sequence[Need]) -> tuple[Need, ...]:
    """Return those that are not installed."""
    return tuple(need for need in needs if importlib.util.find_spec(need.module) is None)


def chosen(systems: Sequence[System], only: Sequence[str]) -> list[System]:
    """Return the systems whose names contain a word of `only` in any case, and the references of their ratios; all
    of them where it is empty.

    Raises:
        UserError: a word is in no name.
    """
    if not only:
        return list(systems)
    names = {system.name for system in systems}
    keep: set[str] = set()
    for word in only:
        found = {name for name in names if word.lower() in name.lower()}
        if not found:
            raise UserError(f"--only {word}: there is no such system.{near_misses(word, names)} {', '.join(names)}.")
        keep |= found
    keep |= {system.against or systems[0].name for system in systems if system.name in keep}
    return [system for system in systems if system.name in keep]


def guarded(run: Run) -> Run:
    """Return the work with its errors as `LostError`, so that a peer that fails does not end the others."""

    def guard(number: int) -> object:
        try:
            return run(number)
        except Exception as error:
            raise LostError(reason_of(error)) from error

    return guard


def reason_of(error: Exception) -> str:
    """Return an error in a line."""
    text = str(error)
    if "Traceback (most recent call last)" in text:  # of a worker of torch's loader: its last line is the error
        return text.strip().rpartition("\n")[2][:300]
    text = " ".join(text.split())
    return text if isinstance(error, ResnetsError) else f"{type(error).__name__}: {text}"[:300]


def _prepare(system: System, own_process: bool, threads: int) -> Prepared:
    """Prepare a system, here or in its own process.

    Raises:
        LostError: it cannot be prepared.
        UserError: what it was given is wrong.
    """
    if own_process:
        from resnets.studies.bench_process import prepare_in_process

        return prepare_in_process(system, threads)
    try:
        prepared = system.prepare()
    except UserError:
        raise
    except Exception as error:
        raise LostError(reason_of(error)) from error
    return Prepared(guarded(prepared.run), prepared.facts, prepared.close)


def _hardware(threads: int, device: torch.device | None) -> tuple[dict[str, Any], list[str]]:
    import torch

    here = environment()
    hardware: dict[str, Any] = {name: here[name] for name in ("processor", "cores", "platform")}
    hardware["gpu"] = torch.cuda.get_device_name(device) if device is not None and device.type == "cuda" else None
    hardware["threads"] = threads or torch.get_num_threads()
    if not hasattr(os, "getloadavg"):
        return hardware, []
    hardware["load_before"] = round(os.getloadavg()[0], 2)
    if hardware["load_before"] < 0.5:
        return hardware, []
    return hardware, [
        f"The load of the machine was {hardware['load_before']:.1f} on {counted(os.cpu_count() or 1, 'core')} before: where "
        "other programs ran beside this, ratios hold better than rates."
    ]


def _versions(systems: Sequence[System]) -> dict[str, str]:
    """Return the version of each package that a system needs and that is installed, by its module's name."""
    modules = {need.module for system in systems for need in system.needs if not missing((need,))}
    homes = metadata.packages_distributions() if modules else {}
    return {home: metadata.version(home) for module in sorted(modules) for home in homes.get(module, [])[:1]}


def _rounded(value: float) -> float:
    """Return four significant digits: more than any of these times is good for."""
    return float(f"{value:.4g}")


def _say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {in_line(line)}", file=sys.stderr, flush=True)


def _silent(line: str) -> None:
    pass

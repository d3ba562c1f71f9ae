"""Which other programs compute on this machine right now: the time that the system gave to each, over a moment."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

_MOMENT_SECONDS = 0.5
_IDLE_FIELDS = (3, 4)  # idle, iowait
_GUEST_FIELDS = (8, 9)  # counted within user and nice already


@dataclass(frozen=True, kw_only=True, slots=True)
class Neighbour:
    """Another process that computes."""

    pid: int
    name: str
    cores: float
    """Cores it kept busy."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """What the machine did over a moment in which this process slept."""

    busy_cores: float
    """Cores that were busy, whoever kept them so; in a container, with programs outside too."""
    neighbours: tuple[Neighbour, ...]
    """The processes that can be seen, the busiest first."""
    busy_here: float | None = None
    """Of the cores that this process may run on, how many were busy; None where the system does not say."""


def load_of_others(
    proc: Path = Path("/proc"),
    *,
    seconds: float = _MOMENT_SECONDS,
    wait: Callable[[float], None] = time.sleep,
    usable: Collection[int] | None = None,
) -> Load | None:
    """Return what others computed while this process waited; None where the system does not say.

    Args:
        proc: folder with the system's figures.
        seconds: how long to look.
        wait: waits so long.
        usable: numbers of the cores that this process may run on; None asks the system.
    """
    before, started = _busy_ticks(proc), time.perf_counter()
    if "cpu" not in before:
        return None
    processes = _ticks_of_processes(proc)
    wait(seconds)
    after, elapsed = _busy_ticks(proc), max(time.perf_counter() - started, seconds)
    if "cpu" not in after:
        return None
    a_second = _ticks_a_second()
    neighbours = [
        Neighbour(pid=pid, name=name, cores=round((ticks - processes[pid][1]) / a_second / elapsed, 2))
        for pid, (name, ticks) in _ticks_of_processes(proc).items()
        if pid in processes and pid != os.getpid() and ticks > processes[pid][1]
    ]
    neighbours.sort(key=lambda neighbour: -neighbour.cores)
    usable = _usable() if usable is None else usable
    names = {f"cpu{number}" for number in usable}

    def busy(names: Collection[str]) -> float:
        return round(sum(after[name] - before[name] for name in names) / a_second / elapsed, 2)

    return Load(
        busy_cores=busy(["cpu"]),
        neighbours=tuple(neighbours[:5]),
        busy_here=busy(names) if names and names <= before.keys() & after.keys() else None,
    )


def _usable() -> Collection[int]:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()


def _ticks_a_second() -> int:
    return os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


def _busy_ticks(proc: Path) -> dict[str, int]:
    """Return the ticks in which each core was busy ("cpu0", ...), and all of them ("cpu"), as far as they are known."""
    found = {}
    with suppress(OSError, ValueError):
        for line in (proc / "stat").read_text(encoding="ascii").splitlines():
            name, *words = line.split()
            if name.startswith("cpu"):
                left_out = (*_IDLE_FIELDS, *_GUEST_FIELDS)
                found[name] = sum(int(word) for place, word in enumerate(words) if place not in left_out)
    return found


def _ticks_of_processes(proc: Path) -> dict[int, tuple[str, int]]:
    """Return name and ticks of computing of every process that can be seen."""
    found = {}
    try:
        entries = list(os.scandir(proc))
    except OSError:
        return {}
    for entry in entries:
        if not entry.name.isdigit():
            continue
        try:
            text = Path(entry.path, "stat").read_text(encoding="utf-8", errors="replace")
            # The name is in parentheses and can hold any character, parentheses and blanks too.
            name, _, rest = text.partition("(")[2].rpartition(")")
            fields = rest.split()
            found[int(entry.name)] = name, int(fields[11]) + int(fields[12])
        except (OSError, ValueError, IndexError):  # it has ended meanwhile
            continue
    return found

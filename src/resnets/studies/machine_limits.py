"""What about a machine limits or endangers a run, each with its remedy; from the plain figures of `machine_facts`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from resnets.specs.errors import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from resnets.studies.machine_facts import MachineFacts

_GIB = 2**30
_BUSY_CORES = 0.3
_BUSY_SHARE = 0.02
"""Below both, of a machine with many cores below the second, what others compute is the usual background."""
_FEW_FILES = 4_096
_LITTLE_SHARED_MEMORY = _GIB
"""Docker gives 64 MiB unless it is told otherwise."""
_LITTLE_MEMORY = 2 * _GIB


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One subject that was looked at."""

    subject: str
    state: Literal["ok", "note", "warning"]
    text: str
    """What there is."""
    fix: str = ""
    """What to do about it, where something is wrong."""

    def to_json(self) -> dict[str, Any]:
        """Return the finding for a document."""
        return asdict(self)


def machine_findings(facts: MachineFacts) -> tuple[Finding, ...]:
    """Return everything that was looked at, good or bad."""
    checks = (_versions, _devices, _cores, _neighbours, _memory, _shared_memory, _open_files, _allocator, _clock)
    return tuple(finding for check in checks for finding in check(facts))


def gib(number: int | float) -> str:
    """Return bytes in the unit in which they have one to four digits.

    >>> gib(64 * 2**20), gib(24.2 * 2**30)
    ('64 MiB', '24.2 GiB')
    """
    if number < _GIB:
        return f"{number / 2**20:.0f} MiB"
    return f"{number / _GIB:.1f} GiB"


def _versions(facts: MachineFacts) -> Iterator[Finding]:
    names = " ".join(f"{name} {version}" for name, version in facts.versions.items())
    yield Finding(subject="versions", state="ok", text=f"{names}, Python {facts.python}")


def _devices(facts: MachineFacts) -> Iterator[Finding]:
    for number, gpu in enumerate(facts.gpus):
        if gpu.total_bytes is None or gpu.free_bytes is None:
            yield Finding(
                subject="device",
                state="warning",
                text=f"cuda:{number} {gpu.name} cannot be used: {gpu.problem}",
                fix="`nvidia-smi` names the programs that hold it; --device cuda:N takes another",
            )
            continue
        text = f"cuda:{number} {gpu.name}, {gib(gpu.free_bytes)} of {gib(gpu.total_bytes)} free"
        if gpu.free_bytes < 0.8 * gpu.total_bytes:
            yield Finding(
                subject="device",
                state="warning",
                text=text,
                fix=f"another program holds {gib(gpu.total_bytes - gpu.free_bytes)} of it; `nvidia-smi` names it",
            )
        else:
            yield Finding(subject="device", state="ok", text=text)
    if facts.mps:
        yield Finding(subject="device", state="ok", text="mps, the GPU of Apple silicon; training there is fp32")
    if not facts.gpus and not facts.mps:
        yield Finding(subject="device", state="note", text="cpu: torch finds no GPU")


def _cores(facts: MachineFacts) -> Iterator[Finding]:
    hyper = facts.physical_cores is not None and facts.physical_cores < facts.cores
    confined = f"{facts.cores} of " if facts.cores < facts.machine_cores else ""
    there = facts.machine_cores if confined else facts.cores
    text = f"{facts.processor}, {confined}{counted(there, 'thread' if hyper else 'core')}"
    text += f" on {counted(facts.physical_cores or 0, 'core')}" if hyper else ""
    text += f"; torch computes with {facts.threads} unless --threads says otherwise"
    set_to = "".join(f"; {name}={value}" for name, value in facts.variables.items())
    usable = facts.cores if facts.quota_cores is None else min(facts.cores, facts.quota_cores)
    if facts.quota_cores is not None and facts.quota_cores < facts.cores:
        text += f"; the container or job may use {facts.quota_cores:g}"
    whole = max(1, int(usable))
    if facts.threads > max(1, usable):
        yield Finding(
            subject="processor",
            state="warning",
            text=text + set_to,
            # On a CPU, training reads between its steps; workers would take the cores from it.
            fix=f"more threads than cores wait for each other: --threads {whole}"
            + (f" --workers {whole}" if facts.gpus or facts.mps else ""),
        )
        return
    yield Finding(subject="processor", state="ok", text=text + set_to)


def _neighbours(facts: MachineFacts) -> Iterator[Finding]:
    load = facts.load
    if load is None:
        return
    of = f"{load.busy_cores:.1f} of {counted(facts.machine_cores, 'core')}"
    if load.busy_cores < max(_BUSY_CORES, _BUSY_SHARE * facts.machine_cores):
        yield Finding(subject="other programs", state="ok", text=f"nothing else computes ({of} busy)")
        return
    busiest = ", ".join(
        f"{one.name} ({one.cores:.1f}, process {one.pid})" for one in load.neighbours[:3] if one.cores >= 0.1
    )
    text = f"they keep {of} busy"
    text += f": {busiest}" if busiest else "; which ones cannot be seen from here"
    busy, cores = load.busy_cores, facts.machine_cores
    if load.busy_here is not None and facts.cores < facts.machine_cores:  # the others are of no use to this process
        busy, cores = load.busy_here, facts.cores
        text += f"; of the {counted(cores, 'core')} that this process may use, they keep {busy:.1f} busy"
    if busy + min(facts.threads, facts.cores) <= cores + _BUSY_CORES:
        yield Finding(subject="other programs", state="note", text=f"{text}; enough cores are left")
        return
    fix = "wait for them, or stop them"
    if facts.threads > 1 and facts.variables.get("OMP_WAIT_POLICY", "").upper() != "PASSIVE":
        fix += "; else start with OMP_WAIT_POLICY=PASSIVE, so that threads that wait leave their core"
    yield Finding(subject="other programs", state="warning", text=text, fix=fix)


def _memory(facts: MachineFacts) -> Iterator[Finding]:
    if facts.memory_bytes is None or facts.available_bytes is None:
        return
    text = f"{gib(facts.available_bytes)} of {gib(facts.memory_bytes)} available"
    if facts.available_bytes < _LITTLE_MEMORY:
        yield Finding(subject="memory", state="warning", text=text, fix="end other programs, or choose fewer --workers")
    elif facts.swap_used_bytes > 0.1 * facts.memory_bytes:
        text += f"; {gib(facts.swap_used_bytes)} are swapped out"
        yield Finding(subject="memory", state="warning", text=text, fix="end programs that were swapped out")
    else:
        yield Finding(subject="memory", state="ok", text=text)


def _shared_memory(facts: MachineFacts) -> Iterator[Finding]:
    if facts.shared_memory_bytes is None or facts.shared_memory_free_bytes is None:
        return
    text = f"{gib(facts.shared_memory_free_bytes)} of {gib(facts.shared_memory_bytes)} free in /dev/shm"
    if facts.shared_memory_free_bytes < _LITTLE_SHARED_MEMORY:
        yield Finding(
            subject="shared memory",
            state="warning",
            text=text,
            fix="workers hand their batches over there and die when it is full: docker run --shm-size=8g (or --ipc=host), "
            "or --workers 0",
        )
    else:
        yield Finding(subject="shared memory", state="ok", text=text)


def _open_files(facts: MachineFacts) -> Iterator[Finding]:
    if facts.open_files is None:
        return
    text = f"{facts.open_files:,} a process"
    if facts.open_files < _FEW_FILES:
        limit = facts.open_files_limit or 65_536
        fix = "every array of a batch under way takes one: "
        fix += (
            f"ulimit -n {limit}"
            if limit > facts.open_files
            else "ask for a higher limit (limits.conf), or use fewer --workers"
        )
        yield Finding(subject="open files", state="warning", text=text, fix=fix)
    else:
        yield Finding(subject="open files", state="ok", text=text)


def _allocator(facts: MachineFacts) -> Iterator[Finding]:
    if facts.allocator == "glibc":
        yield Finding(subject="allocator", state="ok", text="glibc; training on a CPU tells it to keep freed memory")
    elif facts.allocator in ("jemalloc", "tcmalloc", "mimalloc", "snmalloc") or not _is_linux(facts):
        yield Finding(subject="allocator", state="ok", text=facts.allocator)
    else:
        yield Finding(
            subject="allocator",
            state="note",
            text=f"{facts.allocator}: large buffers may be faulted in anew in every step",
            fix="on a CPU, compare with jemalloc: LD_PRELOAD=libjemalloc.so.2 resnets doctor RECIPE ...",
        )


def _is_linux(facts: MachineFacts) -> bool:
    return facts.platform.startswith("Linux")


def _clock(facts: MachineFacts) -> Iterator[Finding]:
    if facts.governor == "powersave":
        yield Finding(
            subject="clock",
            state="note",
            text="the governor is powersave: with some drivers, cores stay at their lowest clock",
            fix="as root: cpupower frequency-set -g performance",
        )

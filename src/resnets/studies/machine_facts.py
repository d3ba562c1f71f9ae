"""What the system says of itself, as plain figures: cores, memory, limits, devices, settings. Judged elsewhere."""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from resnets.artifacts.run_directory import environment
from resnets.studies.neighbours import load_of_others
from resnets.tasks.classify.memory import available_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from resnets.studies.neighbours import Load

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TORCH_NUM_THREADS")
PLACE_VARIABLES = (
    "OMP_WAIT_POLICY",
    "OMP_PROC_BIND",
    "OMP_PLACES",
    "KMP_AFFINITY",
    "KMP_BLOCKTIME",
    "GOMP_CPU_AFFINITY",
)
_ALLOCATORS = ("jemalloc", "tcmalloc", "mimalloc", "snmalloc")


@dataclass(frozen=True, kw_only=True, slots=True)
class Gpu:
    """A CUDA device."""

    name: str
    total_bytes: int | None
    free_bytes: int | None
    problem: str = ""
    """Why nothing more is known of it: another program has it for itself, or holds all of its memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MachineFacts:
    """The machine and the installation. What is None, the system does not say."""

    python: str
    versions: dict[str, str]
    platform: str
    processor: str
    cores: int
    """Cores that this process may run on, hyper-threads counted."""
    machine_cores: int
    """Cores of the machine."""
    physical_cores: int | None
    """The same without hyper-threads."""
    quota_cores: float | None
    """Processor time a second that the container or job may use; None without a limit."""
    threads: int
    """Threads of torch's arithmetic."""
    variables: dict[str, str]
    """Environment variables that change threads and how they wait."""
    memory_bytes: int | None
    available_bytes: int | None
    """What new tensors can have, the limit of the container or job included."""
    swap_used_bytes: int
    shared_memory_bytes: int | None
    """Size of /dev/shm, through which worker processes hand over their batches."""
    shared_memory_free_bytes: int | None
    open_files: int | None
    """Most files that a process may have open."""
    open_files_limit: int | None
    """How far the process may raise that itself."""
    allocator: str
    governor: str | None
    """How the system chooses the clock of its cores."""
    load: Load | None
    gpus: tuple[Gpu, ...]
    mps: bool


def machine_facts(root: Path = Path("/"), *, variables: Mapping[str, str] | None = None) -> MachineFacts:
    """Return what the system below `root` says; it takes half a second, in which this process sleeps."""
    variables = os.environ if variables is None else variables
    here = environment()
    memory = _meminfo(root / "proc/meminfo")
    shared = _shared_memory(root / "dev/shm")
    soft, hard = _open_files()
    return MachineFacts(
        python=here["python"],
        versions=here["versions"],
        platform=here["platform"],
        processor=here["processor"],
        cores=here["cores"] or 1,
        machine_cores=os.cpu_count() or 1,
        physical_cores=_physical_cores(root / "sys/devices/system/cpu"),
        quota_cores=quota_cores(root),
        threads=torch.get_num_threads(),
        variables={name: variables[name] for name in (*THREAD_VARIABLES, *PLACE_VARIABLES) if name in variables},
        memory_bytes=memory.get("MemTotal"),
        available_bytes=available_bytes(torch.device("cpu"), root),
        swap_used_bytes=memory.get("SwapTotal", 0) - memory.get("SwapFree", 0),
        shared_memory_bytes=shared[0],
        shared_memory_free_bytes=shared[1],
        open_files=soft,
        open_files_limit=hard,
        allocator=_allocator(root / "proc/self/maps"),
        governor=_word(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        load=load_of_others(root / "proc"),
        gpus=_gpus(),
        mps=torch.backends.mps.is_available(),
    )


def quota_cores(root: Path = Path("/")) -> float | None:
    """Return the least limit on processor time, in cores, of the control groups of this process."""
    found = []
    for line in _text(root / "proc/self/cgroup").splitlines():
        controllers, _, path = line.partition(":")[2].partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = root / ("sys/fs/cgroup/cpu" if controllers else "sys/fs/cgroup")
        group = top / path.lstrip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(top):
                found.append(_first_kind(folder) if controllers else _second_kind(folder))
    return min((cores for cores in found if cores), default=None)


def _first_kind(folder: Path) -> float | None:
    quota, period = _word(folder / "cpu.cfs_quota_us"), _word(folder / "cpu.cfs_period_us")
    return _share(quota, period)


def _second_kind(folder: Path) -> float | None:
    quota, _, period = _text(folder / "cpu.max").strip().partition(" ")
    return _share(quota, period)


def _share(quota: str | None, period: str | None) -> float | None:
    """Return cores from microseconds a period; None where there is no limit ("max", or -1)."""
    if quota and period and quota.isdecimal() and period.isdecimal() and int(period):
        return int(quota) / int(period)
    return None


def _physical_cores(folder: Path) -> int | None:
    """Return how many cores the usable hyper-threads belong to."""
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    siblings = {_word(folder / f"cpu{number}/topology/thread_siblings_list") for number in usable}
    return None if None in siblings or not siblings else len(siblings)


def _meminfo(path: Path) -> dict[str, int]:
    """Return the entries of /proc/meminfo in bytes."""
    words = (line.replace(":", " ").split() for line in _text(path).splitlines())
    return {word[0]: 1024 * int(word[1]) for word in words if len(word) >= 2 and word[1].isdecimal()}


def _shared_memory(folder: Path) -> tuple[int | None, int | None]:
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return None, None
    return usage.total, usage.free


def _open_files() -> tuple[int | None, int | None]:
    try:
        import resource
    except ImportError:  # Windows
        return None, None
    soft, hard = (
        None if limit == resource.RLIM_INFINITY else limit for limit in resource.getrlimit(resource.RLIMIT_NOFILE)
    )
    return soft, hard


def _allocator(maps: Path) -> str:
    """Return who serves malloc: a library that was loaded in front of the C library, or that itself."""
    loaded = {Path(line.rpartition(" ")[2]).name for line in _text(maps).splitlines() if "/" in line}
    for name in _ALLOCATORS:
        # Some Python packages bring one along for themselves under a name of their own.
        if any(library.startswith((f"lib{name}.", f"lib{name}_")) for library in loaded):
            return name
    return platform.libc_ver()[0] or "the system's"


def _gpus() -> tuple[Gpu, ...]:
    return tuple(map(_gpu, range(torch.cuda.device_count() if torch.cuda.is_available() else 0)))


def _gpu(index: int) -> Gpu:
    name, total = "GPU", None
    try:
        properties = torch.cuda.get_device_properties(index)
        name, total = properties.name, properties.total_memory
        free, total = torch.cuda.mem_get_info(index)
    except RuntimeError as error:  # the question takes some of its memory, and has to be let in
        return Gpu(name=name, total_bytes=total, free_bytes=None, problem=str(error).partition("\n")[0])
    return Gpu(name=name, total_bytes=total, free_bytes=free)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _word(path: Path) -> str | None:
    return _text(path).strip() or None

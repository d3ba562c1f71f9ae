"""What about a machine endangers one run: where its data lie, what its batches and checkpoints need."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from resnets.data.splits import FileSplit
from resnets.models.build import build
from resnets.specs.errors import counted
from resnets.studies.machine_limits import Finding, gib

if TYPE_CHECKING:
    from collections.abc import Iterator

    from resnets.studies.machine_facts import MachineFacts
    from resnets.tasks.classify.prepare import Parts

_NETWORK = frozenset(
    ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "lustre", "gpfs", "beegfs", "glusterfs", "afs", "virtiofs")
)
_PREFETCHED = 2
"""Batches that a worker has ready, as torch's loader asks for them."""
_ARRAYS_A_BATCH = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Mount:
    """A file system, and where it begins."""

    point: str
    kind: str

    @property
    def is_remote(self) -> bool:
        """Whether its files are on another machine, or served by a program."""
        return self.kind in _NETWORK or self.kind.startswith("fuse")


def run_findings(
    parts: Parts, facts: MachineFacts, data: Path | None, run: Path, mounts: Path = Path("/proc/self/mountinfo")
) -> tuple[Finding, ...]:
    """Return what was looked at for a run.

    Args:
        parts: the run, with its own batch.
        facts: the machine.
        data: folder of the data, where there is one.
        run: the run directory, which need not be there.
        mounts: where the system lists its file systems.
    """
    found: list[Finding] = []
    if isinstance(parts.dataset.splits["train"], FileSplit):
        found += _shared_memory(parts, facts)
        found += _open_files(parts, facts)
        found += _workers(parts, facts)
        if data is not None:
            found += _data(mount_of(data, mounts), data)
    return (*found, *_checkpoints(parts, run))


def mount_of(path: Path, mounts: Path = Path("/proc/self/mountinfo")) -> Mount | None:
    """Return the file system that a path is on; None where the system does not say."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    resolved, best = path.resolve(), None
    for line in lines:
        before, _, after = line.partition(" - ")
        fields = before.split()
        if len(fields) < 5 or not after:
            continue
        # Blanks and the like are written as three octal digits after a backslash.
        point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields[4])
        # Of two at the same place, the later hides the earlier.
        if resolved.is_relative_to(point) and (best is None or len(point) >= len(best.point)):
            best = Mount(point=point, kind=after.split()[0])
    return best


def batch_bytes(parts: Parts) -> int:
    """Return the bytes of a decoded batch, as a worker hands it over."""
    spec = parts.preprocessor.spec
    images = parts.spec.global_batch // (parts.spec.accumulation * parts.ranks.world_size)
    return images * spec.crop_px**2 * spec.channels


def checkpoint_bytes(parts: Parts) -> int:
    """Return about the bytes of a checkpoint: weights, momentum, and their average where the run keeps one."""
    with torch.device("meta"):
        values = sum(parameter.numel() for parameter in build(parts.spec.model).parameters())
    copies = 2 + bool(parts.spec.ema_decay) + bool(parts.spec.finetune.patience_evaluations)
    return 4 * values * copies


def _shared_memory(parts: Parts, facts: MachineFacts) -> Iterator[Finding]:
    free = facts.shared_memory_free_bytes
    if free is None or not parts.workers:
        return
    batches = (_PREFETCHED + 1) * parts.workers
    need = batches * batch_bytes(parts)
    text = f"up to {gib(need)} of {gib(free)} in /dev/shm, for {counted(batches, 'batch').replace('batchs', 'batches')}"
    if need > 0.8 * free:
        fits = int(0.8 * free / ((_PREFETCHED + 1) * batch_bytes(parts)))
        yield Finding(
            subject="batches under way",
            state="warning",
            text=text,
            fix=f"--workers {fits}, or more of it: docker run --shm-size=8g (or --ipc=host)",
        )
    else:
        yield Finding(subject="batches under way", state="ok", text=text)


def _open_files(parts: Parts, facts: MachineFacts) -> Iterator[Finding]:
    need = (_PREFETCHED + 1) * parts.workers * _ARRAYS_A_BATCH + 64
    if facts.open_files is not None and need > facts.open_files:
        yield Finding(
            subject="open files",
            state="warning",
            text=f"about {need} are needed with {counted(parts.workers, 'worker')}, and {facts.open_files} allowed",
            fix=f"ulimit -n {max(4096, 2 * need)}, or fewer --workers",
        )


def _workers(parts: Parts, facts: MachineFacts) -> Iterator[Finding]:
    usable = facts.cores if facts.quota_cores is None else min(facts.cores, facts.quota_cores)
    if parts.workers > 2 * usable:
        yield Finding(
            subject="workers",
            state="warning",
            text=f"{parts.workers} workers on {usable:g} cores",
            fix="more workers than cores help only where they wait for a slow disk",
        )


def _data(mount: Mount | None, data: Path) -> Iterator[Finding]:
    if mount is None:
        return
    text = f"{data} is on {mount.kind} ({mount.point})"
    if mount.is_remote:
        yield Finding(
            subject="data",
            state="note",
            text=f"{text}: every file is asked for over a network or a program",
            fix="shards are read in long pieces: resnets prepare DATA SHARDS; or copy the data to a local disk",
        )
    else:
        yield Finding(subject="data", state="ok", text=text)


def _checkpoints(parts: Parts, run: Path) -> Iterator[Finding]:
    there = run.absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    try:
        free = shutil.disk_usage(there).free
    except OSError:
        return
    one = checkpoint_bytes(parts)
    count = max(1, parts.spec.steps // parts.machine.checkpoint_every)
    kept = min(count, parts.machine.keep_checkpoints + 1) if parts.machine.keep_checkpoints else count
    need = "needs" if kept == 1 else "need"
    text = f"{counted(kept, 'checkpoint')} of {gib(one)} {need} {gib(kept * one)}; {gib(free)} are free in {there}"
    if kept * one > 0.9 * free:
        fix = (
            "--keep-checkpoints 2 keeps the newest two" if kept > 3 and 3 * one < 0.9 * free else "make room, or --run"
        )
        yield Finding(subject="checkpoints", state="warning", text=text, fix=fix)
    else:
        yield Finding(subject="checkpoints", state="ok", text=text)

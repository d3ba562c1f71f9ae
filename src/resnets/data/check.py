"""Every image of a dataset decoded and compared with the others, before training does (`resnets check-data`)."""

from __future__ import annotations

import dataclasses
import time
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from resnets.data.check_report import CheckReport, image_figures
from resnets.data.class_findings import class_findings
from resnets.data.duplicates import Placed, duplicate_findings
from resnets.data.findings import BROKEN, KINDS, Finding
from resnets.data.image_findings import image_findings
from resnets.data.image_hash import NEAR_BITS
from resnets.data.image_probe import BROKEN as BROKEN_FLAG
from resnets.data.image_probe import RECORD, Broken, probe_batch
from resnets.data.image_tree import read_shards, read_tree
from resnets.data.quarantine import QUARANTINE_FILE, Quarantined, check_place, read_list, write_list
from resnets.data.shards import holds_shards
from resnets.data.worker_pool import in_processes
from resnets.specs.cores import usable_cores
from resnets.specs.errors import DataError, SpecError, UserError, near_misses

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from resnets.data.class_findings import Counts
    from resnets.data.image_tree import Entry

QUARANTINE_KINDS = {
    "leaks": "leak",
    "near-leaks": "near-leak",
    "conflicts": "label-conflict",
    "near-conflicts": "near-conflict",
    "duplicates": "duplicate",
    "near-duplicates": "near-duplicate",
}
"""What a quarantine list may hold besides broken images, with the kind of finding that each is."""

_MOST_NEAR_BITS = 12
"""Above, unrelated photographs are candidates by the million."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckLimits:
    """From where on something counts as odd."""

    min_px: int = 32
    """Shorter side, in pixels, below which an image is tiny."""
    max_aspect: float = 5.0
    """Longer side : shorter side above which an image is very long."""
    max_imbalance: float = 10.0
    """Largest class : smallest class above which classes are unbalanced."""
    near_bits: int = NEAR_BITS
    """Bits of 64 in which the hashes of near duplicates may differ; -1 looks for none."""

    def __post_init__(self) -> None:
        """Refuse limits that mean nothing."""
        if self.min_px < 0:
            raise SpecError(f"--min-px is {self.min_px}; it is 0 (off) or more.")
        if not self.max_aspect >= 1:
            raise SpecError(f"--max-aspect is {self.max_aspect}; it is 1 or more.")
        if not self.max_imbalance >= 1:
            raise SpecError(f"--max-imbalance is {self.max_imbalance}; it is 1 or more.")
        if not -1 <= self.near_bits <= _MOST_NEAR_BITS:
            raise SpecError(
                f"--near-bits is {self.near_bits}; it is -1 (look for no near duplicates) or 0 to {_MOST_NEAR_BITS}."
            )


def check_data(
    folder: str | Path,
    *,
    limits: CheckLimits | None = None,
    workers: int = -1,
    quarantine: bool | str | Path = False,
    quarantine_kinds: Iterable[str] = (),
    on_progress: Callable[[str, int, int], None] = lambda what, done, of: None,
) -> CheckReport:
    """Return everything that is wrong with a folder of images; decodes every image once, and changes none.

    Args:
        folder: with a subfolder a class, or with train/, val/ and test/ above them; or of shards.
        limits: from where on something counts as odd; None takes the defaults.
        workers: processes that decode; -1 is one a core, 0 decodes in this process.
        quarantine: write the list of broken images that training leaves out: True to quarantine.json in the folder,
            where training looks for it, or a path.
        quarantine_kinds: what else the list takes: leaks (their training copies), conflicts, duplicates (all but one),
            near-leaks, near-conflicts, near-duplicates.
        on_progress: told what is at work, how much of it is done, and of how much (0 where that is not known).

    Raises:
        DataError: the folder is missing or has no images, or a quarantine list is damaged or cannot be written.
        UserError: there is no such kind.
    """
    started = time.perf_counter()
    kinds = _kinds(quarantine_kinds)
    if kinds and not quarantine:
        raise UserError("--quarantine-kinds says what else goes on the list; add --quarantine to write one.")
    if str(folder).lower().startswith(("http://", "https://")):
        raise DataError(f"{folder} is an address; check-data reads a folder of this machine. Fetch the shards first.")
    root = Path(folder).expanduser()
    path = root / QUARANTINE_FILE if quarantine is True else Path(quarantine) if quarantine else None
    on_progress("listing the folder", 0, 0)
    known = read_list(root / QUARANTINE_FILE)
    tree = read_shards(root) if holds_shards(root) else read_tree(root)
    if path is not None:
        # Before hours of decoding, not behind them.
        read_list(path)
        check_place(path)
    report = check_images(
        tree.entries(),
        name=str(folder),
        total=len(tree),
        limits=limits,
        workers=workers,
        folders=tree.folders,
        findings=tree.findings,
        quarantined={entry.path for entry in known},
        on_progress=on_progress,
    )
    if path is not None:
        report = _write_quarantine(report, path, kinds)
    return dataclasses.replace(report, seconds=time.perf_counter() - started)


def check_images(
    entries: Iterable[Entry],
    *,
    name: str,
    total: int,
    limits: CheckLimits | None = None,
    workers: int = -1,
    folders: Iterable[tuple[str, str | None]] = (),
    findings: Iterable[Finding] = (),
    quarantined: Iterable[str] = (),
    on_progress: Callable[[str, int, int], None] = lambda what, done, of: None,
) -> CheckReport:
    """Return what is wrong with any labelled images, wherever their bytes come from.

    Args:
        entries: the images, read once, as they are needed.
        name: what the report calls them.
        total: how many they are, for the progress and the size of the first arrays.
        limits: from where on something counts as odd.
        workers: processes that decode; -1 is one a core, 0 decodes in this process.
        folders: split and class of everything that is there even without an image.
        findings: what is already known to be wrong.
        quarantined: images that training leaves out; they are checked all the same, and what they settle is told apart.
        on_progress: as for `check_data`.
    """
    started = time.perf_counter()
    limits = limits or CheckLimits()
    checked = _Checked(total, folders)
    found = [*findings, *checked.decode(entries, usable_cores() if workers < 0 else workers, total, on_progress)]
    records = checked.records
    found += class_findings(checked.counts(), max_imbalance=limits.max_imbalance)
    found += image_findings(checked.paths, records, min_px=limits.min_px, max_aspect=limits.max_aspect)
    found += duplicate_findings(
        checked.placed,
        records,
        near_bits=limits.near_bits,
        on_share=lambda share: on_progress("comparing", round(share * len(checked)), len(checked)),
    )
    order = {kind: place for place, kind in enumerate(KINDS)}
    return CheckReport(
        name=name,
        images=len(checked),
        counts=checked.counts(),
        figures=image_figures(records),
        findings=tuple(sorted(found, key=lambda one: (order[one.kind], one.paths))),
        quarantined=frozenset(quarantined),
        seconds=time.perf_counter() - started,
    )


class _Task(NamedTuple):
    trained: bool
    read: Callable[[], bytes]


def _lost(_: _Task, reason: str) -> tuple[np.ndarray, list[tuple[int, Broken]]]:
    record = np.zeros(1, RECORD)
    record["flags"] = BROKEN_FLAG
    return record, [(0, Broken("unreadable", reason))]


class _Checked:
    """The images as they come in: a record of each, and indices in place of names of splits and classes."""

    def __init__(self, total: int, folders: Iterable[tuple[str, str | None]]) -> None:
        self.paths: list[str] = []
        self._folders: dict[tuple[str, str | None], int] = {}
        for folder in folders:
            self._folders.setdefault(folder, len(self._folders))
        self._folder_of = array("l")
        self._records = np.zeros(total, RECORD)
        self._by_index: list[tuple[str, str | None]] = []

    def __len__(self) -> int:
        return len(self.paths)

    def placed(self, index: int) -> Placed:
        """Return path, split and label of an image."""
        if len(self._by_index) != len(self._folders):
            self._by_index = list(self._folders)
        split, label = self._by_index[self._folder_of[index]]
        return Placed(self.paths[index], split, label)

    @property
    def records(self) -> np.ndarray:
        """The record of each image."""
        return self._records[: len(self.paths)]

    def counts(self) -> Counts:
        """Return the images of each split and class; those without a class do not count."""
        images = np.bincount(np.asarray(self._folder_of, np.int64), minlength=len(self._folders)).tolist()
        counts: Counts = {}
        for (split, label), number in zip(self._folders, images, strict=True):
            classes = counts.setdefault(split, {})
            if label is not None:
                classes[label] = classes.get(label, 0) + number
        return counts

    def decode(
        self, entries: Iterable[Entry], workers: int, total: int, on_progress: Callable[[str, int, int], None]
    ) -> Iterator[Finding]:
        """Fill the records, and yield a finding for each broken image."""
        done = 0
        on_progress("checking", done, total)
        for start, number, (records, broken) in in_processes(
            probe_batch, self._tasks(entries), workers=workers, lost=_lost
        ):
            if len(self.paths) > len(self._records):
                self._records = np.concatenate([self._records, np.zeros(len(self.paths), RECORD)])
            self._records[start : start + number] = records
            for place, (kind, reason) in broken:
                path = self.paths[start + place]
                yield Finding(kind=kind, paths=(path,), detail=reason, leave_out=(path,))
            done += number
            on_progress("checking", done, max(total, done))

    def _tasks(self, entries: Iterable[Entry]) -> Iterator[_Task]:
        for split, label, path, read in entries:
            self.paths.append(path)
            self._folder_of.append(self._folders.setdefault((split, label), len(self._folders)))
            yield _Task(split == "train", read)


def _kinds(names: Iterable[str]) -> set[str]:
    kinds = set()
    for name in names:
        if name not in QUARANTINE_KINDS:
            raise UserError(
                f"--quarantine-kinds has {name!r}; it is any of {', '.join(QUARANTINE_KINDS)}."
                f"{near_misses(name, QUARANTINE_KINDS)}"
            )
        kinds.add(QUARANTINE_KINDS[name])
    return kinds


def _write_quarantine(report: CheckReport, path: Path, kinds: set[str]) -> CheckReport:
    """Write the list: what this check finds broken or is asked to leave out, and what stood on it for other reasons."""
    listed = kinds | BROKEN
    entries = {entry.path: entry for entry in read_list(path) if entry.kind not in listed}
    for finding in report.findings:
        if finding.kind in listed:
            for image in finding.leave_out:
                entries.setdefault(image, Quarantined(image, finding.detail, finding.kind))
    write_list(path, sorted(entries.values()))
    return dataclasses.replace(report, quarantine=path, quarantine_images=len(entries))

"""What a check of a dataset has found: findings, class counts, and how large and of what kind the images are."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from resnets.data.findings import KINDS, SEVERITIES, Finding
from resnets.data.image_probe import BROKEN

if TYPE_CHECKING:
    from pathlib import Path

    from resnets.data.class_findings import Counts

SIZE_EDGES_PX = (1, 32, 64, 128, 224, 256, 320, 384, 512, 1024, 2048, 4096)
ASPECT_EDGES = (1 / 5, 1 / 3, 1 / 2, 2 / 3, 4 / 5, 5 / 4, 3 / 2, 2.0, 3.0, 5.0)
"""Of width : height; symmetric, the middle bin being about square."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Histogram:
    """How many images there are in each bin, from an edge up to below the next; the first and last bins are open."""

    edges: tuple[int, ...] | tuple[float, ...]
    counts: tuple[int, ...]
    """One more than edges: below the first, between, and from the last on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageFigures:
    """How large and of what kind the images are that can be read."""

    images: int
    total_bytes: int
    """Of all files, broken ones included."""
    shorter_side_px: Histogram
    aspect: Histogram
    """Width : height, upright."""
    median_width_px: int
    median_height_px: int
    largest_px: tuple[int, int]
    """Width and height of the image with the most pixels."""
    formats: dict[str, int]
    """Format, as Pillow calls it, to images; the most frequent first."""
    modes: dict[str, int]
    """Colour mode, as Pillow calls it, to images; the most frequent first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckReport:
    """The result of a check."""

    name: str
    """The folder, as it was given."""
    images: int
    """Images looked at, broken ones included."""
    counts: Counts
    """Split to class to images, broken ones included."""
    figures: ImageFigures
    findings: tuple[Finding, ...]
    """The gravest first."""
    quarantined: frozenset[str] = frozenset()
    """Images that the dataset's quarantine list already leaves out of training."""
    quarantine: Path | None = None
    """The quarantine list that was written."""
    quarantine_images: int = 0
    """Images on the list that was written."""
    seconds: float = 0.0

    def is_settled(self, finding: Finding) -> bool:
        """Return whether the quarantine list already leaves out what a finding is about."""
        return bool(finding.leave_out) and self.quarantined.issuperset(finding.leave_out)

    def by_kind(self) -> dict[str, list[Finding]]:
        """Return the findings of each kind that there are, the gravest kind first, without those that are settled."""
        found: dict[str, list[Finding]] = {kind: [] for kind in KINDS}
        for finding in self.findings:
            if not self.is_settled(finding):
                found[finding.kind].append(finding)
        return {kind: findings for kind, findings in found.items() if findings}

    def numbers(self) -> dict[str, int]:
        """Return how many findings of each severity there are that are not settled."""
        counted = Counter(KINDS[kind].severity for kind, found in self.by_kind().items() for _ in found)
        return {severity: counted[severity] for severity in SEVERITIES}

    @property
    def errors(self) -> int:
        """Findings that training would meet: an image it skips, a folder it refuses, a score made untrue."""
        return self.numbers()["error"]

    def as_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        numbers = self.numbers()
        figures = self.figures
        return {
            "folder": self.name,
            "images": self.images,
            "errors": numbers["error"],
            "warnings": numbers["warning"],
            "notes": numbers["note"],
            "settled": sum(map(self.is_settled, self.findings)),
            "findings": [
                {
                    "kind": finding.kind,
                    "severity": finding.severity,
                    "paths": list(finding.paths),
                    "detail": finding.detail,
                    "advice": KINDS[finding.kind].advice,
                    "settled": self.is_settled(finding),
                }
                for finding in self.findings
            ],
            "splits": {split: sum(classes.values()) for split, classes in self.counts.items()},
            "classes": self.counts,
            "imbalance": {split: imbalance(classes) for split, classes in self.counts.items()},
            "shorter_side_px": _histogram_json(figures.shorter_side_px),
            "aspect": _histogram_json(figures.aspect),
            "median_width_px": figures.median_width_px,
            "median_height_px": figures.median_height_px,
            "largest_px": list(figures.largest_px),
            "total_bytes": figures.total_bytes,
            "formats": figures.formats,
            "modes": figures.modes,
            "quarantine": str(self.quarantine) if self.quarantine else None,
            "quarantine_images": self.quarantine_images,
            "seconds": round(self.seconds, 3),
        }


def imbalance(classes: dict[str, int]) -> float | None:
    """Return the largest class : smallest class, of those that have images; None where fewer than two have."""
    filled = [images for images in classes.values() if images]
    return max(filled) / min(filled) if len(filled) > 1 else None


def _histogram_json(histogram: Histogram) -> dict[str, Any]:
    return {"edges": list(histogram.edges), "counts": list(histogram.counts)}


def image_figures(records: np.ndarray) -> ImageFigures:
    """Return figures of images from their records (`image_probe.RECORD`)."""
    sound = records[(records["flags"] & BROKEN) == 0]
    width, height = sound["width"].astype(np.int64), sound["height"].astype(np.int64)
    largest = int(np.argmax(width * height)) if len(sound) else 0
    return ImageFigures(
        images=len(sound),
        total_bytes=int(records["bytes"].sum()),
        shorter_side_px=_histogram(np.minimum(width, height), SIZE_EDGES_PX),
        aspect=_histogram(width / np.maximum(height, 1), ASPECT_EDGES),
        median_width_px=int(np.median(width)) if len(sound) else 0,
        median_height_px=int(np.median(height)) if len(sound) else 0,
        largest_px=(int(width[largest]), int(height[largest])) if len(sound) else (0, 0),
        formats=_frequencies(sound["format"]),
        modes=_frequencies(sound["mode"]),
    )


def _histogram(values: np.ndarray, edges: tuple[int, ...] | tuple[float, ...]) -> Histogram:
    bins = np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)
    return Histogram(edges=edges, counts=tuple(bins.tolist()))


def _frequencies(values: np.ndarray) -> dict[str, int]:
    names, counts = np.unique(values, return_counts=True)
    order = np.argsort(-counts, kind="stable").tolist()
    decoded: list[bytes] = names.tolist()
    return {decoded[index].decode(): int(counts[index]) for index in order}

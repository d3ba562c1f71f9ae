"""What can be wrong with a dataset of images: every kind with how grave it is, what it is called and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """One thing that can be wrong."""

    severity: Severity
    """An error is skipped by training, refused by it, or makes a score untrue; a note is handled."""
    title: str
    """Heading of a list of such findings."""
    advice: str
    """What to do, in a sentence."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that is wrong."""

    kind: str
    """Name in `KINDS`."""
    paths: tuple[str, ...]
    """Files or folders concerned, relative to the dataset's folder, with forward slashes; or names of classes."""
    detail: str
    """What was seen."""
    leave_out: tuple[str, ...] = ()
    """Images without which this would be no more; empty where leaving images out is no answer."""

    @property
    def severity(self) -> Severity:
        """How grave it is."""
        return KINDS[self.kind].severity


_REPLACE = "Fetch them anew or delete them; training skips what it cannot read."

KINDS: dict[str, Kind] = {
    "empty": Kind(severity="error", title="empty files", advice=_REPLACE),
    "zeros": Kind(severity="error", title="files of zeros", advice=_REPLACE),
    "not-an-image": Kind(
        severity="error",
        title="files that are no images, with the names of images",
        advice="Convert what is worth it to JPEG or PNG and delete the rest; training skips them.",
    ),
    "truncated": Kind(
        severity="error",
        title="images that are cut off",
        advice="Fetch them anew or delete them; training would skip them, or learn from gray where the image is missing.",
    ),
    "damaged": Kind(severity="error", title="damaged images", advice=_REPLACE),
    "unreadable": Kind(
        severity="error",
        title="files that cannot be read",
        advice="Mend the permissions or the disk, or delete them; training skips them.",
    ),
    "too-large": Kind(
        severity="error",
        title="images too large to be decoded",
        advice="Scale them down or delete them; training skips them, as an image of this size can exhaust the memory.",
    ),
    "leak": Kind(
        severity="error",
        title="the same file in two splits",
        advice="Remove the training copies: a score over images that were trained on is too good.",
    ),
    "near-leak": Kind(
        severity="error",
        title="nearly the same image in two splits",
        advice="Look at them; where it is one photograph, remove the training copies.",
    ),
    "label-conflict": Kind(
        severity="error",
        title="the same file under different labels",
        advice="Keep the copy whose label is right; one of them is scored as wrong whatever the net says.",
    ),
    "flat-split": Kind(
        severity="error",
        title="images of a split outside class folders",
        advice="Move each into a folder named by its class, the same names as in train/; as they are, they are not read.",
    ),
    "unknown-class": Kind(
        severity="error",
        title="classes that train/ does not have",
        advice="Rename them to the training classes that they are, or remove them; training refuses them.",
    ),
    "empty-class": Kind(
        severity="error",
        title="training classes without images",
        advice="Add images or remove the folders; training refuses them.",
    ),
    "single-class": Kind(
        severity="error",
        title="a single class",
        advice="A classifier needs two; where the classes are folders inside this one, check that folder.",
    ),
    "class-name": Kind(
        severity="error",
        title="class folders whose names cannot be used",
        advice="Rename them; training refuses them.",
    ),
    "misnamed-split": Kind(
        severity="error",
        title="folders that look like splits",
        advice="Splits are called train, val (valid, validation) and test; under other names they are no splits.",
    ),
    "near-conflict": Kind(
        severity="warning",
        title="nearly the same image under different labels",
        advice="Look at them; where it is one photograph, keep the copy whose label is right.",
    ),
    "duplicate": Kind(
        severity="warning",
        title="the same file more than once in a class",
        advice="Keep one: copies count twice, and without a validation folder they can fall on both sides of the split.",
    ),
    "near-duplicate": Kind(
        severity="warning",
        title="nearly the same image more than once in a class",
        advice="Look at them; where it is one photograph, keep the best copy.",
    ),
    "tiny": Kind(
        severity="warning",
        title="tiny images",
        advice="Replace or remove them: enlarged, they are a blur. --min-px sets the limit.",
    ),
    "extreme-aspect": Kind(
        severity="warning",
        title="very long or very tall images",
        advice="Crop them: the central square, which the net sees, is a small part. --max-aspect sets the limit.",
    ),
    "blank": Kind(
        severity="warning",
        title="images of a single colour",
        advice="Delete them, unless an empty image is what the class means.",
    ),
    "broken-link": Kind(
        severity="warning",
        title="links that lead nowhere, or in a circle",
        advice="Mend or delete them; training does not see them.",
    ),
    "ignored-image": Kind(
        severity="warning",
        title="images that training does not see",
        advice="Give them the extension of their format, move them into a class folder, or convert them to JPEG or PNG.",
    ),
    "single-image-class": Kind(
        severity="warning",
        title="training classes with a single image",
        advice="Add images; one can be trained on or validated on, not both.",
    ),
    "missing-class": Kind(
        severity="warning",
        title="training classes that another split lacks",
        advice="Add images of them, or know that the scores of that split say nothing about them.",
    ),
    "imbalance": Kind(
        severity="warning",
        title="classes of very different size",
        advice="Look at the error of each class besides the mean; add images of the small classes where you can.",
    ),
    "numbered-classes": Kind(
        severity="warning",
        title="class folders named by numbers",
        advice="Labels follow the order of the names. Use names padded with zeros, or better the classes' own names.",
    ),
    "similar-names": Kind(
        severity="warning",
        title="class folders whose names differ in case only",
        advice="Join or rename them; on other disks they are one folder.",
    ),
    "wrong-extension": Kind(
        severity="note",
        title="extensions that contradict the content",
        advice="They are read by their content here; other programs may refuse them.",
    ),
    "rotated": Kind(
        severity="note",
        title="photographs stored sideways (EXIF)",
        advice="They are turned upright here; a program that ignores EXIF would see them sideways.",
    ),
    "color-mode": Kind(
        severity="note",
        title="unusual colours",
        advice="They are converted to RGB of 8 bits: transparency is laid on white.",
    ),
    "animated": Kind(severity="note", title="animated images", advice="The first frame is used."),
    "ignored-file": Kind(
        severity="note",
        title="files that are no images, or lie in no class folder",
        advice="They are ignored.",
    ),
    "hidden": Kind(severity="note", title="hidden files and folders", advice="They are ignored."),
    "other-folder": Kind(severity="note", title="folders that belong to no split or class", advice="They are ignored."),
}
"""Every kind by its name, the gravest first."""

BROKEN = frozenset({"empty", "zeros", "not-an-image", "truncated", "damaged", "unreadable", "too-large"})
"""Kinds of which a quarantine list always holds the images."""

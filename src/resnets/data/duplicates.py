"""Images that are there more than once: in a class, under several labels, or in several splits."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from resnets.data.findings import Finding
from resnets.data.image_hash import connected, near_pairs
from resnets.data.image_probe import BROKEN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jaxtyping import Bool, Int64

_SPLITS = ("train", "validation", "test")


class Placed(NamedTuple):
    """An image and where it stands."""

    path: str
    split: str
    label: str | None


def duplicate_findings(
    placed: Callable[[int], Placed],
    records: np.ndarray,
    *,
    near_bits: int,
    on_share: Callable[[float], None] = lambda share: None,
) -> Iterator[Finding]:
    """Yield every group of images that are copies, byte by byte or to the eye.

    Args:
        placed: path, split and label of the image with an index.
        records: of `image_probe.RECORD`, by index.
        near_bits: bits of 64 in which the hashes of copies to the eye may differ; negative looks for none.
        on_share: told which share of the search for near copies is done.
    """
    sound = np.flatnonzero((records["flags"] & BROKEN) == 0)
    if not len(sound):
        return
    digests = records["digest"][sound].copy().view(np.dtype([("high", "<u8"), ("low", "<u8")])).reshape(-1)
    _, first, copy_of, copies = np.unique(digests, return_index=True, return_inverse=True, return_counts=True)
    copy_of = copy_of.reshape(-1)
    for members in _members(sound, copy_of, copies > 1):
        yield from _relations([placed(index) for index in members], near=False, mirrored=False, inside={})
    if near_bits < 0:
        return
    # One of each set of equal files stands for all.
    stand_in = sound[first]
    pairs, mirrored = near_pairs(records["hashes"][stand_in], records["thumbnail"][stand_in], near_bits, on_share)
    if not len(pairs):
        return
    group = connected(pairs, len(stand_in))
    has_mirrored = np.zeros(group.max() + 1, dtype=bool)
    has_mirrored[group[pairs[mirrored, 0]]] = True
    for members in _members(sound, group[copy_of], np.bincount(group) > 1):
        same_file = {placed(index).path: int(copy_of[np.searchsorted(sound, index)]) for index in members}
        turned = bool(has_mirrored[group[same_file[placed(members[0]).path]]])
        yield from _relations([placed(index) for index in members], near=True, mirrored=turned, inside=same_file)


def _members(
    indices: Int64[np.ndarray, " n"], group: Int64[np.ndarray, " n"], wanted: Bool[np.ndarray, " groups"]
) -> Iterator[list[int]]:
    """Yield the indices of each wanted group, groups in the order of their first index."""
    chosen = np.flatnonzero(wanted[group])
    order = chosen[np.argsort(group[chosen], kind="stable")]
    parts = np.split(indices[order], np.flatnonzero(np.diff(group[order])) + 1) if len(order) else []
    yield from sorted(part.tolist() for part in parts)


def _relations(images: list[Placed], *, near: bool, mirrored: bool, inside: dict[str, int]) -> Iterator[Finding]:
    """Yield what is wrong with copies of one picture.

    `inside` numbers those that are the same file, which count as copies to the eye only beside another file.
    """

    def different(members: list[Placed]) -> bool:
        return len(members) > 1 and (not near or len({inside[image.path] for image in members}) > 1)

    seen = "nearly the same" if near else "the same"
    seen += " or mirrored" if mirrored else ""
    splits = [split for split in _SPLITS if any(image.split == split for image in images)]
    splits += sorted({image.split for image in images} - set(_SPLITS))
    labels = sorted({image.label for image in images if image.label is not None})
    paths = tuple(image.path for image in images)
    if len(splits) > 1 and different(images):
        # What is tested on stays; of what is trained or chosen on, the copies go.
        copies = tuple(image.path for image in images if image.split != splits[-1])
        detail = f"{seen} in {_joined(splits)}"
        yield Finding(kind="near-leak" if near else "leak", paths=paths, detail=detail, leave_out=copies)
    if len(labels) > 1 and different(images):
        kind = "near-conflict" if near else "label-conflict"
        yield Finding(kind=kind, paths=paths, detail=f"{seen} in {_joined(labels)}", leave_out=paths)
    for split in splits:
        for label in sorted({image.label or "" for image in images if image.split == split}):
            here = [image for image in images if image.split == split and (image.label or "") == label]
            if different(here):
                there = tuple(image.path for image in here)
                detail = f"{seen}, {len(here)} times"
                yield Finding(
                    kind="near-duplicate" if near else "duplicate", paths=there, detail=detail, leave_out=there[1:]
                )


def _joined(names: list[str]) -> str:
    return ", ".join(names[:-1]) + f" and {names[-1]}"

"""What is wrong with the classes of a dataset, from the number of images that each has in each split."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resnets.data.findings import Finding
from resnets.specs.errors import counted, near_misses

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

Counts = dict[str, dict[str, int]]
"""Split to class to images; a class whose folder is empty has 0."""

_NAMED = 5


def class_findings(counts: Mapping[str, Mapping[str, int]], *, max_imbalance: float) -> Iterator[Finding]:
    """Yield what is wrong with the classes of the training split, and with those of the others beside them.

    A dataset without a training split, one to test on, has only the classes that it has.

    Args:
        counts: split to class to images.
        max_imbalance: largest class : smallest class from which they are called unbalanced.
    """
    train = counts.get("train")
    if train is None:
        return
    filled = {name: images for name, images in train.items() if images}
    for name, images in train.items():
        if not images:
            yield Finding(kind="empty-class", paths=(name,), detail="no image has this label")
        elif images == 1:
            yield Finding(kind="single-image-class", paths=(name,), detail="it has 1 image")
    if len(filled) == 1:
        yield Finding(kind="single-class", paths=(next(iter(filled)),), detail="it is the only class")
    for split, classes in counts.items():
        if split != "train" and any(classes.values()):
            yield from _beside_training(split, classes, train)
    if len(filled) > 1:
        yield from _imbalance(filled, max_imbalance)
    yield from _numbers(list(train))


def _beside_training(split: str, classes: Mapping[str, int], train: Mapping[str, int]) -> Iterator[Finding]:
    for name, images in classes.items():
        if images and name not in train:
            detail = f"{counted(images, f'{split} image')} of a class that is not trained.{near_misses(name, train)}"
            yield Finding(kind="unknown-class", paths=(name,), detail=detail)
    for name, images in train.items():
        if images and not classes.get(name):
            yield Finding(kind="missing-class", paths=(name,), detail=f"the {split} split has no image of it")


def _imbalance(train: Mapping[str, int], limit: float) -> Iterator[Finding]:
    largest, smallest = max(train, key=lambda name: train[name]), min(train, key=lambda name: train[name])
    ratio = train[largest] / train[smallest]
    if ratio > limit:
        yield Finding(
            kind="imbalance",
            paths=(largest, smallest),
            detail=f"{train[largest]:,} images against {train[smallest]:,}, {ratio:.0f} to 1",
        )


def _numbers(names: list[str]) -> Iterator[Finding]:
    """Name classes that are numbers where the order of the names says something else than the numbers."""
    if len(names) < 2 or not all(name.isascii() and name.isdigit() for name in names):
        return
    ordered = sorted(names)
    values = [int(name) for name in ordered]
    shuffled = values != sorted(values)
    ilsvrc_ids = set(values) == set(range(1, 1001))
    said = []
    if shuffled:
        said.append(f"labels 0, 1, 2, … are the classes {_listed(ordered)}")
    if ilsvrc_ids:
        said.append(
            "1 to 1000 are ILSVRC ids, whose order is not that of the wnids (n01440764, …) by which weights trained "
            "elsewhere count the classes"
        )
    if said:
        later = next(
            (name for name, value in zip(ordered, sorted(values), strict=True) if int(name) != value), names[0]
        )
        yield Finding(kind="numbered-classes", paths=(later,), detail="; ".join(said))


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else "")

"""Top-1 and top-5 error, error a class and the confusion matrix of a classifier.

An error is a percentage of images (He et al. 2015, Sec. 4.1). Scores that tie are ranked by class
index, the lowest first, as `torch.argmax` does, so that a net that gives every class the same score is right only
for class 0. An image whose scores hold NaN has no prediction and is an error.

Shapes: n images, c classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor
from torch.nn import functional

from resnets.specs.errors import DataError


def top_k_hits(logits: Float[Tensor, "n c"], labels: Int64[Tensor, " n"], k: int) -> Bool[Tensor, " n"]:
    """Return for each image whether its label is among the `k` highest scores.

    >>> logits = torch.tensor([[0.1, 0.7, 0.2], [0.5, 0.5, 0.0]])
    >>> top_k_hits(logits, torch.tensor([2, 1]), k=1).tolist()
    [False, False]
    >>> top_k_hits(logits, torch.tensor([2, 1]), k=2).tolist()
    [True, True]
    """
    own = logits.gather(1, labels[:, None])
    earlier = torch.arange(logits.shape[1], device=logits.device) < labels[:, None]
    ahead = (logits > own) | ((logits == own) & earlier)
    return (ahead.sum(1) < k) & ~logits.isnan().any(1)


def distinct(names: Sequence[str]) -> list[str]:
    """Return the names with a number after those that were there before; ImageNet has two cranes.

    >>> distinct(["crane", "rose", "crane"])
    ['crane', 'rose', 'crane (2)']
    """
    taken = set(names)
    seen: set[str] = set()
    results = []
    for name in names:
        number, result = 1, name
        # A class may itself be called "crane (2)".
        while result in seen or (number > 1 and result in taken):
            number += 1
            result = f"{name} ({number})"
        seen.add(result)
        results.append(result)
    return results


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassificationResult:
    """What a classifier scored on a set of images."""

    images: int
    """Images that were scored."""
    loss: float
    """Mean cross entropy, in nats; without label smoothing."""
    top1_error: float
    """Percentage of images whose highest score is not their label's."""
    top5_error: float | None
    """Percentage of images whose label is not among the five highest scores; None with five classes or fewer."""
    per_class_errors: dict[str, float | None]
    """Top-1 error among the images of each class, in their order; None for a class without images. Of classes with
    the same name, the second is called `name (2)`, or the next number that no class is called."""
    confusion: tuple[tuple[int, ...], ...]
    """Images by true class (row) and predicted class (column)."""
    without_prediction: int
    """Images whose scores hold NaN: errors, and in no column of `confusion`."""
    per_class_images: dict[str, int] = field(default_factory=dict)
    """Images of each class, by the names of `per_class_errors`; those without a prediction included."""


class ClassificationMeter:
    """Counts over batches, kept on the device; nothing waits for it until the state or the result is asked for."""

    def __init__(self, classes: Sequence[str], device: torch.device | str = "cpu") -> None:
        """Start with no images; `classes` are the names that labels index."""
        self.classes = tuple(classes)
        count = len(self.classes)
        # One more column than classes, for images without a prediction.
        self._cells = torch.zeros(count * (count + 1), dtype=torch.int64, device=device)
        self._top5_hits = torch.zeros((), dtype=torch.int64, device=device)
        # MPS has no float64.
        precise = torch.float32 if self._cells.device.type == "mps" else torch.float64
        self._loss = torch.zeros((), dtype=precise, device=device)

    @torch.no_grad()
    def update(self, logits: Float[Tensor, "n c"], labels: Int64[Tensor, " n"]) -> None:
        """Add a batch; both tensors are on the device of the meter.

        Raises:
            ValueError: the logits are not of one column a class.
        """
        count = len(self.classes)
        if logits.shape[1] != count:
            raise ValueError(f"the logits have {logits.shape[1]} columns; there are {count} classes.")
        predicted = torch.where(logits.isnan().any(1), count, logits.argmax(1))
        # Not bincount: on CUDA it waits for the device to find the largest index.
        self._cells.index_add_(0, labels * (count + 1) + predicted, torch.ones_like(labels))
        self._top5_hits += top_k_hits(logits, labels, k=5).sum()
        self._loss += functional.cross_entropy(logits.float(), labels, reduction="sum").to(self._loss.dtype)

    def state(self) -> Float64[Tensor, " entries"]:
        """Return all counts as one vector on the CPU; the states of several processes add up.

        Counts in float64 are exact up to 2^53 images.
        """
        parts = (self._loss.reshape(1), self._top5_hits.reshape(1), self._cells)
        return torch.cat([part.cpu().double() for part in parts])

    @classmethod
    def from_state(cls, classes: Sequence[str], state: Float64[Tensor, " entries"]) -> "ClassificationMeter":
        """Return the meter that has the given state, or sum of states.

        >>> first, second = ClassificationMeter("ab"), ClassificationMeter("ab")
        >>> first.update(torch.tensor([[1.0, 0.0]]), torch.tensor([0]))
        >>> second.update(torch.tensor([[1.0, 0.0]]), torch.tensor([1]))
        >>> ClassificationMeter.from_state("ab", first.state() + second.state()).result().top1_error
        50.0
        """
        meter = cls(classes)
        if len(state) != 2 + len(meter._cells):
            raise ValueError(f"the state has {len(state)} entries; {len(meter.classes)} classes have another number.")
        meter._loss, hits, cells = state[0].clone(), state[1], state[2:]
        meter._top5_hits, meter._cells = hits.long(), cells.long()
        return meter

    def result(self) -> ClassificationResult:
        """Return the scores over all images so far.

        Raises:
            DataError: there are no images.
        """
        count = len(self.classes)
        cells = self._cells.cpu().reshape(count, count + 1)
        images = int(cells.sum())
        if images == 0:
            raise DataError("No image was scored: the split has none that can be read.")
        per_class = list(zip(distinct(self.classes), cells.diagonal().tolist(), cells.sum(1).tolist(), strict=True))
        return ClassificationResult(
            images=images,
            loss=float(self._loss) / images,
            top1_error=_error(int(cells.diagonal().sum()), images),
            top5_error=_error(int(self._top5_hits), images) if count > 5 else None,
            per_class_errors={name: _error(hits, of) if of else None for name, hits, of in per_class},
            confusion=tuple(map(tuple, cells[:, :count].tolist())),
            without_prediction=int(cells[:, count].sum()),
            per_class_images={name: of for name, _, of in per_class},
        )


def _error(hits: int, images: int) -> float:
    return 100 * (images - hits) / images

"""Which image is trained on when, and the random numbers that vary it: pure functions of the seed and the position.

A run has one endless stream of images: the permutations of its epochs, one after the other (the images are
shuffled anew in every epoch; He et al. 2015 as released). Step s of a global batch G takes the positions
s * G ... (s + 1) * G - 1 of it, so every batch is full. Since nothing depends on what was drawn before, the
number of processes, the number of workers and an interruption cannot change what the model sees. Where rare classes
are to be drawn as often as frequent ones, `BalancedOrder` takes the place of the permutations; where few shards are
to be read at a time, `ShardOrder`.

Random words come from SplitMix64 (Steele, Lea and Flood 2014), used as a function of a counter. NumPy's own
generators are not used because their streams may change between releases.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from jaxtyping import Float64, Int64, UInt64

from resnets.specs.errors import DataError, SpecError

ORDER_STREAM: Final = 0
"""Random numbers that order the images of an epoch."""
AUGMENT_STREAM: Final = 1
"""Random numbers that crop and mirror an image."""
COLOR_STREAM: Final = 2
"""Random numbers that vary the colours of an image."""
POLICY_STREAM: Final = 3
"""Random words that seed the further operations on an image."""
ERASE_STREAM: Final = 4
"""Random numbers that erase a rectangle of an image."""
MIX_STREAM: Final = 5
"""Random numbers that mix the images of a batch."""
CLASS_ORDER_STREAM: Final = 6
"""Random numbers that order the classes, where every class is drawn equally often."""
SHARD_STREAM: Final = 7
"""Random numbers that order the shards, where the images of some at a time are shuffled together."""
STORED_STREAM: Final = 8
"""Random numbers that order the images in the shards that are made of a folder."""
FIRST_CLASS_STREAM: Final = 1_000
"""Random numbers that order the images of class 0, where every class is drawn equally often; class c is c further."""

_INCREMENT: Final = np.uint64(0x9E3779B97F4A7C15)


def _mix(words: UInt64[np.ndarray, "*shape"]) -> UInt64[np.ndarray, "*shape"]:
    """Return SplitMix64's output function of each word: a bijection without visible structure."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def random_words(
    seed: int, positions: Int64[np.ndarray, " n"], num_draws: int, stream: int
) -> UInt64[np.ndarray, "n draws"]:
    """Return `num_draws` random words for each position; a row depends on nothing but its position.

    Args:
        seed: seed of the run, 0 ... 2^63 - 1.
        positions: positions in the training stream, 0 or more.
        num_draws: words a position.
        stream: what they are for; words of different streams are independent.
    """
    # One-dimensional arrays throughout: NumPy lets arrays wrap around, but warns where a scalar does.
    key = _mix(np.array([seed], dtype=np.uint64) + _INCREMENT)
    key = _mix((key ^ np.uint64(stream)) + _INCREMENT)
    states = _mix(key + positions.astype(np.uint64) * _INCREMENT)
    return _mix(states[:, None] + np.arange(1, num_draws + 1, dtype=np.uint64) * _INCREMENT)


def uniforms(
    seed: int, positions: Int64[np.ndarray, " n"], num_draws: int, stream: int
) -> Float64[np.ndarray, "n draws"]:
    """Return `num_draws` random numbers in [0, 1) for each position; arguments as for `random_words`."""
    return (random_words(seed, positions, num_draws, stream) >> np.uint64(11)) * 2.0**-53


def _permutation(seed: int, epoch: int, size: int, stream: int) -> Int64[np.ndarray, " size"]:
    positions = np.arange(size, dtype=np.int64) + epoch * size
    permutation = np.argsort(random_words(seed, positions, 1, stream)[:, 0], kind="stable")
    permutation.flags.writeable = False
    return permutation.astype(np.int64, copy=False)


class _Latest:
    """The order of the epoch that was asked for last. Of ImageNet's images it is 10 MB in every worker process.

    Positions are asked for one after the other, so the epochs before are not needed again. What is kept is let go before
    the next is made, so that both fit into the same memory.
    """

    def __init__(self, make: Callable[..., Int64[np.ndarray, " n"]]) -> None:
        self._make = make
        self._kept: tuple[tuple[int, ...], Int64[np.ndarray, " n"]] | None = None

    def __call__(self, *key: int) -> Int64[np.ndarray, " n"]:
        """Return what `make` returns for `key`, made anew unless it was the last."""
        kept = self._kept
        if kept is None or kept[0] != key:
            kept = self._kept = None
            kept = self._kept = key, self._make(*key)
        return kept[1]


_latest_permutation = _Latest(_permutation)


def sample_indices(
    seed: int, positions: Int64[np.ndarray, " n"], num_images: int, stream: int = ORDER_STREAM
) -> Int64[np.ndarray, " n"]:
    """Return the index of the image at each position of the training stream."""
    epochs, places = np.divmod(positions, num_images)
    indices = np.empty_like(positions)
    for epoch in np.unique(epochs).tolist():
        chosen = epochs == epoch
        indices[chosen] = _latest_permutation(seed, epoch, num_images, stream)[places[chosen]]
    return indices


class BalancedOrder:
    """The order of the images where every class is drawn equally often, however many images it has.

    The classes follow each other as the images do otherwise: permutation after permutation of them. So position p
    is the (p // classes)-th draw of its class, and each class has its own endless stream of permutations.
    """

    def __init__(self, seed: int, labels: Int64[np.ndarray, " n"]) -> None:
        """Sort the images by class; a class without images has no part."""
        self._seed = seed
        self._classes, firsts = np.unique(np.sort(labels), return_index=True)
        by_class = np.split(np.argsort(labels, kind="stable"), firsts[1:])
        self._images = dict(zip(self._classes.tolist(), by_class, strict=True))
        # The epoch that each class is in and its permutation: all together as many numbers as there are images.
        self._current: dict[int, tuple[int, Int64[np.ndarray, " _"]]] = {}

    def indices(self, positions: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
        """Return the index of the image at each position."""
        count = len(self._classes)
        labels = self._classes[sample_indices(self._seed, positions, count, CLASS_ORDER_STREAM)]
        pairs = zip(labels.tolist(), (positions // count).tolist(), strict=True)
        return np.array([self._image(label, draw) for label, draw in pairs], dtype=np.int64)

    def _image(self, label: int, draw: int) -> int:
        images = self._images[label]
        epoch, place = divmod(draw, len(images))
        if label not in self._current or self._current[label][0] != epoch:
            permutation = _permutation(self._seed, epoch, len(images), FIRST_CLASS_STREAM + label)
            self._current[label] = epoch, images[permutation]
        return int(self._current[label][1][place])


class ShardOrder:
    """The order of the images where those of some shards at a time are shuffled together.

    In every epoch the shards come in another order; cut into groups, the last of which may be smaller, and the images
    of each group in random order. So an epoch is still a permutation of all images, but few shards are in use at once.
    """

    def __init__(self, seed: int, shards: Int64[np.ndarray, " n"], together: int) -> None:
        """Keep the shard of each image, and how many shards are shuffled together."""
        self._seed = seed
        self._shards = np.unique(shards, return_inverse=True)[1].astype(np.int64)
        self._num_shards = int(self._shards.max()) + 1
        self._together = together
        self._latest = _Latest(self._order)

    def indices(self, positions: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
        """Return the index of the image at each position."""
        epochs, places = np.divmod(positions, len(self._shards))
        indices = np.empty_like(positions)
        for epoch in np.unique(epochs).tolist():
            chosen = epochs == epoch
            indices[chosen] = self._latest(epoch)[places[chosen]]
        return indices

    def _order(self, epoch: int) -> Int64[np.ndarray, " n"]:
        rank_of_shard = np.argsort(_permutation(self._seed, epoch, self._num_shards, SHARD_STREAM), kind="stable")
        groups = rank_of_shard[self._shards] // self._together
        positions = np.arange(len(self._shards), dtype=np.int64) + epoch * len(self._shards)
        words = random_words(self._seed, positions, 1, ORDER_STREAM)[:, 0]
        return np.lexsort((words, groups)).astype(np.int64, copy=False)


def rank_positions(step: int, global_batch: int, rank: int, world_size: int) -> Int64[np.ndarray, " n"]:
    """Return the positions of `step` that process `rank` of `world_size` trains on: a contiguous share of the batch."""
    share = global_batch // world_size
    first = step * global_batch + rank * share
    return np.arange(first, first + share, dtype=np.int64)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingStream:
    """The share of the training stream that one process takes, cut into the passes of each step.

    Raises:
        DataError: A batch is larger than the dataset.
        SpecError: A batch does not divide into equal passes of equal processes.
    """

    seed: int
    """Seed of the run."""
    num_images: int
    """Images of the training split."""
    global_batch: int
    """Images a step, over all processes."""
    accumulation: int = 1
    """Forward and backward passes a step."""
    rank: int = 0
    """Number of this process."""
    world_size: int = 1
    """Number of processes."""
    order: BalancedOrder | ShardOrder | None = field(default=None, compare=False)
    """Another order than the permutations of all images."""

    def __post_init__(self) -> None:
        """Refuse batches that cannot be filled or shared out."""
        if self.global_batch > self.num_images:
            raise DataError(
                f"global_batch is {self.global_batch}, but there are only {self.num_images} training images; "
                f"choose --global-batch {self.num_images} or less."
            )
        if self.global_batch % (self.world_size * self.accumulation):
            raise SpecError(
                f"global_batch {self.global_batch} does not divide into {self.world_size} process(es) with "
                f"accumulation {self.accumulation}; processes times accumulation has to divide it."
            )

    def passes(self, step: int) -> list[Int64[np.ndarray, " n"]]:
        """Return the positions of each forward and backward pass of `step` in this process."""
        return np.split(rank_positions(step, self.global_batch, self.rank, self.world_size), self.accumulation)

    def positions(self, number: int) -> Int64[np.ndarray, " n"]:
        """Return the positions of pass `number` in this process, counted from the first pass of step 0."""
        step, part = divmod(number, self.accumulation)
        return self.passes(step)[part]

    def indices(self, positions: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
        """Return the index of the image at each position."""
        if self.order is not None:
            return self.order.indices(positions)
        return sample_indices(self.seed, positions, self.num_images)

    def uniforms(
        self, positions: Int64[np.ndarray, " n"], num_draws: int, stream: int = AUGMENT_STREAM
    ) -> Float64[np.ndarray, "n draws"]:
        """Return the random numbers in [0, 1) that vary the image at each position; `stream` says in what way."""
        return uniforms(self.seed, positions, num_draws, stream)

"""Batches of images that are files: worker processes decode and crop them to bytes, the device does the rest.

A broken image is never replaced. Its batch is one smaller, and the batch names it.
"""

import atexit
import dataclasses
import functools
import itertools
import math
import signal
import threading
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, get_worker_info
from torch.utils.data import Dataset as TorchDataset

from resnets.data.augment import (
    AREA_CROP_DRAWS,
    SCALE_CROP_DRAWS,
    mirrored,
)
from resnets.data.batch_augment import BatchAugment
from resnets.data.color import COLOR_DRAWS, ColorAugment
from resnets.data.crop import read_crop
from resnets.data.order import COLOR_STREAM, POLICY_STREAM, TrainingStream, random_words
from resnets.data.policy import ImagePolicy
from resnets.data.preprocess import Preprocessor
from resnets.data.splits import Batch, FileSplit, Skipped
from resnets.specs.data import AreaCrop, NoPolicy, PolicySpec, ScaleCrop
from resnets.specs.errors import DataError, ImageError, ResnetsError

T = TypeVar("T")

TERMINATION_GRACE_SECONDS = 30
"""How long a worker goes on after SIGTERM, so that the run it belongs to can finish its step and save."""

_ImageReader = Callable[[int, bytes], UInt8[np.ndarray, "height width channels"]]
"""Returns the pixels of an image from its number in the batch and the content of its file."""


class DecodedBatch(NamedTuple):
    """What a worker sends: the pixels of the images that could be read, and which could not."""

    pixels: UInt8[Tensor, "n height width channels"]
    labels: Int64[Tensor, " n"]
    indices: Int64[Tensor, " n"]
    places: Int64[Tensor, " n"]
    """Which of the images that were asked for these are."""
    skipped: tuple[Skipped, ...]


class TrainingFiles(TorchDataset[DecodedBatch]):
    """The passes of the training stream, numbered from the first of step 0: cropped, mirrored, varied by a policy."""

    def __init__(
        self,
        split: FileSplit,
        preprocessor: Preprocessor,
        augment: AreaCrop | ScaleCrop,
        stream: TrainingStream,
        policy: PolicySpec | None = None,
    ) -> None:
        """Keep what the workers need."""
        self._split = split
        self._preprocessor = preprocessor
        self._augment = augment
        self._stream = stream
        self._policy = None if policy is None or isinstance(policy, NoPolicy) else ImagePolicy(policy)

    def __getitem__(self, number: int) -> DecodedBatch:
        """Return the images of pass `number` that can be read."""
        positions = self._stream.positions(number)
        num_draws = SCALE_CROP_DRAWS if isinstance(self._augment, ScaleCrop) else AREA_CROP_DRAWS
        draws = self._stream.uniforms(positions, num_draws)
        flips = mirrored(self._augment, draws[:, -1])
        seeds = random_words(self._stream.seed, positions, 1, POLICY_STREAM)[:, 0]

        def read(place: int, content: bytes) -> UInt8[np.ndarray, "height width channels"]:
            pixels = read_crop(content, self._augment, self._preprocessor, draws[place, :-1], mirror=bool(flips[place]))
            if self._policy is not None:
                pixels = np.asarray(self._policy(Image.fromarray(pixels), int(seeds[place])))
            return self._preprocessor.arrange(pixels)

        return _decode(self._split, self._stream.indices(positions), self._preprocessor, read)


class EvaluationFiles(TorchDataset[DecodedBatch]):
    """Images of a split in batches, as the preprocessing has them."""

    def __init__(self, split: FileSplit, preprocessor: Preprocessor, batches: list[Int64[np.ndarray, " _"]]) -> None:
        """Keep what the workers need; `batches` holds the indices of the images of each batch."""
        self._split = split
        self._preprocessor = preprocessor
        self._batches = batches

    def __getitem__(self, number: int) -> DecodedBatch:
        """Return the images of batch `number` that can be read."""
        return _decode(
            self._split,
            self._batches[number],
            self._preprocessor,
            lambda place, content: self._preprocessor.read(content),
        )


def decoded_batches(
    dataset: TorchDataset[T], numbers: Iterable[int], *, workers: int, device: torch.device
) -> Generator[T, None, None]:
    """Yield `dataset[number]` for each of `numbers`, in this order, read ahead by worker processes (0: none).

    The processes start with the first batch, and end when the generator is closed or used up, or with the program.

    Raises:
        ResnetsError: A worker process died.
    """
    loader = DataLoader(
        dataset,
        batch_size=None,
        sampler=numbers,
        num_workers=workers,
        pin_memory=device.type == "cuda",
        worker_init_fn=_start_worker,
        # Its own generator: the loader draws a number from it that would otherwise come from the run's.
        generator=torch.Generator(),
    )
    batches = _received(loader)
    _open_generators.add(batches)
    return batches


_Normalize = Callable[[UInt8[Tensor, "n channels height width"]], Float32[Tensor, "n channels height width"]]


def to_device(decoded: DecodedBatch, normalize: _Normalize, device: torch.device) -> Batch:
    """Return a decoded batch on `device`, normalised there, in the memory format channels-last."""
    pixels = decoded.pixels.to(device, non_blocking=True).permute(0, 3, 1, 2)
    return Batch(
        images=normalize(pixels),
        labels=decoded.labels.to(device, non_blocking=True),
        indices=decoded.indices.numpy(),
        skipped=tuple(decoded.skipped),
    )


def in_layout(batch: Batch, channels_last: bool) -> Batch:
    """Return the batch with the memory layout n h w c, or n c h w."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return dataclasses.replace(batch, images=batch.images.contiguous(memory_format=layout))


UNREADABLE_BATCHES = 20
"""Batches in a row without a readable image after which the data is taken to be gone."""


class FileBatches:
    """Endless training batches of a `FileSplit`; see `TrainingBatches`."""

    def __init__(
        self,
        files: TrainingFiles,
        stream: TrainingStream,
        preprocessor: Preprocessor,
        color: ColorAugment | None,
        batch_augment: BatchAugment,
        *,
        device: torch.device,
        channels_last: bool,
        workers: int,
    ) -> None:
        """Keep what is needed; the worker processes start with the first batch."""
        self._files = files
        self._preprocessor = preprocessor
        self._color = color
        self._batch_augment = batch_augment
        self._stream = stream
        self._device = device
        self._channels_last = channels_last
        self._workers = workers
        self._decoded: Generator[DecodedBatch, None, None] | None = None
        self._unreadable_in_a_row = 0

    @property
    def num_images(self) -> int:
        """Number of files of the split."""
        return self._stream.num_images

    def batches(self, first_step: int) -> Iterator[Batch]:
        """Yield a batch for each forward and backward pass from `first_step` on, without end.

        Ends what an earlier call began.

        Raises:
            DataError: In many batches in a row no image can be read.
            ResnetsError: A worker process died.
        """
        self.close()
        first = first_step * self._stream.accumulation
        self._decoded = decoded_batches(self._files, itertools.count(first), workers=self._workers, device=self._device)
        return map(self._batch, itertools.count(first), self._decoded)

    def close(self) -> None:
        """End the worker processes."""
        if self._decoded is not None:
            self._decoded.close()
            self._decoded = None

    def _batch(self, number: int, decoded: DecodedBatch) -> Batch:
        self._unreadable_in_a_row = 0 if len(decoded.indices) else self._unreadable_in_a_row + 1
        if self._unreadable_in_a_row == UNREADABLE_BATCHES:
            last = decoded.skipped[0]
            raise DataError(
                f"In {UNREADABLE_BATCHES} training batches in a row no image can be read; the last is {last.path}: "
                f"{last.reason}. Check that the data is still there and can be read."
            )
        positions, places = self._stream.positions(number), decoded.places.numpy()
        normalize = self._preprocessor.normalize
        if self._color is not None:
            draws = self._stream.uniforms(positions[places], COLOR_DRAWS, COLOR_STREAM)
            normalize = functools.partial(self._color, uniforms=draws)
        batch = self._batch_augment(to_device(decoded, normalize, self._device), positions, places)
        return in_layout(batch, self._channels_last)


def _decode(
    split: FileSplit, indices: Int64[np.ndarray, " n"], preprocessor: Preprocessor, read: _ImageReader
) -> DecodedBatch:
    spec = preprocessor.spec
    batch = _pixels_to_send(len(indices), spec.crop_px, spec.crop_px, spec.channels)
    pixels = batch.numpy()
    readable: list[int] = []
    skipped: list[Skipped] = []
    for place, index in enumerate(indices.tolist()):
        try:
            pixels[len(readable)] = read(place, split.images.read(index))
        except ImageError as error:
            skipped.append(Skipped(split.images.path(index), str(error)))
        else:
            readable.append(place)
    places = np.array(readable, dtype=np.int64)
    kept = indices[places]
    return DecodedBatch(
        batch[: len(readable)],
        torch.from_numpy(split.labels[kept]),
        torch.from_numpy(kept),
        torch.from_numpy(places),
        tuple(skipped),
    )


def _pixels_to_send(*shape: int) -> UInt8[Tensor, "n height width channels"]:
    """Return memory for a batch; in a worker, memory that the run sees too, so that nothing is copied to send it."""
    if get_worker_info() is None:
        return torch.empty(shape, dtype=torch.uint8)
    storage = torch.UntypedStorage._new_shared(math.prod(shape))
    return torch.tensor([], dtype=torch.uint8).set_(storage).reshape(shape)


def _received(loader: DataLoader[T]) -> Generator[T, None, None]:
    decoded = _iterator_without_child_signal(loader)
    try:
        yield from decoded
    except (RuntimeError, OSError, EOFError) as error:
        if loader.num_workers and _tells_of_death(error):
            raise _worker_death(error, loader.num_workers) from error
        raise
    finally:
        # torch does this when the iterator is collected. That is late where an error still refers to it, and as part
        # of a cycle its queues go first, so that it waits for workers that nobody can tell to stop.
        if loader.num_workers:
            decoded._shutdown_workers()  # pyright: ignore[reportAttributeAccessIssue]


_open_generators: weakref.WeakSet[Generator[Any, None, None]] = weakref.WeakSet()


@atexit.register
def _close_generators() -> None:
    """End all workers before the program does: `multiprocessing` would wait until they end by themselves."""
    for batches in list(_open_generators):
        batches.close()


def _iterator_without_child_signal(loader: DataLoader[T]) -> Iterator[T]:
    """Start `loader`, so that the death of a worker is reported where the next batch is asked for.

    torch also reports it from a handler of SIGCHLD, in the middle of whatever the run is doing, half a weight
    update included.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGCHLD"):
        return iter(loader)
    handler = signal.getsignal(signal.SIGCHLD)
    iterator = iter(loader)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL if handler is None else handler)
    return iterator


def _start_worker(_: int) -> None:
    """Leave signals to the parent: a terminal and a scheduler send them to every process of the run."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "SIGALRM"):
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(TERMINATION_GRACE_SECONDS))


def _tells_of_death(error: RuntimeError | OSError | EOFError) -> bool:
    """Return whether `error` comes from the loss of a worker, not from what it did (torch marks that as "Caught …").

    What a worker sent just before its death cannot be received any more: its memory is handed over by the worker.
    """
    if isinstance(error, RuntimeError):
        return str(error).startswith("DataLoader worker")
    return isinstance(error, ConnectionError | EOFError | FileNotFoundError) and "Caught" not in str(error)


def _worker_death(error: RuntimeError | OSError | EOFError, workers: int) -> ResnetsError:
    reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return ResnetsError(
        f"a process that reads images died ({reason}), most often because memory or /dev/shm is full. "
        f"Choose fewer than --workers {workers} (0 reads in the run's own process) and run again."
    )

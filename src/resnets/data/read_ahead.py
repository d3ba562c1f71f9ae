"""Batches read ahead by worker processes, in order; processes that end with the run, and whose death is said in a line.

What is read ahead is anything a dataset gives by number. Batches of pixels come in memory that is used again and
again: to a worker, fresh memory that the run sees too costs a tenth of what it takes to decode the images in it, since
the system clears every page of it first.
"""

import atexit
import gc
import itertools
import math
import os
import signal
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, get_worker_info
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data.dataloader import _BaseDataLoaderIter, _MultiProcessingDataLoaderIter

from resnets.data.listing import listed
from resnets.data.shard_mirror import is_url
from resnets.data.splits import Skipped
from resnets.specs.errors import ResnetsError, UserError, counted
from resnets.specs.visible import in_line

T = TypeVar("T")

TERMINATION_GRACE_SECONDS = 30
"""How long a worker goes on after SIGTERM, so that the run it belongs to can finish its step and save."""

_SECONDS_BETWEEN_LOOKS = 5.0
_SECONDS_OF_SILENCE = 180.0
_SECONDS_OF_DYING = 5.0

_READ_AHEAD = 2
"""Batches that a worker makes before the first of them is taken."""


class DecodedBatch(NamedTuple):
    """The pixels of the images that could be read, and which could not."""

    pixels: UInt8[Tensor, "n height width channels"]
    """With worker processes, they are there until the next batch is taken."""
    labels: Int64[Tensor, " n"]
    indices: Int64[Tensor, " n"]
    places: Int64[Tensor, " n"]
    """Which of the images that were asked for these are."""
    skipped: tuple[Skipped, ...]


class PixelFiles(TorchDataset[DecodedBatch]):
    """Batches of images of one size; subclasses decode them."""

    def __init__(self, largest: tuple[int, int, int, int]) -> None:
        """Keep images, height, width and channels of the largest batch."""
        self.largest = largest

    def __getitem__(self, number: int) -> DecodedBatch:
        """Return the images of batch `number` that can be read."""
        return self.decode(number, torch.empty(self.largest, dtype=torch.uint8))

    def decode(self, number: int, memory: UInt8[Tensor, "images height width channels"]) -> DecodedBatch:
        """Return the images of batch `number` that can be read, in the first places of `memory`."""
        raise NotImplementedError

    def paths(self, number: int) -> Sequence[str]:
        """Return the images of batch `number`, for messages; none where a subclass does not say."""
        return ()


def read_ahead(
    dataset: TorchDataset[T], numbers: Iterable[int], *, workers: int, device: torch.device
) -> Generator[T, None, None]:
    """Yield `dataset[number]` for each of `numbers`, in this order, read ahead by worker processes (0: none).

    The processes start with the first item, and end when the generator is closed or used up, or with the program.
    Where `dataset` has a method `paths(number)`, as `PixelFiles` have, messages name images: one on stderr, after minutes
    without any, those that are waited for; that of a death those that the dead process was asked for.

    Raises:
        ResnetsError: A worker process died.
        UserError: the dataset raised it, in whichever process.
    """
    return _registered(_received(_loader(dataset, numbers, workers, device)))


def decoded_batches(
    files: PixelFiles, numbers: Iterable[int], *, workers: int, device: torch.device
) -> Generator[DecodedBatch, None, None]:
    """Do what `read_ahead` does; each batch has to be used or copied before the next is taken.

    Raises:
        ResnetsError: A worker process died, or there is no shared memory for the batches.
    """
    if not workers:
        return read_ahead(files, numbers, workers=workers, device=device)
    return _registered(_in_turns(_Buffered(files, workers), numbers, workers, device))


@dataclass(frozen=True, slots=True)
class _Refusal:
    """An error that a user can mend; torch would send it as text, with the traceback in its message."""

    error: UserError


class _Guarded(TorchDataset[T | _Refusal]):
    """A dataset whose items may be refusals."""

    def __init__(self, dataset: TorchDataset[T]) -> None:
        self._dataset = dataset

    def __getitem__(self, number: int) -> T | _Refusal:
        try:
            return self._dataset[number]
        except UserError as error:
            return _Refusal(error)

    def paths(self, number: int) -> Sequence[str]:
        """Return the images of an item, as far as the dataset says."""
        told = getattr(self._dataset, "paths", None)
        return () if told is None else told(number)


@dataclass(frozen=True, slots=True)
class _Due:
    """The items that workers have been asked for and that have not been received, the oldest first."""

    dataset: _Guarded[Any]
    numbers: deque[int]

    def noted(self, numbers: Iterable[int]) -> Iterator[int]:
        """Yield the numbers that are asked for."""
        for number in numbers:
            self.numbers.append(number)
            yield number

    def received(self) -> None:
        """Note that the oldest has come."""
        self.numbers.popleft()

    def paths(self) -> Sequence[str]:
        """Return the images of the oldest, which is waited for."""
        return self.dataset.paths(self.numbers[0]) if self.numbers else ()


class _Loader(DataLoader[T]):
    """torch's loader, which has no opinion on the number of workers: `resnets doctor` has measured ones."""

    due: _Due

    def check_worker_number_rationality(self) -> None:
        """Print no warning."""

    def _get_iterator(self) -> _BaseDataLoaderIter:
        return _Processes(self) if self.num_workers else super()._get_iterator()


class _Processes(_MultiProcessingDataLoaderIter):
    """torch's iterator, which tells what it waits for when nothing comes for minutes; it never gives up."""

    def __init__(self, loader: _Loader[Any]) -> None:
        super().__init__(loader)
        self._due = loader.due
        self._silent_seconds = 0.0

    def _try_get_data(self, timeout: float | None = None) -> tuple[Literal[True], Any] | tuple[Literal[False], None]:
        started = time.monotonic()
        tried = super()._try_get_data(_SECONDS_BETWEEN_LOOKS if timeout is None else timeout)
        silent_seconds = 0.0 if tried[0] else self._silent_seconds + time.monotonic() - started
        if self._silent_seconds < _SECONDS_OF_SILENCE <= silent_seconds:
            waited_for = f", those waited for being {listed(paths)}" if (paths := self._due.paths()) else ""
            minutes = max(1, round(silent_seconds / 60))
            text = f"No images for {counted(minutes, 'minute')}{waited_for}. Does the disk or network still answer?"
            print(in_line(text), file=sys.stderr, flush=True)
        self._silent_seconds = silent_seconds
        return tried

    def paths_of_the_dead(self) -> list[str]:
        """Return the images that processes which have died were asked for; none where torch's notes do not tell.

        Those waited for may be another's, which is only slow. Which item a process died of is not known: the one before
        it may be done, but not sent.
        """
        try:
            # torch numbers what it asks for, and keeps (worker,) until it comes, then (worker, item) until it is due.
            asked = dict(zip(sorted(self._task_info), self._due.numbers, strict=True))
            # The connections of a process end before it does; until then, it counts as alive.
            ended = wait([worker.sentinel for worker in self._workers], _SECONDS_OF_DYING)
            dead = {number for number, worker in enumerate(self._workers) if worker.sentinel in ended}
            lost = [asked[task] for task, (worker, *came) in self._task_info.items() if not came and worker in dead]
        except (AttributeError, TypeError, ValueError):
            return []
        return [path for number in lost for path in self._due.dataset.paths(number)]


def _loader(
    dataset: TorchDataset[T], numbers: Iterable[int], workers: int, device: torch.device
) -> _Loader[T | _Refusal]:
    guarded = _Guarded(dataset)
    due = _Due(guarded, deque())
    loader = _Loader(
        guarded,
        batch_size=None,
        collate_fn=_unchanged,  # by default, arrays become tensors
        sampler=due.noted(numbers),
        num_workers=workers,
        prefetch_factor=_READ_AHEAD if workers else None,
        pin_memory=device.type == "cuda",
        worker_init_fn=_start_worker,
        # Its own generator: the loader draws a number from it that would otherwise come from the run's.
        generator=torch.Generator(),
    )
    loader.due = due
    return loader


def _unchanged(item: T) -> T:
    return item


class _Sent(NamedTuple):
    """What a worker sends of a batch, whose pixels are in a buffer; small arrays are sent faster than tensors."""

    buffer: int
    labels: Int64[np.ndarray, " n"]
    indices: Int64[np.ndarray, " n"]
    places: Int64[np.ndarray, " n"]
    skipped: tuple[Skipped, ...]


class _Buffered(TorchDataset[_Sent]):
    """Batches in buffers that each worker uses in turn.

    torch's loader asks a worker for its batch j when the run takes its batch j - 2, and then the run has done with batch
    j - 3: three buffers a worker are enough.
    """

    def __init__(self, files: PixelFiles, workers: int) -> None:
        self._files = files
        self._turns = itertools.count()
        shape = (workers * (_READ_AHEAD + 1), *files.largest)
        try:
            storage = torch.UntypedStorage._new_shared(math.prod(shape))
        except (RuntimeError, OSError) as error:
            raise _no_room(math.prod(shape), workers) from error
        self._buffers = torch.tensor([], dtype=torch.uint8).set_(storage).reshape(shape)

    def __getitem__(self, number: int) -> _Sent:
        worker = get_worker_info()
        assert worker is not None
        buffer = worker.id * (_READ_AHEAD + 1) + next(self._turns) % (_READ_AHEAD + 1)
        batch = self._files.decode(number, self._buffers[buffer])
        return _Sent(buffer, batch.labels.numpy(), batch.indices.numpy(), batch.places.numpy(), batch.skipped)

    def paths(self, number: int) -> Sequence[str]:
        """Return the images of batch `number`, as far as the files say."""
        return self._files.paths(number)

    def batch(self, sent: _Sent) -> DecodedBatch:
        """Return what a worker has sent, in the process that asked for it."""
        pixels = self._buffers[sent.buffer, : len(sent.labels)]
        labels, indices, places = map(torch.from_numpy, (sent.labels, sent.indices, sent.places))
        return DecodedBatch(pixels, labels, indices, places, sent.skipped)


def _in_turns(
    dataset: _Buffered, numbers: Iterable[int], workers: int, device: torch.device
) -> Generator[DecodedBatch, None, None]:
    received = _received(_loader(dataset, numbers, workers, device))
    try:
        yield from map(dataset.batch, received)
    finally:
        received.close()


def _received(loader: _Loader[T | _Refusal]) -> Generator[T, None, None]:
    decoded = _iterator_without_child_signal(loader)
    try:
        for item in decoded:
            loader.due.received()
            if isinstance(item, _Refusal):
                raise item.error
            yield item
    except (RuntimeError, OSError, EOFError) as error:
        if isinstance(decoded, _Processes) and _tells_of_death(error):
            raise _worker_death(error, loader.num_workers, decoded.paths_of_the_dead()) from error
        raise
    finally:
        # torch does this when the iterator is collected. That is late where an error still refers to it, and as part
        # of a cycle its queues go first, so that it waits for workers that nobody can tell to stop.
        if loader.num_workers:
            decoded._shutdown_workers()  # pyright: ignore[reportAttributeAccessIssue]


_open_generators: weakref.WeakSet[Generator[Any, None, None]] = weakref.WeakSet()


def _registered(batches: Generator[T, None, None]) -> Generator[T, None, None]:
    _open_generators.add(batches)
    return batches


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
    # A full garbage collection writes to every object it looks at; those of the parent would be copied into each worker.
    gc.freeze()
    threading.Thread(target=_end_after, args=(os.getppid(),), daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "SIGALRM"):
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(TERMINATION_GRACE_SECONDS))


def _end_after(parent: int) -> None:
    """End this process soon after its parent, which may have been killed.

    torch notices that too, but then waits until what was made has been sent: for ever, if that is more than a pipe
    holds, for the end that nobody reads is open in the worker as well.
    """
    while os.getppid() == parent:
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    os._exit(1)


def _tells_of_death(error: RuntimeError | OSError | EOFError) -> bool:
    """Return whether `error` comes from the loss of a worker, not from what it did (torch marks that as "Caught …").

    What a worker sent just before its death cannot be received any more: its memory is handed over by the worker.
    """
    if isinstance(error, RuntimeError):
        return str(error).startswith("DataLoader worker")
    return isinstance(error, ConnectionError | EOFError | FileNotFoundError) and "Caught" not in str(error)


def _no_room(number_of_bytes: int, workers: int) -> ResnetsError:
    return ResnetsError(
        f"The batches that {counted(workers, 'worker')} would read ahead take {number_of_bytes / 2**20:.0f} MiB of shared "
        f"memory, and /dev/shm has no room for them. Choose fewer than --workers {workers} (0 reads in the run's own "
        "process), or give a container more of it: docker run --shm-size=8g (or --ipc=host)."
    )


def _worker_death(error: RuntimeError | OSError | EOFError, workers: int, paths: Sequence[str]) -> ResnetsError:
    reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    # "May": the check decodes each image once and whole, with the reader of its split, large photographs at a smaller
    # size; a run also takes other crops and sizes, and reads some training images with Pillow. It takes no address.
    search = " `resnets check-data DATA --quarantine` may find it, and then has it left out."
    return ResnetsError(
        f"a process that reads images died ({reason}), most often because memory or /dev/shm is full. "
        f"Choose fewer than --workers {workers} (0 reads in the run's own process) and run again. If it dies at the same "
        f"place again, an image kills it{f', one of {listed(paths)}' if paths else ''}."
        f"{'' if any(map(is_url, paths)) else search}"
    )

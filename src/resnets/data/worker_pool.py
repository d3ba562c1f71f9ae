"""Work in processes that a bad item cannot stop: one that ends or hangs its process is named, the others are done.

The standard pool gives up as a whole when one of its processes dies. Here a batch whose process dies, or takes too
long, is done again item by item in new processes, and the item that does it twice gets an answer of its own.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import sys
import time
from collections import deque
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from multiprocessing.connection import Connection

Item = TypeVar("Item")
Result = TypeVar("Result")

BATCH = 16
SECONDS_A_BATCH = 120.0
_SECONDS_BETWEEN_LOOKS = 5.0


def in_processes(
    function: Callable[[Sequence[Item]], Result],
    items: Iterable[Item],
    *,
    workers: int,
    lost: Callable[[Item, str], Result],
    seconds_a_batch: float = SECONDS_A_BATCH,
) -> Iterator[tuple[int, int, Result]]:
    """Yield (index of the first item, items, result) of each batch, in the order in which they are done.

    Args:
        function: of a batch of items; importable, as for `multiprocessing`.
        items: read as they are needed, a few batches ahead.
        workers: processes; 0 computes in this one, without protection from items that end it.
        lost: the result for an item that ends its process or takes too long, from the item and the reason.
        seconds_a_batch: after which a process counts as hanging.

    An exception of `function` is raised here. However this generator is left, its processes are ended.
    """
    batches = _batches(items)
    if workers <= 0:
        yield from ((start, len(batch), function(batch)) for start, batch in batches)
        return
    # Fork needs no guard around the caller's main module; elsewhere it is not safe.
    context: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
    again: deque[tuple[int, list[Item]]] = deque()
    pool: list[_Worker[Item, Result]] = []
    try:
        while True:
            for worker in pool:
                if worker.batch is None:
                    worker.give(again.popleft() if again else next(batches, None))
            while len(pool) < workers and (task := again.popleft() if again else next(batches, None)):
                with _without_interrupts():
                    pool.append(_Worker(context, function))
                pool[-1].give(task)
            busy = {worker.connection: worker for worker in pool if worker.batch is not None}
            if not busy:
                return
            ready = wait(list(busy), timeout=_SECONDS_BETWEEN_LOOKS)
            for connection, worker in busy.items():
                assert worker.batch is not None
                start, batch = worker.batch
                if connection in ready:
                    try:
                        result = worker.take()
                    except (EOFError, OSError):
                        reason = "reading it ended the process that did: a defect of the decoder, or too little memory"
                    else:
                        yield start, len(batch), result
                        continue
                elif worker.seconds() > seconds_a_batch:
                    reason = f"reading it did not end within {seconds_a_batch:.0f} seconds"
                else:
                    continue
                worker.end()
                pool.remove(worker)
                if len(batch) == 1:
                    yield start, 1, lost(batch[0], reason)
                else:
                    again += ((start + place, [item]) for place, item in enumerate(batch))
    finally:
        for worker in pool:
            worker.end()


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Hold Ctrl-C back in the block, and for good in processes that start in it: it would end them with a traceback."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _batches(items: Iterable[Item]) -> Iterator[tuple[int, list[Item]]]:
    source = iter(items)
    start = 0
    while batch := list(itertools.islice(source, BATCH)):
        yield start, batch
        start += len(batch)


class _Worker(Generic[Item, Result]):
    """A process, the pipe to it, and the batch that it is at."""

    def __init__(self, context: Any, function: Callable[[Sequence[Item]], Result]) -> None:
        self.connection, theirs = context.Pipe()
        self.batch: tuple[int, list[Item]] | None = None
        self._since = 0.0
        self._process = context.Process(target=_serve, args=(theirs, function, os.getpid()), daemon=True)
        self._process.start()
        theirs.close()

    def give(self, batch: tuple[int, list[Item]] | None) -> None:
        """Hand a batch to the process, which must be idle."""
        self.batch = batch
        self._since = time.monotonic()
        if batch is not None:
            with suppress(OSError):  # where it died while idle, the next look at the pipe says so
                self.connection.send(batch[1])

    def take(self) -> Result:
        """Return the result of the batch.

        Raises:
            EOFError, OSError: the process is dead.
        """
        failure, result = self.connection.recv()
        self.batch = None
        if failure is not None:
            raise failure
        return result

    def seconds(self) -> float:
        """Return how long the process has been at its batch."""
        return time.monotonic() - self._since

    def end(self) -> None:
        """End the process, whatever it does."""
        self.connection.close()
        self._process.kill()
        self._process.join()
        self._process.close()


def _serve(connection: Connection, function: Callable[[Any], Any], parent: int) -> None:
    # Ctrl-C reaches every process of the terminal; the parent ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # Decoders written in C print warnings about files; what matters comes back through the pipe.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    while True:
        # The other processes hold this pipe's far end too, so it does not close when the parent is killed.
        while not connection.poll(_SECONDS_BETWEEN_LOOKS):
            if os.getppid() != parent:
                return
        try:
            batch = connection.recv()
            try:
                answer = (None, function(batch))
            except Exception as error:
                answer = (error, None)
            connection.send(answer)
        except (EOFError, OSError):  # the parent is gone
            return

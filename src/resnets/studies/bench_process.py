"""A system of a benchmark in a process of its own, which waits while the others work.

The allocator, the number of threads, and what a compiler has cached belong to a process: only so does each system have
what its users would have.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import sys
import time
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, Any

from resnets.specs.errors import UserError
from resnets.studies.bench import Prepared, System, reason_of
from resnets.studies.timing import LostError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection

_PATIENCE_SECONDS = 2


def prepare_in_process(system: System, threads: int = 0) -> Prepared:
    """Start a process, prepare `system` in it, and return what calls it there; its seconds are those of that process.

    Raises:
        LostError: the system cannot be prepared.
        UserError: what it was given is wrong.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(system, threads, theirs))
    with _without_interrupts():
        process.start()
    theirs.close()  # so that a process that dies ends our wait

    def close() -> None:
        ours.close()
        process.join(_PATIENCE_SECONDS)
        if process.is_alive():
            process.terminate()
            process.join()

    def ask(number: int) -> float:
        try:
            ours.send(number)
        except OSError:
            raise LostError("its process died") from None
        return _answer(ours)

    try:
        facts = _answer(ours)
    except BaseException:
        close()
        raise
    return Prepared(ask, facts, close)


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Hold Ctrl-C back in the block, and for good in processes that start in it: there it would end an import."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # its start would let Ctrl-C through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _answer(pipe: Connection) -> Any:
    try:
        kind, value = pipe.recv()
    except (EOFError, OSError):
        raise LostError("its process died, most often because memory was full") from None
    if kind == "refused":
        raise UserError(value)
    if kind == "failed":
        raise LostError(value)
    return value


def _serve(system: System, threads: int, pipe: Connection) -> None:
    """Prepare, then do the work as often as a number comes, until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then closes the pipe
    sys.stdout = sys.stderr  # some libraries print when they are imported
    with contextlib.suppress(OSError):  # the parent has gone
        _work(system, threads, pipe)


def _work(system: System, threads: int, pipe: Connection) -> None:
    if threads:
        import torch

        torch.set_num_threads(threads)
    try:
        prepared = system.prepare()
    except UserError as error:
        pipe.send(("refused", str(error)))
        return
    except Exception as error:
        pipe.send(("failed", reason_of(error)))
        return
    pipe.send(("done", prepared.facts))
    while True:
        try:
            number = pipe.recv()
        except EOFError:
            break
        started = time.perf_counter()
        try:
            own = prepared.run(number)
            took = own if isinstance(own, float) else time.perf_counter() - started
        except Exception as error:
            pipe.send(("failed", reason_of(error)))
            break
        pipe.send(("done", took))
    prepared.close()

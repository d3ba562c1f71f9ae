"""The threads that read images in a process that computes, between its computations: as many as it computes with.

Decoders let go of the interpreter, so threads share the work as well as processes do, and none is left that could take
a core away while the net computes.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")

_ITEMS_A_TASK = 4


def in_threads(work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """Return `work` of each item, in their order, done by as many threads as torch computes with."""
    threads = min(torch.get_num_threads(), -(-len(items) // _ITEMS_A_TASK))
    if threads <= 1:
        return list(map(work, items))
    tasks = [items[first : first + _ITEMS_A_TASK] for first in range(0, len(items), _ITEMS_A_TASK)]
    done = _threads(torch.get_num_threads()).map(lambda task: list(map(work, task)), tasks)
    return [result for results in done for result in results]


@functools.lru_cache(maxsize=1)
def _threads(count: int) -> ThreadPoolExecutor:
    """Return `count` threads in which torch computes on one thread each: they would compete with each other's."""
    pool = ThreadPoolExecutor(count, thread_name_prefix="reader")
    all_there = threading.Barrier(count)

    def alone(_: int) -> None:
        torch.get_num_threads()  # a thread takes the default at its first question or computation, after this too
        torch.set_num_threads(1)
        all_there.wait()

    list(pool.map(alone, range(count)))
    # What is set is of the thread that sets it, and the default of threads to come.
    torch.set_num_threads(count)
    return pool


if hasattr(os, "register_at_fork"):
    # A process that is forked has none of the threads, and would wait for them for ever.
    os.register_at_fork(after_in_child=_threads.cache_clear)

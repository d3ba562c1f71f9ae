"""Threads that read between computations: results in order, torch's own threads as they were."""

import multiprocessing
import os
import threading

import numpy as np
import pytest
import torch

from resnets.data import reading_threads
from resnets.data.reading_threads import in_threads


@pytest.fixture(params=[1, 2, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)
    reading_threads._threads.cache_clear()


@pytest.mark.parametrize("count", [0, 1, 4, 5, 37])
def test_results_come_in_order_from_as_many_threads_as_torch_has(threads, count):
    names = set()

    def work(item):
        names.add(threading.current_thread().name)
        return item**2

    assert in_threads(work, range(count)) == [item**2 for item in range(count)]
    assert len(names) <= threads


def test_torch_computes_on_one_thread_in_each_and_on_all_beside_them(threads):
    inside = in_threads(lambda _: torch.get_num_threads(), range(40))
    assert set(inside) == {1}
    assert torch.get_num_threads() == threads
    seen = []
    beside = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    beside.start()
    beside.join()
    assert seen == [threads]


def test_threads_of_torch_may_change_between_calls(threads):
    for count in (threads, 2, threads):
        torch.set_num_threads(count)
        np.testing.assert_array_equal(in_threads(abs, range(-20, 0)), np.arange(20, 0, -1))
        assert torch.get_num_threads() == count


def test_a_defect_comes_out(threads):
    with pytest.raises(ZeroDivisionError):
        in_threads(lambda item: 1 // item, range(9))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork")
def test_a_forked_process_reads_with_threads_of_its_own(threads):
    assert in_threads(abs, range(9)) == list(range(9))
    child = multiprocessing.get_context("fork").Process(target=_read_and_exit)
    child.start()
    child.join(120)
    ended = child.exitcode
    child.kill()
    assert ended == 0


def _read_and_exit():
    os._exit(0 if in_threads(abs, range(9)) == list(range(9)) else 1)

"""Work in processes: every item is answered once, whatever an item does to its process."""

import os
import signal
import subprocess
import sys
import time

import pytest

from resnets.data import worker_pool
from resnets.data.worker_pool import in_processes

pytestmark = pytest.mark.dist


def squares(batch):
    for item in batch:
        if item == "die":
            os._exit(3)
        if item == "hang":
            time.sleep(60)
        if item == "fail":
            raise ValueError("a defect of the function")
    return [item**2 for item in batch]


def collected(items, **options):
    results = {}
    for start, number, result in in_processes(
        squares, iter(items), lost=lambda item, why: [f"{item}: {why}"], **options
    ):
        assert number == len(result)
        for place, value in enumerate(result):
            assert start + place not in results
            results[start + place] = value
    return [results[index] for index in range(len(items))]


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("number", [0, 1, 100])
def test_every_item_is_answered_once(workers, number):
    assert collected(range(number), workers=workers) == [item**2 for item in range(number)]


def test_items_that_end_their_process_are_told_and_all_others_answered():
    items = list(range(70))
    items[3] = items[40] = items[69] = "die"
    results = collected(items, workers=2)
    for item, result in zip(items, results, strict=True):
        assert result == item**2 if item != "die" else "ended the process" in result


def test_an_item_that_hangs_is_told(monkeypatch):
    seconds = worker_pool._Worker.seconds

    def seconds_of_what_hangs(worker):
        # A process can take as long to start, where other programs use the machine.
        return seconds(worker) if "hang" in worker.batch[1] else 0.0

    monkeypatch.setattr(worker_pool, "_SECONDS_BETWEEN_LOOKS", 0.1)
    monkeypatch.setattr(worker_pool._Worker, "seconds", seconds_of_what_hangs)
    results = collected([0, 1, "hang", 3], workers=2, seconds_a_batch=0.3)
    assert results[:2] + results[3:] == [0, 1, 9]
    assert "did not end within" in results[2]


def test_a_defect_of_the_function_is_raised_and_leaves_no_process():
    import multiprocessing

    with pytest.raises(ValueError, match="a defect"):
        collected([1, 2, "fail"], workers=2)
    assert not multiprocessing.active_children()


def test_items_are_read_as_they_are_needed():
    read = 0

    def items():
        nonlocal read
        for number in range(10_000):
            read += 1
            yield number

    results = in_processes(squares, items(), workers=2, lost=lambda item, why: [])
    next(results)
    assert read < 200
    results.close()


SCRIPT = """
import os, time
from resnets.data.worker_pool import in_processes
def slow(batch):
    os.write(1, b"begun\\n")
    time.sleep(600)
try:
    list(in_processes(slow, range(100), workers=2, lost=None))
except KeyboardInterrupt:
    import multiprocessing
    print("left", len(multiprocessing.active_children()), flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the function of the script can be reached by fork only")
def test_ctrl_c_ends_every_process_at_once_and_in_silence():
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    for _ in range(2):  # each of the processes has its batch
        assert process.stdout.readline() == "begun\n"
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    out, err = process.communicate(timeout=120)
    assert (out, err) == ("left 0\n", "")


@pytest.mark.skipif(sys.platform != "linux", reason="only a process that is forked takes over what is replaced here")
def test_ctrl_c_does_not_end_a_process_that_starts(monkeypatch):
    serve = worker_pool._serve

    def interrupted(*arguments):
        os.kill(os.getpid(), signal.SIGINT)
        serve(*arguments)

    monkeypatch.setattr(worker_pool, "_serve", interrupted)
    assert collected(range(3), workers=2) == [0, 1, 4]

"""Worker processes that read ahead end with the process that asked them to, however that ends."""

import errno
import functools
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from torch.utils.data import Dataset

from resnets.data import read_ahead
from resnets.specs.errors import ResnetsError

forked = pytest.mark.skipif(
    multiprocessing.get_start_method() != "fork", reason="the classes of tests reach workers that are forked"
)

PROGRAM = """
import sys
import torch
from torch.utils.data import Dataset
from resnets.data import read_ahead

class Large(Dataset):
    def __getitem__(self, number):
        return bytes(10**6)  # more than a pipe holds

read_ahead._SECONDS_BETWEEN_LOOKS = 0.1
items = read_ahead.read_ahead(Large(), range(10), workers=2, device=torch.device("cpu"))
next(items)
print("begun", flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_workers_end_with_a_killed_parent_though_they_hold_more_than_can_be_sent():
    program = subprocess.Popen([sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert program.stdout is not None
    assert program.stdout.readline() == b"begun\n"
    time.sleep(0.3)  # the workers fill their pipes
    os.kill(program.pid, signal.SIGKILL)
    # The workers hold the far end of this pipe too.
    program.communicate(timeout=120)


class Items(Dataset):
    """Some items take long, or end their process."""

    def __init__(self, odd, folder=""):
        self.odd = odd
        self.folder = folder

    def __getitem__(self, number):
        if number in self.odd:
            self.odd[number]()
        return number

    def paths(self, number):
        return [f"{self.folder}{number}/{letter}.jpg" for letter in "abcdefg"]


def items(odd, *, count=3, workers=1, folder=""):
    return read_ahead.read_ahead(Items(odd, folder), range(count), workers=workers, device=torch.device("cpu"))


def die():
    os.kill(os.getpid(), signal.SIGKILL)


class DeathAfterAnItem:
    """A worker dies only when an item of it has been taken: what it made but has not sent is lost with it."""

    def __init__(self):
        self.taken = multiprocessing.Event()

    def die(self):
        assert self.taken.wait(120)
        die()

    def noted(self, received):
        for item in received:
            self.taken.set()
            yield item


class ClockOfAWait:
    """A minute goes by with every look while an item is waited for, which comes after ten looks; then it stands still."""

    def __init__(self):
        self.readings = 0
        self.over = multiprocessing.Event()

    def wait(self):
        assert self.over.wait(120)

    def monotonic(self):
        if self.over.is_set():
            return 60.0 * self.readings
        self.readings += 1
        if self.readings == 20:  # it is read before and after each look
            self.over.set()
        return 60.0 * self.readings


def refusal_of(taken, monkeypatch):
    monkeypatch.setattr(read_ahead, "_SECONDS_BETWEEN_LOOKS", 0.1)
    with pytest.raises(ResnetsError) as refused:
        list(taken)
    return str(refused.value)


@forked
def test_a_wait_of_minutes_is_said_once_with_the_images_that_are_waited_for(monkeypatch, capfd):
    monkeypatch.setattr(read_ahead, "_SECONDS_BETWEEN_LOOKS", 0.1)
    clock = ClockOfAWait()
    taken = items({1: clock.wait})
    assert next(taken) == 0  # the start of the process is no part of the wait
    monkeypatch.setattr(read_ahead, "time", clock)
    assert list(taken) == [1, 2]
    said = capfd.readouterr().err
    assert said.startswith("No images for 3 minutes, those waited for being 1/a.jpg, 1/b.jpg,")
    assert said.count("\n") == 1


@forked
def test_the_images_that_a_worker_was_asked_for_when_it_died_are_named(monkeypatch):
    death = DeathAfterAnItem()
    refusal = refusal_of(death.noted(items({1: death.die}, count=2)), monkeypatch)
    assert "an image kills it, one of 1/a.jpg, 1/b.jpg, 1/c.jpg, 1/d.jpg, 1/e.jpg and 2 more" in refusal
    assert "`resnets check-data DATA --quarantine` may find it" in refusal


@forked
def test_the_images_of_a_worker_whose_connection_ends_before_it_are_named(monkeypatch):
    lost = multiprocessing.Event()

    def die_later():
        assert lost.wait(120)
        time.sleep(0.5)
        die()

    def lose(processes, timeout=None):
        lost.set()
        raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))

    monkeypatch.setattr(read_ahead._Processes, "_try_get_data", lose)
    assert "one of 0/a.jpg" in refusal_of(items({0: die_later}, count=1), monkeypatch)


@forked
def test_the_images_of_the_workers_that_live_are_not_named(monkeypatch):
    slow = functools.partial(time.sleep, 1)  # the one that is waited for
    refusal = refusal_of(items({0: slow, 1: die}, workers=2), monkeypatch)
    assert "one of 1/a.jpg, 1/b.jpg, 1/c.jpg, 1/d.jpg, 1/e.jpg and 2 more" in refusal


@forked
@pytest.mark.parametrize("notes", [{}, {1: "another form"}, None])
def test_no_images_are_named_where_torch_keeps_other_notes(monkeypatch, notes):
    tell = read_ahead._Processes.paths_of_the_dead

    def tell_of_others(processes):
        processes._task_info = notes
        return tell(processes)

    monkeypatch.setattr(read_ahead._Processes, "paths_of_the_dead", tell_of_others)
    assert "an image kills it. `resnets check-data" in refusal_of(items({1: die}, count=2), monkeypatch)


@forked
def test_the_check_of_a_folder_is_not_proposed_for_an_address(monkeypatch):
    refusal = refusal_of(items({0: die}, folder="https://server/photos/"), monkeypatch)
    assert "one of https://server/photos/0/a.jpg" in refusal
    assert "check-data" not in refusal

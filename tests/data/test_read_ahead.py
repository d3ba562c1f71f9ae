"""Worker processes that read ahead end with the process that asked them to, however that ends."""

import functools
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
    program.communicate(timeout=60)


class Items(Dataset):
    """The second of three takes long, or ends its process."""

    def __init__(self, second):
        self.second = second

    def __getitem__(self, number):
        if number == 1:
            self.second()
        return number

    def paths(self, number):
        return [f"{number}/{letter}.jpg" for letter in "abcdefg"]


def items(second):
    return read_ahead.read_ahead(Items(second), range(3), workers=1, device=torch.device("cpu"))


def test_a_wait_of_minutes_is_said_once_with_the_images_that_are_waited_for(monkeypatch, capfd):
    monkeypatch.setattr(read_ahead, "_SECONDS_BETWEEN_LOOKS", 0.1)
    monkeypatch.setattr(read_ahead, "_SECONDS_OF_SILENCE", 1.0)
    assert list(items(functools.partial(time.sleep, 2))) == [0, 1, 2]
    said = capfd.readouterr().err
    assert said.startswith("No images for 1 minute, those waited for being 1/a.jpg, 1/b.jpg,")
    assert said.count("\n") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_the_images_that_were_due_when_a_worker_died_are_named(monkeypatch):
    monkeypatch.setattr(read_ahead, "_SECONDS_BETWEEN_LOOKS", 0.1)
    with pytest.raises(ResnetsError, match=r"one of 1/a\.jpg, .* and 2 more: `resnets check-data DATA --quarantine`"):
        list(items(lambda: os.kill(os.getpid(), signal.SIGKILL)))

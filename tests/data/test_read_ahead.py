"""Worker processes that read ahead end with the process that asked them to, however that ends."""

import os
import signal
import subprocess
import sys
import time

import pytest

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

"""Settings and fixtures of all tests: fixed seeds, few threads, no display, no network beyond this machine."""

import ipaddress
import os
import random
import socket
from pathlib import Path

import hypothesis
import pytest

# Before matplotlib is imported anywhere: no window, whatever the machine has.
os.environ["MPLBACKEND"] = "Agg"

# What a terminal is like is for each test to say: the one that tests are started from decides nothing.
for _name in ("COLUMNS", "LINES", "FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
    os.environ.pop(_name, None)

# Derandomised, so that a failure in one place is the failure in the other.
hypothesis.settings.register_profile("resnets", max_examples=25, deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("resnets")


@pytest.fixture(scope="session", autouse=True)
def _few_threads():
    """Two threads, or one where OMP_NUM_THREADS says so: tests are small, and more threads cost them time."""
    import torch

    torch.set_num_threads(min(2, torch.get_num_threads()))


@pytest.fixture(autouse=True)
def _seed():
    """Start every test from the same random state."""
    import numpy as np
    import torch

    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _loopback_only(monkeypatch):
    """Refuse connections that leave this machine; a test that needs the internet is wrong."""
    connect = socket.socket.connect

    def guarded(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_loopback(address[0]):
            raise AssertionError(f"a test tried to reach {address[0]}; tests use no network")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


def _is_loopback(host):
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@pytest.fixture(scope="session")
def testdata():
    """The folder of unpacked real images that RESNETS_TEST_DATA names; without it the test is skipped."""
    folder = os.environ.get("RESNETS_TEST_DATA")
    if not folder:
        pytest.skip("RESNETS_TEST_DATA is not set")
    return Path(folder)

"""What the studies ask of a GPU, without one: torch's answers are made up."""

from contextlib import contextmanager

import pytest
import torch

from resnets.studies import bench_steps
from resnets.studies.accelerator import has_tf32, wait_for


def test_gpus_from_ampere_on_have_tf32(monkeypatch):
    generations = {0: (7, 5), 1: (8, 0), 2: (12, 0)}
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: generations[device.index])
    assert [has_tf32(torch.device("cuda", number)) for number in range(3)] == [False, True, True]
    assert not has_tf32(torch.device("cpu"))
    assert not has_tf32(torch.device("mps"))


@pytest.mark.parametrize("kind", ["cpu", "cuda", "mps"])
def test_each_kind_of_gpu_is_waited_for(monkeypatch, kind):
    waited = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: waited.append("cuda"))
    monkeypatch.setattr(torch.mps, "synchronize", lambda: waited.append("mps"))
    wait_for(torch.device(kind))
    assert waited == [kind] * (kind != "cpu")


@pytest.fixture
def cuda(monkeypatch):
    """What was done on which GPU; cuda:0 is the current one unless another was made so."""
    done, current = [], [0]

    @contextmanager
    def device(one):
        before, current[0] = current[0], one.index
        yield
        current[0] = before

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            done.append(("event", current[0]))

        def elapsed_time(self, other):
            return 4000.0

    monkeypatch.setattr(torch.cuda, "device", device)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda one: done.append(("wait", one.index)))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: done.append(("empty", current[0])))
    return done, current


def test_the_events_of_a_turn_are_on_the_gpu_that_computes(cuda):
    done, current = cuda

    def start():
        return iter(lambda: done.append(("batch", current[0])), 0), lambda: done.append(("close", current[0]))

    def step(batch):
        done.append(("step", current[0]))

    assert bench_steps._turn(start, step, 2, 1, torch.device("cuda", 1)) == 2.0
    assert {number for _, number in done} == {1}
    names = [name for name, _ in done]
    assert names == ["batch", "step", "wait", "event", *["batch", "step"] * 2, "event", "wait", "close", "empty"]
    assert current == [0]


def test_on_apples_gpu_what_came_before_the_turn_is_not_timed(monkeypatch):
    now, queued = [0.0], [0.0]

    def wait():
        now[0] += queued[0]
        queued[0] = 0.0

    def step(batch):
        queued[0] += 1.0

    monkeypatch.setattr(torch.mps, "synchronize", wait)
    monkeypatch.setattr(torch.mps, "empty_cache", lambda: None)
    monkeypatch.setattr(bench_steps.time, "perf_counter", lambda: now[0])
    seconds = bench_steps._turn(lambda: (iter(int, 1), lambda: None), step, 4, 8, torch.device("mps"))
    assert seconds == 1.0

"""Processes of torchrun: on which GPU, over which backend, and what one asks the others."""

import os
import socket
import subprocess
import sys

import pytest
import torch
import torch.distributed

from resnets.engine.distributed import Distributed, distributed
from resnets.specs.errors import DeviceError

CUDA = torch.device("cuda")

ASKS = """
import os
import warnings
import torch
from resnets.engine.distributed import Distributed, distributed

warnings.simplefilter("error")
with distributed(torch.device("cpu")) as ranks:
    # A device without numbers stands in for a GPU: whoever waited for it would get none.
    asking = Distributed(rank=ranks.rank, world_size=ranks.world_size, device=torch.device("meta"))
    answers = [asking.any(flag) for flag in (False, ranks.rank == 1, True, False)]
    net = ranks.wrap(torch.nn.BatchNorm1d(2))
    net(torch.full((4, 2), float(ranks.rank))).sum().backward()
    ranks.share_buffers(net)
    means = ranks.gather([net.module.running_mean.tolist()])
    assert answers == [False, True, True, False], answers
    assert means[0] == means[1], means
# Leaving at once: torch aborts a few of the processes that end in order after a backward pass over gloo
# (https://github.com/pytorch/pytorch/pull/179291).
os._exit(0)
"""


@pytest.mark.dist
def test_ranks_answer_each_other_without_their_device(tmp_path):
    (tmp_path / "asks.py").write_text(ASKS)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    variables = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(tmp_path / "asks.py")],
            env=os.environ | variables | {"RANK": str(rank), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        errors = [process.communicate(timeout=120)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], errors


def test_one_process_answers_itself():
    alone = Distributed(device=torch.device("meta"))
    assert alone.any(True)
    assert not alone.any(False)


@pytest.fixture
def launched(monkeypatch):
    """Stand in for rank 1 of 2 on a machine of two GPUs; return what the group was started with."""
    started = {}
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.version, "hip", None)
    for name, answer in {
        "is_available": lambda: True,
        "device_count": lambda: 2,
        "get_arch_list": lambda: ["sm_80"],
        "get_device_capability": lambda index: (8, 0),
        "set_device": lambda device: started.update(current=device),
    }.items():
        monkeypatch.setattr(torch.cuda, name, answer)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: None)
    monkeypatch.setattr(
        torch.distributed, "init_process_group", lambda backend, **options: started.update(options, backend=backend)
    )
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    return started


def test_each_process_takes_a_gpu_and_asks_over_the_cpu(launched):
    with distributed(CUDA) as ranks:
        assert (ranks.rank, ranks.world_size, ranks.device) == (1, 2, torch.device("cuda:1"))
    assert launched["backend"] == "cpu:gloo,cuda:nccl"
    assert launched["current"] == launched["device_id"] == torch.device("cuda:1")


def test_processes_on_the_cpu_have_one_backend_and_no_gpu(launched):
    with distributed(torch.device("cpu")) as ranks:
        assert ranks.device == torch.device("cpu")
    assert (launched["backend"], launched["device_id"]) == ("gloo", None)
    assert "current" not in launched


def test_a_launcher_that_tells_no_local_rank_gives_the_first_gpu(launched, monkeypatch):
    monkeypatch.delenv("LOCAL_RANK")
    with distributed(CUDA) as ranks:
        assert ranks.device == torch.device("cuda:0")


def test_more_processes_than_gpus_are_refused_before_they_wait_for_each_other(launched, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(DeviceError, match=r"This is process 2 .* 2; start as many: torchrun"), distributed(CUDA):
        pass
    assert not launched


def test_a_gpu_of_a_rank_that_torch_has_no_kernels_for_is_refused(launched, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (7, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "an old GPU")
    with (
        pytest.raises(DeviceError, match="cuda:1 cannot work: this torch has no kernels for an old GPU"),
        distributed(CUDA),
    ):
        pass
    assert not launched

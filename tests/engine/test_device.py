"""Devices that cannot work are refused with the reason; what a GPU is set to is set, and put back."""

import os

import pytest
import torch

from resnets.engine import device as engine_device
from resnets.engine.device import (
    check_precision,
    choose_device,
    deterministic,
    set_up,
    use,
    use_channels_last,
    without_trials,
    worker_processes,
)
from resnets.specs.errors import DeviceError
from resnets.specs.run import Machine

CUDA = torch.device("cuda:1")
EXACT = Machine(deterministic=True)


@pytest.fixture
def gpus(monkeypatch):
    """Stand in for two GPUs, of the capabilities in the list that is returned; note which is made the current one."""
    capabilities, chosen = [(7, 5), (9, 0)], []
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.version, "hip", None)
    for name, answer in {
        "is_available": lambda: True,
        "device_count": lambda: len(capabilities),
        "current_device": lambda: 0,
        "get_arch_list": lambda: ["sm_75", "sm_80", "sm_90a"],
        "get_device_name": lambda index: f"GPU number {index}",
        "get_device_capability": lambda device: capabilities[getattr(device, "index", device) or 0],
        "set_device": chosen.append,
        "is_bf16_supported": lambda: True,
    }.items():
        monkeypatch.setattr(torch.cuda, name, answer)
    engine_device._say_once.cache_clear()
    return capabilities, chosen


@pytest.fixture
def settings():
    """Put torch's settings back, and return what reads those that belong to a GPU."""
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.allow_tf32
    yield lambda: (
        cudnn.benchmark,
        cudnn.deterministic,
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,
        os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
    )
    cudnn.benchmark, cudnn.allow_tf32 = before


def test_cpu_is_always_there():
    assert choose_device("cpu") == torch.device("cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_cuda_without_a_gpu_says_what_to_use():
    with pytest.raises(DeviceError, match=r"cuda cannot work: .* Use --device cpu"):
        choose_device("cuda")


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "", "CPU", "cuda:-1"])
def test_unknown_names_list_what_is_allowed(name):
    with pytest.raises(DeviceError, match=r"auto, cpu, cuda, cuda:N or mps"):
        choose_device(name)


def test_a_number_that_no_gpu_has_is_refused(gpus):
    with pytest.raises(DeviceError, match=r"cuda:2 cannot work: this machine has 2 GPU"):
        choose_device("cuda:2")


@pytest.mark.parametrize("capability", [(7, 5), (8, 0), (8, 9), (9, 0)])
def test_code_of_an_earlier_capability_of_the_same_generation_runs(gpus, capability):
    gpus[0][0] = capability
    assert choose_device("auto") == choose_device("cuda") == torch.device("cuda")


@pytest.mark.parametrize("capability", [(7, 0), (6, 1), (12, 0)])
def test_auto_leaves_out_a_gpu_that_torch_has_no_kernels_for_and_says_so_once(gpus, capsys, capability):
    gpus[0][0] = capability
    assert choose_device("auto") == choose_device("auto") == torch.device("cpu")
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert f"no kernels for GPU number 0 of capability {capability[0]}.{capability[1]} (it has them for sm_75" in shown


def test_a_gpu_without_kernels_that_is_asked_for_is_refused(gpus):
    gpus[0][1] = (7, 0)
    with pytest.raises(DeviceError, match=r"cuda:1 cannot work: this torch has no kernels for GPU number 1"):
        choose_device("cuda:1")
    assert choose_device("cuda:0") == torch.device("cuda:0")


def test_portable_code_runs_on_every_later_gpu(gpus, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "compute_90"])
    gpus[0][:] = [(12, 0), (8, 0)]
    assert choose_device("cuda:0") == torch.device("cuda:0")
    with pytest.raises(DeviceError, match="no kernels"):
        choose_device("cuda:1")


def test_half_precision_on_mps_is_refused():
    with pytest.raises(DeviceError, match="fp32"):
        check_precision("bf16", torch.device("mps"))


def test_emulated_bf16_is_refused_on_the_gpu_that_is_meant(gpus):
    check_precision("bf16", torch.device("cuda:1"))
    check_precision("fp16", torch.device("cuda:0"))
    with pytest.raises(DeviceError, match=r"Ampere .* on cuda:0"):
        check_precision("bf16", torch.device("cuda:0"))


def test_gpus_of_amd_have_bf16(gpus, monkeypatch):
    monkeypatch.setattr(torch.version, "hip", "7.0")
    check_precision("bf16", torch.device("cuda:0"))


def test_a_gpu_with_a_number_becomes_the_current_one(gpus, settings):
    set_up(torch.device("cuda"), Machine())
    assert gpus[1] == []
    use(CUDA)
    set_up(CUDA, Machine())
    assert gpus[1] == [CUDA, CUDA]


def test_fp32_is_fp32_and_other_programs_can_still_ask(gpus, settings):
    use(CUDA)
    assert torch.backends.cudnn.conv.fp32_precision == "ieee"
    assert torch.backends.cudnn.allow_tf32 is False
    with torch.backends.cudnn.flags(enabled=True, benchmark=True):
        pass
    assert torch.backends.cudnn.allow_tf32 is False


def test_algorithms_are_tried_except_where_shapes_change(gpus, settings):
    set_up(CUDA, Machine())
    assert torch.backends.cudnn.benchmark
    with without_trials():
        assert not torch.backends.cudnn.benchmark
    assert torch.backends.cudnn.benchmark


def test_a_deterministic_run_is_set_up_as_torch_documents_and_leaves_nothing_behind(gpus, settings, monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    set_up(CUDA, Machine())
    before = settings()
    with deterministic(CUDA, EXACT):
        assert settings() == (False, True, True, True, False, ":4096:8")
    assert settings() == before
    with pytest.raises(KeyError), deterministic(CUDA, EXACT):
        raise KeyError
    assert settings() == before


def test_setting_up_a_deterministic_run_again_keeps_it_so(gpus, settings):
    with deterministic(CUDA, EXACT):
        set_up(CUDA, EXACT)
        assert not torch.backends.cudnn.benchmark


@pytest.mark.parametrize(("device", "machine"), [("cpu", EXACT), ("mps", EXACT), ("cuda:1", Machine())])
def test_other_devices_and_runs_are_not_touched(settings, device, machine):
    before = settings()
    with deterministic(torch.device(device), machine):
        assert settings() == before


def test_memory_layout_follows_the_device_unless_given():
    assert use_channels_last(torch.device("cpu"), Machine())
    assert not use_channels_last(torch.device("mps"), Machine())
    assert not use_channels_last(torch.device("cpu"), Machine(channels_last="no"))


@pytest.mark.parametrize(("cores", "ranks", "workers"), [(16, "8", 2), (16, "1", 8), (4, "8", 1), (6, None, 6)])
def test_processes_of_torchrun_share_the_cores(monkeypatch, cores, ranks, workers):
    monkeypatch.setattr(engine_device, "usable_cores", lambda: cores)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    if ranks is not None:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", ranks)
    assert worker_processes(Machine(), CUDA) == workers
    assert worker_processes(Machine(workers=3), CUDA) == 3

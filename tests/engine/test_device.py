"""Devices that cannot work are refused with the reason."""

import pytest
import torch

from resnets.engine.device import check_precision, choose_device, use_channels_last
from resnets.specs.errors import DeviceError
from resnets.specs.run import Machine


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


def test_half_precision_on_mps_is_refused():
    with pytest.raises(DeviceError, match="fp32"):
        check_precision("bf16", torch.device("mps"))


def test_memory_layout_follows_the_device_unless_given():
    assert use_channels_last(torch.device("cpu"), Machine())
    assert not use_channels_last(torch.device("mps"), Machine())
    assert not use_channels_last(torch.device("cpu"), Machine(channels_last="no"))

"""Which device a run uses, and how it is set up for speed."""

from __future__ import annotations

import ctypes
import sys
from typing import TYPE_CHECKING

import torch

from resnets.specs.cores import usable_cores
from resnets.specs.errors import DeviceError

if TYPE_CHECKING:
    from resnets.specs.run import Machine

# Parameters of glibc's mallopt (malloc.h).
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_KEEP_BYTES = 2**31 - 1


def choose_device(name: str) -> torch.device:
    """Return the device called `name`; "auto" is cuda, else mps, else cpu.

    Raises:
        DeviceError: the name is unknown, or the device cannot work here, with the reason.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (index and not index.isdigit()):
        raise DeviceError(f"--device is {name!r}; it is auto, cpu, cuda, cuda:N or mps.")
    if kind == "cuda":
        _check_cuda(name, int(index or 0))
    if kind == "mps" and not torch.backends.mps.is_available():
        built = torch.backends.mps.is_built()
        reason = "this machine has no Apple GPU that torch can use" if built else "this torch was built without MPS"
        raise DeviceError(f"--device mps cannot work: {reason}. Use --device cpu.")
    return torch.device(name)


def _check_cuda(name: str, index: int) -> None:
    if torch.version.cuda is None and getattr(torch.version, "hip", None) is None:
        raise DeviceError(f"--device {name} cannot work: this torch was built without CUDA. Use --device cpu.")
    if not torch.cuda.is_available():
        raise DeviceError(
            f"--device {name} cannot work: torch finds no NVIDIA driver or GPU on this machine. Use --device cpu."
        )
    if index >= torch.cuda.device_count():
        raise DeviceError(
            f"--device {name} cannot work: this machine has {torch.cuda.device_count()} GPU(s), counted from cuda:0."
        )


def check_precision(precision: str, device: torch.device) -> None:
    """Refuse a precision that the device cannot compute in.

    Raises:
        DeviceError: naming what works.
    """
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise DeviceError(
            f"precision bf16 needs a GPU of the Ampere generation or newer; use fp16 or fp32 on {device}."
        )
    if precision != "fp32" and device.type == "mps":
        raise DeviceError(f"precision {precision} is not supported on mps; use fp32.")


def set_up(device: torch.device, machine: Machine) -> None:
    """Set threads and allocator for training on `device`."""
    if machine.threads:
        torch.set_num_threads(machine.threads)
    if device.type == "cpu":
        keep_freed_memory()
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        # "fp32" means fp32: by default cuDNN's convolutions round to the 10 bits of TF32.
        torch.backends.cudnn.conv.fp32_precision = "ieee"  # pyright: ignore[reportAttributeAccessIssue]


def worker_processes(machine: Machine, device: torch.device | None) -> int:
    """Return the number of processes that decode images, unless it is given: one a core, at most 8.

    None where the net computes on the CPU: its threads wait for the slowest, and one that shares its core with a worker
    stops all. There, they decode themselves, between the steps. `device` is None where no net computes.
    """
    if machine.workers >= 0:
        return machine.workers
    if device is not None and device.type == "cpu":
        return 0
    return min(8, usable_cores())


def use_channels_last(device: torch.device, machine: Machine) -> bool:
    """Return whether images and weights are stored n h w c."""
    if machine.channels_last == "auto":
        return device.type in ("cpu", "cuda")
    return machine.channels_last == "yes"


def keep_freed_memory() -> None:
    """Ask glibc to reuse large freed buffers instead of returning them to the kernel.

    Every step of CPU training frees and allocates the same activations; by default glibc unmaps them and
    each page is faulted in and zeroed again. Other C libraries are left alone.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, _KEEP_BYTES)

"""Which device a run uses, and how it is set up for speed."""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from resnets.specs.cores import usable_cores
from resnets.specs.errors import DeviceError
from resnets.specs.visible import in_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from resnets.specs.run import Machine

# Parameters of glibc's mallopt (malloc.h).
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_KEEP_BYTES = 2**31 - 1


def choose_device(name: str) -> torch.device:
    """Return the device called `name`; "auto" is cuda, else mps, else cpu.

    A GPU that this torch has no kernels for is left out by "auto", which says so on stderr.

    Raises:
        DeviceError: the name is unknown, or the device cannot work here, with the reason.
    """
    if name == "auto":
        if torch.cuda.is_available():
            missing = _missing_kernels(torch.cuda.current_device())
            if missing is None:
                return torch.device("cuda")
            _say_once(f"note: the CPU computes, since {missing}. Another build of torch may have them.")
            return torch.device("cpu")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (index and not index.isdigit()):
        raise DeviceError(f"--device is {name!r}; it is auto, cpu, cuda, cuda:N or mps.")
    if kind == "cuda":
        check_cuda(name, int(index) if index else None)
    if kind == "mps" and not torch.backends.mps.is_available():
        built = torch.backends.mps.is_built()
        reason = "this machine has no Apple GPU that torch can use" if built else "this torch was built without MPS"
        raise DeviceError(f"--device mps cannot work: {reason}. Use --device cpu.")
    return torch.device(name)


def check_cuda(name: str, index: int | None) -> None:
    """Refuse a GPU that cannot work here; None is torch's current one.

    Raises:
        DeviceError: with the reason; it calls the GPU `name`.
    """
    if torch.version.cuda is None and torch.version.hip is None:
        raise DeviceError(f"--device {name} cannot work: this torch was built without CUDA. Use --device cpu.")
    if not torch.cuda.is_available():
        raise DeviceError(
            f"--device {name} cannot work: torch finds no NVIDIA driver or GPU on this machine. Use --device cpu."
        )
    if index is not None and index >= torch.cuda.device_count():
        raise DeviceError(
            f"--device {name} cannot work: this machine has {torch.cuda.device_count()} GPU(s), counted from cuda:0."
        )
    missing = _missing_kernels(torch.cuda.current_device() if index is None else index)
    if missing is not None:
        raise DeviceError(
            f"--device {name} cannot work: {missing}. Another build of torch may have them; or use --device cpu."
        )


def _missing_kernels(index: int) -> str | None:
    """Return that this torch has no kernels for a GPU; None where it has some.

    Code of a compute capability runs on the later ones of the same major number, and PTX on all later ones. A kernel
    that is tried would say the same, but takes memory of the GPU, in each process that only starts others.
    """
    names = torch.cuda.get_arch_list()
    if torch.version.cuda is None or not names:
        return None
    major, minor = torch.cuda.get_device_capability(index)
    for name in names:
        kind, _, number = name.partition("_")
        built = divmod(int(number.rstrip("af")), 10)
        if built <= (major, minor) and (kind == "compute" or built[0] == major):
            return None
    gpu = torch.cuda.get_device_name(index)
    return f"this torch has no kernels for {gpu} of capability {major}.{minor} (it has them for {', '.join(names)})"


@functools.cache
def _say_once(text: str) -> None:
    print(in_line(text), file=sys.stderr, flush=True)


def check_precision(precision: str, device: torch.device) -> None:
    """Refuse a precision that the device cannot compute in.

    Raises:
        DeviceError: naming what works.
    """
    # torch's own question, is_bf16_supported, counts emulation, and asks the current GPU.
    is_nvidia = device.type == "cuda" and torch.version.hip is None
    if precision == "bf16" and is_nvidia and torch.cuda.get_device_capability(device) < (8, 0):
        raise DeviceError(
            f"precision bf16 needs a GPU of the Ampere generation or newer; use fp16 or fp32 on {device}."
        )
    if precision != "fp32" and device.type == "mps":
        raise DeviceError(f"precision {precision} is not supported on mps; use fp32.")


def set_up(device: torch.device, machine: Machine) -> None:
    """Set threads, allocator and arithmetic for training or evaluation on `device`."""
    if machine.threads:
        torch.set_num_threads(machine.threads)
    if device.type == "cpu":
        keep_freed_memory()
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = not machine.deterministic
    use(device)


def use(device: torch.device) -> None:
    """Make a GPU that has a number torch's current one, and have it compute fp32 as fp32."""
    if device.type != "cuda":
        return
    if device.index is not None:
        torch.cuda.set_device(device)
    # By default cuDNN's convolutions round fp32 to the 10 bits of TF32. The old name is set too: while both disagree,
    # `torch.backends.cudnn.flags` and whatever else reads it fails.
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # pyright: ignore[reportAttributeAccessIssue]


@contextmanager
def deterministic(device: torch.device, machine: Machine) -> Iterator[None]:
    """Have a GPU give the same bits each time in the block, if `machine` asks for it; leave torch as it was.

    An operation that cannot is done all the same, with torch's warning: the gradient of VGG's adaptive pooling is the
    only one of ours. cuBLAS reads its variable once in a process.
    """
    if device.type != "cuda" or not machine.deterministic:
        yield
        return
    memory: Any = torch.utils.deterministic
    variable = "CUBLAS_WORKSPACE_CONFIG"
    algorithms = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn = torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic
    filling, workspace = memory.fill_uninitialized_memory, os.environ.get(variable)
    os.environ.setdefault(variable, ":4096:8")
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True
    torch.use_deterministic_algorithms(True, warn_only=True)
    memory.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(algorithms, warn_only=warn_only)
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = cudnn
        memory.fill_uninitialized_memory = filling
        if workspace is None:
            os.environ.pop(variable, None)


@contextmanager
def without_trials() -> Iterator[None]:
    """Have cuDNN take an algorithm untried in the block.

    For passes of ever new shapes: with `set_up`, it tries all algorithms at the first pass of each.
    """
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def worker_processes(machine: Machine, device: torch.device | None) -> int:
    """Return the number of processes that decode images, unless it is given: one a core, at most 8.

    The cores are shared with the other processes of torchrun on this machine, which have as many each.

    None where the net computes on the CPU: its threads wait for the slowest, and one that shares its core with a worker
    stops all. There, they decode themselves, between the steps. `device` is None where no net computes.
    """
    if machine.workers >= 0:
        return machine.workers
    if device is not None and device.type == "cpu":
        return 0
    ranks_here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, min(8, usable_cores() // ranks_here))


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

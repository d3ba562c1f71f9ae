"""What the studies ask of a GPU: to have done its work, to give memory back, and whether it has TF32."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def wait_for(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def give_back(device: torch.device) -> None:
    """Give the memory that is cached for new tensors back to the device, for other processes on it."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def is_current(device: torch.device) -> AbstractContextManager[object]:
    """Return the context in which `device` is the GPU that events and pinned memory belong to without being asked."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def has_tf32(device: torch.device) -> bool:
    """Return whether torch computes fp32 convolutions on the device in TF32 unless it is told otherwise."""
    is_cuda = device.type == "cuda" and getattr(torch.version, "hip", None) is None
    return is_cuda and torch.cuda.get_device_capability(device) >= (8, 0)

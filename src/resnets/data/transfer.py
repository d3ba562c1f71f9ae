"""Tensors on their way from ordinary memory of the CPU to a device."""

import torch
from torch import Tensor


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Return `tensor`, which is in ordinary memory of the CPU, on the device.

    CUDA has read such memory before the call returns, and need not be waited for. MPS reads it later if it is not: by
    then it may belong to something else.
    """
    return tensor.to(device, non_blocking=device.type == "cuda")

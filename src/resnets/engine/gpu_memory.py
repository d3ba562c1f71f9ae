"""A GPU without enough memory: how that is recognised, and forward passes that get by with fewer images."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

import torch

from resnets.specs.errors import DeviceError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

# What torch does not raise as OutOfMemoryError: Apple's GPUs, CUDA where a process begins to use a GPU that others
# fill, and NVIDIA's libraries about memory of their own.
_OTHER_MESSAGES = (
    "MPS backend out of memory",
    "CUDA error: out of memory",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether torch raised `error` because a GPU has too little free memory.

    >>> is_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 18.13 GiB)"))
    True
    >>> is_out_of_memory(RuntimeError("shapes cannot be multiplied"))
    False
    """
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _OTHER_MESSAGES)


def release(error: BaseException) -> None:
    """Free what the functions that `error` has left still hold, and what torch keeps to use again."""
    traceback.clear_frames(error.__traceback__)
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


def no_memory(error: BaseException) -> DeviceError:
    """Return the error that a person is told where nothing more is known than what torch says."""
    said = ". ".join(str(error).split(". ")[:2]).partition("\n")[0].rstrip(".")
    return DeviceError(
        f"The GPU has too little free memory for this: {said}. End what else uses it, or give --device cpu."
    )


class ForwardPasses:
    """Forward passes over images of any number: of half as many as before, once memory was not enough.

    What a pass gives for an image does not depend on the others, so only speed depends on how many they are.
    """

    def __init__(self, most: int, device: torch.device, precision: str) -> None:
        """Begin with at most `most` images a pass."""
        self._images = max(1, most)
        self._device = device
        self._precision = precision

    def __call__(self, forward: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        """Return what `forward` gives for all images, a row or more each, in their order.

        Args:
            forward: from images (n, …) to n results; without gradients.
            images: (n, channels, height, width), at least one.

        Raises:
            DeviceError: the memory is not enough for one image.
        """
        results: list[Tensor] = []
        done = 0
        while done < len(images):
            part = images[done : done + self._images]
            result = self._tried(forward, part)
            if result is not None:
                results.append(result)
                done += len(part)
            elif len(part) == 1:
                raise self._too_large(part)
            else:
                self._images = len(part) // 2
        return results[0] if len(results) == 1 else torch.cat(results)

    @staticmethod
    def _tried(forward: Callable[[Tensor], Tensor], images: Tensor) -> Tensor | None:
        """Return the results; None, with the memory free again, where it was not enough."""
        try:
            return forward(images)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            release(error)
            return None

    def _too_large(self, images: Tensor) -> DeviceError:
        height, width = images.shape[-2:]
        smaller = ""
        if self._precision == "fp32" and self._device.type == "cuda":
            smaller = "--precision bf16 (fp16 on a GPU before Ampere), which takes about half of it, or "
        return DeviceError(
            f"The memory of {self._device} is not enough for one image of {height} x {width} px in {self._precision}. Give "
            f"{smaller}--device cpu."
        )

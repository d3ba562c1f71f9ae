"""Whether the largest scale of a dense test fits into memory, asked before the first image is read."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from resnets.data.views import REFERENCE_CROP_PX, shorter_sides
from resnets.specs.counts import layers
from resnets.specs.errors import SpecError, UserError

if TYPE_CHECKING:
    from resnets.artifacts.model_folder import StoredModel
    from resnets.specs.model import ModelSpec
    from resnets.specs.protocol import Dense


def check_memory(protocol: Dense, stored: StoredModel, name: str, precision: str, available: int | None) -> None:
    """Refuse scales at which one image needs more memory than there is.

    Args:
        protocol: with the scales.
        stored: the model; of a net of the user's own nothing is known, and nothing is refused.
        name: what messages call it.
        precision: of the forward pass.
        available: free bytes; None where that is not known, and nothing is refused.

    Raises:
        UserError: naming the largest scale and what it needs.
    """
    side, scale = max(zip(shorter_sides(protocol, stored.preprocessor.spec.crop_px), protocol.scales_px, strict=True))
    needed = _least_values(stored.spec, side) * (4 if precision == "fp32" else 2) * (2 if protocol.flips else 1)
    if available is not None and needed > available:
        halved = " or --no-flips, which halves it" if protocol.flips else ""
        raise UserError(
            f"--scales: {scale}, for a crop of {REFERENCE_CROP_PX}, is {side} px for {name}, at which one square image "
            f"needs at least {needed / 2**30:.1f} GiB, and {available / 2**30:.1f} GiB are free; give smaller scales"
            f"{halved}."
        )


def _least_values(spec: ModelSpec, side: int) -> int:
    """Return how many values of an image are in memory at once at the least: a layer has its input and its output."""
    try:
        found = layers(spec, side, side)
    except SpecError:  # a net of the user's own, or an image that is too small for it
        return 0
    path = [layer for layer in found if layer.branch == "main" and layer.kind in ("conv", "pool")]
    sizes = [spec.in_channels * side**2, *(layer.out_channels * layer.height * layer.width for layer in path)]
    return max(map(sum, itertools.pairwise(sizes)))


def available_bytes(device: torch.device) -> int | None:
    """Return the memory that new tensors can have on a device, swap included; None where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type != "cpu":
        return None
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        kilobytes = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
        return 1024 * (kilobytes["MemAvailable"] + kilobytes["SwapFree"])
    except (OSError, ValueError, LookupError):  # another system
        return None

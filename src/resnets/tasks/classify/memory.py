"""Whether the largest scale of a dense test fits into memory, asked before the first image is read."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

from resnets.data.views import REFERENCE_CROP_PX, shorter_sides
from resnets.specs.counts import layers
from resnets.specs.errors import SpecError, UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

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


def available_bytes(device: torch.device, root: Path = Path("/")) -> int | None:
    """Return the memory that new tensors can have on a device, swap included; None where the system does not say.

    On a CPU it is what the machine has left, or the control group (of a container or a job), whichever is less.

    Args:
        device: where the tensors are.
        root: folder with the system's proc and sys.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type != "cpu":
        return None
    kilobytes = _table(root / "proc/meminfo")
    if not {"MemAvailable", "SwapFree"} <= set(kilobytes):  # another system
        return None
    swap = 1024 * kilobytes["SwapFree"]
    groups = (_left_in_group(folder, names, swap) for folder, names in _control_groups(root))
    return min([1024 * kilobytes["MemAvailable"] + swap, *(left for left in groups if left is not None)])


class _Names(NamedTuple):
    """Files of a control group, and the entries of its memory.stat for caches of files, which give way to tensors."""

    limit: str
    used: str
    swap_limit: str | None
    swap_used: str | None
    caches: tuple[str, str]


_SECOND = _Names(
    "memory.max", "memory.current", "memory.swap.max", "memory.swap.current", ("active_file", "inactive_file")
)
# What version 1 limits besides is memory and swap together, which is left out: nothing is refused that may fit.
_FIRST = _Names(
    "memory.limit_in_bytes", "memory.usage_in_bytes", None, None, ("total_active_file", "total_inactive_file")
)


def _control_groups(root: Path) -> Iterator[tuple[Path, _Names]]:
    """Yield the folder of each control group with a say on memory, from that of this process up to the outermost.

    In a container the path that the system names may be one outside; folders that are not there say nothing.
    """
    for line in _lines(root / "proc/self/cgroup"):
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "memory" not in controllers.split(","):
            continue
        top = root / ("sys/fs/cgroup/memory" if controllers else "sys/fs/cgroup")
        group = top / path.lstrip("/")
        yield from (
            (folder, _FIRST if controllers else _SECOND)
            for folder in (group, *group.parents)
            if folder.is_relative_to(top)
        )


def _left_in_group(folder: Path, names: _Names, swap: int) -> int | None:
    """Return the bytes that a control group leaves; None where it sets no limit. `swap` is free on the machine."""
    limit, used = _number(folder / names.limit), _number(folder / names.used)
    if limit is None or used is None:
        return None
    if names.swap_limit is not None and names.swap_used is not None:
        swap_limit, swap_used = _number(folder / names.swap_limit), _number(folder / names.swap_used)
        if swap_limit is not None and swap_used is not None:
            swap = min(swap, max(0, swap_limit - swap_used))
    entries = _table(folder / "memory.stat")
    return max(0, limit - used + sum(entries.get(name, 0) for name in names.caches)) + swap


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):  # it is not there, or says max
        return None


def _table(path: Path) -> dict[str, int]:
    """Return the numbers of a file with a name and a number a line; lines of another form are left out."""
    pairs = (line.replace(":", " ").split()[:2] for line in _lines(path))
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii", errors="surrogateescape").splitlines()
    except OSError:
        return []

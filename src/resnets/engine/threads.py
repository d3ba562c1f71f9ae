"""With how many threads torch computes: small work is faster on one, since several wait for each other."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch compute with `count` threads until the end of the block; 0 leaves as many as there are."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)

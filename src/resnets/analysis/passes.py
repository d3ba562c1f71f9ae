"""How far passes over images have come, told layer by layer: one batch of a deep net can take minutes."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


@contextmanager
def told(
    model: nn.Module, on_images: Callable[[int, int], None], *, of: int
) -> Iterator[Callable[[Iterable[Tensor]], Iterator[Tensor]]]:
    """Give a function that passes batches on to the model, and tell `on_images` how many images are done of how many.

    While the model works on a batch, as large a share of it counts as done as of the BatchNorms has run. Nothing stays
    attached to the model afterwards.

    Args:
        model: what the batches go through.
        on_images: takes the images done, never fewer than before, and `of`.
        of: images of all passes together.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    done = working = ran = 0

    def after_norm(*_: Any) -> None:
        nonlocal ran
        ran = min(ran + 1, len(norms))
        on_images(min(done + working * ran // len(norms), of), of)

    def passed_on(batches: Iterable[Tensor]) -> Iterator[Tensor]:
        nonlocal done, working, ran
        for batch in batches:
            working, ran = len(batch), 0
            yield batch
            done, working = done + working, 0
            on_images(min(done, of), of)

    handles = [norm.register_forward_hook(after_norm) for norm in norms]
    try:
        yield passed_on
    finally:
        for handle in handles:
            handle.remove()

"""Which BatchNorm normalises which convolution, found while a net runs, so that it holds for blocks of one's own too."""

from __future__ import annotations

import functools
import weakref
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_SHORTCUT = "downsample"
"""Name of a block's projection, here and in torchvision; it is no layer of the main path."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A convolution and the BatchNorm after it."""

    convolution: str
    """Name of its module: `layer1.0.conv2`."""
    norm: str
    """Name of its BatchNorm: `layer1.0.bn2`."""
    kernel: int
    """Larger side of its kernel, in pixels."""

    @property
    def block(self) -> str:
        """Name of the module that holds it, such as `layer1.0`; empty for the first layer of a net."""
        return self.norm.rpartition(".")[0]


@contextmanager
def watched(
    model: nn.Module, on_response: Callable[[Layer, nn.BatchNorm2d, Tensor], None], *, shortcuts: bool = False
) -> Iterator[None]:
    """Call `on_response` with the output of each BatchNorm that follows a convolution, in the order of the forward pass.

    The output is what the net goes on to work on in place: a copy is needed to keep it. Projections in shortcuts are
    left out unless `shortcuts` asks for them. Nothing stays attached to the model afterwards.
    """
    produced: dict[int, tuple[str, int, weakref.ref[Tensor]]] = {}

    def after_convolution(name: str, module: Any, inputs: Any, output: Any) -> None:
        produced[id(output)] = (name, max(module.kernel_size), weakref.ref(output))

    def after_norm(name: str, module: Any, inputs: Any, output: Any) -> None:
        convolution, kernel, reference = produced.pop(id(inputs[0]), ("", 0, None))
        # The id may be that of another tensor, which is freed by now.
        if reference is not None and reference() is inputs[0]:
            on_response(Layer(convolution, name, kernel), module, output)

    handles = []
    for name, module in model.named_modules():
        if not shortcuts and _SHORTCUT in name.split("."):
            continue
        if isinstance(module, nn.Conv2d):
            handles.append(module.register_forward_hook(functools.partial(after_convolution, name)))
        elif isinstance(module, nn.BatchNorm2d):
            handles.append(module.register_forward_hook(functools.partial(after_norm, name)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()

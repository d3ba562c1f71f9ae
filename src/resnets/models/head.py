"""The last fully-connected layer: what a change of classes replaces, and what learns first in fine-tuning."""

from torch import nn

from resnets.specs.errors import ModelError


def head_name(model: nn.Module) -> str:
    """Return the name of the last fully-connected layer, which gives the logits: `fc`, or `classifier.6` in VGG.

    Raises:
        ModelError: the net has no fully-connected layer.
    """
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not names:
        raise ModelError(
            f"{type(model).__name__} has no fully-connected layer: there is no last layer that could be replaced, or "
            "trained alone."
        )
    return names[-1]

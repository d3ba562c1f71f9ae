"""Initial weights (He et al. 2015, Sec. 3.4; the initialisation is that of He et al. 2015, "Delving Deep")."""

from torch import nn

LINEAR_STD = 0.01
"""Standard deviation of fully-connected weights, which the paper does not state."""


def initialise(model: nn.Module) -> None:
    """Draw new weights for every layer of `model` from the global random state.

    Convolutions, gates of highway nets included: normal with standard deviation sqrt(2 / (k * k * c_out)), the
    fan-out form. BatchNorm: scale 1, shift 0. Fully-connected: normal with standard deviation 0.01. Biases: 0;
    a highway block sets that of its gate afterwards.

    The last scale of a block is not set to 0, a later habit that would make residual and plain nets start from
    different functions for a reason that is not the shortcut.
    """
    if any(parameter.is_meta for parameter in model.parameters()):
        return  # there are no values to draw, and torch would import its compiler to draw none
    for module in model.modules():
        match module:
            case nn.Conv2d():
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            case nn.BatchNorm2d():
                module.reset_parameters()
            case nn.Linear():
                nn.init.normal_(module.weight, std=LINEAR_STD)
                nn.init.zeros_(module.bias)

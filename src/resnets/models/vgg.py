"""VGG-16 and VGG-19, the nets the paper compares with (Simonyan and Zisserman 2015; Fig. 3, left).

3x3 convolutions with bias and no BatchNorm. A state dict has torchvision's keys: features.0, ..., classifier.6.
Shapes: n images, c channels, h x w pixels.
"""

import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor, nn

from resnets.models.features import FeatureShape
from resnets.models.init import initialise
from resnets.specs.counts import VGG_GRID
from resnets.specs.model import ModelSpec, VGGSpec


class VGG(nn.Module):
    """A VGG net; its weights are drawn from the global random state."""

    def __init__(self, spec: VGGSpec) -> None:
        """Build the net of `spec`."""
        super().__init__()
        self.spec: ModelSpec = spec
        self.features = VGGFeatures(spec)
        self.classifier = nn.Sequential(
            nn.Linear(spec.widths[-1] * VGG_GRID * VGG_GRID, spec.hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(spec.dropout),
            nn.Linear(spec.hidden, spec.hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(spec.dropout),
            nn.Linear(spec.hidden, spec.num_classes),
        )
        initialise(self)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        """Return the logits; the last map is averaged to 7 x 7 pixels, which changes nothing at 224 x 224."""
        for layer in self.features:
            x = layer(x)
        return self.classifier(F.adaptive_avg_pool2d(x, VGG_GRID).flatten(1))

    def feature_shapes(self) -> dict[str, FeatureShape]:
        """Return channels and stride of every map that `features` returns."""
        return {
            f"conv{number}_x": FeatureShape(width, 2 ** (number - 1))
            for number, width in enumerate(self.features.widths, start=1)
        }


class VGGFeatures(nn.Sequential):
    """The convolutions and pools; called, it returns the map of every stage before its pool."""

    def __init__(self, spec: VGGSpec) -> None:
        """Build `spec.convs` convolutions a stage, a ReLU after each, and a 2x2 max pool after the stage."""
        super().__init__()
        self.widths = spec.widths
        channels = spec.in_channels
        for convolutions, width in zip(spec.convs, spec.widths, strict=True):
            for _ in range(convolutions):
                self.append(nn.Conv2d(channels, width, kernel_size=3, padding=1))
                self.append(nn.ReLU(inplace=True))
                channels = width
            self.append(nn.MaxPool2d(2, stride=2))

    def forward(self, x: Float[Tensor, "n c h w"]) -> dict[str, Float[Tensor, "n _ _ _"]]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the maps under the names conv1_x, conv2_x, ..."""
        maps: dict[str, Tensor] = {}
        for layer in self:
            if isinstance(layer, nn.MaxPool2d):
                maps[f"conv{len(maps) + 1}_x"] = x
            x = layer(x)
        return maps

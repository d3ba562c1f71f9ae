"""VGG-16 and VGG-19, the nets the paper compares with (Simonyan and Zisserman 2015; Fig. 3, left).

3x3 convolutions with bias and no BatchNorm. A state dict has torchvision's keys: features.0, ..., classifier.6.
Shapes: n images, c channels, h x w pixels.
"""

import torch
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
        return self.classifier(F.adaptive_avg_pool2d(self._last_map(x), VGG_GRID).flatten(1))

    def score_map(self, x: Float[Tensor, "n c h w"], window: int | None) -> Float[Tensor, "n classes rows columns"]:
        """Return the logits at every location of images of any size: the net in its fully convolutional form (Sec. 4.1).

        The first fully-connected layer becomes a convolution over windows of `window` x `window` pixels of the last
        map, one pixel from the next, and the other two become 1x1 convolutions. With the window that an image of the
        training crop fills (7 for 224 pixels), the map of such an image is exactly `forward`. None averages the whole
        map to 7 x 7 pixels, one location, as `forward` does; so does a map that is smaller than the window.
        """
        x = self._last_map(x)
        if window is None or window > min(x.shape[2:]):
            x, window = F.adaptive_avg_pool2d(x, VGG_GRID), VGG_GRID
        first = self.classifier.get_submodule("0")
        x = F.conv2d(x, self._window_weights(window), first.get_parameter("bias")).permute(0, 2, 3, 1)
        for layer in self.classifier[1:]:
            x = layer(x)
        return x.permute(0, 3, 1, 2)

    def _last_map(self, x: Float[Tensor, "n c_in h_in w_in"]) -> Float[Tensor, "n c h w"]:
        for layer in self.features:
            x = layer(x)
        return x

    def _window_weights(self, window: int) -> Float[Tensor, "hidden c window window"]:
        """Return the first fully-connected layer as a convolution over windows that are first averaged to 7 x 7."""
        weights = self.classifier.get_submodule("0").get_parameter("weight").unflatten(1, (-1, VGG_GRID, VGG_GRID))
        if window == VGG_GRID:
            return weights
        pixels = torch.eye(window, dtype=weights.dtype, device=weights.device)
        average = F.adaptive_avg_pool1d(pixels[None], VGG_GRID)[0]
        return torch.einsum("ocij,pi,qj->ocpq", weights, average, average)

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

"""Residual nets and their plain counterparts: stem, stages, head (He et al. 2015, Table 1; Sec. 4.2 for CIFAR).

A state dict has torchvision's keys: conv1, bn1, layer1.0.conv1, ..., fc. In text and in `features` the stages
have the paper's names: layer1 is conv2_x. Shapes: n images, c channels, h x w pixels.
"""

import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor, nn

from resnets.models.blocks import BasicBlock, BlockFactory, Bottleneck
from resnets.models.features import FeatureShape
from resnets.models.init import initialise
from resnets.specs.model import ModelSpec, ResNetSpec, StemPool

BLOCKS: dict[str, BlockFactory] = {"basic": BasicBlock, "bottleneck": Bottleneck}


class ResNet(nn.Module):
    """A residual or plain net; its weights are drawn from the global random state."""

    def __init__(self, spec: ResNetSpec, block: BlockFactory | None = None) -> None:
        """Build the net of `spec`, from blocks of your own where `block` is given."""
        super().__init__()
        self.spec: ModelSpec = spec
        kernel, stride = (7, 2) if spec.stem == "7x7" else (3, 1)
        self.conv1 = nn.Conv2d(spec.in_channels, spec.stem_width, kernel, stride, padding=kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(spec.stem_width)
        self.maxpool = stem_pool(spec.stem_pool)
        self._shapes: dict[str, FeatureShape] = {}
        channels, stride = spec.stem_width, stride * (1 if spec.stem_pool == "none" else 2)
        for index in range(len(spec.blocks)):
            stage = build_stage(spec, index, channels, block or BLOCKS[spec.block])
            self.add_module(f"layer{index + 1}", stage)
            channels, stride = spec.widths[index] * spec.expansion, stride * (2 if index else 1)
            self._shapes[f"conv{index + 2}_x"] = FeatureShape(channels, stride)
        self.fc = nn.Linear(channels, spec.num_classes)
        initialise(self)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        """Return the logits of images of any size; the last map is averaged over its pixels."""
        return self.fc(F.adaptive_avg_pool2d(self._last_map(x), 1).flatten(1))

    def score_map(self, x: Float[Tensor, "n c h w"], window: int | None) -> Float[Tensor, "n classes rows columns"]:
        """Return the logits at every location of images of any size: the net in its fully convolutional form (Sec. 4.1).

        Each location averages a window of `window` x `window` pixels of the last map, one pixel from the next. With
        the window that an image of the training crop fills (7 for 224 pixels), each is what `forward` gives for a
        crop of that size, but for the padding at the crop's edges, and of that crop itself the map is exactly
        `forward`. None averages the whole map into one location; so does a map that is smaller than the window.
        """
        x = self._last_map(x)
        if window is None or window > min(x.shape[2:]):
            x = F.adaptive_avg_pool2d(x, 1)
        else:
            x = F.avg_pool2d(x, window, stride=1)
        # Averaged first: the layer is linear, and fewer locations than pixels are left to score.
        return self.fc(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def features(self, x: Float[Tensor, "n c h w"]) -> dict[str, Float[Tensor, "n _ _ _"]]:
        """Return the output of every stage under the paper's names: conv2_x, conv3_x, ..."""
        maps: dict[str, Tensor] = {}
        x = self.stem(x)
        for name, stage in zip(self._shapes, self.stages(), strict=True):
            maps[name] = x = stage(x)
        return maps

    def feature_shapes(self) -> dict[str, FeatureShape]:
        """Return channels and stride of every map that `features` returns."""
        return dict(self._shapes)

    def stem(self, x: Float[Tensor, "n c_in h_in w_in"]) -> Float[Tensor, "n c h w"]:
        """Return the input of the first stage: conv1 and, on ImageNet, pool1."""
        return self.maxpool(F.relu(self.bn1(self.conv1(x)), inplace=True))

    def _last_map(self, x: Float[Tensor, "n c_in h_in w_in"]) -> Float[Tensor, "n c h w"]:
        x = self.stem(x)
        for stage in self.stages():
            x = stage(x)
        return x

    def stages(self) -> list[nn.Module]:
        """Return layer1, layer2, ... in order."""
        return [self.get_submodule(f"layer{number}") for number in range(1, len(self._shapes) + 1)]


def build_stage(spec: ResNetSpec, index: int, in_channels: int, block: BlockFactory) -> nn.Sequential:
    """Return the blocks of one column entry of Table 1; from the second stage on, the first block has stride 2."""
    width = spec.widths[index]
    blocks = [block(in_channels, width, 2 if index > 0 else 1, spec)]
    blocks += [block(width * spec.expansion, width, 1, spec) for _ in range(spec.blocks[index] - 1)]
    return nn.Sequential(*blocks)


def stem_pool(form: StemPool) -> nn.Module:
    """Return the max pool after conv1.

    "official" is Caffe's, as in the authors' released models: no padding, and a last window that may hang over.
    "torchvision" pads one pixel. Both halve 112 to 56, with windows one pixel apart, so their outputs differ.
    """
    match form:
        case "official":
            return nn.MaxPool2d(3, stride=2, padding=0, ceil_mode=True)
        case "torchvision":
            return nn.MaxPool2d(3, stride=2, padding=1)
        case "none":
            return nn.Identity()

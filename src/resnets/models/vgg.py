"""VGG-16 and VGG-19, the nets that the paper compares with; state-dict names are torchvision's."""

from jaxtyping import Float
from torch import Tensor, nn

from resnets.specs.model import VGGSpec


class VGG(nn.Module):
    """Stages of 3x3 convolutions with bias and ReLU, each ended by a 2x2 max pool, and three dense layers."""

    def __init__(self, spec: VGGSpec) -> None:
        super().__init__()
        self.spec = spec
        layers: list[nn.Module] = []
        channels = spec.in_channels
        for convs, width in zip(spec.convs, spec.widths, strict=True):
            for _ in range(convs):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
                channels = width
            layers.append(nn.MaxPool2d(2, 2))
        self.features = nn.Sequential(*layers)
        # The identity at 224 pixels; lets images of other sizes through.
        self.avgpool = nn.AdaptiveAvgPool2d(7)
        self.classifier = nn.Sequential(
            nn.Linear(channels * 7 * 7, spec.hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(spec.dropout),
            nn.Linear(spec.hidden, spec.hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(spec.dropout),
            nn.Linear(spec.hidden, spec.num_classes),
        )

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        """Return the logits."""
        return self.classifier(self.avgpool(self.features(x)).flatten(1))

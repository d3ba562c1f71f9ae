"""How a trained net is tested: which views of an image it sees, whose softmax scores are averaged (Sec. 4.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from resnets.specs.errors import SpecError
from resnets.specs.preprocess import LARGEST_PX


@dataclass(frozen=True, kw_only=True, slots=True)
class Center:
    """One view: the centre crop of the resized image (Fig. 4)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TenCrop:
    """Four corners, the centre, and all five mirrored (Tables 2 and 3)."""

    corners: Literal["image", "square"] = "image"
    """Corners of the whole resized image, or of its central square."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Dense:
    """The net applied fully convolutionally to the whole image at several sizes (Tables 4 and 5)."""

    scales_px: tuple[int, ...] = (224, 256, 384, 480, 640)
    """Shorter sides, for a net trained on crops of 224 pixels; for another crop they scale with it."""
    form: Literal["window", "global"] = "window"
    """Scores of every window of the crop's size (7x7 pixels of the last map), or of the map's global average."""
    flips: bool = True
    """See the mirrored image too."""

    def __post_init__(self) -> None:
        """Refuse scales that no image has."""
        sizes = self.scales_px
        if not sizes or min(sizes) < 1 or max(sizes) > LARGEST_PX or len(set(sizes)) != len(sizes):
            raise SpecError(
                f"--scales is {', '.join(map(str, sizes)) or 'empty'}; give different sizes of 1 to {LARGEST_PX} "
                "pixels, such as 224,256,384."
            )


ProtocolSpec = Center | TenCrop | Dense

PROTOCOLS: dict[str, ProtocolSpec] = {"center": Center(), "ten-crop": TenCrop(), "dense": Dense()}
"""The protocols by the names that the command line and the reports use."""


def protocol_name(protocol: ProtocolSpec) -> str:
    """Return the name of a protocol: center, ten-crop or dense."""
    match protocol:
        case Center():
            return "center"
        case TenCrop():
            return "ten-crop"
        case Dense():
            return "dense"

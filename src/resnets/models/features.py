"""What a net tells a detector about the maps that its `features` returns."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FeatureShape:
    """Shape of one stage's map, whatever the size of the image."""

    channels: int
    """Channels of the map."""
    stride: int
    """Pixels of the image a pixel of the map, in both directions."""

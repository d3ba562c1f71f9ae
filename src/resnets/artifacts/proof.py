"""The numeric proof that ends a conversion: two nets with the same logits on random and on real images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from resnets.specs.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from resnets.data.preprocess import Preprocessor

TOLERANCE = 1e-4
"""Largest difference that is accepted, as a share of an image's largest logit."""
_ROUNDING = 1e-6
"""What rounding alone can give, as a share of the largest logit of all images: an image's own may all be near 0."""
RANDOM_IMAGES = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Proof:
    """How far apart the logits of two nets are, over a number of images."""

    max_difference: float
    """Largest absolute difference of two logits."""
    largest_logit: float
    """Largest absolute logit of the reference."""
    max_share: float
    """Largest difference of an image as a share of that image's own largest logit, by which it is judged."""
    random_images: int
    """Images of random pixels."""
    real_images: int
    """Photographs."""


def prove(
    model: Callable[[Tensor], Tensor],
    reference: Callable[[Tensor], Tensor],
    preprocessor: Preprocessor,
    *,
    source: str,
    images: Sequence[Image.Image] | None = None,
    tolerance: float = TOLERANCE,
) -> Proof:
    """Compare the logits of two nets on random pixels and on photographs, which both see prepared alike.

    Args:
        model: from normalised images (n, c, crop, crop) to logits (n, classes), in evaluation mode.
        reference: the net that `model` has to equal.
        preprocessor: of both.
        source: for the message.
        images: photographs; None takes the two that scikit-learn brings along.
        tolerance: largest difference as a share of an image's largest logit.

    Raises:
        ModelError: the logits of an image differ by more, are not finite, or are the same for all images, which
            proves nothing; or a net cannot take the images.
    """
    photographs = sample_images() if images is None else list(images)
    spec = preprocessor.spec
    shape = (spec.crop_px, spec.crop_px, spec.channels)
    generator = np.random.default_rng(0)
    pixels = [generator.integers(0, 256, shape, dtype=np.uint8) for _ in range(RANDOM_IMAGES)]
    pixels += [preprocessor.pixels(photograph) for photograph in photographs]
    pairs: list[tuple[Tensor, Tensor]] = []
    for one in pixels:
        batch = preprocessor.normalize(torch.from_numpy(one).permute(2, 0, 1).unsqueeze(0).contiguous())
        ours, theirs = _logits(model, batch, source), _logits(reference, batch, source)
        if ours.shape != theirs.shape or not (ours.isfinite().all() and theirs.isfinite().all()):
            raise ModelError(
                f"{source}: the logits of the two nets are not finite or not equally many. Nothing was written."
            )
        pairs.append((ours, theirs))
    differences = [float((ours - theirs).abs().max()) for ours, theirs in pairs]
    sizes = [float(theirs.abs().max()) for _, theirs in pairs]
    largest = max(sizes)
    for difference, size in zip(differences, sizes, strict=True):
        if not difference <= max(tolerance * size, _ROUNDING * largest):
            raise ModelError(
                f"{source}: the converted net is not equal: its logits differ by {difference:.3g} from the source's, "
                f"which are up to {size:.3g} for that image; {tolerance:g} of that is allowed. Nothing was written."
            )
    first = pairs[0][1]
    if max(float((theirs - first).abs().max()) for _, theirs in pairs) <= tolerance * largest:
        raise ModelError(
            f"{source}: its logits are {'all 0' if largest == 0 else 'the same'} for every image, so that equal ones "
            "prove nothing; the net is damaged or was never trained. Nothing was written."
        )
    return Proof(
        max_difference=max(differences),
        largest_logit=largest,
        max_share=max(difference / size if size else 0.0 for difference, size in zip(differences, sizes, strict=True)),
        random_images=RANDOM_IMAGES,
        real_images=len(photographs),
    )


def sample_images() -> list[Image.Image]:
    """Return the two photographs that scikit-learn brings along, of a temple and a flower, 640 x 427 pixels."""
    from sklearn.datasets import load_sample_images

    return [Image.fromarray(image) for image in load_sample_images().images]


def _logits(net: Callable[[Tensor], Tensor], batch: Tensor, source: str) -> Tensor:
    try:
        with torch.no_grad():
            return net(batch).to(torch.float64)
    except RuntimeError as error:
        side = batch.shape[-1]
        raise ModelError(
            f"{source} cannot take images of {side} x {side} pixels ({str(error).splitlines()[0]}). Nothing was written."
        ) from error

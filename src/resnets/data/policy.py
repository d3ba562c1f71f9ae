"""RandAugment (Cubuk et al. 2020) and TrivialAugment (Müller and Hutter 2021): those of `torchvision.transforms.v2`.

They work on a Pillow image after it is cropped and mirrored, in the process that reads it. torchvision draws from
torch's generator; it is given a state that follows from the position in the training stream, and then put back.
"""

import functools
from collections.abc import Callable

import torch
from PIL import Image

from resnets.specs.data import NoPolicy, PolicySpec, RandAugment


def apply_policy(policy: PolicySpec, image: Image.Image, seed: int) -> Image.Image:
    """Return the image after the operations of `policy`, of the same size and mode.

    Args:
        policy: which operations.
        image: upright, "RGB" or "L".
        seed: of all that is drawn, 0 ... 2^64 - 1.
    """
    if isinstance(policy, NoPolicy):
        return image
    transform = _transform(policy)
    # devices=[], and the default generator itself: a process that reads images leaves GPUs alone.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return transform(image)


@functools.cache
def _transform(policy: PolicySpec) -> Callable[[Image.Image], Image.Image]:
    from torchvision.transforms import v2

    # What is turned or sheared is interpolated, as in torchvision's own training runs.
    interpolation = v2.InterpolationMode.BILINEAR
    if isinstance(policy, RandAugment):
        return v2.RandAugment(policy.operations, policy.magnitude, interpolation=interpolation)
    return v2.TrivialAugmentWide(interpolation=interpolation)

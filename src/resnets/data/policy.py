"""RandAugment (Cubuk et al. 2020) and TrivialAugment (Müller and Hutter 2021): those of `torchvision.transforms.v2`.

They work on a Pillow image after it is cropped and mirrored, in the process that reads it. torchvision draws from
torch's generator; it is given a state that follows from the position in the training stream, and then put back.
"""

import threading
from collections.abc import Callable

import torch
from PIL import Image

from resnets.specs.data import NoPolicy, PolicySpec, RandAugment

# The generator is the process's, and the threads that read images would draw from each other's state.
_drawing = threading.Lock()


class ImagePolicy:
    """Changes images by the operations of a policy; can be sent to another process."""

    def __init__(self, policy: PolicySpec) -> None:
        """Import torchvision if there are operations, so that processes that are forked later need not."""
        self._transform = None if isinstance(policy, NoPolicy) else _transform(policy)

    def __call__(self, image: Image.Image, seed: int) -> Image.Image:
        """Return an upright image of mode "RGB" or "L" after its operations, of the same size and mode.

        `seed`, 0 ... 2^64 - 1, decides on all that is drawn; torch's generator is left as it was.
        """
        if self._transform is None:
            return image
        # devices=[], and the default generator itself: a process that reads images leaves GPUs alone.
        with _drawing, torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return self._transform(image)


def _transform(policy: PolicySpec) -> Callable[[Image.Image], Image.Image]:
    from torchvision.transforms import v2

    # What is turned or sheared is interpolated, as in torchvision's own training runs.
    interpolation = v2.InterpolationMode.BILINEAR
    if isinstance(policy, RandAugment):
        return v2.RandAugment(policy.operations, policy.magnitude, interpolation=interpolation)
    return v2.TrivialAugmentWide(interpolation=interpolation)

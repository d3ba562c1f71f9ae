"""The paper's runs on ImageNet (He et al. 2015, Sec. 3.4 and 4.1), on a folder with train/ and val/, one subfolder a class.

Batch 256, SGD with momentum 0.9 and weight decay 1e-4, learning rate 0.1 divided by 10 when the validation error
stops falling, at most 600,000 steps. Training images are resized to a random shorter side of 256 to 480 pixels,
cropped to 224 x 224 at a random place, mirrored half of the time, their colours shifted along the principal axes
of RGB, and the mean image is subtracted; nothing is divided by a standard deviation. Each net of Tables 2 to 4 is
a recipe. `resnet50_v1_5` is torchvision's net in the same run.

With `_fixed_steps` after the name, the learning rate falls at 150,000 and 300,000 of 450,000 steps instead: the 90
epochs of the re-implementation that the authors recommend.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING

from resnets.specs.catalogue import model_spec
from resnets.specs.data import Color, ImageFolder, ScaleCrop
from resnets.specs.optim import SGD, Plateau, StepDecay
from resnets.specs.run import TrainSpec

if TYPE_CHECKING:
    from collections.abc import Callable

FIXED = "_fixed_steps"
STEPS_AN_EPOCH = 5_004
"""1,281,167 training images in batches of 256."""

LISTED = {
    "resnet18": "18 layers, projections where dimensions change (option B)",
    "resnet34": "34 layers, option B; Table 3",
    "resnet50": "50 layers, bottlenecks, option B; Tables 3 and 4",
    "resnet101": "101 layers; Tables 3 and 4",
    "resnet152": "152 layers; Tables 3 and 4",
    "plain18": "18 layers without shortcuts; Table 2, Fig. 4",
    "plain34": "34 layers without shortcuts; Table 2, Fig. 4",
    "resnet18_a": "18 layers, zero-padded identity shortcuts (option A); Table 2, Fig. 4",
    "resnet34_a": "34 layers, option A; Tables 2 and 3, Fig. 4",
    "resnet34_c": "34 layers, all shortcuts projections (option C); Table 3",
    "resnet50_v1_5": "50 layers as in torchvision: stride on the 3x3 convolution, padded pooling",
    "resnet50_fixed_steps": "the same as resnet50 in 450,000 steps; any name with _fixed_steps after it",
    "vgg16": "VGG-16 (no BatchNorm, dropout 0.5, learning rate 0.01), for comparison",
}


def paper_run(name: str) -> TrainSpec:
    """Return the paper's ImageNet run of the recipe called `name`, such as `resnet34_a` or `resnet50_fixed_steps`."""
    net = name.removesuffix(FIXED)
    plateau = Plateau(factor=0.1, patience=5, min_improvement=0.1)
    schedule = plateau if net == name else StepDecay(milestones_steps=(150_000, 300_000), factor=0.1)
    steps = 600_000 if net == name else 450_000
    model = model_spec(net.replace("_v1_5", "-v1.5").replace("_", "-"))
    # Without BatchNorm a learning rate of 0.1 diverges; Simonyan and Zisserman start at 0.01 with a decay of 5e-4.
    vgg = name.startswith("vgg")
    return TrainSpec(
        recipe=f"imagenet.{name}",
        model=model,
        dataset=ImageFolder(image_px=224, resize_px=256, std=(1.0, 1.0, 1.0), mean_image=True),
        augment=ScaleCrop(min_resize_px=256, max_resize_px=480, flip=True),
        color=Color(pca_std=0.1, pca_axes="published"),
        optimizer=SGD(base_lr=0.01 if vgg else 0.1, momentum=0.9, weight_decay=5e-4 if vgg else 1e-4),
        schedule=schedule,
        steps=steps,
        full_steps=steps,
        global_batch=256,
        evaluate_every_steps=STEPS_AN_EPOCH,
    )


def __getattr__(name: str) -> Callable[[], TrainSpec]:
    """Return the recipe of a net of the catalogue, such as `resnet50` or `resnet101_v1_5`."""
    if re.fullmatch(rf"(resnet|plain|vgg)\d+(_[abc])?(_v1_5)?({FIXED})?", name):
        return functools.partial(paper_run, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

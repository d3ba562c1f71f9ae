"""A folder of images of your own, one subfolder a class."""

from __future__ import annotations

from resnets.specs.catalogue import model_spec
from resnets.specs.data import AreaCrop, ImageFolder
from resnets.specs.optim import SGD, Cosine, LinearWarmup
from resnets.specs.run import TrainSpec

LISTED = {"scratch": "ResNet-18 from random weights, for some hundreds to tens of thousands of images"}


def scratch() -> TrainSpec:
    """Return a run of ResNet-18 from random weights at 128 pixels; the number of classes is the folder's.

    The defaults suit a few thousand photographs, where the paper's ImageNet recipe would overfit: 64 images
    a step, the learning rate scaled to that batch, a cosine, crops of 35 to 100 % of the area, label
    smoothing and a weight decay of 5e-4.
    """
    return TrainSpec(
        recipe="folder.scratch",
        model=model_spec("resnet18"),
        dataset=ImageFolder(),
        augment=AreaCrop(),
        optimizer=SGD(base_lr=0.05, momentum=0.9, weight_decay=5e-4),
        schedule=Cosine(),
        warmup=LinearWarmup(steps=200),
        steps=4_000,
        full_steps=4_000,
        global_batch=64,
        label_smoothing=0.1,
        evaluate_every_steps=200,
    )

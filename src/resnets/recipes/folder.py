"""A folder of images of your own, one subfolder a class."""

from __future__ import annotations

from resnets.specs.catalogue import model_spec
from resnets.specs.data import AreaCrop, ImageFolder
from resnets.specs.finetune import Finetune, GivenWeights
from resnets.specs.optim import SGD, Cosine, LinearWarmup
from resnets.specs.run import TrainSpec

LISTED = {
    "scratch": "ResNet-18 from random weights, for some thousands to tens of thousands of images",
    "finetune": "from the weights that --init-from names, for 20 to 20,000 images",
}


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


def finetune() -> TrainSpec:
    """Return a run from given weights (`--init-from`); net, image size and normalisation are those of the weights.

    A tenth of the run trains the last layer alone, so that its random weights do not spoil the others; then all
    learn at a tenth of the usual rate. Classes are drawn equally often. BatchNorm's statistics stand still where
    there are fewer than 1,000 training images. The run ends early when the validation loss has not fallen for
    eight evaluations, and its best weights are kept. A batch larger than the training set shrinks to it.
    """
    return TrainSpec(
        recipe="folder.finetune",
        model=model_spec("resnet18"),
        dataset=ImageFolder(image_px=0, resize_px=0),
        augment=AreaCrop(),
        init=GivenWeights(source="", model="adopt"),
        finetune=Finetune(head_steps=200, freeze_batch_norm="auto", balance="sampling", patience_evaluations=8),
        optimizer=SGD(base_lr=0.01, momentum=0.9, weight_decay=1e-4),
        schedule=Cosine(),
        warmup=LinearWarmup(steps=50),
        steps=2_000,
        full_steps=2_000,
        global_batch=32,
        label_smoothing=0.1,
        evaluate_every_steps=50,
    )

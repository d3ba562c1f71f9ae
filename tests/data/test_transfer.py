"""A device other than CUDA has read a tensor of ordinary memory before that memory is given back."""

import dataclasses

import numpy as np
import pytest
import torch

from resnets.data.batches import evaluation_batches, training_batches
from resnets.data.color import ColorAugment
from resnets.data.erase import erase_with_mask_, rectangles
from resnets.data.loader import to_device
from resnets.data.preprocess import Preprocessor
from resnets.data.read_ahead import DecodedBatch
from resnets.data.splits import ResidentSplit
from resnets.data.transfer import sent
from resnets.specs.catalogue import model_spec
from resnets.specs.data import Color, Digits
from resnets.specs.preprocess import Preprocess
from resnets.specs.run import TrainSpec

META = torch.device("meta")
"""Has no numbers, and takes the code that is not the CPU's."""
SPLIT = ResidentSplit(images=np.zeros((8, 4, 4, 3), np.uint8), labels=np.arange(8))
PREPROCESSOR = Preprocessor(Preprocess(resize_px=4, crop_px=4))
SPEC = TrainSpec(model=model_spec("resnet18"), dataset=Digits(), global_batch=4)


@pytest.fixture
def unawaited(monkeypatch):
    """Return the list of copies to a device that are not waited for."""
    found, original = [], torch.Tensor.to

    def to(self, *arguments, **options):
        if options.pop("non_blocking", False):
            found.append((arguments, tuple(self.shape)))
        return original(self, *arguments, **options)

    monkeypatch.setattr(torch.Tensor, "to", to)
    return found


def test_batches_of_images_in_memory_are_waited_for(unawaited):
    batch = next(training_batches(SPLIT, PREPROCESSOR, SPEC, device=META, channels_last=True).batches(0))
    tested = next(evaluation_batches(SPLIT, PREPROCESSOR, batch_size=4, device=META, channels_last=True))
    assert batch.labels.device == tested.labels.device == META
    assert not unawaited


def test_batches_of_files_are_waited_for(unawaited):
    numbers = torch.arange(2)
    decoded = DecodedBatch(torch.zeros(2, 4, 4, 3, dtype=torch.uint8), numbers, numbers, numbers, ())
    assert to_device(decoded, lambda pixels: pixels.float(), META).labels.device == META
    assert not unawaited


def test_colours_and_erased_places_are_waited_for(unawaited):
    pixels = torch.zeros(2, 3, 12, 12, dtype=torch.uint8, device=META)
    every = Color(pca_std=0.1, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)
    preprocessor = Preprocessor(dataclasses.replace(PREPROCESSOR.spec, resize_px=12, crop_px=12))
    images = ColorAugment(every, preprocessor)(pixels, np.full((2, 8), 0.5))
    erase_with_mask_(images, rectangles(1.0, 12, 12, np.full((2, 23), 0.5)))
    assert images.device == META
    assert not unawaited


def test_cuda_is_not_waited_for(monkeypatch):
    asked = []
    monkeypatch.setattr(torch.Tensor, "to", lambda self, *to, **options: asked.append((to, options)) or self)
    sent(torch.zeros(1), torch.device("cuda"))
    assert asked == [((torch.device("cuda"),), {"non_blocking": True})]

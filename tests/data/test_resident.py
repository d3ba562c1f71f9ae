import dataclasses
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from resnets.data.augment import PadCrops, pad_crops
from resnets.data.batches import training_batches
from resnets.data.erase import ERASE_DRAWS, erase_, rectangles
from resnets.data.mix import MIX_DRAWS, mixed
from resnets.data.order import ERASE_STREAM, MIX_STREAM, TrainingStream, uniforms
from resnets.data.preprocess import Preprocessor
from resnets.data.resident import NumpyCropper, TorchCropper, model_pixels
from resnets.data.splits import ResidentSplit
from resnets.specs.catalogue import model_spec
from resnets.specs.data import Cifar, Mix, PadCrop
from resnets.specs.errors import DataError
from resnets.specs.preprocess import Preprocess
from resnets.specs.run import TrainSpec

CPU = torch.device("cpu")


def random_split(num_images=20, side=8, channels=3):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (num_images, side, side, channels), dtype=np.uint8)
    return ResidentSplit(images=images, labels=random.integers(0, 10, num_images))


def preprocessor_for(split, *, color=None, mean_image=True, std=1.0):
    side, channels = split.images.shape[2:]
    spec = Preprocess(
        resize_px=side,
        crop_px=side,
        color=color or ("gray" if channels == 1 else "rgb"),
        mean=(0.0,) * channels if mean_image else (120.5, 110.25, 99.0)[:channels],
        std=(std, std * 1.5, std * 2)[:channels] if std != 1 else (1.0,) * channels,
        mean_image=mean_image,
    )
    return Preprocessor(spec, split.images.mean(axis=0).astype(np.float32) if mean_image else None)


def run_of(**fields):
    return TrainSpec(model=model_spec("resnet18"), dataset=Cifar(), **fields)


def naive_crop(image, mean, std, pad_px, top, left, flip):
    """Subtract the mean, pad with zeros, crop, mirror, divide: image by image, in float64, in the paper's order."""
    centred = image.astype(np.float64) - mean
    padded = np.zeros((image.shape[0] + 2 * pad_px, image.shape[1] + 2 * pad_px, image.shape[2]))
    padded[pad_px : pad_px + image.shape[0], pad_px : pad_px + image.shape[1]] = centred
    crop = padded[top : top + image.shape[0], left : left + image.shape[1]] / std
    return crop[:, ::-1] if flip else crop


@given(
    st.integers(0, 5),
    st.tuples(st.integers(1, 7), st.integers(1, 7), st.sampled_from([1, 3])),
    st.booleans(),
    st.integers(0, 2**32),
)
def test_both_croppers_do_what_the_paper_says(pad_px, shape, divide, seed):
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (5, *shape), dtype=np.uint8)
    mean = (random.random(shape) * 255).astype(np.float32)
    std = (random.random(shape[2]) + 0.5).astype(np.float32) if divide else np.ones(shape[2], np.float32)
    indices = random.integers(0, 5, 9)
    crops = pad_crops(PadCrop(pad_px=pad_px), random.random((9, 3)))
    expected = np.stack(
        [naive_crop(images[i], mean, std, pad_px, *crop) for i, *crop in zip(indices, *crops, strict=True)]
    )
    by_numpy = NumpyCropper(images, mean, std, pad_px)(indices, crops)
    by_torch = TorchCropper(images, mean, std, pad_px, CPU)(indices, crops)
    np.testing.assert_allclose(by_numpy.numpy(), expected, rtol=1e-6, atol=1e-5)
    assert torch.equal(by_numpy, by_torch)
    assert by_numpy.dtype == by_torch.dtype == torch.float32


def test_padding_is_zero_after_the_mean_is_subtracted():
    split = random_split(side=6)
    mean = np.full((6, 6, 3), 77, np.float32)
    corner = PadCrops(np.array([0]), np.array([0]), np.array([False]))
    crop = NumpyCropper(split.images, mean, np.ones(3, np.float32), 6)(np.array([3]), corner)
    assert not crop.any()


def test_the_centre_crop_is_what_the_model_is_evaluated_on():
    split = random_split()
    preprocessor = preprocessor_for(split, mean_image=False, std=60.0)
    batches = training_batches(
        split,
        preprocessor,
        run_of(augment=PadCrop(pad_px=0, flip=False), seed=1, global_batch=20),
        device=CPU,
        channels_last=True,
    )
    batch = next(batches.batches(0))
    pixels = torch.from_numpy(split.images[batch.indices]).permute(0, 3, 1, 2)
    assert torch.equal(batch.images, preprocessor.normalize(pixels))


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("channels", [1, 3])
def test_batches_have_the_layout_that_was_asked_for(channels, channels_last):
    split = random_split(channels=channels)
    batches = training_batches(
        split, preprocessor_for(split), run_of(global_batch=6), device=CPU, channels_last=channels_last
    )
    images = next(batches.batches(0)).images
    assert images.shape == (6, channels, 8, 8)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    assert images.is_contiguous(memory_format=layout)


def test_positions_decide_images_crops_and_labels():
    split = random_split()
    augment = PadCrop(pad_px=3)
    preprocessor = preprocessor_for(split)
    batches = training_batches(
        split, preprocessor, run_of(augment=augment, seed=5, global_batch=12), device=CPU, channels_last=True
    ).batches(7)
    stream = TrainingStream(seed=5, num_images=20, global_batch=12)
    for step in (7, 8):
        batch = next(batches)
        positions = np.arange(step * 12, (step + 1) * 12)
        crops = pad_crops(augment, stream.uniforms(positions, 3))
        np.testing.assert_array_equal(batch.indices, stream.indices(positions))
        np.testing.assert_array_equal(batch.labels.numpy(), split.labels[batch.indices])
        expected = [
            naive_crop(split.images[i], preprocessor.mean_image, 1.0, 3, *crop)
            for i, *crop in zip(batch.indices, *crops, strict=True)
        ]
        np.testing.assert_allclose(batch.images.permute(0, 2, 3, 1).numpy(), expected, atol=1e-4)


def test_a_batch_that_is_kept_does_not_change():
    split = random_split()
    batches = training_batches(
        split, preprocessor_for(split), run_of(global_batch=20), device=CPU, channels_last=True
    ).batches(0)
    kept = next(batches)
    copy = kept.images.clone()
    next(batches)
    assert torch.equal(kept.images, copy)


def test_a_bgr_model_gets_its_channels_reversed():
    split = random_split()
    make = {"device": CPU, "channels_last": True}
    rgb = preprocessor_for(split)
    assert rgb.mean_image is not None
    bgr = Preprocessor(preprocessor_for(split, color="bgr").spec, np.ascontiguousarray(rgb.mean_image[..., ::-1]))
    as_rgb = next(training_batches(split, rgb, run_of(global_batch=20), **make).batches(0))
    as_bgr = next(training_batches(split, bgr, run_of(global_batch=20), **make).batches(0))
    assert torch.equal(as_rgb.images.flip(1), as_bgr.images)


def test_images_of_another_size_than_the_models_are_refused():
    spec = preprocessor_for(random_split()).spec
    with pytest.raises(DataError, match=r"shape \(32, 32, 3\).*model takes \(8, 8, 3\)"):
        model_pixels(np.zeros((2, 32, 32, 3), np.uint8), spec)


VARIED = {"erase_probability": 0.7, "mix": Mix(mixup_alpha=0.5, cutmix_alpha=1.0)}


@pytest.mark.parametrize("channels_last", [True, False])
def test_erasing_and_mixing_come_after_the_crop_and_follow_from_the_position(channels_last):
    split = random_split()
    make = {"device": CPU, "channels_last": channels_last}
    plain = training_batches(split, preprocessor_for(split), run_of(global_batch=10), **make).batches(0)
    varied = training_batches(split, preprocessor_for(split), run_of(global_batch=10, **VARIED), **make).batches(0)
    kinds = set()
    for step in range(12):
        one, other = next(plain), next(varied)
        positions = np.arange(10 * step, 10 * step + 10)
        chosen = rectangles(0.7, 8, 8, uniforms(0, positions, ERASE_DRAWS, ERASE_STREAM))
        erased = erase_(one.images.clone(), chosen)
        draws = uniforms(0, positions[:1], MIX_DRAWS, MIX_STREAM)[0]
        expected = mixed(dataclasses.replace(one, images=erased), VARIED["mix"], draws)
        torch.testing.assert_close(other.images, expected.images)
        assert other.own_share == expected.own_share
        assert torch.equal(other.partner_labels, one.labels.roll(1))
        assert other.images.stride() == one.images.stride()
        kinds.add(draws[0] < 0.5)
    assert kinds == {True, False}


def test_a_varied_run_goes_on_as_if_it_had_not_been_interrupted():
    split = random_split()
    batches = training_batches(
        split, preprocessor_for(split), run_of(global_batch=10, **VARIED), device=CPU, channels_last=True
    )
    whole = list(itertools.islice(batches.batches(0), 6))
    for one, other in zip(whole[4:], itertools.islice(batches.batches(4), 2), strict=True):
        assert torch.equal(one.images, other.images)
        assert one.own_share == other.own_share

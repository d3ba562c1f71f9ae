"""Resize, crop, channel order and normalisation, against torchvision and by hand."""

import io
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from resnets.data.preprocess import Preprocessor, preprocess_for
from resnets.data.sources import FolderFiles
from resnets.data.splits import FileSplit, ResidentSplit
from resnets.specs.data import Cifar, Digits, ImageFolder
from resnets.specs.preprocess import Preprocess


def _photo(width, height, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@given(width=st.integers(20, 150), height=st.integers(20, 150), crop=st.integers(8, 48))
def test_pixels_are_those_of_torchvision(interpolation, width, height, crop):
    from torchvision.transforms import v2

    image = _photo(width, height)
    filters = {"bilinear": v2.InterpolationMode.BILINEAR, "bicubic": v2.InterpolationMode.BICUBIC}
    reference = v2.Compose([v2.Resize(48, filters[interpolation]), v2.CenterCrop(crop)])
    ours = Preprocessor(Preprocess(resize_px=48, crop_px=crop, interpolation=interpolation)).pixels(image)
    assert np.array_equal(ours, np.asarray(reference(image)))


@pytest.mark.parametrize(("color", "mode"), [("rgb", "RGB"), ("bgr", "RGB"), ("gray", "L")])
def test_an_image_of_the_right_size_keeps_its_bits(color, mode):
    image = _photo(32, 32).convert(mode)
    channels = {"gray": 1}.get(color, 3)
    spec = Preprocess(resize_px=32, crop_px=32, color=color, mean=(0.0,) * channels, std=(1.0,) * channels)
    pixels = Preprocessor(spec).pixels(image)
    expected = np.asarray(image).reshape(32, 32, channels)
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable
    assert np.array_equal(pixels, expected[:, :, ::-1] if color == "bgr" else expected)


def test_a_very_long_image_is_cropped_before_it_is_resized():
    spec = Preprocess(resize_px=64, crop_px=64)
    assert Preprocessor(spec).pixels(Image.new("RGB", (2, 200_000), "red")).tolist()[0][0] == [255, 0, 0]
    assert Preprocessor(spec).pixels(Image.new("RGB", (200_000, 1), "red")).shape == (64, 64, 3)


def test_a_file_gives_the_pixels_of_the_image_in_it():
    preprocessor = Preprocessor(Preprocess(resize_px=40, crop_px=32))
    file = io.BytesIO()
    _photo(1000, 800).save(file, "JPEG")
    with Image.open(file) as image:
        expected = preprocessor.pixels(image)
    assert np.array_equal(preprocessor.read(file), expected)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_normalisation_subtracts_and_divides_each_channel(layout):
    mean, std = (1.0, 20.0, 30.0), (2.0, 4.0, 5.0)
    batch = torch.randint(0, 256, (5, 3, 6, 7), dtype=torch.uint8).contiguous(memory_format=layout)
    output = Preprocessor(Preprocess(resize_px=8, crop_px=6, mean=mean, std=std)).normalize(batch)
    expected = (batch.numpy().astype(np.float64) - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    assert output.dtype == torch.float32
    assert output.is_contiguous(memory_format=layout)
    np.testing.assert_allclose(output.numpy(), expected, rtol=1e-6)


def test_a_mean_image_is_subtracted_at_its_pixel_and_the_batch_stays():
    mean_image = np.arange(4 * 4 * 3, dtype=np.float32).reshape(4, 4, 3)
    preprocessor = Preprocessor(Preprocess(resize_px=4, crop_px=4, mean_image=True), mean_image)
    batch = torch.full((2, 3, 4, 4), 7, dtype=torch.uint8)
    for _ in range(2):
        output = preprocessor.normalize(batch)
        assert np.array_equal(output[1].permute(1, 2, 0).numpy(), 7 - mean_image)
    assert bool((batch == 7).all())


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("mean_image", [True, False])
def test_images_in_the_size_of_photographs_are_normalised_as_small_ones(layout, mean_image):
    image = np.random.default_rng(0).random((224, 224, 3)).astype(np.float32) * 255
    spec = Preprocess(resize_px=256, crop_px=224, mean=(9.0, 8.0, 7.0), std=(2.0, 3.0, 4.0), mean_image=mean_image)
    batch = torch.randint(0, 256, (3, 3, 224, 224), dtype=torch.uint8).contiguous(memory_format=layout)
    shift = torch.randn(3, 3)
    mean = image.transpose(2, 0, 1) if mean_image else np.reshape([9.0, 8.0, 7.0], (3, 1, 1))
    output = Preprocessor(spec, image if mean_image else None).normalize(batch, shift)
    expected = batch.double() + shift[:, :, None, None].double() - torch.from_numpy(mean).double()
    expected /= torch.tensor([2.0, 3.0, 4.0])[:, None, None]
    assert output.is_contiguous(memory_format=layout)
    torch.testing.assert_close(output.double(), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("size", [(5, 4), (4, 7), (9, 11)])
def test_of_images_of_another_size_the_spatial_average_of_the_mean_image_is_subtracted(size):
    mean_image = np.random.default_rng(0).random((4, 4, 3)).astype(np.float32) * 255
    preprocessor = Preprocessor(Preprocess(resize_px=4, crop_px=4, mean_image=True), mean_image)
    batch = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    average = torch.from_numpy(mean_image.astype(np.float64).mean(axis=(0, 1)))
    expected = batch.double() - average[:, None, None]
    torch.testing.assert_close(preprocessor.normalize(batch).double(), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("shape", [(2, 1, 4, 4), (3, 4, 4), (2, 4, 4, 3)])
def test_a_batch_of_another_shape_or_type_is_refused(shape):
    preprocessor = Preprocessor(Preprocess(resize_px=4, crop_px=4))
    with pytest.raises(Exception, match=r"cannot be normalised|Type-check"):
        preprocessor.normalize(torch.zeros(shape, dtype=torch.uint8))
    with pytest.raises(Exception, match=r"cannot be normalised|Type-check"):
        preprocessor.normalize(torch.zeros(2, 3, 4, 4))


def test_a_mean_image_goes_with_a_spec_that_asks_for_it():
    image = np.zeros((4, 4, 3), np.float32)
    with pytest.raises(ValueError, match="given None"):
        Preprocessor(Preprocess(resize_px=4, crop_px=4, mean_image=True))
    with pytest.raises(ValueError, match="mean image of shape None"):
        Preprocessor(Preprocess(resize_px=4, crop_px=4), image)
    with pytest.raises(ValueError, match=r"\(5, 5, 3\)"):
        Preprocessor(Preprocess(resize_px=5, crop_px=5, mean_image=True), image)


def test_equal_preprocessing_is_recognised_and_survives_pickling():
    image = np.ones((4, 4, 3), np.float32)
    spec = Preprocess(resize_px=4, crop_px=4, mean_image=True)
    ours = Preprocessor(spec, image)
    ours.normalize(torch.zeros(1, 3, 4, 4, dtype=torch.uint8))
    assert ours.same_as(pickle.loads(pickle.dumps(ours)))
    assert not ours.same_as(Preprocessor(spec, image + 1))
    assert not ours.same_as(Preprocessor(Preprocess(resize_px=4, crop_px=4)))


@pytest.mark.parametrize(("dataset", "channels"), [(Digits(), 1), (Cifar(), 3)])
def test_small_images_have_their_training_mean_subtracted_and_nothing_divided(dataset, channels):
    images = np.random.default_rng(0).integers(0, 256, (300, 8, 8, channels), dtype=np.uint8)
    train = ResidentSplit(images=images, labels=np.zeros(300, np.int64))
    preprocessor = preprocess_for(dataset, train)
    assert preprocessor.spec.mean_image
    assert set(preprocessor.spec.std) == {1.0}
    output = preprocessor.normalize(torch.from_numpy(images).permute(0, 3, 1, 2))
    assert output.mean(dim=0).abs().max() < 1e-3
    assert output.abs().max() > 50  # still in units of 0..255


def test_a_folder_is_preprocessed_as_its_spec_says():
    spec = ImageFolder(image_px=24, resize_px=30, interpolation="bicubic", color="gray", mean=(9.0,), std=(3.0,))
    preprocessor = preprocess_for(spec, FileSplit(images=FolderFiles.of(()), labels=np.zeros(0, np.int64)))
    expected = Preprocess(resize_px=30, crop_px=24, interpolation="bicubic", color="gray", mean=(9.0,), std=(3.0,))
    assert preprocessor.spec == expected
    assert preprocessor.pixels(_photo(50, 60)).shape == (24, 24, 1)


def test_reading_data_does_not_import_torch():
    code = "import sys, resnets.data.open, resnets.data.preprocess; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)

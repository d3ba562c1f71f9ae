from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from resnets.data.color import PUBLISHED_AXES, PUBLISHED_EIGENVALUES
from resnets.data.preprocess import preprocess_for
from resnets.data.sources import FolderFiles
from resnets.data.splits import FileSplit
from resnets.data.statistics import (
    Statistics,
    evenly_spaced,
    needs_statistics,
    training_statistics,
)
from resnets.specs.catalogue import model_spec
from resnets.specs.data import AreaCrop, Cifar, Color, ImageFolder, PadCrop
from resnets.specs.errors import DataError
from resnets.specs.run import TrainSpec

pytestmark = [
    # Python 3.12 and later warn of threads that exist when a process forks; torch has some.
    pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning"),
]


def paths_of(split):
    return tuple(Path(split.images.path(index)) for index in range(len(split)))


def run_of(**folder):
    fields = {"image_px": 12, "resize_px": 14, "mean_image": True} | folder
    return TrainSpec(model=model_spec("resnet18"), dataset=ImageFolder(**fields), augment=AreaCrop())


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    random = np.random.default_rng(0)
    paths = []
    for number in range(70):
        coarse = random.integers(0, 256, (3, 3, 3)) * [1.0, 0.8, 0.5] + random.integers(0, 50)
        image = Image.fromarray(coarse.clip(0, 255).astype(np.uint8))
        paths.append(folder / f"{number:02}.png")
        image.resize((14 + number % 9, 20), Image.Resampling.BICUBIC).save(paths[-1])
    return FileSplit(images=FolderFiles.of(paths), labels=np.zeros(70, np.int64))


def by_hand(split, spec, indices):
    """Return mean image, axes and variances from all pixels at once, in float64, with NumPy's covariance."""
    preprocessor = preprocess_for(replace(spec.dataset, mean_image=False), split)
    pixels = np.stack([preprocessor.read(paths_of(split)[index]) for index in indices]).astype(np.float64)
    channels = pixels.shape[-1]
    covariance = np.cov(pixels.reshape(-1, channels).T / 255, bias=True).reshape(channels, channels)
    return pixels.mean(axis=0), covariance


@pytest.mark.parametrize("color", ["rgb", "bgr", "gray"])
def test_statistics_are_those_of_all_pixels_at_once(split, color):
    channels = 1 if color == "gray" else 3
    spec = run_of(color=color, mean=(0.0,) * channels, std=(1.0,) * channels)
    statistics = training_statistics(spec, split)
    mean_image, covariance = by_hand(split, spec, range(70))
    assert statistics.images == 70
    assert statistics.mean_image is not None
    assert statistics.mean_image.dtype == np.float32
    np.testing.assert_allclose(statistics.mean_image, mean_image, rtol=1e-6)
    axes = statistics.axes[::-1] if color == "bgr" else statistics.axes  # rows are always R, G, B
    np.testing.assert_allclose((axes * statistics.eigenvalues) @ axes.T, covariance, atol=1e-12)
    np.testing.assert_allclose(axes.T @ axes, np.eye(channels), atol=1e-12)
    assert (np.diff(statistics.eigenvalues) <= 0).all()


def test_processes_change_no_bit(split):
    alone = training_statistics(run_of(), split)
    shared = training_statistics(run_of(), split, workers=2)
    assert alone.mean_image is not None
    assert shared.mean_image is not None
    np.testing.assert_array_equal(alone.mean_image, shared.mean_image)
    np.testing.assert_array_equal(alone.axes, shared.axes)
    np.testing.assert_array_equal(alone.eigenvalues, shared.eigenvalues)


@given(st.integers(1, 500), st.integers(0, 600))
def test_images_are_evenly_spaced(num_images, wanted):
    indices = evenly_spaced(num_images, wanted)
    assert len(indices) == (min(wanted, num_images) if wanted else num_images)
    assert indices[0] == 0
    assert indices[-1] < num_images
    gaps = np.diff(indices)
    assert len(indices) == 1 or gaps.max() - gaps.min() <= 1
    assert len(indices) == 1 or gaps.min() >= 1


def test_only_the_images_that_are_asked_for_are_read(split):
    spec = run_of(statistics_images=10)
    seen = []
    statistics = training_statistics(spec, split, on_images=lambda done, of: seen.append((done, of)))
    mean_image, _ = by_hand(split, spec, range(0, 70, 7))
    assert statistics.images == 10
    assert statistics.mean_image is not None
    np.testing.assert_allclose(statistics.mean_image, mean_image, rtol=1e-6)
    assert seen[-1] == (10, 10)


def test_images_that_cannot_be_read_are_named_and_left_out(split, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    some = FileSplit(images=FolderFiles.of((*paths_of(split)[:5], broken)), labels=np.zeros(6, np.int64))
    statistics = training_statistics(run_of(), some)
    whole = training_statistics(
        run_of(), FileSplit(images=FolderFiles.of(paths_of(split)[:5]), labels=np.zeros(5, np.int64))
    )
    assert [skipped.path for skipped in statistics.skipped] == [str(broken)]
    assert statistics.images == 5
    assert statistics.mean_image is not None
    assert whole.mean_image is not None
    np.testing.assert_array_equal(statistics.mean_image, whole.mean_image)
    with pytest.raises(DataError, match=r"None of 1 training images.*broken\.png"):
        training_statistics(run_of(), FileSplit(images=FolderFiles.of((broken,)), labels=np.zeros(1, np.int64)))


@pytest.mark.parametrize("mean_image", [True, False])
def test_statistics_survive_a_file(split, mean_image):
    from safetensors.torch import load, save

    statistics = training_statistics(run_of(mean_image=mean_image), split)
    again = Statistics.from_tensors(load(save(statistics.to_tensors())))
    assert again.images == statistics.images
    np.testing.assert_array_equal(again.axes, statistics.axes)
    np.testing.assert_array_equal(again.eigenvalues, statistics.eigenvalues)
    assert (again.mean_image is None) == (not mean_image)
    if again.mean_image is not None:
        np.testing.assert_array_equal(again.mean_image, statistics.mean_image)


@pytest.mark.parametrize(
    "changes",
    [
        {"axes": None},
        {"images": None},
        {"images": torch.zeros(2)},
        {"axes": torch.eye(2, dtype=torch.float64)},
        {"eigenvalues": torch.ones(2, dtype=torch.float64)},
        {"axes": torch.eye(3)},
        {"mean_image": torch.zeros(4, 4)},
        {"mean_image": torch.zeros(4, 4, 3, dtype=torch.float64)},
    ],
)
def test_tensors_of_something_else_are_refused(changes):
    tensors = Statistics(mean_image=None, axes=np.eye(3), eigenvalues=np.ones(3), images=3).to_tensors() | changes
    with pytest.raises(DataError, match="not the statistics of training images"):
        Statistics.from_tensors({name: tensor for name, tensor in tensors.items() if tensor is not None})


@pytest.mark.parametrize(
    ("dataset", "color", "expected"),
    [
        (ImageFolder(), Color(pca_std=0.1), False),
        (ImageFolder(mean_image=True), Color(), True),
        (ImageFolder(), Color(pca_std=0.1, pca_axes="training-set"), True),
        (ImageFolder(), Color(pca_axes="training-set"), False),
        (Cifar(), Color(), False),
    ],
)
def test_statistics_are_computed_where_they_are_used(dataset, color, expected):
    augment = PadCrop() if isinstance(dataset, Cifar) else AreaCrop()
    spec = TrainSpec(model=model_spec("resnet18"), dataset=dataset, augment=augment, color=color)
    assert needs_statistics(spec) == expected


def test_the_mean_image_becomes_part_of_the_preprocessing(split):
    spec = run_of()
    assert isinstance(spec.dataset, ImageFolder)
    statistics = training_statistics(spec, split)
    preprocessor = preprocess_for(spec.dataset, split, statistics)
    assert preprocessor.mean_image is statistics.mean_image
    pixels = torch.from_numpy(np.stack([preprocessor.read(path) for path in paths_of(split)])).permute(0, 3, 1, 2)
    assert preprocessor.normalize(pixels).mean(dim=0).abs().max() < 1e-3
    with pytest.raises(ValueError, match="given None"):
        preprocess_for(spec.dataset, split)


def test_large_sums_stay_exact():
    from resnets.data.statistics import _Sums

    sums = _Sums(40, 3)
    white = np.full((1, 40, 40, 3), 255, np.uint8)
    black = np.zeros((1, 40, 40, 3), np.uint8)
    for image in (white, black) * 200:
        sums.add(image)
    axes, eigenvalues = sums.principal_axes()
    np.testing.assert_allclose(eigenvalues, [0.75, 0, 0], atol=1e-12)
    np.testing.assert_allclose(np.abs(axes[:, 0]), np.full(3, 3**-0.5), atol=1e-9)


@pytest.mark.data
def test_photographs_have_nearly_the_published_axes(testdata):
    paths = tuple(sorted((testdata / "imagenet-sample").glob("*.JPEG")))[::2]
    spec = run_of(image_px=64, resize_px=73)
    statistics = training_statistics(
        spec, FileSplit(images=FolderFiles.of(paths), labels=np.zeros(len(paths), np.int64))
    )
    np.testing.assert_allclose(statistics.eigenvalues, PUBLISHED_EIGENVALUES, rtol=0.35)
    cosines = np.abs((statistics.axes * PUBLISHED_AXES).sum(axis=0))
    assert cosines.min() > 0.97

"""Where the views of an image lie, which images share a batch, and what the workers send."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from resnets.data.decode import read_image, read_size
from resnets.data.preprocess import Preprocessor, resized_size
from resnets.data.sources import FolderFiles
from resnets.data.splits import FileSplit
from resnets.data.view_loader import PIXELS_A_BATCH, ViewFiles, view_batches
from resnets.data.views import batches_of_equal_shape, five_crops, shorter_sides, views
from resnets.specs.errors import SpecError
from resnets.specs.preprocess import Preprocess
from resnets.specs.protocol import Dense, TenCrop

CPU = torch.device("cpu")
PHOTO_SIZES = [(500, 375), (500, 333), (375, 500), (333, 500), (640, 480), (300, 300), (1024, 681), (99, 143)]


def paths_of(split):
    return tuple(Path(split.images.path(index)) for index in range(len(split)))


def photo(width, height, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def preprocessor_for(resize_px=256, crop_px=224, color="rgb"):
    channels = 1 if color == "gray" else 3
    return Preprocessor(
        Preprocess(resize_px=resize_px, crop_px=crop_px, color=color, mean=(120.0,) * channels, std=(60.0,) * channels)
    )


def test_ten_crops_of_a_photograph_lie_in_its_corners_and_its_centre():
    # 500 x 375 becomes 341 x 256: 117 pixels are left over across, 32 down.
    assert resized_size(500, 375, 256) == (341, 256)
    assert five_crops(341, 256, 224, "image") == [(0, 0), (117, 0), (0, 32), (117, 32), (58, 16)]
    assert five_crops(256, 341, 224, "image") == [(0, 0), (32, 0), (0, 117), (32, 117), (16, 58)]


def test_corners_of_the_square_are_those_of_a_256_pixel_centre_crop():
    # Krizhevsky et al. 2012: 224-pixel patches of a 256 x 256 image.
    left = round((341 - 256) / 2)
    in_square = five_crops(256, 256, 224, "image")
    assert five_crops(341, 256, 224, "square") == [(x + left, y) for x, y in in_square[:4]] + [(58, 16)]


@pytest.mark.parametrize("size", PHOTO_SIZES)
def test_the_five_crops_are_those_of_torchvision(size):
    from torchvision.transforms import v2

    image = photo(*size)
    reference = v2.Compose([v2.Resize(256), v2.FiveCrop(224)])(image)
    (crops,) = views(image, preprocessor_for(), TenCrop())
    assert crops.shape == (5, 224, 224, 3)
    for crop, expected in zip(crops, reference, strict=True):
        np.testing.assert_array_equal(crop, np.asarray(expected))


def test_the_fifth_crop_is_the_centre_crop_of_the_single_view():
    image, preprocessor = photo(333, 217), preprocessor_for(color="bgr")
    for corners in ("image", "square"):
        (crops,) = views(image, preprocessor, TenCrop(corners=corners))
        np.testing.assert_array_equal(crops[4], preprocessor.pixels(image))


@pytest.mark.parametrize("size", PHOTO_SIZES)
def test_dense_testing_sees_the_whole_image_at_the_papers_five_sizes(size):
    from torchvision.transforms import v2

    image = photo(*size)
    seen = views(image, preprocessor_for(), Dense())
    assert [min(one.shape[1:3]) for one in seen] == [224, 256, 384, 480, 640]
    for side, one in zip((224, 256, 384, 480, 640), seen, strict=True):
        expected = np.asarray(v2.Resize(side)(image))
        assert one.shape == (1, *expected.shape)
        np.testing.assert_array_equal(one[0], expected)


def test_sizes_of_dense_testing_scale_with_the_training_crop():
    assert shorter_sides(Dense(), 224) == (224, 256, 384, 480, 640)
    assert shorter_sides(Dense(), 112) == (112, 128, 192, 240, 320)
    assert shorter_sides(Dense(scales_px=(224, 448)), 32) == (32, 64)


@pytest.mark.parametrize("scales", [(), (0,), (224, 224)])
def test_scales_that_no_image_has_are_refused(scales):
    with pytest.raises(SpecError, match="scales"):
        Dense(scales_px=scales)


@pytest.mark.parametrize("size", [(3, 60_000), (60_000, 3)])
def test_the_middle_of_a_very_long_image_is_seen(size):
    image = Image.new("RGB", size, "red")
    for one in views(image, preprocessor_for(40, 32), Dense(scales_px=(224, 448))):
        assert max(one.shape) <= 16 * 64
        assert one.reshape(-1, 3).max(axis=0).tolist() == [255, 0, 0]


@given(
    sizes=st.lists(st.none() | st.tuples(st.integers(1, 9), st.integers(1, 9)), max_size=40),
    sides=st.lists(st.integers(1, 8), min_size=1, max_size=3, unique=True),
    max_pixels=st.integers(1, 2000),
    max_images=st.integers(1, 7),
)
def test_every_image_is_in_one_batch_of_images_of_equal_shape(sizes, sides, max_pixels, max_images):
    batches = batches_of_equal_shape(sizes, sides, max_pixels=max_pixels, max_images=max_images)
    assert sorted(place for batch in batches for place in batch) == list(range(len(sizes)))
    assert [batch[0] for batch in batches] == sorted(batch[0] for batch in batches)
    for batch in batches:
        shapes = {sizes[place] and tuple(resized_size(*sizes[place], side) for side in sides) for place in batch}
        assert len(shapes) == 1
        assert len(batch) <= max_images
        (shape,) = shapes
        pixels = sum(width * height for width, height in shape or ())
        assert len(batch) == 1 or len(batch) * pixels <= max_pixels


def test_images_of_equal_shape_do_share_batches():
    sizes = [(500, 375), (375, 500), (640, 480), (500, 375)]
    batches = batches_of_equal_shape(sizes, (224, 256, 384, 480, 640), max_pixels=PIXELS_A_BATCH, max_images=32)
    assert [batch.tolist() for batch in batches] == [[0, 2, 3], [1]]  # 640 x 480 is 4:3 too


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["one.jpg", "one.png", "one.tif", "one.webp"])
def test_the_header_tells_the_size_of_the_upright_image(tmp_path, name, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo(40, 30).save(tmp_path / name, exif=exif)
    assert read_size(tmp_path / name) == read_image(tmp_path / name).size


def test_what_has_no_header_has_no_size(tmp_path):
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "empty.png").write_bytes(b"")
    assert read_size(tmp_path / "text.jpg") is None
    assert read_size(tmp_path / "empty.png") is None
    assert read_size(tmp_path / "missing.png") is None
    assert read_size(tmp_path) is None


@pytest.fixture
def split(tmp_path):
    sizes = [(40, 30), (30, 40), (80, 60), (40, 30), (33, 50), (40, 31), (60, 80)]
    for number, size in enumerate(sizes):
        photo(*size, seed=number).save(tmp_path / f"{number}.png")
    paths = tuple(sorted(tmp_path.iterdir()))
    return FileSplit(images=FolderFiles.of(paths), labels=np.arange(len(paths), dtype=np.int64) % 3)


def one_by_one(split, preprocessor, protocol):
    """Return the views of every readable image, read alone, by its index."""
    seen = {}
    for index, path in enumerate(paths_of(split)):
        try:
            seen[index] = views(read_image(path, color=preprocessor.decode_color), preprocessor, protocol)
        except Exception:
            continue
    return seen


@pytest.mark.parametrize("protocol", [TenCrop(), Dense(scales_px=(224, 300))])
@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("color", ["rgb", "bgr", "gray"])
def test_batches_hold_every_readable_image_once_and_name_the_others(split, protocol, workers, color):
    paths_of(split)[3].write_bytes(paths_of(split)[3].read_bytes()[:60])
    paths_of(split)[5].unlink()
    preprocessor = preprocessor_for(28, 24, color)
    expected = one_by_one(split, preprocessor, protocol)
    found, skipped = {}, []
    for batch in view_batches(split, preprocessor, protocol).read(workers=workers, device=CPU):
        skipped += batch.skipped
        for group in batch.groups:
            for row, index in enumerate(group.indices.tolist()):
                assert index not in found
                assert group.labels[row] == split.labels[index]
                found[index] = [size[row].numpy() for size in group.sizes]
    assert sorted(found) == sorted(expected) == [0, 1, 2, 4, 6]
    assert sorted(entry.path for entry in skipped) == [str(paths_of(split)[3]), str(paths_of(split)[5])]
    for index, seen in found.items():
        for ours, theirs in zip(seen, expected[index], strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("protocol", [TenCrop(), Dense()])
@pytest.mark.parametrize("world_size", [1, 2, 3, 9])
def test_processes_share_the_images(split, protocol, world_size):
    preprocessor = preprocessor_for(28, 24)
    indices = []
    for rank in range(world_size):
        planned = view_batches(split, preprocessor, protocol, rank=rank, world_size=world_size)
        batches = list(planned.read(workers=0, device=CPU))
        assert len(batches) == planned.count
        indices += [index for batch in batches for group in batch.groups for index in group.indices.tolist()]
    assert sorted(indices) == list(range(len(split)))


def test_an_image_of_another_size_than_its_header_says_is_not_mixed_in(split):
    preprocessor, protocol = preprocessor_for(28, 24), Dense()
    files = ViewFiles(split, preprocessor, protocol, [np.arange(len(split))])  # as if all were of one shape
    groups = files[0].groups
    assert sorted(sorted(group.indices.tolist()) for group in groups) == [[0, 2, 3], [1, 6], [4], [5]]
    expected = one_by_one(split, preprocessor, protocol)
    for group in groups:
        for row, index in enumerate(group.indices.tolist()):
            for size, alone in zip(group.sizes, expected[index], strict=True):
                np.testing.assert_array_equal(size[row].numpy(), alone)


def test_messages_name_the_images_of_a_batch(split):
    files = ViewFiles(split, preprocessor_for(28, 24), TenCrop(), [np.array([2, 0]), np.array([6])])
    assert files.paths(0) == [str(paths_of(split)[2]), str(paths_of(split)[0])]
    assert files.paths(1) == [str(paths_of(split)[6])]

"""Random crops: where they lie, what they hold, and that neither the decoder nor the way of storing changes them."""

import io
import tracemalloc
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from resnets.data.augment import area_crop_box, scale_crop_px
from resnets.data.crop import SPARE, place_crop, read_crop
from resnets.data.decode import read_image
from resnets.data.preprocess import Preprocessor
from resnets.data.window import EncodedImage, open_encoded
from resnets.specs.data import AreaCrop, ScaleCrop
from resnets.specs.errors import ImageError
from resnets.specs.preprocess import ColorOrder, Preprocess

AUGMENT = AreaCrop(min_area=0.3)
SMALL_SCALES = ScaleCrop(min_resize_px=24, max_resize_px=60)


def preprocessor_for(color: ColorOrder = "rgb", interpolation: Literal["bilinear", "bicubic"] = "bilinear", side=24):
    channels = 1 if color == "gray" else 3
    return Preprocessor(
        Preprocess(
            resize_px=side + 4,
            crop_px=side,
            color=color,
            interpolation=interpolation,
            mean=(100.0,) * channels,
            std=(50.0,) * channels,
        )
    )


def photo_like(width, height, seed=0, noise=10.0):
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (5, 5, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(np.float64)
    return Image.fromarray((smooth + random.normal(0, noise, smooth.shape)).clip(0, 255).astype(np.uint8))


def saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def raw(pixels):
    file = io.BytesIO()
    np.lib.format.write_array(file, np.ascontiguousarray(pixels), version=(1, 0))
    return file.getvalue()


def decibels(one, other):
    error = np.mean((one.astype(np.float64) - other.astype(np.float64)) ** 2)
    return 10 * np.log10(255**2 / max(error, 1e-9))


def pillow_crop(image, content, augment, side, draws, interpolation="bilinear"):
    """Return what Pillow makes of the crop's box, and by how much the file was divided."""
    with open_encoded(content, color="rgb") as encoded:
        divisor, *box = place_crop(encoded, augment, side, draws).window
    left, top, right, bottom = (place * divisor for place in box)
    part = image.convert("RGB").crop((left, top, min(right, image.width), min(bottom, image.height)))
    filters = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    return np.asarray(part.resize((side, side), filters[interpolation])), divisor


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("size", [(40, 30), (17, 50), (97, 63), (30, 300), (20, 15)])
def test_an_area_crop_is_pillows_crop_of_the_same_whole_pixels(size, kind, interpolation):
    content = saved(photo_like(*size), kind)
    preprocessor = preprocessor_for(interpolation=interpolation)
    image = Image.open(io.BytesIO(content))
    for draws in np.random.default_rng(1).random((10, 4)):
        expected, divisor = pillow_crop(image, content, AUGMENT, 24, draws, interpolation)
        assert divisor == 1
        ours = read_crop(content, AUGMENT, preprocessor, draws).astype(int)
        assert np.abs(ours - expected).max() <= 2  # both round between columns and rows
        assert decibels(ours, expected) > 50


@pytest.mark.data
def test_area_crops_of_photographs_are_pillows_up_to_40_decibels(testdata):
    preprocessor = preprocessor_for(side=224)
    paths = sorted((testdata / "imagenet-sample").glob("*.JPEG"))[::8]
    for path, draws in zip(paths, np.random.default_rng(0).random((len(paths), 4)), strict=True):
        content, augment = path.read_bytes(), AreaCrop(min_area=0.08)
        expected, _ = pillow_crop(Image.open(path), content, augment, 224, draws)
        assert decibels(read_crop(content, augment, preprocessor, draws), expected) > 40


@pytest.mark.data
def test_sharp_photographs_decoded_at_a_fraction_stay_above_40_decibels_nearly_always(testdata):
    augment, found = AreaCrop(min_area=0.9), {}
    for number, path in enumerate(sorted((testdata / "imagenet-sample").glob("*.JPEG"))[::12]):
        content, draws, side = path.read_bytes(), np.full(4, 0.5), (100, 75, 55, 40)[number % 4]
        expected, divisor = pillow_crop(Image.open(path), content, augment, side, draws)
        ours = read_crop(content, augment, preprocessor_for(side=side), draws)
        found.setdefault(divisor, []).append(decibels(ours, expected))
    assert {2, 4} <= found.keys()
    reduced = found[2] + found[4]
    assert np.mean(np.array(reduced) > 40) >= 0.9
    assert min(reduced) > 34


@pytest.mark.parametrize("divisor", [2, 4, 8])
def test_a_large_photograph_is_decoded_at_a_fraction_and_stays_above_40_decibels(divisor):
    image = photo_like(240 * divisor + 3, 200 * divisor + 1, noise=4)
    content = saved(image, "JPEG", quality=95, subsampling="4:2:0")
    preprocessor, augment = preprocessor_for(side=110), AreaCrop(min_area=0.9)
    for draws in np.random.default_rng(1).random((3, 4)):
        expected, used = pillow_crop(Image.open(io.BytesIO(content)), content, augment, 110, draws)
        assert used == divisor
        assert decibels(read_crop(content, augment, preprocessor, draws), expected) > 40


@pytest.mark.parametrize("size", [(300, 200), (90, 700)])
def test_a_crop_lies_where_its_box_says(size):
    columns, rows = np.meshgrid(np.linspace(0, 255, size[0]), np.linspace(0, 255, size[1]))
    content = saved(Image.fromarray(np.stack([columns, rows, 255 - rows], axis=2).astype(np.uint8)), "PNG")
    draws = np.array([0.4, 0.7, 0.2, 0.9])
    left, top, right, bottom = area_crop_box(AUGMENT, size[0], size[1], draws)
    pixels = read_crop(content, AUGMENT, preprocessor_for(), draws)
    centres = (np.arange(24) + 0.5) / 24
    expected_columns = (left + centres * (right - left) - 0.5) * 255 / (size[0] - 1)
    expected_rows = (top + centres * (bottom - top) - 0.5) * 255 / (size[1] - 1)
    # Away from the rim, where the filter has only one side to average over.
    np.testing.assert_allclose(pixels[12, 2:-2, 0], expected_columns[2:-2], atol=2)
    np.testing.assert_allclose(pixels[2:-2, 12, 1], expected_rows[2:-2], atol=2)


def resized_then_cropped(image, augment, preprocessor, draws):
    """Return what the paper says, step by step: the whole image resized, then a crop of it."""
    shorter = scale_crop_px(augment, draws[0])
    width, height = (round(side / min(image.size) * shorter) for side in image.size)
    filters = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    resized = image.convert("RGB").resize((width, height), filters[preprocessor.spec.interpolation])
    side = preprocessor.spec.crop_px
    left, top = int(draws[1] * (width - side + 1)), int(draws[2] * (height - side + 1))
    return np.asarray(resized.crop((left, top, left + side, top + side))).astype(np.float64)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(40, 30), (17, 50), (97, 64), (30, 300), (25, 20), (31, 31)])
def test_a_scaled_crop_is_the_crop_of_the_resized_image(size, interpolation):
    image = photo_like(*size)
    content = saved(image, "PNG")
    preprocessor = preprocessor_for(interpolation=interpolation)
    for draws in np.random.default_rng(0).random((25, 3)):
        ours = read_crop(content, SMALL_SCALES, preprocessor, draws).astype(np.float64)
        difference = np.abs(ours - resized_then_cropped(image, SMALL_SCALES, preprocessor, draws))
        # Pillow rounds to bytes between rows and columns, and the grids meet within 1/64 of a pixel.
        assert difference.mean() < 0.5
        assert difference.max() <= 3


@pytest.mark.parametrize("resize_px", [30, 31, 45, 59, 60])
def test_a_scaled_crop_is_right_at_every_place(resize_px):
    image = photo_like(62, 60)
    content, preprocessor = saved(image, "PNG"), preprocessor_for()
    augment = ScaleCrop(min_resize_px=resize_px, max_resize_px=resize_px)
    places = np.linspace(0, 0.999, 13)
    for across in places:
        draws = np.array([0.5, across, places[-1] - across])
        difference = np.abs(
            read_crop(content, augment, preprocessor, draws) - resized_then_cropped(image, augment, preprocessor, draws)
        )
        assert difference.max() <= 3


@pytest.mark.data
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_a_scaled_crop_of_a_photograph_is_the_crop_of_the_resized_one(testdata, interpolation):
    paths = sorted((testdata / "imagenet-sample").glob("*.JPEG"))[::12]
    preprocessor = preprocessor_for(interpolation=interpolation, side=224)
    differences = {True: [], False: []}
    for path, draws in zip(paths, np.random.default_rng(0).random((len(paths), 3)), strict=True):
        ours = read_crop(path, ScaleCrop(), preprocessor, draws).astype(np.float64)
        with Image.open(path) as image:
            reduced = min(image.size) >= 2 * SPARE * scale_crop_px(ScaleCrop(), draws[0])
            difference = np.abs(ours - resized_then_cropped(image, ScaleCrop(), preprocessor, draws))
        differences[reduced].append(difference.mean())
    assert max(differences[False]) < 1
    assert np.mean(differences[False] + differences[True]) < 0.5
    # Decoded at half its size, a photograph is averaged over blocks first: sharper or softer by a few levels.
    assert max(differences[True], default=0) < 5


@pytest.mark.parametrize("augment", [ScaleCrop(min_resize_px=256, max_resize_px=480), AUGMENT])
@pytest.mark.parametrize("upright", [False, True])
def test_a_crop_of_a_very_long_image_is_at_its_place(tmp_path, augment, upright):
    length = 2_400_000
    marks = (np.arange(length) // 10_000).astype(np.uint8)  # 0 ... 239, from one end to the other
    path = tmp_path / "long.png"
    Image.fromarray(marks[:, None] if upright else marks[None]).save(path, compress_level=1)
    for place in (0.0, 0.31, 0.9999999):
        draws = np.array([0.5, place, place, place])
        num_draws = 3 if isinstance(augment, ScaleCrop) else 4
        pixels = read_crop(path, augment, preprocessor_for(), draws[:num_draws])
        assert pixels.shape == (24, 24, 3)
        assert np.abs(pixels.astype(int) - int(place * 240)).max() <= 1


@pytest.mark.parametrize("color", ["rgb", "gray"])
@pytest.mark.parametrize("augment", [AUGMENT, SMALL_SCALES])
def test_a_mirrored_crop_is_the_same_from_right_to_left(augment, color):
    content = saved(photo_like(63, 61), "PNG")
    for draws in np.random.default_rng(3).random((20, 3 if isinstance(augment, ScaleCrop) else 4)):
        crops = [read_crop(content, augment, preprocessor_for(color), draws, mirror=mirror) for mirror in (False, True)]
        np.testing.assert_array_equal(crops[0][:, ::-1], crops[1])


class OfSize(EncodedImage):
    """An image of which nothing but the size is asked."""

    def __init__(self, width, height, divisors):
        self.width, self.height, self.divisors = width, height, divisors

    def pixels(self, window):
        raise AssertionError


SIDES = st.integers(1, 5_000)
UNIFORMS = st.lists(st.floats(0, 1, exclude_max=True), min_size=4, max_size=4).map(np.array)


@given(st.booleans(), SIDES, SIDES, UNIFORMS, st.integers(8, 300))
@settings(deadline=None)
def test_a_window_lies_in_the_image_and_has_the_pixels_that_a_crop_needs(by_area, width, height, draws, side):
    augment = AreaCrop(min_area=0.08) if by_area else ScaleCrop(min_resize_px=side, max_resize_px=2 * side)
    crop = place_crop(OfSize(width, height, (8, 4, 2, 1)), augment, side, draws if by_area else draws[:3])
    divisor, left, top, right, bottom = crop.window
    assert 0 <= left < right <= -(-width // divisor)
    assert 0 <= top < bottom <= -(-height // divisor)
    if divisor > 1 and by_area:
        assert min(right - left, bottom - top) >= SPARE * side - 1
    if crop.step is not None:
        for skipped, step, first, last in zip(crop.skipped, crop.step, (left, top), (right, bottom), strict=True):
            assert (skipped + side) * step <= last - first + 1
    if crop.box is not None:
        assert 0 <= crop.box[0] < crop.box[2] <= right - left
        assert 0 <= crop.box[1] < crop.box[3] <= bottom - top


AUGMENTS = [AUGMENT, SMALL_SCALES]


def draws_for(augment, count, seed=5):
    return np.random.default_rng(seed).random((count, 3 if isinstance(augment, ScaleCrop) else 4))


@pytest.mark.parametrize("augment", AUGMENTS)
@pytest.mark.parametrize("color", ["rgb", "gray"])
@pytest.mark.parametrize("options", [{}, {"subsampling": "4:2:0"}, {"subsampling": "4:2:2", "quality": 40}])
def test_without_the_fast_decoder_crops_are_the_same_bit_by_bit(monkeypatch, augment, color, options):
    preprocessor = preprocessor_for(color)
    contents = [saved(photo_like(*size), "JPEG", **options) for size in [(97, 164), (400, 301), (30, 33)]]
    contents.append(saved(photo_like(200, 100).convert("L"), "JPEG"))
    cases = [(content, draws) for content in contents for draws in draws_for(augment, 6)]
    fast = [read_crop(content, augment, preprocessor, draws) for content, draws in cases]
    monkeypatch.setattr("resnets.data.jpeg.simplejpeg", None)
    slow = [read_crop(content, augment, preprocessor, draws) for content, draws in cases]
    for one, other in zip(fast, slow, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("augment", AUGMENTS)
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("fast", [True, False])
def test_a_rotated_photograph_is_cropped_upright(monkeypatch, augment, orientation, fast):
    if not fast:
        monkeypatch.setattr("resnets.data.jpeg.simplejpeg", None)
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = saved(photo_like(57, 45, noise=0), "JPEG", quality=95, exif=exif)
    upright = raw(np.asarray(read_image(content)))
    for draws in draws_for(augment, 5):
        ours = read_crop(content, augment, preprocessor_for(), draws).astype(int)
        assert np.abs(ours - read_crop(upright, augment, preprocessor_for(), draws)).max() <= 1


def _animated(kind):
    frames = [photo_like(48, 40, seed=seed) for seed in range(2)]
    return saved(frames[0], kind, save_all=True, append_images=frames[1:])


OTHER_FILES = {
    "progressive": lambda: saved(photo_like(48, 40), "JPEG", progressive=True),
    "CMYK": lambda: saved(photo_like(48, 40).convert("CMYK"), "JPEG"),
    "16 bits": lambda: saved(Image.fromarray(np.arange(48 * 40, dtype=np.uint16).reshape(40, 48) * 30), "PNG"),
    "palette": lambda: saved(photo_like(48, 40).quantize(20), "PNG"),
    "transparent": lambda: saved(
        Image.merge("RGBA", [*photo_like(48, 40).split(), photo_like(48, 40, 9).split()[0]]), "PNG"
    ),
    "animated GIF": lambda: _animated("GIF"),
    "animated WebP": lambda: _animated("WEBP"),
    "two pictures": lambda: _animated("MPO"),
    "restarts": lambda: saved(photo_like(48, 40), "JPEG", restart_marker_rows=1, subsampling="4:2:0"),
    "trailing bytes": lambda: saved(photo_like(48, 40), "JPEG") + b"more" * 9,
}


@pytest.mark.parametrize("color", ["rgb", "gray"])
@pytest.mark.parametrize("name", OTHER_FILES)
@pytest.mark.parametrize("augment", AUGMENTS)
def test_files_of_every_kind_are_cropped_as_their_pixels_are(name, augment, color):
    content = OTHER_FILES[name]()
    pixels = raw(np.asarray(read_image(content)))
    for draws in draws_for(augment, 4):
        ours = read_crop(content, augment, preprocessor_for(color), draws)
        assert ours.shape == ((24, 24) if color == "gray" else (24, 24, 3))
        difference = np.abs(ours.astype(int) - read_crop(pixels, augment, preprocessor_for(color), draws))
        assert difference.max() <= (1 if color == "gray" else 0)


def test_raw_pixels_are_cropped_as_a_lossless_file_is_and_never_copied_whole():
    pixels = np.asarray(photo_like(2400, 1800, noise=0))
    content, draws = raw(pixels), np.array([0.05, 0.5, 0.3, 0.6])
    augment = AreaCrop(min_area=0.02)
    expected = read_crop(saved(Image.fromarray(pixels), "PNG", compress_level=1), augment, preprocessor_for(), draws)
    tracemalloc.start()
    ours = read_crop(content, augment, preprocessor_for(), draws)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(ours, expected)
    assert peak < 0.25 * len(content)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "raw"])
def test_a_size_above_the_limit_is_refused_from_the_header(monkeypatch, kind):
    image = photo_like(64, 48)
    content = raw(np.asarray(image)) if kind == "raw" else saved(image, kind)
    with pytest.raises(ImageError, match="too large"), open_encoded(content, color="rgb", max_pixels=64 * 48 - 1):
        pass
    with open_encoded(content, color="rgb", max_pixels=64 * 48) as encoded:
        assert (encoded.width, encoded.height) == (64, 48)

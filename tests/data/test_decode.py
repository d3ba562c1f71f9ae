"""Image files of every mode and format, and files that are no images."""

import concurrent.futures
import contextlib
import io
import os
import random
import struct
import time
import warnings
import zlib
from collections import Counter

import numpy as np
import pytest
from PIL import Image, ImageOps

from resnets.data.crop import read_crop
from resnets.data.decode import is_image_name, read_image, read_size
from resnets.data.preprocess import Preprocessor
from resnets.specs.data import AreaCrop, ScaleCrop
from resnets.specs.errors import ImageError
from resnets.specs.preprocess import Preprocess


def _gradient(width=40, height=24):
    row = np.linspace(0, 255, width).astype(np.uint8)
    column = np.linspace(0, 255, height).astype(np.uint8)
    red, green = np.meshgrid(row, column)
    return np.stack([red, green, 255 - red], axis=-1)


def _saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    file.seek(0)
    return file


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_formats_give_back_the_pixels(kind):
    pixels = _gradient()
    assert np.array_equal(np.asarray(read_image(_saved(Image.fromarray(pixels), kind))), pixels)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr", "I;16", "HSV"])
@pytest.mark.parametrize("color", ["rgb", "gray"])
def test_every_mode_becomes_rgb_or_gray(mode, color):
    kind = {"CMYK": "JPEG", "YCbCr": "JPEG"}.get(mode, "PNG")
    image = Image.fromarray(_gradient())
    image = Image.fromarray(np.zeros((24, 40), np.uint16)) if mode == "I;16" else image.convert(mode)
    if mode == "HSV":
        image = image.convert("RGB")
    read = read_image(_saved(image, kind), color=color)
    assert read.mode == ("RGB" if color == "rgb" else "L")
    assert read.size == (40, 24)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled_and_not_clipped(kind):
    values = np.array([[0, 257, 1000, 32768, 65534, 65535]], np.uint16)
    read = np.asarray(read_image(_saved(Image.fromarray(values), kind), color="gray"))
    assert read.tolist() == [[round(int(value) * 255 / 65535) for value in values[0]]]


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_pixels_without_a_defined_range_are_refused(dtype):
    with pytest.raises(ImageError, match="32-bit"):
        read_image(_saved(Image.fromarray(np.full((4, 4), 70_000, dtype)), "TIFF"))


def test_transparency_is_laid_on_white():
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[0, 0] = (10, 20, 30, 255)
    read = np.asarray(read_image(_saved(Image.fromarray(pixels), "PNG")))
    assert read[0, 0].tolist() == [10, 20, 30]
    assert read[1, 1].tolist() == [255, 255, 255]


def test_a_transparent_palette_entry_is_laid_on_white():
    image = Image.new("P", (2, 1))
    image.putpalette([200, 0, 0, 0, 0, 200])
    image.putpixel((1, 0), 1)
    read = np.asarray(read_image(_saved(image, "PNG", transparency=0)))
    assert read.tolist() == [[[255, 255, 255], [0, 0, 200]]]


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_the_first_frame_of_an_animation_is_taken(kind):
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    file = _saved(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert np.asarray(read_image(file))[4, 4].tolist() == [255, 0, 0]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_exif_rotation_is_applied(orientation, kind):
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :16] = 255  # the top left quarter is white
    # How a camera that was held this way stores the upright scene: the inverse of what a viewer does.
    stored = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation](upright)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = read_image(_saved(Image.fromarray(np.ascontiguousarray(stored)), kind, exif=exif))
    read = np.asarray(image)
    assert read.shape == upright.shape
    assert ImageOps.exif_transpose(image).size == image.size
    assert np.abs(read.astype(int) - upright).mean() < 3


def test_damaged_exif_data_does_not_cost_the_image():
    file = _saved(Image.new("RGB", (8, 8)), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01")
    assert read_image(file).size == (8, 8)


def test_a_large_jpeg_is_decoded_at_a_fraction_that_is_large_enough():
    file = _saved(Image.fromarray(_gradient(640, 400)), "JPEG", quality=95)
    small = read_image(file, at_least_px=100)
    file.seek(0)
    full = read_image(file)
    assert full.size == (640, 400)
    assert small.size == (160, 100)
    reduced = np.asarray(full.reduce(4)).astype(int)
    assert np.abs(reduced - np.asarray(small)).mean() < 3


def _png_header(width, height):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [100_000, 12_000])
def test_a_header_that_declares_too_many_pixels_is_refused_before_decoding(side):
    with pytest.raises(ImageError, match="too large"):
        read_image(io.BytesIO(_png_header(side, side)), max_pixels=100_000_000)


def _write(folder, name, content):
    path = folder / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"<html><body>404</body></html>", "text file"),
        (bytes(4096), "zeros"),
        (b"\x89PNG but no more", "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "text file"),
    ],
)
def test_a_file_that_is_no_image_is_refused_with_the_reason(tmp_path, content, reason):
    with pytest.raises(ImageError, match=reason):
        read_image(_write(tmp_path, "photo.jpg", content))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_a_truncated_file_is_refused(kind):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    content = _saved(noise, kind).getvalue()
    with pytest.raises(ImageError, match=r"cut off|damaged|not an image"):
        read_image(io.BytesIO(content[: len(content) // 2]))


def test_a_path_its_content_and_a_file_give_the_same_image(tmp_path):
    content = _saved(Image.fromarray(_gradient()), "PNG").getvalue()
    path = _write(tmp_path, "photo.png", content)
    for source in (path, str(path), content, io.BytesIO(content)):
        assert np.array_equal(np.asarray(read_image(source)), _gradient())
        assert read_size(source) == (40, 24)


def test_folders_pipes_missing_files_and_bad_names_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    for path, reason in [
        (tmp_path, "folder"),
        (tmp_path / "none.jpg", "no such file"),
        (tmp_path / "pipe.jpg", "regular"),
        ("a\0b.jpg", "opened"),
    ]:
        with pytest.raises(ImageError, match=reason):
            read_image(path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_refused(tmp_path):
    path = _write(tmp_path, "secret.png", _saved(Image.new("RGB", (4, 4)), "PNG").getvalue())
    path.chmod(0)
    with pytest.raises(ImageError, match="permission"):
        read_image(path)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP", "PPM"])
def test_damaged_files_give_an_image_or_an_image_error(kind):
    noise = np.random.default_rng(1).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {"exif": exif} if kind in ("JPEG", "PNG", "WEBP", "TIFF") else {}
    content = _saved(Image.fromarray(noise), kind, **options).getvalue()
    dice = random.Random(2)
    for _ in range(150):
        damaged = bytearray(content)
        for _ in range(dice.choice([1, 2, 8])):
            # Headers are short and decide most: damage them as often as the rest.
            damaged[dice.randrange(min(len(damaged), dice.choice([64, 10**9])))] = dice.randrange(256)
        damaged = damaged[: dice.choice([len(damaged), dice.randrange(len(damaged))])]
        with contextlib.suppress(ImageError):
            assert read_image(io.BytesIO(damaged), max_pixels=1_000_000).mode == "RGB"


MUTATIONS = int(os.environ.get("RESNETS_MUTATIONS", "1000"))
"""How many damaged files are tried; 10,000 take half a minute."""
MUTATION_SEED = int(os.environ.get("RESNETS_MUTATION_SEED", "0"))


def _files_to_damage():
    noise = np.random.default_rng(1).integers(0, 256, (70, 80, 3), dtype=np.uint8)
    smooth = Image.fromarray(noise).resize((90, 70))
    exif = Image.Exif()
    exif[0x0112] = 6
    options = [
        ("JPEG", {"subsampling": "4:2:0"}),
        ("JPEG", {"exif": exif, "restart_marker_blocks": 2}),
        ("JPEG", {"progressive": True}),
        ("PNG", {"exif": exif}),
        ("WEBP", {"quality": 50}),
        ("WEBP", {"lossless": True, "exif": exif}),
    ]
    files = [_saved(smooth, kind, **more).getvalue() for kind, more in options]
    raw = io.BytesIO()
    np.lib.format.write_array(raw, np.asarray(smooth)[:20], version=(1, 0))
    return [*files, raw.getvalue()]


def _damaged(content, other, dice):
    """Return `content` with bytes changed, zeroed, swapped for another file's, left out, repeated or cut off."""
    damaged = bytearray(content)
    for _ in range(dice.choice([1, 1, 2, 8])):
        # Headers are short and decide most: damage them as often as the rest.
        start = dice.randrange(max(1, min(len(damaged), dice.choice([40, 200, 10**9]))))
        end = start + dice.choice([1, 2, 4, 30, 300])
        what = dice.randrange(7)
        if what < 3:
            damaged[start : start + 1] = bytes([dice.choice([0, 1, 0x7F, 0xFF, dice.randrange(256)])])
        elif what == 3:
            damaged[start:end] = bytes(len(damaged[start:end]))
        elif what == 4:
            damaged[start:end] = other[start:end]
        elif what == 5:
            del damaged[start:end]
        else:
            damaged[start:start] = damaged[start:end]
    return bytes(damaged[: dice.choice([len(damaged), len(damaged), dice.randrange(len(damaged) + 1)])])


def _cropped(content, augment, draws):
    """Return a random crop, or None where the file is refused."""
    uniforms = draws[:3] if isinstance(augment, ScaleCrop) else draws
    try:
        return read_crop(content, augment, Preprocessor(Preprocess(resize_px=32, crop_px=24)), uniforms)
    except ImageError:
        return None


def test_mutated_files_are_an_image_of_the_size_they_state_or_an_image_error(monkeypatch):
    dice = random.Random(MUTATION_SEED)
    files = _files_to_damage()
    outcomes = Counter()
    for _ in range(MUTATIONS):
        content = _damaged(dice.choice(files), dice.choice(files), dice)
        draws = np.array([dice.random() for _ in range(4)])
        size, started = read_size(content), time.process_time()
        try:
            image = read_image(content)
        except ImageError:
            outcomes["refused"] += 1
        else:
            outcomes["read"] += 1
            assert image.mode == "RGB"
            # An orientation behind the pixels of a PNG is not seen in the header.
            assert size is not None
            assert sorted(image.size) == sorted(size)
        for augment in (AreaCrop(), ScaleCrop(min_resize_px=24, max_resize_px=99)):
            crop = _cropped(content, augment, draws)
            assert crop is None or crop.shape == (24, 24, 3)
            outcomes["cropped"] += crop is not None
            with monkeypatch.context() as patch:
                patch.setattr("resnets.data.jpeg.simplejpeg", None)
                by_pillow = _cropped(content, augment, draws)
            # What one decoder refuses, the other refuses, and damaged pixels are the same in both.
            np.testing.assert_array_equal(crop, by_pillow)
        assert time.process_time() - started < 30
    assert min(outcomes.values()) > MUTATIONS / 10
    assert outcomes["read"] + outcomes["refused"] == MUTATIONS


def test_a_warning_of_pillow_does_not_leak_and_other_warnings_stay():
    text = _png_header(12_000, 9_000)  # between Pillow's warning and its error
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        before = list(warnings.filters)
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            for failure in [pool.submit(read_image, io.BytesIO(text), max_pixels=10**6) for _ in range(20)]:
                assert isinstance(failure.exception(), ImageError)
        assert warnings.filters == before
        assert seen == []
        warnings.warn("still shown", stacklevel=1)
        assert len(seen) == 1


def test_names_are_known_by_their_extension_in_any_case():
    assert all(map(is_image_name, ["a.jpg", "B.JPEG", "c.d.Png", "x.webp", "y.TIFF", "z.pgm"]))
    assert not any(map(is_image_name, ["a", "a.txt", "jpg", "a.jpg.part", "a.eps", ""]))


def test_real_photographs_are_read(testdata):
    paths = sorted((testdata / "imagenet-sample").iterdir())[:20]
    images = [read_image(path) for path in paths if is_image_name(path.name)]
    assert len(images) >= 19
    assert all(np.asarray(image).std() > 1 for image in images)

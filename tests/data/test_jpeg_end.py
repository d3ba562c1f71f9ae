"""JPEG files whose pixels stop too early are told from whole ones, of every flavour."""

import io

import numpy as np
import pytest
from PIL import Image

from resnets.data.jpeg_end import has_end, has_gray_corner, stops_early

FLAVOURS = {
    "baseline": {},
    "progressive": {"progressive": True},
    "optimised": {"optimize": True},
    "full colour": {"subsampling": 0},
    "restarts": {"restart_marker_blocks": 4},
    "with a thumbnail's markers": {"exif": b"Exif\0\0" + b"\xff\xd8\xff\xd9" * 10},
}


def picture(mode="RGB"):
    random = np.random.default_rng(0)
    coarse = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    return coarse.resize((160, 120), Image.Resampling.BICUBIC).convert(mode)


def jpeg(image, **options):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_a_whole_file_does_not_stop_early(flavour, mode):
    data = jpeg(picture(mode), **FLAVOURS[flavour])
    assert has_end(data)
    assert not stops_early(data)
    assert not stops_early(data + bytes(500))
    assert not stops_early(data[:-2])  # only the marker is missing


@pytest.mark.parametrize("share", [0.4, 0.7, 0.95])
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_a_file_cut_and_closed_or_filled_with_zeros_stops_early(flavour, mode, share):
    data = jpeg(picture(mode), **FLAVOURS[flavour])
    cut = data[: int(len(data) * share)]
    assert not has_end(cut)
    assert stops_early(cut + b"\xff\xd9")
    assert stops_early(cut + bytes(len(data) - len(cut)))


def test_what_a_decoder_fills_in_is_gray_in_a_corner():
    data = jpeg(picture())
    cut = Image.open(io.BytesIO(data[: len(data) // 2] + b"\xff\xd9"))
    cut.load()
    assert has_gray_corner(cut)
    assert has_gray_corner(cut.transpose(Image.Transpose.ROTATE_90))
    assert not has_gray_corner(picture())


def test_a_picture_with_gray_corners_is_whole_all_the_same():
    image = picture()
    image.paste((128, 128, 128), (0, 60, 160, 120))
    data = jpeg(image)
    assert has_gray_corner(Image.open(io.BytesIO(data)).convert("RGB"))
    assert not stops_early(data)


@pytest.mark.parametrize("data", [b"", b"\xff\xd8", b"\xff\xd8\xff\xda", b"\xff" * 40, b"text"])
def test_what_is_no_jpeg_does_not_stop_early(data):
    assert not stops_early(data)
    assert not has_end(data)

"""What one file is: whole images of every kind, broken ones told apart, and no bytes that break the look at them."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, features

from resnets.data import image_probe
from resnets.data.crop import SPARE
from resnets.data.decode import read_image
from resnets.data.file_content import format_of_content, known_content
from resnets.data.findings import BROKEN
from resnets.data.image_probe import (
    ANIMATED,
    BLANK,
    RECORD,
    SEE_THROUGH,
    TRAINED_PX,
    format_of_name,
    probe,
)
from resnets.specs.data import ScaleCrop
from resnets.specs.errors import ImageError


def picture(size=(80, 60)):
    random = np.random.default_rng(0)
    return Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)


def encoded(image, form, **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def probed(data, **options):
    records = np.zeros(1, RECORD)
    return probe(data, records, **options), records[0]


FORMS = ["JPEG", "PNG", "GIF", "BMP", "TIFF", "PPM", *(["WEBP"] if features.check("webp") else [])]


@pytest.mark.parametrize("form", FORMS)
def test_a_whole_image_is_sound_in_every_format(form):
    data = encoded(picture(), form)
    broken, record = probed(data)
    assert broken is None
    assert (record["width"], record["height"], record["bytes"]) == (80, 60, len(data))
    assert (record["format"], record["orientation"]) == (form.encode(), 1)


@pytest.mark.parametrize(("orientation", "size"), [(1, (80, 60)), (3, (80, 60)), (6, (60, 80)), (8, (60, 80))])
@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_size_and_orientation_are_as_the_image_is_seen(form, orientation, size):
    exif = Image.Exif()
    exif[0x0112] = orientation
    _, record = probed(encoded(picture(), form, exif=exif.tobytes()))
    assert (record["width"], record["height"]) == size
    assert record["orientation"] == orientation


@pytest.mark.parametrize(
    ("mode", "form", "flags"),
    [("RGBA", "PNG", SEE_THROUGH), ("LA", "PNG", SEE_THROUGH), ("CMYK", "JPEG", 0), ("L", "JPEG", 0)],
)
def test_modes_and_transparency_are_recorded(mode, form, flags):
    _, record = probed(encoded(picture().convert(mode), form))
    assert (record["mode"], record["flags"]) == (mode.encode(), flags)


@pytest.mark.parametrize(
    "options",
    [{}, {"progressive": True}, {"subsampling": 0}, {"quality": 30}],
    ids=["usual", "progressive", "444", "30"],
)
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("size", [(45, 33), (157, 130), (777, 513), (1601, 1445)])
def test_the_readers_of_training_and_evaluation_give_one_record(size, mode, options):
    exif = Image.Exif()
    exif[0x0112] = 6
    for rotated in ({}, {"exif": exif.tobytes()}):
        data = encoded(picture(size).convert(mode), "JPEG", **options, **rotated)
        assert probed(data) == probed(data, trained=False)


def test_a_photograph_is_decoded_at_the_size_that_the_largest_default_crop_needs():
    assert SPARE * ScaleCrop().max_resize_px == TRAINED_PX


def test_what_training_refuses_is_damaged(monkeypatch):
    def refuse(*_args, **_kwargs):
        raise ImageError("it is damaged (a reason)")

    data = encoded(picture(), "JPEG")
    monkeypatch.setattr(image_probe, "open_encoded", refuse)
    assert probed(data)[0] == ("damaged", "it is damaged (a reason)")
    assert probed(data, trained=False)[0] is None


def test_blank_and_animated_images_are_marked():
    _, blank = probed(encoded(Image.new("RGB", (300, 200), (9, 99, 199)), "JPEG", quality=70))
    assert blank["flags"] == BLANK
    frames = [picture(), picture((80, 60)).rotate(90)]
    _, moving = probed(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert moving["flags"] == ANIMATED
    _, pair = probed(encoded(frames[0], "MPO", save_all=True, append_images=frames[1:]))
    assert (pair["format"], pair["flags"]) == (b"MPO", 0)


@pytest.mark.parametrize(
    ("data", "kind", "words"),
    [
        (b"", "empty", "0 bytes"),
        (bytes(999), "zeros", "zeros"),
        (b"\xef\xbb\xbf\n <HTML><body>", "not-an-image", "web page"),
        ("naïve café\n".encode() * 100, "not-an-image", "text file"),
        (b"<?xml version='1.0'?><svg xmlns=''/>", "not-an-image", "SVG"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "not-an-image", "HEIC"),
        (b"\0\0\0\x18ftypisom\0\0\0\0", "not-an-image", "video"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "not-an-image", "git lfs pull"),
        (bytes(range(1, 256)) * 9, "not-an-image", "can be read"),
        (encoded(picture(), "JPEG")[:100], "truncated", "cut off"),
        (encoded(picture(), "PNG")[:20], "truncated", "cut off"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not-an-image", "text file"),
    ],
)
def test_what_is_no_whole_image_is_told_apart(data, kind, words):
    broken, _ = probed(data)
    assert broken.kind == kind
    assert words in broken.reason


def test_a_decoder_that_must_not_run_is_not_reached(monkeypatch):
    def run(*_args, **_kwargs):
        raise AssertionError("a program was started for a file")

    monkeypatch.setattr("subprocess.Popen", run)
    assert probed(encoded(picture(), "EPS"))[0].kind == "not-an-image"


_WHOLE = {form: encoded(picture((40, 30)), form) for form in FORMS}


@given(
    form=st.sampled_from(FORMS),
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=6),
    keep=st.floats(0, 1) | st.just(1.0),
    tail=st.binary(max_size=20),
)
def test_mutated_files_are_an_image_or_named_and_never_more(form, changes, keep, tail):
    data = bytearray(_WHOLE[form])
    for place, value in changes:
        data[int(place * (len(data) - 1))] = value
    data = bytes(data[: int(len(data) * keep)]) + tail
    broken, record = probed(data)
    if broken is not None:
        assert broken.kind in BROKEN
        assert broken.reason
    else:
        # What the check calls sound is what training can read.
        image = read_image(io.BytesIO(data))
        assert image.size == (record["width"], record["height"])


def test_what_is_sound_to_training_alone_is_named_as_cut_off():
    data = encoded(picture(), "JPEG")
    cut = data[: len(data) * 2 // 3] + b"\xff\xd9"
    read_image(io.BytesIO(cut))  # no error: the rest is gray
    assert probed(cut)[0].kind == "truncated"
    with pytest.raises(ImageError):
        read_image(io.BytesIO(data[: len(data) // 3]))


@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("size", [(333, 500), (65, 97), (1445, 1601)])
@pytest.mark.parametrize("subsampling", [0, 2])
def test_missing_last_pixels_are_found_though_the_file_has_an_end(size, subsampling, trained):
    data = encoded(picture(size), "JPEG", subsampling=subsampling)
    assert probed(data, trained=trained)[0] is None
    for lacks in (0.3, 0.01):
        cut = data[: int(len(data) * (1 - lacks))] + b"\xff\xd9"
        assert probed(cut, trained=trained)[0].kind == "truncated"


@pytest.mark.parametrize("trained", [True, False])
def test_a_small_mark_on_a_large_photograph_keeps_it_from_being_blank(trained):
    page = Image.new("RGB", (4000, 3000), (128, 128, 128))
    page.paste((10, 10, 10), (16, 16, 21, 21))
    _, record = probed(encoded(page, "JPEG", quality=95), trained=trained)
    assert record["flags"] == 0


def test_names_and_beginnings_say_a_format():
    assert [format_of_name(name) for name in ("a.JPG", "a.jpeg", "a.png", "a.eps", "a", "a.txt")] == [
        "JPEG", "JPEG", "PNG", None, None, None
    ]  # fmt: skip
    assert format_of_content(encoded(picture(), "PNG")) == "PNG"
    assert format_of_content(b"RIFF\0\0\0\0WEBP") == "WebP"
    assert format_of_content(b"BM") is None
    assert known_content(bytes([200, 3, 7, 250]) * 99) is None


def test_raw_pixels_are_an_image():
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(picture()))
    broken, record = probed(buffer.getvalue())
    assert broken is None
    assert (record["width"], record["height"], record["format"]) == (80, 60, b"raw")
    assert probed(buffer.getvalue()[:-9])[0].kind == "truncated"
    assert probed(b"\x93NUMPY rest")[0].kind == "damaged"

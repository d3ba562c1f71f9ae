"""The fast decoder gives what Pillow gives, and keeps its hands off what it may not read."""

import contextlib
import io
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from resnets.data import jpeg
from resnets.data.decode import read_image
from resnets.data.jpeg import SequentialJpeg
from resnets.data.window import Window, open_encoded
from resnets.specs.errors import ImageError

pytestmark = pytest.mark.skipif(jpeg.simplejpeg is None, reason="simplejpeg has no wheel for this platform")


def photo_like(width, height, seed=0):
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (5, 5, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(np.float64)
    return Image.fromarray((smooth + random.normal(0, 12, smooth.shape)).clip(0, 255).astype(np.uint8))


def saved(image, kind="JPEG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def parsed(content):
    found = SequentialJpeg.parse(content)
    assert found is not None
    return found


def decoded_by_pillow(content, divisor=1):
    image = Image.open(io.BytesIO(content))
    if divisor > 1:
        image.draft(None, (image.width // divisor, image.height // divisor))
    pixels = np.asarray(image)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


@pytest.mark.parametrize("options", [{}, {"restart_marker_blocks": 3}, {"optimize": True, "quality": 30}])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("divisor", [1, 2, 4, 8])
def test_rows_are_pillows_bit_by_bit_wherever_decoding_ends(divisor, subsampling, options):
    content = saved(photo_like(101, 163), subsampling=subsampling, **options)
    image = parsed(content)
    assert (image.width, image.height, image.components) == (101, 163, 3)
    expected = decoded_by_pillow(content, divisor)
    for end in range(1, len(expected) + 1, 3 if divisor == 1 else 1):
        rows = image.rows(end, divisor)
        assert len(rows) >= end
        np.testing.assert_array_equal(rows[:end], expected[:end])


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_gray_and_uncompressed_colours_are_pillows(mode):
    content = saved(photo_like(70, 65).convert(mode), quality=100, subsampling=0)
    image = parsed(content)
    assert image.components == (1 if mode == "L" else 3)
    np.testing.assert_array_equal(image.rows(65, 1), decoded_by_pillow(content))


def test_colours_stored_as_rgb_are_pillows():
    content = saved(photo_like(70, 65), keep_rgb=True)
    np.testing.assert_array_equal(parsed(content).rows(65, 1), decoded_by_pillow(content))


@pytest.mark.data
def test_photographs_are_pillows_bit_by_bit(testdata):
    for path in sorted((testdata / "imagenet-sample").glob("*.JPEG"))[::10]:
        content = path.read_bytes()
        image, expected = parsed(content), decoded_by_pillow(content)
        end = image.height * 2 // 3
        np.testing.assert_array_equal(image.rows(end, 1)[:end], expected[:end])


def with_bytes(content, marker, offset, new):
    place = content.index(marker) + offset
    return content[:place] + new + content[place + len(new) :]


def with_segment(content, marker, data):
    return content[:2] + bytes((0xFF, marker)) + (len(data) + 2).to_bytes(2) + data + content[2:]


FRAME = b"\xff\xc0"
LEFT_TO_PILLOW = {
    "progressive": lambda: saved(photo_like(70, 65), progressive=True),
    "CMYK": lambda: saved(photo_like(70, 65).convert("CMYK")),
    "PNG": lambda: saved(photo_like(70, 65), "PNG"),
    "no end": lambda: saved(photo_like(70, 65))[:-2],
    "half": lambda: saved(photo_like(70, 65))[:900],
    "header only": lambda: saved(photo_like(70, 65))[:300],
    "no header": lambda: b"\xff\xd8\xff",
    "no height": lambda: with_bytes(saved(photo_like(70, 65)), FRAME, 5, b"\0\0"),
    "no width": lambda: with_bytes(saved(photo_like(70, 65)), FRAME, 7, b"\0\0"),
    "12 bits": lambda: with_bytes(saved(photo_like(70, 65)), FRAME, 4, b"\x0c"),
    "arithmetic coding": lambda: with_bytes(saved(photo_like(70, 65)), FRAME, 1, b"\xc9"),
    "lossless": lambda: with_bytes(saved(photo_like(70, 65)), FRAME, 1, b"\xc3"),
    "odd sampling": lambda: with_bytes(saved(photo_like(70, 65)), FRAME, 11, b"\x31"),
    "marker in the scan": lambda: with_bytes(saved(photo_like(70, 65)), b"\xff\xda", 400, b"\xff\xc0"),
    "JFIF version": lambda: with_bytes(saved(photo_like(70, 65)), b"JFIF", 5, b"\x02"),
    "Adobe colours": lambda: with_bytes(saved(photo_like(70, 65), keep_rgb=True), b"Adobe", 11, b"\x02"),
    "short JFIF": lambda: with_segment(saved(photo_like(70, 65)), 0xE0, b"JFIF\0\1"),
    "short profile": lambda: with_segment(saved(photo_like(70, 65)), 0xE2, b"ICC_PROFILE\0\1"),
    "65,501 rows": lambda: with_bytes(saved(photo_like(70, 65)), FRAME, 5, (65_501).to_bytes(2)),
    "65,501 columns": lambda: with_bytes(saved(photo_like(70, 65)), FRAME, 7, (65_501).to_bytes(2)),
    "part of a scan": lambda: with_bytes(saved(photo_like(70, 65)), b"\xff\xda", 12, b"\x05"),
}


@pytest.mark.parametrize("kind", LEFT_TO_PILLOW)
def test_what_is_not_of_the_usual_kind_is_left_to_pillow(kind):
    assert SequentialJpeg.parse(LEFT_TO_PILLOW[kind]()) is None


def test_every_file_is_left_to_pillow_where_the_decoder_is_missing(monkeypatch):
    monkeypatch.setattr(jpeg, "simplejpeg", None)
    assert SequentialJpeg.parse(saved(photo_like(20, 20))) is None


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
def test_a_file_that_is_cut_off_anywhere_is_refused_or_complete(subsampling):
    content = saved(photo_like(90, 70), subsampling=subsampling)
    whole = np.asarray(read_image(content))
    complete = 0
    for length in [*range(3, len(content), 37), *range(len(content) - 20, len(content))]:
        part = content[:length]
        with contextlib.suppress(ImageError), open_encoded(part, color="rgb") as image:
            # Pillow needs no end marker, and decodes what it has if that is all.
            np.testing.assert_array_equal(image.pixels(Window(1, 0, 0, 90, 70)), whole)
            complete += 1
    assert complete <= 3


@given(
    scan=st.lists(st.sampled_from([b"\xff", b"\xff\x00", b"\xff\xd3", b"\xff\xd9", b"\xff\xc4", b"\x00", b"a"])),
    begin=st.integers(0, 9),
    at_once=st.integers(1, 9),
)
def test_the_marker_after_a_scan_is_the_first_that_is_no_restart(scan, begin, at_once):
    content = b"".join(scan)
    found = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]").search(content, begin)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jpeg, "_SEARCHED_AT_ONCE", at_once)
        assert jpeg._marker_after_scan(content, begin) == (None if found is None else found[0])


def test_damage_that_no_decoder_can_go_on_from_is_an_error():
    content = saved(photo_like(70, 65))
    tables = [place for place in range(len(content)) if content[place : place + 2] == b"\xff\xc4"]
    broken = with_bytes(content[: tables[0]] + content[tables[0] :], b"\xff\xc4", 5, b"\xff" * 16)
    with pytest.raises(ImageError, match="damaged"):
        parsed(broken).rows(65, 1)


PROFILE = b"ICC_PROFILE\0\1\1" + bytes(40)
SEEN_BY_PILLOW = {
    "two first parts of a profile": (0xE2, PROFILE, 0xE2, PROFILE),
    "a part of a profile that lacks others": (0xE2, b"ICC_PROFILE\0\2\3" + bytes(40)),
    "a profile without content": (0xE2, PROFILE[:14]),
    "a list of images that ends early": (0xE2, b"MPF\0II*\0\x08\0\0\0\3\0"),
    "an image resource that ends early": (0xED, b"Photoshop 3.0\x008BIM\3\xed"),
    "an image resource without data": (0xED, b"Photoshop 3.0\x008BIM\3\xed\0\0\0\0\0\x10"),
    "a comment": (0xFE, b"a comment"),
}


@pytest.mark.parametrize("kind", SEEN_BY_PILLOW)
def test_application_data_is_no_reason_to_refuse_what_pillow_reads_or_to_read_what_it_refuses(kind):
    content = saved(photo_like(70, 65))
    segments = SEEN_BY_PILLOW[kind]
    for marker, data in zip(segments[::2], segments[1::2], strict=True):
        content = with_segment(content, marker, data)
    assert answer(lambda: read_image(content).crop((3, 0, 70, 30))) == answer(lambda: first_rows(content))


def first_rows(content):
    with open_encoded(content, color="rgb") as image:
        return image.pixels(Window(1, 3, 0, 70, 30))


def answer(read):
    try:
        return np.asarray(read()).tolist()
    except ImageError as error:
        return str(error)

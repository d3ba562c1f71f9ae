"""Images stored as their pixels: what is read, and everything else that a `.npy` file can hold."""

import io
import pickle

import numpy as np
import pytest

from resnets.data.decode import read_image, read_size
from resnets.data.raw_pixels import raw_pixels
from resnets.specs.errors import ImageError

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def npy(array, version=(1, 0)):
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version=version)
    return file.getvalue()


def test_the_pixels_come_back_from_content_path_and_file(tmp_path):
    path = tmp_path / "image.npy"
    path.write_bytes(npy(PIXELS))
    for source in (npy(PIXELS), path, io.BytesIO(npy(PIXELS))):
        np.testing.assert_array_equal(np.asarray(read_image(source)), PIXELS)
        assert read_size(source) == (7, 5)


def test_the_pixels_are_a_view_that_cannot_be_written_to():
    content = npy(PIXELS)
    pixels = raw_pixels(content, max_pixels=35)
    assert np.shares_memory(pixels, np.frombuffer(content, np.uint8))
    assert not pixels.flags.writeable


def header(text, version=b"\x01\x00", length=None):
    text = text.encode()
    return b"\x93NUMPY" + version + (len(text) if length is None else length).to_bytes(2, "little") + text


SHAPE = "{'descr': '|u1', 'fortran_order': False, 'shape': (%s), }\n"


class _Runs:
    def __reduce__(self):
        return (exec, ("raise SystemExit",))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (npy(PIXELS, version=(2, 0)), "no image"),
        (npy(np.asfortranarray(PIXELS)), "no image"),
        (npy(PIXELS[:, :, 0].copy()), "no image"),
        (npy(PIXELS[None]), "no image"),
        (npy(PIXELS.astype(np.int8)), "no image"),
        (npy(PIXELS.astype(np.float32)), "no image"),
        (npy(PIXELS[:0]), "no image"),
        (header("{'descr': '|O', 'fortran_order': False, 'shape': (1, 1, 3), }\n") + pickle.dumps(_Runs()), "no image"),
        (header(SHAPE % "-1, 5, 3"), "no image"),
        (header(SHAPE % "__import__('os').abort(), 5, 3"), "no image"),
        (header(SHAPE % "9999999999, 5, 3"), "no image"),
        (header(SHAPE % "5, 7, 3", length=65_535), "no image"),
        (header(SHAPE % "999999999, 999999999, 3"), "too large"),
        (header(SHAPE % "20000, 20000, 3"), "too large"),
        (b"\x93NUMPY", "no image"),
        (npy(PIXELS)[:20], "no image"),
        (npy(PIXELS)[:-1], "cut off"),
        (npy(PIXELS) + b"\0", "damaged"),
    ],
)
def test_every_other_array_is_refused_with_the_reason(content, reason):
    with pytest.raises(ImageError, match=reason):
        read_image(content)
    assert read_size(content) is None

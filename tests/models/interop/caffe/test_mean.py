from pathlib import Path

import numpy as np
import pytest

from resnets.models.interop.caffe.mean import centre, read_mean, write_mean
from resnets.specs.errors import ModelError


@pytest.fixture
def image():
    return np.random.default_rng(0).uniform(0, 255, (5, 6, 3)).astype(np.float32)


@pytest.mark.parametrize("shape", ["dimensions", "legacy_dimensions"])
@pytest.mark.parametrize("data", ["packed", "unpacked", "doubled"])
def test_a_binaryproto_of_any_form_is_read_in_bgr(tmp_path, wire, image, shape, data):
    planes = np.ascontiguousarray(image.transpose(2, 0, 1))[None]
    path = tmp_path / "mean.binaryproto"
    path.write_bytes(getattr(wire, shape)(planes) + getattr(wire, data)(planes))
    assert np.array_equal(read_mean(path), image)


def test_a_mean_image_goes_out_in_bgr_and_comes_back(tmp_path, image):
    path = tmp_path / "mean.binaryproto"
    write_mean(path, image)
    assert np.array_equal(read_mean(path)[:, :, ::-1], image)
    # num, channels, height, width, and the first plane, which is blue.
    assert path.read_bytes()[:8] == b"\x08\x01\x10\x03\x18\x05\x20\x06"
    assert path.read_bytes()[8 + 3 :][: 5 * 6 * 4] == image[:, :, 2].tobytes()


def test_a_larger_mean_image_is_cut_to_its_centre(image):
    large = np.arange(256 * 256 * 3, dtype=np.float32).reshape(256, 256, 3)
    assert np.array_equal(centre(large, 224, "m"), large[16:240, 16:240])
    assert np.array_equal(centre(image, 4, "m"), image[0:4, 1:5])
    with pytest.raises(ModelError, match="5 x 6 pixels, smaller than the crop of 224"):
        centre(image, 224, "m")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda planes: planes - 300, "outside 0..255"), (lambda planes: planes * 2, "outside 0..255"),
        (lambda planes: np.where(planes < 10, np.nan, planes), "outside 0..255"),
        (lambda planes: planes[:, :1], "shape is"), (lambda planes: np.concatenate([planes, planes]), "shape is"),
    ],
)  # fmt: skip
def test_what_is_no_mean_of_pixels_is_refused(tmp_path, wire, image, change, reason):
    planes = change(image.transpose(2, 0, 1)[None])
    path = tmp_path / "mean.binaryproto"
    path.write_bytes(wire.dimensions(planes) + wire.packed(planes))
    with pytest.raises(ModelError, match=reason):
        read_mean(path)


def test_damaged_mean_images_are_refused_or_read_as_one(tmp_path, image, mutated, monkeypatch, unchecked):
    path = tmp_path / "mean.binaryproto"
    write_mean(path, image)
    damaged, refused = mutated(path.read_bytes()), 0
    monkeypatch.setattr(Path, "read_bytes", lambda _: next(damaged))
    for _ in range(10_000):
        try:
            found = read_mean(path)
        except ModelError:
            refused += 1
            continue
        assert found.shape[2] == 3
        assert found.min() >= 0
        assert found.max() <= 255
    assert refused > 3_000
    with pytest.raises(ModelError, match="no mean image"):
        read_mean(tmp_path / "none.binaryproto")

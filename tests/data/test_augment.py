import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnets.data.augment import area_crop_box, area_crop_decode_px, mirrored, pad_crops
from resnets.specs.data import AreaCrop, PadCrop

AREA_CROPS = st.builds(AreaCrop, min_area=st.floats(0.01, 1), max_aspect=st.floats(1, 4))
SIDES = st.integers(1, 5_000)
DRAWS = st.lists(st.floats(0, 1, exclude_max=True), min_size=4, max_size=4).map(np.array)


def many(num_draws):
    return np.random.default_rng(0).random((20_000, num_draws))


@given(st.integers(0, 12), st.integers(0, 2**32))
def test_corners_stay_in_the_padded_image(pad_px, seed):
    tops, lefts, _ = pad_crops(PadCrop(pad_px=pad_px), np.random.default_rng(seed).random((50, 3)))
    assert min(tops.min(), lefts.min()) >= 0
    assert max(tops.max(), lefts.max()) <= 2 * pad_px


def test_every_corner_and_side_is_as_likely():
    tops, lefts, flips = pad_crops(PadCrop(pad_px=4), many(3))
    counts = np.bincount((tops * 9 + lefts) * 2 + flips, minlength=162)
    assert ((counts - 20_000 / 162) ** 2 / (20_000 / 162)).sum() < 240  # 161 degrees of freedom


@pytest.mark.parametrize("augment", [PadCrop(flip=False), AreaCrop(flip=False)])
def test_nothing_is_mirrored_where_the_spec_says_so(augment):
    assert not mirrored(augment, np.linspace(0, 0.99, 50)).any()


@given(AREA_CROPS, SIDES, SIDES, DRAWS)
def test_a_box_lies_in_the_image_and_keeps_to_the_bounds(augment, width, height, draws):
    left, top, right, bottom = area_crop_box(augment, width, height, draws)
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    aspect = (right - left) / (bottom - top)
    assert 1 / augment.max_aspect <= aspect * (1 + 1e-6)
    assert aspect <= augment.max_aspect * (1 + 1e-6)
    share = (right - left) * (bottom - top) / (width * height)
    possible = augment.max_aspect * min(width, height) / max(width, height)
    assert share >= min(augment.min_area, possible) * (1 - 1e-6)
    assert share <= min(1, possible) * (1 + 1e-6)


@given(AREA_CROPS, SIDES, SIDES, DRAWS, st.integers(1, 300))
def test_an_image_decoded_as_small_as_allowed_still_fills_the_crop(augment, width, height, draws, crop_px):
    left, top, right, bottom = area_crop_box(augment, width, height, draws)
    scale = area_crop_decode_px(augment, crop_px, draws) / min(width, height)
    assert min(right - left, bottom - top) * scale >= crop_px * (1 - 1e-6)


@given(AREA_CROPS, SIDES, SIDES, DRAWS)
def test_a_box_scales_with_the_image(augment, width, height, draws):
    box = np.array(area_crop_box(augment, width, height, draws))
    doubled = np.array(area_crop_box(augment, 2 * width, 2 * height, draws))
    np.testing.assert_allclose(doubled, 2 * box, rtol=1e-6, atol=1e-6 * max(width, height))


def test_shares_are_uniform_and_aspects_log_uniform():
    augment = AreaCrop(min_area=0.2, max_aspect=4 / 3)
    boxes = np.array([area_crop_box(augment, 100, 100, draws) for draws in many(4)])
    widths, heights = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    shares = widths * heights / 10_000
    np.testing.assert_allclose(np.quantile(shares, [0.25, 0.5, 0.75]), [0.4, 0.6, 0.8], atol=0.015)
    # Where every aspect ratio fits; above that share they are cut to those that do.
    free = np.log(widths / heights)[shares < 3 / 4]
    np.testing.assert_allclose(
        np.quantile(free, [0.25, 0.5, 0.75]), np.log(4 / 3) * np.array([-0.5, 0, 0.5]), atol=0.01
    )


def test_a_share_of_one_is_the_whole_image():
    assert area_crop_box(AreaCrop(min_area=1.0), 40, 30, np.full(4, 0.7)) == pytest.approx((0, 0, 40, 30))

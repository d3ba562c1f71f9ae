import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnets.data.augment import (
    area_crop_box,
    mirrored,
    pad_crops,
    scale_crop_box,
    scale_crop_px,
)
from resnets.specs.data import AreaCrop, PadCrop, ScaleCrop

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


@pytest.mark.parametrize("augment", [PadCrop(flip=False), AreaCrop(flip=False), ScaleCrop(flip=False)])
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


def test_half_of_the_images_are_mirrored():
    assert mirrored(ScaleCrop(), many(1)[:, 0]).mean() == pytest.approx(0.5, abs=0.02)


def test_every_shorter_side_of_the_range_is_as_likely():
    sides = [scale_crop_px(ScaleCrop(), uniform) for uniform in many(1)[:, 0]]
    counts = np.bincount(np.array(sides) - 256)
    assert len(counts) == 225
    assert ((counts - 20_000 / 225) ** 2 / (20_000 / 225)).sum() < 320  # 224 degrees of freedom


@given(st.integers(1, 300), st.integers(0, 300), st.integers(0, 200), SIDES, SIDES, DRAWS)
def test_a_scaled_crop_is_whole_pixels_of_the_resized_image(crop_px, extra, span, width, height, draws):
    augment = ScaleCrop(min_resize_px=crop_px + extra, max_resize_px=crop_px + extra + span)
    left, top, right, bottom = scale_crop_box(augment, width, height, crop_px, draws[:3])
    shorter = scale_crop_px(augment, draws[0])
    resized = {side: round(side / min(width, height) * shorter) for side in (width, height)}
    assert augment.min_resize_px <= min(resized.values()) == shorter <= augment.max_resize_px
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    for low, high, side in ((left, right, width), (top, bottom, height)):
        scale = resized[side] / side
        assert low * scale == pytest.approx(round(low * scale), abs=1e-6 * resized[side])
        assert 0 <= round(low * scale) <= resized[side] - crop_px
        assert (high - low) * scale == pytest.approx(crop_px, abs=1e-6 * resized[side])


def test_every_place_is_as_likely():
    augment = ScaleCrop(min_resize_px=10, max_resize_px=10)
    boxes = np.array([scale_crop_box(augment, 20, 15, 8, draws) for draws in many(3)])
    # 20 x 15 becomes 13 x 10, in which a crop of 8 fits at 6 x 3 places.
    columns, rows = np.rint(boxes[:, 0] * 13 / 20).astype(int), np.rint(boxes[:, 1] * 10 / 15).astype(int)
    counts = np.bincount(columns * 3 + rows)
    assert len(counts) == 18
    assert ((counts - 20_000 / 18) ** 2 / (20_000 / 18)).sum() < 46  # 17 degrees of freedom

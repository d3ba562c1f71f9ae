import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from resnets.data.color import (
    PUBLISHED_AXES,
    PUBLISHED_EIGENVALUES,
    ColorAugment,
    jitter,
    jitter_factors,
    standard_normals,
)
from resnets.data.preprocess import Preprocessor
from resnets.specs.data import Color
from resnets.specs.preprocess import ColorOrder, Preprocess

EVERYTHING = Color(pca_std=0.1, brightness=0.4, contrast=0.5, saturation=0.6, hue=0.2)


def random_uniforms(rows, columns=8, seed=0):
    return np.random.default_rng(seed).random((rows, columns))


def random_pixels(num_images=4, side=12):
    """Return smooth, saturated, gray, black and white regions, as bytes in the memory format channels-last."""
    random = np.random.default_rng(1)
    pixels = random.integers(0, 256, (num_images, side, side, 3), dtype=np.uint8)
    pixels[:, :2] = pixels[:, :2, :, :1]
    pixels[:, 2, :, 1] = 0
    pixels[:, 3], pixels[:, 4] = 0, 255
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def preprocessor_for(order: ColorOrder = "rgb", side=12):
    mean_image = np.random.default_rng(2).random((side, side, 3)).astype(np.float32) * 255
    ordered = mean_image[..., ::-1] if order == "bgr" else mean_image
    return Preprocessor(
        Preprocess(resize_px=side, crop_px=side, color=order, mean_image=True), np.ascontiguousarray(ordered)
    )


def by_torchvision(pixels, color, factors):
    """Return images in 0 ... 255, changed one by one by torchvision's own functions on floats in 0 ... 1."""
    from torchvision.transforms.v2 import functional

    changed = []
    for image, (brightness, contrast, saturation, hue) in zip(pixels, factors.tolist(), strict=True):
        values = image.double() / 255
        if color.brightness:
            values = functional.adjust_brightness(values, brightness)
        if color.contrast:
            values = functional.adjust_contrast(values, contrast)
        if color.saturation:
            values = functional.adjust_saturation(values, saturation)
        if color.hue:
            values = functional.adjust_hue(values, hue)
        changed.append(values * 255)
    return torch.stack(changed)


@pytest.mark.parametrize(
    "color",
    [Color(brightness=0.9), Color(contrast=1.5), Color(saturation=2.0), Color(hue=0.5), EVERYTHING],
    ids=["brightness", "contrast", "saturation", "hue", "all"],
)
@given(seed=st.integers(0, 2**32))
def test_each_change_is_that_of_torchvision(color, seed):
    pixels = random_pixels()
    factors = torch.from_numpy(jitter_factors(color, random_uniforms(4, 4, seed)))
    expected = by_torchvision(pixels, color, factors)
    changed = jitter(pixels.to(torch.float32), color, factors)
    assert (changed - expected).abs().max() < 0.01
    assert changed.min() >= 0
    assert changed.max() <= 255


@pytest.mark.parametrize(("field", "column"), [("brightness", 0), ("contrast", 1), ("saturation", 2), ("hue", 3)])
def test_factors_cover_their_range_evenly_and_never_turn_negative(field, column):
    middle = 0.0 if field == "hue" else 1.0
    for strength in (0.4,) if field == "hue" else (0.4, 1.5):
        factors = jitter_factors(Color(**{field: strength}), random_uniforms(20_000, 4))
        lowest, highest = middle - strength, middle + strength
        lowest = lowest if field == "hue" else max(0.0, lowest)
        quartiles = np.quantile(factors[:, column], [0, 0.25, 0.5, 0.75, 1])
        np.testing.assert_allclose(quartiles, np.linspace(lowest, highest, 5), atol=0.03)
        others = np.delete(factors, column, axis=1)
        assert set(np.unique(others)) <= {0.0, 1.0}


def test_normal_numbers_are_normal_and_independent():
    from scipy import stats

    normals = standard_normals(random_uniforms(20_000, 4))
    assert np.isfinite(standard_normals(np.array([[0.0, 0.0, 1 - 2**-53, 0.5]]))).all()
    for column in normals.T:
        assert stats.kstest(column, "norm").pvalue > 1e-3
    assert np.abs(np.corrcoef(normals.T) - np.eye(4)).max() < 0.035  # five standard deviations


def test_the_published_axes_are_unit_vectors_at_right_angles():
    np.testing.assert_allclose(PUBLISHED_AXES.T @ PUBLISHED_AXES, np.eye(3), atol=2e-4)


def test_a_shift_is_the_published_sum_over_the_axes():
    uniforms = random_uniforms(5, 4)
    alphas = 0.1 * standard_normals(uniforms)[:, :3]
    shift = ColorAugment(Color(pca_std=0.1), preprocessor_for()).shift(uniforms)
    for image in range(5):
        for channel in range(3):
            terms = [PUBLISHED_AXES[channel, i] * alphas[image, i] * PUBLISHED_EIGENVALUES[i] for i in range(3)]
            assert shift[image, channel] == pytest.approx(255 * sum(terms), rel=1e-5, abs=1e-5)


def test_shifts_spread_along_the_axes_as_far_as_the_eigenvalues_say():
    shifts = ColorAugment(Color(pca_std=0.1), preprocessor_for()).shift(random_uniforms(20_000, 4))
    along = shifts @ PUBLISHED_AXES
    np.testing.assert_allclose(along.std(axis=0), 25.5 * PUBLISHED_EIGENVALUES, rtol=0.03)
    assert np.abs(along.mean(axis=0)).max() < 0.2
    # The first axis is gray, so the channels go up and down together: 0.1 x 0.2175 x 255 = 5.5 levels in all.
    assert shifts.std(axis=0) == pytest.approx([3.15, 3.22, 3.24], rel=0.03)


def test_a_shift_moves_every_pixel_of_an_image_alike_and_is_not_cut_off():
    pixels, uniforms = random_pixels(), random_uniforms(4)
    preprocessor = preprocessor_for()
    augment = ColorAugment(Color(pca_std=5.0), preprocessor)
    shift = torch.from_numpy(augment.shift(uniforms[:, :4]))
    difference = augment(pixels, uniforms) - preprocessor.normalize(pixels)
    assert shift.abs().max() > 100
    torch.testing.assert_close(difference, shift[:, :, None, None].expand_as(difference), rtol=1e-5, atol=1e-3)


def test_jitter_comes_before_the_shift_and_the_mean():
    pixels, uniforms = random_pixels(), random_uniforms(4)
    preprocessor = preprocessor_for()
    augment = ColorAugment(EVERYTHING, preprocessor)
    assert preprocessor.mean_image is not None
    mean = torch.from_numpy(preprocessor.mean_image).permute(2, 0, 1)
    factors = torch.from_numpy(jitter_factors(EVERYTHING, uniforms[:, 4:]))
    shift = torch.from_numpy(augment.shift(uniforms[:, :4]))
    expected = by_torchvision(pixels, EVERYTHING, factors) + shift[:, :, None, None] - mean
    output = augment(pixels, uniforms)
    assert (output - expected).abs().max() < 0.01
    assert output.dtype == torch.float32
    assert output.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("color", [Color(pca_std=0.1), EVERYTHING])
def test_a_bgr_model_sees_the_same_colours_in_the_other_order(color):
    pixels, uniforms = random_pixels(), random_uniforms(4)
    as_rgb = ColorAugment(color, preprocessor_for())(pixels, uniforms)
    as_bgr = ColorAugment(color, preprocessor_for("bgr"))(pixels.flip(1), uniforms)
    torch.testing.assert_close(as_bgr.flip(1), as_rgb, rtol=1e-5, atol=1e-4)


@given(st.integers(0, 5), st.integers(0, 2**32))
def test_an_image_is_varied_alike_whatever_is_beside_it(num_images, seed):
    pixels, uniforms = random_pixels(5), random_uniforms(5, seed=seed)
    augment = ColorAugment(EVERYTHING, preprocessor_for())
    together = augment(pixels, uniforms)[:num_images]
    assert torch.equal(augment(pixels[:num_images], uniforms[:num_images]), together)

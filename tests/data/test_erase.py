import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from resnets.data.erase import ERASE_DRAWS, erase_, erase_with_mask_, rectangles


def random_uniforms(rows, seed=0):
    return np.random.default_rng(seed).random((rows, ERASE_DRAWS))


@given(st.floats(0, 1), st.integers(1, 60), st.integers(1, 60), st.integers(0, 2**32))
def test_a_rectangle_lies_in_the_image_and_leaves_some_of_it(probability, height, width, seed):
    tops, bottoms, lefts, rights = rectangles(probability, height, width, random_uniforms(30, seed))
    assert min(tops.min(), lefts.min()) >= 0
    assert (tops <= bottoms).all()
    assert (lefts <= rights).all()
    assert max(bottoms.max(), 0) <= height
    assert max(rights.max(), 0) <= width
    assert ((bottoms - tops) * (rights - lefts) <= np.ceil(0.33 * height * width) + height + width).all()


@pytest.mark.parametrize("side", [(32, 32), (224, 224), (20, 60)])
def test_sizes_and_places_are_distributed_as_those_of_torchvision(side):
    from scipy import stats
    from torchvision.transforms import v2

    eraser = v2.RandomErasing(p=1.0)
    image = torch.empty(3, *side)
    theirs = [eraser.make_params([image]) for _ in range(3_000)]
    theirs = np.array([[one["i"], one["j"], one["h"], one["w"]] for one in theirs if one["v"] is not None])
    tops, bottoms, lefts, rights = rectangles(1.0, *side, random_uniforms(3_000))
    ours = np.stack([tops, lefts, bottoms - tops, rights - lefts], axis=1)
    assert (ours[:, 2] > 0).mean() > 0.99
    for column in range(4):
        assert stats.ks_2samp(ours[:, column], theirs[:, column]).pvalue > 1e-3
    areas = [sizes[:, 2] * sizes[:, 3] for sizes in (ours, theirs)]
    assert stats.ks_2samp(*areas).pvalue > 1e-3


@pytest.mark.parametrize("probability", [0.0, 0.25, 1.0])
def test_as_many_images_are_erased_as_the_probability_says(probability):
    tops, bottoms, _, _ = rectangles(probability, 32, 32, random_uniforms(4_000))
    assert (bottoms > tops).mean() == pytest.approx(probability, abs=0.035)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_erased_pixels_are_those_of_torchvision(layout):
    from torchvision.transforms.v2 import functional

    images = torch.randn(40, 3, 20, 15).contiguous(memory_format=layout)
    chosen = rectangles(0.6, 20, 15, random_uniforms(40))
    expected = torch.stack(
        [
            functional.erase(image, int(top), int(left), int(bottom - top), int(right - left), torch.zeros(3, 1, 1))
            for image, top, bottom, left, right in zip(images, *chosen, strict=True)
        ]
    )
    assert (expected == 0).any()
    by_mask = erase_with_mask_(images.clone(), chosen)
    one_by_one = erase_(images, chosen)
    assert one_by_one is images
    assert torch.equal(one_by_one, expected)
    assert torch.equal(by_mask, expected)

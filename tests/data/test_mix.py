import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from resnets.data.mix import beta_quantile, cutmix_rectangle, mixed
from resnets.data.splits import Batch
from resnets.specs.data import Mix

UNIFORM = st.floats(0, 1, exclude_max=True)


def random_batch(num_images=6, height=10, width=14):
    images = torch.randn(num_images, 3, height, width).contiguous(memory_format=torch.channels_last)
    return Batch(images=images, labels=torch.arange(num_images) % 4, indices=np.arange(num_images))


def copied(batch):
    return Batch(images=batch.images.clone(), labels=batch.labels, indices=batch.indices)


def weights(batch, num_classes=4):
    """Return what each class counts for each image."""
    one_hot = torch.nn.functional.one_hot
    own = batch.own_share * one_hot(batch.labels, num_classes)
    return own + (1 - batch.own_share) * one_hot(batch.partner_labels, num_classes)


@given(alpha=st.floats(0.1, 3), share=UNIFORM)
def test_mixup_is_that_of_torchvision(alpha, share):
    from torchvision.transforms import v2

    batch = random_batch()
    theirs = v2.MixUp(alpha=alpha, num_classes=4)
    theirs._dist.sample = lambda *_: torch.tensor(beta_quantile(alpha, share), dtype=torch.float64)
    images, labels = theirs(batch.images.clone(), batch.labels)
    ours = mixed(copied(batch), Mix(mixup_alpha=alpha), np.array([0.0, share, 0.5, 0.5]))
    torch.testing.assert_close(ours.images, images, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(weights(ours), labels, rtol=1e-5, atol=1e-6)
    assert ours.images.is_contiguous(memory_format=torch.channels_last)


@given(alpha=st.floats(0.1, 3), share=UNIFORM, vertical=UNIFORM, horizontal=UNIFORM)
def test_cutmix_is_that_of_torchvision(alpha, share, vertical, horizontal):
    from torchvision.transforms import v2

    batch = random_batch()
    theirs = v2.CutMix(alpha=alpha, num_classes=4)
    theirs._dist.sample = lambda *_: torch.tensor(beta_quantile(alpha, share), dtype=torch.float64)
    places = iter([int(horizontal * 14), int(vertical * 10)])  # they draw the column first
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "randint", lambda *_, **__: torch.tensor([next(places)]))
        images, labels = theirs(batch.images.clone(), batch.labels)
    ours = mixed(copied(batch), Mix(cutmix_alpha=alpha), np.array([0.9, share, vertical, horizontal]))
    assert torch.equal(ours.images, images)
    torch.testing.assert_close(weights(ours), labels, rtol=1e-5, atol=1e-6)


@given(st.integers(1, 300), st.integers(1, 300), st.floats(0, 1), UNIFORM, UNIFORM)
def test_a_rectangle_lies_in_the_image_and_covers_no_more_than_its_share(height, width, share, vertical, horizontal):
    top, bottom, left, right = cutmix_rectangle(height, width, share, vertical, horizontal)
    assert 0 <= top <= bottom <= height
    assert 0 <= left <= right <= width
    assert (bottom - top) * (right - left) <= (1 - share) * height * width + 1e-6


def test_the_own_share_of_cutmix_is_the_area_that_is_left():
    images = torch.arange(5.0).reshape(5, 1, 1, 1).expand(5, 3, 10, 14).contiguous()
    batch = Batch(images=images, labels=torch.arange(5), indices=np.arange(5))
    ours = mixed(batch, Mix(cutmix_alpha=1.0), np.array([0.0, 0.4, 0.1, 0.5]))
    own = (ours.images == torch.arange(5.0).reshape(5, 1, 1, 1)).float().mean(dim=(1, 2, 3))
    assert 0.3 < ours.own_share < 1
    torch.testing.assert_close(own, torch.full((5,), ours.own_share))
    assert ours.partner_labels is not None
    assert ours.partner_labels.tolist() == [4, 0, 1, 2, 3]


@pytest.mark.parametrize("alpha", [0.2, 1.0, 2.5])
def test_shares_are_drawn_from_the_beta_distribution(alpha):
    from scipy import stats

    shares = [beta_quantile(alpha, uniform) for uniform in np.random.default_rng(0).random(3_000)]
    assert stats.kstest(shares, stats.beta(alpha, alpha).cdf).pvalue > 1e-3
    drawn = torch.distributions.Beta(alpha, alpha).sample(torch.Size([3_000]))
    assert stats.ks_2samp(shares, drawn.numpy()).pvalue > 1e-3


def test_either_kind_is_as_likely_where_both_are_on():
    mix = Mix(mixup_alpha=1.0, cutmix_alpha=1.0)
    batch = random_batch(2)
    cut = 0
    for first in np.linspace(0, 0.99, 100):
        ours = mixed(copied(batch), mix, np.array([first, 0.5, 0.5, 0.5]))
        cut += bool(torch.equal(ours.images[:, :, 0, 0], batch.images[:, :, 0, 0]))
    assert 45 <= cut <= 55


@pytest.mark.parametrize("num_images", [0, 1])
def test_an_image_without_another_one_stays_as_it_is(num_images):
    batch = random_batch(num_images)
    ours = mixed(copied(batch), Mix(mixup_alpha=1.0), np.full(4, 0.5))
    assert torch.equal(ours.images, batch.images)
    assert ours.partner_labels is None
    assert ours.own_share == 1.0

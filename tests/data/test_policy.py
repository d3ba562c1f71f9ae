import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from resnets.data.policy import ImagePolicy
from resnets.specs.data import NoPolicy, RandAugment, TrivialAugment

POLICIES = [RandAugment(), RandAugment(operations=3, magnitude=30), TrivialAugment()]


def photo(mode="RGB"):
    coarse = np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((40, 40), Image.Resampling.BICUBIC).convert(mode)


@pytest.mark.parametrize("policy", POLICIES)
def test_the_operations_are_those_of_torchvision_under_the_same_seed(policy):
    from torchvision.transforms import v2

    bilinear = v2.InterpolationMode.BILINEAR
    theirs = (
        v2.RandAugment(policy.operations, policy.magnitude, interpolation=bilinear)
        if isinstance(policy, RandAugment)
        else v2.TrivialAugmentWide(interpolation=bilinear)
    )
    image = photo()
    for seed in (0, 7, 2**64 - 1):
        torch.manual_seed(seed)
        assert np.array_equal(ImagePolicy(policy)(image, seed), theirs(image))


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_size_and_mode_stay_and_seeds_differ(policy, mode):
    image = photo(mode)
    changed = pickle.loads(pickle.dumps(ImagePolicy(policy)))  # as a process that is not forked gets it
    results = [changed(image, seed) for seed in range(20)]
    assert {(result.size, result.mode) for result in results} == {((40, 40), mode)}
    assert len({result.tobytes() for result in results}) > 5


@pytest.mark.parametrize("policy", POLICIES)
def test_random_numbers_of_the_run_are_left_alone(policy):
    before = torch.get_rng_state()
    ImagePolicy(policy)(photo(), 3)
    assert torch.equal(torch.get_rng_state(), before)


def test_no_policy_changes_nothing():
    image = photo()
    assert ImagePolicy(NoPolicy())(image, 3) is image


def test_torchvision_is_imported_by_a_policy_alone():
    code = "import sys, resnets.data.batches; assert not {'torchvision', 'scipy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("policy", [RandAugment(), TrivialAugment()])
def test_threads_draw_what_one_would(policy):
    changed = ImagePolicy(policy)
    images = [
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 50, 3), np.uint8)) for seed in range(60)
    ]
    alone = [np.asarray(changed(image, seed)) for seed, image in enumerate(images)]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda seed: np.asarray(changed(images[seed], seed)), range(60)))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)

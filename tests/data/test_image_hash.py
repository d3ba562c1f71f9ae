"""Perceptual hashes: the search finds what brute force finds, and copies are told from other pictures."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.fft import dctn

from resnets.data.image_hash import (
    HASHED_PX,
    THUMBNAIL_PX,
    connected,
    near_pairs,
    pairs_within,
    perceptual_hash,
)


def distance(one, other):
    return int(one ^ other).bit_count()


def by_brute_force(hashes, bits):
    values = [int(value) for value in hashes]
    return [
        [i, j] for i in range(len(values)) for j in range(i + 1, len(values)) if distance(values[i], values[j]) <= bits
    ]


def flipped(value, random, bits):
    for bit in random.choice(64, bits, replace=False):
        value ^= 1 << int(bit)
    return value


@given(seed=st.integers(0, 10_000), bits=st.integers(0, 12))
def test_every_pair_within_the_distance_is_found_and_no_other(seed, bits):
    random = np.random.default_rng(seed)
    hashes = [int(value) for value in random.integers(0, 2**64, 40, dtype=np.uint64)]
    hashes += [flipped(hashes[number % 40], random, number % 15) for number in range(60)]
    found = pairs_within(np.array(hashes, np.uint64), bits)
    assert found.tolist() == by_brute_force(hashes, bits)


@given(bits=st.integers(0, 12), values=st.lists(st.integers(0, 255), max_size=90))
def test_crowded_hashes_are_found_too(bits, values):
    hashes = [value * 0x0101_0101_0101_0101 for value in values]
    found = pairs_within(np.array(hashes, np.uint64), bits)
    assert found.tolist() == by_brute_force(hashes, bits)


def test_a_search_among_many_compares_few():
    random = np.random.default_rng(0)
    hashes = random.integers(0, 2**64, 50_000, dtype=np.uint64)
    hashes[-20:] = [flipped(int(value), random, 7) for value in hashes[:20]]
    assert pairs_within(hashes, 7).tolist() == [[number, 49_980 + number] for number in range(20)]


def test_a_hash_has_the_signs_of_the_cosine_transform():
    gray = np.random.default_rng(1).integers(0, 256, (32, 32), dtype=np.uint8)
    spectrum = dctn(gray.astype(float), type=2)
    value, _ = perceptual_hash(gray)
    # The first bits are of the lowest frequencies: (0, 1), (1, 0), (1, 1), (0, 2), (2, 0).
    for bit, place in enumerate([(0, 1), (1, 0), (1, 1), (0, 2), (2, 0)]):
        assert (value >> bit) & 1 == (spectrum[place] > 0)


def test_the_second_hash_is_that_of_the_mirror_image():
    random = np.random.default_rng(2)
    for _ in range(20):
        gray = random.integers(0, 256, (32, 32), dtype=np.uint8)
        assert perceptual_hash(gray[:, ::-1].copy()) == perceptual_hash(gray)[::-1]


def scene(seed, size=(160, 120)):
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def facts(images):
    small = [image.convert("L").resize((HASHED_PX, HASHED_PX), Image.Resampling.BOX) for image in images]
    hashes = np.array([perceptual_hash(np.asarray(image)) for image in small], np.uint64)
    thumbnails = [np.asarray(image.resize((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.BOX)) for image in small]
    return hashes, np.stack(thumbnails).reshape(len(images), -1)


def reencoded(image, quality):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


COPIES = {
    "another quality": lambda image: reencoded(image, 30),
    "half the size": lambda image: image.resize((image.width // 2, image.height // 2)),
    "another shape": lambda image: image.resize((image.width, image.width)),
    "brighter": lambda image: image.point(lambda value: value * 0.8 + 40),
    "gray": lambda image: image.convert("L"),
}


@pytest.mark.parametrize("change", COPIES)
def test_copies_are_near_and_other_pictures_are_not(change):
    images = [scene(seed) for seed in range(60)]
    pairs, mirrored = near_pairs(*facts(images + [COPIES[change](image) for image in images]))
    assert pairs.tolist() == [[number, 60 + number] for number in range(60)]
    assert not mirrored.any()


def test_mirror_images_are_near_and_said_to_be_mirrored():
    images = [scene(seed) for seed in range(40)]
    turned = [reencoded(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), 70) for image in images]
    pairs, mirrored = near_pairs(*facts(images + turned))
    assert pairs.tolist() == [[number, 40 + number] for number in range(40)]
    assert mirrored.all()


def test_an_image_like_its_own_mirror_image_is_a_plain_copy():
    half = np.asarray(scene(3))
    symmetric = Image.fromarray(np.concatenate([half, half[:, ::-1]], axis=1))
    pairs, mirrored = near_pairs(*facts([symmetric, reencoded(symmetric, 80), scene(4)]))
    assert (pairs.tolist(), mirrored.tolist()) == ([[0, 1]], [False])


def test_images_next_to_blank_are_never_near():
    random = np.random.default_rng(0)
    blank = [Image.fromarray(random.integers(250, 256, (64, 64), dtype=np.uint8)) for _ in range(20)]
    pairs, _ = near_pairs(*facts(blank * 2))
    assert len(pairs) == 0


def test_nothing_has_no_pairs():
    assert near_pairs(np.empty((0, 2), np.uint64), np.empty((0, 144), np.uint8))[0].shape == (0, 2)
    assert pairs_within(np.empty(0, np.uint64), 5).shape == (0, 2)


def test_groups_are_those_that_pairs_join():
    group = connected(np.array([[0, 3], [3, 5], [1, 2]]), 7)
    assert len(set(group.tolist())) == 4
    assert group[0] == group[3] == group[5] != group[1] == group[2]

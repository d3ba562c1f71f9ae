"""Near duplicates among any number of images: a 64-bit hash of the coarse structure, and thumbnails that decide.

A hash holds the signs of the 64 lowest frequencies of the cosine transform of the gray image, the mean left out:
re-encoding, resizing and changes of brightness or contrast turn few of them. Hashes that differ in few bits are
candidates; whether two candidates are one picture is decided by their thumbnails.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jaxtyping import Bool, Int64, UInt8, UInt64

HASHED_PX = 32
"""Side of the gray image that is hashed."""
THUMBNAIL_PX = 12
NEAR_BITS = 7
"""Bits of 64 in which the hashes of two copies of a picture may differ."""

# Bands that any two near hashes share: more of them make fewer candidates, and more passes over all hashes.
_SHARED_BANDS = 3
_MOST_COMPARED = 128
_LEAST_CORRELATION = 0.98
_LEAST_CONTRAST = 6.0
_VERIFIED_AT_ONCE = 100_000
_PAIRS_AN_IMAGE = 4

_frequencies = sorted(
    ((row, column) for row, column in itertools.product(range(HASHED_PX), repeat=2) if row + column),
    key=lambda place: (place[0] ** 2 + place[1] ** 2, place),
)[:64]
_rows, _columns = (np.array(places) for places in zip(*_frequencies, strict=True))
_basis = np.cos(np.pi / HASHED_PX * np.outer(np.arange(max(_rows) + 1), np.arange(HASHED_PX) + 0.5)).astype(np.float32)

# Coefficients of half a gray level and less are noise of encoders; their bit is 0 rather than by chance.
_LEAST_COEFFICIENT = 0.5 * HASHED_PX**2 / 4
_MIRRORED = np.where(_columns % 2, -1, 1).astype(np.float32)


def perceptual_hash(gray: UInt8[np.ndarray, "32 32"]) -> tuple[int, int]:
    """Return the 64-bit hash of a gray image, and that of its mirror image."""
    # Mirrored left to right, the odd frequencies along the width change their signs.
    coefficients = (_basis @ gray.astype(np.float32) @ _basis.T)[_rows, _columns]
    bits = np.stack([coefficients, coefficients * _MIRRORED]) > _LEAST_COEFFICIENT
    plain, mirrored = np.packbits(bits, axis=1, bitorder="little").view("<u8")[:, 0].tolist()
    return plain, mirrored


def pairs_within(hashes: UInt64[np.ndarray, " n"], bits: int) -> Int64[np.ndarray, "pairs 2"]:
    """Return every pair of indices (smaller, larger) whose hashes differ in at most `bits` of their 64 bits.

    Among more than 128 hashes that agree in a third of their bits, each is compared with the next 128 alone.
    """
    return _unique_pairs(np.concatenate([np.empty((0, 2), np.int64), *_pairs_by_key(hashes, bits)]))


def _pairs_by_key(hashes: UInt64[np.ndarray, " n"], bits: int) -> Iterator[Int64[np.ndarray, "pairs 2"]]:
    """Yield, pass by pass, the pairs within a distance, each once or more, without comparing all with all.

    The bits are dealt to bits + 3 bands. At most `bits` bands hold a difference, so that two near hashes agree in at
    least three bands: each choice of three is a key to sort by, and only hashes with the same key are compared.
    """
    bands = bits + _SHARED_BANDS
    # Dealt in turn, neighbouring frequencies, whose signs go together most, fall into different bands.
    masks = [sum(1 << bit for bit in range(band, 64, bands)) for band in range(bands)]
    for chosen in itertools.combinations(masks, _SHARED_BANDS):
        keys = hashes & np.uint64(sum(chosen))
        order = np.argsort(keys)
        keys, ordered = keys[order], hashes[order]
        first = np.flatnonzero(keys[1:] == keys[:-1])
        found = []
        for distance in range(1, _MOST_COMPARED + 1):
            if not len(first):
                break
            near = first[_bits_set(ordered[first] ^ ordered[first + distance]) <= bits]
            found.append(np.stack([order[near], order[near + distance]], axis=1))
            first = first[first + distance + 1 < len(keys)]
            first = first[keys[first] == keys[first + distance + 1]]
        yield np.sort(np.concatenate(found), axis=1) if found else np.empty((0, 2), np.int64)


def _unique_pairs(pairs: Int64[np.ndarray, "all 2"]) -> Int64[np.ndarray, "pairs 2"]:
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    once = np.ones(len(pairs), dtype=bool)
    once[1:] = np.any(pairs[1:] != pairs[:-1], axis=1)
    return pairs[once]


def _bits_set(words: UInt64[np.ndarray, " n"]) -> UInt8[np.ndarray, " n"]:
    # Sums of neighbouring bits, then of pairs, then of fours; NumPy before 2.0 has no function for it.
    words = words - ((words >> np.uint64(1)) & np.uint64(0x5555_5555_5555_5555))
    words = (words & np.uint64(0x3333_3333_3333_3333)) + ((words >> np.uint64(2)) & np.uint64(0x3333_3333_3333_3333))
    words = (words + (words >> np.uint64(4))) & np.uint64(0x0F0F_0F0F_0F0F_0F0F)
    return ((words * np.uint64(0x0101_0101_0101_0101)) >> np.uint64(56)).astype(np.uint8)


def near_pairs(
    hashes: UInt64[np.ndarray, "n 2"],
    thumbnails: UInt8[np.ndarray, "n 144"],
    bits: int = NEAR_BITS,
    on_share: Callable[[float], None] = lambda share: None,
) -> tuple[Int64[np.ndarray, "pairs 2"], Bool[np.ndarray, " pairs"]]:
    """Return the pairs of images that are copies of one picture, and which of them are mirror images.

    Where each picture is there very many times, as in the frames of films, it is only enough pairs to join each image
    to the others of its picture.

    Args:
        hashes: of `perceptual_hash`, of each image and of its mirror image.
        thumbnails: gray, 12 x 12, by rows.
        bits: in which the hashes of a pair may differ.
        on_share: told which share of the search is done.
    """
    n = len(hashes)
    passes = math.comb(bits + _SHARED_BANDS, _SHARED_BANDS)
    found = np.empty((0, 2), np.int64)
    group = np.arange(n)
    # Behind the images come their mirror images, of which those are wanted that are like an image.
    for number, pairs in enumerate(_pairs_by_key(hashes.T.reshape(-1), bits)):
        on_share(number / passes)
        pairs = pairs[pairs[:, 0] < n]
        first, second = pairs[:, 0], pairs[:, 1] % n
        mirrored = pairs[:, 1] >= n
        pairs = np.stack([np.minimum(first, second), np.maximum(first, second) + n * mirrored], axis=1)
        pairs = pairs[group[first] != group[second]]
        found = _unique_pairs(np.concatenate([found, pairs[_same_picture(thumbnails, pairs)]]))
        if len(found) > _PAIRS_AN_IMAGE * n:
            found, group = _joined(found, n)
    # What is like its own mirror image pairs with another image in both ways; the plain way, which comes first, stays.
    plain = np.stack([found[:, 0], found[:, 1] % n], axis=1) if n else found
    order = np.lexsort((found[:, 1], plain[:, 1], plain[:, 0]))
    plain, mirrored = plain[order], found[order, 1] >= n
    once = np.ones(len(plain), dtype=bool)
    once[1:] = np.any(plain[1:] != plain[:-1], axis=1)
    return plain[once], mirrored[once]


def connected(pairs: Int64[np.ndarray, "pairs 2"], n: int) -> Int64[np.ndarray, " n"]:
    """Return for each of n indices the number of its group: those that pairs join, directly or through others."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    edges = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    return connected_components(edges, directed=False)[1].astype(np.int64)


def _joined(
    pairs: Int64[np.ndarray, "pairs 2"], n: int
) -> tuple[Int64[np.ndarray, "fewer 2"], Int64[np.ndarray, " n"]]:
    """Return as few pairs as join the same images, and the group of each image."""
    group = connected(np.stack([pairs[:, 0], pairs[:, 1] % n], axis=1), n)
    _, first = np.unique(group, return_index=True)
    others = np.flatnonzero(first[group] != np.arange(n))
    return np.stack([first[group[others]], others], axis=1), group


def _same_picture(
    thumbnails: UInt8[np.ndarray, "n 144"], pairs: Int64[np.ndarray, "pairs 2"]
) -> Bool[np.ndarray, " pairs"]:
    """Return for which pairs the thumbnails correlate as those of copies do; what has next to no contrast never does.

    The second index of a pair counts on behind the images for their mirror images.
    """
    n = len(thumbnails)
    same = np.zeros(len(pairs), dtype=bool)
    for start in range(0, len(pairs), _VERIFIED_AT_ONCE):
        part = slice(start, start + _VERIFIED_AT_ONCE)
        first, second = pairs[part].T
        one = thumbnails[first].astype(np.float32)
        other = thumbnails[second % n].astype(np.float32).reshape(-1, THUMBNAIL_PX, THUMBNAIL_PX)
        other = np.where((second >= n)[:, None, None], other[:, :, ::-1], other).reshape(len(one), -1)
        one -= one.mean(axis=1, keepdims=True)
        other -= other.mean(axis=1, keepdims=True)
        variance, other_variance = (one**2).mean(axis=1), (other**2).mean(axis=1)
        enough = np.minimum(variance, other_variance) >= _LEAST_CONTRAST**2
        same[part] = enough & ((one * other).mean(axis=1) >= _LEAST_CORRELATION * np.sqrt(variance * other_variance))
    return same

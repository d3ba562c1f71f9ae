import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnets.data.order import (
    AUGMENT_STREAM,
    CLASS_ORDER_STREAM,
    COLOR_STREAM,
    ERASE_STREAM,
    FIRST_CLASS_STREAM,
    MIX_STREAM,
    ORDER_STREAM,
    POLICY_STREAM,
    BalancedOrder,
    TrainingStream,
    rank_positions,
    sample_indices,
    uniforms,
)
from resnets.specs.errors import DataError, SpecError

SEEDS = st.integers(0, 2**63 - 1)


def positions(first, last):
    return np.arange(first, last, dtype=np.int64)


def splitmix64(state):
    """Return SplitMix64's output function of `state`, in Python's own integers."""
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB % 2**64
    return state ^ (state >> 31)


@given(SEEDS, st.integers(0, 10**12), st.integers(1, 4), st.sampled_from([ORDER_STREAM, AUGMENT_STREAM]))
def test_random_numbers_equal_those_of_splitmix64_in_plain_integers(seed, position, num_draws, stream):
    increment = 0x9E3779B97F4A7C15
    key = splitmix64(((splitmix64((seed + increment) % 2**64) ^ stream) + increment) % 2**64)
    state = splitmix64((key + position * increment) % 2**64)
    expected = [(splitmix64((state + (i + 1) * increment) % 2**64) >> 11) / 2**53 for i in range(num_draws)]
    assert uniforms(seed, np.array([position]), num_draws, stream)[0].tolist() == expected


def test_the_output_function_is_that_of_the_published_generator():
    # First outputs of SplitMix64 with seed 1234567, from Vigna's reference implementation.
    increment, state = 0x9E3779B97F4A7C15, 1234567
    outputs = [splitmix64((state + (i + 1) * increment) % 2**64) for i in range(3)]
    assert outputs == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@given(SEEDS, st.lists(st.integers(0, 10**9), min_size=1, max_size=8))
def test_random_numbers_of_a_position_do_not_depend_on_the_other_positions(seed, chosen):
    together = uniforms(seed, np.array(chosen), 3, AUGMENT_STREAM)
    alone = np.concatenate([uniforms(seed, np.array([position]), 3, AUGMENT_STREAM) for position in chosen])
    np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1])
def test_random_numbers_are_uniform_and_independent(seed):
    draws = uniforms(seed, positions(0, 40_000), 4, AUGMENT_STREAM)
    other = [
        uniforms(seed, positions(0, 40_000), 1, ORDER_STREAM),
        uniforms(seed ^ 1, positions(0, 40_000), 1, AUGMENT_STREAM),
        np.roll(draws[:, :1], 1, axis=0),
    ]
    counts = np.stack([np.bincount((column * 64).astype(int), minlength=64) for column in draws.T])
    chi_square = ((counts - 625) ** 2 / 625).sum(axis=1)
    assert draws.min() >= 0
    assert draws.max() < 1
    assert (chi_square < 115).all()  # 63 degrees of freedom: exceeded once in 10,000 columns
    correlations = np.corrcoef(np.concatenate([draws, *other], axis=1).T) - np.eye(7)
    assert np.abs(correlations).max() < 0.025  # five standard deviations


@given(SEEDS, st.integers(1, 60), st.integers(0, 5))
def test_every_epoch_takes_every_image_once(seed, num_images, epoch):
    taken = sample_indices(seed, positions(epoch * num_images, (epoch + 1) * num_images), num_images)
    assert sorted(taken.tolist()) == list(range(num_images))


def test_epochs_and_seeds_have_different_orders():
    orders = [sample_indices(seed, positions(e * 50, (e + 1) * 50), 50) for seed in (0, 1) for e in (0, 1)]
    assert all((a != b).any() for a, b in itertools.combinations(orders, 2))


def test_each_image_is_as_often_at_each_place_of_an_epoch():
    orders = sample_indices(3, positions(0, 6 * 6_000), 6).reshape(6_000, 6)
    counts = np.stack([np.bincount(column, minlength=6) for column in orders.T])
    assert ((counts - 1_000) ** 2 / 1_000).sum() < 60  # 25 degrees of freedom


@given(
    st.integers(0, 30), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(0, 20), st.integers(0, 9)
)
def test_processes_and_passes_cut_a_step_into_its_parts(step, share, accumulation, world_size, extra, seed):
    batch = share * accumulation * world_size
    whole = TrainingStream(seed=seed, num_images=batch + extra, global_batch=batch)
    parts = [
        TrainingStream(
            seed=seed,
            num_images=batch + extra,
            global_batch=batch,
            accumulation=accumulation,
            rank=rank,
            world_size=world_size,
        ).passes(step)
        for rank in range(world_size)
    ]
    assert {len(one) for passes in parts for one in passes} == {share}
    together = np.concatenate([one for passes in parts for one in passes])
    np.testing.assert_array_equal(together, positions(step * batch, (step + 1) * batch))
    np.testing.assert_array_equal(whole.indices(together), whole.indices(whole.passes(step)[0]))
    np.testing.assert_array_equal(whole.uniforms(together, 2), uniforms(seed, together, 2, AUGMENT_STREAM))


def test_the_steps_of_a_process_follow_each_other_without_gaps():
    steps = np.concatenate([rank_positions(step, 6, rank, 2) for step in range(5) for rank in range(2)])
    np.testing.assert_array_equal(steps, positions(0, 30))


def test_a_batch_larger_than_the_dataset_is_refused_with_both_numbers():
    with pytest.raises(DataError, match=r"global_batch is 129.*only 128 training images.*--global-batch 128 or less"):
        TrainingStream(seed=0, num_images=128, global_batch=129)


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(SpecError, match=r"128 does not divide into 3 process\(es\) with accumulation 2"):
        TrainingStream(seed=0, num_images=500, global_batch=128, accumulation=2, world_size=3)


LABELS = np.array([0] * 13 + [1] * 2 + [3] * 1 + [4] * 6)
"""Five classes, one of them without images."""


@given(SEEDS, st.integers(0, 1_000))
def test_a_balanced_stream_draws_every_class_equally_often(seed, block):
    indices = BalancedOrder(seed, LABELS).indices(positions(4 * block, 4 * block + 8))
    assert sorted(LABELS[indices[:4]].tolist()) == sorted(LABELS[indices[4:]].tolist()) == [0, 1, 3, 4]


@given(SEEDS)
def test_a_balanced_stream_takes_every_image_of_a_class_once_before_any_of_them_again(seed):
    indices = BalancedOrder(seed, LABELS).indices(positions(0, 4 * 13 * 6))
    for label in (0, 1, 3, 4):
        images = np.flatnonzero(label == LABELS)
        drawn = indices[LABELS[indices] == label]
        for epoch in drawn[: len(drawn) // len(images) * len(images)].reshape(-1, len(images)):
            np.testing.assert_array_equal(np.sort(epoch), images)


@given(SEEDS, st.permutations(range(60)))
def test_a_balanced_stream_depends_on_nothing_but_the_position(seed, shuffled):
    whole = BalancedOrder(seed, LABELS).indices(positions(0, 60))
    order = BalancedOrder(seed, LABELS)
    one_by_one = [order.indices(np.array([position]))[0] for position in shuffled]
    np.testing.assert_array_equal(whole[shuffled], one_by_one)


def test_classes_of_the_same_size_are_shuffled_apart():
    labels = np.repeat(np.arange(2), 50)
    indices = BalancedOrder(0, labels).indices(positions(0, 200))
    orders = [indices[labels[indices] == label] - 50 * label for label in range(2)]
    epochs = [*orders[0].reshape(2, 50), *orders[1].reshape(2, 50)]
    assert all((a != b).any() for a, b in itertools.combinations(epochs, 2))
    assert len({tuple(pair) for pair in labels[indices].reshape(-1, 2).tolist()}) == 2


def test_streams_are_numbered_apart():
    streams = [ORDER_STREAM, AUGMENT_STREAM, COLOR_STREAM, POLICY_STREAM, ERASE_STREAM, MIX_STREAM, CLASS_ORDER_STREAM]
    assert len(set(streams)) == len(streams)
    assert max(streams) < FIRST_CLASS_STREAM
    firsts = [uniforms(5, positions(0, 3), 1, stream)[0, 0] for stream in streams]
    assert len(set(firsts)) == len(firsts)


@given(st.integers(0, 12), st.integers(1, 3), st.integers(0, 1))
def test_passes_are_numbered_through_from_step_0(step, accumulation, rank):
    stream = TrainingStream(
        seed=0, num_images=50, global_batch=6 * accumulation, accumulation=accumulation, rank=rank, world_size=2
    )
    for part, expected in enumerate(stream.passes(step)):
        np.testing.assert_array_equal(stream.positions(step * accumulation + part), expected)

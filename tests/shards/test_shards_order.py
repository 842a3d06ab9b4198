"""The order of an epoch, its batches and the ranges of the ranks, as properties."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from crispedit.shards.order import batched, rank_range, shuffled, weighted

SHARD_SIZES = st.lists(st.integers(0, 7), min_size=1, max_size=12)


def shard_of(sizes):
    return np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)


def plain(count):
    return np.arange(count), np.zeros(count, np.int64)


@given(SHARD_SIZES, st.integers(1, 14), st.integers(0, 5), st.integers(0, 5))
def test_shuffle_is_a_permutation_that_needs_one_window_at_a_time(sizes, window, seed, epoch):
    shards = shard_of(sizes)
    samples, copy = plain(len(shards))
    order = shuffled(samples, copy, shards, window, seed, epoch)
    assert np.array_equal(np.sort(order), samples)
    assert np.array_equal(order, shuffled(samples, copy, shards, window, seed, epoch))
    # Walking the order, a shard that has been left for another window never comes back.
    used = [size for size in sizes if size]
    seen: list[set[int]] = []
    for shard in shards[order].tolist():
        if not seen or (shard not in seen[-1] and len(seen[-1]) == min(window, len(used))):
            seen.append(set())
        seen[-1].add(shard)
    assert sum(len(group) for group in seen) == len(used)


def test_shuffle_differs_by_seed_and_epoch_and_mixes_the_whole_window():
    shards = shard_of([50] * 8)
    orders = {
        (seed, epoch): tuple(shuffled(*plain(400), shards, 8, seed, epoch)) for seed in (0, 1) for epoch in (0, 1)
    }
    assert len(set(orders.values())) == 4
    first = Counter(shards[list(orders[0, 0][:100])].tolist())
    assert len(first) == 8  # a quarter of the epoch draws from every shard ...
    assert max(first.values()) < 30  # ... about evenly


def test_shuffle_is_uniform_over_positions():
    counts = np.zeros((6, 6), int)
    for epoch in range(3000):
        order = shuffled(*plain(6), shard_of([2, 2, 2]), 3, 7, epoch)
        counts[np.arange(6), order] += 1
    # Each of the 36 cells is binomial(3000, 1/6): mean 500, standard deviation 20.4.
    assert abs(counts - 500).max() < 5 * 20.4


@given(
    st.lists(st.integers(0, 4), max_size=60), st.integers(1, 9), st.integers(1, 9), st.sampled_from(["exact", "equal"])
)
def test_ranges_of_the_ranks_partition_the_batches(buckets, batch_size, world_size, coverage):
    bucket = np.array(buckets, np.int64)
    samples = np.arange(len(buckets)) * 10
    batches = batched(samples, bucket, batch_size, partial=coverage == "exact")
    ranges = [rank_range(len(batches), rank, world_size, coverage) for rank in range(world_size)]
    read = [int(s) for share in ranges for position in share for s in batches[position]]
    assert len(read) == len(set(read))
    if coverage == "exact":
        assert sorted(read) == samples.tolist()
        assert max(map(len, ranges)) - min(map(len, ranges)) <= 1
    else:
        assert len({len(share) for share in ranges}) == 1
        assert all(len(batches[p]) == batch_size for share in ranges for p in share)
        lost = len(samples) - len(read)
        assert lost < len(set(buckets)) * batch_size + world_size * batch_size
    for position in range(len(batches)):
        assert len({buckets[int(s) // 10] for s in batches[position]}) == 1


def test_batches_stand_where_they_fill_up():
    batches = batched(np.arange(7), np.array([0, 1, 0, 1, 1, 0, 1]), 2, partial=True)
    assert [batches[i].tolist() for i in range(len(batches))] == [[0, 2], [1, 3], [4, 6], [5]]


@given(st.lists(st.integers(0, 2), min_size=1, max_size=40), st.floats(0, 3), st.integers(1, 12))
def test_weights_are_met_over_any_run_of_epochs(category_of, weight, epochs):
    of = np.array(category_of, np.int16)
    totals = np.zeros(len(of), int)
    for epoch in range(epochs):
        samples, copy = weighted(np.where(of == 1, weight, 1.0), epoch)
        count = np.bincount(samples, minlength=len(of))
        assert np.array_equal(np.sort(copy), np.sort(np.concatenate([np.arange(c) for c in count])))
        totals += count
    expected = np.where(of == 1, weight * epochs, epochs)
    assert (abs(totals - expected) <= 1 + 1e-9).all()
    assert (totals[of != 1] == epochs).all()


def test_half_weight_reads_one_half_and_then_the_other():
    even, _ = weighted(np.full(1000, 0.5), 0)
    odd, _ = weighted(np.full(1000, 0.5), 1)
    assert sorted([*even, *odd]) == list(range(1000))
    assert abs(len(even) - 500) < 80


def test_copies_of_a_sample_are_spread_by_the_shuffle():
    samples, copy = weighted(np.full(200, 2.0), 0)
    order = shuffled(samples, copy, np.zeros(200, np.int32), 1, 0, 0)
    assert Counter(order.tolist()) == dict.fromkeys(range(200), 2)
    assert (order[1:] == order[:-1]).sum() < 10

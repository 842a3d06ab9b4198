"""The order of an epoch: a pure function of the index, the seed and the epoch, cut into batches and ranges.

    samples --weights--> copies --shuffle--> one sequence --shapes--> one list of batches --rank--> a range of
    it

Neither the number of ranks nor of workers has a part in the list of batches, so every sample of an epoch is
in exactly one rank's range whatever they are, and a position in the list is all that a resume needs. Legend:
N samples of the index, M of the epoch (after weights), L batches.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from crispedit.record import content_key

Coverage = Literal["exact", "equal"]


@dataclass(frozen=True)
class Batches:
    """L batches over one flat array of samples: batch i is samples[starts[i] : starts[i + 1]]."""

    samples: NDArray[np.int64]
    starts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, batch: int) -> NDArray[np.int64]:
        return self.samples[self.starts[batch] : self.starts[batch + 1]]


def weighted(weight_N: NDArray[np.float64], epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """([M] samples, [M] copy number) of an epoch in which sample n comes weight_N[n] times.

    A fraction is spread evenly: over any run of epochs a sample with weight w comes w times an epoch, give or
    take one, and half of the samples of weight 0.5 come in the even epochs, the rest in the odd ones.
    """
    count = len(weight_N)
    phase = _mix(np.arange(count, dtype=np.uint64), content_key("phase")) / 2.0**64
    copies = np.floor((epoch + 1) * weight_N + phase) - np.floor(epoch * weight_N + phase)
    samples = np.repeat(np.arange(count), copies.astype(np.int64))
    first = np.concatenate([[0], np.cumsum(copies)[:-1]]).astype(np.int64) if count else np.zeros(0, np.int64)
    return samples, np.arange(len(samples)) - first[samples]


def shuffled(
    samples: NDArray[np.int64],
    copy: NDArray[np.int64],
    shard_of: NDArray[np.int32],
    window_shards: int,
    seed: int,
    epoch: int,
) -> NDArray[np.int64]:
    """[M] the samples in shuffled order: shards at random, then samples at random within windows of shards.

    A reader needs only the shards of one window at a time. With window_shards at least the number of shards it is a
    uniform shuffle of everything. Sorting by hashes, not numpy's generators, whose streams may change with its version.
    """
    if window_shards < 1:
        raise ValueError(f"window_shards: must be at least 1, not {window_shards}")
    purpose = content_key("order", str(seed), str(epoch))
    shards = np.unique(shard_of[samples])
    place = np.zeros(int(shards.max(initial=-1)) + 1, np.int64)
    in_order = np.argsort(_mix(shards.astype(np.uint64), purpose + "shards"), kind="stable")
    place[shards[in_order]] = np.arange(len(shards))
    window = place[shard_of[samples]] // window_shards
    ticket = _mix(samples.astype(np.uint64) + (copy.astype(np.uint64) << np.uint64(40)), purpose)
    return samples[np.lexsort((ticket, window))]


def batched(samples: NDArray[np.int64], bucket: NDArray[np.int64], batch_size: int, partial: bool) -> Batches:
    """The samples in batches of one bucket each; bucket is [M], of the samples as they stand.

    A batch stands where its last sample stood, as if filled while walking the sequence. What is left in the
    buckets at the end makes smaller batches there, or is left out where `partial` is false.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size: must be at least 1, not {batch_size}")
    when = np.full(len(samples), -1, np.int64)  # the place where each sample's batch stands; -1: in none
    for number in np.unique(bucket):
        places = np.flatnonzero(bucket == number)
        full = len(places) // batch_size * batch_size
        when[places[:full]] = np.repeat(places[batch_size - 1 : full : batch_size], batch_size)
        if partial:
            when[places[full:]] = len(samples) + number
    places = np.argsort(when, kind="stable")[np.count_nonzero(when < 0) :]
    starts = np.flatnonzero(np.diff(when[places], prepend=-1))
    return Batches(samples[places], np.append(starts, len(places)))


def rank_range(batches: int, rank: int, world_size: int, coverage: Coverage) -> range:
    """The batches of a rank. "exact": every batch is in one rank's range, whose lengths differ by at most one. "equal":
    all ranges have the same length, and up to world_size - 1 batches at the end are left out."""
    if coverage == "equal":
        share = batches // world_size
        return range(rank * share, (rank + 1) * share)
    return range(rank * batches // world_size, (rank + 1) * batches // world_size)


def _mix(numbers: NDArray[np.uint64], purpose: str) -> NDArray[np.uint64]:
    """64 well-mixed bits a number (the finaliser of SplitMix64; Steele, Lea and Flood 2014), different per purpose."""
    with np.errstate(over="ignore"):
        mixed = numbers * np.uint64(0x9E3779B97F4A7C15) + np.uint64(int(content_key(purpose)[:16], 16))
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))

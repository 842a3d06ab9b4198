"""The reader inside torch's DataLoader."""

import multiprocessing
from pathlib import Path

import pytest
import torch
from shard_pairs import make_pair, write_pairs
from torch.utils.data import DataLoader

from crispedit.shards.dataset import ShardDataset, ShardLoader
from crispedit.shards.read import ShardReader, read_shards

PAIRS = [make_pair(str(i), ("add", "style")[i % 2], i % 2 == 0) for i in range(14)]
OPTIONS = {"shuffle": True, "seed": 3, "batch_size": 2, "shapes": [(16, 24)]}
START = "forkserver"
"""Earlier tests have left threads in this process; a fork of them can hang."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dataset")
    write_pairs(folder, PAIRS, 4)
    return folder


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_dataloader_gives_the_readers_batches_in_its_order(folder: Path, num_workers: int):
    loader = DataLoader(
        ShardDataset(read_shards(folder, **OPTIONS)),
        batch_size=None,
        num_workers=num_workers,
        multiprocessing_context=START if num_workers else None,
    )
    batches = list(loader)
    for got, want in zip(batches, read_shards(folder, **OPTIONS), strict=True):
        assert got["keys"] == want.keys
        assert got["metas"] == want.metas
        assert torch.equal(got["source"], torch.from_numpy(want.source))
        assert torch.equal(got["mask"], torch.from_numpy(want.mask))


def test_single_samples_pass_through_a_dataloader(folder: Path):
    loader = DataLoader(
        ShardDataset(read_shards(folder)), batch_size=None, num_workers=2, multiprocessing_context=START
    )
    items = list(loader)
    assert [item["key"] for item in items] == [pair.key for pair in read_shards(folder)]
    assert {item["mask"] is None for item in items} == {True, False}


def loader(reader: ShardReader, workers: int) -> ShardLoader:
    return ShardLoader(reader, workers, **({"multiprocessing_context": START} if workers else {}))


@pytest.mark.parametrize(("before", "after"), [(2, 1), (0, 2), (1, 0)])
def test_loader_resumes_from_what_was_delivered(folder: Path, before: int, after: int):
    reader = read_shards(folder, **OPTIONS)
    whole = [batch.keys for _ in range(2) for batch in list(reader)]
    first = loader(read_shards(folder, **OPTIONS), before)
    got = []
    for batch in first:
        got.append(batch["keys"])
        if len(got) == 3:
            state = first.state_dict()
            break
    second = loader(read_shards(folder, **OPTIONS), after)
    second.load_state_dict(state)
    assert len(second) == len(whole) // 2
    for _ in range(2):
        got += [batch["keys"] for batch in second]
    assert got == whole


def test_loader_counts_unreadable_batches_as_delivered(tmp_path: Path):
    write_pairs(tmp_path, PAIRS, 4)
    (tmp_path / "crispedit-add-000000.tar").unlink()
    lost = {p.key for p in read_shards(tmp_path, on_damage="skip")} ^ {p.key for p in PAIRS}
    lossy = loader(read_shards(tmp_path, on_damage="skip"), 2)
    keys = [item["key"] for item in lossy]
    assert len(lost) == 4
    assert keys == [pair.key for pair in read_shards(tmp_path, on_damage="skip")]
    assert lossy.state_dict()["epoch"] == 1


def test_what_the_reader_decides_is_refused(folder: Path):
    with pytest.raises(ValueError, match="num_workers"):
        ShardDataset(read_shards(folder, workers=1))
    with pytest.raises(ValueError, match="the reader decides"):
        ShardLoader(read_shards(folder), 0, shuffle=True)


def test_a_process_with_rays_threads_is_not_forked(folder: Path, ray_nodes: None):
    kinds = set()
    for _ in ShardLoader(read_shards(folder), 1):
        kinds |= {type(process).__name__ for process in multiprocessing.active_children()}
    assert kinds == {"ForkServerProcess"}

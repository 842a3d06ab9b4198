"""A shard reader inside torch's DataLoader: the only module of shards/ that imports torch.

For speed, a `ShardReader` with workers of its own is the better loader: a DataLoader copies every pixel once more.
"""

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from crispedit.shards.read import ShardReader


class _Numbered(IterableDataset[Any]):
    """The rest of a reader's epoch, every item, readable or not, with its position."""

    def __init__(self, reader: ShardReader) -> None:
        if reader.workers:
            raise ValueError("workers: give them to the DataLoader (num_workers) and none to the reader")
        self.reader = reader

    def __iter__(self) -> Iterator[Any]:
        # This worker's share: the DataLoader takes from its workers in turn.
        info = get_worker_info()
        number, workers = (info.id, info.num_workers) if info is not None else (0, 1)
        for position, item in self.reader.items(range(self.reader.position + number, len(self.reader), workers)):
            yield position, None if item is None else dict(vars(item))


class ShardDataset(_Numbered):
    """The rest of a reader's epoch as dicts, for DataLoader(dataset, batch_size=None, num_workers=...).

    Batches are made by the reader (its `batch_size`), so their order is the same for any number of workers. A
    dict has the fields of `DecodedPair`, `Batch` or `Pair`; the DataLoader turns the arrays into tensors. To
    resume, use `ShardLoader`, which knows what was delivered and not only what was read ahead.
    """

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (item for _, item in super().__iter__() if item is not None)


class ShardLoader:
    """A DataLoader over a reader that resumes exactly; `options` are DataLoader's own.

    Each iteration delivers the rest of the reader's epoch, in its order, and moves the reader along. In a process
    that Ray has joined to a cluster, workers start from a fork server: a fork of Ray's threads can hang.
    """

    def __init__(self, reader: ShardReader, num_workers: int = 0, **options: Any) -> None:
        for name in ("batch_size", "shuffle", "sampler", "batch_sampler", "drop_last", "persistent_workers"):
            if options.get(name):
                raise ValueError(f"{name}: the reader decides this, not the DataLoader")
        if num_workers and "ray" in sys.modules and sys.modules["ray"].is_initialized():
            options.setdefault("multiprocessing_context", "forkserver")
        self.reader = reader
        self._loader = DataLoader(_Numbered(reader), batch_size=None, num_workers=num_workers, **options)

    def __len__(self) -> int:
        return len(self.reader)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for position, item in self._loader:
            self.reader.position = position + 1
            if item is not None:
                yield item
        self.reader.epoch, self.reader.position = self.reader.epoch + 1, 0

    def state_dict(self) -> dict[str, Any]:
        return self.reader.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.reader.load_state_dict(state)

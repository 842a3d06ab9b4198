"""The trainer's source of batches, distributed by number, so that a step reads the same on any number of processes."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from crispedit.shards.read import ShardReader

State = Mapping[str, Any]


class ShardSource:
    """A reader of full batches (rank 0 of 1, equal coverage), whose epochs follow each other without a gap.

    Step s takes batches [s n, (s + 1) n) of that endless list, with n = global_batch / batch; rank r of p processes
    takes the r-th of p equal parts.
    """

    def __init__(self, reader: ShardReader, batches_per_step: int) -> None:
        self.reader, self.batches_per_step = reader, batches_per_step
        self.categories: Sequence[str] = reader.index.categories
        if not len(reader):
            raise ValueError(
                f"{len(reader.index)} pairs do not make one full batch: lower `batch`, or give more shards"
            )

    @property
    def damage(self) -> Mapping[str, int]:
        return self.reader.damage

    def steps(self, state: State | None, rank: int, processes: int) -> Iterator[tuple[list[Any], State]]:
        """See `crispedit.editmgt.trainer.BatchSource`. ValueError for a state of another set or order."""
        if state is not None:
            self.reader.load_state_dict(state)
        share = self.batches_per_step // processes
        mine = range(rank * share, (rank + 1) * share)
        batches: list[Any] = []
        place = 0  # within a step, of the next batch; steps begin where states were taken
        while True:
            first, count = self.reader.position, len(self.reader)
            positions = range(first, count)
            wanted = [p for p in positions if (place + p - first) % self.batches_per_step in mine]
            items = self.reader.items(wanted)
            for position in positions:
                if place in mine:
                    _, batch = next(items)
                    batches.append(batch)
                place = (place + 1) % self.batches_per_step
                if place == 0:
                    yield batches, self._state(position + 1)
                    batches = []
            next(items, None)  # tells the reader's workers that it is over
            self.reader.epoch, self.reader.position = self.reader.epoch + 1, 0

    def _state(self, position: int) -> State:
        self.reader.position = position
        return self.reader.state_dict()

    def close(self) -> None:
        self.reader.close()

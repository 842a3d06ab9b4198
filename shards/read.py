"""Reading a shard set: deterministic, resumable to the batch, split over ranks, and as fast as decoding allows.

    reader = read_shards("runs/a/shards", batch_size=8, shapes=aspect_shapes(512), workers=4, seed=1)
    for batch in reader:                                # one epoch; the next loop is the next epoch
        step(batch.source, batch.edited, batch.mask)
        save(reader.state_dict())                       # a resumed reader continues with exactly the next batch

Memory, whatever the size of the shards: about 0.6 kB a sample of the set for index and order (twice that
while it is opened; a large set's index is mapped, and shared), and at most 6 * workers + 2 batches of pixels
in the ring (one batch without workers); compressed bytes are held for one sample at a time.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, InitVar, dataclass, field
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from crispedit.shards import layout, order, storage
from crispedit.shards.damage import Damage
from crispedit.shards.decode import Pixels, Shape, carve, nearest_shape, pair_bytes
from crispedit.shards.fetch import DecodeRequest, Fetched, Fetcher, SampleAt
from crispedit.shards.index import Index, Paths, open_index
from crispedit.shards.remote import Cache
from crispedit.shards.ring import Ring

LISTED_DAMAGE = 1000
"""Damages that a reader keeps to show; it counts all of them."""

STATE_VERSION = 1

ORDER_OPTIONS = ("seed", "shuffle", "window_shards", "weights", "mixture", "batch_size", "shapes", "coverage")
"""The options that the order of batches depends on, besides the set, the epoch and the world size."""


@dataclass
class DecodedPair:
    """One sample. Images are uint8 [H, W, 3] RGB, the mask bool [H, W] or None where it is not known."""

    key: str
    category: str
    meta: dict[str, Any]
    source: NDArray[np.uint8]
    edited: NDArray[np.uint8]
    mask: NDArray[np.bool_] | None


@dataclass
class Batch:
    """B samples of one shape. Images are uint8 [B, H, W, 3] RGB, masks bool [B, H, W]; `masked` [B] is false
    where the mask is not known, and is false everywhere there."""

    keys: list[str]
    categories: list[str]
    metas: list[dict[str, Any]]
    source: NDArray[np.uint8]
    edited: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    masked: NDArray[np.bool_]


@dataclass
class TokenBatch:
    """B samples of one shape as `crispedit tokenize` has stored them: safetensors, and the JSON members."""

    keys: list[str]
    categories: list[str]
    metas: list[dict[str, Any]]
    tokens: list[bytes]


@dataclass(eq=False, repr=False)
class ShardReader:
    """The batches of one rank, epoch after epoch. Also called `read_shards`.

    paths: shard sets (a folder or its manifest.json) and tars; each a path, glob, brace pattern or fsspec URL.
    rank, world_size: this reader takes one range of the epoch's batches; see `coverage`.
    workers: processes that decode, on two threads each where there are cores for it; 0 decodes in this one. Neither
        samples nor order depend on it.
    seed, epoch: the shuffle depends only on these two; `epoch` is where to begin.
    shuffle: False reads in the order of the index.
    window_shards: shards whose samples are mixed with each other, and that a remote reader needs at a time.
    categories: only these.
    weights: how often a sample of a category comes in an epoch (1 where absent).
    mixture: how often a sample of a path, as given in `paths`, comes in an epoch (1 where absent); multiplied with
        `weights`.
    select: which samples of the opened index to read, [N] true where kept; for pairs held out.
    decode: True gives pixels, False the stored bytes as `Pair`.
    batch_size: None gives single `DecodedPair`s, a number `Batch`es of one shape; only with `decode`.
    shapes: (height, width) of the pixels. A pair takes the shape of the nearest aspect, is scaled to cover it and
        cropped about the centre. None keeps the stored size. See `aspect_shapes`.
    masks: False leaves the masks unread.
    tokens: `TokenBatch`es of the stored tokens; no image is read.
    coverage: "exact" has every sample in exactly one rank's epoch (ranks differ by at most one batch; for evaluation).
        "equal" has the same number of full batches in every rank (for training with synchronised steps): what does not
        fill a batch in every rank is left out of this epoch, another part in every epoch.
    on_damage: "raise" stops at the first damaged sample with the `Damage`. "skip" leaves it out, counts it in `damage`
        and lists it in `damaged`; with "equal" coverage a batch of which nothing is left is replaced by the next one.
    cache: where remote shards are kept, and how many bytes of them.
    """

    paths: InitVar[Paths]
    _: KW_ONLY
    rank: int = 0
    world_size: int = 1
    workers: int = 0
    seed: int = 0
    epoch: int = 0
    shuffle: bool = False
    window_shards: int = 16
    categories: InitVar[Sequence[str] | None] = None
    weights: Mapping[str, float] = field(default_factory=dict)
    mixture: Mapping[str, float] = field(default_factory=dict)
    select: InitVar[Callable[[Index], NDArray[np.bool_]] | None] = None
    decode: bool = True
    batch_size: int | None = None
    shapes: Sequence[Shape] | None = None
    masks: bool = True
    tokens: bool = False
    coverage: order.Coverage = "exact"
    on_damage: Literal["raise", "skip"] = "raise"
    cache: Cache = field(default_factory=Cache)

    def __post_init__(
        self, paths: Paths, categories: Sequence[str] | None, select: Callable[[Index], NDArray[np.bool_]] | None
    ) -> None:
        if not 0 <= self.rank < self.world_size:
            raise ValueError(f"rank: must be in 0..{self.world_size - 1}, not {self.rank}")
        if self.batch_size is not None and not self.decode:
            raise ValueError("batch_size: stored bytes have no shape to batch; leave it out, or set decode=True")
        if self.tokens and self.batch_size is None:
            raise ValueError("tokens: they come in batches; give a batch_size")
        if self.coverage not in ("exact", "equal") or self.on_damage not in ("raise", "skip"):
            raise ValueError(f"coverage, on_damage: unknown value {self.coverage!r} or {self.on_damage!r}")
        self.position = 0
        self.damage: Counter[str] = Counter()
        self.damaged: list[Damage] = []
        on_damage = None if self.on_damage == "raise" else self._count
        self.index = _chosen(open_index(paths, self.cache, on_damage), categories)
        if select is not None:
            self.index = self.index.select(select(self.index))
        self._weight_N = _weights_of(self.index, self.weights, self.mixture)
        self._shape_of, self._shape_list = _shapes_of(self.index, self.shapes)
        self._fetcher = Fetcher(self.index.shards, self.cache)
        self.ring: Ring | None = None
        self._planned: tuple[int, order.Batches, range] | None = None
        self._plan()  # refuses wrong options here, not in the middle of a run

    def __len__(self) -> int:
        """Batches (samples, where there are no batches) of this rank in the current epoch."""
        return len(self._plan()[1])

    def __iter__(self) -> Iterator[Any]:
        """The rest of the current epoch; after it, the reader is at the start of the next."""
        for position, item in self.items(range(self.position, len(self))):
            self.position = position + 1
            if item is not None:
                yield item
        self.epoch, self.position = self.epoch + 1, 0

    def items(self, positions: Iterable[int]) -> Iterator[tuple[int, Any]]:
        """(position, item) for these positions of the current epoch, whatever `position` is; the item is None
        if nothing of it was readable. For callers who split the positions themselves."""
        wanted = list(positions)
        in_ring = self.decode and not self.tokens and self.workers
        read = self._from_ring(wanted) if in_ring else map(self._item, wanted)
        for position, item in zip(wanted, read, strict=True):
            if item is None and self.coverage == "equal":
                item = self._substitute(position)
            yield position, item

    def get(self, key: str) -> Any:
        """The sample of a key, by random access. KeyError if there is none; Damage if it cannot be read."""
        sample = self.index.find(key)
        at = self.index.at(sample)
        if not self.decode:
            return self._fetcher.pair(at)
        request = DecodeRequest([at], self._shape_list[self._shape_of[sample]], self.masks)
        memory = np.empty(request.bytes, np.uint8)
        (result,) = self._fetcher.batch(request, memory)
        if result.damage is not None:
            raise result.damage
        return _single(at, result, carve(memory, 1, request.shape))

    def state_dict(self) -> dict[str, Any]:
        """The reader's position, as JSON-ready values. Equal on all ranks that have taken as many batches."""
        finished = 0 < len(self) <= self.position
        return {
            "version": STATE_VERSION,
            "set": self.index.fingerprint,
            "order": self._order(),
            "world_size": self.world_size,
            "epoch": self.epoch + finished,
            "position": 0 if finished else self.position,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from the position of that state. The number of workers may differ; the world size only
        between epochs. ValueError if the set or anything else that the order is a function of differs."""
        if state.get("version") != STATE_VERSION:
            raise ValueError(f"reader state: version {state.get('version')}, expected {STATE_VERSION}")
        if state["set"] != self.index.fingerprint:
            raise ValueError("reader state: of another shard set, or of other categories of it")
        for name, now in self._order().items():
            if (was := state["order"].get(name)) != now:
                raise ValueError(f"reader state: {name} was {was!r}, now it is {now!r}")
        if state["world_size"] != self.world_size and state["position"] != 0:
            raise ValueError(
                f"reader state: taken in mid-epoch with world_size {state['world_size']}, now it is "
                f"{self.world_size}: resume with that world size, or from the end of an epoch"
            )
        self.epoch, self.position = state["epoch"], state["position"]

    def close(self) -> None:
        """End the workers and close the shards. Delivered arrays stay valid, and reading again starts anew."""
        if self.ring is not None:
            self.ring.close()
            self.ring = None
        self._fetcher.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        # To another process goes the plan; processes and descriptors stay here.
        return {**self.__dict__, "ring": None, "_fetcher": Fetcher(self.index.shards, self.cache)}

    def _order(self) -> dict[str, Any]:
        """The options that the order depends on, as JSON gives them back."""
        return dict(json.loads(json.dumps({name: getattr(self, name) for name in ORDER_OPTIONS})))

    def _plan(self) -> tuple[order.Batches, range]:
        """(batches of the current epoch, this rank's range of them)."""
        if self._planned is None or self._planned[0] != self.epoch:
            samples, copy = order.weighted(self._weight_N, self.epoch)
            if self.shuffle:
                shard_of = self.index.shard_of
                samples = order.shuffled(samples, copy, shard_of, self.window_shards, self.seed, self.epoch)
            if self.batch_size is None:
                batches = order.Batches(samples, np.arange(len(samples) + 1))
            else:
                partial = self.coverage == "exact"
                batches = order.batched(samples, self._shape_of[samples], self.batch_size, partial)
            share = order.rank_range(len(batches), self.rank, self.world_size, self.coverage)
            self._planned = self.epoch, batches, share
        return self._planned[1], self._planned[2]

    def _request(self, position: int) -> DecodeRequest:
        batches, share = self._plan()
        samples = batches[share[position]].tolist()
        shape = self._shape_list[self._shape_of[samples[0]]]
        return DecodeRequest([self.index.at(sample) for sample in samples], shape, self.masks)

    def _item(self, position: int) -> Any:
        """The item at a position, read in this process."""
        request = self._request(position)
        if self.tokens:
            return self._token_batch(request.samples)
        if self.decode:
            memory = np.empty(request.bytes, np.uint8)
            return self._assembled(request, self._fetcher.batch(request, memory), memory)
        try:
            return self._fetcher.pair(request.samples[0], self.masks)
        except Damage as problem:
            self._met(problem)
            return None

    def _token_batch(self, samples: Sequence[SampleAt]) -> TokenBatch | None:
        rows = []
        for at in samples:
            try:
                tokens, meta = self._fetcher.tokens(at)
                rows.append((at.key, at.category, meta, tokens))
            except Damage as problem:
                self._met(problem)
        return TokenBatch(*map(list, zip(*rows, strict=True))) if rows else None

    def _from_ring(self, positions: Sequence[int]) -> Iterator[DecodedPair | Batch | None]:
        if self.ring is None:
            largest = max((pair_bytes(shape) for shape in self._shape_list), default=1)
            self.ring = Ring(self.index.shards, self.cache, self.workers, largest * (self.batch_size or 1))
        for request, results, memory in self.ring.run(map(self._request, positions)):
            yield self._assembled(request, results, memory)

    def _assembled(
        self, request: DecodeRequest, results: list[Fetched], memory: NDArray[np.uint8]
    ) -> DecodedPair | Batch | None:
        for result in results:
            if result.damage is not None:
                self._met(result.damage)
        room = carve(memory, len(results), request.shape)
        read = [(at, result) for at, result in zip(request.samples, results, strict=True) if result.damage is None]
        if not read:
            return None
        if self.batch_size is None:
            return _single(*read[0], room)
        return Batch(
            [at.key for at, _ in read],
            [at.category for at, _ in read],
            [result.meta for _, result in read],
            room.source[: len(read)],
            room.edited[: len(read)],
            room.mask[: len(read)],
            np.array([result.masked for _, result in read]),
        )

    def _substitute(self, position: int) -> Any:
        """The next readable item, so that no rank has fewer steps than another. Damage if there is none at all."""
        count = len(self)
        for ahead in range(1, count):
            if (item := self._item((position + ahead) % count)) is not None:
                return item
        raise self.damaged[-1]

    def _met(self, damage: Damage) -> None:
        if self.on_damage == "raise":
            raise damage
        self._count(damage)

    def _count(self, damage: Damage) -> None:
        self.damage[damage.kind] += 1
        if len(self.damaged) < LISTED_DAMAGE:
            self.damaged.append(damage)


read_shards = ShardReader


def _single(at: SampleAt, result: Fetched, room: Pixels) -> DecodedPair:
    mask = room.mask[0] if result.masked else None
    return DecodedPair(at.key, at.category, result.meta, room.source[0], room.edited[0], mask)


def _chosen(index: Index, categories: Sequence[str] | None) -> Index:
    """The index of these categories only. ValueError if one is not there."""
    if categories is None:
        return index
    if unknown := set(categories) - set(index.categories):
        raise ValueError(f"categories: no {sorted(unknown)[0]!r}; choose from {', '.join(index.categories)}")
    numbers = [number for number, name in enumerate(index.categories) if name in categories]
    return index.select(np.isin(index.category_of, numbers))


def _weights_of(index: Index, weights: Mapping[str, float], mixture: Mapping[str, float]) -> NDArray[np.float64]:
    """[N] how often each sample comes in an epoch. ValueError for an unknown name, or a weight outside 0..1000."""
    if unknown := set(weights) - set(index.categories):
        raise ValueError(f"weights: no category {sorted(unknown)[0]!r}; choose from {', '.join(index.categories)}")
    for name, weight in [*weights.items(), *mixture.items()]:
        if not 0 <= weight <= 1000:
            raise ValueError(f"weights: {name}: must be between 0 and 1000, not {weight}")
    by_category = np.array([weights.get(name, 1.0) for name in index.categories], np.float64)
    by_shard = np.ones(len(index.shards))
    for pattern, weight in mixture.items():
        folders = [path.removesuffix(layout.MANIFEST).rstrip("/") for path in storage.expand(pattern)]
        inside = [any(f"{shard.path}/".startswith(f"{folder}/") for folder in folders) for shard in index.shards]
        if index.shards and not any(inside):
            raise ValueError(f"mixture: {pattern} names none of the shards that are read")
        by_shard[inside] = weight
    return by_category[index.category_of] * by_shard[index.shard_of]


def _shapes_of(index: Index, shapes: Sequence[Shape] | None) -> tuple[NDArray[np.int64], list[Shape]]:
    """([N] number of each sample's shape, the shapes): the nearest of those given, or each stored size."""
    if shapes is not None and (not shapes or min(min(shape) for shape in shapes) < 1):
        raise ValueError(f"shapes: must be (height, width) in pixels, at least one, not {list(shapes)}")
    width, height = index.size_of.astype(np.int64).T
    # Many samples share few sizes; each size is coded as one number.
    both, number = np.unique((width << 32) | height, return_inverse=True)
    sizes = np.stack([both >> 32, both & 0xFFFFFFFF], axis=1)
    if shapes is not None:
        return nearest_shape(sizes, shapes)[number], list(shapes)
    return number, [(height, width) for width, height in sizes.tolist()]

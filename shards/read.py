"""Reading a shard set: deterministic, resumable to the batch, split over ranks, and as fast as decoding allows.

    reader = read_shards("runs/a/shards", batch_size=8, shapes=aspect_shapes(512), workers=4, seed=1)
    for batch in reader:                                # one epoch; the next loop is the next epoch
        step(batch.source, batch.edited, batch.mask)
        save(reader.state_dict())                       # a resumed reader continues with exactly the next batch

Memory, whatever the size of the shards: about 0.6 kB a sample of the set for index and order (twice that
while it is opened; a large set's index is mapped, and shared), and at most 6 * workers + 2 batches of pixels
in the ring (one batch without workers); compressed bytes are held for one sample at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from crispedit.shards import layout, order, storage
from crispedit.shards.damage import Damage
from crispedit.shards.decode import Pixels, Shape, carve, nearest_shape, pair_bytes
from crispedit.shards.fetch import Fetched, Fetcher, SampleAt
from crispedit.shards.index import Index, Paths, open_index
from crispedit.shards.pack import Pair
from crispedit.shards.remote import Cache
from crispedit.shards.ring import DecodeRequest, Ring

LISTED_DAMAGE = 1000
"""Damages that a reader keeps to show; it counts all of them."""

STATE_VERSION = 1


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


class ShardReader:
    """The batches of one rank, epoch after epoch; `read_shards` is its other name.

    paths: shard sets (a folder or its manifest.json) and tars; each a path, glob, brace pattern or fsspec
    URL. rank, world_size: this reader takes one range of the epoch's batches; see `coverage`. workers:
    processes that decode, on two threads each where there are cores for it; 0 decodes in this one. Neither
    samples nor order depend on it. seed, epoch: what the shuffle is a function of; `epoch` is where to begin. shuffle:
    False reads in the order of the index.
    window_shards: shards whose samples are mixed with each other, and that a remote reader needs at a time.
    categories: only these; weights: how often a sample of a category comes in an epoch (1 where absent).
    mixture: how often a sample of a path, as given in `paths`, comes in an epoch (1 where absent); it multiplies with
    `weights`. select: which samples of the opened index to read, [N] true where kept; for pairs held out.
    decode: True gives pixels, False the stored bytes as `shards.pack.Pair`. batch_size: None gives single
    `DecodedPair`s, a number `Batch`es of one shape; only with `decode`. shapes: (height, width) of the
    pixels. A pair takes the shape of the nearest aspect, is scaled to cover it and
        cropped about the centre. None keeps the stored size. See `shards.decode.aspect_shapes`.
    masks: False leaves the masks unread. tokens: `TokenBatch`es of the stored tokens; no image is read.
    coverage: "exact" has every sample in exactly one rank's epoch (ranks differ by at most one batch; for
    evaluation).
        "equal" has the same number of full batches in every rank (for training with synchronised steps): what
        does not fill a batch in every rank is left out of this epoch, another part in every epoch.
    on_damage: "raise" stops at the first damaged sample with the `Damage`. "skip" leaves it out, counts it in
    `damage`
        and lists it in `damaged`; with "equal" coverage a batch of which nothing is left is replaced by the
        next one.
    cache: where remote shards are kept, and how many bytes of them.
    """

    def __init__(
        self,
        paths: Paths,
        *,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 0,
        seed: int = 0,
        epoch: int = 0,
        shuffle: bool = False,
        window_shards: int = 16,
        categories: Sequence[str] | None = None,
        weights: Mapping[str, float] | None = None,
        mixture: Mapping[str, float] | None = None,
        select: Callable[[Index], NDArray[np.bool_]] | None = None,
        decode: bool = True,
        batch_size: int | None = None,
        shapes: Sequence[Shape] | None = None,
        masks: bool = True,
        tokens: bool = False,
        coverage: order.Coverage = "exact",
        on_damage: Literal["raise", "skip"] = "raise",
        cache: Cache | None = None,
    ) -> None:
        if not 0 <= rank < world_size:
            raise ValueError(f"rank: must be in 0..{world_size - 1}, not {rank}")
        if batch_size is not None and not decode:
            raise ValueError("batch_size: stored bytes have no shape to batch; leave it out, or set decode=True")
        if tokens and batch_size is None:
            raise ValueError("tokens: they come in batches; give a batch_size")
        if coverage not in ("exact", "equal") or on_damage not in ("raise", "skip"):
            raise ValueError(f"coverage, on_damage: unknown value {coverage!r} or {on_damage!r}")
        self.damage: Counter[str] = Counter()
        self.damaged: list[Damage] = []
        self.epoch = epoch
        self.position = 0
        self._rank, self._world_size, self.workers = rank, world_size, workers
        self._seed, self._shuffle, self._window_shards = seed, shuffle, window_shards
        self._weights, self._mixture = dict(weights or {}), dict(mixture or {})
        self._decode, self._batch_size, self._masks = decode, batch_size, masks
        self._tokens = tokens
        self._shapes = [(height, width) for height, width in shapes] if shapes is not None else None
        self._coverage: order.Coverage = coverage
        self._skip = on_damage == "skip"
        self._cache = cache or Cache()
        self.index = _chosen(open_index(paths, self._cache, self._count if self._skip else None), categories)
        if select is not None:
            self.index = self.index.select(select(self.index))
        self._weight_N = _weights_of(self.index, self._weights, self._mixture)
        self._shape_of, self._shape_list = _shapes_of(self.index, self._shapes)
        self._fetcher = Fetcher(self.index.shards, self._cache)
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
        pixels = self._decode and not self._tokens
        read = self._from_ring if pixels and self.workers else self._here
        for position, item in zip(wanted, read(wanted), strict=True):
            if item is None and self._coverage == "equal":
                item = self._substitute(position)
            yield position, item

    def get(self, key: str) -> Any:
        """The sample of a key, by random access. KeyError if there is none; Damage if it cannot be read."""
        sample = self.index.find(key)
        at = self.index.at(sample)
        if not self._decode:
            source, edited, mask, meta, tokens = self._fetcher.members(at)
            return Pair(key, at.category, source, edited, mask, self._fetcher.parsed(at, meta), tokens)
        shape = self._shape_list[self._shape_of[sample]]
        memory = np.empty(pair_bytes(shape), np.uint8)
        (result,) = self._fetcher.batch([at], shape, self._masks, memory)
        if result.damage is not None:
            raise result.damage
        return _single(at, result, carve(memory, 1, shape))

    def state_dict(self) -> dict[str, Any]:
        """The reader's position, as JSON-ready values. Equal on all ranks that have taken as many batches."""
        finished = 0 < len(self) <= self.position
        return {
            "version": STATE_VERSION,
            "set": self.index.fingerprint,
            "order": self._order(),
            "world_size": self._world_size,
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
        for name, value in self._order().items():
            if state["order"].get(name) != value:
                raise ValueError(f"reader state: {name} was {state['order'].get(name)!r}, now it is {value!r}")
        if state["world_size"] != self._world_size and state["position"] != 0:
            raise ValueError(
                f"reader state: taken in mid-epoch with world_size {state['world_size']}, now it is "
                f"{self._world_size}: resume with that world size, or from the end of an epoch"
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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        # To another process goes the plan; processes and descriptors stay here.
        return {**self.__dict__, "ring": None, "_fetcher": Fetcher(self.index.shards, self._cache)}

    def _order(self) -> dict[str, Any]:
        """Everything that the order of batches depends on, besides the set, the epoch and the world size."""
        return {
            "seed": self._seed,
            "shuffle": self._shuffle,
            "window_shards": self._window_shards,
            "weights": self._weights,
            "mixture": self._mixture,
            "batch_size": self._batch_size,
            "shapes": self._shapes and [list(shape) for shape in self._shapes],
            "coverage": self._coverage,
        }

    def _plan(self) -> tuple[order.Batches, range]:
        """(batches of the current epoch, this rank's range of them)."""
        if self._planned is None or self._planned[0] != self.epoch:
            index = self.index
            samples, copy = order.weighted(self._weight_N, self.epoch)
            if self._shuffle:
                window = self._window_shards
                samples = order.shuffled(samples, copy, index.shard_of, window, self._seed, self.epoch)
            if self._batch_size is None:
                batches = order.Batches(samples, np.arange(len(samples) + 1))
            else:
                partial = self._coverage == "exact"
                batches = order.batched(samples, self._shape_of[samples], self._batch_size, partial)
            share = order.rank_range(len(batches), self._rank, self._world_size, self._coverage)
            self._planned = self.epoch, batches, share
        return self._planned[1], self._planned[2]

    def _samples(self, position: int) -> NDArray[np.int64]:
        batches, share = self._plan()
        return batches[share[position]]

    def _request(self, position: int) -> DecodeRequest:
        samples = self._samples(position)
        shape = self._shape_list[self._shape_of[samples[0]]]
        return DecodeRequest([self.index.at(int(sample)) for sample in samples], shape, self._masks)

    def _here(self, positions: Sequence[int]) -> Iterator[Any]:
        """The items at these positions, read in this process."""
        if self._tokens:
            return self._token_batches(positions)
        return self._decoded(positions) if self._decode else self._stored(positions)

    def _token_batches(self, positions: Sequence[int]) -> Iterator[TokenBatch | None]:
        for position in positions:
            batch = TokenBatch([], [], [], [])
            for sample in self._samples(position):
                at = self.index.at(int(sample))
                try:
                    tokens, meta = self._fetcher.tokens(at)
                except Damage as problem:
                    self._met(problem)
                    continue
                batch.keys.append(at.key)
                batch.categories.append(at.category)
                batch.metas.append(meta)
                batch.tokens.append(tokens)
            yield batch if batch.keys else None

    def _stored(self, positions: Sequence[int]) -> Iterator[Pair | None]:
        for position in positions:
            at = self.index.at(int(self._samples(position)[0]))
            try:
                source, edited, mask, meta, tokens = self._fetcher.members(at, self._masks)
                parsed = self._fetcher.parsed(at, meta)
                yield Pair(at.key, at.category, source, edited, mask, parsed, tokens)
            except Damage as problem:
                self._met(problem)
                yield None

    def _decoded(self, positions: Iterable[int]) -> Iterator[DecodedPair | Batch | None]:
        for position in positions:
            request = self._request(position)
            memory = np.empty(request.bytes, np.uint8)
            results = self._fetcher.batch(request.samples, request.shape, request.masks, memory)
            yield self._assembled(request, results, memory)

    def _from_ring(self, positions: Sequence[int]) -> Iterator[DecodedPair | Batch | None]:
        if self.ring is None:
            largest = max((pair_bytes(shape) for shape in self._shape_list), default=1)
            slot = largest * (self._batch_size or 1)
            self.ring = Ring(self.index.shards, self._cache, self.workers, slot)
        for request, results, memory in self.ring.run(self._request(position) for position in positions):
            yield self._assembled(request, results, memory)

    def _assembled(
        self, request: DecodeRequest, results: list[Fetched], memory: NDArray[np.uint8]
    ) -> DecodedPair | Batch | None:
        for result in results:
            if result.damage is not None:
                self._met(result.damage)
        room = carve(memory, len(results), request.shape)
        if self._batch_size is None:
            return _single(request.samples[0], results[0], room)
        return _batch(request.samples, results, room)

    def _substitute(self, position: int) -> Any:
        """The next readable item, so that no rank has fewer steps than another. Damage if there is none at all."""
        count = len(self)
        for ahead in range(1, count):
            at = [(position + ahead) % count]
            (item,) = self._here(at)
            if item is not None:
                return item
        raise self.damaged[-1]

    def _met(self, damage: Damage) -> None:
        if not self._skip:
            raise damage
        self._count(damage)

    def _count(self, damage: Damage) -> None:
        self.damage[damage.kind] += 1
        if len(self.damaged) < LISTED_DAMAGE:
            self.damaged.append(damage)


read_shards = ShardReader


def _single(at: SampleAt, result: Fetched, room: Pixels) -> DecodedPair | None:
    if result.meta is None:
        return None
    mask = room.mask[0] if result.masked else None
    return DecodedPair(at.key, at.category, result.meta, room.source[0], room.edited[0], mask)


def _batch(samples: Sequence[SampleAt], results: Sequence[Fetched], room: Pixels) -> Batch | None:
    whole = [(at, result) for at, result in zip(samples, results, strict=True) if result.meta is not None]
    if not whole:
        return None
    return Batch(
        [at.key for at, _ in whole],
        [at.category for at, _ in whole],
        [result.meta for _, result in whole if result.meta is not None],
        room.source[: len(whole)],
        room.edited[: len(whole)],
        room.mask[: len(whole)],
        np.array([result.masked for _, result in whole]),
    )


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
        inside = [
            any(shard.path == folder or shard.path.startswith(f"{folder}/") for folder in folders)
            for shard in index.shards
        ]
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

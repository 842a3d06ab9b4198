"""Reading and writing speed of shards, against webdataset and against the physical limit, in one run.

    python benchmarks/shards.py [--pairs 240] [--repeats 5] [--masks] [--folder DIR]

Pairs per second, medians over repeats; the contenders take turns within each repeat, so that whatever else
the machine does meets all of them. Workers are started before the clock. The page cache is warm. Everybody
decodes with the same function (simplejpeg for JPEG, OpenCV for the mask); "limit" is a bare loop of pread, or
of pread and that function.
"""

from __future__ import annotations

# ruff: noqa: E402
# Modules of this folder may be called like packages that are imported here; it must not come first.
import os
import sys

sys.path = [path for path in sys.path if os.path.abspath(path) != os.path.dirname(os.path.abspath(__file__))]

import argparse
import io
import multiprocessing
import shutil
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np
import simplejpeg
import webdataset
from PIL import Image
from torch.utils.data import DataLoader

from crispedit import images
from crispedit.record import content_key
from shards.dataset import ShardLoader
from shards.decode import Pixels, decode_pair
from shards.fetch import ABSENT
from shards.pack import Pair, document, finish, plan, write_shard
from shards.read import read_shards

SIZE_PX = 1024
PAIRS_PER_SHARD = 40
RAW_EPOCHS = 40
"""Reading bytes is so fast that one epoch of a benchmark set would measure the opening of files."""
WRITTEN = 4
"""Times that the pairs are written into one shard, which then has about as many as a real one."""


def photograph(number: int) -> np.ndarray:
    """[1024, 1024, 3] fractal noise with shapes and grain; its JPEG has about the bytes of a photograph's."""
    generator = np.random.default_rng(number)
    image = np.zeros((SIZE_PX, SIZE_PX, 3), np.float32)
    for octave in range(1, 10):
        side = 2**octave
        noise = generator.random((side, side, 3), dtype=np.float32) - 0.5
        image += cv2.resize(noise, (SIZE_PX, SIZE_PX), interpolation=cv2.INTER_CUBIC) * 0.55**octave
    image = 128 + 300 * image
    for _ in range(6):
        centre, radius = generator.integers(0, SIZE_PX, 2), int(generator.integers(20, 200))
        colour = [int(value) for value in generator.integers(0, 256, 3)]
        cv2.circle(image, [int(value) for value in centre], radius, colour, -1, cv2.LINE_AA)
    return np.clip(image + generator.normal(0, 1.5, image.shape), 0, 255).astype(np.uint8)


def make_pairs(count: int, masks: bool) -> list[Pair]:
    """Pairs of a few photographs, rolled so that no two are equal."""
    photographs = [photograph(number) for number in range(12)]
    mask = np.zeros((SIZE_PX, SIZE_PX), bool)
    cv2.ellipse(view := mask.view(np.uint8), (500, 400), (200, 120), 20, 0, 360, 1, -1)
    mask = view.astype(bool)
    png = images.encode_mask(mask) if masks else None
    pairs = []
    for number in range(count):
        source = np.roll(photographs[number % 12], 64 * (number // 12) + number, axis=(0, 1))
        edited = source.copy()
        edited[mask] = 255 - edited[mask]
        meta = {
            "instruction": f"invert the ellipse of photograph {number}",
            "target_caption": "noise and shapes",
        }
        encoded = images.encode_jpeg(source), images.encode_jpeg(edited)
        pairs.append(Pair(content_key("benchmark", str(number)), "color", *encoded, png, meta))
    return pairs


def write_set(folder: Path, pairs: list[Pair], pairs_per_shard: int) -> None:
    by_key = {pair.key: pair for pair in pairs}
    masked = {pair.key for pair in pairs if pair.mask_png is not None}
    shards = plan({"color": list(by_key)}, pairs_per_shard, 0, masked)
    finish(folder, [write_shard(folder, s, (by_key[k] for k in s.keys), "benchmark") for s in shards], {})


def fresh() -> Pixels:
    image = (SIZE_PX, SIZE_PX, 3)
    return Pixels(np.empty(image, np.uint8), np.empty(image, np.uint8), np.empty(image[:2], bool))


def decoded(sample: dict[str, bytes]) -> dict[str, np.ndarray]:
    """The decoder of this benchmark, for webdataset."""
    into = fresh()
    decode_pair(sample["source.jpg"], sample["edited.jpg"], sample.get("mask.png"), (SIZE_PX, SIZE_PX), into)
    return {"source": into.source, "edited": into.edited, "mask": into.mask}


# What one of `world` processes does with its share of the set: the consumer is in the reading process.


def pread_raw(folder: Path, rank: int, world: int) -> int:
    return sum(1 for _ in range(RAW_EPOCHS) for _ in preads(folder, rank, world))


def pread_decoded(folder: Path, rank: int, world: int) -> int:
    into, count = fresh(), 0
    for source, edited, *mask, _ in preads(folder, rank, world):
        decode_pair(source, edited, mask[0] if mask else None, (SIZE_PX, SIZE_PX), into)
        count += 1
    return count


def preads(folder: Path, rank: int, world: int):
    """The members of a share of the set with nothing but pread; offsets are looked up before the clock."""
    places = PLACES[rank::world]
    handles = {shard: os.open(shard, os.O_RDONLY) for shard, _ in PLACES}
    for shard, members in places:
        yield [os.pread(handles[shard], size, offset) for offset, size in members]
    for handle in handles.values():
        os.close(handle)


def ours_raw(folder: Path, rank: int, world: int) -> int:
    reader = read_shards(folder, rank=rank, world_size=world, decode=False)
    return sum(1 for _ in range(RAW_EPOCHS) for _ in reader)


def ours_decoded(folder: Path, rank: int, world: int) -> int:
    return sum(1 for _ in read_shards(folder, rank=rank, world_size=world))


def webdataset_raw(folder: Path, rank: int, world: int) -> int:
    data = webdataset.WebDataset(tars(folder)[rank::world], shardshuffle=False)
    return sum(1 for _ in range(RAW_EPOCHS) for _ in data)


def webdataset_decoded(folder: Path, rank: int, world: int) -> int:
    return sum(1 for _ in webdataset.WebDataset(tars(folder)[rank::world], shardshuffle=False).map(decoded))


def tars(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.glob("*.tar"))


PLACES: list[tuple[str, list[tuple[int, int]]]] = []
"""(shard, [(offset, size)] of its members) of every sample."""


def find_places(folder: Path) -> None:
    index = read_shards(folder).index
    for sample in range(len(index)):
        at = index.at(sample)
        members = [place for place in zip(at.offsets, at.sizes, strict=True) if place[0] != ABSENT]
        PLACES.append((index.shards[at.shard].path, members))


def in_processes(work: Callable[[Path, int, int], int], folder: Path, world: int) -> float:
    """Pairs per second of `world` processes that each do a share, from a common start to the last end."""
    context = multiprocessing.get_context("fork")
    barrier, counts = context.Barrier(world + 1), context.Queue()

    def share(rank: int) -> None:
        cv2.setNumThreads(1)
        barrier.wait()
        counts.put(work(folder, rank, world))

    processes = [context.Process(target=share, args=(rank,)) for rank in range(world)]
    for process in processes:
        process.start()
    barrier.wait()
    start = time.perf_counter()
    total = sum(counts.get() for _ in processes)
    elapsed = time.perf_counter() - start
    for process in processes:
        process.join()
    return total / elapsed


class Delivered:
    """A loader whose workers decode and whose consumer is this process; they start before the clock."""

    def __init__(self, open_epoch: Callable[[], object], count: int) -> None:
        self._open_epoch, self._count = open_epoch, count
        self.rate()

    def rate(self) -> float:
        start = time.perf_counter()
        count = sum(1 for _ in self._open_epoch())
        assert count == self._count, (count, self._count)
        return count / (time.perf_counter() - start)


def delivered(folder: Path, workers: int, count: int) -> dict[str, Delivered]:
    reader = read_shards(folder, workers=workers)
    data = webdataset.WebDataset(tars(folder), shardshuffle=False)
    torch = {"batch_size": None, "num_workers": workers, "persistent_workers": True}
    theirs = DataLoader(data.map(decoded), **torch)
    as_documented = DataLoader(
        webdataset.WebDataset(tars(folder), shardshuffle=False).decode("rgb8"), **torch
    )
    return {
        "ours, ring": Delivered(lambda: reader, count),
        "webdataset in DataLoader": Delivered(lambda: theirs, count),
        "webdataset with its own decoder in DataLoader": Delivered(lambda: as_documented, count),
    }


def torch_loader(folder: Path, workers: int, count: int) -> float:
    """ShardLoader starts its workers with each epoch; the clock starts with the first pair."""
    iterator = iter(ShardLoader(read_shards(folder), workers))
    next(iterator)
    start = time.perf_counter()
    return sum(1 for _ in iterator) / (time.perf_counter() - start)


def writers(folder: Path, pairs: list[Pair]) -> dict[str, Callable[[], None]]:
    def ours() -> None:
        write_set(folder / "ours", pairs, len(pairs))

    def theirs(sync: bool) -> None:
        with open(folder / "theirs.tar", "wb") as file:
            with webdataset.TarWriter(file, encoder=False) as tar:
                for pair in pairs:
                    members = {"source.jpg": pair.source_jpeg, "edited.jpg": pair.edited_jpeg}
                    if pair.mask_png is not None:
                        members["mask.png"] = pair.mask_png
                    members["json"] = document(pair).encode()
                    tar.write({"__key__": pair.key, **members})
            if sync:
                file.flush()
                os.fsync(file.fileno())

    def bare() -> None:
        with open(folder / "bare", "wb") as file:
            for pair in pairs:
                for data in (
                    pair.source_jpeg,
                    pair.edited_jpeg,
                    pair.mask_png or b"",
                    document(pair).encode(),
                ):
                    file.write(data)

    return {
        "bare file writes, no fsync": bare,
        "webdataset.TarWriter, no fsync": lambda: theirs(False),
        "webdataset.TarWriter + fsync": lambda: theirs(True),
        "ours: xxh3, sha256, index, manifest, fsync": ours,
    }


def random_access(folder: Path, pairs: list[Pair]) -> Callable[[], None]:
    reader = read_shards(folder, decode=False)
    keys = [pairs[i].key for i in np.random.default_rng(0).permutation(len(pairs))]
    reader.get(keys[0])

    def run() -> None:
        for key in keys:
            reader.get(key)

    return run


def rate_of(work: Callable[[], object], count: int) -> float:
    start = time.perf_counter()
    work()
    return count / (time.perf_counter() - start)


def decoders(jpeg: bytes) -> dict[str, Callable[[], object]]:
    array = np.frombuffer(jpeg, np.uint8)
    into = fresh().source
    return {
        "simplejpeg into given memory": lambda: simplejpeg.decode_jpeg(jpeg, colorspace="RGB", buffer=into),
        "simplejpeg fast DCT (not used: changes pixels)": lambda: simplejpeg.decode_jpeg(jpeg, fastdct=True),
        "OpenCV, to RGB": lambda: cv2.cvtColor(cv2.imdecode(array, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB),
        "Pillow": lambda: np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB")),
        "simplejpeg at half size": lambda: simplejpeg.decode_jpeg(jpeg, min_height=512, min_width=512),
    }


def table(title: str, rows: dict[str, list[float]], against: str) -> None:
    print(f"\n{title}\n" + "-" * len(title))
    base = rows[against]
    for name, rates in rows.items():
        ratio = statistics.median(rate / other for rate, other in zip(rates, base, strict=True))
        spread = f"{min(rates):.0f}-{max(rates):.0f}"
        print(f"{name:<48} {statistics.median(rates):>9.0f}  {spread:>15}   {ratio:>6.2f} x {against}")


def take_turns(contenders: dict[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, contender in contenders.items():
            rates[name].append(contender())
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=240)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--masks", action="store_true", help="with a mask in every pair")
    parser.add_argument("--folder", type=Path, help="where to write; a temporary folder if not given")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    cv2.setNumThreads(1)
    root = Path(tempfile.mkdtemp(prefix="shards-", dir=args.folder))
    try:
        pairs = make_pairs(args.pairs, args.masks)
        size = sum(len(p.source_jpeg) + len(p.edited_jpeg) for p in pairs) / len(pairs)
        masks = "with masks" if args.masks else "without masks"
        print(f"{len(pairs)} pairs of {SIZE_PX}x{SIZE_PX} {masks}, {size / 1e3:.0f} kB of JPEG a pair")
        folder = root / "set"
        write_set(folder, pairs, PAIRS_PER_SHARD)
        find_places(folder)
        measure(folder, root, pairs, args.repeats)
    finally:
        shutil.rmtree(root)


def measure(folder: Path, root: Path, pairs: list[Pair], repeats: int) -> None:
    count = len(pairs)
    jpeg = pairs[0].source_jpeg
    turns = {
        name: lambda d=decode: rate_of(lambda: [d() for _ in range(20)], 20)
        for name, decode in decoders(jpeg).items()
    }
    table("decoders, images/s, 1 process", take_turns(turns, repeats), "OpenCV, to RGB")
    for world in (1, 2):
        works = {
            "limit: index + pread": pread_raw,
            "webdataset": webdataset_raw,
            "ours (xxh3 checked, JSON parsed)": ours_raw,
        }
        turns = {name: lambda w=work, n=world: in_processes(w, folder, n) for name, work in works.items()}
        table(f"raw bytes in the reading process, {world} of them", take_turns(turns, repeats), "webdataset")
    for workers in (1, 2):
        turns = {
            "limit: pread + decode in the worker": lambda n=workers: in_processes(pread_decoded, folder, n)
        }
        loaders = delivered(folder, workers, count)
        turns |= {name: loader.rate for name, loader in loaders.items()}
        turns["ours, ShardLoader (DataLoader)"] = lambda n=workers: torch_loader(folder, n, count)
        turns["ours, decoded in the reading process"] = lambda n=workers: in_processes(
            ours_decoded, folder, n
        )
        turns["webdataset, decoded in the reading process"] = lambda n=workers: in_processes(
            webdataset_decoded, folder, n
        )
        rates = take_turns(turns, repeats)
        table(f"decoded pairs delivered, {workers} workers", rates, "limit: pread + decode in the worker")
        ring, theirs = rates["ours, ring"], rates["webdataset in DataLoader"]
        own = rates["webdataset with its own decoder in DataLoader"]
        for name, other in (("our decoder", theirs), ("its own decoder", own)):
            ratio = statistics.median(a / b for a, b in zip(ring, other, strict=True))
            print(f"ring against webdataset with {name} in a DataLoader: {ratio:.2f} x")
        del loaders
    many = [replace(pair, key=content_key(pair.key, str(copy))) for copy in range(WRITTEN) for pair in pairs]
    turns = {name: lambda w=work: rate_of(w, len(many)) for name, work in writers(root, many).items()}
    table("writing", take_turns(turns, repeats), "webdataset.TarWriter, no fsync")
    access = random_access(folder, pairs)
    turns = {
        "by key, through the index": lambda: rate_of(access, count),
        "in order": lambda: in_processes(ours_raw, folder, 1),
    }
    table("random access, raw bytes", take_turns(turns, repeats), "in order")


if __name__ == "__main__":
    main()

"""Reading and writing speed of shards, against webdataset and against the physical limit, in one run.

    python -m benchmarks.shards [--pairs 96] [--repeats 5] [--masks] [--folder DIR]

Pairs per second, medians over repeats; the contenders take turns within each repeat, so that other work on
the machine affects all of them. Workers are started before the clock. The page cache is warm. "Limit" is a bare
loop of pread, or of pread and decoding into one buffer. All decode with the same function (simplejpeg for
JPEG, OpenCV for the mask) and delivers the same, whole samples; webdataset is used as its documentation shows:
`.decode(...)`, or `.decode(...).to_tuple(...).batched(...)`, in a DataLoader with batch_size=None. Writers both
end with an fsync; only ours hashes.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import os
import shutil
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
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
from crispedit.shards.dataset import ShardLoader
from crispedit.shards.decode import Pixels, decode_pair
from crispedit.shards.fetch import ABSENT
from crispedit.shards.pack import Pair, document, finish, plan, write_shard
from crispedit.shards.read import read_shards

SIZE_PX = 1024
SHARDS = 4
"""Of equal size: webdataset gives whole shards to its workers, and each must have as much to do."""
MEMORY = Path("/dev/shm")
RAW_EPOCHS = 40
"""Reading bytes is so fast that one epoch of a benchmark set would measure the opening of files."""
BATCH = 8
WRITTEN_PAIRS = 1000
"""In the shard that is written, as many as in a real one; the pairs come several times under other keys."""


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
        meta = {"instruction": f"invert the ellipse of photograph {number}", "target_caption": "noise and shapes"}
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

    def __init__(self, epoch: Callable[[], object], count: int, pairs_in: Callable[[object], int]) -> None:
        self._epoch, self._count, self._pairs_in = epoch, count, pairs_in
        self.rate()

    def rate(self) -> float:
        start = time.perf_counter()
        count = sum(self._pairs_in(item) for item in self._epoch())
        assert count == self._count, (count, self._count)
        return count / (time.perf_counter() - start)


def webdataset_loader(folder: Path, workers: int, batched: bool, decoders: Sequence[object], masks: bool) -> DataLoader:
    """As webdataset's documentation shows: decoded in the workers, whole samples (key, both images, parsed JSON), or
    collated batches of (source, edited, json); handed over by the DataLoader."""
    data = webdataset.WebDataset(tars(folder), shardshuffle=False).decode(*decoders)
    if batched:
        members = ["source.jpg", "edited.jpg", *(["mask.png"] if masks else []), "json"]
        data = data.to_tuple(*members).batched(BATCH)
    return DataLoader(data, batch_size=None, num_workers=workers, persistent_workers=True)


def delivered(folder: Path, workers: int, count: int) -> dict[str, Delivered]:
    """Loaders that deliver the same to this process: key, both images as uint8 RGB, the parsed JSON (and masks, with
    --masks); one pair at a time, or in batches."""
    ours = {"ours, ring": None, f"ours, ring, batches of {BATCH}": BATCH}
    masks = any(len(members) == 4 for _, members in PLACES)
    simple = [
        webdataset.handle_extension("jpg", lambda data: simplejpeg.decode_jpeg(data, colorspace="RGB")),
        webdataset.handle_extension("png", images.decode_mask),
    ]
    theirs = {
        "webdataset in DataLoader": (False, simple),
        f"webdataset in DataLoader, batches of {BATCH}": (True, simple),
        "webdataset with its own decoder in DataLoader": (False, ["rgb8"]),
    }
    loaders: dict[str, Delivered] = {}
    for name, batch_size in ours.items():
        reader = read_shards(folder, workers=workers, batch_size=batch_size)
        loaders[name] = Delivered(lambda r=reader: r, count, lambda item: len(getattr(item, "keys", [0])))
    for name, (batched, decoders) in theirs.items():
        loader = webdataset_loader(folder, workers, batched, decoders, masks)
        loaders[name] = Delivered(lambda d=loader: d, count, lambda item: 1 if isinstance(item, dict) else len(item[0]))
    return loaders


def torch_loader(folder: Path, workers: int, count: int) -> float:
    """ShardLoader starts its workers with each epoch; the clock starts with the first pair."""
    iterator = iter(ShardLoader(read_shards(folder), workers))
    next(iterator)
    start = time.perf_counter()
    return sum(1 for _ in iterator) / (time.perf_counter() - start)


def writers(folder: Path, pairs: list[Pair]) -> dict[str, Callable[[], None]]:
    """One shard of all pairs. webdataset's writer streams to the final name, without hashes or index; here it is
    followed by an fsync, which ours has before each rename."""

    def ours() -> None:
        write_set(folder / "ours", pairs, len(pairs))

    def theirs() -> None:
        with open(folder / "theirs.tar", "wb") as file:
            with webdataset.TarWriter(file, encoder=False) as tar:
                for pair in pairs:
                    members = {"source.jpg": pair.source_jpeg, "edited.jpg": pair.edited_jpeg}
                    if pair.mask_png is not None:
                        members["mask.png"] = pair.mask_png
                    members["json"] = document(pair).encode()
                    tar.write({"__key__": pair.key, **members})
            file.flush()
            os.fsync(file.fileno())

    def bare() -> None:
        with open(folder / "bare", "wb") as file:
            for pair in pairs:
                for data in (pair.source_jpeg, pair.edited_jpeg, pair.mask_png or b"", document(pair).encode()):
                    file.write(data)
            file.flush()
            os.fsync(file.fileno())

    return {
        "bare file writes, fsync": bare,
        "webdataset.TarWriter, fsync": theirs,
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
    parser.add_argument("--pairs", type=int, default=96)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--masks", action="store_true", help="with a mask in every pair")
    parser.add_argument("--folder", type=Path, help="where to write; a temporary folder if not given")
    args = parser.parse_args()
    if args.pairs % (SHARDS * BATCH):
        parser.error(f"--pairs: must be a multiple of {SHARDS * BATCH}, for shards and batches of equal size")
    warnings.filterwarnings("ignore")
    cv2.setNumThreads(1)
    root = Path(tempfile.mkdtemp(prefix="shards-", dir=args.folder))
    try:
        pairs = make_pairs(args.pairs, args.masks)
        size = sum(len(p.source_jpeg) + len(p.edited_jpeg) for p in pairs) / len(pairs)
        masks = "with masks" if args.masks else "without masks"
        print(f"{len(pairs)} pairs of {SIZE_PX}x{SIZE_PX} {masks}, {size / 1e3:.0f} kB of JPEG a pair")
        folder = root / "set"
        write_set(folder, pairs, len(pairs) // SHARDS)
        find_places(folder)
        measure(folder, root, pairs, args.repeats)
    finally:
        shutil.rmtree(root)


def measure(folder: Path, root: Path, pairs: list[Pair], repeats: int) -> None:
    count = len(pairs)
    jpeg = pairs[0].source_jpeg
    turns = {
        name: lambda d=decode: rate_of(lambda: [d() for _ in range(20)], 20) for name, decode in decoders(jpeg).items()
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
        turns = {"limit: pread + decode in the worker": lambda n=workers: in_processes(pread_decoded, folder, n)}
        loaders = delivered(folder, workers, count)
        turns |= {name: loader.rate for name, loader in loaders.items()}
        turns["ours, ShardLoader (DataLoader)"] = lambda n=workers: torch_loader(folder, n, count)
        turns["ours, decoded in the reading process"] = lambda n=workers: in_processes(ours_decoded, folder, n)
        turns["webdataset, decoded in the reading process"] = lambda n=workers: in_processes(
            webdataset_decoded, folder, n
        )
        rates = take_turns(turns, repeats)
        table(f"decoded pairs delivered, {workers} workers", rates, "limit: pread + decode in the worker")
        for name in [name for name in rates if name.startswith("webdataset") and "DataLoader" in name]:
            ring = rates[f"ours, ring, batches of {BATCH}" if "batches" in name else "ours, ring"]
            ratio = statistics.median(a / b for a, b in zip(ring, rates[name], strict=True))
            print(f"ring, against {name}: {ratio:.2f} x")
        del loaders
    copies = -(-WRITTEN_PAIRS // count)
    many = [replace(pair, key=content_key(pair.key, str(copy))) for copy in range(copies) for pair in pairs]
    many = many[:WRITTEN_PAIRS]
    places = {"to disk": root / "written"}
    if MEMORY.is_dir():  # where an fsync costs nothing: what the writers themselves take
        places["to memory"] = Path(tempfile.mkdtemp(prefix="shards-", dir=MEMORY))
    for where, place in places.items():

        def written(work: Callable[[], None], place: Path = place) -> float:
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            os.sync()
            return rate_of(work, len(many))

        turns = {name: lambda w=work, to=written: to(w) for name, work in writers(place, many).items()}
        table(f"writing {where}", take_turns(turns, repeats), "webdataset.TarWriter, fsync")
        shutil.rmtree(place)
    access = random_access(folder, pairs)
    turns = {
        "by key, through the index": lambda: rate_of(access, count),
        "in order": lambda: in_processes(ours_raw, folder, 1),
    }
    table("random access, raw bytes", take_turns(turns, repeats), "in order")


if __name__ == "__main__":
    main()

"""Time and memory of a run's driver and of a shard set's readers, as both grow to 5.5 million photographs, 8.9 million
jobs, 8,000 shards and 2 million packed pairs.

    python -m benchmarks.growth [--photographs 100000 1000000 5500000] [--only NAME ...] [--folder DIR] [--json FILE]

The runs are synthetic (`benchmarks.fabricated`). The last wave is in work: its photographs are curated, its jobs not
written. `verify` reads real shards of four small pairs each; the readers open the index of a set without its tars. Each
operation runs in its own process. Its memory is that process's peak; for the readers it is the memory that a process
does not share, less what its imports take. A cost with exponent 0 does not grow with the run, one with exponent 1 grows
in proportion; the exponent is the slope of a line through all sizes.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import multiprocessing.queues
import resource
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import fabricated
from crispedit import images
from crispedit.pipelines import audit, recipe
from crispedit.pipelines.building.stream import Build
from crispedit.pipelines.run import Run
from crispedit.pipelines.steps import pack, select
from crispedit.record import content_key
from crispedit.shards import layout
from crispedit.shards.pack import Pair, ShardEntry, finish, plan, write_shard
from crispedit.shards.read import read_shards
from crispedit.shards.remote import Cache
from crispedit.shards.verify import verify

PHOTOGRAPHS = (100_000, 1_000_000, 5_500_000)
MOST = max(PHOTOGRAPHS)
JOBS, SHARDS, PAIRS = 8_900_000, 8_000, 2_000_000
"""Of a run of `MOST` photographs; smaller ones have less in proportion."""
PAIRS_PER_SHARD = 1_000


@dataclass(frozen=True)
class Made:
    """The run and the shard sets of one size, in one folder."""

    root: Path
    photographs: int

    @property
    def run(self) -> Run:
        return Run(recipe.load(str(self.root / "run"), [f"run={self.root / 'run'}"]))

    @property
    def shards(self) -> Path:
        return self.root / "shards"

    @property
    def index(self) -> Path:
        return self.root / "index"

    def of(self, most: int) -> int:
        """A number of the largest run, scaled to this size."""
        return round(most * self.photographs / MOST)

    def make(self) -> None:
        fabricated.run_of(self.root, self.photographs, JOBS / MOST)
        write_shards(self.shards, self.of(SHARDS))
        write_parts(self.index, max(1, self.of(PAIRS) // PAIRS_PER_SHARD))


def write_shards(folder: Path, count: int) -> None:
    """A set of `count` shards of four small pairs each."""
    flat = np.zeros((8, 8, 3), np.uint8)
    keys = [content_key(str(number)) for number in range(4 * count)]
    entries = []
    for shard in plan({"color": keys}, 4, 0, ()):
        # Two pairs with the same images would be reported.
        texts = [int(key[:6], 16).to_bytes(3, "big") for key in shard.keys]
        pairs = [
            Pair(key, "color", images.encode_jpeg(flat) + b"\0" + text + key.encode(), images.encode_jpeg(flat + 99))
            for key, text in zip(shard.keys, texts, strict=True)
        ]
        entries.append(write_shard(folder, shard, pairs, "growth"))
    finish(folder, entries, {})


def write_parts(folder: Path, count: int) -> None:
    """The index parts of `count` shards, as `write_shard` writes them."""
    members = (layout.SOURCE, layout.EDITED, layout.MASK, layout.META)
    rng = np.random.default_rng(0)
    for number in range(count):
        name = layout.shard_name("color", number)
        keys = fabricated.keys_of(rng, PAIRS_PER_SHARD).take(pa.array(np.repeat(np.arange(PAIRS_PER_SHARD), 4)))
        rows = len(keys)
        table = pa.table(
            {
                "shard": pa.array([name] * rows),
                "key": keys,
                "member": pa.array(members * PAIRS_PER_SHARD),
                "offset": pa.array(np.arange(rows) * 200_000),
                "size": pa.array(np.full(rows, 190_000)),
                "xxh3_64": pa.array(rng.integers(0, 2**63, rows).astype(np.uint64)),
                "category": pa.array(["color"] * rows),
                "width": pa.array([1024, 1024, 1024, None] * PAIRS_PER_SHARD, pa.int32()),
                "height": pa.array([768, 768, 768, None] * PAIRS_PER_SHARD, pa.int32()),
            },
            layout.INDEX_SCHEMA,
        )
        path = folder / layout.part_name(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table.replace_schema_metadata({"sha256": name}), path, compression="zstd")


def resume(made: Made) -> None:
    """Resume until the last wave has offered all its rows, and a process has its first block."""
    flow = Build(made.run)
    while not (blocks := [block for stage in flow.stages if (block := flow.take(stage.name, 10))]):
        assert not flow.finished(), "the last wave has something to do"
        time.sleep(0.01)
    last = len(flow.waves) - 1
    assert all(block.route.wave == last for block in blocks), f"{made.root}: remove it, other code made it"


def choose(made: Made) -> None:
    select.select(made.run)


def report(made: Made) -> None:
    audit.summary(audit.audit(made.run))


def plan_shards(made: Made) -> None:
    """The plan of `pack`, read to its end: every shard with its pairs."""
    run = made.run
    assert sum(1 for _ in pack.planned(run, run.folder("select") / select.SELECTION)), "pairs were kept"


def check(made: Made) -> None:
    found = verify(str(made.shards), False, 2, Cache(made.root / "cache"))
    assert (found.ok, found.shards) == (True, made.of(SHARDS)), found.problems[:3]


def close(made: Made) -> None:
    """The end of `pack`: the indexes and the manifest of the set."""
    names = sorted(path.stem + ".tar" for path in (made.index / layout.PARTS).iterdir())
    finish(made.index, [ShardEntry(name, "color", PAIRS_PER_SHARD, 10**9, name) for name in names], {})


def read(made: Made) -> None:
    """Open the set and compute the order of the first epoch."""
    # A new cache, as on a node where nobody has read the set.
    with tempfile.TemporaryDirectory() as cache:
        reader = read_shards(made.index, rank=1, world_size=8, batch_size=8, shuffle=True, cache=Cache(Path(cache)))
        assert len(reader)


OPERATIONS: dict[str, Callable[[Made], None]] = {
    "plan and resume": resume,
    "select": choose,
    "audit": report,
    "pack: plan": plan_shards,
    "pack: index, manifest": close,
    "verify": check,
    "reader, first rank": read,
    "reader, next rank": read,
}


def megabytes(field: str) -> float:
    """VmHWM: the peak of this process (`ru_maxrss` would begin at its parent's); RssAnon: the memory that it now shares
    with no other."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{field}:")[2].split()[0]) / 1024


def measure(operation: str, made: Made, said: multiprocessing.queues.SimpleQueue[dict[str, float]]) -> None:
    """Measure an operation; runs in its own process."""
    alone = megabytes("RssAnon")
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    OPERATIONS[operation](made)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    said.put(
        {
            "seconds": time.perf_counter() - start,
            "cpu_seconds": usage.ru_utime + usage.ru_stime - before.ru_utime - before.ru_stime,
            "megabytes": megabytes("RssAnon") - alone if operation.startswith("reader") else megabytes("VmHWM"),
        }
    )


def exponents(found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """How each operation's seconds, CPU seconds and megabytes grow: the slope of a line through the logarithms."""
    if len(found) < 2:
        return {}
    sizes = np.log([int(size) for size in found])
    figures = next(iter(found.values()))
    return {
        operation: {
            name: float(np.polyfit(sizes, np.log([found[size][operation][name] for size in found]), 1)[0])
            for name in figures[operation]
        }
        for operation in figures
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=int, nargs="+", default=PHOTOGRAPHS)
    parser.add_argument("--only", nargs="+", choices=list(OPERATIONS), default=list(OPERATIONS), metavar="NAME")
    parser.add_argument("--folder", type=Path, help="where to write, and to find what an earlier call has written")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    found: dict[str, dict[str, dict[str, float]]] = {}
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as scratch:
        for photographs in args.photographs:
            made = Made((args.folder or Path(scratch)) / str(photographs), photographs)
            if not (done := made.root / "made").exists():
                made.make()
                done.touch()
            jobs, shards, pairs = map(made.of, (JOBS, SHARDS, PAIRS))
            print(f"{photographs} photographs, {jobs} jobs; {shards} shards; {pairs} packed pairs", flush=True)
            print(f"  {'':22} {'seconds':>8} {'CPU-s':>8} {'MB':>8}")
            found[str(photographs)] = {}
            for operation in args.only:
                said = spawn.SimpleQueue()
                process = spawn.Process(target=measure, args=(operation, made, said))
                process.start()
                process.join()
                if process.exitcode:
                    raise SystemExit(process.exitcode)
                figures = found[str(photographs)][operation] = said.get()
                print(f"  {operation:22} " + " ".join(f"{value:8.1f}" for value in figures.values()), flush=True)
    grown = exponents(found)
    if grown:
        print(f"  {'exponents':22} {'seconds':>8} {'CPU-s':>8} {'MB':>8}")
        for operation, figures in grown.items():
            print(f"  {operation:22} " + " ".join(f"{value:8.2f}" for value in figures.values()))
    if args.json:
        args.json.write_text(json.dumps({"operations": found, "exponents": grown}, indent=1))


if __name__ == "__main__":
    main()

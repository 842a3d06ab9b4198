"""What a run costs its driver as it grows: planning a wave, resuming, select and audit on runs of up to 5.5 million
photographs and 8.9 million jobs.

python -m benchmarks.growth [--photographs 100000 1000000 5500000] [--folder DIR] [--json FILE]

The runs are made up: the tables of finished waves, written as they are after compaction, with the images left out. The
last wave is the one at work: its photographs are curated, its jobs are not written. Each operation runs in a process of
its own. An exponent of 0 says that a cost does not grow with the run, of 1 that it grows as the run does.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import multiprocessing.queues
import resource
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.selection import fill
from crispedit.pipelines import audit, listing, recipe, steps
from crispedit.pipelines.run import Run
from crispedit.pipelines.sources import Entry
from crispedit.pipelines.steps import select
from crispedit.pipelines.stream import Build, policy
from crispedit.pipelines.verdicts import Photographs
from crispedit.pipelines.waves import Finished, Waves
from crispedit.shards import journal

PHOTOGRAPHS = (100_000, 1_000_000, 5_500_000)
JOBS_PER_PHOTOGRAPH = 8.9 / 5.5
WAVE = 10_000
PER_TAR = 1_000


def fabricate(root: Path, photographs: int) -> Run:
    """A run of so many photographs whose last wave is at work: curated, with nothing made of it yet."""
    tars = root / "source"
    tars.mkdir(parents=True)
    run = Run(recipe.load("embedded", [f"run={root / 'run'}", f"source={{kind: webdataset, path: {tars}}}"]))
    made = steps.identities(steps.of(run))
    run.begin(made)
    run.store_recipe(made)
    waves = Waves(run)
    listed: list[dict[str, Any]] = []
    for first in range(0, photographs, WAVE):
        count = min(WAVE, photographs - first)
        names = [f"{n:08d}.tar" for n in range(first // PER_TAR, (first + count) // PER_TAR)]
        for name in names:
            (tars / name).touch()
        listed += [_listed(tars, waves, name) for name in names]
        wave = waves.add(names, count)
        jobs = 0 if first + count >= photographs else round(count * JOBS_PER_PHOTOGRAPH)
        fill(run, wave, jobs, jobs)
    journal.commit(run.folder("listing"), listing.table(run.recipe.source), listed)
    Photographs(run, waves).all()
    flow = Build(run)
    for wave in list(waves)[:-1]:
        assert wave.judged is not None, "all waves were judged"
        parts = flow.parts_of(wave.name)
        waves.finished(wave.number, Finished(policy(run), wave.judged.digest, parts, {"add": 1}))
    return run


def _listed(tars: Path, waves: Waves, tar: str) -> dict[str, Any]:
    """The row of a tar in the listing."""
    first = (len(waves), PER_TAR * (int(tar[:8]) % (WAVE // PER_TAR)))
    members = [
        Entry(f"{first[0]:05d}/{first[1] + n:06d}.jpg", str(tars / tar), 512 + n * 300_000, 299_000).to_row()
        for n in range(PER_TAR)
    ]
    row = {"key": tar, "container": tar, "slice": 0, "last": True, "files": [tar], "rows": PER_TAR}
    return {**row, "members": members, "skipped": []}


def resume(run: Run) -> None:
    """Until the last wave has offered all its rows, and a process has its first block."""
    flow = Build(run)
    while not any([flow.take(stage.name, 10) for stage in flow.stages]):
        assert not flow.finished(), "the last wave has something to do"
        time.sleep(0.01)


def choose(run: Run) -> None:
    select.select(run)


def report(run: Run) -> None:
    audit.summary(audit.audit(run))


OPERATIONS: dict[str, Callable[[Run], None]] = {"plan and resume": resume, "select": choose, "audit": report}


def peak_megabytes() -> float:
    """Of this process alone: `ru_maxrss` would start at that of the process that started it."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def measure(operation: str, run: Run, said: multiprocessing.queues.SimpleQueue[dict[str, float]]) -> None:
    """In a process of its own, whose peak memory is that of the operation."""
    start = time.perf_counter()
    OPERATIONS[operation](run)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    said.put(
        {
            "seconds": time.perf_counter() - start,
            "cpu_seconds": usage.ru_utime + usage.ru_stime,
            "megabytes": peak_megabytes(),
        }
    )


def exponents(found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """Of each operation, how seconds, CPU seconds and megabytes grow from the first to the last size."""
    sizes = sorted(found, key=int)
    span = math.log(int(sizes[-1]) / int(sizes[0])) if len(sizes) > 1 else 1.0
    return {
        operation: {
            name: math.log(found[sizes[-1]][operation][name] / value) / span
            for name, value in found[sizes[0]][operation].items()
        }
        for operation in found[sizes[0]]
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photographs", type=int, nargs="+", default=PHOTOGRAPHS)
    parser.add_argument("--folder", type=Path, help="where to write; a temporary folder if not given")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    found: dict[str, dict[str, dict[str, float]]] = {}
    spawn = multiprocessing.get_context("spawn")
    for photographs in args.photographs:
        with tempfile.TemporaryDirectory(dir=args.folder) as scratch:
            run = fabricate(Path(scratch), photographs)
            jobs = round(photographs * JOBS_PER_PHOTOGRAPH)
            print(f"{photographs} photographs, {jobs} jobs, {len(Waves(run))} waves", flush=True)
            found[str(photographs)] = {}
            for operation in OPERATIONS:
                said = spawn.SimpleQueue()
                process = spawn.Process(target=measure, args=(operation, run, said))
                process.start()
                process.join()
                if process.exitcode:
                    raise SystemExit(process.exitcode)
                figures = said.get()
                found[str(photographs)][operation] = figures
                print(
                    f"  {operation:16} {figures['seconds']:8.1f} s {figures['cpu_seconds']:8.1f} CPU-s "
                    f"{figures['megabytes']:8.0f} MB",
                    flush=True,
                )
    grown = exponents(found)
    if len(found) > 1:
        for operation, figures in grown.items():
            print(f"exponents of {operation:16} " + ", ".join(f"{n} {v:.2f}" for n, v in figures.items()))
    if args.json:
        args.json.write_text(json.dumps({"operations": found, "exponents": grown}, indent=1))


if __name__ == "__main__":
    main()

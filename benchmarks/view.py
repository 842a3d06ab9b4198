"""How fast `crispedit view` answers for a run of a million candidates, and its memory: the real server, over HTTP.

    python -m benchmarks.view [--rows 1000000] [--folder DIR] [--json FILE]

The rows are those of `benchmarks.fabricated`. Every picture is one of 48 rendered pairs of 1024 x 1024 pixels, stored
as in a run, so that reading and shrinking them costs the usual time. A page of 48 pairs is complete when all of its 96
thumbnails have come over six connections, as in a browser; none was drawn before.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from threading import local

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from benchmarks import fabricated
from crispedit import images
from crispedit.compositor.landscape import KINDS, landscape
from crispedit.pipelines import recipe, steps
from crispedit.pipelines.building.waves import Waves
from crispedit.pipelines.run import Run
from crispedit.pipelines.steps import select
from crispedit.shards import journal

PICTURES = 48
ROWS_PER_WAVE = 100_000
CANDIDATES_PER_PHOTOGRAPH = 10
CONNECTIONS = 6
LIMITS = {"first page": 1.0, "filter": 0.3, "sort": 0.3, "dragged bound": 0.3, "48 pairs with pictures": 0.5}
"""Seconds; and memory:"""
LIMIT_GB = 1.5


def pictures(run: Run, step: str, suffix: str, shift: int) -> pa.Array:
    """Write the rendered pictures as a step's tar; returns their references."""
    folder = run.folder(step)
    folder.mkdir(parents=True, exist_ok=True)
    name = f"part-{'0' * 32}.tar"
    found = []
    with tarfile.open(folder / name, "w", format=tarfile.USTAR_FORMAT) as archive:
        for number in range(PICTURES):
            picture = landscape(number, 1024, 1024, list(KINDS)[number % len(KINDS)])
            data = images.encode_jpeg(np.roll(picture, shift, axis=1))
            member = tarfile.TarInfo(f"{number}.{suffix}")
            member.size = len(data)
            offset = archive.offset + tarfile.BLOCKSIZE
            archive.addfile(member, BytesIO(data))
            hashed = xxhash.xxh3_64_intdigest(data)
            found.append({"tar": f"{step}/{name}", "offset": offset, "size": len(data), "xxh3_64": hashed})
    return pa.array(found, journal.BLOB)


def fabricate(run: Run, rows: int) -> None:
    """Fill the run with this many candidates and their pictures, and select."""
    waves = Waves(run)
    for start in range(0, rows, ROWS_PER_WAVE):
        count = min(ROWS_PER_WAVE, rows - start)
        fabricated.fill(run, waves.add([], count // CANDIDATES_PER_PHOTOGRAPH), count)
    for step, column, suffix, shift in (("curate", "image", "jpg", 0), ("edit", "edited", "edited.jpg", 8)):
        refs = pictures(run, step, suffix, shift)
        for part in journal.parts(run.folder(step)):
            table = pq.read_table(part)
            stored = refs.take(pa.array(np.arange(len(table)) % PICTURES))
            size = {"width": 1024, "height": 1024} if step == "edit" else {}
            table = table.set_column(table.schema.get_field_index(column), column, stored)
            for name, value in size.items():
                at = table.schema.get_field_index(name)
                table = table.set_column(at, name, pa.array(np.full(len(table), value), pa.int32()))
            pq.write_table(table, part, compression="zstd")
    run.store_recipe(steps.identities(steps.of(run)))
    select.select(run)


class Client:
    """A browser on this machine, with a connection for each thread."""

    def __init__(self, port: int) -> None:
        self.port, self._local = port, local()

    def get(self, path: str) -> str:
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("GET", path)
        answer = connection.getresponse()
        data = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status} {data[:200]!r}")
        return data.decode("latin-1")


class Clock:
    """Wall seconds, and CPU seconds of the server, which tell more on a busy machine."""

    def __init__(self, pid: int) -> None:
        self._stat = Path(f"/proc/{pid}/stat")
        self.times: dict[str, list[tuple[float, float]]] = {name: [] for name in LIMITS}

    def __call__(self, name: str, call: Callable[[], object]) -> None:
        start, cpu = time.perf_counter(), self.cpu_seconds()
        call()
        self.times[name].append((time.perf_counter() - start, self.cpu_seconds() - cpu))

    def cpu_seconds(self) -> float:
        fields = self._stat.read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(run: Run, repeats: int) -> dict[str, object]:
    """Seconds for each kind of request (median and worst), and the server's peak memory."""
    command = [sys.executable, "-m", "crispedit.pipelines.cli", "view", str(run.root), "--port", "0"]
    start = time.perf_counter()
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        found: dict[str, object] = {"opened_s": time.perf_counter() - start, "said": line.strip()}
        match = re.search(r":(\d+)/", line)
        if match is None:
            raise RuntimeError(f"the server did not start: {line!r}")
        client = Client(int(match[1]))
        cascade = run.recipe.pair_cascade
        bounded = [
            (score, bound.min if bound.min is not None else bound.max, bound.min is not None)
            for score, bound in cascade.default_bounds.items()
            if bound.min is not None or bound.max is not None
        ]
        names = list(run.recipe.categories)
        clock = Clock(server.pid)
        found["opened_cpu_s"] = clock.cpu_seconds()
        clock("first page", lambda: client.get("/"))
        with ThreadPoolExecutor(CONNECTIONS) as browser:
            for number in range(repeats):
                category = names[number % len(names)]
                score, at, low = bounded[number % len(bounded)]
                filters = f"/pairs?outcome=rejected&category={category}&q=number+{number}"
                clock("filter", lambda path=filters: client.get(path))
                sort = f"/pairs?category={category}&sort={'-' * (number % 2)}{score}"
                clock("sort", lambda path=sort: client.get(path))
                moved = at * (1 + 0.01 * (number + 1))
                sides = f"{moved!r}," if low else f",{moved!r}"
                drag = f"/bounds/what-if?m={score}@:{sides}&side={'min' if low else 'max'}&score={score}"
                clock("dragged bound", lambda path=drag: client.get(path))

                def page(number: int = number) -> None:
                    text = client.get(f"/pairs?outcome=kept&page={number + 1}")
                    wanted = re.findall(r'src="(/image/[^"]+)"', text)
                    assert len(wanted) == 96, len(wanted)
                    list(browser.map(client.get, wanted))

                clock("48 pairs with pictures", page)
        status = Path(f"/proc/{server.pid}/status").read_text()
        peak = re.search(r"VmHWM:\s+(\d+) kB", status)
        found["peak_gb"] = int(peak[1]) / 2**20 if peak else None
        found["times"] = {
            name: {
                "median_s": statistics.median(wall for wall, _ in of),
                "worst_s": max(wall for wall, _ in of),
                "cpu_s": statistics.median(cpu for _, cpu in of),
                "limit_s": LIMITS[name],
            }
            for name, of in clock.times.items()
        }
        return found
    finally:
        server.terminate()
        server.wait(20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--folder", type=Path, help="where to fabricate the run; used again if it is there")
    parser.add_argument("--json", type=Path, help="write the figures")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = (args.folder or Path(scratch)) / f"run-{args.rows}"
        run = Run(recipe.load("embedded", [f"run={root}", "source.path=photos"]))
        if not (root / "select" / "selection.parquet").exists():
            fabricate(run, args.rows)
        found = measure(run, args.repeats)
    print(found["said"])
    print(
        f"{'opened, from the command to the address':40} {found['opened_s']:6.2f} s   CPU {found['opened_cpu_s']:.2f} s"
    )
    times = found["times"]
    assert isinstance(times, dict)
    for name, of in times.items():
        figures = f"{of['median_s']:6.3f} s   worst {of['worst_s']:.3f} s   CPU {of['cpu_s']:.3f} s"
        print(f"{name:40} {figures}   wanted {of['limit_s']} s")
    print(f"{'peak memory of the server':40} {found['peak_gb']:6.2f} GB   wanted {LIMIT_GB} GB")
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

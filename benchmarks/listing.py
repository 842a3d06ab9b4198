"""Listing a source over HTTP: bytes and seconds, over all the waves of a run.

    python -m benchmarks.listing [--tars 50] [--members 1000] [--bytes 8000] [--delay-ms 30] [--workers 8]

A server on loopback delays every request. The source's containers are found as by the driver of a
build, indexed with their captions in separate processes as by its workers, and listed again as by a resumed build.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from range_server import RangeServer

from crispedit.pipelines.building import listing
from crispedit.pipelines.building.listing import Container
from crispedit.pipelines.sources import WebDatasetSource


def write_tars(folder: Path, tars: int, members: int, size: int) -> int:
    """Tars of images (noise: only its size matters) with captions; the bytes of all."""
    noise = np.random.default_rng(0).bytes(2 * size)
    for number in range(tars):
        with tarfile.open(folder / f"{number:05d}.tar", "w") as out:
            for member in range(members):
                start = (number * members + member) % size
                for name, data in (("jpg", noise[start : start + size]), ("txt", b"a caption")):
                    info = tarfile.TarInfo(f"{number:05d}{member:06d}.{name}")
                    info.size = len(data)
                    out.addfile(info, io.BytesIO(data))
    return sum(path.stat().st_size for path in folder.glob("*.tar"))


def index(source: WebDatasetSource, container: Container, folder: str) -> tuple[int, int, list[str]]:
    """(photographs, captions, files) of a container, indexed in this process."""
    rows = list(listing.index(source, container, folder))
    found = [member for row in rows for member in row["members"]]
    return len(found), sum(member["caption"] is not None for member in found), rows[0]["files"]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tars", type=int, default=50)
    parser.add_argument("--members", type=int, default=1000)
    parser.add_argument("--bytes", type=int, default=8000, help="of an image")
    parser.add_argument("--delay-ms", type=float, default=30.0, help="of every request")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as place, RangeServer(Path(place), args.delay_ms / 1000) as server:
        total = write_tars(server.folder, args.tars, args.members, args.bytes)
        source = WebDatasetSource(path=f"{server.url}/{{00000..{args.tars - 1:05d}}}.tar", caption="txt")
        started = time.perf_counter()
        containers, _ = listing.containers(source)
        driver = server.bytes_sent, server.requests, time.perf_counter() - started
        started = time.perf_counter()
        # Processes that are forked would share the driver's connections.
        with ProcessPoolExecutor(args.workers, multiprocessing.get_context("spawn")) as pool:
            found = list(pool.map(partial(index, source, folder=place), containers))
        seconds = time.perf_counter() - started
        workers = server.bytes_sent - driver[0], server.requests - driver[1], seconds
        again, _ = listing.containers(source, [file for _, _, files in found for file in files])
        resumed = server.bytes_sent - driver[0] - workers[0]
    photographs, captions = (sum(one[column] for one in found) for column in (0, 1))
    assert photographs == captions == args.tars * args.members, (photographs, captions)
    assert not again
    ratio = (driver[0] + workers[0] + resumed) / total
    print(f"{args.tars} tars x {args.members} members, {total / 1e6:.0f} MB, {args.delay_ms:g} ms a request")
    print(f"{'':24}{'MB':>8}{'requests':>10}{'seconds':>9}")
    for name, (sent, requests, took) in (("driver", driver), (f"{args.workers} workers", workers)):
        print(f"{name:24}{sent / 1e6:8.1f}{requests:10}{took:9.1f}")
    print(f"{'a resumed build':24}{resumed / 1e6:8.1f}")
    print(f"bytes of all waves / bytes of the tars: {ratio:.3f}")
    if args.json is not None:
        keys = ("bytes", "requests", "seconds")
        found_json = {
            "ratio": ratio,
            "tars_bytes": total,
            "driver": dict(zip(keys, driver, strict=True)),
            "workers": dict(zip(keys, workers, strict=True)),
            "resumed_bytes": resumed,
        }
        args.json.write_text(json.dumps(found_json, indent=1))


if __name__ == "__main__":
    main()

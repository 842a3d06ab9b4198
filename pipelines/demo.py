"""The demo: a small dataset from rendered landscapes, or from your own photographs, on embedded defaults.

    python -m pipelines.demo runs/demo [PHOTOS]

Run it again and it continues; nothing that is done is done twice.
"""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from crispedit import images
from crispedit.compositor.landscape import KINDS, landscape
from pipelines import cli
from shards import journal

PHOTOGRAPHS = 12


def render(folder: Path, count: int = PHOTOGRAPHS, width: int = 1536, height: int = 1024) -> None:
    """Fill a folder with landscapes, one of each kind in turn; those that are there already are left alone."""
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        path = folder / f"{number:03d}-{kind}.jpg"
        if not path.exists():
            with journal.replaced(path) as out:
                out.write(images.encode_jpeg(landscape(number, width, height, kind)))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="pipelines.demo", description=__doc__)
    parser.add_argument("out", type=Path, help="where the demo puts everything")
    parser.add_argument("photographs", nargs="?", type=Path, help="a folder of your own photographs")
    args = parser.parse_args(argv)
    folder = args.photographs
    if folder is None:
        folder = args.out / "photographs"
        print(f"rendering {PHOTOGRAPHS} landscapes into {folder}", flush=True)
        render(folder)
    run = args.out / "run"
    for command in (
        ["build", "configs/embedded.yaml", f"source.path={folder}", f"run={run}", "source.dataset=demo"],
        ["audit", str(run)],
    ):
        print(f"\n$ crispedit {shlex.join(command)}", flush=True)
        status = cli.main(command)
        if status:
            return status
    print(f"shards: {run / 'shards'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""The demo: builds a small dataset from rendered landscapes or your own photographs, and trains a tiny EditMGT on it.

    python -m crispedit.pipelines.demo runs/demo [PHOTOS]

Run it again to resume it.
"""

import argparse
import os
import shlex
import sys
from pathlib import Path

import yaml

from crispedit import machine
from crispedit.pipelines import cli
from crispedit.pipelines.shipped.landscapes import render

PHOTOGRAPHS = 12
HELD_OUT = 3
"""Landscapes for evaluation only; small, because a tiny model sees only small images."""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="crispedit.pipelines.demo", description=__doc__)
    parser.add_argument("out", type=Path, help="where the demo puts everything")
    parser.add_argument("photographs", nargs="?", type=Path, help="a folder of your own photographs")
    args = parser.parse_args(argv)
    for name, value in environment().items():
        os.environ.setdefault(name, value)
    folder, held_out = args.photographs, args.out / "held-out-photographs"
    if folder is None:
        folder = args.out / "photographs"
        print(f"Photographs: rendering {PHOTOGRAPHS} landscapes into {folder}.", flush=True)
        render(folder, 0, PHOTOGRAPHS, 1536, 1024)
    render(held_out, PHOTOGRAPHS, HELD_OUT, 384, 256)
    for text, line in stages(shlex.quote(str(folder)), shlex.quote(str(held_out)), args.out):
        print(f"\n{text}\n$ crispedit {line}", flush=True)
        status = cli.main(shlex.split(line))
        if status:
            return status
    command, out = os.path.relpath(Path(sys.executable).parent / "crispedit"), shlex.quote(str(args.out))
    print(
        f"\nDone. Where to look:\n"
        f"  the pairs, in a web browser   {command} view {out}/run\n"
        f"  the report of the build       {out}/run/audit/report.html\n"
        f"  the shards                    {out}/run/shards\n"
        f"  the model                     {out}/training/model\n"
        f"  its edits and figures         {out}/evaluation/results.md and {out}/evaluation/sheets\n"
        f"  next, your own photographs    {command} init FOLDER"
    )
    return 0


def stages(photographs: str, held_out: str, out: Path) -> list[tuple[str, str]]:
    """For each stage, its purpose in one line and its command, with quoted paths."""
    listed = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
    places = {"photographs": photographs, "held_out": held_out, "out": shlex.quote(str(out))}
    return [(stage["text"], stage["command"].format(**places)) for stage in listed]


def environment() -> dict[str, str]:
    """Environment variables for libraries: as many threads as cores are idle, which sleep while they wait (spinning
    would slow a busy core further), and no loading bars."""
    threads = max(1, round(machine.cores() - os.getloadavg()[0]))
    return {
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "DIFFUSERS_VERBOSITY": "error",
    }


if __name__ == "__main__":
    raise SystemExit(main())

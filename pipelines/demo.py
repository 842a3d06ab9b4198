"""The demo: a small dataset from rendered landscapes, or from your own photographs; a tiny EditMGT trained on it.

    python -m crispedit.pipelines.demo runs/demo [PHOTOS]

Run it again and it continues; nothing that is done is done twice.
"""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from crispedit.pipelines import cli
from crispedit.pipelines.shipped.landscapes import render

PHOTOGRAPHS = 12
HELD_OUT = 6
"""Landscapes whose pairs the model is judged by and never trained on; small, since a tiny model sees no more."""
STEPS = 40


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="crispedit.pipelines.demo", description=__doc__)
    parser.add_argument("out", type=Path, help="where the demo puts everything")
    parser.add_argument("photographs", nargs="?", type=Path, help="a folder of your own photographs")
    args = parser.parse_args(argv)
    folder, held_out = args.photographs, args.out / "held-out-photographs"
    if folder is None:
        folder = args.out / "photographs"
        print(f"rendering {PHOTOGRAPHS} landscapes into {folder}", flush=True)
        render(folder, 0, PHOTOGRAPHS, 1536, 1024)
    render(held_out, PHOTOGRAPHS, HELD_OUT, 384, 256)
    run, held_run, training, evaluation = (
        shlex.quote(str(args.out / name)) for name in ("run", "held-out", "training", "evaluation")
    )
    small = (
        "engine.kind=inprocess filters={} curate.filters={}"  # no dataset's size, and right by construction
    )
    start = "model.start=crispedit/weights/editmgt-tiny optimiser.rate=1.0e-4"  # goes on from the model that ships
    models = " ".join(
        f"editors.{name}.model={training}/model" for name in ("hold-off", "hold-on", "hold-on-pasted")
    )
    for line in (
        f"build configs/embedded.yaml source.path={shlex.quote(str(folder))} run={run} source.dataset=demo",
        f"audit {run}",
        f"build configs/embedded.yaml source.path={shlex.quote(str(held_out))} run={held_run} {small}",
        f"train configs/train/tiny.yaml shards={run}/shards run={training} {start} steps={STEPS}",
        f"evaluate configs/evaluate/tiny.yaml benchmarks.shards.path={held_run}/shards {models} out={evaluation}",
    ):
        print(f"\n$ crispedit {line}", flush=True)
        status = cli.main(shlex.split(line))
        if status:
            return status
    print(f"shards: {run}/shards\nmodel: {training}/model\nevaluation: {evaluation}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

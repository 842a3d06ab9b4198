"""Regenerates the golden shard hashes: python tests/goldens/regenerate.py, and say in the commit why they changed.

The run they come from is made of bytes kept here and of fixed rows, so that only the code of select and pack (keys,
plan, JSON, tar) decides the hashes, not the machine's codecs or arithmetic.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
if __name__ == "__main__":
    sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent)]

from conftest import make_run  # noqa: E402 - found beside the tests

from crispedit.pipelines import build  # noqa: E402
from crispedit.pipelines.building.waves import Waves  # noqa: E402
from crispedit.pipelines.records import ANNOTATE, EDIT, curate_table, score_table  # noqa: E402
from crispedit.pipelines.run import Run  # noqa: E402
from crispedit.record import candidate_key, canonical_json, content_key, job_key, source_key  # noqa: E402
from crispedit.shards import journal  # noqa: E402

GOLDEN = HERE / "shards.json"


def golden_run(root: Path) -> Run:
    """A run of 3 photographs (the third a duplicate) and 10 candidates, of which the bounds keep 6; packed."""
    run = make_run(root, Path("photos"), "source.dataset=golden", "source.licence=cc0-1.0", "pack.pairs_per_shard=2")
    source, edited, mask = ((HERE / name).read_bytes() for name in ("source.jpg", "edited.jpg", "mask.png"))
    photographs, answers, candidates, scores = [], [], [], []
    for number in range(3):
        key = source_key(bytes([min(number, 1)]))
        photographs.append(_photograph(f"{number}.jpg", key, source))
        if number == 2:
            continue
        for category in ("add", "color", "motion", "remove", "style"):
            instruction = f"Do “{category}” to photograph {number}."
            job = job_key(key, instruction, category)
            candidate = candidate_key(job, "compositor", {}, 0)
            texts = {"source_caption": "a photograph", "target_caption": f"a photograph after {category}"}
            request = {"key": content_key(job), "job_key": job, "source_key": key, "category": category, "ordinal": 0}
            answers.append({**request, **texts, "instruction": instruction, "plan": "{}"})
            same = {"key": candidate, "job_key": job, "source_key": key, "category": category, "editor": "compositor"}
            images = {"edited": edited, "mask": None if category == "style" else mask}
            images["source"] = edited if category == "remove" else None
            candidates.append(
                {
                    **same,
                    **images,
                    "editor_version": 1,
                    "options": canonical_json({}),
                    "seed": 0,
                    "width": 16,
                    "height": 16,
                }
            )
            scores.append(_scores(run, candidate, passes=category != "motion" and (number, category) != (1, "add")))
    wave = Waves(run).add([], len(photographs)).name
    journal.commit(run.folder("curate") / wave, curate_table(run.recipe.source_cascade), photographs, run.root)
    journal.commit(run.folder("annotate") / wave, ANNOTATE, answers, run.root)
    journal.commit(run.folder("edit") / wave, EDIT, candidates, run.root)
    journal.commit(run.folder("score") / wave, score_table(run.recipe.pair_cascade), scores, run.root)
    build.step(run, "select")
    build.step(run, "pack")
    return run


def _photograph(uri: str, key: str, image: bytes) -> dict[str, object]:
    size = {"width": 16, "height": 16, "original_width": 900, "original_height": 600}
    row = {"uri": uri, "key": key, "image": image, "sha256": hashlib.sha256(key.encode()).hexdigest(), "format": "jpeg"}
    scores = {"resolution": {"short_side_px": 600.0}, "content": {}, "duplicate": {}}
    flat = {f"{name}.{score}": value for name, found in scores.items() for score, value in found.items()}
    measured = {f"{name}.measured": True for name in scores}
    return {**row, **size, **flat, **measured, "dataset": "golden", "licence": "cc0-1.0"}


def _scores(run: Run, key: str, passes: bool) -> dict[str, object]:
    """Every filter measured, its scores unknown but for one, which decides."""
    row: dict[str, object] = {f"{name}.measured": True for name in run.recipe.pair_cascade.filters}
    return {**row, "key": key, "resolution.short_side_px": 600.0 if passes else 100.0}


def hashes(run: Run) -> dict[str, str]:
    """sha256 of each shard."""
    manifest = json.loads((run.folder("shards") / "manifest.json").read_text())
    return {shard["name"]: shard["sha256"] for shard in manifest["shards"]}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        GOLDEN.write_text(json.dumps(hashes(golden_run(Path(folder) / "run")), indent=1) + "\n")
    print(f"wrote {GOLDEN}")

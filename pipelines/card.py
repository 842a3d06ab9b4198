"""The dataset card: a README.md with Hugging Face front matter, written from the run's tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import yaml

from crispedit.outcome import KEPT
from crispedit.pipelines import steps, tables
from crispedit.pipelines.run import Run
from crispedit.pipelines.steps.select import SELECTION
from crispedit.pipelines.verdicts import quoted
from crispedit.shards.pack import ShardEntry

SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def text(run: Run, shards: Sequence[ShardEntry]) -> str:
    """The card of the set these shards make. Nothing in it is known from anywhere but the tables and the recipe."""
    pairs = sum(shard.pairs for shard in shards)
    categories: Counter[str] = Counter()
    for shard in shards:
        categories[shard.category] += shard.pairs
    db = tables.connect(run)
    licences = [row[0] for row in db.execute("SELECT DISTINCT licence FROM curate ORDER BY ALL").fetchall()]
    datasets = [row[0] for row in db.execute("SELECT DISTINCT dataset FROM curate ORDER BY ALL").fetchall()]
    front: dict[str, Any] = {
        "task_categories": ["image-to-image"],
        "tags": ["image-editing", "webdataset", "crispedit"],
        "size_categories": [next((name for limit, name in SIZES if pairs < limit), "1M<n<10M")],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "*.tar"}]}],
    }
    if len(licences) == 1 and licences[0] is not None:
        front["license"] = licences[0]
    rows = "\n".join(f"| {category} | {number} |" for category, number in sorted(categories.items()))
    editors = "\n".join(
        f"- `{name}` version {editor.version}, options `{editor.identity()['options']}`"
        for name, editor in run.recipe.editors.items()
    )
    annotator = f"`{run.recipe.annotate.annotator}`"
    if run.recipe.imports_pairs:
        editors, annotator = "- imported with the pairs", "imported with the pairs"
    if run.recipe.edit.repair:
        selection = quoted(str(run.folder("select") / SELECTION))
        kept = f"SELECT key FROM read_parquet({selection}) WHERE outcome = '{KEPT}'"
        laid = tables.repaired(db, kept)["laid_back"]
        editors += (
            f"\n- {laid} of the {pairs} edited images were moved back onto their source; `transform` in their"
            "\n  `<key>.json` is the affine map from source to original edited pixels (the identity: left as it came)"
        )
    return f"""---
{yaml.safe_dump(front, sort_keys=False)}---
# Image-editing pairs

{pairs} image-editing pairs in {len(shards)} WebDataset shards, built with CrispEdit.

| category | pairs |
|---|---|
{rows}
| **total** | **{pairs}** |

Each sample is `<key>.source.jpg`, `<key>.edited.jpg`, `<key>.mask.png` (white where the edit is; only where it is
known) and `<key>.json` (instruction, category, captions, editor, scores, provenance).

- photographs from: {_listed(datasets)}
- licence of the photographs: {_listed(licences)}
- annotator: {annotator}
- recipe fingerprint: `{steps.fingerprint(run)}`

Editors:

{editors}

```python
from datasets import load_dataset

pairs = load_dataset("webdataset", data_files="*.tar", split="train")
```
"""


def _listed(values: Sequence[str | None]) -> str:
    return ", ".join("unknown" if value is None else value for value in values) or "unknown"

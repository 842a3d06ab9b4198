"""The dataset card: a README.md with Hugging Face front matter and a sheet of examples, made from the run's tables."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import yaml

from crispedit import images
from crispedit.outcome import KEPT
from crispedit.pipelines import steps, tables
from crispedit.pipelines.run import Run
from crispedit.pipelines.steps.select import SELECTION
from crispedit.record import Image, Mask
from crispedit.shards import journal, sheet
from crispedit.shards.card import size_category
from crispedit.shards.journal import quoted
from crispedit.shards.pack import ShardEntry

EXAMPLES = "examples.jpg"
SHOWN = 8
"""Pairs on the sheet of examples, as many categories as possible."""
THUMBNAIL_PX = 224


def text(run: Run, shards: Sequence[ShardEntry]) -> str:
    """The card of a shard set, made only from the tables and the recipe."""
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
        "size_categories": [size_category(pairs)],
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
    selection = quoted(str(run.folder("select") / SELECTION))
    kept = f"SELECT key FROM read_parquet({selection}) WHERE outcome = '{KEPT}'"
    if run.recipe.edit.repair:
        laid = tables.repaired(db, kept)["laid_back"]
        editors += (
            f"\n- {laid} of the {pairs} edited images were moved back onto their source; `transform` in their"
            "\n  `<key>.json` is the affine map from source to original edited pixels (the identity: unchanged)"
        )
    if run.recipe.edit.repair_drift:
        restored = tables.restored(db, kept)
        editors += (
            f"\n- Of {restored} of the {pairs} edited images a drift of tone was removed; `drift` in their"
            "\n  `<key>.json` is its gain and offset per channel (edited = gain * source + offset, in levels)"
        )
    return f"""---
{yaml.safe_dump(front, sort_keys=False)}---
# Image-editing pairs

{pairs} image-editing pairs in {len(shards)} WebDataset shards, built with CrispEdit.

| category | pairs |
|---|---|
{rows}
| **total** | **{pairs}** |

{f"![Pairs of this set: source, edited, and the edited region]({EXAMPLES})" if pairs else ""}

{_left_out(run)}

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


def _left_out(run: Run) -> str:
    """The card's section on what was filtered out: candidates by reason."""
    selection = quoted(str(run.folder("select") / SELECTION))
    with tables.connect(run) as db:
        rows = db.execute(f"""
            SELECT coalesce(reason, outcome), count(*) AS n FROM read_parquet({selection})
            WHERE outcome <> '{KEPT}' GROUP BY ALL ORDER BY n DESC, 1
        """).fetchall()
    if not rows:
        return "Nothing was filtered out: every candidate is in this set."
    lines = "\n".join(f"| `{reason}` | {number} |" for reason, number in rows)
    total = sum(number for _, number in rows)
    return f"{total} more candidates were made and filtered out:\n\n| reason | candidates |\n|---|---|\n{lines}"


@dataclass(frozen=True)
class _Example:
    """A pair of the run, for drawing."""

    run: Run
    row: Mapping[str, Any]

    @property
    def key(self) -> str:
        return str(self.row["key"])

    @property
    def category(self) -> str:
        return str(self.row["category"])

    @property
    def meta(self) -> dict[str, object]:
        return {"instruction": self.row["instruction"]}

    @cached_property
    def source(self) -> Image:
        return self._image("source")

    @cached_property
    def edited(self) -> Image:
        return self._image("edited")

    @cached_property
    def mask(self) -> Mask | None:
        if self.row["mask"] is None:
            return None
        mask = images.decode_mask(journal.read_blob(self.run.root, self.row["mask"]))
        return sheet.fitted(mask, self.edited)

    def _image(self, column: str) -> Image:
        return sheet.pixels(journal.read_blob(self.run.root, self.row[column]), 2 * THUMBNAIL_PX)


def examples(run: Run) -> bytes | None:
    """The sheet of examples as a JPEG; None if no pair is kept."""
    selection = quoted(str(run.folder("select") / SELECTION))
    with tables.connect(run) as db:
        chosen = db.sql(f"""
            SELECT c.key, c.category, c.instruction, c.source, c.edited, c.mask, c.composed
            FROM (
                SELECT key, row_number() OVER (PARTITION BY category ORDER BY key) AS turn
                FROM read_parquet({selection}) WHERE outcome = '{KEPT}' ORDER BY turn, category LIMIT {SHOWN}
            ) e JOIN candidate c USING (key) ORDER BY e.turn, c.category
        """)
        rows = chosen.to_arrow_table().to_pylist()
    if not rows:
        return None
    drawn = sheet.contact_sheet([_Example(run, row) for row in rows], 2, THUMBNAIL_PX)
    out = io.BytesIO()
    drawn.save(out, "JPEG", quality=85)
    return out.getvalue()

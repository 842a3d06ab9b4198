"""The dataset card: a README.md with Hugging Face front matter and a sheet of examples, made from the run's tables."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import duckdb
import yaml

from crispedit import images
from crispedit.outcome import KEPT
from crispedit.pipelines import steps, tables
from crispedit.pipelines.run import Run
from crispedit.pipelines.steps.select import SELECTION
from crispedit.shards import journal, sheet
from crispedit.shards.card import size_category
from crispedit.shards.journal import quoted
from crispedit.shards.pack import ShardEntry
from crispedit.shards.read import DecodedPair

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
    licences, datasets = (
        [row[0] for row in db.execute(f"SELECT DISTINCT {column} FROM curate ORDER BY ALL").fetchall()]
        for column in ("licence", "dataset")
    )
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
    repairs = tables.repairs(db, f"SELECT key FROM {_selection(run)} WHERE outcome = '{KEPT}'")
    if run.recipe.edit.repair:
        editors += (
            f"\n- {repairs['laid_back']} of the {pairs} edited images were moved back onto their source; "
            "`transform` in their\n  `<key>.json` is the affine map from source to original edited pixels "
            "(the identity: unchanged)"
        )
    if run.recipe.edit.repair_drift:
        editors += (
            f"\n- Of {repairs['restored']} of the {pairs} edited images a drift of tone was removed; `drift` in their"
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

{_left_out(run, db)}

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


def _selection(run: Run) -> str:
    return f"read_parquet({quoted(str(run.folder('select') / SELECTION))})"


def _listed(values: Sequence[str | None]) -> str:
    return ", ".join("unknown" if value is None else value for value in values) or "unknown"


def _left_out(run: Run, db: duckdb.DuckDBPyConnection) -> str:
    """The card's section on what was filtered out: candidates by reason."""
    rows = db.execute(f"""
        SELECT coalesce(reason, outcome), count(*) AS n FROM {_selection(run)}
        WHERE outcome <> '{KEPT}' GROUP BY ALL ORDER BY n DESC, 1
    """).fetchall()
    if not rows:
        return "Nothing was filtered out: every candidate is in this set."
    lines = "\n".join(f"| `{reason}` | {number} |" for reason, number in rows)
    total = sum(number for _, number in rows)
    return f"{total} more candidates were made and filtered out:\n\n| reason | candidates |\n|---|---|\n{lines}"


def examples(run: Run) -> bytes | None:
    """The sheet of examples as a JPEG; None if no pair is kept."""
    rows = tables.rows(
        tables.connect(run),
        f"""
            SELECT c.key, c.category, c.instruction, c.source, c.edited, c.mask
            FROM (
                SELECT key, row_number() OVER (PARTITION BY category ORDER BY key) AS turn
                FROM {_selection(run)} WHERE outcome = '{KEPT}' ORDER BY turn, category LIMIT {SHOWN}
            ) e JOIN candidate c USING (key) ORDER BY e.turn, c.category
        """,
    )
    if not rows:
        return None
    out = io.BytesIO()
    sheet.contact_sheet([_drawn(run, row) for row in rows], 2, THUMBNAIL_PX).save(out, "JPEG", quality=85)
    return out.getvalue()


def _drawn(run: Run, row: Mapping[str, Any]) -> DecodedPair:
    source, edited = (
        sheet.pixels(journal.read_blob(run.root, row[side]), 2 * THUMBNAIL_PX) for side in ("source", "edited")
    )
    mask = None
    if row["mask"] is not None:
        mask = sheet.fitted(images.decode_mask(journal.read_blob(run.root, row["mask"])), edited)
    return DecodedPair(row["key"], row["category"], {"instruction": row["instruction"]}, source, edited, mask)

"""The dataset card: a README.md with Hugging Face front matter and a sheet of examples, made from the run's tables."""

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
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


TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
"""The cards, in Markdown."""


def text(run: Run, shards: Sequence[ShardEntry]) -> str:
    """The card of a shard set, made only from the tables and the recipe."""
    categories: Counter[str] = Counter()
    for shard in sorted(shards, key=lambda shard: shard.category):
        categories[shard.category] += shard.pairs
    db = tables.connect(run)
    licences, datasets = (
        [row[0] or "unknown" for row in db.execute(f"SELECT DISTINCT {column} FROM curate ORDER BY ALL").fetchall()]
        for column in ("licence", "dataset")
    )
    front: dict[str, Any] = {
        "task_categories": ["image-to-image"],
        "tags": ["image-editing", "webdataset", "crispedit"],
        "size_categories": [size_category(categories.total())],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "*.tar"}]}],
    }
    if len(licences) == 1 and licences != ["unknown"]:
        front["license"] = licences[0]
    left_out = db.execute(f"""
        SELECT coalesce(reason, outcome), count(*) AS n FROM {_selection(run)}
        WHERE outcome <> '{KEPT}' GROUP BY ALL ORDER BY n DESC, 1
    """)
    return TEMPLATES.get_template("card.md.jinja").render(
        front=yaml.safe_dump(front, sort_keys=False),
        pairs=categories.total(),
        shards=len(shards),
        categories=categories,
        examples=EXAMPLES,
        left_out=left_out.fetchall(),
        datasets=datasets or ["unknown"],
        licences=licences or ["unknown"],
        recipe=run.recipe,
        fingerprint=steps.fingerprint(run),
        repairs=tables.repairs(db, f"SELECT key FROM {_selection(run)} WHERE outcome = '{KEPT}'"),
    )


def _selection(run: Run) -> str:
    return f"read_parquet({quoted(str(run.folder('select') / SELECTION))})"


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

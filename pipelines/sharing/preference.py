"""Preferences of a run: for one source and instruction, the kept edit and a rejected one.

Each rejected candidate of a job becomes a row beside the kept one, with the reason of its rejection. Not every
rejection means a worse edit: an error says nothing, and if `select.best` names no score, the order of the editors
decided. Such candidates are left out.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from crispedit.outcome import KEPT, REJECTED
from crispedit.pipelines import tables
from crispedit.pipelines.run import Run
from crispedit.pipelines.sharing.card import TEMPLATES
from crispedit.pipelines.steps.pack import at_size_of
from crispedit.pipelines.steps.select import SELECTION, SOURCES, first_pass
from crispedit.repair import fits_sql
from crispedit.shards import card, journal, storage
from crispedit.shards.journal import columns
from crispedit.shards.tables import IMAGE, IMAGES, SCORES, with_features, write_files

_ABOUT = [
    *columns(pa.string(), "key", "chosen_key", "category", "reason"),
    ("chosen_scores", SCORES),
    ("rejected_scores", SCORES),
    *columns(pa.string(), "chosen_editor", "rejected_editor", "dataset", "licence", "uri", "source_key"),
]
TRL = pa.schema([("prompt", pa.string()), ("images", IMAGES), ("chosen", IMAGE), ("rejected", IMAGE), *_ABOUT])
"""The names of TRL's preference format with images. `images` is only the source."""
DIFFUSION_DPO = pa.schema(
    [
        ("caption", pa.string()),
        ("source", IMAGE),
        *columns(pa.binary(), "jpg_0", "jpg_1"),
        ("label_0", pa.float64()),
        *_ABOUT,
    ]
)
"""The names of Diffusion-DPO (of Pick-a-Pic): JPEG bytes, and `label_0` is 1 because `jpg_0` is the chosen one."""


def export(run: Run, out: str, categories: Sequence[str] | None = None) -> int:
    """Write the preferences of a run into a new local or remote folder, with the column names of TRL (`trl/`) and of
    Diffusion-DPO (`diffusion_dpo/`); returns their number.

    ValueError if the folder is not empty, if nothing has been selected yet, or if there are no preferences.
    """
    if not storage.is_empty(out):
        raise ValueError(f"{out}: exists and is not an empty folder; give a new one")
    if not (run.folder("select") / SELECTION).exists():
        raise ValueError(f"{run.root}: nothing has been selected yet: run `crispedit select` first")
    rows = _preferences(run, categories)
    if not len(rows):
        raise ValueError(
            f"{run.root}: no preferences{' of these categories' if categories else ''}: no job has a kept candidate "
            "beside a rejected one. Ask for several seeds or editors (edit.editors.NAME.seeds), and for select.best "
            "or select.judge to choose among them"
        )
    with storage.replaced_folder(out) as folder:
        for name, schema in (("trl", TRL), ("diffusion_dpo", DIFFUSION_DPO)):
            write_files(folder / name, with_features(schema), _with_pixels(run, rows))
        (folder / card.CARD).write_text(_card(rows), encoding="utf-8")
    return len(rows)


def _preferences(run: Run, categories: Sequence[str] | None) -> pa.Table:
    """A row per rejected candidate with the kept one of its job, both from the same source, in key order."""
    db = tables.connect(run)
    folder = run.folder("select")
    first_pass(run, db, pq.read_table(folder / SOURCES))
    db.register("selection", pq.read_table(folder / SELECTION))
    db.register("wanted", pa.table({"category": pa.array(categories or [], pa.string())}))
    # An edit with another aspect than the chosen one differs in more than the edit, so it is left out.
    fits = fits_sql(("k.width", "k.height"), ("r.width", "r.height"))
    return db.sql(f"""
        WITH known AS (
            SELECT c.*, v.worth, s.outcome, s.reason, v.verdict FROM candidate c
            JOIN selection s USING (key) JOIN verdicts v USING (key)
            WHERE c.edited IS NOT NULL
                AND ({not categories} OR c.category IN (SELECT category FROM wanted))
        )
        SELECT r.key, k.key AS chosen_key, r.category, r.reason, r.instruction, r.source, k.edited AS chosen,
            r.edited AS rejected, k.editor AS chosen_editor, r.editor AS rejected_editor, r.dataset, r.licence, r.uri,
            r.source_key, {_scores(run, "ks")} AS chosen_scores, {_scores(run, "rs")} AS rejected_scores
        FROM known k JOIN known r USING (job_key)
            LEFT JOIN score ks ON ks.key = k.key LEFT JOIN score rs ON rs.key = r.key
        WHERE k.outcome = '{KEPT}' AND r.outcome = '{REJECTED}' AND r.source.xxh3_64 = k.source.xxh3_64
            AND {fits} AND (r.reason <> 'not_best' OR k.worth > r.worth)
        ORDER BY k.job_key, r.key
    """).to_arrow_table()


def _scores(run: Run, alias: str) -> str:
    """The scores of a row as a list of (name, value), in DuckDB's SQL; without perceptual hashes."""
    names = [score for score in run.recipe.pair_cascade.scores if not score.endswith("phash")]
    values = ", ".join(f"{{'name': '{name}', 'value': {alias}.\"{name}\"::DOUBLE}}" for name in names)
    return f"[{values}]" if names else "[]::STRUCT(name VARCHAR, value DOUBLE)[]"


def _with_pixels(run: Run, rows: pa.Table) -> Iterator[dict[str, Any]]:
    """The rows with their JPEGs, under the names of both formats."""
    for batch in rows.to_batches(max_chunksize=256):
        for row in batch.to_pylist():
            source = journal.read_blob(run.root, row["source"])
            chosen, rejected = (
                at_size_of(source, journal.read_blob(run.root, row[name])) for name in ("chosen", "rejected")
            )
            cells = [{"bytes": jpeg, "path": None} for jpeg in (source, chosen, rejected)]
            names = {"prompt": row["instruction"], "caption": row["instruction"], "images": cells[:1]}
            pixels = dict(zip(("source", "chosen", "rejected"), cells, strict=True))
            yield row | names | pixels | {"jpg_0": chosen, "jpg_1": rejected, "label_0": 1.0}


def _card(rows: pa.Table) -> str:
    licences = Counter(licence or "unknown" for licence in rows.column("licence").to_pylist())
    reasons = Counter(rows.column("reason").to_pylist())
    front: dict[str, Any] = {
        "task_categories": ["image-to-image"],
        "tags": ["image-editing", "crispedit", "preference", "dpo"],
        "configs": [
            {"config_name": "trl", "default": True, "data_files": [{"split": "train", "path": "trl/*.parquet"}]},
            {"config_name": "diffusion_dpo", "data_files": [{"split": "train", "path": "diffusion_dpo/*.parquet"}]},
        ],
    }
    if len(licences) == 1 and "unknown" not in licences:
        front["license"] = next(iter(licences))
    return TEMPLATES.get_template("preference.md.jinja").render(
        front=yaml.safe_dump(front, sort_keys=False, allow_unicode=True),
        preferences=len(rows),
        reasons=reasons,
        licences=licences,
    )

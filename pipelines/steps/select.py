"""select: which photographs and which candidates are kept, and why the others are not. Policy only: tables in,
verdicts out, no GPU and no Ray, so that a moved bound costs seconds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from crispedit.cascade import ERROR, KEPT, REJECTED
from crispedit.record import content_key
from filters.duplicate import near_duplicates
from pipelines import tables
from pipelines.run import Run
from shards import journal

SELECTION = "selection.parquet"
SOURCES = "sources.parquet"


def select(run: Run) -> pa.Table:
    """Decide on every photograph and candidate and write `select/`; returns the candidates' verdicts."""
    sources, pairs = source_verdicts(run), pair_verdicts(run, tables.connect(run))
    folder = run.folder("select")
    _write(folder / SOURCES, sources)
    _write(folder / SELECTION, pairs)
    return pairs


def digest_of(selection: pa.Table) -> str:
    """A word for which candidates are kept: a packed set says of which selection it is."""
    kept = selection.filter(pc.equal(selection.column("outcome"), KEPT)).column("key").sort()
    return content_key(*kept.to_pylist())


def kept_sources(run: Run, columns: Sequence[str]) -> pa.Table:
    """Columns of the photographs that pass, in key order: what annotate and edit work on."""
    db = tables.connect(run)
    db.register("verdicts", source_verdicts(run))
    listed = ", ".join(f'c."{column}"' for column in columns)
    return db.sql(
        f"SELECT {listed} FROM curate c JOIN verdicts v USING (uri) WHERE v.outcome = '{KEPT}' ORDER BY c.key"
    ).to_arrow_table()


def full_categories(run: Run) -> set[str]:
    """The categories with as many passing pairs as their quota."""
    quotas = {name: spec.quota for name, spec in run.recipe.categories.items() if spec.quota is not None}
    if not quotas:
        return set()
    verdicts = pair_verdicts(run, tables.connect(run))
    kept = Counter(verdicts.filter(pc.equal(verdicts.column("outcome"), KEPT)).column("category").to_pylist())
    return {name for name, quota in quotas.items() if kept[name] >= quota}


def source_verdicts(run: Run) -> pa.Table:
    """(uri, key, outcome, reason) of every input file, in uri order.

    Of several files with the same bytes, or with nearly the same picture, the first by uri is kept.
    """
    return _source_verdicts(run, tuple(journal.parts(run.folder("curate"))))


@lru_cache(maxsize=1)
def _source_verdicts(run: Run, parts: tuple[Path, ...]) -> pa.Table:
    """The verdicts that these parts lead to: every step of a wave asks for them, and a part never changes."""
    db, cascade = tables.connect(run), run.recipe.source_cascade
    db.register("source_bounds", cascade.bounds_table([""]))
    hashed = 'r."duplicate.phash"' if "duplicate" in cascade.filters else "NULL::BIGINT"
    verdicts = db.sql(f"""
        SELECT r.uri, r.key, {hashed} AS phash, CASE
            WHEN r.error IS NOT NULL THEN '{ERROR} ' || 'unreadable'
            WHEN r.refusal IS NOT NULL THEN '{REJECTED} ' || r.refusal
            ELSE {cascade.verdict_sql("r", "b")} END AS verdict
        FROM curate r CROSS JOIN source_bounds b ORDER BY r.uri
    """).to_arrow_table()
    outcome, reason = _split(verdicts.column("verdict"))
    if run.recipe.imports_pairs:  # several edits of one photograph are pairs in their own right
        return _verdict_table(verdicts, outcome, reason)
    alive = np.flatnonzero(outcome == KEPT)
    keys = verdicts.column("key").to_numpy(zero_copy_only=False)[alive]
    _, first = np.unique(keys, return_index=True)
    repeated = np.setdiff1d(np.arange(len(keys)), first)
    outcome[alive[repeated]], reason[alive[repeated]] = REJECTED, "duplicate"
    if "duplicate" in cascade.filters:
        hashes = verdicts.column("phash")
        hashed = hashes.is_valid().to_numpy(
            zero_copy_only=False
        )  # a blank image resembles anything: it has no hash
        alive = np.flatnonzero((outcome == KEPT) & hashed)
        near = near_duplicates(hashes.take(alive).to_numpy(), run.recipe.curate.duplicate_bits) >= 0
        outcome[alive[near]], reason[alive[near]] = REJECTED, "near_duplicate"
    return _verdict_table(verdicts, outcome, reason)


def _verdict_table(verdicts: pa.Table, outcome: np.ndarray, reason: np.ndarray) -> pa.Table:
    return pa.table(
        {
            "uri": verdicts.column("uri"),
            "key": verdicts.column("key"),
            "outcome": pa.array(outcome, pa.string()),
            "reason": pa.array(reason, pa.string()),
        }
    )


def pair_verdicts(run: Run, db: duckdb.DuckDBPyConnection) -> pa.Table:
    """(key, job_key, source_key, category, outcome, reason) of every candidate, in key order.

    After the cascade: of a job's passing candidates the one of the first editor and seed is kept (`not_best`), of
    pairs that repeat each other the first by key (`duplicate`), and of a category at most its quota, by key (`quota`).
    """
    first_pass(run, db)
    recipe = run.recipe
    editors = pa.table({"editor": list(recipe.editors), "rank": list(range(len(recipe.editors)))})
    db.register("editor_ranks", editors)
    quotas = {name: spec.quota for name, spec in recipe.categories.items()}
    db.register(
        "quotas", pa.table({"category": list(quotas), "quota": pa.array(list(quotas.values()), pa.int64())})
    )
    repeats = "SELECT NULL AS key WHERE false"
    if "duplicate" in recipe.pair_cascade.filters:
        bits = recipe.select.duplicate_bits
        near = " AND ".join(
            f'bit_count(xor(a."duplicate.{name}", b."duplicate.{name}")) <= {bits}'
            for name in ("phash", "edited_phash")
        )
        repeats = f"""
            SELECT DISTINCT b.key FROM hashed a JOIN hashed b
            ON lower(a.instruction) = lower(b.instruction) AND a.key < b.key AND {near}"""
    return db.sql(f"""
        WITH best AS (
            SELECT v.*, v.verdict = '{KEPT}' AND row_number() OVER (
                PARTITION BY v.job_key, v.verdict = '{KEPT}' ORDER BY e.rank NULLS LAST, v.seed, v.key) > 1 AS beaten
            FROM verdicts v LEFT JOIN editor_ranks e USING (editor)
        ), hashed AS (
            SELECT b.*, s.* EXCLUDE (key) FROM best b JOIN score s USING (key) WHERE verdict = '{KEPT}' AND NOT beaten
        ), repeats AS (
            SELECT b.*, r.key IS NOT NULL AS repeated FROM best b LEFT JOIN ({repeats}) r USING (key)
        ), ranked AS (
            SELECT *, verdict = '{KEPT}' AND NOT beaten AND NOT repeated AS passes,
                row_number() OVER (PARTITION BY category, passes ORDER BY key) AS rank
            FROM repeats
        ), decided AS (
            SELECT r.*, CASE WHEN beaten THEN '{REJECTED} not_best' WHEN repeated THEN '{REJECTED} duplicate'
                WHEN passes AND rank > quota THEN '{REJECTED} quota' ELSE verdict END AS final
            FROM ranked r LEFT JOIN quotas USING (category)
        )
        SELECT key, job_key, source_key, category, split_part(final, ' ', 1) AS outcome,
            nullif(split_part(final, ' ', 2), '') AS reason
        FROM decided ORDER BY key
    """).to_arrow_table()


def first_pass(run: Run, db: duckdb.DuckDBPyConnection) -> None:
    """Create the table `verdicts`: every candidate with what its own row and its scores say, before any competition."""
    cascade = run.recipe.pair_cascade
    db.register("sources", source_verdicts(run))
    db.register("pair_bounds", cascade.bounds_table(list(run.recipe.categories)))
    scores = ", ".join(f's."{field.name}"' for field in cascade.columns)
    db.execute(f"""
        CREATE OR REPLACE TEMP TABLE verdicts AS
        WITH alive AS (SELECT DISTINCT key FROM sources WHERE outcome = '{KEPT}'),
        r AS (
            SELECT e.key, e.job_key, e.source_key, e.category, e.editor, e.seed, e.refusal, e.error,
                j.instruction, j.job_key IS NOT NULL AS has_job, a.key IS NOT NULL AS has_source
                {"," if scores else ""} {scores}
            FROM edit e LEFT JOIN score s ON s.key = e.key LEFT JOIN job j ON j.job_key = e.job_key
                LEFT JOIN alive a ON a.key = e.source_key
        )
        SELECT r.key, r.job_key, r.source_key, r.category, r.editor, r.seed, r.instruction, CASE
            WHEN r.error IS NOT NULL THEN '{ERROR} edit'
            WHEN r.refusal IS NOT NULL THEN '{REJECTED} ' || r.refusal
            WHEN NOT r.has_source THEN '{REJECTED} source'
            WHEN NOT r.has_job THEN '{REJECTED} no_job'
            WHEN b.category IS NULL THEN '{REJECTED} category'
            ELSE {cascade.verdict_sql("r", "b")} END AS verdict
        FROM r LEFT JOIN pair_bounds b ON b.category = r.category
    """)
    db.unregister("pair_bounds")


def _split(verdicts: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """("outcome reason", ...) as two object arrays; the reason is None where there is none."""
    pairs = [verdict.partition(" ") for verdict in verdicts.to_pylist()]
    outcome = np.array([first for first, _, _ in pairs], dtype=object)
    reason = np.array([rest or None for _, _, rest in pairs], dtype=object)
    return outcome, reason


def _write(path: Path, table: pa.Table) -> None:
    with journal.replaced(path) as out:
        pq.write_table(table, out, compression="zstd")

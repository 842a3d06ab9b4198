"""The run's committed tables as DuckDB views: every number that is shown, and every plan, is a query over these."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

from crispedit.outcome import kind
from crispedit.pipelines.building import listing
from crispedit.pipelines.records import ANNOTATE, COMPARE, EDIT, IN_PLACE, curate_table, score_table
from crispedit.pipelines.run import Run
from crispedit.shards import journal
from crispedit.shards.journal import quoted

OF_KEYS = {
    "edit": "key IN (FROM keys)",
    "score": "key IN (FROM keys)",
    "annotate": "job_key IN (SELECT job_key FROM edit)",
    "curate": "key IN (SELECT source_key FROM edit) "
    "OR uri IN (SELECT json_extract_string(options, '$.uri') FROM edit WHERE editor = 'imported')",
}
"""Conditions for the rows that belong to given candidates, by table; a condition may use the tables above it."""


@dataclass
class Failures:
    """The errors of one step that differ only in names and numbers."""

    step: str
    kind: str
    rows: int
    transient: bool
    """Whether the next run retries these rows."""
    example: str
    first: list[str]
    """Names (uris or keys) of the first of these rows, at most three."""


def grouped(errors: Iterable[tuple[str, str, bool, int, Sequence[str]]]) -> list[Failures]:
    """Errors as (step, error, transient, rows, first names), grouped by step and kind, the most frequent first."""
    groups: dict[tuple[str, str, bool], Failures] = {}
    for step, error, transient, rows, first in errors:
        group = groups.setdefault((step, kind(error), transient), Failures(step, kind(error), 0, transient, error, []))
        group.rows += rows
        group.first = sorted([*group.first, *first])[:3]
    return sorted(groups.values(), key=lambda group: (-group.rows, group.step, group.kind))


def database(run: Run) -> duckdb.DuckDBPyConnection:
    """An empty database for millions of rows: it leaves memory for other work, and spills the rest into the run."""
    db = journal.database()
    db.execute("SET preserve_insertion_order = false")
    db.execute("SET parquet_metadata_cache = true")  # a query reads the footers of its parts several times
    db.execute("SET memory_limit = '3GB'")
    db.execute(f"SET temp_directory = {quoted(str(run.root / '.duckdb'))}")
    return db


def connect(run: Run, waves: Sequence[str] | None = None, keys: pa.Table | None = None) -> duckdb.DuckDBPyConnection:
    """A connection with the views `curate`, `annotate`, `edit`, `score` and `compare`, each row once; `job`, each job
    once; and `candidate`: `edit` with its job's texts, its photograph's origin, and its `source` (composed by the
    editor or not). An imported pair has its own origin and `id`. `waves`: only these waves. `keys`: only these
    candidates (a column `key`), and what belongs to them."""
    db = database(run)
    views = {"annotate": ANNOTATE, "edit": EDIT, "compare": COMPARE}
    views |= {"curate": curate_table(run.recipe.source_cascade), "score": score_table(run.recipe.pair_cascade)}
    for name, table in views.items():
        folders = [run.folder(name)] if waves is None else [run.folder(name) / wave for wave in waves]
        parts = [part for folder in folders for part in journal.parts(folder)]
        db.execute(f"CREATE VIEW {name} AS {journal.view(db, table, parts)}")
    if keys is not None:
        db.register("keys", keys)
        for name, condition in OF_KEYS.items():
            db.execute(f"CREATE TABLE of_keys AS SELECT * FROM {name} WHERE {condition}")
            db.execute(f"DROP VIEW {name}; ALTER TABLE of_keys RENAME TO {name}")
    db.execute("""
        CREATE VIEW job AS SELECT * FROM annotate WHERE job_key IS NOT NULL
            QUALIFY row_number() OVER (PARTITION BY job_key ORDER BY key) = 1;
        CREATE VIEW candidate AS
            SELECT e.* EXCLUDE (source), coalesce(e.source, p.image) AS source, e.source IS NOT NULL AS composed,
                j.instruction, j.source_caption, j.target_caption, p.sha256,
                if(own.uri IS NULL, NULL, json_extract_string(e.options, '$.id')) AS id,
                coalesce(own.uri, p.uri) AS uri, if(own.uri IS NULL, p.licence, own.licence) AS licence,
                if(own.uri IS NULL, p.dataset, own.dataset) AS dataset
            FROM edit e JOIN job j USING (job_key) JOIN (
                SELECT * FROM curate WHERE image IS NOT NULL
                QUALIFY row_number() OVER (PARTITION BY key ORDER BY uri) = 1
            ) p ON p.key = e.source_key
            LEFT JOIN curate own ON own.uri = json_extract_string(e.options, '$.uri') AND e.editor = 'imported'
    """)
    return db


def rows(
    db: duckdb.DuckDBPyConnection, query: str, values: Sequence[Any] | Mapping[str, Any] = ()
) -> list[dict[str, Any]]:
    """The rows of a query. Each call has its own cursor, so that threads may query concurrently."""
    with db.cursor() as cursor:
        result = cursor.execute(query, values)
        names = [column[0] for column in result.description or ()]
        return [dict(zip(names, row, strict=True)) for row in result.fetchall()]


def listing_rows(run: Run) -> list[dict[str, Any]]:
    """The rows of the listing without their members: the containers, and what was skipped."""
    table = listing.table(run.recipe.source)
    with journal.database() as db:
        body = journal.view(db, table, journal.parts(run.folder("listing")))
        columns = ", ".join(f'"{name}"' for name in table.schema.names if name != "members")
        return db.sql(f"SELECT {columns} FROM ({body}) ORDER BY key").to_arrow_table().to_pylist()


def repairs(db: duckdb.DuckDBPyConnection, kept: str = "SELECT key FROM edit") -> dict[str, int]:
    """Of the keys of a query, how many edits were `realigned` with their source or left `in_place`, and from how many
    a drift of tone was removed (`restored`)."""
    [counts] = rows(
        db,
        f"SELECT count(*) FILTER (transform <> '{IN_PLACE}') AS realigned, "
        f"count(*) FILTER (transform = '{IN_PLACE}') AS in_place, count(drift) AS restored "
        f"FROM edit WHERE key IN ({kept})",
    )
    return counts

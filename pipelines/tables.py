"""The run's committed tables as DuckDB views: every number that is shown, and every plan, is a query over these."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import duckdb
import pyarrow as pa

from crispedit.pipelines.run import ANNOTATE, COMPARE, EDIT, IN_PLACE, Run, curate_table, score_table
from crispedit.shards import journal
from crispedit.shards.journal import Table


def connect(run: Run) -> duckdb.DuckDBPyConnection:
    """A connection with the views `curate`, `annotate`, `edit`, `score` and `compare`, each row once; `job`, each job
    once; and `candidate`: `edit` with its job's words, its photograph's origin, and `source` the one it was made from,
    composed by its editor or not."""
    found = photographs(run)
    _view(found, "annotate", run.folder("annotate"), ANNOTATE)
    _view(found, "edit", run.folder("edit"), EDIT)
    _view(found, "score", run.folder("score"), score_table(run.recipe.pair_cascade), merged=True)
    _view(found, "compare", run.folder("compare"), COMPARE)
    found.execute("""
        CREATE VIEW job AS SELECT * FROM annotate WHERE job_key IS NOT NULL
            QUALIFY row_number() OVER (PARTITION BY job_key ORDER BY key) = 1;
        CREATE VIEW candidate AS
            SELECT e.* EXCLUDE (source), coalesce(e.source, p.image) AS source, e.source IS NOT NULL AS composed,
                j.instruction, j.source_caption, j.target_caption, p.uri, p.sha256, p.licence, p.dataset
            FROM edit e JOIN job j USING (job_key) JOIN (
                SELECT * FROM curate WHERE image IS NOT NULL
                QUALIFY row_number() OVER (PARTITION BY key ORDER BY uri) = 1
            ) p ON p.key = e.source_key
    """)
    return found


def photographs(run: Run) -> duckdb.DuckDBPyConnection:
    """A connection with the view `curate` alone, which asks nothing of the candidates' many rows."""
    found = duckdb.connect()
    found.execute("SET preserve_insertion_order = false")
    found.execute(
        "SET memory_limit = '3GB'"
    )  # select over millions of rows must fit beside other work; the rest spills
    found.execute(f"SET temp_directory = {quoted(str(run.root / '.duckdb'))}")
    _view(found, "curate", run.folder("curate"), curate_table(run.recipe.source_cascade))
    return found


def repaired(db: duckdb.DuckDBPyConnection, kept: str = "SELECT key FROM edit") -> dict[str, int]:
    """Of the keys that a query names: how many imported edits were `laid_back` onto their source, or lay `in_place`."""
    found = db.execute(
        "SELECT count(*) FILTER (transform <> $in_place), count(*) FILTER (transform = $in_place) "
        f"FROM edit WHERE key IN ({kept})",
        {"in_place": IN_PLACE},
    ).fetchall()
    return {"laid_back": found[0][0], "in_place": found[0][1]}


def quoted(text: str) -> str:
    """A SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def _view(db: duckdb.DuckDBPyConnection, name: str, folder: Path, table: Table, merged: bool = False) -> None:
    """A view of a table's parts under the schema of today's recipe: a column no part has yet is null.

    Rows of one key are at-least-once copies, of which the first part's counts; or, when `merged`, complete each other.
    """
    schema = table.committed_schema
    files = journal.parts(folder)
    if not files:
        db.register(f"{name}_empty", schema.empty_table())
        db.execute(f"CREATE VIEW {name} AS SELECT * FROM {name}_empty")
        return
    listed = ", ".join(quoted(str(file)) for file in files)
    raw = f"read_parquet([{listed}], union_by_name = true, filename = '__part')"
    there = {row[0] for row in db.execute(f"DESCRIBE SELECT * FROM {raw}").fetchall()}
    columns = {f.name: f'"{f.name}"' if f.name in there else f"NULL::{_sql_type(db, f.type)}" for f in schema}

    def select(of: str) -> str:
        return ", ".join(f'{of.format(column)} AS "{name}"' for name, column in columns.items())

    key = f'"{table.key}"'
    if _has_no_copies(tuple(files), table.key):
        body = f"SELECT {select('{}')} FROM {raw}"
    elif merged:
        body = f"SELECT {select('any_value({})')} FROM {raw} GROUP BY {key}"
    else:
        body = (
            f"SELECT {select('{}')} FROM {raw} "
            f"QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY __part) = 1"
        )
    db.execute(f"CREATE VIEW {name} AS {body}")


@lru_cache(maxsize=16)
def _has_no_copies(parts: tuple[Path, ...], key: str) -> bool:
    """Whether no key comes twice in these parts; asked once, since parts never change.

    As many hashes as rows prove it; two keys of one hash only cost the slower view.
    """
    listed = ", ".join(quoted(str(part)) for part in parts)
    with duckdb.connect() as db:
        counted = db.execute(f'SELECT count(*) = count(DISTINCT hash("{key}")) FROM read_parquet([{listed}])')
        return bool(counted.fetchall()[0][0])


def _sql_type(db: duckdb.DuckDBPyConnection, kind: pa.DataType) -> str:
    probe = pa.table({"c": pa.array([], kind)})
    db.register("__probe", probe)
    try:
        return str(db.execute("SELECT column_type FROM (DESCRIBE __probe)").fetchall()[0][0])
    finally:
        db.unregister("__probe")

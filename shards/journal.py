"""The journal: a run's tables as directories of committed parts, and the blobs their rows point at.

A part is a parquet of rows and, where rows carry images, a plain tar of their bytes. It is written tar first, each to
a temporary name, fsynced and renamed; the parquet's appearance *is* the commit. So whatever the moment of a crash, a
reader sees whole parts only, and a tar or temporary file without its parquet is garbage that `sweep` removes.

A key may have several rows: a task that ran twice, or an error that was tried again. `view` is the one place that says
which counts, so at-least-once writing gives exactly-once tables, and `compact` replaces many parts by one.
"""

import io
import os
import tarfile
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from crispedit.outcome import Damaged
from crispedit.shards.layout import replaced as replaced

BLOB = pa.struct([("tar", pa.string()), ("offset", pa.int64()), ("size", pa.int64()), ("xxh3_64", pa.uint64())])
"""How a committed row points at bytes: the tar, relative to the root of the tables (a run's directory), the range
inside it, their hash. Every image of a run is read by such a reference, whichever table holds it."""

BlobRef = Mapping[str, Any]


def columns(kind: pa.DataType, *names: str) -> list[tuple[str, pa.DataType]]:
    """Columns of one type, for a schema or a struct."""
    return [(name, kind) for name in names]


@dataclass(frozen=True)
class Table:
    """What a table's rows hold. `key` names the column that identifies a row; `blobs` the columns of bytes and the
    file suffix of each, kept in the part's tar."""

    schema: pa.Schema
    key: str = "key"
    blobs: Mapping[str, str] | None = None
    member: str | None = None
    """The column that names a row's members in the tar, where `key` is not fit for a file name."""
    completes: bool = False
    """Rows of one key complete each other: columns "f.*" with "f.measured" and "f.error" are one attempt at `f`."""

    @property
    def committed_schema(self) -> pa.Schema:
        """The schema on disk: blob columns hold references in place of bytes."""
        blobs = self.blobs or {}
        return pa.schema([pa.field(f.name, BLOB) if f.name in blobs else f for f in self.schema])


def commit(
    folder: Path, table: Table, rows: Sequence[Mapping[str, Any]], root: Path | None = None
) -> list[dict[str, Any]]:
    """Write rows as one part; returns them as they were committed, with references in place of bytes. References are
    relative to `root`, the root of all tables; null: the table's own folder. Without rows nothing is written."""
    if not rows:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    tar = folder / f"part-{uuid.uuid4().hex}.tar"
    schema = table.committed_schema
    written = [{name: row.get(name) for name in schema.names} for row in rows]
    blobs = [column for column in table.blobs or () if any(row[column] is not None for row in written)]
    if blobs:
        with replaced(tar) as out:
            _write_blobs(out, tar.relative_to(root or folder).as_posix(), table, written)
    with replaced(tar.with_suffix(".parquet")) as out:
        pq.write_table(pa.Table.from_pylist(written, schema=schema), out, compression="zstd")
        if blobs and not tar.exists():
            raise Damaged(f"{tar} was swept by another driver while this part was being committed")
    return written


def _write_blobs(out: BinaryIO, tar_name: str, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for row in rows:
            _add_blobs(archive, tar_name, table, row)


def _add_blobs(archive: tarfile.TarFile, tar_name: str, table: Table, row: dict[str, Any]) -> None:
    """Write a row's bytes, and put references to them in their place."""
    for column, suffix in (table.blobs or {}).items():
        data = row.get(column)
        if data is None:
            continue
        member = tarfile.TarInfo(f"{row[table.member or table.key]}.{suffix}")
        member.size = len(data)
        # A ustar header is one block, and names are short keys.
        offset = archive.offset + tarfile.BLOCKSIZE
        archive.addfile(member, io.BytesIO(data))
        hashed = xxhash.xxh3_64_intdigest(data)
        row[column] = {"tar": tar_name, "offset": offset, "size": len(data), "xxh3_64": hashed}


def parts(folder: Path) -> list[Path]:
    """The committed parts of a table, those of its waves included, sorted by path."""
    return sorted([*folder.glob("part-*.parquet"), *folder.glob("*/part-*.parquet")])


def database() -> duckdb.DuckDBPyConnection:
    """An empty database in memory, which writes nothing to the terminal."""
    db = duckdb.connect()
    db.execute("SET enable_progress_bar = false")
    return db


def read(folder: Path, table: Table, columns: Sequence[str] | None = None) -> pa.Table:
    """The table, each key once, in key order."""
    wanted = [*(columns if columns is not None else table.committed_schema.names)]
    with database() as db:
        body = view(db, table, parts(folder))
        return db.sql(f"SELECT {_listed(wanted)} FROM ({body}) ORDER BY {_name(table.key)}").to_arrow_table()


def view(db: duckdb.DuckDBPyConnection, table: Table, files: Sequence[Path]) -> str:
    """A query for a table's rows, each key once, under the table's own schema: a column that no part has is null.

    Of several rows of a key the best counts: one without an error, else one with a permanent error, else one with a
    transient error; among equals that of the first part. In a table that `completes`, this holds for each filter's
    columns apart.
    """
    columns = table.committed_schema
    if not files:
        return "SELECT " + ", ".join(f"{_null(db, f)} AS {_name(f.name)}" for f in columns) + " WHERE false"
    listed = ", ".join(quoted(str(file)) for file in files)
    raw = f"read_parquet([{listed}], union_by_name = true, filename = '__part')"
    try:
        present = {row[0] for row in db.execute(f"DESCRIBE SELECT * FROM {raw}").fetchall()}
    except duckdb.Error as error:
        raise damaged(files, error) from error
    body = ", ".join(f"{_name(f.name) if f.name in present else _null(db, f)} AS {_name(f.name)}" for f in columns)
    body = f"SELECT {body}, __part FROM {raw}"
    key = _name(table.key)
    if _has_no_copies(tuple(files), table.key):
        return f"SELECT {_listed(columns.names)} FROM ({body})"
    if not table.completes:
        best = f"row_number() OVER (PARTITION BY {key} ORDER BY {_rank(columns.names)}, __part)"
        return f"SELECT {_listed(columns.names)} FROM ({body}) QUALIFY {best} = 1"
    groups: dict[str, list[str]] = {}
    for name in columns.names:
        if name != table.key:
            groups.setdefault(name.partition(".")[0], []).append(name)
    chosen = []
    for group, names in groups.items():
        measured, failed = _name(f"{group}.measured"), f"{_name(f'{group}.error')} IS NOT NULL"
        rank = (
            f"CASE WHEN {measured} AND {failed} THEN '1' WHEN {measured} THEN '0' WHEN {failed} THEN '2' "
            "ELSE '3' END || __part"
        )
        struct = ", ".join(f"{_name(name)} := {_name(name)}" for name in names)
        chosen.append(f"arg_min(struct_pack({struct}), {rank}) AS {_name(group)}")
    unpacked = [f"{_name(group)}.{_name(name)} AS {_name(name)}" for group in groups for name in groups[group]]
    best = f"SELECT {', '.join([key, *chosen])} FROM ({body}) GROUP BY {key}"
    return f"SELECT {', '.join([key, *unpacked])} FROM ({best})"


def damaged(files: Sequence[Path], cause: Exception) -> Damaged:
    """Which of these parts cannot be read, and the way out."""
    for file in files:
        try:
            pq.read_metadata(file)
        except FileNotFoundError:
            return Damaged(f"{file} has disappeared while it was being read: run the same command again")
        except (OSError, pa.ArrowException) as problem:
            return Damaged(
                f"{file} is damaged ({problem}). Remove it with its .tar: the same command makes its rows again"
            )
    return Damaged(f"the tables in {files[0].parent} cannot be read: {cause}")


def _rank(columns: Sequence[str]) -> str:
    """0: no error; 1: a permanent one; 2: a transient one, of the row or of one of its filters."""
    filters = [name.removesuffix(".error") for name in columns if name.endswith(".error")]
    failed = [f"{_name(f'{f}.error')} IS NOT NULL" for f in filters]
    passes = [f"{one} AND {_name(f'{f}.measured')} IS NOT TRUE" for f, one in zip(filters, failed, strict=True)]
    failed += ["error IS NOT NULL"] if "error" in columns else []
    passes += ["transient"] if "transient" in columns else []
    cases = [*(f"WHEN {one} THEN 2" for one in passes), *(f"WHEN {one} THEN 1" for one in failed)]
    return f"CASE {' '.join(cases)} ELSE 0 END" if cases else "0"


@lru_cache(maxsize=64)
def _has_no_copies(files: tuple[Path, ...], key: str) -> bool:
    """Whether no key comes twice in these parts; asked once, since parts never change.

    As many hashes as rows prove it; two keys of one hash only cost the slower view.
    """
    listed = ", ".join(quoted(str(file)) for file in files)
    with database() as db:
        try:
            rows = db.execute(f"SELECT hash({_name(key)}) AS hashed FROM read_parquet([{listed}])")
            hashed = np.sort(rows.fetchnumpy()["hashed"])  # faster than to count them apart
            return not bool((hashed[1:] == hashed[:-1]).any())
        except duckdb.Error as error:
            raise damaged(files, error) from error


def _name(column: str) -> str:
    return '"' + column + '"'


def _listed(columns: Sequence[str]) -> str:
    return ", ".join(map(_name, columns))


def quoted(text: str) -> str:
    """The text as a literal of SQL."""
    return "'" + text.replace("'", "''") + "'"


def _null(db: duckdb.DuckDBPyConnection, field: pa.Field) -> str:
    """A null of a column's type."""
    db.register("__probe", pa.table({"c": pa.array([], field.type)}))
    try:
        kind = db.execute("SELECT column_type FROM (DESCRIBE __probe)").fetchall()[0][0]
    finally:
        db.unregister("__probe")
    return f"NULL::{kind}"


def compact(folder: Path, table: Table, root: Path | None = None) -> None:
    """Replace all the parts in a folder by one of the same rows, in key order, with one tar. Nobody may write there.

    The new part is committed before the old ones go, so a crash leaves at most rows that stand twice.
    """
    old = sorted(folder.glob("part-*.parquet"))
    if len(old) < 2:
        return
    rows = read(folder, table)
    tar = folder / f"part-{uuid.uuid4().hex}.tar"
    root = root or folder
    columns = [column for column in table.blobs or () if rows.column(column).null_count < len(rows)]
    if columns:
        moved: dict[str, list[Any]] = {column: [] for column in columns}
        with replaced(tar) as out, tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
            named = rows.select(list(dict.fromkeys([table.member or table.key, *columns])))
            for row in (row for batch in named.to_batches(1000) for row in batch.to_pylist()):
                for column in columns:
                    row[column] = None if row[column] is None else read_blob(root, row[column])
                _add_blobs(archive, tar.relative_to(root).as_posix(), table, row)
                for column in columns:
                    moved[column].append(row[column])
        for column in columns:
            at = rows.schema.get_field_index(column)
            rows = rows.set_column(at, pa.field(column, BLOB), pa.array(moved[column], BLOB))
    with replaced(tar.with_suffix(".parquet")) as out:
        pq.write_table(rows.cast(table.committed_schema), out, compression="zstd")
    for part in old:
        part.unlink()
        part.with_suffix(".tar").unlink(missing_ok=True)


def read_blob(root: Path, ref: BlobRef) -> bytes:
    """The bytes a row points at. `Damaged`, with the way out, if they are not there whole."""
    place = PurePosixPath(ref["tar"])
    if place.is_absolute() or ".." in place.parts:
        raise Damaged(f"{ref['tar']!r} leaves the run")
    path = root / place
    again = f"Remove {path.with_suffix('.parquet')} and {path.name}: the same command makes their rows again"
    try:
        with path.open("rb") as file:
            data = os.pread(file.fileno(), ref["size"], ref["offset"])
    except FileNotFoundError:
        raise Damaged(f"{path} is missing, though a committed row points into it. {again}") from None
    if len(data) != ref["size"]:
        raise Damaged(f"{path} is cut short: {len(data)} of {ref['size']} bytes at offset {ref['offset']}. {again}")
    if xxhash.xxh3_64_intdigest(data) != ref["xxh3_64"]:
        raise Damaged(
            f"{path} is damaged: the bytes at offset {ref['offset']} are not those that were committed. {again}"
        )
    return data


def sweep(folder: Path) -> list[Path]:
    """Remove what a crash left in a table and its waves: temporary files, and tars whose parquet never appeared. One
    driver a run only."""
    if not folder.exists():
        return []
    garbage = []
    for place in [folder, *(path for path in folder.iterdir() if path.is_dir())]:
        tars = place.glob("part-*.tar")
        garbage += [tar for tar in tars if not tar.with_suffix(".parquet").exists()]
        garbage += place.glob(".*.tmp")
    for path in garbage:
        path.unlink(missing_ok=True)
    return garbage

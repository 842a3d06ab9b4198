"""The journal: a run's tables as directories of committed parts, and the blobs their rows point at.

A part is a parquet of rows and, where rows carry images, a plain tar of their bytes. It is written tar first, each to
a temporary name, fsynced and renamed; the parquet's appearance *is* the commit. So whatever the moment of a crash, a
reader sees whole parts only, and a tar or temporary file without its parquet is garbage that `sweep` removes.
A retried task may commit a row twice: readers de-duplicate by key, so at-least-once writing gives exactly-once tables.
"""

from __future__ import annotations

import io
import os
import tarfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import xxhash

from crispedit.shards import layout

BLOB = pa.struct(
    [("tar", pa.string()), ("offset", pa.int64()), ("size", pa.int64()), ("xxh3_64", pa.uint64())]
)
"""How a committed row points at bytes: the tar's name within the table's folder, the range inside it, their hash."""

BlobRef = Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """What a table's rows hold. `key` names the column that identifies a row; `blobs` the columns of bytes and the
    file suffix of each, kept in the part's tar."""

    schema: pa.Schema
    key: str = "key"
    blobs: Mapping[str, str] | None = None
    member: str | None = None
    """The column that names a row's members in the tar, where `key` is not fit for a file name."""

    @property
    def committed_schema(self) -> pa.Schema:
        """The schema on disk: blob columns hold references in place of bytes."""
        blobs = self.blobs or {}
        return pa.schema([pa.field(f.name, BLOB) if f.name in blobs else f for f in self.schema])


def commit(folder: Path, table: Table, rows: Sequence[Mapping[str, Any]]) -> Path | None:
    """Write rows as one part; returns its parquet, or None when there are no rows."""
    if not rows:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    name = f"part-{uuid.uuid4().hex}"
    tar = folder / f"{name}.tar"
    written = [dict(row) for row in rows]
    if table.blobs and any(row.get(column) is not None for row in rows for column in table.blobs):
        with replaced(tar) as out:
            _write_blobs(out, tar.name, table, written)
    parquet = folder / f"{name}.parquet"
    with replaced(parquet) as out:
        pq.write_table(pa.Table.from_pylist(written, schema=table.committed_schema), out, compression="zstd")
        if (
            any(row.get(column) is not None for row in written for column in table.blobs or ())
            and not tar.exists()
        ):
            raise RuntimeError(f"{tar} was swept by another driver while this part was being committed")
    return parquet


def _write_blobs(out: BinaryIO, tar_name: str, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for row in rows:
            for column, suffix in (table.blobs or {}).items():
                data = row.get(column)
                if data is None:
                    continue
                member = tarfile.TarInfo(f"{row[table.member or table.key]}.{suffix}")
                member.size = len(data)
                offset = (
                    archive.offset + tarfile.BLOCKSIZE
                )  # a ustar header is one block, and names are short keys
                archive.addfile(member, io.BytesIO(data))
                hashed = xxhash.xxh3_64_intdigest(data)
                row[column] = {"tar": tar_name, "offset": offset, "size": len(data), "xxh3_64": hashed}


@contextmanager
def replaced(path: Path) -> Iterator[BinaryIO]:
    """A file that appears under its name only when it is whole and on the disk: temporary name, fsync, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = layout.temporary(path)
    try:
        with temporary.open("wb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        layout.replace_durably(temporary, path)
    except OSError as error:
        if error.filename is None:  # of a write: a full disk, which the reader should find by this name
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def parts(folder: Path) -> list[Path]:
    """The committed parts of a table, sorted by name."""
    return sorted(folder.glob("part-*.parquet"))


def read(folder: Path, table: Table, columns: Sequence[str] | None = None) -> pa.Table:
    """Every committed row, each key once (the first by part name: retried writes may hold a row twice)."""
    schema = table.committed_schema
    wanted = list(columns) if columns is not None else schema.names
    read_columns = list(dict.fromkeys([*wanted, table.key]))
    files = [str(part) for part in parts(folder)]
    whole = ds.dataset(files, schema=schema, format="parquet").to_table(columns=read_columns)
    keys = whole.column(table.key)
    if pc.count_distinct(keys, mode="all").as_py() != len(keys):
        numbered = pa.table({"key": keys, "row": pa.array(np.arange(len(keys)))})
        whole = whole.take(numbered.group_by("key").aggregate([("row", "min")]).column("row_min").sort())
    return whole.select(wanted)


def read_blob(folder: Path, ref: BlobRef) -> bytes:
    """The bytes a row points at. ValueError if they are not there whole."""
    path = folder / Path(ref["tar"]).name
    try:
        with path.open("rb") as file:
            data = os.pread(file.fileno(), ref["size"], ref["offset"])
    except FileNotFoundError:
        raise ValueError(f"{path} is missing, though a committed row points into it") from None
    if len(data) != ref["size"]:
        raise ValueError(f"{path} is cut short: {len(data)} of {ref['size']} bytes at offset {ref['offset']}")
    if xxhash.xxh3_64_intdigest(data) != ref["xxh3_64"]:
        raise ValueError(
            f"{path} is damaged: the bytes at offset {ref['offset']} are not those that were committed"
        )
    return data


def sweep(folder: Path) -> list[Path]:
    """Remove what a crash left: temporary files, and tars whose parquet never appeared. One driver a run only."""
    if not folder.exists():
        return []
    orphans = [tar for tar in folder.glob("part-*.tar") if not tar.with_suffix(".parquet").exists()]
    garbage = [*orphans, *folder.glob(".*.tmp")]
    for path in garbage:
        path.unlink(missing_ok=True)
    return garbage

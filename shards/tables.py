"""Parquet files of images: the columns that Hugging Face `datasets` opens as images, written a few rows at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

ROWS_PER_FILE = 1000
ROWS_IN_MEMORY = 64

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
IMAGES = pa.list_(IMAGE)
SCORES = pa.list_(pa.struct([("name", pa.string()), ("value", pa.float64())]))


def write_files(folder: Path, schema: pa.Schema, rows: Iterator[dict[str, Any]]) -> int:
    """Write train-%05d-of-%05d.parquet of at most `ROWS_PER_FILE` rows into a new folder; the number of rows."""
    folder.mkdir(parents=True)
    written = 0
    files: list[Path] = []
    for number in count():
        head = list(islice(rows, 1))
        if not head and files:
            break
        files.append(folder / f"{number}.parquet")
        with pq.ParquetWriter(files[-1], schema) as writer:
            file = chain(head, islice(rows, ROWS_PER_FILE - 1))
            while chunk := list(islice(file, ROWS_IN_MEMORY)):
                writer.write_table(pa.Table.from_pylist(chunk, schema))
                written += len(chunk)
    for number, path in enumerate(files):
        path.rename(folder / f"train-{number:05d}-of-{len(files):05d}.parquet")
    return written


def with_features(schema: pa.Schema) -> pa.Schema:
    """The schema with the metadata by which Hugging Face `datasets` knows which structs are images."""
    features = {field.name: _feature(field.type) for field in schema}
    return schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def _feature(kind: pa.DataType) -> Any:
    if kind == IMAGE:
        return {"_type": "Image"}
    if pa.types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "List"}
    if pa.types.is_struct(kind):
        return {field.name: _feature(field.type) for field in kind}
    return {"dtype": {"double": "float64"}.get(str(kind), str(kind)), "_type": "Value"}

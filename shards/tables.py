"""Parquet files of images: the columns that Hugging Face `datasets` opens as images, written a few rows at a time."""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

ROWS_PER_FILE = 1000
ROWS_IN_MEMORY = 64

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
IMAGES = pa.list_(IMAGE)
SCORES = pa.list_(pa.struct([("name", pa.string()), ("value", pa.float64())]))


class NumberedFiles:
    """Parquet files in a folder, each of `rows_per_file` rows but for the last; `name` holds their number."""

    def __init__(self, folder: Path, name: str, schema: pa.Schema, rows_per_file: int) -> None:
        self.folder, self.name, self.schema, self.rows_per_file = folder, name, schema, rows_per_file
        self.written = 0
        self._rows: list[dict[str, Any]] = []
        self._writer: pq.ParquetWriter | None = None

    def add(self, row: dict[str, Any]) -> tuple[str, int]:
        """The name of the file that takes the row, and its place in it."""
        number, place = divmod(self.written + len(self._rows), self.rows_per_file)
        self._rows.append(row)
        full = place + 1 == self.rows_per_file
        if full or len(self._rows) == ROWS_IN_MEMORY:
            self.flush()
        if full:
            self.close()
        return self.name.format(number), place

    def flush(self) -> None:
        """Write what is held, to the file of that number."""
        if self._writer is None:
            name = self.name.format(self.written // self.rows_per_file)
            self._writer = pq.ParquetWriter(self.folder / name, self.schema)
        self._writer.write_table(pa.Table.from_pylist(self._rows, self.schema))
        self.written += len(self._rows)
        self._rows.clear()

    def close(self) -> None:
        if self._rows:
            self.flush()
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def write_files(folder: Path, schema: pa.Schema, rows: Iterable[dict[str, Any]]) -> int:
    """Write train-%05d-of-%05d.parquet of at most `ROWS_PER_FILE` rows into a new folder; the number of rows. Without
    rows, one file of none."""
    folder.mkdir(parents=True)
    files = NumberedFiles(folder, "{}.parquet", schema, ROWS_PER_FILE)
    for row in rows:
        files.add(row)
    if not files.written:
        files.flush()
    files.close()
    count = math.ceil(files.written / ROWS_PER_FILE) or 1
    for number in range(count):
        (folder / f"{number}.parquet").rename(folder / f"train-{number:05d}-of-{count:05d}.parquet")
    return files.written


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

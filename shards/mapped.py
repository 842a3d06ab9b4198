"""Arrays in one file that processes map into memory: all that open it share what the system has read of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from numpy.typing import NDArray


def store(path: Path, arrays: Mapping[str, pa.Array | NDArray[Any]], note: Mapping[str, str]) -> None:
    """Write arrays of one length, [N] or [N, K], and a note beside them."""
    columns = {name: _column(array) for name, array in arrays.items()}
    table = pa.table(columns).replace_schema_metadata(dict(note))
    with pa.OSFile(str(path), "wb") as out, pa.ipc.new_file(out, table.schema) as writer:
        writer.write_table(table, max_chunksize=max(1, len(table)))


def load(path: Path) -> tuple[dict[str, pa.Array | NDArray[Any]], dict[str, str]]:
    """(arrays, note): texts as Arrow arrays, numbers as read-only numpy arrays, all of them views of the file."""
    table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    note = {name.decode(): text.decode() for name, text in (table.schema.metadata or {}).items()}
    return {name: _array(table.column(name)) for name in table.column_names}, note


def _column(array: pa.Array | NDArray[Any]) -> pa.Array:
    if isinstance(array, pa.Array):
        return array
    if array.ndim == 1:
        return pa.array(array)
    return pa.FixedSizeListArray.from_arrays(pa.array(array.reshape(-1)), array.shape[1])


def _array(column: pa.ChunkedArray) -> pa.Array | NDArray[Any]:
    array = column.chunk(0) if column.num_chunks else pa.array([], column.type)
    if pa.types.is_fixed_size_list(array.type):
        return array.flatten().to_numpy(zero_copy_only=True).reshape(-1, array.type.list_size)
    return array if pa.types.is_string(array.type) else array.to_numpy(zero_copy_only=True)

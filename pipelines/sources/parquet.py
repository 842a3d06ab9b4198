"""Parquet files of images: checks columns, lists rows, reads cells in order, and splits huge row groups."""

import hashlib
import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from crispedit.pipelines.sources.entry import File
from crispedit.pipelines.sources.files import open_file
from crispedit.pipelines.sources.names import beside, folder_of
from crispedit.shards import storage, tar

HUGE_BYTES = 64 << 20
"""A larger row group is split when it is listed, because each worker that shares it would decode it from its start."""

EMPTY = "the row's image is null"


class Null(ValueError):  # noqa: N818  named after the cell
    """An image cell is null."""


# Columns


def check_columns(
    section: str,
    uri: str,
    schema: pa.Schema,
    images: Mapping[str, str | None],
    text: Mapping[str, str | None],
    others: Mapping[str, str | None],
) -> None:
    """ValueError unless the columns that a section of the recipe names (option -> column) exist and hold images and
    texts. An untyped column, as pandas writes an all-empty one, counts as both."""
    for option, column in {**images, **text, **others}.items():
        if column is None:
            continue
        there = ", ".join(f"{field.name} ({field.type})" for field in schema)
        if schema.get_field_index(column) < 0:
            raise ValueError(f"{section}.{option}: {uri} has no column {column!r}; it has {there}")
        kind = schema.field(column).type
        wanted = "bytes or struct {bytes, path}" if option in images else "text"
        if option not in others and not (_holds_image(kind) if option in images else _holds_text(kind)):
            raise ValueError(f"{section}.{option}: column {column!r} of {uri} is not {wanted}; it has {there}")


_BYTES = (pa.binary(), pa.large_binary(), pa.binary_view(), pa.null())
_TEXT = (pa.string(), pa.large_string(), pa.string_view(), pa.null())


def _holds_image(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(kind.get_field_index(name) >= 0 for name in ("bytes", "path"))
    return kind in _BYTES


def _holds_text(kind: pa.DataType) -> bool:
    return (kind.value_type if pa.types.is_dictionary(kind) else kind) in _TEXT


# Rows


_Place = dict[str, Any]
"""Where an image is: the fields of its `Entry`."""


def rows(
    file: File, table: pq.ParquetFile, images: Mapping[str, str], others: Collection[str], folder: str | None
) -> Iterator[tuple[str, dict[str, _Place], dict[str, Any]]]:
    """The uri of each row, where its images are (part -> column), and its other columns, in order. Huge row groups are
    split into `folder`, if given."""
    number = 0
    for group in range(table.num_row_groups):
        places = {part: iter(_places(file, table, group, column, folder)) for part, column in images.items()}
        batches = table.iter_batches(1000, row_groups=[group], columns=sorted(others))
        for row in itertools.chain.from_iterable(batch.to_pylist() for batch in batches):
            yield f"{file.uri}#{number}", {part: next(of_rows) for part, of_rows in places.items()}, row
            number += 1


def _places(file: File, table: pq.ParquetFile, group: int, column: str, folder: str | None) -> Iterable[_Place]:
    """The images of a column of a row group."""
    count = table.metadata.row_group(group).num_rows
    if folder is not None and is_huge(table, group, column):
        return split(file.path, group, column, count, folder)
    return ({"path": file.path, "row_group": group, "row": row, "column": column} for row in range(count))


# Cells


BLOCK = 1 << 20
"""Bytes per request to a server for a column's cells."""


class _Cursor:
    """A position in one column of one row group. It only moves forward, so rows read in several calls are decoded
    once."""

    def __init__(self, path: str, row_group: int, column: str) -> None:
        self.file = open_file(path, BLOCK)
        # Without a buffer size, the whole column chunk (often a gigabyte) would be loaded.
        table = pq.ParquetFile(self.file, page_checksum_verification=True, buffer_size=BLOCK)
        self.batches = table.iter_batches(batch_size=16, row_groups=[row_group], columns=[column])
        self.start = 0
        self.cells: list[Any] = []

    def cell(self, row: int) -> Any:
        while row >= self.start + len(self.cells):
            self.start += len(self.cells)
            batch = next(self.batches, None)
            if batch is None:
                raise IndexError("it ends before the row")
            self.cells = batch.column(0).to_pylist()
        return self.cells[row - self.start]

    def __del__(self) -> None:
        if hasattr(self, "file"):
            self.file.close()


_cursors: dict[tuple[str, int, str], _Cursor] = {}
CURSORS = 8
"""Cursors kept open between calls in each process: enough for the columns of a pair or two."""


def cells(path: str, row_group: int, column: str, rows: Sequence[int]) -> dict[int, bytes | str | Exception]:
    """The images in these ascending rows of one row group, as `bytes_or_path` gives them; an exception for each row
    that cannot be read."""
    answers: dict[int, bytes | str | Exception] = {}
    key = (path, row_group, column)
    cursor = _cursors.pop(key, None)  # removed while in use, so that threads do not share one
    try:
        if cursor is None or rows[0] < cursor.start:
            cursor = _Cursor(*key)
        for row in rows:
            answers[row] = bytes_or_path(path, cursor.cell(row))
    except (OSError, IndexError, pa.ArrowException, ValueError) as error:
        failed = OSError(f"{path}: row group {row_group} does not read: {error}")
        failed.__cause__ = error
        return {row: answers.get(row, failed) for row in rows}
    _cursors[key] = cursor
    if len(_cursors) > CURSORS:
        _cursors.pop(next(iter(_cursors)), None)
    return answers


def bytes_or_path(parquet: str, value: object) -> bytes | str | ValueError:
    """The bytes in an image cell, or, for a cell with only a path, the path of that file beside the parquet; `Null` for
    an empty cell, an error for a path that leaves the folder."""
    data = value.get("bytes") if isinstance(value, Mapping) else value
    if isinstance(data, bytes):
        return data
    name = value.get("path") if isinstance(value, Mapping) else None
    try:
        return beside(folder_of(parquet), str(name)) if name else Null(f"{parquet}: {EMPTY}")
    except ValueError as error:
        return error


# Huge row groups


def is_huge(table: pq.ParquetFile, row_group: int, column: str) -> bool:
    """Whether an image column of a row group must be split."""
    group = table.metadata.row_group(row_group)
    chunks = [group.column(i) for i in range(group.num_columns)]
    own = [c.total_compressed_size for c in chunks if (c.path_in_schema + ".").startswith(column + ".")]
    return group.num_rows > 1 and sum(own) >= HUGE_BYTES


def split(path: str, row_group: int, column: str, count: int, folder: str) -> list[_Place]:
    """Write the image cells of one column of a row group to a tar in this folder of the run, and return where they are
    now. A null cell becomes the error `EMPTY`.

    The tar is named after the row group, so one from an earlier attempt is replaced.
    """
    group = f"{path}\0{row_group}\0{column}"
    name = f"split-{hashlib.sha256(group.encode()).hexdigest()[:32]}.tar"
    moved: list[_Place] = []
    with storage.replaced(storage.join(folder, name)) as out:
        offset = 0
        cursor = _Cursor(path, row_group, column)
        for row in range(count):
            cell = bytes_or_path(path, cursor.cell(row))
            if isinstance(cell, ValueError):
                moved.append({"path": path, "error": EMPTY if isinstance(cell, Null) else str(cell)})
            elif isinstance(cell, str):
                moved.append({"path": cell})
            else:
                member = tar.chunks(f"{row:09d}", cell)
                out.writelines(member)
                moved.append({"path": f"listing/{name}", "offset": offset + len(member[0]), "size": len(cell)})
                offset += sum(map(len, member))
        out.write(tar.END)
    return moved

"""Texts of a source: decodes and cleans captions and instructions."""

import codecs
import csv
import io
import json
from collections.abc import Iterator
from typing import IO

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def encoding_of(data: bytes) -> str:
    """The encoding by the byte order mark of a text; UTF-8 without one."""
    return next((encoding for mark, encoding in _MARKS if data.startswith(mark)), "utf-8")


def decode(data: bytes, errors: str = "strict") -> str:
    """The decoded text. UnicodeDecodeError if it does not fit its byte order mark."""
    return clean(data.decode(encoding_of(data), errors))


def storable(text: str) -> str:
    """The text with "?" for halves of surrogate pairs, which JSON can hold and no table can."""
    return text.encode("utf-8", "replace").decode()


def clean(text: str) -> str:
    """A text without byte order marks and surrounding white space, with line feeds as line ends."""
    return storable(text).replace("\r\n", "\n").strip("\ufeff\0 \t\n\r\v\f").strip()


def csv_rows(opened: IO[bytes]) -> Iterator[dict[str, str | None]]:
    """The rows of a CSV by the names in its first line; an empty cell is None. Separators are commas, semicolons or
    tabs."""
    encoding = encoding_of(opened.read(4))
    opened.seek(0)
    lines = io.TextIOWrapper(opened, encoding=encoding, newline="")
    first = lines.readline()
    lines.seek(0)
    reader = csv.DictReader(lines, delimiter=max(",;\t", key=first.count))
    for row in reader:
        yield {name: (value or None) for name, value in row.items() if isinstance(name, str)}
    lines.detach()


def of_json(data: bytes, field: str) -> str | None:
    """The text in a field of a JSON object; None if there is none, or the JSON does not parse."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    text = value.get(field) if isinstance(value, dict) else None
    return clean(text) or None if isinstance(text, str) else None

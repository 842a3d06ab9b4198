"""Texts of a source: decodes and cleans captions and instructions."""

from __future__ import annotations

import codecs
import json

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


def clean(text: str) -> str:
    """A text without byte order marks and surrounding white space, with line feeds as line ends."""
    return text.replace("\r\n", "\n").strip("\ufeff\0 \t\n\r\v\f").strip()


def of_json(data: bytes, field: str) -> str | None:
    """The text in a field of a JSON object; None if there is none, or the JSON does not parse."""
    try:
        value = json.loads(data.decode(encoding_of(data)))
    except (ValueError, RecursionError):
        return None
    text = value.get(field) if isinstance(value, dict) else None
    return clean(text) or None if isinstance(text, str) else None

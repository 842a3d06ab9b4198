"""JSON lines: a file with one object per line."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def read(path: Path, expected: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number from 1, object) of each line that is not blank; the file may be in any Unicode encoding.

    ValueError names the file and the line, or says what the missing file is `expected` to be.
    """
    try:
        data = path.read_bytes()
        text = data.decode(json.detect_encoding(data))
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}): expected {expected}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text: {error}") from None
    for number, line in enumerate(text.split("\n"), 1):  # splitlines would split at U+2028 inside a text, too
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}: line {number} is not JSON: {error}") from None
        if not isinstance(row, dict):
            raise ValueError(f"{path}: line {number}: expected an object, not {type(row).__name__}")
        yield number, row

"""A cache of edits, shared by evaluations, so that each edit is paid for once.

One file per edit, named by a hash of everything that determines it: the editor with its options and weights, the
source's bytes, the request and the seed. Several evaluations may share the folder, also at the same time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crispedit.record import canonical_json
from crispedit.shards import journal

KEPT = ("seconds", "refusal")


@dataclass(frozen=True)
class Edits:
    """The edits in a folder (None: no cache). A row's `edit` is the edit's name."""

    folder: Path | None

    def recall(self, name: str) -> dict[str, Any] | None:
        """The stored columns of an edit (PNG or refusal, and seconds); None if it is not stored."""
        if self.folder is None:
            return None
        try:
            stored = json.loads(self._file(name, "json").read_text(encoding="utf-8"))
            columns = {column: stored[column] for column in KEPT}
            return columns | {"image": self._file(name, "png").read_bytes() if stored["refusal"] is None else None}
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def has(self, name: str) -> bool:
        return self.folder is not None and self._file(name, "json").is_file()

    def keep(self, row: Mapping[str, Any]) -> None:
        """Store an edited or refused row; failed ones are tried again."""
        if self.folder is None or row.get("error") is not None:
            return
        image = row.get("image")
        if image is not None:
            with journal.replaced(self._file(row["edit"], "png")) as out:
                out.write(image)
        with journal.replaced(self._file(row["edit"], "json")) as out:
            out.write(canonical_json({column: row.get(column) for column in KEPT}).encode())

    def _file(self, name: str, suffix: str) -> Path:
        assert self.folder is not None
        return self.folder / name[:2] / f"{name}.{suffix}"

"""Edits that were made before: an edit is paid for once, whichever evaluation and output folder asks for it.

A file an edit, named by everything that decides it: the editor with its options and weights, the bytes of the source,
what is asked, and the seed. Several evaluations may share the folder, at the same time too.
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
    """The edits in a folder; None keeps none. A row's `edit` names it."""

    folder: Path | None

    def recall(self, name: str) -> dict[str, Any] | None:
        """What the row of an edit holds: its PNG or why it was refused, and its seconds; None if it is not there."""
        if self.folder is None:
            return None
        try:
            told = json.loads(self._file(name, "json").read_text(encoding="utf-8"))
            found = {column: told[column] for column in KEPT}
            return found | {
                "image": self._file(name, "png").read_bytes() if told["refusal"] is None else None
            }
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def has(self, name: str) -> bool:
        return self.folder is not None and self._file(name, "json").is_file()

    def keep(self, row: Mapping[str, Any]) -> None:
        """Keep a row that was edited or refused; one that failed is tried again."""
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

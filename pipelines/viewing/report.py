"""The report: `audit/report.html`, a single file without scripts that needs no server or network. It shows what went
in, what came out and why, with examples of every reason."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from crispedit.pipelines.run import Run
from crispedit.pipelines.viewing import charts, overview, pictures, snapshot, templates
from crispedit.pipelines.viewing.snapshot import Snapshot
from crispedit.shards import journal

if TYPE_CHECKING:
    from crispedit.pipelines.audit import Report

MAX_BYTES = 5_000_000
"""The largest size of the file. Images fill what the text leaves, the first reasons first."""
TEXT_BYTES = 1_200_000
WIDTH_PX = 240
QUALITY = 72


@dataclass
class Thumbnails:
    """Thumbnails as data URIs, until their bytes are used up."""

    snapshot: Snapshot
    left: int
    drawn: dict[tuple[str, str], str] = field(default_factory=dict)

    def uri(self, row: Mapping[str, Any], side: str) -> str | None:
        """A picture of a pair; None where it cannot be read or there is no room."""
        name = (str(row["source_key"]), side) if side == "source" and not row["composed"] else (str(row["key"]), side)
        if name not in self.drawn:
            try:
                data = pictures.drawn(self.snapshot, dict(row), side, WIDTH_PX, QUALITY)
            except ValueError:  # `crispedit verify` reports damaged images
                return None
            if data is None or len(data) * 4 / 3 > self.left:
                return None
            self.drawn[name] = "data:image/jpeg;base64," + base64.b64encode(data).decode()
            self.left -= len(self.drawn[name])
        return self.drawn[name]


def path_of(run: Run) -> Path:
    return run.folder("audit") / "report.html"


def write(run: Run, report: Report, *, light: bool = False) -> Path:
    """Write `audit/report.html`; `light` leaves the images out. Returns its path."""
    path = path_of(run)
    with snapshot.of_run(run.root) as seen:
        text = html(seen, report, light=light)
    with journal.replaced(path) as out:
        out.write(text.encode())
    return path


def html(s: Snapshot, report: Report, *, light: bool = False) -> str:
    charted = {score: {name: charts.histogram(s, score, name, bins=36) for name in s.categories} for score in s.bounded}
    values = overview.summary(s, reasons=0 if light else None, kept=0 if light else 12) | {
        "s": s,
        "style": Markup((templates.FOLDER / "style.css").read_text(encoding="utf-8")),
        "report": report,
        "errors": report.errors,
        "light": light,
        "uri": Thumbnails(s, 0 if light else MAX_BYTES - TEXT_BYTES).uri,
        "datasets": overview.by_dataset(s),
        "charted": charted,
        "progress": overview.progress(s),
    }
    return templates.environment().get_template("report.html.jinja").render(values)

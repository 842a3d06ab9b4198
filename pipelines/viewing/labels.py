"""Labels: a person's verdicts on pairs, in a CSV for `crispedit calibrate --labels`, and the filters' agreement with
them.

Lines are only added. The last line of a key counts, and an empty verdict deletes an earlier one.
"""

import csv
import datetime
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from crispedit.bounds import Bound
from crispedit.outcome import KEPT, REJECTED
from crispedit.pipelines.calibration import labelled
from crispedit.pipelines.calibration.judgement import Agreement
from crispedit.pipelines.viewing.moved import MovedBound
from crispedit.pipelines.viewing.queries import PairsAddress, Row, where
from crispedit.pipelines.viewing.snapshot import Snapshot

COLUMNS = ("key", "id", "verdict", "reason", "category", "time")
GOOD, BAD, UNSURE = VERDICTS = ("good", "bad", "unsure")
REASONS = {
    "no_change": "nothing changed",
    "wrong_edit": "another edit than asked for",
    "leaks": "changes elsewhere",
    "misaligned": "shifted or stretched",
    "low_quality": "artefacts, blur",
    "instruction": "the instruction makes no sense",
}
"""Why a pair is bad: the word in the file, and what it means."""


class Labels:
    """The labels of one file. Safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        """ValueError if the file exists and is not a file of labels."""
        self.path = path
        self._rows: dict[str, Row] = {}
        self._lock = Lock()
        if path.exists():
            with path.open(newline="", encoding="utf-8") as lines:
                reader = csv.DictReader(lines)
                if not {"key", "verdict"} <= set(reader.fieldnames or ()):
                    raise ValueError(
                        f"{path}: the first line of a file of labels names the columns {','.join(COLUMNS)}"
                    )
                for row in reader:
                    self._take(row)

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, pair: Mapping[str, object], verdict: str, reason: str = "") -> None:
        """Write a verdict on a pair to the file ("" deletes the last one). ValueError for an unknown verdict."""
        if verdict not in (*VERDICTS, ""):
            raise ValueError(f"a verdict is one of {', '.join(VERDICTS)}, not {verdict!r}")
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        why = reason[:200] if verdict == BAD else ""
        texts = (pair["key"], pair["id"] or "", verdict, why, pair["category"] or "", now)
        row = dict(zip(COLUMNS, texts, strict=True))
        with self._lock:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            new = not self.path.exists()
            with self.path.open("a", newline="", encoding="utf-8") as out:
                writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
                if new:
                    writer.writeheader()
                writer.writerow(row)
                out.flush()
                os.fsync(out.fileno())
            self._take(row)

    def fill(self, snapshot: Snapshot, key: str | None = None) -> None:
        """Update the table `label` of a snapshot: all labels, or one key's."""
        with self._lock:
            rows = [row for row in self._rows.values() if key in (None, row["key"])]
        with snapshot.db.cursor() as db:
            db.execute("DELETE FROM label WHERE ? IS NULL OR key = ?", [key, key])
            if rows:
                db.executemany(
                    "INSERT INTO label VALUES (?, ?, ?)", [[r["key"], r["verdict"], r["reason"]] for r in rows]
                )

    def last(self) -> str | None:
        """The last labelled key."""
        with self._lock:
            return next(reversed(self._rows), None)

    def _take(self, row: Mapping[str, object]) -> None:
        self._rows.pop(str(row["key"]), None)
        if row["verdict"] in VERDICTS:
            self._rows[str(row["key"])] = dict(row)


@dataclass(frozen=True)
class Against:
    """The filters' verdicts compared with a person's."""

    labelled: int
    unsure: int
    agreement: Agreement
    """Agreement on whether a pair is kept."""
    wrongly_rejected: list[tuple[str, int]]
    """Reasons of rejected pairs that a person calls good, most frequent first."""


def against(snapshot: Snapshot) -> Against:
    """The agreement of a run's verdicts with the labels, without undecided pairs (errors, not reached)."""
    rows = snapshot.sql("SELECT l.verdict, p.outcome, p.reason FROM label l JOIN pair p USING (key)")
    sure = [row for row in rows if row["verdict"] != UNSURE and row["outcome"] in (KEPT, REJECTED)]
    person, filters = [row["verdict"] == GOOD for row in sure], [row["outcome"] == KEPT for row in sure]
    rejected = Counter(
        row["reason"] or "?" for row, good, kept in zip(sure, person, filters, strict=True) if good and not kept
    )
    unsure = sum(row["verdict"] == UNSURE for row in rows)
    return Against(len(rows), unsure, Agreement.of(person, filters), rejected.most_common())


FALSE_REJECTS = 0.1
"""The share of pairs labelled good that learned bounds may reject."""


def learned_bounds(snapshot: Snapshot) -> list[MovedBound]:
    """The bounds learned from the labels and stored scores, where they differ from the run's: loosened for pairs
    labelled good, and tightened against pairs labelled bad."""
    rows = snapshot.sql(
        f"SELECT p.*, l.verdict = '{GOOD}' AS good, p.key AS \"group\" FROM pair p JOIN label l USING (key) "
        f"WHERE l.verdict <> '{UNSURE}' AND p.category IS NOT NULL ORDER BY p.key"
    )
    rows = [row for row in rows if row["category"] in snapshot.categories]
    learned = labelled.fragment(rows, labelled.learn(rows, snapshot.cascade, FALSE_REJECTS), snapshot.cascade)
    return [
        MovedBound(score, category, None if regime == labelled.UNKNOWN else regime, Bound(**sides))
        for regime, categories in learned.items()
        for category, bounds in categories.items()
        for score, sides in bounds.items()
    ]


ORDERS = {
    "informative": "most informative first",
    "random": "at random",
    "rejected": "rejected only, at random",
    "kept": "kept only, at random",
}


def queue(snapshot: Snapshot, sort: str, wanted: PairsAddress, count: int = 4) -> list[Row]:
    """The next pairs to label. Most informative are those of which a judge is unsure, then those nearest to a bound."""
    unsure = 'coalesce(p."judge.unsure", 0) > 0 DESC, ' if "judge.unsure" in snapshot.scores else ""
    by = f"{unsure}abs(p.margin) NULLS LAST, p.key" if sort == "informative" else "hash(p.key)"
    only = f" AND p.outcome = '{sort}'" if sort in (KEPT, REJECTED) else ""
    condition, values = where(snapshot, wanted)
    return snapshot.sql(
        f"""SELECT p.* FROM pair p WHERE {condition}{only} AND p.edited IS DISTINCT FROM NULL
            AND p.key NOT IN (SELECT key FROM label) ORDER BY {by} LIMIT {count}""",
        values,
    )

"""A run's summary for the browser and the report: the funnel, rejections by filter, errors by kind, and editors."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from crispedit.bounds import Bound
from crispedit.cascade import REGIME, Cascade
from crispedit.outcome import ERROR, KEPT, NOT_REACHED, REJECTED, TRANSIENT
from crispedit.pipelines.progress import StageTotal, stage_totals
from crispedit.pipelines.tables import Failures, grouped
from crispedit.pipelines.viewing.queries import Row, at_rows
from crispedit.pipelines.viewing.snapshot import Snapshot

DRIFT = ("alignment.displacement_px", "alignment.scale_error", "exposure.drift", "exposure.cast", "sharpness.outside")
"""Scores of what editors change in parts that they should leave alone: position, tone, sharpness."""
STEPS = {"curate": "photograph", "annotate": "job", "edit": "pair"}
"""Steps with their own errors, and the snapshot's table that has them."""
AFTER = {
    "not_best": "another candidate of the job scores higher",
    "not_chosen": "the judge preferred another candidate of the job",
    "duplicate": "nearly repeats another pair",
    "near_duplicate": "nearly repeats another photograph",
    "quota": "the category was full",
    "source": "its photograph was rejected",
    "no_job": "its job is not in the tables",
    "category": "the recipe does not ask for its category",
}
"""Explanations of reasons that are not scores."""


COUNTS = f"count(*) AS n, count(*) FILTER (outcome = '{KEPT}') AS kept"


def funnel(snapshot: Snapshot) -> list[tuple[str, int | float | None, str, str]]:
    """(name, count, note, link) of each step, from photographs to packed pairs; an unknown count is None."""
    photographs, pairs = (snapshot.sql(f"SELECT {COUNTS} FROM {table}")[0] for table in ("photograph", "pair"))
    jobs = snapshot.one("SELECT count(*) FROM job WHERE job_key IS NOT NULL AND error IS NULL")
    asked = snapshot.one("SELECT count(*) FROM job")
    edited = snapshot.one("SELECT count(*) FROM pair WHERE edited IS NOT NULL")
    rate = f"{pairs['kept'] / pairs['n']:.1%} of candidates" if pairs["n"] else "none yet"
    hours = round(sum(stage.gpu_s for stage in progress(snapshot)) / 3600, 2)
    return [
        ("photographs", photographs["n"], f"{photographs['kept']:,} kept", "/photographs"),
        ("jobs", jobs, f"{asked:,} asked for", "/jobs"),
        ("candidates", pairs["n"], f"{edited:,} edited", "/pairs"),
        ("kept", pairs["kept"], rate, "/pairs?outcome=kept"),
        ("packed", packed(snapshot), "in shards", "/pairs?outcome=kept"),
        *([("GPU-hours", hours, "held by the builds", "/")] if hours else []),
    ]


def packed(snapshot: Snapshot) -> int | None:
    """Pairs in the shards, of whichever selection; None before anything is packed."""
    if snapshot.run is None:
        return int(snapshot.one("SELECT count(*) FROM pair"))
    manifest = snapshot.run.folder("shards") / "manifest.json"
    return sum(json.loads(manifest.read_text())["categories"].values()) if manifest.exists() else None


def by_category(snapshot: Snapshot) -> list[Row]:
    """Candidates of each category by outcome, the largest category first."""
    return snapshot.sql(f"""
        SELECT coalesce(category, '(none)') AS category, {COUNTS}, count(*) FILTER (outcome = '{REJECTED}') AS rejected,
            count(*) FILTER (outcome IN ('{ERROR}', '{TRANSIENT}')) AS error,
            count(*) FILTER (outcome = '{NOT_REACHED}') AS not_reached
        FROM pair GROUP BY ALL ORDER BY n DESC, category
    """)


@dataclass(frozen=True)
class Matrix:
    """Rejected candidates by reason and category."""

    categories: list[str]
    rows: list[tuple[str, dict[str, int], int]]
    """(reason, counts by category, total), most frequent first."""
    candidates: dict[str, int]

    @property
    def most(self) -> float:
        """The largest share of a category with one reason."""
        shares = [n / self.candidates[c] for _, counts, _ in self.rows for c, n in counts.items()]
        return max(shares, default=0.0) or 1.0


def matrix(snapshot: Snapshot) -> Matrix:
    """The rejections by reason and category."""
    rows = snapshot.sql(f"""
        SELECT reason, map_from_entries(list((category, n))) AS counts, sum(n)::BIGINT AS total
        FROM (
            SELECT coalesce(reason, '?') AS reason, coalesce(category, '(none)') AS category, count(*) AS n FROM pair
            WHERE outcome = '{REJECTED}' GROUP BY ALL
        ) GROUP BY reason ORDER BY total DESC, reason
    """)
    sizes = {row["category"]: row["n"] for row in by_category(snapshot)}
    return Matrix(sorted(sizes), [(row["reason"], row["counts"], row["total"]) for row in rows], sizes)


def in_words(cascade: Cascade, reason: str | None, row: Mapping[str, Any]) -> str:
    """The explanation of a reason given by this cascade: "leakage above 0.05"."""
    if reason is None:
        return ""
    score, colon, side = reason.rpartition(":")
    if not colon:
        return AFTER.get(reason, reason.replace("_", " "))
    bound = cascade.bounds_of(row["category"], row.get(REGIME)).get(score, Bound())
    value = bound.min if side == "low" else bound.max
    word = {"low": "below", "high": "above"}.get(side, side)
    return f"{score} {word} {value:g}" if value is not None else f"{score} too {side}"


def _examples(
    snapshot: Snapshot, column: str, condition: str, values: Sequence[str], count: int
) -> dict[str, list[Row]]:
    """This many pairs with images for each value of a column, from as many categories as possible: the categories in
    turn, each by key."""
    if not values or not count:
        return {}
    places = snapshot.sql(
        f"""
        SELECT {column} AS value, category, min_by(rowid, key, {count}) AS rows FROM pair
        WHERE {condition} AND {column} IN ({", ".join("?" * len(values))}) AND edited IS NOT NULL AND source IS NOT NULL
        GROUP BY ALL ORDER BY category
        """,
        list(values),
    )
    chosen: dict[str, list[int]] = {value: [] for value in values}
    for turn in range(count):
        for place in places:
            if turn < len(place["rows"]) and len(chosen[place["value"]]) < count:
                chosen[place["value"]].append(place["rows"][turn])
    cards = {row["row"]: row for row in at_rows(snapshot, [row for rows in chosen.values() for row in rows])}
    return {value: [cards[row] for row in rows] for value, rows in chosen.items()}


def errors(snapshot: Snapshot) -> list[Failures]:
    """The errors of failed rows, grouped by step and kind, the most frequent first."""
    failed = f"outcome IN ('{ERROR}', '{TRANSIENT}')"
    places = [(step, "error", table) for step, table in STEPS.items()]
    places += [(f"score: {name}", f'"{name}.error"', "pair") for name in snapshot.cascade.filters]
    parts = [f"SELECT '{s}' AS step, {column} AS error, outcome FROM {t} WHERE {failed}" for s, column, t in places]
    rows = snapshot.sql(f"""
        SELECT step, error, outcome, count(*) AS n FROM ({" UNION ALL ".join(parts)})
        WHERE error IS NOT NULL GROUP BY ALL ORDER BY ALL
    """)
    return grouped((row["step"], row["error"], row["outcome"] == TRANSIENT, row["n"], ()) for row in rows)


def by_editor(snapshot: Snapshot) -> tuple[Sequence[str], list[Row]]:
    """(scores, rows) by editor: share kept, and the median and 95th percentile of changes to what it should leave
    alone."""
    scores = [score for score in DRIFT if score in snapshot.scores]
    tails = {score: 0.05 if score.startswith("sharpness") else 0.95 for score in scores}
    parts = "".join(
        f', approx_quantile("{score}", 0.5) AS "{score}.median", approx_quantile("{score}", {tail}) AS "{score}.tail"'
        for score, tail in tails.items()
    )
    rows = snapshot.sql(f"""
        SELECT coalesce(editor, '(none)') AS editor, {COUNTS}{parts}
        FROM pair GROUP BY 1 ORDER BY n DESC, editor
    """)
    return scores, rows


def by_dataset(snapshot: Snapshot) -> list[Row]:
    """Candidates and kept pairs by dataset, and of each category (kept, n); empty for a single dataset."""
    rows = snapshot.sql(f"""
        SELECT dataset, sum(n)::BIGINT AS n, sum(kept)::BIGINT AS kept,
            map_from_entries(list((category, [kept, n]))) AS categories
        FROM (
            SELECT coalesce(dataset, '(none)') AS dataset, coalesce(category, '') AS category, {COUNTS}
            FROM pair GROUP BY 1, 2
        ) GROUP BY dataset ORDER BY n DESC, dataset LIMIT 50
    """)
    return rows if len(rows) > 1 else []


def progress(snapshot: Snapshot) -> list[StageTotal]:
    """Totals of each stage of the run's builds."""
    return [] if snapshot.run is None else stage_totals(snapshot.run.root)


def summary(snapshot: Snapshot, reasons: int | None = 8, kept: int = 8) -> dict[str, Any]:
    """The variables of the templates of the first page and of the report, with examples of the most frequent reasons
    (None: of all) and of kept pairs."""
    grid = matrix(snapshot)
    rows = grid.rows[:reasons]
    rejected = f"outcome = '{REJECTED}'"
    shown = _examples(snapshot, "reason", rejected, [reason for reason, _, _ in rows], 6)
    return {
        "funnel": funnel(snapshot),
        "categories": by_category(snapshot),
        "matrix": grid,
        "reasons": [(row, shown.get(row[0], [])) for row in rows],
        "kept": _examples(snapshot, "outcome", "true", [KEPT], kept).get(KEPT, []),
        "errors": errors(snapshot),
        "editors": by_editor(snapshot),
    }

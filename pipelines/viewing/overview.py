"""A run's summary for the browser and the report: the funnel, rejections by filter, errors by kind, and editors."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from crispedit.bounds import Bound
from crispedit.cascade import REGIME, Cascade
from crispedit.outcome import ERROR, KEPT, NOT_REACHED, REJECTED, TRANSIENT, kind
from crispedit.pipelines.progress import StageTotal, stage_totals
from crispedit.pipelines.viewing.queries import Row
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


@dataclass(frozen=True)
class FunnelStep:
    """A step of the funnel."""

    name: str
    count: int | float | None
    """None if unknown (yet)."""
    note: str
    link: str


def funnel(snapshot: Snapshot) -> list[FunnelStep]:
    """From photographs to packed pairs."""
    photos, photos_kept = _counted(snapshot, "photograph")
    jobs = snapshot.one("SELECT count(*) FROM job WHERE job_key IS NOT NULL AND error IS NULL")
    asked = snapshot.one("SELECT count(*) FROM job")
    pairs, kept = _counted(snapshot, "pair")
    edited = snapshot.one("SELECT count(*) FROM pair WHERE edited IS NOT NULL")
    return [
        FunnelStep("photographs", photos, f"{photos_kept:,} kept", "/photographs"),
        FunnelStep("jobs", jobs, f"{asked:,} asked for", "/jobs"),
        FunnelStep("candidates", pairs, f"{edited:,} edited", "/pairs"),
        FunnelStep("kept", kept, f"{kept / pairs:.1%} of candidates" if pairs else "none yet", "/pairs?outcome=kept"),
        FunnelStep("packed", packed(snapshot), "in shards", "/pairs?outcome=kept"),
        *_gpu_hours(snapshot),
    ]


def _gpu_hours(snapshot: Snapshot) -> list[FunnelStep]:
    hours = round(sum(stage.gpu_s for stage in progress(snapshot)) / 3600, 2)
    return [FunnelStep("GPU-hours", hours, "held by the builds", "/")] if hours else []


def _counted(snapshot: Snapshot, table: str) -> tuple[int, int]:
    row = snapshot.sql(f"SELECT count(*) AS n, count(*) FILTER (outcome = '{KEPT}') AS kept FROM {table}")[0]
    return row["n"], row["kept"]


def packed(snapshot: Snapshot) -> int | None:
    """Pairs in the shards, of whichever selection; None before anything is packed."""
    if snapshot.run is None:
        return int(snapshot.one("SELECT count(*) FROM pair"))
    manifest = snapshot.run.folder("shards") / "manifest.json"
    return sum(json.loads(manifest.read_text())["categories"].values()) if manifest.exists() else None


def by_category(snapshot: Snapshot) -> list[Row]:
    """Candidates of each category by outcome, the largest category first."""
    return snapshot.sql(f"""
        SELECT coalesce(category, '(none)') AS category, count(*) AS n,
            count(*) FILTER (outcome = '{KEPT}') AS kept, count(*) FILTER (outcome = '{REJECTED}') AS rejected,
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
    cells = snapshot.sql(f"""
        SELECT coalesce(reason, '?') AS reason, coalesce(category, '(none)') AS category, count(*) AS n FROM pair
        WHERE outcome = '{REJECTED}' GROUP BY ALL
    """)
    counts: dict[str, dict[str, int]] = {}
    for row in cells:
        counts.setdefault(row["reason"], {})[row["category"]] = row["n"]
    rows = [(reason, of, sum(of.values())) for reason, of in counts.items()]
    sizes = {row["category"]: row["n"] for row in by_category(snapshot)}
    return Matrix(sorted(sizes), sorted(rows, key=lambda row: (-row[2], row[0])), sizes)


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


def examples(snapshot: Snapshot, reasons: Sequence[str], count: int = 6) -> dict[str, list[Row]]:
    """A fixed sample of rejected pairs with images for each reason, from as many categories as possible."""
    return _spread(snapshot, "reason", f"outcome = '{REJECTED}'", reasons, count)


def kept_examples(snapshot: Snapshot, count: int) -> list[Row]:
    """Kept pairs from as many categories as possible."""
    return _spread(snapshot, "outcome", "true", [KEPT], count).get(KEPT, [])


def _spread(snapshot: Snapshot, column: str, condition: str, values: Sequence[str], count: int) -> dict[str, list[Row]]:
    """This many pairs with images for each value of a column, taking categories in turn and the first by key."""
    if not values:
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
    wanted = [row for rows in chosen.values() for row in rows]
    if not wanted:
        return {}
    listed = ", ".join(map(str, wanted))
    cards = {
        row["row"]: row
        for row in snapshot.sql(f"SELECT {snapshot.card()}, p.rowid AS row FROM pair p WHERE p.rowid IN ({listed})")
    }
    return {value: [cards[row] for row in rows] for value, rows in chosen.items()}


def errors(snapshot: Snapshot) -> list[Row]:
    """(step, kind, rows, transient, example) of failed rows, grouped by kind, most frequent first."""
    failed = f"outcome IN ('{ERROR}', '{TRANSIENT}')"
    parts = [
        *(f"SELECT '{step}' AS step, error, outcome FROM {table} WHERE {failed}" for step, table in STEPS.items()),
        *(
            f"SELECT 'score: {name}', \"{name}.error\", outcome FROM pair WHERE {failed}"
            for name in snapshot.cascade.filters
        ),
    ]
    rows = snapshot.sql(f"""
        SELECT step, error, outcome, count(*) AS n FROM ({" UNION ALL ".join(parts)})
        WHERE error IS NOT NULL GROUP BY ALL ORDER BY ALL
    """)
    groups: dict[tuple[str, str, bool], Row] = {}
    for row in rows:
        key = row["step"], kind(row["error"]), row["outcome"] == TRANSIENT
        names = dict(zip(("step", "kind", "transient"), key, strict=True))
        groups.setdefault(key, {**names, "rows": 0, "example": row["error"]})["rows"] += row["n"]
    return sorted(groups.values(), key=lambda group: (-group["rows"], group["step"], group["kind"]))


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
        SELECT coalesce(editor, '(none)') AS editor, count(*) AS n, count(*) FILTER (outcome = '{KEPT}') AS kept{parts}
        FROM pair GROUP BY 1 ORDER BY n DESC, editor
    """)
    return scores, rows


def by_dataset(snapshot: Snapshot) -> list[Row]:
    """Candidates and kept pairs by dataset and category; empty for a single dataset."""
    rows = snapshot.sql(f"""
        SELECT coalesce(dataset, '(none)') AS dataset, count(*) AS n, count(*) FILTER (outcome = '{KEPT}') AS kept
        FROM pair GROUP BY 1 ORDER BY n DESC, dataset LIMIT 50
    """)
    if len(rows) < 2:
        return []
    cells = snapshot.sql(f"""
        SELECT coalesce(dataset, '(none)') AS dataset, category, count(*) AS n,
            count(*) FILTER (outcome = '{KEPT}') AS kept
        FROM pair GROUP BY ALL
    """)
    for row in rows:
        row["categories"] = {
            cell["category"]: (cell["kept"], cell["n"]) for cell in cells if cell["dataset"] == row["dataset"]
        }
    return rows


def progress(snapshot: Snapshot) -> list[StageTotal]:
    """Totals of each stage of the run's builds."""
    return [] if snapshot.run is None else stage_totals(snapshot.run.root)


def summary(snapshot: Snapshot) -> dict[str, Any]:
    """The variables of the first page's template."""
    grid = matrix(snapshot)
    shown = examples(snapshot, [row[0] for row in grid.rows[:8]])
    return {
        "funnel": funnel(snapshot),
        "categories": by_category(snapshot),
        "matrix": grid,
        "reasons": [(row, shown.get(row[0], [])) for row in grid.rows[:8]],
        "kept": kept_examples(snapshot, 8),
        "errors": errors(snapshot),
        "editors": by_editor(snapshot),
    }

"""Comparisons of a run's verdicts: with moved bounds over the same measurements, or with another run."""

from collections.abc import Sequence
from dataclasses import dataclass

from crispedit.cascade import Cascade
from crispedit.outcome import KEPT
from crispedit.pipelines import recipe
from crispedit.pipelines.run import Run
from crispedit.pipelines.steps.select import pair_verdicts, source_verdicts
from crispedit.pipelines.viewing.queries import PAGE, Page, PairsAddress, Row, order, where
from crispedit.pipelines.viewing.snapshot import Snapshot

ABSENT = "absent"
FLIPS = {
    "gained": f"p.outcome <> '{KEPT}' AND t.outcome = '{KEPT}'",
    "lost": f"p.outcome = '{KEPT}' AND t.outcome IS DISTINCT FROM '{KEPT}'",
    "reason": f"p.outcome <> '{KEPT}' AND t.outcome <> '{KEPT}' "
    "AND (p.outcome, coalesce(p.reason, '')) <> (t.outcome, coalesce(t.reason, ''))",
}


@dataclass(frozen=True)
class OtherVerdicts:
    """Other verdicts on a snapshot's pairs: the table `table` (key, other_key, outcome, reason) of the snapshot."""

    title: str
    table: str
    cascade: Cascade
    """Their bounds."""
    other: Snapshot | None = None
    """The other run; None for moved bounds."""
    only_there: int = 0
    """Pairs of the other run that this one lacks."""


def against_bounds(snapshot: Snapshot, overrides: Sequence[str], title: str, table: str) -> OtherVerdicts:
    """The comparison with other bounds or quotas over the same run: what `select` with these overrides would decide,
    including choices among candidates and quotas."""
    assert snapshot.run is not None
    root = snapshot.run.root
    run = Run(recipe.load(str(root), [*overrides, f"run={root}"]))
    verdicts = pair_verdicts(run, source_verdicts(run, store=False))
    with snapshot.db.cursor() as db:
        db.register("verdicts", verdicts)
        db.execute(f"CREATE OR REPLACE TABLE {table} AS SELECT key, key AS other_key, outcome, reason FROM verdicts")
    return OtherVerdicts(title, table, run.recipe.pair_cascade)


def against_run(snapshot: Snapshot, other: Snapshot) -> OtherVerdicts:
    """The comparison with another run or shard set: by candidate if both have the same ones, else by job, with the kept
    or best candidate of each."""
    with other.db.cursor() as db:
        theirs = db.sql("SELECT key, job_key, outcome, reason, margin FROM pair").to_arrow_table()
    with snapshot.db.cursor() as db:
        db.register("theirs", theirs)
        shared = db.execute("SELECT count(*) FROM pair JOIN theirs USING (key)").fetchone()
        by = "key" if shared and shared[0] else "job_key"
        db.execute(f"""
            CREATE OR REPLACE TABLE other AS
            SELECT p.key, t.key AS other_key, coalesce(t.outcome, '{ABSENT}') AS outcome, t.reason
            FROM pair p LEFT JOIN (
                SELECT * FROM theirs
                QUALIFY row_number() OVER (PARTITION BY {by} ORDER BY outcome <> '{KEPT}', margin DESC, key) = 1
            ) t ON p.{by} = t.{by}
        """)
        only = db.execute(f"SELECT count(*) FROM theirs WHERE {by} NOT IN (SELECT {by} FROM pair)").fetchone()
    return OtherVerdicts(other.name, "other", other.cascade, other, only[0] if only else 0)


@dataclass(frozen=True)
class Moves:
    """Counts for a category or all (""): pairs kept on both sides, on one, or on neither."""

    category: str
    both: int
    gained: int
    lost: int
    neither: int


def moves(snapshot: Snapshot, comparison: OtherVerdicts) -> list[Moves]:
    """By category, the total last."""
    rows = snapshot.sql(f"""
        SELECT if(grouping(category) = 1, '', category) AS category, count(*) FILTER (here AND there) AS "both",
            count(*) FILTER (there AND NOT here) AS gained, count(*) FILTER (here AND NOT there) AS lost,
            count(*) FILTER (NOT here AND NOT there) AS neither
        FROM (
            SELECT coalesce(p.category, '') AS category, p.outcome = '{KEPT}' AS here,
                coalesce(t.outcome = '{KEPT}', false) AS there
            FROM pair p LEFT JOIN {comparison.table} t USING (key)
        ) GROUP BY ROLLUP (category) ORDER BY grouping(category), 1
    """)
    return [Moves(**row) for row in rows]


def verdict(snapshot: Snapshot, comparison: OtherVerdicts, key: str) -> Row | None:
    """The other verdict on a pair."""
    return next(iter(snapshot.sql(f"SELECT * FROM {comparison.table} WHERE key = ?", [key])), None)


def transitions(snapshot: Snapshot, comparison: OtherVerdicts) -> list[Row]:
    """(before, after, n) of the verdicts that differ, most first."""
    return snapshot.sql(f"""
        SELECT coalesce(p.reason, p.outcome) AS before, coalesce(t.reason, t.outcome, '{ABSENT}') AS after,
            count(*) AS n
        FROM pair p LEFT JOIN {comparison.table} t USING (key)
        GROUP BY ALL HAVING before <> after ORDER BY n DESC, before, after LIMIT 40
    """)


def flipped(snapshot: Snapshot, comparison: OtherVerdicts, wanted: PairsAddress, size: int = PAGE) -> Page:
    """Pairs whose verdict differs, by the requested kind of change; each with `then_outcome` and `then_reason`."""
    condition, values = where(snapshot, wanted)
    flip = FLIPS.get(wanted.flip) or f"({FLIPS['gained']}) OR ({FLIPS['lost']})"
    joined = f"FROM pair p LEFT JOIN {comparison.table} t ON t.key = p.key LEFT JOIN label l ON l.key = p.key"
    total = snapshot.one(f"SELECT count(*) {joined} WHERE {condition} AND ({flip})", values)
    page = Page(total, wanted.page, size)
    page.rows = snapshot.sql(
        f"""SELECT {snapshot.card()}, t.outcome AS then_outcome, t.reason AS then_reason, t.other_key,
            l.verdict AS label
        {joined} WHERE {condition} AND ({flip}) ORDER BY {order(snapshot, wanted.sort)} {page.limit}""",
        values,
    )
    return page

"""A snapshot: the committed content of a run, or a shard set, at one moment, as three tables of a DuckDB file.

Every page is a query over `photograph`, `job` and `pair` (one row per candidate: its texts, verdict, scores, and its
images' locations). A snapshot does not change while a build runs; a new one replaces it. Only this module reads a
run's tables, through `crispedit.pipelines.tables` and the verdict functions of `select`.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from crispedit.bounds import Bound
from crispedit.cascade import REGIME, Cascade
from crispedit.change import Regime
from crispedit.outcome import ERROR, KEPT, NOT_REACHED, REJECTED, TRANSIENT
from crispedit.pipelines import recipe, tables
from crispedit.pipelines.run import Run
from crispedit.pipelines.steps.select import SELECTION, first_pass, pair_verdicts, source_verdicts
from crispedit.shards import journal
from crispedit.shards.journal import quoted
from crispedit.shards.read import ShardReader

MEMORY = "900MB"
"""Memory for DuckDB's buffers; a larger run's data stays in the snapshot's file."""
KEY_SLICES = ("4", "8", "c")
"""Where the keys of pairs are cut into slices, which are joined one at a time."""
FILE = "snapshot.duckdb"
CARD = (
    *("key", "job_key", "source_key", "id", "category", "editor", "outcome", "reason", "error", "instruction"),
    *("width", "height", "composed", "source", "edited", "mask"),
)
"""The columns of `pair` that a grid of pairs needs: reading all columns costs three times as much."""
PICTURED = ("key", "source_key", "composed", "source", "edited", "mask")
"""The columns of `pair` that its pictures need."""
TEXTS = (
    *("job_key", "source_key", "editor", "dataset", "licence", "transform"),
    *("instruction", "source_caption", "target_caption"),
)
"""The texts of a packed pair."""
PACKED = (
    *journal.columns(pa.string(), "key", "category", "options", "id", *TEXTS),
    *journal.columns(pa.int64(), "seed", "width", "height"),
    *journal.columns(pa.bool_(), "composed", "masked"),
)
"""The columns of a packed pair, without its scores."""
REMEMBERED = 10_000
"""Pairs whose picture locations are cached."""


@dataclass
class Snapshot:
    """One moment of a run or a shard set."""

    name: str
    root: Path
    db: duckdb.DuckDBPyConnection
    cascade: Cascade
    categories: list[str]
    scores: list[str]
    """Every "filter.score" that is a quantity (hashes are not), in the order of the cascade."""
    run: Run | None = None
    """None for a shard set."""
    reader: ShardReader | None = None
    """None for a run."""
    folder: tempfile.TemporaryDirectory[str] | None = None
    summary: dict[str, Any] = field(default_factory=dict)
    """The first page's content, computed at once, because a snapshot does not change."""
    stamp: object = None
    """Identifies what was committed at that moment; a changed stamp means a new snapshot."""
    cascades: dict[tuple[str, ...], Cascade] = field(default_factory=dict)
    """With moved bounds, by the overrides that move them."""
    _pictured: dict[str, dict[str, Any]] = field(default_factory=dict)
    taken: float = field(default_factory=time.time)
    seconds: float = 0.0

    def __enter__(self) -> Snapshot:
        return self

    def __exit__(self, *_: object) -> None:
        self.db.close()
        if self.folder is not None:
            self.folder.cleanup()

    def sql(self, query: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> list[dict[str, Any]]:
        """The rows of a query; pages may query concurrently."""
        rows = tables.rows(self.db, query, values)
        if rows and next(iter(rows[0])) == "key" and rows[0].keys() >= set(PICTURED):
            # The page will request these pairs' pictures one by one.
            if len(self._pictured) > REMEMBERED:
                self._pictured = {}
            self._pictured |= {row["key"]: {name: row[name] for name in PICTURED} for row in rows}
        return rows

    def pictured(self, key: str) -> dict[str, Any]:
        """The columns for a pair's pictures (`PICTURED`). KeyError for an unknown key."""
        if (row := self._pictured.get(key)) is not None:
            return row
        return self.of_key(f"SELECT {', '.join(PICTURED)} FROM pair WHERE key = ?", key)

    def of_key(self, query: str, key: str) -> dict[str, Any]:
        """The first row of a query about a key. KeyError if there is none."""
        for row in self.sql(query, [key]):
            return row
        raise KeyError(key)

    def one(self, query: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> Any:
        """The first value of the first row."""
        with self.db.cursor() as cursor:
            row = cursor.execute(query, values).fetchone()
            return None if row is None else row[0]

    def bound(self, score: str, category: str | None, regime: str | None = None) -> Bound:
        """The bound of a score in a category, or its pairs of a regime; without a category, the bound of categories
        that have none of their own."""
        return self.cascade.bounds_of(category, regime).get(score, Bound())

    @cached_property
    def columns(self) -> frozenset[str]:
        """The columns of `pair`."""
        return frozenset(row["column_name"] for row in self.sql("DESCRIBE pair"))

    def card(self, *more: str) -> str:
        """The columns of a card, and these, as SQL over `pair p`."""
        names = dict.fromkeys([*CARD, *([REGIME] if REGIME in self.columns else []), *more])
        return ", ".join(f'p."{name}"' for name in names)

    @cached_property
    def cells(self) -> list[tuple[str, str]]:
        """(category, regime) of all bounds: each category, and its regimes with their own bounds."""
        return [(c, r) for c in self.categories for r in ("", *self.regimes) if not r or (r, c) in self.cascade.regimes]

    @cached_property
    def regimes(self) -> list[str]:
        """The regimes that may have their own bounds, if the run measures regimes."""
        return list(get_args(Regime)) if self.run is not None and REGIME in self.columns else []

    @cached_property
    def bounded(self) -> list[str]:
        """The scores with a bound in any category."""
        cells = [(None, None), *self.cells]
        return [score for score in self.scores if any(self.bound(score, *cell) != Bound() for cell in cells)]


def committed(run: Run) -> object:
    """A stamp of a run's state: its parts, and the time and recipe of its last selection."""
    steps = ("curate", "annotate", "edit", "score", "compare")
    files = [run.root / "recipe.yaml", run.folder("select") / SELECTION, run.folder("shards") / "manifest.json"]
    times = [file.stat().st_mtime_ns if file.exists() else 0 for file in files]
    return tuple(tuple(journal.parts(run.folder(step))) for step in steps), tuple(times)


def of_run(root: Path) -> Snapshot:
    """A snapshot of what the run has committed."""
    start = time.perf_counter()
    run = Run(recipe.load(str(root), [f"run={root}"]))
    stamp = committed(run)
    db = tables.connect(run)
    folder = _into_file(db)
    sources = source_verdicts(run, store=False)
    first_pass(run, db, sources)
    cascade = run.recipe.pair_cascade
    db.register("final", final_verdicts(run, sources))
    db.execute("""
        CREATE TABLE snapshot.photograph AS
        SELECT c.*, v.outcome, v.reason FROM curate c JOIN sources v USING (uri)
    """)
    _pairs(db, cascade)
    _jobs(db)
    db.close()
    return Snapshot(
        name=run.root.name,
        root=run.root,
        db=_opened(folder),
        cascade=cascade,
        categories=list(run.recipe.categories),
        scores=quantities(cascade),
        run=run,
        folder=folder,
        stamp=stamp,
        seconds=time.perf_counter() - start,
    )


def quantities(cascade: Cascade) -> list[str]:
    """The cascade's scores that are quantities, without hashes."""
    return [
        f"{name}.{score}"
        for name, filter_ in cascade.filters.items()
        if name != "duplicate"
        for score in filter_.scores
    ]


def final_verdicts(run: Run, sources: pa.Table) -> pa.Table:
    """(key, category, outcome, reason) of every candidate: as selected, or as a selection now would decide."""
    selection = run.folder("select") / SELECTION
    if selection.exists():
        parts = [part for step in ("curate", "edit", "score", "compare") for part in journal.parts(run.folder(step))]
        newest = max((part.stat().st_mtime_ns for part in [*parts, run.root / "recipe.yaml"]), default=0)
        if selection.stat().st_mtime_ns >= newest:
            return pq.read_table(selection)
    return pair_verdicts(run, sources)


def _into_file(db: duckdb.DuckDBPyConnection) -> tempfile.TemporaryDirectory[str]:
    """Attach a new file in a temporary folder and make it the place of new tables."""
    folder = tempfile.TemporaryDirectory(prefix="crispedit-view-", ignore_cleanup_errors=True)
    _limit(db, folder.name)
    db.execute(f"ATTACH {quoted(folder.name + '/' + FILE)} AS snapshot")
    return folder


def _opened(folder: tempfile.TemporaryDirectory[str]) -> duckdb.DuckDBPyConnection:
    """A connection to the written file, with a table for labels."""
    db = duckdb.connect(f"{folder.name}/{FILE}")
    _limit(db, folder.name)
    db.execute("CREATE TABLE label (key VARCHAR, verdict VARCHAR, reason VARCHAR)")
    return db


def _limit(db: duckdb.DuckDBPyConnection, folder: str) -> None:
    """Limit the memory; the rest is spilled into this folder, because viewing a run does not write to it."""
    db.execute(f"SET memory_limit = '{MEMORY}'; SET enable_progress_bar = false; SET preserve_insertion_order = false")
    db.execute(f"SET temp_directory = {quoted(folder)}")


def _pairs(db: duckdb.DuckDBPyConnection, cascade: Cascade) -> None:
    """Create the table `pair`. `first` is the verdict before candidates are compared; `standing` is the same if no
    bound can change it (an editor's error, a rejected photograph), else null. `fails` has a bit for each filter, in the
    cascade's order, that does not keep the pair, and `waits` one for each that has not measured it. The lowest bit of
    `fails` decides.

    The keys are processed in slices, because several joins at once would exhaust memory.
    """
    notes = {f"{name}.{note}" for name, filter_ in cascade.filters.items() for note in filter_.notes}
    # Notes are long texts that are read for one pair at a time, except the regime, which bounds depend on.
    names = [f.name for f in cascade.columns if f.name not in notes or f.name == REGIME]
    scores = "".join(f', s."{name}"' for name in names)
    words = ", ".join(quoted(word) for word in cascade_words(cascade))
    margin = _margin(db, cascade)
    fails = _bits(f"{cascade.verdict_sql('s', 'c.category', [name])} <> '{KEPT}'" for name in cascade.filters)
    waits = _bits(f'(s."{name}.measured" IS NOT TRUE AND s."{name}.error" IS NULL)' for name in cascade.filters)
    db.execute(f"""
        CREATE TABLE snapshot.decided AS
        SELECT f.key, f.outcome, f.reason, v.verdict AS first,
            CASE WHEN v.verdict NOT IN ({words}) THEN v.verdict END AS standing
        FROM final f JOIN verdicts v USING (key);
        CREATE TABLE snapshot.wording AS
        SELECT job_key, instruction, lower(instruction) AS words, source_caption, target_caption FROM job;
        CREATE TABLE snapshot.photo AS
        SELECT key, any_value(uri) AS uri, any_value(image) AS image, any_value(dataset) AS dataset,
            any_value(licence) AS licence
        FROM curate WHERE image IS NOT NULL GROUP BY key;
    """)
    ends = ["0", *KEY_SLICES, "g"]  # keys are hexadecimal
    for number, (first, end) in enumerate(pairwise(ends)):
        here = f"key >= '{first}' AND key < '{end}'"
        statement = "INSERT INTO snapshot.pair" if number else "CREATE TABLE snapshot.pair AS"
        db.execute(f"""
            {statement}
            SELECT c.key, c.job_key, c.source_key, c.category, c.editor, c.seed, c.width, c.height, c.options,
                c.transform, c.error, p.dataset, p.licence, j.instruction, j.words, j.source_caption, j.target_caption,
                coalesce(json_extract_string(c.options, '$.id'), json_extract_string(c.options, '$.uri'), p.uri) AS id,
                c.source IS NOT NULL AS composed, coalesce(c.source, p.image) AS source, c.edited, c.mask,
                regexp_extract(coalesce(c.edited.tar, p.image.tar), 'wave-0*([0-9]+)', 1) AS wave,
                d.outcome, d.reason, d.first, d.standing, {fails} AS fails, {waits} AS waits{scores},
                {margin} AS margin
            FROM (SELECT * FROM edit WHERE {here}) c JOIN (SELECT * FROM snapshot.decided WHERE {here}) d USING (key)
                LEFT JOIN (SELECT * FROM score WHERE {here}) s USING (key)
                LEFT JOIN snapshot.wording j ON j.job_key = c.job_key LEFT JOIN snapshot.photo p ON p.key = c.source_key
        """)
    db.execute("DROP TABLE snapshot.decided; DROP TABLE snapshot.wording; DROP TABLE snapshot.photo")


def _bits(conditions: Iterable[str]) -> str:
    """SQL of a number with a bit for each true condition, the first one the lowest."""
    return " | ".join(f"(({one})::BIGINT << {bit})" for bit, one in enumerate(conditions)) or "0::BIGINT"


def cascade_words(cascade: Cascade) -> list[str]:
    """Every verdict that the cascade can give, as `Cascade.verdict_sql` writes it."""
    words = [KEPT]
    for name, filter_ in cascade.filters.items():
        words += [f"{outcome} {name}" for outcome in (ERROR, TRANSIENT, NOT_REACHED)]
        words += [f"{REJECTED} {name}.{score}:{side}" for score in filter_.scores for side in ("low", "high")]
    return words


def _jobs(db: duckdb.DuckDBPyConnection) -> None:
    db.execute(f"""
        CREATE TABLE snapshot.job AS
        SELECT a.key, a.job_key, a.source_key, a.category, a.instruction, a.source_caption, a.target_caption, a.error,
            CASE WHEN a.error IS NOT NULL THEN if(a.transient, '{TRANSIENT}', '{ERROR}')
                WHEN a.refusal IS NOT NULL THEN '{REJECTED}'
                WHEN c.kept > 0 THEN '{KEPT}' WHEN c.candidates IS NULL THEN '{NOT_REACHED}' ELSE '{REJECTED}' END
                AS outcome,
            CASE WHEN a.error IS NULL AND a.refusal IS NULL AND c.kept = 0 THEN 'no_candidate_kept'
                ELSE a.refusal END AS reason,
            coalesce(c.candidates, 0) AS candidates, coalesce(c.kept, 0) AS kept
        FROM annotate a LEFT JOIN (
            SELECT job_key, count(*) AS candidates, count(*) FILTER (outcome = '{KEPT}') AS kept
            FROM snapshot.pair GROUP BY job_key
        ) c USING (job_key)
    """)


def _margin(db: duckdb.DuckDBPyConnection, cascade: Cascade) -> str:
    """SQL of a pair's distance to its nearest bound, or (below 0) beyond its worst, in spreads of the score; null
    without known bounded scores. The aliases are c (its category) and s (its scores).

    The spread is the range of the middle half of a score's values, else their deviation, else 1.
    """
    bounds = {score: cascade.bounds_sql(score, "s", "c.category") for score in quantities(cascade)}
    scores = [score for score, of in bounds.items() if any(bound != Bound() for _, bound in of)]
    if not scores:
        return "NULL::DOUBLE"
    parts = ", ".join(f'approx_quantile("{s}", 0.75) - approx_quantile("{s}", 0.25), stddev_pop("{s}")' for s in scores)
    # For many pairs a fixed sample is enough.
    many = db.sql("SELECT count(*) > 500000 FROM edit").fetchall()[0][0]
    sample = "key < '1'" if many else "true"
    row = db.execute(f"SELECT {parts} FROM score WHERE {sample}").fetchone() or ()
    sides = []
    for score, middle, deviation in zip(scores, row[::2], row[1::2], strict=True):
        for side, difference in (("min", 's."{}" - {!r}'), ("max", '{1!r} - s."{0}"')):
            cases = [
                f"WHEN {where or 'true'} THEN {difference.format(score, value)}"
                for where, bound in bounds[score]
                if (value := getattr(bound, side)) is not None
            ]
            if cases:
                # A score exactly on its bound is perfect (no border, a judge's yes), so its distance is not counted.
                sides.append(f"nullif(CASE {' '.join(cases)} END, 0) / {float(middle or deviation or 1)!r}")
    return f"least({', '.join(sides)})"


def of_shards(path: str) -> Snapshot:
    """A snapshot of a shard set: all pairs are kept and have their packed scores."""
    start = time.perf_counter()
    reader = ShardReader(path, decode=False)
    rows = [row_of_meta(pair.key, pair.category, pair.meta, pair.mask_png is not None) for pair in reader]
    scores = list(dict.fromkeys(name for row in rows for name in row["scores"]))
    scores = [name for name in scores if not name.startswith("duplicate.")]
    schema = pa.schema(dict(PACKED) | dict.fromkeys(scores, pa.float64()))
    db = duckdb.connect()
    folder = _into_file(db)
    db.register("packed", pa.Table.from_pylist([row | row["scores"] for row in rows], schema))
    db.execute(f"""
        CREATE TABLE snapshot.pair AS SELECT *, lower(instruction) AS words, '{KEPT}' AS outcome,
            NULL::VARCHAR AS reason, NULL::VARCHAR AS standing, '{KEPT}' AS first, 0::BIGINT AS fails,
            0::BIGINT AS waits, NULL::VARCHAR AS error, 'source' AS source, 'edited' AS edited,
            if(masked, 'mask', NULL) AS mask, NULL::DOUBLE AS margin
        FROM packed;
        CREATE TABLE snapshot.photograph AS SELECT DISTINCT source_key AS key, id AS uri, dataset, licence,
            NULL::INTEGER AS width, NULL::INTEGER AS height, NULL::VARCHAR AS refusal, NULL::VARCHAR AS error,
            NULL::VARCHAR AS image, '{KEPT}' AS outcome, NULL::VARCHAR AS reason
        FROM packed WHERE NOT composed;
        CREATE TABLE snapshot.job AS SELECT key, job_key, source_key, category, instruction, source_caption,
            target_caption, NULL::VARCHAR AS error, '{KEPT}' AS outcome, NULL::VARCHAR AS reason,
            count(*) OVER (PARTITION BY job_key) AS candidates, candidates AS kept
        FROM packed QUALIFY row_number() OVER (PARTITION BY job_key) = 1;
    """)
    db.close()
    return Snapshot(
        name=Path(path.rstrip("/")).name or path,
        root=Path(path),
        db=_opened(folder),
        cascade=Cascade({}, {}, {}),
        categories=sorted({row["category"] for row in rows}),
        scores=scores,
        reader=ShardReader(path, decode=False),
        folder=folder,
        seconds=time.perf_counter() - start,
    )


def row_of_meta(key: str, category: str, meta: Mapping[str, Any], masked: bool) -> dict[str, Any]:
    """A pair's columns from its JSON member; missing ones (in other tools' shards) are null."""
    texts = {name: meta.get(name) for name in TEXTS} | {"options": meta.get("editor_options")}
    row: dict[str, Any] = {
        name: value if isinstance(value, str) else json.dumps(value) if value else None for name, value in texts.items()
    }
    row |= {name: row[name] or None for name in ("dataset", "licence")}
    row |= {name: n if isinstance(n := meta.get(name), int) else None for name in ("seed", "width", "height")}
    given = meta.get("scores")
    scores = given.items() if isinstance(given, dict) else [(s.get("name"), s.get("value")) for s in given or ()]
    return row | {
        "key": key,
        "job_key": row["job_key"] or key,
        "source_key": row["source_key"] or key,
        "category": category,
        "id": next((meta[name] for name in ("id", "uri") if isinstance(meta.get(name), str)), None),
        "composed": bool(meta.get("source_is_composed")),
        "masked": masked,
        "scores": {name: float(value) for name, value in scores if isinstance(value, int | float)},
    }


def answers(snapshot: Snapshot, row: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The notes on a pair by "filter.note", read from the run's tables. Empty if there are none."""
    if snapshot.run is None:
        return {}
    filters = snapshot.cascade.filters.items()
    notes = [note for name, filter_ in filters for of in filter_.notes if (note := f"{name}.{of}") != REGIME]
    if not notes:
        return {}
    with tables.connect(snapshot.run) as db:
        listed = ", ".join(f'"{note}"' for note in notes)
        stored = tables.rows(db, f"SELECT {listed} FROM score WHERE key = ?", [row["key"]])
    return {note: _parsed(text) for texts in stored for note, text in texts.items() if text}


def choice(snapshot: Snapshot, job_key: str) -> list[dict[str, Any]]:
    """The judge's comparisons of a job's candidates: the candidates, the chosen one, its words, or its error."""
    if snapshot.run is None or snapshot.run.recipe.judge is None:
        return []
    with tables.connect(snapshot.run) as db:
        query = "SELECT candidates, chosen, answers, error FROM compare WHERE job_key = ? ORDER BY key"
        return [row | {"answers": _parsed(row["answers"])} for row in tables.rows(db, query, [job_key])]


def _parsed(text: str | None) -> dict[str, Any]:
    """Answers by question."""
    try:
        value = json.loads(text or "{}")
    except ValueError:
        return {"answer": text}
    return value if isinstance(value, dict) else {"answer": value}

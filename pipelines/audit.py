"""audit: what went in, what came out and why, per step, filter and category. All numbers are queries over committed
tables.

Conservation is asserted: at every step and filter, in = kept + rejected + error + not reached. A violation raises: rows
were lost or counted twice.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from crispedit.bounds import Bound
from crispedit.cascade import REGIME
from crispedit.outcome import ERROR, KEPT, NOT_REACHED, REJECTED, TRANSIENT, kind
from crispedit.pipelines import progress, recipe, tables
from crispedit.pipelines.building import listing
from crispedit.pipelines.building.waves import Waves
from crispedit.pipelines.progress import StageTotal
from crispedit.pipelines.records import IN_PLACE
from crispedit.pipelines.run import Run
from crispedit.pipelines.sources.layout import without_alias_text
from crispedit.pipelines.steps.imported import WITHOUT_ALIAS
from crispedit.pipelines.steps.select import SELECTION, SOURCES, contests, digest_of, first_pass
from crispedit.pipelines.viewing import report as page
from crispedit.shards import journal, layout, storage

BINS = 40


@dataclass
class Count:
    """One line of the audit: a step (or one of its filters) and a category. `rejected` and `error` are by reason;
    "(transient)" marks errors that the next run retries."""

    step: str
    category: str
    rows: int = 0
    kept: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    error: dict[str, int] = field(default_factory=dict)
    not_reached: int = 0

    def add(self, outcome: str, reason: str | None, rows: int) -> None:
        if outcome == KEPT:
            self.kept += rows
        elif outcome == NOT_REACHED:
            self.not_reached += rows
        else:
            by_reason = self.rejected if outcome == REJECTED else self.error
            name = f"{reason} (transient)" if outcome == TRANSIENT else reason or outcome
            by_reason[name] = by_reason.get(name, 0) + rows

    @property
    def numbers(self) -> list[str]:
        """Rows in, kept, rejected, with an error, and not reached, as cells of a table."""
        rejected, error = sum(self.rejected.values()), sum(self.error.values())
        return [str(number) for number in (self.rows, self.kept, rejected, error, self.not_reached)]

    def check(self) -> None:
        """RuntimeError unless in = sum of outcomes."""
        out = self.kept + sum(self.rejected.values()) + sum(self.error.values()) + self.not_reached
        if out != self.rows:
            raise RuntimeError(
                f"conservation violated at {self.step}, category {self.category or 'all'}: {self.rows} rows in, "
                f"{out} accounted for. Rows were lost or counted twice; this run's tables cannot be trusted."
            )


@dataclass
class Histogram:
    """The distribution of one score over candidates: `edges` has one entry more than `counts`; `nulls` counts unknown
    scores."""

    score: str
    edges: list[float]
    counts: list[int]
    nulls: int
    bounds: dict[str, Bound]


@dataclass
class Failures:
    """The errors of one step that differ only in names and numbers."""

    step: str
    kind: str
    rows: int
    transient: bool
    """Whether the next run retries these rows."""
    example: str
    first: list[str]
    """Names (uris or keys) of the first of these rows, at most three."""


@dataclass
class OutsideChange:
    """How one editor changes what it should leave alone, in one category, over its measured candidates."""

    editor: str
    category: str
    pairs: int
    regimes: dict[str, int]
    """Candidates by `regeneration.regime`; empty if that filter did not run."""
    scores: dict[str, tuple[float, float]]
    """Median and 95th percentile of each score in `MOVED` that was measured."""


@dataclass
class Worth:
    """The results of one editor in one category, and the cost of a kept pair: null without a kept pair, or if
    unknown."""

    editor: str
    category: str
    candidates: int
    kept: int
    keep_rate: float
    seconds_per_kept: float | None
    """Seconds of its processes."""
    gpu_seconds_per_kept: float | None
    cost_per_kept: float | None
    """Its servers' charges, in the currency of their prices."""
    laid_back: int
    """Edits that were realigned with their source (`edit.repair`)."""
    restored: int
    """Edits whose drift of tone was removed (`edit.repair_drift`)."""
    share: float | None
    """Its share of the category's jobs, in the last wave that shared them (`edit.share`); null if jobs are not
    shared."""


MOVED = ("alignment.displacement_px", "alignment.scale_error", "exposure.drift", "exposure.cast")
"""Scores of shift, scale, and drift of brightness and colours."""


@dataclass
class Report:
    """Everything the audit shows."""

    run: str
    counts: list[Count]
    histograms: list[Histogram]
    pairs: dict[str, int]
    """Packed pairs by category, from the manifest; empty before the present selection is packed."""
    errors: list[Failures] = field(default_factory=list)
    """The errors of all steps, grouped, the most frequent first."""
    repaired: dict[str, int] | None = None
    """Edits that were `laid_back` onto their source, or left `in_place`; null without `edit.repair`."""
    restored: int | None = None
    """Edits whose drift of tone was removed; null without `edit.repair_drift`."""
    moved: list[OutsideChange] = field(default_factory=list)
    """Shift, drift and regimes by editor and category, measured on the stored images, after any repair."""
    editors: list[Worth] = field(default_factory=list)
    """The cost of a kept pair, by editor and category; empty before anything is selected."""
    without_alias: dict[str, int] = field(default_factory=dict)
    """Imported pairs by category word, for words that are no category's alias."""
    skipped: str = ""
    """The files of the source without a row, in words."""
    stages: list[StageTotal] = field(default_factory=list)
    """How long each stage's processes worked, loaded and waited."""


def audit(run: Run) -> Report:
    """The report of a run as far as it has come. RuntimeError if rows do not add up."""
    db = tables.connect(run)
    counts: list[Count] = []
    if (run.folder("select") / SOURCES).exists():
        sources = pq.read_table(run.folder("select") / SOURCES)
        db.register("sources", sources)
        db.register("selection", pq.read_table(run.folder("select") / SELECTION))
        counts += _curate(db) + _annotate(db) + _edit(db) + _filters(run, db) + _compare(run, sources) + _selection(db)
    pairs = _packed(run)
    counts += _pack(db, pairs) if pairs else []
    for count in counts:
        count.check()
    asked = run.recipe.edit
    return Report(
        run.root.name,
        counts,
        _histograms(run, db),
        pairs,
        failures(run, db),
        repaired=tables.repaired(db) if asked.repair else None,
        restored=tables.restored(db) if asked.repair_drift else None,
        moved=_moved(run, db),
        editors=_worth(run, db) if counts else [],
        without_alias=_without_alias(db),
        skipped=_skipped(run),
        stages=progress.stage_totals(run.root),
    )


def _worth(run: Run, db: duckdb.DuckDBPyConnection) -> list[Worth]:
    """A line for each editor and category that has candidates."""
    rows = db.execute(f"""
        SELECT e.editor, e.category, count(*), count(*) FILTER (s.outcome = '{KEPT}') AS kept, kept / count(*),
            sum(e.seconds) / nullif(kept, 0), sum(e.gpu_seconds) / nullif(kept, 0), sum(e.cost) / nullif(kept, 0),
            count(*) FILTER (e.transform <> '{IN_PLACE}'), count(e.drift)
        FROM edit e JOIN selection s USING (key) GROUP BY e.editor, e.category ORDER BY e.editor, e.category
    """).fetchall()
    shared = next((wave.shares for wave in reversed(list(Waves(run))) if wave.shares), {})
    return [Worth(*(*row, shared.get(row[1], {}).get(row[0]))) for row in rows]


def worth_text(editors: Sequence[Worth]) -> str:
    """The cost of a kept pair, by editor and category, as a table without unknown columns."""
    columns = {
        "s per kept pair": "seconds_per_kept",
        "GPU s per kept pair": "gpu_seconds_per_kept",
        "cost per kept pair": "cost_per_kept",
        "realigned": "laid_back",
        "drift removed": "restored",
        "share": "share",
    }
    known = {title: name for title, name in columns.items() if any(getattr(one, name) for one in editors)}
    if not editors:
        return ""
    rows = [["editor", "category", "candidates", "kept", "kept %", *known]]
    for one in editors:
        values = [getattr(one, name) for name in known.values()]
        counts = [str(one.candidates), str(one.kept), f"{100 * one.keep_rate:.1f}"]
        rows.append([one.editor, one.category, *counts, *("-" if v is None else f"{v:.3g}" for v in values)])
    return table(rows)


def _moved(run: Run, db: duckdb.DuckDBPyConnection) -> list[OutsideChange]:
    """A line for each editor and category with measured candidates."""
    known = {column.name for column in run.recipe.pair_cascade.columns}
    scores = [score for score in MOVED if score in known]
    parts = "".join(f', approx_quantile(s."{score}", 0.5), approx_quantile(s."{score}", 0.95)' for score in scores)
    regime = f's."{REGIME}"' if REGIME in known else "NULL"
    rows = db.execute(f"""
        SELECT e.editor, e.category, count(*), count(*) FILTER ({regime} = 'exact'),
            count(*) FILTER ({regime} = 'regenerated'), count(*) FILTER ({regime} = 'global'){parts}
        FROM edit e JOIN score s USING (key) GROUP BY e.editor, e.category ORDER BY ALL
    """).fetchall()
    lines = []
    for editor, category, pairs, exact, regenerated, changed, *values in rows:
        regimes = {"exact": exact, "regenerated": regenerated, "global": changed}
        quantiles = {
            score: (float(values[2 * i]), float(values[2 * i + 1]))
            for i, score in enumerate(scores)
            if values[2 * i] is not None
        }
        lines.append(OutsideChange(editor, category, pairs, regimes if REGIME in known else {}, quantiles))
    return lines


def moved_text(moved: Sequence[OutsideChange]) -> str:
    """Shift, drift and regimes by editor and category, as a table; "" if no filter measured them."""
    scores = [score for score in MOVED if any(score in line.scores for line in moved)]
    regimes = list(next((line.regimes for line in moved if line.regimes), {}))
    if not scores and not regimes:
        return ""
    rows = [["editor", "category", "pairs", *regimes, *scores]]
    for line in moved:
        cells = ["{:.3g}, {:.3g}".format(*line.scores[score]) if score in line.scores else "-" for score in scores]
        counts = [str(line.regimes.get(name, 0)) for name in regimes]
        rows.append([line.editor, line.category, str(line.pairs), *counts, *cells])
    return table(rows) + ("\n(of scores: median, 95th percentile)" if scores else "")


def stages_text(stages: Sequence[StageTotal]) -> str:
    """The stages of the builds, as a table; "" if no build has run."""
    rows = [["stage", "rows", "busy s", "loading s", "held s", "busy share"]]
    for of in stages:
        seconds = [f"{value:.0f}" for value in (of.busy_s, of.loading_s, of.held_s)]
        rows.append([of.stage, str(of.rows), *seconds, "-" if of.share is None else f"{of.share:.0%}"])
    return table(rows) if stages else ""


def _without_alias(db: duckdb.DuckDBPyConnection) -> dict[str, int]:
    rows = db.execute(
        f"SELECT json_extract_string(plan, '$.{WITHOUT_ALIAS}') AS word, count(*) AS pairs FROM annotate "
        "WHERE word IS NOT NULL GROUP BY word ORDER BY word"
    )
    return dict(rows.fetchall())


def _skipped(run: Run) -> str:
    rows = journal.read(run.folder("listing"), listing.table(run.recipe.source), ["skipped"])
    return listing.skipped(rows.to_pylist()).text()


def _packed(run: Run) -> dict[str, int]:
    """Packed pairs by category; empty if the shards are from an earlier selection."""
    manifest, selection = storage.join(run.shards, layout.MANIFEST), run.folder("select") / SELECTION
    if not selection.exists() or not storage.exists(manifest):
        return {}
    packed = json.loads(storage.read_bytes(manifest))
    current = packed["meta"].get("selection") == digest_of(pq.read_table(selection))
    return dict(packed["categories"]) if current else {}


def _grouped(db: duckdb.DuckDBPyConnection, step: str, rows: str, ended: str) -> list[Count]:
    """Lines by category, from two queries: the step's rows (category first), and the (category, outcome, reason) of
    each."""
    totals = db.execute(f"SELECT category, count(*) FROM ({rows}) GROUP BY ALL").fetchall()
    lines = {category: Count(step, category, count) for category, count in totals}
    outcomes = db.execute(f"SELECT *, count(*) FROM ({ended}) GROUP BY ALL ORDER BY ALL").fetchall()
    for category, outcome, reason, count in outcomes:
        lines.setdefault(category, Count(step, category)).add(outcome, reason, count)
    return [lines[category] for category in sorted(lines)]


def _curate(db: duckdb.DuckDBPyConnection) -> list[Count]:
    verdicts = "SELECT '' AS category, outcome, reason FROM sources"
    return _grouped(db, "curate", "SELECT '' AS category FROM curate", verdicts)


def _annotate(db: duckdb.DuckDBPyConnection) -> list[Count]:
    return _grouped(
        db,
        "annotate",
        "SELECT DISTINCT category, key FROM annotate",
        f"""
            SELECT category, CASE WHEN transient THEN '{TRANSIENT}' WHEN error IS NOT NULL THEN '{ERROR}'
                    WHEN refusal IS NOT NULL THEN '{REJECTED}' WHEN repeated THEN '{REJECTED}' ELSE '{KEPT}' END,
                CASE WHEN error IS NOT NULL THEN 'annotate'
                    ELSE coalesce(refusal, if(repeated, 'repeated_job', NULL)) END
            FROM (SELECT *, job_key IS NOT NULL
                    AND row_number() OVER (PARTITION BY job_key ORDER BY key) > 1 AS repeated
                FROM annotate)
        """,
    )


def _edit(db: duckdb.DuckDBPyConnection) -> list[Count]:
    return _grouped(
        db,
        "edit",
        "SELECT DISTINCT category, key FROM edit",
        f"""
            SELECT category, CASE WHEN transient THEN '{TRANSIENT}' WHEN error IS NOT NULL THEN '{ERROR}'
                WHEN refusal IS NOT NULL THEN '{REJECTED}' ELSE '{KEPT}' END,
                if(error IS NOT NULL, 'edit', refusal)
            FROM edit
        """,
    )


def _filters(run: Run, db: duckdb.DuckDBPyConnection) -> list[Count]:
    """Every filter by itself, in one pass: how many edited candidates it passed, rejected, failed on, or did not
    measure."""
    cascade = run.recipe.pair_cascade
    if not cascade.filters:
        return []
    edited = "SELECT category, key FROM edit WHERE error IS NULL AND refusal IS NULL"
    totals = dict(db.execute(f"SELECT category, count(*) FROM ({edited}) GROUP BY ALL ORDER BY ALL").fetchall())
    verdicts = ", ".join(f'{cascade.verdict_sql("s", "e.category", [name])} AS "{name}"' for name in cascade.filters)
    sets = ", ".join(f'(category, "{name}")' for name in cascade.filters)
    verdict_counts = db.execute(f"""
        SELECT category, {", ".join(f'"{name}"' for name in cascade.filters)}, count(*)
        FROM (SELECT e.category, {verdicts} FROM ({edited}) e LEFT JOIN score s USING (key))
        GROUP BY GROUPING SETS ({sets}) ORDER BY ALL
    """)
    lines = {
        (name, category): Count(f"score: {name}", category, rows)
        for name in cascade.filters
        for category, rows in totals.items()
    }
    for category, *of_filters, count in verdict_counts.fetchall():
        [(name, verdict)] = [pair for pair in zip(cascade.filters, of_filters, strict=True) if pair[1] is not None]
        outcome, _, reason = verdict.partition(" ")
        lines[name, category].add(outcome, reason or None, count)
    return list(lines.values())


def _compare(run: Run, sources: pa.Table) -> list[Count]:
    """Jobs with several passing candidates: for how many the judge chose one."""
    if run.recipe.judge is None:
        return []
    db = tables.connect(run)
    first_pass(run, db, sources)
    contests(db)
    return _grouped(
        db,
        "compare",
        "SELECT category FROM contests",
        f"""
            SELECT category, CASE WHEN compared IS NULL THEN '{NOT_REACHED}' WHEN transient THEN '{TRANSIENT}'
                WHEN error IS NOT NULL THEN '{ERROR}' WHEN chosen IS NULL THEN '{REJECTED}' ELSE '{KEPT}'
                END AS outcome,
                CASE WHEN error IS NOT NULL THEN 'compare' WHEN outcome = '{REJECTED}' THEN 'undecided' END
            FROM contests
        """,
    )


def _selection(db: duckdb.DuckDBPyConnection) -> list[Count]:
    verdicts = "SELECT category, outcome, reason FROM selection"
    return _grouped(db, "select", "SELECT DISTINCT category, key FROM edit", verdicts)


def _pack(db: duckdb.DuckDBPyConnection, pairs: Mapping[str, int]) -> list[Count]:
    kept = db.execute(f"SELECT category, count(*) FROM selection WHERE outcome = '{KEPT}' GROUP BY ALL")
    selected = dict(kept.fetchall())
    return [Count("pack", c, selected.get(c, 0), kept=pairs.get(c, 0)) for c in sorted({*selected, *pairs})]


def _histograms(run: Run, db: duckdb.DuckDBPyConnection) -> list[Histogram]:
    """One histogram per pair score, over everything measured; the bins span the data, so that bounds can be compared
    with it."""
    cascade = run.recipe.pair_cascade
    histograms = []
    for name, filter_ in cascade.filters.items():
        for score, of in filter_.scores.items():
            if of is int:  # hashes are not quantities
                continue
            key = f"{name}.{score}"
            values = db.execute(f'SELECT "{key}" AS v FROM score WHERE "{name}.measured"').fetchnumpy()["v"]
            masked: Any = np.ma.masked_invalid(np.ma.asarray(values, dtype=float))
            known = masked.compressed()
            counts, edges = np.histogram(known, bins=BINS) if len(known) else (np.array([]), np.array([]))
            bounds = {c: b for c in run.recipe.categories if (b := cascade.bounds_of(c).get(key)) is not None}
            histograms.append(Histogram(key, edges.tolist(), counts.tolist(), len(masked) - len(known), bounds))
    return histograms


def failures(run: Run, db: duckdb.DuckDBPyConnection | None = None) -> list[Failures]:
    """The errors in a run's tables, grouped by step and kind, the most frequent first."""
    db = tables.connect(run) if db is None else db
    queries = [
        f"SELECT '{step}', error, coalesce(transient, false), count(*), min({name}, 3) FROM {step} "
        "WHERE error IS NOT NULL GROUP BY ALL"
        for step, name in (("curate", "uri"), ("annotate", "key"), ("edit", "key"), ("compare", "key"))
    ]
    scores = [("curate", name) for name in run.recipe.source_cascade.filters]
    scores += [("score", name) for name in run.recipe.pair_cascade.filters]
    queries += [
        f'SELECT \'{step}: {name}\', "{name}.error", "{name}.measured" IS NOT TRUE, count(*), min(key, 3) FROM {step} '
        f'WHERE "{name}.error" IS NOT NULL GROUP BY ALL'
        for step, name in scores
    ]
    errors = db.execute(" UNION ALL ".join(queries) + " ORDER BY ALL").fetchall()
    errors += [
        ("list", row["error"], True, 1, [row["key"]]) for row in tables.listing_rows(run) if row["error"] is not None
    ]
    groups: dict[tuple[str, str, bool], Failures] = {}
    for step, error, transient, rows, first in errors:
        group = groups.setdefault((step, kind(error), transient), Failures(step, kind(error), 0, transient, error, []))
        group.rows += rows
        group.first = sorted([*group.first, *first])[:3]
    return sorted(groups.values(), key=lambda group: (-group.rows, group.step, group.kind))


def failures_text(groups: Sequence[Failures], most: int = 5) -> str:
    """The most frequent errors, a line each; "" without any."""
    lines = [
        f"  {group.rows} x {group.step}: {group.example[:160]}{' (transient)' if group.transient else ''}"
        + (f": {', '.join(group.first)}" if group.rows > 1 or group.first[0] not in group.example else "")
        + (", ..." if group.rows > len(group.first) else "")
        for group in groups[:most]
    ]
    if len(groups) > most:
        lines.append(f"  and {len(groups) - most} other kinds: crispedit audit RUN --json lists all")
    if any(group.transient for group in groups):
        lines.append("  The same command tries the transient ones again; --retry errors tries all of them.")
    return "\n".join(["errors:", *lines]) if groups else ""


def useless(report: Report) -> str | None:
    """Why a build kept nothing, in a sentence; None if it kept a pair."""
    lines = [count for count in report.counts if count.step == "select"]
    if any(count.kept for count in lines):
        return None
    if report.errors and not lines:
        worst = report.errors[0]
        return f"nothing was kept: {worst.rows} rows of {worst.step} failed: {worst.example}"
    reasons = Counter[str]()
    for count in lines or [count for count in report.counts if count.step == "curate"]:
        reasons.update(count.rejected)
        reasons.update(count.error)
    why = ", ".join(f"{reason} {rows}" for reason, rows in reasons.most_common(3))
    return f"nothing was kept: {why or 'there was no candidate'}"


def summary(report: Report) -> str:
    """The table at the end of a build: candidates and their outcomes, by category."""
    lines = [count for count in report.counts if count.step == "select"]
    rows = [["category", "candidates", "kept", "rejected", "error", "not reached", "kept %", "packed"]]
    total = Count("select", "total")
    for count in lines:
        total.rows += count.rows
        total.kept += count.kept
        total.not_reached += count.not_reached
        total.rejected = dict(Counter(total.rejected) + Counter(count.rejected))
        total.error = dict(Counter(total.error) + Counter(count.error))
    for count in [*lines, total]:
        share = f"{100 * count.kept / count.rows:.1f}" if count.rows else "-"
        packed = sum(report.pairs.values()) if count is total else report.pairs.get(count.category, 0)
        rows.append([count.category, *count.numbers, share, str(packed)])
    text = [table(rows)]
    sources = next((count for count in report.counts if count.step == "curate"), None)
    if sources is not None:
        out = Counter({**sources.rejected, **sources.error})
        why = ", ".join(f"{reason} {number}" for reason, number in out.most_common())
        line = f"photographs: {sources.rows} in, {sources.kept} kept" + (f" ({why})" if why else "")
        text.insert(0, f"{line}; {report.skipped}" if report.skipped else line)
    if report.without_alias:
        text.append(without_alias_text(report.without_alias))
    if report.repaired is not None:
        laid, all_ = report.repaired["laid_back"], sum(report.repaired.values())
        text.append(f"realigned with their source: {laid} of {all_} edits")
    if report.restored is not None:
        text.append(f"drift of tone removed: {report.restored} edits")
    if compared := [count for count in report.counts if count.step == "compare"]:
        chosen, all_ = sum(count.kept for count in compared), sum(count.rows for count in compared)
        undecided = sum(count.rejected.get("undecided", 0) for count in compared)
        errors = sum(sum(count.error.values()) for count in compared)
        text.append(
            f"chosen by the judge: for {chosen} of {all_} jobs with several candidates that pass "
            f"(undecided {undecided}, error {errors}); for the others by scores"
        )
    reasons = sorted(total.rejected.items(), key=lambda item: (-item[1], item[0]))
    if reasons:
        text.append("rejected by: " + ", ".join(f"{reason} {number}" for reason, number in reasons))
    if report.errors:
        text.append(failures_text(report.errors))
    return "\n".join(text)


def table(rows: list[list[str]]) -> str:
    """Columns of text, the first to the left, under a header line."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def detail(report: Report) -> str:
    """Every line of the audit, as text."""
    rows = [["step", "category", "in", "kept", "rejected", "error", "not reached", "why"]]
    for count in report.counts:
        why = ", ".join(f"{reason} {number}" for reason, number in sorted({**count.rejected, **count.error}.items()))
        rows.append([f"{count.step:24}", count.category or "-", *count.numbers, why])
    return table(rows)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", help="the run's directory")
    parser.add_argument("--json", action="store_true", help="print the whole report as JSON")
    parser.add_argument("--light", action="store_true", help="leave the images out of the HTML report")


def run(args: argparse.Namespace) -> int:
    """The command: print the audit and write its HTML."""
    made = Run(recipe.load(args.run))
    report = audit(made)
    if not report.counts:
        raise ValueError(f"{args.run} has no selection yet: run `crispedit select {args.run}` first")
    if args.json:
        shown = {**asdict(report), "stages": [stage.to_json() for stage in report.stages]}
        print(json.dumps(shown, default=lambda bound: bound.model_dump(), indent=1))
    else:
        texts = [detail(report), worth_text(report.editors), moved_text(report.moved), stages_text(report.stages)]
        print("\n\n".join(filter(None, [*texts, summary(report)])), end="\n\n", flush=True)
    path = page.write(made, report, light=args.light)
    if not args.json:
        print(f"report: {path}")
    return 0

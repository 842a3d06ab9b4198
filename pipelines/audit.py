"""audit: what went in, what came out and why, per step, filter and category. All numbers are queries over committed
tables.

Conservation is asserted: at every step and filter, in = kept + rejected + error + not reached. A violation raises: rows
were lost or counted twice.
"""

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import duckdb
import numpy as np
import pyarrow.parquet as pq

from crispedit.bounds import Bound
from crispedit.cascade import REGIME
from crispedit.outcome import ERROR, KEPT, NOT_REACHED, REJECTED, TRANSIENT
from crispedit.pipelines import progress, tables
from crispedit.pipelines.building import listing
from crispedit.pipelines.building.waves import Waves
from crispedit.pipelines.progress import StageTotal
from crispedit.pipelines.records import IN_PLACE
from crispedit.pipelines.run import Run, run_in
from crispedit.pipelines.sources.layout import without_alias_text
from crispedit.pipelines.steps.imported import WITHOUT_ALIAS
from crispedit.pipelines.steps.select import SELECTION, SOURCES, contests, digest_of, first_pass
from crispedit.pipelines.tables import Failures
from crispedit.pipelines.viewing import report as page
from crispedit.shards import journal, layout, storage

BINS = 40
REGIMES = ("exact", "regenerated", "global")
ALONE = (
    "\n(a score line counts one filter alone, over all edited candidates; an earlier filter rejected those not reached)"
)
MOVED = ("alignment.displacement_px", "alignment.scale_error", "exposure.drift", "exposure.cast")
"""Scores of shift, scale, and drift of brightness and colours."""


@dataclass
class Count:
    """One line of the audit: a step (or one of its filters) and a category. `rejected` and `error` are by reason;
    "(transient)" marks errors that the next run retries."""

    step: str
    category: str
    rows: int = 0
    kept: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    error: Counter[str] = field(default_factory=Counter)
    not_reached: int = 0

    def add(self, outcome: str, reason: str | None, rows: int) -> None:
        if outcome == KEPT:
            self.kept += rows
        elif outcome == NOT_REACHED:
            self.not_reached += rows
        else:
            by_reason = self.rejected if outcome == REJECTED else self.error
            by_reason[f"{reason} (transient)" if outcome == TRANSIENT else reason or outcome] += rows

    @property
    def numbers(self) -> list[int]:
        """Rows in, kept, rejected, with an error, and not reached."""
        return [self.rows, self.kept, self.rejected.total(), self.error.total(), self.not_reached]

    def check(self) -> None:
        """RuntimeError unless in = sum of outcomes."""
        rows, *outcomes = self.numbers
        if rows != sum(outcomes):
            raise RuntimeError(
                f"conservation violated at {self.step}, category {self.category or 'all'}: {rows} rows in, "
                f"{sum(outcomes)} accounted for. Rows were lost or counted twice; this run's tables cannot be trusted."
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
class OutsideChange:
    """How one editor changes what it should leave alone, in one category, over its measured candidates."""

    editor: str
    category: str
    pairs: int
    regimes: dict[str, int]
    """Candidates by `regeneration.regime`; empty if that filter did not run."""
    scores: dict[str, list[float]]
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
    realigned: int
    """Edits that were realigned with their source (`edit.repair`)."""
    restored: int
    """Edits whose drift of tone was removed (`edit.repair_drift`)."""
    share: float | None
    """Its share of the category's jobs, in the last wave that shared them (`edit.share`); null if jobs are not
    shared."""


@dataclass
class Report:
    """Everything the audit shows."""

    run: str
    counts: list[Count]
    histograms: list[Histogram]
    pairs: dict[str, int]
    """Packed pairs by category, from the manifest; empty before the present selection is packed."""
    errors: list[Failures]
    """The errors of all steps, grouped, the most frequent first."""
    repaired: dict[str, int] | None
    """Edits that were `realigned` with their source, or left `in_place`; null without `edit.repair`."""
    restored: int | None
    """Edits whose drift of tone was removed; null without `edit.repair_drift`."""
    moved: list[OutsideChange]
    """Shift, drift and regimes by editor and category, measured on the stored images, after any repair."""
    editors: list[Worth]
    """The cost of a kept pair, by editor and category; empty before anything is selected."""
    without_alias: dict[str, int]
    """Imported pairs by category word, for words that are no category's alias."""
    skipped: str
    """The files of the source without a row, in words."""
    stages: list[StageTotal]
    """How long each stage's processes worked, loaded and waited."""


def audit(run: Run) -> Report:
    """The report of a run as far as it has come. RuntimeError if rows do not add up."""
    db = tables.connect(run)
    counts: list[Count] = []
    if (run.folder("select") / SOURCES).exists():
        sources = pq.read_table(run.folder("select") / SOURCES)
        db.register("sources", sources)
        db.register("selection", pq.read_table(run.folder("select") / SELECTION))
        counts = [*_counts(db, "curate"), *_counts(db, "annotate"), *_counts(db, "edit"), *_filters(run, db)]
        if run.recipe.judge is not None:
            first_pass(run, db, sources)
            contests(db)
            counts += _counts(db, "compare")
        counts += _counts(db, "select")
    if pairs := _packed(run):
        kept = db.execute(f"SELECT category, count(*) FROM selection WHERE outcome = '{KEPT}' GROUP BY ALL")
        selected = dict(kept.fetchall())
        counts += [Count("pack", c, selected.get(c, 0), pairs.get(c, 0)) for c in sorted({*selected, *pairs})]
    for count in counts:
        count.check()
    repairs = tables.repairs(db)
    restored = repairs.pop("restored")
    skipped = journal.read(run.folder("listing"), listing.table(run.recipe.source), ["skipped"])
    return Report(
        run=run.root.name,
        counts=counts,
        histograms=_histograms(run, db),
        pairs=pairs,
        errors=failures(run, db),
        repaired=repairs if run.recipe.edit.repair else None,
        restored=restored if run.recipe.edit.repair_drift else None,
        moved=_moved(run, db),
        editors=_worth(run, db) if counts else [],
        without_alias=_without_alias(db),
        skipped=listing.skipped(skipped.to_pylist()).text(),
        stages=progress.stage_totals(run.root),
    )


_FAILED = f"WHEN transient THEN '{TRANSIENT}' WHEN error IS NOT NULL THEN '{ERROR}'"
_COUNTED = {
    "curate": ("SELECT '' AS category FROM curate", "SELECT '' AS category, outcome, reason FROM sources"),
    "annotate": (
        "SELECT DISTINCT category, key FROM annotate",
        f"""
            SELECT category, CASE {_FAILED} WHEN refusal IS NOT NULL OR repeated THEN '{REJECTED}' ELSE '{KEPT}' END,
                if(error IS NOT NULL, 'annotate', coalesce(refusal, if(repeated, 'repeated_job', NULL)))
            FROM (SELECT *, job_key IS NOT NULL AND row_number() OVER (PARTITION BY job_key ORDER BY key) > 1
                AS repeated FROM annotate)
        """,
    ),
    "edit": (
        "SELECT DISTINCT category, key FROM edit",
        f"""
            SELECT category, CASE {_FAILED} WHEN refusal IS NOT NULL THEN '{REJECTED}' ELSE '{KEPT}' END,
                if(error IS NOT NULL, 'edit', refusal)
            FROM edit
        """,
    ),
    "compare": (
        "SELECT category FROM contests",
        f"""
            SELECT category, CASE WHEN compared IS NULL THEN '{NOT_REACHED}' {_FAILED}
                WHEN chosen IS NULL THEN '{REJECTED}' ELSE '{KEPT}' END AS outcome,
                CASE WHEN error IS NOT NULL THEN 'compare' WHEN outcome = '{REJECTED}' THEN 'undecided' END
            FROM contests
        """,
    ),
    "select": ("SELECT DISTINCT category, key FROM edit", "SELECT category, outcome, reason FROM selection"),
}
"""Two queries for each step, from independent tables where there are two: its rows, and each one's (category, outcome,
reason)."""


def _counts(db: duckdb.DuckDBPyConnection, step: str) -> list[Count]:
    """A step's lines by category."""
    rows, outcomes = _COUNTED[step]
    totals = db.execute(f"SELECT category, count(*) FROM ({rows}) GROUP BY ALL").fetchall()
    lines = {category: Count(step, category, count) for category, count in totals}
    for category, *outcome in db.execute(f"SELECT *, count(*) FROM ({outcomes}) GROUP BY ALL ORDER BY ALL").fetchall():
        lines.setdefault(category, Count(step, category)).add(*outcome)
    return [lines[category] for category in sorted(lines)]


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


def _packed(run: Run) -> dict[str, int]:
    """Packed pairs by category; empty if the shards are from an earlier selection."""
    manifest, selection = storage.join(run.shards, layout.MANIFEST), run.folder("select") / SELECTION
    if not selection.exists() or not storage.exists(manifest):
        return {}
    packed = json.loads(storage.read_bytes(manifest))
    current = packed["meta"].get("selection") == digest_of(pq.read_table(selection))
    return dict(packed["categories"]) if current else {}


def _histograms(run: Run, db: duckdb.DuckDBPyConnection) -> list[Histogram]:
    """One histogram per pair score, over everything measured; the bins span the data, so that bounds can be compared
    with it."""
    cascade = run.recipe.pair_cascade
    histograms = []
    for score, number in cascade.scores.items():
        if number is int:  # hashes are not quantities
            continue
        measured = f"{score.rpartition('.')[0]}.measured"
        values = db.execute(f'SELECT "{score}" AS v FROM score WHERE "{measured}"').fetchnumpy()["v"]
        masked: Any = np.ma.masked_invalid(np.ma.asarray(values, dtype=float))
        known = masked.compressed()
        counts, edges = np.histogram(known, bins=BINS) if len(known) else (np.array([]), np.array([]))
        bounds = {c: b for c in run.recipe.categories if (b := cascade.bounds_of(c).get(score)) is not None}
        histograms.append(Histogram(score, edges.tolist(), counts.tolist(), len(masked) - len(known), bounds))
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
    errors += [("list", row["error"], True, 1, [row["key"]]) for row in tables.listing_rows(run) if row["error"]]
    return tables.grouped(errors)


def _moved(run: Run, db: duckdb.DuckDBPyConnection) -> list[OutsideChange]:
    """A line for each editor and category with measured candidates."""
    known = {column.name for column in run.recipe.pair_cascade.columns}
    regimes = REGIMES if REGIME in known else ()
    scores = [score for score in MOVED if score in known]
    columns = [f"count(*) FILTER (s.\"{REGIME}\" = '{name}')" for name in regimes]
    columns += [f'approx_quantile(s."{score}", [0.5, 0.95])' for score in scores]
    rows = db.execute(f"""
        SELECT {", ".join(["e.editor", "e.category", "count(*)", *columns])}
        FROM edit e JOIN score s USING (key) GROUP BY e.editor, e.category ORDER BY ALL
    """).fetchall()
    lines = []
    for editor, category, pairs, *values in rows:
        counts, quantiles = values[: len(regimes)], zip(scores, values[len(regimes) :], strict=True)
        measured = {score: [float(one) for one in both] for score, both in quantiles if both is not None}
        lines.append(OutsideChange(editor, category, pairs, dict(zip(regimes, counts, strict=True)), measured))
    return lines


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


def _without_alias(db: duckdb.DuckDBPyConnection) -> dict[str, int]:
    rows = db.execute(
        f"SELECT json_extract_string(plan, '$.{WITHOUT_ALIAS}') AS word, count(*) AS pairs FROM annotate "
        "WHERE word IS NOT NULL GROUP BY word ORDER BY word"
    )
    return dict(rows.fetchall())


def table(header: Sequence[str], rows: Sequence[Sequence[object]], digits: int = 3) -> str:
    """Columns of text under a header line, the first to the left. Floats have this many digits; None is "-"."""
    cells = [header, *([_cell(value, digits) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in cells
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _cell(value: object, digits: int) -> str:
    if value is None:
        return "-"
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)


def detail_text(counts: Sequence[Count]) -> str:
    """Every line of the audit."""
    rows = [[f"{count.step:24}", count.category or "-", *count.numbers, _reasons(count)] for count in counts]
    text = table(["step", "category", "in", "kept", "rejected", "error", "not reached", "why"], rows)
    return text + (ALONE if any(count.step.startswith("score: ") for count in counts) else "")


def worth_text(editors: Sequence[Worth]) -> str:
    """The cost of a kept pair, by editor and category, as a table without unknown columns; "" without editors."""
    columns = {
        "s per kept pair": "seconds_per_kept",
        "GPU s per kept pair": "gpu_seconds_per_kept",
        "cost per kept pair": "cost_per_kept",
        "realigned": "realigned",
        "drift removed": "restored",
        "share": "share",
    }
    known = {title: name for title, name in columns.items() if any(getattr(one, name) for one in editors)}
    rows = [
        [one.editor, one.category, one.candidates, one.kept, f"{100 * one.keep_rate:.1f}"]
        + [getattr(one, name) for name in known.values()]
        for one in editors
    ]
    return table(["editor", "category", "candidates", "kept", "kept %", *known], rows) if rows else ""


def moved_text(moved: Sequence[OutsideChange]) -> str:
    """Shift, drift and regimes by editor and category, as a table; "" if no filter measured them."""
    scores = [score for score in MOVED if any(score in line.scores for line in moved)]
    regimes = list(next((line.regimes for line in moved if line.regimes), {}))
    if not scores and not regimes:
        return ""
    rows = [
        [line.editor, line.category, line.pairs, *line.regimes.values()]
        + ["{:.3g}, {:.3g}".format(*line.scores[score]) if score in line.scores else None for score in scores]
        for line in moved
    ]
    text = table(["editor", "category", "pairs", *regimes, *scores], rows)
    return text + ("\n(of scores: median, 95th percentile)" if scores else "")


def stages_text(stages: Sequence[StageTotal]) -> str:
    """The stages of the builds, as a table; "" if no build has run."""
    rows = []
    for of in stages:
        share = None if of.share is None else f"{of.share:.0%}"
        rows.append([of.stage, of.rows, round(of.busy_s), round(of.loading_s), round(of.held_s), share])
    return table(["stage", "rows", "busy s", "loading s", "held s", "busy share"], rows) if rows else ""


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


def _total(counts: Sequence[Count]) -> Count:
    return Count(
        "",
        "total",
        rows=sum(count.rows for count in counts),
        kept=sum(count.kept for count in counts),
        rejected=sum((count.rejected for count in counts), Counter()),
        error=sum((count.error for count in counts), Counter()),
        not_reached=sum(count.not_reached for count in counts),
    )


def useless(report: Report) -> str | None:
    """Why a build kept nothing, in a sentence; None if it kept a pair."""
    lines = [count for count in report.counts if count.step == "select"]
    if any(count.kept for count in lines):
        return None
    if report.errors and not lines:
        worst = report.errors[0]
        return f"nothing was kept: {worst.rows} rows of {worst.step} failed: {worst.example}"
    total = _total(lines or [count for count in report.counts if count.step == "curate"])
    return f"nothing was kept: {_reasons(total, most=3) or 'there was no candidate'}"


def _reasons(count: Count, most: int | None = None) -> str:
    """What was rejected and what failed, the most frequent first."""
    by_text = Counter(count.rejected)
    by_text.update({f"error in {part}": rows for part, rows in count.error.items()})
    in_order = sorted(by_text.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{rows} x {text}" for text, rows in in_order[:most])


def summary(report: Report) -> str:
    """The text at the end of a build: candidates and their outcomes, by category."""
    lines, sources, compared = (
        [count for count in report.counts if count.step == step] for step in ("select", "curate", "compare")
    )
    text = []
    for source in sources:
        why = _reasons(source)
        text.append(f"photographs: {source.rows} in, {source.kept} kept" + (f" ({why})" if why else ""))
        text[-1] += f"; {report.skipped}" if report.skipped else ""
    total = _total(lines)
    packed = [*(report.pairs.get(count.category, 0) for count in lines), sum(report.pairs.values())]
    rows = [
        [count.category, *count.numbers, f"{100 * count.kept / count.rows:.1f}" if count.rows else None, pairs]
        for count, pairs in zip([*lines, total], packed, strict=True)
    ]
    text.append(table(["category", "candidates", "kept", "rejected", "error", "not reached", "kept %", "packed"], rows))
    if report.without_alias:
        text.append(without_alias_text(report.without_alias))
    if report.repaired is not None:
        realigned, edits = report.repaired["realigned"], sum(report.repaired.values())
        text.append(f"realigned with their source: {realigned} of {edits} edits")
    if report.restored is not None:
        text.append(f"drift of tone removed: {report.restored} edits")
    if compared:
        judged = _total(compared)
        text.append(
            f"chosen by the judge: for {judged.kept} of {judged.rows} jobs with several candidates that pass "
            f"(undecided {judged.rejected['undecided']}, error {judged.error.total()}); for the others by scores"
        )
    if why := _reasons(total):
        text.append(f"not kept: {why}")
    if report.errors:
        text.append(failures_text(report.errors))
    return "\n".join(text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", help="the run's directory")
    parser.add_argument("--json", action="store_true", help="print the whole report as JSON")
    parser.add_argument("--light", action="store_true", help="leave the images out of the HTML report")


def run(args: argparse.Namespace) -> int:
    """The command: print the audit and write its HTML."""
    made = run_in(args.run)
    report = audit(made)
    if not report.counts:
        raise ValueError(f"{args.run} has no selection yet: run `crispedit select {args.run}` first")
    if args.json:
        print(json.dumps(report, default=vars, indent=1))
    else:
        texts = [detail_text(report.counts), worth_text(report.editors), moved_text(report.moved)]
        texts += [stages_text(report.stages), summary(report)]
        print("\n\n".join(filter(None, texts)), end="\n\n", flush=True)
    path = page.write(made, report, light=args.light)
    if not args.json:
        print(f"report: {path}")
    return 0

"""Dry run: builds N photographs in a separate directory, and projects the cost and yield of the full run.

Rates come from commits: the rows after a step's first block, over the time from that block to the last. So the loading
time of models is separate, and counts once rather than per photograph. The photographs are a random sample of the
listing by the hashes of their names, the same each time.

The projection is for the present cluster. The share of near-duplicates, which would grow with the set, is projected as
seen.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow.parquet as pq

from crispedit.outcome import KEPT
from crispedit.pipelines import build, engine, steps, tables
from crispedit.pipelines.audit import table
from crispedit.pipelines.building.stream import Build
from crispedit.pipelines.recipe import EngineSpec
from crispedit.pipelines.records import TOKENS
from crispedit.pipelines.run import Run
from crispedit.pipelines.scheduling.flow import Route, Row, gpus_of
from crispedit.pipelines.steps import pack, select
from crispedit.pipelines.steps.step import Step
from crispedit.server import Server
from crispedit.shards import journal

Z = 1.96
"""The normal quantile of a 95 % interval."""


@dataclass(frozen=True)
class Range:
    """An estimate and its 95 % interval."""

    estimate: float
    low: float
    high: float

    def times(self, factor: float) -> Range:
        return Range(self.estimate * factor, self.low * factor, self.high * factor)

    def at_most(self, limit: float) -> Range:
        return Range(*(min(value, limit) for value in (self.estimate, self.low, self.high)))


@dataclass(frozen=True)
class StepCost:
    """What one step would cost. Hours of CPUs and GPUs count while its actors hold them, busy or not."""

    step: str
    rows: int
    """Rows of the full run."""
    rows_per_s: float | None
    """The dry run's rate after loading; null if it had no rows."""
    wall_h: float | None
    gpu_h: float | None
    cpu_h: float | None
    gigabytes: float
    """Size of the full run's output; a later pass of a step counts with its first."""


@dataclass(frozen=True)
class Projection:
    """A full run, projected from a sample of its photographs."""

    sampled: int
    photographs: int
    steps: list[StepCost]
    keep_rate: Range
    """Kept pairs per candidate."""
    pairs: dict[str, Range]
    """Kept pairs by category, at most its quota."""
    total_pairs: Range
    photographs_for_quota: dict[str, int | None]
    """Photographs after which a category reaches its quota; null: it does not, or has none."""
    gpu_hour_price: float | None
    server_costs: dict[str, float | None]
    """Server charges of the full run by step, at the recipe's prices or as the servers state them; null if unknown.
    Steps without servers are left out."""
    cost_per_pair: float | None
    """GPU-hours at the given price plus server charges, per kept pair; null if nothing has a price, or GPUs are used
    without one."""


@dataclass(frozen=True)
class _Timed:
    rows: int
    loading_s: float
    rows_per_s: float | None
    cpus: float
    gpus: float

    def seconds(self, rows: float) -> float | None:
        if self.rows == 0:
            return 0.0 if rows == 0 else None
        assert self.rows_per_s is not None
        return self.loading_s + rows / self.rows_per_s


def dry_run(run: Run, photographs: int, gpu_hour_price: float | None = None) -> Projection:
    """Build a sample beside the run, project the whole, and write `projection.json` there.

    ValueError if the dry run's directory exists: timings of a resumed run would be meaningless.
    """
    if photographs < 1:
        raise ValueError(f"--dry-run takes a number of photographs, 1 or more; got {photographs}")
    sample = _beside(run, photographs)
    if sample.root.exists():
        raise ValueError(f"{sample.root} holds an earlier dry run: remove it, or choose another number")
    settings = sample.recipe.engine
    timed: dict[str, _Timed] = {}
    with sample.locked():
        try:
            identities = steps.identities(steps.of(sample))
            sample.begin(identities)
            flow = Watched(sample, ["curate"], sample=photographs)
            sample.store_recipe(identities)
            with engine.cluster(settings):
                build.preflight(steps.of(sample), settings)
                timed["curate"] = _time(flow, settings)
                for name, after in _passes(sample):
                    timed[f"{name} {after}".strip()] = _time(Watched(sample, [name]), settings)
                began = time.monotonic()
                select.select(sample)
                pack.pack(sample)
                last_s = time.monotonic() - began
        except BaseException:
            if "edit" not in timed:  # nothing that would be worth a look, so the same command works again
                shutil.rmtree(sample.root, ignore_errors=True)
            raise
    projection = _project(sample, run, timed, last_s, flow.drawn_from, gpu_hour_price)
    with journal.replaced(sample.root / "projection.json") as out:
        out.write(json.dumps(asdict(projection), indent=1).encode())
    return projection


STEPS = ("curate", "annotate", "edit", "score", "compare")


def _passes(run: Run) -> Iterator[tuple[str, str]]:
    """(step, editor) of the passes after curate: each editor for failed jobs has its own pass of edit and score."""
    for name in ("annotate", "edit", "score"):
        yield name, ""
    for editor, spec in run.recipe.edit.editors.items():
        if spec.when == "failed":
            yield "edit", editor
            yield "score", editor
    if run.recipe.judge is not None:
        yield "compare", ""


class Watched(Build):
    """One step of a build, with the times of its commits."""

    def __init__(self, run: Run, only: Sequence[str], sample: int | None = None) -> None:
        self.commits: list[tuple[float, int]] = []
        super().__init__(run, only, sample=sample)

    def done(self, route: Route, rows: Sequence[Row]) -> None:
        if route.step in STEPS:
            self.commits.append((time.monotonic(), sum(len(row["committed"]) for row in rows)))
        super().done(route, rows)


def _beside(run: Run, photographs: int) -> Run:
    """The same recipe in a separate directory, without quotas, which depend on the number of photographs."""
    recipe = run.recipe
    unlimited = {name: spec.model_copy(update={"quota": None}) for name, spec in recipe.categories.items()}
    root = recipe.run.with_name(f"{recipe.run.name}-dry-run-{photographs}")
    fields = {name: getattr(recipe, name) for name in type(recipe).model_fields}
    own = {"run": root, "categories": unlimited, "pack": recipe.pack.model_copy(update={"to": None})}
    return Run(type(recipe)(**fields | own).check())


def _time(flow: Watched, settings: EngineSpec) -> _Timed:
    """Run a step and time it by its commits."""
    cpus, gpus = _held(flow.active[0], settings)
    began = time.monotonic()
    engine.run_flow(flow, settings)
    rows = sum(count for _, count in flow.commits)
    if rows == 0:
        return _Timed(0, 0.0, None, 0.0, 0.0)
    (first, first_rows), (last, _) = flow.commits[0], flow.commits[-1]
    wall_s = max(last - began, 1e-3)
    if first_rows == rows or last <= first:
        return _Timed(rows, 0.0, rows / wall_s, cpus, gpus)
    rate = (rows - first_rows) / (last - first)
    return _Timed(rows, max(0.0, wall_s - rows / rate), rate, cpus, gpus)


def _held(step: Step, settings: EngineSpec) -> tuple[float, float]:
    """CPUs and GPUs that a step's actors hold while it runs."""
    stages = step.stages
    if settings.kind != "ray":
        return 1.0, sum(map(gpus_of, stages))
    import ray

    actors = engine.placement(step.name, stages, ray.cluster_resources())
    counted = [*zip(actors, stages, strict=True)]
    return sum(n * s.pool.cpus for n, s in counted), sum(n * gpus_of(s) for n, s in counted)


def _project(
    sample: Run, run: Run, timed: Mapping[str, _Timed], last_s: float, listed: int, price: float | None
) -> Projection:
    db = tables.connect(sample)
    db.register("selection", pq.read_table(sample.folder("select") / select.SELECTION))
    sampled = timed["curate"].rows
    factor = listed / sampled
    per_source = {
        category: {
            key: (candidates, kept)
            for key, candidates, kept in db.execute(
                "SELECT e.source_key, count(*), count(*) FILTER (s.outcome = ?) FROM selection s "
                "JOIN edit e USING (key) WHERE s.category = ? GROUP BY e.source_key",
                [KEPT, category],
            ).fetchall()
        }
        for category in sample.recipe.categories
    }
    pairs, wanted = {}, {}
    for category, by_source in per_source.items():
        each = mean_range([kept for _, kept in by_source.values()], sampled, listed)
        quota, expected = run.recipe.categories[category].quota, each.times(listed)
        pairs[category] = expected if quota is None else expected.at_most(quota)
        wanted[category] = math.ceil(quota / each.estimate) if quota and expected.estimate >= quota else None
    keys = sorted({key for by_source in per_source.values() for key in by_source})
    sums = np.array([[sum(b.get(key, (0, 0))[i] for b in per_source.values()) for key in keys] for i in (0, 1)], float)
    candidates, kept = sums
    total = mean_range(kept.tolist(), sampled, listed).times(listed)
    if any(spec.quota is not None for spec in run.recipe.categories.values()):
        total = Range(*(sum(getattr(r, side) for r in pairs.values()) for side in ("estimate", "low", "high")))
    steps = [_cost(sample, name, one, factor) for name, one in timed.items()]
    steps.append(_last(sample, last_s, factor, int(candidates.sum())))
    gpu_h = sum(step.gpu_h or 0.0 for step in steps)
    servers = {name: None if cost is None else cost * factor for name, cost in _server_costs(sample, db).items()}
    known = [cost for cost in servers.values() if cost is not None]
    unpriced = price is None and (gpu_h > 0 or not known)
    cost = None if unpriced or not total.estimate else ((price or 0.0) * gpu_h + sum(known)) / total.estimate
    return Projection(
        sampled,
        listed,
        steps,
        ratio_range(kept.tolist(), candidates.tolist(), listed / sampled),
        pairs,
        total,
        wanted,
        price,
        servers,
        cost,
    )


def _server_costs(sample: Run, db: duckdb.DuckDBPyConnection) -> dict[str, float | None]:
    """Server charges of the sample, by step; None if a row has none, or no price is set."""
    recipe = sample.recipe
    asks: dict[str, tuple[Any, str, str, str]] = {}
    if (chat := getattr(recipe.annotator, "chat", None)) is not None:
        asks["annotate"] = chat, "annotate", "", "count(*)"
    for name, part in recipe.pair_cascade.filters.items():
        if (chat := getattr(part, "chat", None)) is not None:
            scores = ", ".join(f'"{name}.{score}"::VARCHAR' for score in part.scores)
            asks[f"score: {name}"] = chat, "score", f"{name}.", f"count(coalesce({scores}))"
    if recipe.judge is not None:
        asks["compare"] = recipe.judge.chat, "compare", "", "count(*)"
    costs: dict[str, float | None] = {}
    for name, (chat, table_, prefix, asked) in asks.items():
        if isinstance(chat, Server):
            counts = ", ".join(f'sum("{prefix}{column}")::BIGINT' for column in TOKENS)
            [(rows, *tokens)] = db.execute(f"SELECT {asked}, {counts} FROM {table_}").fetchall()
            costs[name] = chat.price(*tokens) if rows else 0.0
    editors: Mapping[str, object] = recipe.editors
    for name, editor in editors.items():
        if isinstance(editor, Server):
            [(rows, cost)] = db.execute("SELECT count(*), sum(cost) FROM edit WHERE editor = ?", [name]).fetchall()
            costs[f"edit: {name}"] = cost if rows else 0.0
    return costs


def _cost(sample: Run, name: str, one: _Timed, factor: float) -> StepCost:
    rows = round(one.rows * factor)
    seconds = one.seconds(one.rows * factor)
    hours = None if seconds is None else seconds / 3600
    return StepCost(
        name,
        rows,
        one.rows_per_s,
        hours,
        None if hours is None else hours * one.gpus,
        None if hours is None else hours * one.cpus,
        _bytes(sample.folder(name)) * factor / 1e9 if name in STEPS else 0.0,
    )


def _last(sample: Run, seconds: float, factor: float, candidates: int) -> StepCost:
    """select and pack, which need no GPU, as one line."""
    hours = seconds * factor / 3600
    size = sum(_bytes(sample.folder(name)) for name in ("select", "shards")) * factor / 1e9
    rate = candidates / seconds if candidates and seconds > 0 else None
    return StepCost("select, pack", round(candidates * factor), rate, hours, 0.0, hours, size)


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def ratio_range(numerators: Sequence[float], denominators: Sequence[float], of: float) -> Range:
    """Wilson's interval of sum / sum (each numerator at most its denominator), for `of` times as many units.

    Photographs are sampled, not candidates, so the binomial's n is reduced to match the variance between photographs.
    Because the sample is drawn without replacement, n is multiplied by 1 / (1 - 1 / of): a full sample has no error.
    """
    above, below = np.asarray(numerators, float), np.asarray(denominators, float)
    units, total = len(below), float(below.sum())
    if total == 0:
        return Range(0.0, 0.0, 1.0)
    rate = float(above.sum()) / total
    effective = float(units)  # without variance, each unit counts once
    if units > 1 and 0 < rate < 1:
        variance = units / (units - 1) * float(((above - rate * below) ** 2).sum()) / total**2
        effective = min(total, rate * (1 - rate) / variance) if variance > 0 else total
    if of <= 1:
        return Range(rate, rate, rate)
    effective /= 1 - 1 / of
    centre = (rate + Z**2 / (2 * effective)) / (1 + Z**2 / effective)
    half = Z / (1 + Z**2 / effective) * math.sqrt(rate * (1 - rate) / effective + Z**2 / (4 * effective**2))
    return Range(rate, max(0.0, centre - half), min(1.0, centre + half))


def mean_range(values: Sequence[float], units: int, population: int) -> Range:
    """Kept pairs per photograph from `units` sampled ones (0 for those without a value), scaled to the population."""
    most = max([1.0, *values])
    padded = [*values, *[0.0] * (units - len(values))]
    return ratio_range(padded, [most] * units, population / units).times(most)


def text(projection: Projection) -> str:
    rows = [["step", "rows", "rows/s", "wall h", "GPU h", "CPU h", "GB"]]
    for step in projection.steps:
        numbers = (step.rows_per_s, step.wall_h, step.gpu_h, step.cpu_h, step.gigabytes)
        rows.append([step.step, str(step.rows), *("-" if n is None else f"{n:.4g}" for n in numbers)])
    sums = [
        sum(getattr(step, name) or 0.0 for step in projection.steps)
        for name in ("wall_h", "gpu_h", "cpu_h", "gigabytes")
    ]
    rows.append(["all", "", "", *(f"{total:.4g}" for total in sums)])
    pairs = [["category", "pairs", "95 % interval", "quota after photographs"]]
    for category, range_ in projection.pairs.items():
        after = projection.photographs_for_quota[category]
        pairs.append([category, f"{range_.estimate:.0f}", _interval(range_), "-" if after is None else str(after)])
    pairs.append(["total", f"{projection.total_pairs.estimate:.0f}", _interval(projection.total_pairs), ""])
    keep = projection.keep_rate
    lines = [
        f"projected from {projection.sampled} of {projection.photographs} photographs, on this cluster",
        table(rows),
        "",
        table(pairs),
        "",
        f"kept of candidates: {100 * keep.estimate:.1f} % (95 %: {100 * keep.low:.1f} to {100 * keep.high:.1f})",
    ]
    lines += _cost_lines(projection)
    return "\n".join(lines)


def _cost_lines(projection: Projection) -> list[str]:
    """Lines on the cost of a kept pair: its parts, and what it leaves out."""
    pairs, lines = projection.total_pairs.estimate, []
    gpu_h = sum(step.gpu_h or 0.0 for step in projection.steps)
    parts = {name: cost for name, cost in projection.server_costs.items() if cost is not None}
    if projection.gpu_hour_price is not None:
        parts = {f"GPUs at {projection.gpu_hour_price:g} an hour": projection.gpu_hour_price * gpu_h, **parts}
    if projection.cost_per_pair is not None:
        made_of = ", ".join(f"{name} {cost / pairs:.4g}" for name, cost in parts.items())
        lines.append(f"cost of a kept pair: {projection.cost_per_pair:.4g} ({made_of})")
    elif gpu_h and parts:
        lines.append("cost of a kept pair: not known without --gpu-hour-price")
    elif parts and not pairs:
        made_of = ", ".join(f"{name} {cost:.4g}" for name, cost in parts.items())
        lines.append(f"no pair was kept; the whole would cost {sum(parts.values()):.4g} ({made_of})")
    if unknown := [name for name, cost in projection.server_costs.items() if cost is None]:
        lines.append(f"not in the cost: {', '.join(unknown)} (no price is set, or the server reports no usage)")
    return lines


def _interval(range_: Range) -> str:
    return f"{range_.low:.0f} to {range_.high:.0f}"

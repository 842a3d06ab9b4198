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
from numpy.typing import NDArray

from crispedit.outcome import KEPT
from crispedit.pipelines import build, engine, steps, tables
from crispedit.pipelines.audit import table
from crispedit.pipelines.building.stream import Build
from crispedit.pipelines.calibration.judgement import wilson
from crispedit.pipelines.recipe import EngineSpec
from crispedit.pipelines.records import TOKENS
from crispedit.pipelines.run import Run
from crispedit.pipelines.scheduling.flow import Route, Row, gpus_of
from crispedit.pipelines.steps import pack, select
from crispedit.pipelines.steps.step import Step
from crispedit.server import Server
from crispedit.shards import journal
from crispedit.shards.journal import quoted


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
    wall_h: float
    gpu_h: float
    cpu_h: float
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
    loading_s: float = 0.0
    rows_per_s: float | None = None
    cpus: float = 0.0
    gpus: float = 0.0

    def cost(self, step: str, factor: float, folders: Sequence[Path]) -> StepCost:
        """The cost of `factor` times these rows, which were written to these folders."""
        rows = self.rows * factor
        hours = (self.loading_s + rows / self.rows_per_s) / 3600 if self.rows_per_s else 0.0
        size = sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file())
        gigabytes = size * factor / 1e9
        return StepCost(step, round(rows), self.rows_per_s, hours, hours * self.gpus, hours * self.cpus, gigabytes)


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
                for name in _passes(sample):
                    timed[name] = _time(Watched(sample, name.split()[:1]), settings)
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


def _passes(run: Run) -> Iterator[str]:
    """The passes after curate; each editor for failed jobs has its own pass of edit and score."""
    yield from ("annotate", "edit", "score")
    for editor, spec in run.recipe.edit.editors.items():
        if spec.when == "failed":
            yield from (f"edit {editor}", f"score {editor}")
    if run.recipe.judge is not None:
        yield "compare"


class Watched(Build):
    """One step of a build, with the times of its commits."""

    def __init__(self, run: Run, only: Sequence[str], sample: int | None = None) -> None:
        self.commits: list[tuple[float, int]] = []
        super().__init__(run, only, sample=sample)

    def done(self, route: Route, rows: Sequence[Row]) -> None:
        if route.step == self.active[0].name:
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
        return _Timed(0)
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

    def of_photographs(condition: str) -> NDArray[np.float64]:
        """[2, N]: candidates and kept pairs of each photograph that has candidates."""
        counts = db.execute(
            f"SELECT count(*), count(*) FILTER (s.outcome = '{KEPT}') FROM selection s JOIN edit e USING (key) "
            f"WHERE {condition} GROUP BY e.source_key ORDER BY e.source_key"
        ).fetchall()
        return np.array(counts, float).reshape(-1, 2).T

    pairs, wanted = {}, {}
    for category, spec in run.recipe.categories.items():
        each = mean_range(of_photographs(f"s.category = {quoted(category)}")[1].tolist(), sampled, listed)
        quota, expected = spec.quota, each.times(listed)
        pairs[category] = expected if quota is None else expected.at_most(quota)
        wanted[category] = math.ceil(quota / each.estimate) if quota and expected.estimate >= quota else None
    candidates, kept = of_photographs("true")
    total = mean_range(kept.tolist(), sampled, listed).times(listed)
    if any(spec.quota is not None for spec in run.recipe.categories.values()):
        total = Range(*(sum(getattr(r, side) for r in pairs.values()) for side in ("estimate", "low", "high")))
    steps = [one.cost(name, factor, [sample.folder(name)]) for name, one in timed.items()]
    made = int(candidates.sum())
    last = _Timed(made, rows_per_s=made / last_s if made else None, cpus=1.0)  # select and pack need no GPU
    steps.append(last.cost("select, pack", factor, [sample.folder("select"), sample.folder("shards")]))
    gpu_h = sum(step.gpu_h for step in steps)
    servers = {name: None if cost is None else cost * factor for name, cost in _server_costs(sample, db).items()}
    known = [cost for cost in servers.values() if cost is not None]
    unpriced = price is None and (gpu_h > 0 or not known)
    cost = None if unpriced or not total.estimate else ((price or 0.0) * gpu_h + sum(known)) / total.estimate
    return Projection(
        sampled=sampled,
        photographs=listed,
        steps=steps,
        keep_rate=ratio_range(kept.tolist(), candidates.tolist(), factor),
        pairs=pairs,
        total_pairs=total,
        photographs_for_quota=wanted,
        gpu_hour_price=price,
        server_costs=servers,
        cost_per_pair=cost,
    )


def _server_costs(sample: Run, db: duckdb.DuckDBPyConnection) -> dict[str, float | None]:
    """Server charges of the sample, by step; None if a row has none, or no price is set."""
    recipe = sample.recipe
    asks: dict[str, tuple[Any, str, str, str]] = {}
    asks["annotate"] = getattr(recipe.annotator, "chat", None), "annotate", "", "count(*)"
    for name, part in recipe.pair_cascade.filters.items():
        scores = ", ".join(f'"{name}.{score}"::VARCHAR' for score in part.scores)
        asks[f"score: {name}"] = getattr(part, "chat", None), "score", f"{name}.", f"count(coalesce({scores}))"
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
    return Range(rate, *wilson(rate * effective, effective))


def mean_range(values: Sequence[float], units: int, population: int) -> Range:
    """Kept pairs per photograph from `units` sampled ones (0 for those without a value), scaled to the population."""
    most = max([1.0, *values])
    padded = [*values, *[0.0] * (units - len(values))]
    return ratio_range(padded, [most] * units, population / units).times(most)


def text(projection: Projection) -> str:
    hours = ("wall_h", "gpu_h", "cpu_h", "gigabytes")
    rows: list[list[object]] = [
        [step.step, step.rows, step.rows_per_s, *(getattr(step, name) for name in hours)] for step in projection.steps
    ]
    rows.append(["all", "", "", *(float(sum(getattr(step, name) for step in projection.steps)) for name in hours)])
    ranges = {**projection.pairs, "total": projection.total_pairs}
    after: dict[str, object] = {**projection.photographs_for_quota, "total": ""}
    pairs = [
        [category, f"{of.estimate:.0f}", f"{of.low:.0f} to {of.high:.0f}", after[category]]
        for category, of in ranges.items()
    ]
    keep = projection.keep_rate
    lines = [
        f"projected from {projection.sampled} of {projection.photographs} photographs, on this cluster",
        table(["step", "rows", "rows/s", "wall h", "GPU h", "CPU h", "GB"], rows, digits=4),
        "",
        table(["category", "pairs", "95 % interval", "quota after photographs"], pairs),
        "",
        f"kept of candidates: {100 * keep.estimate:.1f} % (95 %: {100 * keep.low:.1f} to {100 * keep.high:.1f})",
        *_cost_lines(projection),
    ]
    return "\n".join(lines)


def _cost_lines(projection: Projection) -> Iterator[str]:
    """Lines on the cost of a kept pair: its parts, and what it leaves out."""
    pairs, price = projection.total_pairs.estimate, projection.gpu_hour_price
    gpu_h = sum(step.gpu_h for step in projection.steps)
    parts = {name: cost for name, cost in projection.server_costs.items() if cost is not None}
    if price is not None:
        parts = {f"GPUs at {price:g} an hour": price * gpu_h, **parts}
    each = ", ".join(f"{name} {cost / (pairs or 1):.4g}" for name, cost in parts.items())
    if projection.cost_per_pair is not None:
        yield f"cost of a kept pair: {projection.cost_per_pair:.4g} ({each})"
    elif gpu_h and parts:
        yield "cost of a kept pair: not known without --gpu-hour-price"
    elif parts and not pairs:
        yield f"no pair was kept; the whole would cost {sum(parts.values()):.4g} ({each})"
    if unknown := [name for name, cost in projection.server_costs.items() if cost is None]:
        yield f"not in the cost: {', '.join(unknown)} (no price is set, or the server reports no usage)"

"""The build as a flow: every step of every open wave offers rows as soon as their inputs are committed.

The steps say what is left to do for a photograph (`Step.todo`) when its wave is opened, and again after each commit of
one of its rows, so resumed and running builds are planned by the same code. Decisions that must not depend on timing
wait: a wave's photographs are judged when all of them, and those of earlier waves, are measured; and jobs of a category
with a quota are only requested in a wave when no wave in work could still fill it.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from crispedit.outcome import ERROR, KEPT, REJECTED, Failing, kind
from crispedit.pipelines import steps
from crispedit.pipelines.building import compaction, routing
from crispedit.pipelines.building.compaction import COMPACT, Compacting
from crispedit.pipelines.building.containers import LIST, Containers, members_of
from crispedit.pipelines.building.verdicts import Photographs, of_candidate
from crispedit.pipelines.building.waves import Finished, Waves
from crispedit.pipelines.run import Run
from crispedit.pipelines.scheduling.flow import Block, Route, Row, Stage
from crispedit.pipelines.scheduling.forecast import Forecast
from crispedit.pipelines.steps.annotate import requests
from crispedit.pipelines.steps.curate import CurateStep
from crispedit.pipelines.steps.step import ActiveWave, Step, Subject, folder_rows
from crispedit.record import canonical_json, content_key

FAILING = 0.8
"""The share of recent rows that must fail for one reason to stop a build."""


class Build:
    """The work of a build, for an executor (`scheduling.flow.Flow`). `only` names the steps to do (None: all), on what
    the others have committed. `retry_errors` also retries permanent errors; `sample` takes this many photographs of the
    source, by the hashes of their names."""

    def __init__(
        self, run: Run, only: Sequence[str] | None = None, *, retry_errors: bool = False, sample: int | None = None
    ) -> None:
        self.run, self.retry_errors = run, retry_errors
        self.steps = steps.of(run)
        self.active = [step for step in self.steps if only is None or step.name in only]
        self.whole = len(self.active) == len(self.steps)
        self.waves = Waves(run)
        self.photographs = Photographs(run, self.waves)
        self._sources = Containers(run, self.waves, sample) if self._does("curate") else None
        self._queues: dict[str, dict[tuple[int, str], deque[tuple[Route, Row]]]] = {}
        self.in_work: dict[int, ActiveWave] = {}
        self._next_open = self._next_judged = self._next_asked = 0
        self._kept: dict[int, Mapping[str, int]] = {}
        """By finished wave: the numbers for quotas."""
        self._measured: dict[int, Mapping[str, Mapping[str, Sequence[int]]]] = {}
        """By finished wave: the results of each editor's candidates."""
        self._most: dict[int, Mapping[str, int]] = {}
        """By wave in work: the most that it can give of each category."""
        self._recent: dict[str, deque[str | None]] = {}
        self._forecast = Forecast()
        # In one process there is no other work meanwhile.
        beside = run.recipe.engine.kind == "ray"
        self._planner = ThreadPoolExecutor(1) if beside else None
        self._planned: tuple[Future[Any], Callable[[Any], None]] | None = None
        self._recipe = policy(run)
        self._offer_listing()

    @property
    def drawn_from(self) -> int:
        """The number of photographs that the sample was drawn from."""
        return 0 if self._sources is None else self._sources.drawn_from

    # The executor's interface

    @property
    def stages(self) -> Sequence[Stage]:
        listed = [self._sources.stage] if self._sources is not None else []
        return [*listed, *(stage for step in self.active for stage in step.stages), Compacting(self.run.root)]

    def take(self, stage: str, rows: int) -> Block | None:
        self._advance()
        queues = self._queues.get(stage, {})
        while queues:
            oldest = min(queues)
            queue = queues[oldest]
            if not queue:
                del queues[oldest]
                continue
            route = queue[0][0]
            taken = [queue.popleft()[1] for _ in range(min(rows, len(queue)))]
            # Rows that are read together, such as a row group's, stay together.
            while queue and taken[-1].get("unit") is not None and queue[0][1].get("unit") == taken[-1]["unit"]:
                taken.append(queue.popleft()[1])
            return Block(route, taken)
        return None

    def waiting(self, stage: str) -> int:
        self._advance()
        return sum(map(len, self._queues.get(stage, {}).values()))

    def remaining(self, stage: str) -> float:
        photographs = sum(wave.photographs for wave in self.waves)
        if self._sources is not None:
            photographs += self._sources.to_come
        skipped = sum(wave.photographs for wave in self.waves if wave.number in self._kept)
        return self._forecast.remaining(stage, photographs - skipped, [step.name for step in self.active])

    def done(self, route: Route, rows: Sequence[Row]) -> None:
        self._forecast.done(route, len(rows))
        if route.step == LIST:
            assert self._sources is not None, "nothing was to be listed"
            self._sources.listed(rows)
        elif route.step == COMPACT:
            self._compacted(route.wave, rows)
        else:
            self._committed(route, rows)
        self._advance()

    def finished(self) -> bool:
        self._advance()
        more = self._sources is not None and not self._sources.exhausted
        return not (
            more
            or self.in_work
            or self._planned
            or self._next_open < len(self.waves)
            or self._next_judged < len(self.waves)
            or any(map(len, (queue for queues in self._queues.values() for queue in queues.values())))
        )

    # Waves

    def _advance(self) -> None:
        """Take the planner's result, and give it the next task."""
        while True:
            if self._planned is not None:
                future, then = self._planned
                if not future.done():
                    return
                self._planned = None
                then(future.result())
            if not self._plan_next():
                return

    def _plan_next(self) -> bool:
        """Give the planner a task, if there is one; one at a time, in the order of the waves."""
        ready = self._next_judged
        while ready < self._next_open and (ready not in self.in_work or self._curated(self.in_work[ready])):
            ready += 1
            if ready - 1 in self.in_work:  # one in work, after those with nothing left to do
                break
        if ready > self._next_judged:
            self._submit(partial(self._judge, range(self._next_judged, ready)), self._judged)
            return True
        if self._sources is not None and not self._sources.holds_waves:
            return False
        if len(self.in_work) < self.run.recipe.engine.open_waves:
            if self._next_open == len(self.waves) and self._sources is not None:
                self._sources.cut_wave()
            if self._next_open < len(self.waves):
                number = self._next_open
                self._next_open += 1
                if self._has_nothing_left(number):
                    return True
                self._reopen(number)
                return True
        return False

    def _submit(self, job: Callable[[], Any], then: Callable[[Any], None]) -> None:
        if self._planner is not None:
            self._planned = self._planner.submit(job), then
        else:
            then(job())

    def _does(self, step: str) -> bool:
        return any(one.name == step for one in self.active)

    def _has_nothing_left(self, number: int) -> bool:
        """Whether a wave is finished under this recipe, by its record."""
        wave = self.waves[number]
        finished = wave.finished
        return (
            finished is not None
            and wave.judged is not None
            and (finished.recipe, finished.judged) == (self._recipe, wave.judged.digest)
            and finished.parts == self.parts_of(wave.name)
            and not finished.transient
            and not (self.retry_errors and finished.errors)
        )

    def _reopen(self, number: int) -> None:
        self.in_work[number] = ActiveWave(number, {}, retry_errors=self.retry_errors)
        self._submit(partial(self._read, number), self._opened)

    def _read(self, number: int) -> ActiveWave:
        """A wave with its photographs, from its own folders."""
        record = self.waves[number]
        members = dict(members_of(self.run, record.listing))
        if record.drawn is not None:
            members = {uri: members[uri] for uri in record.drawn}
        wave = ActiveWave(number, members, True, retry_errors=self.retry_errors)
        curate = self.steps[0]
        for row in folder_rows(curate.folder(record.name), curate.table):
            curate.load(wave, row)
        return wave

    def _opened(self, wave: ActiveWave) -> None:
        self.in_work[wave.number] = wave
        curate = self.active[0] if self.active else None
        if isinstance(curate, CurateStep):
            for row in curate.files(wave):
                self._offer(wave, curate, row)

    def _curated(self, wave: ActiveWave) -> bool:
        """Whether all photographs of a wave are measured, and not judged yet."""
        return wave.read and wave.judged is None and not any(step == "curate" for step, _ in wave.out)

    def _judge(self, numbers: range) -> list[tuple[int, pa.Table, dict[str, list[Row]]]]:
        """The verdicts on the waves' photographs, and the rows of later steps for waves in work."""
        judged = []
        for number in numbers:
            verdicts = self.photographs.of(number)
            opened = number in self.in_work
            rows = {s.name: folder_rows(s.folder(self.waves[number].name), s.table) for s in self.steps[1:] if opened}
            judged.append((number, verdicts, rows))
        return judged

    def _judged(self, judged: list[tuple[int, pa.Table, dict[str, list[Row]]]]) -> None:
        for number, verdicts, rows in judged:
            record = self.waves[number].judged
            assert record is not None, f"wave {number} was not judged"
            if number not in self.in_work:
                if not self._has_nothing_left(number):
                    self._reopen(number)  # earlier waves keep other photographs now
                    return
                finished = self.waves[number].finished
                assert finished is not None, f"wave {number} was not finished"
                self._kept[number], self._measured[number] = finished.kept, finished.editors
            else:
                wave = self.in_work[number]
                wave.judged = record.digest
                for uri, key, outcome in zip(
                    *(verdicts.column(name).to_pylist() for name in ("uri", "key", "outcome")), strict=True
                ):
                    if outcome == KEPT:
                        subject = wave.subjects.setdefault(key, Subject(key))
                        subject.photographs.append(wave.photographs[uri])
                for step in self.steps[1:]:
                    for row in rows[step.name]:
                        step.load(wave, row)
            self._next_judged = number + 1
        self._ask()

    def _ask(self) -> None:
        """Find the full categories of judged waves, in order, and offer what is left to do in them."""
        while self._next_asked < self._next_judged:
            number = self._next_asked
            if number in self.in_work:
                full, shares = self._full(number), self._shares(number)
                if full is None or shares is None:
                    return
                wave = self.in_work[number]
                wave.full, wave.shares = full, shares
                self._most[number] = self._could_give(wave)
                self._forecast.photographs += len(wave.photographs)
                for subject in wave.subjects.values():
                    self._refresh(wave, subject)
                self._next_asked += 1
                self._finish_if_done(wave)
            else:
                self._next_asked += 1

    def _full(self, number: int) -> frozenset[str] | None:
        """The categories that earlier waves fill; None while that depends on waves in work."""
        full = set()
        for category, spec in self.run.recipe.categories.items():
            if spec.quota is None:
                continue
            sure = sum(kept.get(category, 0) for at, kept in self._kept.items() if at < number)
            if sure >= spec.quota:
                full.add(category)
            elif sure + sum(m.get(category, 0) for at, m in self._most.items() if at < number) >= spec.quota:
                return None
        return frozenset(full)

    def _shares(self, number: int) -> Mapping[str, Mapping[str, float]] | None:
        """The editors' recorded shares of a wave's jobs; None while they depend on waves in work."""
        recipe, recorded = self.run.recipe, self.waves[number].shares
        if recipe.edit.share is None:
            return {}
        if recorded is None and self._does("edit"):
            before = range(number - routing.LAG + 1)
            if any(at in self.in_work for at in before):
                return None
            counted = [self._measured.get(at, {}) for at in before]
            recorded = routing.shares(recipe.edit, recipe.categories, counted)
            self.waves.shared(number, recorded)
        return recorded or {}

    def _could_give(self, wave: ActiveWave) -> Mapping[str, int]:
        if not self._does("score") or self.run.recipe.imports_pairs:
            return {}
        asked = Counter(
            request["category"]
            for subject in wave.subjects.values()
            for request in requests(subject.key, self.run.recipe.categories)
        )
        assert wave.full is not None, f"wave {wave.number} was not asked"
        return {category: n for category, n in asked.items() if category not in wave.full}

    # Rows

    def _refresh(self, wave: ActiveWave, subject: Subject) -> None:
        for step in self.active:
            for row in step.todo(wave, subject):
                self._offer(wave, step, row)

    def _offer(self, wave: ActiveWave, step: Step, row: Row) -> None:
        at = (step.name, row[step.table.key])
        if at in wave.offered:
            return
        wave.offered.add(at)
        wave.out.add(at)
        stages = step.route(row)
        route = wave.routes.get((step.name, stages))
        if route is None:
            commit = step.commit(self.waves[wave.number].name)
            route = Route(step.name, wave.number, stages, step.wire, commit, step.failed, step.transient)
            wave.routes[step.name, stages] = route
        self._enqueue(route, row)

    def _enqueue(self, route: Route, row: Row) -> None:
        queues = self._queues.setdefault(route.stages[0], {})
        queues.setdefault((route.wave, route.step), deque()).append((route, row))
        self._forecast.offered(route)

    def _committed(self, route: Route, rows: Sequence[Row]) -> None:
        wave = self.in_work[route.wave]
        step = next(step for step in self.steps if step.name == route.step)
        touched = []
        for row in rows:
            wave.out.discard((step.name, row["key"]))
            for committed in row["committed"]:
                step.load(wave, committed)
                self._watch(step, committed)
                if step.name != "curate":
                    touched.append(step.subject(wave, committed))
        for key in dict.fromkeys(touched):
            if subject := wave.subjects.get(key):
                self._refresh(wave, subject)
        self._finish_if_done(wave)

    def _watch(self, step: Step, row: Row) -> None:
        """Raise Failing if most of a step's recent rows failed for one reason."""
        most = self.run.recipe.engine.stop_at_failures
        if most is None:
            return
        error = error_of(row)
        recent = self._recent.setdefault(step.name, deque(maxlen=most))
        recent.append(None if error is None else kind(error))
        if error is None or len(recent) < most:
            return
        [(reason, times)] = Counter(filter(None, recent)).most_common(1)
        if times >= FAILING * most:
            raise Failing(
                f"stopped: {times} of the last {most} rows of {step.name} failed with {reason!r}, the last one with "
                f"{error!r}. Find the cause, then run the same command again (--retry errors: also those that cannot "
                "pass by themselves); engine.stop_at_failures says when to stop"
            )

    def _finish_if_done(self, wave: ActiveWave) -> None:
        if wave.out or wave.full is None:
            return
        name = self.waves[wave.number].name
        route = compaction.route(wave.number)
        for step in self.steps:
            if len(_parts(step.folder(name))) > 1:
                place = str(step.folder(name).relative_to(self.run.root))
                wave.out.add((COMPACT, place))
                self._enqueue(route, compaction.folder(place, step.table))
        if not wave.out:
            self._close(wave)

    def _compacted(self, number: int, rows: Sequence[Row]) -> None:
        wave = self.in_work[number]
        for row in rows:
            wave.out.discard((COMPACT, row["key"]))
        if not wave.out:
            self._close(wave)

    def _close(self, wave: ActiveWave) -> None:
        """Record a finished wave, and forget its rows."""
        record = self.waves[wave.number]
        self.photographs.renamed(wave.number)
        kept, measured = self._passing(wave)
        assert wave.judged is not None, f"{record.name} was not judged"
        errors, transient = _errors(wave)
        finished = Finished(self._recipe, wave.judged, self.parts_of(record.name), kept, measured, errors, transient)
        self.waves.finished(wave.number, finished if self.whole else None)
        self._kept[wave.number], self._measured[wave.number] = kept, measured
        self._most.pop(wave.number, None)
        del self.in_work[wave.number]
        self._ask()

    def parts_of(self, wave: str) -> dict[str, int]:
        """Bytes of each part of a wave's tables."""
        paths = (path for step in self.steps for path in _parts(step.folder(wave)))
        return {path.relative_to(self.run.root).as_posix(): path.stat().st_size for path in paths}

    def _passing(self, wave: ActiveWave) -> tuple[dict[str, int], routing.Counts]:
        """Jobs with a passing candidate, by category; and by category and editor the numbers of measured and passing
        candidates."""
        kept: Counter[str] = Counter()
        measured: routing.Counts = {}
        for subject in wave.subjects.values():
            for job in subject.candidates.values():
                passing = []
                for candidate in job.values():
                    outcome = of_candidate(self.run.recipe, candidate)[0]
                    if outcome in (KEPT, REJECTED, ERROR):
                        of = measured.setdefault(candidate.category, {}).setdefault(candidate.editor, [0, 0])
                        of[0] += 1
                        of[1] += outcome == KEPT
                    if outcome == KEPT:
                        passing.append(candidate)
                kept.update(candidate.category for candidate in passing[:1])
        return dict(kept), measured

    # The source

    def _offer_listing(self) -> None:
        if self._sources is None:
            return
        for row in self._sources.todo():
            self._enqueue(self._sources.route, row)


def error_of(row: Mapping[str, Any]) -> str | None:
    """The error of a committed row: its own, or that of the first filter that failed on it."""
    own = row.get("error")
    return own or next((v for name, v in row.items() if name.endswith(".error") and v is not None), None)


def _parts(folder: Path) -> list[Path]:
    return list(folder.glob("part-*.parquet"))


def _errors(wave: ActiveWave) -> tuple[int, int]:
    """Rows of a wave with an error, and how many of them are transient."""
    errors = transient = 0
    rows: Iterable[Any] = [
        *wave.photographs.values(),
        *(r for s in wave.subjects.values() for r in s.requests.values()),
        *(c for s in wave.subjects.values() for job in s.candidates.values() for c in job.values()),
        *(c for s in wave.subjects.values() for c in s.comparisons.values()),
    ]
    for row in rows:
        scores = getattr(row, "scores", {})
        failed = [n.removesuffix(".error") for n, v in scores.items() if n.endswith(".error") and v is not None]
        errors += row.error is not None or bool(failed)
        passes = row.error is not None and bool(row.transient)
        transient += passes or any(not scores.get(f"{name}.measured") for name in failed)
    return errors, transient


def policy(run: Run) -> str:
    """Digest of the settings that decide what there is to do in a wave: the recipe without place, pools and packing."""
    recipe = run.recipe.model_dump(mode="json", exclude={"run", "engine", "pack"})
    files = {name: category.bounds for name, category in run.recipe.category_files.items()}
    bounds = {name: {key: b.model_dump() for key, b in of.items()} for name, of in files.items()}
    return content_key(canonical_json([_without_pools(recipe), bounds, steps.fingerprint(run)]))


def _without_pools(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_pools(inner) for key, inner in value.items() if key != "pool"}
    return [_without_pools(inner) for inner in value] if isinstance(value, list) else value

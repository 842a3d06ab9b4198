"""The build as a flow: every step of every open wave offers rows as soon as their inputs are committed.

The steps say what is left to do for a photograph (`Step.todo`) when its wave is opened, and again after each commit of
one of its rows, so resumed and running builds are planned by the same code. Decisions that must not depend on timing
wait: a wave's photographs are judged when all of them, and those of earlier waves, are measured; and jobs of a category
with a quota are only requested in a wave when no wave in work could still fill it.
"""

import json
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pyarrow as pa

from crispedit.outcome import ERROR, KEPT, REJECTED, Failing, kind
from crispedit.pipelines import steps
from crispedit.pipelines.building import routing
from crispedit.pipelines.building.containers import LIST, Containers, members_of
from crispedit.pipelines.building.verdicts import Photographs, of_candidate
from crispedit.pipelines.building.waves import COMPACT, Compacting, Finished, Waves
from crispedit.pipelines.run import Run
from crispedit.pipelines.scheduling.flow import Block, Route, Row, Stage
from crispedit.pipelines.steps.annotate import requests
from crispedit.pipelines.steps.curate import CurateStep
from crispedit.pipelines.steps.step import ActiveWave, Step, Subject
from crispedit.record import canonical_json, content_key

PART = "part-*.parquet"
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
        self._active = [step.name for step in self.active]
        self.waves = Waves(run)
        self.photographs = Photographs(run, self.waves)
        self._queues: dict[str, dict[tuple[int, str], deque[tuple[Route, Row]]]] = {}
        """Rows that wait for a stage, by wave and step."""
        self.in_work: dict[int, ActiveWave] = {}
        self._next_open = self._next_judged = self._next_asked = 0
        self._finished: dict[int, Finished] = {}
        """The results of the waves so far that have nothing left to do."""
        self._recent: dict[str, deque[str | None]] = {}
        self._offered: Counter[tuple[str, tuple[str, ...]]] = Counter()
        self._done: Counter[tuple[str, tuple[str, ...]]] = Counter()
        """Rows by step and stages, from which the rows to come are estimated."""
        self._judged_photographs = 0
        self._planner = ThreadPoolExecutor(1)
        self._planned: tuple[Future[Any], Callable[[Any], None]] | None = None
        self._recipe = policy(run)
        self._sources = Containers(run, self.waves, sample) if "curate" in self._active else None
        if self._sources is not None:
            for row in self._sources.todo:
                self._enqueue(self._sources.route, row)

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
        queues = self._queues.get(stage)
        if not queues:
            return None
        oldest = min(queues)
        queue = queues[oldest]
        route = queue[0][0]
        taken = [queue.popleft()[1] for _ in range(min(rows, len(queue)))]
        # Rows that are read together, such as a row group's, stay together.
        while queue and taken[-1].get("unit") is not None and queue[0][1].get("unit") == taken[-1]["unit"]:
            taken.append(queue.popleft()[1])
        if not queue:
            del queues[oldest]
        return Block(route, taken)

    def waiting(self, stage: str) -> int:
        self._advance()
        return sum(map(len, self._queues.get(stage, {}).values()))

    def remaining(self, stage: str) -> float:
        photographs = sum(wave.photographs for wave in self.waves if wave.number not in self._finished)
        if self._sources is not None:
            photographs += self._sources.to_come
        # Each step is expected to keep its present ratio of rows to the step before.
        expected: dict[tuple[str, tuple[str, ...]], float] = {}
        before, finished = 0.0, 0
        for place, step in enumerate(self._active):
            ways = [way for way in self._offered if way[0] == step]
            for way in ways:
                ratio = self._offered[way] / finished if finished else 0.0
                expected[way] = ratio * before if place else photographs
            before = sum(expected[way] for way in ways) or photographs
            finished = sum(self._done[way] for way in ways) if place else self._judged_photographs
        ways = [way for way in self._offered if stage in way[1]]
        return sum(max(self._offered[way], expected.get(way, 0.0)) - self._done[way] for way in ways)

    def done(self, route: Route, rows: Sequence[Row]) -> None:
        self._done[route.step, route.stages] += len(rows)
        if route.step == LIST:
            assert self._sources is not None, "nothing was to be listed"
            self._sources.listed(rows)
        else:
            wave = self.in_work[route.wave]
            wave.out -= {(route.step, row["key"]) for row in rows}
            if route.step != COMPACT:
                self._committed(wave, route.step, rows)
            elif not wave.out:
                self._close(wave)
        self._advance()

    def finished(self) -> bool:
        self._advance()
        to_list = self._sources is not None and not self._sources.exhausted
        to_open = min(self._next_open, self._next_judged) < len(self.waves)
        return not (to_list or to_open or self.in_work or self._planned or any(self._queues.values()))

    # Waves

    def _advance(self) -> None:
        """Take the planner's result, and give it the next task."""
        while True:
            if self._planned is not None:
                future, then = self._planned
                # In one process there is no other work meanwhile.
                if not future.done() and self.run.recipe.engine.kind == "ray":
                    return
                self._planned = None
                then(future.result())
            elif not self._plan_next():
                return

    def _plan_next(self) -> bool:
        """Give the planner a task, if there is one; one at a time, in the order of the waves."""
        ready = self._next_judged
        while ready < self._next_open and (ready not in self.in_work or self.in_work[ready].curated):
            ready += 1
            if ready - 1 in self.in_work:  # one in work, after those with nothing left to do
                break
        if ready > self._next_judged:
            self._planned = self._planner.submit(self._judge, range(self._next_judged, ready)), self._judged
            return True
        if self._sources is not None and not self._sources.holds_waves:
            return False
        if len(self.in_work) >= self.run.recipe.engine.open_waves:
            return False
        if self._next_open == len(self.waves) and self._sources is not None:
            self._sources.cut_wave()
        if self._next_open == len(self.waves):
            return False
        if self._left_nothing(self._next_open) is None:
            self._planned = self._planner.submit(self._read, self._next_open), self._opened
        self._next_open += 1
        return True

    def _left_nothing(self, number: int) -> Finished | None:
        """The record of a wave that has nothing left to do under this recipe; None if it may have."""
        wave = self.waves[number]
        judged, finished = wave.judged, wave.finished
        if finished is None or judged is None or (finished.recipe, finished.judged) != (self._recipe, judged.digest):
            return None
        to_retry = finished.transient or (self.retry_errors and finished.errors)
        return finished if not to_retry and finished.parts == self.parts_of(wave.name) else None

    def _read(self, number: int) -> ActiveWave:
        """A wave with its photographs, from its own folders."""
        record = self.waves[number]
        members = dict(members_of(self.run, record.listing))
        if record.drawn is not None:
            members = {uri: members[uri] for uri in record.drawn}
        wave = ActiveWave(number, members, retry_errors=self.retry_errors)
        for row in self.steps[0].rows(record.name):
            self.steps[0].load(wave, row)
        return wave

    def _opened(self, wave: ActiveWave) -> None:
        self.in_work[wave.number] = wave
        for step in self.active:
            if isinstance(step, CurateStep):
                for row in step.files(wave):
                    self._offer(wave, step, row)

    def _judge(self, numbers: range) -> list[tuple[int, pa.Table, list[tuple[Step, Row]]]]:
        """The verdicts on the waves' photographs, and the rows of later steps for waves in work."""
        judged = []
        for number in numbers:
            verdicts = self.photographs.of(number)
            later, name = self.steps[1:] if number in self.in_work else [], self.waves[number].name
            judged.append((number, verdicts, [(step, row) for step in later for row in step.rows(name)]))
        return judged

    def _judged(self, judged: list[tuple[int, pa.Table, list[tuple[Step, Row]]]]) -> None:
        for number, verdicts, rows in judged:
            if (wave := self.in_work.get(number)) is not None:
                self._add_subjects(wave, verdicts, rows)
            elif (finished := self._left_nothing(number)) is not None:
                self._finished[number] = finished
            else:
                # Earlier waves keep other photographs now.
                self._planned = self._planner.submit(self._read, number), self._opened
                return
            self._next_judged = number + 1
        self._ask()

    def _add_subjects(self, wave: ActiveWave, verdicts: pa.Table, rows: Sequence[tuple[Step, Row]]) -> None:
        """Add the kept photographs to a wave that is judged, and their rows of later steps."""
        judged = self.waves[wave.number].judged
        assert judged is not None, f"wave {wave.number} was not judged"
        wave.judged = judged.digest
        columns = (verdicts.column(name).to_pylist() for name in ("uri", "key", "outcome"))
        for uri, key, outcome in zip(*columns, strict=True):
            if outcome == KEPT:
                wave.subjects.setdefault(key, Subject(key)).photographs.append(wave.photographs[uri])
        for step, row in rows:
            step.load(wave, row)

    def _ask(self) -> None:
        """Find the full categories of judged waves, in order, and offer what is left to do in them."""
        while self._next_asked < self._next_judged:
            number = self._next_asked
            wave = self.in_work.get(number)
            if wave is not None:
                full, shares = self._full(number), self._shares(number)
                if full is None or shares is None:
                    return
                wave.full, wave.shares = full, shares
                wave.most = self._could_give(wave, full)
                self._judged_photographs += len(wave.photographs)
                for subject in wave.subjects.values():
                    self._refresh(wave, subject)
            self._next_asked += 1
            if wave is not None:
                self._finish_if_done(wave)

    def _full(self, number: int) -> frozenset[str] | None:
        """The categories that earlier waves fill; None while that depends on waves in work."""
        full = set()
        for category, spec in self.run.recipe.categories.items():
            if spec.quota is None:
                continue
            sure = sum(wave.kept.get(category, 0) for at, wave in self._finished.items() if at < number)
            if sure >= spec.quota:
                full.add(category)
            elif sure + sum(w.most.get(category, 0) for at, w in self.in_work.items() if at < number) >= spec.quota:
                return None
        return frozenset(full)

    def _shares(self, number: int) -> Mapping[str, Mapping[str, float]] | None:
        """The editors' recorded shares of a wave's jobs; None while they depend on waves in work."""
        recipe, recorded = self.run.recipe, self.waves[number].shares
        if recipe.edit.share is None:
            return {}
        if recorded is None and "edit" in self._active:
            before = range(number - routing.LAG + 1)
            if any(at in self.in_work for at in before):
                return None
            counted = [self._finished[at].editors for at in before if at in self._finished]
            recorded = routing.shares(recipe.edit, recipe.categories, counted)
            self.waves.change(number, shares=recorded)
        return recorded or {}

    def _could_give(self, wave: ActiveWave, full: frozenset[str]) -> Mapping[str, int]:
        if "score" not in self._active or self.run.recipe.imports_pairs:
            return {}
        asked = Counter(
            request["category"]
            for subject in wave.subjects.values()
            for request in requests(subject.key, self.run.recipe.categories)
        )
        return {category: n for category, n in asked.items() if category not in full}

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
        self._offered[route.step, route.stages] += 1

    def _committed(self, wave: ActiveWave, name: str, rows: Sequence[Row]) -> None:
        step = next(step for step in self.steps if step.name == name)
        touched = []
        for committed in (committed for row in rows for committed in row["committed"]):
            step.load(wave, committed)
            self._watch(step, committed)
            if name != "curate":
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
        # The row's own error, or that of the first filter that failed on it.
        failed = (value for name, value in row.items() if name.endswith(".error") and value is not None)
        error = row.get("error") or next(failed, None)
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
        route = Compacting.route(wave.number)
        for step in self.steps:
            folder = step.folder(self.waves[wave.number].name)
            if len(list(folder.glob(PART))) > 1:
                place = str(folder.relative_to(self.run.root))
                wave.out.add((COMPACT, place))
                self._enqueue(route, Compacting.row(place, step.table))
        if not wave.out:
            self._close(wave)

    def _close(self, wave: ActiveWave) -> None:
        """Record a finished wave, and forget its rows."""
        number, name = wave.number, self.waves[wave.number].name
        self.photographs.renamed(number)
        assert wave.judged is not None, f"{name} was not judged"
        finished = Finished(self._recipe, wave.judged, self.parts_of(name), *self._passing(wave), *_errors(wave))
        self.waves.change(number, finished=finished if len(self.active) == len(self.steps) else None)
        self._finished[number] = finished
        del self.in_work[number]
        self._ask()

    def parts_of(self, wave: str) -> dict[str, int]:
        """Bytes of each part of a wave's tables."""
        paths = (path for step in self.steps for path in step.folder(wave).glob(PART))
        return {path.relative_to(self.run.root).as_posix(): path.stat().st_size for path in paths}

    def _passing(self, wave: ActiveWave) -> tuple[dict[str, int], routing.Counts]:
        """Jobs with a passing candidate, by category; and by category and editor the numbers of measured and passing
        candidates."""
        kept: Counter[str] = Counter()
        measured: routing.Counts = {}
        for subject in wave.subjects.values():
            for job in subject.candidates.values():
                outcomes = [(one, of_candidate(self.run.recipe, one)[0]) for one in job.values()]
                for candidate, outcome in outcomes:
                    if outcome in (KEPT, REJECTED, ERROR):
                        counts = measured.setdefault(candidate.category, {}).setdefault(candidate.editor, [0, 0])
                        counts[0] += 1
                        counts[1] += outcome == KEPT
                kept.update([candidate.category for candidate, outcome in outcomes if outcome == KEPT][:1])
        return dict(kept), measured


def _errors(wave: ActiveWave) -> tuple[int, int]:
    """Rows of a wave with an error, and how many of them are transient."""
    errors = transient = 0
    rows: list[Any] = list(wave.photographs.values())
    for subject in wave.subjects.values():
        rows += [*subject.requests.values(), *subject.comparisons.values()]
        rows += [candidate for job in subject.candidates.values() for candidate in job.values()]
    for row in rows:
        scores = getattr(row, "scores", {})
        failed = [n.removesuffix(".error") for n, v in scores.items() if n.endswith(".error") and v is not None]
        errors += row.error is not None or bool(failed)
        may_pass = row.error is not None and bool(row.transient)
        transient += may_pass or any(not scores.get(f"{name}.measured") for name in failed)
    return errors, transient


def policy(run: Run) -> str:
    """Digest of the settings that decide what there is to do in a wave: the recipe without place, pools and packing."""
    settings = run.recipe.model_dump_json(exclude={"run", "engine", "pack"})
    recipe = json.loads(settings, object_hook=lambda of: {key: value for key, value in of.items() if key != "pool"})
    files = {name: category.bounds for name, category in run.recipe.category_files.items()}
    bounds = {name: {key: b.model_dump() for key, b in of.items()} for name, of in files.items()}
    return content_key(canonical_json([recipe, bounds, steps.fingerprint(run)]))

"""Evaluation: runs editors on a benchmark's cases and measures their answers, in tables of committed parts.

    OUT/NAME/answers/   one row per case, editor and seed: the image it answered with (PNG), or its refusal
    OUT/NAME/scores/    one row per answer, judgement and set of models: the metrics
    OUT/NAME/matches/   of a pairwise benchmark: one row per case and pair of answers, with the judge's verdicts

A row's key hashes everything that determines it (case, editor with its weights, seed, models), so an interrupted run
can be resumed, a changed option adds rows beside the old ones, and nothing is scored twice. Failures and unreadable
replies have separate keys and are retried by the next run.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path, PurePosixPath
from typing import Any

import xxhash

from crispedit import metrics
from crispedit.benchmark import Benchmark, Case, Picture
from crispedit.parts import Editor
from crispedit.pipelines import engine
from crispedit.pipelines.engine import Row, Work
from crispedit.pipelines.evaluation import tables
from crispedit.pipelines.evaluation.recipe import EntrySpec, EvaluationRecipe
from crispedit.pipelines.evaluation.stages import AnswerStage, Edits, MetricStage
from crispedit.pipelines.evaluation.tables import Committed, Committing, Kind
from crispedit.record import canonical_json, content_key, seed_of
from crispedit.replies import Winner
from crispedit.shards import journal

WORDS_PER_TOKEN = 4
"""Approximate letters per token, to estimate a prompt's tokens."""
PROMPT_LETTERS, ANSWER_TOKENS = 2400, 150
"""Approximate letters of a published prompt, and tokens of its answer."""
COPY, TRUTH = "copy-source", "ground-truth"
"""The controls: the unchanged source, and the benchmark's target."""
RECALLED = 64
"""Cached edits that are committed in one part."""
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


@dataclass(frozen=True)
class Given:
    """An answer before scoring: its image's location, or why there is none. `key` identifies what it is made from."""

    key: str
    picture: Picture | None
    reason: str = ""
    kind: Kind = "scored"
    seconds: float | None = None


Seeds = Sequence[Mapping[str, Given]]
"""An editor's answers, by case, for each seed."""


@dataclass(frozen=True)
class Outcome:
    """The result of one answer: its scores, or why it has none."""

    case: Case
    reason: str = ""
    """Why it has no scores; empty if it was scored."""
    black: bool = False
    values: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    kind: Kind = "scored"
    seed: int = 0
    repeat: int = 0
    words: Sequence[str] = ()
    """What the judge said."""


@dataclass(frozen=True)
class JudgedComparison:
    """A judge's comparison of two editors' answers to one case, by dimension."""

    case: Case
    first: str
    second: str
    winners: Mapping[str, Winner | None] = field(default_factory=dict)
    in_order: Mapping[str, Winner | None] = field(default_factory=dict)
    reversed: Mapping[str, Winner | None] = field(default_factory=dict)
    kind: Kind = "scored"
    reason: str = ""
    words: Sequence[str] = ()


class Evaluation:
    """One benchmark of an evaluation: its cases, everyone's answers and their scores, in tables of its own."""

    def __init__(self, of: EvaluationRecipe, name: str, benchmark: Benchmark, cases: Sequence[Case]) -> None:
        self.of, self.name, self.benchmark = of, name, benchmark
        self.cases = {case.id: case for case in cases}
        if len(self.cases) < len(cases):
            twice = next(case for case, count in Counter(case.id for case in cases).items() if count > 1)
            raise ValueError(f"benchmarks.{name}: two cases have the id {twice!r}")
        self.answers: dict[str, Seeds] = {}
        """By editor, once `edit` has run."""
        out = of.out.absolute()
        self.edits = Edits((of.edits or out.parent / "edits").absolute())
        self.table = tables.MATCHES if benchmark.pairwise else tables.SCORES
        self.answer_folder = out / name / "answers"
        self.measure_folder = out / name / ("matches" if benchmark.pairwise else "scores")
        self._identity = canonical_json(benchmark.identity())
        self._models = canonical_json({"models": of.models.identity(), "metrics": metrics.VERSION})

    def sources(self) -> dict[str, Picture | None]:
        """Every case's source, of later turns the first turn's."""
        return {case: given.picture for case, given in self.copied()[0].items()}

    # Answers

    def edit(self, editors: Mapping[str, Editor]) -> None:
        """Run the editors, one after the other, on the cases that they have not answered."""
        for folder in (self.answer_folder, self.measure_folder):
            journal.sweep(folder)
        (self.measure_folder / tables.STOPPED).unlink(missing_ok=True)
        controls = {COPY: self.copied, TRUTH: self.truth}
        self.answers = {label: controls[label]() for label in self.of.controls}
        for label, spec in self.of.editors.items():
            if spec.results is not None:
                self.answers[label] = self._in_folders(label, spec)
                continue
            editor = editors[label]
            working = editor.model_copy()  # freed with its weights before the next editor loads
            for wave in self.waves():
                if (work := self._editing(label, working, wave, spec)).plan:
                    engine.run(work, self.of.engine)
            self.answers[label] = self.edited(editor, spec.seeds)

    def _in_folders(self, label: str, spec: EntrySpec) -> Seeds:
        if spec.editor is not None or spec.options or spec.seeds != 1:
            raise ValueError(f"editors.{label}: a folder of results takes no editor and no options")
        assert spec.results is not None
        folders = spec.results if isinstance(spec.results, tuple) else (spec.results,)
        return [self.found_in(folder) for folder in folders]

    def copied(self) -> Seeds:
        """The control that does nothing: every case's source (for later turns, the first turn's)."""
        given: dict[str, Given] = {}
        for case in self.cases.values():
            before = given[case.after].picture if case.after is not None else case.source
            given[case.id] = Given(COPY, before)
        return [given]

    def truth(self) -> Seeds:
        """The control that answers with the targets; empty if the benchmark has none."""
        return [{case.id: Given(TRUTH, case.target) for case in self.cases.values() if case.target is not None}]

    def found_in(self, folder: Path) -> Mapping[str, Given]:
        """Results from a folder of images named by the cases' ids. ValueError if it holds none of them."""
        if not folder.is_dir():
            raise ValueError(f"{folder} is not a folder of results")
        files: dict[str, list[Path]] = {}
        for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file()):
            files.setdefault(path.stem, []).append(path)
        wanted = {case.id: PurePosixPath(case.result or case.id) for case in self.cases.values()}
        names = Counter(path.name for path in set(wanted.values()))
        given = {}
        for case, name in wanted.items():
            same = files.get(name.name, [])
            named = [p for p in same if p.with_suffix("").parts[-len(name.parts) :] == name.parts]
            # Folders may be left out if the file's name alone identifies the case.
            if not named and len(same) == names[name.name] == 1:
                named = same
            if named:
                digest = xxhash.xxh3_128_hexdigest(named[0].read_bytes())
                given[case] = Given(digest, Picture(str(named[0].absolute())))
        if not given:
            example = next(iter(wanted.values()), "ID")
            raise ValueError(f"{folder} holds no results for {self.name}: its images are named {example}.png")
        missing = Given("", None, "no image in the folder", "missing")
        return {case: given.get(case, missing) for case in self.cases}

    def waves(self) -> list[list[Case]]:
        """The cases in rounds; each round needs only answers of earlier rounds."""
        depth: dict[str, int] = {}
        for case in self.cases.values():
            if case.after is not None and case.after not in depth:
                raise ValueError(f"{self.name}: case {case.id} comes before {case.after}, which it continues")
            depth[case.id] = 0 if case.after is None else depth[case.after] + 1
        rounds: list[list[Case]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
        for case in self.cases.values():
            rounds[depth[case.id]].append(case)
        return rounds

    def _editing(self, label: str, editor: Editor, wave: Sequence[Case], spec: EntrySpec) -> Work:
        """The edits left in one round, after the cached ones were committed."""
        plan = [{**row, "editor": label} for row in self._left(editor, wave, spec.seeds)]
        known = [row for row in plan if self.edits.has(row["edit"])]
        recalled: set[str] = set()
        for start in range(0, len(known), RECALLED):
            cached = [(row, self.edits.recall(row["edit"])) for row in known[start : start + RECALLED]]
            done = [{**row, **columns} for row, columns in cached if columns is not None]
            journal.commit(self.answer_folder, tables.ANSWERS, done)
            recalled |= {row["key"] for row in done}
        plan = [row for row in plan if row["key"] not in recalled]
        stage = AnswerStage(f"edit {label}", spec.pool, editor, self.benchmark, self.edits, editor.gpus)
        table = tables.ANSWERS
        return Work(stage.name, self.answer_folder, table, plan, [stage], tables.ASKED, Committing(table))

    def left(self, editor: Editor, seeds: int) -> int:
        """The number of edits that are neither committed nor cached."""
        given = [answer for answers in self.edited(editor, seeds) for answer in answers.values()]
        missing = sum(answer.picture is None and answer.kind != "refused" for answer in given)
        rows = [row for wave in self.waves() for row in self._left(editor, wave, seeds)]
        return missing - sum(self.edits.has(row["edit"]) for row in rows)

    def _left(self, editor: Editor, wave: Sequence[Case], seeds: int) -> Iterator[Row]:
        """The uncommitted rows of one round whose source is known."""
        identity, shown = canonical_json(editor.identity()), canonical_json(self.benchmark.editing())
        for seed, given in enumerate(self.edited(editor, seeds)):
            for case in wave:
                source = case.source if case.after is None else given[case.after].picture
                if source is not None and given[case.id].picture is None and given[case.id].kind != "refused":
                    key = self.answer_key(case, identity, seed)
                    number = seed_of(content_key("evaluate", case.id, str(seed)), "edit")
                    pixels = xxhash.xxh3_128_hexdigest(source.read())
                    asked = canonical_json(vars(case.job()) | {"source_key": pixels})
                    row = {"key": key, "of": key, "case": case.id, "seed": seed, "number": number}
                    row |= {"edit": content_key("edit", identity, shown, asked, str(number))}
                    yield row | {"asked_of": case.to_json(), "source": _where(source)}

    def edited(self, editor: Editor, seeds: int) -> Seeds:
        identity = canonical_json(editor.identity())
        committed = Committed(self.answer_folder, tables.ANSWERS)
        return [
            {case.id: self._given(committed, self.answer_key(case, identity, seed)) for case in self.cases.values()}
            for seed in range(seeds)
        ]

    def _given(self, committed: Committed, key: str) -> Given:
        row = committed.done.get(key)
        if row is None:
            reason = committed.failed.get(key)
            return Given(key, None, f"error: {reason}" if reason else "not edited", "error")
        if row["image"] is None:
            return Given(key, None, row["refusal"], "refused", row["seconds"])
        ref = row["image"]
        picture = Picture(str(self.answer_folder / ref["tar"]), offset=ref["offset"], size=ref["size"])
        return Given(key, picture, seconds=row["seconds"])

    def answer_key(self, case: Case, identity: str, seed: int = 0) -> str:
        shown = canonical_json(self.benchmark.editing())
        return content_key("answer", shown, identity, str(seed), *self._chain(case))

    def _chain(self, case: Case) -> list[str]:
        """The case and the earlier turns that its answer depends on."""
        before = [] if case.after is None else self._chain(self.cases[case.after])
        return [*before, case.id, case.instruction]

    # Measurements

    def scored(self) -> dict[str, Seeds]:
        """The answers to measure; a comparison leaves the ground truth out."""
        return {name: a for name, a in self.answers.items() if not (self.benchmark.pairwise and name == TRUTH)}

    def measure(self) -> None:
        """Measure every answer, or every pair of answers for a pairwise benchmark, that is not measured yet."""
        if (work := self._measuring()).plan:
            engine.run(work, self.of.engine)

    def _measuring(self) -> Work:
        """The measurements left, case by case, so that a target is embedded once."""
        committed = Committed(self.measure_folder, self.table, keys_only=True)
        sources = self.sources()
        plan: dict[str, Row] = {}  # the same answer under two labels is one row
        for case, players in self._pairs() if self.benchmark.pairwise else self._single():
            shared = {"case": case.id, "asked_of": case.to_json(), "source": _where(sources[case.id])}
            for name, (label, given) in zip(tables.players_of(self.table), players.items(), strict=True):
                shared |= {name: label, f"{name}_answer": _where(given.picture)}
            for repeat in range(self.of.judgements):
                key = self.key(case, *players.values(), repeat=repeat)
                if key not in committed.done:
                    plan[key] = {"key": key, "of": key, "repeat": repeat, **shared}
        name = "compare" if self.benchmark.pairwise else "score"
        of, folder, table = self.of, self.measure_folder, self.table
        kept = (of.kept or of.out.absolute().parent / "judge-replies").absolute()
        stage = MetricStage(name, of.measure, self.benchmark, of.models, kept, folder, of.measure.gpus or 0.0)
        return Work(name, folder, table, [*plan.values()], [stage], tables.wire(table), Committing(table))

    def outcomes(self) -> dict[str, list[Outcome]]:
        """By editor, the outcome of every answer to a scored case, from the committed rows. None if pairwise."""
        committed = Committed(self.measure_folder, self.table)
        answers = {} if self.benchmark.pairwise else self.answers
        return {label: [*self._outcomes(seeds, committed)] for label, seeds in answers.items()}

    def _outcomes(self, seeds: Seeds, committed: Committed) -> Iterator[Outcome]:
        for case in self.cases.values():
            for seed, given in enumerate(seeds):
                answer = given.get(case.id)
                if answer is None or not case.protocols:
                    continue
                if answer.picture is None:
                    yield Outcome(case, answer.reason, kind=answer.kind, seed=seed)
                    continue
                for repeat in range(self.of.judgements):
                    result = committed.result(self.key(case, answer, repeat=repeat), "values", "words", "black")
                    yield Outcome(case, seed=seed, repeat=repeat, **result)

    def verdicts(self) -> list[JudgedComparison]:
        """The judge's verdicts on every comparable pair, from the committed rows. None if not pairwise."""
        if not self.benchmark.pairwise:
            return []
        committed = Committed(self.measure_folder, self.table)
        verdicts = []
        for case, players in self._pairs():
            for repeat in range(self.of.judgements):
                key = self.key(case, *players.values(), repeat=repeat)
                result = committed.result(key, "winners", "in_order", "reversed", "words")
                first, second = players
                verdicts.append(JudgedComparison(case, first, second, **result))
        return verdicts

    def _single(self) -> Iterator[tuple[Case, dict[str, Given]]]:
        """Every answer to a scored case, with its editor."""
        for case in self.cases.values():
            for label, seeds in self.answers.items():
                for given in seeds:
                    answer = given.get(case.id)
                    if case.protocols and answer is not None and answer.picture is not None:
                        yield case, {label: answer}

    def _pairs(self) -> Iterator[tuple[Case, dict[str, Given]]]:
        """Both answers by editor, seed by seed, in an order drawn for the case."""
        answers = self.scored()
        for case in self.cases.values():
            for one, other in combinations(sorted(answers), 2):
                drawn = seed_of(content_key(case.id, one, other), "order") % 2
                for ours, theirs in zip(answers[one], answers[other], strict=False):
                    pair = [(one, ours.get(case.id)), (other, theirs.get(case.id))]
                    known = {name: given for name, given in pair if given is not None and given.picture is not None}
                    if len(known) == 2:
                        yield case, dict(reversed(known.items())) if drawn else known

    def key(self, case: Case, *given: Given, repeat: int = 0) -> str:
        """The key of a measurement of these answers."""
        kind = "match" if self.benchmark.pairwise else "score"
        answers = [answer.key for answer in given]
        return content_key(kind, self._identity, self._models, case.to_json(), *answers, str(repeat))

    # Costs

    def to_edit(self, editors: Mapping[str, Editor]) -> list[str]:
        """A line for each editor with the number of edits left."""
        lines = []
        for label, editor in editors.items():
            seeds = self.of.editors[label].seeds
            left, edits = self.left(editor, seeds), seeds * len(self.cases)
            lines.append(f"{self.name}: {label} has {left} of {edits} edits left")
        return lines

    def paid(self, everything: bool = False) -> list[str]:
        """What the judge will be asked, and the approximate cost. `everything`: as if all answers existed."""
        if self.benchmark.questions == 0 or self.of.models.judge is None:
            return [f"{self.name}: nothing to ask a judge"]
        rows = self._answers_to_come() if everything else len(self._measuring().plan)
        questions = round(rows * self.benchmark.questions)
        line = f"{self.name}: at most {questions} questions to the judge ({self.of.models.judge.model})"
        price = self.of.price
        if price is None:
            return [f"{line}; set price={{prompt_per_million: ..., answer_per_million: ...}} for an estimate"]
        prompt = questions * (PROMPT_LETTERS / WORDS_PER_TOKEN + 1.5 * price.image_tokens)
        cost = price.of(prompt, questions * ANSWER_TOKENS)
        return [f"{line}, about {cost:.2f} {price.currency}; replies that were kept cost nothing"]

    def _answers_to_come(self) -> int:
        """The number of judgements if all answers existed."""
        scored = sum(bool(case.protocols) for case in self.cases.values())
        targets = any(case.target is not None for case in self.cases.values())
        players = [1 for name in self.of.controls if name == COPY or targets]
        for spec in self.of.editors.values():
            players.append(len(spec.results) if isinstance(spec.results, tuple) else spec.seeds)
        of_case = sum(map(min, combinations(players, 2))) if self.benchmark.pairwise else sum(players)
        return scored * of_case * self.of.judgements

    def cost(self) -> dict[str, Any]:
        """The benchmark's cost so far: seconds per edit, questions, tokens, price."""
        seconds = {}
        for label, seeds in self.answers.items():
            timed = [g.seconds for given in seeds for g in given.values() if g.seconds is not None]
            if timed:
                seconds[label] = sum(timed) / len(timed)
        tokens, price = self._tokens(), self.of.price
        prompt, answer = tokens["prompt_tokens"], tokens["answer_tokens"]
        known = price is not None and prompt is not None and answer is not None
        spent = price.of(prompt, answer) if known else None  # type: ignore[union-attr, arg-type]
        currency = None if price is None else price.currency
        return {"seconds_per_edit": seconds, **tokens, "price": spent, "currency": currency}

    def stopped(self) -> str | None:
        """Why the judge counts as down, if a stage of this run found so."""
        file = self.measure_folder / tables.STOPPED
        return str(json.loads(file.read_text(encoding="utf-8"))["last"]) if file.is_file() else None

    def _tokens(self) -> dict[str, int | None]:
        """Questions and tokens of all committed judgements, including unreadable ones. Tokens are None if the server
        does not count them."""
        names = [name for name, _ in tables.COST]
        rows = journal.read(self.measure_folder, self.table, names).to_pylist()
        totals = {name: sum(row[name] or 0 for row in rows) for name in names}
        counted = totals["prompt_tokens"] > 0 or totals["asked"] == 0
        return {name: count if counted or "tokens" not in name else None for name, count in totals.items()}


def _where(picture: Picture | None) -> str:
    assert picture is not None
    return canonical_json(vars(picture))

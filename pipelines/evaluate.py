"""Evaluate editors on benchmarks, against two controls: copying the source, and the ground truth.

    crispedit evaluate configs/evaluate/shards.yaml benchmarks.shards.path=SHARDS out=runs/evaluation
    crispedit evaluate gedit --plan          # show what would be edited, asked and paid, without doing it

Writes OUT/results.json, results.md, results.csv, results.tex, cases.parquet, cost.json and sheets/, beside the resolved
recipe and the tables behind them. The same command resumes an interrupted run; nothing is edited, scored or asked
twice. docs/evaluation.md explains the protocols.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field

from crispedit import benchmarks as benchmark_folder
from crispedit import editors as editor_folder
from crispedit import parts, recipe
from crispedit.benchmark import Benchmark, Case, Picture, Protocol
from crispedit.benchmarks.shards import Shards
from crispedit.measures import Models
from crispedit.parts import Editor
from crispedit.pipelines import engine
from crispedit.pipelines.evaluation import cases as case_table
from crispedit.pipelines.evaluation import preferences, report, scoreboard, sheets
from crispedit.pipelines.evaluation.preferences import Preference
from crispedit.pipelines.evaluation.runner import COPY, TRUTH, Evaluation, JudgedComparison, Outcome, Seeds
from crispedit.pipelines.recipe import EngineSpec
from crispedit.recipe import PartSpec, Pool, Strict
from crispedit.record import content_key
from crispedit.replies import Winner
from crispedit.shards import journal, layout, storage
from crispedit.shards.index import open_index
from crispedit.shards.lock import locked
from crispedit.shards.remote import Cache

WORDS_PER_TOKEN = 4
"""Approximate letters per token, to estimate a prompt's tokens."""
PROMPT_LETTERS, ANSWER_TOKENS = 2400, 150
"""Approximate letters of a published prompt, and tokens of its answer."""


class EntrySpec(PartSpec):
    """A row of the table: an editor with its options beside it, or folders of results."""

    editor: str | None = None
    results: Path | tuple[Path, ...] | None = None
    """Images named by the ids of the cases; several folders are several seeds."""
    seeds: int = Field(1, ge=1)
    """How often each case is edited, each time with another seed."""


class Price(Strict):
    """What the judge's tokens cost."""

    prompt_per_million: float = Field(ge=0)
    answer_per_million: float = Field(ge=0)
    image_tokens: int = Field(1000, ge=0)
    """Tokens per image, for the estimate before a run."""
    currency: str = "USD"

    def of(self, prompt_tokens: float, answer_tokens: float) -> float:
        return (prompt_tokens * self.prompt_per_million + answer_tokens * self.answer_per_million) / 1e6


class EvaluationRecipe(Strict):
    out: Path
    benchmarks: dict[str, dict[str, Any]] = Field(min_length=1)
    """Benchmarks by name, with their options; `benchmark: package.module` names one of your own."""
    editors: dict[str, EntrySpec] = {}
    """Editors by their names in the table."""
    controls: tuple[Literal["copy-source", "ground-truth"], ...] = ("copy-source", "ground-truth")
    """Judging a control costs as much as judging an editor, but only once: replies are kept."""
    models: Models = Models()
    judgements: int = Field(1, ge=1)
    """How often a judge rates each answer."""
    kept: Path | None = None
    """The folder of the judge's replies, which several evaluations may share; null: `judge-replies` beside `out`."""
    edits: Path | None = None
    """The folder of edits, which several evaluations may share; null: `edits` beside `out`."""
    price: Price | None = None
    humans: Path | None = None
    """People's preferences about these editors: a CSV, JSONL or parquet of case, first, second, winner."""
    limit: int | None = Field(None, ge=1)
    """The most families of cases (such as sessions), chosen by the hashes of their ids; null: all."""
    level: float = Field(0.95, gt=0, lt=1)
    measure: Pool = Pool()
    """The actors that measure."""
    engine: EngineSpec = EngineSpec(kind="inprocess")


@dataclass
class Evaluated:
    """The result of an evaluation: its page, and its problems, if any."""

    page: str = ""
    problems: list[str] = field(default_factory=list)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", help="a recipe file, or the name of one in configs/evaluate")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="such as out=runs/evaluation")
    parser.add_argument("--plan", action="store_true", help="show what is left to do and its price, without doing it")


def run(args: argparse.Namespace) -> int:
    """The command. The exit status is 1 if the judge was down or nothing could be measured."""
    of = load(args.recipe, args.overrides)
    if args.plan:
        print("\n".join(plan(of)))
        return 0
    result = evaluate(of)
    if result.page:
        print(result.page)
    for problem in result.problems:
        print(f"error: {problem}", file=sys.stderr)
    return 1 if result.problems else 0


def load(path: str, overrides: Sequence[str] = ()) -> EvaluationRecipe:
    """The recipe in a file, or a shipped one by its name in `configs/evaluate`."""
    return recipe.by_name(EvaluationRecipe, path, overrides, "evaluate")


def evaluate(of: EvaluationRecipe) -> Evaluated:
    """Run an evaluation. If the judge is down it stops without writing results; the next run continues."""
    for option in ("out", "kept", "edits"):
        if (path := getattr(of, option)) is not None:
            storage.check_lasts(option, path)
    entries, editors = _entries(of), _editors(of)
    people = [] if of.humans is None else preferences.majority(preferences.read(of.humans))
    taken = f"another evaluation is working in {of.out}; wait, or choose another out=DIR"
    with locked(of.out / ".lock", taken), engine.cluster(of.engine):
        with journal.replaced(of.out / "recipe.yaml") as out:
            out.write(yaml.safe_dump(of.model_dump(mode="json"), sort_keys=False).encode())
        for entry in entries:
            entry.edit(editors)
            print("\n".join(entry.paid()), file=sys.stderr, flush=True)
            entry.measure()
            if (last := entry.made.stopped()) is not None:
                return Evaluated(problems=[_down(entry.name, last)])
        return _written(of, entries, people)


def plan(of: EvaluationRecipe) -> list[str]:
    """Lines on what is left to edit, measure and ask, and the judge's price."""
    editors = _editors(of)
    return [line for entry in _entries(of) for line in [*entry.to_edit(editors), *entry.paid(everything=True)]]


def _entries(of: EvaluationRecipe) -> list[_Entry]:
    entries = []
    for name, options in of.benchmarks.items():
        given = dict(options)
        benchmark = parts.make(benchmark_folder, given.pop("benchmark", name), Benchmark, given)
        entries.append(_Entry(of, name, benchmark))
    return entries


def _editors(of: EvaluationRecipe) -> dict[str, Editor]:
    editors = {}
    for label, spec in of.editors.items():
        if spec.results is not None:
            continue
        if spec.editor is None:
            raise ValueError(f"editors.{label}: name an editor, or a folder of results")
        if label in (COPY, TRUTH):
            raise ValueError(f"editors.{label}: this name is a control's; choose another")
        editors[label] = parts.make(editor_folder, spec.editor, Editor, spec.options)
    return editors


class _Entry:
    """One benchmark of an evaluation in progress: cases, answers, scores, boards."""

    def __init__(self, of: EvaluationRecipe, name: str, benchmark: Benchmark) -> None:
        if isinstance(benchmark, Shards):
            benchmark = benchmark.listed(shard_cases(benchmark))
        cases = _limited(benchmark.cases(), of.limit)
        if not cases:
            raise ValueError(f"benchmarks.{name}: it has no cases")
        self.of, self.name, self.benchmark = of, name, benchmark
        beside = of.out.absolute().parent
        kept, edits = of.kept or beside / "judge-replies", of.edits or beside / "edits"
        self.made = Evaluation(name, benchmark, cases, of.models, of.out, of.judgements, kept, edits)
        self.answers: dict[str, Seeds] = {}

    def edit(self, editors: Mapping[str, Editor]) -> None:
        """Run the editors, one after the other, on the cases that they have not answered."""
        self.made.sweep()
        controls = {COPY: self.made.copied, TRUTH: self.made.truth}
        self.answers = {label: controls[label]() for label in self.of.controls}
        for label, spec in self.of.editors.items():
            if spec.results is not None:
                self.answers[label] = self._results(label, spec)
                continue
            editor = editors[label]
            working = editor.model_copy()  # freed with its weights before the next editor loads
            for wave in self.made.waves():
                work = self.made.editing(label, working, spec.pool, wave, spec.seeds)
                if work is not None:
                    engine.run(work, self.of.engine)
            self.answers[label] = self.made.edited(editor, spec.seeds)

    def _results(self, label: str, spec: EntrySpec) -> Seeds:
        if spec.editor is not None or spec.options or spec.seeds != 1:
            raise ValueError(f"editors.{label}: a folder of results takes no editor and no options")
        assert spec.results is not None
        folders = spec.results if isinstance(spec.results, tuple) else (spec.results,)
        return [self.made.found_in(folder) for folder in folders]

    def to_edit(self, editors: Mapping[str, Editor]) -> list[str]:
        """A line for each editor with the number of edits left."""
        seeds = {label: self.of.editors[label].seeds for label in editors}
        count = len(self.made.cases)
        return [
            f"{self.name}: {label} has {self.made.left(editor, seeds[label])} of {seeds[label] * count} edits left"
            for label, editor in editors.items()
        ]

    def paid(self, everything: bool = False) -> list[str]:
        """What the judge will be asked, and the approximate cost. `everything`: as if all answers existed."""
        if self.benchmark.questions == 0 or self.of.models.judge is None:
            return [f"{self.name}: nothing to ask a judge"]
        if everything:
            rows = self._answers_to_come()
        else:
            work = self.made.measuring(self.scored(), self.of.measure)
            rows = 0 if work is None else len(work.plan)
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
        scored = sum(bool(case.protocols) for case in self.made.cases.values())
        targets = any(case.target is not None for case in self.made.cases.values())
        players = [1 for name in self.of.controls if name == COPY or targets]
        for spec in self.of.editors.values():
            players.append(len(spec.results) if isinstance(spec.results, tuple) else spec.seeds)
        of_case = sum(map(min, combinations(players, 2))) if self.benchmark.pairwise else sum(players)
        return scored * of_case * self.of.judgements

    def scored(self) -> dict[str, Seeds]:
        """The answers to measure; a comparison leaves the ground truth out."""
        return {name: a for name, a in self.answers.items() if not (self.benchmark.pairwise and name == TRUTH)}

    def measure(self) -> None:
        work = self.made.measuring(self.scored(), self.of.measure)
        if work is not None:
            engine.run(work, self.of.engine)

    def results(self) -> tuple[dict[str, list[Outcome]], list[JudgedComparison]]:
        """The outcomes by editor, or the verdicts of a pairwise benchmark."""
        if self.benchmark.pairwise:
            return {}, self.made.verdicts(self.scored())
        return {label: self.made.outcomes(given) for label, given in self.answers.items()}, []

    def boards(
        self,
        people: Sequence[Preference],
        outcomes: Mapping[str, Sequence[Outcome]],
        verdicts: Sequence[JudgedComparison],
    ) -> dict[str, scoreboard.Json]:
        """The JSON of every protocol."""
        shared = self.of.models, self.of.level, self.benchmark
        boards: dict[str, scoreboard.Json] = {}
        for name, protocol in self.benchmark.protocols.items():
            if self.benchmark.pairwise:
                boards[name] = scoreboard.pairwise_board(name, protocol, verdicts, *shared)
                compared = _verdict_pairs(people, verdicts)
            else:
                boards[name] = scoreboard.protocol_board(name, protocol, outcomes, *shared)
                compared = _score_pairs(people, outcomes, name, protocol)
            if compared and self.of.humans is not None:
                agreement = preferences.agreement(compared, self.of.level)
                boards[name]["humans"] = {"source": self.of.humans.name} | agreement
        return boards

    def cost(self) -> scoreboard.Json:
        """The benchmark's cost so far: seconds per edit, questions, tokens, price."""
        seconds = {}
        for label, seeds in self.answers.items():
            timed = [g.seconds for given in seeds for g in given.values() if g.seconds is not None]
            if timed:
                seconds[label] = sum(timed) / len(timed)
        tokens, price = self.made.cost(), self.of.price
        prompt, answer = tokens["prompt_tokens"], tokens["answer_tokens"]
        known = price is not None and prompt is not None and answer is not None
        spent = price.of(prompt, answer) if known else None  # type: ignore[union-attr, arg-type]
        currency = None if price is None else price.currency
        return {"seconds_per_edit": seconds, **tokens, "price": spent, "currency": currency}


def _written(of: EvaluationRecipe, entries: Sequence[_Entry], people: Sequence[Preference]) -> Evaluated:
    boards: dict[str, dict[str, scoreboard.Json]] = {}
    rows: list[dict[str, object]] = []
    for entry in entries:
        outcomes, verdicts = entry.results()
        boards[entry.name] = entry.boards(people, outcomes, verdicts)
        sources = {case: given.picture for case, given in entry.made.copied()[0].items()}
        protocols = entry.benchmark.protocols
        rows += case_table.rows(entry.name, protocols, outcomes, entry.answers, sources)
        for name, protocol in protocols.items():
            rows += case_table.duels(entry.name, name, verdicts, entry.answers)
            folder = of.out / "sheets" / entry.name
            sheets.write(folder, name, protocol, entry.benchmark, outcomes, entry.answers, sources)
    cost = {entry.name: entry.cost() for entry in entries}
    page = report.markdown(boards, of.level, cost)
    case_table.write(of.out / "cases.parquet", rows)
    for name, text in (
        ("results.json", _json(boards)),
        ("cost.json", _json(cost)),
        ("results.md", page),
        ("results.csv", report.table_csv(boards)),
        ("results.tex", report.latex(boards, of.level)),
    ):
        with journal.replaced(of.out / name) as out:
            out.write(text.encode())
    return Evaluated(page, [problem for entry in entries for problem in _unmeasured(entry.name, boards[entry.name])])


def _json(value: object) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _unmeasured(name: str, boards: Mapping[str, scoreboard.Json]) -> Iterator[str]:
    """Why a benchmark measured nothing, if so: a run with only nulls is a failure."""
    for protocol, board in boards.items():
        if board.get("pairwise"):
            looked_at = [board]
            known = board["compared"] > 0
        else:
            mine = [row for label, row in board["rows"].items() if label not in (COPY, TRUTH)]
            looked_at = mine or list(board["rows"].values())
            known = any(figure["n"] for row in looked_at for figure in row["metrics"].values())
        if not known:
            reasons = [reason for row in looked_at for reason in row["reasons"]]
            why = list(dict.fromkeys([*reasons, *board["null"].values()]))
            yield f"{name}, {protocol}: nothing was measured ({'; '.join(why[:3]) or 'there are no answers'})"


def _down(name: str, last: str) -> str:
    return (
        f"{name}: the judge is down, and was not asked further ({last}). Its replies are kept: check that its server "
        "answers, and run the same command again to continue. No results were written"
    )


def _verdict_pairs(
    people: Sequence[Preference], verdicts: Sequence[JudgedComparison]
) -> list[tuple[Preference, Winner]]:
    """People's preferences and the judge's verdicts on the same pairs, in one dimension or by majority."""
    votes: dict[tuple[str, str, str, str], list[Preference]] = {}
    for verdict in verdicts:
        for dimension, winner in verdict.winners.items():
            if winner is not None:
                one = Preference(verdict.case.id, verdict.first, verdict.second, winner).ordered
                for key in (dimension, ""):
                    votes.setdefault((one.case, one.first, one.second, key), []).append(one)
    asked = [(person, votes.get((person.case, person.first, person.second, person.dimension))) for person in people]
    return [(person, preferences.majority(given)[0].winner) for person, given in asked if given]


def _score_pairs(
    people: Sequence[Preference], outcomes: Mapping[str, Sequence[Outcome]], name: str, protocol: Protocol
) -> list[tuple[Preference, Winner]]:
    """People's preferences, and which answer has the better mean of the protocol's headline metric."""
    values: dict[tuple[str, str], list[float]] = {}
    for editor, results in outcomes.items():
        for outcome in results:
            if outcome.kind == "scored" and name in outcome.case.protocols:
                value = outcome.values[name][protocol.headline]
                if value is not None:
                    values.setdefault((editor, outcome.case.id), []).append(value)
    means = {answer: sum(some) / len(some) for answer, some in values.items()}
    better = 1 if protocol.metrics[protocol.headline] == "higher" else -1
    pairs: list[tuple[Preference, Winner]] = []
    for person in people:
        first, second = (means.get((editor, person.case)) for editor in (person.first, person.second))
        if first is not None and second is not None:
            apart = better * (first - second)
            pairs.append((person, "tie" if abs(apart) < 1e-12 else "first" if apart > 0 else "second"))
    return pairs


def _limited(cases: Sequence[Case], limit: int | None) -> list[Case]:
    families = sorted({case.family or case.id for case in cases}, key=lambda name: content_key("evaluate", name))
    chosen = set(families[:limit])
    return [case for case in cases if (case.family or case.id) in chosen]


def shard_cases(of: Shards) -> list[Case]:
    """The pairs of a shard set as cases, in key order, without reading pixels."""
    given = [of.path] if isinstance(of.path, str) else list(of.path)
    index = open_index(given, Cache())
    cases = []
    for sample in range(len(index)):
        at = index.at(sample)
        if of.categories and at.category not in of.categories:
            continue
        path = index.shards[at.shard].path
        path = path if "://" in path else str(Path(path).absolute())
        members = {
            name: Picture(path, offset=offset, size=size)
            for name, offset, size in zip(layout.MEMBERS, at.offsets, at.sizes, strict=True)
            if offset >= 0
        }
        meta = json.loads(members[layout.META].read())
        cases.append(
            Case(
                id=at.key,
                instruction=meta["instruction"],
                source=members[layout.SOURCE],
                group=at.category,
                target=members[layout.EDITED],
                mask=members.get(layout.MASK),
                source_caption=meta.get("source_caption") or None,
                target_caption=meta.get("target_caption") or None,
                # Edits of one photograph are dependent.
                family=meta.get("source_key") or at.key,
                protocols=tuple(of.protocols),
            )
        )
    if not cases:
        raise ValueError(f"benchmarks.shards: no pairs of {', '.join(of.categories) or 'any category'}")
    return sorted(cases, key=lambda case: case.id)

"""Evaluate editors on benchmarks, against two controls: copying the source, and the ground truth.

    crispedit evaluate configs/evaluate/shards.yaml benchmarks.shards.path=SHARDS out=runs/evaluation
    crispedit evaluate gedit --plan          # show what would be edited, asked and paid, without doing it

Writes OUT/results.json, results.md, results.csv, results.tex, cases.parquet, cost.json and sheets/, beside the resolved
recipe and the tables behind them. The same command resumes an interrupted run; nothing is edited, scored or asked
twice. docs/evaluation.md explains the protocols.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import yaml

from crispedit import benchmarks as benchmark_folder
from crispedit import editors as editor_folder
from crispedit import parts, recipe
from crispedit.benchmark import Benchmark, Case, Picture, Protocol
from crispedit.benchmarks.shards import Shards
from crispedit.parts import Editor
from crispedit.pipelines import engine
from crispedit.pipelines.evaluation import cases as case_table
from crispedit.pipelines.evaluation import preferences, report, scoreboard, sheets
from crispedit.pipelines.evaluation.preferences import Preference
from crispedit.pipelines.evaluation.recipe import EvaluationRecipe
from crispedit.pipelines.evaluation.runner import COPY, TRUTH, Evaluation, JudgedComparison, Outcome
from crispedit.record import content_key
from crispedit.replies import Winner
from crispedit.shards import journal, layout, storage
from crispedit.shards.index import open_index
from crispedit.shards.lock import locked
from crispedit.shards.remote import Cache


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
    evaluations, editors = _evaluations(of), _editors(of)
    people = [] if of.humans is None else preferences.majority(preferences.read(of.humans))
    taken = f"another evaluation is working in {of.out}; wait, or choose another out=DIR"
    with locked(of.out / ".lock", taken), engine.cluster(of.engine):
        with journal.replaced(of.out / "recipe.yaml") as out:
            out.write(yaml.safe_dump(of.model_dump(mode="json"), sort_keys=False).encode())
        for made in evaluations:
            made.edit(editors)
            print("\n".join(made.paid()), file=sys.stderr, flush=True)
            made.measure()
            if (last := made.stopped()) is not None:
                why = (
                    f"{made.name}: the judge is down, and was not asked further ({last}). Its replies are kept: check "
                    "that its server answers, and run the same command again to continue. No results were written"
                )
                return Evaluated(problems=[why])
        return _written(of, evaluations, people)


def plan(of: EvaluationRecipe) -> list[str]:
    """Lines on what is left to edit, measure and ask, and the judge's price."""
    editors = _editors(of)
    return [line for made in _evaluations(of) for line in [*made.to_edit(editors), *made.paid(everything=True)]]


def _evaluations(of: EvaluationRecipe) -> list[Evaluation]:
    evaluations = []
    for name, options in of.benchmarks.items():
        given = dict(options)
        benchmark = parts.make(benchmark_folder, given.pop("benchmark", name), Benchmark, given)
        if isinstance(benchmark, Shards):
            benchmark = benchmark.listed(shard_cases(benchmark))
        cases = benchmark.cases()
        if not cases:
            raise ValueError(f"benchmarks.{name}: it has no cases")
        families = sorted({case.family or case.id for case in cases}, key=lambda one: content_key("evaluate", one))
        chosen = set(families[: of.limit])
        cases = [case for case in cases if (case.family or case.id) in chosen]
        evaluations.append(Evaluation(of, name, benchmark, cases))
    return evaluations


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


def _boards(
    made: Evaluation,
    people: Sequence[Preference],
    outcomes: Mapping[str, Sequence[Outcome]],
    verdicts: Sequence[JudgedComparison],
) -> dict[str, scoreboard.Json]:
    """The JSON of every protocol."""
    of = made.of
    boards: dict[str, scoreboard.Json] = {}
    for name, protocol in made.benchmark.protocols.items():
        if made.benchmark.pairwise:
            boards[name] = scoreboard.pairwise_board(name, protocol, verdicts, of.models, of.level, made.benchmark)
            compared = _verdict_pairs(people, verdicts)
        else:
            boards[name] = scoreboard.protocol_board(name, protocol, outcomes, of.models, of.level, made.benchmark)
            compared = [*_score_pairs(people, outcomes, name, protocol)]
        if compared and of.humans is not None:
            boards[name]["humans"] = {"source": of.humans.name} | preferences.agreement(compared, of.level)
    return boards


def _written(of: EvaluationRecipe, evaluations: Sequence[Evaluation], people: Sequence[Preference]) -> Evaluated:
    boards: dict[str, dict[str, scoreboard.Json]] = {}
    rows: list[dict[str, object]] = []
    for made in evaluations:
        outcomes, verdicts = made.outcomes(), made.verdicts()
        boards[made.name] = _boards(made, people, outcomes, verdicts)
        rows += [*case_table.rows(made, outcomes), *case_table.duels(made, verdicts)]
        for name in made.benchmark.protocols:
            sheets.write(of.out / "sheets" / made.name, made, name, outcomes)
    cost = {made.name: made.cost() for made in evaluations}
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
    return Evaluated(page, [problem for name, board in boards.items() for problem in _unmeasured(name, board)])


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
) -> Iterator[tuple[Preference, Winner]]:
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
    for person in people:
        first, second = (means.get((editor, person.case)) for editor in (person.first, person.second))
        if first is not None and second is not None:
            apart = better * (first - second)
            yield person, "tie" if abs(apart) < 1e-12 else "first" if apart > 0 else "second"


def shard_cases(of: Shards) -> list[Case]:
    """The pairs of a shard set as cases, in key order, without reading pixels."""
    given = [of.path] if isinstance(of.path, str) else list(of.path)
    try:
        index = open_index(given, Cache())
    except ValueError as error:
        raise ValueError(f"benchmarks.shards.path: {error}") from error
    cases = []
    for sample in range(len(index)):
        at = index.at(sample)
        if of.categories and at.category not in of.categories:
            continue
        path = storage.absolute(index.shards[at.shard].path)
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

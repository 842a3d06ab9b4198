"""Cases: every value of an evaluation as a parquet, with the benchmark's own ids and the pictures' locations.

| columns | meaning |
|---|---|
| benchmark, protocol, case, group, family, instruction | as the benchmark names them |
| editor, seed, judgement | the answer, and which judgement of it |
| metric, value | `value` is null if unknown; `reason` says why |
| black, kind | scored, refused, missing, error, unparsed or unjudged |
| words | the judge's replies, a text for each question |
| source, answer, target | the images' locations: {path, offset, size, row, column} |

For a pairwise benchmark the metric is `preferred`: the share of the comparisons on this case that the answer won; a tie
counts half. `words` are from these comparisons.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from crispedit.benchmark import Case, Picture
from crispedit.pipelines.evaluation.runner import Evaluation, JudgedComparison, Outcome
from crispedit.shards import journal
from crispedit.shards.journal import columns

PREFERRED = "preferred"
PLACE = pa.struct([("path", pa.string()), *columns(pa.int64(), "offset", "size", "row"), ("column", pa.string())])
SCHEMA = pa.schema(
    [
        *columns(pa.string(), "benchmark", "protocol", "case", "group", "family", "instruction", "editor"),
        *columns(pa.int32(), "seed", "judgement"),
        ("metric", pa.string()),
        ("value", pa.float64()),
        *columns(pa.string(), "kind", "reason"),
        ("black", pa.bool_()),
        ("words", pa.list_(pa.string())),
        *columns(PLACE, "source", "answer", "target"),
    ]
)


def rows(made: Evaluation, outcomes: Mapping[str, Sequence[Outcome]]) -> Iterator[dict[str, object]]:
    """One row for each case, editor, seed, judgement and metric."""
    protocols, sources = made.benchmark.protocols, made.sources()
    for editor, results in outcomes.items():
        for outcome in results:
            case = outcome.case
            shared = _of_answer(made, case, editor, outcome.seed, sources[case.id])
            shared |= {name: getattr(outcome, name) for name in ("seed", "kind", "reason", "black", "words")}
            shared |= {"judgement": outcome.repeat}
            for protocol in case.protocols:
                for metric in protocols[protocol].metrics:
                    value = outcome.values[protocol][metric] if outcome.kind == "scored" else None
                    yield shared | {"protocol": protocol, "metric": metric, "value": value}


def duels(made: Evaluation, verdicts: Sequence[JudgedComparison]) -> Iterator[dict[str, object]]:
    """One row for each case, editor and protocol of a pairwise benchmark, over all its comparisons."""
    duels: dict[tuple[str, str], tuple[list[JudgedComparison], list[float]]] = {}
    for verdict in verdicts:
        for mine, editor in (("first", verdict.first), ("second", verdict.second)):
            of, shares = duels.setdefault((verdict.case.id, editor), ([], []))
            of.append(verdict)
            known = [winner for winner in verdict.winners.values() if winner is not None]
            shares += [0.5 if winner == "tie" else float(winner == mine) for winner in known]
    for protocol in made.benchmark.protocols:
        for (_, editor), (of, shares) in duels.items():
            yield _of_answer(made, of[0].case, editor, 0, of[0].case.source) | {
                "protocol": protocol,
                "seed": 0,
                "judgement": 0,
                "metric": PREFERRED,
                "value": sum(shares) / len(shares) if shares else None,
                "kind": "scored" if shares else of[0].kind,
                "reason": "" if shares else of[0].reason,
                "words": [word for verdict in of for word in verdict.words],
            }


def _of_answer(made: Evaluation, case: Case, editor: str, seed: int, source: Picture | None) -> dict[str, object]:
    """The columns that every row about an answer has."""
    given = made.answers[editor][seed].get(case.id)
    return {
        "benchmark": made.name,
        "case": case.id,
        "group": case.group,
        "family": case.family or case.id,
        "instruction": case.instruction,
        "editor": editor,
        "source": _place(source),
        "answer": _place(None if given is None else given.picture),
        "target": _place(case.target),
    }


def write(path: Path, table: Sequence[dict[str, object]]) -> None:
    with journal.replaced(path) as out:
        pq.write_table(pa.Table.from_pylist(list(table), schema=SCHEMA), out, compression="zstd")


def _place(picture: Picture | None) -> dict[str, object] | None:
    return None if picture is None else dict(vars(picture))

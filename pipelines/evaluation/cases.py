"""Cases: every value of an evaluation as a plain parquet, with the benchmark's own ids, and the pictures to look at.

benchmark, protocol, case, group, family, instruction    as the benchmark names them
editor, seed, judgement                                  whose answer, and which judgement of it
metric, value                                            null where it is not known; `reason` says why
black, kind                                              scored, refused, missing, error, unparsed, unjudged
source, answer                                           where the images lie: {path, offset, size, row, column}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from crispedit.benchmark import Picture, Protocol
from crispedit.pipelines.evaluation.runner import Outcome, Seeds
from crispedit.shards import journal

PLACE = pa.struct(
    [
        ("path", pa.string()),
        ("offset", pa.int64()),
        ("size", pa.int64()),
        ("row", pa.int64()),
        ("column", pa.string()),
    ]
)
SCHEMA = pa.schema(
    [
        *(
            (name, pa.string())
            for name in ("benchmark", "protocol", "case", "group", "family", "instruction")
        ),
        ("editor", pa.string()),
        ("seed", pa.int32()),
        ("judgement", pa.int32()),
        ("metric", pa.string()),
        ("value", pa.float64()),
        ("kind", pa.string()),
        ("reason", pa.string()),
        ("black", pa.bool_()),
        ("source", PLACE),
        ("answer", PLACE),
    ]
)


def rows(
    benchmark: str,
    protocols: Mapping[str, Protocol],
    outcomes: Mapping[str, Sequence[Outcome]],
    answers: Mapping[str, Seeds],
    sources: Mapping[str, Picture | None],
) -> Iterator[dict[str, object]]:
    """One row for each case, editor, seed, judgement and metric."""
    for editor, found in outcomes.items():
        for outcome in found:
            case, seeds = outcome.case, answers[editor]
            given = seeds[outcome.seed].get(case.id)
            shared = {
                "benchmark": benchmark,
                "case": case.id,
                "group": case.group,
                "family": case.family or case.id,
                "instruction": case.instruction,
                "editor": editor,
                "seed": outcome.seed,
                "judgement": outcome.repeat,
                "kind": outcome.kind,
                "reason": outcome.reason,
                "black": outcome.black,
                "source": _place(sources[case.id]),
                "answer": _place(None if given is None else given.picture),
            }
            for protocol in case.protocols:
                for metric in protocols[protocol].metrics:
                    value = outcome.values[protocol][metric] if outcome.kind == "scored" else None
                    yield shared | {"protocol": protocol, "metric": metric, "value": value}


def write(path: Path, found: Sequence[dict[str, object]]) -> None:
    with journal.replaced(path) as out:
        pq.write_table(pa.Table.from_pylist(list(found), schema=SCHEMA), out, compression="zstd")


def _place(picture: Picture | None) -> dict[str, object] | None:
    return None if picture is None else dict(vars(picture))

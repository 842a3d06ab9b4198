"""People's preferences between two edits of one case, and a judge's agreement with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from crispedit import jsonl
from crispedit.benchmark import REVERSED, read_json
from crispedit.pipelines.evaluation import statistics
from crispedit.pipelines.sources import texts
from crispedit.replies import Winner


@dataclass(frozen=True)
class Preference:
    """A person's preference between two answers."""

    case: str
    first: str
    second: str
    winner: Winner
    category: str = ""
    dimension: str = ""

    @property
    def ordered(self) -> Preference:
        if self.first <= self.second:
            return self
        return replace(self, first=self.second, second=self.first, winner=REVERSED[self.winner])


def read(path: Path) -> list[Preference]:
    """A CSV, JSONL or parquet of `case, first, second, winner`, and optionally `category` and `dimension`. The winner
    is one of the two names, or first, second or tie. One row for each rater. ValueError names the row."""
    preferences = []
    for number, row in enumerate(rows(path), 1):
        try:
            case, first, second, winner = (str(row[name]) for name in ("case", "first", "second", "winner"))
        except KeyError as error:
            raise ValueError(f"{path}: row {number} has no {error}; it needs case, first, second, winner") from None
        outcome = {first: "first", second: "second"}.get(winner, winner)
        if outcome not in ("first", "second", "tie"):
            raise ValueError(f"{path}: row {number}: the winner {winner!r} is neither {first!r}, {second!r} nor tie")
        more = {name: str(row.get(name) or "") for name in ("category", "dimension")}
        preferences.append(Preference(case, first, second, outcome, **more))  # type: ignore[arg-type]
    return preferences


def rows(path: Path) -> Sequence[Mapping[str, Any]]:
    """The rows of a CSV (without empty cells), JSON, JSONL or parquet. ValueError if there are none."""
    rows: Sequence[Mapping[str, Any]]
    if path.suffix == ".jsonl":
        rows = [row for _, row in jsonl.read(path, "a preference per line")]
    elif path.suffix == ".json":
        rows = read_json(path, "a list of preferences")
    elif not path.is_file():
        raise ValueError(f"{path} is not a file of preferences")
    elif path.suffix == ".parquet":
        rows = pq.read_table(path).to_pylist()
    else:
        with path.open("rb") as file:
            rows = [{name: cell for name, cell in row.items() if cell} for row in texts.csv_rows(file)]
    if not rows:
        raise ValueError(f"{path} holds no preferences")
    return rows


def majority(given: Sequence[Preference]) -> list[Preference]:
    """One preference for each case, pair and dimension: the raters' majority; a tie if they are split evenly."""
    votes: dict[Preference, Counter[Winner]] = {}
    for one in (preference.ordered for preference in given):
        votes.setdefault(replace(one, winner="tie"), Counter())[one.winner] += 1
    preferences = []
    for pair, count in votes.items():
        split = count["tie"] > max(count["first"], count["second"])
        preferences.append(replace(pair, winner="tie" if split else leading(count)))
    return preferences


def leading(votes: Counter[Winner]) -> Winner:
    """The one of two answers with more votes, whatever the number of ties; a tie if they have as many."""
    lead = votes["first"] - votes["second"]
    return "first" if lead > 0 else "second" if lead < 0 else "tie"


def agreement(pairs: Sequence[tuple[Preference, Winner]], level: float) -> dict[str, Any]:
    """A judge's agreement with people, {n, agreement, kappa, ties}, overall and by category. JSON-ready.

    pairs: a person's preference, and the judge's verdict on the same answers in the same order.
    """
    categories = sorted({person.category for person, _ in pairs if person.category})
    return {
        "all": _agreement(pairs, level),
        "categories": {
            name: _agreement([pair for pair in pairs if pair[0].category == name], level) for name in categories
        },
    }


def _agreement(pairs: Sequence[tuple[Preference, Winner]], level: float) -> dict[str, Any]:
    if not pairs:
        return {"n": 0, "agreement": dict(statistics.UNKNOWN), "kappa": None}
    same = [float(person.winner == said) for person, said in pairs]
    mean = statistics.mean(same, [person.case for person, _ in pairs], level=level)
    people, judge = (Counter(side) for side in ([p.winner for p, _ in pairs], [said for _, said in pairs]))
    chance = sum(people[name] * judge[name] for name in people) / len(pairs) ** 2
    low, high = (None if end is None else min(1.0, max(0.0, end)) for end in (mean.low, mean.high))
    return {
        "n": len(pairs),
        "agreement": mean.figure(len(pairs)) | {"low": low, "high": high},
        "kappa": None if chance == 1 else (mean.mean - chance) / (1 - chance),
        "ties": {"people": people["tie"], "judge": judge["tie"]},
    }

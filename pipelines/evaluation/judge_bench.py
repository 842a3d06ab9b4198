"""Judge bench: how often chat models prefer the same one of two edits as people.

    crispedit judge-bench RECIPE        # compares judges: agreement, position bias, seconds and price per verdict

A set of preferences is a folder with `metadata.jsonl` (VCReward-Bench of GEditBench v2), a folder of parquet tables
(TIGER-Lab's EditReward-Bench) or of Arrow files (EditScore's EditReward-Bench), a JSON list (EditReward-Compass), or a
CSV or JSONL of our own: case, instruction, source, first, second, winner, and optionally category and
dimension. Writes OUT/judge-bench.json and judge-bench.md. Replies are kept, so an interrupted run can be resumed.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from crispedit import jsonl, prompts, recipe, replies
from crispedit.benchmark import Picture, picture_in, read_json, rows
from crispedit.benchmarks.gedit_v2 import OWN, SWAPPED, Verdict
from crispedit.chat import ChatError, ChatOption
from crispedit.judge import NO_USAGE, JudgeModel, JudgeReply, JudgeUsage, Question
from crispedit.pipelines.evaluate import Price
from crispedit.pipelines.evaluation import preferences, report, statistics
from crispedit.pipelines.evaluation.preferences import Preference
from crispedit.pipelines.evaluation.statistics import Outcome
from crispedit.pipelines.sources import texts
from crispedit.recipe import Strict
from crispedit.record import content_key, seed_of
from crispedit.shards import journal

AT_ONCE = 32
"""Preferences whose questions are sent together."""
WINNERS: Mapping[str, Outcome] = {
    "image a": "first",
    "image b": "second",
    "first": "first",
    "second": "second",
    "tie": "tie",
}
EDIT_REWARD = ("id", "instruction", "ranking", "comparison_type")
"""Columns of TIGER-Lab's EditReward-Bench beside its pictures. Candidates have letters: "B>C" of "BvsC" prefers the
first one."""
EDIT_SCORE = ("key", "instruction", "task_type", "dimension")
"""Columns of EditScore's EditReward-Bench beside its pictures. The first of two is the better one."""
DIMENSIONS = {
    "IA": "instruction_following",
    "VC": "visual_consistency",
    "VQ": "visual_quality",
    "prompt_following": "instruction_following",
    "consistency": "visual_consistency",
    "overall": "",
}


class JudgeBenchRecipe(Strict):
    """The recipe: judges, and the preferences to compare them with."""

    out: Path
    judges: dict[str, ChatOption] = Field(min_length=1)
    sets: dict[str, Path] = Field(min_length=1)
    votes: int = Field(1, ge=1)
    """Questions per pair to each judge; the majority counts."""
    price: dict[str, Price] = {}
    """Prices by judge."""
    limit: int | None = Field(None, ge=1)
    """The most preferences of each set, chosen by the hashes of their keys; null: all."""
    kept: Path | None = None
    """The folder of replies; null: `judge-replies` beside `out`."""
    level: float = Field(0.95, gt=0, lt=1)


@dataclass(frozen=True)
class Labelled:
    """A person's preference with its pictures."""

    preference: Preference
    instruction: str
    source: Picture
    first: Picture
    second: Picture


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", help="a recipe file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="such as out=runs/judges")


def run(args: argparse.Namespace) -> int:
    """The command. The exit status is 1 if a judge was down or gave no readable reply."""
    results = bench(recipe.load(JudgeBenchRecipe, Path(args.recipe), args.overrides))
    print(markdown(results))
    silent = [f"{s}, {j}" for s, judges in results.items() for j, row in judges.items() if row["all"]["n"] == 0]
    for name in silent:
        print(f"error: {name}: no verdict was given; see the messages above, then run again", file=sys.stderr)
    return int(bool(silent))


def bench(of: JudgeBenchRecipe) -> dict[str, dict[str, Any]]:
    """{set: {judge: agreement, position, unparsed, seconds, tokens, price}}, also written to `out`."""
    sets = {name: _limited(read(path), of.limit) for name, path in of.sets.items()}
    kept = of.kept or of.out.absolute().parent / "judge-replies"
    results: dict[str, dict[str, Any]] = {name: {} for name in sets}
    for label, chat in of.judges.items():
        judge = JudgeModel(chat, kept)
        judge.load()
        for name, labelled in sets.items():
            results[name][label] = _held_against(judge, labelled, of, of.price.get(label))
    with journal.replaced(of.out / "judge-bench.json") as out:
        out.write((json.dumps(results, indent=1, ensure_ascii=False) + "\n").encode())
    with journal.replaced(of.out / "judge-bench.md") as out:
        out.write(markdown(results).encode())
    return results


def read(path: Path) -> list[Labelled]:
    """The preferences of a folder or file. ValueError names what is missing."""
    root = path if path.is_dir() else path.parent
    if tables := sorted(path.rglob("*.parquet")):
        return [_edit_reward(*row) for row in rows(tables, EDIT_REWARD)]
    if tables := sorted(path.rglob("*.arrow")):
        return [_edit_score(*row) for row in rows(tables, EDIT_SCORE)]
    lines = path / "metadata.jsonl" if path.is_dir() else path
    if lines.suffix == ".jsonl":
        given: Sequence[Mapping[str, Any]] = [row for _, row in jsonl.read(lines, "a preference per line")]
    elif path.suffix == ".json":
        given = read_json(path, "a list of preferences")
    else:
        with path.open("rb") as file:
            given = [{name: cell for name, cell in row.items() if cell} for row in texts.csv_rows(file)]
    if not given:
        raise ValueError(f"{path} holds no preferences")
    return [_labelled(row, root, f"{path}: row {number}") for number, row in enumerate(given, 1)]


def _edit_reward(table: Path, number: int, row: Mapping[str, Any]) -> Labelled:
    """A row of EditReward-Bench. Comparisons of one source are dependent, so the bootstrap draws sources."""
    ranking, first = str(row["ranking"]), str(row["comparison_type"] or "AvsB")[0]
    if not re.fullmatch(r"[A-D][>=][A-D]", ranking):
        raise ValueError(f"{table}: row {number}: the ranking {ranking!r} is not like A>B or A=B")
    winner: Outcome = "tie" if "=" in ranking else "first" if ranking[0] == first else "second"
    pictures = [Picture(str(table), row=number, column=name) for name in ("source_image", "candidate_1", "candidate_2")]
    source = str(row["id"]).partition("_")[0]
    return Labelled(Preference(source, "first", "second", winner), str(row["instruction"]), *pictures)


def _edit_score(table: Path, number: int, row: Mapping[str, Any]) -> Labelled:
    """A row of EditScore's EditReward-Bench."""
    keys = [str(key) for key in row["key"]]
    places, winner = _drawn([0, 1], "first", keys)
    dimension = DIMENSIONS.get(row["dimension"], row["dimension"])
    return Labelled(
        Preference(" ".join(keys), "first", "second", winner, str(row["task_type"]), dimension),
        str(row["instruction"]),
        Picture(str(table), row=number, column="input_image"),
        *(Picture(str(table), row=number, column=f"output_images/{place}") for place in places),
    )


def _drawn(edits: list[Any], winner: Outcome, names: Sequence[str]) -> tuple[list[Any], Outcome]:
    """Two edits of which the better one comes first, in an order drawn by their names."""
    if seed_of(content_key(*names), "order") % 2 == 0:
        return edits, winner
    return edits[::-1], "tie" if winner == "tie" else "second"


def _labelled(row: Mapping[str, Any], root: Path, where: str) -> Labelled:
    try:
        if "loser" in row:  # EditReward-Compass: the better one comes first, so the order is randomised
            names = [str(row["winner"]), str(row["loser"])]
            names, said = _drawn(names, "tie" if row["label"] == "tie" else "first", names)
            key, instruction, source = str(row.get("key", names[0])), row["prompt"], row["source_image"]
        elif "edited_images" in row:
            names, said = list(row["edited_images"]), row["winner"]
            key, instruction, source = str(row["key"]), row["instruction"], row["source_image"]
        else:
            names, said = [row["first"], row["second"]], row["winner"]
            key, instruction, source = str(row["case"]), row["instruction"], row["source"]
        first, second = names
    except KeyError as error:
        raise ValueError(f"{where}: no column {error}; it has {', '.join(row)}") from None
    except ValueError:
        raise ValueError(f"{where}: edited_images must hold two") from None
    winner = WINNERS.get(str(said).lower())
    if winner is None:
        raise ValueError(f"{where}: the winner {said!r} is none of first, second, tie")
    category, dimension = str(row.get("task") or row.get("category") or ""), str(row.get("dimension") or "")
    preference = Preference(key, "first", "second", winner, category, DIMENSIONS.get(dimension, dimension))
    return Labelled(preference, instruction, *(picture_in(root, name, where) for name in (source, first, second)))


def _limited(labelled: Sequence[Labelled], limit: int | None) -> list[Labelled]:
    return sorted(labelled, key=lambda one: content_key("judge-bench", one.preference.case))[:limit]


def _held_against(
    judge: JudgeModel, labelled: Sequence[Labelled], of: JudgeBenchRecipe, price: Price | None
) -> dict[str, Any]:
    """The results of one judge on one set."""
    pairs: list[tuple[Preference, Outcome]] = []
    counts: Counter[str] = Counter()
    leanings: list[tuple[str, float]] = []
    usage: JudgeUsage = NO_USAGE
    start = time.perf_counter()
    for place in range(0, len(labelled), AT_ONCE):
        asked = [(one, _questions(one, of.votes, counts)) for one in labelled[place : place + AT_ONCE]]
        heard = iter(judge.ask([question for _, questions in asked for question in questions]))
        for one, questions in asked:
            if not questions:
                continue
            votes = []
            for _ in range(of.votes):
                shown, swapped = next(heard), next(heard)
                usage += sum((h.usage for h in (shown, swapped) if isinstance(h, JudgeReply)), NO_USAGE)
                vote = _vote(shown, swapped, counts)
                votes += [] if vote is None else [vote]
                leaning = _leaning(shown, swapped)
                leanings += [] if leaning is None else [(one.preference.case, leaning)]
            if votes:
                count = Counter(votes)
                lead = count["first"] - count["second"]
                pairs.append((one.preference, "first" if lead > 0 else "second" if lead < 0 else "tie"))
    seconds = time.perf_counter() - start
    counted = usage.prompt_tokens > 0
    spent = price.of(usage.prompt_tokens, usage.answer_tokens) if price and counted else None
    return preferences.agreement(pairs, of.level) | {
        "preferences": len(labelled),
        "unreadable": counts["unreadable"],
        "unparsed": counts["unparsed"],
        "unanswered": counts["unanswered"],
        "first_preferred": _estimate(leanings, of.level),
        "orders_agree": counts["agree"] / counts["both"] if counts["both"] else None,
        "seconds_per_verdict": seconds / usage.asked if usage.asked else None,
        "prompt_tokens": usage.prompt_tokens if counted else None,
        "answer_tokens": usage.answer_tokens if counted else None,
        "price": spent,
        "price_per_verdict": None if spent is None else spent / usage.asked,
    }


def _estimate(leanings: Sequence[tuple[str, float]], level: float) -> dict[str, Any]:
    """How often the first-shown edit was preferred, ties left out: 0.5 without position bias."""
    if not leanings:
        return dict(statistics.UNKNOWN)
    share = statistics.mean([leaning for _, leaning in leanings], [case for case, _ in leanings], level=level)
    return share.figure(len(leanings))


def _leaning(*heard: object) -> float | None:
    """The share of verdicts, over both orders without ties, for the first-shown edit; None if all are ties."""
    winners = [one.value for one in heard if isinstance(one, JudgeReply) and one.value in ("first", "second")]
    return winners.count("first") / len(winners) if winners else None


def _questions(one: Labelled, votes: int, counts: Counter[str]) -> list[Question[Outcome]]:
    """The question in both orders, for every vote; none if a picture cannot be read."""
    text = prompts.render(OWN, instruction=one.instruction, dimension=one.preference.dimension or "overall")
    try:
        source, first, second = (picture.image() for picture in (one.source, one.first, one.second))
    except ValueError as error:
        counts["unreadable"] += 1
        if counts["unreadable"] == 1:
            print(f"left out: {error}", file=sys.stderr)
        return []
    return [
        Question([source, a, b, text], replies.winner, shape=Verdict, repeat=repeat)
        for repeat in range(votes)
        for a, b in ((first, second), (second, first))
    ]


def _vote(shown: object, swapped: object, counts: Counter[str]) -> Outcome | None:
    """The verdict of both orders; a tie if they differ, None if either is unknown."""
    if isinstance(shown, ChatError) or isinstance(swapped, ChatError):
        counts["unanswered"] += 1
        return None
    assert isinstance(shown, JudgeReply)
    assert isinstance(swapped, JudgeReply)
    if shown.value is None or swapped.value is None:
        counts["unparsed"] += 1
        return None
    counts["both"] += 1
    agree = shown.value == SWAPPED[swapped.value]
    counts["agree"] += agree
    return shown.value if agree else "tie"


COLUMNS = (
    *("", "pairs", "agreement", "kappa", "prefers the first", "orders agree", "unparsed"),
    *("s a verdict", "price a verdict", "price"),
)


def markdown(results: Mapping[str, Mapping[str, Any]]) -> str:
    lines = ["# Judges held against people", ""]
    for name, judges in results.items():
        ordered = sorted(judges.items(), key=lambda item: -(item[1]["all"]["agreement"]["mean"] or 0))
        lines += [f"## {name}", "", *report.table(COLUMNS, [_row(label, row) for label, row in ordered]), ""]
        categories = sorted({category for row in judges.values() for category in row["categories"]})
        if categories:
            body = [[label, *(_agreement(row, name) for name in categories)] for label, row in judges.items()]
            lines += ["By category:", "", *report.table(["", *categories], body), ""]
    return "\n".join(lines)


def _agreement(row: Mapping[str, Any], category: str) -> str:
    known = row["categories"].get(category)
    return "–" if known is None else report.estimate(known["agreement"])


def _row(label: str, row: Mapping[str, Any]) -> list[str]:
    agree, cost = row["orders_agree"], row["price_per_verdict"]
    return [
        label,
        f"{row['all']['n']} of {row['preferences']}",
        report.estimate(row["all"]["agreement"]),
        report.number(row["all"]["kappa"]),
        report.estimate(row["first_preferred"]),
        "–" if agree is None else f"{agree:.1%}",
        str(row["unparsed"]),
        report.number(row["seconds_per_verdict"]),
        "–" if cost is None else f"{cost:.3g}",
        report.number(row["price"]),
    ]

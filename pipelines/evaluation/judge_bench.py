"""Judge bench: how often chat models prefer the same one of two edits as people.

    crispedit judge-bench RECIPE        # compares judges: agreement, position bias, seconds and price per verdict

A set of preferences is a folder with `metadata.jsonl` (VCReward-Bench of GEditBench v2), a folder of parquet tables
(TIGER-Lab's EditReward-Bench) or of Arrow files (EditScore's EditReward-Bench), a JSON list (EditReward-Compass), or a
CSV or JSONL of our own: case, instruction, source, first, second, winner, and optionally category and
dimension. Writes OUT/judge-bench.json and judge-bench.md. Replies are kept, so an interrupted run can be resumed.
"""

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

from crispedit import prompts, recipe
from crispedit.benchmark import REVERSED, Picture, picture_in, rows
from crispedit.benchmarks.gedit_v2 import OWN, in_both_orders
from crispedit.chat import ChatError, ChatOption
from crispedit.judge import NO_USAGE, JudgeModel, JudgeReply, JudgeUsage, Question
from crispedit.pipelines.evaluation import preferences, report, statistics
from crispedit.pipelines.evaluation.preferences import Preference
from crispedit.pipelines.evaluation.recipe import Price
from crispedit.recipe import Strict
from crispedit.record import content_key, seed_of
from crispedit.replies import Winner
from crispedit.shards import journal

AT_ONCE = 32
"""Preferences whose questions are sent together."""
WINNERS: Mapping[str, Winner] = {
    **{"image a": "first", "image b": "second"},
    **{"first": "first", "second": "second", "tie": "tie"},
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
    sets = {
        name: sorted(read(path), key=lambda one: content_key("judge-bench", one.preference.case))[: of.limit]
        for name, path in of.sets.items()
    }
    kept = of.kept or of.out.absolute().parent / "judge-replies"
    results: dict[str, dict[str, Any]] = {name: {} for name in sets}
    for label, chat in of.judges.items():
        judge = JudgeModel(chat, kept)
        judge.load()
        for name, labelled in sets.items():
            results[name][label] = _held_against(judge, labelled, of, of.price.get(label))
    as_json = json.dumps(results, indent=1, ensure_ascii=False) + "\n"
    for suffix, text in (("json", as_json), ("md", markdown(results))):
        with journal.replaced(of.out / f"judge-bench.{suffix}") as out:
            out.write(text.encode())
    return results


def read(path: Path) -> list[Labelled]:
    """The preferences of a folder or file. ValueError names what is missing."""
    root = path if path.is_dir() else path.parent
    if tables := sorted(path.rglob("*.parquet")):
        return [_edit_reward(*row) for row in rows(tables, EDIT_REWARD)]
    if tables := sorted(path.rglob("*.arrow")):
        return [_edit_score(*row) for row in rows(tables, EDIT_SCORE)]
    given = preferences.rows(path / "metadata.jsonl" if path.is_dir() else path)
    return [_labelled(row, root, f"{path}: row {number}") for number, row in enumerate(given, 1)]


def _edit_reward(table: Path, number: int, row: Mapping[str, Any]) -> Labelled:
    """A row of EditReward-Bench. Comparisons of one source are dependent, so the bootstrap draws sources."""
    ranking, first = str(row["ranking"]), str(row["comparison_type"] or "AvsB")[0]
    if not re.fullmatch(r"[A-D][>=][A-D]", ranking):
        raise ValueError(f"{table}: row {number}: the ranking {ranking!r} is not like A>B or A=B")
    winner: Winner = "tie" if "=" in ranking else "first" if ranking[0] == first else "second"
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


def _drawn(edits: list[Any], winner: Winner, names: Sequence[str]) -> tuple[list[Any], Winner]:
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


Replied = JudgeReply[Winner] | ChatError


def _held_against(
    judge: JudgeModel, labelled: Sequence[Labelled], of: JudgeBenchRecipe, price: Price | None
) -> dict[str, Any]:
    """The results of one judge on one set."""
    start = time.perf_counter()
    votes = _votes(judge, labelled, of.votes)
    seconds = time.perf_counter() - start
    usage: JudgeUsage = NO_USAGE
    leanings: list[tuple[str, float]] = []
    agreed_in: dict[int, list[Winner]] = {}
    consistent: list[bool] = []
    counts: Counter[str] = Counter()
    for number, *shown in votes:
        case = labelled[number].preference.case
        replied = [one for one in shown if isinstance(one, JudgeReply)]
        usage = sum((one.usage for one in replied), usage)
        winners = [one.value for one in replied if one.value in ("first", "second")]
        leanings += [(case, winners.count("first") / len(winners))] if winners else []
        values = [one.value for one in replied if one.value is not None]
        if len(values) == 2:
            in_order, other = values[0], REVERSED[values[1]]
            consistent.append(in_order == other)
            agreed_in.setdefault(number, []).append(in_order if in_order == other else "tie")
        else:
            counts["unparsed" if len(replied) == 2 else "unanswered"] += 1
    pairs = [(labelled[n].preference, preferences.leading(Counter(winners))) for n, winners in agreed_in.items()]
    counted = usage.prompt_tokens > 0
    spent = price.of(usage.prompt_tokens, usage.answer_tokens) if price and counted else None
    return preferences.agreement(pairs, of.level) | {
        "preferences": len(labelled),
        "unreadable": len(labelled) - len({number for number, *_ in votes}),
        "unparsed": counts["unparsed"],
        "unanswered": counts["unanswered"],
        # How often the first-shown edit was preferred, ties left out: 0.5 without position bias.
        "first_preferred": statistics.figure(
            [share for _, share in leanings], [c for c, _ in leanings], level=of.level
        ),
        "orders_agree": sum(consistent) / len(consistent) if consistent else None,
        "seconds_per_verdict": seconds / usage.asked if usage.asked else None,
        "prompt_tokens": usage.prompt_tokens if counted else None,
        "answer_tokens": usage.answer_tokens if counted else None,
        "price": spent,
        "price_per_verdict": None if spent is None else spent / usage.asked,
    }


def _votes(judge: JudgeModel, labelled: Sequence[Labelled], count: int) -> list[tuple[int, Replied, Replied]]:
    """(place of the preference, reply, reply in the other order) of every vote; none if a picture cannot be read."""
    votes: list[tuple[int, Replied, Replied]] = []
    unreadable = 0
    for start in range(0, len(labelled), AT_ONCE):
        numbers: list[int] = []
        questions: list[Question[Winner]] = []
        for number, one in enumerate(labelled[start : start + AT_ONCE], start):
            try:
                shown = [picture.image() for picture in (one.source, one.first, one.second)]
            except ValueError as error:
                if unreadable == 0:
                    print(f"left out: {error}", file=sys.stderr)
                unreadable += 1
                continue
            text = prompts.render(OWN, instruction=one.instruction, dimension=one.preference.dimension or "overall")
            for repeat in range(count):
                numbers.append(number)
                questions += in_both_orders(shown, text, repeat)
        replied = judge.ask(questions)
        votes += zip(numbers, replied[::2], replied[1::2], strict=True)
    return votes


def markdown(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The page: the judges of every set, those that agree most first."""
    sets = []
    for name, judges in results.items():
        ordered = sorted(judges.items(), key=lambda judge: -(judge[1]["all"]["agreement"]["mean"] or 0))
        sets.append((name, judges, ordered, sorted({name for row in judges.values() for name in row["categories"]})))
    return report.template("judge-bench.md.jinja", report.cell).render(sets=sets)

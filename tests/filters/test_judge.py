"""The judge against a real server whose answers the test knows: facts to verdicts, unsure, errors, what is stored."""

import json

import numpy as np
import pyarrow as pa
import pytest
from chat_server import Said, serving
from conftest import make_run

from crispedit.bounds import Bound
from crispedit.cascade import Cascade
from crispedit.chat import ChatError
from crispedit.compositor.landscape import landscape
from crispedit.feasibility import Feasibility
from crispedit.filters.judge import RUBRIC, VERDICTS, Contest, Differences, Judge, Match, PreferredCandidate, verdicts
from crispedit.images import encode_jpeg
from crispedit.pipelines import audit, build
from crispedit.pipelines.records import score_table
from crispedit.record import Sample, canonical_json
from crispedit.shards import journal

SOURCE, EDITED = landscape(0, 160, 120), landscape(1, 160, 120)
RED = "make the balloon red"
LOOK = {"main_subject": "a balloon", "other_things": ["a tree"], "setting": "a meadow", "medium": "photograph"}
FEASIBLE = {"object_present": "yes", "already_true": "no", "contradictory": "no", "ambiguous": "no", "unsafe": "no"}


def difference(what="the balloon is red", kind="color", main_subject="yes"):
    return {"what": what, "kind": kind, "main_subject": main_subject}


def seen(*differences, subject="yes", composition="yes"):
    return {"differences": list(differences), "same_subject": subject, "same_composition": composition}


def match(*asked, fulfilled="yes"):
    entries = [{"difference": n, "asked_for": fact} for n, fact in enumerate(asked, 1)]
    return {"differences": entries, "fulfilled": fulfilled}


GOOD = {
    "Describe what": LOOK,
    "you are not told which edit": seen(difference()),
    "Check the instruction": FEASIBLE,
    "An editor was given": match("yes"),
    "over_editing:": {"instruction_following": 9, "over_editing": 8},
    "naturalness:": {"naturalness": 7, "artefacts": 6},
}


def server_saying(answers=GOOD, **instead):
    """A server that answers each question by what is in its words; `instead` by the instruction."""

    def reply(asked):
        text = asked.body["messages"][0]["content"]
        text = text if isinstance(text, str) else text[-1]["text"]
        for words, said in instead.items():
            if words in text:
                return said
        if asked.is_hello:
            return "here"
        return next(json.dumps(said) for words, said in answers.items() if words in text)

    return serving(reply)


def pair(instruction=RED, category="color"):
    return Sample(
        key=instruction,
        source_jpeg=encode_jpeg(SOURCE),
        edited_jpeg=encode_jpeg(EDITED),
        category=category,
        instruction=instruction,
    )


def judged(server, *samples, bounds=None, **options):
    """Rows and verdicts of the cascade."""
    judge = Judge(chat=server.spec, **options)
    cascade = Cascade.of({"judge": judge}, {"judge": bounds or {}}, {})
    rows = [{} for _ in samples]
    cascade.measure(samples, rows)
    pa.Table.from_pylist(rows, schema=pa.schema(cascade.columns))  # they fit in the score table
    return rows, [cascade.verdict(row) for row in rows]


def test_a_good_pair_passes_with_its_scores_and_the_models_words():
    with server_saying() as server:
        [row], [verdict] = judged(server, pair())
    assert verdict == ("kept", None)
    assert {row[f"judge.{name}"] for name in VERDICTS} == {1}
    assert (row["judge.unsure"], row["judge.no_model"]) == (0, 0)
    assert [row[f"judge.{name}"] for name in RUBRIC] == [9, 8, 7, 6]
    kept = json.loads(row["judge.answers"])
    assert set(kept) == {"source", "edited", "differences", "feasibility", "follows", "quality", "match"}
    assert json.loads(kept["differences"]) == seen(difference())


def test_what_is_seen_is_asked_without_the_instruction_and_what_was_wanted_without_the_pictures():
    with server_saying() as server:
        judged(server, pair())
    by_words = {
        words: [(len(asked.images), RED in asked.text) for asked in server.asked if words in asked.text]
        for words in GOOD
    }
    assert by_words == {
        "Describe what": [(1, False), (1, False)],
        "you are not told which edit": [(2, False)],
        "Check the instruction": [(1, True)],
        "An editor was given": [(0, True)],
        "over_editing:": [(2, True)],
        "naturalness:": [(1, False)],
    }
    [matching] = [asked.text for asked in server.asked if "An editor was given" in asked.text]
    assert "1. the balloon is red" in matching
    assert "a meadow" in matching


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, {}),
        ({"object_present": "no"}, {"instruction_actionable": "no"}),
        ({"already_true": "yes"}, {"instruction_actionable": "no"}),
        ({"contradictory": "unsure"}, {"instruction_actionable": "unsure"}),
        ({"object_present": "not_needed"}, {}),
    ],
)
def test_whether_the_instruction_can_be_carried_out_follows_from_the_facts(changed, expected):
    found = verdicts(Feasibility(**FEASIBLE | changed), Differences(**seen(difference())), Match(**match("yes")))
    assert found == dict.fromkeys(VERDICTS, "yes") | expected


LOST = difference("another person stands there", "replaced")


@pytest.mark.parametrize(
    ("differences", "matching", "expected"),
    [
        (seen(), match(fulfilled="yes"), {"change_happened": "no", "matches_instruction": "no"}),
        (
            seen(difference("it is blurred", "quality", "no")),
            match("no"),
            {"change_happened": "unsure", "matches_instruction": "no"},
        ),
        (seen(difference()), match("yes", fulfilled="no"), {"matches_instruction": "no"}),
        (seen(difference()), match("yes", fulfilled="unsure"), {"matches_instruction": "unsure"}),
        (seen(difference(), difference("the tree is gone")), match("yes", "no"), {"rest_preserved": "no"}),
        (seen(difference(), difference("a shadow?")), match("yes", "unsure"), {"rest_preserved": "unsure"}),
        (seen(difference(), difference("forgotten")), match("yes"), {"rest_preserved": "unsure"}),
        (
            seen(difference(), difference("unsure", "other"), difference("x")),
            match("yes", "unsure", "no"),
            {"rest_preserved": "no"},
        ),
        (seen(difference(), difference("jpeg", "quality")), match("yes", "no"), {}),
        (seen(difference(), subject="no"), match("yes"), {"subject_kept": "no"}),
        (
            seen(LOST, subject="no"),
            match("no"),
            {"matches_instruction": "unsure", "subject_kept": "no", "rest_preserved": "no"},
        ),
        (
            seen(LOST, subject="no"),
            match("no", fulfilled="no"),
            {"matches_instruction": "no", "subject_kept": "no", "rest_preserved": "no"},
        ),
        (seen(LOST, subject="no"), match("yes"), {}),
        (seen(difference(), composition="no"), match("yes"), {"composition_kept": "no"}),
        (seen(difference("it flew off", "moved"), composition="no"), match("yes"), {}),
        (seen(difference(), composition="unsure"), match("yes"), {"composition_kept": "unsure"}),
    ],
)
def test_what_happened_to_the_picture_follows_from_the_facts(differences, matching, expected):
    found = verdicts(Feasibility(**FEASIBLE), Differences(**differences), Match(**matching))
    assert found == dict.fromkeys(VERDICTS, "yes") | expected


def test_unsure_is_an_outcome_of_its_own_that_a_bound_decides():
    unsure = GOOD | {"An editor was given": match("yes", fulfilled="unsure")}
    with server_saying(unsure) as server:
        [row], [verdict] = judged(server, pair())
        assert row["judge.matches_instruction"] is None
        assert row["judge.unsure"] == 1
        assert verdict == ("rejected", "judge.unsure:high")
        _, [lenient] = judged(server, pair(), bounds={"unsure": Bound(max=1)})
        assert lenient == ("kept", None)
    false_too = unsure | {"you are not told which edit": seen(difference(), subject="no")}
    with server_saying(false_too) as server:
        _, [verdict] = judged(server, pair())
    assert verdict == ("rejected", "judge.subject_kept:low")


def test_a_question_without_an_answer_is_that_pairs_error_with_the_words_kept():
    with server_saying(**{"the barn": "I would rather not"}) as server:
        rows, outcomes = judged(server, pair(), pair("remove the barn"), pair("make the sky red"))
    assert outcomes == [("kept", None), ("error", "judge"), ("kept", None)]
    assert "I would rather not" in rows[1]["judge.error"]
    assert "feasibility" in rows[1]["judge.error"]
    assert "judge.answers" not in rows[1]


def test_a_server_that_fails_is_an_error_never_a_reject():
    fault = Said(status=400, body='{"error": {"message": "image too large"}}')
    with server_saying(**{"the barn": fault}) as server:
        rows, outcomes = judged(server, pair("remove the barn"), pair())
    assert outcomes == [("error", "judge"), ("kept", None)]
    assert "image too large" in rows[0]["judge.error"]


def test_a_pair_without_words_is_an_error_and_its_neighbour_is_judged():
    with server_saying() as server:
        rows, outcomes = judged(server, pair(None), pair())
    assert outcomes == [("error", "judge"), ("kept", None)]
    assert "without an instruction" in rows[0]["judge.error"]


def test_each_half_can_be_left_out():
    with server_saying() as server:
        [facts], _ = judged(server, pair(), rubric=False)
        assert len(server.asked) == 5
        [rubric], [verdict] = judged(server, pair(), facts=False)
        assert len(server.asked) == 7
    assert {facts[f"judge.{name}"] for name in RUBRIC} == {None}
    assert facts["judge.unsure"] == 0
    assert {rubric[f"judge.{name}"] for name in (*VERDICTS, "unsure")} == {None}
    assert rubric["judge.instruction_following"] == 9
    assert verdict == ("kept", None)


def test_without_a_model_every_score_is_null_and_says_so():
    [row] = Judge().measure([pair()])
    assert row.pop("no_model") == 1
    assert set(row.values()) == {None}


def test_an_untrained_model_that_answers_noise_makes_error_rows(tmp_path):
    import tiny_vlm

    options = {"device": "cpu", "dtype": "float32", "max_tokens": 4, "max_side_px": 56}
    judge = Judge(
        chat={"backend": "transformers", "model": str(tiny_vlm.save(tmp_path / "vlm")), **options}, rubric=False
    )
    cascade = Cascade.of({"judge": judge}, {}, {})
    row = {}
    cascade.measure([pair()], [row])
    assert cascade.verdict(row) == ("error", "judge")
    assert "cut off after" in row["judge.error"]  # four tokens are no answer


def test_it_asks_for_what_its_model_needs_and_is_another_judge_with_another_model():
    server = {"backend": "openai", "model": "a", "base_url": "http://localhost:1/v1"}
    assert Judge().gpus == 0
    assert Judge(chat=server).gpus == 0
    assert Judge(chat={"backend": "transformers", "model": "a"}).gpus == 1
    identity = Judge(chat=server).identity()
    assert Judge(chat=server | {"base_url": "http://localhost:2/v1"}).identity() == identity
    assert Judge(chat=server | {"model": "b"}).identity() != identity
    assert {"judge/match", "feasibility"} <= set(identity["prompts"])
    json.dumps(identity)


CANDIDATES = [np.full((40, 40, 3), level, np.uint8) for level in (40, 120, 200)]


def chosen(*numbers, candidates=3):
    """What `compare` makes of a model that names these numbers in the two orders."""
    said = iter(numbers)
    with serving(lambda asked: json.dumps({"candidate": next(said)})) as server:
        judge = Judge(chat=server.spec | {"concurrency": 1})
        [found] = judge.compare([Contest(SOURCE, RED, CANDIDATES[:candidates])])
        assert [len(asked.images) for asked in server.asked] == [1 + candidates] * 2
    forward, backward = (asked.images for asked in server.asked)
    assert forward[1:] == backward[:0:-1]
    return found.candidate if isinstance(found, PreferredCandidate) else found


def test_the_best_candidate_is_the_one_that_is_chosen_in_both_orders():
    assert chosen(1, 3) == 0
    assert chosen(3, 1) == 2
    assert chosen(2, 2) == 1
    assert chosen(2, 1, candidates=2) == 1
    assert chosen(2, 2, candidates=2) is None  # the last place, not a candidate
    assert chosen(1, 1) is None
    assert chosen(0, 0) is None
    assert chosen(0, 3) is None
    assert "it chose candidate 4 of 3" in str(chosen(4, 1))


def test_one_comparison_that_fails_costs_no_other():
    with server_saying({"Choose the best": {"candidate": 0}}, **{"the barn": "both!"}) as server:
        judge = Judge(chat=server.spec)
        contests = [Contest(SOURCE, words, CANDIDATES) for words in (RED, "remove the barn", RED)]
        before, failed, after = judge.compare(contests)
    assert (
        before
        == after
        == PreferredCandidate(None, canonical_json(dict.fromkeys(("in_order", "in_reverse"), '{"candidate": 0}')))
    )
    assert isinstance(failed, ChatError)
    assert "both!" in str(failed)


def test_its_choices_depend_on_its_model_and_not_on_what_else_it_is_asked():
    server = {"backend": "openai", "model": "a", "base_url": "http://localhost:1/v1"}
    comparison = Judge(chat=server).comparison()
    assert Judge(chat=server, facts=False, rubric=False).comparison() == comparison
    assert Judge(chat=server | {"model": "b"}).comparison() != comparison
    assert list(comparison["prompts"]) == ["judge/compare"]


def test_a_run_stores_the_words_and_counts_unsure_and_errors_apart(photos, tmp_path):
    unsure = json.dumps(FEASIBLE | {"object_present": "unsure"})
    with server_saying(**{'kind "add"': "no idea", 'kind "remove"': unsure}) as server:
        filters = json.dumps({"unchanged": {}, "judge": {"chat": server.spec}})
        categories = "categories={add: 1, remove: 1, color: 1}"
        run = make_run(tmp_path / "run", photos, f"filters={filters}", categories)
        build.build(run)
        rows = journal.read(run.folder("score"), score_table(run.recipe.pair_cascade)).to_pylist()
        strict = {c.category: c for c in audit.audit(run).counts if c.step == "select"}
        asked = len(server.asked)
        lenient = make_run(run.root, photos, f"filters={filters}", categories, "filters.judge.bounds.unsure.max=1")
        build.build(lenient)
        moved = {c.category: c for c in audit.audit(lenient).counts if c.step == "select"}
        assert len(server.asked) == asked  # a moved bound asks nothing
    judged = [row for row in rows if row["judge.measured"]]
    assert judged
    for row in judged:
        said = row["judge.answers"]
        assert ("no idea" in row["judge.error"]) if said is None else (json.loads(said)["source"] == json.dumps(LOOK))
    assert strict["color"].rejected.keys() <= {"unchanged.largest_region_fraction:low"}
    assert strict["add"].error == {"judge": strict["add"].rows - sum(strict["add"].rejected.values())}
    assert strict["remove"].rejected["judge.unsure:high"] == moved["remove"].kept > 0
    assert strict["remove"].kept == 0

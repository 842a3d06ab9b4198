"""The chat annotator against a real server whose answers the test knows: what is asked, refused, kept and committed."""

import json
import pickle

import pytest
from chat_server import Said, serving
from conftest import HEIGHT, WIDTH, make_run
from pydantic import ValidationError

from crispedit import chat, feasibility
from crispedit.annotators.chat import ChatAnnotator
from crispedit.chat import ChatError
from crispedit.compositor.landscape import landscape
from crispedit.feasibility import Feasibility
from crispedit.images import encode_jpeg
from crispedit.pipelines import audit, build, steps
from crispedit.pipelines.records import ANNOTATE
from crispedit.record import Job, Refusal, Sample, content_key
from crispedit.shards import journal

CAPTION = "A meadow under a cloudy sky."
DESCRIPTION = {
    "background": "a meadow",
    "objects": [{"name": "tree", "attributes": ["green"], "place": "left"}],
    "caption": CAPTION,
}
FEASIBLE = {"object_present": "yes", "already_true": "no", "contradictory": "no", "ambiguous": "no", "unsafe": "no"}


def kind(text):
    """The category that a prompt speaks of."""
    return next(
        c for c in ("add", "remove", "color", "style") if f'kind of edit ("{c}")' in text or f'kind "{c}"' in text
    )


def replying(facts=FEASIBLE, instead=lambda text: None):
    """A server that writes "COLOR it please", refines that to "COLOR the tree, N" and finds these facts; N counts the
    photograph's earlier jobs."""

    def reply(asked):
        text = asked.text
        if (other := instead(text)) is not None:
            return other
        if "plan edits of it" in text:
            return json.dumps(DESCRIPTION)
        if "Phrase the instruction" in text:
            number = text.count("\n- ")
            return json.dumps({"instruction": f"{kind(text)} it, {number}", "target_caption": f"after {number}"})
        if "weaknesses" in text:
            draft = text.partition("instruction: ")[2].partition("\n")[0]
            better = {"instruction": f" {draft}\n now", "target_caption": "A meadow, edited."}
            return json.dumps({"critique": "which tree?", **better})
        assert asked.is_hello or "Check the instruction" in text
        return json.dumps(facts)

    return serving(reply)


def photograph(seed=0):
    return Sample(key=content_key("photo", str(seed)), source_jpeg=encode_jpeg(landscape(seed, WIDTH, HEIGHT)))


def annotated(server, *requests, **options):
    annotator = ChatAnnotator(chat=server.spec, **options)
    return annotator.annotate([photograph(seed) for seed in range(len(requests))], requests)


def test_a_job_is_described_written_refined_and_checked():
    with replying() as server:
        [[job]] = annotated(server, ("color",))
    assert isinstance(job, Job)
    assert job.instruction == "color it, 0 now"
    assert (job.source_caption, job.target_caption) == (CAPTION, "A meadow, edited.")
    kept = job.plan["chat"]
    assert kept["description"] == [DESCRIPTION]
    assert [draft["instruction"] for draft in kept["draft"]] == ["color it, 0", " color it, 0\n now"]
    assert kept["facts"] == [FEASIBLE]
    assert len(server.asked) == 4
    assert all(len(asked.images) == 1 for asked in server.asked)
    check = server.asked[-1].text
    assert '"color it, 0 now"' in check
    assert '"color"' in check


@pytest.mark.parametrize(("refinements", "instruction"), [(0, "add it, 0"), (3, "add it, 0 now now now")])
def test_so_many_rounds_of_refinement_as_are_wanted(refinements, instruction):
    with replying() as server:
        [[job]] = annotated(server, ("add",), refinements=refinements)
    assert job.instruction == instruction
    assert len(server.asked) == 3 + refinements


def test_a_photograph_is_described_once_and_its_jobs_of_a_category_differ():
    with replying() as server:
        answers = annotated(server, ("add", "remove", "add", "add"), (), ("add",))
    assert [len(group) for group in answers] == [4, 0, 1]
    assert [job.instruction for job in answers[0]] == [
        "add it, 0 now",
        "remove it, 0 now",
        "add it, 1 now",
        "add it, 2 now",
    ]
    assert sum("plan edits of it" in asked.text for asked in server.asked) == 2


def test_more_jobs_leave_those_before_them_as_they_were():
    with replying() as server:
        [few] = annotated(server, ("add", "color"))
        [more] = annotated(server, ("add", "color", "add"))
    assert more[:2] == few


def test_the_voice_follows_from_the_photograph_and_varies():
    def writing(seed):
        with replying() as server:
            ChatAnnotator(chat=server.spec).annotate([photograph(seed)], [("add",) * 6])
        texts = [asked.text for asked in server.asked if "Phrase the instruction" in asked.text]
        return [text.partition("Phrase the instruction")[2].partition("\n")[0] for text in texts]

    assert writing(0) == writing(0)
    assert len({*writing(0), *writing(1)}) > 3


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({}, None),
        ({"object_present": "not_needed"}, None),
        ({"object_present": "no"}, "object_absent"),
        ({"already_true": "yes"}, "already_true"),
        ({"contradictory": "yes"}, "contradictory"),
        ({"ambiguous": "yes"}, "ambiguous"),
        ({"unsafe": "yes"}, "unsafe"),
        ({"unsafe": "unsure"}, "unsure"),
        ({"object_present": "unsure", "already_true": "yes"}, "already_true"),
    ],
)
def test_an_instruction_that_fails_its_check_is_refused_and_kept(changed, reason):
    assert feasibility.problem(Feasibility(**FEASIBLE | changed)) == reason
    with replying(FEASIBLE | changed) as server:
        [[answer]] = annotated(server, ("color",))
    if reason is None:
        assert isinstance(answer, Job)
    else:
        assert isinstance(answer, Refusal)
        assert answer.reason == reason
        assert answer.job.instruction == "color it, 0 now"


def test_a_repeated_and_an_empty_instruction_are_refused():
    same = json.dumps({"instruction": "Paint it RED", "target_caption": "red"})
    none = json.dumps({"instruction": " \n", "target_caption": "red"})
    with replying(instead=lambda text: same if "Phrase" in text else None) as server:
        [answers] = annotated(server, ("color", "color", "add"), refinements=0)
    assert isinstance(answers[0], Job)
    assert answers[1].reason == "repeated"
    assert isinstance(answers[2], Job)
    with replying(instead=lambda text: none if "Phrase" in text else None) as server:
        [[empty]] = annotated(server, ("color",), refinements=0)
    assert empty.reason == "no_words"


@pytest.mark.parametrize("stage", ["Phrase the instruction", "weaknesses", "Check the instruction"])
def test_a_question_without_an_answer_is_its_requests_error_alone(stage):
    fails = '"style"'
    with replying(instead=lambda text: "no idea" if stage in text and fails in text else None) as server:
        [[color, style, again]] = annotated(server, ("color", "style", "color"))
    assert isinstance(color, Job)
    assert isinstance(again, Job)
    assert isinstance(style, ChatError)
    assert style.raw == "no idea"


def test_a_photograph_that_cannot_be_described_fails_its_requests_and_no_others():
    refusals = iter([Said(status=400, body='{"error": {"message": "bad image"}}')])
    with replying(instead=lambda text: next(refusals, None) if "plan edits" in text else None) as server:
        bad, good = annotated(server, ("add", "color"), ("add",))
    failed = bad if isinstance(bad[0], ChatError) else good  # the two are asked at once
    worked = good if failed is bad else bad
    assert all("bad image" in str(answer) for answer in failed)
    assert all(isinstance(answer, Job) for answer in worked)


def test_a_category_without_a_file_is_named():
    with replying() as server, pytest.raises(ValueError, match=r"category file for relight; choose from add, "):
        annotated(server, ("relight",))


def test_it_needs_a_model_and_is_another_annotator_with_another_model_or_other_prompts():
    with pytest.raises(ValidationError, match="chat"):
        ChatAnnotator()
    server = {"backend": "openai", "model": "a", "base_url": "http://localhost:1/v1"}
    annotator = ChatAnnotator(chat=server)
    assert annotator.gpus == 0
    assert ChatAnnotator(chat={"backend": "transformers", "model": "a"}).gpus == 1
    assert pickle.loads(pickle.dumps(annotator)).identity() == annotator.identity()
    assert ChatAnnotator(chat=server | {"concurrency": 2}).identity() == annotator.identity()
    assert ChatAnnotator(chat=server | {"model": "b"}).identity() != annotator.identity()
    assert {"annotate/write", "feasibility"} <= set(annotator.identity()["prompts"])
    assert "motion" in annotator.identity()["categories"]
    assert set(annotator.identity()["options"]["chat"]["prompts"]) == set(chat.PROMPTS)


def test_a_runs_table_keeps_jobs_refusals_with_their_words_and_errors(photos, tmp_path):
    absent = json.dumps(FEASIBLE | {"object_present": "no"})

    def instead(text):
        if "Check the instruction" in text and '"remove"' in text:
            return absent
        return "no idea" if "weaknesses" in text and '"style"' in text else None

    with replying(instead=instead) as server:
        annotate = json.dumps({"annotator": "chat", "chat": server.spec, "pool": {"batch": 2}})
        categories = "categories={color: 1, remove: 1, style: 1}"
        run = make_run(tmp_path / "run", photos, f"annotate={annotate}", categories)
        for step in ("curate", "annotate", "select"):
            build.step(run, step)
    rows = journal.read(run.folder("annotate"), ANNOTATE).to_pylist()
    by_category = {c: [row for row in rows if row["category"] == c] for c in ("color", "remove", "style")}
    assert {len(found) for found in by_category.values()} == {4}
    assert all(row["job_key"] and not row["refusal"] and not row["error"] for row in by_category["color"])
    for row in by_category["remove"]:
        assert (row["refusal"], row["job_key"], row["error"]) == ("object_absent", None, None)
        assert row["instruction"] == "remove it, 0 now"
        assert json.loads(row["plan"])["chat"]["facts"][0]["object_present"] == "no"
    assert all("no idea" in row["error"] and not row["job_key"] for row in by_category["style"])
    counts = {c.category: c for c in audit.audit(run).counts if c.step == "annotate"}
    assert [counts[c].kept for c in ("color", "remove", "style")] == [4, 0, 0]
    assert counts["remove"].rejected == {"object_absent": 4}
    assert counts["style"].error == {"annotate": 4}


def test_a_job_whose_words_ask_for_another_category_is_refused_when_the_recipe_says_so(photos, tmp_path):
    words = {"color": "remove the tree", "remove": "take the tree away"}

    def instead(text):
        if "Phrase the instruction" in text:
            return json.dumps({"instruction": words[kind(text)], "target_caption": "a meadow"})
        return None

    def outcomes(name, least):
        annotate = {"annotator": "chat", "chat": server.spec, "refinements": 0, "least_category_probability": least}
        run = make_run(tmp_path / name, photos, f"annotate={json.dumps(annotate)}", "categories={color: 1, remove: 1}")
        build.step(run, "curate")
        build.step(run, "annotate")
        rows = journal.read(run.folder("annotate"), ANNOTATE).to_pylist()
        identity = steps.identities(steps.of(run))["annotate"]
        return {(row["category"], row["refusal"], row["instruction"]) for row in rows}, identity

    with replying(instead=instead) as server:
        checked, strict = outcomes("strict", 0.05)
        unchecked, lenient = outcomes("lenient", 0.0)
    assert checked == {("color", "category_mismatch", words["color"]), ("remove", None, words["remove"])}
    assert unchecked == {("color", None, words["color"]), ("remove", None, words["remove"])}
    assert strict != lenient

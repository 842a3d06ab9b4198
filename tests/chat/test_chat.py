"""The interface: what is read out of a model's words, the second question, and how a recipe names a model."""

import json
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from chat_server import Said, serving
from hypothesis import given
from hypothesis import strategies as st

from crispedit import chat, images, prompts
from crispedit.chat import ChatAnswer, ChatError, ChatOption, ChatRequest, Reply, make, parse
from crispedit.parts import Part
from crispedit.pipelines import recipe


class Animal(Reply):
    name: str
    legs: int


class Family(Reply):
    animals: list[Animal]


CAT = '{"name": "cat", "legs": 4}'
IMAGE = np.full((30, 40, 3), 90, np.uint8)


@pytest.mark.parametrize(
    "words",
    [
        CAT,
        f"```json\n{CAT}\n```",
        f"Sure! Here it is: {CAT} Anything else?",
        f'<think>Perhaps {{"name": "dog", "legs": 4}}?</think>\n{CAT}',
        f"The set {{a, b}} is no object. {CAT}",
        f'{{"note": "not it"}} {CAT}',
    ],
)
def test_the_first_object_of_the_shape_is_found_in_the_words(words):
    found = parse(words, Animal)
    assert isinstance(found, ChatAnswer)
    assert found.value == Animal(name="cat", legs=4)
    assert found.raw == words


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("", "no complete JSON object"),
        ("a cat with four legs", "no complete JSON object"),
        ('{"name": "cat", "legs": 4', "no complete JSON object"),
        ('{"name": "cat"}', "legs: Field required"),
        ('{"name": "cat", "legs": "many"}', "legs: Input should be a valid integer"),
        ('{"name": "cat", "legs": 4, "tail": 1}', "tail: Extra inputs are not permitted"),
        ('{"name": "cat", "legs": NaN}', "no complete JSON object"),
        ('[["name"]]', "no complete JSON object"),
        ('{"a":' * 50_000, "no complete JSON object"),
    ],
)
def test_what_is_no_answer_says_why_and_keeps_the_words(words, problem):
    found = parse(words, Animal)
    assert isinstance(found, ChatError)
    assert problem in str(found)
    assert found.raw == words
    assert len(str(found)) < 1500


def test_an_answer_cut_off_inside_a_list_is_not_taken_for_its_first_item():
    assert isinstance(parse(f'{{"animals": [{CAT}, {{"name": "d', Family), ChatError)
    assert isinstance(parse(f'{{"animals": [{CAT}]}}', Family), ChatAnswer)


@given(st.text(), st.text(), st.text(), st.integers())
def test_any_object_is_read_back_from_any_surroundings(before, after, name, legs):
    before = before.replace("{", "").replace("</think>", "")
    after = after.replace("</think>", "")
    name = name.replace("</think>", "")
    words = before + json.dumps({"name": name, "legs": legs}) + after
    found = parse(words, Animal)
    assert isinstance(found, ChatAnswer)
    assert found.value.legs == legs
    found.value.name.encode()


def test_half_a_surrogate_pair_does_not_get_into_a_table():
    found = parse('{"name": "\\ud83d", "legs": 4}', Animal)
    assert isinstance(found, ChatAnswer)
    assert found.value.name.encode() == b"?"
    assert parse("\ud83d", Animal).raw == "?"


def test_an_answer_that_does_not_fit_is_asked_for_once_more_with_what_was_wrong():
    def reply(asked):
        if asked.is_hello or len(asked.body["messages"]) == 3:
            return CAT
        return '{"name": "cat"}' if "cat?" in asked.text else '{"name": "ant", "legs": 6}'

    with serving(reply) as server:
        wrong, right = make(server.spec).ask(
            [ChatRequest("A cat?", Animal, [IMAGE]), ChatRequest("An ant?", Animal, [IMAGE])]
        )
    assert isinstance(wrong, ChatAnswer)
    assert isinstance(right, ChatAnswer)
    assert (wrong.value.name, right.value.name) == ("cat", "ant")
    assert len(server.asked) == 3  # the right one is not asked for again
    first, said, again = server.asked[-1].body["messages"]
    assert said == {"role": "assistant", "content": '{"name": "cat"}'}
    assert "legs: Field required" in again["content"]
    assert [c["type"] for c in first["content"]] == ["image_url", "text"]


def test_an_answer_that_never_fits_is_that_requests_error_with_the_last_words():
    def reply(asked):
        if "cat?" in asked.body["messages"][0]["content"]:
            return CAT
        return "again: no" if len(asked.body["messages"]) == 3 else "no"

    with serving(reply) as server:
        good, bad = make(server.spec).ask([ChatRequest("A cat?", Animal), ChatRequest("A dog?", Animal)])
    assert isinstance(good, ChatAnswer)
    assert isinstance(bad, ChatError)
    assert bad.raw == "again: no"
    assert "again: no" in str(bad)
    assert len(server.asked) == 3


def test_a_server_that_fails_on_the_second_question_leaves_the_first_words():
    def reply(asked):
        return Said(status=400, body="{}") if len(asked.body["messages"]) == 3 else "no"

    with serving(reply) as server:
        [bad] = make(server.spec).ask([ChatRequest("A dog?", Animal)])
    assert isinstance(bad, ChatError)
    assert bad.raw == "no"
    assert "answered 400" in str(bad)


def test_the_schema_is_told_unless_the_prompt_says_it_itself():
    with serving(lambda asked: CAT) as server:
        make(server.spec).ask([ChatRequest("Which?", Animal)])
        make(server.spec).ask([ChatRequest("Which?", Animal, tell_schema=False)])
    told, untold = (asked.text for asked in server.asked)
    assert '"required":["name","legs"]' in told
    assert untold == "Which?"


@pytest.mark.parametrize(("shape", "size"), [((100, 200), (50, 100)), ((300, 30), (100, 10)), ((80, 90), (80, 90))])
def test_images_are_scaled_down_to_the_longer_side_never_up(shape, size):
    assert images.fitted(np.zeros((*shape, 3), np.uint8), 100).shape == (*size, 3)


class Asking(Part):
    model: ChatOption | None = None


def test_a_part_takes_a_chat_model_as_an_option_and_pickles_with_it():
    spec = {"backend": "openai", "model": "tiny", "base_url": "http://localhost:1/v1"}
    part = Asking(model=spec)
    assert part.model == make(spec)
    again = pickle.loads(pickle.dumps(part))
    assert again.model == part.model
    assert Asking(**part.model_dump(mode="json")) == part


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ({"model": "tiny"}, "choose from openai, transformers"),
        ({"backend": "openai"}, "model: Field required"),
        ({"backend": "openai", "model": "tiny", "temprature": 1}, "temprature"),
    ],
)
def test_a_wrong_model_option_fails_with_the_choices(spec, problem):
    with pytest.raises(ValueError, match=problem):
        Asking(model=spec)


def test_the_identity_holds_what_decides_the_answer_and_the_prompts_text():
    spec = {"backend": "openai", "model": "tiny", "base_url": "http://localhost:1/v1"}
    identity = make(spec).identity()
    assert make({**spec, "base_url": "http://localhost:2/v1", "concurrency": 3}).identity() == identity
    assert make({**spec, "temperature": 0.5}).identity() != identity
    assert identity["prompts"] == prompts.versions(chat.PROMPTS)
    assert len(set(identity["prompts"].values())) == 2


def test_a_prompt_without_a_value_it_needs_is_an_error():
    with pytest.raises(Exception, match="schema"):
        prompts.render("chat/answer", prompt="Which?")


def test_the_recipes_in_the_documentation_are_recipes():
    text = (Path(__file__).parents[2] / "docs" / "chat.md").read_text(encoding="utf-8")
    fragments = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert len(fragments) == 4
    local, served, own, choosing = fragments
    made = []
    for fragment in (own, local, served, served + choosing):  # only a judge that has a model can choose
        whole = "run: runs/x\nsource: {kind: folder, path: photos}\ncategories: {add: 1}\n" + fragment
        made.append(recipe.recipe.parse(recipe.Recipe, whole).check())
    assert all(one.annotator.chat.model.rpartition("/")[2].startswith("Qwen") for one in made[1:])
    assert made[0].pair_cascade.filters["judge"].gpus == 1
    assert made[-1].judge is made[-1].pair_cascade.filters["judge"]


def test_an_answer_that_is_cut_off_is_asked_for_again_with_more_tokens():
    def reply(asked):
        if asked.body["max_completion_tokens"] <= 1024:
            return Said('{"name": "cat", "le', finish_reason="length")
        return CAT

    with serving(reply) as server:
        [answer] = make(server.spec).ask([ChatRequest("Which?", Animal)])
    assert answer.value.name == "cat"
    short, long = (asked.body for asked in server.asked)
    assert long["max_completion_tokens"] == chat.MORE_TOKENS * short["max_completion_tokens"]
    assert long["messages"] == short["messages"], "nothing was wrong with the answer but its length"


def test_a_whole_object_in_a_reply_that_is_cut_off_is_no_answer():
    with serving(lambda asked: Said(f"{CAT} But wait", finish_reason="length")) as server:
        [error] = make(server.spec).ask([ChatRequest("Which?", Animal)])
    assert isinstance(error, ChatError)
    assert "cut off after 4096 tokens" in str(error)
    assert len(server.asked) == 2


def test_thoughts_that_never_end_are_asked_for_again_with_more_tokens():
    def reply(asked):
        return f"<think>{CAT} or" if asked.body["max_completion_tokens"] <= 1024 else f"<think></think>{CAT}"

    with serving(reply) as server:
        [answer] = make(server.spec).ask([ChatRequest("Which?", Animal)])
    assert answer.value.name == "cat"
    assert len(server.asked) == 2


def test_one_that_was_cut_off_may_still_be_corrected():
    def reply(asked):
        if asked.body["max_completion_tokens"] <= 1024:
            return Said("", finish_reason="length")
        return CAT if len(asked.body["messages"]) == 3 else '{"name": "cat"}'

    with serving(reply) as server:
        [answer] = make(server.spec).ask([ChatRequest("Which?", Animal)])
    assert answer.value.legs == 4
    assert len(server.asked) == 3


DOG = '{"name": "dog", "legs": 4}'


@pytest.mark.parametrize(
    "said",
    [
        Said(CAT, thoughts={"reasoning_content": DOG}),
        Said(CAT, thoughts={"reasoning": DOG}),
        Said([{"type": "thinking", "thinking": [{"type": "text", "text": DOG}]}, {"type": "text", "text": CAT}]),
    ],
    ids=["reasoning_content", "reasoning", "pieces"],
)
def test_thoughts_in_a_field_of_their_own_are_no_answer(said):
    with serving(lambda asked: said) as server:
        [answer] = make(server.spec).ask([ChatRequest("Which?", Animal)])
    assert answer.value.name == "cat"


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_a_model_that_only_thought_has_said_nothing(field):
    with serving(lambda asked: Said(None, thoughts={field: DOG})) as server:
        [error] = make(server.spec).ask([ChatRequest("Which?", Animal)])
    assert isinstance(error, ChatError)
    assert "said nothing after it thought" in str(error)

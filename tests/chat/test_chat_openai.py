"""The `openai` backend against a real server that is slow, fails, hangs up and talks rubbish."""

import base64
import io
import logging
import pickle

import numpy as np
import pytest
from chat_server import Said, serving
from PIL import Image as Pillow

from crispedit.chat import ChatAnswer, ChatError, ChatRequest, Conversation, Published, Reply, Turn, make

KEY = "sk-very-secret-0123456789"
SOON = {"retry-after-ms": "1"}


class Animal(Reply):
    name: str


CAT, DOG = '{"name": "cat"}', '{"name": "dog"}'
IMAGE = np.full((30, 40, 3), 90, np.uint8)


def ask(server, *prompts, **options):
    chat = make({**server.spec, **options})
    return chat.ask([ChatRequest(prompt, Animal, [IMAGE]) for prompt in prompts])


def once(fault):
    """A reply that has this fault the first time a question is asked, and is a cat thereafter."""
    seen = set()

    def reply(asked):
        if asked.text in seen:
            return CAT
        seen.add(asked.text)
        return fault

    return reply


@pytest.mark.parametrize(
    "fault",
    [
        Said(status=429, headers=SOON, body="{}"),
        Said(status=500, headers=SOON, body="rubbish"),
        Said(status=503, headers=SOON, body=""),
        Said(status=408, headers=SOON, body="{}"),
        Said(hang_up=True),
    ],
)
def test_a_passing_fault_is_outlived(fault):
    with serving(once(fault)) as server:
        [answer] = ask(server, "which?")
    assert isinstance(answer, ChatAnswer)
    assert len(server.asked) == 2


def test_a_slow_answer_is_waited_for_until_the_timeout_then_asked_for_again():
    with serving(once(Said(CAT, after_s=1.5))) as server:
        [late] = ask(server, "which?", timeout_s=0.3)
        assert isinstance(late, ChatAnswer)
        assert len(server.asked) == 2
    with serving(once(Said(CAT, after_s=0.3))) as server:
        [patient] = ask(server, "which?", timeout_s=10)
        assert isinstance(patient, ChatAnswer)
        assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("fault", "problem", "requests"),
    [
        (Said(status=500, headers=SOON, body="out of memory"), "answered 500", 4),
        (Said(status=429, headers=SOON, body="{}"), "answered 429", 4),
        (Said(status=400, body='{"error": {"message": "image too large"}}'), "image too large", 1),
        (Said(status=404, body='{"error": {"message": "no such model"}}'), "no such model", 1),
        (Said(body="<html>Welcome</html>", headers={"Content-Type": "text/html"}), "not a chat completion", 1),
        (Said(body='{"choices": []}'), "not a chat completion", 1),
        (Said(body='{"choices": "cat"}'), "not a chat completion", 1),
        (Said(body=""), "not a chat completion", 1),
        (Said(body="\ud83d".encode("utf-8", "replace").decode()), "not a chat completion", 1),
        (Said(refusal="I cannot look at this."), "I cannot look at this", 1),
        (Said(content="", finish_reason="content_filter"), "content_filter", 1),
    ],
)
def test_a_lasting_fault_is_that_requests_error_and_no_others(fault, problem, requests):
    with serving(lambda asked: fault if "dog" in asked.text else CAT) as server:
        cat, dog, again = ask(server, "a cat", "a dog", "another cat")
    assert isinstance(cat, ChatAnswer)
    assert isinstance(again, ChatAnswer)
    assert isinstance(dog, ChatError)
    assert problem in str(dog)
    assert len(server.asked) == 2 + requests


def test_answers_are_in_the_order_of_the_questions_and_so_many_at_once():
    def reply(asked):
        number = int(asked.text.split()[0])
        return Said(f'{{"name": "{number}"}}', after_s=0.02 * (5 - number % 5))

    with serving(reply) as server:
        answers = ask(server, *(f"{number} which?" for number in range(12)), concurrency=3)
    assert [answer.value.name for answer in answers] == [str(number) for number in range(12)]
    assert server.most_at_once <= 3


def test_the_rate_is_limited_over_several_calls():
    import time

    with serving(lambda asked: CAT) as server:
        chat = make({**server.spec, "requests_per_minute": 600})
        start = time.monotonic()
        for _ in range(3):
            chat.ask([ChatRequest("which?", Animal), ChatRequest("what?", Animal)])
        assert time.monotonic() - start >= 0.5  # six requests are five intervals of a tenth


def test_what_is_sent_is_what_the_options_say():
    options = {"max_side_px": 32, "max_tokens": 77, "seed": 5, "extra": {"top_k": 1}}
    with serving(lambda asked: CAT) as server:
        ask(server, "which?", **options)
        ask(server, "which?", structured_output="none", temperature=None, seed=None, token_limit="max_tokens")
    held, free = (asked.body for asked in server.asked)
    assert held["temperature"] == 0
    assert (held["seed"], held["top_k"], held["max_completion_tokens"], held["model"]) == (5, 1, 77, "tiny")
    shape = held["response_format"]["json_schema"]
    assert shape["strict"]
    assert shape["schema"]["additionalProperties"] is False
    assert "response_format" not in free
    assert "temperature" not in free
    assert "seed" not in free
    assert free["max_tokens"] == 1024
    assert server.asked[0].images[0].startswith("data:image/jpeg;base64,")


def test_the_key_comes_from_the_environment_and_shows_nowhere(monkeypatch, caplog):
    monkeypatch.setenv("TEST_CHAT_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    fault = Said(status=400, body=f'{{"error": {{"message": "bad request by {KEY}"}}}}')
    with serving(lambda asked: CAT if asked.is_hello else fault) as server:
        chat = make({**server.spec, "api_key_env": "TEST_CHAT_KEY"})
        chat.load()
        [error] = chat.ask([ChatRequest("which?", Animal)])
        assert server.asked[-1].headers["Authorization"] == f"Bearer {KEY}"
    assert "bad request by [key]" in str(error)
    shown = [str(error), repr(chat), str(chat.identity()), str(chat.model_dump()), caplog.text]
    assert not any(KEY in text for text in shown)
    assert KEY.encode() not in pickle.dumps(chat)


def test_openais_own_key_is_not_sent_to_another_server(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving(lambda asked: CAT) as server:
        ask(server, "which?")
        assert KEY not in str(server.asked[0].headers)


def test_a_key_that_is_missing_stops_the_run_before_it_begins(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ValueError, match="set the environment variable OPENAI_API_KEY"):
        make({"backend": "openai", "model": "gpt-4o"}).load()
    with pytest.raises(ValueError, match="set the environment variable NO_SUCH_KEY"):
        make({"backend": "openai", "model": "gpt-4o", "api_key_env": "NO_SUCH_KEY"}).load()


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        (Said(status=401, body='{"error": {"message": "who are you?"}}'), "who are you"),
        (Said(status=404, body='{"error": {"message": "no model tiny"}}'), "no model tiny"),
        (Said(status=400, body='{"error": {"message": "response_format?"}}'), "response_format"),
    ],
)
def test_a_server_that_will_never_answer_stops_the_run_before_it_begins(fault, problem):
    with serving(lambda asked: fault) as server:
        with pytest.raises(ValueError, match=problem):
            make(server.spec).load()


def test_a_server_that_is_not_there_stops_the_run_before_it_begins():
    with serving(lambda asked: "anything at all") as server:
        make(server.spec).load()  # words will do: the model is there
    with pytest.raises(ValueError, match=r"127\.0\.0\.1.*ClientConnectorError"):
        make({**server.spec, "retries": 0}).load()


@pytest.mark.parametrize("url", ["http://me:secret@host/v1", "https://host/v1?key=secret", "host:80", "file:///etc"])
def test_an_address_with_credentials_or_of_no_server_is_refused(url):
    with pytest.raises(ValueError, match=r"base_url|not a server's address"):
        make({"backend": "openai", "model": "tiny", "base_url": url})


def test_a_published_script_is_sent_as_it_sends():
    """Text and images in its order, its encoding and settings, no schema, no seed and no scaling."""
    large = np.full((1200, 30, 3), 90, np.uint8)
    published = Published("jpeg-75", max_tokens=1400)
    turn = Turn("user", ["Rate it.", large, "Well?"])
    usage = {"prompt_tokens": 900, "completion_tokens": 7}
    with serving(lambda asked: Said("fine", finish_reason="length", usage=usage)) as server:
        [said] = make(server.spec).complete([Conversation([turn], published=published)])
    assert (said.text, said.cut, said.prompt_tokens, said.answer_tokens) == ("fine", True, 900, 7)
    [asked] = server.asked
    assert set(asked.body) == {"model", "messages", "max_completion_tokens"}
    first, second, third = asked.body["messages"][0]["content"]
    assert (first["text"], third["text"]) == ("Rate it.", "Well?")
    file = io.BytesIO()
    Pillow.fromarray(large).save(file, "JPEG")  # quality 75, 4:2:0
    assert base64.b64decode(second["image_url"]["url"].partition(",")[2]) == file.getvalue()

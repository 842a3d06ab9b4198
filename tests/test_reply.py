"""What counts as the answer in replies as models and servers make them up."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from crispedit.annotators.chat import Draft
from crispedit.chat import ChatAnswer, ChatError, Reply, parse
from crispedit.replies import answer, read


class Score(Reply):
    score: int
    why: str


DRAFT = '{"score": 1, "why": "a draft"}'
RIGHT = '{"score": 4, "why": "the answer"}'
CUT = "cut"
"""Asked again with more tokens."""
MISFIT = "misfit"
"""Asked again with what was wrong."""

REPLIES: dict[str, tuple[str, int | str]] = {
    "plain": (RIGHT, 4),
    "fenced": (f"```json\n{RIGHT}\n```", 4),
    "with greetings": (f"Sure! {RIGHT} Anything else?", 4),
    "after thoughts": (f"<think>Perhaps {DRAFT}?</think>\n{RIGHT}", 4),
    "thoughts that the prompt opened": (f"Perhaps {DRAFT}?\n</think>\n\n{RIGHT}", 4),
    "thoughts that never end": (f"<think>Perhaps {DRAFT}? But there is no", CUT),
    "nothing after the thoughts": (f"<think>Perhaps {DRAFT}.</think>", MISFIT),
    "empty thoughts": (f"<think>\n\n</think>\n\n{RIGHT}", 4),
    "two thoughts": (f"<think>{DRAFT}</think> Hm. <think>{DRAFT}</think>{RIGHT}", 4),
    "thoughts after the answer": (f"{RIGHT}\n<think>Was that {DRAFT}? No.</think>", 4),
    "thinking tag": (f"<thinking>{DRAFT}</thinking><answer>{RIGHT}</answer>", 4),
    "reasoning tag in capitals": (f"<REASONING>{DRAFT}</REASONING>{RIGHT}", 4),
    "thinking tag that never ends": (f"<thinking>{DRAFT}", CUT),
    **{
        f"{opens} that {'ends' if ends else 'never ends'}": (
            f"{opens}{DRAFT}{closes}{RIGHT}" if ends else f"{opens}{DRAFT}",
            4 if ends else CUT,
        )
        for opens, closes in (
            ("<minimax:think>", "</minimax:think>"),
            ("<antThinking>", "</antThinking>"),
            ('<think effort="high">', "</think>"),
            ("<start_of_thought>", "<end_of_thought>"),
            ('<details type="reasoning" done="true">', "</details>"),
        )
        for ends in (True, False)
    },
    "Magistral": (f"[THINK]{DRAFT}[/THINK]{RIGHT}", 4),
    "Kimi": (f"◁think▷{DRAFT}◁/think▷{RIGHT}", 4),
    "Command": (f"<|START_THINKING|>{DRAFT}<|END_THINKING|><|START_RESPONSE|>{RIGHT}<|END_RESPONSE|>", 4),
    "Seed": (f"<seed:think>{DRAFT}</seed:think>{RIGHT}", 4),
    "begin of thought": (f"<|begin_of_thought|>{DRAFT}<|end_of_thought|>{RIGHT}", 4),
    "GLM, boxed": (f"<think>{DRAFT}</think><|begin_of_box|>{RIGHT}<|end_of_box|>", 4),
    "Granite": (f"Here is my thought process: {DRAFT}\n\nHere is my response: {RIGHT}", 4),
    "harmony": (
        f"<|channel|>analysis<|message|>{DRAFT}<|end|><|start|>assistant<|channel|>final<|message|>{RIGHT}<|return|>",
        4,
    ),
    "harmony without its marks": (f"analysisPerhaps {DRAFT} is it.assistantfinal{RIGHT}", 4),
    "harmony cut off in its analysis": (f"<|channel|>analysis<|message|>We think {DRAFT} but", CUT),
    "a correction": (f"{DRAFT}\n\nWait, that is wrong. Correction:\n{RIGHT}", 4),
    "a correction in fences": (f"```json\n{DRAFT}\n```\nI misread it.\n```json\n{RIGHT}\n```", 4),
    "a correction that does not fit": (f'{DRAFT} Correction: {{"score": "four", "why": "words"}}', MISFIT),
    "a correction that is cut off": (f'{RIGHT}\nOn second thought: {{"score": 2, "why": "th', 4),
    "another object after the answer": (f'{RIGHT}\n{{"note": "all done"}}', 4),
    "another object before the answer": (f'{{"note": "let me see"}}\n{RIGHT}', 4),
    "a mark inside the answer's own words": ('{"score": 4, "why": "it says <think> and </think>"}', 4),
    "cut off in its first object": ('{"score": 4, "why": "because the', MISFIT),
    "cut off around a whole object": (f'{{"scores": [{RIGHT}, {{"score": 2', MISFIT),
    "braces in prose": (f"Of the set {{a, b}} I say {RIGHT}", 4),
    "no object": ("Four out of five.", MISFIT),
    "nothing": ("", MISFIT),
    "not a number": ('{"score": NaN, "why": "?"}', MISFIT),
    "nested without end": ('{"score":' * 100_000, MISFIT),
    "200,000 brackets": ("[" * 200_000 + "{" * 200_000, MISFIT),
}


@pytest.mark.parametrize("name", REPLIES)
def test_a_reply(name: str):
    text, expected = REPLIES[name]
    start = time.process_time()
    found = parse(text, Score)
    assert time.process_time() - start < 5
    if isinstance(expected, int):
        assert isinstance(found, ChatAnswer), found
        assert found.value.score == expected
    else:
        assert isinstance(found, ChatError)
        assert found.cut == (expected == CUT)
        assert found.raw == text
        assert len(str(found)) < 1500


def test_there_are_enough_replies():
    assert len(REPLIES) >= 29


def test_a_server_that_enforces_the_schema_needs_no_correction():
    assert parse(f"{RIGHT}\n{DRAFT}", Score, enforced=True).value.score == 4
    assert parse(f"{DRAFT} No: {RIGHT}", Score, enforced=True).value.score == 4, "it did not enforce it"


@pytest.mark.parametrize(
    ("text", "words"),
    [("<think>a</think> b ", "b"), ("b", "b"), ("a</think>b", "b"), ("<think>a", ""), ("x <think>a</think> y", "x  y")],
)
def test_the_words_after_the_thoughts(text: str, words: str):
    assert answer(text) == words
    assert read(text).unfinished == (not words)


def test_the_known_failure_is_an_error():
    path = Path(__file__).parents[2] / "shared" / "cases" / "chat-thought-cut-off" / "reply.txt"
    if not path.exists():
        pytest.skip("the files of known failures are not beside this checkout")
    found = parse(path.read_text(), Draft)
    assert isinstance(found, ChatError)
    assert found.cut

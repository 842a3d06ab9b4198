"""Reads a model's reply: skips its reasoning and finds the JSON object that counts.

A thinking model drafts answers that it then drops, so nothing inside its thoughts counts. If the prompt already opened
the thoughts, everything before their end mark is thought. The replies of all chat models (annotator, judge, comparison)
are read here.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

_TAGS = r"(?:[\w-]+:)?(?:ant)?(?:think|thinking|thoughts?|reasoning|reflection|rationale|scratchpad|inner_monologue)"
_MARKS = (
    (rf"<{_TAGS}(?:\s[^<>]*)?>", rf"</{_TAGS}>"),  # DeepSeek, Qwen, GLM, Seed, MiniMax ...
    (r"<details\s[^<>]*reasoning[^<>]*>", r"</details>"),  # Open WebUI
    (r"<start_of_thought>", r"<end_of_thought>"),
    (r"\[THINK\]", r"\[/THINK\]"),  # Magistral
    (r"◁think▷", r"◁/think▷"),  # Kimi
    (r"<\|begin_of_thought\|>", r"<\|end_of_thought\|>"),
    (r"<\|START_THINKING\|>", r"<\|END_THINKING\|>"),  # Command
    (r"<\|channel\|>(?:analysis|commentary)", r"<\|channel\|>final(?: <\|constrain\|>\w+)?<\|message\|>"),  # harmony
    (r"\A\s*analysis(?=[A-Z])", r"assistantfinal"),  # harmony, its marks dropped by a tokenizer
    (r"<\|channel>thought", r"<channel\|>"),  # Gemma
    (r"<unused94>", r"<unused95>"),  # MedGemma
    (r"Here is my thought process:", r"Here is my response:"),  # Granite
    (r"\A\s*Here are my reasoning steps:", r"\[BEGIN FINAL RESPONSE\]"),  # Apriel
)
_NEXT = re.compile(
    "|".join(f"(?P<open{n}>{opens})|(?P<close{n}>{closes})" for n, (opens, closes) in enumerate(_MARKS))
    + r"|\{(?=\s*(?:[\"}]|\Z))",
    re.IGNORECASE,
)
_CLOSES = [re.compile(closes, re.IGNORECASE) for _, closes in _MARKS]


@dataclass(frozen=True)
class ReplyText:
    """A parsed reply."""

    text: str
    """The text after the thoughts."""
    objects: tuple[dict[str, Any], ...]
    """The complete outermost JSON objects in it, in order; none inside one that is cut off."""
    alone: bool
    """Whether there is nothing but objects and white space, as with structured decoding."""
    unfinished: bool
    """Whether the thoughts never end, so that there is no answer."""


def read(reply: str) -> ReplyText:
    """The parsed reply. Thought marks inside an object's strings are plain text."""
    at = 0
    objects: list[tuple[int, int, dict[str, Any]]] = []
    thoughts: list[tuple[int, int]] = []
    while (mark := _NEXT.search(reply, at)) is not None:
        if mark[0] == "{":
            at, value = _object(reply, mark.start())
            if value is not None:
                objects.append((mark.start(), at, value))
            continue
        kind = str(mark.lastgroup)
        if kind.startswith("open"):
            closing = _CLOSES[int(kind.removeprefix("open"))].search(reply, mark.end())
            if closing is None:
                return ReplyText("", (), alone=False, unfinished=True)
            at = closing.end()
            thoughts.append((mark.start(), at))
        else:  # the prompt opened the thoughts: all before it was thought
            at = mark.end()
            objects, thoughts = [], [(0, at)]
    text = _without(reply, thoughts)
    beside = _without(reply, sorted([*thoughts, *((start, end) for start, end, _ in objects)]))
    return ReplyText(text, tuple(value for _, _, value in objects), not beside, unfinished=False)


def _without(text: str, spans: list[tuple[int, int]]) -> str:
    starts, ends = [start for start, _ in spans], [end for _, end in spans]
    kept = [text[end:start] for end, start in zip([0, *ends], [*starts, len(text)], strict=True)]
    return "".join(kept).strip()


def _object(text: str, at: int) -> tuple[int, dict[str, Any] | None]:
    """The position to continue from, and the object that begins here, if it is complete. An object that is cut off ends
    the text."""
    try:
        value, end = _DECODER.raw_decode(text, at)
    except json.JSONDecodeError as error:
        cut = error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string")
        return (len(text) if cut else at + 1), None
    except RecursionError:  # too deep to be an answer; every bracket after it would fail too
        return len(text), None
    except ValueError:
        return at + 1, None
    # A lone surrogate cannot be stored in a table.
    return end, json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))


def answer_of(reply: str) -> str | None:
    """The text after the thoughts; None if the thoughts never end."""
    words = read(reply)
    return None if words.unfinished else words.text


def counting(words: ReplyText, fields: frozenset[str], enforced: bool) -> dict[str, Any] | None:
    """The object that counts as the answer, valid or not; None if there is none.

    That is the last one with a field of the shape, because a model that corrects itself gives the right one last. With
    structured decoding (`enforced`) it is the first one.
    """
    meant = [value for value in words.objects if fields & value.keys()] or list(words.objects[-1:])
    if not meant:
        return None
    return meant[0] if enforced and words.alone else meant[-1]


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_no_constant)

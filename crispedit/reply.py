"""What a model's words answer: its thoughts left out, and the JSON object found that counts.

A thinking model drafts answers that it then drops, so nothing inside its thoughts counts, nor anything before the mark
that ends them where the prompt already opened them. Every chat model, for annotator, judge and comparison alike, is
read here.
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
    (
        r"<\|channel\|>(?:analysis|commentary)",
        r"<\|channel\|>final(?: <\|constrain\|>\w+)?<\|message\|>",
    ),  # harmony
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
    """A reply, read once from its start to its end."""

    text: str
    """All that is said after the thoughts."""
    objects: tuple[dict[str, Any], ...]
    """The complete JSON objects in it, in order, none inside another, nor inside one that is cut off."""
    alone: bool
    """Whether nothing but objects and white space is said, as where a server holds a model to a schema."""
    unfinished: bool
    """Whether the thoughts never end: then there is no answer."""


def read(reply: str) -> ReplyText:
    """What is said, and the objects in it. Marks inside an object's texts are part of it."""
    at = 0
    objects: list[tuple[int, int, dict[str, Any]]] = []
    thoughts: list[tuple[int, int]] = []
    while (mark := _NEXT.search(reply, at)) is not None:
        if mark[0] == "{":
            at, found = _object(reply, mark.start())
            if found is not None:
                objects.append((mark.start(), at, found))
            continue
        kind = str(mark.lastgroup)
        if kind.startswith("open"):
            closing = _CLOSES[int(kind.removeprefix("open"))].search(reply, mark.end())
            if closing is None:
                return ReplyText("", (), alone=False, unfinished=True)
            at = closing.end()
            thoughts.append((mark.start(), at))
        else:  # of thoughts that were opened in the prompt: all before it was thought
            at = mark.end()
            objects, thoughts = [], [(0, at)]
    text = _without(reply, thoughts)
    beside = _without(reply, sorted([*thoughts, *((start, end) for start, end, _ in objects)]))
    return ReplyText(text, tuple(found for _, _, found in objects), not beside, unfinished=False)


def _without(text: str, spans: list[tuple[int, int]]) -> str:
    starts, ends = [start for start, _ in spans], [end for _, end in spans]
    kept = [text[end:start] for end, start in zip([0, *ends], [*starts, len(text)], strict=True)]
    return "".join(kept).strip()


def _object(text: str, at: int) -> tuple[int, dict[str, Any] | None]:
    """Where to go on, and the object that begins here, if it is whole. One that the text's end cuts off ends it."""
    try:
        found, end = _DECODER.raw_decode(text, at)
    except json.JSONDecodeError as error:
        cut = error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string")
        return (len(text) if cut else at + 1), None
    except RecursionError:  # nobody's answer; every bracket after it would be tried in vain
        return len(text), None
    except ValueError:
        return at + 1, None
    # Half a surrogate pair fits in no table.
    return end, json.loads(json.dumps(found, ensure_ascii=False).encode("utf-8", "replace"))


def answer_of(reply: str) -> str | None:
    """The words after the thoughts; None if the thoughts never end."""
    words = read(reply)
    return None if words.unfinished else words.text


def counting(words: ReplyText, fields: frozenset[str], enforced: bool) -> dict[str, Any] | None:
    """The object that counts as the answer, right or wrong; None if there is none.

    That is the last one that has a field of the wanted shape, for a model that corrects itself says the right one last.
    Where a server held it to the schema, what follows the first object is no correction.
    """
    meant = [found for found in words.objects if fields & found.keys()] or list(words.objects[-1:])
    if not meant:
        return None
    return meant[0] if enforced and words.alone else meant[-1]


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_no_constant)

"""Reads the replies of chat models: the text after the reasoning, the JSON object that counts, and marks or verdicts.

A thinking model drafts answers that it then drops, so nothing inside its thoughts counts. If the prompt already opened
the thoughts, everything before their end mark is thought.

Judges reply in several published formats. Of these, too, the last complete object or line counts, and what cannot be
read is None, never a guess. Whatever the published scripts accept is accepted.
"""

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

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
        value, end = _STRICT.raw_decode(text, at)
    except json.JSONDecodeError as error:
        cut = error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string")
        return (len(text) if cut else at + 1), None
    except RecursionError:  # too deep to be an answer; every bracket after it would fail too
        return len(text), None
    except ValueError:
        return at + 1, None
    # A lone surrogate cannot be stored in a table.
    return end, json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))


def answer(reply: str) -> str:
    """The text after the thoughts; empty if the thoughts never end."""
    return read(reply).text


def counting(words: ReplyText, fields: frozenset[str], enforced: bool) -> dict[str, Any] | None:
    """The object that counts as the answer, valid or not; None if there is none.

    That is the last one with a field of the shape, because a model that corrects itself gives the right one last. With
    structured decoding (`enforced`) it is the first one.
    """
    meant = [value for value in words.objects if fields & value.keys()] or list(words.objects[-1:])
    if not meant:
        return None
    return meant[0] if enforced and words.alone else meant[-1]


# Published formats

DELIMITER = "||V^=^V||"
"""The delimiter that VIEScore's longer prompts put around an answer."""

Winner = Literal["first", "second", "tie"]


def last_object(text: str) -> dict[str, Any] | None:
    """The last complete outermost JSON object in a text. Raw line breaks in strings and a comma before a closing
    bracket are accepted. None if there is none, or if an unfinished one follows it."""
    last, at = None, text.find("{")
    while at >= 0:
        end = _closing(text, at)
        if end is None and re.match(r'\{\s*"', text[at:]):
            return None  # an unfinished object hides those inside it
        last = None if end is None else _lenient(text[at:end])
        at = text.find("{", at + 1 if last is None else end)
    return last


def viescore(text: str) -> list[float] | None:
    """The marks, 0-10, of a reply to VIEScore's prompts: `{"score": [8, 6], ...}` with or without reasoning and other
    keys, `{"score": 8}`, a bare list of marks, or one number."""
    words = answer(text)
    if words.count(DELIMITER) == 2:
        words = words.split(DELIMITER)[1].strip()
    if "{" in words:
        return _marks((last_object(words) or {}).get("score"), 0, 10)
    lists = re.findall(r"\[[^\[\]]*\]", words)
    try:
        value = json.loads(lists[-1] if lists and words.rfind("[") <= words.rfind("]") else words)
    except (ValueError, RecursionError):
        return None
    return _marks(value, 0, 10)


def lines(text: str, names: Sequence[str]) -> list[int] | None:
    """The marks, 1-5, of a reply in ImgEdit's lines ("Prompt Compliance: 5"), one for each name, in order. A judge with
    structured output may give an object of these names instead, or `{"scores": [5, 4, 4]}`."""
    words = answer(text)
    written = last_object(words) or {}
    said = re.findall(r"(?m)^(.+?)\s*:\s*\**\s*([1-5])\b(?![.\d]*\d)", words)
    for pairs in ([(name, int(mark)) for name, mark in said], written.items()):
        marks = {_plain(str(name)): mark for name, mark in pairs}
        if all(_plain(name) in marks for name in names):
            return _whole([marks[_plain(name)] for name in names], len(names))
    return _whole(written.get("scores", written.get("score")), len(names))


def published_lines(text: str) -> list[int] | None:
    """The numbers that ImgEdit's own script finds: those of every line "NAME: DIGITS"."""
    parts = [line.strip().split(": ") for line in text.splitlines()]
    return [int(part[1]) for part in parts if len(part) == 2 and part[1].isdigit()] or None


def score(text: str) -> int | None:
    """The mark, 1-5, of a reply to Edit-Compass' prompts: the `score` of the last object."""
    marks = _whole([(last_object(answer(text)) or {}).get("score")], 1)
    return None if marks is None else marks[0]


def winner(text: str) -> Winner | None:
    """The image that a reply prefers: `{"winner": "Image A", ...}`, or a last line that says only that."""
    words = answer(text)
    last = last_object(words)
    word = last.get("winner") if last is not None else (words.splitlines() or [""])[-1]
    return _WINNERS.get(_plain(str(word)).removeprefix("winner").strip(": "))


_WINNERS: dict[str, Winner] = {
    **dict.fromkeys(("a", "image a", "image_a", "imagea"), "first"),
    **dict.fromkeys(("b", "image b", "image_b", "imageb"), "second"),
    **dict.fromkeys(("tie", "equal"), "tie"),
}


def _plain(name: str) -> str:
    """A name without Markdown, in lower case."""
    return name.strip(" *-#\"'.").lower()


def _marks(value: object, low: float, high: float) -> list[float] | None:
    """Numbers within the range, from a list or a single number; None if any is invalid."""
    values: list[Any] = value if isinstance(value, list) else [value]
    if not values or not all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        return None
    return [float(v) for v in values] if all(low <= v <= high for v in values) else None


def _whole(value: object, count: int) -> list[int] | None:
    """This many whole numbers from 1 to 5."""
    marks = _marks(value, 1, 5)
    if marks is None or len(marks) != count or any(mark != int(mark) for mark in marks):
        return None
    return [int(mark) for mark in marks]


def _lenient(text: str) -> dict[str, Any] | None:
    """The object that this text is, also with a comma before a closing bracket."""
    for candidate in (text, re.sub(r",(\s*[\]}])", r"\1", text)):
        with suppress(ValueError, RecursionError):
            value: dict[str, Any] = _LENIENT.decode(candidate)
            return value
    return None


_BRACKETS_AND_STRINGS = re.compile(r'[{}]|"(?:\\.|[^"\\])*+(?:"|\\?\Z)', re.DOTALL)


def _closing(text: str, at: int) -> int | None:
    """Where the bracket that opens here is closed (brackets in strings do not count); None if it is not."""
    depth = 0
    for token in _BRACKETS_AND_STRINGS.finditer(text, at):
        depth += {"{": 1, "}": -1}.get(token[0], 0)
        if depth == 0:
            return token.end()
    return None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_STRICT = json.JSONDecoder(parse_constant=_no_constant)
_LENIENT = json.JSONDecoder(strict=False, parse_constant=_no_constant)

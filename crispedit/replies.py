"""Reads judges' replies in the published formats: scores and verdicts, or None if a reply has none.

All formats are read alike: reasoning is skipped, the last complete object or line counts (earlier drafts do not), and
what cannot be read is None, never a guess. Whatever the published scripts accept is accepted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Literal

from crispedit import reply

DELIMITER = "||V^=^V||"
"""The delimiter that VIEScore's longer prompts put around an answer."""

Winner = Literal["first", "second", "tie"]


def answer(text: str) -> str:
    """A reply without its reasoning; empty if the reasoning does not end."""
    return reply.answer_of(text) or ""


def last_object(text: str) -> dict[str, Any] | None:
    """The last complete outermost JSON object in a text. Raw line breaks in strings and a comma before a closing
    bracket are accepted. None if there is none, or if an unfinished one follows it."""
    last, at = None, text.find("{")
    while at >= 0:
        value, end = _decoded(text, at)
        if value is None:
            last, end = None, at + 1
            # An unfinished object hides those inside it.
            if _unclosed(text, at):
                return None
        else:
            last = value
        at = text.find("{", end)
    return last


def viescore(text: str) -> list[float] | None:
    """The marks, 0-10, of a reply to VIEScore's prompts: `{"score": [8, 6], ...}` with or without reasoning and other
    keys, `{"score": 8}`, a bare list of marks, or one number."""
    words = answer(text)
    if words.count(DELIMITER) == 2:
        words = words.split(DELIMITER)[1].strip()
    if "{" in words:
        last = last_object(words)
        return None if last is None else _marks(last.get("score"), 0, 10)
    lists = re.findall(r"\[[^\[\]]*\]", words)
    if lists and words.rfind("[") <= words.rfind("]"):
        return _marks(_json(lists[-1]), 0, 10)
    return _marks(_json(words), 0, 10)


def lines(text: str, names: Sequence[str]) -> list[int] | None:
    """The marks, 1-5, of a reply in ImgEdit's lines ("Prompt Compliance: 5"), one for each name, in order. A judge with
    structured output may give an object of these names instead, or `{"scores": [5, 4, 4]}`."""
    words = answer(text)
    mark_of = {
        _plain(name): int(mark) for name, mark in re.findall(r"(?m)^(.+?)\s*:\s*\**\s*([1-5])\b(?![.\d]*\d)", words)
    }
    if all(_plain(name) in mark_of for name in names):
        return [mark_of[_plain(name)] for name in names]
    written = last_object(words)
    if written is None:
        return None
    named = {_plain(str(key)): value for key, value in written.items()}
    marks = [named[_plain(name)] for name in names] if all(_plain(n) in named for n in names) else None
    marks = marks if marks is not None else written.get("scores", written.get("score"))
    return _whole(marks, len(names))


def published_lines(text: str) -> list[int] | None:
    """The numbers that ImgEdit's own script finds: those of every line "NAME: DIGITS"."""
    parts = [line.strip().split(": ") for line in text.splitlines()]
    return [int(part[1]) for part in parts if len(part) == 2 and part[1].isdigit()] or None


def score(text: str) -> int | None:
    """The mark, 1-5, of a reply to Edit-Compass' prompts: the `score` of the last object."""
    last = last_object(answer(text))
    marks = None if last is None else _whole([last.get("score")], 1)
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


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _decoded(text: str, at: int) -> tuple[dict[str, Any] | None, int]:
    """The object that begins here and where it ends; (None, 0) if none does."""
    try:
        return _DECODER.raw_decode(text, at)
    except (ValueError, RecursionError):
        pass
    end = _closing(text, at)
    if end is None:
        return None, 0
    try:
        value = _DECODER.decode(re.sub(r",(\s*[\]}])", r"\1", text[at:end]))
    except (ValueError, RecursionError):
        return None, 0
    return value, end


def _unclosed(text: str, at: int) -> bool:
    """Whether the bracket here looks like an object's and is never closed."""
    return _closing(text, at) is None and re.match(r'\{\s*"', text[at:]) is not None


def _closing(text: str, at: int) -> int | None:
    """Where the bracket that opens here is closed (brackets in strings do not count); None if it is not."""
    depth, quoted, escaped = 0, False, False
    for place in range(at, len(text)):
        letter = text[place]
        if quoted:
            quoted, escaped = escaped or letter != '"', letter == "\\" and not escaped
        elif letter == '"':
            quoted = True
        elif letter in "{}":
            depth += 1 if letter == "{" else -1
            if depth == 0:
                return place + 1
    return None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(strict=False, parse_constant=_no_constant)

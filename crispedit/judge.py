"""A judge: a chat model that answers a benchmark's questions, and a cache so that each is paid for once.

Replies are kept in a folder, by a key of everything that decides them: the model, its settings, the texts and the
images. The same question is therefore never paid for twice, whichever editor or output folder it belongs to. Unreadable
replies are not kept. A judge that is down is asked only a few questions.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from pydantic import BaseModel

from crispedit import prompts
from crispedit.chat import MORE_TOKENS, Chat, ChatError, Completion, Conversation, Published, Turn
from crispedit.images import fitted
from crispedit.record import Image, canonical_json, content_key

TRIES = 2
"""How often a question is asked while its reply cannot be read; VIEScore's script tries as often before it guesses."""
GIVE_UP = 20
"""After this many failures in a row, a judge counts as down."""
AT_ONCE = 16
"""Questions sent together, unless the chat model sets its own number."""

M = TypeVar("M")


@dataclass(frozen=True)
class Question(Generic[M]):
    """Texts and images in order, and `read`, which reads the reply: None if it cannot be read.

    `published` sends it as the published script does. Without it, the chat model's own settings are used, images are
    scaled to its limit, and the reply must have the `shape`, if there is one.
    """

    parts: Sequence[str | Image]
    read: Callable[[str], M | None]
    published: Published | None = None
    shape: type[BaseModel] | None = None
    tell_shape: bool = True
    """Append the shape's JSON Schema to the last text; false for a prompt that describes it itself."""
    repeat: int = 0
    """Which of several judgements of the same question this is."""


@dataclass(frozen=True)
class JudgeUsage:
    """The cost of replies: questions sent, questions answered from the cache, and tokens, if the backend counts
    them."""

    asked: int = 0
    kept: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0

    def __add__(self, other: JudgeUsage) -> JudgeUsage:
        return JudgeUsage(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


NO_USAGE = JudgeUsage()


@dataclass(frozen=True)
class JudgeReply(Generic[M]):
    """A reply: its value (None if it cannot be read), its text, and its cost."""

    value: M | None
    text: str
    usage: JudgeUsage


def settings(published: Published | None, chat: Chat) -> dict[str, Any]:
    """How questions are sent, for the record: the published script's settings, or the chat model's."""
    if published is not None:
        kind = "JPEG, quality 75, 4:2:0" if published.encoding == "jpeg-75" else "PNG"
        sent: dict[str, Any] = {"temperature": published.temperature, "max_tokens": published.max_tokens}
        sent["images"] = f"{kind}, at their own size"
        return {name: "not sent" if value is None else value for name, value in sent.items()}
    options = chat.identity()["options"]
    return {
        "temperature": options.get("temperature", "greedy"),
        "max_tokens": chat.max_tokens,
        "images": f"JPEG, long side at most {chat.max_side_px} px",
    }


class JudgeDownError(ChatError):
    """A question that was not asked, because the judge failed too often before it."""


@dataclass
class JudgeModel:
    """Asks a chat model; one in each process that scores."""

    chat: Chat
    kept: Path | None = None
    """The folder of replies; None: nothing is kept."""
    _failures: int = field(default=0, init=False)
    """In a row."""
    _last: str = field(default="", init=False)

    def load(self) -> None:
        self.chat.load()

    @property
    def down(self) -> bool:
        return self._failures >= GIVE_UP

    def ask(self, questions: Sequence[Question[Any]]) -> list[JudgeReply[Any] | ChatError]:
        """One result for each question, in order: the reply, or the error."""
        keys = [self._key(question) for question in questions]
        asked = dict(zip(keys, questions, strict=True))
        results: dict[str, JudgeReply[Any] | ChatError] = {
            key: kept for key, question in asked.items() if (kept := self._recall(key, question)) is not None
        }
        waiting = {key: self._conversation(question) for key, question in asked.items() if key not in results}
        for _ in range(TRIES):
            completions = self._complete([*waiting.values()])
            for key, completion in zip([*waiting], completions, strict=True):
                reply = results[key] = self._read(asked[key], completion, results.get(key))
                conversation = waiting.pop(key)
                if isinstance(reply, JudgeReply) and reply.value is None:
                    cut = isinstance(completion, Completion) and completion.cut
                    waiting[key] = self._once_more(conversation, asked[key], reply.text, cut)
                elif isinstance(reply, JudgeReply):
                    self._keep(key, reply)
        replies = []
        for key in keys:
            replies.append(reply := results[key])
            if isinstance(reply, JudgeReply):  # an equal question was asked once
                results[key] = replace(reply, usage=JudgeUsage(kept=1))
        return replies

    def _complete(self, conversations: Sequence[Conversation]) -> list[Completion | ChatError]:
        """The completions. Questions are sent in slices, so that a judge that is down is noticed early."""
        size = max(1, min(getattr(self.chat, "concurrency", AT_ONCE), GIVE_UP))
        completions: list[Completion | ChatError] = []
        for start in range(0, len(conversations), size):
            some = conversations[start : start + size]
            if self.down:
                why = f"not asked: the judge failed {self._failures} times in a row ({self._last})"
                completions += [JudgeDownError(why) for _ in some]
                continue
            for completion in self.chat.complete(some):
                if isinstance(completion, ChatError):
                    self._failures, self._last = self._failures + 1, str(completion)
                else:
                    self._failures = 0
                completions.append(completion)
        return completions

    def _read(
        self, question: Question[Any], completion: Completion | ChatError, before: JudgeReply[Any] | ChatError | None
    ) -> JudgeReply[Any] | ChatError:
        """The reply, with the cost of the try before it."""
        if isinstance(completion, ChatError):
            if isinstance(before, JudgeReply):
                return replace(before, usage=before.usage + JudgeUsage(asked=1))
            return completion
        usage = JudgeUsage(1, 0, completion.prompt_tokens or 0, completion.answer_tokens or 0)
        usage += before.usage if isinstance(before, JudgeReply) else NO_USAGE
        text = completion.text.encode("utf-8", "replace").decode()  # a lone surrogate cannot be stored in a table
        return JudgeReply(None if completion.cut else question.read(text), text, usage)

    def _conversation(self, question: Question[Any]) -> Conversation:
        if question.published is not None:
            return Conversation([Turn("user", question.parts)], published=question.published)
        parts = [p if isinstance(p, str) else fitted(p, self.chat.max_side_px) for p in question.parts]
        if question.shape is None:
            return Conversation([Turn("user", parts)])
        schema = question.shape.model_json_schema()
        if question.tell_shape:
            parts[-1] = prompts.render("chat/answer", prompt=parts[-1], schema=canonical_json(schema))
        return Conversation([Turn("user", parts)], question.shape.__name__, schema)

    def _once_more(self, asked: Conversation, question: Question[Any], text: str, cut: bool) -> Conversation:
        """The conversation for a second try: unchanged if it is published, else with more tokens, or with the reply and
        its error."""
        if question.published is not None:
            return asked
        if cut:
            return replace(asked, max_tokens=MORE_TOKENS * self.chat.max_tokens)
        if question.shape is None:
            return asked
        schema = canonical_json(question.shape.model_json_schema())
        retry = prompts.render("chat/retry", error=f"it is no {question.shape.__name__}", schema=schema)
        return replace(asked, turns=[*asked.turns, Turn("assistant", [text]), Turn("user", [retry])])

    def _key(self, question: Question[Any]) -> str:
        shown = [
            part
            if isinstance(part, str)
            else content_key("image", str(part.shape), np.ascontiguousarray(part).tobytes())
            for part in question.parts
        ]
        shape = None if question.shape is None else question.shape.model_json_schema()
        settings = None if question.published is None else vars(question.published)
        asked = {"judge": self.chat.identity(), "parts": shown, "shape": shape, "settings": settings}
        return content_key("judgement", canonical_json(asked), str(question.repeat))

    def _recall(self, key: str, question: Question[Any]) -> JudgeReply[Any] | None:
        if self.kept is None:
            return None
        try:
            text = json.loads(self._file(key).read_text(encoding="utf-8"))["text"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        value = question.read(text)
        return None if value is None else JudgeReply(value, text, JudgeUsage(kept=1))

    def _keep(self, key: str, reply: JudgeReply[Any]) -> None:
        if self.kept is None:
            return
        file = self._file(key)
        file.parent.mkdir(parents=True, exist_ok=True)
        written = canonical_json({"text": reply.text, **vars(reply.usage)})
        with tempfile.NamedTemporaryFile("w", dir=file.parent, suffix=".tmp", delete=False, encoding="utf-8") as out:
            out.write(written)
        os.replace(out.name, file)

    def _file(self, key: str) -> Path:
        assert self.kept is not None
        return self.kept / key[:2] / f"{key}.json"

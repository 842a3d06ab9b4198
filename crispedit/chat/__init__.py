"""Chat: asks a vision-language model about images, and gets answers as typed objects.

One interface and two backends: `transformers` runs a model in this process, `openai` asks a server. The shape of an
answer is a pydantic model: the model is told its JSON Schema, and `crispedit.replies` finds the object that counts. A
question is asked once more if the answer is cut off (with more tokens) or invalid (with the error). After that the
failure is an error of that request alone.

    chat = make({"backend": "openai", "model": "Qwen/Qwen3.5-9B", "base_url": "http://localhost:8000/v1"})
    [answer] = chat.ask([ChatRequest("Which animal is this?", Animal, images=[image])])
    if isinstance(answer, ChatError): ...      # else answer.value is an Animal, answer.raw the model's words
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError

from crispedit import parts, prompts, replies
from crispedit.images import fitted
from crispedit.parts import ModelPart
from crispedit.recipe import problems
from crispedit.record import Image, canonical_json

PROMPTS = ("chat/answer", "chat/retry")
MORE_TOKENS = 4
"""The factor on `max_tokens` when an answer that was cut off is asked for again."""


class Reply(BaseModel):
    """What answers inherit: all fields are required and no others are taken, as structured decoding asks for.

    Give no field a default; a docstring and `Field(description=...)` are read by the model.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)


A = TypeVar("A", bound=BaseModel)


@dataclass(frozen=True)
class ChatRequest(Generic[A]):
    """One question. `images` come before the prompt; `answer` is the answer's type."""

    prompt: str
    answer: type[A]
    images: Sequence[Image] = ()
    tell_schema: bool = True
    """Append the shape's JSON Schema to the prompt; false for a published prompt that describes it itself."""


@dataclass(frozen=True)
class ChatAnswer(Generic[A]):
    """An answer: the typed object, and the model's text."""

    value: A
    raw: str
    tokens: tuple[int, int] | None = None
    """(Input, output) tokens of all attempts; None: the backend does not count."""


class ChatError(Exception):
    """Why a request has no answer. `raw` is the model's last text, if any; the message quotes it.

    `cut`: the token limit cut it off, or its thoughts never ended.
    """

    def __init__(self, message: str, raw: str | None = None, cut: bool = False) -> None:
        super().__init__(message)
        self.raw = raw
        self.cut = cut


@dataclass(frozen=True)
class Turn:
    """One message of a conversation: texts and images, in this order."""

    role: Literal["user", "assistant"]
    parts: Sequence[str | Image]


@dataclass(frozen=True)
class Published:
    """How a published script sends a question, in place of the chat model's own settings."""

    encoding: Literal["jpeg-75", "png"]
    """Pillow's default JPEG (quality 75, 4:2:0), or PNG. Images are never scaled."""
    temperature: float | None = None
    """None: the script sends none, so the server's default applies."""
    max_tokens: int | None = None
    """None: the script sends none."""


@dataclass(frozen=True)
class Conversation:
    """A conversation that a backend continues by one message of the assistant."""

    turns: Sequence[Turn]
    name: str = ""
    """The name of the wanted shape."""
    schema: Mapping[str, Any] | None = None
    """Its JSON Schema, for backends with structured decoding; None: free text."""
    published: Published | None = None
    max_tokens: int | None = None
    """The limit for this answer, in place of the chat model's own."""


@dataclass(frozen=True)
class Completion:
    """One message of the assistant."""

    text: str
    cut: bool = False
    """Whether the token limit cut it off."""
    prompt_tokens: int | None = None
    answer_tokens: int | None = None
    """None: the backend does not count."""

    @property
    def tokens(self) -> tuple[int, int] | None:
        if self.prompt_tokens is None or self.answer_tokens is None:
            return None
        return self.prompt_tokens, self.answer_tokens


def total(tokens: Iterable[tuple[int, int] | None]) -> tuple[int, int] | None:
    """The sums of (input, output) tokens; None if some are unknown."""
    known = list(tokens)
    if None in known:
        return None
    return sum(one[0] for one in known if one), sum(one[1] for one in known if one)


class Chat(ModelPart):
    """A vision-language model. Subclasses implement `complete`; callers use `ask`."""

    model: str
    max_side_px: int = Field(1024, ge=28)
    """Images are scaled down to this longer side before they are sent."""
    max_tokens: int = Field(1024, ge=1)
    """The most tokens of an answer; a truncated answer is not valid JSON."""

    def complete(self, conversations: Sequence[Conversation]) -> list[Completion | ChatError]:
        """The assistant's next message in each conversation, in order, or an error."""
        raise NotImplementedError

    def ask(self, requests: Sequence[ChatRequest[A]]) -> list[ChatAnswer[A] | ChatError]:
        """One answer or error per request, in order.

        Raises only if no request can succeed, for example if the key is not set.
        """
        asked = [_opening(request, self.max_side_px) for request in requests]
        answers: dict[int, ChatAnswer[A] | ChatError] = {}
        retried = set[tuple[int, bool]]()
        tokens: list[list[tuple[int, int] | None]] = [[] for _ in requests]
        waiting = list(range(len(requests)))
        while waiting:
            completions = zip(waiting, self.complete([asked[i] for i in waiting]), strict=True)
            waiting = []
            for i, completion in completions:
                if isinstance(completion, Completion):
                    tokens[i].append(completion.tokens)
                result, before = self._read(completion, requests[i].answer, asked[i]), answers.get(i)
                if isinstance(result, ChatError) and result.raw is None and isinstance(before, ChatError):
                    result = ChatError(f"{result} (asked again: {before})", before.raw)
                elif isinstance(result, ChatError) and result.raw is not None and (i, result.cut) not in retried:
                    retried.add((i, result.cut))
                    waiting.append(i)
                    longer = replace(asked[i], max_tokens=MORE_TOKENS * self.max_tokens)
                    asked[i] = longer if result.cut else _correction(asked[i], result)
                answers[i] = result
        return [
            replace(result, tokens=total(tokens[i])) if isinstance(result, ChatAnswer) else result
            for i, result in sorted(answers.items())
        ]

    def enforces(self, conversation: Conversation) -> bool:
        """Whether decoding is constrained to the conversation's schema."""
        return False

    def _read(
        self, completion: Completion | ChatError, answer: type[A], asked: Conversation
    ) -> ChatAnswer[A] | ChatError:
        if isinstance(completion, ChatError):
            return completion
        if completion.cut:
            tokens = asked.max_tokens or self.max_tokens
            raw = completion.text.encode("utf-8", "replace").decode()
            return ChatError(f"cut off after {tokens} tokens (max_tokens). It was: {raw[:600]!r}", raw, cut=True)
        return parse(completion.text, answer, self.enforces(asked))

    def identity(self) -> dict[str, Any]:
        """The options that can change an answer, and the prompts of this module."""
        return super().identity() | {"prompts": prompts.versions(PROMPTS)}


def make(spec: Mapping[str, Any]) -> Chat:
    """The chat model that a recipe names: `{backend: openai, model: ..., ...}`. ValueError lists the choices."""
    options = dict(spec)
    backend = options.pop("backend", None)
    return parts.make(sys.modules[__name__], str(backend), Chat, options)


def _made(value: object) -> object:
    return make(value) if isinstance(value, Mapping) else value


def _spec(chat: Chat) -> dict[str, Any]:
    return {"backend": parts.name_of(type(chat)), **chat.model_dump(mode="json")}


ChatOption = Annotated[Chat, BeforeValidator(_made), PlainSerializer(_spec)]
"""The type of a part's option that is a chat model: a recipe gives `{backend: ..., model: ..., ...}`."""


def parse(text: str, answer: type[A], enforced: bool = False) -> ChatAnswer[A] | ChatError:
    """The answer in a model's text: the last complete JSON object with fields of the shape.

    Thoughts, code fences and greetings are skipped. `enforced`: the server constrained decoding to the shape.
    """
    raw = text.encode("utf-8", "replace").decode()  # a lone surrogate cannot be stored in a table
    words = replies.read(raw)
    if words.unfinished:
        return ChatError(f"its thoughts never end. It was: {raw[:600]!r}", raw, cut=True)
    value = replies.counting(words, frozenset(answer.model_fields), enforced)
    problem = "it holds no complete JSON object"
    if value is not None:
        try:
            return ChatAnswer(answer.model_validate(value), raw)
        except ValidationError as error:
            problem = "; ".join(problems(error)[:8])
    return ChatError(f"the answer is no {answer.__name__}: {problem}. It was: {raw[:600]!r}", raw)


def _opening(request: ChatRequest[Any], max_side_px: int) -> Conversation:
    schema = request.answer.model_json_schema()
    text = request.prompt
    if request.tell_schema:
        text = prompts.render("chat/answer", prompt=text, schema=canonical_json(schema))
    turn = Turn("user", [*(fitted(image, max_side_px) for image in request.images), text])
    return Conversation([turn], request.answer.__name__, schema)


def _correction(asked: Conversation, error: ChatError) -> Conversation:
    """The conversation, continued by the invalid answer and its error."""
    schema = canonical_json(asked.schema)
    retry = prompts.render("chat/retry", error=str(error).partition(". It was: ")[0], schema=schema)
    return replace(asked, turns=[*asked.turns, Turn("assistant", [error.raw or ""]), Turn("user", [retry])])

"""Chat: questions about images, answered by a vision-language model with objects of a wanted shape.

One interface and a backend per file of this folder: `transformers` runs a model in this process, `openai` asks a
server. The shape of an answer is a pydantic model: its JSON Schema is told to the model, and what comes back is the
first JSON object in the model's words that the shape accepts. An answer that does not fit is asked for once more, with
what was wrong with it; then it is that request's error, and no other's.

    chat = make({"backend": "openai", "model": "Qwen/Qwen3-VL-8B-Instruct", "base_url": "http://localhost:8000/v1"})
    [answer] = chat.ask([Request("Which animal is this?", Animal, images=[image])])
    if isinstance(answer, ChatError): ...      # else answer.value is an Animal, answer.raw the model's words
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar

import cv2
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError

from crispedit import parts, prompts
from crispedit.parts import Part
from crispedit.record import Image, canonical_json

PROMPTS = ("chat/answer", "chat/retry")


class Reply(BaseModel):
    """What answers inherit: all fields are required and no others are taken, as structured decoding asks for.

    Give no field a default; a docstring and `Field(description=...)` are read by the model.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)


A = TypeVar("A", bound=BaseModel)


@dataclass(frozen=True)
class Request(Generic[A]):
    """One question. `images` are shown before the words; `answer` is the shape of what is wanted."""

    prompt: str
    answer: type[A]
    images: Sequence[Image] = ()
    tell_schema: bool = True
    """Append the shape's JSON Schema to the prompt; false for a published prompt that says it in its own words."""


@dataclass(frozen=True)
class Answer(Generic[A]):
    """An object of the wanted shape, and the model's own words."""

    value: A
    raw: str


class ChatError(Exception):
    """Why a request has no answer. `raw` is what the model said last, if it said anything; the message quotes it."""

    def __init__(self, message: str, raw: str | None = None) -> None:
        super().__init__(message)
        self.raw = raw


@dataclass(frozen=True)
class Turn:
    """One message of a conversation; images come before the text, unless `parts` gives another order."""

    role: Literal["user", "assistant"]
    text: str = ""
    images: Sequence[Image] = ()
    parts: Sequence[str | Image] = ()
    """Texts and images in this order, in place of `text` and `images`."""

    @property
    def content(self) -> Sequence[str | Image]:
        """Texts and images, in order."""
        return self.parts or [*self.images, self.text]


@dataclass(frozen=True)
class Published:
    """How a published script sends a question, in place of the chat model's own settings."""

    encoding: Literal["jpeg-75", "png"]
    """Pillow's default JPEG (quality 75, 4:2:0), or PNG. Images are never scaled."""
    temperature: float | None = None
    """None: the script sends none, and the server's default holds."""
    max_tokens: int | None = None
    """None: the script sends none."""


@dataclass(frozen=True)
class Conversation:
    """What a backend continues by one message of the assistant's."""

    turns: Sequence[Turn]
    name: str = ""
    """The name of the wanted shape."""
    schema: Mapping[str, Any] | None = None
    """Its JSON Schema, for a backend that can hold a model to it; None: free text."""
    published: Published | None = None


@dataclass(frozen=True)
class Said:
    """One message of the assistant's."""

    text: str
    cut: bool = False
    """Whether the limit of tokens cut it off."""
    prompt_tokens: int | None = None
    answer_tokens: int | None = None
    """None: the backend does not count."""


class Chat(Part):
    """A vision-language model. Subclasses implement `complete`; everybody else calls `ask`."""

    unused: ClassVar[tuple[str, ...]] = ()
    """Options that decide where and how fast an answer is made, not which: they stay out of the identity."""

    model: str
    max_side_px: int = Field(1024, ge=28)
    """Images are scaled down to this longer side before they are sent."""
    max_tokens: int = Field(1024, ge=1)
    """Tokens of an answer at most: one that is cut off is no JSON."""

    def complete(self, conversations: Sequence[Conversation]) -> list[Said | ChatError]:
        """The assistant's next message in each conversation, in order, or why there is none."""
        raise NotImplementedError

    def ask(self, requests: Sequence[Request[A]]) -> list[Answer[A] | ChatError]:
        """One answer per request, in order, or why there is none.

        Raises only for what makes every request hopeless, such as a key that is not set.
        """
        if not requests:
            return []
        found: list[Answer[A] | ChatError] = []
        first = [_opening(request, self.max_side_px) for request in requests]
        for request, said in zip(requests, self.complete(first), strict=True):
            found.append(said if isinstance(said, ChatError) else parse(said.text, request.answer))
        misfits = {i: e for i, e in enumerate(found) if isinstance(e, ChatError) and e.raw is not None}
        corrections = [_correction(first[i], error) for i, error in misfits.items()]
        for i, said in zip(misfits, self.complete(corrections) if corrections else [], strict=True):
            if isinstance(said, ChatError):
                found[i] = ChatError(f"{said} (asked again: {misfits[i]})", misfits[i].raw)
            else:
                found[i] = parse(said.text, requests[i].answer)
        return found

    def identity(self) -> dict[str, Any]:
        """Without the options that do not decide what is answered; with the interface's own prompts."""
        found = super().identity()
        options = {name: value for name, value in found["options"].items() if name not in self.unused}
        return found | {"options": options, "prompts": prompts.versions(PROMPTS)}


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


def parse(text: str, answer: type[A]) -> Answer[A] | ChatError:
    """The answer in a model's words: the first JSON object that has the shape, whatever stands around it.

    Code fences, greetings and a reasoning model's thoughts (up to "</think>") are passed over.
    """
    raw = text.encode("utf-8", "replace").decode()  # half a surrogate pair fits in no table
    problem = ""
    for found in _objects(raw.rpartition("</think>")[2]):
        try:
            return Answer(answer.model_validate(found), raw)
        except ValidationError as error:
            wrong = [f"{'.'.join(map(str, e['loc'])) or 'it'}: {e['msg']}" for e in error.errors()]
            problem = problem or "; ".join(wrong[:8])
    problem = problem or "it holds no complete JSON object"
    return ChatError(f"the answer is no {answer.__name__}: {problem}. It was: {raw[:600]!r}", raw)


def fitted(image: Image, max_side_px: int) -> Image:
    """The image [H, W, 3], scaled down to this longer side if it is larger."""
    height, width = image.shape[:2]
    scale = max_side_px / max(height, width)
    if scale >= 1:
        return image
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _opening(request: Request[Any], max_side_px: int) -> Conversation:
    schema = request.answer.model_json_schema()
    text = request.prompt
    if request.tell_schema:
        text = prompts.render("chat/answer", prompt=text, schema=canonical_json(schema))
    turn = Turn("user", text, [fitted(image, max_side_px) for image in request.images])
    return Conversation([turn], request.answer.__name__, schema)


def _correction(asked: Conversation, error: ChatError) -> Conversation:
    """The conversation with the answer that did not fit, and what was wrong with it."""
    schema = canonical_json(asked.schema)
    retry = prompts.render("chat/retry", error=str(error).partition(". It was: ")[0], schema=schema)
    return replace(asked, turns=[*asked.turns, Turn("assistant", error.raw or ""), Turn("user", retry)])


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """The JSON objects in a text, in order, none inside another."""
    at = text.find("{")
    while at >= 0:
        try:
            found, end = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):
            end = at + 1
        else:
            yield json.loads(json.dumps(found, ensure_ascii=False).encode("utf-8", "replace"))
        at = text.find("{", end)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_no_constant)

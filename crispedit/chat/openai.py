"""Any OpenAI-compatible server as the chat model: vLLM, SGLang, `transformers serve`, or OpenAI's own.

Requests are sent concurrently (`crispedit.server`). With `serve` each process starts its own server.
"""

import io
from base64 import b64encode
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from aiohttp import ClientSession
from PIL import Image as Pillow
from pydantic import BaseModel, Field, ValidationError

from crispedit import images
from crispedit.chat import Chat, ChatError, Completion, Conversation, Published, Reply, Turn
from crispedit.record import Image
from crispedit.server import Server, Usage


class OpenAI(Server, Chat):
    """Asks a server for chat completions.

    `load` asks a first question, so that a run does not begin if the server is away, or rejects the key, the model or
    an option. RetryLater failures are errors of single requests.
    """

    kind: ClassVar[str] = "chat server"

    structured_output: Literal["json_schema", "none"] = "json_schema"
    """Constrain decoding to the schema; "none" for a server that cannot."""
    temperature: float | None = 0.0
    """Null leaves it out, for models that refuse it."""
    seed: int | None = 0
    token_limit: Literal["max_tokens", "max_completion_tokens"] = "max_completion_tokens"
    """The server's name of the limit; older ones know only "max_tokens"."""
    extra: dict[str, Any] = {}
    """Further fields of the request, such as vLLM's `chat_template_kwargs: {enable_thinking: false}`."""

    def load(self) -> None:
        """Start the server if `serve` is set, and ask a first question. ValueError, with the server's error, if it
        gives no answer."""
        _ = self.key  # ValueError if it is not set
        self.start()
        hello = Turn("user", ['Answer with this JSON object: {"ready": true}'])
        [answer] = self.complete([Conversation([hello], "Hello", Hello.model_json_schema())])
        if isinstance(answer, ChatError) and answer.raw is None:
            where = self.base_url if self.serve is None else f"`{self.serve}`"
            raise ValueError(f"the chat server {where} cannot be used: {answer}")

    def complete(self, conversations: Sequence[Conversation]) -> list[Completion | ChatError]:
        answers = self.each_answer(self._ask, conversations)
        return [_failed(answer) if isinstance(answer, Exception) else answer for answer in answers]

    async def _ask(self, session: ClientSession, conversation: Conversation) -> Completion | ChatError:
        body = self._body(conversation)
        response = await self.post(session, "chat/completions", lambda: {"json": body})
        if response.status != 200:
            return ChatError(self.failure(response))
        try:
            completion = CompletionBody.model_validate_json(response.body)
        except ValidationError:
            return ChatError(f"the server's answer is not a chat completion: {self.shown(response.body)}")
        choice = completion.choices[0]
        usage = completion.usage or Usage()
        cut = choice.finish_reason == "length"
        if not (text := choice.message.text) and not cut:
            thought = " after it thought" if choice.message.has_thoughts else ""
            why = f"finish reason {choice.finish_reason}, refusal {choice.message.refusal!r}"
            return ChatError(f"the model said nothing{thought} ({why})")
        return Completion(text, cut, usage.prompt_tokens, usage.answer_tokens)

    def enforces(self, conversation: Conversation) -> bool:
        return self.structured_output == "json_schema" and conversation.schema is not None

    def _body(self, conversation: Conversation) -> dict[str, Any]:
        published = conversation.published
        body: dict[str, Any] = {"model": self.model, "messages": [_message(t, published) for t in conversation.turns]}
        if published is not None:
            settings = {"temperature": published.temperature, self.token_limit: published.max_tokens}
        else:
            limit = conversation.max_tokens or self.max_tokens
            settings = {"temperature": self.temperature, self.token_limit: limit, "seed": self.seed}
        body |= {name: value for name, value in settings.items() if value is not None}
        if self.enforces(conversation):
            shape = {"name": conversation.name, "strict": True, "schema": conversation.schema}
            body["response_format"] = {"type": "json_schema", "json_schema": shape}
        return body | self.extra


def _failed(error: Exception) -> ChatError:
    """The error of one request; its cause decides whether it is transient."""
    failure = ChatError(str(error) or type(error).__name__)
    failure.__cause__ = error
    return failure


class Hello(Reply):
    """The shape of the first answer."""

    ready: bool


class Message(BaseModel):
    """The model's message, without its thoughts, which servers give in separate fields."""

    content: str | list[Any] | None = None
    refusal: str | None = None
    reasoning_content: Any = None
    reasoning: Any = None

    @property
    def text(self) -> str:
        """The text; of content in several parts, the text parts (the others are thoughts)."""
        if not isinstance(self.content, list):
            return self.content or ""
        pieces = [piece for piece in self.content if isinstance(piece, dict) and piece.get("type") == "text"]
        return "".join(str(piece.get("text") or "") for piece in pieces)

    @property
    def has_thoughts(self) -> bool:
        return bool(self.reasoning_content or self.reasoning or self.content)


class Choice(BaseModel):
    message: Message
    finish_reason: str | None = None


class CompletionBody(BaseModel):
    """What is read of a server's answer."""

    choices: list[Choice] = Field(min_length=1)
    usage: Usage | None = None


def _message(turn: Turn, published: Published | None) -> dict[str, Any]:
    """A turn in the API's format, with images as data URLs."""
    match turn.parts:
        case [str(text)]:
            return {"role": turn.role, "content": text}
    content = [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {"type": "image_url", "image_url": {"url": _url(part, published)}}
        for part in turn.parts
    ]
    return {"role": turn.role, "content": content}


def _url(image: Image, published: Published | None) -> str:
    """An image as a data URL: a JPEG, or as the published script encodes it."""
    if published is None:
        kind, data = "jpeg", images.encode_jpeg(image)
    else:
        kind = published.encoding.partition("-")[0]
        file = io.BytesIO()
        Pillow.fromarray(image).save(file, kind.upper())
        data = file.getvalue()
    return f"data:image/{kind};base64,{b64encode(data).decode()}"

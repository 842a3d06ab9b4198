"""Any OpenAI-compatible server as the chat model: vLLM, SGLang, `transformers serve`, or OpenAI's own.

Requests go out together, so many at a time; the `openai` client repeats those that fail for a passing reason (a lost
connection, a timeout, 408, 409, 429, 5xx), with growing pauses or those that the server asks for. The key is read from
the environment when it is needed, and stands in no recipe, log, error or table.
"""

from __future__ import annotations

import asyncio
import io
import time
from base64 import b64encode
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from PIL import Image as Pillow
from pydantic import BaseModel, Field, PrivateAttr, ValidationError, field_validator

from crispedit import images, server
from crispedit.chat import Chat, ChatError, Conversation, Published, Reply, Said, Turn
from crispedit.record import Image

if TYPE_CHECKING:
    from openai import AsyncOpenAI


class OpenAI(Chat):
    """Asks a server for chat completions.

    `load` asks a first question, so that a server that is not there, or does not know the key, the model or an option,
    stops the run before it begins. Later on, what the server will not answer is that request's error.
    """

    unused: ClassVar[tuple[str, ...]] = (
        "base_url",
        "api_key_env",
        "concurrency",
        "requests_per_minute",
        "timeout_s",
        "retries",
    )

    base_url: str = server.OPENAI_URL
    api_key_env: str | None = None
    """The environment variable that holds the key; null: OPENAI_API_KEY for OpenAI's server, no key for another."""
    concurrency: int = Field(16, ge=1)
    """Requests under way at once, for each process that asks."""
    requests_per_minute: float | None = Field(None, gt=0)
    """Requests started at most, for each process that asks; null: as fast as `concurrency` allows."""
    timeout_s: float = Field(300.0, gt=0)
    retries: int = Field(6, ge=0)
    """How often a request that fails for a passing reason is sent again."""
    structured_output: Literal["json_schema", "none"] = "json_schema"
    """Have the server decode only what fits the schema; "none" for one that refuses to."""
    temperature: float | None = 0.0
    """Null leaves it out, for models that refuse it."""
    seed: int | None = 0
    token_limit: Literal["max_tokens", "max_completion_tokens"] = "max_completion_tokens"
    """What the server calls the limit; older ones know only "max_tokens"."""
    extra: dict[str, Any] = {}
    """More of the request's body, such as vLLM's `chat_template_kwargs: {enable_thinking: false}`."""

    @field_validator("base_url")
    @classmethod
    def _no_credentials(cls, url: str) -> str:
        return server.checked(url)

    _next_s: float = PrivateAttr(0.0)
    """When the next request may start, on the monotonic clock, where their rate is limited."""

    def load(self) -> None:
        """Ask a first question. ValueError, with what the server said, if it gives no answer of any kind."""
        self._next_s = 0.0
        hello = Turn("user", 'Answer with this JSON object: {"ready": true}')
        [answer] = self.complete([Conversation([hello], "Hello", Hello.model_json_schema())])
        if isinstance(answer, ChatError) and answer.raw is None:
            raise ValueError(f"the chat server {self.base_url} does not answer: {answer}")

    def complete(self, conversations: Sequence[Conversation]) -> list[Said | ChatError]:
        return asyncio.run(self._complete(conversations))

    async def _complete(self, conversations: Sequence[Conversation]) -> list[Said | ChatError]:
        places = asyncio.Semaphore(self.concurrency)

        async def one(conversation: Conversation) -> Said | ChatError:
            async with places:
                await self._wait()
                return await self._ask(client, conversation)

        async with self._client() as client:
            return list(await asyncio.gather(*(one(conversation) for conversation in conversations)))

    async def _wait(self) -> None:
        """Until this request may start: they are spread evenly over the minute."""
        if self.requests_per_minute is not None:
            start = max(time.monotonic(), self._next_s)
            self._next_s = start + 60 / self.requests_per_minute
            await asyncio.sleep(start - time.monotonic())

    async def _ask(self, client: AsyncOpenAI, conversation: Conversation) -> Said | ChatError:
        import openai

        try:
            reply = await client.chat.completions.with_raw_response.create(**self._body(conversation))
            completion = Completion.model_validate_json(reply.text)
        except openai.OpenAIError as error:
            failure = ChatError(self._without_key(f"{type(error).__name__}: {error}"[:800]))
            failure.__cause__ = error  # which says whether it may pass
            return failure
        except ValidationError:
            return ChatError(
                f"the server's answer is no chat completion: {self._without_key(reply.text[:300])!r}"
            )
        choice = completion.choices[0]
        usage = completion.usage or Usage()
        cut = choice.finish_reason == "length"
        if not (text := choice.message.text) and not cut:
            thought = " after it thought" if choice.message.has_thoughts else ""
            return ChatError(
                f"the model said nothing{thought} (finish reason {choice.finish_reason}, "
                f"refusal {choice.message.refusal!r})"
            )
        return Said(text, cut, usage.prompt_tokens, usage.completion_tokens)

    def enforces(self, conversation: Conversation) -> bool:
        return self.structured_output == "json_schema" and conversation.schema is not None

    def _body(self, conversation: Conversation) -> dict[str, Any]:
        published = conversation.published
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [_message(turn, published) for turn in conversation.turns],
            "extra_body": self.extra,
        }
        if published is not None:
            settings = {"temperature": published.temperature, self.token_limit: published.max_tokens}
        else:
            settings = {
                "temperature": self.temperature,
                self.token_limit: conversation.max_tokens or self.max_tokens,
                "seed": self.seed,
            }
        body |= {name: value for name, value in settings.items() if value is not None}
        if self.enforces(conversation):
            shape = {"name": conversation.name, "strict": True, "schema": conversation.schema}
            body["response_format"] = {"type": "json_schema", "json_schema": shape}
        return body

    def _client(self) -> AsyncOpenAI:
        from openai import AsyncOpenAI

        return AsyncOpenAI(
            base_url=self.base_url,
            api_key=self._key or "none",  # the client insists on one
            max_retries=self.retries,
            timeout=self.timeout_s,
        )

    @property
    def _key(self) -> str | None:
        return server.key("the chat server", self.base_url, self.api_key_env)

    def _without_key(self, text: str) -> str:
        return server.without_key(text, self._key)


class Hello(Reply):
    """The shape of the first answer."""

    ready: bool


class Message(BaseModel):
    """What the model said. Its thoughts, which servers give in fields of their own, are no part of it."""

    content: str | list[Any] | None = None
    refusal: str | None = None
    reasoning_content: Any = None
    reasoning: Any = None

    @property
    def text(self) -> str:
        """The words: of content in pieces, those of text (the others are thoughts)."""
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


class Usage(BaseModel):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class Completion(BaseModel):
    """What is read of a server's answer."""

    choices: list[Choice] = Field(min_length=1)
    usage: Usage | None = None


def _message(turn: Turn, published: Published | None) -> dict[str, Any]:
    """A turn as the API writes it; images travel as data."""
    if not turn.images and not turn.parts:
        return {"role": turn.role, "content": turn.text}
    content = [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {"type": "image_url", "image_url": {"url": _url(part, published)}}
        for part in turn.content
    ]
    return {"role": turn.role, "content": content}


def _url(image: Image, published: Published | None) -> str:
    """An image as a data URL: JPEG of our own quality, or as the published script encodes it."""
    if published is None:
        kind, data = "jpeg", images.encode_jpeg(image)
    else:
        kind = published.encoding.partition("-")[0]
        file = io.BytesIO()
        Pillow.fromarray(image).save(file, kind.upper())
        data = file.getvalue()
    return f"data:image/{kind};base64,{b64encode(data).decode()}"

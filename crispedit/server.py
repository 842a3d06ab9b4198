"""Servers that a recipe names: shared options and requests for chat and image servers.

A request that fails for a transient reason (a lost connection, a timeout, a body that ends early, 408, 409, 423, 425,
429, 5xx) is retried, after the server's Retry-After or growing pauses. With `serve` the server is started here
(`crispedit.managed`); if it died or hangs, it is restarted before the retry.

The key is read from the environment when it is needed, and is never in a recipe, log, error or table.
"""

import asyncio
import math
import os
import random
import shlex
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, ClassVar, TypeVar
from urllib.parse import urlsplit

import aiohttp
from pydantic import AliasChoices, BaseModel, Field, PrivateAttr, field_validator

from crispedit import weights
from crispedit.managed import PORT, ManagedServer
from crispedit.outcome import STATUSES, Transient
from crispedit.parts import ModelPart

OPENAI_URL = "https://api.openai.com/v1"
LOST = (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, TimeoutError)
"""Errors of a connection: no answer, or only a part of it."""
USED_UP = b"insufficient_quota"
"""The code of a 429 that no pause cures: the account has no money left."""

T = TypeVar("T")
Q = TypeVar("Q")


@dataclass(frozen=True)
class Response:
    """A server's answer, unless it is a transient failure."""

    status: int
    headers: Mapping[str, str]
    """Their names in any case."""
    body: bytes


class RetryLater(Exception):  # noqa: N818
    """A transient failure, and the seconds after which the server wants a retry."""

    def __init__(self, message: str, pause_s: float | None) -> None:
        super().__init__(message)
        self.pause_s = pause_s


class Usage(BaseModel):
    """The tokens that a server counted; None: it does not count."""

    prompt_tokens: int | None = Field(None, validation_alias=AliasChoices("prompt_tokens", "input_tokens"))
    answer_tokens: int | None = Field(None, validation_alias=AliasChoices("completion_tokens", "output_tokens"))


class Server(ModelPart):
    """The options of a part that uses a server, and its requests."""

    kind: ClassVar[str] = "server"
    """Its name in messages."""

    base_url: str = OPENAI_URL
    api_key_env: str | None = None
    """The environment variable that holds the key; null: OPENAI_API_KEY for OpenAI's server, no key for another."""
    serve: str | None = None
    """The command of a server that each process of the pool starts for itself, in place of `base_url`, such as
    "vllm serve MODEL --port {port}": it must listen on {port}, which is chosen."""
    start_s: float = Field(1800.0, gt=0)
    """Seconds within which that server must be ready."""
    concurrency: int = Field(16, ge=1)
    """Requests under way at once, per process."""
    requests_per_minute: float | None = Field(None, gt=0)
    """Requests started at most, per process; null: as many as `concurrency` allows."""
    timeout_s: float = Field(300.0, gt=0)
    """For one request with its whole answer."""
    retries: int = Field(6, ge=0)
    """How often a request that fails for a transient reason is retried."""
    max_pause_s: float = Field(120.0, gt=0)
    """The longest pause before a retry. If a server asks for more, the row is tried again later."""
    max_answer_mb: float = Field(64.0, gt=0)
    """The largest answer that is read, in 2^20 bytes."""
    price_per_million_input: float | None = Field(None, ge=0)
    """For input tokens; the server's `usage` tells how many."""
    price_per_million_output: float | None = Field(None, ge=0)

    _next_s: float = PrivateAttr(0.0)
    """When the next request may start, on the monotonic clock."""
    _managed: ManagedServer | None = PrivateAttr(None)

    @field_validator("base_url")
    @classmethod
    def _no_credentials(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is not a server's address such as http://localhost:8000/v1")
        if parts.username or parts.password or parts.query:
            raise ValueError("base_url holds credentials or a query, which runs would store; use api_key_env")
        return url

    @field_validator("serve")
    @classmethod
    def _a_command(cls, command: str | None) -> str | None:
        if command is not None and PORT not in command:
            raise ValueError(f"the command must say where the port goes, such as --port {PORT}")
        if command is not None:
            shlex.split(command)  # ValueError for an unclosed quotation mark
        return command

    @property
    def gpus(self) -> float:  # type: ignore[override]  # the class's is for all its instances
        """The GPUs of a server started here; a remote server needs none."""
        return 0.0 if self.serve is None else 1.0

    def identity(self) -> dict[str, Any]:
        """Without the server's address, request rates and prices. A command counts by its words (files by name only), a
        model folder by its name and a digest of its weights."""
        identity = super().identity()
        if self.serve is not None:
            options, folder = identity["options"], Path(identity["options"]["model"])
            options["serve"] = [word.rstrip("/").rpartition("/")[2] for word in shlex.split(self.serve)]
            if folder.is_dir():
                options |= {"model": folder.name, "weights": weights.digest(folder)}
        return identity

    @property
    def managed(self) -> ManagedServer | None:
        """The server of this process; None without `serve`."""
        if self.serve is not None and self._managed is None:
            self._managed = ManagedServer(self.serve, self.start_s)
        return self._managed

    # Asking

    def each_answer(
        self, ask: Callable[[aiohttp.ClientSession, Q], Awaitable[T]], questions: Sequence[Q]
    ) -> list[T | Exception]:
        """The result of `ask` for each question, in order, `concurrency` at once; an exception is that question's
        error."""

        async def answers() -> list[T | Exception]:
            places = asyncio.Semaphore(self.concurrency)

            async def answer(question: Q) -> T | Exception:
                async with places:
                    try:
                        return await ask(session, question)
                    except Exception as error:  # of this row alone
                        return error

            async with self.session() as session:
                return list(await asyncio.gather(*map(answer, questions)))

        return asyncio.run(answers())

    def session(self, connector: aiohttp.TCPConnector | None = None) -> aiohttp.ClientSession:
        """A session of this event loop; internet servers are reached through the environment's proxy."""
        outside = connector is None and self.serve is None and urlsplit(self.base_url).scheme == "https"
        return aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=self.timeout_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=outside,
        )

    async def post(self, session: aiohttp.ClientSession, path: str, body: Callable[[], Mapping[str, Any]]) -> Response:
        """The answer to a POST of this body (aiohttp's arguments, made anew for each attempt). Raises Transient if the
        retries run out."""
        return await self.again(lambda: self._post(session, path, body()))

    async def _post(self, session: aiohttp.ClientSession, path: str, body: Mapping[str, Any]) -> Response:
        await self._wait()
        url, began = await self.address(), time.monotonic()
        try:
            # A redirect would send the photograph and the key elsewhere.
            async with session.post(f"{url}/{path}", headers=self.headers(), allow_redirects=False, **body) as answer:
                response = Response(answer.status, answer.headers, await self.read(answer))
        except LOST as error:
            if self.managed is not None:
                since = began if isinstance(error, TimeoutError) else None
                await asyncio.to_thread(self.managed.look_after, url, since)
            raise
        if self.managed is not None:
            self.managed.answered()
        if response.status >= 500 or response.status in STATUSES:
            raise self._later(response)
        return response

    async def again(self, ask: Callable[[], Awaitable[T]]) -> T:
        """The result of `ask`, retried while its failures are transient. Raises Transient if the retries run out."""
        for attempt in range(self.retries + 1):
            pause = None
            try:
                return await ask()
            except RetryLater as error:
                failure, pause = Transient(str(error)), error.pause_s
            except LOST as error:
                failure = Transient(self.without_key(f"{type(error).__name__}: {error}")[:500])
            if pause is None:
                pause = min(self.max_pause_s, 0.5 * 2**attempt) * random.uniform(0.75, 1)
            if pause > self.max_pause_s:
                break
            if attempt < self.retries:
                await asyncio.sleep(pause)
        raise failure

    async def read(self, answer: aiohttp.ClientResponse) -> bytes:
        """The whole body. ValueError if it exceeds `max_answer_mb`."""
        most = round(self.max_answer_mb * 2**20)
        body = bytearray()
        async for chunk in answer.content.iter_chunked(1 << 18):
            body += chunk
            if len(body) > most:
                answer.close()
                raise ValueError(f"the answer is larger than max_answer_mb={self.max_answer_mb:g}")
        return bytes(body)

    def failure(self, response: Response) -> str:
        """The error message for a failed response."""
        return f"the {self.kind} answered {response.status}: {self.shown(response.body)}"

    def _later(self, response: Response) -> RetryLater:
        pause = math.inf if USED_UP in response.body else pause_of(response.headers)
        if pause is not None and pause <= self.max_pause_s:  # one that asks for more would refuse an earlier retry too
            self._next_s = max(self._next_s, time.monotonic() + pause)
        return RetryLater(self.failure(response), pause)

    async def _wait(self) -> None:
        """Wait until this request may start: requests are spread evenly over the minute."""
        start = max(time.monotonic(), self._next_s)
        if self.requests_per_minute is not None:
            self._next_s = start + 60 / self.requests_per_minute
        await asyncio.sleep(start - time.monotonic())

    # The server's address

    def start(self) -> None:
        """Forget earlier pauses, and start the server if `serve` is set. ValueError, with the end of its log, if it
        does not start."""
        self._next_s = 0.0
        if self.managed is not None:
            self.managed.url()

    async def address(self) -> str:
        """The API's URL; with `serve`, the server is started if it does not run."""
        return self.base_url.rstrip("/") if self.managed is None else await asyncio.to_thread(self.managed.url)

    def headers(self) -> dict[str, str]:
        """HTTP headers, with the key if there is one."""
        return {"Authorization": f"Bearer {key}"} if (key := self.key) else {}

    @property
    def key(self) -> str | None:
        """The key from the environment: of the recipe's variable, or the usual one of OpenAI's server. Other servers
        without a variable get no key. ValueError if the variable is not set."""
        openai = self.serve is None and urlsplit(self.base_url).hostname == urlsplit(OPENAI_URL).hostname
        variable = "OPENAI_API_KEY" if openai and self.api_key_env is None else self.api_key_env
        if variable is None:
            return None
        if not os.environ.get(variable):
            raise ValueError(f"the {self.kind} {self.base_url} needs a key: set the environment variable {variable}")
        return os.environ[variable]

    def without_key(self, text: str) -> str:
        """The text without the key, which some servers repeat in errors."""
        return text.replace(key, "[key]") if (key := self.key) else text

    def shown(self, body: bytes) -> str:
        """The beginning of a body, for an error."""
        return repr(self.without_key(body[:2000].decode(errors="replace"))[:300])

    def price(self, input_tokens: int | None, output_tokens: int | None) -> float | None:
        """The cost of these tokens; None if no price is set, or a priced number is unknown."""
        both = (self.price_per_million_input, input_tokens), (self.price_per_million_output, output_tokens)
        costs = [None if tokens is None else price * tokens / 1e6 for price, tokens in both if price is not None]
        known = [cost for cost in costs if cost is not None]
        return sum(known) if known and len(known) == len(costs) else None


Server.incidental = frozenset(Server.model_fields)


def pause_of(headers: Mapping[str, str]) -> float | None:
    """Seconds of a Retry-After header (a number or a date), or of OpenAI's own in milliseconds; None without one."""
    readers: list[tuple[str, Callable[[str], float]]] = [
        ("retry-after-ms", lambda text: float(text) / 1000),
        ("retry-after", float),
        ("retry-after", lambda text: parsedate_to_datetime(text).timestamp() - time.time()),
    ]
    for name, seconds in readers:
        with suppress(KeyError, ValueError):
            return max(0.0, seconds(headers[name]))
    return None

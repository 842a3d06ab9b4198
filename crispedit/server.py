"""Servers that a recipe names: shared options and requests for chat and image servers.

A request that fails for a transient reason (a lost connection, a timeout, a body that ends early, 408, 409, 423, 425,
429, 5xx) is retried, after the server's Retry-After or growing pauses. With `serve` the server is started here
(`crispedit.managed`); if it died or hangs, it is restarted before the retry.

The key is read from the environment when it is needed, and is never in a recipe, log, error or table.
"""

from __future__ import annotations

import asyncio
import math
import os
import random
import shlex
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_validator

from crispedit import weights
from crispedit.managed import PORT, ManagedServer
from crispedit.outcome import STATUSES, Transient

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession, TCPConnector

OPENAI_URL = "https://api.openai.com/v1"
USED_UP = b"insufficient_quota"
"""The code of a 429 that no pause cures: the account has no money left."""

T = TypeVar("T")
Q = TypeVar("Q")


@dataclass(frozen=True)
class Response:
    """A server's answer, unless it is a transient failure."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class RetryLater(Exception):  # noqa: N818
    """A transient failure, and the seconds after which the server wants a retry."""

    def __init__(self, message: str, pause_s: float | None) -> None:
        super().__init__(message)
        self.pause_s = pause_s


class Server(BaseModel):
    """The options of a part that uses a server, and its requests."""

    model_config = ConfigDict(extra="forbid", frozen=True)

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

    def options_that_count(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The options that can change an answer: without the server's address, request rates and prices. A command
        counts by its words (files by name only), a model folder by its name and a digest of its weights."""
        counted = {name: value for name, value in options.items() if name not in UNUSED}
        if self.serve is None:
            return counted
        folder = Path(options["model"])
        counted["serve"] = [word.rstrip("/").rpartition("/")[2] for word in shlex.split(self.serve)]
        if folder.is_dir():
            counted |= {"model": folder.name, "weights": weights.digest(folder)}
        return counted

    @property
    def managed(self) -> ManagedServer | None:
        """The server of this process, once it is started; None without `serve`."""
        return self._managed

    # Asking

    def each_answer(
        self, ask: Callable[[ClientSession, Q], Awaitable[T]], questions: Sequence[Q]
    ) -> list[T | Exception]:
        """The result of `ask` for each question, in order, `concurrency` at once; an exception is that question's
        error."""
        return asyncio.run(self._each_answer(ask, questions))

    async def _each_answer(
        self, ask: Callable[[ClientSession, Q], Awaitable[T]], questions: Sequence[Q]
    ) -> list[T | Exception]:
        places = asyncio.Semaphore(self.concurrency)

        async def one(question: Q) -> T | Exception:
            async with places:
                try:
                    return await ask(session, question)
                except Exception as error:  # of this row alone
                    return error

        async with self.session() as session:
            return list(await asyncio.gather(*map(one, questions)))

    def session(self, connector: TCPConnector | None = None) -> ClientSession:
        """A session of this event loop; internet servers are reached through the environment's proxy."""
        import aiohttp

        outside = connector is None and self.serve is None and urlsplit(self.base_url).scheme == "https"
        return aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=self.timeout_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=outside,
        )

    async def post(self, session: ClientSession, path: str, body: Callable[[], Mapping[str, Any]]) -> Response:
        """The answer to a POST of this body (aiohttp's arguments, made anew for each attempt). Raises Transient if the
        retries run out."""
        return await self.again(lambda: self._post(session, path, body()))

    async def _post(self, session: ClientSession, path: str, body: Mapping[str, Any]) -> Response:
        import aiohttp

        await self._wait()
        url, began = await self.address(), time.monotonic()
        try:
            # A redirect would send the photograph and the key elsewhere.
            async with session.post(f"{url}/{path}", headers=self.headers(), allow_redirects=False, **body) as answer:
                response = Response(answer.status, dict(answer.headers), await self.read(answer))
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, TimeoutError) as error:
            if self._managed is not None:
                since = began if isinstance(error, TimeoutError) else None
                await asyncio.to_thread(self._managed.look_after, url, since)
            raise
        if self._managed is not None:
            self._managed.answered()
        if response.status >= 500 or response.status in STATUSES:
            raise self._later(response)
        return response

    async def again(self, ask: Callable[[], Awaitable[T]]) -> T:
        """The result of `ask`, retried while its failures are transient. Raises Transient if the retries run out."""
        import aiohttp

        attempt = 0
        while True:
            pause = None
            try:
                return await ask()
            except RetryLater as error:
                failure, pause = Transient(str(error)), error.pause_s
            except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, TimeoutError) as error:
                failure = Transient(self.without_key(f"{type(error).__name__}: {error}")[:500])
            if pause is None:
                pause = min(self.max_pause_s, 0.5 * 2**attempt) * random.uniform(0.75, 1)
            if attempt == self.retries or pause > self.max_pause_s:
                raise failure
            await asyncio.sleep(pause)
            attempt += 1

    async def read(self, answer: ClientResponse) -> bytes:
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
        if self.serve is not None and self._managed is None:
            self._managed = ManagedServer(self.serve, self.start_s)
        if self._managed is not None:
            self._managed.url()

    async def address(self) -> str:
        """The API's URL; with `serve`, the server is started if it does not run."""
        if self.serve is None:
            return self.base_url.rstrip("/")
        if self._managed is None:
            self._managed = ManagedServer(self.serve, self.start_s)
        return await asyncio.to_thread(self._managed.url)

    def headers(self) -> dict[str, str]:
        """HTTP headers, with the key if there is one."""
        key = self.key
        return {"Authorization": f"Bearer {key}"} if key else {}

    @property
    def key(self) -> str | None:
        """The key from the environment: of the recipe's variable, or the usual one of OpenAI's server. Other servers
        without a variable get no key. ValueError if the variable is not set."""
        variable = self.api_key_env
        own = self.serve is None and urlsplit(self.base_url).hostname == urlsplit(OPENAI_URL).hostname
        if variable is None and own:
            variable = "OPENAI_API_KEY"
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
        priced = [
            (price, tokens)
            for price, tokens in (
                (self.price_per_million_input, input_tokens),
                (self.price_per_million_output, output_tokens),
            )
            if price is not None
        ]
        if not priced or any(tokens is None for _, tokens in priced):
            return None
        return sum(price * (tokens or 0) / 1e6 for price, tokens in priced)

    def __getstate__(self) -> dict[Any, Any]:
        """Without the server: the process that unpickles this part starts its own."""
        state = dict(super().__getstate__())
        state["__pydantic_private__"] = {**(state["__pydantic_private__"] or {}), "_managed": None}
        return state


UNUSED = frozenset(Server.model_fields)
"""Options that decide where, how fast and at what cost an answer is made, not what it is."""


def pause_of(headers: Mapping[str, str]) -> float | None:
    """Seconds of a Retry-After header (a number or a date)."""
    named = {name.lower(): value for name, value in headers.items()}
    try:
        if "retry-after-ms" in named:  # OpenAI's own
            return max(0.0, float(named["retry-after-ms"]) / 1000)
        return max(0.0, float(named["retry-after"]))
    except KeyError:
        return None
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(named["retry-after"]).timestamp() - time.time())
    except (ValueError, KeyError):
        return None

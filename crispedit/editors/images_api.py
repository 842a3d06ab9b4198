"""Any server of `POST /v1/images/edits` as an editor: OpenAI's, LiteLLM's and vLLM-Omni's, and others through them.

The edit comes back at the source's own size: the server is sent a canvas of one of `sizes` (`crispedit.canvas`), and
of its answer the mirrored margins are cut off and what is left is scaled back.

A request that fails for a passing reason (a lost connection, a timeout, a body that ends early, 408, 429, 5xx) is sent
again, after the pause that the server's Retry-After asks for, or growing ones. Each job has its own answer: an edit, a
refusal (`content_refused`), or an error, so no paid answer is asked for twice because a neighbour failed.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import io
import json
import math
import random
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import numpy as np
from PIL import Image as PillowImage
from pydantic import BaseModel, Field, PrivateAttr, StringConstraints, ValidationError, field_validator

from crispedit import addresses, server
from crispedit.canvas import Canvas
from crispedit.outcome import STATUSES, Transient
from crispedit.parts import Editor
from crispedit.record import Edit, Image, Job, Refusal

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession, TCPConnector

FORMATS = ("PNG", "JPEG", "WEBP")
"""What an answer may be, by its bytes."""
REFUSES = re.compile(
    r"moderation|content.?polic|content.?filter|safety.?system|responsible.?ai", re.IGNORECASE
)
"""A code, type or message of an error that declines what a photograph shows or an instruction asks for."""
USED_UP = "insufficient_quota"
"""The code of a 429 that no short pause cures: the account has no money left."""

T = TypeVar("T")

Size = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{1,4}x[1-9][0-9]{1,4}$")]


class ImagesAPI(Editor):
    """Asks a server for edits, `concurrency` at once; give its pool one actor and a batch of some times as many.

    `load` fails if the key is missing, or the server is away or does not know the key.
    """

    model: str
    """As the server calls it, such as gpt-image-1."""
    base_url: str = server.OPENAI_URL
    api_key_env: str | None = None
    """The environment variable that holds the key; null: OPENAI_API_KEY for OpenAI's server, no key for another."""
    sizes: tuple[Size, ...] = ()
    """The sizes that the model makes, such as 1536x1024: the one nearest to the source's aspect is asked for. Empty:
    the source's own size, each side rounded up to `multiple_px`."""
    multiple_px: int = Field(16, ge=1)
    masks: bool = False
    """Send a mask, transparent where the edit belongs, for jobs whose plan has a `box`: [left, top, right, bottom] in
    shares of the photograph's sides."""
    send_seed: bool = False
    """Send each edit's own seed as the field `seed` (31 bits), which vLLM-Omni takes and OpenAI's server refuses."""
    extra: dict[str, str | int | float | bool] = {}
    """More of the form's fields, such as `quality: high` or `input_fidelity: high`."""
    concurrency: int = Field(8, ge=1)
    """Requests under way at once, for each process that asks."""
    requests_per_minute: float | None = Field(None, gt=0)
    """Requests started at most, for each process that asks; null: as fast as `concurrency` allows."""
    timeout_s: float = Field(300.0, gt=0)
    """For one request and its whole answer."""
    retries: int = Field(6, ge=0)
    """How often a request that fails for a passing reason is sent again."""
    max_pause_s: float = Field(120.0, gt=0)
    """The longest pause before a retry. A server that asks for more is left alone: the row is tried again later."""
    max_answer_mb: float = Field(64.0, gt=0)
    """The largest answer, and the largest image behind an address, that is read, in 2^20 bytes."""
    private_urls: bool = False
    """Fetch images from private addresses too, for a server of your own that answers with its own addresses."""
    price_per_image: float | None = Field(None, ge=0)
    price_per_million_input: float | None = Field(None, ge=0)
    """Of input tokens, of which the server's `usage` tells the number."""
    price_per_million_output: float | None = Field(None, ge=0)

    _next_s: float = PrivateAttr(0.0)
    """When the next request may start, on the monotonic clock."""

    @field_validator("base_url")
    @classmethod
    def _no_credentials(cls, url: str) -> str:
        return server.checked(url)

    @field_validator("extra")
    @classmethod
    def _not_ours(cls, extra: dict[str, Any]) -> dict[str, Any]:
        if wrong := sorted(
            {"model", "prompt", "image", "image[]", "mask", "size", "n", "seed", "stream"} & extra.keys()
        ):
            raise ValueError(f"{', '.join(wrong)}: set by the editor itself")
        return extra

    def load(self) -> None:
        asyncio.run(self._hello())

    def identity(self) -> dict[str, Any]:
        """Options that can change an image: not where the server is, how fast it is asked, or what it costs."""
        identity = super().identity()
        for name in UNUSED:
            del identity["options"][name]
        return identity

    def edit(
        self, sources: Sequence[Image], jobs: Sequence[Job], seeds: Sequence[int]
    ) -> list[Edit | Refusal | Exception]:
        return asyncio.run(self._edits(sources, jobs, seeds))

    async def _hello(self) -> None:
        import aiohttp

        async with self._session() as session:
            address, headers = f"{self.base_url.rstrip('/')}/models", self._headers()
            try:
                async with session.get(address, headers=headers, allow_redirects=False) as answer:
                    status = answer.status
            except (aiohttp.ClientError, TimeoutError) as error:
                raise ValueError(
                    f"the images server {self.base_url} does not answer: {type(error).__name__}: {error}"
                ) from error
        if status in (401, 403):
            raise ValueError(f"the images server {self.base_url} refuses the key: it answered {status}")

    async def _edits(
        self, sources: Sequence[Image], jobs: Sequence[Job], seeds: Sequence[int]
    ) -> list[Edit | Refusal | Exception]:
        places = asyncio.Semaphore(self.concurrency)

        async def one(source: Image, job: Job, seed: int) -> Edit | Refusal | Exception:
            async with places:
                try:
                    return await self._edit(session, source, job, seed)
                except Exception as error:  # of this row alone
                    return error

        async with self._session() as session:
            return list(await asyncio.gather(*map(one, sources, jobs, seeds)))

    async def _edit(self, session: ClientSession, source: Image, job: Job, seed: int) -> Edit | Refusal:
        canvas = self._canvas(source)
        fields: dict[str, str | bytes] = {
            "model": self.model,
            "prompt": job.instruction,
            "size": f"{canvas.width}x{canvas.height}",
            "n": "1",
            "image": _png(canvas.put(source)),
            **{
                name: json.dumps(value) if isinstance(value, bool) else str(value)
                for name, value in self.extra.items()
            },
        }
        if self.masks and "box" in job.plan:
            fields["mask"] = _png(_mask(canvas, job.plan["box"]))
        if self.send_seed:
            fields["seed"] = str(seed % 2**31)
        answer = await self._again(lambda: self._ask(session, fields))
        if isinstance(answer, Refusal):
            return answer
        image, cost = answer
        if isinstance(image, str):
            url = image
            image = await self._again(lambda: self._fetch(url))
        return Edit(canvas.take(_pixels(image, canvas)), cost=cost)

    def _canvas(self, source: Image) -> Canvas:
        height, width = source.shape[:2]
        if not self.sizes:
            return Canvas.of(width, height, self.multiple_px, None)
        sides = [(int(across), int(down)) for across, down in (size.split("x") for size in self.sizes)]
        return Canvas.among(width, height, sides)

    async def _again(self, ask: Callable[[], Awaitable[T]]) -> T:
        """What `ask` gives, once its passing failures are over. Transient if they are not."""
        import aiohttp

        attempt = 0
        while True:
            pause = None
            try:
                return await ask()
            except Later as error:
                failure, pause = Transient(str(error)), error.pause_s
            except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, TimeoutError) as error:
                failure = Transient(self._without_key(f"{type(error).__name__}: {error}")[:500])
            if pause is None:
                pause = min(self.max_pause_s, 0.5 * 2**attempt) * random.uniform(0.75, 1)
            if attempt == self.retries or pause > self.max_pause_s:
                raise failure
            await asyncio.sleep(pause)
            attempt += 1

    async def _ask(
        self, session: ClientSession, fields: Mapping[str, str | bytes]
    ) -> tuple[bytes | str, float | None] | Refusal:
        """The image, or where it lies, and its cost; or a refusal. Later for what may pass, ValueError for what will
        not."""
        import aiohttp

        await self._wait()
        form = aiohttp.FormData()
        for name, value in fields.items():
            if isinstance(value, bytes):
                form.add_field(name, value, filename=f"{name}.png", content_type="image/png")
            else:
                form.add_field(name, value)
        address = f"{self.base_url.rstrip('/')}/images/edits"
        # A redirect would take the photograph and the key elsewhere.
        async with session.post(address, data=form, headers=self._headers(), allow_redirects=False) as answer:
            body = await self._read(answer)
            if answer.status != 200:
                return self._declined(answer.status, answer.headers, body)
            try:
                made = Answer.model_validate_json(body)
            except ValidationError:
                raise ValueError(f"the server's answer holds no image: {self._shown(body)}") from None
            cost = self._cost(answer.headers, made.usage or Usage())
        [first] = made.data[:1]
        if first.b64_json is not None:
            try:
                return base64.b64decode(first.b64_json, validate=True), cost
            except binascii.Error as error:
                raise ValueError(f"the server's image is no base64: {error}") from None
        if first.url is None:
            raise ValueError(f"the server's answer holds no image: {self._shown(body)}")
        return first.url, cost

    def _declined(self, status: int, headers: Mapping[str, str], body: bytes) -> Refusal:
        """A refusal of the content; else it raises what the status means."""
        problem = _problem(body)
        said = f"the images server answered {status}: {self._shown(body)}"
        if status in (400, 403, 422, 451) and REFUSES.search(problem):
            return Refusal("content_refused")
        if status < 500 and status not in STATUSES:
            raise ValueError(said)
        pause = math.inf if USED_UP in problem else _pause(headers.get("Retry-After"))
        if pause is not None and pause <= self.max_pause_s:  # the others are not welcome earlier either
            self._next_s = max(self._next_s, time.monotonic() + pause)
        raise Later(said, pause)

    async def _fetch(self, url: str) -> bytes:
        """The image at an address that the server named, or that this one redirects to; the key is not sent there."""
        import aiohttp
        from yarl import URL

        connector = aiohttp.TCPConnector(resolver=None if self.private_urls else addresses.Public())
        async with self._session(connector) as session:
            for _ in range(5):
                where = URL(url)
                if where.scheme not in ("http", "https") or not where.host:
                    raise ValueError(f"the server's image is at no web address: {where.scheme}:")
                if not self.private_urls:
                    addresses.check(where.host)
                async with session.get(where, allow_redirects=False) as answer:
                    if answer.status in (301, 302, 303, 307, 308) and "Location" in answer.headers:
                        url = str(where.join(URL(answer.headers["Location"])))
                        continue
                    said = f"the server's image at {where.host} answered {answer.status}"
                    if answer.status >= 500 or answer.status in STATUSES:
                        raise Later(said, _pause(answer.headers.get("Retry-After")))
                    if answer.status != 200:
                        raise ValueError(said)
                    return await self._read(answer)
        raise ValueError("the server's image is behind more than 4 redirects")

    async def _read(self, answer: ClientResponse) -> bytes:
        """The whole body. ValueError once it is larger than may be."""
        most = round(self.max_answer_mb * 2**20)
        body = bytearray()
        async for chunk in answer.content.iter_chunked(1 << 18):
            body += chunk
            if len(body) > most:
                answer.close()
                raise ValueError(f"the answer is larger than max_answer_mb={self.max_answer_mb:g}")
        return bytes(body)

    async def _wait(self) -> None:
        """Until this request may start: they are spread evenly over the minute."""
        start = max(time.monotonic(), self._next_s)
        if self.requests_per_minute is not None:
            self._next_s = start + 60 / self.requests_per_minute
        await asyncio.sleep(start - time.monotonic())

    def _session(self, connector: TCPConnector | None = None) -> ClientSession:
        import aiohttp

        return aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=self.timeout_s),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._key}"} if self._key else {}

    def _cost(self, headers: Mapping[str, str], usage: Usage) -> float | None:
        """What the server says that the answer cost (LiteLLM does), else by the recipe's prices; null if unknown."""
        try:
            return float(headers["x-litellm-response-cost"])
        except (KeyError, ValueError):
            pass
        cost = self.price_per_image
        for price, tokens in (
            (self.price_per_million_input, usage.input_tokens),
            (self.price_per_million_output, usage.output_tokens),
        ):
            if price is not None:
                if tokens is None:
                    return None
                cost = (cost or 0) + price * tokens / 1e6
        return cost

    @property
    def _key(self) -> str | None:
        return server.key("the images server", self.base_url, self.api_key_env)

    def _without_key(self, text: str) -> str:
        return server.without_key(text, self._key)

    def _shown(self, body: bytes) -> str:
        return repr(self._without_key(body[:2000].decode(errors="replace"))[:300])


UNUSED = (
    *("base_url", "api_key_env", "concurrency", "requests_per_minute", "timeout_s", "retries", "max_pause_s"),
    *(
        "max_answer_mb",
        "private_urls",
        "price_per_image",
        "price_per_million_input",
        "price_per_million_output",
    ),
)


class Later(Exception):  # noqa: N818
    """A failure that may pass, and after how many seconds the server wants to be asked again."""

    def __init__(self, said: str, pause_s: float | None) -> None:
        super().__init__(said)
        self.pause_s = pause_s


class Datum(BaseModel):
    b64_json: str | None = None
    url: str | None = None


class Usage(BaseModel):
    input_tokens: int | None = None
    output_tokens: int | None = None


class Answer(BaseModel):
    """What is read of a server's answer."""

    data: list[Datum] = Field(min_length=1)
    usage: Usage | None = None


def _problem(body: bytes) -> str:
    """The code, type and message of an error, or nothing where the body is of another shape."""
    try:
        error = json.loads(body)["error"]
        return " ".join(str(error.get(name)) for name in ("code", "type", "message"))
    except (ValueError, TypeError, KeyError, AttributeError):
        return ""


def _pause(retry_after: str | None) -> float | None:
    """Seconds of a Retry-After, which is a number or a date."""
    if retry_after is None:
        return None
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except ValueError:
        return None


def _png(pixels: Image) -> bytes:
    """A PNG of [H, W, 3] or, with alpha, [H, W, 4]."""
    file = io.BytesIO()
    PillowImage.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()


def _mask(canvas: Canvas, box: Any) -> Image:
    """[height, width, 4] of the canvas: transparent in the box. ValueError unless it is in shares of the sides."""
    match box:
        case [float() | int(), float() | int(), float() | int(), float() | int()]:
            left, top, right, bottom = box
        case _:
            raise ValueError(f"plan.box is no [left, top, right, bottom]: {box!r}")
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise ValueError(f"plan.box is no [left, top, right, bottom] in shares of the sides: {box!r}")
    across, down = canvas.inner
    mask = np.full((canvas.height, canvas.width, 4), 255, np.uint8)
    mask[
        math.floor(top * down) : math.ceil(bottom * down),
        math.floor(left * across) : math.ceil(right * across),
    ] = 0
    return mask


def _pixels(data: bytes, canvas: Canvas) -> Image:
    """[height, width, 3] of the canvas. ValueError for what is no image, or one of another shape: where would the
    source lie?"""
    try:
        with PillowImage.open(io.BytesIO(data), formats=FORMATS) as picture:
            width, height = picture.size
            if (
                abs(math.log(width / height * canvas.height / canvas.width)) > 0.01
                or width > 4 * canvas.width
            ):
                raise ValueError(
                    f"the server answered a canvas of {canvas.width}x{canvas.height} with {width}x{height}: give sizes "
                    "that it keeps"
                )
            rgb = picture.convert("RGB")
    except (OSError, SyntaxError, PillowImage.DecompressionBombError) as error:
        raise ValueError(f"the server's image cannot be decoded: {error}") from None
    if rgb.size != (canvas.width, canvas.height):
        rgb = rgb.resize((canvas.width, canvas.height), PillowImage.Resampling.LANCZOS)
    return np.asarray(rgb)

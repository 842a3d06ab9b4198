"""Any server with `POST /v1/images/edits` as an editor: OpenAI, LiteLLM, vLLM-Omni, and others through them.

The edit has the source's size: the server gets a canvas of one of `sizes` (`crispedit.canvas`), and the mirrored
margins of its answer are cut off before it is scaled back.

Each job has its own result: an edit, a refusal (`content_refused`), or an error. So no paid answer is requested twice
because a neighbour failed. `crispedit.server` sends and retries requests.
"""

import asyncio
import base64
import binascii
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Any, ClassVar

import aiohttp
import numpy as np
from PIL import Image as Pillow
from pydantic import BaseModel, Field, StringConstraints, field_validator
from yarl import URL

from crispedit import addresses
from crispedit.canvas import Canvas
from crispedit.outcome import STATUSES
from crispedit.parts import Edit, Editor, Image, Job, Refusal
from crispedit.server import Response, RetryLater, Server, Usage, pause_of

FORMATS = ("PNG", "JPEG", "WEBP")
"""Accepted formats of an answer, by content."""
REFUSES = re.compile(
    r"moderat(ion|ed)|content.?polic|content.?filter|prohibited.?content|safety.?system|image.?safety|responsible.?ai",
    re.IGNORECASE,
)
"""Matches errors that decline the content of a photograph or instruction."""

Size = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{1,4}x[1-9][0-9]{1,4}$")]


class ImagesAPI(Server, Editor):
    """Asks a server for edits, `concurrency` at once; give its pool one actor and a batch of a few times `concurrency`.

    `load` fails if the key is missing, or the server is away or refuses the key.
    """

    kind: ClassVar[str] = "images server"
    incidental: ClassVar[frozenset[str]] = Server.incidental | {"private_urls", "price_per_image"}

    model: str
    """The server's name of the model, such as gpt-image-1."""
    sizes: tuple[Size, ...] = ()
    """The sizes that the model makes, such as 1536x1024; the one with the aspect nearest to the source's is used.
    Empty: the source's own size, each side rounded up to `multiple_px`."""
    multiple_px: int = Field(16, ge=1)
    masks: bool = False
    """Send a mask, transparent where to edit, for jobs whose plan has a `box`: [left, top, right, bottom] as fractions
    of the photograph's sides."""
    send_seed: bool = False
    """Send each edit's seed as the field `seed` (31 bits); vLLM-Omni takes it, OpenAI's server refuses it."""
    extra: dict[str, str | int | float | bool] = {}
    """Further form fields, such as `quality: high` or `input_fidelity: high`."""
    concurrency: int = Field(8, ge=1)
    """Requests under way at once, per process."""
    private_urls: bool = False
    """Fetch images from private addresses too, for a server of your own that answers with such URLs."""
    price_per_image: float | None = Field(None, ge=0)

    @field_validator("extra")
    @classmethod
    def _not_ours(cls, extra: dict[str, Any]) -> dict[str, Any]:
        ours = {"model", "prompt", "image", "image[]", "mask", "size", "n", "seed", "stream"}
        if wrong := sorted(ours & extra.keys()):
            raise ValueError(f"{', '.join(wrong)}: set by the editor itself")
        return extra

    def load(self) -> None:
        self.start()
        asyncio.run(self._hello())

    def edit(
        self, sources: Sequence[Image], jobs: Sequence[Job], seeds: Sequence[int]
    ) -> list[Edit | Refusal | Exception]:
        return self.each_answer(self._edit, list(zip(sources, jobs, seeds, strict=True)))

    async def _hello(self) -> None:
        url, headers = await self.address(), self.headers()
        async with self.session() as session:
            try:
                async with session.get(f"{url}/models", headers=headers, allow_redirects=False) as answer:
                    status = answer.status
            except (aiohttp.ClientError, TimeoutError) as error:
                raise ValueError(f"the images server {url} does not answer: {type(error).__name__}: {error}") from error
        if status in (401, 403):
            raise ValueError(f"the images server {url} refuses the key: it answered {status}")

    async def _edit(self, session: aiohttp.ClientSession, asked: tuple[Image, Job, int]) -> Edit | Refusal:
        source, job, seed = asked
        canvas = self._canvas(source)
        extra = {n: json.dumps(value) if isinstance(value, bool) else str(value) for n, value in self.extra.items()}
        fields: dict[str, str | bytes] = {
            "model": self.model,
            "prompt": job.instruction,
            "size": f"{canvas.width}x{canvas.height}",
            "n": "1",
            "image": _png(canvas.put(source)),
            **extra,
        }
        if self.masks and "box" in job.plan:
            fields["mask"] = _png(_mask(canvas, job.plan["box"]))
        if self.send_seed:
            fields["seed"] = str(seed % 2**31)
        response = await self.post(session, "images/edits", lambda: {"data": _form(fields)})
        if response.status != 200:
            return self._declined(response)
        image, cost = self._answer(response)
        if isinstance(image, str):
            url = image
            image = await self.again(lambda: self._fetch(url))
        return Edit(canvas.take(_pixels(image, canvas)), cost=cost)

    def _canvas(self, source: Image) -> Canvas:
        height, width = source.shape[:2]
        if not self.sizes:
            return Canvas.of(width, height, self.multiple_px, None)
        sides = [(int(across), int(down)) for across, down in (size.split("x") for size in self.sizes)]
        return Canvas.among(width, height, sides)

    def _answer(self, response: Response) -> tuple[bytes | str, float | None]:
        """The image or its URL, and its cost. ValueError if there is none."""
        try:
            parsed = ImagesResponse.model_validate_json(response.body)
            image, url = parsed.data[0].b64_json, parsed.data[0].url
            if image is None and url is None:
                raise ValueError("neither an image nor a URL")
        except ValueError:
            raise ValueError(f"the server's answer holds no image: {self.shown(response.body)}") from None
        cost = self._cost(response.headers, parsed.usage or Usage())
        if image is None and not str(url).startswith("data:"):
            return str(url), cost
        try:
            return base64.b64decode(str(url).partition(",")[2] if image is None else image, validate=True), cost
        except binascii.Error as error:
            raise ValueError(f"the server's image is not base64: {error}") from None

    def _declined(self, response: Response) -> Refusal:
        """A refusal of the content; ValueError for any other permanent error."""
        if response.status in (400, 403, 422, 451) and REFUSES.search(_problem(response.body)):
            return Refusal("content_refused")
        raise ValueError(self.failure(response))

    async def _fetch(self, url: str) -> bytes:
        """The image at a URL from the server, following redirects; the key is not sent there."""
        connector = aiohttp.TCPConnector(resolver=None if self.private_urls else addresses.Public())
        async with self.session(connector) as session:
            for _ in range(5):
                where = URL(url)
                if where.scheme not in ("http", "https") or not where.host:
                    raise ValueError(f"the server's image has no web address but {where.scheme}:")
                if not self.private_urls:
                    addresses.check(where.host)
                async with session.get(where, allow_redirects=False) as answer:
                    if answer.status in (301, 302, 303, 307, 308) and "Location" in answer.headers:
                        url = str(where.join(URL(answer.headers["Location"])))
                        continue
                    failure = f"the server's image at {where.host} answered {answer.status}"
                    if answer.status >= 500 or answer.status in STATUSES:
                        raise RetryLater(failure, pause_of(answer.headers))
                    if answer.status != 200:
                        raise ValueError(failure)
                    return await self.read(answer)
        raise ValueError("the server's image is behind more than 4 redirects")

    def _cost(self, headers: Mapping[str, str], usage: Usage) -> float | None:
        """The cost as the server states it (LiteLLM does), else by the recipe's prices; None if unknown."""
        with suppress(KeyError, ValueError):
            return float(headers["x-litellm-response-cost"])
        tokens = self.price(usage.prompt_tokens, usage.answer_tokens)
        by_tokens = self.price_per_million_input is not None or self.price_per_million_output is not None
        if (by_tokens and tokens is None) or (not by_tokens and self.price_per_image is None):
            return None
        return (tokens or 0.0) + (self.price_per_image or 0.0)


class Datum(BaseModel):
    b64_json: str | None = None
    url: str | None = None


class ImagesResponse(BaseModel):
    """The fields of a server's answer that are read."""

    data: list[Datum] = Field(min_length=1)
    usage: Usage | None = None


def _problem(body: bytes) -> str:
    """The code, type and message of an error, or its text (FastAPI's `detail`); empty if the body has another form."""
    try:
        answer = json.loads(body)
        error = answer["error"] if "error" in answer else answer["detail"]
        return error if isinstance(error, str) else " ".join(str(error.get(n)) for n in ("code", "type", "message"))
    except (ValueError, TypeError, KeyError, AttributeError):
        return ""


def _form(fields: Mapping[str, str | bytes]) -> aiohttp.FormData:
    """The multipart form; it can be sent once."""
    form = aiohttp.FormData()
    for name, value in fields.items():
        if isinstance(value, bytes):
            form.add_field(name, value, filename=f"{name}.png", content_type="image/png")
        else:
            form.add_field(name, value)
    return form


def _png(pixels: Image) -> bytes:
    file = io.BytesIO()
    Pillow.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()


def _mask(canvas: Canvas, box: Any) -> Image:
    """[height, width, 4] of the canvas: transparent in the box. ValueError unless the box is in fractions of the
    sides."""
    try:
        left, top, right, bottom = map(float, box)
    except (TypeError, ValueError):
        raise ValueError(f"plan.box is not [left, top, right, bottom]: {box!r}") from None
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise ValueError(f"plan.box is not [left, top, right, bottom] in fractions of the sides: {box!r}")
    across, down = canvas.inner
    mask = np.full((canvas.height, canvas.width, 4), 255, np.uint8)
    mask[math.floor(top * down) : math.ceil(bottom * down), math.floor(left * across) : math.ceil(right * across)] = 0
    return mask


def _pixels(data: bytes, canvas: Canvas) -> Image:
    """[height, width, 3] of the canvas. ValueError for bytes that are not an image, or one of another aspect, which
    cannot be aligned with the source."""
    try:
        with Pillow.open(io.BytesIO(data), formats=FORMATS) as picture:
            width, height = picture.size
            if abs(math.log(width / height * canvas.height / canvas.width)) > 0.01 or width > 4 * canvas.width:
                raise ValueError(
                    f"the server answered a canvas of {canvas.width}x{canvas.height} with {width}x{height}: give sizes "
                    "that it keeps"
                )
            rgb = picture.convert("RGB")
    except (OSError, SyntaxError, Pillow.DecompressionBombError) as error:
        raise ValueError(f"the server's image cannot be decoded: {error}") from None
    if rgb.size != (canvas.width, canvas.height):
        rgb = rgb.resize((canvas.width, canvas.height), Pillow.Resampling.LANCZOS)
    return np.asarray(rgb)

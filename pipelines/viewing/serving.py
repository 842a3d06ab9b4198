"""Responses that all sites share: static files, pictures and errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from crispedit.pipelines.viewing import pictures, templates

STATIC = {"style.css": "text/css", "view.js": "text/javascript", "icon.svg": "image/svg+xml"}


def static(request: Request) -> Response:
    """A static file of the pages. KeyError for any other."""
    name = request.path_params["name"]
    if name not in STATIC:
        raise KeyError(name)
    headers = {"cache-control": "no-cache"}
    return Response((templates.FOLDER / name).read_bytes(), media_type=STATIC[name], headers=headers)


def picture(recent: pictures.Recent, name: Any, draw: Callable[[], bytes | None]) -> Response:
    """A cached or newly drawn JPEG; 410 if it is damaged, 404 if there is none."""
    try:
        data = recent.get(name, draw)
    except ValueError as error:
        return PlainTextResponse(f"{error}\n", 410)
    if data is None:
        return PlainTextResponse("there is no such picture\n", 404)
    # A key names its content, so a picture never changes.
    headers = {"cache-control": "private, max-age=86400, immutable"}
    return Response(data, media_type="image/jpeg", headers=headers)


def width(request: Request) -> int:
    """The requested width of a picture. ValueError for an unsupported one."""
    text = request.query_params.get("w", "480")
    if not text.isdecimal() or int(text) not in (0, *pictures.WIDTHS):
        raise ValueError(f"a picture's width is 0 or one of {', '.join(map(str, pictures.WIDTHS))}")
    return int(text)


def _bad_request(request: Request, error: Exception) -> Response:
    return PlainTextResponse(f"{error}\n", 400)


def _not_found(request: Request, error: Exception) -> Response:
    return PlainTextResponse("there is no such page\n", 404)


MISTAKES: Mapping[Any, Callable[[Request, Exception], Response]] = {
    ValueError: _bad_request,
    KeyError: _not_found,
    404: _not_found,
}
"""The responses to exceptions."""

"""What all sites share: pages, static files, pictures and errors."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from crispedit.pipelines.viewing import pictures, templates

STATIC = {"style.css": "text/css", "view.js": "text/javascript", "icon.svg": "image/svg+xml"}


class Pages:
    """A site: its routes, and what all its pages have. `current` is what is shown."""

    sections: ClassVar[Sequence[tuple[str, str]]]

    def __init__(self) -> None:
        self.recent = pictures.Recent()
        self.templates = templates.environment()

    def current(self) -> Any:
        """What is shown now; it has a `name` and the time when it was `taken`."""
        raise NotImplementedError

    def routes(self) -> list[Route]:
        raise NotImplementedError

    def app(self) -> Starlette:
        """The application; nothing but its routes is served."""
        shared = [Route("/static/{name}", static), Route("/fresh", self.fresh)]
        return Starlette(routes=[*self.routes(), *shared], exception_handlers=MISTAKES)

    def page(self, request: Request, name: str, s: Any, /, **values: Any) -> HTMLResponse:
        """A rendered template; `s` is what is shown."""
        values |= {"s": s, "path": request.url.path, "sections": self.sections}
        return HTMLResponse(self.templates.get_template(f"{name}.html.jinja").render(values))

    def picture(self, request: Request, name: Any, draw: Callable[[int], bytes | None]) -> Response:
        """A cached or newly drawn JPEG of the requested width; 410 if it is damaged, 404 if there is none. ValueError
        for an unsupported width."""
        width = request.query_params.get("w", "480")
        if not width.isdecimal() or int(width) not in (0, *pictures.WIDTHS):
            raise ValueError(f"a picture's width is 0 or one of {', '.join(map(str, pictures.WIDTHS))}")
        try:
            data = self.recent.get((name, width), lambda: draw(int(width)))
        except ValueError as error:
            return PlainTextResponse(f"{error}\n", 410)
        if data is None:
            return PlainTextResponse("there is no such picture\n", 404)
        # A key names its content, so a picture never changes.
        headers = {"cache-control": "private, max-age=86400, immutable"}
        return Response(data, media_type="image/jpeg", headers=headers)

    def fresh(self, request: Request) -> Response:
        """When what is shown was taken; an open page polls it and says when there is more to see."""
        return JSONResponse({"taken": self.current().taken})


def static(request: Request) -> Response:
    """A static file of the pages. KeyError for any other."""
    name = request.path_params["name"]
    kind, headers = STATIC[name], {"cache-control": "no-cache"}
    return Response((templates.FOLDER / name).read_bytes(), media_type=kind, headers=headers)


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

"""Access control of the browser's server: Host, Origin and token are checked first, and every response forbids the page
to load anything from elsewhere."""

import ipaddress
import secrets
import socket
from collections.abc import Sequence
from http.cookies import SimpleCookie
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "crispedit-view"
POLICY = (
    "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


class Guard:
    """Passes a request on to `app` if its Host is this server, if its Origin is this server's pages (for changes), and
    if it has the token (if one is set).

    Another site's page can make a browser send requests here, through a host name that resolves to this machine (DNS
    rebinding) or a form. The first has a wrong Host, the second a wrong Origin.
    """

    def __init__(self, app: ASGIApp, host: str, token: str | None, hosts: Sequence[str] = ()) -> None:
        self.app = app
        self.token = token
        self._names = {"localhost", "127.0.0.1", "::1", host.strip("[]").lower(), *(name.lower() for name in hosts)}
        if not is_loopback(host):
            self._names |= {socket.gethostname().lower(), socket.getfqdn().lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        else:
            answering = self._refusal(scope) or self.app
            await answering(scope, receive, self._with_headers(send))

    def _refusal(self, scope: Scope) -> ASGIApp | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self._known(host):
            return PlainTextResponse(f"this server does not have the name {host[:200]!r}\n", 421)
        if scope["method"] not in ("GET", "HEAD"):
            origin = urlsplit(headers.get("origin", ""))
            if origin.netloc != host or headers.get("sec-fetch-site", "same-origin") != "same-origin":
                return PlainTextResponse("only this server's own pages may change something\n", 403)
        return None if self.token is None else self._without_token(scope, headers, self.token)

    def _known(self, host: str) -> bool:
        name = (urlsplit(f"//{host}").hostname or "").lower()
        if name in self._names:
            return True
        if self.token is None:
            return False
        try:  # an IP address cannot be rebound; the token guards the rest
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _without_token(self, scope: Scope, headers: Headers, token: str) -> ASGIApp | None:
        given = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        if secrets.compare_digest(given.pop("token", "").encode(), token.encode()):
            rest = f"?{urlencode(given)}" if given else ""
            to = RedirectResponse(scope["path"] + rest, 303)  # removes the token from the address
            to.set_cookie(COOKIE, token, httponly=True, samesite="strict", path="/")
            return to
        cookies = SimpleCookie(headers.get("cookie", ""))
        if COOKIE in cookies and secrets.compare_digest(cookies[COOKIE].value.encode(), token.encode()):
            return None
        return PlainTextResponse("open the address that `crispedit view` printed: it has the token\n", 401)

    def _with_headers(self, send: Send) -> Send:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        return sending

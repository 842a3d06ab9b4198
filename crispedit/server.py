"""A server that a recipe names: its address without secrets, and its key, which only the environment holds."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

OPENAI_URL = "https://api.openai.com/v1"


def checked(url: str) -> str:
    """The address as it was given. ValueError if it is none, or would store a secret with the run."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is no address of a server, such as http://localhost:8000/v1")
    if parts.username or parts.password or parts.query:
        raise ValueError("base_url holds credentials or a query, which runs would store; use api_key_env")
    return url


def key(what: str, url: str, variable: str | None) -> str | None:
    """The key, from the environment. A server that the recipe names no variable for is sent none, whatever the
    environment holds; only OpenAI's own has a usual one. ValueError, which names `what` asks, if it is not set."""
    if variable is None and urlsplit(url).hostname == urlsplit(OPENAI_URL).hostname:
        variable = "OPENAI_API_KEY"
    if variable is None:
        return None
    if not os.environ.get(variable):
        raise ValueError(f"{what} {url} needs a key: set the environment variable {variable}")
    return os.environ[variable]


def without_key(text: str, secret: str | None) -> str:
    """Some servers repeat the key in their complaints."""
    return text.replace(secret, "[key]") if secret else text

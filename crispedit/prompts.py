"""Prompts: what models are asked, as Jinja files in `configs/prompts`, named by what is in their hashes.

A prompt has no version number to forget: its identity is its text, so a word changed in a file changes the fingerprint
of every part that uses it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any

import jinja2

from crispedit.record import content_key

FOLDER = resources.files("crispedit.configs") / "prompts"


def render(name: str, **values: object) -> str:
    """The prompt `configs/prompts/NAME.jinja` with these values; one that it needs and does not get is an error."""
    return _template(name).render(**values).strip()


def versions(names: Sequence[str]) -> dict[str, Any]:
    """What enters a part's identity for the prompts it uses: their texts' hashes, by name."""
    return {name: content_key("prompt", _text(name)) for name in names}


@cache
def _template(name: str) -> jinja2.Template:
    return _ENVIRONMENT.from_string(_text(name))


@cache
def _text(name: str) -> str:
    return (FOLDER / f"{name}.jinja").read_text(encoding="utf-8")


_ENVIRONMENT = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)

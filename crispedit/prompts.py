"""Prompts: Jinja files in `configs/prompts`.

A prompt's identity is the hash of its text, so changing a word changes the fingerprint of every part that uses it.
"""

from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any

import jinja2

from crispedit.record import content_key

FOLDER = resources.files("crispedit.configs") / "prompts"


def render(name: str, **values: object) -> str:
    """The prompt `configs/prompts/NAME.jinja`, filled with these values; a missing value is an error."""
    return _ENVIRONMENT.get_template(name).render(**values).strip()


def versions(names: Sequence[str]) -> dict[str, Any]:
    """The hashes of prompts by name, for the identity of a part that uses them."""
    return {name: content_key("prompt", _text(name)) for name in names}


@cache
def _text(name: str) -> str:
    return (FOLDER / f"{name}.jinja").read_text(encoding="utf-8")


_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FunctionLoader(_text), undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
)

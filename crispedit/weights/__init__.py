"""The small models that ship with the package: a folder each, with weights, configuration and a card."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from crispedit.record import content_key


def folder(name: str) -> Path:
    """Where the model lies, if it is there."""
    return Path(str(resources.files(__name__))) / name


def fingerprint(name: str) -> str | None:
    """A hash of the model's weights, which change with the package; None if there are none."""
    files = sorted(folder(name).glob("*.safetensors"))
    return content_key(*(file.read_bytes() for file in files)) if files else None

"""The compositor's catalogues: YAML files beside this one."""

from __future__ import annotations

from importlib import resources
from typing import Any

import yaml


def load(name: str) -> dict[str, Any]:
    text = (resources.files("crispedit.compositor") / f"{name}.yaml").read_text(encoding="utf-8")
    loaded: dict[str, Any] = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return loaded

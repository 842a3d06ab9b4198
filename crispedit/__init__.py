"""What an image edit is, and the models that make, judge and learn edits."""

import importlib
from pathlib import Path
from typing import Any

__version__ = "0.1.0"

PUBLIC = {
    "read_shards": ("crispedit.shards.read", "read_shards"),
    "classify": ("crispedit.classifier", "classify"),
    "load_recipe": ("crispedit.pipelines.recipe", "load"),
    "build": ("crispedit.pipelines.build", "build_recipe"),
}
"""What `from crispedit import ...` gives, and where it is defined. Loaded when asked for: see docs/python.md."""

_HERE = Path(__file__).parent
if not (_HERE / "pipelines").is_dir():
    # A checkout: `filters`, `shards`, `pipelines` and `configs` lie beside this folder; in a wheel they lie inside it.
    __path__.append(str(_HERE.parent))


def __getattr__(name: str) -> Any:
    if name not in PUBLIC:
        raise AttributeError(f"module 'crispedit' has no attribute {name!r}")
    module, attribute = PUBLIC[name]
    return getattr(importlib.import_module(module), attribute)

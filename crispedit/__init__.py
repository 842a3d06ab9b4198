"""What an image edit is, and the models that make, judge and learn edits."""

from pathlib import Path

__version__ = "0.1.0"

_HERE = Path(__file__).parent
if not (_HERE / "pipelines").is_dir():
    # A checkout: `filters`, `shards`, `pipelines` and `configs` lie beside this folder; in a wheel they lie inside it.
    __path__.append(str(_HERE.parent))

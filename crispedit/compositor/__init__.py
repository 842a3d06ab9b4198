"""The compositor: edits photographs on a CPU, without a model. Its annotator and editor share it.

`scene` reads a photograph (light, ground, free places). `objects` names what can be put into it, built from `solids`;
`render` draws them, `sprites` adds their shadow and inserts them. `cutout` finds the photograph's own subject,
`recolour` its main hue. `landscape` paints new backgrounds from the layers of `scenery` over a `terrain`, `styles`
repaints the whole photograph, `language` writes instructions and captions, and `colours` names colours. The catalogues
of objects, landscapes, styles and wordings are YAML files here.
"""

from importlib import resources
from typing import Any

import yaml


def catalogue(name: str) -> dict[str, Any]:
    """The YAML file of this name in this folder."""
    text = (resources.files(__name__) / f"{name}.yaml").read_text(encoding="utf-8")
    entries: dict[str, Any] = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return entries

"""The objects that the compositor can put into a photograph, by name; `objects.yaml` is the catalogue."""

from functools import lru_cache
from typing import Any

from pydantic.dataclasses import dataclass

from crispedit.compositor import catalogue, solids
from crispedit.compositor.render import Shape, Surface


@dataclass(frozen=True)
class Kind:
    """An entry of the catalogue; the head of `objects.yaml` explains the fields."""

    noun: str
    sizes: tuple[float, float]
    radius: float
    parts: tuple[dict[str, Any], ...]
    top: float = 1.0
    colours: tuple[str, ...] = ()
    air: bool = False
    turns: bool = False
    tint: str = ""
    front: str = ""


KINDS = {kind: Kind(**entry) for kind, entry in catalogue("objects").items() if kind != "x-colours"}


def name(kind: str, colour: str) -> str:
    """The name of an object in a colour, without an article: "red mug", "wooden crate"."""
    noun = KINDS[kind].noun
    return noun.format(colour=colour) if "{" in noun else f"{colour} {noun}".strip()


@lru_cache(maxsize=64)
def shape(kind: str) -> Shape:
    """The built object. ValueError for a name that is not in the catalogue."""
    if kind not in KINDS:
        raise ValueError(f"there is no object {kind!r}; choose from {', '.join(KINDS)}")
    about = KINDS[kind]
    parts = (Surface(**{name: _built(value) for name, value in part.items()}) for part in about.parts)
    return Shape(tuple(parts), about.radius, about.top)


def _built(spec: Any) -> Any:
    """A solid or outline from {name: arguments}; arguments may be nested in the same form."""
    if isinstance(spec, list):
        return tuple(map(_built, spec))
    if not isinstance(spec, dict):
        return spec
    [(operation, arguments)] = spec.items()
    function, built = getattr(solids, operation), _built(arguments)
    return function(*built) if operation in ("curve", "closed") else lambda points: function(points, *built)

"""The objects that the compositor can put into a photograph, by name; `objects.yaml` is the catalogue."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from crispedit.compositor import catalogue, paints, solids
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


def _kind(entry: dict[str, Any]) -> Kind:
    listed: dict[str, Any] = {key: tuple(value) for key, value in entry.items() if isinstance(value, list)}
    return Kind(**(entry | listed))


KINDS = {kind: _kind(entry) for kind, entry in catalogue.load("objects").items() if kind != "x-colours"}


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
    return Shape(tuple(_surface(**part) for part in about.parts), about.radius, about.top)


def _surface(solid: dict[str, Any], paint: str | list[float] = "plain", **looks: float) -> Surface:
    painted = getattr(paints, paint) if isinstance(paint, str) else paints.fixed(*paint)
    return Surface(_built(solid), painted, **looks)


def _built(spec: Any) -> Any:
    """A solid or outline from {name: arguments}; arguments may be nested in the same form."""
    if not isinstance(spec, dict):
        return spec
    [(operation, arguments)] = spec.items()
    return getattr(solids, operation)(*[_built(argument) for argument in arguments])

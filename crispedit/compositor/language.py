"""Language: words edits in many ways, as instructions and as captions before and after.

The wordings are in `language.yaml`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from crispedit.compositor import catalogue

T = TypeVar("T")


@dataclass(frozen=True)
class Wording:
    """An instruction, and the captions before and after."""

    instruction: str
    source_caption: str
    target_caption: str


_TABLES = catalogue("language")


def pick(rng: np.random.Generator, choices: Sequence[T]) -> T:
    return choices[int(rng.integers(len(choices)))]


def _weighed(rng: np.random.Generator, weights: Mapping[str, int]) -> str:
    return pick(rng, [text for text, weight in weights.items() for _ in range(weight)])


def a(noun: str) -> str:
    """The noun with its indefinite article."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def filled(template: str, **slots: str) -> str:
    """A template with its slots filled, also those that start with a capital letter."""
    return template.format(**slots, **{sentence(name): sentence(text) for name, text in slots.items()})


def side(x: float, y: float) -> tuple[str, str]:
    """(left | right | "", top | bottom | "") of a point of the picture, x and y as fractions; "" is the middle."""
    return ("left" if x < 0.42 else "right" if x > 0.58 else "", "top" if y < 0.36 else "bottom" if y > 0.68 else "")


def where(rng: np.random.Generator, x: float, y: float) -> str:
    """Where a point of the picture is: "on the left", "in the top right corner", "in the middle"."""
    sides: dict[str, list[str]] = _TABLES["sides"]
    across, level = side(x, y)
    if not across:
        return pick(rng, sides[level or "centre"])
    outer = x < 0.3 or x > 0.7
    if not level:
        return pick(rng, sides[across] if outer else [*sides[across][:2], f"{across} of centre"])
    upper = "upper" if level == "top" else "lower"
    corner = [f"in the {level} {across} corner"] if outer and (y < 0.25 or y > 0.75) else []
    both = [f"in the {level} {across}", f"in the {upper} {across}", f"at the {level} {across}"]
    return pick(rng, [*both, f"on the {across}", *corner])


def instruct(rng: np.random.Generator, act: str, **slots: str) -> str:
    """One instruction for an act (a key of `orders`). Slots are in lower case: the="the red mug"."""
    if rng.random() < 0.22:
        return filled(pick(rng, _TABLES["sentences"][act]), **slots)
    order = filled(pick(rng, _TABLES["orders"][act]), **slots)
    line = filled(_weighed(rng, _TABLES["manners"]), order=order)
    if line[-1] in ".?":
        closings = _TABLES["closings"]
        line += filled(_weighed(rng, closings.get(act, closings["any"])), **slots)
    return line


def showing(rng: np.random.Generator, photo: str, *things: tuple[str, str]) -> list[str]:
    """One caption for each (what, where), all in the same wording."""
    template = pick(rng, _TABLES["showing"])
    return [filled(template, photo=photo, what=what, where=at) for what, at in things]

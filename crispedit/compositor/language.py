"""Language: says what an edit does, in many ways: instructions, and captions of the picture before and after it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Words:
    """An instruction, and the captions before and after."""

    instruction: str
    source_caption: str
    target_caption: str


def pick(rng: np.random.Generator, choices: tuple[str, ...] | list[str]) -> str:
    return choices[int(rng.integers(len(choices)))]


def a(noun: str) -> str:
    """With its indefinite article."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def where(x: float, y: float) -> str:
    """Where a point of the picture is, x and y as fractions: "on the left", "at the top right", "in the centre"."""
    side = "left" if x < 0.4 else "right" if x > 0.6 else ""
    level = "top" if y < 0.36 else "bottom" if y > 0.7 else ""
    if side and level:
        return f"in the {level} {side}"
    if side:
        return f"on the {side}"
    return f"near the {level}" if level else "in the centre"


def said(rng: np.random.Generator, order: str) -> str:
    """An imperative without its full stop ("add a ball"), said as people say it."""
    return pick(rng, _MANNERS).format(order=order, Order=order[0].upper() + order[1:])


_MANNERS = (
    "{Order}.", "{Order}.", "{Order}.", "{Order}", "{order}", "Please {order}.", "Could you {order}?", "Can you {order}?",
    "I'd like you to {order}.", "{Order}, please.", "{Order} and leave everything else as it is.",
    "{Order}; keep the rest of the photo unchanged.", "Edit the photo: {order}.", "In this picture, {order}.",
)  # fmt: skip

"""Inverse edits: the instruction that undoes one, rewritten by rule, or by a chat model that sees both images.

An inverse pair is the same two images in the other order: "Add a red ball on the grass." becomes "Remove the red ball
on the grass." The rules only rewrite orders that name both states: "Make the car blue" does not say what colour the car
was. A model can look at the images; its instruction is used if the classifier finds that it asks for the opposite kind
of edit.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pydantic import Field

from crispedit import classifier, prompts
from crispedit.category import load_categories
from crispedit.chat import Chat, ChatAnswer, ChatRequest, Reply
from crispedit.record import Image

RULE = "rule"


@dataclass(frozen=True)
class Inverse:
    """The instruction of an inverse edit, its category, and who wrote it: `RULE` or the name of a model."""

    instruction: str
    category: str
    by: str = RULE


@dataclass(frozen=True)
class InvertibleEdit:
    """An edit that may be inverted."""

    category: str
    instruction: str
    source: Callable[[], Image]
    edited: Callable[[], Image]


class Opposite(Reply):
    """The opposite edit."""

    possible: bool = Field(description="Can an edit of this kind turn the first photograph into the second one?")
    instruction: str = Field(description="The instruction; empty if there is none.", max_length=400)


def by_rule(edits: Sequence[InvertibleEdit]) -> list[Inverse | None]:
    """The inverse of each edit that a rule knows."""
    return [invert(edit.category, edit.instruction) for edit in edits]


def by_model(chat: Chat, edits: Sequence[InvertibleEdit]) -> list[Inverse | None]:
    """The inverse of each edit, by rule, or by a chat model, which is shown what no rule knows; None where there is
    none, or the model gave no answer that can be used."""
    undone = by_rule(edits)
    left = [i for i, edit in enumerate(edits) if undone[i] is None and edit.category in _RULES]
    for i, answer in zip(left, chat.ask([_question(edits[i]) for i in left]), strict=True):
        if isinstance(answer, ChatAnswer) and answer.value.possible:
            instruction = " ".join(answer.value.instruction.split())
            _, wanted = _RULES[edits[i].category]
            if instruction and classifier.classify(instruction).category == wanted:
                undone[i] = Inverse(instruction, wanted, chat.model)
    return undone


def _question(edit: InvertibleEdit) -> ChatRequest[Opposite]:
    _, wanted = _RULES[edit.category]
    definition = load_categories()[wanted].definition
    text = prompts.render("inverse", instruction=edit.instruction, category=wanted, definition=definition)
    return ChatRequest(text, Opposite, [edit.edited(), edit.source()])


def invert(category: str, instruction: str) -> Inverse | None:
    """The instruction that undoes this one, or None if no rule knows it."""
    order = _order(instruction)
    if category not in _RULES or order is None:
        return None
    rewrite, other = _RULES[category]
    undone = rewrite(order)
    return None if undone is None else Inverse(f"{undone[0].upper()}{undone[1:]}.", other)


_POLITE = re.compile(
    r"^(please,? |just |next, |let's |go ahead and |(could|can|would|will) you (please )?|"
    r"i(['’]d like| want| would like) you to |your task: |(edit|retouch) (the|this) (photo|image|picture): |"
    r"in this (photo|image|picture),? |use this (photo|image|picture) and )",
    re.I,
)
_CLOSING = re.compile(r"^(leave|keep|don't|do not|nothing else|match|it should look|give it|show what|fill)\b", re.I)
"""Beginnings of sentences that ask for no further edit."""
_SEVERAL = re.compile(r"[;:?!]|\b(and|then|also|both|each|every|all|it|its|them|there|another|more|some)\b", re.I)
"""Words of an order that asks for several things or refers to a thing without naming it."""


def _order(instruction: str) -> str | None:
    """The single order of an instruction, without polite words and closings; None if there may be several."""
    sentences = re.split(r"(?<=[.!?])\s+", instruction.strip())
    if any(not _CLOSING.match(text) for text in sentences[1:]):
        return None
    order = re.sub(r",? please$", "", sentences[0].rstrip(".!? "), flags=re.I)
    order = _POLITE.sub("", order)
    return None if not order or "." in order or _SEVERAL.search(order) else order


_ADD = re.compile(r"(?:add|put|place|insert|set|draw in|bring in|include|introduce) (an?) (.+)", re.I)
_REMOVE = re.compile(r"(?:remove|erase|delete|take away|get rid of|edit out|paint out) the (.+)", re.I)
_REPLACE = (
    re.compile(r"replace (the|an?) (?P<old>.+?) (with) (the|an?) (?P<new>.+)", re.I),
    re.compile(r"(?:swap|exchange|trade) (the|an?) (?P<old>.+?) (for) (the|an?) (?P<new>.+)", re.I),
    re.compile(r"(?:turn|change|transform) (the|an?) (?P<old>.+?) (into) (an?) (?P<new>.+)", re.I),
)
_PLACE = re.compile(
    r" (on|at|in|near|under|above|below|beside|behind|against|to the (?:left|right)|next to|in front of|left of"
    r"|right of|between|along|over|inside|among|by|from|into|onto|to|that|which|with|who)\b.*$",
    re.I,
)
"""What follows the thing itself."""
_COLOURS = (
    "red|orange|yellow|green|blue|purple|violet|pink|brown|black|white|grey|gray|cyan|magenta|turquoise|teal|beige|gold"
    "|golden|silver|crimson|navy|maroon|olive|lime|indigo|lilac|lavender|scarlet"
)
_FROM_TO = re.compile(rf"(.+) from ({_COLOURS}) to ({_COLOURS})", re.I)
_RECOLOUR = re.compile(
    rf"((?:make|paint|turn|dye|tint|colou?r|recolou?r|repaint|change|change the colou?r of) the )"
    rf"({_COLOURS})( (?:(?!\b(?:{_COLOURS})\b).)+?)( to| in|) ({_COLOURS})",
    re.I,
)


_ONE = re.compile(
    r"(?!people|men|women|children|mice|geese|sheep|hair|water|snow|grass|clouds|background|text|writing|sky)"
    r"[a-z-]*([^s]|ss|us)",
    re.I,
)


def _add(order: str) -> str | None:
    match = _ADD.fullmatch(order)
    if match is None:
        return None
    # "Add a hat to the man" is undone by "Remove the hat from the man".
    thing = re.sub(r" (?:onto|into|to) (?!the (?:left|right)\b)", " from ", match[2], count=1, flags=re.I)
    return f"Remove the {thing}"


def _remove(order: str) -> str | None:
    match = _REMOVE.fullmatch(order)
    if match is None or not _is_one(match[1]) or re.search(r" (that|which|who)\b", match[1], re.I):
        return None
    thing = re.sub(r" from (?!the (?:left|right)\b)", " to ", match[1], count=1, flags=re.I)
    return f"Add {_indefinite(thing)}"


def _replace(order: str) -> str | None:
    match = next((m for pattern in _REPLACE if (m := pattern.fullmatch(order))), None)
    if match is None:
        return None
    old, new = _PLACE.sub("", match["old"]), match["new"]
    place = match["old"].removeprefix(old)
    if _PLACE.search(new) or not _is_one(old) or not _is_one(new):
        return None
    return f"Replace the {new}{place} with {_indefinite(old)}"


def _color(order: str) -> str | None:
    if match := _FROM_TO.fullmatch(order):
        if len(re.findall(rf"\b(?:{_COLOURS})\b", match[1], re.I)):  # the thing is also called by its colour
            return None
        return f"{match[1]} from {match[3]} to {match[2]}"
    match = _RECOLOUR.fullmatch(order)
    if match is None or match[2].lower() == match[5].lower():
        return None
    return f"{match[1]}{match[5]}{match[3]}{match[4]} {match[2]}"


def _is_one(thing: str) -> bool:
    """Whether the words name one thing, so that "a" can precede them. False for plurals and doubtful words."""
    return any(_ONE.fullmatch(head) for head in _PLACE.sub("", f" {thing}").split()[-1:])


def _indefinite(thing: str) -> str:
    return f"{'an' if thing[0].lower() in 'aeiou' else 'a'} {thing}"


_RULES: dict[str, tuple[Callable[[str], str | None], str]] = {
    "add": (_add, "remove"),
    "remove": (_remove, "add"),
    "replace": (_replace, "replace"),
    "color": (_color, "color"),
}
"""The rule of a category, and the category of its inverse."""

"""Language: says what an edit does, in many ways: instructions, and captions of the picture before and after it.

A sentence is an order ("put {new} {where}") in one of many manners ("Could you {order}?"), or a plain sentence of its
own ("There should be {new} {where}."); each slot has several wordings. Every wording says the same truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

T = TypeVar("T")


@dataclass(frozen=True)
class Words:
    """An instruction, and the captions before and after."""

    instruction: str
    source_caption: str
    target_caption: str


def pick(rng: np.random.Generator, choices: Sequence[T]) -> T:
    return choices[int(rng.integers(len(choices)))]


def a(noun: str) -> str:
    """With its indefinite article."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def sentence(text: str) -> str:
    """With a capital letter."""
    return text[0].upper() + text[1:]


_SIDES = {
    "left": ("on the left", "on the left side", "on the left-hand side", "to the left"),
    "right": ("on the right", "on the right side", "on the right-hand side", "to the right"),
    "top": ("at the top", "near the top", "in the upper part of the picture", "up high in the frame"),
    "bottom": (
        "at the bottom",
        "near the bottom",
        "in the lower part of the picture",
        "down low in the frame",
    ),
    "centre": (
        "in the middle",
        "in the centre",
        "in the centre of the picture",
        "in the middle of the frame",
    ),
}


def side(x: float, y: float) -> tuple[str, str]:
    """(left | right | "", top | bottom | "") of a point of the picture, x and y as fractions; "" is the middle."""
    return (
        "left" if x < 0.42 else "right" if x > 0.58 else "",
        "top" if y < 0.36 else "bottom" if y > 0.68 else "",
    )


def where(rng: np.random.Generator, x: float, y: float) -> str:
    """Where a point of the picture is: "on the left", "in the top right corner", "in the middle"."""
    across, level = side(x, y)
    if not across:
        return pick(rng, _SIDES[level or "centre"])
    outer = x < 0.3 or x > 0.7
    if not level:
        beside = ("left of centre" if across == "left" else "right of centre",)
        return pick(rng, _SIDES[across] if outer else _SIDES[across][:2] + beside)
    upper = "upper" if level == "top" else "lower"
    corner = (f"in the {level} {across} corner",) if outer and (y < 0.25 or y > 0.75) else ()
    return pick(
        rng,
        (
            f"in the {level} {across}",
            f"in the {upper} {across}",
            f"at the {level} {across}",
            f"on the {across}",
            *corner,
        ),
    )


_MANNERS = (
    "{Order}.",
    "{Order}.",
    "{Order}.",
    "{Order}",
    "{order}",
    "{order}",
    "Please {order}.",
    "please {order}",
    "Could you {order}?",
    "Can you {order}?",
    "Can you {order} please?",
    "Would you {order}?",
    "I'd like you to {order}.",
    "I want you to {order}.",
    "{Order}, please.",
    "Edit the photo: {order}.",
    "In this picture, {order}.",
    "Your task: {order}.",
    "Let's {order}.",
    "Just {order}.",
    "Next, {order}.",
    "Retouch this image: {order}.",
    "Go ahead and {order}.",
    "Use this photo and {order}.",
)
_CLOSINGS = (
    *("",) * 6,
    " Leave everything else as it is.",
    " Keep the rest of the photo unchanged.",
    " Nothing else should change.",
    " Don't touch anything else.",
    " Keep the framing.",
)
_ADDING_CLOSINGS = (
    *_CLOSINGS,
    " It should look natural.",
    " Match the light of the scene.",
    " Give it a natural shadow.",
)
_REMOVING_CLOSINGS = (
    *_CLOSINGS,
    " Show what was behind it.",
    " Leave no trace of it.",
    " Fill the gap naturally.",
)
_STYLE_CLOSINGS = (
    "",
    "",
    "",
    "",
    " Keep the composition.",
    " Keep the layout recognisable.",
    " The content should stay the same.",
)
_BACKGROUND_CLOSINGS = (
    "",
    "",
    "",
    "",
    " Keep {the} exactly as it is.",
    " {The} itself must not change.",
    " Leave {the} where it is.",
)

_CLOSINGS_OF = {
    "add": _ADDING_CLOSINGS,
    "replace": _ADDING_CLOSINGS,
    "remove": _REMOVING_CLOSINGS,
    "style": _STYLE_CLOSINGS,
    "background": _BACKGROUND_CLOSINGS,
}

_ORDERS: dict[str, tuple[str, ...]] = {
    "add": (
        "add {new} {where}",
        "put {new} {where}",
        "place {new} {where}",
        "insert {new} {where}",
        "set {new} {where}",
        "draw in {new} {where}",
        "bring in {new} {where}",
        "include {new} {where}",
        "make {new} appear {where}",
        "introduce {new} {where}",
        "composite {new} into the photo {where}",
        "add {new} to the scene {where}",
    ),
    "remove": (
        "remove {the} {where}",
        "take away {the} {where}",
        "erase {the} {where}",
        "delete {the} {where}",
        "get rid of {the} {where}",
        "take {the} {where} out of the picture",
        "make {the} {where} disappear",
        "clean {the} {where} out of the shot",
        "edit out {the} {where}",
        "remove {the} that is {where}",
        "wipe {the} {where} from the scene",
        "paint out {the} {where}",
    ),
    "replace": (
        "replace {the} {where} with {new}",
        "swap {the} {where} for {new}",
        "turn {the} {where} into {new}",
        "exchange {the} {where} for {new}",
        "substitute {new} for {the} {where}",
        "put {new} in place of {the} {where}",
        "change {the} {where} into {new}",
        "take out {the} {where} and put {new} there",
        "remove {the} {where} and place {new} in the same spot",
        "trade {the} {where} for {new}",
    ),
    "color": (
        "make {the} {where} {colour}",
        "change the colour of {the} {where} to {colour}",
        "recolor {the} {where} to {colour}",
        "paint {the} {where} {colour}",
        "turn {the} {where} {colour}",
        "dye {the} {where} {colour}",
        "give {the} {where} the colour {colour}",
        "change {the} {where} from {old} to {colour}",
        "tint {the} {where} {colour}",
        "switch the colour of {the} {where} from {old} to {colour}",
        "repaint {the} {where} in {colour}",
    ),
    "tone": (
        "turn everything {old} in the photo {colour}",
        "recolor the {old} areas to {colour}",
        "make the {old} parts {colour}",
        "shift the {old} tones to {colour}",
        "change all the {old} to {colour}",
        "replace the {old} colour with {colour}",
        "recolor whatever is {old} so that it becomes {colour}",
        "dye the {old} parts of the picture {colour}",
        "swap the {old} in this photo for {colour}",
        "paint the {old} regions {colour}",
    ),
    "background": (
        "replace the background behind {the} with {new}",
        "change the background to {new}",
        "put {the} in front of {new}",
        "move {the} to {new}",
        "swap the backdrop for {new}",
        "set {the} against {new}",
        "place {the} in a new setting: {new}",
        "exchange everything behind {the} for {new}",
        "keep {the} but change the background to {new}",
        "cut out {the} and show it with {new} behind it",
        "make the background {new}",
        "transport {the} to {new}",
    ),
    "style": (
        "turn this photo into {new}",
        "make the picture look like {new}",
        "render the image as {new}",
        "restyle the whole picture as {new}",
        "convert the photo to {new}",
        "redraw the scene as {new}",
        "give the image the look of {new}",
        "transform it into {new}",
        "repaint everything as {new}",
        "reimagine the photo as {new}",
        "apply the style of {new}",
        "show the same scene as {new}",
    ),
    "move": (
        "move {the} {to}",
        "shift {the} {to}",
        "slide {the} {to}",
        "push {the} {to}",
        "drag {the} {to}",
        "reposition {the} {to}",
        "relocate {the} {to}",
        "bring {the} {to}",
        "place {the} further {to}",
        "nudge {the} {to}",
    ),
    "bigger": (
        "make {the} {where} bigger",
        "enlarge {the} {where}",
        "scale up {the} {where}",
        "increase the size of {the} {where}",
        "blow up {the} {where}",
        "make {the} {where} larger",
        "scale {the} {where} up",
    ),
    "smaller": (
        "make {the} {where} smaller",
        "shrink {the} {where}",
        "scale down {the} {where}",
        "reduce the size of {the} {where}",
        "make {the} {where} quite a bit smaller",
        "downsize {the} {where}",
    ),
    "closer": (
        "bring {the} closer to the camera",
        "move {the} towards the viewer",
        "pull {the} forward",
        "move {the} nearer",
        "bring {the} further into the foreground",
    ),
    "farther": (
        "move {the} further away from the camera",
        "push {the} back into the scene",
        "move {the} away from the viewer",
        "set {the} further back",
        "shift {the} further into the distance",
    ),
    "face": (
        "turn {the} around so that its {front} points {to}",
        "rotate {the} until the {front} is on the {to}",
        "turn {the} so the {front} points to the {to}",
        "spin {the} around: the {front} should be on the {to}",
        "swivel {the} until its {front} points {to}",
    ),
    "turn": (
        "rotate {the} {where} a bit around its vertical axis",
        "turn {the} {where} to show another side",
        "spin {the} {where} so that we see it from another angle",
        "turn {the} {where} on the spot",
        "rotate {the} {where} in place",
    ),
}
_SENTENCES: dict[str, tuple[str, ...]] = {
    "add": (
        "There should be {new} {where}.",
        "I want to see {new} {where}.",
        "This photo needs {new} {where}.",
        "{New} {where}, please.",
        "I'd love to have {new} {where}.",
        "How about {new} {where}?",
        "What would it look like with {new} {where}?",
    ),
    "remove": (
        "{The} {where} should go.",
        "I don't want {the} {where}.",
        "The photo would be better without {the} {where}.",
        "No {bare} {where}, please.",
        "{The} {where} has to disappear.",
    ),
    "replace": (
        "Instead of {the} {where}, I want {new}.",
        "{The} {where} should be {new} instead.",
        "{New} instead of {the}, please.",
        "Where {the} is now, there should be {new}.",
    ),
    "color": (
        "{The} {where} should be {colour}.",
        "I want {the} {where} in {colour}.",
        "{The}: from {old} to {colour}.",
        "What if {the} {where} were {colour}?",
    ),
    "tone": (
        "Everything {old} should be {colour}.",
        "{Old} parts in {colour}, please.",
        "I want the {old} areas to be {colour}.",
    ),
    "background": (
        "{The} should be in front of {new}.",
        "I want {new} as the background.",
        "Background: {new}.",
        "Same {bare}, but with {new} behind it.",
        "Imagine {the} in front of {new}.",
    ),
    "style": (
        "I want this as {new}.",
        "As {new}, please.",
        "What would this look like as {new}?",
        "Style: {new}.",
        "The photo should look like {new}.",
    ),
    "move": ("{The} should be further {to}.", "I want {the} further {to}.", "{The} belongs further {to}."),
    "bigger": (
        "{The} {where} should be bigger.",
        "I want a bigger {bare} {where}.",
        "{The} is too small; make it bigger.",
    ),
    "smaller": (
        "{The} {where} should be smaller.",
        "I want a smaller {bare} {where}.",
        "{The} is too big; make it smaller.",
    ),
    "closer": ("{The} should be nearer to us.", "I want {the} closer."),
    "farther": ("{The} should be further away.", "I want {the} further back."),
    "face": ("The {front} of {the} should point {to}.", "{The} should be turned: {front} to the {to}."),
    "turn": ("{The} {where} should be rotated a little.", "I want to see {the} {where} from another side."),
}


def instruct(rng: np.random.Generator, act: str, **slots: str) -> str:
    """One instruction for an act (a key of the tables above). Slots read as in mid-sentence: the="the red mug"."""
    filled = {**slots, **{sentence(name): sentence(text) for name, text in slots.items()}}
    if rng.random() < 0.22:
        return pick(rng, _SENTENCES[act]).format(**filled)
    order = pick(rng, _ORDERS[act]).format(**filled)
    said = pick(rng, _MANNERS).format(order=order, Order=sentence(order))
    if said[-1] in ".?":
        closings = _CLOSINGS_OF.get(act, _CLOSINGS)
        said += pick(rng, closings).format(**filled)
    return said


_SHOWING = (
    "{Photo} with {what} {where}.",
    "{What} {where} in {photo}.",
    "{Photo}; {where} there is {what}.",
    "{Photo} that shows {what} {where}.",
)


def showing(rng: np.random.Generator, photo: str, what: str, where: str) -> tuple[str, str]:
    """Two captions in one wording: of the photo with the thing, to be formatted for either side by the caller."""
    text = pick(rng, _SHOWING)
    slots = {"photo": photo, "what": what, "where": where}
    filled = {**slots, **{sentence(k): sentence(v) for k, v in slots.items()}}
    return text.format(**filled), sentence(photo) + "."


def showing_both(
    rng: np.random.Generator, photo: str, before: tuple[str, str], after: tuple[str, str]
) -> tuple[str, str]:
    """Captions before and after, in one wording, of (what, where)."""
    text = pick(rng, _SHOWING)
    out = []
    for what, at in (before, after):
        slots = {"photo": photo, "what": what, "where": at}
        out.append(text.format(**slots, **{sentence(k): sentence(v) for k, v in slots.items()}))
    return out[0], out[1]


SETTINGS: dict[str, tuple[str, ...]] = {
    "meadow": ("a green meadow", "a grassy meadow with trees", "a summer meadow", "a wide green field"),
    "desert": ("sand dunes", "a sandy desert", "a desert landscape", "golden desert dunes"),
    "beach": ("a sandy beach", "a beach by a turquoise sea", "a quiet beach", "the seashore"),
    "lake": ("a mountain lake", "a calm lake below snowy mountains", "a lake with mountains mirrored in it"),
    "mountains": ("a mountain valley", "an alpine meadow with mountains", "snowy peaks above a green valley"),
    "snow": (
        "a snowy landscape",
        "a winter landscape with firs",
        "a snow-covered field",
        "deep snow and mountains",
    ),
    "sunset": ("a sunset over the water", "an orange sunset by a lake", "a glowing evening sky over water"),
    "night": ("a starry night", "a moonlit landscape at night", "a night sky with stars and the moon"),
    "city": ("a city skyline at dusk", "skyscrapers with lit windows by a river", "a city in the evening"),
    "forest": ("a misty forest", "a forest with tall trunks", "the woods", "a quiet forest in the mist"),
    "garden": (
        "a blurred garden with soft lights",
        "an out-of-focus garden full of colour",
        "a bokeh garden background",
    ),
    "room": (
        "a plain wall and a wooden floor",
        "a bare room with a wooden floor",
        "an empty room with floorboards",
    ),
    "bricks": ("a brick wall and a paved floor", "an old brick wall", "a paved yard with a brick wall"),
}
"""What each kind of landscape is called."""

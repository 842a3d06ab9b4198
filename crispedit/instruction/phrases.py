"""What a phrase of an instruction is: a color, a manner of painting, a place or a time, a movement, a thing."""

from __future__ import annotations

import re

from crispedit.instruction import lexicon
from crispedit.instruction.clauses import Words
from crispedit.instruction.lexicon import AROUND, COPULAS, STYLE, forms, inflects, listed


def head_of(words: Words) -> Words:
    """The words up to the first preposition: what the phrase is about. "of" goes on after "shade", "coat" ..."""
    for index, word in enumerate(words):
        if word in lexicon.PREPOSITIONS and index:
            return words[:index]
    return words


def core_of(words: Words) -> Words:
    """A noun phrase without articles, numbers and intensifiers."""
    skip = lexicon.DETERMINERS | lexicon.INDEFINITE | lexicon.INTENSIFIERS | {"an", "a"}
    return [word for word in words if not listed(word, skip)]


def kind(words: Words, nominal: bool = False) -> str:
    """What a phrase is: "style", "color", "motion", "background" (a setting, a place, a time), "gone", "whole" (the
    picture itself), "thing", or "" for nothing that the grammar can name. A nominal phrase is no verb: "skis"."""
    while words and listed(words[0], COPULAS):
        nominal = nominal or words[0] in ("like", "into")
        words = words[1:]
    if words and inflects(words[0], {"look"}):
        found = kind(words[1:]) or "motion"
        return found if found != "thing" or words[1] in COPULAS else "motion"
    if not words:
        return ""
    if any(word in ("style", "in-style") or listed(word, lexicon.ARTISTS) for word in words):
        return "style"
    if any(word[0].isupper() and word.endswith(("-esque", "esque", "-like")) for word in words):
        return "style"
    if words[0] == "what":
        return "motion" if words[-1] in ("do", "doing", "does") else "thing"
    if "be" in words:
        return kind(words[words.index("be") + 1 :])
    if words[0] in lexicon.PREPOSITIONS:
        return kind_of_place(words)
    head = head_of(words)
    core = core_of(head)
    if not core and len(head) < len(words):
        return kind(words[len(head) + (words[len(head)] == "of") :])
    if not core:
        return "whole" if any(listed(word, lexicon.WHOLE) for word in head) else ""
    last = core[-1]
    bare = not listed(head[0], lexicon.DETERMINERS | lexicon.INDEFINITE)
    acts = bare and inflects(core[0], lexicon.ACTIONS) and (not nominal or core[0].endswith("ing"))
    styled = any(inflects(word, STYLE) and not listed(word, _TINTS) for word in core)
    if (listed(last.rstrip("s"), lexicon.COLOR_NOUNS) and not styled) or (
        colored(core) and not ((nominal or not bare) and core == [last] and last in lexicon.COLOR_THINGS)
    ):
        return "color"
    if bare and listed(core[0], lexicon.SIZES):
        return "motion"
    if any(listed(word, lexicon.GONE) for word in (core[0], last)) or core[-1].endswith("less"):
        return "gone"
    if inflects(last, lexicon.BODY) and head != words and kind_of_place(words[len(head) :]) == "motion":
        return "motion"
    if inflects(last, lexicon.POSE_NOUNS) or acts or posed(core):
        return "motion"
    if (
        inflects(last, lexicon.BACKGROUND)
        or listed(last, lexicon.TIMES_AND_WEATHER)
        or inflects(last, _SCENES)
    ):
        return "background"
    if (
        inflects(last, lexicon.STYLE_NOUNS)
        or re.fullmatch(r"(1\d|20)?\d0s", last)
        or all(inflects(word, STYLE) for word in core)
    ):
        return "style"
    if (
        listed(last, lexicon.WHOLE)
        or inflects(last, lexicon.LOOKS)
        or listed(last.rstrip("s"), lexicon.COLOR_NOUNS)
    ):
        if styled:
            return "style"
        if any(inflects(word, lexicon.PLACES | lexicon.TIMES_AND_WEATHER) for word in core):
            return "background"
        hung = words[len(head) : len(head) + 1] in (["on"], ["above"])  # "the photo on the wall"
        return "whole" if listed(last, lexicon.WHOLE) and not hung else "thing"
    return "thing"


def kind_of_place(words: Words) -> str:
    """What a prepositional phrase is: "in blue", "on a beach", "on one leg"."""
    if not words:
        return ""
    inner = words[1:]
    found, head = kind(inner, nominal=words[0] != "in"), head_of(inner)
    head = head[: head.index("and")] if "and" in head else head
    if found in ("color", "style"):
        return found
    named = any(word[0].isupper() for word in head)
    if words[0] == "by" and named:
        return "style"
    if words[0] in _LOCATIVE and (
        named or found == "background" or (head and inflects(head[-1], lexicon.PLACES))
    ):
        return "background"
    beyond = inner[len(head) :]
    if beyond:
        return kind_of_place([words[0], *beyond[1:]] if beyond[0] == "of" else beyond)
    directed = listed(words[-1], lexicon.DIRECTIONS) or any(inflects(word, lexicon.BODY) for word in inner)
    return "motion" if directed else ""


def colored(core: Words) -> bool:
    """Nothing but a color: "deep red", "yellow one", "tie-dye rainbow colored"."""
    return any(listed(word, lexicon.COLORS) for word in core) and all(
        listed(word.removesuffix("s"), lexicon.COLOR_NOUNS | lexicon.COLOR_MODIFIERS)
        or listed(word, lexicon.COLORS | lexicon.COLOR_MODIFIERS | lexicon.COLOR_NOUNS)
        for word in core
    )


def posed(core: Words) -> bool:
    """How a body is held: "arms crossed", "asleep", "surprised"."""
    if all(listed(word, lexicon.POSE_ADJECTIVES | lexicon.DIRECTIONS) for word in core):
        return True
    body = [word for word in core if inflects(word, lexicon.BODY)]
    rest = [word for word in core if word not in body]
    held = any(inflects(word, lexicon.ACTIONS) or listed(word, lexicon.POSE_ADJECTIVES) for word in rest)
    return bool(body) and (held or listed(core[-1], lexicon.DIRECTIONS - lexicon.BODY))


def sets_scene(words: Words) -> bool:
    """Whether the phrase is about what surrounds the subject: "the sky", "everything behind her"."""
    core = core_of(head_of(words)) or head_of(words)
    if not core:
        return False
    surrounds = inflects(core[-1], lexicon.SURROUNDINGS | lexicon.PLACES | lexicon.WHOLE | _BACKS)
    return inflects(core[-1], lexicon.BACKGROUND) or (surrounds and "behind" in words)


def surrounds(words: Words) -> bool:
    """Whether the phrase is the picture or a place one can be in, rather than a thing to look at."""
    core = core_of(head_of(words))
    return not core or inflects(core[-1], AROUND)


def same_thing(subject: Words, result: Words) -> bool:
    """Whether a color or a pose is all that tells the two apart: "the red car", "a green car"."""
    before, after = core_of(head_of(subject)), core_of(head_of(result))
    told = [
        word
        for word in after[:-1]
        if listed(word, _TINTS) or (word.endswith("ing") and inflects(word, lexicon.ACTIONS))
    ]
    plain = [
        [word for word in core if not listed(word, _TINTS) and word not in told] for core in (before, after)
    ]
    named = [word for word in told if not listed(word, lexicon.COLOR_MODIFIERS - lexicon.COLORS)]
    return (
        bool(named and plain[0] and plain[1])
        and bool(forms(plain[0][-1]) & forms(plain[1][-1]))
        and (
            len(plain[1]) == 1 == len(plain[0]) or plain[0][:-1] == plain[1][:-1] or named[0].endswith("ing")
        )
    )


def treats(core: Words) -> bool:
    """Whether it is laid over the whole picture: "a vintage filter"."""
    return inflects(core[-1], lexicon.TREATMENTS) or "style" in core


_LOCATIVE = frozenset(
    "in on onto at to into through inside during under against amid near by across with".split()
)
_BACKS = frozenset("wall what view area curtain all".split())
_SCENES = lexicon.PLACES - lexicon.STANDING
_TINTS = lexicon.COLORS | lexicon.COLOR_MODIFIERS
